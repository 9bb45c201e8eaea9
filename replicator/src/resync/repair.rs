//! One name in which the copies differ, or may differ.

use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::io::Errno;
use safe_replication::diff::{Difference, has_same_attributes};
use safe_replication::dirty::{Change, Object};
use safe_replication::object::Kind;
use safe_replication::op::{ObjectId, Op, Timestamp};
use safe_replication::tree::Entry;

use super::link::{Answer, Key, LIST_LIMIT, Query};
use super::meta::Before;
use super::page::{Candidate, Page, unexpected};
use super::round::{Job, Scope};
use super::{Resync, Step, Trouble, local};
use crate::backing::{Found, mode_of};

impl Page<'_, '_> {
    pub(super) fn repair(&mut self, difference: Difference) -> Step<()> {
        match difference {
            Difference::Extra(target) => self.remove(&target),
            Difference::Missing(source) => self.supply(&source),
            Difference::Replace { source, target } => {
                self.remove(&target)?;
                self.supply(&source)
            }
            Difference::Both { source, target } => self.both(source, target),
        }
    }

    fn both(&mut self, source: Entry, target: Entry) -> Step<()> {
        match source.kind {
            Kind::Directory => self.both_directories(&source, &target),
            Kind::File | Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block
                if source.links > 1 || target.links > 1 =>
            {
                self.both_shared(source, target)
            }
            Kind::File | Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => {
                self.both_single(source, target)
            }
        }
    }

    /// Both have it under this name, and the source's has no other.
    pub(super) fn both_single(&mut self, source: Entry, target: Entry) -> Step<()> {
        if source.kind == Kind::File {
            if let Some(source) = self.current(source)? {
                self.files.push(Candidate { source, target, shared: None });
            }
            return Ok(());
        }
        self.equalize(&source, &target)?;
        self.count(&source);
        Ok(())
    }

    fn both_directories(&mut self, source: &Entry, target: &Entry) -> Step<()> {
        let Some(found) = self.same(source)? else { return Ok(()) };
        let id = self.round.resync.link.bind(self.job.node.id, &source.name, &found.object)?;
        let node = self.round.node(found.object.clone(), id, self.path_of(&source.name), false);
        if !has_same_attributes(source, target) {
            self.push_attributes(id, &found, source, Before::Had { entry: target, wrote: false })?;
        }
        self.count(source);
        if self.is_deep(&source.name) {
            self.below.push(Job { node, scope: Scope::All { deep: true, listing: None, from: 0 } });
        } else {
            // The id is given up with the node: not before it is used no more.
            self.sender.flush()?;
        }
        Ok(())
    }

    fn is_deep(&self, name: &Bytes) -> bool {
        match &self.job.scope {
            Scope::All { deep, .. } => *deep,
            Scope::Some(names) => names.iter().any(|(marked, deep)| marked == name && *deep),
        }
    }

    /// Make attributes equal where only they can differ.
    fn equalize(&mut self, source: &Entry, target: &Entry) -> Step<()> {
        if has_same_attributes(source, target) {
            return Ok(());
        }
        let Some((id, found)) = self.bind(source)? else { return Ok(()) };
        self.push_attributes(id, &found, source, Before::Had { entry: target, wrote: false })
    }

    /// Make what the target lacks.
    fn supply(&mut self, source: &Entry) -> Step<()> {
        if source.links > 1 { self.supply_shared(source) } else { self.create(source).map(drop) }
    }

    /// Make a new object on the target; none: the source has it no longer.
    pub(super) fn create(&mut self, source: &Entry) -> Step<Option<ObjectId>> {
        let Some(source) = self.current(source.clone())? else { return Ok(None) };
        let Some(found) = self.same(&source)? else { return Ok(None) };
        if source.kind != Kind::Directory {
            self.claim(&source, &found.object)?;
        }
        let id = self.create_found(&source, found)?;
        if source.kind != Kind::Directory {
            self.bound.push(id);
        }
        Ok(Some(id))
    }

