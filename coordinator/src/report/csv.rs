//! One CSV row per trial, written and flushed as it is judged, so that a later error loses nothing. A soak has one per minute
//! besides, as each is over.

use std::io::Write;
use std::time::Duration;

use plimsoll_common::snapshot::{Counters, Observed};
use plimsoll_common::workload::ObservationSpec;

use super::soak::MinuteReport;
use super::table::{intervals, worst_backlog};
use super::{TrialReport, users, words};
use crate::core::measurement::{SeriesMeasurement, per_second};
use crate::core::slo::Quantile;

const BEFORE_SERIES: [&str; 19] = [
    "step",
    "trial",
    "target_rate",
    "achieved_rate",
    "completion_rate",
    "due",
    "attempted",
    "sent",
    "completed",
    "saturated",
    "underrun",
    "failed_timeout",
    "failed_refused",
    "failed_bad_reply",
    "failed_publish",
    "failed_no_responders",
    "lost",
    "failed_anyway",
    "error_rate",
];
const PER_OBSERVATION: [&str; 3] = ["count", "mean", "max"];
const PER_SERIES: [&str; 5] = ["n", "p50_ms", "p95_ms", "p99_ms", "max_ms"];
const AFTER_SERIES: [&str; 10] = [
    "clipped",
    "worst_durable",
    "worst_growth",
    "foreign",
    "duplicate",
    "late",
    "void_blocks",
    "verdict",
    "reasons",
    "started_at",
];

/// Behind all that older readers know. Empty: too few blocks to say, or no upper end.
const INTERVALS: [&str; 6] = ["p50_low_ms", "p50_high_ms", "p95_low_ms", "p95_high_ms", "p99_low_ms", "p99_high_ms"];

/// The first column of a soak: the minute, from 1, or this for its whole hold.
const WHOLE_HOLD: &str = "all";

/// What the rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// One per trial.
    Trials,
    /// One per minute, and one for the whole hold.
    Minutes,
}

/// Writes the header once and a row per trial or minute. The columns depend on the workload and on what the rows are; what is
/// no data is an empty field.
pub struct CsvReport<W: Write> {
    writer: ::csv::Writer<W>,
    rows: Rows,
    series: usize,
    /// Whether levels are users.
    users: bool,
}

impl<W: Write> CsvReport<W> {
    /// Writes and flushes the header.
    ///
    /// # Errors
    /// The writer's.
    pub fn start(
        to: W,
        rows: Rows,
        series: &[impl AsRef<str>],
        observations: &[ObservationSpec],
    ) -> Result<Self, ::csv::Error> {
        let columns = |name: &str, of: &[&str]| of.iter().map(|column| format!("{name}_{column}")).collect::<Vec<_>>();
        let per_series = series.iter().flat_map(|series| columns(series.as_ref(), &PER_SERIES));
        let observed = observations.iter().flat_map(|observation| columns(observation.name, &PER_OBSERVATION));
        let minute = (rows == Rows::Minutes).then(|| "minute".to_owned());
        let before = minute.into_iter().chain(BEFORE_SERIES.map(str::to_owned));
        let header = before.chain(per_series).chain(observed);
        let mut report = Self {
            writer: ::csv::Writer::from_writer(to),
            rows,
            series: series.len(),
            users: users::observes(observations),
        };
        let intervals = series.iter().flat_map(|series| columns(series.as_ref(), &INTERVALS));
        let last = intervals.chain(["not_excluded_s".to_owned()]);
        let of_users = if report.users { &users::COLUMNS[..] } else { &[] };
        let failed = series.iter().map(|series| format!("{}_failed", series.as_ref()));
        let last = last.chain(of_users.iter().map(|&column| column.to_owned())).chain(failed);
        report.write(header.chain(AFTER_SERIES.map(str::to_owned)).chain(last))?;
        Ok(report)
    }

    /// Writes and flushes one row.
    ///
    /// # Errors
    /// The writer's; a trial with other series than the header's.
    pub fn row(&mut self, trial: &TrialReport) -> Result<(), ::csv::Error> {
        let series = trial.measurement.series.iter().flat_map(series_fields);
        let observed = trial.measurement.observed.iter().flat_map(observed_fields);
        let first = (self.rows == Rows::Minutes).then(|| WHOLE_HOLD.to_owned());
        let before = first.into_iter().chain(before_series(trial));
        let of_users = if self.users { users::fields(&trial.measurement) } else { Vec::new() };
        let failed = trial.measurement.series.iter().map(|series| series.counts.errors().to_string());
        let last = last_fields(trial).chain(of_users).chain(failed);
        self.write(before.chain(series).chain(observed).chain(after_series(trial)).chain(last))
    }

