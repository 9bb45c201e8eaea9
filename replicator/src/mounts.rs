//! The mounts of the module, one per directory.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::backing::{Backing, Root};
use crate::clock::Boottime;
use crate::files::Files;
use crate::fuse::mount;
use crate::fuse::session::{Session, open_device};
use crate::legacy::Legacy;
use crate::legacy::requests::Requests;
use crate::operation::Engine;

/// Between two attempts to unmount what is in use.
const RETRY: Duration = Duration::from_millis(50);
/// For workers to end once their connection is gone, where nothing else waits.
const JOIN: Duration = Duration::from_secs(5);
/// The same while a fence is waited for.
const FENCED: Duration = Duration::from_millis(500);
/// For the kernel to begin a connection.
const BEGIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Mount {
    path: PathBuf,
    connection: Option<u64>,
    session: Session,
}

/// What is mounted.
#[derive(Debug, Default)]
pub struct Mounts {
    mounted: Vec<Mount>,
    /// Their connections have ended, but workers are stuck in the files below: what they do may still be done.
    ending: Vec<Session>,
}

impl Mounts {
    /// Mounts every directory, or none.
    ///
    /// # Errors
    /// One sentence for people. If one that was mounted cannot be taken away again, there are mounts nevertheless.
    pub fn mount(
        &mut self,
        backing: &Backing,
        engine: &Arc<Engine>,
        module: &str,
        legacy: Option<&Legacy>,
    ) -> Result<(), String> {
        self.wait_for_workers(JOIN)?;
        for root in backing.roots.iter() {
            let requests = legacy.and_then(|legacy| legacy.requests.get(usize::from(root.index)));
            match mount_one(root, engine, module, requests) {
                Ok(mount) => self.mounted.push(mount),
                Err(error) => return Err(self.abort().err().unwrap_or(error)),
            }
        }
        Ok(())
    }

    /// Goes on with the mounts that a process served until it died.
    ///
    /// # Errors
    /// One sentence for people; the connections that were begun end.
    pub fn resume(
        backing: &Backing,
        engine: &Arc<Engine>,
        mut devices: BTreeMap<u16, OwnedFd>,
        legacy: &Legacy,
    ) -> Result<Self, String> {
        let mut mounts = Self::default();
        for root in backing.roots.iter() {
            let shown = root.path.display();
            let device = devices.remove(&root.index).ok_or_else(|| format!("no device of {shown}"))?;
            let requests = legacy.requests.get(usize::from(root.index)).map(Arc::clone);
            let requests = requests.ok_or_else(|| format!("nothing is known of the requests of {shown}"))?;
            let connection = mount::find(&root.path).ok().flatten().map(|line| line.minor);
            let files = Files::new(Arc::clone(engine), root.index);
            let session = Session::resume(device, files, Arc::clone(&engine.state.gate), requests)
                .map_err(|error| format!("cannot go on serving {shown}: {error}"))?;
            mounts.mounted.push(Mount { path: root.path.clone(), connection, session });
        }
        Ok(mounts)
    }

    /// Whether the kernel can send again what this process leaves unanswered.
    #[must_use]
    pub fn resend(&self) -> bool {
        self.mounted.iter().all(|mount| mount.session.resends(BEGIN))
    }

