//! Starting, stopping, waiting: how a node gets into and out of the game (DESIGN section 6, Start).

use std::time::Duration;

use crate::action::{Action, ReplicatorCommand};
use crate::config::ArbiterKind;
use crate::event::Adopted;
use crate::failover::Failover;
use crate::hard::{Desired, Role};
use crate::left_out::LeftOut;
use crate::meeting::Outcome;
use crate::posture::Posture;
use crate::replicator::{Process, Replicator};
use crate::session::{Session, effective_current};
use crate::settle::{Cause, Settling};
use crate::timer::Timer;
use crate::view::{Copy, Mode, Plan, View};

/// Out of service in good order, and then?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Goal {
    /// The module stops.
    Stop,
    /// It starts again.
    Again,
    /// It meets its peer, which keeps its data.
    Meet,
    /// The peer becomes primary.
    Swap,
}

/// On the way out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Closing {
    pub(crate) goal: Goal,
}

/// Why the module waits although it was started.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Blocked {
    pub(crate) reason: String,
    pub(crate) hint: Option<String>,
    /// After `max_loop` restarts: nothing is tried before `Timer::Loop`.
    pub(crate) exhausted: bool,
    /// A rule says so: as long as it holds.
    pub(crate) rule: Option<String>,
}

impl Failover {
    pub(crate) fn apply_started(&mut self, start: bool, adopted: Option<Adopted>) {
        if self.started {
            return;
        }
        self.started = true;
        self.peer.awake = self.now;
        self.recall_drops();
        let desired = if start { Desired::Started } else { Desired::Stopped };
        let takes = self.take_lock();
        if self.hard.desired != desired {
            self.hard.desired = desired;
            self.hard.unlocked &= !start;
            self.persist();
        } else if takes {
            self.persist();
        }
        match adopted {
            Some(adopted) => self.adopt(adopted),
            None => {
                self.begin_cleaning();
                if start {
                    self.enter_waiting();
                }
            }
        }
    }

    /// Goes on from the state of a replicator that outlived its agent; no scripts are run for what goes on.
    fn adopt(&mut self, adopted: Adopted) {
        let Adopted { mounted, session, in_step, settled, fenced, copy, knows_inflight, contact, limit } =
            adopted;
        self.grace = limit.unwrap_or(self.grace);
        self.peer.adopt(contact, self.now, self.grace());
        // One that was not told yet what to examine is told again.
        let process = if copy == Copy::Unexamined { Process::Off } else { Process::Ready };
        self.replicator = Replicator { process, copy, knows_inflight, limit, ..Replicator::default() };
        self.service.mounted = mounted;
        self.service.addresses = self.config.has_addresses;
        let lineage = self.hard.lineage.clone();
        // What is settled on disk counts, whatever the replicator was told last: in the middle of pairing it is told to
        // hold to the session, although much may have been acknowledged alone.
        let alone = lineage.base.is_some() && lineage.settled;
        // The agent that recorded it so died before it could fence.
        let bad = mounted && (!self.hard.consistent || self.hard.outdated);
        if bad || fenced || !self.wanted() || (!mounted && session.is_none()) || copy != Copy::Known {
            self.last_session = session.map(|(id, _)| id);
            self.give_up_adopted(session.is_some());
            return;
        }
        self.replicator.settled = settled;
        self.replicator.journal = settled;
        self.replicator.journal_asked = settled;
        if let Some((id, role)) = session {
            self.link = self.my_side_of(id);
            self.last_session = Some(id);
            let source = lineage.current;
            // The plan is known to the replicators; what counts here is whether the target may be trusted meanwhile.
            let plan = if self.hard.target || alone { Plan::Full } else { Plan::Repair };
            // The steps of pairing may be repeated; whether they were done is not known.
            let paired = false;
            self.session = Some(Session {
                id,
                role,
                plan,
                source,
                joined: true,
                open: true,
                up: true,
                in_step,
                barrier: false,
                paired,
            });
        }
        self.resume(mounted, alone);
        let role = self.hard.role;
        let turning = self.session.as_ref().is_some_and(|session| session.role != role);
        let untouched = role == Role::Secondary && self.hard.target && self.hard.consistent;
        if self.hard.offered || turning || untouched {
            // Roles were being exchanged: how far that went is found at a meeting. Or this copy waits for leave to be
            // changed, and whether there was room for that was said to nobody.
            self.leave_session();
        } else if let Some((id, Role::Secondary)) = session.filter(|_| self.hard.target && !in_step) {
            // Leave may not have been given after that was made durable.
            self.replicate(ReplicatorCommand::Receive(id));
        }
        self.record(false, "took over the running replicator");
    }

