//! Two real replicator processes, real mounts, real TLS on the loopback, driven through their control sockets.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "in a test a wrong assumption is a failed test"
)]

#[path = "mirror/agentless.rs"]
mod agentless;
#[path = "mirror/alone.rs"]
mod alone;
#[path = "mirror/appends.rs"]
mod appends;
#[path = "mirror/campaign.rs"]
mod campaign;
#[path = "mirror/catch_up.rs"]
mod catch_up;
#[path = "mirror/certificates.rs"]
mod certificates;
#[path = "mirror/conformance.rs"]
mod conformance;
#[path = "mirror/crash.rs"]
mod crash;
#[path = "mirror/epochs.rs"]
mod epochs;
#[path = "mirror/everyday.rs"]
mod everyday;
#[path = "mirror/fence.rs"]
mod fence;
#[path = "mirror/memory.rs"]
mod memory;
#[path = "mirror/model.rs"]
mod model;
#[path = "mirror/node.rs"]
mod node;
#[path = "mirror/pair.rs"]
mod pair;
#[path = "mirror/pressure.rs"]
mod pressure;
#[path = "mirror/programs.rs"]
mod programs;
#[path = "resync/random.rs"]
mod random;
#[path = "mirror/refused.rs"]
mod refused;
#[path = "mirror/semantics.rs"]
mod semantics;
#[path = "mirror/speed.rs"]
mod speed;
#[path = "mirror/survive.rs"]
mod survive;
#[path = "mirror/trees.rs"]
mod trees;
