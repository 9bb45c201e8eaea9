//! What kind of filesystem something is on.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// How a filesystem stores content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it is: as many blocks as were written.
    Plain,
    /// The same, with inodes that are made of free space.
    Xfs,
    /// Perhaps in less: compressed, or equal parts once; or nothing is known.
    Other,
}

/// ext2 to ext4, tmpfs: statfs(2).
const PLAIN: [u64; 2] = [0xEF53, 0x0102_1994];

/// statfs(2).
const XFS: u64 = 0x5846_5342;

/// Of what is open.
///
/// # Errors
/// As fstatfs(2).
pub fn kind_of(file: BorrowedFd<'_>) -> Result<Kind, Errno> {
    let kind = u64::try_from(rustix::fs::fstatfs(file)?.f_type).unwrap_or(0);
    Ok(match kind {
        XFS => Kind::Xfs,
        kind if PLAIN.contains(&kind) => Kind::Plain,
        _ => Kind::Other,
    })
}
