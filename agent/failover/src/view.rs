//! What a node tells its peer about one module: in every heartbeat, and at once when it changes.
//!
//! The protocol between the two cores is this view and nothing else. A view may be lost, repeated or overtaken; the
//! receiver's shell drops a view whose (incarnation, serial) is not newer than the last one, and hands over the rest.
//! So every step of the protocol is a condition on the sender's state, never a message that must arrive.

use std::time::Duration;

use crate::hard::Role;
use crate::lineage::{Lineage, LineageId};

/// Names one session between the two replicators: the link nonce of the first node, then of the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// Link nonce of the first node.
    pub first: u64,
    /// Link nonce of the second node.
    pub second: u64,
}

/// What the node is doing, as its peer must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Stopped: takes no part.
    Stopped,
    /// Not serving; ready for a meeting if `meetable`.
    Waiting,
    /// Not serving; applies a resync.
    Target,
    /// Not serving; in step, applies operations.
    Second,
    /// About to serve alone: new lineage is durable, not settled.
    Candidate,
    /// Serving with the peer in step, or holding operations until that is decided.
    Primary,
    /// Serving alone.
    Alone,
}

/// Condition of the copy under the replicated directories, as its replicator found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Copy {
    /// Not examined yet.
    Unexamined,
    /// No lineage, nothing in the directories.
    Empty,
    /// No lineage, but files are there.
    Unlabelled,
    /// Carries the lineage that hard state says.
    Known,
    /// The root marker is absent, foreign or rolled back: disk not mounted, replaced, or reverted.
    Unknown,
    /// Edited by an administrator while unlocked.
    Edited,
}

/// How a meeting ended, as computed by either node from both views.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plan {
    /// Equal lineages: the primary resends what was in flight and all since the last common epoch.
    Repair,
    /// The target gets what the source's dirty set names.
    Delta,
    /// Both trees are compared in full.
    Full,
}

/// One node's entry into a session. The node that will not be the source enters first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entered {
    /// The session.
    pub session: SessionId,
    /// What this node will be.
    pub role: Role,
    /// How the copies are brought in step.
    pub plan: Plan,
    /// Lineage of the source at the meeting (its base while it has one unsettled).
    pub source: Option<LineageId>,
}

/// The peer must durably record itself outdated, so that the asker may go on alone (rule (a)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Demand {
    /// The asker's base: the lineage that both had.
    pub base: LineageId,
    /// The asker's new lineage, durable and unsettled.
    pub lineage: LineageId,
}

/// Answer to a [`Demand`]: `outdated` is durable here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conceded {
    /// The lineage conceded to.
    pub lineage: LineageId,
    /// An unsettled lineage this node had and gave up: the asker adds it to its history before settling.
    pub abandoned: Option<LineageId>,
}

/// This node has fenced itself: nothing of the module serves here and nothing will be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fenced {
    /// The last session, if there was one.
    pub session: Option<SessionId>,
    /// The lineage in which it served.
    pub lineage: LineageId,
}

/// The right to promote, as asked for by a secondary and granted by its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The session it belongs to.
    pub session: SessionId,
    /// Raised by the secondary whenever it lost the right: an old grant does not count.
    pub ticket: u64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct View {
    /// Random number of the agent process; another one means that the agent restarted.
    pub incarnation: u64,
    /// Raised with each change of the view.
    pub serial: u64,
    /// Raised whenever this node leaves a session, and random at the start of the process: half of a [`SessionId`].
    pub link: u64,
    /// The nonce of the peer's view that this view was computed from; a round trip when it equals the peer's own.
    pub heard_link: u64,
    /// What the node is doing.
    pub mode: Mode,
    /// The node can meet now: started, data examined, no session, no procedure running that must end first.
    pub meetable: bool,
    /// Addresses or application may be active here.
    pub serving: bool,
    /// Role and term of hard state.
    pub role: Role,
    /// See `role`.
    pub term: u64,
    /// Lineage of this copy.
    pub lineage: Lineage,
    /// Condition of the copy.
    pub copy: Copy,
    /// Hard state's `consistent`.
    pub consistent: bool,
    /// Hard state's `outdated`.
    pub outdated: bool,
    /// Hard state's `target`.
    pub target: bool,
    /// The machine's boot id changed since the copies were last in step.
    pub rebooted: bool,
    /// The replicator knows in what this copy may differ, whatever became of its process and its machine (false: its records
    /// are lost, the plan must be full).
    pub knows_inflight: bool,
    /// This node's entry into a session, while it lasts.
    pub entered: Option<Entered>,
    /// The session's target is in step and its pairing is durable (step 2); or, at the source, step 3 is done.
    pub paired: Option<SessionId>,
    /// See [`Demand`].
    pub demand: Option<Demand>,
    /// See [`Conceded`].
    pub conceded: Option<Conceded>,
    /// See [`Fenced`].
    pub fenced: Option<Fenced>,
    /// A secondary's wish for the right to promote.
    pub wish: Option<Grant>,
    /// A primary's grant.
    pub grant: Option<Grant>,
    /// The primary role is offered to the peer in this session (swap); `term` is the term of the offer.
    pub offer: Option<SessionId>,
    /// An administrator's force on this node awaits the peer: it is to become the target whatever its lineage.
    pub yields: bool,
    /// The timeout configured here; zero: not said.
    pub timeout: Duration,
    /// This node counts on being waited for so long (see `Failover::grace`); zero: not said.
    pub grace: Duration,
    /// Incarnation of the peer whose view was heard; zero: none.
    pub heard: u64,
    /// By which lock arbiters this node decides (`Lock::id`), the one in force first; empty: not said.
    pub locks: Vec<u32>,
}
