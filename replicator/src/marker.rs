//! The mark on each replicated directory that binds its files to a lineage: the extended attribute
//! `trusted.safed.root`. It is hidden in the mount and never replicated; a directory that was copied, replaced, rolled
//! back or is not mounted does not carry the right one.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, XattrFlags};
use rustix::io::Errno;

use crate::backing::MARKER;
use crate::linux::handle::handle_of;
use content::Content;
pub use generation::Generation;

mod content;
mod generation;
mod linux;

/// Condition of the copy, of all directories together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// No marker, nothing in the directories.
    Empty,
    /// No marker, but files.
    Unlabelled,
    /// Each marker is one of the accepted ones.
    Known,
    /// A marker was expected and is absent, foreign, or of another lineage.
    Unknown,
}

/// Whose copy it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Module.
    pub module: String,
    /// This node.
    pub node: String,
}

/// What one directory says.
enum Found {
    Nothing { empty: bool },
    Right,
    Wrong(String),
}

/// Looks at every directory. `accept`: the lineages that hard state accepts; none: no marker is expected.
/// `generations`: those that count; none: each.
///
/// # Errors
/// A directory cannot be used; one sentence for people that says what to do.
pub fn examine(
    directories: &[PathBuf],
    owner: &Owner,
    accept: &[u128],
    generations: &[u64],
) -> Result<Copy, String> {
    let mut found = Vec::with_capacity(directories.len());
    for directory in directories {
        found.push((directory, examine_one(directory, owner, accept, generations)?));
    }
    let mut copy = if accept.is_empty() { Copy::Empty } else { Copy::Known };
    for (directory, found) in found {
        let this = match found {
            Found::Right => Copy::Known,
            Found::Nothing { .. } if !accept.is_empty() => {
                tracing::warn!(directory = %directory.display(), "the directory carries no marker, but one was expected");
                Copy::Unknown
            }
            Found::Nothing { empty: true } => Copy::Empty,
            Found::Nothing { empty: false } => Copy::Unlabelled,
            Found::Wrong(reason) => {
                tracing::warn!(directory = %directory.display(), reason, "the directory's marker does not fit");
                Copy::Unknown
            }
        };
        copy = match (copy, this) {
            (Copy::Unknown, _) | (_, Copy::Unknown) => Copy::Unknown,
            (Copy::Unlabelled, _) => Copy::Unlabelled,
            (Copy::Empty | Copy::Known, this) => this,
        };
    }
    Ok(copy)
}

/// Gives the markers another generation; durable when this returns.
///
/// # Errors
/// Which directory and why; some may have it.
pub fn renew(directories: &[PathBuf], generation: u64) -> Result<(), String> {
    for directory in directories {
        let shown = directory.display();
        let failed = |error: io::Error| format!("the marker of {shown} cannot be renewed: {error}");
        let open = File::open(directory).map_err(failed)?;
        let value = crate::backing::xattr(open.as_fd(), MARKER).map_err(|errno| failed(errno.into()))?;
        let content = value.and_then(|value| Content::decode(&value));
        let Some(content) = content else { return Err(format!("{shown} carries no marker")) };
        attach(&open, &Content { generation, ..content }).map_err(failed)?;
    }
    Ok(())
}

/// Marks every directory with a lineage; durable when this returns.
///
/// # Errors
/// Which directory and why; some may be marked.
pub fn write(directories: &[PathBuf], owner: &Owner, lineage: u128, generation: u64) -> Result<(), String> {
    for directory in directories {
        let failed = |error: io::Error| format!("{} cannot be marked: {error}", directory.display());
        let open = File::open(directory).map_err(failed)?;
        let content = content_of(&open, owner, lineage, generation).map_err(failed)?;
        attach(&open, &content).map_err(failed)?;
    }
    Ok(())
}

fn attach(open: &File, content: &Content) -> io::Result<()> {
    rustix::fs::fsetxattr(open, MARKER, content.encode().as_bytes(), XattrFlags::empty())?;
    open.sync_all()
}

fn examine_one(
    directory: &Path,
    owner: &Owner,
    accept: &[u128],
    generations: &[u64],
) -> Result<Found, String> {
    let open = open(directory)?;
    let shown = directory.display();
    let value = match crate::backing::xattr(open.as_fd(), MARKER) {
        Ok(value) => value,
        Err(Errno::OPNOTSUPP) => {
            return Err(format!(
                "{shown} is on a filesystem without trusted extended attributes; use ext4, xfs or btrfs"
            ));
        }
        Err(errno) => return Err(format!("the marker of {shown} cannot be read: {errno}")),
    };
    let Some(value) = value else {
        let empty = is_empty(directory).map_err(|error| format!("{shown} cannot be listed: {error}"))?;
        return Ok(Found::Nothing { empty });
    };
    if accept.is_empty() {
        return Ok(Found::Wrong("none was expected".into()));
    }
    let Some(content) = Content::decode(&value) else { return Ok(Found::Wrong("it is not valid".into())) };
    let now = content_of(&open, owner, content.lineage, content.generation)
        .map_err(|error| format!("{shown}: {error}"))?;
    Ok(match content.mismatch(&now) {
        Some(reason) => Found::Wrong(reason),
        None if !accept.contains(&content.lineage) => {
            Found::Wrong(format!("it is of lineage {:08x}, which is not this copy's", content.lineage >> 96))
        }
        None if !generations.is_empty() && !generations.contains(&content.generation) => {
            Found::Wrong("the directory was put back to an earlier state".to_owned())
        }
        None => Found::Right,
    })
}

