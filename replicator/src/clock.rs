//! The only file that reads a clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use safe_replication::op::Timestamp;

/// Nanoseconds of CLOCK_BOOTTIME, which goes on while the machine is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Boottime(pub u64);

impl Boottime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Self(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0))
    }

    /// The time since then.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(Self::now().0.saturating_sub(self.0))
    }
}

/// The time that files get: as coarse as the kernel's own file times.
#[must_use]
pub fn file_time() -> Timestamp {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    Timestamp { seconds: time.tv_sec, nanos: u32::try_from(time.tv_nsec).unwrap_or(0) }
}

/// Seconds since 1970, for certificates.
#[must_use]
pub fn unix_seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or(0)
}
