//! Synchronous file replication of one mirror module: FUSE capture, stream, apply, journal and resync.
//!
//! Reading order: [`fuse`] what the kernel asks, [`backing`] and [`carry`] how it is done to the files below.

pub mod backing;
pub mod carry;
pub mod clock;
pub mod exclude;
pub mod fuse;
pub mod linux;
