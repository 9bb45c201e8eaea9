//! Content of files: found different by digests of blocks, sent as data and holes.

use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::io::Errno;
use safe_replication::diff::{BLOCK, Digest, blocks_of, differing_blocks, has_same_attributes};
use safe_replication::dirty::{Change, Object};
use safe_replication::op::{Allocation, ObjectId, Op, Timestamp};
use safe_replication::tree::Entry;

use super::link::{Answer, DIGEST_LIMIT, DigestOf, Digests, Query};
use super::meta::Before;
use super::page::{Candidate, Page, unexpected};
use super::sender::Sender;
use super::{Resync, Step, Trouble, local};

/// Content up to this size is sent while names are repaired; more waits until names are equal, so that the application
/// is not kept apart from its peer for longer than needed.
pub(super) const INLINE: u64 = 16 << 20;

/// Most bytes of one write.
const PIECE: u64 = 1 << 20;

/// Files whose digests are asked for together.
const FILES: usize = 256;

/// A file of both sides whose content is compared.
struct Compared {
    of: Candidate,
    open: OwnedFd,
    size: u64,
}

impl Page<'_, '_> {
    /// Compare and repair the regular files that both have.
    pub(super) fn compare_files(&mut self) -> Step<()> {
        let mut files = Vec::new();
        let mut blocks = 0;
        for of in std::mem::take(&mut self.files) {
            let opened = match &of.shared {
                Some((_, object)) => local::open_content(self.root, object),
                None => local::open_file(self.open.as_fd(), &of.source.name),
            };
            let (open, size) = match opened {
                Ok(opened) => opened,
                // Removed or replaced meanwhile, which is marked.
                Err(Errno::NOENT | Errno::STALE | Errno::INVAL | Errno::LOOP | Errno::NXIO) => continue,
                Err(errno) => return Err(Trouble::local(&self.display(&of.source.name), errno)),
            };
            let file = Compared { of, open, size };
            let more = blocks_of(size).max(1);
            if more > DIGEST_LIMIT as u64 {
                self.compare_large(&file)?;
                continue;
            }
            if blocks + more > DIGEST_LIMIT as u64 || files.len() >= FILES {
                self.compare_together(std::mem::take(&mut files))?;
                blocks = 0;
            }
            blocks += more;
            files.push(file);
        }
        self.compare_together(files)
    }

    fn compare_together(&mut self, files: Vec<Compared>) -> Step<()> {
        let of = files.iter().map(|file| self.digest_of(file, 0, blocks_of(file.size))).collect();
        let ours = |file: &Compared| local::digests(file.open.as_fd(), file.size, 0, DIGEST_LIMIT as u64);
        let (ours, theirs) =
            self.round.resync.both_digests(of, || files.iter().map(ours).collect::<Vec<_>>())?;
        for ((file, ours), theirs) in files.iter().zip(ours).zip(theirs) {
            let ours = ours.map_err(|errno| Trouble::local(&self.display(&file.of.source.name), errno))?;
            let differing = differing_blocks(0, &ours, &theirs.blocks);
            self.repair_content(file, &differing, theirs.size)?;
        }
        Ok(())
    }

    /// A file with more blocks than one question may ask for.
    fn compare_large(&mut self, file: &Compared) -> Step<()> {
        let (mut differing, mut size, mut first) = (Vec::new(), None, 0);
        let step = DIGEST_LIMIT as u64;
        while first < blocks_of(file.size) {
            self.round.resync.go_on()?;
            let of = vec![self.digest_of(file, first, step)];
            let (ours, theirs) = self
                .round
                .resync
                .both_digests(of, || vec![local::digests(file.open.as_fd(), file.size, first, step)])?;
            for (ours, theirs) in ours.into_iter().zip(theirs) {
                let ours =
                    ours.map_err(|errno| Trouble::local(&self.display(&file.of.source.name), errno))?;
                differing.extend(differing_blocks(first, &ours, &theirs.blocks));
                size = theirs.size;
            }
            first += step;
        }
        self.repair_content(file, &differing, size)
    }

    fn digest_of(&self, file: &Compared, first: u64, count: u64) -> DigestOf {
        let count = u32::try_from(count.clamp(1, DIGEST_LIMIT as u64)).unwrap_or(1);
        let (dir, name) = match &file.of.shared {
            Some((id, _)) => (*id, Bytes::new()),
            None => (self.job.node.id, file.of.source.name.clone()),
        };
        DigestOf { dir, name, first, count, whole: false }
    }

