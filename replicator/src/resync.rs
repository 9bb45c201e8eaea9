//! Brings the peer's copy in step while the application runs. Driven by the source.
//!
//! Two stages. **Apart**: names may differ, so that objects cannot be addressed on the target; every operation of the
//! application is done alone and marked. In rounds, the marks about names are taken and what they are about is compared
//! and repaired, by name, without holding the application back: what it changes meanwhile is marked again, for the next
//! round. When little is left, everything is held for a moment, the rest is done, and the stage is **aligned**: all
//! names are equal, operations are synchronous but on objects that still differ, and those are drained one by one under
//! their keys. A full comparison is a round in which everything is marked.
//!
//! Reading order: [`link`] what it needs of the session, [`room`] on the target, [`local`] reading of trees, [`round`] and
//! [`page`] names, [`repair`] and [`inode`] one difference, [`drain`] and [`content`] one object, [`spare`] what was renamed,
//! [`answer`] the target's side, [`verify`] comparing without repairing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use safe_replication::dirty::Change;
use safe_replication::op::Op;

use crate::backing::{Backing, Root};
use crate::clock::Boottime;
use crate::knowledge::Knowledge;
use crate::progress::Progress;
use crate::throttle::Throttle;
use link::{Failure, Key, Link};
use spare::Spares;

pub mod answer;
mod content;
mod drain;
mod inode;
pub mod link;
pub mod local;
pub mod located;
mod meta;
mod names;
mod page;
mod reach;
mod repair;
mod room;
mod round;
mod sender;
mod spare;
pub mod verify;
mod work;

/// How the target is brought in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Resend what was in flight on either side: the target's copy is a good one all the while.
    Repair,
    /// Resend what is marked on either side.
    Delta,
    /// Compare everything.
    Full,
}

/// How a resync ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was sent and applied, and is durable on the target; operations are synchronous.
    InStep,
    /// The session is gone, or it was told to stop. What is left is marked.
    Lost(String),
    /// It cannot be completed; the reason is for people. What is left is marked.
    Failed(String),
}

/// A resync of one session.
pub struct Resync<'a> {
    link: &'a dyn Link,
    knowledge: &'a Knowledge,
    backing: &'a Backing,
    progress: &'a Progress,
    throttle: &'a Throttle,
    stop: &'a AtomicBool,
    synced: Mutex<Boottime>,
    unsynced: AtomicU64,
    // Everything is held: a sync would hold the application back.
    holding: AtomicBool,
    spares: Spares,
}

/// Threads that wait for the target side by side.
const THREADS: usize = 6;

/// Rounds of names while everything is held: a round repairs what is marked, the next one what that has uncovered.
const INSISTENCE: u32 = 16;

/// Rounds of names, and passes of objects, that bring nothing forward before it is given up.
const PATIENCE: u32 = 32;

/// How often the target makes durable what it was sent.
const SYNC_INTERVAL: Duration = Duration::from_secs(30);

/// After how much content at the latest.
const SYNC_BYTES: u64 = 512 << 20;

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// The session is gone.
    Lost(String),
    /// No use in trying again.
    Failed(String),
    /// Something changed under way: to be marked and tried again.
    Again(String),
}

type Step<T> = Result<T, Trouble>;

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(reason) => Self::Lost(reason),
            Failure::Refused(errno) => match Errno::from_raw_os_error(errno) {
                Errno::NOSPC
                | Errno::DQUOT
                | Errno::ROFS
                | Errno::IO
                | Errno::NOMEM
                | Errno::PERM
                | Errno::FBIG => Self::Failed(failure.to_string()),
                _ => Self::Again(failure.to_string()),
            },
        }
    }
}

impl Trouble {
    /// A local error about `what`. Something that is gone was changed by the application meanwhile.
    fn local(what: &str, errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::STALE | Errno::NOTDIR | Errno::LOOP | Errno::INVAL => {
                Self::Again(format!("{what}: {errno}"))
            }
            Errno::XDEV => Self::Failed(format!("{what}: another filesystem is mounted there; unmount it")),
            _ => Self::Failed(format!("{what} cannot be read: {errno}")),
        }
    }
}

fn journal(error: std::io::Error) -> Trouble {
    Trouble::Failed(format!("the journal cannot be written: {error}"))
}

impl<'a> Resync<'a> {
    /// As fast as the throttle lets it; `stop`: set it to end the resync soon.
    #[must_use]
    pub fn new(
        link: &'a dyn Link,
        knowledge: &'a Knowledge,
        backing: &'a Backing,
        progress: &'a Progress,
        throttle: &'a Throttle,
        stop: &'a AtomicBool,
    ) -> Self {
        let (synced, unsynced) = (Mutex::new(Boottime::now()), AtomicU64::new(0));
        let (holding, spares) = (AtomicBool::new(false), Spares::default());
        Self { link, knowledge, backing, progress, throttle, stop, synced, unsynced, holding, spares }
    }

