//! How long the box held up any worker of an agent, by wall block.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use plimsoll_common::snapshot::Stall;

use crate::core::recorder::BLOCK_NS;

/// Blocks that are remembered: two minutes.
const BLOCKS: usize = 240;
/// A word is when its block begins, in milliseconds, and in these low bits its stall in microseconds: a newer block's word is
/// larger than any of an older one in the same place, whatever trial that was of, and within a block the longest stall is.
const STALL_BITS: u32 = 24;
const UNBOUNDED: u64 = (1 << STALL_BITS) - 1;

/// The longest stall of each of the newest blocks. A block is known by the instant at which it begins, which is the same for
/// all workers of a trial.
#[derive(Debug)]
pub struct Stalls {
    words: [AtomicU64; BLOCKS],
}

impl Default for Stalls {
    fn default() -> Self {
        Self { words: [const { AtomicU64::new(0) }; BLOCKS] }
    }
}

impl Stalls {
    fn word(&self, begins_ns: u64) -> &AtomicU64 {
        &self.words[(begins_ns / BLOCK_NS) as usize % BLOCKS]
    }

    /// A worker was held up in the block that begins at this instant. More than 16 s count as these.
    pub fn held_up(&self, begins_ns: u64, stall: Stall) {
        let bits = match stall {
            Stall::Bounded(0) => return,
            Stall::Bounded(us) => us.min(UNBOUNDED - 1),
            Stall::Unbounded => UNBOUNDED,
        };
        self.word(begins_ns).fetch_max((begins_ns / 1_000_000) << STALL_BITS | bits, Relaxed);
    }

    /// The longest stall of the block that begins at this instant, as far as it is known and remembered.
    pub fn of(&self, begins_ns: u64) -> Stall {
        let word = self.word(begins_ns).load(Relaxed);
        match word & UNBOUNDED {
            _ if word >> STALL_BITS != begins_ns / 1_000_000 => Stall::Bounded(0),
            UNBOUNDED => Stall::Unbounded,
            us => Stall::Bounded(us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stall_of_a_block_is_kept_apart_from_those_of_other_blocks_and_trials() {
        let stalls = Stalls::default();
        let begins_ns = 7 * BLOCK_NS + 123_456_789;
        for us in [5_000, 40_000, 7] {
            stalls.held_up(begins_ns, Stall::Bounded(us));
        }
        stalls.held_up(begins_ns + BLOCK_NS, Stall::Bounded(9));
        assert_eq!(stalls.of(begins_ns), Stall::Bounded(40_000));
        assert_eq!(stalls.of(begins_ns + BLOCK_NS), Stall::Bounded(9));
        // Of the next trial, which began in what was a block of this one; and a lap later.
        for later_ns in [1_000_000, BLOCKS as u64 * BLOCK_NS] {
            assert_eq!(stalls.of(begins_ns + later_ns), Stall::Bounded(0));
            stalls.held_up(begins_ns + later_ns, Stall::Bounded(3));
            assert_eq!(stalls.of(begins_ns + later_ns), Stall::Bounded(3));
            assert_eq!(stalls.of(begins_ns), Stall::Bounded(0));
        }
        // What is told of a block that is forgotten changes no newer one.
        stalls.held_up(begins_ns, Stall::Unbounded);
        assert_eq!(stalls.of(begins_ns + BLOCKS as u64 * BLOCK_NS), Stall::Bounded(3));
        let next_ns = begins_ns + BLOCK_NS;
        stalls.held_up(next_ns, Stall::Bounded(u64::MAX));
        assert_eq!(stalls.of(next_ns), Stall::Bounded(UNBOUNDED - 1));
        stalls.held_up(next_ns, Stall::Unbounded);
        assert_eq!(stalls.of(next_ns), Stall::Unbounded);
    }
}
