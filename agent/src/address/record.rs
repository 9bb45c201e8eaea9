//! What may be on an interface, written down before it is put there.
//!
//! It is read once: when addresses must go, nobody may wait for a disk that hangs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use safe_proto::spec::AddressPrefix;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::store::replace_file;

/// Longest wait for the first look: at the start, when nothing serves.
const READ: Duration = Duration::from_secs(10);

/// Longest wait for the removal, without which the addresses are gone as well.
const REMOVAL: Duration = Duration::from_secs(2);

/// One line of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) ip: AddressPrefix,
    pub(super) interface: String,
}

/// The record of one module.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    /// What it says, once it was read.
    lines: Mutex<Option<Vec<Line>>>,
    /// A removal that has not ended: no line is written before it has.
    removing: Mutex<Option<JoinHandle<()>>>,
}

impl Record {
    /// The record in this file, which may be absent.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path, lines: Mutex::new(None), removing: Mutex::new(None) }
    }

    /// What it says; none if it was never read and its disk hangs.
    pub(super) async fn lines(&self) -> Option<Vec<Line>> {
        if let Some(lines) = self.lines.lock().clone() {
            return Some(lines);
        }
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || std::fs::read(path).unwrap_or_default());
        let Ok(Ok(text)) = tokio::time::timeout(READ, read).await else {
            tracing::error!(path = %self.path.display(), "cannot be read in time: addresses of an earlier run may be left");
            return None;
        };
        // Written as a whole; what cannot be read was never acted on.
        let lines: Vec<Line> = serde_json::from_slice(&text).unwrap_or_default();
        *self.lines.lock() = Some(lines.clone());
        Some(lines)
    }

    /// Adds a line, durably.
    ///
    /// # Errors
    /// One sentence for people.
    pub(super) async fn add(&self, line: Line) -> Result<(), String> {
        let removing = self.removing.lock().take();
        if let Some(removing) = removing {
            removing.await.map_err(|error| error.to_string())?;
        }
        let mut lines = self.lines().await.unwrap_or_default();
        if lines.contains(&line) {
            return Ok(());
        }
        lines.push(line);
        self.write(lines).await
    }

    /// These are not on any interface any more. A line that stays in the file only means that it is looked for once more,
    /// and what has to be removed next does not wait for that.
    pub(super) async fn forget(&self, gone: &[AddressPrefix]) {
        let mut lines = self.lines().await.unwrap_or_default();
        let before = lines.len();
        lines.retain(|line| !gone.contains(&line.ip));
        if lines.len() == before {
            return;
        }
        *self.lines.lock() = Some(lines.clone());
        match tokio::time::timeout(REMOVAL, self.write(lines)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::warn!(why, "the record of addresses still names some that are gone"),
            Err(_) => {
                tracing::warn!(path = %self.path.display(), "the record of addresses is not written in time")
            }
        }
    }

    async fn write(&self, lines: Vec<Line>) -> Result<(), String> {
        let text = serde_json::to_vec(&lines).map_err(|error| error.to_string())?;
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, &text));
        let written = written.await.map_err(|error| error.to_string())?;
        written.map_err(|error| format!("{}: {error}", self.path.display()))?;
        *self.lines.lock() = Some(lines);
        Ok(())
    }

    /// Nothing is on an interface any more. A file that stays behind only means that it is looked for once more.
    pub(super) async fn clear(&self) {
        let before = self.lines.lock().as_mut().map(std::mem::take);
        if before.is_none_or(|lines| lines.is_empty()) {
            return;
        }
        let path = self.path.clone();
        let mut removing = tokio::task::spawn_blocking(move || match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove the record of addresses");
            }
            Ok(()) | Err(_) => {}
        });
        if tokio::time::timeout(REMOVAL, &mut removing).await.is_err() {
            *self.removing.lock() = Some(removing);
        }
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        crate::paths::make_private(parent)?;
    }
    replace_file(path, text)
}
