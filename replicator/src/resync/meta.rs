//! Attributes: owner, extended attributes with ACLs, mode, times. In this order, since each can change those after it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use bytes::Bytes;
use rustix::fs::OFlags;
use safe_replication::diff::has_same_attributes;
use safe_replication::object::Kind;
use safe_replication::op::{ObjectId, Op, Xattr};
use safe_replication::tree::Entry;

use super::link::{Answer, Query};
use super::page::{Page, unexpected};
use super::round::Node;
use super::sender::Sender;
use super::{Resync, Step, Trouble, local};
use crate::backing::Found;

/// What the target's object was like before its attributes are set.
#[derive(Clone, Copy)]
pub(super) enum Before<'e> {
    /// It was just made, with its owner. `xattrs`: it may have inherited extended attributes, or is to have some.
    Made { xattrs: bool },
    /// It had these. `wrote`: then content was written, which may have taken some away.
    Had { entry: &'e Entry, wrote: bool },
}

impl Page<'_, '_> {
    /// Everything but content.
    pub(super) fn push_attributes(
        &mut self,
        id: ObjectId,
        found: &Found,
        source: &Entry,
        before: Before<'_>,
    ) -> Step<()> {
        self.round.resync.push_attributes(&mut self.sender, id, found.path.as_fd(), source, before)
    }
}

impl Resync<'_> {
    /// Makes the target's object have the source's attributes.
    pub(super) fn push_attributes(
        &self,
        sender: &mut Sender<'_>,
        id: ObjectId,
        object: BorrowedFd<'_>,
        source: &Entry,
        before: Before<'_>,
    ) -> Step<()> {
        // A change of owner, even to the same one, clears set-id bits and capabilities.
        let (owner, xattrs) = match before {
            Before::Made { xattrs } => (false, xattrs),
            Before::Had { entry, wrote } => {
                let owner = (entry.uid, entry.gid) != (source.uid, source.gid);
                let lost = (wrote || owner) && source.xattrs != [0; 16];
                (owner, lost || source.xattrs != entry.xattrs)
            }
        };
        if owner {
            let (uid, gid) = (Some(source.uid), Some(source.gid));
            sender.push(Op::SetMeta { id, mode: None, uid, gid, atime: None, mtime: None })?;
        }
        // Writing content clears them too and is not ordered with attributes: it is to be applied before.
        if xattrs || source.mode & 0o6000 != 0 {
            sender.flush()?;
        }
        if xattrs {
            self.push_xattrs(sender, id, object)?;
        }
        let mode = (source.kind != Kind::Symlink).then_some(source.mode);
        sender.push(Op::SetMeta { id, mode, uid: None, gid: None, atime: None, mtime: Some(source.mtime) })
    }

    fn push_xattrs(&self, sender: &mut Sender<'_>, id: ObjectId, object: BorrowedFd<'_>) -> Step<()> {
        let wanted = local::xattrs(object).map_err(|errno| Trouble::local("extended attributes", errno))?;
        let Answer::Xattrs(present) = self.link.query(Query::Xattrs { id })? else {
            return Err(unexpected());
        };
        let wanted: BTreeMap<Bytes, Bytes> = wanted.into_iter().collect();
        for (name, _) in &present {
            if !wanted.contains_key(name) {
                sender.push(Op::RemoveXattr { id, name: name.clone() })?;
            }
        }
        let present: BTreeMap<Bytes, Bytes> = present.into_iter().collect();
        for (name, value) in wanted {
            if present.get(&name) != Some(&value) {
                sender.push(Op::SetXattr { id, xattr: Xattr { name, value }, mode: None })?;
            }
        }
        Ok(())
    }

    /// Makes a directory itself equal, without its names.
    pub(super) fn own_attributes(&self, node: &Node<'_>) -> Step<()> {
        let root = self.root(node.object.root)?;
        let failed = |errno| Trouble::local(&local::display(root, &node.path), errno);
        let open = root.open(&node.object, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
        let mut sender = Sender::new(self);
        self.equalize_own(&mut sender, node.id, open.as_fd())?;
        sender.flush()
    }

    /// Makes the attributes of a bound object equal; answers both sides' entries as they were.
    pub(super) fn equalize_own(
        &self,
        sender: &mut Sender<'_>,
        id: ObjectId,
        object: BorrowedFd<'_>,
    ) -> Step<(Entry, Entry)> {
        let source = local::own_entry(object).map_err(|errno| Trouble::local("an object", errno))?;
        let Answer::Entries { entries, .. } = self.link.query(Query::Own { id })? else {
            return Err(unexpected());
        };
        let target = entries.into_iter().next().ok_or_else(unexpected)?;
        if !has_same_attributes(&source, &target) {
            self.push_attributes(sender, id, object, &source, Before::Had { entry: &target, wrote: false })?;
        }
        Ok((source, target))
    }
}
