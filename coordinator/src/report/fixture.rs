//! For tests: trials that pass, trip and prove nothing, and a report of them.

use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::TrialId;
use plimsoll_common::units::Rate;

use super::*;
use crate::core::fixture::{DUE, durable, measurement, slo};
use crate::core::intervals::not_excluded;
use crate::core::verdict::{Verdict, judge};

/// A trial of 1,000/s doubled `step` times, spoiled as asked.
pub fn trial(step: u32, trial: u32, change: impl FnOnce(&mut StepMeasurement)) -> TrialReport {
    let mut measurement = measurement();
    measurement.trial = TrialId { step, trial };
    change(&mut measurement);
    let level = Rate::per_second(1000 << step).unwrap();
    let verdict = judge(&measurement, &slo());
    let passed = verdict == Verdict::Pass;
    TrialReport {
        not_excluded: if passed { not_excluded(&measurement, &slo()) } else { None },
        judged: JudgedTrial { trial: measurement.trial, level, verdict },
        measurement,
        started_at: "2026-01-02T03:04:05Z".into(),
        recovery: None,
        fleet: vec![],
        deal: None,
    }
}

/// A report of these.
pub fn report(trials: Vec<TrialReport>, ending: Ending) -> RunReport {
    let applied = |setting: &str, value: &str, source: &str| Applied {
        setting: setting.into(),
        value: value.into(),
        source: source.into(),
    };
    RunReport {
        run_id: "r1".into(),
        workload: "messages".into(),
        preset: "medium".into(),
        applied: vec![applied("hold", "10s", "flag"), applied("seed", "42", "default")],
        slo: slo(),
        trials,
        ending,
        search: None,
        explain: false,
        soak: None,
    }
}

/// Everything holds.
pub fn pass(step: u32) -> TrialReport {
    trial(step, 0, |_| {})
}

/// E2 slow enough for p95 and p99, and a durable that cannot keep up.
pub fn trip(step: u32) -> TrialReport {
    trial(step, 0, |measurement| {
        let mut latency = LatencyHistogram::new();
        (0..DUE).for_each(|i| latency.record(if i < 600 { 312_000 } else { 30_000 }));
        measurement.series[1].latency = latency;
        for batch in &mut measurement.batches {
            let mut latency = LatencyHistogram::new();
            (0..DUE / 20).for_each(|i| latency.record(if i < 30 { 312_000 } else { 30_000 }));
            batch.latency[1] = latency.packed();
        }
        measurement.slow(1, 1, 600, 0);
        measurement.backlog[1] = durable("broadcast-worker", 1240);
    })
}

/// A tenth of the operations never left.
pub fn inconclusive(step: u32, repeat: u32) -> TrialReport {
    trial(step, repeat, |measurement| measurement.keep_back(0, 1_000))
}
