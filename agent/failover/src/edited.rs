//! A copy whose files may have been changed while this node did not serve (S19): the administrator unlocked it, or somebody
//! went around the cover. It is no source, and serves only if a person says so; compared in full, it is a copy again.

use crate::action::ReplicatorCommand;
use crate::event::Command;
use crate::failover::Failover;
use crate::view::Mode;

impl Failover {
    /// The directories of the stopped module may be changed by people from now on.
    pub(crate) fn command_unlock(&mut self) {
        let (module, node) = (&self.config.module, &self.config.node);
        if self.mode != Mode::Stopped || self.service.busy() {
            let why = format!(
                "{module} is not stopped on {node}: what is changed there now would be changed behind its back"
            );
            self.refuse(Command::Unlock, &why, "stop");
            return;
        }
        if self.hard.lineage.current.is_none() {
            let why = format!("{module} was never in step on {node}, so nothing is locked there");
            self.answer(Command::Unlock, Err(why));
            return;
        }
        self.hard.unlocked = true;
        self.hard.edited = true;
        self.hard.unrecorded = true;
        self.persist();
        self.record(
            true,
            "an administrator unlocked the directories: this copy counts as edited until it is compared",
        );
        self.pend(Command::Unlock);
        self.replicate(ReplicatorCommand::Uncover);
    }

    pub(crate) fn apply_uncovered(&mut self, outcome: Result<(), String>) {
        if self.pending.command == Some(Command::Unlock) {
            self.end_command(outcome);
        }
    }

    /// Somebody went around the cover.
    pub(crate) fn apply_edited(&mut self, reason: &str) {
        // What serves lies above the cover: nobody but the replicator reaches the files.
        if self.serving() || self.hard.lineage.current.is_none() {
            return;
        }
        if self.session.is_some() {
            self.fence("its files may have been changed by somebody else");
        }
        if !self.hard.edited || !self.hard.unrecorded {
            self.hard.edited = true;
            self.hard.unrecorded = true;
            self.persist();
        }
        self.record(true, format!("{reason}: this copy counts as edited until it is compared"));
    }
}
