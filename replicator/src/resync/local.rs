//! Reading of the backing trees, the same on both nodes: entries, extended attributes, digests of content.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use bytes::Bytes;
use rayon::prelude::*;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use safe_replication::diff::{BLOCK, Digest};
use safe_replication::dirty::Object;
use safe_replication::op::Timestamp;
use safe_replication::tree::{Entry, digest_xattrs, is_replicated_xattr};

use crate::backing::{Root, kind_of, open_name};
use crate::linux::handle::magic_path;

/// Extended attributes by name.
pub type Xattrs = Vec<(Bytes, Bytes)>;

/// Most bytes of names or of one value of extended attributes: the kernel's limit.
const XATTR_LIMIT: usize = 1 << 16;

/// Names of a directory in ascending order.
///
/// # Errors
/// As open(2) and getdents(2).
pub fn names(directory: BorrowedFd<'_>) -> Result<Vec<Bytes>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::openat(directory, c".", flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(1 << 16);
    let mut names = Vec::new();
    let mut entries = RawDir::new(open, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(Bytes::copy_from_slice(name));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// One entry of a directory; none if it does not exist.
///
/// # Errors
/// `EXDEV`: another filesystem is mounted there. Else as statx(2), readlink(2), listxattr(2), getxattr(2).
pub fn entry(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Entry>, Errno> {
    let path = path_in(directory, name);
    let absent = |error| if matches!(error, Errno::NOENT | Errno::STALE) { Ok(None) } else { Err(error) };
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = match rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => stat,
        Err(error) => return absent(error),
    };
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(Errno::XDEV);
    }
    let mut entry = from_stat(&stat, name)?;
    if u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFLNK {
        match rustix::fs::readlinkat(directory, name, Vec::new()) {
            Ok(target) => entry.target = Bytes::from(target.into_bytes()),
            Err(error) => return absent(error),
        }
    }
    match xattrs_of(&path, false) {
        Ok(mut xattrs) => entry.xattrs = digest_xattrs(&mut xattrs),
        Err(error) => return absent(error),
    }
    Ok(Some(entry))
}

/// The entry of what is open, without a name.
///
/// # Errors
/// As [`entry`].
pub fn own_entry(file: BorrowedFd<'_>) -> Result<Entry, Errno> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let mut entry = from_stat(&stat, b"")?;
    if u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFLNK {
        entry.target = Bytes::from(rustix::fs::readlinkat(file, c"", Vec::new())?.into_bytes());
    }
    entry.xattrs = digest_xattrs(&mut xattrs_of(&magic_path(file), true)?);
    Ok(entry)
}

/// Extended attributes of what is open, in ascending order of names.
///
/// # Errors
/// As listxattr(2) and getxattr(2).
pub fn xattrs(file: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    let mut xattrs = xattrs_of(&magic_path(file), true)?;
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// The path of a directory beneath its root, without leading slash; none if it is no longer there.
///
/// # Errors
/// As readlink(2) on /proc.
pub fn path_beneath(root: &Root, directory: BorrowedFd<'_>) -> Result<Option<Vec<Bytes>>, Errno> {
    let base = rustix::fs::readlink(magic_path(root.directory.as_fd()), Vec::new())?;
    let path = rustix::fs::readlink(magic_path(directory), Vec::new())?;
    let base = base.as_bytes().strip_suffix(b"/").unwrap_or(base.as_bytes());
    let Some(rest) = path.as_bytes().strip_prefix(base) else { return Ok(None) };
    if !rest.is_empty() && !rest.starts_with(b"/") {
        return Ok(None);
    }
    let names = rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    Ok(Some(names.map(Bytes::copy_from_slice).collect()))
}

/// Opens a regular file for reading.
///
/// # Errors
/// `EINVAL`: it is something else. Else as openat2(2).
pub fn open_file(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(OwnedFd, u64), Errno> {
    // Without NONBLOCK a fifo that has taken the name would block the open.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match open_name(directory, name, flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open_name(directory, name, flags)?,
        other => other?,
    };
    let size = size_of(file.as_fd())?;
    Ok((file, size))
}

/// Opens the content of a regular file by its object, and says its size.
///
/// # Errors
/// `ESTALE` if it is gone.
pub fn open_content(root: &Root, object: &Object) -> Result<(OwnedFd, u64), Errno> {
    let file = match root.open(object, OFlags::RDONLY | OFlags::NOATIME) {
        Err(Errno::PERM) => root.open(object, OFlags::RDONLY)?,
        other => other?,
    };
    let size = size_of(file.as_fd())?;
    Ok((file, size))
}

/// Size of an open regular file.
///
/// # Errors
/// `EINVAL`: it is something else.
pub fn size_of(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    if u32::from(stat.stx_mode) & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::INVAL);
    }
    Ok(stat.stx_size)
}

