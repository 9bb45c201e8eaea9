//! Datagrams that are not believed: counted, and reported now and then, never at their own rate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use safe_failover::Time;

use crate::audit::Audit;

/// Time between two reports of the same kind.
const PAUSE: Duration = Duration::from_secs(60);

/// The counters.
#[derive(Debug)]
pub(super) struct Strangers {
    audit: Audit,
    kinds: Mutex<BTreeMap<&'static str, (u64, Option<Time>)>>,
}

impl Strangers {
    pub(super) fn new(audit: Audit) -> Self {
        Self { audit, kinds: Mutex::default() }
    }

    /// Counts a datagram that was refused for this reason.
    pub(super) fn note(&self, why: &'static str, from: SocketAddr, now: Time) {
        let mut kinds = self.kinds.lock();
        let (count, told) = kinds.entry(why).or_insert((0, None));
        *count += 1;
        if told.is_none_or(|told| now.since(told) >= PAUSE) {
            self.audit.refused(
                "heartbeat port",
                &format!("{count} heartbeat(s) refused, the last one from {from}: {why}"),
            );
            *told = Some(now);
            *count = 0;
        }
    }
}
