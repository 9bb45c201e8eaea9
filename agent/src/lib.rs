//! safed: observes, decides, carries out. One process per node.
//!
//! Reading order: [`node`] (the owner loop and its seams), then the adapters around it.

pub mod address;
pub mod arbiter;
pub mod aside;
pub mod audit;
pub mod boot_units;
pub mod children;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod config;
pub mod conflicts;
pub mod cover;
pub mod events;
pub mod execute;
pub mod heartbeat;
pub mod linux;
pub mod log;
pub mod logging;
pub mod module;
pub mod node;
pub mod paths;
pub mod peer;
pub mod pki;
pub mod preflight;
pub mod processes;
pub mod random;
pub mod replica;
pub mod rpc;
pub mod scripts;
pub mod settings_store;
pub mod shutdown;
pub mod spec_store;
pub mod status;
pub mod store;
pub mod stream_port;
pub mod token;
pub mod verification;
pub mod witness;
