//! One installed module, resolved for this node: what the core, the replicator and the scripts must know of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use safe_failover::config::{self, ArbiterKind, Config, Side};
use safe_failover::lock::Lock;
use safe_proto::module::ModuleFiles;
use safe_proto::replication;
use safe_proto::spec::{self, BandwidthLimit, Finding, Kind, ModuleSpec, SplitBrainPolicy, Surroundings};

use crate::node::{Heartbeats, Membership};
use crate::paths::{ModulePaths, Paths};
use crate::spec_store::Label;

/// A pair that was whole so long is quiet: the preferred primary gets its role back.
const QUIET: Duration = Duration::from_secs(30);

/// One module on this node.
#[derive(Debug, Clone)]
pub struct Module {
    /// Name.
    pub name: String,
    /// `module.toml`.
    pub spec: ModuleSpec,
    /// Version in force.
    pub label: Label,
    /// Its files.
    pub paths: ModulePaths,
    /// This node.
    pub node: String,
}

/// A mirror module's pair, seen from this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Which of the two nodes this is.
    pub side: Side,
    /// The other one.
    pub peer: String,
}

impl Module {
    /// Reads the version in force.
    ///
    /// # Errors
    /// It cannot be read, or is not valid any more; one sentence.
    pub fn load(paths: &Paths, name: &str, node: &str) -> Result<Self, String> {
        let paths = paths.module(name);
        let label = crate::spec_store::label(&paths)
            .map_err(|error| format!("cannot read the module's version: {error}; install it again"))?;
        let file = paths.spec().join(spec::FILE);
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("cannot read {}: {error}; install the module again", file.display()))?;
        let mut spec = ModuleSpec::parse(&text).map_err(|findings| sentence(&findings))?;
        // Installed under another name: that one counts.
        name.clone_into(&mut spec.module.name);
        spec.rules().map_err(|(index, error)| {
            format!(
                "the rule {} is wrong {error}; correct it and install the module again",
                spec.rule[index].label
            )
        })?;
        Ok(Self { name: name.to_owned(), spec, label, paths, node: node.to_owned() })
    }

    /// Which node of its pair this is; none: not a mirror, or not a module of this node.
    #[must_use]
    pub fn pair(&self) -> Option<Pair> {
        if self.spec.module.kind != Kind::Mirror {
            return None;
        }
        match self.label.nodes.as_slice() {
            [first, second] if *first == self.node => Some(Pair { side: Side::First, peer: second.clone() }),
            [first, second] if *second == self.node => Some(Pair { side: Side::Second, peer: first.clone() }),
            _ => None,
        }
    }

    /// Why this release cannot run the module although it is valid; none: it can.
    #[must_use]
    pub fn unsupported(&self) -> Option<String> {
        let kind = self.spec.module.kind;
        if kind != Kind::Mirror {
            return Some(format!(
                "{} modules cannot be started in this release: only mirror modules run",
                kind.as_str()
            ));
        }
        if self.pair().is_none() {
            return Some(format!(
                "a mirror module runs on two nodes and this one must be among them, but its nodes are: {}; \
                 name two in module.toml and install it again",
                self.label.nodes.join(", ")
            ));
        }
        None
    }

    /// Parts of the spec that this release accepts but does not act on; for the record of events.
    #[must_use]
    pub fn ignored(&self) -> Vec<&'static str> {
        let parts =
            [("[[check]]", self.spec.check.is_empty()), ("[[process]]", self.spec.process.is_empty())];
        parts.into_iter().filter(|(_, empty)| !empty).map(|(name, _)| name).collect()
    }

    /// Replicated directories.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        self.spec.replicate.iter().map(|replicate| PathBuf::from(&replicate.path)).collect()
    }

    /// What the heartbeat thread must know.
    #[must_use]
    pub fn heartbeats(&self, pair: &Pair, membership: &Membership) -> Heartbeats {
        Heartbeats {
            peer: pair.peer.clone(),
            lans: self.spec.heartbeat_lans_in(&membership.lans),
            interval: self.spec.heartbeat.interval,
            timeout: self.spec.heartbeat.timeout,
        }
    }

    /// What the core must know.
    #[must_use]
    pub fn core_config(&self, pair: &Pair, entropy: u128, boot_id: u128) -> Config {
        let spec = &self.spec;
        Config {
            module: self.name.clone(),
            node: self.node.clone(),
            peer: pair.peer.clone(),
            side: pair.side,
            interval: spec.heartbeat.interval,
            timeout: spec.heartbeat.timeout,
            agent_timeout: spec.heartbeat.agent_timeout,
            start_wait: spec.heartbeat.start_wait,
            stall_timeout: spec.replication.stall_timeout,
            slow_timeout: spec.replication.slow_timeout,
            isolation: match spec.module.isolation {
                spec::Isolation::Alone => config::Isolation::Alone,
                spec::Isolation::Wait => config::Isolation::Wait,
            },
            arbiter: self.arbiter_kind(),
            lock: lock_of(&self.spec).unwrap_or_default(),
            split_brain: match spec.split_brain.policy {
                SplitBrainPolicy::Serving => config::SplitBrain::Serving,
                SplitBrainPolicy::Manual => config::SplitBrain::Manual,
            },
            default_primary: self.default_primary(),
            quiet: QUIET,
            sync_delta: spec.replication.sync_delta,
            failover: spec.module.failover,
            has_addresses: !spec.address.is_empty(),
            start_timeout: spec.scripts.start_timeout,
            stop_timeout: spec.scripts.stop_timeout,
            force_timeout: spec.scripts.force_timeout,
            max_loop: spec.module.max_loop,
            loop_interval: spec.module.loop_interval,
            retry_after: spec.module.retry_after,
            // A module with a rule that cannot be read is not loaded.
            rules: spec.rules().unwrap_or_default(),
            left_out: None,
            entropy,
            boot_id,
        }
    }

    fn arbiter_kind(&self) -> ArbiterKind {
        let arbiters = &self.spec.arbiter;
        if arbiters.iter().any(|arbiter| arbiter.kind.is_lock()) {
            ArbiterKind::Lock
        } else if arbiters.is_empty() {
            ArbiterKind::None
        } else {
            ArbiterKind::Reachability
        }
    }

    fn default_primary(&self) -> config::DefaultPrimary {
        match &self.spec.module.default_primary {
            spec::DefaultPrimary::None => config::DefaultPrimary::None,
            spec::DefaultPrimary::Last => config::DefaultPrimary::Last,
            spec::DefaultPrimary::Node(node) if self.label.nodes.first() == Some(node) => {
                config::DefaultPrimary::Node(Side::First)
            }
            spec::DefaultPrimary::Node(_) => config::DefaultPrimary::Node(Side::Second),
        }
    }

    /// What its replicator must know.
    #[must_use]
    pub fn configure(&self, pair: &Pair, membership: &Membership) -> replication::Configure {
        let spec = &self.spec;
        replication::Configure {
            protocol: safe_proto::PROTOCOL,
            module: self.name.clone(),
            cluster: membership.cluster.clone(),
            node: self.node.clone(),
            peer: pair.peer.clone(),
            first: pair.side == Side::First,
            peer_endpoints: self.peer_endpoints(pair, membership).iter().map(ToString::to_string).collect(),
            directories: spec.replicate.iter().map(directory).collect(),
            state_dir: self.paths.journal().display().to_string(),
            ca: membership.ca.clone(),
            certificate: membership.certificate.clone(),
            key: membership.key.clone(),
            heartbeat_key: membership.heartbeat_key.to_vec().into(),
            timeout_ms: millis(spec.heartbeat.timeout),
            agent_timeout_ms: millis(spec.heartbeat.agent_timeout),
            stall_timeout_ms: millis(spec.replication.stall_timeout),
            slow_timeout_ms: millis(spec.replication.slow_timeout),
            local_timeout_ms: millis(spec.replication.local_timeout),
            bandwidth_limit: match spec.replication.bandwidth_limit {
                BandwidthLimit::Auto => 0,
                BandwidthLimit::Off => u64::MAX,
                BandwidthLimit::BytesPerSecond(rate) => rate,
            },
            interval_ms: millis(spec.heartbeat.interval),
            virtual_addresses: spec.address.iter().map(|address| address.ip.to_string()).collect(),
            module_dir: self.paths.spec().display().to_string(),
            archive_dir: self.paths.conflicts().display().to_string(),
            archive_limit: spec.split_brain.archive_limit,
        }
    }

    /// The peer's addresses for the replication stream, by preference.
    #[must_use]
    pub fn peer_endpoints(&self, pair: &Pair, membership: &Membership) -> Vec<SocketAddr> {
        let Some(peer) = membership.nodes.iter().find(|member| member.name == pair.peer) else {
            return Vec::new();
        };
        let lans = self.spec.replication_lans_in(&membership.lans);
        lans.iter()
            .filter_map(|lan| peer.addresses.get(lan))
            .map(|ip| SocketAddr::new(*ip, membership.ports.stream))
            .collect()
    }
}

