//! The report: a run's measurements and verdicts as text and CSV. Pure: strings and bytes out, no I/O.

pub mod csv;
pub mod table;
pub mod words;

use std::time::Duration;

use crate::core::answer::Ending;
use crate::core::measurement::StepMeasurement;
use crate::core::ramp::JudgedTrial;
use crate::core::slo::Slo;

/// A whole run, for the report at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport {
    /// The run's name.
    pub run_id: String,
    /// "messages".
    pub workload: String,
    /// "medium".
    pub preset: String,
    /// The settings that applied, in the order to show.
    pub applied: Vec<Applied>,
    /// What the steps were judged by.
    pub slo: Slo,
    /// Every trial, in order.
    pub trials: Vec<TrialReport>,
    /// How the run ended.
    pub ending: Ending,
}

/// One setting and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its name: "hold".
    pub setting: String,
    /// Its value, in the words a flag takes: "30s". Secrets are hidden by whoever fills this in.
    pub value: String,
    /// "flag", "PLIMSOLL_HOLD", "plan file", "default".
    pub source: String,
}

/// One trial as the report shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialReport {
    /// Level and verdict.
    pub judged: JudgedTrial,
    /// What was measured.
    pub measurement: StepMeasurement,
    /// When the warmup started, RFC 3339 in UTC.
    pub started_at: String,
    /// How long the service's backlog took to come back to its baseline before this trial; `None`: it was there.
    pub recovery: Option<Duration>,
    /// Which rooms and users the fleet used; `None` where the workload deals none.
    pub deal: Option<DealSummary>,
}

/// Rooms and users in use over the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DealSummary {
    /// Rooms.
    pub rooms: u64,
    /// Users who send.
    pub senders: u64,
    /// Distinct pairs of the two.
    pub pairs: u64,
    /// Largest relative deviation of a room's rate from its weight, in parts per million.
    pub largest_deviation_ppm: u64,
}

/// The report at the end of a run, ending in the ANSWER and the next limit.
pub fn render(report: &RunReport) -> String {
    let _ = report;
    String::new()
}
