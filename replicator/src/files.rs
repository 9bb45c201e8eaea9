//! What the application sees: requests of one mount, carried out on the files below and on the other node.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use rustix::fs::OFlags;
use rustix::io::Errno;
use safe_replication::op::ObjectId;

use crate::backing::attributes;
use crate::clock::Boottime;
use crate::fuse::reply::StatFs;
use crate::fuse::session::Handler;
use crate::fuse::{Attributes, Entry, Operation, Reply, Request};
use crate::node::Node;
use crate::operation::Engine;

mod content;
mod directory;
mod metadata;
mod names;
mod write_back;

use directory::OpenDirectory;

/// Number of the root in every mount.
const ROOT: u64 = 1;

/// A file that the application has open.
#[derive(Debug)]
struct OpenFile {
    file: Arc<OwnedFd>,
    node: Arc<Node>,
    writes: bool,
}

/// The files of one mount.
#[derive(Debug)]
pub struct Files {
    engine: Arc<Engine>,
    root: ObjectId,
    /// The kernel keeps what is written, and tells the modification times of files.
    writes_back: AtomicBool,
    next: AtomicU64,
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    directories: RwLock<HashMap<u64, Arc<OpenDirectory>>>,
}

impl Files {
    /// Of the directory with this index.
    #[must_use]
    pub fn new(engine: Arc<Engine>, index: u16) -> Arc<Self> {
        Arc::new(Self {
            engine,
            root: ObjectId::root(index.into()),
            writes_back: AtomicBool::new(false),
            // A handle of a process before this one is never given again.
            next: AtomicU64::new(Boottime::now().0),
            files: RwLock::default(),
            directories: RwLock::default(),
        })
    }

    fn node(&self, number: u64) -> Result<Arc<Node>, Errno> {
        self.engine.nodes.get(if number == ROOT { self.root } else { ObjectId(number) })
    }

    fn number(&self, node: &Node) -> u64 {
        if node.id == self.root { ROOT } else { node.id.0 }
    }

    fn entry(&self, node: &Node, attributes: Attributes) -> Entry {
        Entry { node: self.number(node), attributes }
    }

    fn attributes(&self, node: &Node) -> Result<Attributes, Errno> {
        let _lap = self.engine.stopwatch.begin();
        attributes(self.engine.nodes.open_path(node)?.as_fd())
    }

    fn file(&self, node: &Arc<Node>, handle: u64) -> Result<Arc<OpenFile>, Errno> {
        if let Some(open) = self.files.read().get(&handle) {
            return Ok(Arc::clone(open));
        }
        // Opened by the process before this one.
        let file = Arc::new(self.engine.nodes.open(node, OFlags::RDONLY)?);
        Ok(self.keep_as(handle, OpenFile { file, node: Arc::clone(node), writes: false }))
    }

    fn keep(&self, file: Arc<OwnedFd>, node: Arc<Node>, writes: bool) -> u64 {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.keep_as(handle, OpenFile { file, node, writes });
        handle
    }

    fn keep_as(&self, handle: u64, open: OpenFile) -> Arc<OpenFile> {
        open.node.opened(open.writes);
        let open = Arc::new(open);
        if let Some(other) = self.files.write().insert(handle, Arc::clone(&open)) {
            // Two threads found it missing.
            other.node.closed(other.writes);
        }
        open
    }

    fn open(&self, node: Arc<Node>, flags: u32) -> Result<Reply, Errno> {
        let writes = flags & libc::O_ACCMODE.cast_unsigned() != libc::O_RDONLY.cast_unsigned();
        // Never O_APPEND (the kernel has computed the offset), O_TRUNC (comes as a request of its own) or O_DIRECT.
        let file = if writes {
            let file = self.engine.nodes.open_file(&node)?;
            node.lend(&file);
            file
        } else {
            Arc::new(self.engine.nodes.open(&node, OFlags::RDONLY)?)
        };
        Ok(Reply::Opened { handle: self.keep(file, node, writes) })
    }

