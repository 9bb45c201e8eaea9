//! Going on alone: from a new lineage to the right to acknowledge under it.
//!
//! Order: the lineage is durable (unsettled), the journal is open, one of the rules (a) to (d) of DESIGN section 5
//! holds, the `settled` bit is durable, the rule still holds, the replicator is told.

use crate::action::{Action, ReplicatorCommand};
use crate::config::ArbiterKind;
use crate::event::ArbiterEvent;
use crate::failover::Failover;
use crate::hard::Role;
use crate::left_out::LeftOut;
use crate::lineage::LineageId;
use crate::lock::Lock;
use crate::session::{give_up_unsettled, remember};
use crate::timer::Timer;
use crate::view::{Copy, Mode, Plan};

/// Why going on alone may be settled without the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// The rules (a) to (d).
    Rules,
    /// As `Rules`; the peer is asked to record itself outdated although this node does not serve.
    Demand,
    /// The copy never had a lineage, and a person or both nodes' emptiness chose it.
    First,
    /// A person's force.
    Forced,
    /// `sync_delta`: the copy was in step a short while ago, and the other node is not heard.
    Stale,
    /// It was settled before.
    Again,
}

/// On the way to `Alone`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Settling {
    pub(crate) cause: Cause,
    /// Serial of the hard state that carries the `settled` bit.
    pub(crate) recorded: Option<u64>,
    /// A lineage that is not in hard state yet.
    pub(crate) fresh: Option<Fresh>,
}

impl Settling {
    /// A person chose this copy: no meeting is to overtake that.
    pub(crate) const fn by_person(&self) -> bool {
        matches!(self.cause, Cause::Demand | Cause::First | Cause::Forced)
    }
}

/// A lineage that stands on no other, or on no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fresh {
    /// Base of the first lineage.
    root: LineageId,
    new: LineageId,
}

/// What is known from arbiters about the present loss.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Arbiter {
    asked: Asked,
    /// The record of this one is this lineage, which was this node's current.
    held: Vec<(Lock, LineageId)>,
    /// The record of this one was this, and could be swapped.
    read: Vec<(Lock, Option<LineageId>)>,
    /// A record is of a lineage that this copy does not follow.
    pub(crate) foreign: bool,
    /// These could not be asked.
    silent: Vec<Lock>,
    /// A reachability arbiter answered this.
    reachable: Option<bool>,
}

impl Arbiter {
    pub(crate) fn answered_isolated(&self) -> bool {
        self.reachable == Some(false)
    }

    pub(crate) const fn unreachable(&self) -> bool {
        !self.silent.is_empty()
    }

    pub(crate) fn is_silent(&self, lock: &Lock) -> bool {
        self.silent.contains(lock)
    }

    fn holds(&self, lock: &Lock, lineage: LineageId) -> bool {
        self.held.iter().any(|(held, of)| held == lock && *of == lineage)
    }

    fn hold(&mut self, lock: &Lock, lineage: LineageId) {
        self.held.retain(|(held, _)| held != lock);
        self.held.push((lock.clone(), lineage));
        self.read.retain(|(read, _)| read != lock);
        self.foreign = false;
    }

    fn remember(&mut self, lock: &Lock, value: Option<LineageId>) {
        self.read.retain(|(read, _)| read != lock);
        self.read.push((lock.clone(), value));
    }

