//! What the other node sends is carried out within the replicated directory or not at all, whatever it is.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a wrong assumption is a failed test"
)]

#[path = "receiver/frames.rs"]
mod frames;
#[path = "receiver/outside.rs"]
mod outside;
