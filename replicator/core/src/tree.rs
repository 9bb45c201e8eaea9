//! Entries of directories as two copies compare them.

use bytes::Bytes;

use crate::object::Kind;
use crate::op::Timestamp;

/// One entry of a directory with everything that must be equal on both copies, but for content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name; empty where the directory itself is meant.
    pub name: Bytes,
    /// Type.
    pub kind: Kind,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size of a regular file; else 0.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Device number of a device; else 0.
    pub rdev: u64,
    /// Names the inode has; 1 for a directory.
    pub links: u32,
    /// Which inode, among those of the same replicated directory on the same node.
    pub inode: u64,
    /// Target of a symbolic link; else empty.
    pub target: Bytes,
    /// Digest of all extended attributes, ACLs included, see [`digest_xattrs`].
    pub xattrs: [u8; 16],
}

/// Digest of extended attributes; sorts them. All zero: there are none.
#[must_use]
pub fn digest_xattrs(xattrs: &mut [(Bytes, Bytes)]) -> [u8; 16] {
    let mut digest = [0; 16];
    if xattrs.is_empty() {
        return digest;
    }
    xattrs.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (name, value) in xattrs {
        // Lengths keep the boundary between name and value from moving.
        for part in [name, value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    digest
}

/// Whether an extended attribute is replicated. What safed keeps on its own roots is not.
#[must_use]
pub fn is_replicated_xattr(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.safed.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_xattrs_does_not_depend_on_order_but_on_boundaries() {
        let pair = |name: &'static str, value: &'static str| (Bytes::from(name), Bytes::from(value));
        let mut a = [pair("user.a", "1"), pair("user.b", "2")];
        let mut b = [pair("user.b", "2"), pair("user.a", "1")];
        assert_eq!(digest_xattrs(&mut a), digest_xattrs(&mut b));
        let mut moved = [pair("user.a1", ""), pair("user.b", "2")];
        assert_ne!(digest_xattrs(&mut a), digest_xattrs(&mut moved));
        assert_eq!(digest_xattrs(&mut []), [0; 16]);
        assert_ne!(digest_xattrs(&mut [pair("", "")]), [0; 16]);
    }

    #[test]
    fn only_our_own_xattrs_stay_here() {
        assert!(!is_replicated_xattr(b"trusted.safed.root"));
        assert!(is_replicated_xattr(b"trusted.other"));
        assert!(is_replicated_xattr(b"system.posix_acl_access"));
    }
}
