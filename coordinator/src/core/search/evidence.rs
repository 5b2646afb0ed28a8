//! All that the visits of one level have shown, pooled, and what it says of each limit.

use super::episodes::Episodes;
use super::outcome::{Block, Count, FractionLimit, Limits, Read, Showing};
use super::slope::{self, undisturbed};
use super::statistics::{Mean, Quantiles, average, batch_mean};
use crate::core::verdict::QUIET_BLOCKS;

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

/// What the visits of one level showed. Its order is that of the visits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// Per fraction limit, one value per block: the part of the operations over it, at most.
    at_most: Vec<Vec<f64>>,
    /// The same by what the service did alone.
    at_least: Vec<Vec<f64>>,
    episodes: Vec<Episodes>,
    /// Per fraction limit, the operations that it was held to.
    operations: Vec<u64>,
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
        self.operations.resize(limits.fractions.len(), 0);
        self.reads.resize_with(limits.slopes.len(), Vec::new);
        for (index, limit) in limits.fractions.iter().enumerate() {
            let at_most = fractions_at_most(&showing.blocks, index);
            let at_least = fractions_at_least(&showing.blocks, index);
            self.operations[index] += showing.blocks.iter().map(|block| block.counts[index].n).sum::<u64>();
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
            Some(fraction) => self.fraction(limit, fraction, largest_known, quantiles),
            None => {
                let slope = limit - limits.fractions.len();
                self.slope(slope, limits.slopes[slope].per_second, quantiles)
            }
        }
    }

    /// Operations of all visits that were held to a fraction limit; none for a slope.
    pub fn operations(&self, limit: usize) -> u64 {
        self.operations.get(limit).copied().unwrap_or(0)
    }

    fn fraction(&self, index: usize, limit: &FractionLimit, largest_known: f64, quantiles: &Quantiles) -> Figures {
        let allowed = limit.allowed;
        let values = |all: &[Vec<f64>]| all.get(index).and_then(|values| batch_mean(values, quantiles));
        let (at_most, at_least) = (values(&self.at_most), values(&self.at_least));
        let trips = self.violating.get(index).is_some_and(|&violating| violating >= TRIP_BLOCKS)
            && at_least.is_some_and(|mean| mean.lower > allowed);
        let passes = self.blocks >= PASS_BLOCKS
            && at_most.is_some_and(|mean| mean.upper <= allowed)
            && (limit.rare || self.operations(index) as f64 * allowed >= quantiles.none_of_so_many())
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

/// Per block, the operations over a limit, at most, as a part of those of a block on average: where blocks have few operations,
/// one without any says nothing, and one with a single one is no more than that.
pub fn fractions_at_most(blocks: &[Block], limit: usize) -> Vec<f64> {
    let mean = mean_operations(blocks, limit);
    blocks.iter().map(|block| part(block.counts[limit].above, mean)).collect()
}

/// Per block, the same by what the service did alone. A load box that stalled sends a burst
/// when it goes on, and near capacity that burst's queue outlives its block: a void block is no evidence, and neither is
/// what follows until nothing has been over the limit for [`QUIET_BLOCKS`].
pub fn fractions_at_least(blocks: &[Block], limit: usize) -> Vec<f64> {
    let mean = mean_operations(blocks, limit);
    let mut quiet = QUIET_BLOCKS;
    let at_least = |block: &Block| {
        let Count { above, anyway, .. } = block.counts[limit];
        if block.void {
            quiet = 0;
        } else if above == 0 {
            quiet += 1;
        } else if quiet < QUIET_BLOCKS {
            quiet = 0;
        }
        if quiet < QUIET_BLOCKS { 0.0 } else { part(anyway, mean) }
    };
    blocks.iter().map(at_least).collect()
}

fn mean_operations(blocks: &[Block], limit: usize) -> f64 {
    let all: u64 = blocks.iter().map(|block| block.counts[limit].n).sum();
    all as f64 / blocks.len().max(1) as f64
}

fn part(part: u64, whole: f64) -> f64 {
    if part == 0 { 0.0 } else { part as f64 / whole }
}

/// The mean of one trial's fractions over a limit, at most.
pub fn mean_at_most(blocks: &[Block], limit: usize) -> Option<f64> {
    (!blocks.is_empty()).then(|| average(&fractions_at_most(blocks, limit)))
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{FractionLimit, Signal};
    use super::*;

    /// What blocks of so many operations and so many over the limit say of a p99.
    fn judged(blocks: &[(u64, u64)], rare: bool) -> Figures {
        let fraction = FractionLimit { signal: Signal::ErrorRate, allowed: 0.01, rare };
        let limits = Limits { fractions: vec![fraction], slopes: Vec::new() };
        let block = |&(n, above): &(u64, u64)| Block { counts: vec![Count { n, above, anyway: above }], void: false };
        let showing = Showing { blocks: blocks.iter().map(block).collect(), reads: Vec::new() };
        let mut evidence = Evidence::default();
        evidence.add(&showing, &[], &limits);
        evidence.figures(&limits, 0, 0.0, &Quantiles::new(0.01))
    }

    #[test]
    fn few_operations_of_which_none_was_slow_show_nothing() {
        // Of 460 operations of which one in a hundred is slow, none is in one of a hundred samples.
        let none = |blocks: usize, n: u64, rare: bool| judged(&vec![(n, 0); blocks], rare).judgement;
        assert_eq!([none(160, 1, false), none(92, 5, false)], [Judgement::Undecided; 2]);
        assert_eq!([none(93, 5, false), none(40, 12, false)], [Judgement::Pass; 2]);
        assert_eq!(none(160, 1, true), Judgement::Pass, "the report says what it leaves open");
    }

    #[test]
    fn blocks_without_operations_say_nothing_of_the_mean() {
        // Four in ten blocks have one operation each, of which one in forty is slow.
        let blocks: Vec<(u64, u64)> = (0..1000).map(|i| (u64::from(i % 5 < 2), u64::from(i % 100 == 0))).collect();
        let figures = judged(&blocks, false);
        let mean = figures.at_most.unwrap();
        assert!((mean.mean - 0.025).abs() < 1e-9 && figures.judgement != Judgement::Pass, "{figures:?}");
    }
}
