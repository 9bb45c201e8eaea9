//! Child processes: those started on purpose, and orphans that fall to the daemon as their subreaper.
//!
//! The exit of a child started on purpose belongs to whoever waits for it; every other zombie is reaped here. A child
//! is entered into the list under the same lock under which it is started, so the reaper never sees it without.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, WaitOptions};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::node::Startup;

/// Orphans are looked for this often even if a signal was missed.
const INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// Attempts to start a program whose file another thread's child still holds open for writing.
const BUSY_ATTEMPTS: u32 = 20;

/// The list of children started on purpose; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Children {
    known: Arc<Mutex<BTreeSet<i32>>>,
    /// To be taken from the list when it is free. Held for an instant only.
    forgotten: Arc<Mutex<Vec<i32>>>,
}

/// A child started on purpose.
#[derive(Debug)]
pub struct KnownChild {
    child: Child,
    pid: i32,
    children: Children,
}

impl Children {
    /// Starts a child. Blocks while the program is read from its disk: not for a thread that others wait for. Must be
    /// called within the runtime.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<KnownChild> {
        let mut attempt = 0;
        loop {
            match self.spawn_once(command) {
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy && attempt < BUSY_ATTEMPTS =>
                {
                    attempt += 1;
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                done => return done,
            }
        }
    }

    fn spawn_once(&self, command: &mut Command) -> io::Result<KnownChild> {
        let mut known = self.known.lock();
        for pid in self.forgotten.lock().drain(..) {
            known.remove(&pid);
        }
        let child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| io::Error::other("the child has no process id"))?;
        known.insert(pid);
        Ok(KnownChild { child, pid, children: self.clone() })
    }

    /// Becomes the reaper of all descendants, and reaps those that nobody waits for.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn adopt_orphans(&self, shutdown: CancellationToken) -> Result<(), Startup> {
        let failed = |error: io::Error| Startup(format!("cannot look after child processes: {error}"));
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|e| failed(e.into()))?;
        let mut ended = signal(SignalKind::child()).map_err(failed)?;
        let children = self.clone();
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(INTERVAL);
            loop {
                tokio::select! {
                    _ = ended.recv() => {}
                    _ = interval.tick() => {}
                    () = shutdown.cancelled() => return,
                }
                children.reap();
            }
        });
        Ok(())
    }

    /// Reaps every zombie that was not started on purpose.
    fn reap(&self) {
        // Somebody starts a child at present: what ends meanwhile is reaped the next time.
        let Some(known) = self.known.try_lock() else { return };
        for pid in own_children() {
            if known.contains(&pid) {
                continue;
            }
            if let Some(pid) = Pid::from_raw(pid) {
                // Not ended yet, or reaped in between: both are well.
                let _ended = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}

impl KnownChild {
    /// Its process id, which is also its group's.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end; may be cancelled and called again.
    ///
    /// # Errors
    /// As of `waitpid(2)`.
    pub async fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        self.child.wait().await
    }

    /// Sends a signal to its group.
    pub fn signal_group(&self, signal: rustix::process::Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // No such group: it has ended.
            let _gone = rustix::process::kill_process_group(pid, signal);
        }
    }
}

impl Drop for KnownChild {
    fn drop(&mut self) {
        // Never waits: a child that is being started from a disk that hangs holds the lock.
        match self.children.known.try_lock() {
            Some(mut known) => {
                known.remove(&self.pid);
            }
            None => self.children.forgotten.lock().push(self.pid),
        }
    }
}

/// Children of all threads of this process, from `/proc`: reading it blocks on nothing.
fn own_children() -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}
