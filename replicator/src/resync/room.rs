//! Room on the target, before anything is changed there. First both compare what is known without reading the trees; only
//! if that does not settle it, each counts its tree.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use safe_replication::dirty::{Change, DirtySet};
use safe_replication::room::{Free, Load, What, fits, lack};

use super::answer::Target;
use super::link::{Answer, Leave, Query};
use super::{Plan, Resync, Step, Trouble};
use crate::archive::human;
use crate::backing::{Backing, Root, open_name};
use crate::clock::Boottime;
use crate::linux::filesystem::{Kind, kind_of};

/// Longest time to count a tree: what cannot be counted in it is not in the way of a resync.
const PATIENCE: Duration = Duration::from_secs(12);

/// Marks that are looked at one by one.
const MARKS: usize = 10_000;

/// Asks the target for leave to change it; the source's part.
pub(super) fn ask(resync: &Resync<'_>, plan: Plan) -> Step<()> {
    let marks = (plan != Plan::Full).then(|| resync.knowledge.snapshot());
    let most: Vec<Load> = resync.backing.roots.iter().map(|root| most(root, marks.as_ref())).collect();
    let mut least = Vec::new();
    loop {
        let counted = !least.is_empty();
        let query = Query::Room { most: most.clone(), least: std::mem::take(&mut least) };
        match resync.link.query(query)? {
            Answer::Room(Leave::Begin) => return Ok(()),
            Answer::Room(Leave::Refused(why)) => return Err(Trouble::Failed(why)),
            Answer::Room(Leave::Count) if !counted => {
                least = count_all(resync.backing, least_of, &|| resync.not_stopped().is_err())
                    .unwrap_or_else(|| vec![Load::default(); most.len()]);
                resync.not_stopped()?;
            }
            Answer::Room(Leave::Count)
            | Answer::Entries { .. }
            | Answer::Digests(_)
            | Answer::Xattrs(_)
            | Answer::InFlight { .. } => return Err(super::page::unexpected()),
        }
    }
}

/// Answers it; the target's part.
pub(super) fn answer(target: &dyn Target, most: &[Load], least: &[Load]) -> Result<Answer, Errno> {
    let Some(untouched) = target.untouched().filter(|untouched| !untouched.is_open()) else {
        return Ok(Answer::Room(Leave::Begin));
    };
    let backing = target.backing();
    let free = backing.roots.iter().map(free).collect::<Result<Vec<_>, _>>()?;
    let roots = free.len();
    if most.len() != roots || !(least.is_empty() || least.len() == roots) {
        return Err(Errno::INVAL);
    }
    if !fits(most, &free) {
        if least.is_empty() {
            return Ok(Answer::Room(Leave::Count));
        }
        if let Some(why) = refusal(backing, least, &free) {
            untouched.refuse(why.clone());
            return Ok(Answer::Room(Leave::Refused(why)));
        }
    }
    untouched.ask().map(|()| Answer::Room(Leave::Begin))
}

/// Why it cannot fit.
fn refusal(backing: &Backing, least: &[Load], free: &[Free]) -> Option<String> {
    // Without what this copy holds it may look too large, never too small.
    lack(least, &[], free)?;
    let held = count_all(backing, held_of, &|| false)?;
    let lack = lack(least, &held, free)?;
    let path = backing.roots[lack.root].path.display();
    Some(match lack.what {
        What::Bytes => {
            format!(
                "{path} lacks space: {} more are needed, {} are free",
                human(lack.needed),
                human(lack.free)
            )
        }
        What::Files => {
            format!("{path} lacks inodes: {} more are needed, {} are free", lack.needed, lack.free)
        }
    })
}

/// What root can use there.
fn free(root: &Root) -> Result<Free, Errno> {
    let device = stat(root)?;
    let device = u64::from(device.stx_dev_major) << 32 | u64::from(device.stx_dev_minor);
    let s = rustix::fs::fstatvfs(&root.directory)?;
    // Elsewhere content may take less than its length: compressed, or once for several files.
    let kind = kind_of(root.directory.as_fd())?;
    let bytes = (kind != Kind::Other).then(|| s.f_bfree.saturating_mul(s.f_frsize));
    // XFS counts those that it could make of the space that is free now.
    let fixed = kind == Kind::Plain && s.f_files > 0;
    Ok(Free { device, bytes, files: fixed.then_some(s.f_ffree) })
}

