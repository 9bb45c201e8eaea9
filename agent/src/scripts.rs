//! Runs a module's scripts: each in a session of its own, with a deadline, its output in the module's log.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use safe_failover::action::{Script, ScriptRun, State};
use tokio::process::Command;

use crate::children::{Children, KnownChild};
use crate::{linux, log};

/// After the deadline: time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// After SIGKILL: a process in the middle of a disk access may take this long, then it is left alone.
const LAST: Duration = Duration::from_secs(5);

/// Taken over from the daemon's environment; nothing else is.
const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];

/// What all runs of one module have in common.
#[derive(Debug, Clone)]
pub struct Scripts {
    /// Module.
    pub module: String,
    /// This node.
    pub node: String,
    /// The module's directory (`SAFE_DIR`); scripts are below `scripts/`.
    pub dir: PathBuf,
    /// `[env]`
    pub env: BTreeMap<String, String>,
    /// The module's log.
    pub log: PathBuf,
    /// Where children are entered.
    pub children: Children,
}

impl Scripts {
    /// Runs a script to its end. A script that the module does not have ends at once, well.
    ///
    /// # Errors
    /// What went wrong, in one sentence.
    pub async fn run(&self, run: &ScriptRun) -> Result<(), String> {
        let name = script_name(run.script);
        let outcome = match self.start(run).await {
            Ok(None) => return Ok(()),
            Ok(Some(child)) => wait(child, run.deadline).await,
            Err(why) => Err(why),
        };
        let line = match &outcome {
            Ok(()) => format!("{name} ended well"),
            Err(why) => format!("{name} {why}"),
        };
        let log = self.log.clone();
        // The outcome counts, whether it can be written down or not: a disk that hangs is not waited for.
        tokio::task::spawn_blocking(move || log::note(&log, &line));
        outcome.map_err(|why| format!("script {name} {why}; see: safectl log {}", self.module))
    }

    /// Starts it, if there is one. Files are touched in a thread that may block.
    async fn start(&self, run: &ScriptRun) -> Result<Option<KnownChild>, String> {
        let (scripts, run, deadline) = (self.clone(), run.clone(), run.deadline);
        let started = tokio::task::spawn_blocking(move || scripts.start_now(&run));
        match tokio::time::timeout(deadline, started).await {
            Ok(Ok(started)) => started.map_err(|error| format!("cannot be started: {error}")),
            Ok(Err(error)) => Err(format!("cannot be started: {error}")),
            Err(_) => Err("could not be started in time: its disk hangs".to_owned()),
        }
    }

    fn start_now(&self, run: &ScriptRun) -> io::Result<Option<KnownChild>> {
        let name = script_name(run.script);
        let path = self.dir.join("scripts").join(name);
        if !path.try_exists()? {
            return Ok(None);
        }
        let arguments = arguments(run);
        log::note(&self.log, &format!("{name} {} begins", arguments.join(" ")));
        self.children.spawn(&mut self.command(run, &path, &arguments)?).map(Some)
    }

    fn command(&self, run: &ScriptRun, path: &Path, arguments: &[&str]) -> io::Result<Command> {
        let output = log::open(&self.log)?;
        let mut command = Command::new(path);
        command
            .args(arguments)
            .current_dir(&self.dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(false);
        for key in INHERITED {
            if let Some(value) = std::env::var_os(key) {
                command.env(key, value);
            }
        }
        command.envs(&self.env);
        command
            .env("SAFE_MODULE", &self.module)
            .env("SAFE_NODE", &self.node)
            .env("SAFE_STATE", state_name(run.state))
            .env("SAFE_NEXT_STATE", state_name(run.next))
            .env("SAFE_ACTION", run.action)
            .env("SAFE_DIR", &self.dir);
        linux::own_session(&mut command);
        Ok(command)
    }
}

async fn wait(mut child: KnownChild, deadline: Duration) -> Result<(), String> {
    match tokio::time::timeout(deadline, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("failed ({status})")),
        Ok(Err(error)) => Err(format!("cannot be waited for: {error}")),
        Err(_) => {
            end_group(&mut child).await;
            Err(format!("did not end within {} s and was killed", deadline.as_secs_f32()))
        }
    }
}

/// SIGTERM, a while, SIGKILL: to the group, which the script leads.
async fn end_group(child: &mut KnownChild) {
    child.signal_group(Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        child.signal_group(Signal::KILL);
        if tokio::time::timeout(LAST, child.wait()).await.is_err() {
            tracing::warn!(pid = child.pid(), "a killed script does not end: it waits for a disk");
        }
    }
    // Its children that outlived the leader.
    child.signal_group(Signal::KILL);
}

/// (`force`,) state, next state, action.
fn arguments(run: &ScriptRun) -> Vec<&'static str> {
    let mut arguments = vec![state_name(run.state), state_name(run.next), run.action];
    if run.force {
        arguments.insert(0, "force");
    }
    arguments
}

/// File name of a script.
#[must_use]
pub fn script_name(script: Script) -> &'static str {
    match script {
        Script::Prestart => "prestart",
        Script::StartPrim => "start_prim",
        Script::StopPrim => "stop_prim",
        Script::StartBoth => "start_both",
        Script::StopBoth => "stop_both",
        Script::StartSecond => "start_second",
        Script::StopSecond => "stop_second",
        Script::StartSec => "start_sec",
        Script::StopSec => "stop_sec",
        Script::Transition => "transition",
        Script::Poststop => "poststop",
    }
}

/// A state as people and scripts know it.
#[must_use]
pub fn state_name(state: State) -> &'static str {
    match state {
        State::Stop => "STOP",
        State::Wait => "WAIT",
        State::Alone => "ALONE",
        State::Prim => "PRIM",
        State::Second => "SECOND",
    }
}

#[cfg(test)]
mod tests;
