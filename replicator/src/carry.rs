//! Carries out one operation on the backing files: the same code on both nodes, so that both end up equal.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use safe_replication::op::{Allocation, Number, ObjectId, Op, RenameMode, Timestamp};

use crate::backing::{Backing, Found, MARKER, Root, attributes, open_name};
use crate::crash;
use crate::linux::handle::magic_path;

/// How operations find the objects that they name by id.
pub trait Objects {
    /// The directories.
    fn backing(&self) -> &Backing;

    /// The directory that the object is in.
    ///
    /// # Errors
    /// `ESTALE`: the id means nothing here.
    fn root(&self, id: ObjectId) -> Result<&Root, Errno>;

    /// The object, opened only to name it.
    ///
    /// # Errors
    /// `ESTALE` if it is gone.
    fn path(&self, id: ObjectId) -> Result<Arc<OwnedFd>, Errno>;

    /// A regular file, opened for reading and writing (never appending).
    ///
    /// # Errors
    /// As open(2).
    fn file(&self, id: ObjectId) -> Result<Arc<OwnedFd>, Errno>;

    /// The object is about to lose a name, perhaps its last: it stays usable by its id.
    ///
    /// # Errors
    /// `ESTALE` if it is gone.
    fn pin(&self, id: ObjectId) -> Result<(), Errno>;

    /// Calls `set` with the modification time that the last of the object's operations in order gives it: operations
    /// that only share the time run side by side, and the last one must win on both nodes, although each changes the
    /// time by what it does.
    ///
    /// # Errors
    /// What `set` says.
    fn stamp(
        &self,
        id: ObjectId,
        number: Number,
        time: Timestamp,
        set: &mut dyn FnMut(Timestamp) -> Result<(), Errno>,
    ) -> Result<(), Errno>;

    /// The object now has this id (after `Bind` and `Create`).
    ///
    /// # Errors
    /// The id is in use.
    fn bound(
        &self,
        id: ObjectId,
        found: Found,
        file: Option<OwnedFd>,
        place: (ObjectId, &Bytes),
    ) -> Result<(), Errno>;

    /// The id is not used any more.
    fn unbound(&self, id: ObjectId);

    /// An object lost a name, got one, or both.
    fn renamed(&self, id: ObjectId, from: Option<(ObjectId, &Bytes)>, to: Option<(ObjectId, &Bytes)>);
}

/// Carries out one operation.
///
/// # Errors
/// What the filesystem says. After an error of `Create` nothing is left behind; after one of `Write` and `Copy` a
/// part may have been written.
pub fn carry_out(objects: &dyn Objects, number: Number, op: &Op) -> Result<(), Errno> {
    match op {
        Op::Bind { id, parent, name, kind } => bind(objects, *id, *parent, name, *kind),
        Op::Unbind { id } => {
            objects.unbound(*id);
            Ok(())
        }
        Op::Create { .. } => create(objects, number, op),
        Op::Write { id, offset, data, time, mode } => {
            let file = objects.file(*id)?;
            write_all(&file, *offset, data)?;
            after_data(objects, number, *id, &file, *time, *mode)
        }
        Op::Truncate { id, size, time, mode } => {
            let file = objects.file(*id)?;
            rustix::fs::ftruncate(&*file, *size)?;
            after_data(objects, number, *id, &file, *time, *mode)
        }
        Op::Allocate { id, how, offset, length, time, mode } => {
            let file = objects.file(*id)?;
            rustix::fs::fallocate(&*file, allocation(*how), *offset, *length)?;
            after_data(objects, number, *id, &file, *time, *mode)
        }
        Op::Copy { source, source_offset, id, offset, length, time, mode } => {
            let (from, to) = (objects.file(*source)?, objects.file(*id)?);
            copy(&from, *source_offset, &to, *offset, *length)?;
            after_data(objects, number, *id, &to, *time, *mode)
        }
        Op::Unlink { .. } | Op::Rename { .. } | Op::Link { .. } => names(objects, number, op),
        Op::SetMeta { id, mode, uid, gid, atime, mtime } => {
            let path = objects.path(*id)?;
            set_owner(path.as_fd(), *uid, *gid)?;
            if let Some(mode) = mode {
                set_mode(path.as_fd(), *mode)?;
            }
            if let Some(time) = atime {
                set_times(path.as_fd(), Some(*time), None)?;
            }
            match mtime {
                Some(time) => {
                    objects.stamp(*id, number, *time, &mut |time| set_times(path.as_fd(), None, Some(time)))
                }
                None => Ok(()),
            }
        }
        Op::SetXattr { .. } | Op::RemoveXattr { .. } => xattrs(objects, op),
        Op::Sync { id, data_only } => sync(objects, *id, *data_only),
        Op::SyncAll { .. } => sync_all(objects.backing()),
    }
}

