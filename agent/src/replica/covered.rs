//! The read-only cover of the directories: on whenever nothing is mounted above it, but for the moment in which a
//! replicator opens them, and while an administrator has them unlocked.

use std::time::Duration;

use safe_failover::event::ReplicatorEvent;
use tokio::time::Instant;

use super::Keeper;
use crate::boot_units;
use crate::cover::Found;
use crate::node::What;

/// Between two looks at whether it is there still, and whether a disk was mounted that is to be covered.
const GLANCE: Duration = Duration::from_secs(5);

/// Why the cover is off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Lifted {
    /// It is on.
    #[default]
    No,
    /// A replicator is about to open the directories.
    Opening,
    /// By an administrator, until the module is started.
    Unlocked,
}

impl Keeper {
    /// Until when nothing has to be looked at.
    pub(super) fn next_look(&self) -> Instant {
        self.looked + GLANCE
    }

    /// Whether everything is as it should be.
    pub(super) async fn look(&mut self) {
        self.cover().await;
        self.look_at_boot().await;
    }

    /// Services that would write to the directories although the module does not serve: said when it is news.
    async fn look_at_boot(&mut self) {
        let scripts = self.setup.module.paths.spec().join("scripts");
        let Ok(warnings) = tokio::task::spawn_blocking(move || boot_units::warnings_of(&scripts)).await
        else {
            return;
        };
        if self.warnings == warnings {
            return;
        }
        for news in warnings.iter().filter(|text| !self.warnings.contains(text)) {
            self.note(true, news);
        }
        self.warnings.clone_from(&warnings);
        self.setup.reporter.tell(What::Warnings(warnings)).await;
    }

    /// Puts it on where it is missing. Who got around it meanwhile is reported.
    pub(super) async fn cover(&mut self) {
        self.looked = Instant::now();
        if self.lifted != Lifted::No || self.mounted || self.changing {
            return;
        }
        let Found { bypassed, failed } = self.cover.put().await;
        if let Some(why) = bypassed {
            self.report(ReplicatorEvent::Edited(why)).await;
        }
        // Once, not at each look.
        if self.uncovered != failed {
            if let Some(why) = &failed {
                self.note(true, why);
            }
            self.uncovered = failed;
        }
    }

    /// For a replicator that is to open the directories.
    pub(super) async fn lift(&mut self) {
        self.lifted = Lifted::Opening;
        match self.cover.take_off().await {
            Ok(Some(why)) => self.report(ReplicatorEvent::Edited(why)).await,
            Ok(None) => {}
            // The replicator will find them read-only, and say so.
            Err(why) => self.note(true, &why),
        }
    }

    /// It has opened them, or will not.
    pub(super) async fn lower(&mut self) {
        if self.lifted == Lifted::Opening {
            self.lifted = Lifted::No;
        }
        self.cover().await;
    }

    /// For an administrator.
    pub(super) async fn unlock(&mut self) {
        self.lifted = Lifted::Unlocked;
        let outcome = self.cover.take_off().await.map(drop);
        self.report(ReplicatorEvent::Uncovered(outcome)).await;
    }
}