    /// Run it to its end.
    pub fn run(&self, plan: Plan) -> Outcome {
        match self.steps(plan) {
            Ok(()) => Outcome::InStep,
            Err(trouble) => {
                self.knowledge.apart();
                match trouble {
                    Trouble::Lost(reason) => Outcome::Lost(reason),
                    Trouble::Failed(reason) | Trouble::Again(reason) => Outcome::Failed(reason),
                }
            }
        }
    }

    fn steps(&self, plan: Plan) -> Step<()> {
        self.go_on()?;
        // The application waits for a repair, which changes no more than what was in flight.
        if plan != Plan::Repair {
            room::ask(self, plan)?;
        }
        match plan {
            Plan::Full => self.mark(&[Change::Everything])?,
            Plan::Repair => located::import(self)?,
            Plan::Delta => {
                located::import(self)?;
                self.announce()?;
            }
        }
        self.spares.allow(plan != Plan::Repair);
        let mut escalated = plan == Plan::Full;
        loop {
            match self.align().and_then(|()| self.drop_spares_unless_wanted()).and_then(|()| self.drain()) {
                Ok(()) => {}
                // Something could not be found or did not stay repaired: compare everything, once.
                Err(Trouble::Again(reason)) if !escalated => {
                    tracing::warn!(reason, "resync compares everything");
                    escalated = true;
                    self.mark(&[Change::Everything])?;
                }
                // No space, perhaps, and what is kept of renamed files takes some.
                Err(Trouble::Failed(reason)) if self.has_spares() => {
                    tracing::warn!(reason, "resync keeps no file without a name any more");
                    self.spares.allow(false);
                    self.drop_spares()?;
                }
                Err(trouble) => return Err(trouble),
            }
            if self.knowledge.is_empty() {
                break;
            }
        }
        self.drop_spares()?;
        self.progress.ended();
        self.sync(true)
    }

    /// Have the target make durable what was sent so far: it need not be sent again, whatever happens to it. One at a
    /// time, since what is marked as sent while a sync runs is not covered by it.
    fn sync(&self, in_step: bool) -> Step<()> {
        let mut synced = self.synced.lock();
        self.unsynced.store(0, Ordering::Relaxed);
        self.knowledge.sync_begins();
        self.link.submit(vec![Op::SyncAll { in_step, epoch: 0 }])?;
        self.knowledge.sync_ended();
        *synced = Boottime::now();
        Ok(())
    }

    /// As [`Self::sync`], now and then, so that each is short. Holds nobody back: nothing may be held.
    fn sync_sometimes(&self) -> Step<()> {
        let Some(synced) = self.synced.try_lock() else { return Ok(()) };
        let due = self.unsynced.load(Ordering::Relaxed) >= SYNC_BYTES || synced.elapsed() >= SYNC_INTERVAL;
        drop(synced);
        if due && !self.holding.load(Ordering::Relaxed) { self.sync(false) } else { Ok(()) }
    }

    /// So much content was applied by the target.
    fn applied(&self, bytes: u64) {
        self.progress.sent(bytes);
        self.unsynced.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Rounds of names until all are equal.
    fn align(&self) -> Step<()> {
        let mut trouble = String::new();
        for number in 0..PATIENCE {
            self.go_on()?;
            let mut held = Some(self.link.lock(&[Key::Everything]));
            let mut insisted = 0;
            while let Some(names) = self.knowledge.take_names() {
                if !round::is_short(&names, number) {
                    held = None;
                }
                self.holding.store(held.is_some(), Ordering::Relaxed);
                let result = self.round(&names);
                self.holding.store(false, Ordering::Relaxed);
                trouble = result?.unwrap_or(trouble);
                if held.is_none() {
                    break;
                }
                // Nothing else changes names now: what does not become equal is not only what is marked.
                insisted += 1;
                if insisted == INSISTENCE {
                    return Err(Trouble::Again(format!("the names do not become equal: {trouble}")));
                }
            }
            if held.is_some() {
                return Ok(());
            }
        }
        Err(Trouble::Failed(format!("the names do not stay equal; last trouble: {trouble}")))
    }

    fn mark(&self, changes: &[Change]) -> Step<()> {
        self.knowledge.mark(changes).map_err(journal)
    }

    /// Between two pieces of work, where no keys are held: waits while it is paused, and ends it when told.
    fn go_on(&self) -> Step<()> {
        // While everything is held the application waits.
        if !self.holding.load(Ordering::Relaxed) {
            self.throttle.hold(&|| self.not_stopped().is_err());
        }
        self.not_stopped()
    }

    /// It goes on, as far as those who can stop it are concerned. Waits for nothing: keys may be held.
    fn not_stopped(&self) -> Step<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Trouble::Lost("told to stop".into())) } else { Ok(()) }
    }

    fn root(&self, index: u16) -> Step<&Root> {
        self.backing.roots.get(usize::from(index)).ok_or_else(|| {
            Trouble::Failed(format!("the journal names directory {index}, which the module has not"))
        })
    }
}