    fn value(&self, lock: &Lock) -> Option<Option<LineageId>> {
        self.read.iter().find(|(read, _)| read == lock).map(|(_, value)| *value)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
enum Asked {
    #[default]
    Nothing,
    Read(Lock),
    Swap {
        lock: Lock,
        expect: Option<LineageId>,
        new: LineageId,
    },
    Reachable,
}

impl Failover {
    /// A lineage of its own is settled here, durably and in effect.
    pub(crate) fn settled(&self) -> bool {
        self.hard.lineage.base.is_some() && self.hard.lineage.settled && !self.recording()
    }

    /// The `settled` bit is being written.
    pub(crate) fn recording(&self) -> bool {
        self.settling.is_some_and(|settling| settling.recorded.is_some())
    }

    /// Begins a new lineage; `mode` until it is settled.
    ///
    /// By the rules it is durable, unsettled, before anything is asked. Forced, or where there was none, it is written
    /// settled at once when all else is ready: unsettled it would count as its base, which is not what serves here.
    pub(crate) fn begin_alone(&mut self, mode: Mode, cause: Cause) {
        self.forget_archive();
        self.unsettle();
        self.arbiter = Arbiter::default();
        self.timers.cancel(Timer::Arbiter);
        self.mode = mode;
        let fresh = (cause == Cause::Forced || self.hard.lineage.current.is_none())
            .then(|| Fresh { root: self.fresh_lineage(), new: self.fresh_lineage() });
        self.settling = Some(Settling { cause, recorded: None, fresh });
        if fresh.is_none() && self.hard.lineage.base.is_none() {
            let new = self.fresh_lineage();
            self.branch(new);
            self.persist();
        }
        if cause == Cause::Demand {
            self.timers.set(Timer::Demand, self.now + self.config.timeout * 2);
        }
        if let Some(goal) = self.goal() {
            self.open_journal(goal);
        }
    }

    /// A new lineage on top of what this copy holds.
    fn branch(&mut self, new: LineageId) {
        let role = self.hard.role;
        let lineage = &mut self.hard.lineage;
        let Some(old) = lineage.current.replace(new) else { return };
        if lineage.base.is_none() {
            lineage.base = Some(old);
            lineage.prim_of_base = role == Role::Primary;
            self.hard.took_over |= role == Role::Secondary;
        }
        remember(lineage, [old]);
        lineage.settled = false;
        lineage.wrote_alone = false;
        lineage.forced = false;
        self.hard.marker_before = self.hard.marker_before.or(Some(old));
    }

    /// The lineage that is to be settled.
    fn goal(&self) -> Option<LineageId> {
        let fresh = self.settling.and_then(|settling| settling.fresh);
        fresh.map(|fresh| fresh.new).or(self.hard.lineage.current)
    }

    /// The holder of a settled lineage serves again.
    pub(crate) fn go_alone_again(&mut self) {
        self.forget_archive();
        self.mode = Mode::Candidate;
        self.settling = Some(Settling { cause: Cause::Again, recorded: None, fresh: None });
        if let Some(current) = self.hard.lineage.current {
            self.open_journal(current);
        }
    }

    /// From the open journal to the right to acknowledge.
    pub(crate) fn rule_settle(&mut self) -> bool {
        let Some(settling) = self.settling else { return false };
        let Some(current) = self.goal() else { return false };
        if !self.ready() {
            return false;
        }
        self.open_journal(current);
        if settling.fresh.is_some() && self.mark_first(current) {
            return true;
        }
        let marked = settling.fresh.is_none() || self.replicator.marked == Some(current);
        if self.replicator.journal != Some(current) || !marked {
            return self.ask_arbiter();
        }
        match settling.recorded {
            None if settling.cause == Cause::Again => {
                self.finish_settling(current);
                true
            }
            None => {
                if self.basis(settling.cause).is_none() {
                    return self.ask_arbiter();
                }
                self.record_settled(settling);
                true
            }
            Some(serial) if self.durable < serial => false,
            Some(_) => {
                if settling.fresh.is_some() {
                    self.finish_settling(current);
                } else if let Some(why) = self.basis(settling.cause) {
                    self.record(false, format!("serves alone: {why}"));
                    self.finish_settling(current);
                } else {
                    // It slept, or the peer is back: nothing was acknowledged under this lineage yet.
                    self.hard.lineage.settled = false;
                    self.settling = None;
                    self.fence("going on alone was no longer safe when it was recorded");
                    self.persist();
                }
                true
            }
        }
    }

    /// A lineage that stands on nothing is written to the roots before hard state names it: a copy whose marker may be
    /// absent could not be told from a foreign one.
    fn mark_first(&mut self, goal: LineageId) -> bool {
        if self.replicator.mark_asked == Some(goal) {
            return false;
        }
        self.hard.marker_before = Some(goal);
        self.hard.was_empty = self.copy() == Copy::Empty;
        // Forced, with what was found in the place of its own: the records are not of that.
        self.hard.unrecorded |= self.copy() == Copy::Unknown;
        self.persist();
        self.mark(goal);
        true
    }

    fn record_settled(&mut self, settling: Settling) {
        if let Some(abandoned) = self.conceded_to_me().flatten() {
            remember(&mut self.hard.lineage, [abandoned]);
        }
        if let Some(fresh) = settling.fresh {
            give_up_unsettled(&mut self.hard.lineage);
            self.hard.lineage.current.get_or_insert(fresh.root);
            self.branch(fresh.new);
            self.hard.marker_before = None;
            self.replicator.copy = Copy::Known;
            self.hard.lineage.forced = settling.cause == Cause::Forced;
            if settling.cause == Cause::Forced {
                // What a person chose counts as it is, but in what it differs nobody has recorded.
                self.hard.unrecorded |= !self.hard.consistent || self.hard.target || self.hard.edited;
                self.hard.edited = false;
            }
            self.hard.consistent = true;
            self.hard.outdated = false;
            self.hard.target = false;
            self.disk_failed = false;
            let why = self.basis(settling.cause).unwrap_or("the first primary");
            self.record(false, format!("serves alone: {why}"));
        }
        self.hard.lineage.settled = true;
        self.hard.lineage.forced |= settling.cause == Cause::Stale;
        if self.hard.role != Role::Primary {
            self.hard.role = Role::Primary;
            self.hard.term += 1;
        }
        self.hard.offered = false;
        self.persist();
        self.settling = Some(Settling { recorded: Some(self.hard.serial), ..settling });
    }

    fn finish_settling(&mut self, current: LineageId) {
        if self.conceded_to_me().is_some() {
            self.peer_conceded();
        }
        self.dropped.suspected = None;
        self.settling = None;
        self.mode = Mode::Alone;
        self.rights.promote = false;
        self.offer = None;
        self.fenced_because = None;
        self.timers.cancel(Timer::Stall);
        self.timers.cancel(Timer::Slow);
        self.resettle();
        if self.hard.marker_before.is_some() || self.replicator.marked != Some(current) {
            self.mark(current);
        }
        self.join();
    }

    /// Tells the replicator that operations may be acknowledged alone.
    pub(crate) fn resettle(&mut self) {
        if let Some(current) = self.hard.lineage.current {
            self.replicator.settled = Some(current);
            self.open_journal(current);
            self.replicate(ReplicatorCommand::Settle(current));
        }
    }

    /// The rule by which going on alone is allowed now, for people.
    pub(crate) fn basis(&self, cause: Cause) -> Option<&'static str> {
        match cause {
            Cause::Forced if self.arbiter_kind() != ArbiterKind::Lock || self.lacks_only_silent() => {
                return Some("an administrator forced it");
            }
            Cause::First if self.arbiter_kind() != ArbiterKind::Lock => return Some("the first primary"),
            Cause::Forced | Cause::First | Cause::Rules | Cause::Demand | Cause::Again | Cause::Stale => {}
        }
        if self.conceded_to_me().is_some() {
            return Some("the peer recorded that its copy is outdated");
        }
        if self.peer_is_my_target() {
            return Some("the peer is the target of its resynchronisation");
        }
        if self.peer_fenced() {
            return Some("the peer confirmed that it left service");
        }
        let stale = cause == Cause::Stale;
        let silent = self.peer_silent() && (self.rights.alone || stale) && self.isolation_waits().is_none();
        match self.arbiter_kind() {
            ArbiterKind::Lock => self
                .goal()
                .is_some_and(|goal| self.record_is_of(goal))
                .then_some("the arbiter holds its lineage"),
            ArbiterKind::Reachability => (silent && self.arbiter.reachable == Some(true))
                .then_some("the peer is silent, the arbiters answer"),
            ArbiterKind::None if stale => silent.then_some("it was in step within sync_delta"),
            ArbiterKind::None => {
                (silent && cause != Cause::Demand).then_some("the peer is silent on every lan")
            }
        }
    }

    /// Rule (a), first half: the peer's answer to my demand; with the lineage that it gave up.
    fn conceded_to_me(&self) -> Option<Option<LineageId>> {
        let conceded = self.peer.view.as_ref()?.conceded?;
        (Some(conceded.lineage) == self.goal()).then_some(conceded.abandoned)
    }

    /// Rule (a), second half.
    fn peer_is_my_target(&self) -> bool {
        let Some(session) = self.session.as_ref() else { return false };
        session.role == Role::Primary
            && session.plan != Plan::Repair
            && self.present().is_some_and(|peer| {
                peer.entered.is_some_and(|entered| entered.session == session.id)
                    && peer.outdated
                    && peer.target
            })
    }

    /// Rule (d).
    pub(crate) fn peer_fenced(&self) -> bool {
        let lineage = &self.hard.lineage;
        let base = lineage.base.or(lineage.current);
        let entitled = match self.mode {
            Mode::Primary | Mode::Candidate => true,
            Mode::Second => self.rights.promote,
            Mode::Stopped | Mode::Waiting | Mode::Target | Mode::Alone => false,
        };
        let Some(peer) = self.peer.view.as_deref() else { return false };
        let Some(fenced) = peer.fenced else { return false };
        entitled
            && self.session.is_none()
            && self.leaving.is_none()
            && fenced.session.is_some()
            && (fenced.session == self.last_session || self.lacks(LeftOut::FenceNamesSession))
            && Some(fenced.lineage) == base
            && (peer.lineage.base.is_none() && peer.lineage.current == base
                || self.lacks(LeftOut::FencedHoldsNoBase))
    }

    // Arbiters.

    /// The record is of this lineage, wherever it must be.
    pub(crate) fn record_is_of(&self, lineage: LineageId) -> bool {
        !self.hard.disputed && self.locks().iter().all(|lock| self.arbiter.holds(lock, lineage))
    }

    /// Whose record is to be had next. All nodes ask in the same order: two that share some do not each get a part.
    fn next_lock(&self) -> Option<Lock> {
        let mut lacking = self.lacking(self.goal()?);
        let forced = self.is_forced();
        let answers = lacking.iter().position(|lock| !self.arbiter.silent.contains(lock));
        let first = if forced { answers.unwrap_or(0) } else { 0 };
        (first < lacking.len()).then(|| lacking.swap_remove(first))
    }

    /// What is asked next. No record is taken before all are known to be had: a part of them would serve nobody, and keep the
    /// other node from serving.
    fn next_question(&self) -> Option<Asked> {
        let next = self.next_lock()?;
        let goal = self.goal()?;
        if self.is_forced() {
            return Some(Asked::Read(next));
        }
        let known = |lock: &Lock| self.arbiter.value(lock).filter(|value| self.may_swap(*value));
        match self.lacking(goal).into_iter().find(|lock| known(lock).is_none()) {
            Some(unknown) => Some(Asked::Read(unknown)),
            None => known(&next).map(|expect| Asked::Swap { lock: next, expect, new: goal }),
        }
    }

    /// Whose record is not had yet.
    fn lacking(&self, goal: LineageId) -> Vec<Lock> {
        let mut lacking = self.locks();
        lacking.retain(|lock| !self.arbiter.holds(lock, goal));
        lacking
    }

    fn is_forced(&self) -> bool {
        self.settling.is_some_and(|settling| settling.cause == Cause::Forced)
    }

    /// Rule (b): a record may be swapped only from an id that this copy follows. Who waits with a lineage that was never settled
    /// may use the record only if it already is its own.
    fn may_swap(&self, value: Option<LineageId>) -> bool {
        let entitled = self.settling.is_some() || self.hard.lineage.settled;
        entitled && (self.follows(value) || self.is_forced() || self.lacks(LeftOut::RecordMustBeFollowed))
    }

    fn follows(&self, value: Option<LineageId>) -> bool {
        value.is_none_or(|id| self.hard.lineage.follows(id))
    }

    /// A person forced it, and the records that are not had are those of who does not answer.
    fn lacks_only_silent(&self) -> bool {
        let next = self.next_lock();
        self.hard.disputed || next.is_some_and(|lock| self.arbiter.silent.contains(&lock))
    }

    /// The arbiter's word would help now.
    fn wants_arbiter(&self) -> bool {
        if self.hard.disputed {
            return false;
        }
        let Some(settling) = self.settling else { return self.start_wants_record() };
        let mutual = self.now.since(self.peer.mutual());
        match self.arbiter_kind() {
            ArbiterKind::None => false,
            ArbiterKind::Reachability => {
                self.peer_silent() && matches!(settling.cause, Cause::Rules | Cause::Stale)
            }
            ArbiterKind::Lock => match settling.cause {
                Cause::First | Cause::Forced => true,
                Cause::Again | Cause::Demand | Cause::Stale => false,
                Cause::Rules if self.mode == Mode::Primary => mutual >= self.grace() * 6 / 10,
                Cause::Rules => self.peer_silent(),
            },
        }
    }

    pub(crate) fn ask_arbiter(&mut self) -> bool {
        if self.timers.is_set(Timer::Arbiter) && !self.timers.is_due(Timer::Arbiter, self.now) {
            return false;
        }
        let kind = self.arbiter_kind();
        let question = self.next_question().filter(|_| kind == ArbiterKind::Lock);
        if !self.wants_arbiter() || (kind == ArbiterKind::Lock && question.is_none()) {
            let cancel = self.timers.is_set(Timer::Arbiter);
            self.timers.cancel(Timer::Arbiter);
            return cancel;
        }
        // Between the question and the fence of a serving node lies less than a third of the timeout.
        let patience = if self.settling.is_some() { self.grace() / 15 } else { self.config.timeout };
        self.timers.set(Timer::Arbiter, self.now + patience);
        self.ask(question.unwrap_or(Asked::Reachable));
        true
    }

    fn ask(&mut self, question: Asked) {
        match &question {
            Asked::Nothing => {}
            Asked::Reachable => self.out.push(Action::AskReachable),
            Asked::Read(lock) => self.out.push(Action::ArbiterRead(lock.clone())),
            Asked::Swap { lock, expect, new } => {
                self.out.push(Action::ArbiterSwap { lock: lock.clone(), expect: *expect, new: *new });
            }
        }
        self.arbiter.asked = question;
    }

    pub(crate) fn apply_reachable(&mut self, reachable: bool) {
        if self.arbiter.asked == Asked::Reachable {
            self.arbiter.asked = Asked::Nothing;
            self.arbiter.reachable = Some(reachable);
        }
    }

    pub(crate) fn apply_arbiter(&mut self, lock: &Lock, answer: ArbiterEvent) {
        let asked = std::mem::take(&mut self.arbiter.asked);
        let (of_this, swaps) = match &asked {
            Asked::Read(of) => (of == lock, None),
            Asked::Swap { lock: of, new, .. } => (of == lock, Some(*new)),
            Asked::Nothing | Asked::Reachable => (false, None),
        };
        match answer {
            ArbiterEvent::Value(value) if of_this && swaps.is_none() => self.use_record(lock, value),
            ArbiterEvent::Refused(value) if of_this && swaps.is_some() => self.use_record(lock, value),
            ArbiterEvent::Swapped(value) if of_this && swaps == Some(value) => self.have_record(lock, value),
            ArbiterEvent::Unreachable if of_this => {
                self.arbiter.silent.retain(|silent| silent != lock);
                self.arbiter.silent.push(lock.clone());
                // Until it answers, a person may have the other node take the records that this one had.
                if !self.is_forced() {
                    self.arbiter.held.clear();
                    self.arbiter.read.clear();
                }
            }
            ArbiterEvent::Value(_)
            | ArbiterEvent::Refused(_)
            | ArbiterEvent::Swapped(_)
            | ArbiterEvent::Unreachable => self.arbiter.asked = asked,
        }
    }

    fn have_record(&mut self, lock: &Lock, lineage: LineageId) {
        self.arbiter.silent.retain(|silent| silent != lock);
        self.arbiter.hold(lock, lineage);
        if self.next_lock().is_some() {
            // At once: little time is left to a node that serves.
            self.timers.cancel(Timer::Arbiter);
        }
    }

    fn use_record(&mut self, lock: &Lock, value: Option<LineageId>) {
        self.arbiter.silent.retain(|silent| silent != lock);
        let Some(current) = self.goal() else { return };
        if value == Some(current) {
            return self.have_record(lock, current);
        }
        self.arbiter.foreign = !self.follows(value);
        if !self.may_swap(value) {
            return;
        }
        self.arbiter.remember(lock, value);
        let question = if self.is_forced() {
            Some(Asked::Swap { lock: lock.clone(), expect: value, new: current })
        } else {
            self.next_question()
        };
        if let Some(question) = question {
            self.timers.set(Timer::Arbiter, self.now + self.grace() / 15);
            self.ask(question);
        }
    }
}
