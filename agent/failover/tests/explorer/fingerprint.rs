//! Equal for worlds that differ only in when now is and in the names that were drawn.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use safe_failover::world::World;

/// What is longer ago than this decides nothing any more: twice the timeout, and `start_wait`, are 6 s.
const LONG_AGO: u64 = 6_500_000_000;
/// Below: counters, sets of writes, boots. Points in time begin at `BEGIN`, names far above it.
const COUNTER: u64 = 1_000_000;
const BEGIN: u64 = 900_000_000_000;
const NAME: u64 = 1 << 52;

/// Takes points in time as distances from now, and names by the order in which they come.
struct Canonical {
    now: u64,
    names: HashMap<u128, u64, BuildHasherDefault<Drawn>>,
    state: u64,
}

/// Names are random already.
#[derive(Default)]
struct Drawn(u64);

impl Hasher for Drawn {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, name: u128) {
        self.0 = (name >> 64) as u64 ^ (name as u64).rotate_left(32);
    }
}

/// The fingerprint.
pub(crate) fn of(world: &World) -> u64 {
    let mut state = Canonical { now: world.now.0, names: HashMap::default(), state: 1 };
    world.fingerprint(&mut state);
    state.finish()
}

impl Canonical {
    fn mix(&mut self, value: u64) {
        let product = u128::from(self.state ^ value) * 0xd6e8_feb8_6659_fd93_u128;
        self.state = ((product >> 64) as u64 ^ product as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }

    fn name(&mut self, name: u128) {
        let next = self.names.len() as u64;
        let index = *self.names.entry(name).or_insert(next);
        self.mix(NAME | index);
    }
}

impl Hasher for Canonical {
    fn finish(&self) -> u64 {
        let mut value = self.state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.mix(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        match value {
            ..COUNTER => self.mix(value),
            // Seconds of the wall clock are for people.
            COUNTER..BEGIN => self.mix(COUNTER),
            BEGIN..NAME if value >= self.now => self.mix(BEGIN + (value - self.now)),
            BEGIN..NAME => self.mix(NAME - (self.now - value).min(LONG_AGO)),
            NAME.. => self.name(u128::from(value)),
        }
    }

    fn write_u128(&mut self, value: u128) {
        if value < u128::from(COUNTER) { self.mix(value as u64) } else { self.name(value) }
    }
}
