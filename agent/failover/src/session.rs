//! Sessions: entering one at a meeting, pairing at its end, leaving it.
//!
//! Who will not be the source enters first, durably; the other enters on seeing that. Pairing (DESIGN section 6): the
//! target is in step and persists the source's lineage, then the source persists the pair, then it confirms rights.

use crate::action::ReplicatorCommand;
use crate::config::Side;
use crate::failover::Failover;
use crate::hard::Role;
use crate::left_out::LeftOut;
use crate::lineage::{HISTORY_LIMIT, Lineage, LineageId};
use crate::meeting::{Outcome, meet_without};
use crate::posture::Posture;
use crate::settle::{Arbiter, Cause};
use crate::timer::Timer;
use crate::view::{Copy, Entered, Mode, Plan, SessionId, View};

/// This node's part in a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) role: Role,
    pub(crate) plan: Plan,
    /// Lineage of the source at the meeting.
    pub(crate) source: Option<LineageId>,
    /// The replicator was told to join.
    pub(crate) joined: bool,
    /// As target: the copy may be changed.
    pub(crate) open: bool,
    /// The stream is up.
    pub(crate) up: bool,
    /// The target has everything (as far as this node's replicator knows).
    pub(crate) in_step: bool,
    /// The source has asked its replicator to hold to the session again, and waits for the proof.
    pub(crate) barrier: bool,
    /// This node's step of the pairing is durable.
    pub(crate) paired: bool,
}

/// Adds ids to the front of a history.
pub(crate) fn remember(lineage: &mut Lineage, ids: impl IntoIterator<Item = LineageId>) {
    let known = |lineage: &Lineage, id| lineage.history.contains(&id);
    let fresh: Vec<LineageId> =
        ids.into_iter().filter(|id| !known(lineage, *id) && lineage.current != Some(*id)).collect();
    lineage.history.splice(0..0, fresh);
    lineage.history.truncate(HISTORY_LIMIT);
}

/// Gives up a lineage that was never settled: nothing was acknowledged under it.
pub(crate) fn give_up_unsettled(lineage: &mut Lineage) {
    if lineage.settled {
        return;
    }
    let Some(base) = lineage.base.take() else { return };
    let abandoned = lineage.current.replace(base);
    lineage.history.retain(|id| *id != base);
    remember(lineage, abandoned);
    lineage.prim_of_base = false;
    lineage.wrote_alone = false;
}

impl Failover {
    pub(crate) fn rule_session(&mut self) -> bool {
        if self.session.is_some() {
            return self.rule_stay() || self.rule_join() || self.rule_pair();
        }
        self.rule_enter() || self.rule_accept()
    }

    /// What both views make of a meeting, as seen from here.
    pub(crate) fn outcome(&self, peer: &View) -> Outcome {
        let own = self.view();
        let (first, second) = match self.config.side {
            Side::First => (&own, peer),
            Side::Second => (peer, &own),
        };
        meet_without(first, second, self.config.split_brain, self.config.left_out)
    }

    /// This node can begin a session.
    pub(crate) fn meetable(&self) -> bool {
        let settled = |mode| mode != Mode::Alone || self.settling.is_none();
        self.started
            && !self.broken
            && self.wanted()
            && self.mode != Mode::Stopped
            && settled(self.mode)
            && self.closing.is_none()
            && self.blocked.is_none()
            && self.reactions.hold.is_none()
            && self.ready()
            && self.session.is_none()
            && self.leaving.is_none()
            && !self.service.fencing()
            && !self.concession_stands()
            && !self.leaves_the_field()
            && !self.keeps_peer_away()
            && !self.recording()
            && self.settling.is_none_or(|settling| !settling.by_person())
            && (self.mode != Mode::Waiting || self.service.posture == Posture::Idle && !self.service.busy())
    }

    /// The peer was told that this node left service, and is about to take over.
    fn leaves_the_field(&self) -> bool {
        let waits = self.timers.is_set(Timer::HandOver) && !self.timers.is_due(Timer::HandOver, self.now);
        waits && self.present().is_some_and(|peer| matches!(peer.mode, Mode::Second | Mode::Candidate))
    }

    /// The non-source enters.
    fn rule_enter(&mut self) -> bool {
        if !self.meetable() || self.hard.disputed {
            return false;
        }
        let Some(peer) = self.present() else { return false };
        let round_trip = peer.heard_link == self.link;
        if !peer.meetable || peer.entered.is_some() || !round_trip {
            return false;
        }
        let (source, plan, split) = match self.outcome(peer) {
            Outcome::Pair(side) => (side, Plan::Repair, false),
            Outcome::Source { side, plan, split } => (side, plan, split),
            Outcome::Person(_) | Outcome::NotYet => return false,
        };
        if source == self.config.side {
            return false;
        }
        if self.serving() {
            // Only a split brain, or a lineage given up, finds both serving: this node goes out of service first.
            self.record(
                split,
                "the other node keeps its data: this node gives up its own and leaves service",
            );
            self.leave_service_for_meeting();
            return true;
        }
        let own = self.parts_with(peer);
        let id = self.session_with(peer.link);
        let source = effective_current(&peer.lineage);
        if let Some(done) = self.keep_own(own) {
            return done;
        }
        self.enter(id, plan, source);
        true
    }

