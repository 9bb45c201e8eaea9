//! Two rights that a node holds only as long as it was awake: to go alone by silence (rule (c)), and to promote.

use std::time::Duration;

use crate::failover::Failover;
use crate::left_out::LeftOut;
use crate::time::Time;
use crate::timer::Timer;
use crate::view::{Grant, Mode};

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rights {
    /// Rule (c) may be used.
    pub(crate) alone: bool,
    /// This copy holds every acknowledged operation of its lineage: granted by the primary.
    pub(crate) promote: bool,
    /// Raised with each loss: an answer to an older wish is void.
    pub(crate) ticket: u64,
}

impl Rights {
    pub(crate) const fn lose(&mut self) {
        self.alone = false;
        self.promote = false;
        self.ticket += 1;
    }
}

impl Failover {
    /// This node holds every operation acknowledged in its lineage, and may take over by itself.
    #[must_use]
    pub const fn may_promote(&self) -> bool {
        self.rights.promote
    }

    /// Half of the shortest time after which others decide without this node.
    pub(crate) fn pause_limit(&self) -> Duration {
        self.config.stall_timeout.min(self.grace()) / 2
    }

    /// A pause would cost something.
    pub(crate) fn pulse_matters(&self) -> bool {
        match self.mode {
            Mode::Stopped => false,
            Mode::Alone => self.session.is_some() || self.settling.is_some(),
            Mode::Waiting | Mode::Target | Mode::Second | Mode::Candidate | Mode::Primary => true,
        }
    }

    /// The shell promised to call in time; if it did not, this node slept, and the other may have gone on meanwhile.
    pub(crate) fn notice_pause(&mut self, now: Time) {
        let gap = now.since(self.now);
        let slept = self.timers.is_set(Timer::Pulse)
            && gap >= self.pause_limit()
            && !self.lacks(LeftOut::PauseCostsRights);
        self.now = self.now.max(now);
        if !slept {
            return;
        }
        self.peer.awake = self.now;
        if self.rights.alone || self.rights.promote {
            self.record(
                false,
                format!("this node was paused for {gap:?}: its rights must be confirmed again"),
            );
        }
        let ticket = self.rights.ticket;
        self.rights.lose();
        if self.lacks(LeftOut::RightsReturnByRoundTrip) {
            self.rights.ticket = ticket;
        }
    }

    /// A round trip through the live session confirms the rights again.
    pub(crate) fn rule_rights(&mut self) -> bool {
        let Some(session) = self.session.as_ref().filter(|session| session.up) else { return false };
        let mine = Grant { session: session.id, ticket: self.rights.ticket };
        let paired = session.paired;
        let Some(peer) = self.present() else { return false };
        let live = peer.entered.is_some_and(|entered| entered.session == mine.session);
        if !live || peer.grant != Some(mine) {
            return false;
        }
        let early = self.lacks(LeftOut::GrantAfterPairing);
        let promote = self.mode == Mode::Second
            && paired
            && self.hard.consistent
            && !self.hard.outdated
            && (peer.mode == Mode::Primary || early);
        let changed = !self.rights.alone || (promote && !self.rights.promote);
        self.rights.alone = true;
        self.rights.promote |= promote;
        changed
    }

    /// What this node answers to the peer's wish. A primary confirms only a target that it has persisted as paired.
    pub(crate) fn grant(&self) -> Option<Grant> {
        let session = self.session.as_ref().filter(|session| session.up)?;
        let wish = self.present()?.wish.filter(|wish| wish.session == session.id)?;
        let complete = match self.mode {
            Mode::Primary => session.paired,
            Mode::Target | Mode::Second => true,
            Mode::Alone => self.lacks(LeftOut::GrantAfterPairing),
            Mode::Stopped | Mode::Waiting | Mode::Candidate => false,
        };
        complete.then_some(wish)
    }

    pub(crate) fn wish(&self) -> Option<Grant> {
        let session = self.session.as_ref().filter(|session| session.up)?;
        Some(Grant { session: session.id, ticket: self.rights.ticket })
    }
}
