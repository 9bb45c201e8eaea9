//! Making, removing and renaming.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;
use safe_replication::key::{Key, Keys};
use safe_replication::op::{ObjectId, Op, RenameMode};

use super::Files;
use crate::backing::{Found, attributes, xattr};
use crate::carry::Objects as _;
use crate::clock::file_time;
use crate::fuse::reply::decode_device;
use crate::fuse::{Operation, Reply};
use crate::legacy::requests;
use crate::node::Node;
use crate::operation::Task;

/// What is to be made.
struct New {
    name: Bytes,
    mode: u32,
    umask: u32,
    uid: u32,
    gid: u32,
    rdev: u64,
    target: Bytes,
}

impl Files {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller has matched the rest")]
    pub(super) fn handle_names(
        &self,
        node: &Arc<Node>,
        uid: u32,
        gid: u32,
        operation: Operation,
    ) -> Result<Reply, Errno> {
        let new = |name, mode, umask, rdev, target| New { name, mode, umask, uid, gid, rdev, target };
        match operation {
            Operation::Create { name, mode, umask, flags: _ } => {
                let mode = mode & 0o7777 | libc::S_IFREG;
                self.created(self.make(node, &new(name, mode, umask, 0, Bytes::new()))?)
            }
            Operation::MakeNode { name, mode, rdev, umask } => {
                let made = self.make(node, &new(name, mode, umask, decode_device(rdev), Bytes::new()))?;
                Ok(Reply::Entry(self.entry(&made, self.attributes(&made)?)))
            }
            Operation::SymbolicLink { name, target } => {
                let made = self.make(node, &new(name, libc::S_IFLNK | 0o777, 0, 0, target))?;
                Ok(Reply::Entry(self.entry(&made, self.attributes(&made)?)))
            }
            Operation::Unlink { name, directory } => {
                self.unlink(node, &name, directory).map(|()| Reply::Empty)
            }
            Operation::Rename { name, new_parent, new_name, flags } => {
                self.rename(node, &name, &self.node(new_parent)?, &new_name, flags).map(|()| Reply::Empty)
            }
            Operation::Link { existing, name } => {
                let existing = self.node(existing)?;
                self.link(&existing, node, &name)?;
                self.engine.nodes.tell(&existing);
                Ok(Reply::Entry(self.entry(&existing, self.attributes(&existing)?)))
            }
            _ => Err(Errno::NOSYS),
        }
    }

    fn make(&self, parent: &Arc<Node>, new: &New) -> Result<Arc<Node>, Errno> {
        let id = requests::made().unwrap_or_else(|| self.engine.nodes.fresh_id());
        let build = || {
            let directory = self.engine.nodes.open_path(parent)?;
            must_not_exist(directory.as_fd(), &new.name)?;
            creation(id, parent, directory.as_fd(), new)
        };
        let keys = Keys::of(&[Key::name(parent.id.0, &new.name), Key::all(id.0)]);
        let excluded = self.engine.nodes.is_excluded(parent, &new.name);
        self.engine.run(&Task { keys, subjects: &[parent], excluded, build: &build })?;
        self.engine.nodes.get(id)
    }

    /// O_TMPFILE: the file is here only, for nobody misses it after a failure; the other node gets it with its name.
    pub(super) fn make_nameless(
        &self,
        parent: &Arc<Node>,
        mode: u32,
        umask: u32,
        (uid, gid): (u32, u32),
    ) -> Result<Reply, Errno> {
        let mode = mode & 0o7777 | libc::S_IFREG;
        let new = New { name: Bytes::new(), mode, umask, uid, gid, rdev: 0, target: Bytes::new() };
        let id = self.engine.nodes.fresh_id();
        let directory = self.engine.nodes.open_path(parent)?;
        self.engine.carry_out_alone(&creation(id, parent, directory.as_fd(), &new)?)?;
        let made = self.engine.nodes.get(id)?;
        let created = self.created(made)?;
        // Now that it is open: without a name it would end with this process.
        self.engine.nodes.pin(id)?;
        Ok(created)
    }

