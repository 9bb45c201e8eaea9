//! What every part of the daemon is given.

use tokio_util::sync::CancellationToken;

use super::NodeHandle;
use crate::config::Config;
use crate::events::Events;
use crate::paths::Paths;

/// Shared by all parts; cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where files are.
    pub paths: Paths,
    /// Settings of the daemon.
    pub config: Config,
    /// The owner loop.
    pub node: NodeHandle,
    /// The record of decisions.
    pub events: Events,
    /// Cancelled when the daemon ends.
    pub shutdown: CancellationToken,
}

/// Why the daemon cannot start: one line that says what is wrong and how to mend it. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Startup(pub String);
