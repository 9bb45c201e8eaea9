//! One host: its disk, its agent, its replicator, what is active on it.

use std::collections::VecDeque;

use crate::action::ScriptRun;
use crate::config::{ArbiterKind, DefaultPrimary, Isolation, Side, SplitBrain};
use crate::hard::Role;
use crate::lineage::LineageId;
use crate::lock::Lock;
use crate::view::{Copy, Plan, SessionId, View};
use crate::{Action, Config, Failover, HardState, Time};

/// Written objects, one bit each.
pub type Writes = u128;

/// The agent process.
#[derive(Debug, Clone, Hash)]
pub struct Agent {
    pub core: Failover,
    /// What every heartbeat says.
    pub told: Option<View>,
    /// Actions not carried out yet: the host froze in the middle of a batch.
    pub batch: VecDeque<Action>,
    /// Hard state is being written: what follows waits.
    pub writing: bool,
    /// Hard state could not be written: everything is dropped until the core knows.
    pub dropping: bool,
    /// What the replicator is to say without this agent, once the batch is carried out.
    pub stand_in: Option<(View, View)>,
    /// A tick is in the queue for this time.
    pub tick: Option<Time>,
    pub script: Option<ScriptRun>,
}

/// One operation of the application that has not been answered.
#[derive(Debug, Clone, Hash)]
pub struct Op {
    pub bit: Writes,
    pub sent: Option<SessionId>,
    pub sent_at: Time,
    pub acked: Option<SessionId>,
}

/// The replicator's part of a session.
#[derive(Debug, Clone, Hash)]
pub struct Stream {
    pub id: SessionId,
    pub role: Role,
    pub plan: Plan,
    /// As target: its copy may be changed.
    pub open: bool,
    pub up: bool,
    /// The target has what it lacked; new operations are synchronous.
    pub copied: bool,
    pub contact: Time,
}

/// The replicator process.
#[derive(Debug, Clone, Default, Hash)]
pub struct Replicator {
    pub mounted: bool,
    pub settled: Option<LineageId>,
    pub fenced: bool,
    pub stream: Option<Stream>,
    pub ops: Vec<Op>,
    pub journal: Option<LineageId>,
    pub wrote_alone: Option<LineageId>,
    /// As examined; none: not yet.
    pub copy: Option<Copy>,
    pub knows: bool,
    pub in_step: bool,
    /// Operations of the session ended in an error: whether the other node has them is not known.
    pub unquiet: bool,
    /// What it says on every lan while the agent is gone: as it was, and once it has fenced itself.
    pub stand_in: Option<(View, View)>,
    /// The newest authenticated packet of the peer.
    pub heard: Time,
    /// It slept past 0.9 of the timeout while it was not settled, and no agent has said since what to do.
    pub overslept: bool,
    /// When this host sent the newest packet that the peer is known to have heard.
    pub echoed: Option<Time>,
    /// The grace that it holds to.
    pub limit: std::time::Duration,
}

impl Replicator {
    /// Last proof that both hear each other.
    pub fn contact(&self) -> Time {
        self.echoed.map_or(self.heard, |echoed| echoed.min(self.heard))
    }
}

/// What survives every process.
#[derive(Debug, Clone, Default, Hash)]
pub struct Disk {
    pub hard: HardState,
    pub marker: Option<LineageId>,
    /// Page cache and disk of the backing directory.
    pub data: Writes,
    pub synced: Writes,
    /// Written since both nodes last had everything on disk; only the observer knows.
    pub since: Writes,
    /// What the replicator knows may differ: in flight, or applied and not yet known to be on the other node as well.
    pub known: Writes,
    /// The journal.
    pub dirty: Writes,
    /// The replicator ended in good order: it knows what was in flight.
    pub clean: bool,
    /// Knowledge of what may differ was lost, until the next comparison in full.
    pub lost: bool,
    /// Page cache was lost since both nodes had everything on disk.
    pub rebooted: bool,
    /// A sync failed.
    pub failed: bool,
    /// Kept of what this copy alone held.
    pub archived: Writes,
}

