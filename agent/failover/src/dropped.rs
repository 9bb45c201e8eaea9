//! A peer that falls out of step although it is heard: outdated at once, brought back after a pause that doubles, and
//! from the third time within an hour a matter for people.

use std::time::Duration;

use crate::event::Loss;
use crate::failover::Failover;
use crate::hard::Role;
use crate::time::Time;
use crate::timer::Timer;
use crate::view::{Mode, SessionId};

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest one.
const LAST: Duration = Duration::from_secs(60);
/// The longest one where it was the way to the peer that failed, not the peer.
const LAST_OF_LINK: Duration = Duration::from_secs(5);
/// In step for so long, the peer counts as well again.
const STEADY: Duration = Duration::from_secs(60);
/// In so long a time ...
const WINDOW_S: u64 = 3600;
/// ... so many times are an alarm.
const ALARM: usize = 3;
/// Hundredths of the stall timeout that are left, and are for finding another lan, when a replicator says that its stream
/// is silent: it says so after 0.6 of it, and it may take as long as a keepalive until it looks.
const LEFT: u32 = 35;

/// What is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Dropped {
    /// When it was dropped last.
    last: Option<Time>,
    /// How often the pause has doubled.
    doubled: u32,
    /// Since when it has been in step.
    whole: Option<Time>,
    /// Why it was dropped last; none: it is in step, or was not dropped.
    pub(crate) reason: Option<String>,
    /// Why this node asks the peer to record itself outdated; it may have died instead.
    pub(crate) suspected: Option<&'static str>,
    /// The alarm was given for these dates.
    pub(crate) alarmed: bool,
}

impl Failover {
    /// The replicator lost its session.
    pub(crate) fn apply_session_lost(&mut self, id: SessionId, loss: Loss, reason: &str) {
        // The other node may have said that it is over before this node's replicator did.
        let source = self.hard.role == Role::Primary
            && (self.leaving == Some(id) || self.session.as_ref().is_some_and(|session| session.id == id));
        let waited = self.timers.is_set(Timer::Stall);
        self.apply_session_gone(id);
        match (self.mode, loss) {
            _ if !source => {}
            (Mode::Primary, Loss::Failed) => self.drop_peer(reason),
            (Mode::Primary, Loss::Silence) if !waited => {
                let rest = self.config.stall_timeout * LEFT / 100;
                self.timers.set(Timer::Stall, self.now + rest);
            }
            (Mode::Alone, Loss::Failed | Loss::Here) => self.drop_peer(reason),
            // It did not go wrong, but may go on so: not without a pause.
            (Mode::Alone, Loss::Stream | Loss::Silence) => {
                self.pause_before_return(LAST_OF_LINK);
            }
            (_, Loss::Stream | Loss::Silence | Loss::Failed | Loss::Here | Loss::Left) => {}
        }
    }

    /// Going on alone is settled: the peer lives, and answered.
    pub(crate) fn peer_conceded(&mut self) {
        if let Some(reason) = self.dropped.suspected.take() {
            self.drop_peer(reason);
        }
    }

    /// The peer is heard, but does not keep up: this node goes on without it, and tries again later.
    pub(crate) fn drop_peer(&mut self, reason: &str) {
        self.forget_old_drops();
        self.hard.drops.push(self.wall);
        let many = self.hard.drops.len().saturating_sub(ALARM);
        self.hard.drops.drain(..many);
        self.persist();
        let alarm = self.hard.drops.len() == ALARM;
        let dropped = &mut self.dropped;
        dropped.last = Some(self.now);
        let first = alarm && !std::mem::replace(&mut dropped.alarmed, alarm);
        dropped.reason = Some(reason.to_owned());
        let pause = self.pause_before_return(LAST);
        let peer = &self.config.peer;
        let again = format!("it is resynchronised again in {pause:?}");
        self.record(first, if first {
            format!("{peer} fell out of step for the third time within an hour: {reason}; look after {peer}; {again}")
        } else {
            format!("{peer} fell out of step: {reason}; {again}")
        });
    }

    /// What an earlier safed counted goes on counting, and its alarm is not given again.
    pub(crate) fn recall_drops(&mut self) {
        self.forget_old_drops();
        self.dropped.alarmed = self.hard.drops.len() == ALARM;
    }

    /// Not written by itself: what is too old is left out whenever it is read.
    fn forget_old_drops(&mut self) {
        let wall = self.wall;
        self.hard.drops.retain(|at| wall.saturating_sub(*at) < WINDOW_S);
    }

    fn pause_before_return(&mut self, longest: Duration) -> Duration {
        let dropped = &mut self.dropped;
        if dropped.whole.take().is_some_and(|since| self.now.since(since) >= STEADY) {
            dropped.doubled = 0;
        }
        let pause = (FIRST * 2_u32.saturating_pow(dropped.doubled)).min(longest);
        dropped.doubled = (dropped.doubled + 1).min(16);
        self.timers.set(Timer::Return, self.now + pause);
        pause
    }

    /// The serving node does not meet its peer before the pause is over. While it waits for the peer to record itself
    /// outdated, operations wait as well: if no answer comes soon, a meeting is the way out.
    pub(crate) fn keeps_peer_away(&self) -> bool {
        let pauses = self.timers.is_set(Timer::Return) && !self.timers.is_due(Timer::Return, self.now);
        match self.mode {
            Mode::Alone => pauses,
            Mode::Primary => {
                let just = |at: &Time| self.now.since(*at) < FIRST;
                pauses && self.dropped.last.as_ref().is_some_and(just)
            }
            Mode::Stopped | Mode::Waiting | Mode::Target | Mode::Second | Mode::Candidate => false,
        }
    }

    /// The peer is in step.
    pub(crate) fn peer_in_step(&mut self) {
        self.timers.cancel(Timer::Return);
        self.dropped.whole = Some(self.now);
        self.dropped.suspected = None;
        self.dropped.reason = None;
    }

    /// Somebody looked after the peer: it was stopped.
    pub(crate) fn trust_peer_again(&mut self) {
        self.timers.cancel(Timer::Return);
        self.dropped.doubled = 0;
        self.dropped.reason = None;
    }
}
