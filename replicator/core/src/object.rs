//! What a change is about: an object of one copy, named so that a rename does not matter.

use std::fmt;

use crate::short::Short;

/// Longest file handle that is accepted, in bytes: the kernel's limit plus its four bytes of type.
pub const HANDLE_LIMIT: usize = 132;

/// Longest name of a directory entry, in bytes.
pub const NAME_LIMIT: usize = 255;

/// Type of an object; never changes while the object lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    Char,
    /// Block device.
    Block,
}

impl Kind {
    /// All kinds, in the order of their numbers in records and messages (from 1).
    pub const ALL: [Self; 7] =
        [Self::File, Self::Directory, Self::Symlink, Self::Fifo, Self::Socket, Self::Char, Self::Block];

    /// Its number in records and messages; stable.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::Symlink => 3,
            Self::Fifo => 4,
            Self::Socket => 5,
            Self::Char => 6,
            Self::Block => 7,
        }
    }

    /// The kind of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// It is a directory.
    #[must_use]
    pub const fn is_directory(self) -> bool {
        matches!(self, Self::Directory)
    }
}

/// One file, directory or other inode of this node's copy. The handle is the kernel's file handle (four bytes of type,
/// little-endian, then the bytes of name_to_handle_at): it outlives renames and contains a generation, so that a
/// reused inode number is another object. It means nothing on another node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// Index of the replicated directory, in the order of module.toml.
    pub root: u16,
    /// Type.
    pub kind: Kind,
    /// File handle, at most [`HANDLE_LIMIT`] bytes.
    pub handle: Short,
}

impl Object {
    /// An object by its handle.
    #[must_use]
    pub fn new(root: u16, kind: Kind, handle: &[u8]) -> Self {
        Self { root, kind, handle: handle.into() }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}:", self.kind, self.root)?;
        self.handle.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_kinds_are_distinct_and_round_trip() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
        }
        assert_eq!(Kind::from_number(0), None);
        assert_eq!(Kind::from_number(8), None);
    }
}