    /// Writes and flushes the row of a minute.
    ///
    /// # Errors
    /// The writer's; a minute with other series than the header's.
    pub fn minute(&mut self, report: &MinuteReport) -> Result<(), ::csv::Error> {
        let minute = &report.minute;
        let series = minute.series.iter().flat_map(series_fields);
        let observed = minute.observed.iter().flat_map(observed_fields);
        let names = ["1", "1", &minute.target.to_string()].map(str::to_owned);
        let figures = figures(&minute.counters, minute.length);
        let worst = report.backlog.iter().max_by_key(|(_, growth)| *growth);
        let after = [
            minute.series.iter().map(|series| series.latency.clipped()).sum::<u64>().to_string(),
            worst.map_or(String::new(), |(name, _)| name.to_string()),
            worst.map_or(String::new(), |(_, growth)| growth.to_string()),
            minute.strays.foreign.to_string(),
            minute.strays.duplicate.to_string(),
            minute.strays.late.to_string(),
            minute.void_blocks.to_string(),
            String::new(),
            String::new(),
            report.started_at.clone(),
        ];
        let of_users = if self.users { users::COLUMNS.len() } else { 0 };
        let last = std::iter::repeat_n(String::new(), self.series * (INTERVALS.len() + 1) + 1 + of_users);
        let first = std::iter::once((minute.number + 1).to_string());
        self.write(first.chain(names).chain(figures).chain(series).chain(observed).chain(after).chain(last))
    }

    fn write(&mut self, fields: impl Iterator<Item = String>) -> Result<(), ::csv::Error> {
        self.writer.write_record(fields)?;
        self.writer.flush()?;
        Ok(())
    }
}

fn before_series(trial: &TrialReport) -> impl Iterator<Item = String> {
    let step = &trial.measurement;
    // Counted from 1, as people do and the table does.
    let names = [
        (trial.judged.trial.step + 1).to_string(),
        (trial.judged.trial.trial + 1).to_string(),
        trial.judged.level.to_string(),
    ];
    names.into_iter().chain(figures(&step.counters, step.hold))
}

/// What became of the operations of a window.
fn figures(counters: &Counters, window: Duration) -> [String; BEFORE_SERIES.len() - 3] {
    [
        format!("{:.3}", per_second(counters.attempted, window)),
        format!("{:.3}", per_second(counters.completed, window)),
        counters.due.to_string(),
        counters.attempted.to_string(),
        counters.sent.to_string(),
        counters.completed.to_string(),
        counters.saturated.to_string(),
        counters.underrun.to_string(),
        counters.failed.timeout.to_string(),
        counters.failed.refused.to_string(),
        counters.failed.bad_reply.to_string(),
        counters.failed.publish.to_string(),
        counters.failed.no_responders.to_string(),
        counters.lost.to_string(),
        counters.failed_anyway.to_string(),
        counters.error_rate().map_or(String::new(), |rate| format!("{rate:.9}")),
    ]
}

fn series_fields(series: &SeriesMeasurement) -> [String; PER_SERIES.len()] {
    let ms = |us: Option<u64>| us.map_or(String::new(), |us| format!("{:.3}", us as f64 / 1000.0));
    let percentile = |quantile| ms(series.percentile(quantile).map(|length| length.as_micros() as u64));
    [
        series.counts.n.to_string(),
        ms(series.latency.quantile_us(0.5)),
        percentile(Quantile::P95),
        percentile(Quantile::P99),
        ms(series.latency.max_us()),
    ]
}

fn last_fields(trial: &TrialReport) -> impl Iterator<Item = String> {
    let step = &trial.measurement;
    let ms = |us: Option<u64>| us.map_or(String::new(), |us| format!("{:.3}", us as f64 / 1000.0));
    let of_series = move |index| {
        intervals(step, index).into_iter().flat_map(move |interval| {
            [interval.map(|interval| interval.lower_us), interval.and_then(|interval| interval.upper_us)].map(ms)
        })
    };
    let not_excluded = trial.not_excluded.map_or(String::new(), |gap| format!("{:.3}", gap.as_secs_f64()));
    (0..step.series.len()).flat_map(of_series).chain([not_excluded])
}

fn observed_fields(observed: &Observed) -> [String; PER_OBSERVATION.len()] {
    let mean = observed.mean().map_or(String::new(), |mean| format!("{mean:.3}"));
    let max = if observed.count > 0 { observed.max.to_string() } else { String::new() };
    [observed.count.to_string(), mean, max]
}

fn after_series(trial: &TrialReport) -> [String; AFTER_SERIES.len()] {
    let step = &trial.measurement;
    let worst = worst_backlog(step);
    let growth = worst.and_then(|worst| worst.growth);
    [
        step.series.iter().map(|series| series.latency.clipped()).sum::<u64>().to_string(),
        worst.map_or(String::new(), |worst| worst.name.to_string()),
        growth.map_or(String::new(), |growth| growth.messages.to_string()),
        step.strays.foreign.to_string(),
        step.strays.duplicate.to_string(),
        step.strays.late.to_string(),
        step.blocks.iter().filter(|block| block.void).count().to_string(),
        trial.judged.verdict.word().to_owned(),
        words::reasons(&trial.judged.verdict).join("; "),
        trial.started_at.clone(),
    ]
}
