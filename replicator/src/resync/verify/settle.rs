//! One name that seems to differ, looked at while its keys are held.

use std::os::fd::{AsFd as _, OwnedFd};

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;
use safe_replication::diff::{BLOCK, blocks_of, differing_blocks};
use safe_replication::dirty::{Change, Object};
use safe_replication::object::Kind;
use safe_replication::tree::Entry;

use super::super::link::{DIGEST_LIMIT, Key, Query};
use super::super::{Step, Trouble, local};
use super::dir::{Dir, digests_of};
use super::{Aspect, Verification, name_change};
use crate::backing::{Found, Root};

/// Looks at a name that is taken by something else each time its keys are held.
const LOOKS: usize = 16;

impl Verification<'_> {
    /// Looks at a name again: at these blocks of its content that seem to differ, or if there are none, at all else.
    pub(super) fn settle(&self, root: &Root, dir: &Dir<'_>, name: &Bytes, blocks: &[u64]) -> Step<()> {
        let open = match root.open(&dir.object, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(open) => open,
            Err(Errno::STALE | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(Trouble::local(&local::display(root, &dir.path), errno)),
        };
        for _ in 0..LOOKS {
            let found = look_up(root, dir, &open, name)?;
            let keys = keys_of(dir, name, found.as_ref().map(|found| &found.object));
            let _held = self.resync.link.lock(&keys);
            let now = look_up(root, dir, &open, name)?;
            if found.map(|found| found.object) == now.as_ref().map(|now| now.object.clone()) {
                return self.judge(root, dir, &open, name, now, blocks);
            }
        }
        // Renamed over without pause: what it stood for was compared under its other names, or is gone.
        Ok(())
    }

    /// The directory at the top.
    pub(super) fn settle_root(&self, dir: &Dir<'_>) -> Step<()> {
        let root = self.resync.root(dir.object.root)?;
        let of = |object: &Object| Key::Names { dir: object.clone() };
        let held = self.resync.link.lock(&[of(&dir.object), Key::Meta { object: dir.object.clone() }]);
        let source = local::own_entry(root.directory.as_fd())
            .map_err(|errno| Trouble::local(&local::display(root, &[]), errno))?;
        let (target, _) = self.resync.ask(Query::Own { id: dir.id })?;
        drop(held);
        if let Some(target) = target.first() {
            self.attributes(dir, None, &dir.object, &source, target);
        }
        Ok(())
    }

    /// The keys are held.
    fn judge(
        &self,
        root: &Root,
        dir: &Dir<'_>,
        open: &OwnedFd,
        name: &Bytes,
        found: Option<Found>,
        blocks: &[u64],
    ) -> Step<()> {
        let source = local::entry(open.as_fd(), name)
            .map_err(|errno| Trouble::local(&local::display(root, &dir.path), errno))?;
        let query = Query::Entries { dir: dir.id, names: vec![name.clone()] };
        let target = self.resync.ask(query)?.0.into_iter().next();
        let whole = [name_change(&dir.object, name)];
        match (source, target, found) {
            (Some(source), Some(target), Some(found)) => {
                let same = source.kind == target.kind
                    && source.rdev == target.rdev
                    && source.target == target.target;
                if !same {
                    self.differs(dir, Some(name), Aspect::Type, &whole);
                    return Ok(());
                }
                if blocks.is_empty() {
                    self.attributes(dir, Some(name), &found.object, &source, &target);
                    self.size(dir, &found.object, &source, &target);
                } else if source.kind == Kind::File {
                    self.content(root, dir, open, &found.object, (&source, &target), blocks)?;
                }
            }
            (Some(_), None, _) => self.differs(dir, Some(name), Aspect::Missing, &whole),
            (None, Some(_), _) => self.differs(dir, Some(name), Aspect::Extra, &whole),
            (None | Some(_), None | Some(_), _) => {}
        }
        Ok(())
    }

    fn attributes(
        &self,
        dir: &Dir<'_>,
        name: Option<&Bytes>,
        object: &Object,
        source: &Entry,
        target: &Entry,
    ) {
        let mut changes = vec![Change::Meta { object: object.clone() }];
        changes.extend(place(dir, name, object));
        for (aspect, same) in [
            (Aspect::Mode, source.mode == target.mode),
            (Aspect::Owner, (source.uid, source.gid) == (target.uid, target.gid)),
            (Aspect::Time, source.mtime == target.mtime),
            (Aspect::Xattrs, source.xattrs == target.xattrs),
        ] {
            if !same {
                self.differs(dir, name, aspect, &changes);
            }
        }
    }

    fn size(&self, dir: &Dir<'_>, object: &Object, source: &Entry, target: &Entry) {
        if source.size != target.size {
            let from = source.size.min(target.size);
            self.content_differs(dir, &source.name, object, from, u64::MAX - from);
        }
    }

    fn content_differs(&self, dir: &Dir<'_>, name: &Bytes, object: &Object, offset: u64, length: u64) {
        let data = Change::Data { object: object.clone(), offset, len: length };
        let changes: Vec<Change> = std::iter::once(data).chain(place(dir, Some(name), object)).collect();
        self.differs(dir, Some(name), Aspect::Content { offset, length }, &changes);
    }

    /// The blocks that seemed to differ.
    fn content(
        &self,
        root: &Root,
        dir: &Dir<'_>,
        open: &OwnedFd,
        object: &Object,
        (source, target): (&Entry, &Entry),
        blocks: &[u64],
    ) -> Step<()> {
        let name = &source.name;
        let failed = |errno| Trouble::local(&local::display(root, &dir.path), errno);
        let (content, size) = local::open_file(open.as_fd(), name).map_err(failed)?;
        let (Some(&first), Some(&last)) = (blocks.first(), blocks.last()) else { return Ok(()) };
        let mut at = first;
        while at <= last {
            let count = (last - at + 1).min(DIGEST_LIMIT as u64);
            let of = vec![digests_of(dir, source, at, count)];
            let (ours, theirs) =
                self.resync.both_digests(of, || local::digests(content.as_fd(), size, at, count))?;
            let ours = ours.map_err(failed)?;
            let theirs = theirs.into_iter().next().unwrap_or_default();
            for block in differing_blocks(at, &ours, &theirs.blocks) {
                // What only one of them has is told by the size.
                if block < blocks_of(target.size) {
                    let (offset, length) = (block * BLOCK, BLOCK.min(size - block * BLOCK));
                    self.content_differs(dir, name, object, offset, length);
                }
            }
            at += count;
        }
        Ok(())
    }
}

/// What the name stands for on this side; none: nothing.
fn look_up(root: &Root, dir: &Dir<'_>, open: &OwnedFd, name: &Bytes) -> Step<Option<Found>> {
    match root.look_up(open.as_fd(), name) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::STALE) => Ok(None),
        Err(errno) => Err(Trouble::local(&local::display(root, &dir.path), errno)),
    }
}

/// Everything that an operation on the name, or on what it stands for, holds.
fn keys_of(dir: &Dir<'_>, name: &Bytes, object: Option<&Object>) -> Vec<Key> {
    let mut keys = vec![Key::Name { dir: dir.object.clone(), name: name.clone() }];
    if let Some(object) = object {
        keys.push(Key::Meta { object: object.clone() });
        keys.push(if object.kind.is_directory() {
            Key::Names { dir: object.clone() }
        } else {
            Key::Data { object: object.clone(), from: 0, to: u64::MAX }
        });
    }
    keys
}

fn place(dir: &Dir<'_>, name: Option<&Bytes>, object: &Object) -> Option<Change> {
    let name = name.filter(|_| !object.kind.is_directory())?;
    Some(Change::Place { object: object.clone(), dir: dir.object.clone(), name: name[..].into() })
}
