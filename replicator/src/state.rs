//! What this replicator may do right now: go on alone, use a session, or neither.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use crate::clock::Boottime;
use crate::fuse::caller::Caller;
use crate::fuse::session::Gate;
use crate::session::Session;

/// What an operation may do.
#[derive(Debug)]
pub enum Standing {
    /// There is a session in which this node is the primary.
    Session(Arc<Session>),
    /// Going on alone is settled.
    Alone,
    /// Neither: wait.
    Neither,
}

#[derive(Debug, Default)]
struct Inner {
    session: Option<Arc<Session>>,
    settled: Option<u128>,
    wrote_alone: bool,
    /// The mounts end: nothing waits any more.
    closing: bool,
    /// Raised with each change, so that a waiter can tell whether it saw it.
    changes: u64,
}

/// Shared by all threads.
#[derive(Debug)]
pub struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Nothing is answered once it is frozen.
    pub gate: Arc<Gate>,
    contact: AtomicU64,
    limit: AtomicU64,
}

/// How often something that waits looks again by itself.
const GLANCE: Duration = Duration::from_millis(20);

impl State {
    /// Nothing is allowed yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            changed: Condvar::new(),
            gate: Arc::default(),
            contact: AtomicU64::new(0),
            limit: AtomicU64::new(0),
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock();
        let result = change(&mut inner);
        inner.changes += 1;
        self.changed.notify_all();
        result
    }

    /// For how long the other node bears silence: replies are held after 0.9 of it.
    pub fn set_limit(&self, limit: Duration) {
        self.limit.store(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// What was set.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_nanos(self.limit.load(Ordering::SeqCst))
    }

    /// Something authenticated came from the peer at this instant, on any way.
    pub fn contact(&self, at: Boottime) {
        self.contact.fetch_max(at.0.min(Boottime::now().0), Ordering::AcqRel);
    }

    /// When something last came from the peer.
    #[must_use]
    pub fn last_contact(&self) -> Boottime {
        Boottime(self.contact.load(Ordering::Acquire))
    }

    /// A session in which this node is the primary begins.
    pub fn attach(&self, session: Arc<Session>) {
        self.change(|inner| inner.session = Some(session));
    }

    /// It ended.
    pub fn detach(&self) {
        self.change(|inner| inner.session = None);
    }

    /// Operations may be acknowledged alone under this lineage: ordered when the gate had been frozen so often. False: it
    /// was frozen since, they may not.
    #[must_use]
    pub fn settle(&self, lineage: u128, fences: u64) -> bool {
        self.change(|inner| {
            // Whoever freezes unsettles afterwards.
            if self.gate.fences() != fences {
                return false;
            }
            if inner.settled != Some(lineage) {
                inner.wrote_alone = false;
            }
            inner.settled = Some(lineage);
            true
        })
    }

    /// They may not any more.
    pub fn unsettle(&self) {
        self.change(|inner| inner.settled = None);
    }

    /// The lineage under which operations may be acknowledged alone.
    #[must_use]
    pub fn settled(&self) -> Option<u128> {
        self.inner.lock().settled
    }

    /// An operation is about to be acknowledged alone: the lineage, if it is the first one under it.
    #[must_use]
    pub fn first_alone(&self) -> Option<u128> {
        let mut inner = self.inner.lock();
        let lineage = inner.settled.filter(|_| !inner.wrote_alone)?;
        inner.wrote_alone = true;
        Some(lineage)
    }

    /// The lineage under which operations were acknowledged alone, while they may be.
    #[must_use]
    pub fn wrote_alone(&self) -> Option<u128> {
        let inner = self.inner.lock();
        inner.settled.filter(|_| inner.wrote_alone)
    }

    /// Whatever waits gets an error: the mounts end. Or they begin, and may wait again.
    pub fn set_closing(&self, closing: bool) {
        self.change(|inner| inner.closing = closing);
    }

    /// What may be done now, and a mark for [`State::wait`].
    #[must_use]
    pub fn standing(&self) -> (Standing, u64) {
        let inner = self.inner.lock();
        let standing = match (&inner.session, inner.settled) {
            (Some(session), _) => Standing::Session(Arc::clone(session)),
            (None, Some(_)) => Standing::Alone,
            (None, None) => Standing::Neither,
        };
        (standing, inner.changes)
    }

    /// Waits until something changed since the mark, but not for long: what else the caller waits for may change too.
    ///
    /// # Errors
    /// The mounts end.
    pub fn wait(&self, mark: u64) -> Result<(), Errno> {
        let mut inner = self.inner.lock();
        if inner.changes == mark && !inner.closing {
            self.changed.wait_for(&mut inner, GLANCE);
        }
        if inner.closing || self.gate.frozen() { Err(Errno::NOTCONN) } else { Ok(()) }
    }

    /// Returns when an acknowledgement may leave: going on alone is settled, or the peer was heard so recently that it
    /// cannot have taken over.
    ///
    /// # Errors
    /// The mounts end.
    pub fn may_acknowledge(&self) -> Result<(), Errno> {
        let mut glances: u32 = 0;
        loop {
            glances += 1;
            if glances.is_multiple_of(8) && Caller::current().is_dying() {
                // Nobody learns of this answer.
                return Err(Errno::INTR);
            }
            if self.last_contact().elapsed() < self.limit() / 10 * 9 {
                return Ok(());
            }
            let (settled, mark) = {
                let inner = self.inner.lock();
                (inner.settled.is_some(), inner.changes)
            };
            if settled {
                return Ok(());
            }
            self.wait(mark)?;
        }
    }
}
