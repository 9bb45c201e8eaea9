//! What the owner loop holds of one installed module.

use std::sync::Arc;

use safe_failover::Time;
use safe_proto::module::ModuleStatus;

use super::runtime::Runtime;
use super::{Membership, Refusal, Reply};
use crate::module::Module;
use crate::status;

/// One installed module.
pub(super) enum Slot {
    /// It is being read and its replicator looked for, or it is being removed.
    Loading {
        /// Which load counts.
        runtime: u64,
        /// Who waits for its end.
        waiting: Vec<Reply<()>>,
    },
    /// It cannot run here.
    Idle {
        /// None: its spec cannot be read.
        module: Option<Arc<Module>>,
        /// Why.
        reason: String,
        /// This node.
        node: String,
        /// Another version is being put in force.
        frozen: bool,
    },
    /// It has a core.
    Mirror(Box<Runtime>),
}

impl Slot {
    /// When its core must be called at the latest.
    pub(super) fn timeout(&self) -> Option<Time> {
        match self {
            Self::Mirror(runtime) => runtime.timeout(),
            Self::Loading { .. } | Self::Idle { .. } => None,
        }
    }

    pub(super) fn module(&self) -> Option<&Arc<Module>> {
        match self {
            Self::Mirror(runtime) => Some(&runtime.mirror.module),
            Self::Idle { module, .. } => module.as_ref(),
            Self::Loading { .. } => None,
        }
    }

    /// None while it is not known yet.
    pub(super) fn status(&self, name: &str, membership: Option<&Membership>) -> Option<ModuleStatus> {
        match self {
            Self::Mirror(runtime) => Some(runtime.status(membership)),
            Self::Idle { module: Some(module), reason, .. } => Some(status::of_idle(module, reason)),
            Self::Idle { module: None, reason, node, .. } => Some(status::of_unreadable(name, node, reason)),
            Self::Loading { .. } => None,
        }
    }

    /// Why it takes no command.
    pub(super) fn refusal(&self, name: &str) -> Refusal {
        match self {
            Self::Idle { reason, .. } => Refusal::State(format!("{name} cannot run on this node: {reason}")),
            Self::Loading { .. } | Self::Mirror(_) => {
                Refusal::State(format!("{name} is being loaded; try again"))
            }
        }
    }
}
