//! One request of the kernel, parsed.

use bytes::Bytes;
use safe_replication::op::Timestamp;

use super::wire::{self, Fields, opcode, valid};

/// A request. Names are single components without zero bytes; the kernel guarantees both, parsing checks them.
#[derive(Debug)]
pub struct Request {
    /// Names the request in its reply.
    pub unique: u64,
    /// Node it is about.
    pub node: u64,
    /// User that asks.
    pub uid: u32,
    /// Group that asks.
    pub gid: u32,
    /// Thread that asks.
    pub tid: u32,
    /// What is asked.
    pub operation: Operation,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewTime {
    /// The present time.
    Now,
    /// This one.
    At(Timestamp),
}

/// What to change of an object's attributes: only what is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Through this open file.
    pub handle: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<NewTime>,
    /// Modification time.
    pub mtime: Option<NewTime>,
    /// The caller may not keep setuid and setgid.
    pub kill_privileges: bool,
}

/// What is asked.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are those of the system call of the same name")]
pub enum Operation {
    /// First of all; answered by the session itself.
    Init {
        major: u32,
        minor: u32,
        readahead: u32,
        flags: u64,
    },
    Lookup {
        name: Bytes,
    },
    /// Forget nodes: (node, count); no reply.
    Forget(Vec<(u64, u64)>),
    GetAttributes,
    SetAttributes(SetAttributes),
    ReadLink,
    SymbolicLink {
        name: Bytes,
        target: Bytes,
    },
    /// mknod and mkdir; the mask is not yet applied.
    MakeNode {
        name: Bytes,
        mode: u32,
        rdev: u32,
        umask: u32,
    },
    Unlink {
        name: Bytes,
        directory: bool,
    },
    Rename {
        name: Bytes,
        new_parent: u64,
        new_name: Bytes,
        flags: u32,
    },
    /// The node of the request is the directory.
    Link {
        existing: u64,
        name: Bytes,
    },
    Open {
        flags: u32,
    },
    Create {
        name: Bytes,
        mode: u32,
        umask: u32,
        flags: u32,
    },
    /// O_TMPFILE in the directory.
    Temporary {
        mode: u32,
        umask: u32,
        flags: u32,
    },
    Read {
        handle: u64,
        offset: u64,
        size: u32,
    },
    /// Also what the kernel writes back from its cache: which open file it comes through does not matter.
    Write {
        offset: u64,
        data: Bytes,
        flags: u32,
        kill_privileges: bool,
        cached: bool,
    },
    StatFs,
    Release {
        handle: u64,
    },
    Sync {
        handle: u64,
        data_only: bool,
    },
    SetXattr {
        name: Bytes,
        value: Bytes,
        flags: u32,
        kill_group: bool,
    },
    /// Size 0 asks for the length.
    GetXattr {
        name: Bytes,
        size: u32,
    },
    ListXattr {
        size: u32,
    },
    RemoveXattr {
        name: Bytes,
    },
    OpenDirectory,
    ReadDirectory {
        handle: u64,
        offset: u64,
        size: u32,
        plus: bool,
    },
    ReleaseDirectory {
        handle: u64,
    },
    SyncDirectory {
        data_only: bool,
    },
    Allocate {
        handle: u64,
        offset: u64,
        length: u64,
        mode: u32,
    },
    Seek {
        handle: u64,
        offset: u64,
        whence: u32,
    },
    Copy {
        handle: u64,
        offset: u64,
        to_node: u64,
        to_handle: u64,
        to_offset: u64,
        length: u64,
    },
    /// The kernel wants an answer to an earlier request soon; no reply.
    Interrupt,
    /// The mount ends.
    Destroy,
    /// Anything else: answered with ENOSYS, so that the kernel does it by itself.
    Unknown,
}

impl Operation {
    /// It changes nothing, and needs nobody but this node.
    #[must_use]
    pub const fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Lookup { .. }
                | Self::GetAttributes
                | Self::ReadLink
                | Self::Open { .. }
                | Self::Read { .. }
                | Self::StatFs
                | Self::GetXattr { .. }
                | Self::ListXattr { .. }
                | Self::OpenDirectory
                | Self::ReadDirectory { .. }
                | Self::Seek { .. }
        )
    }
}

