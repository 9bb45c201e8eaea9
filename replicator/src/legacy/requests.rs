//! Requests under way in one mount: how far each got, for the process that the kernel sends them to again.
//!
//! A mapped file of slots. A request has one from when it is read until it is answered. An operation that would not
//! come out the same a second time (names, extended attributes) says in it what it is about to do, and each says when
//! it is done, both under the operation's keys.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use safe_replication::op::{ObjectId, Op, RenameMode};

use crate::linux::shared::Shared;

/// More than workers of two processes, of which the older one's have not all been sent again.
const SLOTS: usize = 256;
/// Words of a slot.
const SLOT: usize = 48;
/// Words of a name.
const NAME: usize = 32;

/// The word behind all slots: the kernel keeps what is written.
const WRITES_BACK: usize = SLOTS * SLOT;

/// Words of a slot.
mod word {
    /// Number of the request; 0: the slot is free.
    pub(super) const UNIQUE: usize = 0;
    /// How many of its operations are done.
    pub(super) const DONE: usize = 1;
    /// Id of what it made.
    pub(super) const MADE: usize = 2;
    /// What it is about to do, and after how many; 0: nothing.
    pub(super) const INTENT: usize = 3;
    pub(super) const PARENT: usize = 4;
    pub(super) const ID: usize = 5;
    pub(super) const REPLACED: usize = 6;
    pub(super) const LENGTH: usize = 7;
    pub(super) const NAME: usize = 8;
}

/// What an operation was about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the operation of the same name")]
pub enum Intent {
    /// Make an object at a name where nothing is.
    Create { id: ObjectId, parent: ObjectId, name: Bytes, directory: bool },
    /// Remove a name.
    Unlink { parent: ObjectId, name: Bytes },
    /// Move what is at a name.
    Rename { parent: ObjectId, name: Bytes },
    /// Exchange two names; `replaced` was at the second.
    Exchange { parent: ObjectId, name: Bytes, replaced: ObjectId },
    /// Make one more name, where nothing is.
    Link { parent: ObjectId, name: Bytes },
    /// Remove an extended attribute.
    RemoveXattr { id: ObjectId, name: Bytes },
    /// Set one: the same a second time, if it is not asked whether it exists.
    SetXattr,
}

/// A request of the process before this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    slot: usize,
    /// How many of its operations are done.
    pub done: u64,
    /// What it was about to do next.
    pub intent: Option<Intent>,
}

/// See the module.
#[derive(Debug)]
pub struct Requests {
    memory: Shared,
    free: Mutex<Vec<usize>>,
    before: Mutex<BTreeMap<u64, Unfinished>>,
}

/// What the thread carries out.
struct Active {
    requests: Arc<Requests>,
    slot: usize,
    /// Operations of the request that are behind it.
    done: u64,
    /// Of these, those that the process before did.
    skip: u64,
    /// The process before was about to do the next one.
    repeats: bool,
}

thread_local! {
    static ACTIVE: RefCell<Option<Active>> = const { RefCell::new(None) };
}

impl Requests {
    /// The slots in a file: those of the process before this one, or free ones if it is empty.
    ///
    /// # Errors
    /// The filesystem is full, or cannot do it.
    pub fn open(file: &OwnedFd) -> io::Result<Self> {
        let memory = Shared::map(file, 0, SLOTS * SLOT + 1)?;
        let requests = Self { memory, free: Mutex::default(), before: Mutex::default() };
        for slot in 0..SLOTS {
            match requests.load(slot, word::UNIQUE) {
                0 => requests.free.lock().push(slot),
                unique => {
                    requests.before.lock().insert(unique, requests.unfinished(slot));
                }
            }
        }
        Ok(requests)
    }

    /// Whether it was agreed with the kernel that it keeps what is written.
    #[must_use]
    pub fn writes_back(&self) -> bool {
        self.memory.words()[WRITES_BACK].load(Ordering::Acquire) != 0
    }

    /// What was agreed with the kernel.
    pub fn set_writes_back(&self, writes_back: bool) {
        self.memory.words()[WRITES_BACK].store(writes_back.into(), Ordering::Release);
    }

    /// What the process before this one did not finish.
    #[must_use]
    pub fn unfinished_before(&self) -> Vec<Unfinished> {
        self.before.lock().values().cloned().collect()
    }

    /// What it was about to do turned out to be done.
    pub fn settle_done(&self, unfinished: &Unfinished) {
        self.store(unfinished.slot, word::DONE, unfinished.done + 1);
        self.settle(unfinished, |found| {
            found.done += 1;
            found.intent = None;
        });
    }

    /// It turned out not to be done.
    pub fn settle_undone(&self, unfinished: &Unfinished) {
        self.store(unfinished.slot, word::INTENT, 0);
        self.settle(unfinished, |found| found.intent = None);
    }