    fn resume(&mut self, mounted: bool, alone: bool) {
        if mounted && alone {
            self.mode = Mode::Alone;
            self.resume_service(Posture::Alone);
            self.resettle();
        } else if mounted {
            self.mode = Mode::Primary;
            self.resume_service(Posture::Prim);
            if self.hard.lineage.base.is_some() {
                self.settling = Some(Settling { cause: Cause::Rules, recorded: None, fresh: None });
                self.leave_session();
            }
            self.timers.set(Timer::Stall, self.now + self.config.stall_timeout);
        } else if self.hard.target {
            self.service.addresses = false;
            self.mode = Mode::Target;
            self.service.posture = Posture::Idle;
        } else if self.session.as_ref().is_some_and(|session| session.role == Role::Secondary) {
            self.service.addresses = false;
            self.mode = Mode::Target;
            let complete = self.hard.running == Role::Secondary;
            self.service.posture = if complete { Posture::Second } else { Posture::Idle };
        } else {
            self.give_up_adopted(true);
        }
    }

    fn resume_service(&mut self, posture: Posture) {
        if self.hard.running == Role::Primary {
            self.service.posture = posture;
        } else {
            self.begin_again(posture);
        }
    }

    /// What was adopted does not serve any more: clean up after it and start anew.
    fn give_up_adopted(&mut self, session: bool) {
        if session && let Some(id) = self.last_session {
            self.session = None;
            self.leaving = Some(id);
            self.replicate(ReplicatorCommand::Leave(id));
            self.link = self.identity.link();
        }
        self.service.posture = Posture::Idle;
        self.retired = true;
        self.begin_fence("start");
        if self.wanted() {
            self.enter_waiting();
        }
    }

    /// From STOP, or anew.
    pub(crate) fn enter_waiting(&mut self) {
        self.mode = Mode::Waiting;
        self.unblock();
        self.fenced_because = None;
        self.only_second = false;
        (self.yields, self.discards) = (false, false);
        self.resume_alone = false;
        self.take_over = false;
        self.service.failure = None;
        self.service.start_failed = false;
        self.waiting_since = self.now;
        self.peer.awake = self.peer.awake.max(self.now);
    }

    /// What is active here is to be this; none: as it is.
    pub(crate) fn wanted_posture(&self) -> Option<Posture> {
        if let Some(closing) = self.closing {
            return match closing.goal {
                Goal::Stop => Some(Posture::Down),
                Goal::Again | Goal::Meet => Some(Posture::Idle),
                Goal::Swap => None,
            };
        }
        match self.mode {
            Mode::Stopped => Some(Posture::Down),
            Mode::Waiting => Some(Posture::Idle),
            Mode::Target => {
                let repair = self.session.as_ref().is_some_and(|session| session.plan == Plan::Repair);
                (!repair || self.service.posture.serves()).then_some(Posture::Idle)
            }
            Mode::Second => Some(Posture::Second),
            Mode::Candidate => None,
            Mode::Primary => {
                let paired = self.session.as_ref().is_some_and(|session| session.paired);
                paired.then_some(Posture::Prim)
            }
            Mode::Alone => Some(Posture::Alone),
        }
    }

