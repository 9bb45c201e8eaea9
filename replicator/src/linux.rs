//! Calls of the operating system that rustix has no safe function for.

pub mod filesystem;
pub mod handle;
pub mod process;
pub mod shared;
