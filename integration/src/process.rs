//! Processes of a host, found from outside by their process namespace.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Context as _, Result};

/// A process of a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Number, as seen outside.
    pub pid: u32,
    /// File name of its program, without a ` (deleted)` behind it.
    pub program: String,
    /// Arguments, joined by blanks.
    pub arguments: String,
    /// Letter of its state as in `/proc/PID/stat`: `Z` is a zombie.
    pub state: char,
}

/// All processes in the process namespace of process `init`, by number, without `init`.
pub fn of_host(init: u32) -> Result<Vec<Process>> {
    let namespace = fs::read_link(format!("/proc/{init}/ns/pid")).context(|| "host is down".to_owned())?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Processes end while we look; those do not count.
        let same = fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link == namespace);
        if pid != init && same {
            found.extend(describe(pid));
        }
    }
    found.sort();
    Ok(found)
}

fn describe(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_else(|_| PathBuf::new());
    let program = exe.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ").trim().to_owned();
    Some(Process { pid, program: program.trim_end_matches(" (deleted)").to_owned(), arguments, state })
}

/// The processes that `pid` started and that live.
pub fn children(pid: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).context(|| format!("no such pid: {pid}"))?;
    kill_process(target, signal).context(|| format!("signal to {pid}"))
}

/// Whether the process still runs (a zombie does not).
pub fn is_alive(pid: u32) -> bool {
    describe(pid).is_some_and(|process| process.state != 'Z')
}
