//! Reading and changing content.

use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use safe_replication::dirty::Change;
use safe_replication::key::Key;
use safe_replication::op::{Allocation, Op};

use super::Files;
use crate::fuse::Reply;
use crate::fuse::caller::Caller;
use crate::node::Node;
use crate::operation::Task;
use crate::state::Standing;

/// Most bytes of one copy: longer ones are asked for again by the kernel, and none holds its keys for long.
const COPY: u64 = 64 << 20;

impl Files {
    pub(super) fn read(&self, node: &Arc<Node>, handle: u64, offset: u64, size: u32) -> Result<Reply, Errno> {
        let open = self.file(node, handle)?;
        let mut data = vec![0; size as usize];
        let mut filled = 0;
        while filled < data.len() {
            match rustix::io::pread(&*open.file, &mut data[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        data.truncate(filled);
        Ok(Reply::Data(data.into()))
    }

    pub(super) fn write(
        &self,
        node: &Arc<Node>,
        offset: u64,
        data: Bytes,
        flags: u32,
        kill_privileges: bool,
    ) -> Result<u32, Errno> {
        if data.is_empty() {
            return Ok(0);
        }
        let wanted = u32::try_from(data.len()).map_err(|_| Errno::INVAL)?;
        let written = u32::try_from(self.fitting(node, offset, wanted.into())?).unwrap_or(wanted);
        let data = data.slice(..written as usize);
        let kill = self.killed(node, kill_privileges)?.is_some();
        let end = offset + data.len() as u64;
        let build = || {
            let mode = self.killed(node, kill)?;
            let time = self.time_of_change(node)?;
            Ok(Op::Write { id: node.id, offset, data: data.clone(), time, mode })
        };
        let keys = self.content(node, offset, end, kill);
        self.engine.run(&Task { keys, subjects: &[node], excluded: false, build: &build })?;
        // The kernel follows a synchronous buffered write by a request to sync, but not a direct one.
        let direct = libc::O_DIRECT | libc::O_DSYNC;
        if flags & direct.cast_unsigned() == direct.cast_unsigned() {
            let whole = flags & libc::O_SYNC.cast_unsigned() == libc::O_SYNC.cast_unsigned();
            self.engine.sync(node, !whole)?;
        }
        Ok(written)
    }

    /// How much of what begins at `offset` the filesystem below takes, before the other node is asked to.
    fn fitting(&self, node: &Node, offset: u64, length: u64) -> Result<u64, Errno> {
        match self.engine.nodes.root_of(node).longest.checked_sub(offset) {
            None | Some(0) => Err(Errno::FBIG),
            Some(room) => Ok(length.min(room)),
        }
    }

    /// Permission bits after setuid and setgid are taken away, if there are any to take. Asked once to know whether the
    /// keys have to include the attributes, and again under them.
    pub(super) fn killed(&self, node: &Node, kill: bool) -> Result<Option<u32>, Errno> {
        if !kill {
            return Ok(None);
        }
        let mode = self.attributes(node)?.mode & 0o7777;
        Ok(Some(without_privileges(mode)).filter(|new| *new != mode))
    }

    pub(super) fn allocate(
        &self,
        node: &Arc<Node>,
        offset: u64,
        length: u64,
        mode: u32,
    ) -> Result<Reply, Errno> {
        const KEEP: u32 = 1;
        const PUNCH: u32 = 2;
        const ZERO: u32 = 16;
        let how = match mode {
            0 => Allocation::Grow,
            KEEP => Allocation::KeepSize,
            m if m == PUNCH | KEEP => Allocation::Punch,
            ZERO => Allocation::Zero,
            m if m == ZERO | KEEP => Allocation::ZeroKeepSize,
            _ => return Err(Errno::OPNOTSUPP),
        };
        if self.fitting(node, offset, length)? < length {
            return Err(Errno::FBIG);
        }
        let end = offset + length;
        let kill = self.killed(node, !Caller::current().is_privileged())?.is_some();
        let build = || {
            let mode = self.killed(node, kill)?;
            let time = self.time_of_change(node)?;
            Ok(Op::Allocate { id: node.id, how, offset, length, time, mode })
        };
        let keys = self.content(node, offset, end, kill);
        self.engine.run(&Task { keys, subjects: &[node], excluded: false, build: &build })?;
        Ok(Reply::Empty)
    }

    pub(super) fn copy(
        &self,
        from: &Arc<Node>,
        offset: u64,
        to: &Arc<Node>,
        to_offset: u64,
        length: u64,
    ) -> Result<Reply, Errno> {
        if from.excluded != to.excluded || from.object.root != to.object.root {
            // The kernel copies by reading and writing.
            return Err(Errno::XDEV);
        }
        let size = self.attributes(from)?.size;
        let length = length.min(COPY).min(size.saturating_sub(offset));
        if length == 0 {
            return Ok(Reply::Written(0));
        }
        let length = self.fitting(to, to_offset, length)?;
        let (end, to_end) = (offset + length, to_offset + length);
        if from.id == to.id && offset < to_end && to_offset < end {
            return Err(Errno::INVAL);
        }
        let kill = self.killed(to, !Caller::current().is_privileged())?.is_some();
        let source = [Change::Data { object: from.object.clone(), offset, len: length }];
        let build = || {
            let (standing, _) = self.engine.state.standing();
            let differs = matches!(standing, Standing::Session(_)) && self.engine.knowledge.is_dirty(&source);
            if differs || self.attributes(from)?.size < end {
                return Err(Errno::XDEV);
            }
            let (time, mode) = (self.time_of_change(to)?, self.killed(to, kill)?);
            Ok(Op::Copy {
                source: from.id,
                source_offset: offset,
                id: to.id,
                offset: to_offset,
                length,
                time,
                mode,
            })
        };
        let mut keys = self.content(to, to_offset, to_end, kill);
        keys.push(Key::range(from.id.0, offset, end).shared());
        self.engine.run(&Task { keys, subjects: &[from, to], excluded: false, build: &build })?;
        Ok(Reply::Written(u32::try_from(length).unwrap_or(0)))
    }

    pub(super) fn seek(
        &self,
        node: &Arc<Node>,
        handle: u64,
        offset: u64,
        whence: u32,
    ) -> Result<Reply, Errno> {
        let open = self.file(node, handle)?;
        let position = match whence.cast_signed() {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        Ok(Reply::Position(rustix::fs::seek(&*open.file, position)?))
    }
}

/// As the kernel does when an unprivileged process changes content: setgid without group execution is mandatory
/// locking, not a privilege.
pub(super) const fn without_privileges(mode: u32) -> u32 {
    let mode = mode & !libc::S_ISUID;
    if mode & libc::S_IXGRP != 0 { mode & !libc::S_ISGID } else { mode }
}
