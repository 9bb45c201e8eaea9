//! Names this process gives: all drawn from the entropy its shell handed over, by counting.

use crate::lineage::LineageId;

/// Source of ids that are never reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    entropy: u128,
    drawn: u64,
}

impl Identity {
    pub(crate) const fn new(entropy: u128) -> Self {
        Self { entropy, drawn: 0 }
    }

    /// Names the agent process.
    pub(crate) const fn incarnation(&self) -> u64 {
        mix((self.entropy >> 64) as u64)
    }

    pub(crate) const fn link(&mut self) -> u64 {
        self.draw() as u64
    }

    pub(crate) const fn lineage(&mut self) -> LineageId {
        LineageId(self.draw())
    }

    const fn draw(&mut self) -> u128 {
        self.drawn += 1;
        let value = self.entropy.wrapping_add(self.drawn as u128 * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let high = mix((value >> 64) as u64 ^ (value as u64).rotate_left(32));
        let low = mix(value as u64 ^ self.drawn);
        // Never zero: the lowest bit is set.
        ((high as u128) << 64) | (low as u128) | 1
    }
}

/// The finaliser of splitmix64: a bijection, so that distinct inputs give distinct outputs.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
