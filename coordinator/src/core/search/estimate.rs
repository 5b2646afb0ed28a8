//! Where the limit probably lies, and how long it would take to say so: guesses that place trials, and never verdicts.

use std::time::Duration;

use super::confirm::Judge;
use super::evidence::{FARTHEST, Judgement};
use super::grid::Pair;
use super::outcome::BLOCKS_PER_SECOND;
use super::plan::Levels;
use super::pool::Pool;

/// How long the asked precision would take in all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Estimate {
    /// About so long from here.
    More(Duration),
    /// Too little was over a limit to tell.
    Unknown,
}

/// The guess may leave a pair by this many of its widths.
const REACH: f64 = 1.5;
/// By so many where the far level is so far that its distance says little: the line rises at least as steeply as it seems,
/// and queues rise steeply, so the limit lies near.
const REACH_OF_A_BOUND: f64 = 0.5;

/// Where the limit probably lies, by how far two levels are from it; `None` while one of them has shown nothing.
pub fn guess(pair: Pair, low: Option<f64>, high: Option<f64>) -> Option<f64> {
    let (low, high) = (low?, high?);
    let (bottom, width) = (pair.low.as_f64().ln(), (pair.high.as_f64() / pair.low.as_f64()).ln());
    let rise = high - low;
    let middle = (low + high) / 2.0;
    let offset = if rise > FARTHEST / 8.0 {
        -low / rise
    } else {
        // Flat, or falling by chance: a step towards where both say that the limit is.
        0.5 - middle.signum() * middle.abs().min(1.0)
    };
    let below = if high >= FARTHEST { REACH_OF_A_BOUND } else { REACH };
    let above = if low <= -FARTHEST { REACH_OF_A_BOUND } else { REACH };
    Some((bottom + width * offset.clamp(-below, 1.0 + above)).exp())
}

/// How long it takes to tell two levels `width` apart that lie around the limit, by the episodes seen at both:
/// K = (z·√(1 + cv²) ÷ (s·w/2))² episodes each, where s is the steepness d ln p ÷ d ln rate. Where a durable is undecided, an
/// interval narrows with the root of the time, and has to be narrower than the level is off the limit: a quarter of the width,
/// at least.
pub fn time_to_precision(pool: &Pool, pair: Pair, judge: Judge, (width, levels): (f64, Levels)) -> Estimate {
    let Judge { limits, focus, quantiles } = judge;
    let mut longest: Option<f64> = None;
    for &limit in focus.iter().filter(|&&limit| limit >= limits.fractions.len() && limits.is_limit(limit)) {
        let takes = [pair.low, pair.high].map(|rate| {
            let figures = pool.figures(rate, limit, limits, quantiles)?;
            let undecided = figures.judgement == Judgement::Undecided;
            let seconds = pool.level(rate)?.evidence.blocks() as f64 / BLOCKS_PER_SECOND;
            let mean = figures.at_most?;
            let off = (mean.mean - figures.allowed).abs().max(levels.operations(rate.as_f64()) * width / 4.0);
            Some(if undecided { seconds * (((mean.upper - mean.mean) / off).powi(2) - 1.0).max(0.0) } else { 0.0 })
        });
        if let [Some(low), Some(high)] = takes
            && low + high > 0.0
        {
            longest = Some(longest.map_or(low + high, |longest| longest.max(low + high)));
        }
    }
    for &limit in focus.iter().filter(|&&limit| limit < limits.fractions.len()) {
        let (Some(low), Some(high)) = (pool.level(pair.low), pool.level(pair.high)) else { continue };
        let mut episodes = low.evidence.episodes(limit);
        episodes.add(&high.evidence.episodes(limit));
        let seconds = (low.evidence.blocks() + high.evidence.blocks()) as f64 / BLOCKS_PER_SECOND;
        let figures = |rate| pool.figures(rate, limit, limits, quantiles);
        let distance = |rate| figures(rate).and_then(|figures| figures.distance(false, 1.0));
        let (Some(from), Some(to)) = (distance(pair.low), distance(pair.high)) else { continue };
        if episodes.count == 0 || seconds <= 0.0 {
            continue;
        }
        // Less steep than this no queue is; a fit that says so is noise.
        let steepness = ((to - from) / (pair.high.as_f64() / pair.low.as_f64()).ln()).max(2.0);
        let z = quantiles.student(usize::MAX);
        let needed = (z * (1.0 + episodes.variation_squared()).sqrt() / (steepness * width / 2.0)).powi(2);
        let takes = 2.0 * needed * seconds / episodes.count as f64 - seconds;
        longest = Some(longest.map_or(takes, |longest| longest.max(takes)));
    }
    longest.map_or(Estimate::Unknown, |seconds| Estimate::More(Duration::from_secs_f64(seconds.clamp(0.0, 1e8))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair {
        Pair { low: "1000".parse().unwrap(), high: "1050".parse().unwrap() }
    }

    #[test]
    fn the_guess_lies_where_the_line_through_both_levels_crosses_the_limit() {
        for (low, high, expected) in [
            (-3.4, 3.4, 1024.7),
            (-1.0, 3.0, 1012.3),
            (1.0, 3.0, 975.9),
            (1.5, 3.0, 952.4),
            (-3.0, -1.0, 1075.9),
            (-3.0, -2.0, 1129.7),
            // The far level is as far as shows: the limit lies nearer than the line says.
            (2.8, 4.5, 975.9),
            (-3.4, -2.8, 1075.9),
            // Flat: one step towards where both say that it is.
            (-3.4, -3.4, 1075.9),
            (3.4, 3.4, 975.9),
            (0.0, 0.0, 1024.7),
        ] {
            let guess = guess(pair(), Some(low), Some(high)).unwrap();
            assert!((guess - expected).abs() < 0.1, "{low} {high}: {guess}");
        }
        assert_eq!(guess(pair(), None, Some(1.0)), None);
    }
}
