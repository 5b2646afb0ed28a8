use plimsoll_common::units::Steps;

use super::*;
use crate::core::backlog::Fate;
use crate::core::fixture;
use crate::core::ramp::JudgedTrial;
use crate::core::simulated::{Queue, Simulation, slo};
use crate::core::verdict::judge;
use plimsoll_common::plan::TrialId;

/// A run as it was simulated or made up.
type Run = Vec<(JudgedTrial, StepMeasurement)>;

fn side<'a>(run: &'a Run, slo: &Slo) -> Side<'a> {
    let trials: Vec<Held> = run.iter().map(|(judged, step)| Held { judged, step }).collect();
    Side::of_steps(trials, slo)
}

fn compared(before: &Run, after: &Run) -> Comparison {
    compared_by(before, after, &fixture::slo())
}

fn compared_by(before: &Run, after: &Run, slo: &Slo) -> Comparison {
    compare(&side(before, slo), &side(after, slo), "0.05".parse().unwrap())
}

const LIMIT: Duration = Duration::from_millis(50);

/// 1,000/s to 2,000/s, 20 s each, against a queue that carries 2,000/s: p99 is 50 ms at 1,908/s.
fn simulated(queue: Queue, seed: u64) -> Run {
    let steps: Steps = "1000,1400,1600,1800,1900,2000".parse().unwrap();
    Simulation::new(queue, seed).ramp(&steps, Duration::from_secs(20), &slo(LIMIT))
}

const CLEAN: Queue = Queue { capacity: 2_000.0, drift: 0.0, stalls: None };

/// Of so many pairs of runs, the second by a queue of `part` of the capacity: how many show a regression.
fn regressions(queue: Queue, part: f64, pairs: u64) -> u64 {
    let slower = Queue { capacity: queue.capacity * part, ..queue };
    let shows = |pair: &u64| {
        compared_by(&simulated(queue, 2 * pair), &simulated(slower, 2 * pair + 1), &slo(LIMIT)).has_regression()
    };
    (0..pairs).filter(shows).count() as u64
}

#[test]
fn two_runs_of_one_build_show_no_regression_and_a_tenth_less_capacity_is_found() {
    let drift = Queue { drift: 0.015, ..CLEAN };
    let seldom = Queue { drift: 0.01, stalls: Some((Duration::from_millis(400), Duration::from_secs(15))), ..CLEAN };
    let same = [CLEAN, drift, seldom].map(|queue| regressions(queue, 1.0, 100));
    let less = [CLEAN, drift].map(|queue| regressions(queue, 0.9, 100));
    println!(
        "regressions in 100 pairs: {same:?} of one build (clean, drift, rare stalls), {less:?} a tenth slower (clean, drift)"
    );
    assert!(same.iter().all(|&found| found <= 5), "{same:?}");
    assert!(less.iter().all(|&found| found >= 95), "{less:?}");
}

/// One trial of a level, as the fixture measures it and then spoiled.
fn trial(level: u64, change: impl FnOnce(&mut StepMeasurement)) -> (JudgedTrial, StepMeasurement) {
    let mut step = fixture::measurement();
    step.target = Rate::per_second(level).unwrap();
    change(&mut step);
    let judged = JudgedTrial {
        trial: TrialId { step: level as u32, trial: 0 },
        level: step.target,
        verdict: judge(&step, &fixture::slo()),
    };
    (judged, step)
}

fn changes(comparison: &Comparison) -> Vec<(&What, Change)> {
    let significant = |finding: &&Finding| finding.change != Change::NotSignificant;
    comparison.findings.iter().filter(significant).map(|finding| (&finding.what, finding.change)).collect()
}

#[test]
fn a_run_is_like_itself() {
    let run = vec![trial(1000, |_| {})];
    let comparison = compared(&run, &run);
    assert_eq!((changes(&comparison), comparison.skipped.len()), (vec![], 0));
    assert_eq!(comparison.findings.len(), 2 + 2 * 2 + 1, "two durables, two percentiles of two series, errors");
}

#[test]
fn a_slower_tail_is_a_regression_one_way_and_an_improvement_the_other() {
    let slower = |factor: u64| {
        vec![trial(1000, |step| {
            for batch in &mut step.batches {
                let mut latency = plimsoll_common::histogram::LatencyHistogram::new();
                (0..500).for_each(|i| latency.record((19_000 + i % 100 * 10) * factor / 100));
                batch.latency[1] = latency.packed();
            }
        })]
    };
    let (usual, a_tenth, a_hundredth) = (slower(100), slower(110), slower(102));
    let found = |before: &Run, after: &Run| {
        changes(&compared(before, after)).iter().map(|(_, change)| *change).collect::<Vec<_>>()
    };
    assert_eq!(found(&usual, &a_tenth), [Change::Regression; 2]);
    assert_eq!(found(&a_tenth, &usual), [Change::Improvement; 2]);
    assert_eq!(found(&usual, &a_hundredth), [Change::WorseWithinTolerance; 2]);
}