    fn release(&self, handle: u64) {
        let Some(file) = self.files.write().remove(&handle) else { return };
        // A forget may have come before this.
        let (node, writes) = (Arc::clone(&file.node), file.writes);
        drop(file);
        node.closed(writes);
        self.engine.nodes.release(node);
    }

    fn statfs(&self) -> Result<Reply, Errno> {
        let node = self.node(ROOT)?;
        let s = rustix::fs::fstatvfs(&self.engine.nodes.root_of(&node).directory)?;
        let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Reply::StatFs(StatFs {
            blocks: s.f_blocks,
            free: s.f_bfree,
            available: s.f_bavail,
            files: s.f_files,
            files_free: s.f_ffree,
            block_size: word(s.f_bsize),
            name_max: word(s.f_namemax),
            fragment_size: word(s.f_frsize),
        }))
    }
}

impl Handler for Files {
    fn begin(&self, writes_back: bool) {
        self.writes_back.store(writes_back, Ordering::Release);
    }

    fn awaits(&self, request: &Request) -> Vec<u64> {
        if self.writes_back() { self.awaited(request) } else { Vec::new() }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "requests with names have a file of their own")]
    fn handle(&self, request: Request) -> Result<Reply, Errno> {
        if let Operation::Forget(nodes) = &request.operation {
            for (number, count) in nodes {
                if *number != ROOT {
                    self.engine.nodes.forget(ObjectId(*number), *count);
                }
            }
            return Ok(Reply::Silent);
        }
        let node = self.node(request.node)?;
        // What changes something waits for the other node as well, and is timed where it does not.
        let _lap = request.operation.only_reads().then(|| self.engine.stopwatch.begin());
        match request.operation {
            Operation::Write { offset, data, flags, kill_privileges, cached } => {
                let written = self.write(&node, offset, data.clone(), flags, kill_privileges)?;
                // Nobody is told of less: the rest would be lost.
                if cached && (written as usize) < data.len() {
                    return Err(Errno::FBIG);
                }
                Ok(Reply::Written(written))
            }
            Operation::Read { handle, offset, size } => self.read(&node, handle, offset, size),
            Operation::GetAttributes => self.attributes(&node).map(Reply::Attributes),
            Operation::Lookup { name } => self.look_up(&node, &name),
            Operation::Open { flags } => self.open(node, flags),
            Operation::Release { handle } => {
                self.release(handle);
                Ok(Reply::Empty)
            }
            Operation::Sync { handle: _, data_only } => {
                self.engine.sync(&node, data_only).map(|()| Reply::Empty)
            }
            Operation::SyncDirectory { data_only } => {
                self.engine.sync(&node, data_only).map(|()| Reply::Empty)
            }
            Operation::Seek { handle, offset, whence } => self.seek(&node, handle, offset, whence),
            Operation::Allocate { handle: _, offset, length, mode } => {
                self.allocate(&node, offset, length, mode)
            }
            Operation::Copy { handle: _, offset, to_node, to_handle: _, to_offset, length } => {
                self.copy(&node, offset, &self.node(to_node)?, to_offset, length)
            }
            Operation::SetAttributes(set) => self.set_attributes(&node, &set),
            Operation::SetXattr { name, value, flags, kill_group } => {
                self.set_xattr(&node, name, value, flags, kill_group)
            }
            Operation::GetXattr { name, size } => self.get_xattr(&node, &name, size),
            Operation::ListXattr { size } => self.list_xattr(&node, size),
            Operation::RemoveXattr { name } => self.remove_xattr(&node, name),
            Operation::OpenDirectory => self.open_directory(node),
            Operation::ReadDirectory { handle, offset, size, plus } => {
                self.read_directory(&node, handle, offset, size, plus)
            }
            Operation::ReleaseDirectory { handle } => {
                self.release_directory(handle);
                Ok(Reply::Empty)
            }
            Operation::StatFs => self.statfs(),
            Operation::Temporary { mode, umask, flags: _ } => {
                self.make_nameless(&node, mode, umask, (request.uid, request.gid))
            }
            Operation::ReadLink => self.read_link(&node),
            operation => self.handle_names(&node, request.uid, request.gid, operation),
        }
    }
}
