//! Holds the keys of an operation while it is decided and carried out.

use std::collections::HashMap;

use safe_replication::key::Key;
use safe_replication::order::{Order, Ticket};

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex};

#[derive(Debug, Default)]
struct Turn {
    come: Mutex<bool>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    order: Order,
    waiting: HashMap<Ticket, Arc<Turn>>,
}

/// Who holds which keys.
#[derive(Debug, Default)]
pub struct Locks {
    inner: Mutex<Inner>,
    waiting: AtomicUsize,
}

/// Keys held; released when dropped.
#[derive(Debug)]
pub struct Guard<'a> {
    locks: &'a Locks,
    ticket: Ticket,
}

impl Locks {
    /// Waits until no earlier holder conflicts. Who asks first gets first. What is held must be given back without
    /// waiting for other keys, so that this wait ends when the operations before it do.
    #[must_use]
    pub fn hold(&self, keys: &[Key]) -> Guard<'_> {
        let mut inner = self.inner.lock();
        let (ticket, ready) = inner.order.enter(keys);
        let guard = Guard { locks: self, ticket };
        if ready {
            return guard;
        }
        let turn = Arc::new(Turn::default());
        inner.waiting.insert(ticket, Arc::clone(&turn));
        drop(inner);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut come = turn.come.lock();
        while !*come {
            turn.changed.wait(&mut come);
        }
        drop(come);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut inner = self.locks.inner.lock();
        let Inner { order, waiting } = &mut *inner;
        order.leave(self.ticket, |ticket| {
            if let Some(turn) = waiting.remove(&ticket) {
                *turn.come.lock() = true;
                turn.changed.notify_one();
            }
        });
    }
}
