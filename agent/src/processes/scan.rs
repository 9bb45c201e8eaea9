//! Looks at many processes, in a thread that may be left behind.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

/// Looking at one process takes microseconds; one that takes this long is blocked.
const PATIENCE: Duration = Duration::from_millis(500);

/// Threads left behind in one scan before it ends: each stands for one stuck process.
const THREADS: usize = 16;

/// Looks at one process.
pub(super) type Judge = dyn Fn(i32) -> bool + Send + Sync;

enum Seen {
    Begins(i32),
    Done { pid: i32, belongs: bool },
    End,
}

/// Who belongs, and who could not be looked at.
pub(super) fn scan(look: Arc<Judge>, pids: Vec<i32>) -> (BTreeSet<i32>, BTreeSet<i32>) {
    let rest = Arc::new(Mutex::new(VecDeque::from(pids)));
    let (mut found, mut unreadable) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..THREADS {
        let (tell, seen) = sync_channel(64);
        let (thread_look, thread_rest) = (Arc::clone(&look), Arc::clone(&rest));
        let spawned = std::thread::Builder::new()
            .name("processes".to_owned())
            .spawn(move || work(&*thread_look, &thread_rest, &tell));
        if spawned.is_err() {
            break;
        }
        let mut present = None;
        loop {
            match seen.recv_timeout(PATIENCE) {
                Ok(Seen::Begins(pid)) => present = Some(pid),
                Ok(Seen::Done { pid, belongs }) => {
                    present = None;
                    if belongs {
                        found.insert(pid);
                    }
                }
                Ok(Seen::End) => return (found, unreadable),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    unreadable.extend(present);
                    break;
                }
            }
        }
    }
    unreadable.extend(rest.lock().drain(..));
    (found, unreadable)
}

/// One process after another, until none is left or nobody listens any more.
fn work(look: &Judge, rest: &Mutex<VecDeque<i32>>, tell: &SyncSender<Seen>) {
    loop {
        let Some(pid) = rest.lock().pop_front() else {
            let _left_behind = tell.send(Seen::End);
            return;
        };
        if tell.send(Seen::Begins(pid)).is_err() {
            rest.lock().push_front(pid);
            return;
        }
        let belongs = look(pid);
        if tell.send(Seen::Done { pid, belongs }).is_err() {
            return;
        }
    }
}