    /// As [`Self::create`], of what was found.
    pub(super) fn create_found(&mut self, source: &Entry, found: Found) -> Step<ObjectId> {
        let resync = self.round.resync;
        let id = resync.link.id(&found.object);
        if resync.link.bound(&found.object).is_some() {
            // Bound to what the target had before; nothing of this sender may still be on the way to it.
            self.sender.flush()?;
            resync.link.forget(&[id]);
        }
        self.sender.push(Op::Create {
            id,
            parent: self.job.node.id,
            name: source.name.clone(),
            mode: mode_of(source.kind) | source.mode,
            uid: source.uid,
            gid: source.gid,
            rdev: source.rdev,
            target: source.target.clone(),
            time: self.time,
        })?;
        let file = source.kind == Kind::File;
        let waits = if file { self.fill(id, &found.object, source)? } else { 0 };
        let xattrs = self.inherits || source.xattrs != [0; 16];
        self.push_attributes(id, &found, source, Before::Made { xattrs })?;
        if source.kind == Kind::Directory {
            let node = self.round.node(found.object, id, self.path_of(&source.name), true);
            self.below.push(Job { node, scope: Scope::All { deep: true, listing: None, from: 0 } });
        }
        self.count_but(source, waits);
        Ok(id)
    }

    /// An entry whose object is compared or sent as a whole: what is marked about it need not be sent once more. Read
    /// again after its marks were taken; none: the source has it no longer. An inode with several names keeps its marks,
    /// since it can lose this one.
    fn current(&self, source: Entry) -> Step<Option<Entry>> {
        let resync = self.round.resync;
        if source.kind != Kind::File || source.links > 1 || !resync.knowledge.has_objects() {
            return Ok(Some(source));
        }
        let Some(found) = self.same(&source)? else { return Ok(None) };
        if !resync.knowledge.is_marked(&found.object) {
            return Ok(Some(source));
        }
        let object = found.object;
        let keys = [
            Key::Data { object: object.clone(), from: 0, to: u64::MAX },
            Key::Meta { object: object.clone() },
        ];
        // While everything is held these keys are held too, and must not be asked for.
        let held = (!resync.holding.load(Ordering::Relaxed)).then(|| resync.link.lock(&keys));
        resync.knowledge.take_object(&object);
        drop(held);
        let again = local::entry(self.open.as_fd(), &source.name)
            .map_err(|errno| Trouble::local(&self.display(&source.name), errno))?;
        match again {
            Some(entry) if entry.kind == source.kind && entry.inode == source.inode && entry.links == 1 => {
                Ok(Some(entry))
            }
            // Its name, or the new one's, is marked; but its content was marked for another name.
            Some(_) => {
                resync.mark(&[Change::data_from(object, 0)])?;
                Err(Trouble::Again(format!("{} was replaced", self.display(&source.name))))
            }
            None => {
                resync.mark(&[Change::data_from(object, 0)])?;
                Ok(None)
            }
        }
    }

    /// Remove what only the target has, with everything below.
    pub(super) fn remove(&mut self, target: &Entry) -> Step<()> {
        let directory = target.kind == Kind::Directory;
        if directory {
            self.sender.flush()?;
            self.round.resync.empty(self.job.node.id, &target.name)?;
        }
        let (parent, name) = (self.job.node.id, target.name.clone());
        let spare = self.round.resync.spare(parent, target)?;
        let id = spare.map_or(ObjectId::NONE, |spare| spare.id);
        self.spares.extend(spare);
        self.sender.push(Op::Unlink { parent, name, id, directory, time: self.time })
    }

    /// The object of an entry on the source; none: there is no such name any more, which is marked.
    pub(super) fn look_up(&self, source: &Entry) -> Step<Option<Found>> {
        match self.root.look_up(self.open.as_fd(), &source.name) {
            Ok(found) if found.object.kind == source.kind => Ok(Some(found)),
            Ok(_) => Err(Trouble::Again(format!("{} has changed its type", self.display(&source.name)))),
            Err(Errno::NOENT | Errno::STALE) => Ok(None),
            Err(errno) => Err(Trouble::local(&self.display(&source.name), errno)),
        }
    }

    /// As [`Self::look_up`]; none also if something else has the name since the entry was read, which is marked as well:
    /// what was read must not be taken for what is there now, nor its counterpart for the other's.
    pub(super) fn same(&self, source: &Entry) -> Step<Option<Found>> {
        let Some(found) = self.look_up(source)? else { return Ok(None) };
        let inode = local::inode(found.path.as_fd())
            .map_err(|errno| Trouble::local(&self.display(&source.name), errno))?;
        Ok((inode == source.inode).then_some(found))
    }

