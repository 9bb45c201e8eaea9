//! Between the words of the core and those of the control service.

use std::time::Duration;

use bytes::Bytes;
use safe_failover::Time;
use safe_failover::action::ReplicatorCommand;
use safe_failover::event::{Adopted, Loss, ReplicatorEvent};
use safe_failover::hard::Role;
use safe_failover::lineage::LineageId;
use safe_failover::view::{Copy, Plan, SessionId};
use safe_proto::replication as wire;
use safe_proto::replication::attach_request::Command;
use safe_proto::replication::attach_response::Report;

/// A message of the replicator that breaks the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the replicator sent {0}")]
pub(super) struct Malformed(pub(super) &'static str);

pub(super) fn lineage_to(id: LineageId) -> wire::LineageId {
    wire::LineageId { value: Bytes::copy_from_slice(&id.0.to_be_bytes()) }
}

pub(super) fn lineage_from(id: &wire::LineageId) -> Result<LineageId, Malformed> {
    let bytes: [u8; 16] =
        id.value.as_ref().try_into().map_err(|_| Malformed("a lineage id that is not 16 bytes"))?;
    match u128::from_be_bytes(bytes) {
        0 => Err(Malformed("a lineage id of zeros")),
        value => Ok(LineageId(value)),
    }
}

fn session_to(session: SessionId) -> wire::SessionId {
    wire::SessionId { first: session.first, second: session.second }
}

fn session_from(session: wire::SessionId) -> SessionId {
    SessionId { first: session.first, second: session.second }
}

fn role_to(role: Role) -> i32 {
    i32::from(match role {
        Role::Primary => wire::Role::Primary,
        Role::Secondary => wire::Role::Secondary,
        Role::None => wire::Role::Unspecified,
    })
}

fn role_from(role: wire::Role) -> Role {
    match role {
        wire::Role::Primary => Role::Primary,
        wire::Role::Secondary => Role::Secondary,
        wire::Role::Unspecified => Role::None,
    }
}

fn plan_to(plan: Plan) -> i32 {
    i32::from(match plan {
        Plan::Repair => wire::Plan::Repair,
        Plan::Delta => wire::Plan::Delta,
        Plan::Full => wire::Plan::Full,
    })
}

fn copy_from(copy: wire::Copy) -> Result<Copy, Malformed> {
    match copy {
        wire::Copy::Unspecified => Err(Malformed("a copy of unknown condition")),
        wire::Copy::Empty => Ok(Copy::Empty),
        wire::Copy::Unlabelled => Ok(Copy::Unlabelled),
        wire::Copy::Known => Ok(Copy::Known),
        wire::Copy::Unknown => Ok(Copy::Unknown),
    }
}

/// The request for a command; none: it is no message (`Uncover`, `Kill`).
pub(super) fn command_to(command: &ReplicatorCommand) -> Option<Command> {
    Some(match command {
        ReplicatorCommand::Start { accept } => {
            Command::Examine(wire::Examine { accept: accept.iter().copied().map(lineage_to).collect() })
        }
        ReplicatorCommand::OpenJournal(id) => Command::OpenJournal(lineage_to(*id)),
        ReplicatorCommand::Mark(id) => Command::Mark(lineage_to(*id)),
        ReplicatorCommand::Join { session, role, plan, room } => Command::Join(wire::Join {
            session: Some(session_to(*session)),
            role: role_to(*role),
            plan: plan_to(*plan),
            room: *room,
        }),
        ReplicatorCommand::Receive(session) => Command::Receive(session_to(*session)),
        ReplicatorCommand::Leave(session) => Command::Leave(session_to(*session)),
        ReplicatorCommand::Turn(session, role) => {
            Command::Turn(wire::Turn { session: Some(session_to(*session)), role: role_to(*role) })
        }
        ReplicatorCommand::Mount => Command::Mount(wire::Mount {}),
        ReplicatorCommand::Settle(id) => Command::Settle(lineage_to(*id)),
        ReplicatorCommand::Verify { repair } => Command::Verify(wire::Verify { repair: *repair }),
        ReplicatorCommand::Archive(id) => Command::Archive(lineage_to(*id)),
        ReplicatorCommand::Limit(limit) => {
            Command::Limit(u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))
        }
        ReplicatorCommand::Unsettle => Command::Unsettle(wire::Unsettle {}),
        ReplicatorCommand::ClearJournal => Command::ClearJournal(wire::ClearJournal {}),
        ReplicatorCommand::Unmount(deadline) => Command::Unmount(wire::Unmount {
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX).clamp(1, 600_000),
        }),
        ReplicatorCommand::Fence => Command::Fence(wire::Fence {}),
        ReplicatorCommand::Stop => Command::Stop(wire::Stop {}),
        ReplicatorCommand::Uncover | ReplicatorCommand::Kill => return None,
    })
}

