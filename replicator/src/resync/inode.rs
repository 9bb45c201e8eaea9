//! Inodes with several names: which of the target's stands for which of the source's, so that hard links stay links and
//! nothing else becomes one.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;

use bytes::Bytes;
use parking_lot::MutexGuard;
use rustix::io::Errno;
use safe_replication::diff::has_same_attributes;
use safe_replication::dirty::Object;
use safe_replication::op::{ObjectId, Op};
use safe_replication::tree::Entry;

use super::link::{Answer, Query};
use super::meta::Before;
use super::page::{Candidate, Page, unexpected};
use super::{Step, Trouble, local};
use crate::backing::Found;

/// What a round knows about the inodes of one root that have several names. The source's go by their handles: the number
/// of one that is removed is given to the next one made.
#[derive(Debug, Default)]
pub(super) struct Inodes {
    // Of the source: the id that it is bound to, and the target's inode.
    known: BTreeMap<Object, (ObjectId, u64)>,
    // Of the target: it stands for one of the source.
    claimed: BTreeSet<u64>,
    // Of the source: content and attributes are compared or sent in this round.
    compared: BTreeSet<Object>,
}

impl Inodes {
    fn register(&mut self, source: Object, id: ObjectId, target: u64) {
        self.known.insert(source, (id, target));
        self.claimed.insert(target);
    }

    /// The ids that were bound.
    pub(super) fn take_ids(&mut self) -> Vec<ObjectId> {
        self.claimed.clear();
        self.compared.clear();
        std::mem::take(&mut self.known).into_values().map(|(id, _)| id).collect()
    }
}

