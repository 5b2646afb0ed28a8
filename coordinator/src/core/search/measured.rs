//! From what a trial measured to what a search asks of it: which limits there are, and how each block stands to them.

use std::time::Duration;

use plimsoll_common::plan::BLOCK;

use super::outcome::{Block, Count, FractionLimit, Limits, Read, Showing, Signal, SlopeLimit};
use crate::core::backlog::{BacklogRead, DurableName};
use crate::core::measurement::{Fault, FleetBlock, SeriesMeasurement, StepMeasurement};
use crate::core::slo::{Gate, SeriesSlo, Slo};
use crate::core::verdict::{apart, few_users, owed_a_sample};
use plimsoll_common::snapshot::StepEnd;

/// The growth limit of a durable is one of so many seconds.
const GROWTH_SECONDS: f64 = 30.0;
/// An error rate of nothing at all is held to one in a thousand million.
const LEAST_ALLOWED: f64 = 1e-9;
/// A block in which more than this part was released too late or never is void.
const UNDERRUN: u64 = 100;

/// What a level is judged by.
pub fn limits(slo: &Slo, durables: &[DurableName]) -> Limits {
    let percentile = |(series, gate): (&SeriesSlo, Gate)| FractionLimit {
        signal: Signal::Percentile { series: series.series.clone(), quantile: gate.quantile, limit: gate.limit },
        allowed: 1.0 - gate.quantile.as_f64(),
    };
    let errors = FractionLimit { signal: Signal::ErrorRate, allowed: slo.error_rate.as_f64().max(LEAST_ALLOWED) };
    let slope = |durable: &DurableName| SlopeLimit {
        durable: durable.clone(),
        per_second: slo.pending_growth as f64 / GROWTH_SECONDS,
    };
    Limits {
        fractions: gates(slo).map(|(_, series, gate)| percentile((series, gate))).chain([errors]).collect(),
        slopes: durables.iter().map(slope).collect(),
    }
}

/// Every gated percentile, with the position of its series.
fn gates(slo: &Slo) -> impl Iterator<Item = (usize, &SeriesSlo, Gate)> {
    let of = |(index, series): (usize, &'_ SeriesSlo)| (index, series.gates());
    slo.series.iter().enumerate().flat_map(move |(index, series)| {
        let (index, gates) = of((index, series));
        gates.into_iter().map(move |gate| (index, series, gate))
    })
}

/// The blocks of a trial against the limits, those whose operations have all ended or are over every limit by now.
/// `elapsed` is how much of the hold the agents have reported; `None`: all, and the drain.
pub fn blocks(blocks: &[FleetBlock], slo: &Slo, elapsed: Option<Duration>) -> Vec<Block> {
    let largest = slo.largest_limit().unwrap_or_default();
    let is_known = |(index, block): &(usize, &FleetBlock)| match elapsed {
        None => true,
        Some(elapsed) => {
            let end = BLOCK * (*index as u32 + 1);
            elapsed >= end && (open(block) == 0 || elapsed >= end + largest)
        }
    };
    blocks.iter().enumerate().take_while(is_known).map(|(_, block)| one(block, slo)).collect()
}

/// See [`super::behind::behind`]: of every operation of a trial, whose error rate is the last of the counts. `completed` has one
/// entry per block. What failed is not under way any more, and is for the error rate to judge.
pub fn behind(showing: &Showing, completed: &[u64]) -> f64 {
    let to_complete = |block: &Block| block.counts.last().map_or(0, |errors| errors.n.saturating_sub(errors.above));
    let to_complete: Vec<u64> = showing.blocks.iter().map(to_complete).collect();
    super::behind::behind(&to_complete, completed)
}

fn open(block: &FleetBlock) -> u64 {
    let counters = &block.counters;
    counters.attempted.saturating_sub(counters.completed + counters.errors())
}

fn one(block: &FleetBlock, slo: &Slo) -> Block {
    let (counters, open) = (&block.counters, open(block));
    let percentile = |(index, objective, gate): (usize, &SeriesSlo, Gate)| {
        let series = &block.series[index];
        // What never left counts as slower for a PASS, and as nothing for a TRIP; of what is still open too, a series is
        // charged its part.
        let (above, anyway) = (series.above[gate.above_index], series.above_anyway[gate.above_index]);
        let (open, never_left) = (objective.part_of(open), objective.part_of(counters.never_left()));
        Count { n: series.n + open + never_left, above: above + open + never_left, anyway: anyway + open }
    };
    let errors = Count { n: counters.attempted, above: counters.errors(), anyway: counters.failed_anyway };
    Block {
        counts: gates(slo).map(percentile).chain([errors]).collect(),
        void: block.void || counters.underrun * UNDERRUN > counters.due,
    }
}

/// Reads of one durable.
pub fn reads(reads: &[BacklogRead], hold: Duration) -> Vec<Read> {
    let in_hold = reads.iter().filter(|read| read.at <= hold);
    in_hold
        .filter_map(|read| {
            let backlog = read.state.backlog()?.total() as f64;
            Some(Read { at: read.at.as_secs_f64(), backlog })
        })
        .collect()
}

/// Everything of a trial that ran to its end.
pub fn showing(step: &StepMeasurement, slo: &Slo, durables: Vec<Vec<Read>>) -> Showing {
    Showing { blocks: blocks(&step.blocks, slo, None), reads: durables }
}

/// Why a trial cannot be used; that it was stopped on purpose is no reason.
pub fn fault(step: &StepMeasurement, slo: &Slo, was_stopped: bool) -> Option<String> {
    let matters = |fault: &&Fault| match fault {
        Fault::EndedEarly { end: StepEnd::Stopped, .. } => !was_stopped,
        _ => true,
    };
    let named = step.faults.iter().find(matters).map(crate::report::words::fault);
    let empty = || (step.counters.attempted == 0).then(|| "no operation was released".to_owned());
    let silent = || {
        let owed = |name: &str| {
            let objective = slo.series.iter().find(|objective| objective.series == name);
            objective.is_none_or(|objective| owed_a_sample(objective, step.counters.attempted))
        };
        let is_silent =
            |series: &&SeriesMeasurement| series.counts.n == 0 && !series.limits_us.is_empty() && owed(&series.series);
        let silent = step.series.iter().find(is_silent)?;
        let why = || format!("{} has no samples although operations completed", silent.series);
        (step.counters.completed > 0 && step.counters.errors() == 0).then(why)
    };
    let doubt = || few_users(step).or_else(|| apart(step)).map(|doubt| crate::report::words::doubt(&doubt));
    named.or_else(empty).or_else(silent).or_else(doubt)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of a thousand operations, of which so many fail, and so many complete.
    fn part_left_undone(failed: u64, completed: u64) -> f64 {
        let count = Count { n: 1000, above: failed, anyway: failed };
        let showing = Showing { blocks: vec![Block { counts: vec![count], void: false }; 12], reads: Vec::new() };
        behind(&showing, &[completed; 12])
    }

    #[test]
    fn what_failed_is_not_left_undone() {
        // Where 5 % may fail, 2 % that are refused are no sign of an overload.
        assert_eq!(part_left_undone(20, 980), 0.0);
        assert!((part_left_undone(0, 980) - 0.02).abs() < 1e-9);
        assert!((part_left_undone(20, 930) - 50.0 / 980.0).abs() < 1e-9);
    }
}
