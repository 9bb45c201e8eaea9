//! Brings an archive's files into a directory, with everything they had.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use safe_replication::archive::{Attributes, DATA, Entry, What};
use safe_replication::object::Kind;

use super::{Archive, lines};

/// What was restored so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files with content.
    pub files: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// Objects of which an extended attribute, an owner or a mode could not be set.
    pub incomplete: u64,
}

/// Into `target`, which is made and must not exist: below it each replicated directory by its whole path. `told` hears
/// after each file how far it is, and ends it by false.
///
/// # Errors
/// A file cannot be read or written; what was restored until then stays.
pub fn restore(
    archive: &Archive,
    target: &Path,
    mut told: impl FnMut(Restored) -> bool,
) -> io::Result<Restored> {
    DirBuilder::new().mode(0o700).create(target)?;
    let (target, data) = (open_directory(target)?, open_directory(&archive.path.join(DATA))?);
    let mut done = Restored::default();
    let mut directories = Vec::new();
    for entry in lines(archive)? {
        let entry = entry?;
        let Some(attributes) = entry.attributes.clone() else { continue };
        let path = full_path(archive, &entry)?;
        let Some(kind) = attributes.kind() else { continue };
        let made = match kind {
            Kind::Directory => {
                directories.push((path, attributes));
                continue;
            }
            Kind::File if matches!(entry.what, What::Content | What::Ranges(_)) => {
                let source = source(&data, &entry)?;
                let file = create(&target, &path)?;
                done.bytes += copy(&source, &file)?;
                done.files += 1;
                true
            }
            // Its content was not changed, so it is not here.
            Kind::File => false,
            Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => {
                special(&target, &path, kind, &attributes)?;
                true
            }
        };
        if made && dress(&target, &path, kind, &attributes).is_err() {
            done.incomplete += 1;
        }
        if !told(done) {
            return Err(io::Error::other("it was broken off"));
        }
    }
    // The deepest first: what is made in a directory changes its time.
    for (path, attributes) in directories.iter().rev() {
        make(&target, path)?;
        if dress(&target, path, Kind::Directory, attributes).is_err() {
            done.incomplete += 1;
        }
    }
    Ok(done)
}

/// Names from the root of the machine downwards.
fn full_path(archive: &Archive, entry: &Entry) -> io::Result<Vec<Vec<u8>>> {
    let directory = archive.manifest.directories.get(usize::from(entry.directory));
    let directory = directory.ok_or_else(|| io::Error::other("the archive names no such directory"))?;
    let names = directory.0.split(|byte| *byte == b'/').chain(entry.path.0.split(|byte| *byte == b'/'));
    Ok(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// A directory below, never through a link; made where it is missing.
fn make(from: &OwnedFd, path: &[Vec<u8>]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(from, c".", flags, Mode::empty())?;
    for name in path {
        match rustix::fs::mkdirat(&at, &name[..], Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        at = rustix::fs::openat(&at, &name[..], flags, Mode::empty())?;
    }
    Ok(at)
}

fn above<'p>(from: &OwnedFd, path: &'p [Vec<u8>]) -> io::Result<(OwnedFd, &'p [u8])> {
    let (name, above) = path.split_last().ok_or_else(|| io::Error::other("an entry without a name"))?;
    Ok((make(from, above)?, name))
}

fn source(data: &OwnedFd, entry: &Entry) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(data, entry.directory.to_string(), flags, Mode::empty())?;
    let mut names = entry.path.0.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        let flags = if names.peek().is_some() { flags } else { OFlags::NOFOLLOW | OFlags::CLOEXEC };
        at = rustix::fs::openat(&at, name, flags, Mode::empty())?;
    }
    Ok(at.into())
}

fn create(target: &OwnedFd, path: &[Vec<u8>]) -> io::Result<File> {
    let (directory, name) = above(target, path)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o600))?.into())
}

/// Holes stay holes; answers the bytes of what is no hole.
fn copy(source: &File, target: &File) -> io::Result<u64> {
    target.set_len(source.metadata()?.len())?;
    let (mut at, mut total) = (0, 0);
    loop {
        let from = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(from) => from,
            Err(Errno::NXIO) => return Ok(total),
            Err(errno) => return Err(errno.into()),
        };
        let to = rustix::fs::seek(source, SeekFrom::Hole(from))?;
        piece(source, target, from, to)?;
        total += to - from;
        at = to;
    }
}

fn piece(source: &File, target: &File, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = from;
    while at < to {
        let want = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
        let part = &mut buffer[..want];
        source.read_exact_at(part, at)?;
        target.write_all_at(part, at)?;
        at += want as u64;
    }
    Ok(())
}

fn special(target: &OwnedFd, path: &[Vec<u8>], kind: Kind, attributes: &Attributes) -> io::Result<()> {
    let (directory, name) = above(target, path)?;
    let kind = match kind {
        Kind::Symlink => return Ok(rustix::fs::symlinkat(&attributes.target.0[..], &directory, name)?),
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::Char => FileType::CharacterDevice,
        Kind::Block => FileType::BlockDevice,
        Kind::File | Kind::Directory => return Ok(()),
    };
    Ok(rustix::fs::mknodat(&directory, name, kind, Mode::from_raw_mode(0o600), attributes.rdev)?)
}

/// Owner, mode, extended attributes, time: the last thing, since each of them may change those before.
fn dress(target: &OwnedFd, path: &[Vec<u8>], kind: Kind, attributes: &Attributes) -> io::Result<()> {
    let (directory, name) = above(target, path)?;
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let (owner, group) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    rustix::fs::chownat(&directory, name, Some(owner), Some(group), flags)?;
    // Of one name in a directory that is open: nothing can be followed.
    let place = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd());
    let place = Path::new(&place).join(OsStr::from_bytes(name));
    for (name, value) in &attributes.xattrs {
        rustix::fs::lsetxattr(&place, &name.0[..], &value.0, XattrFlags::empty())?;
    }
    if kind != Kind::Symlink {
        rustix::fs::chmodat(&directory, name, Mode::from_raw_mode(attributes.mode), AtFlags::empty())?;
    }
    let time = Timespec { tv_sec: attributes.mtime.0, tv_nsec: i64::from(attributes.mtime.1) };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(&directory, name, &times, flags)?)
}
