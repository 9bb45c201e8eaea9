//! Finds a name of an object whose names were not seen: a file of which other links are known to nobody here, or a
//! directory that is known only by its handle.

use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use crate::node::{Node, Nodes};
use crate::resync::local::path_beneath;

/// Makes the nodes above an object and its name there known. False: it has no name.
///
/// # Errors
/// The files below cannot be read.
pub fn search(nodes: &Nodes, node: &Arc<Node>) -> Result<bool, Errno> {
    let root = nodes.root_of(node);
    let opened = nodes.open_path(node)?;
    // Of what is no directory the kernel remembers a name only as long as it likes.
    let found = match path_beneath(root, opened.as_fd())? {
        Some(path) => follow(nodes, node, &path)?,
        None => false,
    };
    if found || node.is_directory() { Ok(found) } else { walk(nodes, node) }
}

/// Looks up every name of a path, so that each is known.
fn follow(nodes: &Nodes, node: &Arc<Node>, path: &[Bytes]) -> Result<bool, Errno> {
    let root = nodes.root_of(node);
    let mut at = nodes.find(&root.object).ok_or(Errno::STALE)?;
    for name in path {
        let directory = nodes.open_path(&at)?;
        let found = match root.look_up(directory.as_fd(), name) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            Err(error) => return Err(error),
        };
        at = nodes.remember(found.object, Some((&at, name)), false);
    }
    Ok(at.id == node.id)
}

/// Walks the whole tree for the inode; rare, and the only way.
fn walk(nodes: &Nodes, node: &Arc<Node>) -> Result<bool, Errno> {
    let root = nodes.root_of(node);
    let wanted = crate::backing::attributes(nodes.open_path(node)?.as_fd())?;
    if wanted.nlink == 0 {
        return Ok(false);
    }
    let mut directories: Vec<Vec<Bytes>> = vec![Vec::new()];
    while let Some(path) = directories.pop() {
        let Some(directory) = root.open_directory(&path)? else { continue };
        let mut buffer = [MaybeUninit::<u8>::uninit(); 16 << 10];
        let mut entries = RawDir::new(&directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let mut below = path.clone();
            below.push(Bytes::copy_from_slice(name));
            if root.excludes(&path, name) {
                continue;
            }
            if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
                directories.push(below);
            } else if entry.ino() == wanted.ino && follow(nodes, node, &below)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
