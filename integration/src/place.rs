//! Where things are: the programs under test, and the directories of clusters.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Context as _, Error, Result};

/// Clusters live here unless `SAFE_TEST_DIR` names another directory: a disk, not memory, with trusted xattrs.
const BASE: &str = "/var/tmp/safed-integration";

/// Below the base directory: what failed clusters left to read.
const FAILED: &str = "failed";

/// A program of this workspace: beside the running one, one level up (tests run in `deps/`), or in `SAFE_BIN_DIR`.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut tried = Vec::new();
    let named = std::env::var_os("SAFE_BIN_DIR").map(PathBuf::from);
    for directory in named.iter().map(PathBuf::as_path).chain(own.ancestors().skip(1).take(2)) {
        let candidate = directory.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
        tried.push(directory.display().to_string());
    }
    Err(Error::new(format!(
        "no program {name} in {}; build it first: cargo build --workspace --bins",
        tried.join(", ")
    )))
}

fn base() -> PathBuf {
    std::env::var_os("SAFE_TEST_DIR").map_or_else(|| PathBuf::from(BASE), PathBuf::from)
}

/// Where the logs of a failed cluster are kept; those of an earlier failure are removed.
pub fn for_failed(name: &str) -> Result<PathBuf> {
    let directory = base().join(FAILED).join(name);
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// A new directory for a cluster, after the left-overs of dead ones were swept away.
pub fn for_cluster(name: &str) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    sweep()?;
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = base().join(format!("{name}.{}.{serial}", std::process::id()));
    std::fs::create_dir_all(&directory).context(|| directory.display().to_string())?;
    Ok(directory)
}

/// The lock file that the guardian of a cluster holds.
pub fn lock_of(directory: &Path) -> PathBuf {
    directory.join("lock")
}

/// Removes directories of clusters whose test and whose guardian are both dead. Their namespaces, bridges and mounts
/// ended with their last process.
pub fn sweep() -> Result<()> {
    let Ok(entries) = std::fs::read_dir(base()) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name() != FAILED && is_dead(&entry.path()) {
            // Another sweeper may be at it as well.
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

fn is_dead(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let owner = name.rsplit('.').nth(1).and_then(|pid| pid.parse::<u32>().ok());
    if owner.is_some_and(crate::process::is_alive) {
        return false;
    }
    let Ok(lock) = std::fs::File::open(lock_of(directory)) else { return true };
    flock(&lock, FlockOperation::NonBlockingLockShared).is_ok()
}
