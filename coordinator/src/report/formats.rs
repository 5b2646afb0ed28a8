//! The report for others than a terminal: CSV, JSON, Markdown.

use std::collections::BTreeMap;

use plimsoll_common::snapshot::{Counters, Observed, Strays};
use plimsoll_common::units::Rate;
use serde::Serialize;

use super::csv::{CsvReport, Rows};
use super::table::Shape;
use super::{Applied, RunReport, TrialReport, answer_lines, ending, notes, observations, search, table, users, words};
use crate::core::answer::{Ending, answer};
use crate::core::backlog::DurableBacklog;
use crate::core::intervals::PercentileInterval;
use crate::core::measurement::{AgentMeasurement, SeriesMeasurement};
use crate::core::ramp::JudgedTrial;
use crate::core::search::Search;
use crate::core::search::conclusion;
use crate::core::slo::{Quantile, Slo};
use crate::core::verdict::Verdict;

/// The rows of `--csv`.
pub fn csv(report: &RunReport) -> String {
    let mut bytes = Vec::new();
    let series: Vec<&str> = report.slo.series.iter().map(|series| &*series.series).collect();
    let rows = if report.soak.is_some() { Rows::Minutes } else { Rows::Trials };
    let mut csv =
        CsvReport::start(&mut bytes, rows, &series, observations(&report.workload)).expect("a Vec takes every byte");
    for minute in report.soak.iter().flat_map(|soak| &soak.minutes) {
        csv.minute(minute).expect("a minute has the series of its objectives");
    }
    report.trials.iter().for_each(|trial| csv.row(trial).expect("a trial has the series of its objectives"));
    drop(csv);
    String::from_utf8(bytes).expect("texts make a text")
}

/// The sections of the text, as a page.
pub fn markdown(report: &RunReport) -> String {
    let table_of = |title: &str, table: fn(&[TrialReport], Shape) -> String| {
        let table = if report.trials.is_empty() { String::new() } else { table(&report.trials, Shape::Markdown) };
        if table.is_empty() { table } else { format!("## {title}\n\n{table}") }
    };
    let list = |title: &str, lines: &[String]| {
        if lines.is_empty() { String::new() } else { format!("## {title}\n\n- {}", lines.join("\n- ")) }
    };
    let setting = |applied: &Applied| format!("`{} = {}` ({})", applied.setting, applied.value, applied.source);
    let sections = [
        format!("# Run {}", report.run_id),
        answer_lines(report).lines().map(|line| format!("**{line}**")).collect::<Vec<_>>().join("\\\n"),
        ending(report),
        match &report.search {
            None => table_of("Trials", table::trials),
            Some(search) => list("Trail", &search::trail_lines(search)),
        },
        table_of("Percentiles", table::percentiles),
        table_of("Actions", users::actions),
        table_of("Users", users::users),
        table_of("Load boxes", table::agents),
        table_of("Backlog", table::backlogs),
        list("Notes", &notes::notes(report)),
        list("Settings", &report.applied.iter().map(setting).collect::<Vec<_>>()),
    ];
    let sections: Vec<String> = sections.into_iter().filter(|section| !section.is_empty()).collect();
    sections.join("\n\n") + "\n"
}