impl Request {
    /// Parses one message from the device; none if it is malformed.
    #[must_use]
    pub fn parse(message: Bytes) -> Option<Self> {
        let mut fields = Fields::new(message);
        fields.skip(4)?;
        let code = fields.u32()?;
        let (unique, node) = (fields.u64()?, fields.u64()?);
        let (uid, gid, tid) = (fields.u32()?, fields.u32()?, fields.u32()?);
        fields.skip(4)?;
        let operation = match code {
            opcode::READ
            | opcode::WRITE
            | opcode::OPEN
            | opcode::RELEASE
            | opcode::FSYNC
            | opcode::FALLOCATE
            | opcode::LSEEK
            | opcode::COPY_FILE_RANGE
            | opcode::OPENDIR
            | opcode::READDIR
            | opcode::READDIRPLUS
            | opcode::RELEASEDIR
            | opcode::FSYNCDIR => parse_handle(code, fields)?,
            opcode::LOOKUP
            | opcode::SYMLINK
            | opcode::MKNOD
            | opcode::MKDIR
            | opcode::UNLINK
            | opcode::RMDIR
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::LINK
            | opcode::CREATE
            | opcode::TMPFILE => parse_name(code, fields)?,
            other => parse_object(other, node, fields)?,
        };
        Some(Self { unique, node, uid, gid, tid, operation })
    }
}

/// Requests on an open file or directory.
fn parse_handle(code: u32, mut f: Fields) -> Option<Operation> {
    Some(match code {
        opcode::OPEN => Operation::Open { flags: f.u32()? },
        opcode::OPENDIR => Operation::OpenDirectory,
        opcode::READ => Operation::Read { handle: f.u64()?, offset: f.u64()?, size: f.u32()? },
        opcode::READDIR | opcode::READDIRPLUS => Operation::ReadDirectory {
            handle: f.u64()?,
            offset: f.u64()?,
            size: f.u32()?,
            plus: code == opcode::READDIRPLUS,
        },
        opcode::WRITE => {
            f.skip(8)?;
            let (offset, size, how) = (f.u64()?, f.u32()?, f.u32()?);
            f.skip(8)?;
            let flags = f.u32()?;
            f.skip(4)?;
            let kill_privileges = how & wire::WRITE_KILL_SUIDGID != 0;
            let cached = how & wire::WRITE_CACHE != 0;
            Operation::Write { offset, data: f.take(size as usize)?, flags, kill_privileges, cached }
        }
        opcode::RELEASE => Operation::Release { handle: f.u64()? },
        opcode::RELEASEDIR => Operation::ReleaseDirectory { handle: f.u64()? },
        opcode::FSYNC => {
            Operation::Sync { handle: f.u64()?, data_only: f.u32()? & wire::FSYNC_DATA_ONLY != 0 }
        }
        opcode::FSYNCDIR => {
            f.skip(8)?;
            Operation::SyncDirectory { data_only: f.u32()? & wire::FSYNC_DATA_ONLY != 0 }
        }
        opcode::FALLOCATE => {
            Operation::Allocate { handle: f.u64()?, offset: f.u64()?, length: f.u64()?, mode: f.u32()? }
        }
        opcode::LSEEK => Operation::Seek { handle: f.u64()?, offset: f.u64()?, whence: f.u32()? },
        _ => Operation::Copy {
            handle: f.u64()?,
            offset: f.u64()?,
            to_node: f.u64()?,
            to_handle: f.u64()?,
            to_offset: f.u64()?,
            length: f.u64()?,
        },
    })
}

/// Requests with a name in a directory.
fn parse_name(code: u32, mut f: Fields) -> Option<Operation> {
    Some(match code {
        opcode::LOOKUP => Operation::Lookup { name: component(&mut f)? },
        opcode::SYMLINK => Operation::SymbolicLink { name: component(&mut f)?, target: f.text()? },
        opcode::MKNOD => {
            let (mode, rdev, umask) = (f.u32()?, f.u32()?, f.u32()?);
            f.skip(4)?;
            Operation::MakeNode { name: component(&mut f)?, mode, rdev, umask }
        }
        opcode::MKDIR => {
            let (mode, umask) = (f.u32()?, f.u32()?);
            let mode = (mode & 0o7777) | libc::S_IFDIR;
            Operation::MakeNode { name: component(&mut f)?, mode, rdev: 0, umask }
        }
        opcode::UNLINK | opcode::RMDIR => {
            Operation::Unlink { name: component(&mut f)?, directory: code == opcode::RMDIR }
        }
        opcode::RENAME | opcode::RENAME2 => {
            let new_parent = f.u64()?;
            let flags = if code == opcode::RENAME2 { f.u32()? } else { 0 };
            if code == opcode::RENAME2 {
                f.skip(4)?;
            }
            Operation::Rename { name: component(&mut f)?, new_parent, new_name: component(&mut f)?, flags }
        }
        opcode::LINK => Operation::Link { existing: f.u64()?, name: component(&mut f)? },
        _ => {
            let (flags, mode, umask) = (f.u32()?, f.u32()?, f.u32()?);
            f.skip(4)?;
            if code == opcode::TMPFILE {
                return Some(Operation::Temporary { mode, umask, flags });
            }
            Operation::Create { name: component(&mut f)?, mode, umask, flags }
        }
    })
}

