//! Who reads the line. A thread that waits for an answer reads itself unless another one does, so that an answer needs no
//! thread between the socket and the one who waits for it; who has its answer passes the turn on.

use crate::sync::Arc;

use crate::sync::Mutex;
use crate::waiter::Waiter;

struct Inner<T> {
    led: bool,
    waiting: Vec<Arc<Waiter<T>>>,
    /// Counts the turns of those who wait.
    count: u64,
}

/// The turn to read.
pub(super) struct Turns<T>(Mutex<Inner<T>>);

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(Mutex::new(Inner { led: false, waiting: Vec::new(), count: 0 }))
    }
}

impl<T> Turns<T> {
    /// The turn, if nobody has it. It is given back by [`Turns::pass_on`].
    pub(super) fn take(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().led, true)
    }

    /// The turn, or a place in the queue for it: then the waiter is told when it has come.
    pub(super) fn take_or_queue(&self, waiter: &Arc<Waiter<T>>) -> bool {
        let mut inner = self.0.lock();
        if inner.led {
            inner.waiting.push(Arc::clone(waiter));
            return false;
        }
        inner.led = true;
        inner.count += 1;
        true
    }

    /// Gives up the place in the queue: the answer has come.
    pub(super) fn leave(&self, waiter: &Arc<Waiter<T>>) {
        self.0.lock().waiting.retain(|other| !Arc::ptr_eq(other, waiter));
    }

    /// Gives the turn to one who still waits, or to nobody.
    pub(super) fn pass_on(&self) {
        let mut inner = self.0.lock();
        while !inner.waiting.is_empty() {
            if inner.waiting.remove(0).take_turn() {
                inner.count += 1;
                return;
            }
        }
        inner.led = false;
    }

    /// How many turns those who wait have had.
    pub(super) fn count(&self) -> u64 {
        self.0.lock().count
    }
}
