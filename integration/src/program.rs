//! A program to be run on a host: in its namespaces, with a deadline.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{Context as _, Error, Result};
use crate::eventually::eventually;
use crate::place::binary;
use crate::process;

/// Nothing that a test asks for takes longer, unless it says so.
const DEADLINE: Duration = Duration::from_secs(60);

/// A program, its arguments and its surroundings.
#[derive(Debug, Clone)]
#[must_use]
pub struct Program {
    init: u32,
    /// What leads further in: words before the program's own.
    door: Vec<OsString>,
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    input: Vec<u8>,
    deadline: Duration,
}

/// What a program said and how it ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code; 124 if the deadline ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Program {
    /// A program for the host of process `init`.
    pub(crate) fn on(init: u32, program: impl Into<OsString>) -> Self {
        Self {
            init,
            door: Vec::new(),
            words: vec![program.into()],
            environment: Vec::new(),
            input: Vec::new(),
            deadline: DEADLINE,
        }
    }

    /// It runs behind a door, which is a program of the host that runs what it is told.
    pub(crate) fn behind(mut self, door: &[OsString]) -> Self {
        self.door = door.to_vec();
        self
    }

    /// One more argument.
    pub fn arg(mut self, word: impl Into<OsString>) -> Self {
        self.words.push(word.into());
        self
    }

    /// More arguments.
    pub fn args<W: Into<OsString>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// What it reads.
    pub fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = text.into();
        self
    }

    /// It is killed if it takes longer.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = time;
        self
    }

    /// Runs it; an error is only that it could not be run.
    pub fn output(&self) -> Result<Said> {
        let mut command = self.command(true)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| self.to_string())?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may end without reading; that is its business.
            drop(stdin.write_all(&self.input));
        }
        Ok(Said::from(child.wait_with_output()?))
    }

    /// Runs it; anything but exit code 0 is an error. Answers its output without the last line end.
    pub fn run(&self) -> Result<String> {
        let said = self.output()?;
        if said.code == 0 {
            return Ok(said.out.trim_end().to_owned());
        }
        Err(Error::new(format!("{self}: exit code {}: {} {}", said.code, said.err.trim(), said.out.trim())))
    }

    /// Starts it and goes on; its output is appended to `log`.
    pub fn spawn(&self, log: &Path) -> Result<Running> {
        let log = append(log)?;
        let mut command = self.command(false)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Running::start(command, self.to_string())
    }

    /// Starts it and goes on, its input and output being pipes, its errors appended to `log`.
    pub fn converse(&self, log: &Path) -> Result<Running> {
        let mut command = self.command(false)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(append(log)?);
        Running::start(command, self.to_string())
    }

    fn command(&self, bounded: bool) -> Result<Command> {
        let mut command = Command::new(binary("guardian")?);
        command.args(["enter", "--host", &self.init.to_string(), "--"]);
        if bounded {
            command.args(["timeout", "--foreground", "--kill-after=2"]);
            command.arg(format!("{}", self.deadline.as_secs_f64()));
        }
        command.args(&self.door);
        if self.door.is_empty() {
            command.envs(self.environment.iter().cloned());
        } else {
            command.arg("env").args(self.environment.iter().map(assignment));
        }
        command.args(&self.words);
        Ok(command)
    }
}

/// `NAME=VALUE`.
fn assignment((name, value): &(OsString, OsString)) -> OsString {
    let mut word = name.clone();
    word.push("=");
    word.push(value);
    word
}

fn append(log: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(log).context(|| log.display().to_string())
}

impl std::fmt::Display for Program {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        write!(formatter, "`{}`", words.join(" "))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A program that runs on a host; killed when dropped.
#[derive(Debug)]
pub struct Running {
    entrance: Child,
    what: String,
}

impl Running {
    fn start(mut command: Command, what: String) -> Result<Self> {
        let entrance = command.spawn().context(|| what.clone())?;
        Ok(Self { entrance, what })
    }

    /// Its number, as seen outside.
    pub fn pid(&mut self) -> Result<u32> {
        let entrance = self.entrance.id();
        eventually(Duration::from_secs(5), &self.what, || {
            if let Some(status) = self.entrance.try_wait()? {
                return Err(Error::new(format!("ended with {status}")));
            }
            Ok(process::children(entrance).first().copied())
        })
    }

    /// Its standard input and output, once, if it was started to converse.
    pub fn pipes(&mut self) -> Option<(ChildStdin, std::process::ChildStdout)> {
        Some((self.entrance.stdin.take()?, self.entrance.stdout.take()?))
    }

    /// Exit code if it has ended; -1 if a signal ended it.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self.entrance.try_wait()?.map(|status| status.code().unwrap_or(-1)))
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        process::signal(self.pid()?, signal)
    }

    /// Waits for its end; its exit code.
    pub fn wait(&mut self, within: Duration) -> Result<i32> {
        let what = format!("end of {}", self.what);
        eventually(within, &what, || self.ended())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in process::children(self.entrance.id()) {
            // It may have ended, also with its host.
            drop(process::signal(pid, Signal::KILL));
        }
        // The entrance must reap it: a process namespace ends only when all its dead are buried.
        let buried = eventually(Duration::from_secs(5), "burial", || Ok(self.entrance.try_wait()?));
        if buried.is_err() {
            drop(self.entrance.kill());
            drop(self.entrance.wait());
        }
    }
}
