//! The only door to the clock.

use tokio::time::Instant;

/// Now, for deadlines.
pub(crate) fn now() -> Instant {
    Instant::now()
}
