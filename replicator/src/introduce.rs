//! Gives the other node a file that has no name here, so that it can be named on both nodes at once.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use safe_proto::replication::Loss;
use safe_replication::key::{Key, Keys};
use safe_replication::op::{ObjectId, Op, Xattr};

use crate::backing::{MARKER, attributes, xattr, xattr_names};
use crate::fuse::Attributes;
use crate::knowledge::Stage;
use crate::node::Node;
use crate::operation::Engine;
use crate::resync::link::Failure;
use crate::session::{Awaited, Session};
use crate::state::Standing;

/// Operations under way: bounds what they hold in memory.
const WINDOW: usize = 8;
/// Bytes of one write.
const PIECE: u64 = 1 << 20;
const ACCESS: &[u8] = b"system.posix_acl_access";

/// Why a file was not given to the other node.
enum Trouble {
    /// It cannot be read here.
    Here(Errno),
    /// The session has ended.
    Lost,
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        Self::Here(error)
    }
}

impl Engine {
    /// Makes a file without a name known to the other node, with all that it has and durable, if there is a session in
    /// which names are equal; from then on operations on it are carried out on both nodes. Without such a session there
    /// is nothing to do: what gets a name then is marked.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn introduce(&self, node: &Arc<Node>) -> Result<(), Errno> {
        let mut keys = Keys::of(&[Key::all(node.id.0)]);
        keys.push_any();
        let _held = self.locks.hold(keys.as_slice());
        let (Standing::Session(session), _) = self.state.standing() else { return Ok(()) };
        if self.knowledge.stage() == Stage::Apart || self.is_bound(&session, node) {
            return Ok(());
        }
        let mut sender = Sender { session: &session, under_way: VecDeque::new() };
        match self.give(&mut sender, node) {
            Ok(()) => {
                self.set_bound(&session, node);
                Ok(())
            }
            Err(Trouble::Lost) => Ok(()),
            Err(Trouble::Here(error)) => {
                // What was given so far has no name there, and goes with the id.
                sender.take_back(node.id);
                Err(error)
            }
        }
    }

    fn give(&self, sender: &mut Sender<'_>, node: &Node) -> Result<(), Trouble> {
        let path = self.nodes.open_path(node)?;
        let now = attributes(path.as_fd())?;
        let root = self.nodes.root_of(node);
        sender.send(&Op::Create {
            id: node.id,
            parent: ObjectId::root(node.object.root.into()),
            name: Bytes::new(),
            mode: now.mode,
            uid: now.uid,
            gid: now.gid,
            rdev: 0,
            target: Bytes::new(),
            time: now.mtime,
        })?;
        if xattr(root.directory.as_fd(), b"system.posix_acl_default").ok().flatten().is_some() {
            sender.send(&Op::RemoveXattr { id: node.id, name: Bytes::from_static(ACCESS) })?;
        }
        give_content(sender, node.id, &*self.nodes.open_file(node)?, &now)?;
        for name in xattr_names(path.as_fd())?.split(|byte| *byte == 0) {
            if name.is_empty() || name == MARKER {
                continue;
            }
            if let Some(value) = xattr(path.as_fd(), name)? {
                let xattr = Xattr { name: Bytes::copy_from_slice(name), value: value.into() };
                sender.send(&Op::SetXattr { id: node.id, xattr, mode: None })?;
            }
        }
        sender.send(&Op::SetMeta {
            id: node.id,
            mode: Some(now.mode & 0o7777),
            uid: None,
            gid: None,
            atime: Some(now.atime),
            mtime: Some(now.mtime),
        })?;
        // It may have been made durable here while the other node did not know it.
        sender.send(&Op::Sync { id: node.id, data_only: false })?;
        sender.finish()
    }
}

/// Data as data, holes as holes.
fn give_content(
    sender: &mut Sender<'_>,
    id: ObjectId,
    file: &OwnedFd,
    now: &Attributes,
) -> Result<(), Trouble> {
    let (time, mode) = (now.mtime, None);
    let mut at = 0;
    while at < now.size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(now.size);
        at = start;
        while at < end {
            let mut data = vec![0; usize::try_from(PIECE.min(end - at)).unwrap_or(0)];
            let count = match rustix::io::pread(file, data.as_mut_slice(), at) {
                Ok(0) => return Err(Errno::IO.into()),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            data.truncate(count);
            sender.send(&Op::Write { id, offset: at, data: data.into(), time, mode })?;
            at += count as u64;
        }
    }
    sender.send(&Op::Truncate { id, size: now.size, time, mode })
}

struct Sender<'a> {
    session: &'a Session,
    under_way: VecDeque<Awaited>,
}

impl Sender<'_> {
    /// Nothing of it is a change: until the file has a name, nobody can find it.
    fn send(&mut self, op: &Op) -> Result<(), Trouble> {
        while self.under_way.len() >= WINDOW {
            self.wait_for_one()?;
        }
        let (number, waiter) = self.session.send(op, &[]).map_err(|_| Trouble::Lost)?;
        // Nothing is to be carried out here.
        self.session.carried_out(number);
        self.under_way.push_back(waiter);
        Ok(())
    }

    fn wait_for_one(&mut self) -> Result<(), Trouble> {
        let Some(waiter) = self.under_way.pop_front() else { return Ok(()) };
        match waiter.wait() {
            Ok(_) => Ok(()),
            Err(Failure::Lost(_)) => Err(Trouble::Lost),
            Err(Failure::Refused(code)) => {
                let error = std::io::Error::from_raw_os_error(code);
                let reason = format!("the other node could not take a file that has no name: {error}");
                self.session.lose(Loss::Failed, &reason);
                Err(Trouble::Lost)
            }
        }
    }

    fn finish(&mut self) -> Result<(), Trouble> {
        while !self.under_way.is_empty() {
            self.wait_for_one()?;
        }
        Ok(())
    }

    fn take_back(&mut self, id: ObjectId) {
        if self.finish().is_ok() && self.send(&Op::Unbind { id }).is_ok() && self.finish().is_err() {
            tracing::debug!("the session ended while a file was taken back");
        }
    }
}