    fn created(&self, made: Arc<Node>) -> Result<Reply, Errno> {
        let file = self.engine.nodes.open_file(&made)?;
        let entry = self.entry(&made, attributes(file.as_fd())?);
        made.lend(&file);
        Ok(Reply::Created { entry, handle: self.keep(file, made, true) })
    }

    fn unlink(&self, parent: &Arc<Node>, name: &Bytes, directory: bool) -> Result<(), Errno> {
        if requests::first_was_done() {
            return self.engine.repeat();
        }
        loop {
            // What the name stands for is needed for the keys, and checked again under them.
            let victim = self.present(parent, name)?;
            let build = || {
                let found = self.find(parent, name)?;
                if found.object != victim.object {
                    return Err(Errno::AGAIN);
                }
                if directory {
                    must_be_empty(found.path.as_fd())?;
                }
                let time = file_time();
                Ok(Op::Unlink { parent: parent.id, name: name.clone(), id: victim.id, directory, time })
            };
            let keys = Keys::name_and(parent.id.0, name, victim.id.0);
            let excluded = self.engine.nodes.is_excluded(parent, name);
            let result = self.engine.run(&Task { keys, subjects: &[parent], excluded, build: &build });
            self.engine.nodes.release(victim);
            if result != Err(Errno::AGAIN) {
                return result;
            }
        }
    }

    fn rename(
        &self,
        parent: &Arc<Node>,
        name: &Bytes,
        new_parent: &Arc<Node>,
        new_name: &Bytes,
        flags: u32,
    ) -> Result<(), Errno> {
        let how = match flags {
            0 => RenameMode::Replace,
            libc::RENAME_NOREPLACE => RenameMode::NoReplace,
            libc::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(Errno::INVAL),
        };
        if requests::first_was_done() {
            return self.engine.repeat();
        }
        let excluded = self.border(parent, name, new_parent, new_name, how)?;
        loop {
            let moved = self.present(parent, name)?;
            let other = match self.present(new_parent, new_name) {
                Ok(node) => Some(node),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(error),
            };
            let build = || {
                let found = self.find(parent, name)?;
                let target = match self.find(new_parent, new_name) {
                    Ok(target) => Some(target),
                    Err(Errno::NOENT) => None,
                    Err(error) => return Err(error),
                };
                if found.object != moved.object
                    || target.as_ref().map(|target| &target.object) != other.as_ref().map(|node| &node.object)
                {
                    return Err(Errno::AGAIN);
                }
                may_rename(how, &found, target.as_ref())?;
                Ok(Op::Rename {
                    parent: parent.id,
                    name: name.clone(),
                    new_parent: new_parent.id,
                    new_name: new_name.clone(),
                    how,
                    id: moved.id,
                    replaced: other.as_ref().map_or(ObjectId::NONE, |node| node.id),
                    time: file_time(),
                })
            };
            let mut keys = Keys::name_and(parent.id.0, name, other.as_ref().map_or(0, |node| node.id.0));
            keys.push(Key::name(new_parent.id.0, new_name));
            keys.push(Key::meta(moved.id.0));
            let subjects = [parent, new_parent];
            let result = self.engine.run(&Task { keys, subjects: &subjects, excluded, build: &build });
            self.engine.nodes.release(moved);
            if let Some(other) = other {
                self.engine.nodes.release(other);
            }
            if result != Err(Errno::AGAIN) {
                return result;
            }
        }
    }

    /// Whether both names are excluded; a rename across the border of what is replicated is refused.
    fn border(
        &self,
        parent: &Arc<Node>,
        name: &Bytes,
        new_parent: &Arc<Node>,
        new_name: &Bytes,
        how: RenameMode,
    ) -> Result<bool, Errno> {
        let nodes = &self.engine.nodes;
        let exclude = &nodes.root_of(parent).exclude;
        if exclude.is_empty() {
            return Ok(false);
        }
        let (from, to) = (nodes.is_excluded(parent, name), nodes.is_excluded(new_parent, new_name));
        if from != to {
            return Err(Errno::XDEV);
        }
        let directory = self.present(parent, name)?.is_directory()
            || (how == RenameMode::Exchange && self.present(new_parent, new_name)?.is_directory());
        let reaches = |dir: &Node, name: &[u8]| exclude.may_match_below(&nodes.joined(dir, name));
        if !from && directory && (reaches(parent, name) || reaches(new_parent, new_name)) {
            return Err(Errno::XDEV);
        }
        Ok(from)
    }