    /// Binds an entry that both have, for this page; none: the source has it no longer.
    pub(super) fn bind(&mut self, source: &Entry) -> Step<Option<(ObjectId, Found)>> {
        let Some(found) = self.same(source)? else { return Ok(None) };
        self.claim(source, &found.object)?;
        let id = self.round.resync.link.bind(self.job.node.id, &source.name, &found.object)?;
        self.bound.push(id);
        Ok(Some((id, found)))
    }

    /// Claims for this page what has one name.
    fn claim(&mut self, source: &Entry, object: &Object) -> Step<()> {
        if !self.round.claim(object) {
            return Err(Trouble::Again(format!("{} has another name, too", self.display(&source.name))));
        }
        self.claimed.push(object.clone());
        Ok(())
    }

    pub(super) fn path_of(&self, name: &Bytes) -> Vec<Bytes> {
        [&self.job.node.path[..], std::slice::from_ref(name)].concat()
    }

    /// One entry is done.
    pub(super) fn count(&self, source: &Entry) {
        self.round.resync.progress.done(1, source.size);
    }

    /// One entry is done but for so much of its content, which waits.
    pub(super) fn count_but(&self, source: &Entry, waits: u64) {
        let waits = waits.min(source.size);
        if waits == 0 {
            return self.count(source);
        }
        let progress = &self.round.resync.progress;
        progress.done(0, source.size - waits);
        progress.postponed(1, waits);
    }
}

/// A directory of the target that is being emptied.
struct Doomed {
    parent: ObjectId,
    name: Bytes,
    id: ObjectId,
    below: Vec<Bytes>,
}

impl Resync<'_> {
    /// Removes everything in a directory that only the target has, a piece at a time, so that no operation takes long.
    fn empty(&self, parent: ObjectId, name: &Bytes) -> Step<()> {
        let mut stack = vec![self.doom(parent, name.clone())?];
        while let Some(dir) = stack.last_mut() {
            self.go_on()?;
            if let Some(name) = dir.below.pop() {
                let parent = dir.id;
                stack.push(self.doom(parent, name)?);
                continue;
            }
            let id = dir.id;
            let (below, more) = self.unlink_page(id)?;
            dir.below = below;
            if !dir.below.is_empty() || more {
                continue;
            }
            let Some(dir) = stack.pop() else { break };
            if !stack.is_empty() {
                self.link.submit(vec![unlink(dir.parent, dir.name, ObjectId::NONE, true)])?;
            }
            self.link.forget(&[dir.id]);
        }
        Ok(())
    }

    fn doom(&self, parent: ObjectId, name: Bytes) -> Step<Doomed> {
        Ok(Doomed { parent, id: self.link.adopt(parent, &name, Kind::Directory)?, name, below: Vec::new() })
    }

    /// Unlinks what is no directory among the first entries; answers the directories and whether to look again.
    fn unlink_page(&self, id: ObjectId) -> Step<(Vec<Bytes>, bool)> {
        let limit = u32::try_from(LIST_LIMIT).unwrap_or(1024);
        let Answer::Entries { entries, end } =
            self.link.query(Query::List { dir: id, after: Bytes::new(), limit })?
        else {
            return Err(unexpected());
        };
        let (dirs, files): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.kind == Kind::Directory);
        let more = !end;
        for files in files.chunks(128) {
            let (mut unlinks, mut spares) = (Vec::new(), Vec::new());
            for file in files {
                let spare = self.spare(id, file)?;
                let kept = spare.map_or(ObjectId::NONE, |spare| spare.id);
                spares.extend(spare);
                unlinks.push(unlink(id, file.name.clone(), kept, false));
            }
            let removed = self.link.submit(unlinks);
            self.keep(spares, removed.is_ok())?;
            removed?;
        }
        Ok((dirs.into_iter().map(|dir| dir.name).collect(), more))
    }
}

fn unlink(parent: ObjectId, name: Bytes, id: ObjectId, directory: bool) -> Op {
    Op::Unlink { parent, name, id, directory, time: Timestamp::default() }
}
