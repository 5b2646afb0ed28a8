//! The tables of the report at the end of a run: every trial, every agent, every durable.

use std::time::Duration;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, ContentLineStyle, LineStyle, Table, TableStyle};

use super::{TrialReport, words};
use crate::core::backlog::{Backlog, DurableBacklog, Fate};
use crate::core::intervals::{CONFIDENCE, PercentileInterval, Spread};
use crate::core::measurement::{AgentMeasurement, SeriesMeasurement, StepMeasurement};
use crate::core::slo::Quantile;

const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none())
    .header_separator(LineStyle::none().fill('-').junction('-'))
    .content_lines(ContentLineStyle::none());

/// What a table is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A terminal.
    Text,
    /// A page.
    Markdown,
}

/// Lines of a table: two of the header, then one per row. Columns but the `left` ones are aligned to the right.
pub(super) fn lines(shape: Shape, header: &[String], left: &[usize], rows: Vec<Vec<String>>) -> Vec<String> {
    let mut table = Table::new();
    let style = if shape == Shape::Markdown { ASCII_MARKDOWN } else { STYLE };
    table.load_style(style).set_header(header.to_vec()).add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_cell_alignment(if left.contains(&index) { CellAlignment::Left } else { CellAlignment::Right });
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// One row per trial, with the reasons of its verdict indented below it; on a page, in a list below the table.
pub fn trials(trials: &[TrialReport], shape: Shape) -> String {
    let series = shown(trials.first().map_or(&[][..], |trial| &trial.measurement.series), of_users(trials));
    let per_series =
        series.iter().flat_map(|s| ["p50", "p95", "p99", "max"].map(|what| format!("{} {what}", s.series)));
    let header: Vec<String> = [levels(trials), "achieved/s", "completed/s"]
        .map(str::to_owned)
        .into_iter()
        .chain(per_series)
        .chain(["err%", "worst backlog", "verdict"].map(str::to_owned))
        .collect();
    let last = header.len() - 1;
    let users = of_users(trials);
    let lines = lines(shape, &header, &[last - 1, last], trials.iter().map(|trial| row(trial, users)).collect());
    let (head, rows) = lines.split_at(lines.len().min(2));
    let mut text: Vec<String> = head.to_vec();
    let mut below = Vec::new();
    for (line, trial) in rows.iter().zip(trials) {
        text.push(line.clone());
        let reasons = words::reasons(&trial.judged.verdict);
        match shape {
            Shape::Text => text.extend(reasons.iter().map(|reason| format!("    {reason}"))),
            Shape::Markdown => below.extend(reasons.iter().map(|reason| format!("- {}: {reason}", name(trial)))),
        }
    }
    if !below.is_empty() {
        text.push(String::new());
    }
    text.extend(below);
    text.join("\n")
}

fn row(trial: &TrialReport, users: bool) -> Vec<String> {
    let step = &trial.measurement;
    let mut cells = vec![name(trial), rate(step.achieved_rate()), rate(step.completion_rate())];
    cells.extend(shown(&step.series, users).iter().flat_map(series_cells));
    cells.push(step.error_rate().map_or("no data".into(), |rate| format!("{:.3}", rate * 100.0)));
    cells.push(worst_backlog(step).map_or("-".into(), backlog_words));
    cells.push(verdict(trial));
    cells
}

/// Whether levels are users.
fn of_users(trials: &[TrialReport]) -> bool {
    trials.iter().any(|trial| trial.measurement.users_online().is_some())
}

/// The header of the column of levels.
pub(super) fn levels(trials: &[TrialReport]) -> &'static str {
    if of_users(trials) { "users" } else { "target/s" }
}

/// The series that have columns of their own: what people do beside writing has lines in a table of its own.
fn shown(series: &[SeriesMeasurement], users: bool) -> &[SeriesMeasurement] {
    if users { &series[..series.len().min(3)] } else { series }
}

