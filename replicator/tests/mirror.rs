//! Two real replicator processes, real mounts, real TLS on the loopback, driven through their control sockets.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test")]

#[path = "mirror/agentless.rs"]
mod agentless;
#[path = "mirror/alone.rs"]
mod alone;
#[path = "mirror/campaign.rs"]
mod campaign;
#[path = "mirror/certificates.rs"]
mod certificates;
#[path = "mirror/everyday.rs"]
mod everyday;
#[path = "mirror/node.rs"]
mod node;
#[path = "mirror/pair.rs"]
mod pair;
#[path = "mirror/refused.rs"]
mod refused;
#[path = "mirror/speed.rs"]
mod speed;
