//! The only place of the agent that reads a clock.

use safe_failover::Time;
use tokio::time::Instant;

/// CLOCK_BOOTTIME: goes on while the machine is suspended, never set by anybody.
#[must_use]
pub fn now() -> Time {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Time(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

/// The runtime's clock, for its timers only.
#[must_use]
pub fn instant() -> Instant {
    Instant::now()
}

/// Wall clock, Unix milliseconds: for people and for expiry dates, never for decisions.
#[must_use]
pub fn unix_ms() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}

/// Wall clock, Unix seconds; zero if the clock stands before 1970.
#[must_use]
pub fn unix_s() -> u64 {
    u64::try_from(unix_ms() / 1000).unwrap_or(0)
}
