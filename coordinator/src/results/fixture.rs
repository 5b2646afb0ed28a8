//! For tests: saved runs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::write::RunWriter;
use super::*;
use crate::core::backlog::{BacklogRead, DurableReads, DurableState, StreamGrowth};
use crate::report::fixture::report;
use crate::report::render;

/// What the reports of `report::fixture` begin with.
pub fn header() -> Header {
    let report = report(Vec::new(), Ending::Completed);
    let object = |json: Value| json.as_object().unwrap().clone();
    Header {
        format: FORMAT,
        version: "0.1.0".into(),
        kind: RunKind::Steps,
        run_id: report.run_id,
        started_at: "2026-01-02T03:04:05Z".into(),
        workload: report.workload,
        preset: report.preset,
        settings: [("hold", "10s"), ("seed", "42")].map(|(name, value)| (name.into(), value.into())).into(),
        applied: report.applied,
        slo: report.slo,
        target: [
            ("server".into(), object(serde_json::json!({"version": "2.14.0"}))),
            ("stream MESSAGES".into(), object(serde_json::json!({"storage": "file", "num_replicas": 1}))),
        ]
        .into(),
    }
}

/// A trial with a read of each kind.
pub fn saved(report: TrialReport) -> SavedTrial {
    let durable = report.measurement.backlog[0].name.clone();
    let backlog = report.measurement.backlog[0].first.unwrap();
    let present = DurableState::Present { backlog, created: "then".into() };
    let at = std::time::Duration::from_millis(250);
    let reads = vec![BacklogRead { at, state: present.clone() }, BacklogRead { at: at * 2, state: DurableState::Gone }];
    let durables = vec![DurableReads { name: durable, baseline: Some(present), reads }];
    SavedTrial {
        report,
        reads: ServiceReads { durables, streams: vec![StreamGrowth { stream: "M".into(), messages: 9 }] },
    }
}

/// Writes a run of these trials; without an ending as if its process had died.
pub fn write_run(results: &Path, trials: &[TrialReport], ending: Option<Ending>) -> PathBuf {
    let mut writer = RunWriter::create(results, "20260102-030405", "messages").unwrap();
    writer.begin(header(), SystemTime::now()).unwrap();
    for trial in trials {
        writer.trial(saved(trial.clone()), SystemTime::now()).unwrap();
    }
    if let Some(ending) = ending {
        let text = render(&report(trials.to_vec(), ending.clone()));
        writer.end(&ending, &text).unwrap();
    }
    writer.dir().to_owned()
}
