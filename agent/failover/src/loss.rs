//! The peer is lost, or only its stream: who promotes, who goes on, who fences itself.

use crate::action::ReplicatorCommand;
use crate::config::{ArbiterKind, Isolation};
use crate::failover::Failover;
use crate::left_out::LeftOut;
use crate::settle::Cause;
use crate::timer::Timer;
use crate::view::{Conceded, Demand, Mode};

impl Failover {
    /// Who has settled none of its own and hears of another, settled lineage drops every right and waits to meet.
    pub(crate) fn rule_foreign_lineage(&mut self) -> bool {
        let forced = self.settling.is_some_and(|settling| settling.cause == Cause::Forced);
        let kept = self.closing_swap() || forced || self.lacks(LeftOut::ForeignLineageFences);
        if self.session.is_some() || self.settled() || kept {
            return false;
        }
        if !matches!(self.mode, Mode::Second | Mode::Primary | Mode::Candidate) {
            return false;
        }
        let Some(peer) = self.present() else { return false };
        let foreign = peer.lineage.base.is_some()
            && peer.lineage.settled
            && peer.lineage.current != self.hard.lineage.current;
        if !foreign {
            return false;
        }
        if self.recording() {
            self.hard.lineage.settled = false;
            self.settling = None;
            self.persist();
        }
        self.fence("the other node went on without it");
        true
    }

    /// Rule (a): the peer, which serves, goes on without this copy.
    pub(crate) fn rule_concede(&mut self) -> bool {
        let Some(demand) = self.present().and_then(|peer| peer.demand) else {
            return false;
        };
        if self.conceded.is_some_and(|conceded| conceded.lineage == demand.lineage)
            || !self.may_concede(demand)
        {
            return false;
        }
        let stays = self.lacks(LeftOut::ConcedingEndsCandidacy);
        if self.session.is_some() {
            self.leave_session();
        }
        if !stays {
            self.rights.lose();
        }
        if !self.hard.outdated {
            self.hard.outdated = true;
            self.hard.offered = false;
            self.persist();
            self.record(
                true,
                format!("{} goes on without this copy, which is outdated now", self.config.peer),
            );
        }
        if !stays {
            self.settling = None;
            if self.mode != Mode::Stopped {
                self.mode = Mode::Waiting;
            }
        }
        // The workers of its session may be stuck; they count for a new session, not for what is recorded here.
        let silent = self.lacks(LeftOut::ConcessionNamesAbandoned);
        let abandoned = self.hard.lineage.base.and(self.hard.lineage.current).filter(|_| !silent);
        self.conceded = Some(Conceded { lineage: demand.lineage, abandoned });
        true
    }

    fn may_concede(&self, demand: Demand) -> bool {
        let lineage = &self.hard.lineage;
        let idle = match self.mode {
            Mode::Stopped | Mode::Waiting | Mode::Second | Mode::Candidate | Mode::Target => true,
            Mode::Primary | Mode::Alone => false,
        };
        idle && !self.serving()
            && !self.recording()
            && (lineage.base.or(lineage.current) == Some(demand.base) || self.lacks(LeftOut::DemandNamesBase))
            && (!(lineage.base.is_some() && lineage.settled) || self.lacks(LeftOut::SettledConcedesNothing))
    }

    /// This node recorded itself outdated for a lineage that the peer is about to settle.
    pub(crate) fn concession_stands(&self) -> bool {
        let demand = self.present().and_then(|peer| peer.demand);
        demand.is_some_and(|demand| self.conceded.is_some_and(|conceded| conceded.lineage == demand.lineage))
    }

    /// What this node asks of its peer.
    pub(crate) fn demand(&self) -> Option<Demand> {
        let asks = match self.settling {
            Some(settling) if settling.recorded.is_none() => {
                self.mode == Mode::Primary || settling.cause == Cause::Demand
            }
            Some(_) | None => false,
        };
        let lineage = &self.hard.lineage;
        let (base, current) = lineage.base.zip(lineage.current)?;
        (asks && self.session.is_none() && !lineage.settled && !self.peer_fenced())
            .then_some(Demand { base, lineage: current })
    }

    pub(crate) fn rule_loss(&mut self) -> bool {
        if self.session.is_some() && self.session_is_lost() {
            self.leave_session();
            return true;
        }
        match self.mode {
            Mode::Primary => self.lose_second(),
            Mode::Second => self.lose_primary(),
            Mode::Candidate => self.lose_candidacy(),
            Mode::Stopped | Mode::Waiting | Mode::Target | Mode::Alone => false,
        }
    }

