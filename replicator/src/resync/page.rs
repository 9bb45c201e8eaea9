//! Some names of one directory: both sides are listed, compared, and each difference is repaired.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;
use safe_replication::diff::{Difference, compare};
use safe_replication::dirty::{Change, Object};
use safe_replication::object::Kind;
use safe_replication::op::{ObjectId, Timestamp};
use safe_replication::tree::Entry;

use super::link::{Answer, LIST_LIMIT, Query};
use super::round::{Job, Round, Scope};
use super::sender::Sender;
use super::spare::Spare;
use super::{Resync, Step, Trouble, local};
use crate::backing::Root;

/// The directory at work, and what is collected while its entries are repaired.
pub(super) struct Page<'r, 'a> {
    pub(super) round: &'r Round<'a>,
    pub(super) root: &'r Root,
    pub(super) job: &'r Job<'a>,
    /// The source's directory, opened with O_PATH.
    pub(super) open: OwnedFd,
    /// Modification time of the source's directory: each change on the target sets it again.
    pub(super) time: Timestamp,
    /// What is made in the directory may inherit extended attributes.
    pub(super) inherits: bool,
    pub(super) sender: Sender<'a>,
    /// Regular files that both have: content is compared together.
    pub(super) files: Vec<Candidate>,
    /// Objects with several names that count as compared in this round because this page does it.
    pub(super) owed: Vec<(Object, Bytes)>,
    /// Directories to go into.
    pub(super) below: Vec<Job<'a>>,
    /// Bound only for this page.
    pub(super) bound: Vec<ObjectId>,
    /// Claimed only for this page.
    pub(super) claimed: Vec<Object>,
    /// Files that lose their names with this page.
    pub(super) spares: Vec<Spare>,
}

/// A regular file of both sides whose content is to be compared.
pub(super) struct Candidate {
    pub(super) source: Entry,
    pub(super) target: Entry,
    /// With several names it is compared by itself and its id: it can lose this name meanwhile, and its others are not
    /// looked at.
    pub(super) shared: Option<(ObjectId, Object)>,
}

