//! From an object of the source to its id in the session, through names that are equal on both copies.

use std::os::fd::{AsFd as _, OwnedFd};

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;
use safe_replication::dirty::{Change, Object, Place};
use safe_replication::op::ObjectId;

use super::link::{Held, Key};
use super::{Resync, Step, Trouble, local};
use crate::backing::{Found, Root};
use crate::knowledge::Stage;

/// A directory that was found again by its handle.
pub(super) struct Dir {
    pub(super) object: Object,
    /// Opened with O_PATH.
    pub(super) open: OwnedFd,
    /// Names from the root.
    pub(super) path: Vec<Bytes>,
}

/// Names on the way from a root, each with the directory that has it.
pub(super) type Chain = Vec<(Object, Bytes)>;

/// Where an object was looked for.
pub(super) enum Reached {
    /// It is bound to this id.
    At(ObjectId),
    /// It no longer exists, or has no name.
    Gone,
    /// It is not at its place.
    Lost,
}

impl Resync<'_> {
    /// Opens a directory and says where it is; none: it no longer exists.
    pub(super) fn locate(&self, dir: &Object) -> Step<Option<Dir>> {
        let root = self.root(dir.root)?;
        let failed = |errno| Trouble::local("a directory of the journal", errno);
        let open = match root.open(dir, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(open) => open,
            Err(Errno::STALE | Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        let Some(path) = local::path_beneath(root, open.as_fd()).map_err(failed)? else { return Ok(None) };
        // A directory that was removed but is still open has the path it had.
        match open_beneath(root, &path) {
            Ok(found) if found.object == *dir => Ok(Some(Dir { object: dir.clone(), open, path })),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Opens a directory by its path, with each name on the way to `name` in it and the directory that has it; none: it
    /// is not there.
    pub(super) fn chain(&self, root: &Root, path: &[Bytes], name: &Bytes) -> Step<Option<(Dir, Chain)>> {
        let walk = || -> Result<(Dir, Chain), Errno> {
            let mut found = open_beneath(root, &[])?;
            let mut chain = Chain::new();
            for part in path {
                chain.push((found.object, part.clone()));
                let below = OFlags::PATH | OFlags::DIRECTORY;
                found = root.identify(crate::backing::open_name(found.path.as_fd(), part, below)?)?;
            }
            chain.push((found.object.clone(), name.clone()));
            Ok((Dir { object: found.object, open: found.path, path: path.to_vec() }, chain))
        };
        match walk() {
            Ok(walked) => Ok(Some(walked)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::LOOP) => Ok(None),
            Err(errno) => Err(Trouble::local(&local::display(root, path), errno)),
        }
    }

    /// The id of a directory, bound on the way down from its root. The names' keys are held one by one, so that none is
    /// bound to what an operation under way has just moved.
    pub(super) fn reach_dir(&self, dir: &Dir) -> Step<ObjectId> {
        if let Some(id) = self.link.bound(&dir.object) {
            return Ok(id);
        }
        let root = self.root(dir.object.root)?;
        let mut id = ObjectId::root(u32::from(root.index));
        let mut at = root.object.clone();
        let mut open: Option<OwnedFd> = None;
        for name in &dir.path {
            let _held = self.hold_name(&at, name);
            let parent = open.as_ref().map_or(root.directory.as_fd(), |open| open.as_fd());
            let found = self.look_up(root, parent, name)?;
            id = match self.link.bound(&found.object) {
                Some(id) => id,
                None => self.link.bind(id, name, &found.object)?,
            };
            at = found.object;
            open = Some(found.path);
        }
        if at == dir.object { Ok(id) } else { Err(Trouble::Again("a directory was moved".into())) }
    }

    /// The id of anything.
    pub(super) fn reach(&self, object: &Object, place: Option<&Place>) -> Step<Reached> {
        if let Some(id) = self.link.bound(object) {
            return Ok(Reached::At(id));
        }
        let root = self.root(object.root)?;
        if !exists(root, object)? {
            return Ok(Reached::Gone);
        }
        if let Some(place) = place
            && let Some(dir) = self.locate(&place.dir)?
            && let Some(id) = self.bind_at(root, &dir, &place.name, object)?
        {
            return Ok(Reached::At(id));
        }
        Ok(Reached::Lost)
    }

    /// Searches for objects that are not where they were when they were marked, all in one walk, and marks where each
    /// is now. How many were found.
    pub(super) fn search(&self, lost: &[Object]) -> Step<usize> {
        let mut count = 0;
        for root in self.backing.roots.iter() {
            let of_root: Vec<Object> =
                lost.iter().filter(|object| object.root == root.index).cloned().collect();
            if of_root.is_empty() {
                continue;
            }
            for (object, names) in self.names_of(root, &of_root)? {
                let Some((path, name)) = names.into_iter().next() else { continue };
                let Some(dir) = self.open_dir(root, path)? else { continue };
                self.mark(&[Change::Place { object, dir: dir.object, name: name[..].into() }])?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Binds an object where it is believed to be; none: it is not there.
    fn bind_at(&self, root: &Root, dir: &Dir, name: &[u8], object: &Object) -> Step<Option<ObjectId>> {
        let parent = self.reach_dir(dir)?;
        let name = Bytes::copy_from_slice(name);
        let _held = self.hold_name(&dir.object, &name);
        match root.look_up(dir.open.as_fd(), &name) {
            Ok(found) if found.object == *object => Ok(Some(self.link.bind(parent, &name, object)?)),
            Ok(_) | Err(Errno::NOENT | Errno::STALE) => Ok(None),
            Err(errno) => Err(Trouble::local(&local::display(root, &dir.path), errno)),
        }
    }

    /// While names may differ nothing of the application goes by names that are bound, and everything may be held here
    /// already: an operation that waits for that would be waited for.
    fn hold_name(&self, dir: &Object, name: &Bytes) -> Option<Box<dyn Held + '_>> {
        let aligned = self.knowledge.stage() == Stage::Aligned;
        aligned.then(|| self.link.lock(&[Key::Name { dir: dir.clone(), name: name.clone() }]))
    }

    fn look_up(&self, root: &Root, parent: std::os::fd::BorrowedFd<'_>, name: &Bytes) -> Step<Found> {
        self.not_stopped()?;
        root.look_up(parent, name).map_err(|errno| Trouble::local(&String::from_utf8_lossy(name), errno))
    }
}

/// The object still has a name, or may get one again.
pub(super) fn exists(root: &Root, object: &Object) -> Step<bool> {
    let links = |open: OwnedFd| Ok(crate::backing::attributes(open.as_fd())?.nlink);
    match root.open_path(object).and_then(links) {
        Ok(links) => Ok(links > 0),
        Err(Errno::STALE | Errno::NOENT) => Ok(false),
        Err(errno) => Err(Trouble::local("an object of the journal", errno)),
    }
}

pub(super) fn open_beneath(root: &Root, path: &[Bytes]) -> Result<Found, Errno> {
    let mut open = rustix::fs::openat(
        &root.directory,
        c".",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    for name in path {
        open = crate::backing::open_name(open.as_fd(), name, OFlags::PATH | OFlags::DIRECTORY)?;
    }
    root.identify(open)
}
