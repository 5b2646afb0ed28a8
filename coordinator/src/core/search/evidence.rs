//! All that the visits of one level have shown, pooled, and what it says of each limit.

use super::episodes::Episodes;
use super::outcome::{Block, Limits, Read, Showing};
use super::slope::{self, undisturbed};
use super::statistics::{Mean, Quantiles, average, batch_mean};

/// What a level's evidence says of a limit, or of all limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It holds.
    Pass,
    /// It is broken.
    Trip,
    /// Neither is shown yet.
    Undecided,
}

/// Blocks that a PASS takes: what has not shown in 20 s may still come.
pub const PASS_BLOCKS: usize = 40;
/// Violating blocks that a TRIP takes: with fewer one pause of the service would do.
pub const TRIP_BLOCKS: usize = 20;
/// Blocks without anything over a limit, one after the other, that end the aftermath of a load box's stall.
pub const QUIET_BLOCKS: usize = 2;

/// What the visits of one level showed. Its order is that of the visits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// Per fraction limit, one value per block: the part of the operations over it, at most.
    at_most: Vec<Vec<f64>>,
    /// The same by what the service did alone.
    at_least: Vec<Vec<f64>>,
    episodes: Vec<Episodes>,
    violating: Vec<usize>,
    /// Per durable, one list per visit, or more where a load box disturbed it.
    reads: Vec<Vec<Vec<Read>>>,
    vanished: Vec<usize>,
    blocks: usize,
    void: usize,
}

/// A limit at a level, in figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// What they say.
    pub judgement: Judgement,
    /// The part of the operations over the limit, at most; for a durable how fast it falls behind, in messages per second.
    pub at_most: Option<Mean>,
    /// The same by what the service did alone.
    pub at_least: Option<Mean>,
    /// What is allowed.
    pub allowed: f64,
}

impl Evidence {
    /// Adds a visit.
    pub fn add(&mut self, showing: &Showing, vanished: &[usize], limits: &Limits) {
        self.at_most.resize_with(limits.fractions.len(), Vec::new);
        self.at_least.resize_with(limits.fractions.len(), Vec::new);
        self.episodes.resize_with(limits.fractions.len(), Episodes::default);
        self.violating.resize(limits.fractions.len(), 0);
        self.reads.resize_with(limits.slopes.len(), Vec::new);
        for (index, limit) in limits.fractions.iter().enumerate() {
            let at_most = fractions_at_most(&showing.blocks, index);
            let at_least = fractions_at_least(&showing.blocks, index);
            self.episodes[index].add(&Episodes::of(&at_most, limit.allowed));
            self.violating[index] += at_least.iter().filter(|&&fraction| fraction > limit.allowed).count();
            self.at_most[index].extend(at_most);
            self.at_least[index].extend(at_least);
        }
        for (all, reads) in self.reads.iter_mut().zip(&showing.reads) {
            all.extend(undisturbed(reads, &showing.blocks).map(<[Read]>::to_vec));
        }
        self.vanished.extend(vanished);
        self.blocks += showing.blocks.len();
        self.void += showing.blocks.iter().filter(|block| block.void).count();
    }

    /// Blocks seen so far.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Blocks that are no evidence against the service.
    pub fn void_blocks(&self) -> usize {
        self.void
    }

    /// The episodes against a fraction limit; none for a slope.
    pub fn episodes(&self, limit: usize) -> Episodes {
        self.episodes.get(limit).copied().unwrap_or_default()
    }

    /// What it says of one limit. `largest_known` is the largest episode that the search has seen against it at this level
    /// or below.
    pub fn figures(&self, limits: &Limits, limit: usize, largest_known: f64, quantiles: &Quantiles) -> Figures {
        match limits.fractions.get(limit) {
            Some(fraction) => self.fraction(limit, fraction.allowed, largest_known, quantiles),
            None => {
                let slope = limit - limits.fractions.len();
                self.slope(slope, limits.slopes[slope].per_second, quantiles)
            }
        }
    }

