//! Searching a tree for the names of inodes with several, or of one that was moved.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags};
use rustix::io::Errno;
use safe_replication::dirty::Object;

use super::reach::Dir;
use super::{Resync, Step, Trouble, local};
use crate::backing::Root;

/// The path of a directory from the root, and a name in it.
pub(super) type At = (Vec<Bytes>, Bytes);

/// Names of inodes.
pub(super) type NamesOf = BTreeMap<u64, Vec<At>>;

impl Resync<'_> {
    /// Every name of these objects of one root, which are no directories, in one walk.
    pub(super) fn names_of(&self, root: &Root, objects: &[Object]) -> Step<BTreeMap<Object, Vec<At>>> {
        let stop = || self.not_stopped().is_err();
        names_of(root, objects, &stop).map_err(|errno| Trouble::local("a search for objects", errno))
    }

    /// The names of all inodes of a root that have several, by [`safe_replication::tree::Entry::inode`].
    pub(super) fn shared_names(&self, root: &Root) -> Step<NamesOf> {
        let mut candidates: Vec<At> = Vec::new();
        let stop = || self.not_stopped().is_err();
        walk_names(root, &stop, &mut |dir, entry| {
            if entry.links > 1 {
                candidates.push((dir.to_vec(), entry.name.clone()));
            }
        })
        .map_err(|errno| Trouble::local("a search for hard links", errno))?;
        let mut found = NamesOf::new();
        for (path, name) in candidates {
            let Some(dir) = self.open_dir(root, path.clone())? else { continue };
            if let Ok(Some(entry)) = local::entry(dir.open.as_fd(), &name) {
                found.entry(entry.inode).or_default().push((path, name));
            }
        }
        Ok(found)
    }

    /// Opens a directory by its path; none: it is not there.
    pub(super) fn open_dir(&self, root: &Root, path: Vec<Bytes>) -> Step<Option<Dir>> {
        open_dir(root, &path).map_err(|errno| Trouble::local(&local::display(root, &path), errno))
    }
}

fn open_dir(root: &Root, path: &[Bytes]) -> Result<Option<Dir>, Errno> {
    match super::reach::open_beneath(root, path) {
        Ok(found) => Ok(Some(Dir { object: found.object, open: found.path, path: path.to_vec() })),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Every name of these objects of one root, which are no directories, in one walk.
pub(super) fn names_of(
    root: &Root,
    objects: &[Object],
    stop: &dyn Fn() -> bool,
) -> Result<BTreeMap<Object, Vec<At>>, Errno> {
    let mut wanted: BTreeMap<u64, Vec<&Object>> = BTreeMap::new();
    for object in objects {
        match root.open_path(object).and_then(|open| crate::backing::attributes(open.as_fd())) {
            Ok(now) => wanted.entry(now.ino).or_default().push(object),
            Err(Errno::STALE | Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    let mut candidates: Vec<At> = Vec::new();
    walk_names(root, stop, &mut |dir, entry| {
        if wanted.contains_key(&entry.inode) {
            candidates.push((dir.to_vec(), entry.name.clone()));
        }
    })?;
    let mut found: BTreeMap<Object, Vec<At>> = BTreeMap::new();
    for (path, name) in candidates {
        let Some(dir) = open_dir(root, &path)? else { continue };
        // On a filesystem with subvolumes the number can be another inode's.
        if let Ok(there) = root.look_up(dir.open.as_fd(), &name)
            && objects.contains(&there.object)
        {
            found.entry(there.object).or_default().push((path, name));
        }
    }
    Ok(found)
}

/// Calls `found` for every replicated name of everything but directories beneath a root.
fn walk_names(
    root: &Root,
    stop: &dyn Fn() -> bool,
    found: &mut dyn FnMut(&[Bytes], &Name),
) -> Result<(), Errno> {
    let mut left: Vec<Vec<Bytes>> = vec![Vec::new()];
    while let Some(path) = left.pop() {
        if stop() {
            return Err(Errno::CANCELED);
        }
        let Some(dir) = open_dir(root, &path)? else { continue };
        let mut below = Vec::new();
        list(dir.open.as_fd(), &mut |name| {
            if root.excludes(&dir.path, &name.name) {
                // Not on the target, or something else there.
            } else if name.directory {
                below.push([dir.path.as_slice(), std::slice::from_ref(&name.name)].concat());
            } else {
                found(&dir.path, &name);
            }
        })?;
        left.append(&mut below);
    }
    Ok(())
}

struct Name {
    name: Bytes,
    inode: u64,
    links: u32,
    directory: bool,
}

fn list(directory: BorrowedFd<'_>, found: &mut dyn FnMut(Name)) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::openat(directory, c".", flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(1 << 16);
    let mut entries = RawDir::new(open, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let (mut kind, inode, mut links) = (entry.file_type(), entry.ino(), 1);
        if kind != FileType::Directory {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            match rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS) {
                Ok(stat) => {
                    links = stat.stx_nlink;
                    kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
                }
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            }
        }
        let directory = kind == FileType::Directory;
        found(Name { name: Bytes::copy_from_slice(name.to_bytes()), inode, links, directory });
    }
    Ok(())
}