    fn enter(&mut self, id: SessionId, plan: Plan, source: Option<LineageId>) {
        self.settling = None;
        give_up_unsettled(&mut self.hard.lineage);
        self.hard.role = Role::Secondary;
        self.hard.offered = false;
        self.hard.took_over = false;
        if plan != Plan::Repair {
            self.hard.target = true;
            self.hard.outdated = true;
        }
        self.persist();
        self.mode = Mode::Target;
        self.begin_session(id, Role::Secondary, plan, source);
        self.record(false, format!("met {}: this node follows ({})", self.config.peer, plan_name(plan)));
    }

    /// The source enters, on seeing that the other did.
    fn rule_accept(&mut self) -> bool {
        if !self.meetable() || self.hard.disputed {
            return false;
        }
        let Some(peer) = self.present() else { return false };
        let Some(entered) = peer.entered else { return false };
        let source = effective_current(&self.hard.lineage);
        let fits = entered.session == self.session_with(peer.link)
            && entered.role == Role::Secondary
            && entered.source == source
            && !self.yields
            && (self.hard.lineage.current.is_none() || (self.hard.consistent && self.copy() == Copy::Known));
        let alone = self.hard.lineage.base.is_some() && self.hard.lineage.settled;
        // In a pair of equals a record of being outdated was in vain.
        let outdated =
            self.hard.outdated && !(entered.plan == Plan::Repair || peer.lineage.current == source);
        if !fits || outdated || (entered.plan == Plan::Repair && alone) {
            return false;
        }
        // What the target gives up is abandoned from here on: an arbiter's record that names it may be replaced.
        let lineage = &peer.lineage;
        let history = lineage.current.into_iter().chain(lineage.base).chain(lineage.history.iter().copied());
        let forgets = self.lacks(LeftOut::AbandonedIsRemembered);
        let (history, term) = (history.filter(|_| !forgets).collect(), peer.term);
        self.accept(entered, history, term);
        true
    }

    fn accept(&mut self, entered: Entered, history: Vec<LineageId>, term: u64) {
        give_up_unsettled(&mut self.hard.lineage);
        remember(&mut self.hard.lineage, history);
        if self.hard.role != Role::Primary || self.hard.term < term {
            self.hard.term = self.hard.term.max(term) + 1;
        }
        self.hard.role = Role::Primary;
        self.hard.offered = false;
        self.hard.outdated = false;
        self.hard.target = false;
        self.settling = None;
        // Until a comparison in full has ended, this node does not know in what the copies differ.
        self.replicator.knows_inflight &= entered.plan != Plan::Full;
        self.begin_session(entered.session, Role::Primary, entered.plan, entered.source);
        self.rights.alone = true;
        if entered.plan == Plan::Repair {
            self.persist();
            self.mode = Mode::Primary;
            // Counted from the first of several tries.
            if !self.timers.is_set(Timer::Slow) {
                self.timers.set(Timer::Slow, self.now + self.config.slow_timeout);
            }
            self.join();
        } else if self.hard.lineage.base.is_some() {
            self.persist();
            if self.mode == Mode::Alone {
                self.join();
            } else {
                self.go_alone_again();
            }
        } else {
            if self.hard.lineage.current.is_none() {
                self.persist();
            }
            self.begin_alone(
                if self.mode == Mode::Primary { Mode::Primary } else { Mode::Candidate },
                Cause::Rules,
            );
        }
        self.record(
            false,
            format!("met {}: this node is the source ({})", self.config.peer, plan_name(entered.plan)),
        );
    }

    fn begin_session(&mut self, id: SessionId, role: Role, plan: Plan, source: Option<LineageId>) {
        let (joined, open, up, in_step, barrier, paired) = (false, false, false, false, false, false);
        self.session = Some(Session { id, role, plan, source, joined, open, up, in_step, barrier, paired });
        self.last_session = Some(id);
        self.rights.lose();
        self.conceded = None;
        self.only_second = false;
        self.take_over = false;
        self.offer = None;
        self.fenced_because = None;
        self.retired = false;
        self.arbiter = Arbiter::default();
        self.timers.set(Timer::Patience, self.now + self.config.timeout * 2);
    }