    fn settle(&self, unfinished: &Unfinished, change: impl FnOnce(&mut Unfinished)) {
        if let Some(found) = self.before.lock().values_mut().find(|found| found.slot == unfinished.slot) {
            change(found);
        }
    }

    /// This thread begins a request; `again`: the kernel sends it once more.
    pub fn begin(self: &Arc<Self>, unique: u64, again: bool) {
        let before = if again { self.before.lock().remove(&unique) } else { None };
        let slot = before.as_ref().map(|before| before.slot).or_else(|| self.take());
        let active = slot.map(|slot| {
            if before.is_none() {
                self.store(slot, word::DONE, 0);
                self.store(slot, word::INTENT, 0);
                self.store(slot, word::UNIQUE, unique);
            }
            let (skip, repeats) = before.map_or((0, false), |before| (before.done, before.intent.is_some()));
            Active { requests: Arc::clone(self), slot, done: 0, skip, repeats }
        });
        ACTIVE.set(active);
    }

    /// Its answer was given.
    pub fn end(&self) {
        if let Some(active) = ACTIVE.take() {
            self.store(active.slot, word::UNIQUE, 0);
            self.free.lock().push(active.slot);
        }
    }

    fn take(&self) -> Option<usize> {
        if let Some(slot) = self.free.lock().pop() {
            return Some(slot);
        }
        // Answered by the process before, which ended before it could say so: never sent again.
        let (_, answered) = self.before.lock().pop_first()?;
        Some(answered.slot)
    }

    fn unfinished(&self, slot: usize) -> Unfinished {
        let done = self.load(slot, word::DONE);
        let intent = self.load(slot, word::INTENT);
        let current = intent != 0 && intent >> 8 == done;
        Unfinished { slot, done, intent: if current { self.intent(slot, intent & 0xff) } else { None } }
    }

    fn intent(&self, slot: usize, kind: u64) -> Option<Intent> {
        let id = |word: usize| ObjectId(self.load(slot, word));
        let (parent, name) = (id(word::PARENT), self.name(slot));
        Some(match kind {
            1 | 2 => Intent::Create { id: id(word::ID), parent, name, directory: kind == 2 },
            3 => Intent::Unlink { parent, name },
            4 => Intent::Rename { parent, name },
            5 => Intent::Exchange { parent, name, replaced: id(word::REPLACED) },
            6 => Intent::Link { parent, name },
            7 => Intent::RemoveXattr { id: id(word::ID), name },
            8 => Intent::SetXattr,
            _ => return None,
        })
    }

    fn intend(&self, slot: usize, done: u64, op: &Op) {
        self.store(slot, word::INTENT, 0);
        let kind: u64 = match op {
            Op::Create { id, parent, name, mode, .. } => {
                self.names(slot, *parent, name);
                self.store(slot, word::ID, id.0);
                if mode & libc::S_IFMT == libc::S_IFDIR { 2 } else { 1 }
            }
            Op::Unlink { parent, name, .. } => {
                self.names(slot, *parent, name);
                3
            }
            Op::Rename { parent, name, how, replaced, .. } => {
                self.names(slot, *parent, name);
                self.store(slot, word::REPLACED, replaced.0);
                if *how == RenameMode::Exchange { 5 } else { 4 }
            }
            Op::Link { parent, name, .. } => {
                self.names(slot, *parent, name);
                6
            }
            Op::RemoveXattr { id, name } => {
                self.names(slot, ObjectId::NONE, name);
                self.store(slot, word::ID, id.0);
                7
            }
            Op::SetXattr { .. } => 8,
            Op::Bind { .. }
            | Op::Unbind { .. }
            | Op::Write { .. }
            | Op::Truncate { .. }
            | Op::Allocate { .. }
            | Op::Copy { .. }
            | Op::SetMeta { .. }
            | Op::Sync { .. }
            | Op::SyncAll { .. } => return,
        };
        self.store(slot, word::INTENT, kind | done << 8);
    }

    fn names(&self, slot: usize, parent: ObjectId, name: &[u8]) {
        self.store(slot, word::PARENT, parent.0);
        self.store(slot, word::LENGTH, name.len() as u64);
        for (index, bytes) in name.chunks(8).take(NAME).enumerate() {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            self.store(slot, word::NAME + index, u64::from_le_bytes(whole));
        }
    }

    fn name(&self, slot: usize) -> Bytes {
        let length = usize::try_from(self.load(slot, word::LENGTH)).unwrap_or(0);
        let words = word::NAME..word::NAME + NAME;
        let mut name: Vec<u8> = words.flat_map(|word| self.load(slot, word).to_le_bytes()).collect();
        name.truncate(length);
        name.into()
    }

    fn word(&self, slot: usize, word: usize) -> &AtomicU64 {
        &self.memory.words()[slot * SLOT + word]
    }

    fn load(&self, slot: usize, word: usize) -> u64 {
        self.word(slot, word).load(Ordering::Acquire)
    }