impl<'r> Page<'r, '_> {
    /// One thread at a time decides about shared inodes of a root, until what it decided is done.
    fn inodes(&self) -> MutexGuard<'r, Inodes> {
        let round = self.round;
        round.inodes[usize::from(self.root.index)].lock()
    }

    /// Only the source has the name, and the inode has others.
    pub(super) fn supply_shared(&mut self, source: &Entry) -> Step<()> {
        let Some(found) = self.same(source)? else { return Ok(()) };
        let mut inodes = self.inodes();
        self.find_elsewhere(&mut inodes, &found.object)?;
        self.join_or_create(&mut inodes, source, found)
    }

    /// Both have the name, and one of the inodes has others.
    pub(super) fn both_shared(&mut self, source: Entry, target: Entry) -> Step<()> {
        if source.links == 1 {
            return self.both_shared_there(source, target);
        }
        let Some(found) = self.same(&source)? else { return Ok(()) };
        let mut inodes = self.inodes();
        self.find_elsewhere(&mut inodes, &found.object)?;
        let known = inodes.known.get(&found.object).map(|(_, inode)| *inode);
        if known == Some(target.inode) {
            return self.compare_once(&mut inodes, found, source, target);
        }
        if known.is_some() || !self.is_free(&inodes, &target) {
            self.remove(&target)?;
            return self.join_or_create(&mut inodes, &source, found);
        }
        self.claim_shared(&found.object, &source.name)?;
        let id = self.round.resync.link.bind(self.job.node.id, &source.name, &found.object)?;
        inodes.register(found.object.clone(), id, target.inode);
        self.compare_once(&mut inodes, found, source, target)
    }

    /// Until the end of the round. Refused while a page works on it that read it before it got this name.
    fn claim_shared(&self, object: &Object, name: &Bytes) -> Step<()> {
        if self.round.claim(object) {
            return Ok(());
        }
        Err(Trouble::Again(format!("{} has just got another name", self.display(name))))
    }

    /// Another name of the target's inode may belong to another inode of the source: when every name is looked at,
    /// whoever comes first keeps it; else nobody knows who has it.
    fn is_free(&self, inodes: &Inodes, target: &Entry) -> bool {
        !inodes.claimed.contains(&target.inode) && (self.round.full || target.links == 1)
    }

    /// The target's inode has other names, the source's has not.
    fn both_shared_there(&mut self, source: Entry, target: Entry) -> Step<()> {
        let mut inodes = self.inodes();
        if !self.is_free(&inodes, &target) {
            self.remove(&target)?;
            return self.create(&source).map(drop);
        }
        inodes.claimed.insert(target.inode);
        drop(inodes);
        self.both_single(source, target)
    }

    /// Under whichever of its names an inode comes first.
    fn compare_once(&mut self, inodes: &mut Inodes, found: Found, source: Entry, target: Entry) -> Step<()> {
        let Some((id, _)) = inodes.known.get(&found.object).copied() else { return Err(unexpected()) };
        if !inodes.compared.insert(found.object.clone()) {
            self.count(&source);
            return Ok(());
        }
        self.owed.push((found.object.clone(), source.name.clone()));
        if safe_replication::diff::has_content(source.kind) {
            self.files.push(Candidate { source, target, shared: Some((id, found.object)) });
            return Ok(());
        }
        self.count(&source);
        if has_same_attributes(&source, &target) {
            return Ok(());
        }
        self.push_attributes(id, &found, &source, Before::Had { entry: &target, wrote: false })
    }

    fn join_or_create(&mut self, inodes: &mut Inodes, source: &Entry, found: Found) -> Step<()> {
        if let Some((id, _)) = inodes.known.get(&found.object).copied() {
            let (parent, name) = (self.job.node.id, source.name.clone());
            self.sender.push(Op::Link { id, parent, name, time: self.time })?;
            self.sender.flush()?;
            // It was believed to be equal because another of its names is not marked; but its content can be, under
            // a name that it has no more.
            let target = Entry { name: source.name.clone(), ..self.own(id)? };
            return self.compare_once(inodes, found, source.clone(), target);
        }
        let object = found.object.clone();
        self.claim_shared(&object, &source.name)?;
        inodes.compared.insert(object.clone());
        self.owed.push((object.clone(), source.name.clone()));
        let id = self.create_found(source, found)?;
        self.sender.flush()?;
        let made = self.own(id)?;
        inodes.register(object, id, made.inode);
        Ok(())
    }

    /// Another name of the inode that is equal on both sides tells which inode of the target it is. Not needed when
    /// every name is looked at.
    fn find_elsewhere(&self, inodes: &mut Inodes, object: &Object) -> Step<()> {
        if self.round.full || inodes.known.contains_key(object) {
            return Ok(());
        }
        let resync = self.round.resync;
        let cell = &self.round.shared[usize::from(self.root.index)];
        let shared = match cell.get() {
            Some(shared) => shared,
            None => {
                let found = resync.shared_names(self.root)?;
                cell.get_or_init(|| found)
            }
        };
        let open = match self.root.open_path(object) {
            Ok(open) => open,
            Err(Errno::STALE | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(self.failed(errno)),
        };
        let inode = local::inode(open.as_fd()).map_err(|errno| self.failed(errno))?;
        for (path, name) in shared.get(&inode).into_iter().flatten() {
            if let Some((id, target)) = self.counterpart(path, name, object)? {
                inodes.register(object.clone(), id, target);
                return Ok(());
            }
        }
        Ok(())
    }

    /// What the target has under this name, if the source has the object there and nothing on the way to it is marked.
    fn counterpart(&self, path: &[Bytes], name: &Bytes, object: &Object) -> Step<Option<(ObjectId, u64)>> {
        let resync = self.round.resync;
        let Some((dir, chain)) = resync.chain(self.root, path, name)? else { return Ok(None) };
        match self.root.look_up(dir.open.as_fd(), name) {
            Ok(found) if found.object == *object => {}
            Ok(_) | Err(Errno::NOENT | Errno::STALE) => return Ok(None),
            Err(errno) => return Err(self.failed(errno)),
        }
        if self.round.is_marked(&chain) {
            return Ok(None);
        }
        let parent = resync.reach_dir(&dir)?;
        let query = Query::Entries { dir: parent, names: vec![name.clone()] };
        let Answer::Entries { entries, .. } = resync.link.query(query)? else { return Err(unexpected()) };
        let Some(target) = entries.first().filter(|target| target.kind == object.kind) else {
            return Ok(None);
        };
        // The directories were found by their names: none of them may have changed meanwhile.
        if self.round.is_marked(&chain) {
            return Err(Trouble::Again("a directory was moved".into()));
        }
        self.claim_shared(object, name)?;
        let id = resync.link.bind(parent, name, object)?;
        Ok(Some((id, target.inode)))
    }

    /// The target's entry of an object.
    fn own(&self, id: ObjectId) -> Step<Entry> {
        match self.round.resync.link.query(Query::Own { id })? {
            Answer::Entries { entries, .. } => entries.into_iter().next().ok_or_else(unexpected),
            Answer::Digests(_) | Answer::Xattrs(_) | Answer::InFlight { .. } | Answer::Room(_) => {
                Err(unexpected())
            }
        }
    }
}
