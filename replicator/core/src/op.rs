//! The replicated operation: what the primary sends and both sides apply.
//!
//! An operation carries results, not intentions (final mode, owner, times), and names objects by the id that
//! [`Op::Bind`] or a creation gave them in this session, never by path.

use bytes::Bytes;

use crate::key::{Key, Keys};

/// An object within one session. Roots have the ids `1..=n` in the order of the directories; others are given out
/// by the primary and never reused within the session. Zero means "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ObjectId(pub u64);

impl ObjectId {
    /// No object.
    pub const NONE: Self = Self(0);

    /// The id of the root directory with this index.
    #[must_use]
    pub const fn root(index: u32) -> Self {
        Self(index as u64 + 1)
    }
}

/// Position of an operation in the order of its session; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Number(pub u64);

/// A file time; seconds may be negative, nanoseconds are always 0 to 999,999,999 after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds.
    pub nanos: u32,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Name with its namespace, without a final zero.
    pub name: Bytes,
    /// Value.
    pub value: Bytes,
}

/// How space is allocated or given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Allocation {
    /// Reserve, and grow the file if the range ends beyond it.
    Grow,
    /// Reserve, keep the size.
    KeepSize,
    /// Make a hole; the size is kept.
    Punch,
    /// Zero the range, and grow the file if needed.
    Zero,
    /// Zero the range, keep the size.
    ZeroKeepSize,
}

/// What a rename does with an existing target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RenameMode {
    /// Replace it.
    Replace,
    /// Fail.
    NoReplace,
    /// Exchange both names.
    Exchange,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Give the existing object at this name an id.
    Bind {
        /// New id.
        id: ObjectId,
        /// Directory.
        parent: ObjectId,
        /// Name in it.
        name: Bytes,
        /// The type the object must have (`S_IFMT` bits).
        kind: u32,
    },
    /// The id is not used any more.
    Unbind {
        /// Which.
        id: ObjectId,
    },
    /// Create a file, directory, symbolic link, fifo, socket or device; it must not exist.
    Create {
        /// New id.
        id: ObjectId,
        /// Directory.
        parent: ObjectId,
        /// Name in it. Empty: a regular file without a name, on the filesystem of the directory; it lives as long as its
        /// id, unless [`Op::Link`] gives it a name.
        name: Bytes,
        /// Type and permission bits; where the directory has a default ACL, that one is applied to them.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Device number of a device node, else zero.
        rdev: u64,
        /// Target of a symbolic link, else empty.
        target: Bytes,
        /// Times of the object, and modification time of the directory.
        time: Timestamp,
    },
    /// Write.
    Write {
        /// File.
        id: ObjectId,
        /// Where.
        offset: u64,
        /// What.
        data: Bytes,
        /// Modification time after it.
        time: Timestamp,
        /// Permission bits after it, if the write clears setuid or setgid.
        mode: Option<u32>,
    },
    /// Set the size.
    Truncate {
        /// File.
        id: ObjectId,
        /// New size.
        size: u64,
        /// Modification time after it.
        time: Timestamp,
        /// Permission bits after it, if they change.
        mode: Option<u32>,
    },
    /// Allocate or give up space.
    Allocate {
        /// File.
        id: ObjectId,
        /// How.
        how: Allocation,
        /// Where.
        offset: u64,
        /// How much, at least 1.
        length: u64,
        /// Modification time after it.
        time: Timestamp,
        /// Permission bits after it, if they change.
        mode: Option<u32>,
    },
    /// Copy a range within the module's files.
    Copy {
        /// From which file.
        source: ObjectId,
        /// Where in it.
        source_offset: u64,
        /// To which file.
        id: ObjectId,
        /// Where in it.
        offset: u64,
        /// How much, at least 1; all of it exists in the source.
        length: u64,
        /// Modification time after it.
        time: Timestamp,
        /// Permission bits after it, if they change.
        mode: Option<u32>,
    },
    /// Remove a name; a directory must be empty.
    Unlink {
        /// Directory.
        parent: ObjectId,
        /// Name in it.
        name: Bytes,
        /// The object, if it has an id: it stays usable by it.
        id: ObjectId,
        /// It is a directory.
        directory: bool,
        /// Modification time of the directory.
        time: Timestamp,
    },
    /// Rename.
    Rename {
        /// Directory.
        parent: ObjectId,
        /// Name in it.
        name: Bytes,
        /// Target directory.
        new_parent: ObjectId,
        /// Name in it.
        new_name: Bytes,
        /// What happens with an existing target.
        how: RenameMode,
        /// The renamed object, if it has an id.
        id: ObjectId,
        /// The object that had the new name, if it has an id: it stays usable by it.
        replaced: ObjectId,
        /// Modification time of both directories.
        time: Timestamp,
    },
    /// One more name for an object.
    Link {
        /// Object.
        id: ObjectId,
        /// Directory.
        parent: ObjectId,
        /// Name in it.
        name: Bytes,
        /// Modification time of the directory.
        time: Timestamp,
    },
    /// Set owner, mode and times: only what is given. The owner is set before the mode.
    SetMeta {
        /// Object.
        id: ObjectId,
        /// Permission bits (07777).
        mode: Option<u32>,
        /// Owner.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
        /// Access time.
        atime: Option<Timestamp>,
        /// Modification time.
        mtime: Option<Timestamp>,
    },
    /// Set an extended attribute, replacing what is there.
    SetXattr {
        /// Object.
        id: ObjectId,
        /// Which.
        xattr: Xattr,
        /// Permission bits after it (an access ACL changes them).
        mode: Option<u32>,
    },
    /// Remove an extended attribute.
    RemoveXattr {
        /// Object.
        id: ObjectId,
        /// Which.
        name: Bytes,
    },
    /// Make one object durable.
    Sync {
        /// Object.
        id: ObjectId,
        /// Only what is needed to read the data back.
        data_only: bool,
    },
    /// Make every root's filesystem durable; `in_step` ends a resync: everything before it is applied.
    SyncAll {
        /// Report `InStep` once done.
        in_step: bool,
        /// The epoch that is to be closed: every operation of it was carried out on both nodes before. 0: none.
        epoch: u64,
    },
}