/// Digests of at most `count` blocks from `first`; as many as exist in a file of this size.
///
/// # Errors
/// As pread(2).
pub fn digests(file: BorrowedFd<'_>, size: u64, first: u64, count: u64) -> Result<Vec<Digest>, Errno> {
    let last = first.saturating_add(count).min(safe_replication::diff::blocks_of(size));
    let one = |buffer: &mut Vec<u8>, block: u64| digest(file, size, block, buffer);
    if last.saturating_sub(first) < 4 {
        let mut buffer = Vec::new();
        return (first..last).map(|block| one(&mut buffer, block)).collect();
    }
    (first..last).into_par_iter().map_init(Vec::new, one).collect()
}

fn digest(file: BorrowedFd<'_>, size: u64, block: u64, buffer: &mut Vec<u8>) -> Result<Digest, Errno> {
    let start = block * BLOCK;
    let len = usize::try_from((size - start).min(BLOCK)).unwrap_or(0);
    buffer.clear();
    if next_data(file, start)?.is_some_and(|data| data < start + len as u64) {
        read_full(file, start, len, buffer)?;
    }
    // What is missing is a hole, or was cut off meanwhile.
    buffer.resize(len, 0);
    Ok(*blake3::hash(buffer).as_bytes())
}

/// Reads up to `len` bytes; less only at the end of the file.
///
/// # Errors
/// As pread(2).
pub fn read_full(file: BorrowedFd<'_>, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Result<(), Errno> {
    buffer.clear();
    buffer.resize(len, 0);
    let mut done = 0;
    while done < len {
        match rustix::io::pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(done);
    Ok(())
}

/// Where the first byte at or after `from` is that is not in a hole; none: only a hole follows.
///
/// # Errors
/// As lseek(2).
pub fn next_data(file: BorrowedFd<'_>, from: u64) -> Result<Option<u64>, Errno> {
    match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        // The filesystem knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(from)),
        Err(error) => Err(error),
    }
}

/// Where the first hole at or after `from` begins, which is not in a hole; the end of the file is one.
///
/// # Errors
/// As lseek(2).
pub fn next_hole(file: BorrowedFd<'_>, from: u64) -> Result<u64, Errno> {
    match rustix::fs::seek(file, SeekFrom::Hole(from)) {
        Ok(at) => Ok(at),
        Err(Errno::NXIO) => Ok(from),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(u64::MAX),
        Err(error) => Err(error),
    }
}

/// As [`Entry::inode`], of what is open.
///
/// # Errors
/// As statx(2).
pub fn inode(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(|stat| inode_in(&stat))
}

/// Subvolumes of one filesystem have inodes of the same number.
fn inode_in(stat: &Statx) -> u64 {
    stat.stx_ino ^ (u64::from(stat.stx_dev_minor) << 40) ^ (u64::from(stat.stx_dev_major) << 52)
}

fn from_stat(stat: &Statx, name: &[u8]) -> Result<Entry, Errno> {
    let mode = u32::from(stat.stx_mode);
    let kind = kind_of(mode)?;
    Ok(Entry {
        name: Bytes::copy_from_slice(name),
        kind,
        mode: mode & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size: if safe_replication::diff::has_content(kind) { stat.stx_size } else { 0 },
        mtime: Timestamp { seconds: stat.stx_mtime.tv_sec, nanos: stat.stx_mtime.tv_nsec },
        rdev: match mode & libc::S_IFMT {
            libc::S_IFCHR | libc::S_IFBLK => libc::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
            _ => 0,
        },
        links: if kind.is_directory() { 1 } else { stat.stx_nlink },
        inode: inode_in(stat),
        target: Bytes::new(),
        xattrs: [0; 16],
    })
}

/// Names one entry without opening it.
fn path_in(directory: BorrowedFd<'_>, name: &[u8]) -> CString {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    CString::new(path).unwrap_or_default()
}

/// All that are replicated. The last component of `path` is a magic link to the object, or the object itself.
fn xattrs_of(path: &CString, magic: bool) -> Result<Xattrs, Errno> {
    let list = |buffer: &mut [u8]| {
        if magic { rustix::fs::listxattr(path, buffer) } else { rustix::fs::llistxattr(path, buffer) }
    };
    let mut few = [0; 256];
    let names = match list(&mut few) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(len) => few[..len].to_vec(),
        Err(Errno::RANGE) => {
            let mut many = vec![0; XATTR_LIMIT];
            let len = list(&mut many)?;
            many.truncate(len);
            many
        }
        Err(error) => return Err(error),
    };
    let mut xattrs = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && is_replicated_xattr(name)) {
        let mut value = vec![0; XATTR_LIMIT];
        let got = if magic {
            rustix::fs::getxattr(path, name, value.as_mut_slice())
        } else {
            rustix::fs::lgetxattr(path, name, value.as_mut_slice())
        };
        match got {
            Ok(len) => xattrs.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(&value[..len]))),
            // Removed meanwhile, or not readable as an attribute of its own.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(xattrs)
}

/// A path relative to a root, for globs and for people.
#[must_use]
pub fn join(names: &[Bytes]) -> Vec<u8> {
    names.join(&b'/')
}

/// For messages.
#[must_use]
pub fn display(root: &Root, names: &[Bytes]) -> String {
    root.path.join(std::ffi::OsStr::from_bytes(&join(names))).display().to_string()
}
