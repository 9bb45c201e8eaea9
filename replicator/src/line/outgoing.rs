//! What is on its way out. Whoever has a frame sends it, together with what others queued meanwhile; who finds another one
//! sending leaves it to that one, which looks again before it is done.

use std::collections::VecDeque;

use crate::sync::{Condvar, Mutex};

struct Queue<F> {
    frames: VecDeque<F>,
    /// Nothing is taken any more.
    closed: bool,
    /// Somebody who must not wait wants it sent.
    hurry: bool,
}

/// Frames `F`, sent through `W`.
pub(super) struct Outgoing<F, W> {
    queue: Mutex<Queue<F>>,
    hurried: Condvar,
    /// Held by who sends.
    way: Mutex<W>,
}

impl<F, W: Default> Default for Outgoing<F, W> {
    fn default() -> Self {
        let queue = Queue { frames: VecDeque::new(), closed: false, hurry: false };
        Self { queue: Mutex::new(queue), hurried: Condvar::default(), way: Mutex::default() }
    }
}

impl<F, W> Outgoing<F, W> {
    /// Takes a frame, unless there are `most` already. False: not taken.
    pub(super) fn push(&self, frame: F, most: usize) -> bool {
        let mut queue = self.queue.lock();
        let taken = !queue.closed && queue.frames.len() < most;
        if taken {
            queue.frames.push_back(frame);
        }
        taken
    }

    /// The next frame, for who sends.
    pub(super) fn next(&self) -> Option<F> {
        self.queue.lock().frames.pop_front()
    }

    /// Sends what is queued, unless another one does at this moment. `send` takes all there is by [`Outgoing::next`].
    ///
    /// # Errors
    /// As `send`.
    pub(super) fn flush<E>(&self, mut send: impl FnMut(&mut W) -> Result<(), E>) -> Result<(), E> {
        while !self.queue.lock().frames.is_empty() {
            let Some(mut way) = self.way.try_lock() else { return Ok(()) };
            send(&mut way)?;
        }
        Ok(())
    }

    /// Sends even if nothing is queued, and after whoever sends at this moment: there may be something besides.
    ///
    /// # Errors
    /// As `send`.
    pub(super) fn flush_besides<E>(&self, mut send: impl FnMut(&mut W) -> Result<(), E>) -> Result<(), E> {
        send(&mut self.way.lock())?;
        self.flush(send)
    }

    /// Has the thread that waits in [`Outgoing::wait_for_hurry`] send.
    pub(super) fn hurry(&self) {
        self.queue.lock().hurry = true;
        self.hurried.notify_one();
    }

    /// Takes no more frames; what is queued is to be sent.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        (queue.closed, queue.hurry) = (true, true);
        self.hurried.notify_one();
    }

    /// Waits until somebody is in a hurry. True: it is for the last time.
    pub(super) fn wait_for_hurry(&self) -> bool {
        let mut queue = self.queue.lock();
        while !queue.hurry {
            self.hurried.wait(&mut queue);
        }
        queue.hurry = false;
        queue.closed
    }
}
