//! Every input of the core.

use std::time::Duration;

use crate::hard::Role;
use crate::lineage::LineageId;
use crate::lock::Lock;
use crate::resource::Value;
use crate::time::Time;
use crate::view::{Copy, SessionId, View};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The shell calls at the time `Failover::poll_timeout` named, or earlier.
    Tick,
    /// The agent process has started and read its hard state; first event of all.
    Started {
        /// Start the module by itself (boot setting, or desired state under the same boot id).
        start: bool,
        /// A replicator of this module survived the agent: go on from its state, run no scripts.
        adopted: Option<Adopted>,
    },
    /// An administrator's command.
    Command(Command),
    /// A view of the peer, newer than the last one.
    Peer(Box<View>),
    /// A lan became live or silent: both directions of it, judged by the heartbeat thread with `timeout`.
    Lan {
        /// Index in the module's list of lans.
        lan: u8,
        /// Live in both directions.
        up: bool,
    },
    /// Any authenticated packet of the peer arrived, on any lan, at this instant (its agent, or its replicator in
    /// the agent's place).
    Heard,
    /// The peer confirmed, on any lan, that it heard what this node sent at this time: the proof that it hears us, not
    /// only we it. Where the shell never gives it, `Heard` counts alone.
    Echoed(Time),
    /// The interfaces that carry the module's addresses have a carrier (one of them is enough), or none has. Given when
    /// it changes, and after `Started` where there is none; until then there is one.
    Carrier(bool),
    /// A resource was observed, or a person set it.
    Resource {
        /// Name, as in `check.tcp.db`.
        name: String,
        /// Value.
        value: Value,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// The peer's replicator says that its agent is gone (it still serves, and fences itself at `agent_timeout`).
    PeerAgentGone,
    /// A persist ended; all actions before it in order have been carried out.
    Persisted {
        /// Which hard state.
        serial: u64,
    },
    /// Hard state could not be written: the node must fence.
    PersistFailed,
    /// The module's replicator.
    Replicator(ReplicatorEvent),
    /// Addresses were raised (announced), or could not be; reason for people.
    AddressesRaised(Result<(), String>),
    /// Addresses are gone from this node.
    AddressesDropped,
    /// A script ended.
    ScriptEnded {
        /// The run's number.
        run: u64,
        /// Exit status zero within the deadline, or what went wrong.
        outcome: Result<(), String>,
    },
    /// All processes of the module are gone.
    ProcessesGone,
    /// This lock arbiter answered.
    Arbiter(Lock, ArbiterEvent),
    /// A reachability arbiter answered.
    Reachable(bool),
}

