//! Frames of the stream to and from the types of this program. What comes from the network is bounded and validated
//! here, in one place, before anything else sees it.

use bytes::Bytes;
use safe_proto::replication as proto;
use safe_proto::replication::operation as message;
use safe_proto::replication::operation::Op as Wire;
use safe_replication::op::{Allocation, Number, ObjectId, Op, RenameMode, Timestamp, Xattr};

mod resync;

pub use resync::{answer, objects, parse_question, question, result};

/// Longest name.
const NAME: usize = 255;
/// Longest target of a symbolic link.
const TARGET: usize = 4095;
/// Most bytes of one write: the kernel's limit.
const DATA: usize = 1 << 20;
/// Longest value of an extended attribute.
const VALUE: usize = 65536;

/// A frame that is not what the protocol allows; which part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame: {0}")]
pub struct Malformed(pub &'static str);

/// An operation as a frame.
#[must_use]
pub fn operation(number: Number, watermark: Number, op: &Op) -> proto::Operation {
    proto::Operation { number: number.0, watermark: watermark.0, op: Some(encode(op)) }
}

fn encode(op: &Op) -> Wire {
    match op.clone() {
        Op::Bind { id, parent, name, kind } => {
            Wire::Bind(message::Bind { id: id.0, parent: parent.0, name, kind })
        }
        Op::Unbind { id } => Wire::Unbind(message::Unbind { id: id.0 }),
        Op::Create { id, parent, name, mode, uid, gid, rdev, target, time } => {
            Wire::Create(message::Create {
                id: id.0,
                parent: parent.0,
                name,
                mode,
                uid,
                gid,
                rdev,
                target,
                time: stamp(time),
            })
        }
        Op::SetMeta { id, mode, uid, gid, atime, mtime } => Wire::SetMeta(message::SetMeta {
            id: id.0,
            mode,
            uid,
            gid,
            atime: atime.and_then(stamp),
            mtime: mtime.and_then(stamp),
        }),
        Op::SetXattr { id, xattr, mode } => {
            Wire::SetXattr(message::SetXattr { id: id.0, name: xattr.name, value: xattr.value, mode })
        }
        Op::RemoveXattr { id, name } => Wire::RemoveXattr(message::RemoveXattr { id: id.0, name }),
        Op::Sync { id, data_only } => Wire::Sync(message::Sync { id: id.0, data_only }),
        Op::SyncAll { in_step, epoch } => Wire::SyncAll(message::SyncAll { in_step, epoch }),
        data @ (Op::Write { .. } | Op::Truncate { .. } | Op::Allocate { .. } | Op::Copy { .. }) => {
            encode_data(data)
        }
        names @ (Op::Unlink { .. } | Op::Rename { .. } | Op::Link { .. }) => encode_names(names),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the caller has matched the rest")]
fn encode_data(op: Op) -> Wire {
    match op {
        Op::Write { id, offset, data, time, mode } => {
            Wire::Write(message::Write { id: id.0, offset, data, time: stamp(time), mode })
        }
        Op::Truncate { id, size, time, mode } => {
            Wire::Truncate(message::Truncate { id: id.0, size, time: stamp(time), mode })
        }
        Op::Allocate { id, how, offset, length, time, mode } => {
            let how = match how {
                Allocation::Grow => message::How::Grow,
                Allocation::KeepSize => message::How::KeepSize,
                Allocation::Punch => message::How::Punch,
                Allocation::Zero => message::How::Zero,
                Allocation::ZeroKeepSize => message::How::ZeroKeepSize,
            };
            Wire::Allocate(message::Allocate {
                id: id.0,
                how: how.into(),
                offset,
                length,
                time: stamp(time),
                mode,
            })
        }
        Op::Copy { source, source_offset, id, offset, length, time, mode } => Wire::Copy(message::Copy {
            source: source.0,
            source_offset,
            id: id.0,
            offset,
            length,
            time: stamp(time),
            mode,
        }),
        _ => unreachable!("the caller matched"),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the caller has matched the rest")]
fn encode_names(op: Op) -> Wire {
    match op {
        Op::Unlink { parent, name, id, directory, time } => {
            Wire::Unlink(message::Unlink { parent: parent.0, name, id: id.0, directory, time: stamp(time) })
        }
        Op::Rename { parent, name, new_parent, new_name, how, id, replaced, time } => {
            let how = match how {
                RenameMode::Replace => 0,
                RenameMode::NoReplace => 1,
                RenameMode::Exchange => 2,
            };
            Wire::Rename(message::Rename {
                parent: parent.0,
                name,
                new_parent: new_parent.0,
                new_name,
                how,
                replaced: replaced.0,
                time: stamp(time),
                id: id.0,
            })
        }
        Op::Link { id, parent, name, time } => {
            Wire::Link(message::Link { id: id.0, parent: parent.0, name, time: stamp(time) })
        }
        _ => unreachable!("the caller matched"),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the field of the message is optional")]
const fn stamp(time: Timestamp) -> Option<proto::Time> {
    Some(proto::Time { seconds: time.seconds, nanos: time.nanos })
}

/// Checks an operation frame: its number, the sender's watermark, the operation.
///
/// # Errors
/// See [`Malformed`].
pub fn parse_operation(frame: proto::Operation) -> Result<(Number, Number, Op), Malformed> {
    if frame.number == 0 || frame.watermark >= frame.number {
        return Err(Malformed("number of an operation"));
    }
    let op = match frame.op.ok_or(Malformed("operation without content"))? {
        Wire::Bind(m) => {
            Op::Bind { id: new_id(m.id)?, parent: id(m.parent)?, name: name(m.name)?, kind: m.kind }
        }
        Wire::Unbind(m) => Op::Unbind { id: new_id(m.id)? },
        Wire::Create(m) => Op::Create {
            id: new_id(m.id)?,
            parent: id(m.parent)?,
            name: new_name(m.name, m.mode)?,
            mode: file_mode(m.mode)?,
            uid: m.uid,
            gid: m.gid,
            rdev: m.rdev,
            target: target(m.target, m.mode)?,
            time: time(m.time)?,
        },
        Wire::SetMeta(m) => Op::SetMeta {
            id: id(m.id)?,
            mode: permissions(m.mode)?,
            uid: m.uid,
            gid: m.gid,
            atime: optional_time(m.atime)?,
            mtime: optional_time(m.mtime)?,
        },
        Wire::SetXattr(m) => {
            if m.value.len() > VALUE {
                return Err(Malformed("length of an extended attribute"));
            }
            let xattr = Xattr { name: name(m.name)?, value: m.value };
            Op::SetXattr { id: id(m.id)?, xattr, mode: permissions(m.mode)? }
        }
        Wire::RemoveXattr(m) => Op::RemoveXattr { id: id(m.id)?, name: name(m.name)? },
        Wire::Sync(m) => Op::Sync { id: id(m.id)?, data_only: m.data_only },
        Wire::SyncAll(m) => Op::SyncAll { in_step: m.in_step, epoch: m.epoch },
        data @ (Wire::Write(_) | Wire::Truncate(_) | Wire::Allocate(_) | Wire::Copy(_)) => parse_data(data)?,
        names @ (Wire::Unlink(_) | Wire::Rename(_) | Wire::Link(_)) => parse_names(names)?,
    };
    Ok((Number(frame.number), Number(frame.watermark), op))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the caller has matched the rest")]
fn parse_data(op: Wire) -> Result<Op, Malformed> {
    Ok(match op {
        Wire::Write(m) => {
            if m.data.is_empty() || m.data.len() > DATA {
                return Err(Malformed("length of a write"));
            }
            range(m.offset, m.data.len() as u64)?;
            Op::Write {
                id: id(m.id)?,
                offset: m.offset,
                data: m.data,
                time: time(m.time)?,
                mode: permissions(m.mode)?,
            }
        }
        Wire::Truncate(m) => {
            range(m.size, 1)?;
            Op::Truncate { id: id(m.id)?, size: m.size, time: time(m.time)?, mode: permissions(m.mode)? }
        }
        Wire::Allocate(m) => {
            range(m.offset, m.length)?;
            let how = match m.how() {
                message::How::Unspecified => return Err(Malformed("kind of allocation")),
                message::How::Grow => Allocation::Grow,
                message::How::KeepSize => Allocation::KeepSize,
                message::How::Punch => Allocation::Punch,
                message::How::Zero => Allocation::Zero,
                message::How::ZeroKeepSize => Allocation::ZeroKeepSize,
            };
            Op::Allocate {
                id: id(m.id)?,
                how,
                offset: m.offset,
                length: m.length,
                time: time(m.time)?,
                mode: permissions(m.mode)?,
            }
        }
        Wire::Copy(m) => {
            range(m.offset, m.length)?;
            range(m.source_offset, m.length)?;
            Op::Copy {
                source: id(m.source)?,
                source_offset: m.source_offset,
                id: id(m.id)?,
                offset: m.offset,
                length: m.length,
                time: time(m.time)?,
                mode: permissions(m.mode)?,
            }
        }
        _ => return Err(Malformed("operation")),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the caller has matched the rest")]
fn parse_names(op: Wire) -> Result<Op, Malformed> {
    Ok(match op {
        Wire::Unlink(m) => Op::Unlink {
            parent: id(m.parent)?,
            name: name(m.name)?,
            id: ObjectId(m.id),
            directory: m.directory,
            time: time(m.time)?,
        },
        Wire::Rename(m) => Op::Rename {
            parent: id(m.parent)?,
            name: name(m.name)?,
            new_parent: id(m.new_parent)?,
            new_name: name(m.new_name)?,
            how: match m.how {
                0 => RenameMode::Replace,
                1 => RenameMode::NoReplace,
                2 => RenameMode::Exchange,
                _ => return Err(Malformed("kind of rename")),
            },
            id: ObjectId(m.id),
            replaced: ObjectId(m.replaced),
            time: time(m.time)?,
        },
        Wire::Link(m) => {
            Op::Link { id: id(m.id)?, parent: id(m.parent)?, name: name(m.name)?, time: time(m.time)? }
        }
        _ => return Err(Malformed("operation")),
    })
}

const fn id(id: u64) -> Result<ObjectId, Malformed> {
    if id == 0 { Err(Malformed("id")) } else { Ok(ObjectId(id)) }
}

/// An id that is not that of a root.
const fn new_id(number: u64) -> Result<ObjectId, Malformed> {
    if number <= 0xffff { Err(Malformed("new id")) } else { Ok(ObjectId(number)) }
}

fn name(name: Bytes) -> Result<Bytes, Malformed> {
    let plain = !name.is_empty()
        && name.len() <= NAME
        && !name.contains(&b'/')
        && !name.contains(&0)
        && name.as_ref() != b"."
        && name.as_ref() != b"..";
    if plain { Ok(name) } else { Err(Malformed("name")) }
}

/// Only a regular file may be made without a name.
fn new_name(given: Bytes, mode: u32) -> Result<Bytes, Malformed> {
    let nameless = given.is_empty() && mode & 0o170_000 == 0o100_000;
    if nameless { Ok(given) } else { name(given) }
}

fn target(target: Bytes, mode: u32) -> Result<Bytes, Malformed> {
    let link = mode & 0o170_000 == 0o120_000;
    let valid = target.len() <= TARGET && !target.contains(&0) && target.is_empty() != link;
    if valid { Ok(target) } else { Err(Malformed("target of a symbolic link")) }
}

fn file_mode(mode: u32) -> Result<u32, Malformed> {
    let known = crate::backing::kind_of(mode).is_ok() && mode & !0o177_777 == 0;
    if known { Ok(mode) } else { Err(Malformed("type of a new object")) }
}

fn permissions(mode: Option<u32>) -> Result<Option<u32>, Malformed> {
    if mode.is_some_and(|mode| mode & !0o7777 != 0) { Err(Malformed("mode")) } else { Ok(mode) }
}

fn range(offset: u64, length: u64) -> Result<(), Malformed> {
    let fits = length > 0 && offset.checked_add(length).is_some_and(|end| end <= i64::MAX.cast_unsigned());
    if fits { Ok(()) } else { Err(Malformed("range")) }
}

fn time(time: Option<proto::Time>) -> Result<Timestamp, Malformed> {
    let time = time.ok_or(Malformed("time"))?;
    if time.nanos > 999_999_999 {
        return Err(Malformed("time"));
    }
    Ok(Timestamp { seconds: time.seconds, nanos: time.nanos })
}

fn optional_time(value: Option<proto::Time>) -> Result<Option<Timestamp>, Malformed> {
    value.map(|value| time(Some(value))).transpose()
}

/// Text of the other node, bounded for logs and people.
#[must_use]
pub fn clipped(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(1024).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Timestamp = Timestamp { seconds: -5, nanos: 999_999_999 };
    const FILE: ObjectId = ObjectId(70_000);

    fn round_trip(op: &Op) {
        let frame = operation(Number(9), Number(3), op);
        assert_eq!(parse_operation(frame), Ok((Number(9), Number(3), op.clone())));
    }

    #[test]
    fn operations_survive_the_wire() {
        let name = Bytes::from_static(b"n\xff");
        let parent = ObjectId::root(0);
        round_trip(&Op::Bind { id: FILE, parent, name: name.clone(), kind: libc::S_IFREG });
        round_trip(&Op::Write {
            id: FILE,
            offset: 1 << 40,
            data: name.clone(),
            time: TIME,
            mode: Some(0o755),
        });
        round_trip(&Op::Rename {
            parent,
            name: name.clone(),
            new_parent: parent,
            new_name: name.clone(),
            how: RenameMode::Exchange,
            id: FILE,
            replaced: ObjectId::NONE,
            time: TIME,
        });
        round_trip(&Op::SetMeta {
            id: FILE,
            mode: Some(0o4755),
            uid: Some(1),
            gid: None,
            atime: Some(TIME),
            mtime: None,
        });
        let how = Allocation::Punch;
        round_trip(&Op::Allocate { id: FILE, how, offset: 0, length: 5, time: TIME, mode: None });
        round_trip(&Op::Create {
            id: FILE,
            parent,
            name,
            mode: libc::S_IFLNK | 0o777,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: Bytes::from_static(b"../anywhere"),
            time: TIME,
        });
    }

    #[test]
    fn what_leads_out_of_the_directory_is_refused() {
        for bad in [&b".."[..], b".", b"", b"a/b", b"a\0b", &[b'x'; 256]] {
            let name = Bytes::copy_from_slice(bad);
            let op =
                Op::Unlink { parent: ObjectId(1), name, id: ObjectId::NONE, directory: false, time: TIME };
            assert!(parse_operation(operation(Number(1), Number(0), &op)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_exceeds_its_bounds_is_refused() {
        let write = |offset, length| {
            let data = vec![0; length].into();
            parse_operation(operation(
                Number(1),
                Number(0),
                &Op::Write { id: FILE, offset, data, time: TIME, mode: None },
            ))
        };
        assert!(write(0, DATA).is_ok());
        assert!(write(0, DATA + 1).is_err());
        assert!(write(0, 0).is_err());
        assert!(write(u64::MAX, 1).is_err());
        assert!(parse_operation(operation(Number(0), Number(0), &Op::Unbind { id: FILE })).is_err());
        assert!(parse_operation(operation(Number(1), Number(0), &Op::Unbind { id: ObjectId(2) })).is_err());
    }
}