fn stat(root: &Root) -> Result<Statx, Errno> {
    rustix::fs::statx(&root.directory, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

/// No more than this comes, as far as is known without reading the tree: what is marked, or all that is on the disk.
fn most(root: &Root, marks: Option<&DirtySet>) -> Load {
    marks.and_then(|marks| marked(root, marks)).unwrap_or_else(|| {
        match rustix::fs::fstatvfs(&root.directory) {
            Ok(s) => Load {
                bytes: s.f_blocks.saturating_sub(s.f_bfree).saturating_mul(s.f_frsize),
                files: s.f_files.saturating_sub(s.f_ffree),
            },
            Err(_) => Load { bytes: u64::MAX, files: u64::MAX },
        }
    })
}

/// What is marked; none: that would have to be counted as well.
fn marked(root: &Root, set: &DirtySet) -> Option<Load> {
    if set.is_everything() {
        return None;
    }
    let mut load = Load::default();
    for (number, change) in set.changes().enumerate() {
        if number == MARKS {
            return None;
        }
        if change.object().is_some_and(|object| object.root != root.index) {
            continue;
        }
        load = load.with(match change {
            Change::Data { object, offset, len } => {
                let size = root.open_path(&object).and_then(|file| crate::backing::attributes(file.as_fd()));
                let size = size.map_or(0, |now| now.size);
                Load { bytes: len.min(size.saturating_sub(offset)).next_multiple_of(4096), files: 0 }
            }
            Change::Name { dir, name, .. } => of_name(root, &dir, &name)?,
            Change::Meta { .. } | Change::Place { .. } => Load::default(),
            Change::Names { .. } | Change::Tree { .. } | Change::Everything => return None,
        });
    }
    Some(load)
}

fn of_name(root: &Root, dir: &safe_replication::dirty::Object, name: &[u8]) -> Option<Load> {
    let Ok(dir) = root.open_path(dir) else { return Some(Load::default()) };
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(&dir, name, flags, StatxFlags::BASIC_STATS) {
        Ok(stat) if is_directory(&stat) => None,
        Ok(stat) => Some(held_of(&stat, &|| None)),
        Err(_) => Some(Load::default()),
    }
}

/// How a tree is counted: by what is known of a file without reading it, and, if that is asked for, how much data it has.
type Count = fn(&Statx, &dyn Fn() -> Option<u64>) -> Load;

/// From this size on it is looked at how much of a file is data: what is only reserved is not reserved on the target.
const LOOK_INTO: u64 = 1 << 20;

/// Pieces of data of one file that are counted; what is behind them is left out.
const PIECES: usize = 4096;

/// At least this is taken for it on every filesystem that stores what is written: each name of several of one inode has
/// its share.
fn least_of(stat: &Statx, data: &dyn Fn() -> Option<u64>) -> Load {
    let links = u64::from(stat.stx_nlink.max(1));
    let regular = FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::RegularFile;
    let stored = if regular { stat.stx_size.min(stat.stx_blocks.saturating_mul(512)) } else { 0 };
    let stored = if stored >= LOOK_INTO { stored.min(data().unwrap_or(0)) } else { stored };
    Load { bytes: stored / links, files: u64::from(links == 1 || is_directory(stat)) }
}

/// No more than this is taken for it here.
fn held_of(stat: &Statx, _: &dyn Fn() -> Option<u64>) -> Load {
    Load { bytes: stat.stx_blocks.saturating_mul(512), files: 1 }
}

/// Bytes of data of a file; none: it cannot be read.
fn data_of(directory: &OwnedFd, name: &std::ffi::CStr) -> Option<u64> {
    let file = open_name(directory.as_fd(), name.to_bytes(), OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    let (mut bytes, mut at) = (0, 0);
    for _ in 0..PIECES {
        let Some(data) = super::local::next_data(file.as_fd(), at).ok()? else { break };
        at = super::local::next_hole(file.as_fd(), data).ok()?;
        bytes += at.saturating_sub(data);
    }
    Some(bytes)
}

fn is_directory(stat: &Statx) -> bool {
    FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory
}

/// Counts every directory; none: it was told to stop, took too long, or a directory cannot be read.
fn count_all(backing: &Backing, of: Count, stop: &dyn Fn() -> bool) -> Option<Vec<Load>> {
    let begun = Boottime::now();
    let stop = || stop() || begun.elapsed() >= PATIENCE;
    backing.roots.iter().map(|root| count(root, of, &stop).ok()).collect()
}

/// A directory that is still to be read. What waits in one directory shares its descriptor, so that few are open.
struct Below {
    above: Arc<OwnedFd>,
    path: Vec<Bytes>,
}

fn count(root: &Root, of: Count, stop: &dyn Fn() -> bool) -> Result<Load, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(&root.directory, c".", flags, Mode::empty())?;
    let mut load = of(&stat(root)?, &|| None);
    let (mut left, counting) = (Vec::new(), (of, stop));
    list(root, Arc::new(top), &[], &counting, &mut load, &mut left)?;
    while let Some(Below { above, path }) = left.pop() {
        if stop() {
            return Err(Errno::CANCELED);
        }
        let name = path.last().ok_or(Errno::INVAL)?;
        match open_name(above.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(open) => list(root, Arc::new(open), &path, &counting, &mut load, &mut left)?,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(load)
}

fn list(
    root: &Root,
    open: Arc<OwnedFd>,
    path: &[Bytes],
    (of, stop): &(Count, &dyn Fn() -> bool),
    load: &mut Load,
    left: &mut Vec<Below>,
) -> Result<(), Errno> {
    let mut buffer = Vec::with_capacity(1 << 15);
    let mut entries = RawDir::new(open.as_fd(), buffer.spare_capacity_mut());
    let mut seen = 0_u32;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        seen += 1;
        if seen.is_multiple_of(256) && stop() {
            return Err(Errno::CANCELED);
        }
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || root.excludes(path, name.to_bytes()) {
            continue;
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = match rustix::fs::statx(&open, name, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            continue;
        }
        *load = load.with(of(&stat, &|| data_of(&open, name)));
        if is_directory(&stat) {
            let name = Bytes::copy_from_slice(name.to_bytes());
            left.push(Below { above: Arc::clone(&open), path: [path, &[name]].concat() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use rustix::fs::FallocateFlags;
    use safe_proto::replication::Directory;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_counted_brackets_what_is_there() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("tree");
        fs::create_dir_all(path.join("below")).expect("made");
        // One inode, so often as it has names.
        fs::write(path.join("first"), vec![7; 3 << 20]).expect("written");
        for number in 0..9 {
            fs::hard_link(path.join("first"), path.join(format!("below/{number}"))).expect("linked");
        }
        // Nothing is behind a hole, and nothing has to be behind what is only reserved.
        File::create(path.join("hole")).and_then(|file| file.set_len(1 << 40)).expect("made");
        let reserved = File::create(path.join("reserved")).expect("made");
        let reserved = rustix::fs::fallocate(&reserved, FallocateFlags::KEEP_SIZE, 0, 8 << 20);
        // Nor behind what is reserved as part of the file, which the target gets as a hole.
        let within = File::create(path.join("within")).expect("made");
        let within = rustix::fs::fallocate(&within, FallocateFlags::empty(), 0, 6 << 20);
        fs::write(path.join("left.out"), vec![7; 5 << 20]).expect("written");
        let (path, exclude) = (path.display().to_string(), vec!["*.out".to_owned()]);
        let directory = Directory { path, exclude, ack_disk: false, write_back: false };
        let backing = crate::prepare::open(&[directory]).expect("usable");
        let never = || false;
        let least = count_all(&backing, least_of, &never).expect("counted")[0];
        assert!(least.bytes <= 3 * MIB && least.bytes > 3 * MIB - 4096, "{least:?}");
        // The root, a directory, three files; not those with several names.
        assert_eq!(least.files, 5);
        let held = count_all(&backing, held_of, &never).expect("counted")[0];
        let there =
            3 * MIB + if reserved.is_ok() { 8 * MIB } else { 0 } + if within.is_ok() { 6 * MIB } else { 0 };
        assert!(held.bytes >= there && held.files >= 6, "{held:?}");
        assert_eq!(count_all(&backing, least_of, &|| true), None, "told to stop");
    }
}
