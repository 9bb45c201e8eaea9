//! What comes from the other node or from the disk may be anything. Each module has one `check` for any bytes at all: it
//! must neither panic nor take more memory than is bounded, and what it accepts must mean the same once written again.
//!
//! `make fuzz` runs them under cargo-fuzz, guided by coverage; the tests run them over `corpus/` and over what a fixed
//! seed makes of it.

pub mod epoch;
pub mod frames;
pub mod journal;
mod records;
