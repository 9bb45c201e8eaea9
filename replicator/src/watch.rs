//! While the agent is gone: speak in its place, and fence this node when it is gone for too long, or when the other
//! node may have taken over.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Boottime;
use crate::fence::{drop_addresses, kill_processes};
use crate::replica::Replica;
use crate::settings::Settings;

/// For the module's processes to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(2);
/// For the virtual addresses to be removed.
const REMOVED: Duration = Duration::from_secs(2);
/// Between two looks whether they are.
const GLANCE: Duration = Duration::from_millis(5);
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
    let mut removal = None;
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
            if fence(replica, &settings, &mut removal) {
                cleared = Some(gone);
            }
        } else if fenced && cleared.is_none() && clear(&settings, &mut removal) {
            // Fenced by the agent's order: it may have died before it removed the addresses.
            cleared = Some(gone);
        }
        replica.agent.speak(&settings.heartbeat_key);
    }
}

/// Confirmed to the other node, by what is said from now on, only when nothing serves here any more: true.
fn fence(replica: &Arc<Replica>, settings: &Settings, removal: &mut Option<JoinHandle<()>>) -> bool {
    replica.freeze();
    begin_removal(settings, removal);
    let ended = replica.fence();
    let cleared = clear(settings, removal);
    if let Err(error) = ended {
        tracing::error!(error, "this process ends, and the connection with it");
        std::process::exit(1);
    }
    if cleared {
        replica.agent.set_fenced(true);
    }
    cleared
}

/// Kills the module's processes and removes its addresses. False: the addresses are not gone yet.
fn clear(settings: &Settings, removal: &mut Option<JoinHandle<()>>) -> bool {
    begin_removal(settings, removal);
    kill_processes(&settings.module, &settings.module_dir, KILLED);
    let begun = Boottime::now();
    let removed = |removal: &Option<JoinHandle<()>>| removal.as_ref().is_some_and(JoinHandle::is_finished);
    while removal.is_some() && !removed(removal) && begun.elapsed() < REMOVED {
        std::thread::sleep(GLANCE);
    }
    if !removed(removal) {
        tracing::error!("the virtual addresses cannot be removed yet");
        return false;
    }
    *removal = None;
    true
}

/// Beside the rest: the program that removes the addresses may have to be read from a disk that hangs.
fn begin_removal(settings: &Settings, removal: &mut Option<JoinHandle<()>>) {
    if removal.is_none() {
        let addresses = settings.virtual_addresses.clone();
        let removing = std::thread::Builder::new().name("addresses".into());
        *removal = removing.spawn(move || drop_addresses(&addresses)).ok();
    }
}