/// One object, with the figures of the text in full precision.
pub fn json(report: &RunReport) -> String {
    let judged: Vec<JudgedTrial> = report.trials.iter().map(|trial| trial.judged.clone()).collect();
    let answer = answer(&judged);
    let found = report.search.as_ref().and_then(Search::concluded);
    let found = found.as_ref();
    let (passed, tripped) = match &report.search {
        None => (answer.passed, answer.tripped),
        Some(_) => (
            found.and_then(|found| Some(found.passed?.level)),
            found.and_then(|found| Some(found.tripped.as_ref()?.level)),
        ),
    };
    let exit_code = match &report.search {
        None => answer.exit_code(&report.ending),
        Some(search) => conclusion::exit_code(search.next(), &report.ending),
    };
    let json = JsonReport {
        run_id: &report.run_id,
        workload: &report.workload,
        preset: &report.preset,
        settings: &report.applied,
        objectives: &report.slo,
        trials: report.trials.iter().map(json_trial).collect(),
        notes: notes::notes(report),
        ending: &report.ending,
        exit_code: exit_code as u8,
        search: report.search.as_ref().map(json_search),
        answer: JsonAnswer {
            unit: if super::users::are_levels(report) { "users" } else { "operations/s" },
            passed_per_s: passed,
            tripped_per_s: tripped,
            inconclusive_between_per_s: if report.search.is_some() { &[] } else { &answer.gaps },
            words: answer_lines(report).lines().map(str::to_owned).collect(),
        },
    };
    serde_json::to_string_pretty(&json).expect("text keys and finite numbers") + "\n"
}

#[derive(Serialize)]
struct JsonReport<'a> {
    run_id: &'a str,
    workload: &'a str,
    preset: &'a str,
    answer: JsonAnswer<'a>,
    ending: &'a Ending,
    exit_code: u8,
    /// Null: the levels were given.
    search: Option<JsonSearch>,
    trials: Vec<JsonTrial<'a>>,
    notes: Vec<String>,
    objectives: &'a Slo,
    settings: &'a [Applied],
}

#[derive(Serialize)]
struct JsonSearch {
    precision: f64,
    confidence: f64,
    /// Whether the interval is as narrow as was asked.
    conclusive: bool,
    contradictions: u32,
    load_s: f64,
    spent_s: f64,
    /// Every trial: why it was chosen, what it showed, the bounds after it.
    trail: Vec<String>,
}

fn json_search(search: &Search) -> JsonSearch {
    JsonSearch {
        precision: search.plan().precision,
        confidence: search.plan().confidence,
        conclusive: search.concluded().is_some_and(|conclusion| conclusion.is_conclusive()),
        contradictions: search.contradictions(),
        load_s: search.load().as_secs_f64(),
        spent_s: search.spent().as_secs_f64(),
        trail: search::trail_lines(search),
    }
}

#[derive(Serialize)]
struct JsonAnswer<'a> {
    /// Of the levels: of the three below and of each trial's target.
    unit: &'static str,
    passed_per_s: Option<Rate>,
    tripped_per_s: Option<Rate>,
    inconclusive_between_per_s: &'a [Rate],
    words: Vec<String>,
}

#[derive(Serialize)]
struct JsonTrial<'a> {
    /// From 1, as the text counts.
    step: u32,
    trial: u32,
    target_per_s: Rate,
    verdict: &'static str,
    /// Of a PASS: events rarer than one in so many seconds are not excluded.
    not_excluded_s: Option<f64>,
    reasons: Vec<String>,
    reasons_as_data: &'a Verdict,
    started_at: &'a str,
    hold_s: f64,
    achieved_per_s: f64,
    completed_per_s: f64,
    error_rate: Option<f64>,
    counters: Counters,
    strays: Strays,
    void_blocks: usize,
    series: BTreeMap<&'a str, JsonSeries>,
    observed: &'a [Observed],
    backlog: &'a [DurableBacklog],
    agents: &'a [AgentMeasurement],
}

/// All percentiles null: no data.
#[derive(Serialize)]
struct JsonSeries {
    n: u64,
    latency_us_p50: Option<u64>,
    latency_us_p95: Option<u64>,
    latency_us_p99: Option<u64>,
    /// Lower and upper end at 95 %; null: too few blocks to say, or no upper end.
    latency_us_p50_interval: [Option<u64>; 2],
    latency_us_p95_interval: [Option<u64>; 2],
    latency_us_p99_interval: [Option<u64>; 2],
    latency_us_max: Option<u64>,
    service_time_us_p99: Option<u64>,
    clipped: u64,
}

