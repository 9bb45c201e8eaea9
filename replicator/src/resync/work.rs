//! Jobs that lead to further jobs, done by several threads.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Step, Trouble};

struct Queue<J> {
    // Last in, first out: the walk goes into depth first, so that few wait.
    jobs: Vec<J>,
    running: usize,
    ended: Option<Trouble>,
}

/// Works until nothing is left; the first trouble ends it.
pub(super) fn work<J: Send>(
    jobs: Vec<J>,
    threads: usize,
    each: &(impl Fn(J) -> Step<Vec<J>> + Sync),
) -> Step<()> {
    let queue = Mutex::new(Queue { jobs, running: 0, ended: None });
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| worker(&queue, &changed, each));
        }
        worker(&queue, &changed, each);
    });
    queue.into_inner().ended.map_or(Ok(()), Err)
}

fn worker<J>(queue: &Mutex<Queue<J>>, changed: &Condvar, each: &impl Fn(J) -> Step<Vec<J>>) {
    let mut held = queue.lock();
    loop {
        if held.ended.is_some() || (held.jobs.is_empty() && held.running == 0) {
            held.jobs.clear();
            changed.notify_all();
            return;
        }
        let Some(job) = held.jobs.pop() else {
            // The deadline is for the case that a notification is missed.
            changed.wait_for(&mut held, Duration::from_millis(100));
            continue;
        };
        held.running += 1;
        drop(held);
        let result = each(job);
        held = queue.lock();
        held.running -= 1;
        match result {
            Ok(jobs) => held.jobs.extend(jobs),
            Err(trouble) => held.ended = Some(trouble),
        }
        changed.notify_all();
    }
}
