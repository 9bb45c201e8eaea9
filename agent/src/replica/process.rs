//! The replicator's process: started so that it survives the daemon, and killed for certain.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

use crate::children::{Children, KnownChild};
use crate::module::Module;
use crate::paths::make_private;
use crate::{linux, log};

/// A killed process ends at once, unless it waits for a disk.
const DEATH: Duration = Duration::from_secs(5);

/// A replicator: started by this daemon, or adopted.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    handle: AsyncFd<OwnedFd>,
    /// Must be waited for if this daemon started it.
    child: Option<KnownChild>,
}

/// Longest wait for the program to be read from its disk.
const LAUNCH: Duration = Duration::from_secs(10);

fn start_now(program: &Path, module: &Module, children: &Children) -> io::Result<KnownChild> {
    if !program.is_file() {
        let why = format!("there is no {}: install it beside safed", program.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    make_private(module.paths.run())?;
    make_private(&module.paths.journal())?;
    for socket in [module.paths.control_socket(), module.paths.fds_socket()] {
        // Not there: well.
        let _absent = std::fs::remove_file(socket);
    }
    let output = log::open(&module.paths.replicator_log())?;
    let mut command = Command::new(program);
    command
        .arg("--run-dir")
        .arg(module.paths.run())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .kill_on_drop(false);
    for key in ["SAFE_MODULE", "SAFE_DIR"] {
        command.env_remove(key);
    }
    linux::own_session(&mut command);
    children.spawn(&mut command)
}

/// Where the program is: beside the daemon's own.
#[must_use]
pub fn program() -> PathBuf {
    // Without /proc there is no daemon at all; the error would come from starting the program.
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().unwrap_or(Path::new("/")).join("safe-replicator")
}

impl Process {
    /// Starts one. Files are touched in a thread that may block.
    pub(super) async fn start(program: &Path, module: &Arc<Module>, children: &Children) -> io::Result<Self> {
        let (program, module, children) = (program.to_owned(), Arc::clone(module), children.clone());
        let started = tokio::task::spawn_blocking(move || start_now(&program, &module, &children));
        let child = tokio::time::timeout(LAUNCH, started)
            .await
            .map_err(|_| io::Error::other("its disk hangs"))???;
        let mut process = Self::of(child.pid())?;
        process.child = Some(child);
        Ok(process)
    }

    /// One that runs already.
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        let raw = Pid::from_raw(pid).ok_or_else(|| io::Error::other("the replicator has no process id"))?;
        let handle = rustix::process::pidfd_open(raw, PidfdFlags::NONBLOCK)?;
        Ok(Self { pid, handle: linux::watch(handle)?, child: None })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end. May be cancelled.
    pub(super) async fn ended(&mut self) {
        if let Some(child) = &mut self.child {
            // An error means that there is nothing to wait for.
            let _ended = child.wait().await;
            return;
        }
        // A descriptor of a process becomes readable when it ends.
        let _readable = self.handle.readable().await;
    }

    /// Ends it. False: it has not ended yet, but runs no instruction of its own any more.
    pub(super) async fn kill(&mut self) -> bool {
        let _gone = rustix::process::pidfd_send_signal(self.handle.get_ref(), Signal::KILL);
        self.ended_within(DEATH).await
    }

    /// Waits for its end, for a while.
    pub(super) async fn ended_within(&mut self, within: Duration) -> bool {
        tokio::time::timeout(within, self.ended()).await.is_ok()
    }
}
