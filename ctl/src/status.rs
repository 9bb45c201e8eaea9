//! What `safed` says of a module on a node. The serialised form is the documented JSON: `safectl help json`.

use std::time::Duration;

use indicatif::HumanDuration;
use safe_proto::module as wire;
use serde::Serialize;

use crate::moment::Moment;

/// State of a module on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum State {
    Stop,
    Wait,
    Alone,
    Prim,
    Second,
    Up,
    /// The node does not answer.
    Unknown,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stop => "STOP",
            Self::Wait => "WAIT",
            Self::Alone => "ALONE",
            Self::Prim => "PRIM",
            Self::Second => "SECOND",
            Self::Up => "UP",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The application runs here.
    pub(crate) fn serves(self) -> bool {
        matches!(self, Self::Alone | Self::Prim | Self::Up)
    }
}

impl From<wire::State> for State {
    fn from(state: wire::State) -> Self {
        match state {
            wire::State::Stop => Self::Stop,
            wire::State::Wait => Self::Wait,
            wire::State::Alone => Self::Alone,
            wire::State::Prim => Self::Prim,
            wire::State::Second => Self::Second,
            wire::State::Up => Self::Up,
            wire::State::Unspecified | wire::State::Unknown => Self::Unknown,
        }
    }
}

/// How far a state is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Ready,
    Transient,
    Blocked,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Transient => "transient",
            Self::Blocked => "blocked",
        }
    }

    fn from_wire(phase: wire::Phase) -> Option<Self> {
        match phase {
            wire::Phase::Unspecified => None,
            wire::Phase::Ready => Some(Self::Ready),
            wire::Phase::Transient => Some(Self::Transient),
            wire::Phase::Blocked => Some(Self::Blocked),
        }
    }
}

/// One module on one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Entry {
    pub(crate) module: String,
    pub(crate) kind: String,
    pub(crate) node: String,
    pub(crate) state: State,
    pub(crate) phase: Option<Phase>,
    pub(crate) reason: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) since: Moment,
    pub(crate) as_of: Moment,
    pub(crate) data: Data,
    pub(crate) replication: Replication,
    pub(crate) addresses: Vec<Address>,
    pub(crate) lans: Vec<Lan>,
    pub(crate) arbiters: Vec<Arbiter>,
    pub(crate) boot: Option<String>,
    pub(crate) failover: Option<String>,
    /// Not told by this release.
    pub(crate) checkers: Option<String>,
    pub(crate) restarts: Restarts,
    pub(crate) version: Option<String>,
    /// What happens if every lan is cut.
    pub(crate) isolation: Option<String>,
    pub(crate) warnings: Vec<String>,
}

/// One copy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Data {
    /// None: the node does not answer.
    pub(crate) uptodate: Option<bool>,
    /// None: the node does not answer, or there is no copy yet whose state could be told.
    pub(crate) consistent: Option<bool>,
    pub(crate) lineage: Option<String>,
    pub(crate) last_paired: Moment,
    pub(crate) resync: Option<Resync>,
    /// The comparison that runs, or the last one that this node made.
    pub(crate) verify: Option<Verify>,
}

/// A comparison of both copies by content.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verify {
    pub(crate) running: bool,
    pub(crate) started: Moment,
    /// Null while it runs.
    pub(crate) ended: Moment,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_total: u64,
    pub(crate) rate: u64,
    pub(crate) eta_s: Option<u32>,
    pub(crate) differences: u64,
    /// The first of them.
    pub(crate) named: Vec<Difference>,
    /// What differed is, or was, resent.
    pub(crate) repair: bool,
    /// Why it ended before its end.
    pub(crate) reason: Option<String>,
}

/// One difference between the copies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Difference {
    pub(crate) path: String,
    pub(crate) what: String,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// A resync that runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Resync {
    pub(crate) plan: String,
    pub(crate) files_done: u64,
    pub(crate) files_total: u64,
    pub(crate) bytes_done: u64,
    pub(crate) bytes_total: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) rate: u64,
    pub(crate) eta_s: Option<u32>,
    /// Paused, and for how long yet.
    pub(crate) paused_s: Option<u32>,
}

impl Resync {
    /// When it will have ended, for people.
    pub(crate) fn time_left(&self) -> String {
        let time = |seconds: u32| HumanDuration(Duration::from_secs(seconds.into()));
        match (self.paused_s, self.eta_s) {
            (Some(seconds), _) => format!("paused, goes on in {}", time(seconds)),
            (None, Some(seconds)) => format!("{} to go", time(seconds)),
            (None, None) => "time unknown".to_owned(),
        }
    }

    /// How much of it is done; nothing to do yet is 0.
    pub(crate) fn percent(&self) -> u64 {
        let total = self.bytes_total.max(1);
        (u128::from(self.bytes_done.min(total)) * 100 / u128::from(total)).try_into().unwrap_or(0)
    }
}

/// The stream between the nodes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Replication {
    /// None: the node does not answer.
    pub(crate) connected: Option<bool>,
    pub(crate) lan: Option<String>,
    /// None: the node does not answer.
    pub(crate) backlog: Option<u64>,
    pub(crate) ack_us: Option<u32>,
}

