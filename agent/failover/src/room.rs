//! Room for a resync on its target (DESIGN section 5, S10): a copy that is as good as it was is not begun to be changed
//! when the change surely cannot be completed.
//!
//! Order: the target joins the session with its copy untouched, its replicators compare what the source has with what is
//! free, and only if it may fit does this node record its copy inconsistent, durably, and lets the source begin. A copy
//! that is inconsistent already has nothing to lose: it goes on from where it was, and what was sent is kept.

use crate::action::ReplicatorCommand;
use crate::failover::Failover;
use crate::hard::Role;
use crate::view::{Mode, SessionId};

impl Failover {
    pub(crate) fn apply_room(&mut self, id: SessionId, outcome: Result<(), String>) {
        let waits = |session: &crate::session::Session| {
            session.id == id && session.role == Role::Secondary && session.joined && !session.open
        };
        if self.mode != Mode::Target {
            return;
        }
        let Some(session) = self.session.as_mut().filter(|session| waits(session)) else { return };
        match outcome {
            Ok(()) => {
                session.open = true;
                self.replicator.no_room = None;
                self.hard.consistent = false;
                self.persist();
                self.replicate(ReplicatorCommand::Receive(id));
            }
            // The source is told by its replicator, keeps away for a while, and meets again.
            Err(reason) => {
                let first = self.replicator.no_room.is_none();
                if first {
                    self.record(true, format!("this copy stays as it was: {reason}"));
                }
                self.replicator.no_room = Some(reason);
            }
        }
    }
}
