//! What this node knows about how the copies differ: the dirty set, its journal, and how far the peer is in step. The
//! one door through which differences are marked, asked for and cleared.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use safe_replication::dirty::{Change, DirtySet, Marks, Object};

use crate::epoch::Epochs;
use crate::journal::{Binding, Journal};

/// How far the peer is in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Names may differ: objects cannot be addressed on the peer, nothing is sent but by the resync.
    Apart,
    /// All names are equal; content and attributes of some objects may differ.
    Aligned,
}

/// See the module.
#[derive(Debug)]
pub struct Knowledge {
    directory: PathBuf,
    /// What was changed since everything was durable on both nodes.
    pub epochs: Epochs,
    inner: Mutex<Inner>,
    // How often names were found to differ; raised while everything is held.
    departures: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    dirty: DirtySet,
    // Names that the resync compares and repairs now.
    working: DirtySet,
    // Was dirty and was sent; the peer may not have it on disk. Marked again if the session ends before it has.
    sent: DirtySet,
    // As `sent`, and the peer is making it durable now.
    syncing: DirtySet,
    journal: Option<Journal>,
    stage: Stage,
    // Boot id of the peer that `sent` and `syncing` went to.
    peer: Option<u128>,
}

impl Inner {
    /// Everything that the journal must say.
    fn truth(&self) -> DirtySet {
        let mut truth = self.dirty.clone();
        truth.merge(&self.working);
        truth.merge(&self.sent);
        truth.merge(&self.syncing);
        truth
    }

    /// The work on names has come to nothing.
    fn put_back(&mut self) -> io::Result<()> {
        let working = std::mem::take(&mut self.working);
        let changes: Vec<Change> = working.changes().collect();
        self.mark(&changes)
    }

    fn mark(&mut self, changes: &[Change]) -> io::Result<()> {
        // A place counts only once its object has marks.
        let (places, marks): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| matches!(change, Change::Place { .. }));
        let ordered: Vec<Change> = marks.into_iter().chain(places).cloned().collect();
        ordered.iter().for_each(|change| {
            self.dirty.mark(change);
        });
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        let result = journal.append(&ordered, &|| self.truth());
        self.journal = Some(journal);
        result
    }
}

