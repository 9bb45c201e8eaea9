//! The audit log: who changed what, and who was refused. One line each, bounded, written by a thread of its own.
//!
//! Handing over a line never waits: also the heartbeat thread does it. Refusals are limited in their rate, so that a
//! stranger can neither fill the disk nor push out the lines about changes.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use safe_failover::Time;

use crate::clock;

/// Size at which the file becomes `audit.log.1`.
const LIMIT: u64 = 4 << 20;
/// Lines that may wait for the disk.
const QUEUE: usize = 1024;
/// Longest line.
const LINE: usize = 1024;
/// Refusals at one place that are written ...
const BURST: u32 = 20;
/// ... in this time.
const WINDOW: Duration = Duration::from_secs(10);

/// A way to the log; cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
    rates: Arc<Mutex<BTreeMap<&'static str, Rate>>>,
}

#[derive(Debug)]
struct Line {
    at_ms: i64,
    text: String,
    /// Also for the daemon's own log.
    warns: bool,
}

#[derive(Debug)]
struct Rate {
    began: Time,
    written: u32,
    dropped: u64,
}

impl Audit {
    /// Starts the writer.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(path: &Path) -> std::io::Result<Self> {
        let (lines, inbox) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { path: path.to_owned(), file: None, lost: Arc::clone(&lost), failing: false };
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&inbox))?;
        Ok(Self { lines, lost, rates: Arc::default() })
    }

    /// A change was asked for: by whom, what, and what came of it.
    pub fn changed(&self, who: &str, what: &str, outcome: &str) {
        self.line(&format!("{who} | {what} | {outcome}"), false);
    }

    /// Somebody was refused: where, and why.
    pub fn refused(&self, place: &'static str, why: &str) {
        let dropped = {
            let now = clock::now();
            let mut rates = self.rates.lock();
            let rate = rates.entry(place).or_insert(Rate { began: now, written: 0, dropped: 0 });
            if now.since(rate.began) >= WINDOW {
                (rate.began, rate.written) = (now, 0);
            }
            if rate.written == BURST {
                rate.dropped += 1;
                return;
            }
            rate.written += 1;
            std::mem::take(&mut rate.dropped)
        };
        let more = if dropped > 0 { format!(" ({dropped} more were not written)") } else { String::new() };
        self.line(&format!("refused at {place} | {why}{more}"), true);
    }

    /// Something worth a warning, from a thread that must not wait.
    pub fn warn(&self, text: &str) {
        self.line(text, true);
    }

    fn line(&self, text: &str, warns: bool) {
        let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE).collect();
        if self.lines.try_send(Line { at_ms: clock::unix_ms(), text, warns }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    lost: Arc<AtomicU64>,
    failing: bool,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Line>) {
        while let Ok(line) = inbox.recv() {
            let mut text = String::new();
            take(&mut text, line);
            // What has gathered meanwhile is made durable with it.
            while let Ok(line) = inbox.try_recv() {
                take(&mut text, line);
            }
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                text.push_str(&format!("{lost} lines were lost here: the disk was too slow\n"));
            }
            match self.write(&text) {
                Ok(()) => self.failing = false,
                Err(error) => self.complain(&error),
            }
        }
    }

    fn complain(&mut self, error: &std::io::Error) {
        self.file = None;
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(path = %self.path.display(), %error, "the audit log cannot be written");
        }
    }

    fn write(&mut self, text: &str) -> std::io::Result<()> {
        if self.file.as_ref().map(File::metadata).transpose()?.is_some_and(|meta| meta.len() > LIMIT) {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = None;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
                self.file.insert(file)
            }
        };
        file.write_all(text.as_bytes())?;
        file.sync_data()
    }
}

fn take(text: &mut String, line: Line) {
    if line.warns {
        tracing::warn!("{}", line.text);
    }
    let time = time::OffsetDateTime::from_unix_timestamp(line.at_ms / 1000)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default();
    text.push_str(&time);
    text.push(' ');
    text.push_str(&line.text);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path, until: &str) -> String {
        let deadline = clock::now() + Duration::from_secs(10);
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.contains(until) {
                return text;
            }
            assert!(clock::now() < deadline, "never: {until}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn refusals_are_limited_and_changes_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::start(&path).unwrap();
        for number in 0..200 {
            audit.refused("port 9400", &format!("stranger {number}\nwith a second line"));
        }
        audit.changed("ann (admin)", "start db", "done");
        let text = read(&path, "ann (admin) | start db | done");
        assert_eq!(text.matches("refused at port 9400").count(), BURST as usize);
        assert_eq!(text.lines().count(), BURST as usize + 1);
    }
}
