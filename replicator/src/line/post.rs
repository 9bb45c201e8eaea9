//! The two threads of a line: one reads what nobody waits for, and carries it out at once where that is quick; should that
//! take long after all, the other one reads on in its place.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// Away for this long, the reader is replaced.
const PATIENCE: Duration = Duration::from_millis(5);
/// After so many looks without an absence nobody looks until the next one.
const LOOKS: u32 = 20;

#[derive(Default)]
struct Inner {
    /// Counts those who were on duty; who knows the present number is.
    term: u64,
    away: bool,
    absences: u64,
    asleep: bool,
    /// Who was replaced and has not come back yet.
    late: usize,
    ended: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Post {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Post {
    /// Nobody who was replaced is still away.
    pub(super) fn is_manned(&self) -> bool {
        self.inner.lock().late == 0
    }

    /// Who is on duty does something that may take long.
    pub(super) fn leave(&self) {
        let mut inner = self.inner.lock();
        inner.away = true;
        inner.absences += 1;
        if inner.asleep {
            self.changed.notify_one();
        }
    }

    /// Back again: whether it still is on duty, as in this term.
    pub(super) fn come_back(&self, term: u64) -> bool {
        let mut inner = self.inner.lock();
        if inner.term == term {
            inner.away = false;
            return true;
        }
        inner.late -= 1;
        false
    }

    /// Waits until who is on duty is away for too long, and takes its place in this term. None: it has all ended.
    pub(super) fn stand_by(&self) -> Option<u64> {
        let mut inner = self.inner.lock();
        let (mut seen, mut looks) = (inner.absences, 0);
        while !inner.ended {
            if looks < LOOKS {
                self.changed.wait_for(&mut inner, PATIENCE);
            } else {
                inner.asleep = true;
                self.changed.wait(&mut inner);
                inner.asleep = false;
                (seen, looks) = (inner.absences, 0);
                continue;
            }
            if inner.away && inner.absences == seen && !inner.ended {
                inner.away = false;
                inner.term += 1;
                inner.late += 1;
                return Some(inner.term);
            }
            looks = if inner.absences == seen { looks + 1 } else { 0 };
            seen = inner.absences;
        }
        None
    }

    /// Nobody is needed any more.
    pub(super) fn end(&self) {
        self.inner.lock().ended = true;
        self.changed.notify_all();
    }
}
