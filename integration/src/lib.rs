//! Whole-system proof: clusters on one machine, faults, and programs that check what was promised.
//!
//! A test reads like this:
//!
//! ```no_run
//! # use safe_integration::{Cluster, Module, State, error::Result};
//! # fn main() -> Result<()> {
//! let c = Cluster::two_nodes("power-loss")?;
//! c.start_module(&Module::mirror("db").replicate("/srv/data/db"))?;
//! c.node(0).kill_host()?;
//! c.wait_state("db", "n2", State::Alone)?;
//! c.finish()
//! # }
//! ```
//!
//! Everything is in namespaces of its own and ends with the test, however the test ends. In reading order: `cluster`, `node`,
//! `host`, `lan`, `program`, `guardian`.

pub mod bench;
pub mod campaign;
pub mod chance;
pub mod chores;
pub mod clock;
pub mod cluster;
pub mod committer;
pub mod demo;
pub mod disk;
pub mod error;
pub mod eventually;
pub mod fio;
pub mod guardian;
pub mod host;
pub mod interrupt;
pub mod lan;
pub mod ledger;
pub mod linux;
pub mod mariadb;
pub mod module;
pub mod node;
pub mod place;
pub mod postgres;
pub mod prerequisites;
pub mod process;
pub mod program;
pub mod referee;
mod report;
pub mod service;
pub mod status;
pub mod timeline;
pub mod tree;
pub mod vm;
pub mod watch;

pub use cluster::Cluster;
pub use module::Module;
pub use service::Service;
pub use status::{Phase, State};
