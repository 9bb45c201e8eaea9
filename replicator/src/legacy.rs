//! What outlives this process while its directories are mounted: the next one goes on with it. See `SURVIVAL.md`.
//!
//! Reading order: [`handles`] the objects that the kernel knows, [`requests`] what was under way, [`inherited`] the
//! descriptors that the agent kept.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};

use crate::fds::{Kept, Outbox};
use handles::Handles;
use requests::Requests;

pub mod handles;
pub mod inherited;
pub mod requests;

/// See the module.
#[derive(Debug)]
pub struct Legacy {
    /// Objects that the kernel knows by number.
    pub handles: Handles,
    /// Requests under way, by index of the directory.
    pub requests: Vec<Arc<Requests>>,
    outbox: Arc<Outbox>,
    /// Files without a name that the agent keeps.
    pins: Mutex<std::collections::BTreeMap<u64, Arc<OwnedFd>>>,
}

/// Files without a name that the agent is asked to keep at one time.
const MOST_PINS: usize = 256;

const HANDLES: &str = "handles";

fn requests_of(index: usize) -> String {
    format!("requests-{index}")
}

impl Legacy {
    /// Of directories that are about to be mounted: nothing is known yet.
    ///
    /// # Errors
    /// The files cannot be made; then a death of this process ends the mounts.
    pub fn create(run_dir: &Path, directories: usize, outbox: Arc<Outbox>) -> io::Result<Self> {
        Self::remove(run_dir);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let open = |name: &str| rustix::fs::open(run_dir.join(name), flags, Mode::RUSR | Mode::WUSR);
        let requests = (0..directories)
            .map(|index| Ok(Arc::new(Requests::open(&open(&requests_of(index))?)?)))
            .collect::<io::Result<Vec<_>>>()?;
        let handles = Handles::create(open(HANDLES)?)?;
        Ok(Self { handles, requests, outbox, pins: Mutex::default() })
    }

    /// What the process before this one left.
    ///
    /// # Errors
    /// There is none, or it is of another version.
    pub fn open(run_dir: &Path, directories: usize, outbox: Arc<Outbox>) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let open = |name: &str| rustix::fs::open(run_dir.join(name), flags, Mode::empty());
        let requests = (0..directories)
            .map(|index| Ok(Arc::new(Requests::open(&open(&requests_of(index))?)?)))
            .collect::<io::Result<Vec<_>>>()?;
        let handles = Handles::open(open(HANDLES)?)?;
        Ok(Self { handles, requests, outbox, pins: Mutex::default() })
    }

    /// There is nothing to go on with any more: the mounts are gone.
    pub fn remove(run_dir: &Path) {
        let mut names = vec![HANDLES.to_owned()];
        names.extend((0..).map(requests_of).take_while(|name| run_dir.join(name).exists()));
        for name in names {
            // Absent: well.
            let _absent = std::fs::remove_file(run_dir.join(name));
        }
    }

    /// The object with this number loses its last name while the application has it open.
    pub fn pin(&self, id: u64, path: &Arc<OwnedFd>) {
        let mut pins = self.pins.lock();
        if pins.len() >= MOST_PINS && !pins.contains_key(&id) {
            tracing::warn!(id, "too many open files without a name: this one would not survive this process");
            return;
        }
        pins.insert(id, Arc::clone(path));
        drop(pins);
        self.outbox.send(Kept::File(id), Some(path));
    }

    /// It is not used any more.
    pub fn unpin(&self, id: u64) {
        if self.pins.lock().remove(&id).is_some() {
            self.outbox.send(Kept::File(id), None);
        }
    }

    /// Everything that an agent is to keep, which may be another one than before.
    pub fn send<'a>(&self, devices: impl Iterator<Item = (u16, &'a OwnedFd, &'a OwnedFd)>) {
        for (index, device, directory) in devices {
            self.outbox.send(Kept::Directory(index), Some(directory));
            self.outbox.send(Kept::Device(index), Some(device));
        }
        for (id, path) in self.pins.lock().iter() {
            self.outbox.send(Kept::File(*id), Some(path));
        }
    }

    /// What the agent kept is kept on.
    pub fn keep_pins(&self, pins: impl Iterator<Item = (u64, Arc<OwnedFd>)>) {
        self.pins.lock().extend(pins);
    }
}