    fn store(&self, slot: usize, word: usize, value: u64) {
        self.word(slot, word).store(value, Ordering::Release);
    }
}

/// The next operation of this thread's request begins. True: the process before has done it.
#[must_use]
pub fn was_done() -> bool {
    with(false, |active| {
        let skipped = active.done < active.skip;
        active.done += u64::from(skipped);
        skipped
    })
}

/// The first operation of this thread's request was done by the process before.
#[must_use]
pub fn first_was_done() -> bool {
    with(false, |active| active.done == 0 && active.skip > 0)
}

/// The process before was about to do what this thread is about to do: whether it did is not known, and does not matter.
#[must_use]
pub fn repeats() -> bool {
    with(false, |active| active.repeats && active.done == active.skip)
}

/// Id of what the process before made for this thread's request.
#[must_use]
pub fn made() -> Option<ObjectId> {
    with(None, |active| (active.skip > 0).then(|| ObjectId(active.requests.load(active.slot, word::MADE))))
}

/// The operation is about to be carried out here.
pub fn intend(op: &Op) {
    with((), |active| active.requests.intend(active.slot, active.done, op));
}

/// It was carried out.
pub fn done(op: &Op) {
    with((), |active| {
        if let Op::Create { id, .. } = op {
            active.requests.store(active.slot, word::MADE, id.0);
        }
        active.done += 1;
        active.requests.store(active.slot, word::DONE, active.done);
    });
}

/// It failed, and nothing of it was done.
pub fn failed() {
    with((), |active| active.requests.store(active.slot, word::INTENT, 0));
}

fn with<T>(otherwise: T, use_it: impl FnOnce(&mut Active) -> T) -> T {
    ACTIVE.with_borrow_mut(|active| active.as_mut().map_or(otherwise, use_it))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};
    use safe_replication::op::Timestamp;

    use super::*;

    struct Place {
        path: std::path::PathBuf,
        _directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            Self { path: directory.path().join("requests"), _directory: directory }
        }

        fn open(&self) -> Arc<Requests> {
            let flags = OFlags::RDWR | OFlags::CREATE;
            let file = rustix::fs::open(&self.path, flags, Mode::RUSR | Mode::WUSR).expect("open");
            Arc::new(Requests::open(&file).expect("map"))
        }
    }

    fn unlink(name: &'static str) -> Op {
        let time = Timestamp { seconds: 0, nanos: 0 };
        Op::Unlink {
            parent: ObjectId(70_000),
            name: Bytes::from_static(name.as_bytes()),
            id: ObjectId(70_001),
            directory: false,
            time,
        }
    }

    #[test]
    fn what_was_intended_and_what_was_done_is_told_apart() {
        let place = Place::new();
        let requests = place.open();
        let long = "n".repeat(255).leak();
        for (unique, finished) in [(2, false), (4, true)] {
            requests.begin(unique, false);
            assert!(!was_done());
            intend(&unlink(long));
            if finished {
                done(&unlink(long));
            }
            // Killed here.
            ACTIVE.set(None);
        }
        requests.begin(6, false);
        requests.end();
        drop(requests);

        let requests = place.open();
        let before = requests.unfinished_before();
        let name = Bytes::from_static(long.as_bytes());
        assert_eq!(before.len(), 2);
        assert_eq!(before[0].intent, Some(Intent::Unlink { parent: ObjectId(70_000), name }));
        assert_eq!((before[0].done, before[1].done, &before[1].intent), (0, 1, &None));
        requests.settle_done(&before[0]);
        drop(requests);

        // Killed again before it was sent.
        let requests = place.open();
        for unique in [2, 4] {
            requests.begin(unique, true);
            assert!(first_was_done() && was_done());
            assert!(!was_done(), "only one was done");
            requests.end();
        }
        drop(requests);
        assert!(place.open().unfinished_before().is_empty());
    }

    #[test]
    fn what_was_not_done_is_begun_anew() {
        let place = Place::new();
        let requests = place.open();
        requests.begin(2, false);
        assert!(!was_done());
        intend(&unlink("a"));
        ACTIVE.set(None);
        drop(requests);
        let requests = place.open();
        requests.settle_undone(&requests.unfinished_before()[0]);
        requests.begin(2, true);
        assert!(!first_was_done() && !was_done() && !repeats());
        requests.end();
    }

    #[test]
    fn slots_of_answered_requests_are_used_again() {
        let place = Place::new();
        let requests = place.open();
        for unique in 1..=SLOTS as u64 {
            requests.begin(unique * 2, false);
            ACTIVE.set(None);
        }
        drop(requests);
        let requests = place.open();
        requests.begin(10_000, false);
        assert!(!was_done());
        done(&unlink("a"));
        ACTIVE.set(None);
        drop(requests);
        assert!(place.open().before.lock().contains_key(&10_000));
    }
}
