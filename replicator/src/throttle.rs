//! How fast a resync may send.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Boottime;
use crate::pause::{Pause, wait};

/// How long a resync yields to the application for each piece it sends while operations wait.
const YIELD: Duration = Duration::from_millis(2);

/// Limits the content that a resync sends.
#[derive(Debug)]
pub struct Throttle {
    // Bytes per second; 0: automatic.
    limit: u64,
    bucket: Mutex<Bucket>,
    pause: Arc<Pause>,
}

#[derive(Debug)]
struct Bucket {
    // May be negative: what was sent is paid for afterwards, so that a piece larger than the bucket passes.
    tokens: i128,
    filled: Boottime,
}

impl Throttle {
    /// At most `limit` bytes per second; 0: as fast as it goes, but yielding to the application.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        let bucket = Mutex::new(Bucket { tokens: 0, filled: Boottime::now() });
        Self { limit, bucket, pause: Arc::default() }
    }

    /// Also held back by a person.
    #[must_use]
    pub fn paused_by(self, pause: Arc<Pause>) -> Self {
        Self { pause, ..self }
    }

    /// Waits while a person holds it back. Call it before taking keys.
    pub fn hold(&self, stop: &dyn Fn() -> bool) {
        self.pause.wait(stop);
    }

    /// How long to wait before sending so many bytes; `waiting`: how many operations of the application wait now.
    /// Call it before taking keys.
    #[must_use]
    pub fn delay(&self, bytes: u64, waiting: usize) -> Duration {
        if self.limit == 0 {
            return if waiting == 0 { Duration::ZERO } else { YIELD };
        }
        self.delay_at(bytes, Boottime::now())
    }

    fn delay_at(&self, bytes: u64, now: Boottime) -> Duration {
        let limit = i128::from(self.limit);
        let mut bucket = self.bucket.lock();
        let earned = i128::from(now.0.saturating_sub(bucket.filled.0)) * limit / 1_000_000_000;
        // At most a tenth of a second is saved up.
        bucket.tokens = (bucket.tokens + earned).min(limit / 10);
        bucket.filled = now;
        bucket.tokens -= i128::from(bytes);
        let debt = (-bucket.tokens).max(0);
        Duration::from_nanos(u64::try_from(debt * 1_000_000_000 / limit).unwrap_or(u64::MAX))
    }

    /// Wait as [`Self::delay`] says; `stop` is asked now and then and ends the wait.
    pub fn pass(&self, bytes: u64, waiting: usize, stop: &dyn Fn() -> bool) {
        let (delay, begun) = (self.delay(bytes, waiting), Boottime::now());
        wait(|| delay.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()), stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_limit_holds_on_average() {
        let throttle = Throttle::new(1_000_000);
        let mut now = Boottime(throttle.bucket.lock().filled.0);
        let start = now;
        for _ in 0..100 {
            let wait = throttle.delay_at(100_000, now);
            now = Boottime(now.0 + u64::try_from(wait.as_nanos()).expect("short"));
        }
        let took = Duration::from_nanos(now.0 - start.0);
        assert!((9.8..10.2).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[test]
    fn automatic_yields_only_while_the_application_waits() {
        let throttle = Throttle::new(0);
        assert_eq!(throttle.delay(1 << 20, 0), Duration::ZERO);
        assert!(throttle.delay(1 << 20, 1) > Duration::ZERO);
    }
}
