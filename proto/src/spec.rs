//! What a module is: `module.toml`, as types.
//!
//! Reading order: this file (the whole), [`section`] (the tables with their keys and defaults), [`Finding`] (what is
//! wrong with one), `read` (text to types), `check` (rules that serde cannot say), `isolation` (what a full isolation will do), [`files`] (the directory around
//! it), `conflict` (two modules side by side).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod change;
mod check;
mod conflict;
pub mod files;
mod finding;
mod isolation;
pub mod label;
mod prefix;
pub mod quantity;
mod read;
pub mod rules;
pub mod section;
mod suggest;
pub mod value;

pub use change::Change;
pub use finding::Finding;
pub use prefix::AddressPrefix;
pub use section::{
    AddressSpec, ArbiterSpec, CheckSpec, HeartbeatSpec, ModuleSection, ProcessSpec, ReplicateSpec,
    ReplicationSpec, RuleSpec, ScriptsSpec, SplitBrainSpec,
};
pub use value::{
    Ack, ArbiterKind, BandwidthLimit, Boot, CheckKind, DefaultPrimary, Isolation, Kind, Reaction,
    SplitBrainPolicy, Sync, Verify, When,
};

/// Name of the file that holds a [`ModuleSpec`].
pub const FILE: &str = "module.toml";

/// Largest `module.toml`.
pub const MAX_BYTES: usize = 256 * 1024;

/// A module: the content of `module.toml`. Every table but `[module]` may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleSpec {
    /// `[module]`
    pub module: ModuleSection,
    /// `[heartbeat]`
    #[serde(default)]
    pub heartbeat: HeartbeatSpec,
    /// `[replication]`
    #[serde(default)]
    pub replication: ReplicationSpec,
    /// `[[replicate]]`, one for each directory.
    #[serde(default)]
    pub replicate: Vec<ReplicateSpec>,
    /// `[split_brain]`
    #[serde(default)]
    pub split_brain: SplitBrainSpec,
    /// `[[address]]`, one for each virtual address.
    #[serde(default)]
    pub address: Vec<AddressSpec>,
    /// `[[arbiter]]`
    #[serde(default)]
    pub arbiter: Vec<ArbiterSpec>,
    /// `[[process]]`
    #[serde(default)]
    pub process: Vec<ProcessSpec>,
    /// `[[check]]`
    #[serde(default)]
    pub check: Vec<CheckSpec>,
    /// `[[rule]]`
    #[serde(default)]
    pub rule: Vec<RuleSpec>,
    /// `[scripts]`
    #[serde(default)]
    pub scripts: ScriptsSpec,
    /// `[env]`: environment of the scripts.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where each key stands in the text, for findings.
    #[serde(skip)]
    lines: read::Lines,
}

/// What is known around a module when it is checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// Nodes of the cluster; none: not known (checked away from any cluster).
    pub nodes: Option<&'a [String]>,
    /// Lans of the cluster, the default one first; none: not known.
    pub lans: Option<&'a [String]>,
    /// Paths of safed itself that no module may replicate, such as `/var/lib/safed`.
    pub own_paths: &'a [PathBuf],
    /// Nodes of the cluster with one of their addresses each, once for each address; empty: not known.
    pub addresses: &'a [(String, IpAddr)],
    /// `HOST:PORT` of the witnesses that the cluster knows; none: not known (checked away from any cluster).
    pub witnesses: Option<&'a [String]>,
}

impl ModuleSpec {
    /// Reads `module.toml`.
    ///
    /// # Errors
    /// Everything that is not TOML or not of the documented form, each with its line.
    pub fn parse(text: &str) -> Result<Self, Vec<Finding>> {
        read::read(text)
    }

    /// Checks the rules that a single key cannot express. Errors refuse the module, warnings do not.
    #[must_use]
    pub fn validate(&self, around: Surroundings<'_>) -> Vec<Finding> {
        check::check(self, around)
    }

    /// What stands between this module and another of the same cluster: an overlapping directory, or the same address.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> Vec<Finding> {
        conflict::conflicts(self, other)
    }

    /// The module's nodes in order: as named, or by default all nodes of the cluster (`light`: the installing one).
    #[must_use]
    pub fn nodes_in(&self, cluster: &[String], installing: &str) -> Vec<String> {
        if !self.module.nodes.is_empty() {
            return self.module.nodes.clone();
        }
        match self.module.kind {
            Kind::Mirror | Kind::Farm => cluster.to_vec(),
            Kind::Light => vec![installing.to_owned()],
        }
    }

    /// The lans of the heartbeats: as named, or all of the cluster.
    #[must_use]
    pub fn heartbeat_lans_in(&self, cluster: &[String]) -> Vec<String> {
        if self.heartbeat.lans.is_empty() { cluster.to_vec() } else { self.heartbeat.lans.clone() }
    }

    /// The lans of the replication stream by preference: as named, or all of the cluster in its order.
    #[must_use]
    pub fn replication_lans_in(&self, cluster: &[String]) -> Vec<String> {
        if self.replication.lans.is_empty() { cluster.to_vec() } else { self.replication.lans.clone() }
    }

    /// Name of the arbiter at `index`: as given, or KIND-N, counted from 1 among its kind.
    #[must_use]
    pub fn arbiter_name(&self, index: usize) -> Option<String> {
        let arbiter = self.arbiter.get(index)?;
        if let Some(name) = &arbiter.name {
            return Some(name.clone());
        }
        let nth = self.arbiter.iter().take(index + 1).filter(|one| one.kind == arbiter.kind).count();
        Some(format!("{}-{nth}", arbiter.kind.as_str()))
    }

    /// A finding about a key of this file, such as `heartbeat.timeout` or `replicate.0.path`.
    fn finding(&self, error: bool, key: &str, message: String) -> Finding {
        Finding { error, file: FILE.to_owned(), line: self.lines.of(key), message }
    }
}
