//! Every deadline of the core.

use crate::time::Time;

/// Why the core wants to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// To notice a pause of this node itself: a late call is the sign.
    Pulse,
    /// The peer may have been silent for 0.6 of the timeout: the serving node asks the lock arbiter.
    Ask,
    /// ... for 0.9: it fences itself without an answer; an offer is void.
    Fence,
    /// ... for the whole timeout: it is lost.
    Silence,
    /// The holder of a settled base has waited for the peer.
    StartWait,
    /// The stream has been down while heartbeats live: the peer is to be outdated.
    Stall,
    /// An entry into a session that the peer does not answer is taken back.
    Patience,
    /// A peer that fell out of step is met again.
    Return,
    /// A repair holds the application's operations too long: the peer is outdated instead.
    Slow,
    /// An offer of the primary role that the peer does not take is taken back.
    Offer,
    /// A primary that fenced itself leaves the field to a peer that may take over; for so long.
    HandOver,
    /// A demand that the peer does not answer is taken back by a node that does not serve.
    Demand,
    /// A step of a procedure takes longer than its own deadline.
    Step,
    /// An arbiter did not answer: ask again.
    Arbiter,
    /// A replicator that could not be used is tried again.
    Retry,
    /// After `max_loop` restarts: try again.
    Loop,
    /// To note again that both copies are in step.
    InStep,
    /// The pair has been whole long enough for the preferred primary to get its role back.
    Quiet,
    /// The expression of a rule has held for its time.
    Rule,
    /// An archive for which there was no room is tried again.
    Archive,
}

const COUNT: usize = 20;

/// When each timer goes off; at most one date each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Timers([Option<Time>; COUNT]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Time) {
        self.0[timer as usize] = Some(at);
    }

    pub(crate) fn cancel(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// The timer is set and its time has come; it stays set.
    pub(crate) fn is_due(&self, timer: Timer, now: Time) -> bool {
        self.0[timer as usize].is_some_and(|at| at <= now)
    }

    /// The next one to go off. One that has gone off was seen by the rules already: they look again at each event.
    pub(crate) fn next(&self, now: Time) -> Option<Time> {
        self.0.iter().flatten().filter(|at| **at > now).min().copied()
    }
}
