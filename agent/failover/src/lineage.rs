//! Which history of writes a copy of the data belongs to (DESIGN section 6).

use serde::{Deserialize, Serialize};

/// Name of one history of writes: 128 random bits, never reused, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LineageId(pub u128);

impl std::fmt::Display for LineageId {
    /// Eight hexadecimal digits: enough for a person to tell two ids apart.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

/// The lineage of one copy. `current` is none only for a copy that never was paired nor served.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// The history this copy belongs to now.
    pub current: Option<LineageId>,
    /// What `current` was when this copy last was paired; set while this copy is or was alone since.
    pub base: Option<LineageId>,
    /// Going on alone under `current` is settled: no other node can acknowledge writes on top of `base`.
    /// Invariant: settled implies base is set.
    pub settled: bool,
    /// Earlier ids that this copy contains, and abandoned ids; newest first, at most [`HISTORY_LIMIT`].
    pub history: Vec<LineageId>,
    /// This node was primary when the base was set.
    pub prim_of_base: bool,
    /// `current` was begun by an administrator's force.
    pub forced: bool,
    /// Any operation was acknowledged alone under `current`.
    pub wrote_alone: bool,
}

impl Lineage {
    /// This copy contains all that was acknowledged under the id, or it was abandoned for this copy.
    #[must_use]
    pub fn follows(&self, id: LineageId) -> bool {
        self.current == Some(id) || self.base == Some(id) || self.history.contains(&id)
    }
}

/// How many ids a history keeps.
pub const HISTORY_LIMIT: usize = 32;
