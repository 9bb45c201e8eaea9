//! A person holds resynchronisations back for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Boottime;

/// Longest single wait, so that the end of the pause or of the resync is noticed soon.
const STEP: Duration = Duration::from_millis(100);

/// Ends by itself, so that a pause that was forgotten does not leave one copy alone for ever.
#[derive(Debug, Default)]
pub struct Pause {
    // When it ends, on the clock of [`Boottime`]; 0: there is none.
    until: AtomicU64,
}

impl Pause {
    /// From now on, for so long; zero: no more.
    pub fn set(&self, time: Duration) {
        self.set_at(time, Boottime::now());
    }

    fn set_at(&self, time: Duration, now: Boottime) {
        let until = if time.is_zero() {
            0
        } else {
            now.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
        };
        self.until.store(until, Ordering::Release);
    }

    /// How long it lasts yet; none: there is no pause.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.left_at(Boottime::now())
    }

    fn left_at(&self, now: Boottime) -> Option<Duration> {
        let left = self.until.load(Ordering::Acquire).saturating_sub(now.0);
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// Waits for its end; `stop` is asked now and then and ends the wait.
    pub fn wait(&self, stop: &dyn Fn() -> bool) {
        wait(|| self.left(), stop);
    }
}

/// Waits as long as something is left to wait; `stop` is asked now and then and ends the wait.
pub(crate) fn wait(left: impl Fn() -> Option<Duration>, stop: &dyn Fn() -> bool) {
    while let Some(left) = left()
        && !stop()
    {
        std::thread::sleep(left.min(STEP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_by_itself_or_when_told() {
        let (pause, now) = (Pause::default(), Boottime(7_000_000_000));
        assert_eq!(pause.left_at(now), None);
        pause.set_at(Duration::from_secs(3), now);
        assert_eq!(pause.left_at(now), Some(Duration::from_secs(3)));
        assert_eq!(pause.left_at(Boottime(9_000_000_000)), Some(Duration::from_secs(1)));
        assert_eq!(pause.left_at(Boottime(10_000_000_000)), None);
        pause.set_at(Duration::from_secs(3), now);
        pause.set_at(Duration::ZERO, now);
        assert_eq!(pause.left_at(now), None);
        pause.set_at(Duration::MAX, now);
        assert!(pause.left_at(now).is_some());
    }
}