/// The word, and beside a PASS what its hold cannot exclude.
fn verdict(trial: &TrialReport) -> String {
    let word = trial.judged.verdict.word();
    match trial.not_excluded {
        Some(gap) => format!("{word} (not excluded: stalls rarer than one in {})", words::duration(gap)),
        None => word.to_owned(),
    }
}

/// The target rate; from the second trial of a step on, with the trial, counted from 1.
pub(super) fn name(trial: &TrialReport) -> String {
    match trial.judged.trial.trial {
        0 => level(trial),
        repeat => format!("{} (trial {})", level(trial), repeat + 1),
    }
}

/// The level; where it is of users, with how many were online throughout if that differs.
pub fn level(trial: &TrialReport) -> String {
    let level = trial.judged.level;
    match trial.measurement.users_online() {
        Some(users) if users.online != level.milli() / 1000 => format!("{level} ({} active)", users.online),
        _ => level.to_string(),
    }
}

pub(super) fn rate(per_second: f64) -> String {
    format!("{per_second:.1}")
}

fn series_cells(series: &SeriesMeasurement) -> [String; 4] {
    let Some(p50) = series.latency.quantile_us(0.5) else {
        return ["no data", "-", "-", "-"].map(str::to_owned);
    };
    let us = |us: u64| words::duration(Duration::from_micros(us));
    let percentile = |quantile| series.percentile(quantile).map_or("-".into(), words::duration);
    let max =
        if series.latency.clipped() > 0 { "> 60s".into() } else { series.latency.max_us().map_or("-".into(), us) };
    [us(p50), percentile(Quantile::P95), percentile(Quantile::P99), max]
}

/// The durable that is gone or was created anew, or else the one that grew most.
pub(super) fn worst_backlog(step: &StepMeasurement) -> Option<&DurableBacklog> {
    step.backlog.iter().max_by_key(|durable| {
        let vanished = matches!(durable.fate, Fate::Gone | Fate::Recreated);
        (vanished, durable.growth.map(|growth| growth.messages))
    })
}

fn backlog_words(backlog: &DurableBacklog) -> String {
    let durable = &backlog.name.durable;
    match (backlog.fate, backlog.growth) {
        (Fate::Gone, _) => format!("{durable} gone"),
        (Fate::Recreated, _) => format!("{durable} recreated"),
        (_, Some(growth)) => format!("{durable} {:+}", growth.messages),
        (_, None) => format!("{durable} unreadable"),
    }
}

/// Percentiles that have an interval.
pub(super) const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];

/// The intervals of a trial's series, as [`QUANTILES`] are; `None`: too few blocks, or no data.
pub(super) fn intervals(step: &StepMeasurement, series: usize) -> [Option<PercentileInterval>; QUANTILES.len()] {
    let spread = Spread::of_trial(step, series);
    QUANTILES.map(|quantile| spread.display(quantile, CONFIDENCE))
}

/// One line per series and trial: each percentile with the interval that it lies in, by how latencies vary from block to
/// block.
pub fn percentiles(trials: &[TrialReport], shape: Shape) -> String {
    let header = [levels(trials), "series", "p50", "95 % interval", "p95", "95 % interval", "p99", "95 % interval"];
    let rows = trials.iter().flat_map(|trial| {
        let step = &trial.measurement;
        step.series.iter().enumerate().map(move |(index, series)| {
            let [p50, p95, p99, _] = series_cells(series);
            let cells = [p50, p95, p99].into_iter().zip(intervals(step, index));
            let cells = cells.flat_map(|(value, interval)| [value, interval_words(interval)]);
            [name(trial), series.series.clone()].into_iter().chain(cells).collect()
        })
    });
    lines(shape, &header.map(str::to_owned), &[1], rows.collect()).join("\n")
}