/// The lock arbiter of a version: its kind and its target.
#[must_use]
pub fn lock_of(spec: &ModuleSpec) -> Option<Lock> {
    let lock = spec.arbiter.iter().find(|arbiter| arbiter.kind.is_lock())?;
    Some(lock_named(lock.kind, &lock.target))
}

/// A lock arbiter as hard state names it.
#[must_use]
pub fn lock_named(kind: spec::ArbiterKind, target: &str) -> Lock {
    Lock(format!("{} {target}", kind.as_str()))
}

fn directory(replicate: &spec::ReplicateSpec) -> replication::Directory {
    replication::Directory {
        path: replicate.path.clone(),
        exclude: replicate.exclude.clone(),
        ack_disk: replicate.ack == spec::Ack::Disk,
        write_back: replicate.sync == spec::Sync::Fsync,
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Checks what is to be installed under `name`, as this node sees it.
///
/// # Errors
/// Findings of which at least one is an error, as sentences.
pub fn check(
    name: &str,
    content: &ModuleFiles,
    around: Surroundings<'_>,
    others: &[Arc<Module>],
) -> Result<ModuleSpec, String> {
    spec::label::check("module name", name)?;
    let mut spec = ModuleSpec::parse(&content.spec).map_err(|findings| sentence(&findings))?;
    name.clone_into(&mut spec.module.name);
    let mut findings = spec::files::check(content);
    findings.extend(spec.validate(around));
    for other in others.iter().filter(|other| other.name != name) {
        findings.extend(spec.conflicts(&other.spec));
    }
    findings.retain(|finding| finding.error);
    if findings.is_empty() { Ok(spec) } else { Err(sentence(&findings)) }
}

fn sentence(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
