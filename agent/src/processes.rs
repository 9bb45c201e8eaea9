//! Finds every process of a module and kills it.
//!
//! A process belongs to a module if its environment says so, or if it holds the module's mount. Reading `/proc` of a
//! process that is stuck in a page fault can block, so a scan runs in threads of its own: one that blocks is left
//! behind and its process counts as unreadable.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use safe_failover::Time;

use crate::clock;

mod look;
mod mounts;
mod scan;

pub use mounts::{FuseMount, fuse_mounts_at, unescape};

/// Pause between two rounds of killing.
const ROUND: Duration = Duration::from_millis(20);

/// Whom to look for.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// Value of `SAFE_MODULE`.
    pub module: String,
    /// Value of `SAFE_DIR`: another node on the same machine may have a module of the same name.
    pub dir: PathBuf,
    /// Replicated directories: whoever holds a FUSE mount on one of them belongs to the module.
    pub directories: Vec<PathBuf>,
    /// Never touched, whatever they hold: the replicator. The daemon itself is spared always.
    pub spare: BTreeSet<i32>,
}

/// Processes still there when the time was up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// They do not die: each waits for a disk or a mount.
    pub alive: BTreeSet<i32>,
    /// Their `/proc` entries cannot be read: they may or may not belong to the module.
    pub unreadable: BTreeSet<i32>,
}

impl Hunt {
    /// Processes of the module now, and those that could not be looked at. Blocks: not for the owner loop.
    #[must_use]
    pub fn find(&self) -> (BTreeSet<i32>, BTreeSet<i32>) {
        let look = look::Look::new(self);
        let mut pids = look::all_pids();
        pids.retain(|pid| !self.spare.contains(pid));
        scan::scan(Arc::new(move |pid| look.belongs(pid)), pids)
    }

    /// Kills them until none is left. Blocks: not for the owner loop.
    ///
    /// # Errors
    /// Who is left at the deadline.
    pub fn kill(&self, within: Duration) -> Result<(), Leftover> {
        let deadline = clock::now() + within;
        let mut shunned = BTreeSet::new();
        loop {
            let mut hunt = self.clone();
            hunt.spare.extend(&shunned);
            let (alive, unreadable) = hunt.find();
            shunned.extend(unreadable);
            if alive.is_empty() && shunned.is_empty() {
                return Ok(());
            }
            for pid in &alive {
                self.kill_one(*pid);
            }
            if alive.is_empty() || clock::now() >= deadline {
                return Err(Leftover { alive, unreadable: shunned });
            }
            std::thread::sleep(ROUND.min(remaining(deadline)));
        }
    }

    /// By descriptor, and looked at once more through it: the number may have gone to another process.
    fn kill_one(&self, pid: i32) {
        let Some(raw) = Pid::from_raw(pid) else { return };
        let Ok(process) = rustix::process::pidfd_open(raw, PidfdFlags::empty()) else { return };
        let look = look::Look::new(self);
        let (still, unreadable) = scan::scan(Arc::new(move |pid| look.belongs(pid)), vec![pid]);
        if still.contains(&pid) || unreadable.contains(&pid) {
            // It has ended in between: well.
            let _gone = rustix::process::pidfd_send_signal(process, Signal::KILL);
        }
    }
}

/// Every other process of which this is true; `wanted` may block on one. Blocks: not for the owner loop.
pub fn find(wanted: impl Fn(i32) -> bool + Send + Sync + 'static) -> BTreeSet<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut pids = look::all_pids();
    pids.retain(|pid| *pid != own);
    scan::scan(Arc::new(wanted), pids).0
}

fn remaining(deadline: Time) -> Duration {
    deadline.since(clock::now())
}

#[cfg(test)]
mod tests;