    fn fraction(&self, index: usize, allowed: f64, largest_known: f64, quantiles: &Quantiles) -> Figures {
        let values = |all: &[Vec<f64>]| all.get(index).and_then(|values| batch_mean(values, quantiles));
        let (at_most, at_least) = (values(&self.at_most), values(&self.at_least));
        let trips = self.violating.get(index).is_some_and(|&violating| violating >= TRIP_BLOCKS)
            && at_least.is_some_and(|mean| mean.lower > allowed);
        let passes = self.blocks >= PASS_BLOCKS
            && at_most.is_some_and(|mean| mean.upper <= allowed)
            && !self.episodes[index].leave_doubt(self.blocks, allowed, largest_known, quantiles);
        Figures { judgement: judgement(passes, trips), at_most, at_least, allowed }
    }

    fn slope(&self, index: usize, allowed: f64, quantiles: &Quantiles) -> Figures {
        let reads = self.reads.get(index).map_or(&[][..], Vec::as_slice);
        let mean = slope::pooled(reads.iter().map(Vec::as_slice), quantiles);
        let trips = self.vanished.contains(&index) || mean.is_some_and(|mean| mean.lower > allowed);
        // What a box disturbed was left out of the slopes, and is no time in which the durable kept up.
        let passes = self.blocks - self.void >= PASS_BLOCKS && mean.is_some_and(|mean| mean.upper <= allowed);
        Figures { judgement: judgement(passes, trips), at_most: mean, at_least: mean, allowed }
    }
}

fn judgement(passes: bool, trips: bool) -> Judgement {
    match (passes, trips) {
        (_, true) => Judgement::Trip,
        (true, false) => Judgement::Pass,
        (false, false) => Judgement::Undecided,
    }
}

impl Figures {
    /// How far the level is from the limit: negative below it, positive above, 0 at it, in natural logarithms of the
    /// part over it, from −[`FARTHEST`] to [`FARTHEST_ABOVE`]. A durable shows nothing below its limit; above it, `room` is
    /// the slope that counts as [`FARTHEST`].
    pub fn distance(&self, is_slope: bool, room: f64) -> Option<f64> {
        let mean = self.at_most?.mean;
        let distance = match (is_slope, mean > self.allowed) {
            (false, _) => (mean / self.allowed).ln(),
            (true, false) => -FARTHEST,
            (true, true) => (mean - self.allowed) / room * FARTHEST,
        };
        Some(distance.clamp(-FARTHEST, FARTHEST_ABOVE))
    }
}

/// A thirtieth, or thirty times what is allowed: beyond, a difference says nothing of how far away the limit is.
pub const FARTHEST: f64 = 3.4;
/// Above, a hundred times: all operations where 1 % may be.
pub const FARTHEST_ABOVE: f64 = 4.6;

/// Per block, the part of the operations over a limit, at most.
pub fn fractions_at_most(blocks: &[Block], limit: usize) -> Vec<f64> {
    blocks.iter().map(|block| part(block.counts[limit].above, block.counts[limit].n)).collect()
}

/// Per block, the part of the operations over a limit by what the service did alone. A load box that stalled sends a burst
/// when it goes on, and near capacity that burst's queue outlives its block: a void block is no evidence, and neither is
/// what follows until nothing has been over the limit for [`QUIET_BLOCKS`].
pub fn fractions_at_least(blocks: &[Block], limit: usize) -> Vec<f64> {
    let mut quiet = QUIET_BLOCKS;
    let at_least = |block: &Block| {
        let Count { n, above, anyway } = block.counts[limit];
        if block.void {
            quiet = 0;
        } else if above == 0 {
            quiet += 1;
        } else if quiet < QUIET_BLOCKS {
            quiet = 0;
        }
        if quiet < QUIET_BLOCKS { 0.0 } else { part(anyway, n) }
    };
    blocks.iter().map(at_least).collect()
}

use super::outcome::Count;

fn part(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The mean of one trial's fractions over a limit, at most.
pub fn mean_at_most(blocks: &[Block], limit: usize) -> Option<f64> {
    (!blocks.is_empty()).then(|| average(&fractions_at_most(blocks, limit)))
}