fn json_trial(trial: &TrialReport) -> JsonTrial<'_> {
    let step = &trial.measurement;
    JsonTrial {
        step: trial.judged.trial.step + 1,
        trial: trial.judged.trial.trial + 1,
        target_per_s: trial.judged.level,
        verdict: trial.judged.verdict.word(),
        not_excluded_s: trial.not_excluded.map(|gap| gap.as_secs_f64()),
        reasons: words::reasons(&trial.judged.verdict),
        reasons_as_data: &trial.judged.verdict,
        started_at: &trial.started_at,
        hold_s: step.hold.as_secs_f64(),
        achieved_per_s: step.achieved_rate(),
        completed_per_s: step.completion_rate(),
        error_rate: step.error_rate(),
        counters: step.counters,
        strays: step.strays,
        void_blocks: step.blocks.iter().filter(|block| block.void).count(),
        series: step
            .series
            .iter()
            .enumerate()
            .map(|(index, series)| (&*series.series, json_series(series, table::intervals(step, index))))
            .collect(),
        observed: &step.observed,
        backlog: &step.backlog,
        agents: &step.agents,
    }
}

fn json_series(series: &SeriesMeasurement, intervals: [Option<PercentileInterval>; 3]) -> JsonSeries {
    let [p50, p95, p99] = intervals
        .map(|interval| interval.map_or([None, None], |interval| [Some(interval.lower_us), interval.upper_us]));
    let percentile = |quantile| series.percentile(quantile).map(|length| length.as_micros() as u64);
    JsonSeries {
        n: series.counts.n,
        latency_us_p50: series.latency.quantile_us(0.5),
        latency_us_p95: percentile(Quantile::P95),
        latency_us_p99: percentile(Quantile::P99),
        latency_us_p50_interval: p50,
        latency_us_p95_interval: p95,
        latency_us_p99_interval: p99,
        latency_us_max: series.latency.max_us(),
        service_time_us_p99: series.service_time.quantile_us(0.99),
        clipped: series.latency.clipped(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{pass, report, trip};

    #[test]
    fn csv_is_what_the_run_writes() {
        let run = report(vec![pass(0), trip(1)], Ending::Completed);
        let text = csv(&run);
        assert_eq!(text.lines().count(), 3);
        assert!(text.starts_with("step,trial,target_rate,"), "{text}");
        assert_eq!(csv(&report(vec![], Ending::Aborted)).lines().count(), 1);
    }

    #[test]
    fn json_has_the_answer_the_verdicts_and_the_figures() {
        let json: serde_json::Value =
            serde_json::from_str(&json(&report(vec![pass(0), trip(1)], Ending::Completed))).unwrap();
        assert_eq!(json["answer"]["passed_per_s"], 1000.0);
        assert_eq!(json["answer"]["tripped_per_s"], 2000.0);
        assert_eq!(json["exit_code"], 0);
        assert_eq!(json["trials"][0]["verdict"], "PASS");
        assert_eq!(json["trials"][1]["verdict"], "TRIP");
        assert_eq!(json["trials"][1]["reasons"][0], "E2 p95=312ms > 100ms");
        assert_eq!(json["trials"][1]["series"]["E2"]["latency_us_p99"], 312_063);
    }

    #[test]
    fn markdown_has_tables_and_the_reasons_below_them() {
        let text = markdown(&report(vec![pass(0), trip(1)], Ending::Completed));
        assert!(text.starts_with("# Run r1\n\n**ANSWER: max RPS = 1000"), "{text}");
        assert!(text.contains("\n- 2000: E2 p95=312ms > 100ms\n"), "{text}");
        // A table is a table as long as every line of it has the same number of cells.
        for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
            let cells: Vec<usize> = table.lines().map(|line| line.matches('|').count()).collect();
            assert!(cells.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
        }
        assert_eq!(text.split("\n\n").filter(|part| part.starts_with('|')).count(), 4, "{text}");
    }
}
