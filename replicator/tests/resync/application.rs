//! An application whose operations are decided as the replicator decides them: on both directories while the object is
//! clean, else alone and marked.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags, XattrFlags};
use safe_replication::dirty::{Change, Object};
use safe_replicator::backing::kind_of;
use safe_replicator::knowledge::Knowledge;
use safe_replicator::linux::handle::handle_of;

use crate::pair::Pair;
use crate::random::{Random, set_mtime, walk};

/// Paths are relative to the roots.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Write(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    Create(PathBuf),
    Mkdir(PathBuf),
    Symlink(PathBuf),
    Link(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    Rmdir(PathBuf),
    Chmod(PathBuf, u32),
    SetXattr(PathBuf, Vec<u8>),
}

/// Runs acts on a pair.
pub(crate) struct Application<'p> {
    pair: &'p Pair,
    time: AtomicI64,
    /// Acts that were done on both sides.
    pub(crate) synchronous: AtomicU64,
    pub(crate) alone: AtomicU64,
}

impl<'p> Application<'p> {
    pub(crate) const fn new(pair: &'p Pair) -> Self {
        let (synchronous, alone) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { pair, time: AtomicI64::new(2_000_000_000), synchronous, alone }
    }

    /// Does it if it can be done. `session`: the peer can be written to.
    pub(crate) fn act(&self, knowledge: &Knowledge, act: &Act, session: bool) -> bool {
        let link = &self.pair.link;
        link.waiting.fetch_add(1, Ordering::SeqCst);
        let _everything = link.everything.read();
        let _keys = link.keys.lock();
        link.waiting.fetch_sub(1, Ordering::SeqCst);
        let Some(changes) = self.changes(act) else { return false };
        let time = self.time.fetch_add(1, Ordering::SeqCst);
        if session && !knowledge.is_dirty(&changes) {
            self.synchronous.fetch_add(1, Ordering::SeqCst);
            apply(&self.pair.target, act, time)
                .unwrap_or_else(|error| panic!("{act:?} on the target: {error}"));
        } else {
            self.alone.fetch_add(1, Ordering::SeqCst);
            knowledge.mark(&changes).unwrap();
        }
        apply(&self.pair.source, act, time).unwrap_or_else(|error| panic!("{act:?} on the source: {error}"));
        true
    }

    /// What to mark; none: it cannot be done now.
    fn changes(&self, act: &Act) -> Option<Vec<Change>> {
        let base = &self.pair.source;
        let free = |path: &Path| base.join(path).symlink_metadata().is_err();
        let name = |path: &Path, deep: bool| {
            let dir = object(base.join(path).parent()?)?;
            dir.kind.is_directory().then_some(())?;
            Some(Change::Name { dir, name: path.file_name()?.as_bytes().into(), deep })
        };
        let place = |path: &Path, object: Object| {
            let dir = crate::application::object(base.join(path).parent()?)?;
            Some(Change::Place { object, dir, name: path.file_name()?.as_bytes().into() })
        };
        let file = |path: &Path| {
            let found = object(&base.join(path))?;
            base.join(path).symlink_metadata().ok()?.is_file().then_some(found)
        };
        Some(match act {
            Act::Write(path, offset, data) => {
                let object = file(path)?;
                let change = Change::Data { object: object.clone(), offset: *offset, len: data.len() as u64 };
                vec![place(path, object)?, change]
            }
            Act::Truncate(path, size) => {
                let object = file(path)?;
                let now = base.join(path).symlink_metadata().ok()?.len();
                vec![place(path, object.clone())?, Change::data_from(object, now.min(*size))]
            }
            Act::Create(path) | Act::Symlink(path) if free(path) => vec![name(path, false)?],
            Act::Mkdir(path) if free(path) => vec![name(path, true)?],
            Act::Link(from, to) if free(to) => {
                let object = file(from)?;
                vec![name(to, false)?, place(to, object)?]
            }
            Act::Rename(from, to) => self.rename(from, to, &name, &place)?,
            Act::Unlink(path) if !base.join(path).symlink_metadata().ok()?.is_dir() => {
                vec![name(path, false)?]
            }
            Act::Rmdir(path) if fs::read_dir(base.join(path)).ok()?.next().is_none() => {
                vec![name(path, true)?]
            }
            Act::Chmod(path, _) | Act::SetXattr(path, _) => {
                let meta = base.join(path).symlink_metadata().ok()?;
                let object = object(&base.join(path))?;
                (meta.is_dir() || meta.is_file()).then_some(())?;
                vec![Change::Meta { object: object.clone() }, place(path, object)?]
            }
            Act::Create(_)
            | Act::Symlink(_)
            | Act::Mkdir(_)
            | Act::Link(..)
            | Act::Unlink(_)
            | Act::Rmdir(_) => {
                return None;
            }
        })
    }

