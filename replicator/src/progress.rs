//! How far a resync is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Boottime;

/// Over how long the rate is taken.
const WINDOW: Duration = Duration::from_secs(3);
/// Between two times that it is told.
const PAUSE: Duration = Duration::from_millis(250);

/// Counters of one resync; shared by its threads.
#[derive(Debug, Default)]
pub struct Progress {
    files_done: AtomicU64,
    files_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    bytes_sent: AtomicU64,
    /// Of what was found: content that waits for its turn, which was not counted as done when its name was.
    owed: Mutex<Owed>,
    samples: Mutex<VecDeque<(Boottime, u64)>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    files: u64,
    bytes: u64,
}

/// The counters at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Files examined or sent.
    pub files_done: u64,
    /// Files known so far to be examined or sent.
    pub files_total: u64,
    /// Bytes of content examined or sent.
    pub bytes_done: u64,
    /// Bytes known so far.
    pub bytes_total: u64,
    /// Bytes of content that went to the target.
    pub bytes_sent: u64,
    /// Bytes done per second, mean of the last 3 seconds.
    pub rate: u64,
    /// Seconds to go at this rate; none while unknown.
    pub eta_s: Option<u32>,
}

impl Progress {
    /// More is known to be done.
    pub fn found(&self, files: u64, bytes: u64) {
        self.files_total.fetch_add(files, Ordering::Relaxed);
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Of what was found, this waits for its turn.
    pub fn postponed(&self, files: u64, bytes: u64) {
        let mut owed = self.owed.lock();
        (owed.files, owed.bytes) = (owed.files + files, owed.bytes + bytes);
    }

    /// The turn of a file has come, with so much content: what was not postponed is found now.
    pub fn begun(&self, bytes: u64) {
        let mut owed = self.owed.lock();
        let was = Owed { files: owed.files.min(1), bytes: owed.bytes.min(bytes) };
        (owed.files, owed.bytes) = (owed.files - was.files, owed.bytes - was.bytes);
        drop(owed);
        self.found(1 - was.files, bytes - was.bytes);
    }

    /// Nothing is left: what was postponed and did not come is gone from the source.
    pub fn ended(&self) {
        let owed = std::mem::take(&mut *self.owed.lock());
        self.done(owed.files, owed.bytes);
    }

    /// Some was done.
    pub fn done(&self, files: u64, bytes: u64) {
        self.files_done.fetch_add(files, Ordering::Relaxed);
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Content went to the target.
    pub fn sent(&self, bytes: u64) {
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The counters now; call it a few times a second.
    pub fn figures(&self) -> Figures {
        self.figures_at(Boottime::now())
    }

    fn figures_at(&self, now: Boottime) -> Figures {
        let (files_done, bytes_done) =
            (self.files_done.load(Ordering::Relaxed), self.bytes_done.load(Ordering::Relaxed));
        // What application writes add while it runs can make "done" overtake what was known.
        let files_total = self.files_total.load(Ordering::Relaxed).max(files_done);
        let bytes_total = self.bytes_total.load(Ordering::Relaxed).max(bytes_done);
        let rate = self.rate(now, bytes_done);
        let left = bytes_total - bytes_done;
        let eta_s = (rate > 0).then(|| u32::try_from(left.div_ceil(rate)).unwrap_or(u32::MAX));
        let bytes_sent = self.bytes_sent.load(Ordering::Relaxed);
        Figures { files_done, files_total, bytes_done, bytes_total, bytes_sent, rate, eta_s }
    }

    fn rate(&self, now: Boottime, bytes: u64) -> u64 {
        let mut samples = self.samples.lock();
        samples.push_back((now, bytes));
        let window = u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX);
        // The newest sample that is at least a window old stays, to measure from.
        while samples.get(1).is_some_and(|(at, _)| now.0.saturating_sub(at.0) >= window) {
            samples.pop_front();
        }
        // A caller that asks more often than it should only makes the window shorter.
        if samples.len() > 256 {
            samples.pop_front();
        }
        let Some((from, before)) = samples.front().copied() else { return 0 };
        let nanos = u128::from(now.0.saturating_sub(from.0));
        if nanos == 0 {
            return 0;
        }
        u64::try_from(u128::from(bytes.saturating_sub(before)) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
    }
}

/// Does the work, and meanwhile says four times a second how far it is.
pub fn told_meanwhile<T>(tell: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                std::thread::park_timeout(PAUSE);
                tell();
            }
        });
        let outcome = work();
        done.store(true, Ordering::Release);
        watch.thread().unpark();
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn second(number: u64) -> Boottime {
        Boottime(number * 1_000_000_000)
    }

    #[test]
    fn the_rate_is_that_of_the_last_three_seconds() {
        let progress = Progress::default();
        progress.found(2, 10_000);
        assert_eq!(progress.figures_at(second(0)).eta_s, None);
        for number in 1..=10 {
            progress.done(0, if number <= 5 { 1000 } else { 100 });
            let figures = progress.figures_at(second(number));
            match number {
                5 => assert_eq!((figures.rate, figures.eta_s), (1000, Some(5))),
                10 => assert_eq!((figures.rate, figures.eta_s), (100, Some(45))),
                _ => {}
            }
        }
    }

    #[test]
    fn what_is_postponed_is_not_done() {
        let progress = Progress::default();
        let figures = || {
            let now = progress.figures_at(second(1));
            (now.files_done, now.files_total, now.bytes_done, now.bytes_total)
        };
        // Two names; the content of one waits.
        progress.found(2, 1000);
        progress.done(1, 100);
        progress.postponed(1, 900);
        assert_eq!(figures(), (1, 2, 100, 1000));
        // Its turn comes, and the application has added to it.
        progress.begun(950);
        assert_eq!(figures(), (1, 2, 100, 1050));
        progress.done(1, 950);
        assert_eq!(figures(), (2, 2, 1050, 1050));
        // One that was removed before its turn.
        progress.found(1, 70);
        progress.postponed(1, 70);
        progress.ended();
        assert_eq!(figures(), (3, 3, 1120, 1120));
    }

    #[test]
    fn done_never_exceeds_total() {
        let progress = Progress::default();
        progress.done(3, 50);
        let figures = progress.figures_at(second(1));
        assert_eq!((figures.files_total, figures.bytes_total), (3, 50));
    }
}
