//! The pure parts of file replication: no clock, no input or output.
//!
//! Reading order: [`op`], [`key`], [`order`].

pub mod key;
pub mod op;
pub mod order;
