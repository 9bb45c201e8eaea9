//! Clients that commit one row after another and remember which commits were acknowledged.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::{Context as _, Result};
use crate::eventually::{eventually, eventually_true};
use crate::program::Program;

/// For a database to serve again, its recovery included.
pub(crate) const AGAIN: Duration = Duration::from_secs(240);

/// Pause behind a lost connection.
const BACKOFF: Duration = Duration::from_millis(50);

/// Worker and serial number: the key of a row.
pub(crate) type Commit = (u32, u32);

/// What all workers know.
#[derive(Debug, Default)]
struct Record {
    acknowledged: BTreeSet<Commit>,
    /// When each was asked for and acknowledged, in order of acknowledgement.
    moments: Vec<(Instant, Instant)>,
}

/// The workers; they end when dropped.
#[derive(Debug)]
pub struct Committers {
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Committers {
    /// Starts them; `program` reads statements from standard input, `insert` makes the one that commits a row and then
    /// answers with its key.
    pub(crate) fn start(program: &Program, log: &Path, workers: u32, insert: fn(u32, u32) -> String) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..workers).map(|worker| {
            let (record, stop) = (Arc::clone(&record), Arc::clone(&stop));
            let (program, log): (Program, PathBuf) = (program.clone(), log.to_path_buf());
            std::thread::spawn(move || {
                let mut serial = 0;
                while !stop.load(Ordering::Relaxed) {
                    // A lost connection is what this is about: the next one goes on behind the doubtful commit.
                    drop(converse(&program, &log, (worker, &mut serial, insert), &record, &stop));
                    std::thread::sleep(BACKOFF);
                }
            })
        });
        let threads = threads.collect();
        Self { record, stop, threads }
    }

    /// Commits acknowledged until now.
    pub fn count(&self) -> usize {
        self.lock().acknowledged.len()
    }

    /// Ends all workers.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A worker that panicked said so on standard error; what it had recorded still counts.
            drop(thread.join());
        }
    }

    pub(crate) fn acknowledged(&self) -> BTreeSet<Commit> {
        self.lock().acknowledged.clone()
    }

    /// Waits until they got on by so many.
    pub fn more(&self, more: usize) -> Result<()> {
        let enough = self.count() + more;
        eventually_true(AGAIN, &format!("{more} more commits"), || self.count() >= enough)
    }

    /// Time from `moment` to the first commit that was asked for after it.
    pub fn after(&self, moment: Instant) -> Result<Duration> {
        let first = eventually(AGAIN, "a commit", || {
            Ok(self.lock().moments.iter().find(|(asked, _)| *asked >= moment).map(|(_, heard)| *heard))
        })?;
        Ok(first.saturating_duration_since(moment))
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Committers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One connection, until it is lost. The client prints a row only after its statement, and so its transaction, is complete.
fn converse(
    program: &Program,
    log: &Path,
    (worker, serial, insert): (u32, &mut u32, fn(u32, u32) -> String),
    record: &Mutex<Record>,
    stop: &AtomicBool,
) -> Result<()> {
    let mut client = program.converse(log)?;
    let (mut input, output) = client.pipes().context(|| "pipes".to_owned())?;
    let mut answers = BufReader::new(output).lines();
    while !stop.load(Ordering::Relaxed) {
        *serial += 1;
        let asked = clock::now();
        writeln!(input, "{}", insert(worker, *serial))?;
        let answer = answers.next().context(|| "connection lost".to_owned())??;
        let commit = parse(&answer).context(|| format!("not a row: {answer}"))?;
        let heard = clock::now();
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        record.acknowledged.insert(commit);
        record.moments.push((asked, heard));
    }
    Ok(())
}

/// `worker|serial`.
pub(crate) fn parse(line: &str) -> Option<Commit> {
    let (worker, serial) = line.split_once('|')?;
    Some((worker.parse().ok()?, serial.parse().ok()?))
}