    fn repair_content(&mut self, file: &Compared, differing: &[u64], theirs: Option<u64>) -> Step<()> {
        let Some(theirs) = theirs else {
            return Err(Trouble::Again(format!(
                "{} changed on the other node",
                self.display(&file.of.source.name)
            )));
        };
        let (source, target) = (&file.of.source, &file.of.target);
        let wrote = !differing.is_empty() || theirs != file.size;
        if !wrote && has_same_attributes(source, target) {
            self.count(source);
            return Ok(());
        }
        let Some((id, object)) = self.bind_compared(file)? else { return Ok(()) };
        let runs = runs_of(differing, file.size);
        let bytes: u64 = runs.iter().map(|run| run.end - run.start).sum();
        if bytes > INLINE {
            let waits = self.postpone(&object, source, &runs, theirs.min(file.size))?;
            self.count_but(source, waits);
            return Ok(());
        }
        if wrote {
            self.push_runs(file, id, &runs, theirs)?;
        }
        let open = self
            .root
            .open_path(&object)
            .map_err(|errno| Trouble::local(&self.display(&source.name), errno))?;
        let before = Before::Had { entry: target, wrote };
        self.round.resync.push_attributes(&mut self.sender, id, open.as_fd(), source, before)?;
        self.count(source);
        Ok(())
    }

    /// The id of a file that is compared; none: its name is something else's by now, which is marked.
    fn bind_compared(&mut self, file: &Compared) -> Step<Option<(ObjectId, Object)>> {
        if let Some((id, object)) = &file.of.shared {
            return Ok(Some((*id, object.clone())));
        }
        let opened = local::inode(file.open.as_fd()).map_err(|errno| self.failed(errno))?;
        if opened != file.of.source.inode {
            return Ok(None);
        }
        Ok(self.bind(&file.of.source)?.map(|(id, found)| (id, found.object)))
    }

    fn push_runs(&mut self, file: &Compared, id: ObjectId, runs: &[Range<u64>], theirs: u64) -> Step<()> {
        let time = file.of.source.mtime;
        let resync = self.round.resync;
        if theirs > file.size {
            self.sender.push(Op::Truncate { id, size: file.size, time, mode: None })?;
        }
        for run in runs {
            let holes = run.start < theirs;
            let target = To { id, time, holes };
            resync
                .push_content(&mut self.sender, file.open.as_fd(), run.clone(), &target)
                .map_err(|trouble| named(trouble, || self.display(&file.of.source.name)))?;
        }
        // A hole at the end is not written.
        if theirs < file.size {
            self.sender.push(Op::Truncate { id, size: file.size, time, mode: None })?;
        }
        Ok(())
    }

    /// Content of a file that the target just got under this name; how much of it waits.
    pub(super) fn fill(&mut self, id: ObjectId, object: &Object, source: &Entry) -> Step<u64> {
        let (open, size) = match local::open_content(self.root, object) {
            Ok(opened) => opened,
            // Removed meanwhile, which is marked.
            Err(Errno::NOENT | Errno::STALE) => return Ok(0),
            Err(errno) => return Err(Trouble::local(&self.display(&source.name), errno)),
        };
        if size > INLINE {
            return self.postpone(object, source, &[], 0);
        }
        if size == 0 {
            return Ok(0);
        }
        let target = To { id, time: source.mtime, holes: false };
        let last = self
            .round
            .resync
            .push_content(&mut self.sender, open.as_fd(), 0..size, &target)
            .map_err(|trouble| named(trouble, || self.display(&source.name)))?;
        if last < size {
            self.sender.push(Op::Truncate { id, size, time: source.mtime, mode: None })?;
        }
        Ok(0)
    }

    /// Mark content to be sent when names are equal; how much that is.
    fn postpone(&self, object: &Object, source: &Entry, runs: &[Range<u64>], tail: u64) -> Step<u64> {
        let mut changes: Vec<Change> = runs
            .iter()
            .map(|run| Change::Data { object: object.clone(), offset: run.start, len: run.end - run.start })
            .collect();
        // The size: what is beyond the shorter one.
        changes.push(Change::data_from(object.clone(), tail));
        let dir = self.job.node.object.clone();
        changes.push(Change::Place { object: object.clone(), dir, name: source.name[..].into() });
        self.round.resync.mark(&changes)?;
        let before: u64 = runs.iter().map(|run| run.end.min(tail).saturating_sub(run.start)).sum();
        Ok(before + source.size.saturating_sub(tail))
    }
}

