//! The read-only cover of replicated directories where the module does not serve: what is changed there behind its back
//! would make the copies differ, and nobody would know (DESIGN section 6).
//!
//! A bind mount of each directory over itself, read-only, of which nothing has to run. The replicator works below it,
//! through descriptors that it opened while the cover was off, and mounts above it when the module serves: so between
//! serving and not serving there is no moment without it. Only a directory that carries the module's marker is covered;
//! the place where its disk is not mounted is not.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::linux;
use crate::processes::fuse_mounts_at;
use record::Record;
use table::Table;

mod record;
mod table;
mod writers;

/// Longest wait for the disks and the kernel.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the replicator marks each directory with: version, module, node, and more.
const MARKER: &str = "trusted.safed.root";
/// Longer than any marker.
const MARKER_LEN: usize = 1024;

/// The cover of one module's directories.
#[derive(Debug, Clone)]
pub struct Cover {
    module: String,
    directories: Vec<PathBuf>,
    record: Record,
}

/// What was found of the cover.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How it was gone around, for people; none: nothing is known of that.
    pub bypassed: Option<String>,
    /// What could not be covered, and why.
    pub failed: Option<String>,
}

impl Cover {
    /// `record`: where it is noted what was covered under this boot id.
    #[must_use]
    pub fn new(module: &str, directories: Vec<PathBuf>, record: &Path, boot_id: u128) -> Self {
        Self { module: module.to_owned(), directories, record: Record::at(record, boot_id) }
    }

    /// Covers what is not covered yet, and says who got around it meanwhile. Directories of an earlier version of the
    /// module are uncovered.
    pub async fn put(&self) -> Found {
        let cover = self.clone();
        bounded(move || Ok(cover.put_now()))
            .await
            .unwrap_or_else(|why| Found { failed: Some(why), ..Found::default() })
    }

    /// Takes it off. The answer says how it was gone around before.
    ///
    /// # Errors
    /// What is left, in one sentence.
    pub async fn take_off(&self) -> Result<Option<String>, String> {
        let cover = self.clone();
        bounded(move || cover.take_off_now()).await
    }

    /// Takes off what any version of the module covered: the module is removed. Blocks.
    ///
    /// # Errors
    /// What is left, in one sentence.
    pub fn discard(&self) -> Result<(), String> {
        self.take_off_now().map(drop)
    }

    fn put_now(&self) -> Found {
        let mut found = Found::default();
        let noted = self.record.read();
        for stranger in noted.iter().filter(|path| !self.directories.contains(path)) {
            if let Err(why) = uncover(stranger) {
                found.failed.get_or_insert(why);
            }
        }
        let table = match Table::read() {
            Ok(table) => table,
            Err(error) => return Found { failed: Some(unreadable(&error)), ..found },
        };
        let mut covered = Vec::new();
        for directory in &self.directories {
            match self.put_one(directory, &table, noted.contains(directory)) {
                Ok(None) => {}
                Ok(Some(bypassed)) => {
                    found.bypassed = found.bypassed.or(bypassed);
                    covered.push(directory.clone());
                }
                Err(why) => {
                    found.failed.get_or_insert(why);
                }
            }
        }
        if let Err(error) = self.record.write(&covered) {
            found.failed.get_or_insert(format!("what is covered cannot be noted: {error}"));
        }
        found
    }

    /// None: there is nothing to cover. Else how the cover was gone around, if it was.
    fn put_one(
        &self,
        directory: &Path,
        table: &Table,
        noted: bool,
    ) -> Result<Option<Option<String>>, String> {
        let shown = directory.display();
        if table.is_covered(directory) {
            return Ok(Some(None));
        }
        if !fuse_mounts_at(&[directory.to_owned()]).is_empty() || !self.is_marked(directory) {
            return Ok(None);
        }
        linux::cover(directory).map_err(|errno| format!("{shown} cannot be covered read-only: {errno}"))?;
        if noted {
            return Ok(Some(Some(taken_off(directory))));
        }
        // Whoever had a file open before the cover came goes on writing to it.
        Ok(Some(writers::of(directory)))
    }

    fn take_off_now(&self) -> Result<Option<String>, String> {
        let noted = self.record.read();
        let table = Table::read().map_err(|error| unreadable(&error))?;
        let bypassed = noted
            .iter()
            .find(|path| self.directories.contains(path) && !table.is_covered(path) && self.is_marked(path));
        let bypassed = bypassed.map(|path| taken_off(path));
        // First, lest what was taken off by this program be taken for the work of somebody else.
        self.record.write(&[]).map_err(|error| format!("what is covered cannot be noted: {error}"))?;
        for directory in noted.iter().chain(&self.directories) {
            uncover(directory)?;
        }
        Ok(bypassed)
    }

    /// The directory is one of this module's copies, not the place where its disk is to be mounted.
    fn is_marked(&self, directory: &Path) -> bool {
        let mut value = [0; MARKER_LEN];
        let Ok(length) = rustix::fs::getxattr(directory, MARKER, value.as_mut_slice()) else { return false };
        let text = String::from_utf8_lossy(&value[..length]).into_owned();
        text.split(' ').nth(1) == Some(self.module.as_str())
    }
}

fn taken_off(directory: &Path) -> String {
    format!("the read-only cover of {} was taken off without `safectl data unlock`", directory.display())
}

fn unreadable(error: &io::Error) -> String {
    format!("the mounts of this machine cannot be listed: {error}")
}

/// Takes the cover off one directory; nothing else that is mounted there.
fn uncover(directory: &Path) -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display| {
        Err(format!("the read-only cover of {} cannot be taken off: {why}", directory.display()))
    };
    if !Table::read().map_err(|error| unreadable(&error))?.is_topmost(directory) {
        return Ok(());
    }
    match linux::uncover(directory) {
        // Taken off by somebody else in between.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => failed(&errno),
    }
}

/// Work on a path may wait for a disk: not for ever, and not here.
async fn bounded<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => Err(format!("the cover of the directories: {error}")),
        Err(_) => Err("the cover of the directories cannot be changed: a disk hangs".to_owned()),
    }
}

#[cfg(test)]
mod tests;
