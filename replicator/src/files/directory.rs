//! Looking up names and reading directories.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::Files;
use crate::fuse::reply::Listing;
use crate::fuse::{Attributes, Entry, Reply};
use crate::node::Node;

/// A directory that the application has open.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    /// Its position is where the last answer ended; one reader at a time.
    directory: Mutex<OwnedFd>,
    node: Arc<Node>,
}

const NO_ENTRY: Entry = Entry {
    node: 0,
    attributes: Attributes {
        ino: 0,
        size: 0,
        blocks: 0,
        atime: ZERO,
        mtime: ZERO,
        ctime: ZERO,
        mode: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        block_size: 0,
    },
};
const ZERO: safe_replication::op::Timestamp = safe_replication::op::Timestamp { seconds: 0, nanos: 0 };

impl Files {
    pub(super) fn look_up(&self, parent: &Arc<Node>, name: &Bytes) -> Result<Reply, Errno> {
        let directory = self.engine.nodes.open_path(parent)?;
        match self.engine.nodes.root_of(parent).look_up(directory.as_fd(), name) {
            Ok(found) => {
                let node = self.engine.nodes.remember(found.object, Some((parent, name)), true);
                Ok(Reply::Entry(self.entry(&node, found.attributes)))
            }
            // The kernel may remember that there is none: nobody else makes it.
            Err(Errno::NOENT) => Ok(Reply::Entry(NO_ENTRY)),
            Err(error) => Err(error),
        }
    }

    pub(super) fn open_directory(&self, node: Arc<Node>) -> Result<Reply, Errno> {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.keep_directory(handle, &node)?;
        Ok(Reply::Opened { handle })
    }

    fn keep_directory(&self, handle: u64, node: &Arc<Node>) -> Result<Arc<OpenDirectory>, Errno> {
        let directory = Mutex::new(self.engine.nodes.open(node, OFlags::RDONLY | OFlags::DIRECTORY)?);
        let open = Arc::new(OpenDirectory { directory, node: Arc::clone(node) });
        self.directories.write().insert(handle, Arc::clone(&open));
        Ok(open)
    }

    pub(super) fn release_directory(&self, handle: u64) {
        let Some(open) = self.directories.write().remove(&handle) else { return };
        let node = Arc::clone(&open.node);
        drop(open);
        self.engine.nodes.release(node);
    }

    pub(super) fn read_directory(
        &self,
        node: &Arc<Node>,
        handle: u64,
        offset: u64,
        size: u32,
        plus: bool,
    ) -> Result<Reply, Errno> {
        let known = self.directories.read().get(&handle).cloned();
        // Opened by the process before this one; positions are those of the filesystem below.
        let open = known.map_or_else(|| self.keep_directory(handle, node), Ok)?;
        let directory = open.directory.lock();
        rustix::fs::seek(&*directory, SeekFrom::Start(offset))?;
        let mut listing = Listing::new(size);
        let mut buffer = [MaybeUninit::<u8>::uninit(); 16 << 10];
        let mut entries = RawDir::new(&*directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !listing.fits(name.len(), plus) {
                break;
            }
            let kind = (entry.file_type().as_raw_mode() >> 12) & 15;
            let (ino, next) = (entry.ino(), entry.next_entry_cookie());
            let found = if plus { Some(self.entry_of(node, name)) } else { None };
            listing.push(found.as_ref(), ino, next, kind, name);
        }
        Ok(Reply::Directory(listing))
    }

    /// The entry with attributes of a name, or one without where it cannot be told: the kernel then asks by itself.
    fn entry_of(&self, parent: &Arc<Node>, name: &[u8]) -> Entry {
        if name == b"." || name == b".." {
            return NO_ENTRY;
        }
        let found = self
            .engine
            .nodes
            .open_path(parent)
            .and_then(|directory| self.engine.nodes.root_of(parent).look_up(directory.as_fd(), name));
        match found {
            Ok(found) => {
                let name = Bytes::copy_from_slice(name);
                let node = self.engine.nodes.remember(found.object, Some((parent, &name)), true);
                self.entry(&node, found.attributes)
            }
            Err(_) => NO_ENTRY,
        }
    }
}