    /// There are some.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.mounted.is_empty()
    }

    /// Numbers of the FUSE connections.
    #[must_use]
    pub fn connections(&self) -> Vec<u64> {
        self.mounted.iter().filter_map(|mount| mount.connection).collect()
    }

    /// The devices, to be kept by the agent too.
    pub fn devices(&self) -> impl Iterator<Item = &OwnedFd> {
        self.mounted.iter().map(|mount| mount.session.device())
    }

    /// Unmounts in good order, trying again while something uses the directories. False: the deadline passed, or
    /// `give_up` said so, and some are still mounted.
    pub fn unmount(&mut self, deadline: Duration, give_up: impl Fn() -> bool) -> bool {
        let begun = Boottime::now();
        let mut waits = false;
        while let Some(last) = self.mounted.last() {
            // Somebody else may have unmounted it; what lies below is not ours.
            let outcome = if mount::is_topmost(&last.path, last.connection) {
                mount::unmount(&last.path)
            } else {
                Ok(())
            };
            if let Err(error) = outcome {
                if begun.elapsed() >= deadline || give_up() {
                    tracing::warn!(%error, path = %last.path.display(), "cannot unmount in time");
                    return false;
                }
                if !std::mem::replace(&mut waits, true) {
                    tracing::info!(%error, path = %last.path.display(), "cannot unmount yet");
                }
                std::thread::sleep(RETRY);
            } else if !is_over(last) {
                tracing::warn!(path = %last.path.display(), "unmounted, but its connection goes on elsewhere");
                return false;
            } else if let Some(mount) = self.mounted.pop() {
                self.finish(mount, JOIN);
            }
        }
        true
    }

    /// Ends the connections, whatever uses them, and detaches.
    ///
    /// # Errors
    /// A connection goes on, and with it whoever uses the directory: one sentence for people.
    pub fn abort(&mut self) -> Result<(), String> {
        let mut left = Vec::new();
        for mount in std::mem::take(&mut self.mounted) {
            if let Err(error) = mount::abort(&mount.path, mount.connection) {
                tracing::error!(%error, path = %mount.path.display(), "cannot detach the mount");
            }
            if is_over(&mount) {
                self.finish(mount, FENCED);
            } else {
                left.push(mount);
            }
        }
        self.mounted = left;
        match self.mounted.first() {
            None => Ok(()),
            Some(mount) => {
                let path = mount.path.display();
                Err(format!("the FUSE connection of {path} cannot be ended"))
            }
        }
    }

    /// Waits until no worker of an earlier mount can touch the files below any more.
    ///
    /// # Errors
    /// They are stuck: one sentence for people.
    pub fn wait_for_workers(&mut self, limit: Duration) -> Result<(), String> {
        let begun = Boottime::now();
        self.ending.retain(|session| !session.join(limit.saturating_sub(begun.elapsed())));
        if self.ending.is_empty() {
            return Ok(());
        }
        Err("operations of an earlier mount have not ended yet: the disk hangs".to_owned())
    }

    fn finish(&mut self, mount: Mount, limit: Duration) {
        if !mount.session.join(limit) {
            tracing::error!(path = %mount.path.display(), "workers of a mount that is gone are stuck in the files below");
            self.ending.push(mount.session);
        }
    }
}

/// The connection has ended. One that is mounted elsewhere too, in another namespace, is ended there.
fn is_over(mount: &Mount) -> bool {
    if let Some(connection) = mount.connection
        && !mount.session.has_ended()
    {
        mount::abort_connection(connection);
    }
    mount.session.has_ended()
}

fn mount_one(
    root: &Root,
    engine: &Arc<Engine>,
    module: &str,
    requests: Option<&Arc<Requests>>,
) -> Result<Mount, String> {
    let path = root.path.as_path();
    let shown = path.display();
    let device =
        open_device().map_err(|error| format!("cannot open /dev/fuse: {error}; type: modprobe fuse"))?;
    mount::mount(&device, root.directory.as_fd(), module)
        .map_err(|error| format!("cannot mount over {shown}: {error}"))?;
    let connection = mount::find(path).ok().flatten().map(|line| line.minor);
    let files = Files::new(Arc::clone(engine), root.index);
    let (gate, requests) = (Arc::clone(&engine.state.gate), requests.map(Arc::clone));
    match Session::start(device, files, gate, requests, root.write_back) {
        Ok(session) => Ok(Mount { path: path.to_owned(), connection, session }),
        Err(error) => {
            if let Err(error) = mount::abort(path, connection) {
                tracing::error!(%error, path = %shown, "cannot take a failed mount away");
            }
            Err(format!("cannot serve {shown}: {error}"))
        }
    }
}
