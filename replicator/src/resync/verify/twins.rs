//! Files with several names: the same names must be names of one file on both copies.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno;
use safe_replication::tree::Entry;

use super::super::link::{Key, Query};
use super::super::{Step, Trouble, local};
use super::dir::Dir;
use super::{Aspect, Verification, name_change};
use crate::backing::Root;

/// Where a file of several names was seen first: its number on the other copy, and the name.
struct Seen<'a> {
    other: u64,
    dir: Arc<Dir<'a>>,
    name: Bytes,
}

/// What was seen, by the number of either copy.
#[derive(Default)]
pub(super) struct Twins<'a> {
    source: Mutex<BTreeMap<(u16, u64), Seen<'a>>>,
    target: Mutex<BTreeMap<(u16, u64), Seen<'a>>>,
}

/// A name with the directory that has it.
type At<'d, 'a> = (&'d Arc<Dir<'a>>, &'d Bytes);

impl<'a> Verification<'a> {
    /// Compares which other names the file of an entry has.
    pub(super) fn twin(&self, root: &Root, dir: &Arc<Dir<'a>>, source: &Entry, target: &Entry) -> Step<()> {
        if source.links <= 1 && target.links <= 1 {
            return Ok(());
        }
        let mut apart = Vec::new();
        for (seen, own, other) in [
            (&self.twins.source, source.inode, target.inode),
            (&self.twins.target, target.inode, source.inode),
        ] {
            let mut seen = seen.lock();
            match seen.get(&(root.index, own)) {
                Some(first) if first.other != other => {
                    apart.push((Arc::clone(&first.dir), first.name.clone()));
                }
                Some(_) => {}
                None => {
                    let first = Seen { other, dir: Arc::clone(dir), name: source.name.clone() };
                    seen.insert((root.index, own), first);
                }
            }
        }
        for (first, name) in apart {
            self.settle_twins(root, (&first, &name), (dir, &source.name))?;
        }
        Ok(())
    }

    /// Looks again at two names that are names of one file on one copy and seem not to be on the other.
    fn settle_twins(&self, root: &Root, first: At<'_, 'a>, second: At<'_, 'a>) -> Step<()> {
        let key = |(dir, name): At<'_, 'a>| Key::Name { dir: dir.object.clone(), name: name.clone() };
        let held = self.resync.link.lock(&[key(first), key(second)]);
        let (Some(a), Some(b)) = (self.inodes(root, first)?, self.inodes(root, second)?) else {
            return Ok(());
        };
        drop(held);
        if (a.0 == b.0) != (a.1 == b.1) {
            let (dir, name) = second;
            self.differs(dir, Some(name), Aspect::Links, &[name_change(&dir.object, name)]);
        }
        Ok(())
    }

    /// The numbers of both copies; none: the name is not there any more.
    fn inodes(&self, root: &Root, (dir, name): At<'_, 'a>) -> Step<Option<(u64, u64)>> {
        let failed = |errno| Trouble::local(&local::display(root, &dir.path), errno);
        let open: OwnedFd = match root.open(&dir.object, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(open) => open,
            Err(Errno::STALE | Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        let source = local::entry(open.as_fd(), name).map_err(failed)?;
        let query = Query::Entries { dir: dir.id, names: vec![name.clone()] };
        let target = match self.resync.ask(query) {
            Ok((target, _)) => target,
            // The directory is gone.
            Err(Trouble::Again(_)) => return Ok(None),
            Err(trouble) => return Err(trouble),
        };
        Ok(source.zip(target.into_iter().next()).map(|(source, target)| (source.inode, target.inode)))
    }
}
