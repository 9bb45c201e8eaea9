//! Whether another core can go on from here with nothing but hard state and the running replicator.

use crate::failover::Failover;
use crate::replicator::Process;
use crate::view::Mode;

impl Failover {
    /// Nothing is under way that only this core knows of: a procedure, a command, a decision that is not durable, a word
    /// that the other node waits for.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        let asked = self.pending.command.is_some() || self.yields || self.discards || self.take_over;
        let moves = self.service.busy()
            || self.closing.is_some()
            || self.settling.is_some()
            || self.leaving.is_some()
            || self.hard.offered
            || self.keeps_suspended_right()
            || self.mode == Mode::Candidate
            || (self.mode == Mode::Primary && !self.is_paired());
        let told = self.mode != Mode::Waiting
            || self.fence_confirmed().is_none()
            || self.present().is_some_and(|peer| matches!(peer.mode, Mode::Alone | Mode::Stopped));
        let process = matches!(self.replicator.process, Process::Off | Process::Ready | Process::Refused);
        let joins = self.session.as_ref().is_some_and(|session| !session.up);
        let durable = self.written.is_empty() && !self.broken && !self.resume_alone;
        self.started && durable && process && told && !(asked || moves || joins)
    }

    /// The right to promote outlives a broken stream, but not this core: it is granted in a session only.
    fn keeps_suspended_right(&self) -> bool {
        self.mode == Mode::Second && self.session.is_none() && self.rights.promote
    }

    fn is_paired(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.paired)
    }
}
