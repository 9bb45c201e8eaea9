//! The record of decisions: what happened on this node and why, one line each, kept within bounds.
//!
//! A thread of its own writes it, so that a slow disk delays nobody; what waits to be written is bounded, and what
//! does not fit is counted and said.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use safe_proto::module::ModuleEvent;
use serde::{Deserialize, Serialize};

use crate::aside::{Aside, Work};
use crate::clock;
use crate::node::Startup;
use crate::paths::Paths;

/// A file this long is set aside (as `.1`), and one set aside before it is dropped.
const FILE_LIMIT: u64 = 1 << 20;

/// Lines that may wait for the disk.
const QUEUE: usize = 1024;

/// Readers wait so long for what was recorded to be in the files.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest text of one line.
const TEXT_LIMIT: usize = 4096;

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    at_ms: i64,
    node: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    module: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    alarm: bool,
    text: String,
}

/// A way to the record; cheap to clone.
#[derive(Clone)]
pub struct Events {
    lines: Aside<Line>,
    node: Arc<parking_lot::RwLock<String>>,
    paths: Paths,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Events {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(paths: &Paths) -> Result<Self, Startup> {
        let writer = Writer { paths: paths.clone(), open: BTreeMap::new() };
        let lines = Aside::start("events", QUEUE, writer)
            .map_err(|error| Startup(format!("cannot start a thread: {error}")))?;
        Ok(Self { lines, node: Arc::default(), paths: paths.clone() })
    }

    /// The node's name, once it is known.
    pub fn name(&self, node: &str) {
        node.clone_into(&mut self.node.write());
    }

    /// Records one sentence. `module` empty: about the node itself. Never waits.
    pub fn record(&self, module: &str, alarm: bool, text: &str) {
        if alarm {
            tracing::warn!(module, "{text}");
        } else {
            tracing::info!(module, "{text}");
        }
        let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_LIMIT).collect();
        let (node, module) = (self.node.read().clone(), module.to_owned());
        self.lines.give(Line { at_ms: clock::unix_ms(), node, module, alarm, text });
    }

    /// Lines later than `since_ms`, oldest first, the newest `limit` of them. `module` empty: of all modules and of
    /// the node. Reads files: not for the owner loop.
    #[must_use]
    pub fn list(&self, module: &str, since_ms: i64, limit: usize) -> Vec<ModuleEvent> {
        self.flush();
        let mut found = Vec::new();
        for file in self.files(module) {
            read_into(&rotated(&file), since_ms, &mut found);
            read_into(&file, since_ms, &mut found);
        }
        found.sort_by_key(|event| event.at_ms);
        found.split_off(found.len().saturating_sub(limit))
    }

    /// Waits until what was recorded is in the files. A disk that hangs must not hang readers: they get what is there.
    fn flush(&self) {
        self.lines.flush(PATIENCE);
    }

    fn files(&self, module: &str) -> Vec<PathBuf> {
        if !module.is_empty() {
            return vec![self.paths.module(module).events()];
        }
        let mut files = vec![self.paths.events()];
        if let Ok(entries) = std::fs::read_dir(self.paths.modules()) {
            files.extend(entries.flatten().map(|entry| entry.path().join("events")));
        }
        files
    }
}

fn rotated(file: &Path) -> PathBuf {
    file.with_extension("1")
}

fn read_into(file: &Path, since_ms: i64, found: &mut Vec<ModuleEvent>) {
    let Ok(file) = File::open(file) else { return };
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        // A line torn by a crash is passed over; the next one begins on a new line.
        if let Ok(line) = serde_json::from_str::<Line>(&line)
            && line.at_ms > since_ms
        {
            let Line { at_ms, node, module, alarm, text } = line;
            found.push(ModuleEvent { at_ms, node, module, alarm, text });
        }
    }
}

struct Writer {
    paths: Paths,
    open: BTreeMap<String, File>,
}

impl Work for Writer {
    type Item = Line;

    fn take(&mut self, line: Line) {
        self.write(&line);
    }

    fn missing(&mut self, count: u64) {
        self.write(&Line {
            at_ms: clock::unix_ms(),
            node: String::new(),
            module: String::new(),
            alarm: true,
            text: format!("{count} lines of this record were lost: the disk was too slow"),
        });
    }
}

impl Writer {
    fn write(&mut self, line: &Line) {
        let path = match line.module.as_str() {
            "" => self.paths.events(),
            module => self.paths.module(module).events(),
        };
        if let Err(error) = append(&mut self.open, &path, line) {
            self.open.remove(&line.module);
            tracing::warn!(%error, file = %path.display(), "cannot write the record of events");
        }
    }
}

fn append(open: &mut BTreeMap<String, File>, path: &Path, line: &Line) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    // A removed module took its file along: the directory decides, not the descriptor.
    if !path.try_exists()? {
        open.remove(&line.module);
    }
    let full = open.get(&line.module).map(File::metadata).transpose()?.is_some_and(|m| m.len() > FILE_LIMIT);
    if full {
        std::fs::rename(path, rotated(path))?;
        open.remove(&line.module);
    }
    if !open.contains_key(&line.module) {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        if ends_torn(path)? {
            text.insert(0, b'\n');
        }
        open.insert(line.module.clone(), file);
    }
    let Some(file) = open.get_mut(&line.module) else { return Ok(()) };
    file.write_all(&text)?;
    file.sync_data()
}

/// A crash, or a full disk, left a line without its end.
fn ends_torn(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let file = File::open(path)?;
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != [b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> (tempfile::TempDir, Events) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(dir.path()));
        std::fs::create_dir_all(paths.module("db").lib()).unwrap();
        let events = Events::start(&paths).unwrap();
        events.name("n1");
        (dir, events)
    }

    #[test]
    fn what_is_recorded_is_listed_in_order() {
        let (_dir, events) = start();
        events.record("", false, "node starts");
        events.record("db", true, "line\nbreak");
        let all = events.list("", 0, 100);
        assert_eq!(all.len(), 2);
        let db = events.list("db", 0, 100);
        assert_eq!((db[0].text.as_str(), db[0].alarm, db[0].node.as_str()), ("line break", true, "n1"));
        assert_eq!(events.list("db", db[0].at_ms, 100), vec![]);
    }

    #[test]
    fn stays_within_bounds() {
        let (_dir, events) = start();
        let text = "x".repeat(TEXT_LIMIT);
        for _ in 0..700 {
            events.record("db", false, &text);
            events.flush();
        }
        let paths = events.paths.module("db");
        let size = |path: PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
        assert!(size(paths.events()) + size(rotated(&paths.events())) <= 2 * FILE_LIMIT + 10_000);
        assert_eq!(events.list("db", 0, 10).len(), 10);
    }

    #[test]
    fn a_torn_line_hides_only_itself() {
        let (_dir, events) = start();
        std::fs::write(events.paths.module("db").events(), b"{\"at_ms\":1,\"no").unwrap();
        events.record("db", false, "after the crash");
        assert_eq!(events.list("db", 0, 10).len(), 1);
    }
}
