//! Collects operations that belong to one thread's work and submits them together.

use std::sync::atomic::Ordering;

use safe_replication::op::Op;

use super::{Resync, Step};

/// Bytes of content that are submitted together.
const BYTES: usize = 1 << 20;

/// Operations that are submitted together.
const OPS: usize = 128;

/// See the module. What is not flushed is not sent.
pub(super) struct Sender<'a> {
    resync: &'a Resync<'a>,
    ops: Vec<Op>,
    bytes: usize,
    pays: bool,
}

impl<'a> Sender<'a> {
    pub(super) const fn new(resync: &'a Resync<'a>) -> Self {
        Self { resync, ops: Vec::new(), bytes: 0, pays: true }
    }

    /// Does not wait for the throttle, because keys are held that the application may want: the caller has, or will.
    pub(super) fn under_keys(resync: &'a Resync<'a>) -> Self {
        Self { pays: false, ..Self::new(resync) }
    }

    /// One more operation.
    pub(super) fn push(&mut self, op: Op) -> Step<()> {
        self.bytes += op.payload();
        self.ops.push(op);
        if self.bytes >= BYTES || self.ops.len() >= OPS { self.flush() } else { Ok(()) }
    }

    /// Everything pushed is applied when this returns.
    pub(super) fn flush(&mut self) -> Step<()> {
        if self.ops.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.bytes) as u64;
        if self.pays {
            self.resync.pass(bytes)?;
        }
        let ops = std::mem::take(&mut self.ops);
        self.resync.link.submit(ops)?;
        self.resync.applied(bytes);
        Ok(())
    }
}

impl Resync<'_> {
    /// Wait as long as the throttle says; not while the application is held back.
    pub(super) fn pass(&self, bytes: u64) -> Step<()> {
        if self.holding.load(Ordering::Relaxed) {
            return self.go_on();
        }
        let stop = || self.not_stopped().is_err();
        self.throttle.pass(bytes, self.link.waiting(), &stop);
        self.go_on()
    }
}
