//! Where `safed` keeps its things on this machine.

use std::path::{Path, PathBuf};

/// Directories of one `safed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    /// Settings.
    pub(crate) etc: PathBuf,
    /// Durable state.
    pub(crate) lib: PathBuf,
    /// Sockets.
    pub(crate) run: PathBuf,
}

impl Paths {
    pub(crate) fn new(root: Option<&Path>) -> Self {
        match root {
            Some(root) => Self { etc: root.join("etc"), lib: root.join("lib"), run: root.join("run") },
            None => Self { etc: "/etc/safed".into(), lib: "/var/lib/safed".into(), run: "/run/safed".into() },
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join("safed.sock")
    }

    /// What no module may replicate.
    pub(crate) fn own(&self) -> Vec<PathBuf> {
        vec![self.etc.clone(), self.lib.clone(), self.run.clone()]
    }
}
