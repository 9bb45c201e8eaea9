//! `sync = "fsync"`: the kernel keeps what is written to files until they are made durable, closed or old. Until then it
//! alone knows their content, length and times.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::io::Errno;
use safe_replication::key::{Key, Keys};
use safe_replication::op::Timestamp;

use super::Files;
use crate::clock::file_time;
use crate::fuse::request::{NewTime, SetAttributes};
use crate::fuse::{Operation, Request};
use crate::node::Node;

impl Files {
    pub(super) fn writes_back(&self) -> bool {
        self.writes_back.load(Ordering::Acquire)
    }

    /// Files of which everything that the kernel has must be here first: what gets a name has its content, and where
    /// content is can only be told of what has come.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are about what has come")]
    pub(super) fn awaited(&self, request: &Request) -> Vec<u64> {
        let found = match &request.operation {
            Operation::Rename { name, new_parent, new_name, flags } => {
                let exchanged = *flags & libc::RENAME_EXCHANGE != 0;
                let second = exchanged.then(|| self.at(*new_parent, new_name)).flatten();
                vec![self.at(request.node, name), second]
            }
            Operation::Link { existing, .. } => vec![self.node(*existing).ok()],
            Operation::Seek { .. } => vec![self.node(request.node).ok()],
            _ => return Vec::new(),
        };
        let written = found.into_iter().flatten().filter(|node| node.may_be_written());
        written.map(|node| self.number(&node)).collect()
    }

    /// What the kernel knows at a name. Whether it may be renamed is found out later.
    fn at(&self, parent: u64, name: &Bytes) -> Option<Arc<Node>> {
        let parent = self.node(parent).ok()?;
        let found = self.find(&parent, name).ok()?;
        self.engine.nodes.find(&found.object)
    }

    /// The modification time that a change of content gives a file. Where the kernel tells the times it is the one that
    /// the file has: the kernel's may have come before what was written at it.
    pub(super) fn time_of_change(&self, node: &Node) -> Result<Timestamp, Errno> {
        if self.writes_back() { self.modified(node) } else { Ok(file_time()) }
    }

    /// The keys of a change of content. Where the kernel tells the times no other operation may set one meanwhile.
    pub(super) fn content(&self, node: &Node, start: u64, end: u64, meta: bool) -> Keys {
        let mut keys = Keys::data(node.id.0, start, end, meta);
        if self.writes_back() && !meta {
            keys.push(Key::meta(node.id.0).shared());
        }
        keys
    }

    /// The kernel tells of times whenever a name or mode has changed, mostly of one that was set already.
    pub(super) fn is_known(&self, node: &Node, set: &SetAttributes) -> Result<bool, Errno> {
        let Some(NewTime::At(time)) = set.mtime else { return Ok(false) };
        let only = SetAttributes { mtime: set.mtime, ..SetAttributes::default() };
        let told = self.writes_back() && !node.is_directory() && *set == only;
        Ok(told && self.modified(node)? == time)
    }

    fn modified(&self, node: &Node) -> Result<Timestamp, Errno> {
        node.modified(|| Ok(self.attributes(node)?.mtime))
    }
}