/// Opens it and checks that it can be replicated at all.
fn open(directory: &Path) -> Result<File, String> {
    let shown = directory.display();
    let meta = match fs::metadata(directory) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("{shown} does not exist; create it, or mount its disk"));
        }
        Err(error) => return Err(format!("{shown} cannot be read: {error}")),
    };
    if !meta.is_dir() {
        return Err(format!("{shown} is not a directory"));
    }
    let open = File::open(directory).map_err(|error| format!("{shown} cannot be opened: {error}"))?;
    let disk = rustix::fs::fstatvfs(&open).map_err(|errno| format!("{shown}: {errno}"))?;
    if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(format!("{shown} is on a filesystem that is mounted read-only; remount it read-write"));
    }
    // A filesystem that counts no blocks or inodes says zero of zero.
    if (disk.f_blocks > 0 && disk.f_bavail == 0) || (disk.f_files > 0 && disk.f_favail == 0) {
        return Err(format!("the filesystem of {shown} is full; free some space"));
    }
    if let Err(error) = handle_of(open.as_fd()) {
        return Err(match Errno::from_io_error(&error) {
            Some(Errno::OPNOTSUPP) => {
                format!("{shown} is on a filesystem without file handles; use ext4, xfs or btrfs")
            }
            _ => format!("{shown}: {error}"),
        });
    }
    Ok(open)
}

fn content_of(open: &File, owner: &Owner, lineage: u128, generation: u64) -> io::Result<Content> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(Content {
        module: owner.module.clone(),
        node: owner.node.clone(),
        lineage,
        filesystem: linux::filesystem(open.as_fd())?,
        inode: open.metadata()?.ino(),
        generation,
    })
}

/// Nothing is in it but what every new filesystem has.
fn is_empty(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        if entry?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { module: "db".into(), node: "n1".into() }
    }

    fn two() -> (tempfile::TempDir, Vec<PathBuf>) {
        let base = tempfile::tempdir().expect("a directory");
        let paths = vec![base.path().join("a"), base.path().join("b")];
        paths.iter().for_each(|path| fs::create_dir(path).expect("create"));
        (base, paths)
    }

    #[test]
    fn without_markers_it_tells_empty_from_unlabelled() {
        let (_base, paths) = two();
        fs::create_dir(paths[0].join("lost+found")).expect("create");
        assert_eq!(examine(&paths, &owner(), &[], &[]), Ok(Copy::Empty));
        assert_eq!(examine(&paths, &owner(), &[1], &[]), Ok(Copy::Unknown));
        fs::write(paths[1].join("file"), "").expect("write");
        assert_eq!(examine(&paths, &owner(), &[], &[]), Ok(Copy::Unlabelled));
    }

    #[test]
    fn a_marker_is_known_by_owner_lineage_and_place() {
        let (base, paths) = two();
        write(&paths, &owner(), 5, 1).expect("write");
        assert_eq!(examine(&paths, &owner(), &[4, 5], &[]), Ok(Copy::Known));
        assert_eq!(examine(&paths, &owner(), &[4], &[]), Ok(Copy::Unknown));
        assert_eq!(examine(&paths, &owner(), &[], &[]), Ok(Copy::Unknown));
        let other = Owner { node: "n2".into(), ..owner() };
        assert_eq!(examine(&paths, &other, &[5], &[]), Ok(Copy::Unknown));
        // Another directory took its place and even has the attribute.
        let value =
            crate::backing::xattr(File::open(&paths[1]).expect("open").as_fd(), MARKER).expect("read");
        fs::rename(&paths[1], base.path().join("old")).expect("rename");
        fs::create_dir(&paths[1]).expect("create");
        assert_eq!(examine(&paths, &owner(), &[5], &[]), Ok(Copy::Unknown));
        let open = File::open(&paths[1]).expect("open");
        rustix::fs::fsetxattr(&open, MARKER, &value.expect("there"), XattrFlags::empty()).expect("set");
        assert_eq!(examine(&paths, &owner(), &[5], &[]), Ok(Copy::Unknown));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_advice() {
        let (base, paths) = two();
        let missing = examine(&[base.path().join("missing")], &owner(), &[], &[]).expect_err("missing");
        assert!(missing.contains("create it"), "{missing}");
        fs::write(paths[0].join("file"), "").expect("write");
        let file = examine(&[paths[0].join("file")], &owner(), &[], &[]).expect_err("a file");
        assert!(file.contains("not a directory"), "{file}");
        let proc = examine(&[PathBuf::from("/proc")], &owner(), &[], &[]).expect_err("no disk");
        assert!(proc.contains("ext4"), "{proc}");
    }

    #[test]
    fn a_marker_of_another_generation_is_of_an_earlier_state() {
        let (_base, paths) = two();
        write(&paths, &owner(), 5, 1).expect("write");
        let expect = |generations: &[u64]| examine(&paths, &owner(), &[5], generations);
        assert_eq!(expect(&[]), Ok(Copy::Known));
        assert_eq!(expect(&[1, 2]), Ok(Copy::Known));
        assert_eq!(expect(&[2]), Ok(Copy::Unknown));
        renew(&paths, 2).expect("renew");
        assert_eq!(expect(&[2]), Ok(Copy::Known), "nothing else is changed by it");
        assert_eq!(expect(&[1]), Ok(Copy::Unknown));
    }
}