impl<'a> Round<'a> {
    /// Repairs the names of a job, or the first of them; returns the jobs that follow from it.
    pub(super) fn page(&self, job: Job<'a>) -> Step<Vec<Job<'a>>> {
        self.resync.sync_sometimes()?;
        let root = self.resync.root(job.node.object.root)?;
        let open = match root.open(&job.node.object, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(open) => open,
            // Gone: its name is marked.
            Err(Errno::STALE | Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(Trouble::local(&local::display(root, &job.node.path), errno)),
        };
        let failed = |errno| Trouble::local(&local::display(root, &job.node.path), errno);
        let own = local::own_entry(open.as_fd()).map_err(failed)?;
        let sender = Sender::new(self.resync);
        let (time, inherits) = (own.mtime, own.xattrs != [0; 16]);
        let mut page = Page {
            round: self,
            root,
            job: &job,
            open,
            time,
            inherits,
            sender,
            files: Vec::new(),
            owed: Vec::new(),
            below: Vec::new(),
            bound: Vec::new(),
            claimed: Vec::new(),
            spares: Vec::new(),
        };
        let result = page.repair_all();
        self.resync.keep(std::mem::take(&mut page.spares), result.is_ok())?;
        self.resync.link.forget(&std::mem::take(&mut page.bound));
        self.unclaim(&page.claimed);
        if result.is_err() {
            page.give_back()?;
        }
        let rest = result?;
        let mut jobs: Vec<Job<'a>> =
            rest.map(|scope| Job { node: job.node.clone(), scope }).into_iter().collect();
        jobs.append(&mut page.below);
        Ok(jobs)
    }
}

impl Page<'_, '_> {
    /// Returns what is left of the scope.
    fn repair_all(&mut self) -> Step<Option<Scope>> {
        let (source, target, rest) = self.listings()?;
        self.round.resync.progress.found(source.len() as u64, source.iter().map(|entry| entry.size).sum());
        let differences = compare(source, target);
        // What is too much goes first: the target may be short of space.
        let (extra, others): (Vec<_>, Vec<_>) =
            differences.into_iter().partition(|difference| matches!(difference, Difference::Extra(_)));
        for difference in extra.into_iter().chain(others) {
            self.repair(difference)?;
        }
        self.compare_files()?;
        self.sender.flush()?;
        Ok(rest)
    }

    /// What other pages rely on was not done: it is marked by itself, since its name here may be gone by the next round.
    fn give_back(&mut self) -> Step<()> {
        let dir = &self.job.node.object;
        let changes = std::mem::take(&mut self.owed).into_iter().flat_map(|(object, name)| {
            let place =
                Change::Place { object: object.clone(), dir: dir.clone(), name: name.as_ref().into() };
            let what = match object.kind {
                Kind::File => Change::data_from(object, 0),
                Kind::Directory | Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => {
                    Change::Meta { object }
                }
            };
            [what, place]
        });
        self.round.resync.mark(&changes.collect::<Vec<_>>())
    }

    /// Both sides' entries of the next names, and what is left of the scope.
    fn listings(&mut self) -> Step<(Vec<Entry>, Vec<Entry>, Option<Scope>)> {
        match &self.job.scope {
            Scope::Some(names) => {
                let names: Vec<Bytes> = names.iter().map(|(name, _)| name.clone()).collect();
                let source = self.source(&names)?;
                let target = if self.job.node.fresh { Vec::new() } else { self.target_of(names)? };
                Ok((source, target, None))
            }
            Scope::All { deep, listing, from } => {
                let listing = match listing {
                    Some(listing) => listing.clone(),
                    None => Arc::new(local::names(self.open.as_fd()).map_err(|errno| self.failed(errno))?),
                };
                let until = (from + LIST_LIMIT).min(listing.len());
                let source = self.source(&listing[*from..until])?;
                let after = from.checked_sub(1).map_or_else(Bytes::new, |last| listing[last].clone());
                let last = (until < listing.len()).then(|| listing[until - 1].clone());
                let target =
                    if self.job.node.fresh { Vec::new() } else { self.target_between(after, last.as_ref())? };
                let rest = last.map(|_| Scope::All { deep: *deep, listing: Some(listing), from: until });
                Ok((source, target, rest))
            }
        }
    }

    fn source(&self, names: &[Bytes]) -> Step<Vec<Entry>> {
        let mut entries = Vec::with_capacity(names.len());
        for name in names.iter().filter(|name| !self.is_excluded(name)) {
            let entry = local::entry(self.open.as_fd(), name)
                .map_err(|errno| Trouble::local(&self.display(name), errno))?;
            entries.extend(entry);
        }
        Ok(entries)
    }

    fn target_of(&self, names: Vec<Bytes>) -> Step<Vec<Entry>> {
        let (mut entries, _) = self.round.resync.ask(Query::Entries { dir: self.job.node.id, names })?;
        entries.retain(|entry| !self.is_excluded(&entry.name));
        Ok(entries)
    }

    fn target_between(&self, after: Bytes, last: Option<&Bytes>) -> Step<Vec<Entry>> {
        let mut entries = self.round.resync.target_between(self.job.node.id, after, last)?;
        entries.retain(|entry| !self.is_excluded(&entry.name));
        Ok(entries)
    }

    fn is_excluded(&self, name: &Bytes) -> bool {
        self.root.excludes(&self.job.node.path, name)
    }

    pub(super) fn failed(&self, errno: Errno) -> Trouble {
        Trouble::local(&local::display(self.root, &self.job.node.path), errno)
    }

    /// The full path of an entry, for people.
    pub(super) fn display(&self, name: &Bytes) -> String {
        local::display(self.root, &[&self.job.node.path[..], std::slice::from_ref(name)].concat())
    }
}

impl Resync<'_> {
    /// The target's entries after one name and up to another.
    pub(super) fn target_between(
        &self,
        dir: ObjectId,
        mut after: Bytes,
        last: Option<&Bytes>,
    ) -> Step<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let limit = u32::try_from(LIST_LIMIT).unwrap_or(1024);
        loop {
            let (page, end) = self.ask(Query::List { dir, after, limit })?;
            let beyond = |entry: &Entry| last.is_some_and(|last| entry.name > *last);
            let enough = end || page.last().is_none_or(beyond);
            after = page.last().map(|entry| entry.name.clone()).unwrap_or_default();
            entries.extend(page.into_iter().filter(|entry| !beyond(entry)));
            if enough {
                return Ok(entries);
            }
        }
    }

    /// Entries of the target, and whether they are the last ones.
    pub(super) fn ask(&self, query: Query) -> Step<(Vec<Entry>, bool)> {
        match self.link.query(query)? {
            Answer::Entries { entries, end } => Ok((entries, end)),
            Answer::Digests(_) | Answer::Xattrs(_) | Answer::InFlight { .. } | Answer::Room(_) => {
                Err(unexpected())
            }
        }
    }
}

/// The target answered something else than was asked.
pub(super) fn unexpected() -> Trouble {
    Trouble::Failed("the other node's answer does not fit the question".into())
}
