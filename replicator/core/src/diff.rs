//! What to do so that the target's directory equals the source's, and which blocks of a file differ.

use std::cmp::Ordering;

use crate::object::Kind;
use crate::tree::Entry;

/// Content is compared in blocks of this many bytes.
pub const BLOCK: u64 = 128 * 1024;

/// Digest of one block, blake3; the last block of a file is short.
pub type Digest = [u8; 32];

/// One name in which two listings may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Only the target has it.
    Extra(Entry),
    /// Only the source has it.
    Missing(Entry),
    /// Both have it, but it cannot become equal by changing it: another type, device number or link target.
    Replace {
        /// On the source.
        source: Entry,
        /// On the target.
        target: Entry,
    },
    /// Both have it and it is of the same nature: attributes, content or what lies below may differ.
    Both {
        /// On the source.
        source: Entry,
        /// On the target.
        target: Entry,
    },
}

impl Difference {
    /// The name.
    #[must_use]
    pub const fn name(&self) -> &bytes::Bytes {
        match self {
            Self::Extra(entry) | Self::Missing(entry) => &entry.name,
            Self::Replace { source, .. } | Self::Both { source, .. } => &source.name,
        }
    }
}

/// Walk two listings, each in ascending order of names.
pub fn compare(source: Vec<Entry>, target: Vec<Entry>) -> Vec<Difference> {
    let mut differences = Vec::with_capacity(source.len().max(target.len()));
    let mut target = target.into_iter().peekable();
    for entry in source {
        while let Some(extra) = target.next_if(|other| other.name < entry.name) {
            differences.push(Difference::Extra(extra));
        }
        let other = target.next_if(|other| other.name.cmp(&entry.name) == Ordering::Equal);
        differences.push(match other {
            None => Difference::Missing(entry),
            Some(other) if is_same_nature(&entry, &other) => {
                Difference::Both { source: entry, target: other }
            }
            Some(other) => Difference::Replace { source: entry, target: other },
        });
    }
    differences.extend(target.map(Difference::Extra));
    differences
}

fn is_same_nature(source: &Entry, target: &Entry) -> bool {
    source.kind == target.kind && source.rdev == target.rdev && source.target == target.target
}

/// Mode, owner, extended attributes and times are equal.
#[must_use]
pub fn has_same_attributes(source: &Entry, target: &Entry) -> bool {
    (source.mode, source.uid, source.gid, source.mtime, source.xattrs)
        == (target.mode, target.uid, target.gid, target.mtime, target.xattrs)
}

/// The blocks, by number from `first`, of which the target has nothing or something else. `source` and `target` begin
/// at the same block; blocks that only the target has are its size's business.
pub fn differing_blocks(first: u64, source: &[Digest], target: &[Digest]) -> Vec<u64> {
    let differs = |(at, digest): &(usize, &Digest)| target.get(*at) != Some(digest);
    source.iter().enumerate().filter(differs).map(|(at, _)| first + at as u64).collect()
}

/// The digest of several blocks together: blake3 of their digests.
#[must_use]
pub fn whole(digests: &[Digest]) -> Digest {
    *blake3::hash(digests.as_flattened()).as_bytes()
}

/// Number of blocks of a file of this size.
#[must_use]
pub const fn blocks_of(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

/// The kind has content that is compared by digests.
#[must_use]
pub const fn has_content(kind: Kind) -> bool {
    matches!(kind, Kind::File)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::op::Timestamp;

    fn entry(name: &'static str, kind: Kind) -> Entry {
        Entry {
            name: Bytes::from(name),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timestamp::default(),
            rdev: 0,
            links: 1,
            inode: 1,
            target: Bytes::new(),
            xattrs: [0; 16],
        }
    }

    #[test]
    fn walks_both_sides_once() {
        let source = vec![entry("b", Kind::File), entry("c", Kind::Directory), entry("e", Kind::File)];
        let target = vec![
            entry("a", Kind::File),
            entry("c", Kind::File),
            entry("e", Kind::File),
            entry("f", Kind::Fifo),
        ];
        let names: Vec<String> = compare(source, target)
            .iter()
            .map(|difference| {
                let word = match difference {
                    Difference::Extra(_) => "extra",
                    Difference::Missing(_) => "missing",
                    Difference::Replace { .. } => "replace",
                    Difference::Both { .. } => "both",
                };
                format!("{word} {}", String::from_utf8_lossy(difference.name()))
            })
            .collect();
        assert_eq!(names, ["extra a", "missing b", "replace c", "both e", "extra f"]);
    }

    #[test]
    fn a_symlink_with_another_target_is_replaced() {
        let mut other = entry("l", Kind::Symlink);
        other.target = Bytes::from("elsewhere");
        let found = compare(vec![entry("l", Kind::Symlink)], vec![other]);
        assert!(matches!(found.as_slice(), [Difference::Replace { .. }]));
    }

    #[test]
    fn only_differing_and_missing_blocks_are_named() {
        let (a, b) = ([1; 32], [2; 32]);
        assert_eq!(differing_blocks(10, &[a, b, a], &[a, a]), [11, 12]);
        assert_eq!(differing_blocks(0, &[a], &[a, b, b]), Vec::<u64>::new());
        assert_eq!((blocks_of(0), blocks_of(1), blocks_of(BLOCK), blocks_of(BLOCK + 1)), (0, 1, 1, 2));
    }
}