/// Makes everything durable.
///
/// # Errors
/// The first error means that something may be lost: it is never tried again.
pub fn sync_all(backing: &Backing) -> Result<(), Errno> {
    if crash::fails("syncfs") {
        return Err(Errno::IO);
    }
    backing.roots.iter().try_for_each(|root| rustix::fs::syncfs(&root.directory))
}

fn bind(objects: &dyn Objects, id: ObjectId, parent: ObjectId, name: &Bytes, kind: u32) -> Result<(), Errno> {
    let directory = objects.path(parent)?;
    let found = objects.root(parent)?.look_up(directory.as_fd(), name)?;
    if found.attributes.mode & libc::S_IFMT != kind {
        return Err(Errno::STALE);
    }
    objects.bound(id, found, None, (parent, name))
}

fn create(objects: &dyn Objects, number: Number, op: &Op) -> Result<(), Errno> {
    let Op::Create { id, parent, name, mode, rdev, target, time, .. } = op else {
        return Err(Errno::INVAL);
    };
    // Should this fail, what follows by the id must not reach what it meant before.
    objects.unbound(*id);
    let directory = objects.path(*parent)?;
    let root = objects.root(*parent)?;
    if name.is_empty() && mode & libc::S_IFMT == libc::S_IFREG {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*directory, c".", flags, Mode::from_raw_mode(mode & 0o7777))?;
        dress(file.as_fd(), op)?;
        let found = root.identify(rustix::io::fcntl_dupfd_cloexec(&file, 0)?)?;
        return objects.bound(*id, found, Some(file), (*parent, name));
    }
    single(name)?;
    let file = make(directory.as_fd(), name, *mode, *rdev, target)?;
    crash::point("halfway");
    let finish = || -> Result<(), Errno> {
        let path = match &file {
            Some(file) => rustix::io::fcntl_dupfd_cloexec(file, 0)?,
            None => open_name(directory.as_fd(), name, OFlags::PATH)?,
        };
        dress(path.as_fd(), op)?;
        objects.bound(*id, root.identify(path)?, file, (*parent, name))
    };
    finish().inspect_err(|_| {
        let flags = if mode & libc::S_IFMT == libc::S_IFDIR { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        if let Err(error) = rustix::fs::unlinkat(&*directory, name.as_ref(), flags) {
            tracing::error!(%error, "cannot remove what was made only in part");
        }
    })?;
    stamp(objects, *parent, number, directory.as_fd(), *time)
}

/// Owner, permissions and times of what was just made.
fn dress(path: BorrowedFd<'_>, op: &Op) -> Result<(), Errno> {
    let Op::Create { mode, uid, gid, time, .. } = op else { return Err(Errno::INVAL) };
    let now = attributes(path)?;
    let owner = (now.uid != *uid).then_some(*uid);
    let group = (now.gid != *gid).then_some(*gid);
    set_owner(path, owner, group)?;
    // The permissions are what the filesystem made of them and the default ACL; the other bits may have been cleared by
    // the change of owner, or be missing.
    let wanted = (now.mode & 0o777) | (mode & 0o7000);
    let special = owner.is_some() || group.is_some() || now.mode & 0o7777 != wanted;
    if special && mode & libc::S_IFMT != libc::S_IFLNK {
        set_mode(path, wanted)?;
    }
    set_times(path, Some(*time), Some(*time))
}

/// One name, not a path: what is decoded from the network is checked before, and here once more, where it matters.
fn single(name: &[u8]) -> Result<(), Errno> {
    let plain = !name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..";
    if plain { Ok(()) } else { Err(Errno::INVAL) }
}

