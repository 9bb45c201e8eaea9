//! Where everything of this node lives: told apart by `--root` alone.

use std::path::{Path, PathBuf};

/// The three directories of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    settings: PathBuf,
    lib: PathBuf,
    run: PathBuf,
    root: Option<PathBuf>,
}

impl Paths {
    /// Below `root`, or in the system's places.
    #[must_use]
    pub fn new(root: Option<&Path>) -> Self {
        match root {
            Some(root) => Self {
                settings: root.join("etc"),
                lib: root.join("lib"),
                run: root.join("run"),
                root: Some(root.to_owned()),
            },
            None => Self {
                settings: PathBuf::from("/etc/safed"),
                lib: PathBuf::from("/var/lib/safed"),
                run: PathBuf::from("/run/safed"),
                root: None,
            },
        }
    }

    /// `--root`, as a word for hints: `safectl --root DIR …`; empty in the system's places.
    #[must_use]
    pub fn root_option(&self) -> String {
        self.root.as_ref().map(|root| format!("--root {} ", root.display())).unwrap_or_default()
    }

    /// Settings of the daemon.
    #[must_use]
    pub fn settings_file(&self) -> PathBuf {
        self.settings.join("safed.toml")
    }

    /// Durable state.
    #[must_use]
    pub fn lib(&self) -> &Path {
        &self.lib
    }

    /// Sockets and locks; may vanish at a reboot.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Cluster: CA, certificate, secret, settings.
    #[must_use]
    pub fn cluster(&self) -> PathBuf {
        self.lib.join("cluster")
    }

    /// What this safed has as a witness of other clusters.
    #[must_use]
    pub fn witness(&self) -> PathBuf {
        self.lib.join("witness")
    }

    /// The local gRPC socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run.join("safed.sock")
    }

    /// Held while a safed with this root runs.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// The node's own record of events.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.lib.join("events")
    }

    /// Holds one directory for each installed module.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.lib.join("modules")
    }

    /// Durable state of one module.
    #[must_use]
    pub fn module(&self, name: &str) -> ModulePaths {
        ModulePaths { lib: self.modules().join(name), run: self.run.join("modules").join(name) }
    }

    /// Paths that no module may replicate.
    #[must_use]
    pub fn own(&self) -> Vec<PathBuf> {
        vec![self.settings.clone(), self.lib.clone(), self.run.clone()]
    }
}

/// Where one module's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulePaths {
    lib: PathBuf,
    run: PathBuf,
}

impl ModulePaths {
    /// All that is durable.
    #[must_use]
    pub fn lib(&self) -> &Path {
        &self.lib
    }

    /// Sockets of its replicator, and what must be undone after a crash.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// `module.toml` and scripts in force.
    #[must_use]
    pub fn spec(&self) -> PathBuf {
        self.lib.join("spec")
    }

    /// Hard state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.lib.join("state")
    }

    /// What the boot setting decided, and under which boot id.
    #[must_use]
    pub fn boot(&self) -> PathBuf {
        self.lib.join("boot")
    }

    /// The replicator's journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.lib.join("journal")
    }

    /// What this node's copy alone held when the other node's took its place.
    #[must_use]
    pub fn conflicts(&self) -> PathBuf {
        self.lib.join("conflicts")
    }

    /// The last comparison of the copies that this node made.
    #[must_use]
    pub fn verification(&self) -> PathBuf {
        self.lib.join("verification")
    }

    /// Output of scripts.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.lib.join("log")
    }

    /// Record of decisions.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.lib.join("events")
    }

    /// What the replicator writes to stdout and stderr.
    #[must_use]
    pub fn replicator_log(&self) -> PathBuf {
        self.lib.join("replicator.log")
    }

    /// Addresses that may be on an interface.
    #[must_use]
    pub fn addresses(&self) -> PathBuf {
        self.run.join("addresses")
    }

    /// Directories that are covered read-only.
    #[must_use]
    pub fn cover(&self) -> PathBuf {
        self.run.join("cover")
    }

    /// gRPC socket of the replicator.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// Its socket for descriptors.
    #[must_use]
    pub fn fds_socket(&self) -> PathBuf {
        self.run.join("fds.sock")
    }
}

/// Makes a directory that only root may look into, and those above it.
///
/// # Errors
/// As of `mkdir(2)`.
pub fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
