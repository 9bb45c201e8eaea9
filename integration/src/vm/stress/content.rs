//! What files say: computed from what they are, so that it can be told later whether they say it still.

/// A slot of a file that is written in place.
pub(super) const SLOT: usize = 4096;

/// What a disk writes at once.
pub(super) const SECTOR: usize = 512;

/// Numbers that look like chance and are the same for the same seed.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Less than `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|_| self.roll().to_le_bytes());
        words.take(length).collect()
    }
}

/// A slot of this generation; every sector says which, so that a torn write shows its parts.
pub(super) fn slot(index: u64, generation: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SLOT);
    for sector in 0..SLOT / SECTOR {
        let mut body = Vec::with_capacity(SECTOR);
        body.extend(index.to_le_bytes());
        body.extend(generation.to_le_bytes());
        body.extend(Dice::new(index ^ generation << 20).bytes(SECTOR - 20));
        body[16] = u8::try_from(sector).unwrap_or(0);
        let sum = crc32fast::hash(&body);
        body.extend(sum.to_le_bytes());
        bytes.extend(body);
    }
    bytes
}

/// Generation of a sector of slot `index`; none if it is no such sector.
pub(super) fn generation(sector: &[u8], index: u64) -> Option<u64> {
    let (body, sum) = sector.split_last_chunk::<4>()?;
    let good = crc32fast::hash(body) == u32::from_le_bytes(*sum) && body.get(..8)? == index.to_le_bytes();
    let generation = body.get(8..16)?.try_into().ok()?;
    good.then(|| u64::from_le_bytes(generation))
}

/// Content of a file that is replaced as a whole: a line with its generation, and what belongs to that.
pub(super) fn whole(name: &str, generation: u64) -> Vec<u8> {
    let mut dice = Dice::new(u64::from(crc32fast::hash(name.as_bytes())) << 32 ^ generation);
    let length = usize::try_from(dice.below(12_000)).unwrap_or(0);
    let mut bytes = format!("{generation}\n").into_bytes();
    bytes.extend(dice.bytes(length));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_tells_its_generation_and_a_damaged_one_none() {
        let mut bytes = slot(7, 9);
        assert_eq!(bytes.len(), SLOT);
        assert!(bytes.chunks(SECTOR).all(|sector| generation(sector, 7) == Some(9)));
        assert_eq!(generation(&bytes[..SECTOR], 8), None);
        bytes[100] ^= 1;
        assert_eq!(generation(&bytes[..SECTOR], 7), None);
    }
}
