//! Exchanging roles (DESIGN section 5): the primary leaves service, persists the offer, then offers; the other
//! persists the new role, then acts. Killed at any step, one primary remains.

use crate::action::ReplicatorCommand;
use crate::config::DefaultPrimary;
use crate::failover::Failover;
use crate::hard::Role;
use crate::left_out::LeftOut;
use crate::posture::Posture;
use crate::start::Goal;
use crate::timer::Timer;
use crate::view::Mode;

impl Failover {
    /// Why a swap is not possible now; none: it is.
    pub(crate) fn swap_obstacle(&self) -> Option<String> {
        let peer_name = &self.config.peer;
        if self.mode != Mode::Primary || self.service.posture != Posture::Prim {
            return Some(format!("{} does not serve with its peer in step", self.config.node));
        }
        if self.service.busy() || self.closing.is_some() {
            return Some("another procedure runs".to_owned());
        }
        let paired = self.session.as_ref().is_some_and(|session| session.paired && session.up);
        let Some(peer) = self.present().filter(|_| paired) else {
            return Some(format!("{peer_name} is not in step"));
        };
        if peer.mode != Mode::Second || !peer.consistent || peer.outdated {
            return Some(format!("{peer_name} is not ready to serve"));
        }
        None
    }

    pub(crate) fn begin_swap(&mut self) {
        self.close(Goal::Swap);
        self.begin_hand_over();
    }

    pub(crate) fn rule_swap(&mut self) -> bool {
        self.rule_prefer() || self.rule_offer() || self.rule_take_offer() || self.rule_offer_taken()
    }

    /// The preferred primary gets its role back once it is in step.
    fn rule_prefer(&mut self) -> bool {
        let preferred = match self.config.default_primary {
            DefaultPrimary::None => false,
            DefaultPrimary::Last => self.hard.took_over,
            DefaultPrimary::Node(side) => side != self.config.side,
        };
        let tried = self.session.as_ref().is_none_or(|session| self.preferred_in == Some(session.id));
        if !preferred || tried || !self.granted() || self.swap_obstacle().is_some() {
            self.timers.cancel(Timer::Quiet);
            return false;
        }
        if !self.timers.is_set(Timer::Quiet) {
            self.timers.set(Timer::Quiet, self.now + self.config.quiet);
        }
        if !self.timers.is_due(Timer::Quiet, self.now) {
            return false;
        }
        self.timers.cancel(Timer::Quiet);
        self.preferred_in = self.session.as_ref().map(|session| session.id);
        let why = match self.config.default_primary {
            DefaultPrimary::Last => "was primary before it was lost",
            DefaultPrimary::None | DefaultPrimary::Node(_) => "is the preferred primary",
        };
        self.record(false, format!("{} {why}: swapping", self.config.peer));
        self.begin_swap();
        true
    }

    /// The peer was told that it may promote.
    fn granted(&self) -> bool {
        let told = self.told.as_ref().and_then(|told| told.grant);
        told.is_some() && self.grant() == told
    }

    /// Out of service: no operation can come any more.
    fn rule_offer(&mut self) -> bool {
        if !self.closing_swap() || self.service.busy() {
            return false;
        }
        let session =
            self.session.as_ref().filter(|session| session.paired && session.up).map(|session| session.id);
        let (Some(id), Mode::Primary, false) = (session, self.mode, self.serving()) else {
            // The session ended meanwhile: this node keeps its role.
            self.closing = None;
            return true;
        };
        self.closing = None;
        self.hard.role = Role::Secondary;
        self.hard.term += 1;
        self.hard.offered = true;
        self.hard.took_over = false;
        self.persist();
        self.mode = Mode::Second;
        // It holds every acknowledged operation, and keeps the right to promote should the other one die now.
        self.rights.promote = !self.lacks(LeftOut::OffererKeepsRight);
        self.offer = Some(id);
        self.turn(Role::Secondary);
        self.timers.set(Timer::Offer, self.now + self.config.timeout * 2);
        true
    }

    fn rule_take_offer(&mut self) -> bool {
        let Some(session) = self.session.as_ref().filter(|session| session.paired && session.up) else {
            return false;
        };
        let id = session.id;
        let Some(peer) = self.present() else { return false };
        let term = peer.term;
        let good = self.hard.consistent && !self.hard.outdated && self.hard.lineage.base.is_none();
        if peer.offer != Some(id)
            || term != self.hard.term + 1
            || self.mode != Mode::Second
            || self.closing.is_some()
            || !good
            || (self.raw_silence(9) && !self.lacks(LeftOut::OfferEndsWithSilence))
        {
            return false;
        }
        self.hard.role = Role::Primary;
        self.hard.term = term;
        self.hard.offered = false;
        self.offer = None;
        self.persist();
        self.mode = Mode::Primary;
        self.rights.promote = false;
        self.turn(Role::Primary);
        self.record(false, format!("takes the primary role from {}", self.config.peer));
        true
    }

    fn rule_offer_taken(&mut self) -> bool {
        let Some(offer) = self.offer.filter(|_| self.hard.offered) else { return false };
        let term = self.hard.term;
        let live = self.session.as_ref().is_some_and(|session| session.id == offer);
        let taken =
            live && self.present().is_some_and(|peer| peer.mode == Mode::Primary && peer.term == term);
        if taken {
            self.hard.offered = false;
            self.offer = None;
            self.persist();
            self.timers.cancel(Timer::Offer);
            return true;
        }
        if live && self.timers.is_due(Timer::Offer, self.now) {
            self.record(true, format!("{} did not take the primary role", self.config.peer));
            self.leave_session();
            return true;
        }
        false
    }

    fn turn(&mut self, role: Role) {
        let Some(session) = &mut self.session else { return };
        session.role = role;
        let id = session.id;
        self.replicate(ReplicatorCommand::Turn(id, role));
    }
}
