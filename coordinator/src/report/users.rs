//! What the report of a run of users has beside: a line per action, who was online on which agent, and how far messages went.

use std::time::Duration;

use plimsoll_common::snapshot::{Observed, UsersOnline};
use plimsoll_common::units::parse_duration;
use plimsoll_common::workload::ObservationSpec;

use super::table::{Shape, levels, lines, name};
use super::{RunReport, TrialReport, words};
use crate::core::measurement::{AgentMeasurement, SeriesMeasurement, StepMeasurement};
use crate::core::slo::Quantile;
use crate::settings::commands::DAILY;

const EXPECTED: &str = "recipients_expected";
const REACHED: &str = "recipients_reached";

/// Whether a run's levels are users.
pub fn are_levels(report: &RunReport) -> bool {
    report.workload == DAILY
}

/// Whether what a workload observes are the recipients of messages.
pub fn observes(observations: &[ObservationSpec]) -> bool {
    observations.iter().any(|observation| observation.name == EXPECTED)
}

/// Columns at the end of a row.
pub const COLUMNS: [&str; 6] = [
    "users_active",
    "connections",
    "recipients_expected",
    "recipients_dropped",
    "users_by_agent",
    "connections_by_agent",
];

/// The fields of these columns.
pub fn fields(step: &StepMeasurement) -> Vec<String> {
    let users = step.users_online();
    let (expected, reached) = recipients(step).unwrap_or_default();
    vec![
        users.map_or(String::new(), |users| users.online.to_string()),
        users.map_or(String::new(), |users| users.connections.to_string()),
        expected.to_string(),
        expected.saturating_sub(reached).to_string(),
        by_agent(step, |agent, seen| format!("{}/{}", seen.online, agent.share)),
        by_agent(step, |_, seen| seen.connections.to_string()),
    ]
}

/// `box-a=500/500; box-b=498/500`: a figure of each agent.
fn by_agent(step: &StepMeasurement, figure: impl Fn(&AgentMeasurement, UsersOnline) -> String) -> String {
    let of = |agent: &AgentMeasurement| Some(format!("{}={}", agent.agent, figure(agent, agent.health.users?)));
    step.agents.iter().filter_map(of).collect::<Vec<_>>().join("; ")
}

/// Copies of messages that were expected, and that came; `None`: nothing of the kind is observed.
fn recipients(step: &StepMeasurement) -> Option<(u64, u64)> {
    let of = |name: &str| step.observed.iter().find(|observed: &&Observed| observed.name == name);
    Some((of(EXPECTED)?.sum, of(REACHED)?.sum))
}

/// One line per action and trial; empty where levels are no users.
pub fn actions(trials: &[TrialReport], shape: Shape) -> String {
    let of_users = |trial: &&TrialReport| trial.measurement.users_online().is_some();
    let rows: Vec<Vec<String>> = trials
        .iter()
        .filter(of_users)
        .flat_map(|trial| trial.measurement.series.iter().map(|series| action_row(trial, series)))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let header = [levels(trials), "series", "operations", "failed", "p50", "p95", "p99", "max"].map(str::to_owned);
    lines(shape, &header, &[1], rows).join("\n")
}

fn action_row(trial: &TrialReport, series: &SeriesMeasurement) -> Vec<String> {
    let us = |us: Option<u64>| us.map_or("-".to_owned(), |us| words::duration(Duration::from_micros(us)));
    let percentile = |quantile| series.percentile(quantile).map_or("-".to_owned(), words::duration);
    vec![
        name(trial),
        series.series.clone(),
        series.counts.ended().to_string(),
        series.counts.errors().to_string(),
        us(series.latency.quantile_us(0.5)),
        percentile(Quantile::P95),
        percentile(Quantile::P99),
        us(series.latency.max_us()),
    ]
}

/// One line per agent and trial, and one per trial for how far its messages went.
pub fn users(trials: &[TrialReport], shape: Shape) -> String {
    let rows: Vec<Vec<String>> = trials.iter().flat_map(rows_of).collect();
    if rows.is_empty() {
        return String::new();
    }
    let header = [levels(trials), "agent", "of them", "active", "connections", "recipients", "reached", "dropped"];
    lines(shape, &header.map(str::to_owned), &[1], rows).join("\n")
}

fn rows_of(trial: &TrialReport) -> Vec<Vec<String>> {
    let agent = |agent: &AgentMeasurement| {
        let seen = agent.health.users?;
        let figures = [agent.share.to_string(), seen.online.to_string(), seen.connections.to_string()];
        Some([name(trial), agent.agent.clone()].into_iter().chain(figures).collect::<Vec<_>>())
    };
    let mut rows: Vec<Vec<String>> = trial.measurement.agents.iter().filter_map(agent).collect();
    if let (Some(all), Some((expected, reached))) = (trial.measurement.users_online(), recipients(&trial.measurement)) {
        let figures = [trial.judged.level.to_string(), all.online.to_string(), all.connections.to_string()];
        let copies = [expected, reached, expected.saturating_sub(reached)].map(|copies| copies.to_string());
        let row = [name(trial), "all".to_owned()].into_iter().chain(figures).chain(copies);
        rows.push(row.collect());
    }
    rows
}

/// How fast people live here: `Pace: an 8h day in 3m, x160`, and whether it stands still at its peak.
pub fn pace(report: &RunReport) -> Option<String> {
    use plimsoll_common::contract::daily::behaviour::WORKING_DAY_HOURS;
    let hold = report.trials.first().filter(|_| are_levels(report))?.measurement.hold;
    let given = report.applied.iter().find(|applied| applied.setting == "day");
    let day = given.and_then(|applied| parse_duration(&applied.value)).unwrap_or(hold);
    let at_peak = report.applied.iter().any(|applied| applied.setting == "at-peak" && applied.value == "true");
    let at_peak = if at_peak { ", at its peak" } else { "" };
    let times = (WORKING_DAY_HOURS * 3600) as f64 / day.as_secs_f64();
    Some(format!(
        "Pace: an {WORKING_DAY_HOURS}h day in {}, x{}{at_peak}",
        humantime::format_duration(day),
        (times * 10.0).round() / 10.0
    ))
}
