//! The audit log: who changed what, and who was refused. One line each, bounded, written by a thread of its own.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::clock;

/// Size at which the file becomes `audit.log.1`.
const LIMIT: u64 = 4 << 20;
/// Lines that may wait for the disk.
const QUEUE: usize = 1024;
/// Longest line.
const LINE: usize = 1024;

/// A way to the log; cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    lines: SyncSender<String>,
    lost: Arc<AtomicU64>,
}

impl Audit {
    /// Starts the writer.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(path: &Path) -> std::io::Result<Self> {
        let (lines, inbox) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { path: path.to_owned(), file: None, lost: Arc::clone(&lost) };
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&inbox))?;
        Ok(Self { lines, lost })
    }

    /// A change was asked for: by whom, what, and what came of it.
    pub fn changed(&self, who: &str, what: &str, outcome: &str) {
        self.line(&format!("{who} | {what} | {outcome}"));
    }

    /// Somebody was refused: where, and why.
    pub fn refused(&self, place: &str, why: &str) {
        tracing::warn!(place, "refused: {why}");
        self.line(&format!("refused at {place} | {why}"));
    }

    fn line(&self, text: &str) {
        let time = time::OffsetDateTime::from_unix_timestamp(clock::unix_ms() / 1000)
            .ok()
            .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
            .unwrap_or_default();
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE).collect();
        if self.lines.try_send(format!("{time} {text}\n")).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<String>) {
        let mut failing = false;
        while let Ok(mut line) = inbox.recv() {
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                line.push_str(&format!("{lost} lines were lost: the disk was too slow\n"));
            }
            match self.write(&line) {
                Ok(()) => failing = false,
                Err(error) => {
                    self.file = None;
                    if !failing {
                        tracing::error!(path = %self.path.display(), %error, "the audit log cannot be written");
                    }
                    failing = true;
                }
            }
        }
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
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
        file.write_all(line.as_bytes())?;
        file.sync_data()
    }
}
