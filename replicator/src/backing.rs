//! The replicated directories below the mounts: reached only through descriptors opened before mounting, by single
//! names that are never followed, and by file handles.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use safe_replication::object::{Kind, Object};
use safe_replication::op::Timestamp;

use crate::exclude::Exclude;
use crate::fuse::Attributes;
use crate::linux::handle::{handle_of, magic_path, open_handle};

/// The xattr that binds a root to its lineage: hidden in the mount, never replicated.
pub const MARKER: &[u8] = b"trusted.safed.root";

/// One replicated directory.
#[derive(Debug)]
pub struct Root {
    /// Its index in the order of module.toml.
    pub index: u16,
    /// Where it is.
    pub path: PathBuf,
    /// The directory itself, below any mount of ours.
    pub directory: OwnedFd,
    /// What names it.
    pub object: Object,
    /// What is not replicated.
    pub exclude: Exclude,
    /// Acknowledge only what is on disk.
    pub ack_disk: bool,
    /// The kernel may keep what is written until it is made durable, closed or old.
    pub write_back: bool,
    /// Where the longest file that the filesystem takes ends, in bytes.
    pub longest: u64,
}

/// All directories of the module, in order.
#[derive(Debug, Clone)]
pub struct Backing {
    /// See there.
    pub roots: Arc<[Root]>,
}

/// An object that was looked up or made.
#[derive(Debug)]
pub struct Found {
    /// Opened with O_PATH.
    pub path: OwnedFd,
    /// What names it.
    pub object: Object,
    /// Its attributes.
    pub attributes: Attributes,
}

impl Root {
    /// Opens an object by what names it.
    ///
    /// # Errors
    /// `ESTALE` if it is gone.
    pub fn open(&self, object: &Object, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_handle(self.directory.as_fd(), &object.handle, flags).map_err(errno)
    }

    /// Opens an object only to name it.
    ///
    /// # Errors
    /// `ESTALE` if it is gone.
    pub fn open_path(&self, object: &Object) -> Result<OwnedFd, Errno> {
        self.open(object, OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// Opens a directory below the root for reading; none: it is not there (any more).
    ///
    /// # Errors
    /// As openat2(2).
    pub fn open_directory(&self, path: &[Bytes]) -> Result<Option<OwnedFd>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut at = rustix::fs::openat(&self.directory, c".", flags | OFlags::CLOEXEC, Mode::empty())?;
        for name in path {
            at = match open_name(at.as_fd(), name, flags) {
                Ok(directory) => directory,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        Ok(Some(at))
    }

    /// Whether a name in a directory, itself named from this one downwards, is not replicated.
    #[must_use]
    pub fn excludes(&self, directory: &[Bytes], name: &[u8]) -> bool {
        if self.exclude.is_empty() {
            return false;
        }
        let mut path = Vec::new();
        for part in directory {
            path.extend_from_slice(part);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        self.exclude.matches(&path)
    }

    /// Looks up one name.
    ///
    /// # Errors
    /// `ENOENT`; `EXDEV` for a mount point.
    pub fn look_up(&self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<Found, Errno> {
        self.identify(open_name(directory, name, OFlags::PATH | OFlags::NOFOLLOW)?)
    }

    /// What an O_PATH descriptor is.
    ///
    /// # Errors
    /// As statx(2) and name_to_handle_at(2).
    pub fn identify(&self, path: OwnedFd) -> Result<Found, Errno> {
        let attributes = attributes(path.as_fd())?;
        let handle = handle_of(path.as_fd()).map_err(errno)?;
        let object = Object { root: self.index, kind: kind_of(attributes.mode)?, handle };
        Ok(Found { path, object, attributes })
    }
}

/// Opens one name in a directory: never a link's target, never across a mount.
///
/// # Errors
/// As openat2(2).
pub fn open_name(directory: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    if name.is_empty() || name.contains(&b'/') || name == b"." || name == b".." {
        return Err(Errno::INVAL);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Attributes of what is open.
///
/// # Errors
/// As statx(2).
pub fn attributes(file: BorrowedFd<'_>) -> Result<Attributes, Errno> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(from_statx(&stat))
}

fn from_statx(stat: &Statx) -> Attributes {
    let time = |t: rustix::fs::StatxTimestamp| Timestamp { seconds: t.tv_sec, nanos: t.tv_nsec };
    Attributes {
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        mode: u32::from(stat.stx_mode),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: libc::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
        block_size: stat.stx_blksize,
    }
}

/// The type in a mode.
///
/// # Errors
/// `EINVAL`: none that is known.
pub fn kind_of(mode: u32) -> Result<Kind, Errno> {
    Ok(match mode & libc::S_IFMT {
        libc::S_IFREG => Kind::File,
        libc::S_IFDIR => Kind::Directory,
        libc::S_IFLNK => Kind::Symlink,
        libc::S_IFIFO => Kind::Fifo,
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFCHR => Kind::Char,
        libc::S_IFBLK => Kind::Block,
        _ => return Err(Errno::INVAL),
    })
}

/// The type bits of a kind.
#[must_use]
pub const fn mode_of(kind: Kind) -> u32 {
    match kind {
        Kind::File => libc::S_IFREG,
        Kind::Directory => libc::S_IFDIR,
        Kind::Symlink => libc::S_IFLNK,
        Kind::Fifo => libc::S_IFIFO,
        Kind::Socket => libc::S_IFSOCK,
        Kind::Char => libc::S_IFCHR,
        Kind::Block => libc::S_IFBLK,
    }
}

/// One extended attribute of anything that is open; none if it has no such one.
///
/// # Errors
/// As getxattr(2).
pub fn xattr(file: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let path = magic_path(file);
    let mut value: Vec<u8> = Vec::new();
    // It can grow between the two calls: ask again.
    for _ in 0..8 {
        let length = match rustix::fs::getxattr_query(&path, name) {
            Ok(length) => length,
            Err(Errno::NODATA) => return Ok(None),
            Err(error) => return Err(error),
        };
        value.resize(length, 0);
        if length == 0 {
            return Ok(Some(value));
        }
        match rustix::fs::getxattr(&path, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) => {}
            Err(Errno::NODATA) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

/// Names of all extended attributes, each ended by a zero, without the marker.
///
/// # Errors
/// As listxattr(2).
pub fn xattr_names(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let path = magic_path(file);
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::listxattr(&path, names.as_mut_slice())?;
    names.truncate(length);
    Ok(names
        .split_inclusive(|byte| *byte == 0)
        .filter(|name| name.strip_suffix(b"\0") != Some(MARKER))
        .flatten()
        .copied()
        .collect())
}

/// The errno of an error of the operating system.
#[must_use]
pub fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
