//! Objects whose names are equal but whose content or attributes differ: sent one by one, each under its keys, while
//! the application goes on with everything else.

use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;
use safe_replication::diff::{BLOCK, has_content, whole};
use safe_replication::dirty::{Change, Marks, Object};
use safe_replication::op::{ObjectId, Op, Timestamp};

use super::content::{To, differing_runs};
use super::link::{DigestOf, Key};
use super::reach::Reached;
use super::sender::Sender;
use super::{PATIENCE, Resync, Step, THREADS, Trouble, local};
use crate::backing::{Root, attributes};
use crate::knowledge::Stage;

/// Objects of one pass.
const PASS: usize = 4096;

/// Content that is held and sent at once.
const PIECE: u64 = 1 << 20;

/// Marked ranges from this size on are compared by digests before anything is sent.
const COMPARE: u64 = 4 << 20;

/// Content that is held and compared at once.
const WINDOW: u64 = 64 * BLOCK;

impl Resync<'_> {
    /// Until nothing is marked, or names are marked again.
    pub(super) fn drain(&self) -> Step<()> {
        let mut idle = 0;
        loop {
            let objects = self.next_objects();
            if objects.is_empty() || self.knowledge.has_names() || self.knowledge.stage() != Stage::Aligned {
                return Ok(());
            }
            let (done, trouble) = self.pass_over(&objects)?;
            self.sync_sometimes()?;
            idle = if done == 0 { idle + 1 } else { 0 };
            if let Some(reason) = trouble
                && idle > PATIENCE
            {
                return Err(Trouble::Again(reason));
            }
        }
    }

    /// Content that is marked from the beginning waits for its turn.
    pub(super) fn announce(&self) -> Step<()> {
        let mut next = self.knowledge.next(None);
        while let Some((object, marks)) = next {
            self.go_on()?;
            if has_content(object.kind) && !marks.data.is_empty() {
                let file = self.root(object.root)?.open_path(&object);
                // One that is gone has no content to be sent.
                if let Ok(now) = file.and_then(|file| attributes(file.as_fd())) {
                    let bytes = marks.data.bytes(now.size);
                    self.progress.found(1, bytes);
                    self.progress.postponed(1, bytes);
                }
            }
            next = self.knowledge.next(Some(&object));
        }
        Ok(())
    }

    fn next_objects(&self) -> Vec<(Object, Marks)> {
        let mut objects: Vec<(Object, Marks)> = Vec::new();
        while objects.len() < PASS {
            match self.knowledge.next(objects.last().map(|(object, _)| object)) {
                Some(next) => objects.push(next),
                None => break,
            }
        }
        objects
    }

    /// How many were done, and why another was not.
    fn pass_over(&self, objects: &[(Object, Marks)]) -> Step<(usize, Option<String>)> {
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (again, ended, lost) = (Mutex::new(None), Mutex::new(None), Mutex::new(Vec::new()));
        let work = || {
            while let Some((object, marks)) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                if ended.lock().is_some() {
                    return;
                }
                match self.go_on().and_then(|()| self.drain_object(object, marks)) {
                    Ok(true) => {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(false) => lost.lock().push(object.clone()),
                    Err(Trouble::Again(reason)) => *again.lock() = Some(reason),
                    Err(trouble) => *ended.lock() = Some(trouble),
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..THREADS.min(objects.len()) {
                scope.spawn(work);
            }
            work();
        });
        if let Some(trouble) = ended.into_inner() {
            return Err(trouble);
        }
        let (lost, mut again) = (lost.into_inner(), again.into_inner());
        let found = if lost.is_empty() { 0 } else { self.search(&lost)? };
        if found < lost.len() {
            again = Some("an object cannot be found".to_owned());
        }
        // Where they are now is marked; that brings nothing forward by itself.
        Ok((done.into_inner(), again))
    }

    /// False: it is not where it was, and has to be searched.
    fn drain_object(&self, object: &Object, marks: &Marks) -> Step<bool> {
        let id = match self.reach(object, marks.place.as_ref())? {
            Reached::At(id) => id,
            Reached::Lost => return Ok(false),
            Reached::Gone => return self.forget_gone(object).map(|()| true),
        };
        let root = self.root(object.root)?;
        let draining = Draining { resync: self, object, id, root, differs: AtomicBool::new(false) };
        let result = draining.content(marks).and_then(|()| draining.meta());
        self.link.forget(&[id]);
        match result {
            // It was removed meanwhile, with its last name.
            Err(Trouble::Again(_)) if matches!(root.open_path(object), Err(Errno::STALE | Errno::NOENT)) => {
                self.forget_gone(object).map(|()| true)
            }
            other => other.map(|()| true),
        }
    }

    /// Forgets the marks of what has no name any more, unless it has got one by now.
    fn forget_gone(&self, object: &Object) -> Step<()> {
        let all = Key::Data { object: object.clone(), from: 0, to: u64::MAX };
        let _held = self.link.lock(&[all, Key::Meta { object: object.clone() }]);
        if !super::reach::exists(self.root(object.root)?, object)? {
            self.knowledge.forget(object);
        }
        Ok(())
    }
}