    fn link(&self, existing: &Arc<Node>, parent: &Arc<Node>, name: &Bytes) -> Result<(), Errno> {
        let excluded = self.engine.nodes.is_excluded(parent, name);
        if excluded != existing.excluded {
            return Err(Errno::XDEV);
        }
        let build = || {
            must_not_exist(self.engine.nodes.open_path(parent)?.as_fd(), name)?;
            Ok(Op::Link { id: existing.id, parent: parent.id, name: name.clone(), time: file_time() })
        };
        loop {
            let nameless = self.attributes(existing)?.nlink == 0;
            if nameless && !existing.excluded {
                self.engine.introduce(existing)?;
            }
            // Its first name is also that of what is written to it meanwhile.
            let object = if nameless { Key::all(existing.id.0) } else { Key::meta(existing.id.0) };
            let keys = Keys::of(&[Key::name(parent.id.0, name), object]);
            let subjects = [existing, parent];
            let result = self.engine.run(&Task { keys, subjects: &subjects, excluded, build: &build });
            // It is not known to the other node (any more).
            if result != Err(Errno::AGAIN) {
                return result;
            }
        }
    }

    pub(super) fn find(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Found, Errno> {
        let _lap = self.engine.stopwatch.begin();
        let directory = self.engine.nodes.open_path(parent)?;
        self.engine.nodes.root_of(parent).look_up(directory.as_fd(), name)
    }

    /// The node that a name stands for now; give it back with `release`.
    fn present(&self, parent: &Arc<Node>, name: &Bytes) -> Result<Arc<Node>, Errno> {
        let found = self.find(parent, name)?;
        Ok(self.engine.nodes.remember(found.object, Some((parent, name)), false))
    }
}

/// The operation that makes it: with the mask, or the default ACL, and what a setgid directory gives.
fn creation(id: ObjectId, parent: &Node, directory: BorrowedFd<'_>, new: &New) -> Result<Op, Errno> {
    let above = attributes(directory)?;
    let mut mode = new.mode;
    let inherits = xattr(directory, b"system.posix_acl_default").ok().flatten().is_some();
    if !inherits || mode & libc::S_IFMT == libc::S_IFLNK {
        mode &= !new.umask;
    }
    let mut gid = new.gid;
    if above.mode & libc::S_ISGID != 0 {
        gid = above.gid;
        if mode & libc::S_IFMT == libc::S_IFDIR {
            mode |= libc::S_ISGID;
        }
    }
    Ok(Op::Create {
        id,
        parent: parent.id,
        name: new.name.clone(),
        mode,
        uid: new.uid,
        gid,
        rdev: new.rdev,
        target: new.target.clone(),
        time: file_time(),
    })
}

fn must_not_exist(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn must_be_empty(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(directory, c".", flags, Mode::empty())?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4 << 10];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Err(Errno::NOTEMPTY);
        }
    }
    Ok(())
}

/// What rename(2) would refuse.
fn may_rename(how: RenameMode, source: &Found, target: Option<&Found>) -> Result<(), Errno> {
    let Some(target) = target else {
        return if how == RenameMode::Exchange { Err(Errno::NOENT) } else { Ok(()) };
    };
    match how {
        RenameMode::NoReplace => Err(Errno::EXIST),
        RenameMode::Exchange => Ok(()),
        RenameMode::Replace => match (source.object.kind.is_directory(), target.object.kind.is_directory()) {
            (true, false) => Err(Errno::NOTDIR),
            (false, true) => Err(Errno::ISDIR),
            (true, true) => must_be_empty(target.path.as_fd()),
            (false, false) => Ok(()),
        },
    }
}
