//! How an epoch is closed, on either side.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use safe_replication::dirty::{Change, DirtySet};

use super::{AGE, Epochs, Inner, LONGEST, QUIET, SHARE, begin, unused};
use crate::clock::Boottime;
use crate::epoch::segment::Segment;

/// How often it is looked whether the operations of an epoch are carried out.
const GLANCE: Duration = Duration::from_millis(5);

/// An epoch that is being closed.
#[derive(Debug)]
pub struct Closing {
    /// Its number.
    pub epoch: u64,
    /// A session recorded in it: what it says is not all in the journal.
    pub paired: bool,
    begun: Boottime,
    segments: Vec<Arc<Segment>>,
    current: Arc<Segment>,
}

impl Closing {
    /// Everything that was recorded in it.
    #[must_use]
    pub fn set(&self) -> DirtySet {
        let mut all = DirtySet::new();
        self.segments.iter().for_each(|segment| all.merge(&segment.set()));
        all
    }

    /// Waits until its operations are carried out. False: not within `limit`, or `stop` says so.
    pub fn wait(&self, limit: Duration, stop: impl Fn() -> bool) -> bool {
        let begun = Boottime::now();
        let busy = |segment: &Arc<Segment>| segment.under_way.load(Ordering::Acquire) > 0;
        while self.segments.iter().any(busy) {
            if begun.elapsed() > limit || stop() {
                return false;
            }
            std::thread::sleep(GLANCE);
        }
        true
    }

    /// What is recorded now is durable, and what it says of earlier epochs.
    ///
    /// # Errors
    /// The disk failed.
    pub fn flush(&self) -> io::Result<()> {
        self.current.flush()
    }
}

impl Epochs {
    /// The present epoch should be closed now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let inner = self.inner.lock();
        if !inner.closing.is_empty() {
            return inner.tried.elapsed() >= AGE / 2;
        }
        let Some(since) = inner.since.filter(|_| inner.current.is_some()) else {
            return inner.wanted && inner.current.is_some();
        };
        let filling = inner.current.as_ref().is_some_and(|segment| segment.is_filling());
        inner.wanted || filling || since.elapsed() >= inner.age || inner.last.elapsed() >= QUIET
    }

    /// Begins to close an epoch: what follows is recorded in the next one. `alone`: by this node alone. None: nothing is
    /// recorded.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn begin_close(&self, alone: bool) -> io::Result<Option<Closing>> {
        let mut inner = self.inner.lock();
        inner.wanted = false;
        if alone {
            // From here on until a session begins again.
            inner.paired = false;
        }
        // One that could not be closed before is tried again, without what came after it.
        if inner.closing.is_empty() && !turn(&mut inner, &[])? {
            return Ok(None);
        }
        let Some(current) = inner.current.clone() else { return Ok(None) };
        inner.tried = Boottime::now();
        let (segments, epoch) = (inner.closing.clone(), inner.epoch - 1);
        let paired = segments.iter().any(|segment| segment.paired.load(Ordering::Acquire));
        Ok(Some(Closing { epoch, paired, begun: Boottime::now(), segments, current }))
    }

    /// It is durable on both nodes: what it records cannot differ.
    pub fn closed_on_both(&self, closing: &Closing) {
        let mut inner = self.inner.lock();
        inner.closed = inner.closed.max(closing.epoch);
        end(&mut inner, closing);
        tracing::debug!(epoch = closing.epoch, "an epoch is durable on both nodes");
    }

    /// It is durable here, and what it records is in the journal, which is durable.
    pub fn closed_alone(&self, closing: &Closing) {
        let mut inner = self.inner.lock();
        end(&mut inner, closing);
        tracing::debug!(epoch = closing.epoch, "an epoch is durable here");
    }

    /// The primary asks to close an epoch, and with that says that all before it are. `seeds`: what is not known to be
    /// carried out there. To be called in the order of its operations; writes nothing.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn asked_to_close(&self, epoch: u64, seeds: &[Change]) -> io::Result<Option<Closing>> {
        self.peer_closed(epoch.saturating_sub(1));
        let mut inner = self.inner.lock();
        inner.synced = 0;
        inner.epoch = epoch;
        turn(&mut inner, seeds)?;
        let Some(current) = inner.current.clone() else { return Ok(None) };
        let segments = inner.closing.clone();
        Ok(Some(Closing { epoch, paired: true, begun: Boottime::now(), segments, current }))
    }

    /// This node has synced for it.
    pub fn synced(&self, closing: &Closing) {
        self.inner.lock().synced = closing.epoch;
    }

    /// The other node says that this epoch is durable on both.
    pub fn peer_closed(&self, epoch: u64) {
        let mut inner = self.inner.lock();
        if inner.synced == 0 || inner.synced > epoch {
            return;
        }
        inner.closed = inner.closed.max(inner.synced);
        inner.synced = 0;
        let ended = std::mem::take(&mut inner.closing);
        inner.stale.extend(ended.iter().map(|segment| segment.slot));
        tracing::debug!(epoch, "the other node says that an epoch is durable on both nodes");
    }
}

/// Records in another segment from now on. False: there is none to record in.
fn turn(inner: &mut Inner, seeds: &[Change]) -> io::Result<bool> {
    let Some(before) = inner.current.clone() else { return Ok(false) };
    if unused(inner).is_none() {
        return Ok(false);
    }
    inner.epoch += 1;
    let segment = begin(inner, &DirtySet::new())?;
    if !seeds.is_empty() {
        segment.seed(seeds);
        inner.since = Some(Boottime::now());
    }
    inner.closing.push(before);
    Ok(true)
}

fn end(inner: &mut Inner, closing: &Closing) {
    inner.age = (closing.begun.elapsed() * SHARE).clamp(AGE, LONGEST);
    let ended = |segment: &Arc<Segment>| closing.segments.iter().any(|other| Arc::ptr_eq(segment, other));
    inner.closing.retain(|segment| !ended(segment));
    inner.stale.extend(closing.segments.iter().map(|segment| segment.slot));
}
