//! The mounts of the module, one per directory.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::backing::Backing;
use crate::clock::Boottime;
use crate::files::Files;
use crate::fuse::mount;
use crate::fuse::session::{Session, open_device};
use crate::operation::Engine;

/// Between two attempts to unmount what is in use.
const RETRY: Duration = Duration::from_millis(50);
/// For workers to end once their connection is gone.
const JOIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Mount {
    path: PathBuf,
    connection: Option<u64>,
    session: Session,
}

/// What is mounted.
#[derive(Debug, Default)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Mounts every directory, or none.
    ///
    /// # Errors
    /// One sentence for people.
    pub fn mount(backing: &Backing, engine: &Arc<Engine>, module: &str) -> Result<Self, String> {
        let mut mounts = Self::default();
        for root in backing.roots.iter() {
            match mount_one(&root.path, root.directory.as_fd(), root.index, engine, module) {
                Ok(mount) => mounts.0.push(mount),
                Err(error) => {
                    mounts.abort();
                    return Err(error);
                }
            }
        }
        Ok(mounts)
    }

    /// There are some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Numbers of the FUSE connections.
    #[must_use]
    pub fn connections(&self) -> Vec<u64> {
        self.0.iter().filter_map(|mount| mount.connection).collect()
    }

    /// The devices, to be kept by the agent too.
    #[must_use]
    pub fn devices(&self) -> Vec<&OwnedFd> {
        self.0.iter().map(|mount| mount.session.device()).collect()
    }

    /// Unmounts in good order, trying again while something uses the directories. False: the deadline passed, or
    /// `give_up` said so, and some are still mounted.
    pub fn unmount(&mut self, deadline: Duration, give_up: impl Fn() -> bool) -> bool {
        let begun = Boottime::now();
        while let Some(last) = self.0.last() {
            match mount::unmount(&last.path) {
                // EINVAL: somebody else has unmounted it.
                Ok(()) | Err(Errno::INVAL) => {
                    if let Some(mount) = self.0.pop() {
                        finish(mount);
                    }
                }
                Err(error) => {
                    if begun.elapsed() >= deadline || give_up() {
                        tracing::warn!(%error, path = %last.path.display(), "cannot unmount in time");
                        return false;
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
        true
    }

    /// Ends the connections, whatever uses them, and detaches.
    pub fn abort(&mut self) {
        for mount in self.0.drain(..).rev() {
            if let Err(error) = mount::abort(&mount.path, mount.connection) {
                tracing::error!(%error, path = %mount.path.display(), "cannot detach the mount");
            }
            finish(mount);
        }
    }
}

/// Waits for the workers of a mount that is gone.
fn finish(mount: Mount) {
    if !mount.session.join(JOIN) {
        tracing::error!(path = %mount.path.display(), "workers of a mount that is gone are stuck in the files below");
    }
    drop(mount);
}

fn mount_one(
    path: &Path,
    directory: std::os::fd::BorrowedFd<'_>,
    index: u16,
    engine: &Arc<Engine>,
    module: &str,
) -> Result<Mount, String> {
    let shown = path.display();
    let device =
        open_device().map_err(|error| format!("cannot open /dev/fuse: {error}; type: modprobe fuse"))?;
    mount::mount(&device, directory, module)
        .map_err(|error| format!("cannot mount over {shown}: {error}"))?;
    let connection = mount::find(path).ok().flatten().map(|line| line.minor);
    let files = Files::new(Arc::clone(engine), index);
    match Session::start(device, files, Arc::clone(&engine.state.gate)) {
        Ok(session) => Ok(Mount { path: path.to_owned(), connection, session }),
        Err(error) => {
            if let Err(error) = mount::abort(path, connection) {
                tracing::error!(%error, path = %shown, "cannot take a failed mount away");
            }
            Err(format!("cannot serve {shown}: {error}"))
        }
    }
}
