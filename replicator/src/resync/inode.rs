//! Inodes with several names: which of the target's stands for which of the source's, so that hard links stay links and
//! nothing else becomes one.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;

use bytes::Bytes;
use parking_lot::MutexGuard;
use safe_replication::op::{ObjectId, Op};
use safe_replication::tree::Entry;

use super::link::{Answer, Query};
use super::page::{Page, unexpected};
use super::{Step, local};

/// What a round knows about the inodes of one root that have several names.
#[derive(Debug, Default)]
pub(super) struct Inodes {
    // Source inode: the id it is bound to, and the target's inode.
    known: BTreeMap<u64, (ObjectId, u64)>,
    // Target inode: the source inode that it stands for.
    claimed: BTreeMap<u64, u64>,
    // Source inodes whose content and attributes are compared in this round.
    compared: BTreeSet<u64>,
}

impl Inodes {
    fn register(&mut self, source: u64, id: ObjectId, target: u64) {
        self.known.insert(source, (id, target));
        self.claimed.insert(target, source);
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
        let mut inodes = self.inodes();
        self.find_elsewhere(&mut inodes, source)?;
        self.join_or_create(&mut inodes, source)
    }

    /// Both have the name, and one of the inodes has others.
    pub(super) fn both_shared(&mut self, source: Entry, target: Entry) -> Step<()> {
        let mut inodes = self.inodes();
        if source.links > 1 {
            self.find_elsewhere(&mut inodes, &source)?;
            if let Some((_, known)) = inodes.known.get(&source.inode) {
                if *known == target.inode {
                    return self.compare_once(&mut inodes, source, target);
                }
                self.remove(&target)?;
                return self.join_or_create(&mut inodes, &source);
            }
        }
        // Not yet known. Another name of the target's inode may belong to another inode of the source: when every name
        // is looked at, whoever comes first keeps it; else nobody knows who has it.
        let free = !inodes.claimed.contains_key(&target.inode) && (self.round.full || target.links == 1);
        if !free {
            self.remove(&target)?;
            return self.join_or_create(&mut inodes, &source);
        }
        let Some((id, _)) = self.bind(&source)? else { return Ok(()) };
        if source.links > 1 {
            inodes.register(source.inode, id, target.inode);
        } else {
            inodes.claimed.insert(target.inode, source.inode);
        }
        self.compare_once(&mut inodes, source, target)
    }

    /// Under whichever of its names an inode comes first.
    fn compare_once(&mut self, inodes: &mut Inodes, source: Entry, target: Entry) -> Step<()> {
        if !inodes.compared.insert(source.inode) {
            self.count(&source);
        } else if safe_replication::diff::has_content(source.kind) {
            self.files.push((source, target));
        } else {
            self.equalize(&source, &target, false)?;
            self.count(&source);
        }
        Ok(())
    }

    fn join_or_create(&mut self, inodes: &mut Inodes, source: &Entry) -> Step<()> {
        if let Some((id, _)) = inodes.known.get(&source.inode).copied().filter(|_| source.links > 1) {
            let (parent, name) = (self.job.node.id, source.name.clone());
            self.sender.push(Op::Link { id, parent, name, time: self.time })?;
            self.sender.flush()?;
            // It was believed to be equal because another of its names is not marked; but its content can be, under
            // a name that it has no more.
            let target = Entry { name: source.name.clone(), ..self.own(id)? };
            return self.compare_once(inodes, source.clone(), target);
        }
        let Some(id) = self.create(source)? else { return Ok(()) };
        if source.links > 1 {
            inodes.compared.insert(source.inode);
            self.sender.flush()?;
            let made = self.own(id)?;
            inodes.register(source.inode, id, made.inode);
        }
        Ok(())
    }

    /// Another name of the inode that is equal on both sides tells which inode of the target it is. Not needed when
    /// every name is looked at.
    fn find_elsewhere(&self, inodes: &mut Inodes, source: &Entry) -> Step<()> {
        if self.round.full || inodes.known.contains_key(&source.inode) {
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
        for (path, name) in shared.get(&source.inode).into_iter().flatten() {
            if self.round.is_marked(self.root.index, path, name) {
                continue;
            }
            if let Some((id, target)) = self.counterpart(path, name, source.inode)? {
                inodes.register(source.inode, id, target);
                return Ok(());
            }
        }
        Ok(())
    }

    /// What the target has under a name that is not marked, if the source still has the inode there.
    fn counterpart(&self, path: &[Bytes], name: &Bytes, inode: u64) -> Step<Option<(ObjectId, u64)>> {
        let resync = self.round.resync;
        let Some(dir) = resync.open_dir(self.root, path.to_vec())? else { return Ok(None) };
        let entry = local::entry(dir.open.as_fd(), name).map_err(|errno| self.failed(errno))?;
        if entry.is_none_or(|entry| entry.inode != inode) {
            return Ok(None);
        }
        let parent = resync.reach_dir(&dir)?;
        let query = Query::Entries { dir: parent, names: vec![name.clone()] };
        let Answer::Entries { entries, .. } = resync.link.query(query)? else { return Err(unexpected()) };
        let Some(target) = entries.first() else { return Ok(None) };
        let Ok(found) = self.root.look_up(dir.open.as_fd(), name) else { return Ok(None) };
        if found.object.kind != target.kind {
            return Ok(None);
        }
        let id = resync.link.bind(parent, name, &found.object)?;
        Ok(Some((id, target.inode)))
    }

    /// The target's entry of an object.
    fn own(&self, id: ObjectId) -> Step<Entry> {
        match self.round.resync.link.query(Query::Own { id })? {
            Answer::Entries { entries, .. } => entries.into_iter().next().ok_or_else(unexpected),
            Answer::Digests(_) | Answer::Xattrs(_) | Answer::InFlight { .. } => Err(unexpected()),
        }
    }
}
