//! Tails, errors and backlogs at the levels that both runs held.

use std::collections::BTreeSet;
use std::time::Duration;

use plimsoll_common::snapshot::Counters;
use plimsoll_common::units::Rate;

use super::{Change, Finding, Held, Side, Values, What};
use crate::core::backlog::{DurableBacklog, Fate};
use crate::core::intervals::{Episodes, Interval, Part, Spread, share};
use crate::core::measurement::{Batch, FleetBlock};
use crate::core::slo::{Fraction, Quantile};
use crate::core::verdict::{Doubt, Verdict};

/// Each bound is wrong with this probability. A false difference needs two of them wrong at once, in opposite directions: with
/// some twenty comparisons between two runs, one pair in a hundred has one, even where a drift makes the bounds too narrow.
pub(super) const ALPHA: f64 = 0.002;

/// Why a level says nothing about the two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// It passed in neither: in overload latencies grow with the length of the hold.
    PassedInNeither,
    /// One of the runs has no trial of it that can be trusted.
    NotTrusted,
    /// A load box spoiled more than half of the blocks, or there are too few of them.
    TooFewBlocks,
}

pub(super) fn compare(before: &Side, after: &Side, tolerance: Fraction) -> (Vec<Finding>, Vec<(Rate, Skipped)>) {
    let levels = |side: &Side| side.trials.iter().map(|held| held.judged.level).collect::<BTreeSet<Rate>>();
    let (mut findings, mut skipped) = (Vec::new(), Vec::new());
    for &level in levels(before).intersection(&levels(after)) {
        match at_level(&Level::of(before, level), &Level::of(after, level), level, tolerance) {
            Ok(found) => findings.extend(found),
            Err(why) => skipped.push((level, why)),
        }
    }
    (findings, skipped)
}

fn at_level(before: &Level, after: &Level, level: Rate, tolerance: Fraction) -> Result<Vec<Finding>, Skipped> {
    if before.trials.is_empty() || after.trials.is_empty() {
        return Err(Skipped::NotTrusted);
    }
    if !before.passed && !after.passed {
        return Err(Skipped::PassedInNeither);
    }
    let mut findings = backlogs(before, after, level, tolerance);
    if !before.has_enough_blocks() || !after.has_enough_blocks() {
        return if findings.is_empty() { Err(Skipped::TooFewBlocks) } else { Ok(findings) };
    }
    let names = before.trials[0].step.series.iter().map(|series| &series.series);
    for (series, name) in names.enumerate() {
        let (was, is) = (before.spread(series), after.spread(series));
        for quantile in [Quantile::P95, Quantile::P99] {
            let what = What::Tail { level, series: name.clone(), quantile };
            findings.extend(tail(&was, &is, quantile, tolerance).map(|(values, change)| Finding {
                what,
                values,
                change,
            }));
        }
    }
    findings.extend(errors(before, after, level, tolerance));
    Ok(findings)
}

/// One run's trials of a level that can be trusted, its void blocks left out.
struct Level<'a> {
    trials: Vec<Held<'a>>,
    passed: bool,
    batches: Vec<&'a Batch>,
    blocks: Vec<&'a FleetBlock>,
    /// Before any was left out.
    all_blocks: usize,
    growth_limit: u64,
}

impl<'a> Level<'a> {
    fn of(side: &Side<'a>, level: Rate) -> Self {
        let trials: Vec<Held> = side
            .trials
            .iter()
            .filter(|held| held.judged.level == level && is_trusted(&held.judged.verdict))
            .copied()
            .collect();
        Self {
            passed: trials.iter().any(|held| held.judged.verdict == Verdict::Pass),
            batches: trials.iter().flat_map(|held| sound(&held.step.batches, |batch| batch.void)).collect(),
            blocks: trials.iter().flat_map(|held| sound(&held.step.blocks, |block| block.void)).collect(),
            all_blocks: trials.iter().map(|held| held.step.blocks.len()).sum(),
            trials,
            growth_limit: side.growth_limit,
        }
    }

    fn has_enough_blocks(&self) -> bool {
        self.blocks.len() * 2 >= self.all_blocks && self.spread(0).n() > 0
    }

    fn spread(&self, series: usize) -> Spread {
        Spread::of(self.batches.iter().copied(), series)
    }

    fn errors(&self, count: impl Fn(&Counters) -> u64) -> Vec<Part> {
        let part =
            |block: &&FleetBlock| Part { some: count(&block.counters), all: block.counters.attempted, blocks: 1 };
        self.blocks.iter().map(part).collect()
    }
}

/// A measurement that failed, or operations that never left, would flatter either side.
fn is_trusted(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Pass | Verdict::Trip(_) => true,
        Verdict::Inconclusive(doubts) => doubts.iter().all(|doubt| {
            matches!(
                doubt,
                Doubt::PercentileByBoxes { .. }
                    | Doubt::ErrorRateByBoxes { .. }
                    | Doubt::BacklogUnreadable { .. }
                    | Doubt::BacklogNotStationary { .. }
                    | Doubt::BacklogStands { .. }
            )
        }),
    }
}

