//! The process that holds the namespaces of a host, and outlives neither the test nor the host.
//!
//! A host is process 1 of a process namespace (`init`): killing it kills everything on the host. Its parent, the
//! guardian, reads a pipe whose other end only the test holds: when the test ends in whatever way, the guardian
//! kills init, waits until the namespace is empty and removes what it was told to. All that is left to a sweeper is
//! the directory of a guardian that was itself killed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock;
use crate::error::{Context as _, Error, Result};
use crate::eventually::eventually_true;
use crate::place::binary;
use crate::process;

mod entrance;
mod init;
mod keeper;

/// How long a host may take to come up or to go down; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a host is made of.
#[derive(Debug, Clone, Default)]
pub struct Charge {
    /// Host name.
    pub name: String,
    /// Directory that the host sees at [`DISK`]: its disk. Without it the host has the machine's files only.
    pub disk: Option<PathBuf>,
    /// File with the boot id that the host sees.
    pub boot_id: Option<PathBuf>,
    /// Locked as long as the guardian lives.
    pub lock: Option<PathBuf>,
    /// Removed at the very end.
    pub remove: Option<PathBuf>,
}

/// Where a host sees its disk.
pub const DISK: &str = "/srv";

/// A running guardian, as its owner sees it.
#[derive(Debug)]
pub struct Guardian {
    process: Child,
    /// Closing it is the signal to clean up.
    leash: Option<ChildStdin>,
    init: u32,
}

impl Guardian {
    /// Makes the namespaces and waits until they are ready.
    pub fn start(charge: &Charge) -> Result<Self> {
        let mut command = Command::new(binary("guardian")?);
        command.arg("keep").arg("--name").arg(&charge.name);
        for (flag, value) in [
            ("--disk", &charge.disk),
            ("--boot-id", &charge.boot_id),
            ("--lock", &charge.lock),
            ("--remove", &charge.remove),
        ] {
            if let Some(value) = value {
                command.arg(flag).arg(value);
            }
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context(|| "starting a guardian".to_owned())?;
        let leash = process.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let init = line
            .trim()
            .parse()
            .map_err(|_| Error::new(format!("host {} did not come up (see above)", charge.name)))?;
        Ok(Self { process, leash, init })
    }

    /// Process 1 of the host, as numbered outside.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// Kills everything on the host at once and waits until it is gone.
    pub fn kill(mut self) -> Result<()> {
        // The guardian reaps init only when asked to end, so the number still means our process.
        process::signal(self.init, Signal::KILL)?;
        self.leash = None;
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        // Not `eventually`: it gives up when interrupted, and just then this must be done.
        let deadline = clock::now() + PATIENCE;
        while self.process.try_wait()?.is_none() {
            if clock::now() > deadline {
                return Err(Error::new("its guardian does not end"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.leash = None;
        if let Err(error) = self.wait() {
            // Nobody is left to answer to; the sweeper of the next run removes what stays.
            drop(writeln!(std::io::stderr(), "a host was left behind: {error}"));
        }
    }
}

/// Entry point of the `guardian` binary: the guardian itself.
pub fn keep(charge: &Charge) -> Result<()> {
    keeper::keep(charge)
}

/// Entry point of the `guardian` binary as process 1 of a host.
pub fn init(charge: &Charge) -> Result<()> {
    init::run(charge)
}

/// Entry point of the `guardian` binary as the door to a host: runs a program in the host's namespaces and answers
/// its exit code. (nsenter of util-linux stops itself when its child is stopped, which a frozen host must not do to
/// the outside.)
pub fn enter(init: u32, words: &[std::ffi::OsString]) -> Result<u8> {
    entrance::enter(init, words)
}