/// What the replicator reports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReplicatorEvent {
    /// Started; the directories were examined.
    Ready {
        /// Condition of the copy.
        copy: Copy,
        /// It knows what was in flight when it last ended.
        knows_inflight: bool,
    },
    /// It could not start, or the directories are unusable; reason for people.
    Refused(String),
    /// The process ended without being told, and with it everything that it served.
    Died,
    /// The process ended without being told, and another one goes on with its mounts: examined as before, without
    /// journal, session, and the right to go on alone.
    Survived {
        /// The new one knows what was in flight.
        knows_inflight: bool,
    },
    /// The journal for this lineage is open and durable.
    JournalOpen(LineageId),
    /// The stream is up and authenticated, both replicators agree on the session.
    SessionUp(SessionId),
    /// The session was lost; all its workers have ended.
    SessionLost {
        /// Which.
        session: SessionId,
        /// How.
        loss: Loss,
        /// For people.
        reason: String,
    },
    /// Told to leave a session: all its workers have ended.
    SessionEnded(SessionId),
    /// As target of a copy that is as good as it was: nothing of it was touched yet. There is room for what is to come,
    /// as far as can be known; or there surely is not: where, what is needed and what is free, for people. Then the
    /// session is lost.
    Room {
        /// Which.
        session: SessionId,
        /// See above.
        outcome: Result<(), String>,
    },
    /// As source: everything was sent and applied, new operations are synchronous. As target: everything was applied
    /// and a syncfs that covers it succeeded.
    InStep(SessionId),
    /// The directories are mounted.
    Mounted,
    /// They could not be mounted; reason for people.
    MountFailed(String),
    /// They are unmounted, nothing holds them.
    Unmounted,
    /// Unmounting met its deadline; the connection was aborted and detached.
    Aborted,
    /// Fenced: no reply will leave, the connection is gone.
    Fenced,
    /// The root markers carry this lineage, durably.
    Marked(LineageId),
    /// The journal was cleared after pairing.
    Cleared,
    /// What this copy alone holds is kept, durably: one sentence that says what and where; none: there is nothing. Or
    /// why it cannot be.
    Archived {
        /// Under which lineage it was written.
        lineage: LineageId,
        /// For people.
        outcome: Result<Option<String>, String>,
    },
    /// An operation was acknowledged alone, the first under this lineage.
    WroteAlone(LineageId),
    /// fsync or syncfs failed, or the disk hung; this copy is inconsistent. Reason for people.
    DiskFailed(String),
    /// The process has ended as told.
    Stopped,
    /// The read-only cover of the directories was taken off, as told; or why not, for people.
    Uncovered(Result<(), String>),
    /// The files may have been changed by somebody else while this node did not serve; how that is known, for people.
    Edited(String),
    /// Nothing is acknowledged any more after 0.9 of this time without contact.
    Limited(Duration),
}

/// How a session was lost, as the replicator saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// The stream broke or was not made, or the other node ended it.
    Stream,
    /// Nothing was heard for 0.6 of the stall timeout.
    Silence,
    /// The other node could not carry out an operation, or not in time; or the resync cannot be completed.
    Failed,
    /// This node could not do its part.
    Here,
    /// The other node left it as it was told.
    Left,
}

/// State of a replicator that outlived its agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Adopted {
    /// The directories are mounted and the application may run.
    pub mounted: bool,
    /// Its session, if it has one.
    pub session: Option<(SessionId, Role)>,
    /// The session is in step and the pairing is complete.
    pub in_step: bool,
    /// It may acknowledge alone under this lineage.
    pub settled: Option<LineageId>,
    /// It fenced itself while the agent was gone.
    pub fenced: bool,
    /// Condition of the copy.
    pub copy: Copy,
    /// It knows what is in flight.
    pub knows_inflight: bool,
    /// Its last contact with the peer (when what was answered was sent): silence counts from there, not from the
    /// start of the agent. None: not known.
    pub contact: Option<Time>,
    /// The grace that it holds to (see `Failover::grace`); none: not known.
    pub limit: Option<Duration>,
}

/// An administrator's command on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Start: from STOP.
    Start,
    /// Stop: hands over first where the other node can serve.
    Stop,
    /// Stop, then start.
    StopStart,
    /// stop_prim, start_prim (or the second's scripts); state unchanged.
    Restart,
    /// Exchange roles; where it serves.
    Swap,
    /// Compare both copies by content; where it serves.
    Verify {
        /// Resend what differs.
        repair: bool,
    },
    /// Take the read-only cover off the directories of the stopped module: the copy counts as edited from then on.
    Unlock,
    /// Start as primary.
    Prim {
        /// Even if this copy is stale or inconsistent.
        force: bool,
    },
    /// Start as secondary.
    Second {
        /// Compare both trees in full.
        full: bool,
        /// Even if this copy has data of its own, which will be replaced.
        force: bool,
        /// Nothing is kept of what this copy alone holds.
        discard: bool,
    },
}

/// What a lock arbiter answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArbiterEvent {
    /// The record's value; none: never set.
    Value(Option<LineageId>),
    /// The compare-and-set was done: the record now is this.
    Swapped(LineageId),
    /// The compare failed; the record's value.
    Refused(Option<LineageId>),
    /// No answer.
    Unreachable,
}
