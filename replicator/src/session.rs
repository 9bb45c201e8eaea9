//! One session as the threads that carry out operations see it: numbers, acknowledgements, and its end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use safe_proto::replication::{Frame, Loss, frame};
use safe_replication::dirty::Change;
use safe_replication::op::{Number, Op};

use crate::clock::Boottime;
use crate::resync::link::{Answer, Failure, Query};
use crate::{waiter, wire};

/// Names a session: the link nonces of the module's first and second node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionName {
    /// Of the first node.
    pub first: u64,
    /// Of the second node.
    pub second: u64,
}

/// Most numbered frames under way; more wait their turn.
const MOST_PENDING: usize = 1024;

/// What carries the frames of a session.
pub trait Carrier: Send + Sync + fmt::Debug {
    /// Takes a frame; they are sent in the order in which they are taken. Never waits. False: no more are taken.
    fn queue(&self, frame: Frame) -> bool;

    /// Sends what is queued, unless another thread does at this moment.
    fn flush(&self);

    /// Has another thread send what is queued: for those who must not wait for the other node.
    fn hurry(&self);

    /// Returns when an answer has come; handles what else comes meanwhile.
    fn wait_for(&self, waiter: &Arc<Waiter>);
}

/// What comes of an operation or question.
pub type Outcome = Result<Option<Answer>, Failure>;

/// Who waits for it.
pub type Waiter = waiter::Waiter<Outcome>;

/// An answer that is still to come.
#[derive(Debug)]
pub struct Awaited {
    carrier: Arc<dyn Carrier>,
    waiter: Arc<Waiter>,
}

impl Awaited {
    /// Waits for the answer. It comes, or the session ends, which its stall and slow timeouts see to.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn wait(&self) -> Outcome {
        self.carrier.wait_for(&self.waiter);
        let answer = self.waiter.take();
        answer.unwrap_or_else(|| Err(Failure::Lost("the answer was taken by another thread".into())))
    }
}

struct Pending {
    waiter: Arc<Waiter>,
    since: Boottime,
    /// Payload and kind of a question, to read its answer by.
    query: Option<Query>,
    /// It may take as long as it takes: a sync of everything.
    unhurried: bool,
}

#[derive(Default)]
struct Inner {
    last: u64,
    pending: BTreeMap<u64, Pending>,
    /// Numbers whose operation is not both acknowledged and carried out here, and what it changes.
    open: BTreeMap<u64, Vec<Change>>,
    lost: Option<(Loss, String)>,
}

/// See the module.
pub struct Session {
    /// Counts the sessions of this process, from 1.
    pub serial: u64,
    /// Its name.
    pub name: SessionName,
    carrier: Arc<dyn Carrier>,
    inner: Mutex<Inner>,
    over: AtomicBool,
    room: Condvar,
    /// Round trips of the last second: their number and the sum in microseconds.
    trips: (AtomicU64, AtomicU64),
    /// The resync has ended.
    pub in_step: AtomicBool,
    ended: tokio::sync::Notify,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("serial", &self.serial)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session whose frames are carried by `carrier`.
    #[must_use]
    pub fn new(serial: u64, name: SessionName, carrier: Arc<dyn Carrier>) -> Arc<Self> {
        Arc::new(Self {
            serial,
            name,
            carrier,
            inner: Mutex::default(),
            over: AtomicBool::new(false),
            room: Condvar::new(),
            trips: (AtomicU64::new(0), AtomicU64::new(0)),
            in_step: AtomicBool::new(false),
            ended: tokio::sync::Notify::new(),
        })
    }

    /// Numbers an operation and sends it. The caller holds its keys until it has called [`Session::carried_out`]; if the
    /// session ends before, `changes` may be on one node only.
    ///
    /// # Errors
    /// The session has ended.
    pub fn send(&self, op: &Op, changes: &[Change]) -> Result<(Number, Awaited), Failure> {
        let sent = self.queue(op, changes)?;
        self.carrier.flush();
        Ok(sent)
    }

    /// As [`Session::send`], but only in front of what is sent next: for several at once, or for who must not wait.
    ///
    /// # Errors
    /// The session has ended.
    pub fn queue(&self, op: &Op, changes: &[Change]) -> Result<(Number, Awaited), Failure> {
        let unhurried = matches!(op, Op::SyncAll { .. });
        self.number(None, unhurried, changes, |number, watermark| {
            frame::Kind::Operation(wire::operation(number, watermark, op))
        })
    }

    /// Numbers a question and sends it.
    ///
    /// # Errors
    /// The session has ended.
    pub fn ask(&self, query: Query) -> Result<(Number, Awaited), Failure> {
        let question = wire::question(&query);
        // Counting a tree takes its time, and nothing waits for it.
        let unhurried = matches!(query, Query::Room { .. });
        let sent = self.number(Some(query), unhurried, &[], |number, _| {
            frame::Kind::Question(question.numbered(number))
        })?;
        self.carrier.flush();
        Ok(sent)
    }

    /// Sends what was queued.
    pub fn flush(&self) {
        self.carrier.flush();
    }