/// Makes the object; a regular file is left open.
fn make(
    directory: BorrowedFd<'_>,
    name: &Bytes,
    mode: u32,
    rdev: u64,
    target: &Bytes,
) -> Result<Option<OwnedFd>, Errno> {
    let permissions = Mode::from_raw_mode(mode & 0o7777);
    match mode & libc::S_IFMT {
        libc::S_IFREG => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return rustix::fs::openat(directory, name.as_ref(), flags, permissions).map(Some);
        }
        libc::S_IFDIR => rustix::fs::mkdirat(directory, name.as_ref(), permissions)?,
        libc::S_IFLNK => rustix::fs::symlinkat(target.as_ref(), directory, name.as_ref())?,
        other => {
            let kind = rustix::fs::FileType::from_raw_mode(other);
            rustix::fs::mknodat(directory, name.as_ref(), kind, permissions, rdev)?;
        }
    }
    Ok(None)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the caller has matched the rest")]
fn names(objects: &dyn Objects, number: Number, op: &Op) -> Result<(), Errno> {
    match op {
        Op::Unlink { parent, name, id, directory, time } => {
            single(name)?;
            let parent_path = objects.path(*parent)?;
            if *id != ObjectId::NONE {
                objects.pin(*id)?;
            }
            let flags = if *directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(&*parent_path, name.as_ref(), flags)?;
            crash::point("halfway");
            objects.renamed(*id, Some((*parent, name)), None);
            stamp(objects, *parent, number, parent_path.as_fd(), *time)
        }
        Op::Rename { parent, name, new_parent, new_name, how, id, replaced, time } => {
            single(name)?;
            single(new_name)?;
            let (from, to) = (objects.path(*parent)?, objects.path(*new_parent)?);
            let exchange = *how == RenameMode::Exchange;
            if *replaced != ObjectId::NONE && !exchange {
                objects.pin(*replaced)?;
            }
            let flags = match how {
                RenameMode::Replace => RenameFlags::empty(),
                RenameMode::NoReplace => RenameFlags::NOREPLACE,
                RenameMode::Exchange => RenameFlags::EXCHANGE,
            };
            rustix::fs::renameat_with(&*from, name.as_ref(), &*to, new_name.as_ref(), flags)?;
            crash::point("halfway");
            let (old, new) = ((*parent, name), (*new_parent, new_name));
            objects.renamed(*replaced, Some(new), exchange.then_some(old));
            objects.renamed(*id, Some(old), Some(new));
            stamp(objects, *parent, number, from.as_fd(), *time)?;
            stamp(objects, *new_parent, number, to.as_fd(), *time)
        }
        Op::Link { id, parent, name, time } => {
            single(name)?;
            let (object, directory) = (objects.path(*id)?, objects.path(*parent)?);
            rustix::fs::linkat(&*object, c"", &*directory, name.as_ref(), AtFlags::EMPTY_PATH)?;
            crash::point("halfway");
            objects.renamed(*id, None, Some((*parent, name)));
            stamp(objects, *parent, number, directory.as_fd(), *time)
        }
        _ => Err(Errno::INVAL),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the caller has matched the rest")]
fn xattrs(objects: &dyn Objects, op: &Op) -> Result<(), Errno> {
    match op {
        Op::SetXattr { id, xattr, mode } => {
            let name = xattr_name(&xattr.name)?;
            let path = objects.path(*id)?;
            rustix::fs::setxattr(
                magic_path(path.as_fd()),
                name.as_c_str(),
                &xattr.value,
                XattrFlags::empty(),
            )?;
            mode.map_or(Ok(()), |mode| set_mode(path.as_fd(), mode))
        }
        Op::RemoveXattr { id, name } => {
            let path = objects.path(*id)?;
            rustix::fs::removexattr(magic_path(path.as_fd()), xattr_name(name)?.as_c_str())
        }
        _ => Err(Errno::INVAL),
    }
}

/// The marker binds a root to its own node's lineage: no operation may touch it.
fn xattr_name(name: &Bytes) -> Result<CString, Errno> {
    if name.as_ref() == MARKER {
        Err(Errno::PERM)
    } else {
        CString::new(name.as_ref()).map_err(|_| Errno::INVAL)
    }
}

fn sync(objects: &dyn Objects, id: ObjectId, data_only: bool) -> Result<(), Errno> {
    let path = objects.path(id)?;
    let mode = attributes(path.as_fd())?.mode;
    let file = match mode & libc::S_IFMT {
        libc::S_IFREG => objects.file(id)?,
        libc::S_IFDIR => Arc::new(rustix::fs::openat(
            &*path,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?),
        // Nothing else has content; its name is made durable with its directory.
        _ => return Ok(()),
    };
    if crash::fails("sync") {
        return Err(Errno::IO);
    }
    crash::gather("sync");
    if data_only {
        rustix::fs::fdatasync(&*file)?
    } else {
        rustix::fs::fsync(&*file)?
    }
    tracing::trace!(id = id.0, data_only, "made durable");
    Ok(())
}

fn write_all(file: &OwnedFd, mut offset: u64, mut data: &[u8]) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::pwrite(file, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                data = &data[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies a range, all of which exists in the source. The filesystem shares it where it can.
///
/// # Errors
/// What the filesystem says; `EIO` if the source is shorter.
pub fn copy(
    from: &OwnedFd,
    mut source: u64,
    to: &OwnedFd,
    mut target: u64,
    mut length: u64,
) -> Result<(), Errno> {
    const STEP: u64 = 1 << 30;
    while length > 0 {
        let step = usize::try_from(length.min(STEP)).unwrap_or(usize::MAX);
        let copied = match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), step) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => count as u64,
            Err(Errno::INTR) => 0,
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                let count = copy_by_hand(from, source, to, target, length)?;
                source += count;
                target += count;
                count
            }
            Err(error) => return Err(error),
        };
        length -= copied;
    }
    Ok(())
}

/// One step without the help of the filesystem; answers how much.
fn copy_by_hand(from: &OwnedFd, source: u64, to: &OwnedFd, target: u64, length: u64) -> Result<u64, Errno> {
    let mut buffer = vec![0; usize::try_from(length.min(1 << 20)).unwrap_or(4096)];
    let count = rustix::io::pread(from, buffer.as_mut_slice(), source)?;
    if count == 0 {
        return Err(Errno::IO);
    }
    write_all(to, target, &buffer[..count])?;
    Ok(count as u64)
}

const fn allocation(how: Allocation) -> FallocateFlags {
    match how {
        Allocation::Grow => FallocateFlags::empty(),
        Allocation::KeepSize => FallocateFlags::KEEP_SIZE,
        Allocation::Punch => FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE),
        Allocation::Zero => FallocateFlags::ZERO_RANGE,
        Allocation::ZeroKeepSize => FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE),
    }
}