fn interval_words(interval: Option<PercentileInterval>) -> String {
    let us = |us: u64| words::duration(Duration::from_micros(us));
    match interval {
        None => "-".to_owned(),
        Some(PercentileInterval { lower_us, upper_us: None, .. }) => format!(">= {}", us(lower_us)),
        Some(PercentileInterval { lower_us, upper_us: Some(upper_us), .. }) => {
            format!("{} to {}", us(lower_us), us(upper_us))
        }
    }
}

/// Agents of one trial that have a line of their own; of a larger fleet the ones with the largest lateness.
const AGENT_LINES: usize = 16;

/// One line per agent and trial.
pub fn agents(trials: &[TrialReport], shape: Shape) -> String {
    let header = [
        levels(trials),
        "agent",
        if of_users(trials) { "of them" } else { "share/s" },
        "achieved/s",
        "lateness p50",
        "p99",
        "max",
        "CPU%",
        "box CPU%",
        "steal%",
        "max in flight",
        "void",
    ];
    let rows = trials.iter().flat_map(|trial| {
        let step = &trial.measurement;
        let mut agents: Vec<&AgentMeasurement> = step.agents.iter().collect();
        if agents.len() > AGENT_LINES {
            agents.sort_by_key(|agent| std::cmp::Reverse(agent.health.lateness.map(|lateness| lateness.p99)));
        }
        let shown = agents.iter().take(AGENT_LINES).map(|agent| agent_row(trial, agent)).collect::<Vec<_>>();
        let more = agents.len().checked_sub(AGENT_LINES).filter(|&more| more > 0);
        let more = more.map(|more| vec![name(trial), format!("{more} more, all less late")]);
        shown.into_iter().chain(more)
    });
    lines(shape, &header.map(str::to_owned), &[1], rows.collect()).join("\n")
}

fn agent_row(trial: &TrialReport, agent: &AgentMeasurement) -> Vec<String> {
    let health = &agent.health;
    let lateness = |pick: fn(&crate::core::measurement::Lateness) -> Duration| {
        health.lateness.as_ref().map_or("no data".into(), |lateness| words::duration(pick(lateness)))
    };
    let percent = |milli: u32| format!("{:.0}", f64::from(milli) / 10.0);
    vec![
        name(trial),
        agent.agent.clone(),
        agent.share.to_string(),
        rate(agent.achieved_rate(trial.measurement.hold)),
        lateness(|lateness| lateness.p50),
        lateness(|lateness| lateness.p99),
        lateness(|lateness| lateness.max),
        percent(health.process_cpu_milli.mean),
        percent(health.box_cpu_milli.mean),
        percent(health.steal_milli.mean),
        health.in_flight_max.to_string(),
        health.void_blocks.to_string(),
    ]
}

/// One line per durable and trial, with what is pending and what waits for its acknowledgement; empty where nothing is
/// watched.
pub fn backlogs(trials: &[TrialReport], shape: Shape) -> String {
    let rows: Vec<Vec<String>> = trials
        .iter()
        .flat_map(|trial| trial.measurement.backlog.iter().map(|durable| backlog_row(trial, durable)))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let header = [levels(trials), "stream", "durable", "pending", "ack pending", "growth"].map(str::to_owned);
    lines(shape, &header, &[1, 2], rows).join("\n")
}

fn backlog_row(trial: &TrialReport, backlog: &DurableBacklog) -> Vec<String> {
    let moved = |pick: fn(Backlog) -> u64| match (backlog.first, backlog.last) {
        (Some(first), Some(last)) => format!("{} -> {}", pick(first), pick(last)),
        _ => "no data".into(),
    };
    let growth = match (backlog.fate, backlog.growth) {
        (Fate::Gone, _) => "gone".into(),
        (Fate::Recreated, _) => "recreated".into(),
        (_, None) => "unreadable".into(),
        (_, Some(growth)) => format!("{:+}", growth.messages),
    };
    vec![
        name(trial),
        backlog.name.stream.clone(),
        backlog.name.durable.clone(),
        moved(|backlog| backlog.pending),
        moved(|backlog| backlog.ack_pending),
        growth,
    ]
}
