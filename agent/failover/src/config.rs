//! What the core must know of a module; resolved and validated by the shell from `module.toml`.

use std::time::Duration;

use crate::left_out::LeftOut;
use crate::lock::Lock;
use crate::rule::Rule;

/// Which of the module's two nodes this is: the order of `nodes` in `module.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The first node named.
    First,
    /// The second node named.
    Second,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What a node does when every lan is cut and no arbiter is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Serve alone (default).
    Alone,
    /// Wait.
    Wait,
}

/// The kind of arbiter that guards against split brain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArbiterKind {
    /// None: a full isolation is decided by `isolation`.
    None,
    /// Answers only "am I the isolated one?".
    Reachability,
    /// Holds one record per module and compares-and-sets it.
    Lock,
}

/// Who survives a split brain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SplitBrain {
    /// The serving node, else the rules of DESIGN section 6.
    Serving,
    /// A person decides.
    Manual,
}

/// Who is to be primary when both copies are in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DefaultPrimary {
    /// Whoever is.
    None,
    /// Who was primary before it was lost: it gets the role back from the node that took over.
    Last,
    /// Always this node.
    Node(Side),
}

/// Settings of one mirror module on one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// Name of the module, for the sentences and commands shown to people.
    pub module: String,
    /// Name of this node.
    pub node: String,
    /// Name of the other node.
    pub peer: String,
    /// Which node this is.
    pub side: Side,
    /// Heartbeat interval: how often the view is sent.
    pub interval: Duration,
    /// Silence on every lan after which the peer counts as lost.
    pub timeout: Duration,
    /// How long a node without agent keeps its replicator serving.
    pub agent_timeout: Duration,
    /// How long the holder of a settled base waits for the peer at start.
    pub start_wait: Duration,
    /// Silence of the replication stream, while heartbeats live, after which the peer is outdated.
    pub stall_timeout: Duration,
    /// How long a repair may hold the application's operations before the peer is outdated instead.
    pub slow_timeout: Duration,
    /// What a full isolation leads to.
    pub isolation: Isolation,
    /// Kind of arbiter.
    pub arbiter: ArbiterKind,
    /// The lock arbiter, if it is of that kind.
    pub lock: Lock,
    /// Split-brain policy.
    pub split_brain: SplitBrain,
    /// Preferred primary.
    pub default_primary: DefaultPrimary,
    /// How long a pair must have been whole before the preferred primary gets its role back.
    pub quiet: Duration,
    /// A copy that was in step at most so long ago, by the wall clock, may serve by itself although the other node may
    /// have gone on; zero: never.
    pub sync_delta: Duration,
    /// False: a secondary never promotes by itself.
    pub failover: bool,
    /// The module has virtual addresses.
    pub has_addresses: bool,
    /// Deadline of a start script.
    pub start_timeout: Duration,
    /// Deadline of a graceful stop script.
    pub stop_timeout: Duration,
    /// Deadline of a `force` stop script.
    pub force_timeout: Duration,
    /// Automatic restarts allowed in `loop_interval`.
    pub max_loop: u32,
    /// Window of `max_loop`.
    pub loop_interval: Duration,
    /// Wait before trying again after `max_loop`; zero: never.
    pub retry_after: Duration,
    /// Failover rules, in the order in which they are looked at.
    pub rules: Vec<Rule>,
    /// A rule of the protocol that is left out, to show that the proof would find it; none outside proofs.
    pub left_out: Option<LeftOut>,
    /// 128 random bits drawn by the shell when this process started: new ids are made from it by counting.
    pub entropy: u128,
    /// Boot id of the machine.
    pub boot_id: u128,
}

impl Config {
    /// The lock arbiter of this version, or none.
    #[must_use]
    pub fn own_lock(&self) -> Lock {
        if self.arbiter == ArbiterKind::Lock { self.lock.clone() } else { Lock::default() }
    }
}
