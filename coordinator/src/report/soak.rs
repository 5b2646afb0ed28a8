//! A soak: one verdict for its whole hold, and a line for every minute of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{RunReport, words};
use crate::core::answer::Ending;
use crate::core::backlog::DurableName;
use crate::core::measurement::per_second;
use crate::core::merge::Minute;
use crate::core::slo::Quantile;

/// A soak beside its one trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Soak {
    /// How long it was to be held.
    pub length: Duration,
    /// As they were saved. A report of the run itself has none: they were written as they came.
    pub minutes: Vec<MinuteReport>,
}

/// One minute as CSV and saved runs have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MinuteReport {
    /// What was measured.
    pub minute: Minute,
    /// RFC 3339 in UTC.
    pub started_at: String,
    /// By how many messages each watched durable grew since the minute before it was told.
    pub backlog: Vec<(DurableName, i64)>,
}

/// The lines that begin with ANSWER and say what came of it.
pub(super) fn answer_lines(report: &RunReport, soak: &Soak) -> String {
    let of = format!("(workload={}, preset={})", report.workload, report.preset);
    let Some(trial) = report.trials.last() else {
        return format!("ANSWER: nothing was measured {of}");
    };
    let judged = &trial.judged;
    let held = match &report.ending {
        Ending::Completed => humantime::format_duration(soak.length).to_string(),
        _ => {
            let held = Duration::from_secs(trial.measurement.hold.as_secs());
            format!("{} of {}", humantime::format_duration(held), humantime::format_duration(soak.length))
        }
    };
    let answer = format!("ANSWER: {} at {}/s held for {held} {of}", judged.verdict.word(), judged.level);
    let reasons = words::reasons(&judged.verdict);
    if reasons.is_empty() { answer } else { format!("{answer}\nReasons: {}", reasons.join("; ")) }
}

/// `minute 3: achieved 500.0/s, completed 500.0/s | p99 E1 4.2ms E2 8.1ms | err 0.000%`, for the progress.
pub fn minute_line(report: &MinuteReport) -> String {
    let minute = &report.minute;
    let [achieved, completed] =
        [minute.counters.attempted, minute.counters.completed].map(|count| per_second(count, minute.length));
    let p99 = |series: &crate::core::measurement::SeriesMeasurement| {
        Some(format!("{} {}", series.series, words::duration(series.percentile(Quantile::P99)?)))
    };
    let p99: Vec<String> = minute.series.iter().filter_map(p99).collect();
    let mut parts = vec![format!("minute {}: achieved {achieved:.1}/s, completed {completed:.1}/s", minute.number + 1)];
    parts.extend((!p99.is_empty()).then(|| format!("p99 {}", p99.join(" "))));
    let grown = report.backlog.iter().map(|(name, growth)| format!("{} {growth:+}", name.durable));
    let grown: Vec<String> = grown.collect();
    parts.extend((!grown.is_empty()).then(|| format!("backlog {}", grown.join(" "))));
    parts.extend(minute.counters.error_rate().map(|rate| format!("err {:.3}%", rate * 100.0)));
    parts.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{pass, report, trip};
    use crate::report::{formats, render};
    use plimsoll_common::snapshot::{Counters, Strays};

    fn minute(number: u32) -> MinuteReport {
        let measurement = pass(0).measurement;
        let minute = Minute {
            number,
            target: measurement.target,
            length: Duration::from_secs(60),
            counters: Counters { due: 600, attempted: 600, completed: 594, ..Counters::default() },
            series: measurement.series,
            observed: vec![],
            strays: Strays::default(),
            void_blocks: 2,
        };
        let durable = |name: &str| DurableName { stream: "S".into(), durable: name.into() };
        let backlog = vec![(durable("a"), -3), (durable("b"), 7)];
        MinuteReport { minute, started_at: "2026-01-02T03:04:05Z".into(), backlog }
    }

    fn soak(trials: Vec<crate::report::TrialReport>, ending: Ending) -> RunReport {
        let soak = Soak { length: Duration::from_secs(120), minutes: vec![minute(0), minute(1)] };
        RunReport { soak: Some(soak), ..report(trials, ending) }
    }

    #[test]
    fn the_answer_of_a_soak_is_its_verdict() {
        let last = |report: &RunReport| super::super::answer_lines(report);
        insta::assert_snapshot!(last(&soak(vec![pass(0)], Ending::Completed)),
            @"ANSWER: PASS at 1000/s held for 2m (workload=messages, preset=medium)");
        assert!(last(&soak(vec![trip(0)], Ending::Completed)).starts_with("ANSWER: TRIP at 1000/s held for 2m "));
        assert!(last(&soak(vec![trip(0)], Ending::Completed)).contains("\nReasons: E2 p95=312ms > 100ms; "));
        assert!(last(&soak(vec![pass(0)], Ending::Aborted)).contains("held for 10s of 2m "));
        assert_eq!(
            last(&soak(vec![], Ending::Aborted)),
            "ANSWER: nothing was measured (workload=messages, preset=medium)"
        );
        assert!(render(&soak(vec![pass(0)], Ending::Completed)).ends_with("preset=medium)\n"));
    }

    #[test]
    fn a_row_per_minute_and_one_for_the_whole_hold_have_the_same_columns() {
        let text = formats::csv(&soak(vec![pass(0)], Ending::Completed));
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), ["minute", "1", "2", "all"]);
        assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
        let column = |name: &str| rows[0].iter().position(|column| *column == name).unwrap();
        for (name, expected) in [
            ("achieved_rate", "10.000"),
            ("completion_rate", "9.900"),
            ("worst_durable", "S/b"),
            ("worst_growth", "7"),
            ("void_blocks", "2"),
            ("verdict", ""),
        ] {
            assert_eq!(rows[1][column(name)], expected, "{name}");
        }
        assert_eq!(rows[3][column("verdict")], "PASS");
    }

    #[test]
    fn a_minutes_line_says_how_it_went() {
        let line = minute_line(&minute(2));
        assert!(line.starts_with("minute 3: achieved 10.0/s, completed 9.9/s | p99 E1 "), "{line}");
        assert!(line.ends_with("| backlog a -3 b +7 | err 0.000%"), "{line}");
    }
}
