//! What threads share, and wait on. `tests/schedules.rs` puts a scheduler of its own in its place, and tries many orders in
//! which they may go on.

pub use std::sync::{Arc, atomic};

pub use parking_lot::{Condvar, Mutex};
