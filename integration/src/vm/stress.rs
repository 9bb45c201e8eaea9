//! A file-system stressor in a machine, and on the host what it was told to be durable.
//!
//! The program writes in many ways and says after each fsync what must be there from now on. The host remembers what it heard;
//! after any loss of power it asks the machine that serves whether all of it is there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Context as _, Error, Result};
use crate::eventually::eventually_true;
use crate::program::{Program, Running};
use crate::vm::Machine;

mod content;
mod facts;
mod noise;
mod verify;
mod work;

pub use facts::Facts;
pub use verify::verify;
pub use work::work;

/// So much more is durable within this time, whatever just happened to the other machine.
const GOES_ON: Duration = Duration::from_secs(180);

/// Milliseconds between two operations of each kind: a load, not a flood, for processors that are emulated.
const PACE: &str = "100";

/// Reading everything again takes no longer.
const READ: Duration = Duration::from_secs(240);

/// What is durable, over all runs of the stressor.
#[derive(Debug, Clone, Default)]
pub struct Record(Arc<Mutex<Facts>>);

impl Record {
    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Durable operations heard of.
    pub fn count(&self) -> usize {
        self.lock().heard()
    }

    /// Asks a machine whether everything is below `directory`.
    pub fn check(&self, machine: &Machine, directory: &str) -> Result<Verdict> {
        self.check_by(machine.program("guest"), directory).context(|| format!("on {}", machine.name))
    }

    /// As [`Record::check`], the program `guest` being run wherever it is.
    pub fn check_by(&self, guest: Program, directory: &str) -> Result<Verdict> {
        let text = self.lock().text();
        let said = guest.args(["verify", directory]).input(text).deadline(READ).output()?;
        let lines = said.out.trim_end();
        let (findings, last) = lines.rsplit_once('\n').unwrap_or(("", lines));
        let mut numbers = last.split(" checked, ").filter_map(|word| word.split(' ').next()?.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(checked), Some(lost)) => Ok(Verdict { checked, lost, findings: findings.to_owned() }),
            _ => Err(Error::new(format!("verify: {} {lines} {}", said.code, said.err.trim()))),
        }
    }
}

/// What a machine has of what it must have.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Things looked for.
    pub checked: usize,
    /// Those that are not as they must be.
    pub lost: usize,
    /// Some of them, a line each.
    pub findings: String,
}

/// A stressor that runs; killed when dropped.
#[derive(Debug)]
pub struct Stress {
    record: Record,
    stopping: Arc<AtomicBool>,
    listener: Option<JoinHandle<Result<()>>>,
    /// Its input; closed, it ends.
    input: Arc<Mutex<Option<ChildStdin>>>,
    running: Running,
}

impl Stress {
    /// Starts it on a machine; `run` tells it from all runs before.
    pub fn start(machine: &Machine, directory: &str, run: u32, record: &Record) -> Result<Self> {
        Self::start_by(
            &machine.program("guest").env("STRESS_PACE", PACE),
            &machine.log("stress"),
            directory,
            run,
            record,
        )
    }

    /// As [`Stress::start`], as fast as it goes, the program `guest` being run wherever it is.
    pub fn start_by(guest: &Program, log: &Path, directory: &str, run: u32, record: &Record) -> Result<Self> {
        let program = guest.clone().args(["stress", directory, &run.to_string()]);
        let mut running = program.converse(log)?;
        let (input, output) = running.pipes().context(|| "pipes".to_owned())?;
        let (input, stopping) = (Arc::new(Mutex::new(Some(input))), Arc::new(AtomicBool::new(false)));
        let listener = {
            let (record, input) = (record.clone(), Arc::clone(&input));
            std::thread::spawn(move || listen(output, &record, &input))
        };
        Ok(Self { record: record.clone(), stopping, listener: Some(listener), input, running })
    }

    /// Waits until so many more operations are durable.
    pub fn goes_on(&self, more: usize) -> Result<()> {
        let enough = self.record.count() + more;
        let ended = || self.listener.as_ref().is_none_or(JoinHandle::is_finished);
        eventually_true(GOES_ON, &format!("{more} more durable operations"), || {
            self.record.count() >= enough || ended()
        })?;
        if self.record.count() >= enough {
            Ok(())
        } else {
            Err(Error::new("the stressor ended; see stress.log"))
        }
    }

    /// Ends it in good order; an error is what it met.
    pub fn stop(mut self) -> Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        *self.input.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let code = self.running.wait(GOES_ON)?;
        let heard = self.listener.take().map_or(Ok(Ok(())), JoinHandle::join);
        heard.map_err(|_| Error::new("the listener panicked"))??;
        if code == 0 {
            Ok(())
        } else {
            Err(Error::new(format!("the stressor ended with code {code}; see stress.log")))
        }
    }
}

/// Until the machine is gone, or the stressor.
fn listen(output: ChildStdout, record: &Record, input: &Mutex<Option<ChildStdin>>) -> Result<()> {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { return Ok(()) };
        let answer = record.lock().hear(&line).context(|| line.clone())?;
        if answer && let Some(input) = input.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // It may just have lost its power.
            drop(input.write_all(b"heard\n"));
        }
    }
    Ok(())
}
