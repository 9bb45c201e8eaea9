//! The descriptors that the agent kept, passed to the process that goes on.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::fds::Kept;

/// For descriptors to arrive that were sent before the command.
const PATIENCE: Duration = Duration::from_secs(2);

/// Descriptors.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// FUSE devices, by index of the directory.
    pub devices: BTreeMap<u16, OwnedFd>,
    /// The directories below the mounts.
    pub directories: BTreeMap<u16, OwnedFd>,
    /// Files without a name, by number.
    pub files: BTreeMap<u64, Arc<OwnedFd>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Inherited {
    descriptors: Mutex<Descriptors>,
    changed: Condvar,
}

impl Inherited {
    /// One has come.
    pub fn add(&self, kept: Kept, descriptor: OwnedFd) {
        let mut descriptors = self.descriptors.lock();
        match kept {
            Kept::Device(index) => {
                descriptors.devices.insert(index, descriptor);
            }
            Kept::Directory(index) => {
                descriptors.directories.insert(index, descriptor);
            }
            Kept::File(id) => {
                descriptors.files.insert(id, Arc::new(descriptor));
            }
        }
        self.changed.notify_all();
    }

    /// All of them, once there are so many directories and files.
    ///
    /// # Errors
    /// They do not come.
    pub fn take(&self, directories: usize, files: usize) -> Result<Descriptors, String> {
        let mut found = self.descriptors.lock();
        let missing = |found: &mut Descriptors| {
            found.devices.len() < directories
                || found.directories.len() < directories
                || found.files.len() < files
        };
        if self.changed.wait_while_for(&mut found, missing, PATIENCE).timed_out() {
            return Err("the agent did not pass every descriptor that it kept".into());
        }
        Ok(std::mem::take(&mut found))
    }
}
