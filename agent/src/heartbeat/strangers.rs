//! Datagrams that are not believed: counted, and reported now and then, never at their own rate.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use safe_failover::Time;

/// Time between two reports of the same kind.
const PAUSE: Duration = Duration::from_secs(60);

/// Takes one line; must not wait.
pub type Report = Box<dyn Fn(String) + Send + Sync>;

/// The counters.
pub(super) struct Strangers {
    report: Report,
    kinds: Mutex<BTreeMap<&'static str, (u64, Option<Time>)>>,
}

impl fmt::Debug for Strangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Strangers")
    }
}

impl Strangers {
    pub(super) fn new(report: Report) -> Self {
        Self { report, kinds: Mutex::default() }
    }

    /// Counts a datagram that was refused for this reason.
    pub(super) fn note(&self, why: &'static str, from: SocketAddr, now: Time) {
        let mut kinds = self.kinds.lock();
        let (count, told) = kinds.entry(why).or_insert((0, None));
        *count += 1;
        if told.is_none_or(|told| now.since(told) >= PAUSE) {
            (self.report)(format!("{count} heartbeat(s) refused, the last one from {from}: {why}"));
            *told = Some(now);
            *count = 0;
        }
    }
}
