//! The owner of all modules of this node: one loop, one typed event at a time.
//!
//! Everybody else reaches the loop through a [`NodeHandle`]; the loop reaches the network through [`Network`].

mod boot;
mod context;
mod handle;
mod install;
mod load;
mod network;
mod owner;
mod report;
mod runtime;
mod slot;
mod wait;

pub use context::{Context, Startup};
pub use handle::{Inspection, Install, ModuleName, NodeEvent, NodeHandle, Refusal, Reply, Statuses};
pub use network::{Heartbeats, Member, Membership, Network, Ports, StandIn};
pub use owner::Owner;
pub use report::{Report, Reporter, What};
