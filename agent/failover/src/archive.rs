//! What this copy alone holds is kept before the other node's data takes its place (DESIGN section 6, split brain).
//!
//! Order: this node is out of service, its replicator writes the archive and reports that it is durable, only then does
//! this node enter the session as its target. Until it enters nothing of the copy is touched, so an archive that was
//! broken off is simply made again; once it has entered (`HardState::target`) none is made any more.

use crate::action::ReplicatorCommand;
use crate::failover::Failover;
use crate::left_out::LeftOut;
use crate::lineage::LineageId;
use crate::session::effective_current;
use crate::timer::Timer;
use crate::view::View;

/// How often an archive for which there was no room is tried again, as a multiple of the timeout.
const AGAIN: u32 = 20;

/// The archive of what is about to be given up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) enum Archive {
    /// None was asked for.
    #[default]
    Nothing,
    /// The replicator writes it.
    Asked(LineageId),
    /// It is durable.
    Kept(LineageId),
    /// It cannot be written; why, for people. Tried again when `Timer::Archive` is due.
    Refused(LineageId, String),
}

impl Failover {
    /// The lineage under which this copy went on alone, if that is about to be given up. Whether the source has it in its
    /// history says nothing: it may have left before this copy acknowledged more under it.
    pub(crate) fn parts_with(&self, source: &View) -> Option<LineageId> {
        let lineage = &self.hard.lineage;
        let given_up = !self.hard.target
            && !self.discards
            && !self.lacks(LeftOut::ArchiveBeforeTarget)
            && lineage.base.is_some()
            && lineage.settled
            && lineage.current != effective_current(&source.lineage);
        lineage.current.filter(|_| given_up)
    }

    /// Before this node enters as a target and parts with what it wrote under `own`: none if nothing stands in the way (any more), else whether
    /// anything was done about it.
    pub(crate) fn keep_own(&mut self, own: Option<LineageId>) -> Option<bool> {
        let own = own?;
        match &self.replicator.archive {
            Archive::Kept(kept) if *kept == own => return None,
            Archive::Asked(asked) if *asked == own => return Some(false),
            Archive::Refused(refused, _) if *refused == own => {
                if !self.timers.is_due(Timer::Archive, self.now) {
                    return Some(false);
                }
            }
            Archive::Nothing | Archive::Asked(_) | Archive::Kept(_) | Archive::Refused(..) => {}
        }
        self.timers.cancel(Timer::Archive);
        self.replicator.archive = Archive::Asked(own);
        self.replicate(ReplicatorCommand::Archive(own));
        Some(true)
    }

    pub(crate) fn apply_archived(&mut self, lineage: LineageId, outcome: Result<Option<String>, String>) {
        if self.replicator.archive != Archive::Asked(lineage) {
            return;
        }
        match outcome {
            Ok(kept) => {
                self.replicator.archive = Archive::Kept(lineage);
                if let Some(kept) = kept {
                    self.record(true, kept);
                }
            }
            Err(reason) => {
                self.record(true, format!("what this copy alone holds cannot be kept: {reason}"));
                self.timers.set(Timer::Archive, self.now + self.config.timeout * AGAIN);
                self.replicator.archive = Archive::Refused(lineage, reason);
            }
        }
    }

    /// The copy is about to be changed by this node itself: what was kept is not all any more.
    pub(crate) fn forget_archive(&mut self) {
        self.replicator.archive = Archive::Nothing;
        self.timers.cancel(Timer::Archive);
    }
}