/// What a report is to the shell.
pub(super) enum Reported {
    Event(ReplicatorEvent),
    /// Mounted, over these FUSE connections.
    Mounted(Vec<u64>),
    /// The session is lost; reason for people.
    Lost(SessionId, Loss, String),
    Progress(wire::Progress),
    Verification(wire::Verification),
    Figures(wire::StreamFigures),
    /// The peer's replicator says over the stream that its agent is gone; how long, in milliseconds.
    PeerAgentGone(u32),
    /// It says that it fenced itself. What counts for decisions comes by its heartbeats, with its lineage.
    PeerFenced,
    /// Only expected as the answer to Resume.
    Resumed,
    /// Only expected as the first report.
    Adopted,
}

pub(super) fn report_from(report: Report) -> Result<Reported, Malformed> {
    let event = match report {
        Report::Adopted(_) => return Ok(Reported::Adopted),
        Report::Ready(ready) => {
            ReplicatorEvent::Ready { copy: copy_from(ready.copy())?, knows_inflight: ready.knows_inflight }
        }
        Report::Refused(why) => ReplicatorEvent::Refused(why),
        Report::JournalOpen(id) => ReplicatorEvent::JournalOpen(lineage_from(&id)?),
        Report::Marked(id) => ReplicatorEvent::Marked(lineage_from(&id)?),
        Report::SessionUp(session) => ReplicatorEvent::SessionUp(session_from(session)),
        Report::SessionLost(lost) => {
            let session = lost.session.ok_or(Malformed("a lost session without its id"))?;
            let loss = loss_from(lost.loss());
            return Ok(Reported::Lost(session_from(session), loss, lost.reason));
        }
        Report::SessionEnded(session) => ReplicatorEvent::SessionEnded(session_from(session)),
        Report::Room(room) => ReplicatorEvent::Room {
            session: session_from(room.session.ok_or(Malformed("room without a session"))?),
            outcome: if room.fits { Ok(()) } else { Err(room.reason) },
        },
        Report::InStep(session) => ReplicatorEvent::InStep(session_from(session)),
        Report::Mounted(mounted) => return Ok(Reported::Mounted(mounted.connections)),
        Report::MountFailed(why) => ReplicatorEvent::MountFailed(why),
        Report::Unmounted(_) => ReplicatorEvent::Unmounted,
        Report::Aborted(_) => ReplicatorEvent::Aborted,
        Report::Fenced(_) => ReplicatorEvent::Fenced,
        Report::Cleared(_) => ReplicatorEvent::Cleared,
        Report::Archived(archived) => ReplicatorEvent::Archived {
            lineage: lineage_from(
                archived.lineage.as_ref().ok_or(Malformed("an archive without a lineage"))?,
            )?,
            outcome: if archived.kept {
                Ok(Some(archived.text).filter(|text| !text.is_empty()))
            } else {
                Err(archived.text)
            },
        },
        Report::WroteAlone(id) => ReplicatorEvent::WroteAlone(lineage_from(&id)?),
        Report::DiskFailed(why) => ReplicatorEvent::DiskFailed(why),
        Report::Progress(progress) => return Ok(Reported::Progress(progress)),
        Report::Verification(verification) => return Ok(Reported::Verification(verification)),
        Report::Figures(figures) => return Ok(Reported::Figures(figures)),
        Report::Stopped(_) => ReplicatorEvent::Stopped,
        Report::PeerAgentGone(since) => return Ok(Reported::PeerAgentGone(since)),
        Report::PeerFenced(_) => return Ok(Reported::PeerFenced),
        Report::Resumed(_) => return Ok(Reported::Resumed),
        Report::Limited(limit) => ReplicatorEvent::Limited(Duration::from_millis(limit.into())),
    };
    Ok(Reported::Event(event))
}

/// A replicator of another version may know ways that this one does not.
const fn loss_from(loss: wire::Loss) -> Loss {
    match loss {
        wire::Loss::Unspecified | wire::Loss::Stream => Loss::Stream,
        wire::Loss::Silence => Loss::Silence,
        wire::Loss::Failed => Loss::Failed,
        wire::Loss::Here => Loss::Here,
        wire::Loss::Left => Loss::Left,
    }
}

/// State of a replicator that outlived its agent; none: freshly started.
pub(super) fn adopted_from(adopted: &wire::Adopted) -> Result<Option<Adopted>, Malformed> {
    if adopted.fresh {
        return Ok(None);
    }
    // It had not examined the directories yet.
    let copy = copy_from(adopted.copy()).unwrap_or(Copy::Unexamined);
    Ok(Some(Adopted {
        mounted: adopted.mounted,
        session: adopted.session.map(|session| (session_from(session), role_from(adopted.role()))),
        in_step: adopted.in_step,
        settled: adopted.settled.as_ref().map(lineage_from).transpose()?,
        fenced: adopted.fenced,
        copy,
        knows_inflight: adopted.knows_inflight,
        limit: (adopted.limit_ms != 0).then_some(Duration::from_millis(adopted.limit_ms.into())),
        contact: (adopted.contact_boottime_ns != 0).then_some(Time(adopted.contact_boottime_ns)),
    }))
}