    fn number(
        &self,
        query: Option<Query>,
        unhurried: bool,
        changes: &[Change],
        build: impl FnOnce(Number, Number) -> frame::Kind,
    ) -> Result<(Number, Awaited), Failure> {
        let mut inner = self.inner.lock();
        while inner.lost.is_none() && inner.pending.len() >= MOST_PENDING {
            self.room.wait_for(&mut inner, Duration::from_millis(100));
        }
        if let Some((_, reason)) = &inner.lost {
            return Err(Failure::Lost(reason.clone()));
        }
        // Before the number is taken: an operation is not below its own watermark.
        let watermark = watermark(&inner);
        inner.last += 1;
        let number = Number(inner.last);
        if query.is_none() && !unhurried {
            inner.open.insert(number.0, changes.to_vec());
        }
        let waiter = Arc::new(Waiter::default());
        let pending = Pending { waiter: Arc::clone(&waiter), since: Boottime::now(), query, unhurried };
        inner.pending.insert(number.0, pending);
        // Within the lock, so that frames are in the order of their numbers.
        if !self.carrier.queue(Frame { kind: Some(build(number, watermark)) }) {
            drop(inner);
            self.lose(Loss::Stream, "the stream ended");
            return Err(Failure::Lost("the stream ended".into()));
        }
        Ok((number, Awaited { carrier: Arc::clone(&self.carrier), waiter }))
    }

    /// The operation is acknowledged and carried out here as well.
    pub fn carried_out(&self, number: Number) {
        self.inner.lock().open.remove(&number.0);
    }

    /// What may be on one node only, once the session has ended.
    #[must_use]
    pub fn uncertain(&self) -> Vec<Change> {
        self.inner.lock().open.values().flatten().cloned().collect()
    }

    /// Every operation up to here was acknowledged and carried out here.
    #[must_use]
    pub fn watermark(&self) -> Number {
        watermark(&self.inner.lock())
    }

    /// An answer came: when its question was sent. None: nothing was asked under this number, or it is no answer to it,
    /// which ends the session.
    #[must_use]
    pub fn complete(&self, result: safe_proto::replication::Result) -> Option<Boottime> {
        let mut inner = self.inner.lock();
        let pending = inner.pending.remove(&result.number)?;
        if inner.pending.len() + 1 >= MOST_PENDING {
            self.room.notify_all();
        }
        drop(inner);
        let micros = u64::try_from(pending.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.trips.0.fetch_add(1, Ordering::Relaxed);
        self.trips.1.fetch_add(micros, Ordering::Relaxed);
        let answer = wire::result(result, pending.query.as_ref());
        let valid = !matches!(answer, Err(Failure::Lost(_)));
        pending.waiter.complete(answer);
        valid.then_some(pending.since)
    }

    /// How many more numbered frames may be under way.
    #[must_use]
    pub fn room(&self) -> usize {
        MOST_PENDING.saturating_sub(self.inner.lock().pending.len())
    }

    /// Every operation was acknowledged and carried out here.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.inner.lock().open.is_empty()
    }

    /// Sends a frame that has no number, by another thread: this one must not wait for the other node.
    pub fn tell(&self, kind: frame::Kind) {
        if self.carrier.queue(Frame { kind: Some(kind) }) {
            self.carrier.hurry();
        } else {
            self.lose(Loss::Stream, "the stream ended");
        }
    }

    /// Answers; sent with the next [`Session::flush`].
    pub fn answer(&self, result: safe_proto::replication::Result) {
        if !self.carrier.queue(Frame { kind: Some(frame::Kind::Result(result)) }) {
            self.lose(Loss::Stream, "the stream ended");
        }
    }

    /// Ends the session: whatever waits for an answer gets none. The first reason counts.
    pub fn lose(&self, loss: Loss, reason: &str) {
        let mut inner = self.inner.lock();
        if inner.lost.is_none() {
            inner.lost = Some((loss, reason.to_owned()));
            self.over.store(true, Ordering::Release);
        }
        let pending = std::mem::take(&mut inner.pending);
        let reason = inner.lost.clone().map(|(_, reason)| reason).unwrap_or_default();
        drop(inner);
        for waiting in pending.into_values() {
            waiting.waiter.complete(Err(Failure::Lost(reason.clone())));
        }
        self.room.notify_all();
        self.ended.notify_waiters();
        self.ended.notify_one();
    }

    /// How and why the session ended, once it has.
    #[must_use]
    pub fn lost(&self) -> Option<(Loss, String)> {
        self.inner.lock().lost.clone()
    }

    /// It has ended.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Returns once the session has ended.
    pub async fn ended(&self) {
        while !self.is_lost() {
            self.ended.notified().await;
        }
    }

    /// Operations under way and how long the oldest one has been.
    #[must_use]
    pub fn backlog(&self) -> (u64, Duration) {
        let inner = self.inner.lock();
        let oldest = inner
            .pending
            .values()
            .find(|pending| !pending.unhurried)
            .map_or(Duration::ZERO, |pending| pending.since.elapsed());
        (inner.pending.len() as u64, oldest)
    }

    /// Mean round trip since the last call, in microseconds; 0: none.
    pub fn take_round_trip(&self) -> u32 {
        let (count, sum) = (self.trips.0.swap(0, Ordering::Relaxed), self.trips.1.swap(0, Ordering::Relaxed));
        u32::try_from(sum.checked_div(count).unwrap_or(0)).unwrap_or(u32::MAX)
    }
}

fn watermark(inner: &Inner) -> Number {
    Number(inner.open.first_key_value().map_or(inner.last, |(first, _)| first - 1))
}
