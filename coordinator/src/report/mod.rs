//! The report: a run's measurements and verdicts as text and CSV. Pure: strings and bytes out, no I/O.

pub mod agents;
pub mod comparison;
pub mod csv;
#[cfg(test)]
pub mod fixture;
pub mod formats;
pub mod notes;
pub mod search;
pub mod soak;
pub mod table;
pub mod users;
pub mod words;

use std::time::Duration;

use plimsoll_common::workload::{self, ObservationSpec};
use serde::{Deserialize, Serialize};

use self::soak::Soak;
use self::table::Shape;
use crate::core::answer::{Ending, answer};
use crate::core::measurement::StepMeasurement;
use crate::core::ramp::JudgedTrial;
use crate::core::roster::FleetChange;
use crate::core::search::Search;
use crate::core::slo::Slo;

/// A whole run, for the report at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport {
    /// The run's name.
    pub run_id: String,
    /// "messages".
    pub workload: String,
    /// What it ran on: "medium".
    pub preset: String,
    /// The settings that applied, in the order to show.
    pub applied: Vec<Applied>,
    /// What the steps were judged by.
    pub slo: Slo,
    /// Every trial, in order.
    pub trials: Vec<TrialReport>,
    /// How the run ended.
    pub ending: Ending,
    /// The search that chose the trials, where one did.
    pub search: Option<Search>,
    /// Whether its trail is shown.
    pub explain: bool,
    /// Of one level that was held for long.
    pub soak: Option<Soak>,
}

/// One setting and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Its name: "hold".
    pub setting: String,
    /// Its value, in the words a flag takes: "30s". Secrets are hidden by whoever fills this in.
    pub value: String,
    /// "flag", "PLIMSOLL_HOLD", "plan file", "default".
    pub source: String,
}

/// One trial as the report shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialReport {
    /// Level and verdict.
    pub judged: JudgedTrial,
    /// What was measured.
    pub measurement: StepMeasurement,
    /// When the warmup started, RFC 3339 in UTC.
    pub started_at: String,
    /// How long the service's backlog took to come back to its baseline before this trial; `None`: it was there.
    #[serde(rename = "recovery_ns", with = "crate::core::encoding::nanos::optional")]
    pub recovery: Option<Duration>,
    /// Of a PASS: events rarer than one in this time are not excluded by its hold.
    #[serde(default, rename = "not_excluded_ns", with = "crate::core::encoding::nanos::optional")]
    pub not_excluded: Option<Duration>,
    /// Who joined or was lost between the trial before and this one, or in the one before.
    #[serde(default)]
    pub fleet: Vec<FleetChange>,
    /// Which rooms and users the fleet used; `None` where the workload deals none.
    pub deal: Option<DealSummary>,
}

/// What a workload of this name observes beside latency.
pub fn observations(workload: &str) -> &'static [ObservationSpec] {
    workload::entry(workload).map(|entry| entry.observations).unwrap_or_default()
}

/// Rooms and users in use over the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// The report at the end of a run: what applied, every trial, agent and durable, what to know beside the figures, and
/// last the ANSWER and the next limit.
pub fn render(report: &RunReport) -> String {
    let sections = [
        settings(report),
        trials(report),
        table_of(report, "Percentiles", table::percentiles),
        table_of(report, "Actions", users::actions),
        table_of(report, "Users", users::users),
        table_of(report, "Load boxes", table::agents),
        table_of(report, "Backlog", table::backlogs),
        list("Notes", &notes::notes(report)),
        ending(report),
        answer_lines(report),
    ];
    let sections: Vec<String> = sections.into_iter().filter(|section| !section.is_empty()).collect();
    sections.join("\n\n") + "\n"
}

/// A search judges its trials together: its trail stands in place of a verdict for each.
fn trials(report: &RunReport) -> String {
    match &report.search {
        None => table_of(report, "Trials", table::trials),
        Some(search) if report.explain => list("Trail", &search::trail_lines(search)),
        Some(_) => String::new(),
    }
}

fn settings(report: &RunReport) -> String {
    let line = |applied: &Applied| format!("{} = {} ({})", applied.setting, applied.value, applied.source);
    list(&format!("Run {}", report.run_id), &report.applied.iter().map(line).collect::<Vec<_>>())
}

fn list(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("{title}\n  {}", lines.join("\n  "))
}

fn table_of(report: &RunReport, title: &str, table: fn(&[TrialReport], Shape) -> String) -> String {
    let table = if report.trials.is_empty() { String::new() } else { table(&report.trials, Shape::Text) };
    if table.is_empty() { table } else { format!("{title}\n{table}") }
}

fn ending(report: &RunReport) -> String {
    match &report.ending {
        Ending::Completed => String::new(),
        Ending::Aborted => "ABORTED: this report covers the trials that were finished".to_owned(),
        Ending::Failed(why) => format!("NOT COMPLETED: {why}; this report covers the trials that were finished"),
    }
}

/// The last lines: `ANSWER: max RPS = 2000 (workload=messages, preset=medium)` and `Next limit: …`.
pub fn answer_lines(report: &RunReport) -> String {
    let trials: Vec<JudgedTrial> = report.trials.iter().map(|trial| trial.judged.clone()).collect();
    if let Some(search) = &report.search {
        let of = format!("workload={}, preset={}", report.workload, report.preset);
        let lines = search::answer_lines(search, &of, &report.ending);
        return std::iter::once(lines).chain(users::pace(report)).collect::<Vec<_>>().join("\n");
    }
    if let Some(soak) = &report.soak {
        return soak::answer_lines(report, soak);
    }
    let answer = answer(&trials);
    let of = format!("workload={}, preset={}", report.workload, report.preset);
    let bound = match report.ending {
        Ending::Completed => "nothing tripped: a lower bound",
        Ending::Aborted => "ABORTED before anything tripped: a lower bound",
        Ending::Failed(_) => "not completed: a lower bound",
    };
    let what = if users::are_levels(report) { "N" } else { "max RPS" };
    let mut lines = vec![match (answer.passed, answer.tripped) {
        (Some(passed), Some(_)) => format!("ANSWER: {what} = {passed} ({of})"),
        (Some(passed), None) => format!("ANSWER: {what} >= {passed} ({of}; {bound})"),
        (None, _) => format!("ANSWER: no step passed ({of})"),
    }];
    if !answer.gaps.is_empty() {
        let gaps: Vec<String> = answer.gaps.iter().map(ToString::to_string).collect();
        lines.push(format!("Gap: INCONCLUSIVE at {}, so the limit may lie there already", gaps.join(", ")));
    }
    lines.push(match &answer.next_limit {
        Some(step) => format!("Next limit: {} at {}", words::reasons(&step.verdict).join("; "), step.level),
        None if answer.passed.is_none() => "Next limit: nothing was measured".to_owned(),
        None if report.ending == Ending::Completed => "Next limit: none found; give higher --steps".to_owned(),
        None => "Next limit: none found; the run got no further".to_owned(),
    });
    lines.extend(users::pace(report));
    lines.join("\n")
}

#[cfg(test)]
mod tests;
