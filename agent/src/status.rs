//! What people and programs see of a module on this node.

use safe_failover::action::{Phase, State, Status};
use safe_failover::hard::HardState;
use safe_proto::module::{
    self, AddressStatus, ArbiterStatus, DataStatus, LanStatus, ModuleStatus, ReplicationStatus, ResyncStatus,
    VerifyStatus,
};
use safe_proto::replication::{Plan, Progress, StreamFigures};

use crate::clock;
use crate::module::Module;
use crate::node::Membership;

/// What the shell knows of a module besides its core.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// A resync that runs.
    pub progress: Option<Progress>,
    /// A comparison of the copies that runs, or the last one.
    pub verify: Option<VerifyStatus>,
    /// Figures of the stream, while it is up.
    pub figures: Option<StreamFigures>,
    /// The stream is up.
    pub connected: bool,
    /// Addresses on this node.
    pub addresses: Vec<AddressStatus>,
    /// Lans towards the other node, in order of their index.
    pub lans: Vec<LanStatus>,
    /// Arbiters, in the order of the spec.
    pub arbiters: Vec<ArbiterStatus>,
    /// What a person should put right although the module runs.
    pub warnings: Vec<String>,
}

/// Status of a module whose core runs.
#[must_use]
pub fn of_mirror(
    module: &Module,
    core: &Status,
    hard: &HardState,
    observed: &Observed,
    membership: Option<&Membership>,
) -> ModuleStatus {
    let mut status = of_idle(module, "");
    status.state = i32::from(state(core.state));
    status.phase = i32::from(phase(core.phase));
    status.reason.clone_from(&core.reason);
    status.hint = core.hint.clone().unwrap_or_default();
    status.data = Some(DataStatus {
        uptodate: core.uptodate,
        consistent: core.consistent,
        lineage: core.lineage.map(|id| format!("{:032x}", id.0)).unwrap_or_default(),
        last_paired: i64::try_from(hard.last_paired).unwrap_or(i64::MAX),
        resync: observed.progress.as_ref().map(resync),
        verify: observed.verify.clone(),
    });
    let figures = observed.figures.clone().unwrap_or_default();
    status.replication = Some(ReplicationStatus {
        connected: observed.connected,
        lan: membership.and_then(|membership| lan_of(&figures.endpoint, membership)).unwrap_or_default(),
        backlog: figures.backlog,
        ack_us: figures.ack_us,
    });
    status.addresses.clone_from(&observed.addresses);
    status.lans.clone_from(&observed.lans);
    status.arbiters.clone_from(&observed.arbiters);
    status.warnings.clone_from(&observed.warnings);
    status.restarts = hard.restarts;
    status
}

/// Status of a module that cannot run here, and why.
#[must_use]
pub fn of_idle(module: &Module, reason: &str) -> ModuleStatus {
    let now = clock::unix_ms();
    let spec = &module.spec.module;
    ModuleStatus {
        module: module.name.clone(),
        kind: spec.kind.as_str().to_owned(),
        node: module.node.clone(),
        state: i32::from(module::State::Stop),
        phase: i32::from(if reason.is_empty() { module::Phase::Ready } else { module::Phase::Blocked }),
        reason: reason.to_owned(),
        since_ms: now,
        as_of_ms: now,
        boot: spec.boot.as_str().to_owned(),
        failover: if spec.failover { "on" } else { "off" }.to_owned(),
        restarts_max: spec.max_loop,
        version: module.label.version.clone(),
        isolation: module.spec.isolation().unwrap_or_default().to_owned(),
        ..ModuleStatus::default()
    }
}

/// Status of a module whose spec cannot be read.
#[must_use]
pub fn of_unreadable(name: &str, node: &str, reason: &str) -> ModuleStatus {
    let now = clock::unix_ms();
    ModuleStatus {
        module: name.to_owned(),
        node: node.to_owned(),
        state: i32::from(module::State::Stop),
        phase: i32::from(module::Phase::Blocked),
        reason: reason.to_owned(),
        since_ms: now,
        as_of_ms: now,
        ..ModuleStatus::default()
    }
}

/// Keeps `since` of the state that lasts, and says whether anything but the time differs.
pub fn follow(before: Option<&ModuleStatus>, after: &mut ModuleStatus) -> bool {
    let Some(before) = before else { return true };
    if before.state == after.state {
        after.since_ms = before.since_ms;
    }
    let as_of_ms = std::mem::replace(&mut after.as_of_ms, before.as_of_ms);
    let changed = before != after;
    after.as_of_ms = as_of_ms;
    changed
}

/// A state of the core, on the wire.
#[must_use]
pub fn state(state: State) -> module::State {
    match state {
        State::Stop => module::State::Stop,
        State::Wait => module::State::Wait,
        State::Alone => module::State::Alone,
        State::Prim => module::State::Prim,
        State::Second => module::State::Second,
    }
}

fn phase(phase: Phase) -> module::Phase {
    match phase {
        Phase::Ready => module::Phase::Ready,
        Phase::Transient => module::Phase::Transient,
        Phase::Blocked => module::Phase::Blocked,
    }
}

fn resync(progress: &Progress) -> ResyncStatus {
    let plan = match progress.plan() {
        Plan::Unspecified => "",
        Plan::Repair => "repair",
        Plan::Delta => "delta",
        Plan::Full => "full",
    };
    ResyncStatus {
        plan: plan.to_owned(),
        files_done: progress.files_done,
        files_total: progress.files_total,
        bytes_done: progress.bytes_done,
        bytes_total: progress.bytes_total,
        bytes_sent: progress.bytes_sent,
        rate: progress.rate,
        eta_s: progress.eta_s,
        paused_s: progress.paused_s,
    }
}

/// The lan an address of some node belongs to.
fn lan_of(endpoint: &str, membership: &Membership) -> Option<String> {
    let ip = endpoint.parse::<std::net::SocketAddr>().ok()?.ip();
    let mut addresses = membership.nodes.iter().flat_map(|member| &member.addresses);
    addresses.find(|(_, address)| **address == ip.to_canonical()).map(|(lan, _)| lan.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_lasts_with_the_state_and_time_alone_is_no_change() {
        let before = ModuleStatus { state: 1, since_ms: 5, as_of_ms: 5, ..ModuleStatus::default() };
        let mut same = ModuleStatus { state: 1, since_ms: 9, as_of_ms: 9, ..ModuleStatus::default() };
        assert!(!follow(Some(&before), &mut same));
        assert_eq!((same.since_ms, same.as_of_ms), (5, 9));
        let mut other = ModuleStatus { state: 2, since_ms: 9, as_of_ms: 9, ..ModuleStatus::default() };
        assert!(follow(Some(&before), &mut other));
        assert_eq!(other.since_ms, 9);
    }
}