/// End of a range that has none.
pub const END: u64 = u64::MAX;

impl Op {
    /// What it conflicts on: both sides carry out conflicting operations in the order of their numbers.
    #[must_use]
    pub fn keys(&self) -> Keys {
        match self {
            Self::Bind { id, parent, name, .. } | Self::Create { id, parent, name, .. } => {
                Keys::of(&[Key::name(parent.0, name), Key::all(id.0)])
            }
            Self::Unbind { id } => Keys::of(&[Key::all(id.0)]),
            Self::Write { id, offset, data, mode, .. } => {
                let length = data.len() as u64;
                Keys::data(id.0, *offset, offset.saturating_add(length), mode.is_some())
            }
            Self::Truncate { id, mode, .. } => Keys::data(id.0, 0, END, mode.is_some()),
            Self::Allocate { id, offset, length, mode, .. } => {
                Keys::data(id.0, *offset, offset.saturating_add(*length), mode.is_some())
            }
            Self::Copy { source, source_offset, id, offset, length, mode, .. } => {
                let mut keys = Keys::data(id.0, *offset, offset.saturating_add(*length), mode.is_some());
                keys.push(
                    Key::range(source.0, *source_offset, source_offset.saturating_add(*length)).shared(),
                );
                keys
            }
            Self::Unlink { parent, name, id, .. } => Keys::name_and(parent.0, name, id.0),
            Self::Rename { parent, name, new_parent, new_name, id, replaced, .. } => {
                let mut keys = Keys::name_and(parent.0, name, replaced.0);
                keys.push(Key::name(new_parent.0, new_name));
                if *id != ObjectId::NONE {
                    keys.push(Key::meta(id.0));
                }
                keys
            }
            Self::Link { id, parent, name, .. } => Keys::of(&[Key::name(parent.0, name), Key::meta(id.0)]),
            Self::SetMeta { id, .. } | Self::SetXattr { id, .. } | Self::RemoveXattr { id, .. } => {
                Keys::of(&[Key::meta(id.0)])
            }
            // Only the id must mean something by then: what is to be durable was acknowledged before.
            Self::Sync { id, .. } => Keys::of(&[Key::meta(id.0).shared()]),
            Self::SyncAll { .. } => Keys::of(&[]),
        }
    }

    /// An object that it is about and that exists before it; none for [`Op::SyncAll`].
    #[must_use]
    pub const fn subject(&self) -> ObjectId {
        match self {
            Self::Bind { parent, .. }
            | Self::Create { parent, .. }
            | Self::Unlink { parent, .. }
            | Self::Rename { parent, .. } => *parent,
            Self::Unbind { id }
            | Self::Write { id, .. }
            | Self::Truncate { id, .. }
            | Self::Allocate { id, .. }
            | Self::Copy { id, .. }
            | Self::Link { id, .. }
            | Self::SetMeta { id, .. }
            | Self::SetXattr { id, .. }
            | Self::RemoveXattr { id, .. }
            | Self::Sync { id, .. } => *id,
            Self::SyncAll { .. } => ObjectId::NONE,
        }
    }

    /// An error may leave a part of it done, another part on each node; the others are done or not.
    #[must_use]
    pub const fn may_end_halfway(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Copy { .. } | Self::Allocate { .. })
    }

    /// What it is called in logs, which hold nothing of what the application writes.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "bind",
            Self::Unbind { .. } => "unbind",
            Self::Create { .. } => "create",
            Self::Write { .. } => "write",
            Self::Truncate { .. } => "truncate",
            Self::Allocate { .. } => "allocate",
            Self::Copy { .. } => "copy",
            Self::Unlink { .. } => "unlink",
            Self::Rename { .. } => "rename",
            Self::Link { .. } => "link",
            Self::SetMeta { .. } => "set attributes",
            Self::SetXattr { .. } => "set xattr",
            Self::RemoveXattr { .. } => "remove xattr",
            Self::Sync { .. } => "sync",
            Self::SyncAll { .. } => "sync everything",
        }
    }

    /// Bytes of content it carries.
    #[must_use]
    pub fn payload(&self) -> usize {
        match self {
            Self::Write { data, .. } => data.len(),
            Self::SetXattr { xattr, .. } => xattr.value.len(),
            Self::Create { target, .. } => target.len(),
            Self::Bind { .. }
            | Self::Unbind { .. }
            | Self::Truncate { .. }
            | Self::Allocate { .. }
            | Self::Copy { .. }
            | Self::Unlink { .. }
            | Self::Rename { .. }
            | Self::Link { .. }
            | Self::SetMeta { .. }
            | Self::RemoveXattr { .. }
            | Self::Sync { .. }
            | Self::SyncAll { .. } => 0,
        }
    }
}