/// Where content goes.
pub(super) struct To {
    pub(super) id: ObjectId,
    pub(super) time: Timestamp,
    /// The target may have something where the source has a hole.
    pub(super) holes: bool,
}

impl Resync<'_> {
    /// Digests of both sides at the same time.
    pub(super) fn both_digests<T>(
        &self,
        of: Vec<DigestOf>,
        ours: impl FnOnce() -> T,
    ) -> Step<(T, Vec<Digests>)> {
        let asked = of.len();
        let (ours, theirs) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| {
                if of.is_empty() {
                    Ok(Answer::Digests(Vec::new()))
                } else {
                    self.link.query(Query::Digests(of))
                }
            });
            (ours(), theirs.join())
        });
        let Ok(theirs) = theirs else {
            return Err(Trouble::Failed("a thread of the resync has ended".into()));
        };
        match theirs? {
            Answer::Digests(theirs) if theirs.len() == asked => Ok((ours, theirs)),
            Answer::Digests(_)
            | Answer::Entries { .. }
            | Answer::Xattrs(_)
            | Answer::InFlight { .. }
            | Answer::Room(_) => Err(unexpected()),
        }
    }

    /// Send a range of a file as writes and holes; answers where the last data ended.
    pub(super) fn push_content(
        &self,
        sender: &mut Sender<'_>,
        file: BorrowedFd<'_>,
        range: Range<u64>,
        to: &To,
    ) -> Step<u64> {
        let failed = |errno| Trouble::local("content", errno);
        let (mut at, mut last) = (range.start, range.start);
        while at < range.end {
            let data = local::next_data(file, at).map_err(failed)?.unwrap_or(range.end).min(range.end);
            if data > at && to.holes {
                let how = Allocation::Punch;
                sender.push(Op::Allocate {
                    id: to.id,
                    how,
                    offset: at,
                    length: data - at,
                    time: to.time,
                    mode: None,
                })?;
            }
            if data >= range.end {
                break;
            }
            let hole = local::next_hole(file, data).map_err(failed)?.min(range.end);
            at = data;
            while at < hole {
                let len = usize::try_from((hole - at).min(PIECE)).unwrap_or(0);
                let mut buffer = Vec::new();
                local::read_full(file, at, len, &mut buffer).map_err(failed)?;
                let got = buffer.len() as u64;
                if got == 0 {
                    // Cut off meanwhile, which is marked.
                    return Ok(last);
                }
                sender.push(Op::Write {
                    id: to.id,
                    offset: at,
                    data: buffer.into(),
                    time: to.time,
                    mode: None,
                })?;
                at += got;
                last = at;
            }
            // A file that shrinks can end before its own data.
            at = at.max(data + 1);
        }
        Ok(last)
    }
}

/// Blocks as ranges of bytes, joined where they touch.
fn runs_of(blocks: &[u64], size: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        let (start, end) = (block * BLOCK, (block * BLOCK + BLOCK).min(size));
        match runs.last_mut() {
            Some(run) if run.end == start => run.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

/// The blocks of `ours` that differ, as ranges.
pub(super) fn differing_runs(first: u64, ours: &[Digest], theirs: &[Digest], size: u64) -> Vec<Range<u64>> {
    runs_of(&differing_blocks(first, ours, theirs), size)
}

/// An error about content says which file it is.
fn named(trouble: Trouble, name: impl FnOnce() -> String) -> Trouble {
    match trouble {
        Trouble::Failed(reason) => Trouble::Failed(format!("{}: {reason}", name())),
        Trouble::Again(reason) => Trouble::Again(format!("{}: {reason}", name())),
        Trouble::Lost(reason) => Trouble::Lost(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_blocks_are_one_run_and_the_last_is_short() {
        let size = 5 * BLOCK + 10;
        assert_eq!(runs_of(&[0, 1, 3, 5], size), [0..2 * BLOCK, 3 * BLOCK..4 * BLOCK, 5 * BLOCK..size]);
    }
}
