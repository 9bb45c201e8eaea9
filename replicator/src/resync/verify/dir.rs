//! The names of one directory on both copies, first without holding anything.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;
use safe_replication::diff::{
    BLOCK, Difference as Named, blocks_of, compare, differing_blocks, has_same_attributes,
};
use safe_replication::dirty::Object;
use safe_replication::object::Kind;
use safe_replication::op::ObjectId;
use safe_replication::tree::Entry;

use super::super::link::{DIGEST_LIMIT, DigestOf, Key, LIST_LIMIT, Link};
use super::super::{Step, Trouble, local};
use super::Verification;
use crate::backing::Root;

/// Files whose digests are asked for together.
const FILES: usize = 256;

/// A directory of both copies, bound as long as anyone works in it.
pub(super) struct Dir<'a> {
    pub(super) object: Object,
    pub(super) id: ObjectId,
    /// Names from the root, when it was found: for people, and for what is excluded.
    pub(super) path: Vec<Bytes>,
    link: &'a dyn Link,
}

impl<'a> Dir<'a> {
    pub(super) const fn new(object: Object, id: ObjectId, path: Vec<Bytes>, link: &'a dyn Link) -> Self {
        Self { object, id, path, link }
    }
}

impl Drop for Dir<'_> {
    fn drop(&mut self) {
        if !self.path.is_empty() {
            self.link.forget(&[self.id]);
        }
    }
}

/// Names of a directory from a position of the sorted listing.
pub(super) struct Job<'a> {
    dir: Arc<Dir<'a>>,
    listing: Option<Arc<Vec<Bytes>>>,
    from: usize,
    tries: u32,
}

/// How often a directory is looked for anew.
const TRIES: u32 = 8;

impl<'a> Job<'a> {
    /// All names.
    pub(super) const fn all(dir: Arc<Dir<'a>>) -> Self {
        Self { dir, listing: None, from: 0, tries: 0 }
    }
}

/// Both sides' listings of some names.
type Listings = (Vec<Entry>, Vec<Entry>);

