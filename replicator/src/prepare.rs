//! Opens the replicated directories before anything is mounted over them, and refuses what cannot be replicated.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, StatVfsMountFlags, StatxFlags};
use safe_proto::replication::Directory;
use safe_replication::object::{Kind, Object};

use crate::backing::{Backing, Root};
use crate::exclude::Exclude;
use crate::fuse::mount;
use crate::linux::handle::handle_of;

/// Most processes that are looked at.
const PROCESSES: usize = 100_000;
/// Most descriptors of one process.
const DESCRIPTORS: usize = 100_000;

/// Opens all directories.
///
/// # Errors
/// One sentence for people about the first one that cannot be used.
pub fn open(directories: &[Directory]) -> Result<Backing, String> {
    let mut roots = Vec::with_capacity(directories.len());
    for (index, directory) in directories.iter().enumerate() {
        let index = u16::try_from(index).map_err(|_| "too many directories".to_owned())?;
        roots.push(open_one(index, directory)?);
    }
    Ok(Backing { roots: roots.into() })
}

/// The directories as another process had them open: mounted over by now, no path leads to them.
///
/// # Errors
/// One is missing, or cannot be used; one sentence for people.
pub fn adopt(directories: &[Directory], mut opened: BTreeMap<u16, OwnedFd>) -> Result<Backing, String> {
    let mut roots = Vec::with_capacity(directories.len());
    for (index, directory) in directories.iter().enumerate() {
        let index = u16::try_from(index).map_err(|_| "too many directories".to_owned())?;
        let opened = opened.remove(&index).ok_or_else(|| format!("{} was not passed", directory.path))?;
        roots.push(root_of(index, directory, opened)?);
    }
    Ok(Backing { roots: roots.into() })
}

fn open_one(index: u16, directory: &Directory) -> Result<Root, String> {
    let path = PathBuf::from(&directory.path);
    let shown = path.display();
    mount::clear_stale(&path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::NOENT => format!("{shown} does not exist; type: mkdir -p {shown}"),
        rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP => format!("{shown} is not a directory"),
        error => format!("{shown} cannot be opened: {error}"),
    })?;
    let filesystem = rustix::fs::fstatvfs(&opened).map_err(|error| format!("{shown}: {error}"))?;
    if filesystem.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(format!("{shown} is on a read-only filesystem"));
    }
    root_of(index, directory, opened)
}

fn root_of(index: u16, directory: &Directory, opened: OwnedFd) -> Result<Root, String> {
    let path = PathBuf::from(&directory.path);
    let shown = path.display();
    let handle = handle_of(opened.as_fd()).map_err(|error| {
        format!(
            "the filesystem of {shown} cannot name files by handle ({error}); use ext4, xfs, btrfs or tmpfs"
        )
    })?;
    let exclude = Exclude::new(&directory.exclude)?;
    let object = Object { root: index, kind: Kind::Directory, handle };
    let longest = longest_file(opened.as_fd());
    let (ack_disk, write_back) = (directory.ack_disk, directory.write_back);
    Ok(Root { index, path, directory: opened, object, exclude, ack_disk, write_back, longest })
}

/// The filesystem does not say how long a file may become, so a nameless one is stretched. What does not fit must be
/// known before the other node has carried it out. Without nameless files: no limit is known.
fn longest_file(directory: BorrowedFd<'_>) -> u64 {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(directory, c".", flags, Mode::RUSR | Mode::WUSR) else {
        return u64::MAX;
    };
    let fits = |length: u64| rustix::fs::ftruncate(&file, length) != Err(rustix::io::Errno::FBIG);
    let most = i64::MAX.cast_unsigned();
    if fits(most) {
        return most;
    }
    let (mut short, mut long) = (0, most);
    while long - short > 1 {
        let middle = short + (long - short) / 2;
        if fits(middle) { short = middle } else { long = middle }
    }
    short
}

