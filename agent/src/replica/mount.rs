//! What a replicator leaves behind when it dies: FUSE connections that applications wait on, and dead mounts.
//!
//! Only the mount table is read and only the mount points themselves are named: nothing here waits for a file system.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::processes::fuse_mounts_at;

/// Longest wait for the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many mounts may lie upon each other at one directory.
const LAYERS: usize = 16;

/// Aborts the connections: every operation of an application that waits on one ends with an error.
pub(super) fn abort(connections: &[u64]) {
    for connection in connections {
        let file = format!("/sys/fs/fuse/connections/{connection}/abort");
        // Not there: the connection is gone, or that file system is not mounted; unmounting aborts too.
        let _gone = std::fs::write(file, "1");
    }
}

/// Aborts and detaches every mount of the module's replicator.
///
/// # Errors
/// What is left, in one sentence.
pub(super) async fn clear(module: &str, directories: &[PathBuf]) -> Result<(), String> {
    let (module, directories) = (module.to_owned(), directories.to_vec());
    let cleared = tokio::task::spawn_blocking(move || clear_now(&module, &directories));
    match tokio::time::timeout(PATIENCE, cleared).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(format!("cannot unmount: {error}")),
        Err(_) => Err("unmounting does not end".to_owned()),
    }
}

fn clear_now(module: &str, directories: &[PathBuf]) -> Result<(), String> {
    for _ in 0..LAYERS {
        let mut mounts = fuse_mounts_at(directories);
        mounts.retain(|mount| mount.is_of(module));
        let Some(mount) = mounts.last() else { return Ok(()) };
        abort(&[mount.connection]);
        detach(&mount.path)?;
    }
    Err(format!("more than {LAYERS} mounts lie upon each other"))
}

fn detach(path: &Path) -> Result<(), String> {
    match crate::linux::detach(path) {
        // Unmounted by somebody else in between.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(format!("cannot unmount {}: {error}", path.display())),
    }
}