    /// Tells the replicator; a source first must be able to keep what it acknowledges alone.
    pub(crate) fn join(&mut self) {
        let Some(session) = &mut self.session else { return };
        if session.joined {
            return;
        }
        session.joined = true;
        let room = receives_a_resync(session) && self.hard.consistent;
        session.open = !room;
        let (id, role, plan) = (session.id, session.role, session.plan);
        self.replicate(ReplicatorCommand::Join { session: id, role, plan, room });
    }

    /// Leaves a session that the peer is not, or no longer, part of.
    fn rule_stay(&mut self) -> bool {
        let Some(session) = &self.session else { return false };
        let (id, role) = (session.id, session.role);
        let due = self.timers.is_due(Timer::Patience, self.now);
        let Some(peer) = self.present() else {
            return false;
        };
        let confirmed = !self.timers.is_set(Timer::Patience);
        let entered =
            peer.entered.is_some_and(|entered| entered.session == id && (confirmed || entered.role != role));
        if entered {
            let cancel = self.timers.is_set(Timer::Patience);
            self.timers.cancel(Timer::Patience);
            return cancel;
        }
        let waits = role == Role::Secondary
            && self.timers.is_set(Timer::Patience)
            && peer.entered.is_none()
            && peer.link == self.peer_side_of(id);
        if waits && !due {
            return false;
        }
        self.leave_session();
        true
    }

    /// The target joins when the source has settled: should that one be lost until then, this copy is as good as it was.
    fn rule_join(&mut self) -> bool {
        let Some(session) = self.session.as_ref().filter(|session| !session.joined) else { return false };
        if self.mode != Mode::Target || self.timers.is_set(Timer::Patience) {
            return false;
        }
        if session.plan != Plan::Repair {
            let settled = self.present().is_some_and(|peer| peer.mode == Mode::Alone && peer.lineage.settled);
            if !settled {
                return false;
            }
        }
        self.join();
        true
    }

    /// Ends this node's part; `SessionEnded` says that all workers are gone.
    pub(crate) fn leave_session(&mut self) {
        let Some(session) = self.session.take() else { return };
        if session.joined && self.ready() {
            self.leaving = Some(session.id);
            self.replicate(ReplicatorCommand::Leave(session.id));
        }
        self.session_over(&session);
    }

    pub(crate) fn apply_session_gone(&mut self, id: SessionId) {
        if self.leaving == Some(id) {
            self.leaving = None;
        }
        if self.session.as_ref().is_some_and(|session| session.id == id)
            && let Some(session) = self.session.take()
        {
            self.session_over(&session);
        }
    }

    fn session_over(&mut self, session: &Session) {
        self.link = self.identity.link();
        self.timers.cancel(Timer::Patience);
        self.timers.cancel(Timer::Offer);
        if self.mode != Mode::Primary {
            self.timers.cancel(Timer::Slow);
        }
        match self.mode {
            Mode::Target => self.mode = Mode::Waiting,
            Mode::Primary => {
                if !self.timers.is_set(Timer::Stall) {
                    self.timers.set(Timer::Stall, self.now + self.config.stall_timeout);
                }
            }
            Mode::Alone => {
                // A pairing that was not persisted did not happen: operations may be acknowledged alone again.
                if session.barrier && self.hard.lineage.settled {
                    self.resettle();
                }
            }
            Mode::Stopped | Mode::Waiting | Mode::Second | Mode::Candidate => {}
        }
    }

    pub(crate) fn apply_session_up(&mut self, id: SessionId) {
        if let Some(session) = self.session.as_mut().filter(|session| session.id == id) {
            session.up = true;
        }
    }

    pub(crate) fn apply_in_step(&mut self, id: SessionId) {
        if let Some(session) = self.session.as_mut().filter(|session| session.id == id) {
            session.up = true;
            session.in_step = true;
        }
    }

    fn rule_pair(&mut self) -> bool {
        let Some(session) = &self.session else { return false };
        let Some(peer) = self.present() else { return false };
        let entered = peer.entered.is_some_and(|entered| entered.session == session.id);
        if !entered || self.closing.is_some() {
            return false;
        }
        if !session.in_step {
            return self.mode == Mode::Target && session.open && self.label_target();
        }
        match (session.role, self.mode) {
            (Role::Secondary, Mode::Target) => self.pair_target(),
            (Role::Primary, Mode::Alone | Mode::Primary) => self.pair_source(),
            (Role::Primary | Role::Secondary | Role::None, _) => false,
        }
    }

    /// A target whose root carries no marker, or not the expected one, is marked as a copy of the source: broken off and
    /// restarted it will be known again as the target that it is.
    fn label_target(&mut self) -> bool {
        let Some(source) =
            self.present().filter(|peer| peer.mode == Mode::Alone).and_then(|peer| peer.lineage.current)
        else {
            return false;
        };
        if self.replicator.copy == Copy::Known || self.replicator.mark_asked == Some(source) {
            return false;
        }
        self.hard.marker_before = Some(source);
        self.persist();
        self.mark(source);
        true
    }

