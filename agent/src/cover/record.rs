//! What was covered under this boot id: a cover that is not there any more was taken off by somebody else. It does not
//! outlive the machine's run, and neither do the mounts.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::store::replace_file;

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    path: PathBuf,
    boot_id: u128,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    boot_id: String,
    directories: Vec<PathBuf>,
}

impl Record {
    pub(super) fn at(path: &Path, boot_id: u128) -> Self {
        Self { path: path.to_owned(), boot_id }
    }

    /// Nothing, if it is of another boot or cannot be read: then only the mounts themselves tell.
    pub(super) fn read(&self) -> Vec<PathBuf> {
        let text = std::fs::read(&self.path).unwrap_or_default();
        let content = serde_json::from_slice::<Content>(&text).ok();
        content
            .filter(|content| content.boot_id == self.boot())
            .map(|content| content.directories)
            .unwrap_or_default()
    }

    pub(super) fn write(&self, directories: &[PathBuf]) -> io::Result<()> {
        if self.read() == directories {
            return Ok(());
        }
        let content = Content { boot_id: self.boot(), directories: directories.to_vec() };
        if let Some(parent) = self.path.parent() {
            crate::paths::make_private(parent)?;
        }
        replace_file(&self.path, &serde_json::to_vec(&content)?)
    }

    fn boot(&self) -> String {
        format!("{:032x}", self.boot_id)
    }
}
