//! Hard state of one module: two slots of one file, written in turn, each durable before it counts.
//!
//! The file has its full length from the beginning, so a full disk does not stop a write. A write that tears leaves
//! the other slot. Reading takes the valid slot with the higher serial; if neither is valid the state is lost, which
//! is never passed off as a fresh one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use safe_failover::hard::HardState;

mod slot;

use slot::{SLOT_LEN, Slot};

/// Why hard state cannot be had; the module is blocked until a person acts.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, read or written.
    #[error("cannot use {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither slot can be read.
    #[error(
        "{path} holds no valid state: {detail}; restore the file from a backup, or remove the module and install it again"
    )]
    Lost {
        /// Which file.
        path: PathBuf,
        /// What is wrong with each slot.
        detail: String,
    },
    /// Written by a later release.
    #[error("{path} was written by a later release (format {format}); install that release again")]
    Later {
        /// Which file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// The state does not fit a slot. Cannot happen while the core keeps its bounds.
    #[error("hard state of {0} bytes does not fit")]
    TooLarge(usize),
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    file: File,
    path: PathBuf,
    /// The slot that the next write goes to: never the one that counts.
    next: usize,
}

impl Store {
    /// Makes the file with `state` in it, unless there is one. Durable on return.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, state: &HardState) -> Result<(), StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        if path.try_exists().map_err(io)? {
            return Ok(());
        }
        let new = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(io)?;
        let first = Slot::encode(state)?;
        file.write_all(&first).and_then(|()| file.write_all(&[0; SLOT_LEN])).map_err(io)?;
        file.sync_all().map_err(io)?;
        std::fs::rename(&new, path).map_err(io)?;
        sync_parent(path).map_err(io)
    }

    /// Opens the file and reads what counts.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(path: &Path) -> Result<(Self, HardState), StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        let mut best: Option<(usize, HardState)> = None;
        let mut detail = Vec::new();
        for index in 0..2 {
            let mut bytes = vec![0; SLOT_LEN];
            if let Err(error) = file.read_exact_at(&mut bytes, offset(index)) {
                detail.push(format!("slot {index}: {error}"));
                continue;
            }
            match Slot::decode(&bytes) {
                Slot::Valid(state) => {
                    if best.as_ref().is_none_or(|(_, other)| state.serial > other.serial) {
                        best = Some((index, *state));
                    }
                }
                Slot::Later(format) => return Err(StoreError::Later { path: path.to_owned(), format }),
                Slot::Invalid(why) => detail.push(format!("slot {index}: {why}")),
            }
        }
        let Some((index, state)) = best else {
            return Err(StoreError::Lost { path: path.to_owned(), detail: detail.join(", ") });
        };
        Ok((Self { file, path: path.to_owned(), next: 1 - index }, state))
    }

    /// Makes `state` durable. After an error nothing is known to have been written, and what counted still counts.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn persist(&mut self, state: &HardState) -> Result<(), StoreError> {
        let io = |source| StoreError::Io { path: self.path.clone(), source };
        let bytes = Slot::encode(state)?;
        self.file.write_all_at(&bytes, offset(self.next)).map_err(io)?;
        self.file.sync_data().map_err(io)?;
        self.next = 1 - self.next;
        Ok(())
    }
}

fn offset(index: usize) -> u64 {
    (index * SLOT_LEN) as u64
}

/// Makes a rename or a new file in the parent directory durable.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Replaces a small file as a whole: after a crash it holds the old or the new content. 0600.
///
/// # Errors
/// The disk refuses.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    sync_parent(path)
}

#[cfg(test)]
mod tests;
