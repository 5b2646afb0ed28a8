//! Seeded chance that any part of a whole can draw alone: random streams by name, and permutations by position.
//!
//! Nothing here uses a distribution of the rand crate, whose values may change with its releases: the fixtures of a seed
//! must be the same for ever, because a target is seeded once and measured for years.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a random stream is for. Streams of different purposes never overlap, whatever the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Purpose {
    RoomSize = 1,
    RoomMembers = 2,
    DmPairs = 3,
    RoomKey = 4,
    HistoryMembers = 5,
    ThreadParents = 6,
    MembersRoom = 7,
    DailySizes = 8,
    DailyOrder = 9,
    DailyPairs = 10,
    DailyMessages = 11,
    DailyTexts = 12,
}

/// The random stream number `stream` of a purpose under a seed.
pub(super) fn stream(seed: u64, purpose: Purpose, stream: u64) -> ChaCha8Rng {
    let mut key = [0_u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(stream);
    rng
}

/// A number in `0..bound`. The bias is below `bound / 2^64`.
///
/// # Panics
/// If `bound` is 0.
pub(super) fn below(rng: &mut impl Rng, bound: u64) -> u64 {
    assert!(bound > 0, "no number is below 0");
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// A permutation of `0..len` whose value at any position is computed alone: a Feistel network over the smallest even
/// number of bits that holds `len`, walked until it lands inside.
#[derive(Debug, Clone)]
pub(super) struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; Self::ROUNDS],
}

impl Permutation {
    /// Four rounds of a strong function are a pseudo-random permutation (Luby and Rackoff); two more cost nothing.
    const ROUNDS: usize = 6;

    /// # Panics
    /// If `len` is 0 or above 2^62.
    pub(super) fn new(len: u64, rng: &mut impl Rng) -> Self {
        assert!((1..=1 << 62).contains(&len), "a permutation of {len} positions");
        let bits = u64::BITS - (len - 1).leading_zeros();
        Self { len, half_bits: bits.div_ceil(2).max(1), keys: std::array::from_fn(|_| rng.next_u64()) }
    }

    /// The value at `position`.
    ///
    /// # Panics
    /// If `position` is not below the length.
    pub(super) fn at(&self, position: u64) -> u64 {
        assert!(position < self.len, "position {position} of {}", self.len);
        // The domain is less than four times the length, so the walk takes fewer than four turns on average; and it
        // ends, because a permutation leads back to its start, which is inside.
        let mut value = self.encrypt(position);
        while value >= self.len {
            value = self.encrypt(value);
        }
        value
    }

    /// Where a value stands: the inverse of [`Self::at`].
    ///
    /// # Panics
    /// If `value` is not below the length.
    pub(super) fn position_of(&self, value: u64) -> u64 {
        assert!(value < self.len, "value {value} of {}", self.len);
        let mut position = self.decrypt(value);
        while position >= self.len {
            position = self.decrypt(position);
        }
        position
    }

    fn decrypt(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys.iter().rev() {
            (left, right) = (right ^ (mix(left ^ key) & mask), left);
        }
        (left << self.half_bits) | right
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit of the input moves every bit of the output.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_appears_exactly_once(len in 1_u64..3_000, seed: u64) {
            let permutation = Permutation::new(len, &mut stream(seed, Purpose::RoomMembers, 0));
            let mut seen: Vec<u64> = (0..len).map(|i| permutation.at(i)).collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..len));
            prop_assert!((0..len).all(|i| permutation.position_of(permutation.at(i)) == i));
        }

        #[test]
        fn below_stays_below(bound in 1_u64.., seed: u64) {
            prop_assert!(below(&mut stream(seed, Purpose::RoomSize, 1), bound) < bound);
        }
    }

    #[test]
    fn first_values_are_spread_evenly() {
        // Position 0 over 10,000 streams and 10 values: each about 1,000 times; six standard deviations are 180.
        let mut counts = [0_u32; 10];
        for room in 0..10_000 {
            let permutation = Permutation::new(10, &mut stream(42, Purpose::RoomMembers, room));
            counts[permutation.at(0) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (820..1_180).contains(count)), "{counts:?}");
    }
}
