//! The only door to the clock.

use std::time::{Duration, Instant, SystemTime};

/// Now, for deadlines and measurements.
#[expect(clippy::disallowed_methods, reason = "the door")]
pub fn now() -> Instant {
    Instant::now()
}

/// Time since the Unix epoch; zero if the clock stands before it.
#[expect(clippy::disallowed_methods, reason = "the door")]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