    fn rename(
        &self,
        from: &Path,
        to: &Path,
        name: &dyn Fn(&Path, bool) -> Option<Change>,
        place: &dyn Fn(&Path, Object) -> Option<Change>,
    ) -> Option<Vec<Change>> {
        let base = &self.pair.source;
        let (moved, replaced) =
            (base.join(from).symlink_metadata().ok()?, base.join(to).symlink_metadata().ok());
        let fits = replaced.is_none_or(|replaced| {
            replaced.is_dir() == moved.is_dir()
                && (!replaced.is_dir()
                    || fs::read_dir(base.join(to)).is_ok_and(|mut dir| dir.next().is_none()))
        });
        (fits && from != to && !to.starts_with(from) && !from.starts_with(to)).then_some(())?;
        let (deep, object) = (moved.is_dir(), object(&base.join(from))?);
        let mut changes = vec![name(from, deep)?, name(to, deep)?];
        if !deep {
            changes.push(place(to, object)?);
        }
        Some(changes)
    }
}

/// The object at a path.
pub(crate) fn object(path: &Path) -> Option<Object> {
    let open =
        rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mode = rustix::fs::fstat(&open).ok()?.st_mode;
    Some(Object::new(0, kind_of(mode).ok()?, &handle_of(open.as_fd()).ok()?))
}

fn apply(base: &Path, act: &Act, time: i64) -> std::io::Result<()> {
    let at = |path: &Path| base.join(path);
    let parent = |path: &Path| set_mtime(base.join(path).parent().unwrap(), time, 1);
    match act {
        Act::Write(path, offset, data) => {
            fs::OpenOptions::new().write(true).open(at(path))?.write_all_at(data, *offset)?;
            set_mtime(&at(path), time, 2);
        }
        Act::Truncate(path, size) => {
            fs::OpenOptions::new().write(true).open(at(path))?.set_len(*size)?;
            set_mtime(&at(path), time, 3);
        }
        Act::Create(path) => {
            drop(fs::OpenOptions::new().write(true).create_new(true).open(at(path))?);
            set_mtime(&at(path), time, 4);
            parent(path);
        }
        Act::Mkdir(path) => {
            fs::create_dir(at(path))?;
            set_mtime(&at(path), time, 5);
            parent(path);
        }
        Act::Symlink(path) => {
            symlink("somewhere", at(path))?;
            set_mtime(&at(path), time, 6);
            parent(path);
        }
        Act::Link(from, to) => {
            fs::hard_link(at(from), at(to))?;
            parent(to);
        }
        Act::Rename(from, to) => {
            // Two names of one inode stay as they are.
            fs::rename(at(from), at(to))?;
            parent(from);
            parent(to);
        }
        Act::Unlink(path) => {
            fs::remove_file(at(path))?;
            parent(path);
        }
        Act::Rmdir(path) => {
            fs::remove_dir(at(path))?;
            parent(path);
        }
        Act::Chmod(path, mode) => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))?,
        Act::SetXattr(path, value) => {
            let name = CString::new("user.act").unwrap();
            rustix::fs::lsetxattr(at(path), name, value, XattrFlags::empty())?;
        }
    }
    Ok(())
}

/// As [`any_act`], mostly of those that let an object be found elsewhere than it was: links, and renames over others and of
/// directories.
pub(crate) fn moving_act(base: &Path, random: &mut Random) -> Act {
    loop {
        let act = any_act(base, random);
        match act {
            Act::Link(..) | Act::Rename(..) | Act::Unlink(_) => return act,
            _ if random.chance(3) => return act,
            _ => {}
        }
    }
}

/// An act that may or may not be possible.
pub(crate) fn any_act(base: &Path, random: &mut Random) -> Act {
    let all = walk(base);
    let relative = |path: &Path| path.strip_prefix(base).unwrap().to_path_buf();
    let mut some = |directory: bool| {
        let fitting: Vec<&PathBuf> =
            all.iter().filter(|(_, dir)| *dir == directory).map(|(path, _)| path).collect();
        random.pick(&fitting).map(|path| relative(path)).unwrap_or_default()
    };
    let (file, other, dir, other_dir) = (some(false), some(false), some(true), some(true));
    let new = if random.chance(3) { random.name() } else { dir.join(random.name()) };
    // A tree that does not grow for ever.
    let choice = if all.len() > 250 && random.chance(2) { 18 + random.below(3) } else { random.below(24) };
    match choice {
        0..=5 => {
            let offset = [0, 100, 4096, 70_000, 1 << 20][random.below(5) as usize];
            let len = [1, 50, 4096, 150_000][random.below(4) as usize];
            Act::Write(file, offset, random.bytes(len))
        }
        6 => Act::Truncate(file, [0, 10, 5000, 300_000][random.below(4) as usize]),
        7..=10 => Act::Create(new),
        11..=12 => Act::Mkdir(new),
        13 => Act::Symlink(new),
        14 => Act::Link(file, new),
        15..=16 => Act::Rename(file, if random.chance(2) { other } else { new }),
        17 => Act::Rename(other_dir, if random.chance(3) { dir } else { new }),
        18..=19 => Act::Unlink(file),
        20 => Act::Rmdir(dir),
        21 => Act::Chmod(
            if random.chance(2) { file } else { dir },
            [0o600, 0o755, 0o4711][random.below(3) as usize],
        ),
        _ => Act::SetXattr(if random.chance(2) { file } else { dir }, random.bytes(8)),
    }
}