impl<'a> Verification<'a> {
    /// Compares the names of a job, or the first of them; returns the jobs that follow from it.
    pub(super) fn page(&self, job: &Job<'a>) -> Step<Vec<Job<'a>>> {
        let dir = Arc::clone(&job.dir);
        let root = self.resync.root(dir.object.root)?;
        let open = match root.open(&dir.object, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(open) => open,
            // Removed meanwhile.
            Err(Errno::STALE | Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(Trouble::local(&local::display(root, &dir.path), errno)),
        };
        let Some(((source, target), rest)) = self.listings(root, &open, job)? else { return Ok(Vec::new()) };
        let sizes = source.iter().map(|entry| entry.size).sum();
        self.resync.progress.found(source.len() as u64, sizes);
        let mut jobs: Vec<Job<'a>> = rest.into_iter().collect();
        let mut files = Vec::new();
        for difference in compare(source, target) {
            let Named::Both { source, target } = difference else {
                self.settle(root, &dir, difference.name(), &[])?;
                continue;
            };
            if !has_same_attributes(&source, &target) || source.size != target.size {
                self.settle(root, &dir, &source.name, &[])?;
            }
            match source.kind {
                Kind::Directory => jobs.extend(self.below(root, &dir, &open, &source.name)?),
                Kind::File => {
                    self.twin(root, &dir, &source, &target)?;
                    files.push(source);
                }
                Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => {
                    self.twin(root, &dir, &source, &target)?;
                    self.resync.progress.done(1, 0);
                }
            }
        }
        self.contents(root, &dir, &open, files)?;
        Ok(jobs)
    }

    /// The other node knows the directory no longer by its id: it was removed, or the kernel has forgotten it. The job
    /// again, if it is still there.
    pub(super) fn anew(&self, job: Job<'a>, reason: String) -> Step<Vec<Job<'a>>> {
        let (object, tries) = (job.dir.object.clone(), job.tries + 1);
        if tries > TRIES {
            return Err(Trouble::Failed(reason));
        }
        let (listing, from) = (job.listing.clone(), job.from);
        // Its id is given up first.
        drop(job);
        let again = || -> Step<Option<Dir<'a>>> {
            let Some(found) = self.resync.locate(&object)? else { return Ok(None) };
            let id = self.resync.reach_dir(&found)?;
            Ok(Some(Dir::new(found.object, id, found.path, self.resync.link)))
        };
        let mut last = reason;
        for _ in 0..TRIES {
            match again() {
                Ok(Some(dir)) => return Ok(vec![Job { dir: Arc::new(dir), listing, from, tries }]),
                Ok(None) => return Ok(Vec::new()),
                // Moved while it was looked for.
                Err(Trouble::Again(reason)) => last = reason,
                Err(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Failed(last))
    }

    /// Both sides' entries of the next names, and what is left; none: the directory is gone.
    fn listings(
        &self,
        root: &Root,
        open: &OwnedFd,
        job: &Job<'a>,
    ) -> Step<Option<(Listings, Option<Job<'a>>)>> {
        let dir = &job.dir;
        let failed = |errno| Trouble::local(&local::display(root, &dir.path), errno);
        let listing = match &job.listing {
            Some(listing) => Arc::clone(listing),
            None => match local::names(open.as_fd()) {
                Ok(names) => Arc::new(names),
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(failed(errno)),
            },
        };
        let until = (job.from + LIST_LIMIT).min(listing.len());
        let replicated = |name: &Bytes| !root.excludes(&dir.path, name);
        let mut source = Vec::with_capacity(until - job.from);
        for name in listing[job.from..until].iter().filter(|name| replicated(name)) {
            source.extend(local::entry(open.as_fd(), name).map_err(failed)?);
        }
        let after = job.from.checked_sub(1).map_or_else(Bytes::new, |last| listing[last].clone());
        let last = (until < listing.len()).then(|| listing[until - 1].clone());
        let mut target = self.resync.target_between(dir.id, after, last.as_ref())?;
        target.retain(|entry| replicated(&entry.name));
        let rest = last.map(|_| Job { dir: Arc::clone(dir), listing: Some(listing), from: until, tries: 0 });
        Ok(Some(((source, target), rest)))
    }

    /// The job of a directory below; none: it is not there any more.
    fn below(&self, root: &Root, dir: &Arc<Dir<'a>>, open: &OwnedFd, name: &Bytes) -> Step<Option<Job<'a>>> {
        self.resync.progress.done(1, 0);
        let key = Key::Name { dir: dir.object.clone(), name: name.clone() };
        let held = self.resync.link.lock(&[key]);
        let found = match root.look_up(open.as_fd(), name) {
            Ok(found) if found.object.kind.is_directory() => found,
            Ok(_) | Err(Errno::NOENT | Errno::STALE) => return Ok(None),
            Err(errno) => return Err(Trouble::local(&local::display(root, &dir.path), errno)),
        };
        let bound = self.resync.link.bind(dir.id, name, &found.object).map_err(Trouble::from);
        drop(held);
        match bound {
            Ok(id) => {
                let path = [&dir.path[..], std::slice::from_ref(name)].concat();
                Ok(Some(Job::all(Arc::new(Dir::new(found.object, id, path, self.resync.link)))))
            }
            // The target has no such directory, which is found by its name.
            Err(Trouble::Again(_)) => {
                self.settle(root, dir, name, &[])?;
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Compares the content of regular files, some at a time.
    fn contents(&self, root: &Root, dir: &Dir<'_>, open: &OwnedFd, files: Vec<Entry>) -> Step<()> {
        let (mut batch, mut blocks) = (Vec::new(), 0);
        for file in files {
            let more = blocks_of(file.size);
            if batch.len() >= FILES || (blocks + more > DIGEST_LIMIT as u64 && !batch.is_empty()) {
                self.batch(root, dir, open, &std::mem::take(&mut batch))?;
                blocks = 0;
            }
            if more > DIGEST_LIMIT as u64 {
                self.large(root, dir, open, &file)?;
                continue;
            }
            // What is empty has nothing to compare: its size was compared.
            if more > 0 {
                blocks += more;
                batch.push(file);
            } else {
                self.resync.progress.done(1, 0);
            }
        }
        self.batch(root, dir, open, &batch)
    }

    fn batch(&self, root: &Root, dir: &Dir<'_>, open: &OwnedFd, files: &[Entry]) -> Step<()> {
        if files.is_empty() {
            return Ok(());
        }
        self.resync.pass(files.iter().map(|file| file.size).sum())?;
        let of = files.iter().map(|file| digests_of(dir, file, 0, blocks_of(file.size))).collect();
        let ours = || -> Vec<_> {
            files.iter().map(|file| self.digests(open, file, 0, blocks_of(file.size))).collect()
        };
        let (ours, theirs) = self.resync.both_digests(of, ours)?;
        for ((file, ours), theirs) in files.iter().zip(ours).zip(theirs) {
            let differing = differing_blocks(0, &ours, &theirs.blocks);
            if !differing.is_empty() {
                self.settle(root, dir, &file.name, &differing)?;
            }
            self.resync.progress.done(1, file.size);
        }
        Ok(())
    }

    /// A file with more blocks than one question may ask for.
    fn large(&self, root: &Root, dir: &Dir<'_>, open: &OwnedFd, file: &Entry) -> Step<()> {
        let step = 512;
        for first in (0..blocks_of(file.size)).step_by(step) {
            let step = step as u64;
            let bytes = (step * BLOCK).min(file.size - first * BLOCK);
            self.resync.pass(bytes)?;
            let of = vec![digests_of(dir, file, first, step)];
            let (ours, theirs) = self.resync.both_digests(of, || self.digests(open, file, first, step))?;
            let theirs = theirs.into_iter().next().unwrap_or_default();
            let differing = differing_blocks(first, &ours, &theirs.blocks);
            if !differing.is_empty() {
                self.settle(root, dir, &file.name, &differing)?;
            }
            self.resync.progress.done(0, bytes);
        }
        self.resync.progress.done(1, 0);
        Ok(())
    }

    /// This side's; nothing for what cannot be read now: it is looked at again under its keys.
    fn digests(&self, open: &OwnedFd, file: &Entry, first: u64, count: u64) -> Vec<[u8; 32]> {
        local::open_file(open.as_fd(), &file.name)
            .and_then(|(content, size)| local::digests(content.as_fd(), size, first, count))
            .unwrap_or_default()
    }
}

pub(super) fn digests_of(dir: &Dir<'_>, file: &Entry, first: u64, count: u64) -> DigestOf {
    let count = u32::try_from(count.clamp(1, DIGEST_LIMIT as u64)).unwrap_or(1);
    DigestOf { dir: dir.id, name: file.name.clone(), first, count, whole: false }
}