    /// What scripts are told.
    pub(crate) const fn purpose(&self) -> &'static str {
        match self.closing {
            Some(Closing { goal: Goal::Stop }) => "stop",
            Some(Closing { goal: Goal::Again | Goal::Meet }) => "stopstart",
            Some(Closing { goal: Goal::Swap }) => "swap",
            None => match self.service.posture {
                Posture::Down | Posture::Idle => "start",
                Posture::Second | Posture::Prim | Posture::Alone => match self.mode {
                    Mode::Primary if matches!(self.service.posture, Posture::Second) => "swap",
                    Mode::Stopped
                    | Mode::Waiting
                    | Mode::Target
                    | Mode::Second
                    | Mode::Candidate
                    | Mode::Primary
                    | Mode::Alone => "failover",
                },
            },
        }
    }

    /// A start script failed: the module starts again, on the other node if that one is in step; `max_loop` times.
    pub(crate) fn rule_failure(&mut self) -> bool {
        if self.timers.is_due(Timer::Loop, self.now) {
            self.timers.cancel(Timer::Loop);
            self.forgive();
            self.persist();
            return true;
        }
        if !self.service.start_failed || self.service.busy() || self.closing.is_some() {
            return false;
        }
        self.service.start_failed = false;
        if !self.service.posture.serves() {
            return false;
        }
        let reason = self.service.failure.clone().unwrap_or_default();
        self.record(true, format!("{reason}: starts again"));
        self.count_restart();
        self.resume_alone = self.mode == Mode::Alone;
        self.close(Goal::Again);
        true
    }

    /// Automatic restarts are counted from nought again.
    pub(crate) fn forgive(&mut self) {
        self.blocked = None;
        self.hard.restarts = 0;
        self.timers.cancel(Timer::Loop);
    }

    pub(crate) fn leave_service_for_meeting(&mut self) {
        self.close(Goal::Meet);
    }

    pub(crate) fn close(&mut self, goal: Goal) {
        self.closing = Some(Closing { goal });
        self.cut_short();
    }

    pub(crate) fn closing_swap(&self) -> bool {
        self.closing.is_some_and(|closing| closing.goal == Goal::Swap)
    }

    /// The end of the way out: the session ends only when nothing can be written any more.
    pub(crate) fn rule_closing(&mut self) -> bool {
        let Some(closing) = self.closing else { return false };
        let target = match closing.goal {
            Goal::Stop => Posture::Down,
            Goal::Again | Goal::Meet => Posture::Idle,
            Goal::Swap => return false,
        };
        if self.service.busy() || self.service.posture != target || self.serving() {
            return false;
        }
        if self.session.is_some() {
            self.leave_session();
            return true;
        }
        if self.leaving.is_some() || self.recording() {
            return false;
        }
        self.unsettle();
        self.retired = true;
        self.closing = None;
        self.settling = None;
        self.rights.lose();
        self.timers.cancel(Timer::Stall);
        if closing.goal == Goal::Stop {
            self.mode = Mode::Stopped;
            self.blocked = None;
            self.fenced_because = None;
        } else {
            let resume = self.resume_alone;
            self.enter_waiting();
            self.resume_alone = resume;
        }
        true
    }

    // Starting by itself.

    /// The page cache was lost since both copies were in step.
    pub(crate) const fn rebooted(&self) -> bool {
        self.hard.boot_id != 0 && self.hard.boot_id != self.config.boot_id
    }

    /// Nothing stands in the way of deciding how to start.
    pub(crate) fn may_start(&self) -> bool {
        self.mode == Mode::Waiting
            && self.wanted()
            && self.closing.is_none()
            && self.blocked.is_none()
            && self.reactions.hold.is_none()
            && self.ready()
            && self.session.is_none()
            && self.leaving.is_none()
            && self.service.posture == Posture::Idle
            && !self.service.busy()
            && !self.serving()
    }

    /// This copy could be served: nothing is known against it.
    pub(crate) fn good_copy(&self) -> bool {
        self.hard.consistent
            && (!self.hard.outdated || self.lacks(LeftOut::OutdatedIsNotServed))
            && (!self.hard.target || self.lacks(LeftOut::OutdatedIsNotServed))
            && self.copy() == Copy::Known
            && self.hard.lineage.current.is_some()
    }

    pub(crate) fn rule_start(&mut self) -> bool {
        self.timers.cancel(Timer::StartWait);
        if !self.may_start() || self.only_second || self.yields || !self.good_copy() {
            return false;
        }
        let waited = self.start_waited();
        if !waited && !self.resume_alone {
            self.timers.set(Timer::StartWait, self.start_wait_ends());
        }
        let favourable = self.peer_cannot_be_newer();
        let settled = self.hard.lineage.settled || self.lacks(LeftOut::UnsettledDoesNotStart);
        // A lineage that was never settled counts as its base, here as at a meeting.
        let held = self.hard.lineage.base.is_some() && settled;
        if !held && waited && favourable && self.peer_is_asleep() {
            self.record(false, format!("{} cannot take part: it is asked to stand back", self.config.peer));
            self.begin_alone(Mode::Candidate, Cause::Demand);
            return true;
        }
        match (self.hard.lineage.base.is_some(), settled) {
            (true, true) => {
                let stopped = favourable && self.present().is_some_and(|peer| peer.mode == Mode::Stopped);
                let lonely = waited && self.present().is_none();
                let useless = waited && favourable && self.present().is_some_and(|peer| !peer.meetable);
                if self.resume_alone || stopped || useless || (lonely && self.record_is_mine()) {
                    self.resume_alone = false;
                    self.record(
                        false,
                        "served alone when it stopped, so that its data are the newest: serves again",
                    );
                    self.go_alone_again();
                    return true;
                }
                lonely && self.ask_arbiter()
            }
            (true, false) => {
                let lonely = waited && self.present().is_none() && self.arbiter_kind() == ArbiterKind::Lock;
                if lonely && self.record_is_mine() {
                    let arbiter = self.arbiter.clone();
                    self.begin_alone(Mode::Candidate, Cause::Rules);
                    self.arbiter = arbiter;
                    return true;
                }
                lonely && self.ask_arbiter()
            }
            (false, _) => waited && self.present().is_none() && self.start_stale(),
        }
    }

    /// The peer is there and cannot serve.
    fn peer_is_asleep(&self) -> bool {
        self.present().is_some_and(|peer| !peer.meetable && !peer.serving && !peer.lineage.settled)
    }

    fn start_wait_ends(&self) -> crate::time::Time {
        let peer = if self.present().is_some() { self.peer.standing_since } else { self.peer.contact() };
        peer.max(self.waiting_since) + self.config.start_wait
    }

    fn start_waited(&self) -> bool {
        self.now >= self.start_wait_ends()
    }

    fn record_is_mine(&self) -> bool {
        let current = self.hard.lineage.current;
        self.arbiter_kind() != ArbiterKind::Lock || current.is_some_and(|current| self.record_is_of(current))
    }

    /// The arbiter's record would let this waiting node serve.
    pub(crate) fn start_wants_record(&self) -> bool {
        self.arbiter_kind() == ArbiterKind::Lock
            && self.may_start()
            && self.good_copy()
            && self.hard.lineage.base.is_some()
            && self.present().is_none()
            && self.start_waited()
    }

    /// By both views, this copy would be source or equal, also if the other's replicator is not there to say more.
    pub(crate) fn peer_cannot_be_newer(&self) -> bool {
        let Some(peer) = self.present() else { return false };
        let mut assumed = View::clone(peer);
        if assumed.copy == Copy::Unexamined {
            assumed.copy = if assumed.lineage.current.is_some() { Copy::Known } else { Copy::Empty };
        }
        let equal = effective_current(&peer.lineage) == effective_current(&self.hard.lineage);
        // Of two equal copies, one that lost its page cache may lack what the other still has.
        let forgetful = self.rebooted() && !peer.rebooted;
        match self.outcome(&assumed) {
            Outcome::Pair(side) => side == self.config.side || !forgetful,
            Outcome::Source { side, split, .. } => {
                !split && (side == self.config.side || (equal && !forgetful))
            }
            Outcome::Person(_) | Outcome::NotYet => false,
        }
    }

    // Being blocked.

    pub(crate) fn block(&mut self, reason: &str, hint: Option<String>) {
        self.blocked = Some(Blocked { reason: reason.to_owned(), hint, exhausted: false, rule: None });
    }

    pub(crate) fn unblock(&mut self) {
        if self.blocked.as_ref().is_some_and(|blocked| !blocked.exhausted && blocked.rule.is_none()) {
            self.blocked = None;
        }
    }

    pub(crate) fn may_retry(&self) -> bool {
        self.blocked.as_ref().is_none_or(|blocked| !blocked.exhausted)
    }

    /// One more automatic restart; after `max_loop` of them in `loop_interval` the module waits.
    pub(crate) fn count_restart(&mut self) {
        let since = self.wall.saturating_sub(self.hard.restarts_since);
        if self.hard.restarts == 0 || since > self.config.loop_interval.as_secs() {
            self.hard.restarts = 0;
            self.hard.restarts_since = self.wall;
        }
        self.hard.restarts += 1;
        self.persist();
        if self.hard.restarts > self.config.max_loop {
            let cause = self.service.failure.as_ref().map_or_else(String::new, |why| format!("{why}; "));
            let interval = in_words(self.config.loop_interval);
            let reason = format!("{cause}{} restarts in {interval}", self.config.max_loop);
            self.out.push(Action::Record(crate::action::Record {
                alarm: true,
                text: format!("{reason}: waiting"),
            }));
            let (module, node) = (&self.config.module, &self.config.node);
            let hint = format!(
                "safectl log {module}; put right what it says, then: safectl stopstart {module} --on {node}"
            );
            self.blocked = Some(Blocked { reason, hint: Some(hint), exhausted: true, rule: None });
            if !self.config.retry_after.is_zero() {
                self.timers.set(Timer::Loop, self.now + self.config.retry_after);
            }
        }
    }
}

/// As people write it in `module.toml`.
fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{duration:?}"),
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}
