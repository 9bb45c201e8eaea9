//! Requests that come too early: the kernel still keeps content of a file that must be written first. Few threads of
//! their own see to them, for the worker that read such a request may be the one that has to write.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Shared, answer, carry};
use crate::fuse::courier::Courier;
use crate::fuse::reply::Reply;
use crate::fuse::request::Request;

/// Threads at most: what is written meanwhile is done by the workers.
const MOST: usize = 4;

/// One request, and the files of which everything must have come.
pub(super) struct Parked {
    pub(super) unique: u64,
    pub(super) request: Request,
    pub(super) files: Vec<u64>,
}

/// Requests that wait. As many as threads of applications do: each of them waits for its answer.
#[derive(Default)]
pub(super) struct Parking(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Parked>,
    threads: usize,
    /// Not in use now; one for each thread at most.
    couriers: Vec<Courier>,
}

impl Parking {
    /// The next one for this thread; none: the thread ends.
    fn next(&self) -> Option<Parked> {
        let mut queue = self.0.lock();
        let next = queue.waiting.pop_front();
        queue.threads -= usize::from(next.is_none());
        next
    }
}

/// Sees to a request later.
pub(super) fn park(shared: &Arc<Shared>, parked: Parked) {
    let mut queue = shared.parking.0.lock();
    queue.waiting.push_back(parked);
    if queue.threads >= MOST {
        return;
    }
    queue.threads += 1;
    drop(queue);
    *shared.workers.lock() += 1;
    let own = Arc::clone(shared);
    let started = std::thread::Builder::new().name("write-back".into()).spawn(move || {
        while let Some(parked) = own.parking.next() {
            see_to(&own, parked);
        }
        *own.workers.lock() -= 1;
        own.changed.notify_all();
    });
    if let Err(error) = started {
        tracing::warn!(%error, "cannot start a thread for what the kernel has to write back");
        *shared.workers.lock() -= 1;
        refuse(shared);
    }
}

fn see_to(shared: &Shared, parked: Parked) {
    // The connection may have ended meanwhile, which the workers see by themselves.
    let _goes_on = match parked.files.iter().try_for_each(|file| flush(shared, *file)) {
        Ok(()) => carry(shared, parked.unique, Some(parked.request)),
        Err(error) => {
            tracing::error!(%error, "the kernel cannot be made to write a file back");
            answer(shared, &Reply::error(parked.unique, libc::EIO), &[])
        }
    };
}

/// Has the kernel write back all that it has of a file. A courier that was killed is replaced once.
fn flush(shared: &Shared, file: u64) -> std::io::Result<()> {
    let known = shared.parking.0.lock().couriers.pop();
    if let Some(mut courier) = known
        && courier.flush(file).is_ok()
    {
        shared.parking.0.lock().couriers.push(courier);
        return Ok(());
    }
    let mut courier = Courier::start(&shared.device)?;
    courier.flush(file)?;
    shared.parking.0.lock().couriers.push(courier);
    Ok(())
}

/// No thread can be started, and none may be left: without any answer the applications would hang for ever.
fn refuse(shared: &Shared) {
    let mut queue = shared.parking.0.lock();
    queue.threads -= 1;
    let left = if queue.threads == 0 { std::mem::take(&mut queue.waiting) } else { VecDeque::new() };
    drop(queue);
    for parked in left {
        let _goes_on = answer(shared, &Reply::error(parked.unique, libc::EAGAIN), &[]);
    }
}
