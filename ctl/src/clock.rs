//! The only door to the clock.

use tokio::time::Instant;

/// Now, for deadlines.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall clock, Unix milliseconds: only to ask for what happened lately.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
