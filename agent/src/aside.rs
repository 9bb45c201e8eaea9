//! Work that nobody waits for, done by a thread of its own in the order in which it was given. What may wait is bounded; what
//! does not fit is counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// What is done with what was given.
pub trait Work: Send + 'static {
    /// Something to be done.
    type Item: Send;

    /// Does it.
    fn take(&mut self, item: Self::Item);

    /// So many did not fit.
    fn missing(&mut self, count: u64);
}

enum Order<T> {
    Take(T),
    Flush(SyncSender<()>),
}

/// A way to the thread; cheap to clone. The thread ends with the last one.
#[derive(Debug)]
pub struct Aside<T> {
    orders: SyncSender<Order<T>>,
    lost: Arc<AtomicU64>,
}

impl<T> Clone for Aside<T> {
    fn clone(&self) -> Self {
        Self { orders: self.orders.clone(), lost: Arc::clone(&self.lost) }
    }
}

impl<T: Send + 'static> Aside<T> {
    /// Starts the thread. `bound`: how much may wait.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(name: &str, bound: usize, mut work: impl Work<Item = T>) -> io::Result<Self> {
        let (orders, inbox) = sync_channel(bound);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Ok(order) = inbox.recv() {
                match order {
                    Order::Take(item) => work.take(item),
                    Order::Flush(done) => {
                        let _gone = done.try_send(());
                    }
                }
                let lost = counted.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    work.missing(lost);
                }
            }
        })?;
        Ok(Self { orders, lost })
    }

    /// Never waits.
    pub fn give(&self, item: T) {
        if self.orders.try_send(Order::Take(item)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was given is done, but not for longer than this.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.orders.try_send(Order::Flush(done)).is_ok() {
            let _timeout = wait.recv_timeout(limit);
        }
    }
}