#[test]
fn answers_differ_when_a_trip_lies_below_a_pass_and_not_when_they_meet() {
    let trip = |level| trial(level, |step| step.backlog[0] = fixture::durable("message-worker", 5_000));
    let pass = |level| trial(level, |_| {});
    let answer = |before: &Run, after: &Run| {
        let findings = compared(before, after).findings;
        findings.into_iter().find(|finding| finding.what == What::Answer).map(|finding| finding.change)
    };
    let (high, low, lower) = (vec![pass(1800), trip(2000)], vec![pass(1600), trip(1800)], vec![pass(1400), trip(1600)]);
    assert_eq!(answer(&high, &low), Some(Change::NotSignificant));
    assert_eq!(answer(&high, &lower), Some(Change::Regression));
    assert_eq!(answer(&lower, &high), Some(Change::Improvement));
    assert_eq!(answer(&high, &vec![trip(1000)]), Some(Change::Regression));
    assert_eq!(answer(&vec![pass(1000)], &vec![pass(500)]), None, "two lower bounds say nothing about each other");
}

#[test]
fn a_durable_that_falls_behind_by_more_than_a_twentieth_of_the_level_is_a_regression() {
    // 10 s at 1,000/s.
    let growing = |growth: i64| vec![trial(1000, |step| step.backlog[0] = fixture::durable("message-worker", growth))];
    let found = |before: &Run, after: &Run| changes(&compared(before, after)).first().map(|(_, change)| *change);
    assert_eq!(found(&growing(0), &growing(900)), None);
    assert_eq!(found(&growing(0), &growing(1_200)), Some(Change::Regression));
    assert_eq!(found(&growing(1_200), &growing(0)), Some(Change::Improvement));
    let gone = vec![trial(1000, |step| step.backlog[0].fate = Fate::Gone)];
    assert_eq!(found(&growing(0), &gone), Some(Change::Regression));
}

#[test]
fn errors_count_by_how_often_they_come() {
    let failing = |blocks: usize, by_service: bool| {
        vec![trial(1000, |step| {
            for block in &mut step.blocks[..blocks] {
                block.counters.completed -= 5;
                block.counters.failed.timeout += 5;
                block.counters.failed_anyway += if by_service { 5 } else { 0 };
            }
        })]
    };
    let found = |before: &Run, after: &Run| changes(&compared(before, after)).first().map(|(_, change)| *change);
    assert_eq!(found(&failing(0, true), &failing(20, true)), Some(Change::Regression));
    assert_eq!(found(&failing(20, true), &failing(0, true)), Some(Change::Improvement));
    assert_eq!(found(&failing(0, true), &failing(1, true)), None, "one block says little");
    assert_eq!(found(&failing(0, false), &failing(20, false)), None, "what load boxes did is nobody's regression");
}

#[test]
fn what_load_boxes_spoiled_is_left_out_and_a_level_with_too_little_left_is_skipped() {
    let with_void = |void: usize| {
        vec![trial(1000, |step| {
            for at in 0..void {
                step.blocks[at * 2].void = true;
                step.batches[at * 2].void = true;
                let mut slow = plimsoll_common::histogram::LatencyHistogram::new();
                (0..500).for_each(|_| slow.record(5_000_000));
                step.batches[at * 2].latency = vec![slow.packed(), slow.packed()];
            }
        })]
    };
    assert_eq!(changes(&compared(&with_void(0), &with_void(4))), []);
    let most = compared(&with_void(0), &with_void(8));
    assert!(changes(&most).is_empty());
    let tails = most.findings.iter().filter(|finding| matches!(finding.what, What::Tail { .. })).count();
    assert_eq!(tails, 0);
    let broken = vec![trial(1000, |step| step.keep_back(0, 2_000))];
    assert_eq!(compared(&with_void(0), &broken).skipped, [(Rate::per_second(1000).unwrap(), Skipped::NotTrusted)]);
    let other = vec![trial(1500, |_| {})];
    assert!(compared(&with_void(0), &other).findings.is_empty());
}
