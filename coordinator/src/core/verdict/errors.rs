//! What fails of one kind of operations, where a workload has several: a rare one can be broken altogether and be lost among
//! the others.

use plimsoll_common::snapshot::SeriesCounts;
use statrs::distribution::{Binomial, DiscreteCDF as _};

use super::{Breach, Doubt, Errors, boxes, counts_of, owed_a_sample};
use crate::core::measurement::{SeriesMeasurement, StepMeasurement};
use crate::core::slo::{SeriesSlo, Slo, WHOLE_PPM};

/// So improbable are as many failures by chance, where as many fail as may: a run judges some hundred series at most.
const CHANCE: f64 = 1e-4;

impl Errors {
    /// Whether so many are no chance where the limit's share fails.
    fn are_no_chance(&self) -> bool {
        let by_chance = || Binomial::new(self.limit.as_f64(), self.attempted).ok().map(|all| all.sf(self.errors - 1));
        !self.hold() && by_chance().is_some_and(|chance| chance < CHANCE)
    }
}

/// Whether a series is of one kind of operations among several, and enough of those were due to judge it by itself.
fn is_judged(objective: &SeriesSlo, attempted: u64) -> bool {
    objective.part_ppm != WHOLE_PPM && owed_a_sample(objective, attempted)
}

/// Whether too many of the operations that owe a series a sample failed, whoever is to blame.
pub(super) fn is_broken(objective: &SeriesSlo, counts: &SeriesCounts, attempted: u64, slo: &Slo) -> bool {
    is_broken_by(objective, as_counted(counts, slo), attempted)
}

/// The same of so many that failed.
pub(super) fn is_broken_by(objective: &SeriesSlo, errors: Errors, attempted: u64) -> bool {
    is_judged(objective, attempted) && errors.are_no_chance()
}

fn as_counted(counts: &SeriesCounts, slo: &Slo) -> Errors {
    Errors { errors: counts.errors(), attempted: counts.ended(), limit: slo.error_rate }
}

fn anyway(counts: &SeriesCounts, slo: &Slo) -> Errors {
    Errors { errors: counts.failed_anyway, ..as_counted(counts, slo) }
}

/// The series of which too many failed. Of those that the same operations owe, and that count alike, the first.
fn broken<'a>(
    step: &'a StepMeasurement,
    slo: &'a Slo,
    count: fn(&SeriesCounts, &Slo) -> Errors,
) -> Vec<(&'a SeriesMeasurement, Errors)> {
    let mut found: Vec<(u32, &SeriesMeasurement, Errors)> = Vec::new();
    for objective in slo.series.iter().filter(|objective| is_judged(objective, step.counters.attempted)) {
        let Some(series) = step.series.iter().find(|series| series.series == objective.series) else { continue };
        let (part, errors) = (objective.part_ppm, count(&series.counts, slo));
        let is_told = found.iter().any(|&(of, _, told)| (of, told) == (part, errors));
        if errors.are_no_chance() && !is_told {
            found.push((part, series, errors));
        }
    }
    found.into_iter().map(|(_, series, errors)| (series, errors)).collect()
}

/// By the counts that the load boxes cannot have spoiled.
pub(super) fn breaches(step: &StepMeasurement, slo: &Slo) -> Vec<Breach> {
    let breach = |(series, errors): (&SeriesMeasurement, Errors)| {
        let series = series.series.clone();
        Breach::SeriesErrors { series, errors }
    };
    broken(step, slo, anyway).into_iter().map(breach).collect()
}

/// With what the load boxes spoiled.
pub(super) fn unproved(step: &StepMeasurement, slo: &Slo) -> Vec<Doubt> {
    let doubt = |(series, errors): (&SeriesMeasurement, Errors)| {
        let series = series.series.clone();
        let spoiled = |counts: &SeriesCounts| counts.errors().saturating_sub(counts.failed_anyway);
        let boxes = boxes(step, |agent| counts_of(agent, &series, step).map_or(0, spoiled));
        Doubt::SeriesErrorsByBoxes { series, errors, boxes }
    };
    broken(step, slo, as_counted).into_iter().map(doubt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::{measurement, slo};
    use crate::core::verdict::{Verdict, judge};

    /// E2 is owed by 943 of 10,000 operations, of which so many fail: refused by the service, and given up on a box that stood
    /// still.
    fn with(refused: u64, by_box: u64, part_ppm: u32) -> Verdict {
        let (mut step, mut slo) = (measurement(), slo());
        slo.series[1].part_ppm = part_ppm;
        let n = slo.series[1].part_of(step.counters.attempted) - refused;
        step.series[1].counts.n = n;
        for counts in [&mut step.series[1].counts, &mut step.agents[0].series[1]] {
            (counts.refused, counts.given_up, counts.failed_anyway) = (refused, by_box, refused);
        }
        step.fail(refused, by_box);
        judge(&step, &slo)
    }

    fn errors(errors: u64, attempted: u64) -> Errors {
        Errors { errors, attempted, limit: "0.001".parse().unwrap() }
    }

    #[test]
    fn a_rare_action_that_half_fails_trips_although_few_of_all_operations_fail() {
        // 9 of 10,000 hold; of the 20 of their kind they are half.
        let Verdict::Trip(breaches) = with(9, 0, 2_000) else { panic!("no trip") };
        let expected = Breach::SeriesErrors { series: "E2".into(), errors: errors(9, 20) };
        assert_eq!(breaches.iter().collect::<Vec<_>>(), [&expected]);
        // Fewer than 20 are expected: nothing is said of them alone.
        assert_eq!(with(9, 0, 1_900), Verdict::Pass);
        // All of them failed: that is why there is no sample.
        let (mut step, mut all) = (measurement(), slo());
        all.series[1].part_ppm = 2_000;
        all.error_rate = "0.01".parse().unwrap();
        step.series[1].counts = SeriesCounts { refused: 20, failed_anyway: 20, ..SeriesCounts::zero(2) };
        step.fail(20, 0);
        assert_eq!(judge(&step, &all).word(), "TRIP");
        // Of one kind of operations the whole says it already.
        assert_eq!(with(10, 0, WHOLE_PPM), Verdict::Pass);
    }

    #[test]
    fn what_chance_brings_trips_nothing() {
        // Where one in a thousand fails, one of 94 does in one trial of eleven, and four of 94 in three of a million.
        assert_eq!(with(1, 0, 9_400), Verdict::Pass);
        assert_eq!(with(2, 0, 9_400), Verdict::Pass);
        assert_eq!(with(4, 0, 9_400).word(), "TRIP");
        assert!(!errors(0, 0).are_no_chance() && !errors(0, 1_000).are_no_chance());
        assert!(Errors { limit: "0".parse().unwrap(), ..errors(1, 1_000_000) }.are_no_chance());
        assert!(!Errors { limit: "1".parse().unwrap(), ..errors(9, 9) }.are_no_chance());
    }

    #[test]
    fn what_a_box_spoiled_is_named_and_trips_nothing() {
        let Verdict::Inconclusive(doubts) = with(1, 8, 9_400) else { panic!("a verdict") };
        let doubts: Vec<&Doubt> = doubts.iter().collect();
        let [Doubt::SeriesErrorsByBoxes { series, errors: spoiled, boxes }] = &doubts[..] else { panic!("{doubts:?}") };
        assert_eq!((&**series, *spoiled), ("E2", errors(9, 94)));
        assert_eq!(
            boxes.iter().map(|spoiler| (&*spoiler.agent, spoiler.operations)).collect::<Vec<_>>(),
            [("box-a", 8)]
        );
    }
}