/// Everything else.
fn parse_object(code: u32, node: u64, mut f: Fields) -> Option<Operation> {
    Some(match code {
        opcode::INIT => {
            let (major, minor, readahead, low) = (f.u32()?, f.u32()?, f.u32()?, f.u32()?);
            let high = f.u32().unwrap_or(0);
            Operation::Init { major, minor, readahead, flags: u64::from(low) | u64::from(high) << 32 }
        }
        opcode::FORGET => Operation::Forget(vec![(node, f.u64()?)]),
        opcode::BATCH_FORGET => {
            let count = f.u32()?;
            f.skip(4)?;
            let mut nodes = Vec::new();
            for _ in 0..count {
                nodes.push((f.u64()?, f.u64()?));
            }
            Operation::Forget(nodes)
        }
        opcode::GETATTR => Operation::GetAttributes,
        opcode::SETATTR => Operation::SetAttributes(parse_attributes(f)?),
        opcode::READLINK => Operation::ReadLink,
        opcode::STATFS => Operation::StatFs,
        opcode::SETXATTR => {
            let (size, flags, extra) = (f.u32()?, f.u32()?, f.u32()?);
            f.skip(4)?;
            let kill_group = extra & wire::SETXATTR_ACL_KILL_SGID != 0;
            Operation::SetXattr { name: f.text()?, value: f.take(size as usize)?, flags, kill_group }
        }
        opcode::GETXATTR => {
            let size = f.u32()?;
            f.skip(4)?;
            Operation::GetXattr { name: f.text()?, size }
        }
        opcode::LISTXATTR => Operation::ListXattr { size: f.u32()? },
        opcode::REMOVEXATTR => Operation::RemoveXattr { name: f.text()? },
        opcode::INTERRUPT => Operation::Interrupt,
        opcode::DESTROY => Operation::Destroy,
        _ => Operation::Unknown,
    })
}

fn parse_attributes(mut f: Fields) -> Option<SetAttributes> {
    let bits = f.u32()?;
    f.skip(4)?;
    let (handle, size) = (f.u64()?, f.u64()?);
    f.skip(8)?;
    let (atime, mtime) = (f.u64()?.cast_signed(), f.u64()?.cast_signed());
    f.skip(8)?;
    let (atime_nanos, mtime_nanos) = (f.u32()?, f.u32()?);
    f.skip(4)?;
    let mode = f.u32()?;
    f.skip(4)?;
    let (uid, gid) = (f.u32()?, f.u32()?);
    let given = |bit: u32| bits & bit != 0;
    let time = |set: u32, now: u32, seconds: i64, nanos: u32| {
        given(set).then_some(if given(now) {
            NewTime::Now
        } else {
            NewTime::At(Timestamp { seconds, nanos })
        })
    };
    Some(SetAttributes {
        handle: given(valid::FH).then_some(handle),
        mode: given(valid::MODE).then_some(mode & 0o7777),
        uid: given(valid::UID).then_some(uid),
        gid: given(valid::GID).then_some(gid),
        size: given(valid::SIZE).then_some(size),
        atime: time(valid::ATIME, valid::ATIME_NOW, atime, atime_nanos),
        mtime: time(valid::MTIME, valid::MTIME_NOW, mtime, mtime_nanos),
        kill_privileges: given(valid::KILL_SUIDGID),
    })
}

/// A name that is one component.
fn component(fields: &mut Fields) -> Option<Bytes> {
    let name = fields.text()?;
    let plain = !name.is_empty() && !name.contains(&b'/') && name.as_ref() != b"." && name.as_ref() != b"..";
    plain.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(code: u32, body: &[u8]) -> Bytes {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&7u64.to_ne_bytes());
        bytes.extend_from_slice(&1u64.to_ne_bytes());
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(body);
        bytes.into()
    }

    #[test]
    fn a_name_must_be_one_component() {
        assert!(Request::parse(message(opcode::LOOKUP, b"file\0")).is_some());
        for bad in [&b"..\0"[..], b".\0", b"a/b\0", b"\0", b"no end"] {
            assert!(Request::parse(message(opcode::LOOKUP, bad)).is_none());
        }
    }

    #[test]
    fn a_write_whose_data_is_cut_is_malformed() {
        let mut body = vec![0; 16];
        body.extend_from_slice(&5u32.to_ne_bytes());
        body.extend_from_slice(&[0; 20]);
        body.extend_from_slice(b"four");
        assert!(Request::parse(message(opcode::WRITE, &body)).is_none());
        body.push(b'!');
        assert!(Request::parse(message(opcode::WRITE, &body)).is_some());
    }

    #[test]
    fn a_batch_of_forgets_is_read_whole() {
        let mut body = 2u32.to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; 4]);
        for number in 1u64..=4 {
            body.extend_from_slice(&number.to_ne_bytes());
        }
        let request = Request::parse(message(opcode::BATCH_FORGET, &body)).expect("well-formed");
        assert!(matches!(request.operation, Operation::Forget(nodes) if nodes == [(1, 2), (3, 4)]));
    }
}
