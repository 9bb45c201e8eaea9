//! Sets of byte ranges, with a bound on how finely they are told apart.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, non-adjacent, non-empty ranges of bytes in ascending order. `u64::MAX` as an end means "to the end of the
/// file, wherever that is".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtentSet {
    // Start to end. Invariant: start < end < next start.
    ranges: BTreeMap<u64, u64>,
}

impl ExtentSet {
    /// The set of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new() }
    }

    /// The set of every byte.
    #[must_use]
    pub fn whole() -> Self {
        Self { ranges: BTreeMap::from([(0, u64::MAX)]) }
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Every byte is in it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ranges.first_key_value() == Some((&0, &u64::MAX))
    }

    /// Bytes in it; a range without end counts up to `size` only.
    #[must_use]
    pub fn bytes(&self, size: u64) -> u64 {
        self.iter().map(|range| range.end.min(size).saturating_sub(range.start)).sum()
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// Add a range; joins what touches. True if it changed the set.
    pub fn insert(&mut self, range: Range<u64>) -> bool {
        if range.is_empty() || self.contains(&range) {
            return false;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&before, &until)) = self.ranges.range(..=start).next_back()
            && until >= start
        {
            start = before;
            end = end.max(until);
        }
        while let Some((&next, &until)) = self.ranges.range(start..).next() {
            if next > end {
                break;
            }
            end = end.max(until);
            self.ranges.remove(&next);
        }
        self.ranges.insert(start, end);
        true
    }

    /// Take a range out.
    pub fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((&before, &until)) = self.ranges.range(..range.start).next_back()
            && until > range.start
        {
            self.ranges.insert(before, range.start);
            if until > range.end {
                self.ranges.insert(range.end, until);
            }
        }
        while let Some((&next, &until)) = self.ranges.range(range.start..range.end).next() {
            self.ranges.remove(&next);
            if until > range.end {
                self.ranges.insert(range.end, until);
            }
        }
    }

    /// Add all of another set.
    pub fn merge(&mut self, other: &Self) {
        for range in other.iter() {
            self.insert(range);
        }
    }

    /// Every byte of the range is in it.
    #[must_use]
    pub fn contains(&self, range: &Range<u64>) -> bool {
        range.is_empty()
            || self.ranges.range(..=range.start).next_back().is_some_and(|(_, &until)| until >= range.end)
    }

    /// Some byte of the range is in it.
    #[must_use]
    pub fn intersects(&self, range: &Range<u64>) -> bool {
        !range.is_empty()
            && self.ranges.range(..range.end).next_back().is_some_and(|(_, &until)| until > range.start)
    }

    /// How many bytes right before `at` are in it.
    #[must_use]
    pub fn run_before(&self, at: u64) -> u64 {
        let before = self.ranges.range(..at).next_back();
        before.filter(|(_, until)| **until >= at).map_or(0, |(start, _)| at - start)
    }

    /// The first range that ends after `from`, cut to start there.
    #[must_use]
    pub fn first_from(&self, from: u64) -> Option<Range<u64>> {
        if let Some((_, &until)) = self.ranges.range(..=from).next_back()
            && until > from
        {
            return Some(from..until);
        }
        self.ranges.range(from..).next().map(|(&start, &end)| start..end)
    }

    /// Have at most `limit` ranges (at least 1) by joining those with the smallest gaps: never forgets a byte.
    pub fn coarsen(&mut self, limit: usize) {
        let limit = limit.max(1);
        if self.ranges.len() <= limit {
            return;
        }
        let ranges: Vec<Range<u64>> = self.iter().collect();
        let mut gaps: Vec<(u64, u64)> =
            ranges.windows(2).map(|pair| (pair[1].start - pair[0].end, pair[0].end)).collect();
        gaps.sort_unstable();
        gaps.truncate(ranges.len() - limit);
        for (gap, end) in gaps {
            self.insert(end..end + gap);
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a wrong assumption is a failed test"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from_bits(bits: &[bool]) -> ExtentSet {
        let mut set = ExtentSet::new();
        for (at, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
            set.insert(at as u64..at as u64 + 1);
        }
        set
    }

    fn to_bits(set: &ExtentSet, size: usize) -> Vec<bool> {
        (0..size as u64).map(|at| set.contains(&(at..at + 1))).collect()
    }

    fn well_formed(set: &ExtentSet) -> bool {
        let ranges: Vec<_> = set.iter().collect();
        ranges.iter().all(|range| !range.is_empty())
            && ranges.windows(2).all(|pair| pair[0].end < pair[1].start)
    }

    #[test]
    fn a_whole_set_has_no_end() {
        let mut set = ExtentSet::whole();
        assert!(set.is_whole() && set.contains(&(5..u64::MAX)));
        set.remove(&(0..10));
        assert!(!set.is_whole());
        assert_eq!(set.bytes(25), 15);
        assert_eq!(set.bytes(5), 0);
        assert_eq!(set.first_from(0), Some(10..u64::MAX));
    }

    proptest! {
        #[test]
        fn behaves_like_a_bitmap(steps in prop::collection::vec((any::<bool>(), 0u64..64, 0u64..20), 0..40)) {
            let mut set = ExtentSet::new();
            let mut model = vec![false; 84];
            for (insert, start, len) in steps {
                let range = start..start + len;
                if insert {
                    let before = model.clone();
                    model[range.start as usize..range.end as usize].fill(true);
                    prop_assert_eq!(set.insert(range), before != model);
                } else {
                    model[range.start as usize..range.end as usize].fill(false);
                    set.remove(&range);
                }
                prop_assert!(well_formed(&set));
                prop_assert_eq!(to_bits(&set, 84), model.clone());
                prop_assert_eq!(set.bytes(u64::MAX), model.iter().filter(|bit| **bit).count() as u64);
            }
            for from in 0..84u64 {
                let expected = (from..84).find(|at| model[*at as usize]);
                prop_assert_eq!(set.first_from(from).map(|range| range.start), expected);
                prop_assert_eq!(set.intersects(&(from..84)), expected.is_some());
            }
        }

        #[test]
        fn coarsening_keeps_every_byte(bits in prop::collection::vec(any::<bool>(), 0..120), limit in 0usize..12) {
            let exact = from_bits(&bits);
            let mut coarse = exact.clone();
            coarse.coarsen(limit);
            prop_assert!(well_formed(&coarse));
            prop_assert!(coarse.len() <= limit.max(1));
            prop_assert!(exact.iter().all(|range| coarse.contains(&range)));
        }

        #[test]
        fn merging_is_union(a in prop::collection::vec(any::<bool>(), 60), b in prop::collection::vec(any::<bool>(), 60)) {
            let mut merged = from_bits(&a);
            merged.merge(&from_bits(&b));
            let union: Vec<bool> = a.iter().zip(&b).map(|(a, b)| *a || *b).collect();
            prop_assert_eq!(to_bits(&merged, 60), union);
        }
    }
}
