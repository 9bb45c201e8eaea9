//! Heartbeat timeouts that differ for a moment: a new version of the module reaches one node after the other.
//!
//! A node counts on being waited for: it is out of the way at 0.9 of its *grace*, and the other one goes on after the
//! whole of what it *bears*. So at every moment the grace of one must not be longer than what the other bears.
//!
//! Each view says what is configured (`timeout`), the grace that is in force, and whose view was heard. A node bears the
//! longest of its own timeout and both of what the other said last. Its grace becomes its own timeout only once the other
//! said that it heard of it, which means:
//!
//! - a longer one: the other bears it by now, and does so until it hears of another one;
//! - a shorter one: the other sends its heartbeats often enough by now ([`pace`]). First the replicator holds to it, then
//!   the other node is told, and only then it bears less.
//!
//! A view may be lost or late: what was said before stays true, for a grace is lowered before that is said, and raised
//! after the other bears it. A process that takes over a running replicator begins with the grace that this has.

use std::time::Duration;

use crate::action::ReplicatorCommand;
use crate::failover::Failover;
use crate::left_out::LeftOut;
use crate::replicator::Process;

/// Heartbeats within a timeout that is shorter than one's own, whose interval is not known.
const BEATS: u32 = 4;

/// How often heartbeats are sent: as configured, but often enough for what the other node said last, the shorter of its
/// timeout and its grace (zero: nothing).
#[must_use]
pub fn pace(interval: Duration, timeout: Duration, theirs: Duration) -> Duration {
    if theirs.is_zero() || theirs >= timeout { interval } else { interval.min(theirs / BEATS) }
}

impl Failover {
    /// Silence that the other node bears for certain.
    #[must_use]
    pub fn grace(&self) -> Duration {
        if self.lacks(LeftOut::TimeoutsAreAgreed) { self.config.timeout } else { self.grace }
    }

    /// Silence of the other node that this one bears.
    pub(crate) fn bears(&self) -> Duration {
        let own = self.config.timeout;
        if self.lacks(LeftOut::TimeoutsAreAgreed) {
            return own;
        }
        self.peer.view.as_ref().map_or(own, |peer| own.max(peer.timeout).max(peer.grace))
    }

    /// How often this node sends heartbeats.
    #[must_use]
    pub fn beat(&self) -> Duration {
        let theirs = self.peer.view.as_ref().map_or(Duration::ZERO, |peer| peer.timeout.min(peer.grace));
        pace(self.config.interval, self.config.timeout, theirs)
    }

    /// The grace follows the timeout once the other node has heard of it.
    pub(crate) fn rule_grace(&mut self) -> bool {
        let wanted = self.config.timeout;
        if self.grace == wanted {
            return false;
        }
        let own = self.identity.incarnation();
        if self.peer.view.as_ref().is_none_or(|peer| peer.heard != own) {
            return false;
        }
        let runs = self.replicator.process != Process::Off;
        if runs && self.replicator.limit != Some(wanted) {
            if self.replicator.limit_asked != Some(wanted) {
                self.replicator.limit_asked = Some(wanted);
                self.replicate(ReplicatorCommand::Limit(wanted));
            }
            return false;
        }
        self.record(false, format!("the timeout is {wanted:?} now, it was {:?}", self.grace));
        self.grace = wanted;
        true
    }

    /// The replicator holds to it.
    pub(crate) fn apply_limited(&mut self, limit: Duration) {
        self.replicator.limit = Some(limit);
    }
}
