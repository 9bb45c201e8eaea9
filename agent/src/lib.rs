//! safed: observes, decides, carries out. One process per node.
//!
//! Reading order: [`node`] (the owner loop and its seams), then the adapters around it.

pub mod clock;
pub mod config;
pub mod events;
pub mod logging;
pub mod node;
pub mod paths;
pub mod shutdown;
pub mod store;
