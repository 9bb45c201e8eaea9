//! `sync_delta`: a copy that was in step a short while ago serves by itself, although the other node may have gone on
//! (scenario S4). What it serves is marked forced.
//!
//! The only place where the wall clock takes part in a decision about data, and only because an administrator said so.

use std::time::Duration;

use crate::config::ArbiterKind;
use crate::failover::Failover;
use crate::settle::Cause;
use crate::timer::Timer;
use crate::view::Mode;

/// How long ago the copy was in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// At most `sync_delta`.
    Within,
    /// Longer.
    Beyond,
    /// The clock says that it will be: it went backwards, and tells nothing.
    Future,
}

/// Longest time between two notes that both copies are in step.
const LONGEST: Duration = Duration::from_secs(60);

impl Failover {
    /// None: the setting is off, or the copy never was in step. With a lock arbiter it is off: the other node may have
    /// gone on without the record, trusting that a copy without a right to promote waits.
    pub(crate) fn age(&self) -> Option<Age> {
        let off = self.config.sync_delta.is_zero() || self.arbiter_kind() == ArbiterKind::Lock;
        if off || self.hard.last_paired == 0 {
            return None;
        }
        Some(match self.wall.checked_sub(self.hard.last_paired) {
            None => Age::Future,
            Some(age) if age <= self.config.sync_delta.as_secs() => Age::Within,
            Some(_) => Age::Beyond,
        })
    }

    /// This node has waited for its peer since it started; it did not leave service because of what it saw.
    pub(crate) fn start_stale(&mut self) -> bool {
        let started = self.fenced_because.is_none() && self.isolation_waits().is_none();
        if !started || self.age() != Some(Age::Within) {
            return false;
        }
        let age = self.wall.saturating_sub(self.hard.last_paired);
        let (peer, limit) = (&self.config.peer, self.config.sync_delta);
        let text = format!(
            "{peer} is not heard and may have gone on; the copies were in step {age} s ago and sync_delta is {limit:?}"
        );
        self.record(true, text);
        self.begin_alone(Mode::Candidate, Cause::Stale);
        true
    }

    /// Notes now and then, durably, that both copies are in step.
    pub(crate) fn rule_note_step(&mut self) -> bool {
        let in_step = matches!(self.mode, Mode::Primary | Mode::Second)
            && self.session.as_ref().is_some_and(|session| session.paired && session.up)
            && self.present().is_some();
        if self.config.sync_delta.is_zero() || !in_step {
            self.timers.cancel(Timer::InStep);
            return false;
        }
        if self.timers.is_set(Timer::InStep) && !self.timers.is_due(Timer::InStep, self.now) {
            return false;
        }
        let pause = (self.config.sync_delta / 10).clamp(Duration::from_secs(1), LONGEST);
        let first = !self.timers.is_set(Timer::InStep);
        self.timers.set(Timer::InStep, self.now + pause);
        if !first && self.wall > self.hard.last_paired {
            self.hard.last_paired = self.wall;
            self.persist();
        }
        !first
    }
}
