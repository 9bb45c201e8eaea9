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

/// Names of inodes: the path of the directory from the root, and the name in it.
pub(super) type NamesOf = BTreeMap<u64, Vec<(Vec<Bytes>, Bytes)>>;

impl Resync<'_> {
    /// Every name of an object that is not a directory.
    pub(super) fn names_of(&self, root: &Root, object: &Object) -> Step<Vec<(Dir, Bytes)>> {
        let open = root.open_path(object).map_err(|errno| Trouble::local("an object", errno))?;
        let inode =
            crate::backing::attributes(open.as_fd()).map_err(|errno| Trouble::local("an object", errno))?.ino;
        let mut paths: Vec<(Vec<Bytes>, Bytes)> = Vec::new();
        self.walk_names(root, &mut |dir, entry| {
            // On a filesystem with subvolumes the number can be another's: the caller checks the object.
            if entry.inode == inode {
                paths.push((dir.to_vec(), entry.name.clone()));
            }
        })?;
        let mut found = Vec::new();
        for (path, name) in paths {
            if let Some(dir) = self.open_dir(root, path)? {
                found.push((dir, name));
            }
        }
        Ok(found)
    }

    /// The names of all inodes of a root that have several, by [`safe_replication::tree::Entry::inode`].
    pub(super) fn shared_names(&self, root: &Root) -> Step<NamesOf> {
        let mut found = NamesOf::new();
        let mut candidates: Vec<(Vec<Bytes>, Bytes)> = Vec::new();
        self.walk_names(root, &mut |dir, entry| {
            if entry.links > 1 {
                candidates.push((dir.to_vec(), entry.name.clone()));
            }
        })?;
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
        match super::reach::open_beneath(root, &path) {
            Ok(found) => Ok(Some(Dir { object: found.object, open: found.path, path })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => Ok(None),
            Err(errno) => Err(Trouble::local(&local::display(root, &path), errno)),
        }
    }

    /// Calls `found` for every name of everything but directories beneath a root.
    fn walk_names(&self, root: &Root, found: &mut dyn FnMut(&[Bytes], &Name)) -> Step<()> {
        let mut left: Vec<Vec<Bytes>> = vec![Vec::new()];
        while let Some(path) = left.pop() {
            self.go_on()?;
            let Some(dir) = self.open_dir(root, path)? else { continue };
            let mut below = Vec::new();
            let listed = list(dir.open.as_fd(), &mut |name| {
                if name.directory {
                    below.push([dir.path.as_slice(), &[name.name.clone()]].concat());
                } else {
                    found(&dir.path, &name);
                }
            });
            listed.map_err(|errno| Trouble::local(&local::display(root, &dir.path), errno))?;
            left.append(&mut below);
        }
        Ok(())
    }
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