/// One object at work.
struct Draining<'r> {
    resync: &'r Resync<'r>,
    object: &'r Object,
    id: ObjectId,
    root: &'r Root,
    // The last window that was compared did.
    differs: AtomicBool,
}

impl Draining<'_> {
    fn content(&self, marks: &Marks) -> Step<()> {
        if !has_content(self.object.kind) || marks.data.is_empty() {
            return Ok(());
        }
        let (file, size) = local::open_content(self.root, self.object).map_err(failed)?;
        self.resync.progress.begun(marks.data.bytes(size));
        // All of it is marked: nothing of it that the application does is sent meanwhile.
        if marks.data.iter().next() == Some(0..u64::MAX) {
            let (size, time) = self.size_and_time(&file)?;
            self.resync.fill_from_spare(file.as_fd(), size, self.id, time)?;
        }
        for range in marks.data.iter() {
            self.range(&file, range)?;
        }
        self.resync.progress.done(1, 0);
        Ok(())
    }

    /// Sends a marked range, a piece at a time.
    fn range(&self, file: &OwnedFd, range: Range<u64>) -> Step<()> {
        let compare = range.end - range.start >= COMPARE;
        let step = if compare { WINDOW } else { PIECE };
        let mut at = range.start;
        while at < range.end {
            self.resync.go_on()?;
            self.resync.sync_sometimes()?;
            let size = local::size_of(file.as_fd()).map_err(failed)?;
            if at >= size {
                if range.end < u64::MAX {
                    if self.beyond(file, at..range.end)? {
                        return Ok(());
                    }
                    continue;
                }
                if self.tail(file, at)? {
                    return Ok(());
                }
                continue;
            }
            // Windows begin at blocks, so that both sides cut alike.
            let end = ((at / step + 1) * step).min(range.end).min(size.next_multiple_of(step));
            if !compare {
                self.resync.pass(end.min(size) - at)?;
            }
            // The last piece holds the size too: there may be a hole at the end, which is made by setting the size.
            let Some(sent) = self.piece(file, at..end, compare, end >= size)? else { continue };
            if compare {
                self.resync.pass(sent)?;
            }
            self.resync.progress.done(0, end.min(size) - at);
            at = end;
        }
        Ok(())
    }

    /// Forgets marks behind the end of the file: what was cut off has a mark that reaches to the end of all. False:
    /// the file has grown into the range, which the application may have marked again.
    fn beyond(&self, file: &OwnedFd, range: Range<u64>) -> Step<bool> {
        let _held = self.hold(range.start, u64::MAX);
        let (size, _) = self.size_and_time(file)?;
        if size > range.start {
            return Ok(false);
        }
        self.clear(range);
        Ok(true)
    }

    /// Sends the size; false: the file has grown beyond `from`. Holds all of the file: an append between the size and
    /// `from` may be there already and not yet here, and would be cut off.
    fn tail(&self, file: &OwnedFd, from: u64) -> Step<bool> {
        let _held = self.hold(0, u64::MAX);
        let (size, time) = self.size_and_time(file)?;
        if size > from {
            return Ok(false);
        }
        self.resync.link.submit(vec![Op::Truncate { id: self.id, size, time, mode: None }])?;
        self.clear(from..u64::MAX);
        Ok(true)
    }

    /// Answers how much content differed; none: the file was cut off before the piece, so that its size is not held.
    fn piece(&self, file: &OwnedFd, piece: Range<u64>, compare: bool, last: bool) -> Step<Option<u64>> {
        let _held = self.hold(piece.start, if last { u64::MAX } else { piece.end });
        let (size, time) = self.size_and_time(file)?;
        if last && size < piece.start {
            return Ok(None);
        }
        let within = piece.start..piece.end.min(size).max(piece.start);
        let runs = if compare { self.compare(file, &within, size)? } else { vec![within] };
        let sent = runs.iter().map(|run| run.end - run.start).sum();
        let mut sender = Sender::under_keys(self.resync);
        let to = To { id: self.id, time, holes: true };
        for run in runs {
            self.resync.push_content(&mut sender, file.as_fd(), run, &to)?;
        }
        if last && size <= piece.end {
            sender.push(Op::Truncate { id: self.id, size, time, mode: None })?;
        }
        sender.flush()?;
        self.clear(piece);
        Ok(Some(sent))
    }

    /// Which parts of the piece differ. Where the last one did not, one digest of it all is likely to do.
    fn compare(&self, file: &OwnedFd, piece: &Range<u64>, size: u64) -> Step<Vec<Range<u64>>> {
        let (first, count) =
            (piece.start / BLOCK, (piece.end.div_ceil(BLOCK)).saturating_sub(piece.start / BLOCK));
        let asked = |whole| DigestOf {
            dir: self.id,
            name: bytes::Bytes::new(),
            first,
            count: u32::try_from(count.max(1)).unwrap_or(1),
            whole,
        };
        let at_once = !self.differs.load(Ordering::Relaxed);
        let (ours, theirs) = self
            .resync
            .both_digests(vec![asked(at_once)], || local::digests(file.as_fd(), size, first, count))?;
        let ours = ours.map_err(failed)?;
        let mut theirs = theirs.into_iter().next().unwrap_or_default().blocks;
        if at_once {
            if theirs == [whole(&ours)] {
                return Ok(Vec::new());
            }
            let (_, answer) = self.resync.both_digests(vec![asked(false)], || ())?;
            theirs = answer.into_iter().next().unwrap_or_default().blocks;
        }
        let runs = differing_runs(first, &ours, &theirs, size);
        self.differs.store(!runs.is_empty(), Ordering::Relaxed);
        let within = |run: Range<u64>| run.start.max(piece.start)..run.end.min(piece.end);
        Ok(runs.into_iter().map(within).filter(|run| !run.is_empty()).collect())
    }

    /// Attributes, when nothing else of the object is under way.
    fn meta(&self) -> Step<()> {
        // Directories were made equal with their names.
        let all = Key::Data { object: self.object.clone(), from: 0, to: u64::MAX };
        let _held = self.resync.link.lock(&[all, Key::Meta { object: self.object.clone() }]);
        let Some(marks) = self.resync.knowledge.get(self.object) else { return Ok(()) };
        if !marks.data.is_empty() || !marks.meta {
            // Written to again: its attributes follow in the next pass.
            return Ok(());
        }
        let open = self.root.open_path(self.object).map_err(failed)?;
        let mut sender = Sender::under_keys(self.resync);
        let (source, target) = self.resync.equalize_own(&mut sender, self.id, open.as_fd())?;
        sender.flush()?;
        if source.size != target.size {
            // No mark says so: its content cannot be trusted either.
            return self.resync.mark(&[Change::data_from(self.object.clone(), 0)]);
        }
        self.resync.knowledge.sent(&[Change::Meta { object: self.object.clone() }]);
        Ok(())
    }

    fn hold(&self, from: u64, to: u64) -> Box<dyn super::link::Held + '_> {
        self.resync.link.lock(&[Key::Data { object: self.object.clone(), from, to }])
    }

    fn clear(&self, range: Range<u64>) {
        let (offset, len) = (range.start, range.end - range.start);
        self.resync.knowledge.sent(&[Change::Data { object: self.object.clone(), offset, len }]);
    }

    fn size_and_time(&self, file: &OwnedFd) -> Step<(u64, Timestamp)> {
        let now = attributes(file.as_fd()).map_err(failed)?;
        Ok((now.size, now.mtime))
    }
}

fn failed(errno: Errno) -> Trouble {
    Trouble::local("a file of the journal", errno)
}
