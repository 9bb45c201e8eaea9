//! While the agent is gone: speak in its place, and fence this node when it is gone for too long, or when the other
//! node may have taken over.

use std::sync::Arc;
use std::time::Duration;

use crate::fence::{drop_addresses, kill_processes};
use crate::replica::Replica;

/// For the module's processes to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(2);
/// A process that nobody ever told what to do ends after this.
const UNCONFIGURED: Duration = Duration::from_secs(60);

/// Between two looks at the disk.
const LOOK: Duration = Duration::from_millis(500);

/// Reports a disk that does not carry out what it was given. Runs until the process ends.
pub fn watch_disk(replica: &Replica) {
    let mut hangs = false;
    loop {
        std::thread::sleep(LOOK);
        let now = replica.hanging();
        if let Some(since) = now
            && !hangs
        {
            replica.disk_hangs(since);
        }
        hangs = now.is_some();
    }
}

/// Runs until the process ends.
pub fn watch(replica: &Arc<Replica>) {
    let mut interval = Duration::from_millis(300);
    // How long the agent had been gone when everything was cleared away; a shorter time is another absence.
    let mut cleared: Option<Duration> = None;
    loop {
        let Some((gone, fenced)) = replica.agent.wait_gone(interval) else { return };
        let Some((settings, mounted, settled, contact)) = replica.watched() else {
            if gone > UNCONFIGURED {
                tracing::info!("no agent has come: the process ends");
                std::process::exit(0);
            }
            continue;
        };
        interval = settings.interval;
        cleared = cleared.filter(|before| gone >= *before);
        let unheard = !settled && contact.elapsed() > settings.timeout / 10 * 9;
        if !fenced && (gone > settings.agent_timeout || (mounted && unheard)) {
            tracing::warn!(gone_ms = gone.as_millis(), unheard, "fencing this node: its agent is gone");
            replica.freeze();
            drop_addresses(&settings.virtual_addresses);
            replica.fence();
            kill_processes(&settings.module, &settings.module_dir, KILLED);
            cleared = Some(gone);
        } else if fenced && cleared.is_none() {
            // Fenced by the agent's order: it may have died before it removed the addresses.
            drop_addresses(&settings.virtual_addresses);
            kill_processes(&settings.module, &settings.module_dir, KILLED);
            cleared = Some(gone);
        }
        replica.agent.speak(&settings.heartbeat_key);
    }
}
