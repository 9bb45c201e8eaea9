//! Programs that work in a replicated directory and say what is done: SQLite with a write-ahead log, git, tar. They run
//! where the module is PRIM, and end with their host.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{Context as _, Result};
use crate::eventually::eventually_true;
use crate::node::Node;
use crate::program::{Program, Running};

/// Every chore gets on within this time.
const SLOWEST: Duration = Duration::from_secs(120);

const COMMON: &str = include_str!("chores/common.py");

/// Name and program.
const CHORES: [(&str, &str); 3] = [
    ("sqlite", include_str!("chores/sqlite.py")),
    ("git", include_str!("chores/git.py")),
    ("tar", include_str!("chores/tar.py")),
];

/// The chores of one directory, on whichever node they run.
#[derive(Debug)]
pub struct Chores {
    directory: String,
    /// What they said, on every node; outside of the hosts.
    logs: [PathBuf; CHORES.len()],
    running: Vec<Running>,
}

impl Chores {
    /// None of them runs yet. `keeper`: among whose logs they keep theirs.
    pub fn new(keeper: &Node, directory: &str) -> Self {
        let logs = CHORES.map(|(name, _)| keeper.log(&format!("chore-{name}")));
        Self { directory: directory.to_owned(), logs, running: Vec::new() }
    }

    fn program(&self, node: &Node, chore: usize, mode: &str) -> Result<Program> {
        let (name, text) = CHORES[chore];
        let program = format!("{COMMON}\n{text}\nmain(run, check)\n");
        Ok(node.program("python3")?.args(["-c", &program, mode, &format!("{}/{name}", self.directory)]))
    }

    /// Starts them on a node.
    pub fn start(&mut self, node: &Node) -> Result<()> {
        self.running.clear();
        let begun = |chores: &Self| -> Result<usize> {
            (0..CHORES.len()).try_fold(0, |sum, chore| Ok(sum + chores.lines(chore, "ready")?.len()))
        };
        let before = begun(self)?;
        for (chore, log) in self.logs.iter().enumerate() {
            self.running.push(self.program(node, chore, "run")?.spawn(log)?);
        }
        // From then on they end as they are told.
        eventually_true(SLOWEST, "the chores begin", || {
            begun(self).is_ok_and(|now| now >= before + CHORES.len())
        })
    }

    /// Ends them, each behind what it is at.
    pub fn stop(&mut self) -> Result<()> {
        for mut chore in self.running.drain(..) {
            chore.signal(Signal::TERM)?;
            let code = chore.wait(SLOWEST)?;
            if code != 0 {
                return Err(crate::error::Error::new(format!("a chore ended with code {code}; see its log")));
            }
        }
        Ok(())
    }

    /// They ended with their host.
    pub fn lost(&mut self) {
        self.running.clear();
    }

    fn said(&self, chore: usize) -> Result<Vec<String>> {
        self.lines(chore, "ok ")
    }

    /// What stands behind this beginning of a line.
    fn lines(&self, chore: usize, beginning: &str) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(&self.logs[chore]).or_else(|error| {
            if error.kind() == std::io::ErrorKind::NotFound { Ok(String::new()) } else { Err(error) }
        });
        let text = text.context(|| self.logs[chore].display().to_string())?;
        Ok(text.lines().filter_map(|line| line.strip_prefix(beginning)).map(str::to_owned).collect())
    }

    /// What each has done so far.
    pub fn counts(&self) -> Result<[usize; CHORES.len()]> {
        let mut counts = [0; CHORES.len()];
        for (chore, count) in counts.iter_mut().enumerate() {
            *count = self.said(chore)?.len();
        }
        Ok(counts)
    }

    /// Waits until each got on by so many.
    pub fn more(&self, more: usize) -> Result<()> {
        let before = self.counts()?;
        eventually_true(SLOWEST, &format!("{more} more of every chore"), || {
            self.counts().is_ok_and(|now| now.iter().zip(before).all(|(now, before)| *now >= before + more))
        })
    }

    /// An error unless everything that was done is there and sound; none may be running.
    pub fn check(&self, node: &Node) -> Result<()> {
        for chore in 0..CHORES.len() {
            let tokens = self.said(chore)?.join("\n");
            self.program(node, chore, "check")?.input(tokens).deadline(SLOWEST).run()?;
        }
        Ok(())
    }
}
