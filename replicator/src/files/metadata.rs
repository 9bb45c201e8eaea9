//! Attributes and extended attributes.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use safe_replication::key::{Key, Keys};
use safe_replication::op::{Op, Timestamp, Xattr};

use super::Files;
use super::content::without_privileges;
use crate::backing::{MARKER, xattr, xattr_names};
use crate::clock::file_time;
use crate::fuse::Reply;
use crate::fuse::request::{NewTime, SetAttributes};
use crate::legacy::requests;
use crate::node::Node;
use crate::operation::Task;

impl Files {
    pub(super) fn set_attributes(&self, node: &Arc<Node>, set: &SetAttributes) -> Result<Reply, Errno> {
        if let Some(size) = set.size {
            self.truncate(node, size, set.kill_privileges)?;
        }
        let rest = SetAttributes { size: None, handle: None, kill_privileges: false, ..*set };
        if rest != SetAttributes::default() && !self.is_known(node, &rest)? {
            self.set_meta(node, &rest)?;
        }
        self.attributes(node).map(Reply::Attributes)
    }

    fn truncate(&self, node: &Arc<Node>, size: u64, kill_privileges: bool) -> Result<(), Errno> {
        if size > self.engine.nodes.root_of(node).longest {
            return Err(Errno::FBIG);
        }
        let kill = self.killed(node, kill_privileges)?.is_some();
        let build = || {
            let mode = self.killed(node, kill)?;
            Ok(Op::Truncate { id: node.id, size, time: self.time_of_change(node)?, mode })
        };
        let keys = self.content(node, 0, u64::MAX, kill);
        self.engine.run(&Task { keys, subjects: &[node], excluded: false, build: &build })
    }

    fn set_meta(&self, node: &Arc<Node>, set: &SetAttributes) -> Result<(), Errno> {
        let now = file_time();
        let time = |time: Option<NewTime>| -> Option<Timestamp> {
            time.map(|time| match time {
                NewTime::Now => now,
                NewTime::At(time) => time,
            })
        };
        let build = || {
            let mut mode = set.mode;
            if mode.is_none() && !node.is_directory() && (set.uid.is_some() || set.gid.is_some()) {
                // A change of owner takes setuid and setgid away, whoever asks.
                let old = self.attributes(node)?.mode & 0o7777;
                mode = Some(without_privileges(old)).filter(|new| *new != old);
            }
            let (atime, mtime) = (time(set.atime), time(set.mtime));
            Ok(Op::SetMeta { id: node.id, mode, uid: set.uid, gid: set.gid, atime, mtime })
        };
        let keys = Keys::of(&[Key::meta(node.id.0)]);
        self.engine.run(&Task { keys, subjects: &[node], excluded: false, build: &build })
    }

    pub(super) fn set_xattr(
        &self,
        node: &Arc<Node>,
        name: Bytes,
        value: Bytes,
        flags: u32,
        kill_group: bool,
    ) -> Result<Reply, Errno> {
        if name.as_ref() == MARKER {
            return Err(Errno::PERM);
        }
        let build = || {
            let path = self.engine.nodes.open_path(node)?;
            let exists = xattr(path.as_fd(), &name)?.is_some();
            if exists && flags & libc::XATTR_CREATE.cast_unsigned() != 0 && !requests::repeats() {
                return Err(Errno::EXIST);
            }
            if !exists && flags & libc::XATTR_REPLACE.cast_unsigned() != 0 {
                return Err(Errno::NODATA);
            }
            // An access ACL changes the permissions by itself, on both nodes alike; only setgid has to be told.
            let mode = if kill_group && name.as_ref() == b"system.posix_acl_access" {
                let mode = self.attributes(node)?.mode & 0o7777;
                acl_mode(mode, &value).map(|mode| mode & !libc::S_ISGID)
            } else {
                None
            };
            let xattr = Xattr { name: name.clone(), value: value.clone() };
            Ok(Op::SetXattr { id: node.id, xattr, mode })
        };
        let keys = Keys::of(&[Key::meta(node.id.0)]);
        self.engine.run(&Task { keys, subjects: &[node], excluded: false, build: &build })?;
        Ok(Reply::Empty)
    }

    pub(super) fn remove_xattr(&self, node: &Arc<Node>, name: Bytes) -> Result<Reply, Errno> {
        if name.as_ref() == MARKER {
            return Err(Errno::PERM);
        }
        let build = || {
            let path = self.engine.nodes.open_path(node)?;
            if xattr(path.as_fd(), &name)?.is_none() {
                return Err(Errno::NODATA);
            }
            Ok(Op::RemoveXattr { id: node.id, name: name.clone() })
        };
        let keys = Keys::of(&[Key::meta(node.id.0)]);
        self.engine.run(&Task { keys, subjects: &[node], excluded: false, build: &build })?;
        Ok(Reply::Empty)
    }

    pub(super) fn get_xattr(&self, node: &Node, name: &[u8], size: u32) -> Result<Reply, Errno> {
        if name == MARKER {
            return Err(Errno::NODATA);
        }
        let path = self.engine.nodes.open_path(node)?;
        sized(xattr(path.as_fd(), name)?.ok_or(Errno::NODATA)?, size)
    }

    pub(super) fn list_xattr(&self, node: &Node, size: u32) -> Result<Reply, Errno> {
        let path = self.engine.nodes.open_path(node)?;
        sized(xattr_names(path.as_fd())?, size)
    }

    pub(super) fn read_link(&self, node: &Node) -> Result<Reply, Errno> {
        let path = self.engine.nodes.open_path(node)?;
        let target = rustix::fs::readlinkat(&*path, c"", Vec::new())?;
        Ok(Reply::Data(target.into_bytes().into()))
    }
}

fn sized(value: Vec<u8>, size: u32) -> Result<Reply, Errno> {
    match size {
        0 => Ok(Reply::Length(u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?)),
        size if value.len() > size as usize => Err(Errno::RANGE),
        _ => Ok(Reply::Data(value.into())),
    }
}

/// The permission bits that an access ACL makes of these: owner, mask (or group) and others.
fn acl_mode(mode: u32, acl: &[u8]) -> Option<u32> {
    const OWNER: u16 = 1;
    const GROUP: u16 = 4;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    let (mut owner, mut group, mut mask, mut other) = (0, 0, None, 0);
    for entry in acl.get(4..)?.chunks_exact(8) {
        let bits = u32::from(u16::from_le_bytes([entry[2], entry[3]])) & 7;
        match u16::from_le_bytes([entry[0], entry[1]]) {
            OWNER => owner = bits,
            GROUP => group = bits,
            MASK => mask = Some(bits),
            OTHER => other = bits,
            _ => {}
        }
    }
    Some(mode & 0o7000 | owner << 6 | mask.unwrap_or(group) << 3 | other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_gives_the_mask_as_the_mode_of_the_group() {
        let mut acl = 2u32.to_le_bytes().to_vec();
        for (tag, bits) in [(1u16, 6u16), (2, 7), (4, 4), (0x10, 5), (0x20, 0)] {
            acl.extend_from_slice(&tag.to_le_bytes());
            acl.extend_from_slice(&bits.to_le_bytes());
            acl.extend_from_slice(&[0; 4]);
        }
        assert_eq!(acl_mode(0o2777, &acl), Some(0o2650));
        assert_eq!(acl_mode(0o777, &[]), None);
    }
}