/// Nothing uses the directories, and nothing is mounted beneath them.
///
/// # Errors
/// One sentence for people.
pub fn must_be_free(backing: &Backing) -> Result<(), String> {
    let mounts = mount::mounts().map_err(|error| format!("cannot read /proc/self/mountinfo: {error}"))?;
    for root in backing.roots.iter() {
        let beneath =
            mounts.iter().find(|line| line.point != root.path && line.point.starts_with(&root.path));
        if let Some(line) = beneath {
            let (path, point) = (root.path.display(), line.point.display());
            return Err(format!("{point} is mounted beneath {path}; type: umount {point}"));
        }
    }
    let paths: Arc<[&Path]> = backing.roots.iter().map(|root| root.path.as_path()).collect();
    // Who reads through the cover of a directory that is not served changes nothing, and keeps nobody from serving it.
    let covers = mounts.iter().filter(|line| line.read_only && paths.contains(&line.point.as_path()));
    let covers: Vec<u64> = covers.map(|line| line.id).collect();
    match user(&paths, &covers) {
        Some((pid, name, path)) => {
            Err(format!("process {pid} ({name}) uses {}; end it first", path.display()))
        }
        None => Ok(()),
    }
}

/// The first process found that has anything below the paths open, mapped or as its directory.
fn user(paths: &[&Path], covers: &[u64]) -> Option<(u32, String, PathBuf)> {
    let own = std::process::id();
    for entry in std::fs::read_dir("/proc").ok()?.flatten().take(PROCESSES) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == own {
            continue;
        }
        if let Some(path) = used_by(pid, paths, covers) {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned(), path));
        }
    }
    None
}

fn used_by(pid: u32, paths: &[&Path], covers: &[u64]) -> Option<PathBuf> {
    let below = |path: PathBuf| paths.iter().any(|root| path.starts_with(root)).then_some(path);
    for link in ["cwd", "root"] {
        let link = format!("/proc/{pid}/{link}");
        // A root that is "/" is everybody's.
        if let Some(found) = std::fs::read_link(&link).ok().and_then(below)
            && !stands_on(&link, covers)
        {
            return Some(found);
        }
    }
    if let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) {
        for descriptor in descriptors.flatten().take(DESCRIPTORS) {
            if let Some(found) = std::fs::read_link(descriptor.path()).ok().and_then(below)
                && !stands_on(descriptor.path(), covers)
            {
                return Some(found);
            }
        }
    }
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    maps.lines()
        .filter_map(|line| line.split_once('/'))
        .find_map(|(_, path)| below(PathBuf::from(format!("/{path}"))))
}

/// What this link of /proc leads to was reached through one of these mounts.
fn stands_on(link: impl rustix::path::Arg, mounts: &[u64]) -> bool {
    if mounts.is_empty() {
        return false;
    }
    let stat = rustix::fs::statx(rustix::fs::CWD, link, AtFlags::empty(), StatxFlags::MNT_ID);
    stat.is_ok_and(|stat| stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 && mounts.contains(&stat.stx_mnt_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &Path) -> Directory {
        Directory {
            path: path.display().to_string(),
            exclude: Vec::new(),
            ack_disk: false,
            write_back: false,
        }
    }

    #[test]
    fn what_is_no_directory_is_refused_with_what_to_type() {
        let place = tempfile::tempdir().expect("a directory");
        let missing = open(&[directory(&place.path().join("missing"))]).expect_err("missing");
        assert!(missing.contains("mkdir -p"), "{missing}");
        std::fs::write(place.path().join("file"), "").expect("write");
        let file = open(&[directory(&place.path().join("file"))]).expect_err("a file");
        assert!(file.contains("not a directory"), "{file}");
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let place = tempfile::tempdir().expect("a directory");
        let backing = open(&[directory(place.path())]).expect("usable");
        must_be_free(&backing).expect("free");
        let mut child =
            std::process::Command::new("sleep").arg("60").current_dir(place.path()).spawn().expect("sleep");
        let refused = must_be_free(&backing).expect_err("in use");
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(refused.contains("sleep"), "{refused}");
    }
}
