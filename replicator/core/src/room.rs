//! Whether what a resync brings can fit on its target: said beforehand only where it is sure that it cannot.
//!
//! After a resync the target's tree is the source's. So it grows by the difference of both, whatever is sent: a lower
//! bound of the source's tree less an upper bound of the target's is a lower bound of what is needed.

use std::collections::BTreeMap;

/// What a tree, or a part of it, takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Inodes.
    pub files: u64,
}

impl Load {
    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), files: self.files.saturating_add(other.files) }
    }
}

/// What is free where a replicated directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// The filesystem: directories may share one.
    pub device: u64,
    /// What is free for root; none: how much fits cannot be told, as where content may be compressed.
    pub bytes: Option<u64>,
    /// Inodes; none: they are made as they are needed.
    pub files: Option<u64>,
}

/// What is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Bytes.
    Bytes,
    /// Inodes.
    Files,
}

/// What cannot fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack {
    /// Index of a directory on the filesystem that is short.
    pub root: usize,
    /// Of what.
    pub what: What,
    /// At least so much more is needed.
    pub needed: u64,
    /// So much is free.
    pub free: u64,
}

/// It fits, if no more than `most` comes to each directory.
#[must_use]
pub fn fits(most: &[Load], free: &[Free]) -> bool {
    lack(most, &[], free).is_none()
}

/// What surely cannot fit: the source's directories hold `least` or more, the target's hold `held` or less.
#[must_use]
pub fn lack(least: &[Load], held: &[Load], free: &[Free]) -> Option<Lack> {
    let mut filesystems: BTreeMap<u64, (usize, Load, Load)> = BTreeMap::new();
    for (root, (coming, free)) in least.iter().zip(free).enumerate() {
        let there = held.get(root).copied().unwrap_or_default();
        let (_, grow, shrink) =
            filesystems.entry(free.device).or_insert((root, Load::default(), Load::default()));
        (*grow, *shrink) = (grow.with(*coming), shrink.with(there));
    }
    filesystems.into_values().find_map(|(root, coming, there)| {
        let short = |what, coming: u64, there: u64, free: Option<u64>| {
            let needed = coming.saturating_sub(there);
            free.filter(|free| needed > *free).map(|free| Lack { root, what, needed, free })
        };
        let Free { bytes, files, .. } = free[root];
        short(What::Bytes, coming.bytes, there.bytes, bytes)
            .or_else(|| short(What::Files, coming.files, there.files, files))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn load(bytes: u64, files: u64) -> Load {
        Load { bytes, files }
    }

    const fn free(device: u64, bytes: u64, files: u64) -> Free {
        Free { device, bytes: Some(bytes), files: Some(files) }
    }

    #[test]
    fn only_growth_is_needed() {
        let free = [free(1, 10, 10)];
        assert_eq!(lack(&[load(100, 5)], &[load(90, 5)], &free), None);
        let lacking = Lack { root: 0, what: What::Bytes, needed: 11, free: 10 };
        assert_eq!(lack(&[load(101, 5)], &[load(90, 5)], &free), Some(lacking));
        let lacking = Lack { root: 0, what: What::Files, needed: 11, free: 10 };
        assert_eq!(lack(&[load(0, 11)], &[load(90, 0)], &free), Some(lacking));
    }

    #[test]
    fn directories_share_a_filesystem() {
        let (coming, there) = ([load(60, 1), load(60, 1), load(7, 1)], [load(0, 0), load(0, 0), load(0, 0)]);
        let shared = [free(7, 100, 9), free(7, 100, 9), free(8, 7, 9)];
        assert_eq!(
            lack(&coming, &there, &shared),
            Some(Lack { root: 0, what: What::Bytes, needed: 120, free: 100 })
        );
        // What one directory gives up is there for the other.
        assert_eq!(lack(&coming, &[load(0, 0), load(20, 0), load(0, 0)], &shared), None);
        let apart = [free(6, 100, 9), free(7, 100, 9), free(8, 7, 9)];
        assert_eq!(lack(&coming, &there, &apart), None);
    }

    #[test]
    fn what_cannot_be_told_is_not_in_the_way() {
        let free = [Free { device: 1, bytes: None, files: None }];
        assert_eq!(lack(&[load(u64::MAX, u64::MAX)], &[], &free), None);
        assert!(fits(&[load(u64::MAX, 1)], &free));
    }
}
