//! safed: observes, decides, carries out. One process per node.
//!
//! Reading order: [`node`] (the owner loop and its seams), then the adapters around it.

pub mod children;
pub mod clock;
pub mod config;
pub mod events;
pub mod linux;
pub mod log;
pub mod logging;
pub mod module;
pub mod node;
pub mod paths;
pub mod pki;
pub mod processes;
pub mod random;
pub mod scripts;
pub mod settings_store;
pub mod shutdown;
pub mod spec_store;
pub mod store;
pub mod token;
