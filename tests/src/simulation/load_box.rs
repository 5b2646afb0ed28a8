//! A load box that cannot keep its schedule: what it releases late, and what it therefore counts.

use super::queue::{LIMIT, Queue};
use plimsoll::core::search::outcome::{Block, Count, Showing};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// What is wrong with a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A CPU quota: 80 ms of every 100 ms are lost.
    Throttled,
    /// Frozen for a second, once in ten.
    Frozen,
    /// Held up for some milliseconds several times a second.
    Late,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Throttled, Self::Frozen, Self::Late];
}

/// Half a second, as blocks are.
const BLOCK: f64 = 0.5;
/// Released later than this is not released at all.
const MAX_LATENESS: f64 = 0.1;

/// Loads a queue through a box in trouble, and counts as an agent does: latency from the intended time, `anyway` after the
/// stalls of the blocks around the operation, and a block void where the box stalled for over a tenth of the limit.
pub fn load(queue: &mut Queue, trouble: Trouble, rate: f64, blocks: usize, seed: u64) -> Showing {
    let mut rng = SmallRng::seed_from_u64(seed);
    let stalls = stalls(trouble, blocks as f64 * BLOCK, &mut rng);
    let begin = queue.now();
    let mut counts = vec![Count::default(); blocks];
    let mut block_stalls = vec![0.0_f64; blocks + 40];
    let mut over: Vec<(usize, usize, f64)> = Vec::new();
    let mut next_stall = 0;
    let mut at = 0.0;
    loop {
        at += -(1.0 - uniform(&mut rng)).ln() / rate;
        let block = (at / BLOCK) as usize;
        if block >= blocks {
            break;
        }
        while stalls.get(next_stall).is_some_and(|(_, end)| *end <= at) {
            next_stall += 1;
        }
        let release = stalls.get(next_stall).filter(|(start, _)| *start <= at).map_or(at, |(_, end)| *end);
        let seen = ((release / BLOCK) as usize).min(block_stalls.len() - 1);
        block_stalls[seen] = block_stalls[seen].max(release - at);
        counts[block].n += 1;
        if release - at > MAX_LATENESS {
            counts[block].above += 1;
            continue;
        }
        let latency = queue.serve(begin + release) + release - at;
        if latency > LIMIT {
            counts[block].above += 1;
            over.push((block, (((at + latency) / BLOCK) as usize).min(block_stalls.len() - 1), latency));
        }
    }
    for (block, ended, latency) in over {
        let stalled: f64 = block_stalls[block.saturating_sub(1)..=ended].iter().sum();
        counts[block].anyway += u64::from(latency - stalled > LIMIT);
    }
    let block = |(count, stall): (Count, &f64)| Block { counts: vec![count], void: *stall > LIMIT / 10.0 };
    Showing { blocks: counts.into_iter().zip(&block_stalls).map(block).collect(), reads: Vec::new() }
}

/// From when to when the box stands still.
fn stalls(trouble: Trouble, length: f64, rng: &mut SmallRng) -> Vec<(f64, f64)> {
    let mut stalls = Vec::new();
    let mut at = uniform(rng);
    while at < length {
        let (stands, goes_on) = match trouble {
            Trouble::Throttled => (0.08, 0.02),
            Trouble::Frozen => (1.0, 9.0),
            Trouble::Late => (0.02 * uniform(rng), 0.4 * uniform(rng)),
        };
        stalls.push((at, at + stands));
        at += stands + goes_on;
    }
    stalls
}

fn uniform(rng: &mut SmallRng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}