/// A virtual address.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Address {
    pub(crate) ip: String,
    pub(crate) present: bool,
    pub(crate) interface: Option<String>,
}

/// A lan towards the other node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Lan {
    pub(crate) name: String,
    pub(crate) up: bool,
}

/// An arbiter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Arbiter {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) up: bool,
    /// up, down or unknown.
    pub(crate) state: Option<String>,
    pub(crate) since: Moment,
    pub(crate) why: Option<String>,
}

/// Automatic restarts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Restarts {
    /// None: the node does not answer.
    pub(crate) count: Option<u32>,
    /// None: the node does not answer.
    pub(crate) max: Option<u32>,
}

impl Entry {
    /// `PRIM/ready`
    pub(crate) fn state_and_phase(&self) -> String {
        match self.phase {
            Some(phase) => format!("{}/{}", self.state.name(), phase.name()),
            None => self.state.name().to_owned(),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Some(Phase::Ready)
    }

    /// A person is awaited here.
    pub(crate) fn awaits_person(&self) -> bool {
        self.phase == Some(Phase::Blocked) && self.hint.is_some()
    }
}

impl From<wire::ModuleStatus> for Entry {
    fn from(status: wire::ModuleStatus) -> Self {
        let (state, phase): (State, _) = (status.state().into(), Phase::from_wire(status.phase()));
        // Of a node that does not answer nothing is known, whatever zeros the message holds.
        let known = state != State::Unknown;
        let mut data = Data::known(status.data.unwrap_or_default(), known);
        if matches!(state, State::Prim | State::Second) && phase == Some(Phase::Ready) {
            data.last_paired = Moment(status.as_of_ms);
        }
        Self {
            state,
            phase,
            module: status.module,
            kind: status.kind,
            node: status.node,
            reason: some(status.reason),
            // A module that was stopped as it was asked to awaits nobody.
            hint: some(status.hint).filter(|_| (state, phase) != (State::Stop, Some(Phase::Ready))),
            since: Moment(status.since_ms),
            as_of: Moment(status.as_of_ms),
            data,
            replication: Replication::known(status.replication.unwrap_or_default(), known),
            addresses: status.addresses.into_iter().map(Into::into).collect(),
            lans: status.lans.into_iter().map(|lan| Lan { name: lan.name, up: lan.up }).collect(),
            arbiters: status
                .arbiters
                .into_iter()
                .map(|one| Arbiter {
                    name: one.name,
                    kind: one.kind,
                    up: one.up,
                    state: some(one.state),
                    since: Moment(one.since_ms),
                    why: some(one.why),
                })
                .collect(),
            boot: some(status.boot),
            failover: some(status.failover),
            checkers: None,
            restarts: Restarts {
                count: known.then_some(status.restarts),
                max: known.then_some(status.restarts_max),
            },
            version: some(status.version),
            isolation: some(status.isolation),
            warnings: status.warnings,
        }
    }
}

impl Data {
    fn known(data: wire::DataStatus, known: bool) -> Self {
        let lineage = some(data.lineage);
        Self {
            uptodate: known.then_some(data.uptodate),
            // A copy without a history is not broken: it is none yet.
            consistent: (known && (data.consistent || lineage.is_some())).then_some(data.consistent),
            lineage,
            last_paired: Moment::from_seconds(data.last_paired),
            resync: data.resync.map(Into::into),
            verify: data.verify.map(Into::into),
        }
    }
}

impl From<wire::VerifyStatus> for Verify {
    fn from(verify: wire::VerifyStatus) -> Self {
        let named = verify.named.into_iter().map(|one| Difference {
            path: one.path,
            what: one.what,
            offset: one.offset,
            length: one.length,
        });
        Self {
            running: verify.running,
            started: Moment::from_seconds(verify.started),
            ended: Moment::from_seconds(verify.ended),
            files: verify.files,
            bytes: verify.bytes,
            bytes_total: verify.bytes_total,
            rate: verify.rate,
            eta_s: verify.eta_s,
            differences: verify.differences,
            named: named.collect(),
            repair: verify.repair,
            reason: some(verify.reason),
        }
    }
}

impl From<wire::ResyncStatus> for Resync {
    fn from(resync: wire::ResyncStatus) -> Self {
        Self {
            plan: resync.plan,
            files_done: resync.files_done,
            files_total: resync.files_total,
            bytes_done: resync.bytes_done,
            bytes_total: resync.bytes_total,
            bytes_sent: resync.bytes_sent,
            rate: resync.rate,
            eta_s: resync.eta_s,
            paused_s: resync.paused_s,
        }
    }
}

impl Replication {
    fn known(replication: wire::ReplicationStatus, known: bool) -> Self {
        Self {
            connected: known.then_some(replication.connected),
            lan: some(replication.lan),
            backlog: known.then_some(replication.backlog),
            ack_us: Some(replication.ack_us).filter(|&us| us > 0),
        }
    }
}

impl From<wire::AddressStatus> for Address {
    fn from(address: wire::AddressStatus) -> Self {
        Self { ip: address.ip, present: address.present, interface: some(address.interface) }
    }
}

/// An empty text of the wire is nothing.
fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
