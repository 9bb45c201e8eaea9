//! Views between their form on the wire and the one the core knows. What comes from the network is checked here.

use std::time::Duration;

use safe_failover::hard::Role;
use safe_failover::lineage::{HISTORY_LIMIT, Lineage, LineageId};
use safe_failover::view::{Conceded, Copy, Demand, Entered, Fenced, Grant, Mode, Plan, SessionId, View};
use safe_proto::peer as wire;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A field that must be set is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value no sender of this version makes.
    #[error("{0} is not valid")]
    Invalid(&'static str),
}

use ConvertError::{Invalid, Missing};

/// To the wire; cannot fail.
#[must_use]
pub fn view_to_wire(view: &View) -> wire::View {
    wire::View {
        incarnation: view.incarnation,
        serial: view.serial,
        link: view.link,
        heard_link: view.heard_link,
        mode: mode_to_wire(view.mode).into(),
        meetable: view.meetable,
        serving: view.serving,
        role: role_to_wire(view.role).into(),
        term: view.term,
        lineage: Some(lineage_to_wire(&view.lineage)),
        copy: copy_to_wire(view.copy).into(),
        consistent: view.consistent,
        outdated: view.outdated,
        target: view.target,
        rebooted: view.rebooted,
        knows_inflight: view.knows_inflight,
        entered: view.entered.map(|entered| wire::Entered {
            session: Some(session_to_wire(entered.session)),
            role: role_to_wire(entered.role).into(),
            plan: plan_to_wire(entered.plan).into(),
            source: optional_id(entered.source),
        }),
        paired: view.paired.map(session_to_wire),
        demand: view.demand.map(|demand| wire::Demand { base: id(demand.base), lineage: id(demand.lineage) }),
        conceded: view.conceded.map(|conceded| wire::Conceded {
            lineage: id(conceded.lineage),
            abandoned: optional_id(conceded.abandoned),
        }),
        fenced: view.fenced.map(|fenced| wire::Fenced {
            session: fenced.session.map(session_to_wire),
            lineage: id(fenced.lineage),
        }),
        wish: view.wish.map(grant_to_wire),
        grant: view.grant.map(grant_to_wire),
        offer: view.offer.map(session_to_wire),
        yields: view.yields,
        timeout_ms: millis(view.timeout),
        grace_ms: millis(view.grace),
        heard: view.heard,
        // What is left out can only make the other node more careful.
        locks: view.locks.iter().copied().take(MAX_LOCKS).collect(),
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// From the wire.
///
/// # Errors
/// A field is missing or has a value that no sender of this version makes.
pub fn view_from_wire(view: &wire::View) -> Result<View, ConvertError> {
    let view = View {
        incarnation: view.incarnation,
        serial: view.serial,
        link: view.link,
        heard_link: view.heard_link,
        mode: mode(view.mode)?,
        meetable: view.meetable,
        serving: view.serving,
        role: role(view.role)?,
        term: view.term,
        lineage: lineage(view.lineage.as_ref().ok_or(Missing("lineage"))?)?,
        copy: copy(view.copy)?,
        consistent: view.consistent,
        outdated: view.outdated,
        target: view.target,
        rebooted: view.rebooted,
        knows_inflight: view.knows_inflight,
        entered: view.entered.as_ref().map(entered).transpose()?,
        paired: view.paired.map(session),
        demand: view.demand.as_ref().map(demand).transpose()?,
        conceded: view.conceded.as_ref().map(conceded).transpose()?,
        fenced: view.fenced.as_ref().map(fenced).transpose()?,
        wish: view.wish.map(grant).transpose()?,
        grant: view.grant.map(grant).transpose()?,
        offer: view.offer.map(session),
        yields: view.yields,
        timeout: within(view.timeout_ms, "timeout_ms")?,
        grace: within(view.grace_ms, "grace_ms")?,
        heard: view.heard,
        locks: if view.locks.len() <= MAX_LOCKS { view.locks.clone() } else { return Err(Invalid("locks")) },
    };
    if view.lineage.settled && view.lineage.base.is_none() {
        return Err(Invalid("lineage: settled without a base"));
    }
    Ok(view)
}

/// Most lock arbiters by which a node says that it decides; more do not fit a datagram.
const MAX_LOCKS: usize = 3;

/// No module has a longer one: it would keep this node from ever taking over.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

fn within(milliseconds: u32, what: &'static str) -> Result<Duration, ConvertError> {
    let duration = Duration::from_millis(milliseconds.into());
    if duration <= LONGEST_TIMEOUT { Ok(duration) } else { Err(Invalid(what)) }
}

fn entered(entered: &wire::Entered) -> Result<Entered, ConvertError> {
    Ok(Entered {
        session: session(entered.session.ok_or(Missing("entered.session"))?),
        role: role(entered.role)?,
        plan: plan(entered.plan)?,
        source: optional(&entered.source)?,
    })
}

fn demand(demand: &wire::Demand) -> Result<Demand, ConvertError> {
    Ok(Demand { base: required(&demand.base)?, lineage: required(&demand.lineage)? })
}

fn conceded(conceded: &wire::Conceded) -> Result<Conceded, ConvertError> {
    Ok(Conceded { lineage: required(&conceded.lineage)?, abandoned: optional(&conceded.abandoned)? })
}

fn fenced(fenced: &wire::Fenced) -> Result<Fenced, ConvertError> {
    Ok(Fenced { session: fenced.session.map(session), lineage: required(&fenced.lineage)? })
}

fn grant(grant: wire::Grant) -> Result<Grant, ConvertError> {
    Ok(Grant { session: session(grant.session.ok_or(Missing("grant.session"))?), ticket: grant.ticket })
}

const fn grant_to_wire(grant: Grant) -> wire::Grant {
    wire::Grant { session: Some(session_to_wire(grant.session)), ticket: grant.ticket }
}

const fn session(session: wire::Session) -> SessionId {
    SessionId { first: session.first, second: session.second }
}

const fn session_to_wire(session: SessionId) -> wire::Session {
    wire::Session { first: session.first, second: session.second }
}

fn lineage(lineage: &wire::Lineage) -> Result<Lineage, ConvertError> {
    if lineage.history.len() > HISTORY_LIMIT * 16 || !lineage.history.len().is_multiple_of(16) {
        return Err(Invalid("lineage.history"));
    }
    Ok(Lineage {
        current: optional(&lineage.current)?,
        base: optional(&lineage.base)?,
        settled: lineage.settled,
        history: lineage.history.chunks_exact(16).map(required).collect::<Result<_, _>>()?,
        prim_of_base: lineage.prim_of_base,
        forced: lineage.forced,
        wrote_alone: lineage.wrote_alone,
    })
}

fn lineage_to_wire(lineage: &Lineage) -> wire::Lineage {
    wire::Lineage {
        current: optional_id(lineage.current),
        base: optional_id(lineage.base),
        settled: lineage.settled,
        history: lineage.history.iter().take(HISTORY_LIMIT).flat_map(|id| id.0.to_be_bytes()).collect(),
        prim_of_base: lineage.prim_of_base,
        forced: lineage.forced,
        wrote_alone: lineage.wrote_alone,
    }
}

fn id(id: LineageId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

fn optional_id(optional: Option<LineageId>) -> Vec<u8> {
    optional.map(id).unwrap_or_default()
}

fn required(bytes: &[u8]) -> Result<LineageId, ConvertError> {
    optional(bytes)?.ok_or(Missing("a lineage id"))
}

fn optional(bytes: &[u8]) -> Result<Option<LineageId>, ConvertError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| Invalid("a lineage id"))?;
    match u128::from_be_bytes(bytes) {
        0 => Err(Invalid("a lineage id")),
        number => Ok(Some(LineageId(number))),
    }
}

fn mode(number: i32) -> Result<Mode, ConvertError> {
    match wire::Mode::try_from(number) {
        Ok(wire::Mode::Stopped) => Ok(Mode::Stopped),
        Ok(wire::Mode::Waiting) => Ok(Mode::Waiting),
        Ok(wire::Mode::Target) => Ok(Mode::Target),
        Ok(wire::Mode::Second) => Ok(Mode::Second),
        Ok(wire::Mode::Candidate) => Ok(Mode::Candidate),
        Ok(wire::Mode::Primary) => Ok(Mode::Primary),
        Ok(wire::Mode::Alone) => Ok(Mode::Alone),
        Ok(wire::Mode::Unspecified) | Err(_) => Err(Invalid("mode")),
    }
}

const fn mode_to_wire(mode: Mode) -> wire::Mode {
    match mode {
        Mode::Stopped => wire::Mode::Stopped,
        Mode::Waiting => wire::Mode::Waiting,
        Mode::Target => wire::Mode::Target,
        Mode::Second => wire::Mode::Second,
        Mode::Candidate => wire::Mode::Candidate,
        Mode::Primary => wire::Mode::Primary,
        Mode::Alone => wire::Mode::Alone,
    }
}

fn role(number: i32) -> Result<Role, ConvertError> {
    match wire::Role::try_from(number) {
        Ok(wire::Role::None) => Ok(Role::None),
        Ok(wire::Role::Primary) => Ok(Role::Primary),
        Ok(wire::Role::Secondary) => Ok(Role::Secondary),
        Ok(wire::Role::Unspecified) | Err(_) => Err(Invalid("role")),
    }
}

const fn role_to_wire(role: Role) -> wire::Role {
    match role {
        Role::None => wire::Role::None,
        Role::Primary => wire::Role::Primary,
        Role::Secondary => wire::Role::Secondary,
    }
}

fn copy(number: i32) -> Result<Copy, ConvertError> {
    match wire::Copy::try_from(number) {
        Ok(wire::Copy::Unexamined) => Ok(Copy::Unexamined),
        Ok(wire::Copy::Empty) => Ok(Copy::Empty),
        Ok(wire::Copy::Unlabelled) => Ok(Copy::Unlabelled),
        Ok(wire::Copy::Known) => Ok(Copy::Known),
        Ok(wire::Copy::Unknown) => Ok(Copy::Unknown),
        Ok(wire::Copy::Edited) => Ok(Copy::Edited),
        Ok(wire::Copy::Unspecified) | Err(_) => Err(Invalid("copy")),
    }
}

const fn copy_to_wire(copy: Copy) -> wire::Copy {
    match copy {
        Copy::Unexamined => wire::Copy::Unexamined,
        Copy::Empty => wire::Copy::Empty,
        Copy::Unlabelled => wire::Copy::Unlabelled,
        Copy::Known => wire::Copy::Known,
        Copy::Unknown => wire::Copy::Unknown,
        Copy::Edited => wire::Copy::Edited,
    }
}

fn plan(number: i32) -> Result<Plan, ConvertError> {
    match wire::Plan::try_from(number) {
        Ok(wire::Plan::Repair) => Ok(Plan::Repair),
        Ok(wire::Plan::Delta) => Ok(Plan::Delta),
        Ok(wire::Plan::Full) => Ok(Plan::Full),
        Ok(wire::Plan::Unspecified) | Err(_) => Err(Invalid("plan")),
    }
}

const fn plan_to_wire(plan: Plan) -> wire::Plan {
    match plan {
        Plan::Repair => wire::Plan::Repair,
        Plan::Delta => wire::Plan::Delta,
        Plan::Full => wire::Plan::Full,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use safe_proto::datagram::MAX_BODY;

    use super::*;

    fn full() -> View {
        let session = SessionId { first: u64::MAX, second: u64::MAX - 1 };
        let lineage = LineageId(u128::MAX);
        View {
            incarnation: u64::MAX,
            serial: u64::MAX,
            link: u64::MAX,
            heard_link: u64::MAX,
            mode: Mode::Alone,
            meetable: true,
            serving: true,
            role: Role::Secondary,
            term: u64::MAX,
            lineage: Lineage {
                current: Some(lineage),
                base: Some(LineageId(1)),
                settled: true,
                history: (1..=HISTORY_LIMIT as u128).map(LineageId).collect(),
                prim_of_base: true,
                forced: true,
                wrote_alone: true,
            },
            copy: Copy::Edited,
            consistent: true,
            outdated: true,
            target: true,
            rebooted: true,
            knows_inflight: true,
            entered: Some(Entered {
                session,
                role: Role::Secondary,
                plan: Plan::Full,
                source: Some(lineage),
            }),
            paired: Some(session),
            demand: Some(Demand { base: lineage, lineage }),
            conceded: Some(Conceded { lineage, abandoned: Some(lineage) }),
            fenced: Some(Fenced { session: Some(session), lineage }),
            wish: Some(Grant { session, ticket: u64::MAX }),
            grant: Some(Grant { session, ticket: u64::MAX }),
            offer: Some(session),
            yields: true,
            timeout: LONGEST_TIMEOUT,
            grace: LONGEST_TIMEOUT,
            heard: u64::MAX,
            locks: vec![u32::MAX; MAX_LOCKS],
        }
    }

    #[test]
    fn the_fullest_view_comes_back_and_fits_a_datagram() {
        let wire = view_to_wire(&full());
        assert_eq!(view_from_wire(&wire).unwrap(), full());
        // Nobody wishes for the right to promote and grants it at the same time.
        let fullest = View { grant: None, ..full() };
        let label = || "x".repeat(63);
        let echo = wire::Echo { incarnation: u64::MAX, counter: u64::MAX, ages_ms: vec![u32::MAX; 8] };
        let heartbeat = wire::Heartbeat {
            from: label(),
            to: label(),
            settings_version: u64::from(u32::MAX),
            echo: Some(echo),
            views: vec![wire::ModuleView { module: label(), view: Some(view_to_wire(&fullest)) }],
            stands_for: 0,
            modules: u64::MAX,
        };
        assert!(heartbeat.encoded_len() <= MAX_BODY, "{}", heartbeat.encoded_len());
    }

    #[test]
    fn what_no_sender_makes_is_refused() {
        type Spoil = fn(&mut wire::View);
        let spoils: [Spoil; 8] = [
            |view| view.mode = 0,
            |view| view.role = 99,
            |view| view.copy = -1,
            |view| view.lineage = None,
            |view| view.lineage.as_mut().unwrap().history = vec![1; 17],
            |view| view.lineage.as_mut().unwrap().current = vec![0; 16],
            |view| view.entered.as_mut().unwrap().session = None,
            |view| view.lineage.as_mut().unwrap().base = Vec::new(),
        ];
        for (number, spoil) in spoils.iter().enumerate() {
            let mut view = view_to_wire(&full());
            spoil(&mut view);
            assert!(view_from_wire(&view).is_err(), "spoil {number}");
        }
    }
}
