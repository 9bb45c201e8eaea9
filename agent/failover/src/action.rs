//! Every output of the core. The shell carries them out in order, one module independent of the others.

use std::time::Duration;

use crate::event::Command;
use crate::hard::{HardState, Role};
use crate::lineage::LineageId;
use crate::lock::Lock;
use crate::view::{Plan, SessionId, View};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Make this durable before anything that follows; then `Event::Persisted`.
    Persist(Box<HardState>),
    /// Send this view to the peer now, and in every heartbeat until the next one.
    Tell(Box<View>),
    /// To the module's replicator.
    Replicator(ReplicatorCommand),
    /// Add the addresses and announce them; then `Event::AddressesRaised`.
    RaiseAddresses,
    /// Remove the addresses; then `Event::AddressesDropped`.
    DropAddresses,
    /// Run a script if the module has it (else it ends at once, well); then `Event::ScriptEnded`.
    Script(ScriptRun),
    /// Kill every process of the module; then `Event::ProcessesGone`.
    KillProcesses,
    /// Ask this lock arbiter for its record.
    ArbiterRead(Lock),
    /// Compare-and-set a lock arbiter's record.
    ArbiterSwap {
        /// Whose.
        lock: Lock,
        /// The value read.
        expect: Option<LineageId>,
        /// The new value.
        new: LineageId,
    },
    /// Ask the reachability arbiters.
    AskReachable,
    /// For the record of decisions: what happened and why, in one sentence for people.
    Record(Record),
    /// A command ended: tell whoever waits for it.
    Answer(Command, Result<(), String>),
}

/// One line of the record of decisions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Needs a person's attention.
    pub alarm: bool,
    /// The sentence.
    pub text: String,
}

/// To the replicator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReplicatorCommand {
    /// Start the process (or adopt it) and examine the directories against these markers: `Ready` or `Refused`.
    Start {
        /// Lineage ids that the root marker may carry; empty: none expected.
        accept: Vec<LineageId>,
    },
    /// Open the journal for this lineage, durably: `JournalOpen`.
    OpenJournal(LineageId),
    /// Write root markers: `Marked`.
    Mark(LineageId),
    /// Join the session: `SessionUp`, then `InStep`; or `SessionLost`.
    Join {
        /// Its id; any other stream is refused.
        session: SessionId,
        /// Source (Primary) or target (Secondary) of it.
        role: Role,
        /// How to bring the target in step.
        plan: Plan,
        /// As target of a copy that is as good as it was: `Room` before the first change, which waits for `Receive`.
        room: bool,
    },
    /// As target of this session: what the source sends may change the copy.
    Receive(SessionId),
    /// End the session and join its workers: `SessionEnded`.
    Leave(SessionId),
    /// Exchange the roles of the session: this node is now `role`.
    Turn(SessionId, Role),
    /// Mount the directories: `Mounted` or `MountFailed`.
    Mount,
    /// It may acknowledge alone under this lineage, from now on.
    Settle(LineageId),
    /// It may no longer acknowledge alone: operations wait for the session.
    Unsettle,
    /// Unless settled nothing is acknowledged later than 0.9 of this time after the last contact: `Limited`.
    Limit(Duration),
    /// Compare both copies by content, while this node serves and they are in step.
    Verify {
        /// Resend what differs: the session is lost, and its resync sends it.
        repair: bool,
    },
    /// Keep what this copy alone holds, under this lineage: `Archived`.
    Archive(LineageId),
    /// Pairing is durable on the target: the source forgets its dirty set: `Cleared`.
    ClearJournal,
    /// Unmount; at the deadline abort and detach: `Unmounted` or `Aborted`.
    Unmount(Duration),
    /// At once: no reply leaves any more, then abort the connection: `Fenced`.
    Fence,
    /// Take the read-only cover off the directories, and leave it off until the next `Start`: `Uncovered`.
    Uncover,
    /// End the process: `Stopped`.
    Stop,
    /// It does not answer: SIGKILL, abort its connection, detach its mounts; then `Died`.
    Kill,
}

/// One run of one script.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScriptRun {
    /// Number of this run, unique within the process.
    pub run: u64,
    /// Which script.
    pub script: Script,
    /// Called with `force` as its first argument: the second pass of a stop script.
    pub force: bool,
    /// State now, as people know it.
    pub state: State,
    /// State to come.
    pub next: State,
    /// `start`, `stop`, `stopstart`, `restart`, `swap`, `failover`.
    pub action: &'static str,
    /// Killed (whole process group) after this.
    pub deadline: Duration,
}

/// The scripts of a module, by file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Script {
    /// `prestart`
    Prestart,
    /// `start_prim`
    StartPrim,
    /// `stop_prim`
    StopPrim,
    /// `start_both`
    StartBoth,
    /// `stop_both`
    StopBoth,
    /// `start_second`
    StartSecond,
    /// `stop_second`
    StopSecond,
    /// `start_sec`
    StartSec,
    /// `stop_sec`
    StopSec,
    /// `transition`
    Transition,
    /// `poststop`
    Poststop,
}

/// The states people see (DESIGN section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Stopped.
    Stop,
    /// Starting, or waiting for something.
    Wait,
    /// Serves without its peer.
    Alone,
    /// Serves, the peer is in step.
    Prim,
    /// Follows.
    Second,
}

/// How far a state is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// All is done.
    Ready,
    /// On the way.
    Transient,
    /// Waits for something outside.
    Blocked,
}

/// What people and programs see of the core; taken after each event by `Failover::status`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Status {
    /// State.
    pub state: State,
    /// Phase.
    pub phase: Phase,
    /// Why, in one sentence.
    pub reason: String,
    /// The exact command to type, where a person is awaited.
    pub hint: Option<String>,
    /// The copy holds the newest data as far as this node can know.
    pub uptodate: bool,
    /// See `HardState::consistent`.
    pub consistent: bool,
    /// `lineage.current`.
    pub lineage: Option<LineageId>,
}
