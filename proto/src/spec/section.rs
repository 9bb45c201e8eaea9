//! The tables of `module.toml`: their keys, and what a key left out means.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::prefix::AddressPrefix;
use super::quantity;
use super::value::{
    Ack, ArbiterKind, BandwidthLimit, Boot, CheckKind, DefaultPrimary, Isolation, Kind, Reaction,
    SplitBrainPolicy, Sync, Verify, When,
};

/// `[module]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleSection {
    /// Name: a DNS label.
    pub name: String,
    /// Kind.
    pub kind: Kind,
    /// Nodes in order; empty: see [`super::ModuleSpec::nodes_in`].
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Started when the machine boots.
    #[serde(default)]
    pub boot: Boot,
    /// Wait before that.
    #[serde(default, with = "quantity::duration")]
    pub boot_delay: Duration,
    /// Preferred primary.
    #[serde(default)]
    pub default_primary: DefaultPrimary,
    /// A secondary takes over by itself.
    #[serde(default = "on", with = "quantity::switch")]
    pub failover: bool,
    /// What a full isolation leads to without an arbiter.
    #[serde(default)]
    pub isolation: Isolation,
    /// Automatic restarts allowed in `loop_interval`.
    #[serde(default = "max_loop")]
    pub max_loop: u32,
    /// Window of `max_loop`.
    #[serde(default = "day", with = "quantity::duration")]
    pub loop_interval: Duration,
    /// Wait after `max_loop` before trying again; zero: never.
    #[serde(default = "ten_minutes", with = "quantity::duration")]
    pub retry_after: Duration,
}

/// `[heartbeat]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeartbeatSpec {
    /// How often a heartbeat is sent.
    #[serde(with = "quantity::duration")]
    pub interval: Duration,
    /// Silence after which the other node counts as lost.
    #[serde(with = "quantity::duration")]
    pub timeout: Duration,
    /// Lans; empty: all of the cluster.
    pub lans: Vec<String>,
    /// How long the module goes on serving while `safed` is gone.
    #[serde(with = "quantity::duration")]
    pub agent_timeout: Duration,
    /// How long a start waits for the other node before serving alone.
    #[serde(with = "quantity::duration")]
    pub start_wait: Duration,
}

impl Default for HeartbeatSpec {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(300),
            timeout: Duration::from_secs(3),
            lans: Vec::new(),
            agent_timeout: Duration::from_secs(10),
            start_wait: Duration::from_secs(10),
        }
    }
}

/// `[replication]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicationSpec {
    /// Lans by preference; empty: all of the cluster, in its order.
    pub lans: Vec<String>,
    /// Silence of the stream, while heartbeats live, after which the other node is outdated.
    #[serde(with = "quantity::duration")]
    pub stall_timeout: Duration,
    /// Slowness after which the other node is outdated.
    #[serde(with = "quantity::duration")]
    pub slow_timeout: Duration,
    /// Longest operation of the local disk before it counts as failed.
    #[serde(with = "quantity::duration")]
    pub local_timeout: Duration,
    /// A stale copy this young may serve when the other node is gone; zero: never.
    #[serde(with = "quantity::duration")]
    pub sync_delta: Duration,
    /// Of a resync only.
    pub bandwidth_limit: BandwidthLimit,
    /// Comparison of both copies by content.
    pub verify: Verify,
}

impl Default for ReplicationSpec {
    fn default() -> Self {
        Self {
            lans: Vec::new(),
            stall_timeout: Duration::from_secs(2),
            slow_timeout: Duration::from_secs(30),
            local_timeout: Duration::from_secs(10),
            sync_delta: Duration::ZERO,
            bandwidth_limit: BandwidthLimit::Auto,
            verify: Verify::Weekly,
        }
    }
}

/// `[[replicate]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicateSpec {
    /// Directory: absolute, normalised.
    pub path: String,
    /// Globs relative to it; what matches stays local.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// When a write is given to the other node.
    #[serde(default)]
    pub sync: Sync,
    /// When the other node counts as having it.
    #[serde(default)]
    pub ack: Ack,
}

/// `[split_brain]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitBrainSpec {
    /// Who survives.
    pub policy: SplitBrainPolicy,
    /// Most bytes that the loser's files kept aside may take.
    #[serde(with = "quantity::size")]
    pub archive_limit: u64,
}

impl Default for SplitBrainSpec {
    fn default() -> Self {
        Self { policy: SplitBrainPolicy::Serving, archive_limit: 10 << 30 }
    }
}

/// `[[address]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressSpec {
    /// The address and its prefix length.
    pub ip: AddressPrefix,
    /// Interface; `auto`: the one whose network holds the address.
    #[serde(default = "auto")]
    pub interface: String,
}

/// `[[arbiter]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArbiterSpec {
    /// Name; none: see [`super::ModuleSpec::arbiter_name`].
    #[serde(default)]
    pub name: Option<String>,
    /// Kind.
    pub kind: ArbiterKind,
    /// Address (`ping`), address and port (`tcp`), URL (`http`, lock arbiters), command (`command`).
    pub target: String,
}

/// `[[process]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// Name of the command.
    pub name: String,
    /// In which states it must run.
    #[serde(default = "prim")]
    pub class: When,
    /// What is done when it does not.
    #[serde(default = "stopstart")]
    pub action: Reaction,
}

/// `[[check]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// Kind.
    pub kind: CheckKind,
    /// Name, unique among its kind.
    pub name: String,
    /// What is checked.
    #[serde(default)]
    pub target: String,
    /// In which states it runs.
    #[serde(default = "prim")]
    pub when: When,
    /// What is done when it is down.
    #[serde(default = "restart")]
    pub action: Reaction,
    /// How often.
    #[serde(default = "ten_seconds", with = "quantity::duration")]
    pub interval: Duration,
    /// Longest wait for one answer.
    #[serde(default = "five_seconds", with = "quantity::duration")]
    pub timeout: Duration,
}

/// `[[rule]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// Name.
    pub label: String,
    /// `if`: an expression over resources.
    #[serde(rename = "if")]
    pub condition: String,
    /// What is done when it holds.
    pub then: Reaction,
    /// How long it must hold.
    #[serde(default = "fifteen_seconds", with = "quantity::duration")]
    pub after: Duration,
}

/// `[scripts]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScriptsSpec {
    /// Deadline of a start script.
    #[serde(with = "quantity::duration")]
    pub start_timeout: Duration,
    /// Deadline of a stop script.
    #[serde(with = "quantity::duration")]
    pub stop_timeout: Duration,
    /// Deadline of a stop script called with `force`.
    #[serde(with = "quantity::duration")]
    pub force_timeout: Duration,
}

impl Default for ScriptsSpec {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(300),
            stop_timeout: Duration::from_secs(300),
            force_timeout: Duration::from_secs(60),
        }
    }
}

fn on() -> bool {
    true
}

fn max_loop() -> u32 {
    3
}

fn day() -> Duration {
    Duration::from_secs(86_400)
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn fifteen_seconds() -> Duration {
    Duration::from_secs(15)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn auto() -> String {
    "auto".to_owned()
}

fn prim() -> When {
    When::Prim
}

fn stopstart() -> Reaction {
    Reaction::Stopstart
}

fn restart() -> Reaction {
    Reaction::Restart
}