/// Those that are not void and do not follow a void one, whose delays end in them.
fn sound<T>(all: &[T], void: impl Fn(&T) -> bool) -> impl Iterator<Item = &T> {
    let spoiled: Vec<bool> = (0..all.len()).map(|at| void(&all[at]) || at > 0 && void(&all[at - 1])).collect();
    all.iter().zip(spoiled).filter(|(_, spoiled)| !spoiled).map(|(one, _)| one)
}

/// `None`: a series without data, or with too few batches.
fn tail(was: &Spread, is: &Spread, quantile: Quantile, tolerance: Fraction) -> Option<(Values, Change)> {
    let q = quantile.as_f64();
    let (before_us, after_us) = (was.quantile_us(q)?, is.quantile_us(q)?);
    was.share_above(before_us, 1.0 - q, ALPHA, 0.0).and(is.share_above(after_us, 1.0 - q, ALPHA, 0.0))?;
    let (before, after) = (Duration::from_micros(before_us), Duration::from_micros(after_us));
    let relative = after_us as f64 / before_us as f64 - 1.0;
    let change = Change::of(is_slower(was, is, q), is_slower(is, was, q), relative, tolerance);
    Some((Values::Latencies { before, after }, change))
}

/// Whether some value certainly bounds the quantile of `one` and is certainly exceeded by that of `other`. Episodes that
/// only the other one shows weigh as much there as they would here.
fn is_slower(one: &Spread, other: &Spread, quantile: f64) -> bool {
    let allowed = 1.0 - quantile;
    let excess = |value_us: u64| rare_excess(&other.parts_above(value_us), allowed);
    let scale = one.n() as f64 / other.n() as f64;
    let limit = one.upper_limit_us(quantile, ALPHA, |value_us| excess(value_us) * scale.min(1.0));
    let above = limit.and_then(|limit_us| other.share_above(limit_us, allowed, ALPHA, 0.0));
    above.is_some_and(|above| above.lower > allowed)
}

fn rare_excess(parts: &[Part], allowed: f64) -> f64 {
    Episodes::of(parts, allowed).rare_excess(parts.len())
}

fn errors(before: &Level, after: &Level, level: Rate, tolerance: Fraction) -> Option<Finding> {
    // What only a load box did is held against neither: the worse side is counted without it, the better one with it.
    let all = |side: &Level| side.errors(Counters::errors);
    let by_service = |side: &Level| side.errors(|counters| counters.failed_anyway);
    let is_worse = |one: &Level, other: &Level| {
        let excess = rare_excess(&by_service(other), 0.0);
        let bound = |parts: &[Part], known: f64| -> Option<Interval> { share(parts, 0.0, ALPHA, known) };
        Some(bound(&by_service(other), 0.0)?.lower > bound(&all(one), excess)?.upper)
    };
    let part = |parts: Vec<Part>| {
        let (some, of) = parts.iter().fold((0, 0), |(some, of), part| (some + part.some, of + part.all));
        (of > 0).then(|| some as f64 / of as f64)
    };
    let (was, is) = (part(all(before))?, part(all(after))?);
    let relative = if was == is { 0.0 } else { is / was - 1.0 };
    Some(Finding {
        what: What::Errors { level },
        values: Values::Parts { before: was, after: is },
        change: Change::of(is_worse(before, after)?, is_worse(after, before)?, relative, tolerance),
    })
}

/// A durable that falls behind carries less than the level, by as much as its backlog grows.
fn backlogs(before: &Level, after: &Level, level: Rate, tolerance: Fraction) -> Vec<Finding> {
    let (was, is) = (before.trials[before.trials.len() - 1].step, after.trials[after.trials.len() - 1].step);
    let growth_limit = before.growth_limit.min(after.growth_limit) as f64;
    let limit_per_s = growth_limit / was.hold.min(is.hold).as_secs_f64();
    let pairs =
        was.backlog.iter().filter_map(|one| Some((one, is.backlog.iter().find(|other| other.name == one.name)?)));
    let finding = |(one, other): (&DurableBacklog, &DurableBacklog)| {
        let (before, after) = (per_second(one, was.hold)?, per_second(other, is.hold)?);
        let (worse, better, relative) = match (before, after) {
            (Some(before), Some(after)) => {
                let lost = after - before;
                (lost > limit_per_s, -lost > limit_per_s, lost / level.as_f64())
            }
            (was, is) => (was.is_some() && is.is_none(), was.is_none() && is.is_some(), f64::INFINITY),
        };
        Some(Finding {
            what: What::Backlog { level, durable: one.name.durable.clone() },
            values: Values::Growths { before, after },
            change: Change::of(worse, better, relative, tolerance),
        })
    };
    pairs.filter_map(finding).collect()
}

/// Messages per second; inside, `None`: it is not the durable that was there before. Outside: unreadable.
fn per_second(backlog: &DurableBacklog, hold: Duration) -> Option<Option<f64>> {
    match backlog.fate {
        Fate::Gone | Fate::Recreated => Some(None),
        Fate::Kept | Fate::Unknown => Some(Some(backlog.growth?.messages as f64 / hold.as_secs_f64())),
    }
}
