//! The tree in memory: the simplest filesystem that says the same.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::step::{How, NOWHERE, Names, Step, key, path};

type Outcome = Result<(), i32>;
type Inode = usize;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    File(Vec<u8>),
    Directory(BTreeMap<u8, Inode>),
    Symlink,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Object {
    kind: Kind,
    mode: u32,
    attributes: BTreeMap<u8, u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Tree(Vec<Object>);

const TOP: Inode = 0;

impl Tree {
    pub(crate) fn new() -> Self {
        Self(vec![Object::new(Kind::Directory(BTreeMap::new()), 0o755)])
    }

    fn names(&self, directory: Inode) -> Result<&BTreeMap<u8, Inode>, i32> {
        match &self.0[directory].kind {
            Kind::Directory(names) => Ok(names),
            Kind::File(_) => Err(libc::ENOTDIR),
            // It leads nowhere.
            Kind::Symlink => Err(libc::ENOENT),
        }
    }

    fn names_mut(&mut self, directory: Inode) -> &mut BTreeMap<u8, Inode> {
        match &mut self.0[directory].kind {
            Kind::Directory(names) => names,
            Kind::File(_) | Kind::Symlink => panic!("not a directory"),
        }
    }

    /// The directory that the last name is in, and that name.
    fn parent(&self, names: &Names) -> Result<(Inode, u8), i32> {
        let (last, above) = names.split_last().unwrap();
        let mut at = TOP;
        for name in above {
            at = *self.names(at)?.get(name).ok_or(libc::ENOENT)?;
        }
        self.names(at)?;
        Ok((at, *last))
    }

    fn find(&self, names: &Names) -> Result<Inode, i32> {
        let (directory, last) = self.parent(names)?;
        self.names(directory)?.get(&last).copied().ok_or(libc::ENOENT)
    }

    fn is_directory(&self, inode: Inode) -> bool {
        matches!(self.0[inode].kind, Kind::Directory(_))
    }

    fn make(&mut self, names: &Names, kind: Kind, mode: u32) -> Outcome {
        let (directory, last) = self.parent(names)?;
        if self.names(directory)?.contains_key(&last) {
            return Err(libc::EEXIST);
        }
        self.0.push(Object::new(kind, mode));
        let inode = self.0.len() - 1;
        self.names_mut(directory).insert(last, inode);
        Ok(())
    }

    /// The content of a regular file that is opened for writing.
    fn content(&mut self, names: &Names) -> Result<&mut Vec<u8>, i32> {
        let inode = self.find(names)?;
        match &mut self.0[inode].kind {
            Kind::File(content) => Ok(content),
            Kind::Directory(_) => Err(libc::EISDIR),
            Kind::Symlink => Err(libc::ELOOP),
        }
    }

    /// What the step does, and how it ends.
    pub(crate) fn apply(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Create(names) => self.make(names, Kind::File(Vec::new()), 0o644),
            Step::Temporary(names, fill) => {
                self.make(names, Kind::File(vec![*fill; usize::from(*fill)]), 0o666 & !0o022)
            }
            Step::Mkdir(names) => self.make(names, Kind::Directory(BTreeMap::new()), 0o755),
            Step::Symlink(names) => self.make(names, Kind::Symlink, 0o777),
            Step::Write(names, offset, length, fill) => {
                write(self.content(names)?, *offset as usize, &vec![*fill; *length as usize]);
                Ok(())
            }
            Step::Append(names, length, fill) => {
                let content = self.content(names)?;
                content.resize(content.len() + *length as usize, *fill);
                Ok(())
            }
            Step::Truncate(names, size) => {
                self.content(names)?.resize(*size as usize, 0);
                Ok(())
            }
            Step::Punch(names, offset, length) => {
                let content = self.content(names)?;
                let end = (*offset + *length) as usize;
                let range = (*offset as usize).min(content.len())..end.min(content.len());
                content[range].fill(0);
                Ok(())
            }
            Step::Copy(from, to, offset, length) => self.copy(from, to, *offset as usize, *length as usize),
            Step::Unlink(names) => self.unlink(names),
            Step::Rmdir(names) => self.rmdir(names),
            Step::Rename(from, to, how) => self.rename(from, to, *how),
            Step::Link(from, to) => self.link(from, to),
            Step::Chmod(names, mode) => {
                let inode = self.find(names)?;
                if self.0[inode].kind == Kind::Symlink {
                    return Err(libc::ENOENT);
                }
                self.0[inode].mode = *mode;
                Ok(())
            }
            Step::SetXattr(names, name, value) => {
                self.attributes(names)?.insert(*name, *value);
                Ok(())
            }
            Step::RemoveXattr(names, name) => {
                self.attributes(names)?.remove(name).map(drop).ok_or(libc::ENODATA)
            }
            Step::Sync(names) => self.content(names).map(drop),
        }
    }

    fn attributes(&mut self, names: &Names) -> Result<&mut BTreeMap<u8, u8>, i32> {
        let inode = self.find(names)?;
        let object = &mut self.0[inode];
        if object.kind == Kind::Symlink { Err(libc::EPERM) } else { Ok(&mut object.attributes) }
    }

    fn copy(&mut self, from: &Names, to: &Names, offset: usize, length: usize) -> Outcome {
        let content = self.content(from)?.clone();
        self.content(to)?;
        let end = (offset + length).min(content.len());
        if offset < end {
            if self.find(from)? == self.find(to)? {
                // The range overlaps with itself; beyond the end there is none.
                return Err(libc::EINVAL);
            }
            write(self.content(to)?, offset, &content[offset..end]);
        }
        Ok(())
    }

    fn unlink(&mut self, names: &Names) -> Outcome {
        let inode = self.find(names)?;
        if self.is_directory(inode) {
            return Err(libc::EISDIR);
        }
        let (directory, last) = self.parent(names)?;
        self.names_mut(directory).remove(&last);
        Ok(())
    }

    fn rmdir(&mut self, names: &Names) -> Outcome {
        let inode = self.find(names)?;
        if !self.is_directory(inode) {
            return Err(libc::ENOTDIR);
        }
        if !self.names(inode)?.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        let (directory, last) = self.parent(names)?;
        self.names_mut(directory).remove(&last);
        Ok(())
    }

    fn link(&mut self, from: &Names, to: &Names) -> Outcome {
        let inode = self.find(from)?;
        let (directory, last) = self.parent(to)?;
        if self.names(directory)?.contains_key(&last) {
            return Err(libc::EEXIST);
        }
        if self.is_directory(inode) {
            return Err(libc::EPERM);
        }
        self.names_mut(directory).insert(last, inode);
        Ok(())
    }

    /// Whether a directory is, or lies below, another one.
    fn is_below(&self, inside: Inode, outside: Inode) -> bool {
        inside == outside
            || self.names(outside).is_ok_and(|names| names.values().any(|next| self.is_below(inside, *next)))
    }

    fn rename(&mut self, from: &Names, to: &Names, how: How) -> Outcome {
        let ((old, old_name), (new, new_name)) = (self.parent(from)?, self.parent(to)?);
        let moved = *self.names(old)?.get(&old_name).ok_or(libc::ENOENT)?;
        let target = self.names(new)?.get(&new_name).copied();
        match (how, target) {
            (How::NoReplace, Some(_)) => return Err(libc::EEXIST),
            (How::Exchange, None) => return Err(libc::ENOENT),
            _ => {}
        }
        if self.is_below(new, moved) {
            return Err(libc::EINVAL);
        }
        if let Some(target) = target {
            if target != moved && self.is_below(old, target) {
                return Err(if how == How::Exchange { libc::EINVAL } else { libc::ENOTEMPTY });
            }
            if target == moved {
                return Ok(());
            }
            if how == How::Exchange {
                self.names_mut(old).insert(old_name, target);
                self.names_mut(new).insert(new_name, moved);
                return Ok(());
            }
            match (self.is_directory(moved), self.is_directory(target)) {
                (true, false) => return Err(libc::ENOTDIR),
                (false, true) => return Err(libc::EISDIR),
                (true, true) if !self.names(target)?.is_empty() => return Err(libc::ENOTEMPTY),
                _ => {}
            }
        }
        self.names_mut(old).remove(&old_name);
        self.names_mut(new).insert(new_name, moved);
        Ok(())
    }

    /// The same names, types, content, permissions, attributes and links beneath a directory; else the first difference.
    pub(crate) fn compare(&self, base: &Path) -> Result<(), String> {
        let mut found: BTreeMap<Inode, u64> = BTreeMap::new();
        let mut left: Vec<(Names, Inode)> = vec![(Vec::new(), TOP)];
        while let Some((names, inode)) = left.pop() {
            let at = path(base, &names);
            let seen = self.compare_object(&at, inode).map_err(|what| format!("{}: {what}", at.display()))?;
            if *found.entry(inode).or_insert(seen) != seen {
                return Err(format!("{} is another file", at.display()));
            }
            if let Kind::Directory(below) = &self.0[inode].kind {
                if std::fs::read_dir(&at).unwrap().count() != below.len() {
                    return Err(format!("{} has more names", at.display()));
                }
                left.extend(below.iter().map(|(name, inode)| ([&names[..], &[*name]].concat(), *inode)));
            }
        }
        Ok(())
    }

    /// Its inode number there, or what differs.
    fn compare_object(&self, at: &Path, inode: Inode) -> Result<u64, &'static str> {
        let object = &self.0[inode];
        let Ok(there) = at.symlink_metadata() else { return Err("is not there") };
        let same = match &object.kind {
            Kind::File(content) => there.is_file() && std::fs::read(at).unwrap() == *content,
            Kind::Directory(_) => there.is_dir(),
            Kind::Symlink => there.is_symlink() && std::fs::read_link(at).unwrap() == Path::new(NOWHERE),
        };
        if !same {
            return Err("has another type or content");
        }
        if object.kind == Kind::Symlink {
            return Ok(there.ino());
        }
        if there.mode() & 0o7777 != object.mode {
            return Err("has other permissions");
        }
        for name in 0..3 {
            let mut value = [0; 8];
            let found =
                rustix::fs::lgetxattr(at, key(name), &mut value).ok().map(|length| value[..length].to_vec());
            if found != object.attributes.get(&name).map(|value| vec![*value]) {
                return Err("has other attributes");
            }
        }
        Ok(there.ino())
    }
}

impl Object {
    const fn new(kind: Kind, mode: u32) -> Self {
        Self { kind, mode, attributes: BTreeMap::new() }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}
