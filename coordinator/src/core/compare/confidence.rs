//! Of which levels a run of fixed steps is sure. A verdict by counts alone is right of the hold and may be wrong of the level:
//! one stall trips a good one, and a hold without one passes a bad one.

use super::Held;
use super::levels::ALPHA;
use crate::core::intervals::{Part, share};
use crate::core::measurement::FleetBlock;
use crate::core::slo::Slo;
use crate::core::verdict::{Breach, Verdict};

/// Whether a PASS leaves no room for a broken percentile.
pub(super) fn passes(held: &Held, slo: &Slo) -> bool {
    let holds = |series: usize, above_index: usize, allowed: f64| {
        let above = parts(held, |block| (block.series[series].above[above_index], block.series[series].n));
        share(&above, allowed, ALPHA, 0.0).is_some_and(|share| share.upper <= allowed)
    };
    held.judged.verdict == Verdict::Pass
        && gates(held, slo).all(|(series, index, allowed)| holds(series, index, allowed))
}

/// Whether a TRIP leaves no room for objectives that hold.
pub(super) fn trips(held: &Held, slo: &Slo) -> bool {
    let Verdict::Trip(breaches) = &held.judged.verdict else { return false };
    let breaks = |series: usize, above_index: usize, allowed: f64| {
        let above = parts(held, |block| (block.series[series].above_anyway[above_index], block.series[series].n));
        share(&above, allowed, ALPHA, 0.0).is_some_and(|share| share.lower > allowed)
    };
    let errors = || {
        let errors = parts(held, |block| (block.counters.failed_anyway, block.counters.attempted));
        let allowed = slo.error_rate.as_f64();
        share(&errors, allowed, ALPHA, 0.0).is_some_and(|share| share.lower > allowed)
    };
    // Backlogs are judged by medians, which no single event moves, and one action's errors by how improbable they are.
    let sure_already = breaches.iter().any(|breach| !matches!(breach, Breach::Percentile(_) | Breach::ErrorRate(_)));
    sure_already || errors() || gates(held, slo).any(|(series, index, allowed)| breaks(series, index, allowed))
}

/// Every gated percentile: the series' and the limit's place, and what may lie above.
fn gates<'a>(held: &'a Held, slo: &'a Slo) -> impl Iterator<Item = (usize, usize, f64)> + 'a {
    let of_series = |(index, series): (usize, &'a crate::core::slo::SeriesSlo)| {
        series.gates().into_iter().map(move |gate| (index, gate.above_index, 1.0 - gate.quantile.as_f64()))
    };
    let counted = |(index, above_index, _): &(usize, usize, f64)| {
        held.step
            .blocks
            .iter()
            .all(|block| block.series.get(*index).is_some_and(|counts| counts.above.len() > *above_index))
    };
    slo.series.iter().enumerate().flat_map(of_series).filter(counted)
}

fn parts(held: &Held, of_block: impl Fn(&FleetBlock) -> (u64, u64)) -> Vec<Part> {
    let part = |block: &FleetBlock| {
        let (some, all) = of_block(block);
        Part { some, all, blocks: 1 }
    };
    held.step.blocks.iter().filter(|block| !block.void).map(part).collect()
}
