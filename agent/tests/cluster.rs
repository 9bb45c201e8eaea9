//! Nodes of a cluster in one process: real sockets, real TLS, real disk; the owner loop is a stand-in that records.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "cluster/beats.rs"]
mod beats;
#[path = "cluster/calls.rs"]
mod calls;
#[path = "cluster/host.rs"]
mod host;
#[path = "cluster/join.rs"]
mod join;
#[path = "cluster/strangers.rs"]
mod strangers;
