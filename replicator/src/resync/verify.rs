//! Comparing both copies by content while they are in step and the application runs. Nothing is changed, and only
//! entries and digests travel.
//!
//! What seems to differ may just be on its way: it is looked at again while its keys are held, and counts only if it
//! differs then. So a file that is being written is compared like any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use safe_replication::dirty::{Change, DirtySet, Object};
use safe_replication::op::ObjectId;

use super::work::work;
use super::{Outcome, Resync, Step, THREADS, Trouble};
use dir::{Dir, Job};
use twins::Twins;

mod dir;
mod settle;
mod twins;

/// Differences that are named; the others are counted.
pub const NAMED: usize = 1000;

/// In what something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// Only the source has it.
    Missing,
    /// Only the target has it.
    Extra,
    /// Type, device number or target of a symbolic link.
    Type,
    /// Permission, set-id and sticky bits.
    Mode,
    /// Owner or group.
    Owner,
    /// Modification time.
    Time,
    /// Extended attributes, ACLs included.
    Xattrs,
    /// Which names are names of one file.
    Links,
    /// Content or size: bytes from `offset`, `length` of them.
    Content {
        /// First byte.
        offset: u64,
        /// Bytes; the whole block in which something differs.
        length: u64,
    },
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Index of the replicated directory.
    pub root: u16,
    /// Names from there.
    pub path: Vec<Bytes>,
    /// In what.
    pub aspect: Aspect,
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Findings {
    count: AtomicU64,
    kept: Mutex<(Vec<Difference>, DirtySet)>,
}

impl Findings {
    /// How many differences there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The first [`NAMED`] of them.
    #[must_use]
    pub fn named(&self) -> Vec<Difference> {
        self.kept.lock().0.clone()
    }

    /// What to mark so that a resync repairs them all.
    #[must_use]
    pub fn changes(&self) -> DirtySet {
        self.kept.lock().1.clone()
    }

    fn add(&self, difference: Difference, changes: &[Change]) {
        tracing::warn!(
            path = %String::from_utf8_lossy(&super::local::join(&difference.path)),
            aspect = ?difference.aspect,
            "the copies differ"
        );
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept.lock();
        if kept.0.len() < NAMED {
            kept.0.push(difference);
        }
        for change in changes {
            kept.1.mark(change);
        }
    }
}

/// One comparison of everything.
struct Verification<'a> {
    resync: &'a Resync<'a>,
    findings: &'a Findings,
    twins: Twins<'a>,
}

impl Resync<'_> {
    /// Compares everything; the copies must be in step. [`Outcome::InStep`]: to its end, whatever was found.
    pub fn verify(&self, findings: &Findings) -> Outcome {
        let verification = Verification { resync: self, findings, twins: Twins::default() };
        match verification.run() {
            Ok(()) => Outcome::InStep,
            Err(Trouble::Lost(reason)) => Outcome::Lost(reason),
            Err(Trouble::Failed(reason) | Trouble::Again(reason)) => Outcome::Failed(reason),
        }
    }
}

impl<'a> Verification<'a> {
    fn run(&self) -> Step<()> {
        let mut jobs = Vec::new();
        for root in self.resync.backing.roots.iter() {
            let id = ObjectId::root(u32::from(root.index));
            let dir = Arc::new(Dir::new(root.object.clone(), id, Vec::new(), self.resync.link));
            self.settle_root(&dir)?;
            jobs.push(Job::all(dir));
        }
        work(jobs, THREADS, &|job: Job<'a>| {
            self.resync.go_on()?;
            match self.page(&job) {
                Err(Trouble::Again(reason)) => self.anew(job, reason),
                other => other,
            }
        })
    }

    fn differs(&self, dir: &Dir<'_>, name: Option<&Bytes>, aspect: Aspect, changes: &[Change]) {
        let path = dir.path.iter().chain(name).cloned().collect();
        self.findings.add(Difference { root: dir.object.root, path, aspect }, changes);
    }
}

/// Repairs what a name stands for, with everything below it.
fn name_change(dir: &Object, name: &Bytes) -> Change {
    Change::Name { dir: dir.clone(), name: name[..].into(), deep: true }
}