fn after_data(
    objects: &dyn Objects,
    number: Number,
    id: ObjectId,
    file: &OwnedFd,
    time: Timestamp,
    mode: Option<u32>,
) -> Result<(), Errno> {
    crash::point("halfway");
    if let Some(mode) = mode {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))?;
    }
    objects.stamp(id, number, time, &mut |time| {
        rustix::fs::futimens(file, &Timestamps { last_access: OMIT, last_modification: timespec(time) })
    })
}

fn stamp(
    objects: &dyn Objects,
    id: ObjectId,
    number: Number,
    path: BorrowedFd<'_>,
    time: Timestamp,
) -> Result<(), Errno> {
    objects.stamp(id, number, time, &mut |time| set_times(path, None, Some(time)))
}

const OMIT: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };

fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() }
}

fn set_times(path: BorrowedFd<'_>, atime: Option<Timestamp>, mtime: Option<Timestamp>) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: atime.map_or(OMIT, timespec),
        last_modification: mtime.map_or(OMIT, timespec),
    };
    rustix::fs::utimensat(path, EMPTY, &times, AtFlags::EMPTY_PATH)
}

const EMPTY: &CStr = c"";

fn set_owner(path: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    rustix::fs::chownat(path, EMPTY, uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH)
}

fn set_mode(path: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    rustix::fs::chmodat(CWD, magic_path(path), Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
}