    /// The peer has been silent so long that the session cannot be waited for.
    fn session_is_lost(&self) -> bool {
        let asks = self.arbiter_kind() == ArbiterKind::Lock && self.mode == Mode::Primary;
        let primary = self.mode == Mode::Primary;
        let repairs_too_long = primary && self.timers.is_due(Timer::Slow, self.now);
        let not_up = self.session.as_ref().is_some_and(|session| !session.up);
        let stalls = primary && not_up && self.timers.is_due(Timer::Stall, self.now);
        self.peer_silent() || repairs_too_long || stalls || (asks && self.mutual_silence(6))
    }

    /// Silence, in both directions, of so many tenths of the grace.
    pub(crate) fn mutual_silence(&self, tenths: u32) -> bool {
        self.now.since(self.peer.mutual()) >= self.grace() * tenths / 10
    }

    /// The same, also when this node slept through it.
    pub(crate) fn raw_silence(&self, tenths: u32) -> bool {
        self.now.since(self.peer.raw_mutual()) >= self.grace() * tenths / 10
    }

    fn lose_second(&mut self) -> bool {
        let lock = self.arbiter_kind() == ArbiterKind::Lock;
        let held = self.settling.is_some_and(|settling| self.basis(settling.cause).is_some());
        let lacks = self.lacks(LeftOut::FencedBeforeTheOtherAsks);
        if lock && self.raw_silence(9) && !lacks && !held && !self.peer_fenced() && !self.recording() {
            self.fence("the other node is silent and the arbiter did not confirm this one");
            return true;
        }
        let lacks = self.lacks(LeftOut::LongPauseFences);
        if !lock
            && !self.rights.alone
            && !lacks
            && self.raw_silence(10)
            && !self.peer_fenced()
            && !self.recording()
        {
            self.fence("this node was paused for so long that the other may have gone on");
            return true;
        }
        // The other one serves from the whole timeout on: until then this node is out of its way.
        if !self.carrier
            && self.raw_silence(9)
            && !self.peer_fenced()
            && !self.recording()
            && let Some(why) = self.isolation_waits()
        {
            self.fence(why);
            return true;
        }
        if self.session.is_some() || self.leaving.is_some() {
            return false;
        }
        let silent = self.peer_silent();
        if !lock && silent && !self.peer_fenced() && !self.recording() {
            if !self.rights.alone {
                self.fence("this node was paused while the other fell silent");
                return true;
            }
            if let Some(why) = self.isolation_waits() {
                self.fence(why);
                return true;
            }
            if self.arbiter.answered_isolated() || self.peer.silence(self.now) >= self.bears() * 2 {
                self.fence("every lan is silent and no arbiter answers: this node is isolated");
                return true;
            }
        }
        if self.settling.is_some() {
            return false;
        }
        if self.closing.is_some() && self.timers.is_due(Timer::Stall, self.now) && self.present().is_some() {
            // It is leaving service anyway: the other one takes over at once instead of being outdated.
            self.fence("the session ended while it left service");
            return true;
        }
        let asks = if lock { self.mutual_silence(6) } else { silent };
        let slow = self.timers.is_due(Timer::Slow, self.now);
        let stalled = slow || self.timers.is_due(Timer::Stall, self.now);
        let failed = self.keeps_peer_away() || self.present().is_some_and(|peer| !peer.consistent);
        if !asks && !stalled && !failed && !self.peer_fenced() {
            return false;
        }
        self.dropped.suspected = match (self.keeps_peer_away(), failed, slow) {
            (true, _, _) => None,
            (false, true, _) => Some("its copy is inconsistent"),
            (false, false, true) => Some("what was in flight could not be repaired in time"),
            (false, false, false) => Some("its replicator did not answer in time"),
        };
        self.begin_alone(Mode::Primary, Cause::Rules);
        true
    }

