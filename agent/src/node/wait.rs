//! Waiting on a thread of one's own: nothing between what happens and the thread has to be scheduled first, neither a
//! worker of the runtime nor the thread that keeps its timers.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use crate::clock;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls the future on this thread until it is ready. None: `limit` is over first. It is polled at least once, and must need
/// no timer and no descriptor of a runtime that this thread drives.
pub(super) fn within<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let begun = clock::now();
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(done);
        }
        match limit.map(|limit| limit.saturating_sub(clock::now().since(begun))) {
            Some(Duration::ZERO) => return None,
            Some(rest) => std::thread::park_timeout(rest),
            None => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn what_another_thread_sends_ends_the_wait() {
        let (sender, mut receiver) = mpsc::channel(1);
        let other = std::thread::spawn(move || sender.blocking_send(7));
        assert_eq!(within(None, receiver.recv()), Some(Some(7)));
        other.join().expect("it ends").expect("received");
    }

    #[test]
    fn the_wait_ends_in_time() {
        let limit = Duration::from_millis(20);
        let begun = clock::now();
        assert_eq!(within(Some(limit), std::future::pending::<()>()), None);
        assert!(clock::now().since(begun) >= limit);
        assert_eq!(within(Some(Duration::ZERO), async { 1 }), Some(1), "polled once");
    }
}
