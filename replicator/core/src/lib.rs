//! The pure parts of file replication: no clock, no input or output.
//!
//! Reading order: [`op`], [`key`], [`order`] how operations travel; [`object`], [`extent`], [`dirty`] what differs
//! between two copies; [`record`] how that is written down; [`short`] few bytes in place; [`tree`], [`diff`] how two trees are
//! compared; [`room`] whether that can fit; [`archive`] what is kept of a copy that is given up.

pub mod archive;
pub mod diff;
pub mod dirty;
pub mod extent;
pub mod key;
pub mod object;
pub mod op;
pub mod order;
pub mod record;
pub mod room;
pub mod short;
pub mod tree;