impl Knowledge {
    /// Nothing differs, as far as is known. The journal will be in `directory`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        let inner = Inner {
            dirty: DirtySet::new(),
            working: DirtySet::new(),
            sent: DirtySet::new(),
            syncing: DirtySet::new(),
            journal: None,
            stage: Stage::Apart,
            peer: None,
        };
        let (directory, epochs) = (directory.to_path_buf(), Epochs::new(directory));
        Self { directory, epochs, inner: Mutex::new(inner), departures: AtomicU64::new(0) }
    }

    /// What an earlier process of one of these lineages knew. False: not everything, or there was none. `settled`: it left
    /// nothing that was not durable.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn recall(&self, accept: &[u128], boot: u128, settled: bool) -> io::Result<bool> {
        let recalled = self.epochs.recall(accept, boot, settled)?;
        let mut inner = self.inner.lock();
        let mut journal = false;
        for id in accept {
            let known = match Journal::open(&self.directory, Binding { lineage: *id, boot }) {
                Ok((_, known)) => Ok(known),
                // Its tail may be missing; what that said is wholly in the records of the epoch.
                Err(lost) if recalled.as_ref().is_none_or(|recalled| !recalled.journalled) => Err(lost),
                Err(_) => Journal::read_left(&self.directory, *id),
            };
            if let Ok(known) = known {
                inner.dirty.merge(&known);
                journal = true;
            }
        }
        let Some(recalled) = recalled else { return Ok(false) };
        inner.dirty.merge(&recalled.set);
        Ok(journal || !recalled.journalled)
    }

    /// Have a journal that is bound to `binding` and says everything known: the one that is there, if it can be, else a
    /// new one. Durable when this returns. Says why the one that is there could not be used; then what it knew is gone
    /// and, unless the lineage begins now, everything must be compared.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn open_journal(&self, binding: Binding) -> io::Result<Option<String>> {
        let mut inner = self.inner.lock();
        if inner.journal.as_ref().is_some_and(|journal| journal.binding() == binding) {
            return Ok(None);
        }
        let lost = if inner.journal.take().is_some() {
            // Another lineage begins: what is known now goes over to it.
            None
        } else {
            match Journal::open(&self.directory, binding) {
                Ok((_, known)) => {
                    inner.dirty.merge(&known);
                    None
                }
                Err(lost) => Some(lost.0),
            }
        };
        // What the other node may lose is in the journal from now on, and marked if it did.
        let since = self.epochs.since();
        inner.sent.merge(&since);
        let journal = Journal::create(&self.directory, binding, &inner.truth())?;
        inner.journal = Some(journal);
        self.epochs.bind(binding, Some(true))?;
        self.epochs.open()?;
        Ok(lost)
    }

    /// Mark changes: in the journal first where there is one, and before they are made. Their order does not matter.
    ///
    /// # Errors
    /// The journal cannot be written: the change must not be made.
    pub fn mark(&self, changes: &[Change]) -> io::Result<()> {
        self.inner.lock().mark(changes)
    }

    /// Add what else is known to differ, such as what was in flight.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn merge(&self, set: &DirtySet) -> io::Result<()> {
        let changes: Vec<Change> = set.changes().collect();
        self.mark(&changes)
    }

    /// Whether any of these changes cannot go to the peer as an operation: it would be on something that differs, or
    /// that cannot be addressed there.
    #[must_use]
    pub fn is_dirty(&self, changes: &[Change]) -> bool {
        let inner = self.inner.lock();
        inner.stage == Stage::Apart || changes.iter().any(|change| inner.dirty.is_dirty(change))
    }

    /// How far the peer is in step.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.inner.lock().stage
    }

    /// How often names were found to differ, once for each round of the resync: what was known by id on the peer before
    /// that was found by a name that may since mean something else, here or there.
    #[must_use]
    pub fn departures(&self) -> u64 {
        self.departures.load(Ordering::Acquire)
    }

    /// A session ended: nothing can be addressed on the peer any more.
    pub fn apart(&self) {
        self.inner.lock().stage = Stage::Apart;
    }

    /// A session began with a peer whose machine was booted under this id (0: it could not be told). If it is not the one that everything was
    /// sent to, what was sent and may not have been on its disk counts as different again.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn joined(&self, peer: u128) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.stage = Stage::Apart;
        inner.put_back()?;
        if inner.peer.replace(peer) == Some(peer) && peer != 0 {
            return Ok(());
        }
        let mut unsure = std::mem::take(&mut inner.sent);
        unsure.merge(&std::mem::take(&mut inner.syncing));
        unsure.merge(&self.epochs.since());
        let changes: Vec<Change> = unsure.changes().collect();
        inner.mark(&changes)
    }

    /// Nothing differs and nothing is on the way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.lock().dirty.is_empty()
    }

    /// Names may differ.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.inner.lock().dirty.has_names()
    }

    /// A copy of the set: everything that differs or may differ.
    #[must_use]
    pub fn snapshot(&self) -> DirtySet {
        self.inner.lock().truth()
    }

    /// Take all marks about names out, to work on them until [`Self::end_names`]. The caller holds everything, so that no operation is between
    /// its mark and its change. None: there are no such marks, and from now on all names are equal.
    #[must_use]
    pub fn take_names(&self) -> Option<DirtySet> {
        let mut inner = self.inner.lock();
        if !inner.dirty.has_names() {
            inner.stage = Stage::Aligned;
            return None;
        }
        // What earlier rounds bound by name may have another name by now, on this copy only.
        self.departures.fetch_add(1, Ordering::Release);
        inner.stage = Stage::Apart;
        let names = inner.dirty.take_names();
        inner.working.merge(&names);
        Some(names)
    }

    /// Take the marks of one object too, because its name is worked on and all of it will be compared or sent. The caller
    /// holds everything about the object.
    pub fn take_object(&self, object: &Object) {
        let mut inner = self.inner.lock();
        for change in inner.dirty.changes_of(object) {
            inner.working.mark(&change);
        }
        inner.dirty.forget(object);
    }

    /// What a session has recorded is in the journal too, before it is no longer recorded elsewhere: it counts as
    /// different should the other node come back without it.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn keep(&self, set: &DirtySet) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.sent.merge(set);
        let changes: Vec<Change> = set.changes().collect();
        let Some(mut journal) = inner.journal.take() else {
            return Err(io::Error::other("there is no journal"));
        };
        let result = journal.append(&changes, &|| inner.truth());
        inner.journal = Some(journal);
        result
    }

    /// Some object is marked.
    #[must_use]
    pub fn has_objects(&self) -> bool {
        !self.inner.lock().dirty.is_empty()
    }

    /// What `look` finds in the marks that were made since the last [`Self::take_names`].
    pub fn with_dirty<T>(&self, look: impl FnOnce(&DirtySet) -> T) -> T {
        look(&self.inner.lock().dirty)
    }

    /// Something about the object is marked.
    #[must_use]
    pub fn is_marked(&self, object: &Object) -> bool {
        self.inner.lock().dirty.get(object).is_some()
    }

    /// The work on the names that were taken is over. Done: the peer has applied it; what could not be is marked again.
    /// Not done: they count as different again.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn end_names(&self, done: bool) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if !done {
            return inner.put_back();
        }
        let working = std::mem::take(&mut inner.working);
        inner.sent.merge(&working);
        Ok(())
    }

    /// The first object after `after` that differs, and its marks.
    #[must_use]
    pub fn next(&self, after: Option<&Object>) -> Option<(Object, Marks)> {
        let inner = self.inner.lock();
        inner.dirty.next(after).map(|(object, marks)| (object.clone(), marks.clone()))
    }

    /// What is marked about an object.
    #[must_use]
    pub fn get(&self, object: &Object) -> Option<Marks> {
        self.inner.lock().dirty.get(object).cloned()
    }

    /// The peer has applied these changes as they are here; the caller has held their keys since it read them.
    pub fn sent(&self, changes: &[Change]) {
        let mut inner = self.inner.lock();
        for change in changes {
            match change {
                Change::Data { object, offset, len } => {
                    inner.dirty.clear_data(object, &(*offset..offset.saturating_add(*len)));
                    // Its attributes have marks of their own, which are still there.
                    inner.sent.mark(change);
                }
                Change::Meta { object } => {
                    inner.dirty.clear_meta(object);
                    inner.sent.mark(change);
                }
                Change::Place { .. } => {
                    inner.sent.mark(change);
                }
                // Names are taken, not cleared.
                Change::Name { .. } | Change::Names { .. } | Change::Tree { .. } | Change::Everything => {}
            }
        }
    }

    /// The object no longer exists.
    pub fn forget(&self, object: &Object) {
        self.inner.lock().dirty.forget(object);
    }

    /// The peer is asked to make everything durable now.
    pub fn sync_begins(&self) {
        let mut inner = self.inner.lock();
        let sent = std::mem::take(&mut inner.sent);
        inner.syncing.merge(&sent);
    }

    /// It has: what was sent before [`Self::sync_begins`] is settled.
    pub fn sync_ended(&self) {
        self.inner.lock().syncing = DirtySet::new();
    }

    /// What is known is in a journal, not only in memory.
    #[must_use]
    pub fn is_journalled(&self) -> bool {
        self.inner.lock().journal.is_some()
    }

    /// Make the journal durable.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sync_journal(&self) -> io::Result<()> {
        self.inner.lock().journal.as_ref().map_or(Ok(()), Journal::sync)
    }

    /// This copy is the target of a resync that has ended: what it knew to differ was told to the source, and repaired.
    pub fn in_step_as_target(&self) {
        let mut inner = self.inner.lock();
        inner.dirty = DirtySet::new();
        inner.working = DirtySet::new();
        inner.sent = DirtySet::new();
        inner.syncing = DirtySet::new();
    }

    /// The copies are equal and both know it durably: forget everything. What was marked since cannot be: it stays.
    ///
    /// # Errors
    /// The journal cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.sent = DirtySet::new();
        inner.syncing = DirtySet::new();
        if inner.dirty.is_empty() {
            // Said first: a journal that is said to be there must be there.
            self.epochs.no_journal()?;
        }
        match inner.journal.take() {
            Some(journal) if inner.dirty.is_empty() => journal.clear(),
            Some(journal) => {
                inner.journal = Some(Journal::create(&self.directory, journal.binding(), &inner.dirty)?);
                Ok(())
            }
            None => {
                self.epochs.no_journal()?;
                Journal::remove(&self.directory)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use safe_replication::object::Kind;

    use super::*;

    const BINDING: Binding = Binding { lineage: 1, boot: 1 };

    fn data(number: u8) -> Change {
        Change::Data { object: Object::new(0, Kind::File, &[number]), offset: 0, len: 4096 }
    }

    #[test]
    fn marks_survive_the_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let knowledge = Knowledge::new(directory.path());
        assert!(knowledge.open_journal(BINDING).expect("open").is_some(), "there was none");
        knowledge.mark(&[data(1)]).expect("mark");
        drop(knowledge);
        let knowledge = Knowledge::new(directory.path());
        assert_eq!(knowledge.open_journal(BINDING).expect("open"), None);
        assert_eq!(knowledge.snapshot().files(), 1);
        knowledge.clear().expect("clear");
        let again = Knowledge::new(directory.path());
        again.open_journal(BINDING).expect("open");
        assert_eq!(again.snapshot().files(), 1, "what still differs is not forgotten");
    }

    #[test]
    fn what_was_sent_counts_as_different_again_unless_the_peer_made_it_durable() {
        let directory = tempfile::tempdir().expect("a directory");
        let knowledge = Knowledge::new(directory.path());
        knowledge.joined(1).expect("joined");
        for number in [1, 2, 3] {
            knowledge.mark(&[data(number)]).expect("mark");
        }
        assert!(knowledge.take_names().is_none());
        assert!(knowledge.is_dirty(&[data(1)]) && !knowledge.is_dirty(&[data(9)]));
        knowledge.sent(&[data(1)]);
        knowledge.sync_begins();
        knowledge.sent(&[data(2)]);
        knowledge.sync_ended();
        assert!(!knowledge.is_dirty(&[data(1)]) && !knowledge.is_dirty(&[data(2)]));
        knowledge.apart();
        assert!(knowledge.is_dirty(&[data(9)]), "apart, everything counts as dirty");
        let dirty = || {
            let content = |number: &u8| {
                let object = Object::new(0, Kind::File, &[*number]);
                knowledge.get(&object).is_some_and(|marks| !marks.data.is_empty())
            };
            [1, 2, 3].into_iter().filter(content).collect::<Vec<_>>()
        };
        knowledge.joined(1).expect("joined");
        assert_eq!(dirty(), [3], "the peer still has what it acknowledged");
        knowledge.joined(2).expect("joined");
        assert_eq!(dirty(), [2, 3], "it was restarted");
    }
}
