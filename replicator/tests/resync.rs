//! The resync on real directories, with a link that applies operations to a second directory in this process. Equality
//! is what rsync says it is.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "in a test a wrong assumption is a failed test"
)]

#[path = "resync/application.rs"]
mod application;
#[path = "resync/concurrent.rs"]
mod concurrent;
#[path = "resync/delta.rs"]
mod delta;
#[path = "resync/full.rs"]
mod full;
#[path = "resync/pair.rs"]
mod pair;
#[path = "resync/random.rs"]
mod random;
#[path = "resync/renamed.rs"]
mod renamed;
#[path = "resync/verify.rs"]
mod verify;
