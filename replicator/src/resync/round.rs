//! One round of names: everything that was marked about names is compared and repaired, by several threads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use safe_replication::dirty::{Change, DirtySet, Marks, Names, Object};
use safe_replication::op::ObjectId;

use super::inode::Inodes;
use super::link::Link;
use super::names::NamesOf;
use super::reach::Dir;
use super::work::work;
use super::{Resync, Step, THREADS, Trouble};

/// Work of a round that may be done while everything is held: a few milliseconds.
const SHORT: usize = 64;

/// As [`SHORT`], after the first round.
const LONGER: usize = 1024;

/// From this round on everything is held: the application changes names faster than they are repaired.
const INSIST: u32 = 8;

/// Whether the round may be done while everything is held.
pub(super) fn is_short(names: &DirtySet, number: u32) -> bool {
    if number >= INSIST {
        return true;
    }
    let cost = |marks: &Marks| match &marks.names {
        _ if marks.tree => LONGER + 1,
        Names::All { .. } => LONGER + 1,
        Names::Some(names) => 1 + names.values().map(|deep| if *deep { 16 } else { 1 }).sum::<usize>(),
    };
    let total: usize = names.directories().map(|(_, marks)| cost(marks)).sum();
    !names.is_everything() && total <= if number == 0 { SHORT } else { LONGER }
}

/// A directory of both copies, bound as long as anyone works in it.
pub(super) struct Node<'a> {
    pub(super) object: Object,
    pub(super) id: ObjectId,
    /// The target's was just made: it is empty.
    pub(super) fresh: bool,
    /// Names from the root.
    pub(super) path: Vec<Bytes>,
    link: &'a dyn Link,
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if !self.path.is_empty() {
            self.link.forget(&[self.id]);
        }
    }
}

/// Which names of a directory.
#[derive(Clone)]
pub(super) enum Scope {
    /// These.
    Some(Vec<(Bytes, bool)>),
    /// All from a position of the sorted listing.
    All { deep: bool, listing: Option<Arc<Vec<Bytes>>>, from: usize },
}

/// Names of one directory, to be compared and repaired.
pub(super) struct Job<'a> {
    pub(super) node: Arc<Node<'a>>,
    pub(super) scope: Scope,
}

impl Job<'_> {
    /// What is to be marked if it does not succeed.
    fn changes(&self) -> Vec<Change> {
        let dir = self.node.object.clone();
        match &self.scope {
            Scope::Some(names) => names
                .iter()
                .map(|(name, deep)| Change::Name { dir: dir.clone(), name: name[..].into(), deep: *deep })
                .collect(),
            Scope::All { deep, .. } => vec![Change::Names { dir, deep: *deep }],
        }
    }
}

/// See the module.
pub(super) struct Round<'a> {
    pub(super) resync: &'a Resync<'a>,
    /// Every name of every root is compared in this round.
    pub(super) full: bool,
    pub(super) inodes: Vec<Mutex<Inodes>>,
    pub(super) shared: Vec<OnceLock<NamesOf>>,
    taken: &'a DirtySet,
    // Objects that a page works on by their ids, or that have several names: whoever found one by another name meanwhile
    // must not go by an id that leads to the counterpart of that name.
    claims: Mutex<BTreeSet<Object>>,
    // Why something has to be tried again.
    again: Mutex<Option<String>>,
}

impl Resync<'_> {
    /// Does one round. Says what has to be tried again, which is marked.
    pub(super) fn round(&self, names: &DirtySet) -> Step<Option<String>> {
        let round = Round {
            resync: self,
            full: names.is_everything(),
            inodes: self.backing.roots.iter().map(|_| Mutex::default()).collect(),
            shared: self.backing.roots.iter().map(|_| OnceLock::new()).collect(),
            taken: names,
            claims: Mutex::default(),
            again: Mutex::default(),
        };
        let result = if round.full { round.everything() } else { round.marked() };
        for inodes in &round.inodes {
            self.link.forget(&inodes.lock().take_ids());
        }
        self.knowledge.end_names(result.is_ok()).map_err(super::journal)?;
        result.map(|()| round.again.into_inner())
    }
}

impl<'a> Round<'a> {
    fn everything(&self) -> Step<()> {
        let mut jobs = Vec::new();
        for root in self.resync.backing.roots.iter() {
            let id = ObjectId::root(u32::from(root.index));
            let node = self.node(root.object.clone(), id, Vec::new(), false);
            self.resync.own_attributes(&node)?;
            jobs.push(Job { node, scope: Scope::All { deep: true, listing: None, from: 0 } });
        }
        self.work(jobs, THREADS)
    }

