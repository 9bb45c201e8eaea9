//! Names this process gives: all drawn from the entropy its shell handed over, by counting.

use crate::lineage::LineageId;

/// Source of ids that are never reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    seed: [u64; 2],
    drawn: u64,
}

impl Identity {
    pub(crate) const fn new(entropy: u128) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
        let seed = [(entropy >> 64) as u64, entropy as u64];
        Self { seed, drawn: 0 }
    }

    /// Names the agent process.
    pub(crate) const fn incarnation(&self) -> u64 {
        mix(self.seed[0])
    }

    pub(crate) const fn link(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.seed[1].wrapping_add(self.drawn)) | 1
    }

    pub(crate) const fn lineage(&mut self) -> LineageId {
        self.drawn += 1;
        let high = mix(self.seed[0] ^ mix(self.drawn));
        let low = mix(self.seed[1].wrapping_add(self.drawn));
        // Never zero: the lowest bit is set.
        LineageId(((high as u128) << 64) | (low as u128) | 1)
    }
}

/// The finaliser of splitmix64: a bijection, so that distinct inputs give distinct outputs.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
