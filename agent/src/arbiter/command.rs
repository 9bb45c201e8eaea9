//! A command of the administrator: exit status 0 means that it reached what it looks for.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command as Process;

use crate::children::{Children, KnownChild};
use crate::linux;
use crate::module::Module;

/// Taken over from the daemon's environment; nothing else is.
const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];
/// After SIGKILL: one in the middle of a disk access may take this long, then it is left alone.
const LAST: Duration = Duration::from_secs(1);

/// A command.
#[derive(Debug, Clone)]
pub(super) struct Command {
    module: Arc<Module>,
    children: Children,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Command {
    /// From the target: a script of the module, or a path, with its arguments.
    pub(super) fn new(module: &Arc<Module>, children: &Children, target: &str) -> Self {
        let mut words = target.split_whitespace();
        let first = words.next().unwrap_or_default();
        let program = if first.starts_with('/') {
            first.into()
        } else {
            module.paths.spec().join("scripts").join(first)
        };
        Self {
            module: Arc::clone(module),
            children: children.clone(),
            program,
            arguments: words.map(str::to_owned).collect(),
        }
    }

    /// Runs it; it is killed when the time is over.
    ///
    /// # Errors
    /// It cannot be started, fails, or takes too long.
    pub(super) async fn run(&self, patience: Duration) -> Result<(), String> {
        let this = self.clone();
        // A program is read from a disk, which may hang.
        let started = tokio::task::spawn_blocking(move || this.children.spawn(&mut this.process()));
        let late = || format!("the command did not end within {} ms", patience.as_millis());
        let begun = crate::clock::now();
        let mut child = match tokio::time::timeout(patience, started).await {
            Ok(Ok(Ok(child))) => child,
            Ok(Ok(Err(error))) => return Err(format!("cannot run {}: {error}", self.program.display())),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(late()),
        };
        let left = patience.saturating_sub(crate::clock::now().since(begun));
        let ended = tokio::time::timeout(left, child.wait()).await;
        end(&mut child).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("the command failed ({status})")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(late()),
        }
    }

    fn process(&self) -> Process {
        let mut process = Process::new(&self.program);
        process
            .args(&self.arguments)
            .current_dir(self.module.paths.spec())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        for key in INHERITED {
            if let Some(value) = std::env::var_os(key) {
                process.env(key, value);
            }
        }
        process.envs(&self.module.spec.env);
        process
            .env("SAFE_MODULE", &self.module.name)
            .env("SAFE_NODE", &self.module.node)
            .env("SAFE_DIR", self.module.paths.spec());
        linux::own_session(&mut process);
        process
    }
}

/// What is left of its group.
async fn end(child: &mut KnownChild) {
    child.signal_group(Signal::KILL);
    // Left alone if it does not end.
    drop(tokio::time::timeout(LAST, child.wait()).await);
}