    /// Step 2, and its end: the source persisted the pair as well.
    fn pair_target(&mut self) -> bool {
        let Some(peer) = self.present() else { return false };
        let Some(session) = &self.session else { return false };
        let Some(current) = peer.lineage.current else { return false };
        if session.paired {
            let early = self.lacks(LeftOut::GrantAfterPairing);
            if !early && (peer.paired != Some(session.id) || peer.mode != Mode::Primary) {
                return false;
            }
            self.mode = Mode::Second;
            self.rights.alone = true;
            self.record(false, format!("in step with {}: this node may take over", self.config.peer));
            return true;
        }
        if session.barrier {
            if self.replicator.marked != Some(current) {
                return false;
            }
            self.replicator.knows_inflight = true;
            self.mark_paired();
            return true;
        }
        if self.replicator.copy != Copy::Known {
            return self.label_target();
        }
        let (history, term) = (peer.lineage.history.clone(), peer.term);
        // The source is not past the lineage change that this meeting brought.
        let past = match peer.mode {
            Mode::Alone => peer.lineage.settled,
            Mode::Primary => peer.lineage.base.is_none(),
            Mode::Stopped | Mode::Waiting | Mode::Target | Mode::Second | Mode::Candidate => false,
        };
        if !past {
            return false;
        }
        if self.hard.lineage.current != Some(current) {
            self.hard.marker_before = self.hard.lineage.current.or(self.hard.marker_before);
        }
        self.hard.consistent = true;
        self.hard.outdated = false;
        self.hard.target = false;
        self.hard.edited = false;
        self.hard.unrecorded = false;
        if self.lacks(LeftOut::PairingInOneWrite) {
            self.persist();
        }
        self.hard.lineage = Lineage { current: Some(current), history, ..Lineage::default() };
        self.hard.role = Role::Secondary;
        self.hard.term = term;
        self.hard.boot_id = self.config.boot_id;
        self.hard.last_paired = self.wall;
        (self.yields, self.discards) = (false, false);
        self.disk_failed = false;
        self.persist();
        self.replicator.journal = None;
        self.replicator.journal_asked = None;
        self.replicate(ReplicatorCommand::ClearJournal);
        self.mark(current);
        self.set_barrier();
        true
    }

    /// Step 3: only after the replicator holds to the session again, and its root marker is durable.
    fn pair_source(&mut self) -> bool {
        let Some(peer) = self.present() else { return false };
        let Some(session) = &self.session else { return false };
        let Some(current) = self.hard.lineage.current else { return false };
        if session.paired || peer.paired != Some(session.id) || peer.lineage.current != Some(current) {
            return false;
        }
        if !session.barrier {
            if self.mode == Mode::Alone {
                self.replicator.settled = None;
                self.replicate(ReplicatorCommand::Unsettle);
            }
            self.mark(current);
            self.set_barrier();
            return true;
        }
        if self.replicator.marked != Some(current) && !self.lacks(LeftOut::BarrierBeforePairing) {
            return false;
        }
        let lineage = &mut self.hard.lineage;
        let base = lineage.base.take();
        lineage.settled = false;
        lineage.prim_of_base = false;
        lineage.forced = false;
        lineage.wrote_alone = false;
        remember(lineage, base);
        self.hard.unrecorded = false;
        self.hard.boot_id = self.config.boot_id;
        self.hard.last_paired = self.wall;
        self.persist();
        self.replicator.journal = None;
        self.replicator.journal_asked = None;
        self.replicate(ReplicatorCommand::ClearJournal);
        self.mode = Mode::Primary;
        self.replicator.knows_inflight = true;
        self.timers.cancel(Timer::Stall);
        self.timers.cancel(Timer::Slow);
        self.mark_paired();
        self.peer_in_step();
        self.record(false, format!("{} is in step", self.config.peer));
        true
    }

    fn set_barrier(&mut self) {
        if let Some(session) = &mut self.session {
            session.barrier = true;
        }
    }

    fn mark_paired(&mut self) {
        if let Some(session) = &mut self.session {
            session.paired = true;
        }
    }
}

/// A repair sends what was in flight, and only that.
fn receives_a_resync(session: &Session) -> bool {
    session.role == Role::Secondary && session.plan != Plan::Repair
}

/// `current`, or its base while it is not settled.
pub(crate) fn effective_current(lineage: &Lineage) -> Option<LineageId> {
    if lineage.settled { lineage.current } else { lineage.base.or(lineage.current) }
}

const fn plan_name(plan: Plan) -> &'static str {
    match plan {
        Plan::Repair => "repair of what was in flight",
        Plan::Delta => "resynchronisation of what changed",
        Plan::Full => "comparison in full",
    }
}
