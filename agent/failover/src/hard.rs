//! What must survive a crash: written before it is acted on.

use serde::{Deserialize, Serialize};

use crate::lineage::{Lineage, LineageId};
use crate::lock::Lock;

/// Role a node takes in a pair; what `PRIM` and `SECOND` stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Role {
    /// Never had a role.
    #[default]
    None,
    /// Serves, or served last.
    Primary,
    /// Follows the primary.
    Secondary,
}

/// What the administrator, or the boot setting, last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Desired {
    /// The module is to stay stopped.
    #[default]
    Stopped,
    /// The module is to run.
    Started,
}

/// The durable state of one module on one node. Written whole; see `Action::Persist`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct HardState {
    /// Counts the writes of this structure; the higher of two valid slots counts. The core raises it by one with
    /// each `Action::Persist`.
    pub serial: u64,
    /// What was last asked for.
    pub desired: Desired,
    /// Last role.
    pub role: Role,
    /// Raised whenever roles are exchanged; at a meeting the higher term's primary holds.
    pub term: u64,
    /// This node gave up the primary role of `term - 1` and offered it to the other; cleared when it is taken.
    pub offered: bool,
    /// Lineage of this copy.
    pub lineage: Lineage,
    /// The id that the root marker may still carry, because `lineage.current` changed and the new marker is not
    /// known to be durable.
    pub marker_before: Option<LineageId>,
    /// The roots were empty when they were first marked; counts only while there is no lineage.
    #[serde(default)]
    pub was_empty: bool,
    /// The copy is one state that the application once could have seen. False from the first to the last byte of a
    /// resync, and after an error of fsync or syncfs.
    pub consistent: bool,
    /// The other node went on without this copy: it must not serve, nor be a source, until resynchronised.
    pub outdated: bool,
    /// This copy is the target of a resync that has not ended.
    pub target: bool,
    /// Files may have been changed while the module was stopped: never a source, never served, until resynchronised or
    /// chosen by a person.
    #[serde(default)]
    pub edited: bool,
    /// An administrator took the read-only cover off, and the module was not started since.
    #[serde(default)]
    pub unlocked: bool,
    /// What the replicator's records say is not all in which this copy may differ: it is compared in full. Cleared by
    /// pairing alone.
    #[serde(default)]
    pub unrecorded: bool,
    /// Boot id of the machine at the last session in step; another boot id at start means that page cache was lost.
    pub boot_id: u128,
    /// Wall-clock seconds (Unix) of the last time both copies were known to be in step. Shown to people; decides only
    /// where `sync_delta` allows a stale copy to serve.
    pub last_paired: u64,
    /// This node took over from a primary that it lost, and has not given the role back since.
    #[serde(default)]
    pub took_over: bool,
    /// The scripts of this role have all been started, and none of them stopped since: what an agent that takes over a
    /// running replicator can rely on.
    #[serde(default)]
    pub running: Role,
    /// The lock arbiter in force here; none: not recorded yet. See `lock`.
    #[serde(default)]
    pub lock: Option<Lock>,
    /// What was in force before, and may still be by what the other node decides.
    #[serde(default)]
    pub former_locks: Vec<Lock>,
    /// The other node decides by arbiters of which this one has none.
    #[serde(default)]
    pub disputed: bool,
    /// When the other node last fell out of step although it was heard (wall-clock seconds), oldest first, at most three:
    /// for people, who are told when it happens too often.
    #[serde(default)]
    pub drops: Vec<u64>,
    /// Automatic restarts in the present `loop_interval`, and when that interval began (wall-clock seconds).
    pub restarts: u32,
    /// See `restarts`.
    pub restarts_since: u64,
}