#[derive(Debug, Clone, Hash)]
pub struct Host {
    pub config: Config,
    /// Which version of the module is in force; and a newer one is about to be fetched.
    pub version: u64,
    pub catching_up: bool,
    pub up: bool,
    pub frozen: bool,
    /// What arrives while it is frozen is lost, as with a paused virtual machine.
    pub deaf: bool,
    pub woke: Time,
    pub boot: u64,
    /// Numbers the lives of agent and replicator: what was sent to an earlier one is dropped.
    pub agent_life: u64,
    pub replicator_life: u64,
    pub agent: Option<Agent>,
    pub agent_gone: Option<Time>,
    pub replicator: Option<Replicator>,
    pub disk: Disk,
    pub addresses: bool,
    /// The application runs and writes.
    pub application: bool,
    /// Newest (life, serial) of the peer's views, and when the peer sent what was heard last.
    pub seen: (u64, u64),
    pub peer_sent: Option<Time>,
    /// The last command's answer.
    pub answer: Option<String>,
    pub persist_fails: bool,
    pub scripts_hang: bool,
    pub mount_fails: bool,
    pub refuses: bool,
    /// Its replicator can carry out nothing of its peer.
    pub disk_full: bool,
    /// What its peer has does not fit, which is known beforehand.
    pub too_small: bool,
    /// There is no room for an archive.
    pub archive_full: bool,
    /// The cable of the address interface is pulled.
    pub unplugged: bool,
    /// Its wall clock is so many seconds late.
    pub clock_back: u64,
    /// Commands that were given to the replicator are carried out in order.
    pub command_at: Time,
    pub report_at: Time,
}

impl Host {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            version: 0,
            catching_up: false,
            up: false,
            frozen: false,
            deaf: false,
            woke: Time::default(),
            boot: 0,
            agent_life: 0,
            replicator_life: 0,
            agent: None,
            agent_gone: None,
            replicator: None,
            disk: Disk { clean: true, ..Disk::default() },
            addresses: false,
            application: false,
            seen: (0, 0),
            peer_sent: None,
            answer: None,
            persist_fails: false,
            scripts_hang: false,
            mount_fails: false,
            refuses: false,
            disk_full: false,
            too_small: false,
            archive_full: false,
            unplugged: false,
            clock_back: 0,
            command_at: Time::default(),
            report_at: Time::default(),
        }
    }

    /// Awake and there.
    pub fn alive(&self) -> bool {
        self.up && !self.frozen
    }

    pub fn mounted(&self) -> bool {
        self.replicator.as_ref().is_some_and(|replicator| replicator.mounted)
    }
}

/// Settings of one side, with short times.
pub fn config(side: Side) -> Config {
    use std::time::Duration;
    let (node, peer) = match side {
        Side::First => ("n1", "n2"),
        Side::Second => ("n2", "n1"),
    };
    Config {
        module: "db".to_owned(),
        node: node.to_owned(),
        peer: peer.to_owned(),
        side,
        interval: Duration::from_millis(300),
        timeout: Duration::from_secs(3),
        agent_timeout: Duration::from_secs(10),
        start_wait: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(2),
        slow_timeout: Duration::from_secs(30),
        isolation: Isolation::Alone,
        arbiter: ArbiterKind::None,
        lock: Lock("w1".to_owned()),
        split_brain: SplitBrain::Serving,
        default_primary: DefaultPrimary::None,
        quiet: Duration::from_secs(2),
        sync_delta: Duration::ZERO,
        failover: true,
        has_addresses: true,
        start_timeout: Duration::from_secs(300),
        stop_timeout: Duration::from_secs(60),
        force_timeout: Duration::from_secs(20),
        max_loop: 3,
        loop_interval: Duration::from_secs(24 * 3600),
        retry_after: Duration::from_secs(600),
        rules: Vec::new(),
        left_out: None,
        entropy: 0,
        boot_id: 0,
    }
}
