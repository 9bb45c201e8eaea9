//! What is to be kept, by path.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::resync::link::{Located, What};

/// Of one path.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Content that was changed, of a file that was there before.
    pub(super) ranges: Ranges,
    /// What the name stands for may be something else than before.
    pub(super) name: bool,
    /// Everything below.
    pub(super) deep: bool,
}

impl Wanted {
    /// All of it, whatever it is.
    pub(super) const ALL: Self = Self { ranges: Ranges::Whole, name: true, deep: true };
}

/// Parts of a file.
#[derive(Debug, Clone)]
pub(super) enum Ranges {
    /// All of it.
    Whole,
    /// From and to, not in order.
    Some(Vec<Range<u64>>),
}

impl Default for Ranges {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl Ranges {
    pub(super) const fn is_empty(&self) -> bool {
        matches!(self, Self::Some(ranges) if ranges.is_empty())
    }

    /// In order, apart, within a file of this size.
    pub(super) fn within(&self, size: u64) -> impl Iterator<Item = Range<u64>> {
        let mut ranges = match self {
            Self::Whole => std::iter::once(0..size).collect(),
            Self::Some(ranges) => ranges.clone(),
        };
        ranges.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            let range = range.start.min(size)..range.end.min(size);
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged.into_iter().filter(|range| !range.is_empty())
    }
}

/// Of all paths.
#[derive(Debug, Default)]
pub(super) struct All {
    pub(super) everything: bool,
    paths: BTreeMap<(u16, Vec<Bytes>), Wanted>,
}

impl All {
    /// Paths of one directory, without those that are below another that is wanted with everything below it.
    pub(super) fn of_root(&self, root: u16) -> impl Iterator<Item = (&[Bytes], &Wanted)> {
        let first = (root, Vec::new());
        let paths = self.paths.range(first..).take_while(move |((index, _), _)| *index == root);
        paths
            .filter(move |((_, path), _)| !self.is_below(root, path))
            .map(|((_, path), wanted)| (&path[..], wanted))
    }

    fn is_below(&self, root: u16, path: &[Bytes]) -> bool {
        (0..path.len())
            .any(|depth| self.paths.get(&(root, path[..depth].to_vec())).is_some_and(|above| above.deep))
    }
}

/// What these marks name.
pub(super) fn of(known: Vec<Located>) -> All {
    let mut all = All::default();
    for Located { root, path, what } in known {
        if what == What::Everything {
            all.everything = true;
            continue;
        }
        let wanted = all.paths.entry((root, path)).or_default();
        match what {
            What::Data { offset, len } => {
                if let Ranges::Some(ranges) = &mut wanted.ranges {
                    ranges.push(offset..offset.saturating_add(len));
                }
            }
            What::Meta | What::Everything => {}
            What::Name { deep } => {
                wanted.name = true;
                wanted.deep |= deep;
            }
            // Which of its names are other than before is not known.
            What::Names { .. } | What::Tree => wanted.deep = true,
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(path: &[&'static str], what: What) -> Located {
        Located { root: 0, path: path.iter().map(|name| Bytes::from(*name)).collect(), what }
    }

    #[test]
    fn ranges_are_in_order_and_within_the_file() {
        let ranges = Ranges::Some(vec![90..200, 0..10, 5..20, 20..30, 300..400]);
        assert_eq!(ranges.within(100).collect::<Vec<_>>(), [0..30, 90..100]);
        assert_eq!(Ranges::Whole.within(0).count(), 0);
    }

    #[test]
    fn what_is_below_something_wanted_wholly_is_wanted_once() {
        let all = of(vec![
            located(&["a"], What::Name { deep: true }),
            located(&["a", "b"], What::Data { offset: 0, len: 4 }),
            located(&["ab"], What::Data { offset: 4, len: 4 }),
            located(&["ab"], What::Data { offset: 0, len: 4 }),
        ]);
        let paths: Vec<_> = all.of_root(0).map(|(path, _)| path.to_vec()).collect();
        assert_eq!(paths, [vec![Bytes::from("a")], vec![Bytes::from("ab")]]);
        let (_, wanted) = all.of_root(0).last().unwrap();
        assert!(wanted.ranges.within(100).eq(std::iter::once(0..8)));
    }
}