    /// From the roots downwards: a directory is reached through names that were repaired before it.
    fn marked(&self) -> Step<()> {
        let mut levels: BTreeMap<usize, Vec<(Dir, Marks)>> = BTreeMap::new();
        for (object, marks) in self.taken.directories() {
            let Some(dir) = self.resync.locate(object)? else { continue };
            levels.entry(dir.path.len()).or_default().push((dir, marks.clone()));
        }
        for (_, dirs) in levels {
            let mut jobs = Vec::new();
            for (dir, marks) in dirs {
                match self.jobs_of(&dir, &marks) {
                    Ok(some) => jobs.extend(some),
                    Err(Trouble::Again(reason)) => self.again(&changes_of(&dir.object, &marks), reason)?,
                    Err(trouble) => return Err(trouble),
                }
            }
            let threads = jobs.len().clamp(1, THREADS);
            let deep = jobs.iter().any(|job| job.is_deep());
            self.work(jobs, if deep { THREADS } else { threads })?;
        }
        Ok(())
    }

    fn jobs_of(&self, dir: &Dir, marks: &Marks) -> Step<Vec<Job<'a>>> {
        let id = self.resync.reach_dir(dir)?;
        let node = self.node(dir.object.clone(), id, dir.path.clone(), false);
        let all = |deep| Scope::All { deep, listing: None, from: 0 };
        if marks.meta {
            self.resync.own_attributes(&node)?;
        }
        if marks.tree {
            return Ok(vec![Job { node, scope: all(true) }]);
        }
        Ok(match &marks.names {
            Names::All { deep } => vec![Job { node, scope: all(*deep) }],
            Names::Some(names) => {
                let names: Vec<(Bytes, bool)> =
                    names.iter().map(|(name, deep)| (Bytes::copy_from_slice(name), *deep)).collect();
                let some =
                    |names: &[(Bytes, bool)]| Job { node: node.clone(), scope: Scope::Some(names.to_vec()) };
                names.chunks(super::link::LIST_LIMIT).map(some).collect()
            }
        })
    }

    pub(super) fn node(&self, object: Object, id: ObjectId, path: Vec<Bytes>, fresh: bool) -> Arc<Node<'a>> {
        Arc::new(Node { object, id, fresh, path, link: self.resync.link })
    }

    /// What these names lead to may differ from what they lead to on the target: by a mark of this round, or by one that
    /// the application has made since. Asked after the names were read: a mark is made before its change.
    pub(super) fn is_marked(&self, names: &[(Object, Bytes)]) -> bool {
        self.taken.covers(names) || self.resync.knowledge.with_dirty(|dirty| dirty.covers(names))
    }

    /// Works until nothing is left.
    fn work(&self, jobs: Vec<Job<'a>>, threads: usize) -> Step<()> {
        work(jobs, threads, &|job: Job<'a>| {
            let changes = job.changes();
            match self.resync.go_on().and_then(|()| self.page(job)) {
                Err(Trouble::Again(reason)) => self.again(&changes, reason).map(|()| Vec::new()),
                other => other,
            }
        })
    }

    /// Claims what is no directory. False: it is claimed, by another name.
    pub(super) fn claim(&self, object: &Object) -> bool {
        self.claims.lock().insert(object.clone())
    }

    /// Gives claims up, once nothing is on the way by the objects' ids.
    pub(super) fn unclaim(&self, objects: &[Object]) {
        let mut claims = self.claims.lock();
        for object in objects {
            claims.remove(object);
        }
    }

    fn again(&self, changes: &[Change], reason: String) -> Step<()> {
        tracing::debug!(reason, "to be compared again");
        self.resync.mark(changes)?;
        *self.again.lock() = Some(reason);
        Ok(())
    }
}

impl Job<'_> {
    fn is_deep(&self) -> bool {
        match &self.scope {
            Scope::Some(names) => names.iter().any(|(_, deep)| *deep),
            Scope::All { .. } => true,
        }
    }
}

fn changes_of(dir: &Object, marks: &Marks) -> Vec<Change> {
    let mut changes = vec![Change::Meta { object: dir.clone() }];
    match &marks.names {
        Names::Some(names) => changes.extend(names.iter().map(|(name, deep)| Change::Name {
            dir: dir.clone(),
            name: name.clone(),
            deep: *deep,
        })),
        Names::All { deep } => changes.push(Change::Names { dir: dir.clone(), deep: *deep }),
    }
    if marks.tree {
        changes.push(Change::Tree { dir: dir.clone() });
    }
    changes
}