    fn lose_primary(&mut self) -> bool {
        let free = self.session.is_none() && self.leaving.is_none() && self.closing.is_none() && self.ready();
        let good = self.hard.consistent
            && !self.hard.outdated
            && !self.hard.target
            && self.hard.lineage.base.is_none();
        let fenced = self.peer_fenced();
        if !free || !(self.peer_silent() || fenced) {
            return false;
        }
        if !good || !self.rights.promote {
            self.leave_role("it is not confirmed that this copy holds every write");
            return true;
        }
        if let Some(why) = self.isolation_waits().filter(|_| !fenced) {
            self.leave_role(why);
            return true;
        }
        // Silence heard by who slept proves nothing; a lock arbiter decides without clocks.
        if !fenced && !self.rights.alone && self.arbiter_kind() != ArbiterKind::Lock {
            return false;
        }
        if !self.config.failover && !self.take_over {
            return false;
        }
        let peer = &self.config.peer;
        // Who left and said so is not lost, and nobody has to be woken for it.
        let text = if fenced {
            format!("{peer} has left service: this node takes over")
        } else {
            format!("{peer} is lost: this node takes over")
        };
        self.record(!fenced, text);
        self.begin_alone(Mode::Candidate, Cause::Rules);
        true
    }

    /// Why this node waits when every lan is silent; none: it may go on. Where a lock arbiter is, its record decides.
    pub(crate) fn isolation_waits(&self) -> Option<&'static str> {
        match self.arbiter_kind() {
            ArbiterKind::Lock => None,
            ArbiterKind::None | ArbiterKind::Reachability if !self.carrier => {
                Some("every lan is silent and its address interface has no carrier")
            }
            ArbiterKind::None if self.config.isolation == Isolation::Wait => {
                Some("every lan is silent and isolation is \"wait\"")
            }
            ArbiterKind::None | ArbiterKind::Reachability => None,
        }
    }

    /// A candidate that lost the rule it stood on waits for the meeting.
    fn lose_candidacy(&mut self) -> bool {
        let Some(settling) = self.settling else { return false };
        if settling.recorded.is_some() || self.session.is_some() {
            return false;
        }
        let hopeless = match settling.cause {
            Cause::Rules => match self.arbiter_kind() {
                ArbiterKind::Lock => (self.arbiter.foreign || self.hard.disputed) && !self.peer_fenced(),
                ArbiterKind::None | ArbiterKind::Reachability => {
                    (!self.rights.alone || self.isolation_waits().is_some()) && !self.peer_fenced()
                }
            },
            Cause::Demand => {
                self.timers.is_due(Timer::Demand, self.now)
                    || self.present().is_none_or(|peer| peer.lineage.settled)
            }
            Cause::Stale => {
                self.present().is_some()
                    || self.isolation_waits().is_some()
                    || self.arbiter.answered_isolated()
            }
            Cause::First | Cause::Forced | Cause::Again => false,
        };
        if hopeless {
            self.leave_role("it can no longer tell whether the other node went on");
        }
        hopeless
    }

    /// At once out of service. The peer is told when it is done.
    pub(crate) fn fence(&mut self, why: &str) {
        let active = self.serving() || self.service.busy();
        if self.serving() && !self.service.fencing() {
            self.record(true, format!("fences itself: {why}"));
        }
        if active && !self.service.fencing() && self.service.exposed() {
            self.begin_fence("failover");
        }
        self.retired = true;
        self.leave_role(why);
    }

    /// Gives up the role; what runs is stopped in good order if it does not serve.
    pub(crate) fn leave_role(&mut self, why: &str) {
        self.rights.lose();
        self.settling = None;
        self.timers.cancel(Timer::Stall);
        if self.mode != Mode::Stopped {
            self.mode = Mode::Waiting;
            self.fenced_because = Some(why.to_owned());
        }
        if self.session.is_some() {
            self.leave_session();
        }
    }

    pub(crate) fn apply_disk_failed(&mut self, reason: &str) {
        self.record(
            true,
            format!("the disk failed: {reason}; this copy is inconsistent until compared in full"),
        );
        self.fence("its disk failed");
        self.disk_failed = true;
        self.hard.consistent = false;
        self.hard.target = false;
        self.persist();
    }

    pub(crate) fn apply_wrote_alone(&mut self, lineage: crate::lineage::LineageId) {
        if self.hard.lineage.current == Some(lineage) && !self.hard.lineage.wrote_alone {
            self.hard.lineage.wrote_alone = true;
            self.persist();
        }
    }

    /// For commands that must reach a replicator which may be gone.
    pub(crate) fn unsettle(&mut self) {
        if self.replicator.settled.take().is_some() {
            self.replicate(ReplicatorCommand::Unsettle);
        }
    }
}
