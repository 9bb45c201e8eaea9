//! A host with the daemon on it.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Deserialize;

use crate::error::{Context as _, Error, Result};
use crate::eventually::{eventually, eventually_true};
use crate::host::Host;
use crate::lan::LANS;
use crate::place::binary;
use crate::process;
use crate::program::{Program, Running, Said};
use crate::status::Status;

/// `--root` of every node: on its own disk.
pub const ROOT: &str = "/srv/safed";

/// The daemon answers within this time after its start, also on a busy machine.
const AGENT_UP: Duration = Duration::from_secs(20);

/// A node.
#[derive(Debug)]
pub struct Node {
    host: Host,
    agent: Mutex<Option<Running>>,
}

impl Deref for Node {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Node {
    /// A node on this host; its daemon does not run yet.
    pub fn new(host: Host) -> Self {
        Self { host, agent: Mutex::new(None) }
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_agent(&self) -> Result<()> {
        self.launch_agent()?;
        let what = format!("safed answers on {}", self.name);
        eventually(AGENT_UP, &what, || {
            if let Some(code) = self.agent_ended()? {
                return Err(Error::new(format!(
                    "it ended with code {code}; see {}",
                    self.log("safed").display()
                )));
            }
            self.ctl(["version"])?.run().map(Some)
        })?;
        Ok(())
    }

    /// Starts the daemon, without waiting.
    pub fn launch_agent(&self) -> Result<()> {
        let program = self.program(&binary("safed")?.to_string_lossy())?.args(["--root", ROOT]);
        let running = program.env("RUST_BACKTRACE", "1").spawn(&self.log("safed"))?;
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }

    /// Exit code of the daemon that was started last, if it has ended.
    pub fn agent_ended(&self) -> Result<Option<i32>> {
        let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        agent.as_mut().map_or(Ok(None), Running::ended)
    }

    /// kill -9 of the daemon alone.
    pub fn kill_agent(&self) -> Result<()> {
        self.kill("safed")
    }

    /// Ends the daemon by SIGTERM, as `systemctl stop` does.
    pub fn stop_agent(&self) -> Result<()> {
        let pids = self.running("safed")?;
        for pid in &pids {
            process::signal(*pid, Signal::TERM)?;
        }
        let what = format!("safed on {} ends after SIGTERM", self.name);
        eventually_true(AGENT_UP, &what, || !pids.iter().any(|pid| process::is_alive(*pid)))
    }

    /// kill -9 of the replicators alone.
    pub fn kill_replicator(&self) -> Result<()> {
        self.kill("safe-replicator")
    }

    /// SIGSTOP: the replicators stand still, and nothing else does. Answers when that was.
    pub fn freeze_replicator(&self) -> Result<Instant> {
        let moment = crate::clock::now();
        self.running("safe-replicator")?
            .into_iter()
            .try_for_each(|pid| process::signal(pid, Signal::STOP))?;
        Ok(moment)
    }

    /// They go on.
    pub fn thaw_replicator(&self) -> Result<()> {
        self.running("safe-replicator")?.into_iter().try_for_each(|pid| process::signal(pid, Signal::CONT))
    }

    /// Loss of power; answers when that was.
    pub fn kill_host(&self) -> Result<Instant> {
        self.host.power_off()
    }

    /// Power returns; the daemon is started as at boot.
    pub fn restart_host(&self) -> Result<()> {
        self.host.power_on()?;
        self.start_agent()
    }

    /// `safectl` on this node.
    pub fn ctl<W: Into<std::ffi::OsString>>(&self, words: impl IntoIterator<Item = W>) -> Result<Program> {
        let program = self.program(&binary("safectl")?.to_string_lossy())?;
        Ok(program.args(["--root", ROOT]).args(words))
    }

    /// `safectl` with these words, on a line; its output.
    pub fn safectl(&self, line: &str) -> Result<String> {
        self.ctl(line.split_whitespace())?.run().context(|| format!("on {}", self.name))
    }

    /// `safectl` with these words, however it ends.
    pub fn try_safectl(&self, line: &str) -> Result<Said> {
        self.ctl(line.split_whitespace())?.output()
    }

    /// What this node says of a module on itself.
    pub fn status(&self, module: &str) -> Result<Status> {
        self.status_of(module, &self.name)
    }

    /// What this node says of a module on a node.
    pub fn status_of(&self, module: &str, node: &str) -> Result<Status> {
        let all: Vec<Status> = serde_json::from_str(&self.safectl(&format!("status {module} -o json"))?)?;
        let found = all.into_iter().find(|status| status.module == module && status.node == node);
        found.context(|| format!("no status of {module} on {node}"))
    }

    /// Bytes compared and bytes sent by the last resync of which this node was the source.
    pub fn last_resync(&self, module: &str) -> Result<Option<(u64, u64)>> {
        let events: Vec<Event> = serde_json::from_str(&self.safectl("events -n 1000 -o json")?)?;
        let texts = events.iter().rev().filter(|event| event.module.as_deref() == Some(module));
        Ok(texts.map(|event| event.text.as_str()).find_map(figures_of_resync))
    }

    /// `--address` options of this node for `cluster init` and `cluster join`.
    pub fn address_options(&self) -> String {
        let options: Vec<_> =
            LANS.iter().map(|lan| format!("--address {}={}", lan.name, lan.address(self.number))).collect();
        options.join(" ")
    }

    /// FUSE mounts on the host's own disk; this machine's are there besides, and none of ours.
    pub fn fuse_mounts(&self) -> Result<Vec<String>> {
        let table = std::fs::read_to_string(format!("/proc/{}/mounts", self.init()?))?;
        let fuse = table.lines().filter(|line| {
            let mut words = line.split(' ').skip(1);
            words.next().is_some_and(|place| place.starts_with("/srv/"))
                && words.next().is_some_and(|kind| kind.starts_with("fuse."))
        });
        Ok(fuse.map(str::to_owned).collect())
    }
}

/// A line of the record of decisions.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(default)]
    module: Option<String>,
    text: String,
}

/// From `resync: 3 files, 4096 bytes compared, 5 bytes sent`.
fn figures_of_resync(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.strip_prefix("resync: ")?.split(", ").skip(1);
    let mut bytes = || parts.next()?.split(' ').next()?.parse().ok();
    Some((bytes()?, bytes()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_the_sentence() {
        assert_eq!(figures_of_resync("resync: 3 files, 4096 bytes compared, 5 bytes sent"), Some((4096, 5)));
        assert_eq!(figures_of_resync("n2 is in step"), None);
    }
}
