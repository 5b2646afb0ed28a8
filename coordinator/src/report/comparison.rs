//! What two saved runs say about each other, in words.

use plimsoll_common::units::Rate;

use super::{table, words};
use crate::core::compare::{Change, Comparison, Finding, Skipped, Values, What};
use crate::core::slo::Fraction;

/// One line per finding, the levels that say nothing, and the conclusion last.
/// `unit` stands behind a level: `/s` or ` users`.
pub fn render(comparison: &Comparison, tolerance: Fraction, unit: &str) -> String {
    let level = if unit == "/s" { "level/s" } else { unit.trim_start() };
    let header = ["what", level, "A", "B", "change", ""].map(str::to_owned);
    let rows = comparison.findings.iter().map(|finding| row(finding, unit)).collect();
    let mut lines = table::lines(table::Shape::Text, &header, &[0, 5], rows);
    let skipped = |(level, why): &(Rate, Skipped)| format!("{level}{unit} is not compared: {}", skipped_words(*why));
    lines.extend(comparison.skipped.iter().map(skipped));
    lines.push(String::new());
    lines.push(conclusion(comparison, tolerance, unit));
    lines.join("\n") + "\n"
}

fn row(finding: &Finding, unit: &str) -> Vec<String> {
    let (what, level) = match &finding.what {
        What::Answer => ("answer".to_owned(), String::new()),
        What::Tail { level, series, quantile } => (format!("{series} {quantile}"), level.to_string()),
        What::Errors { level } => ("errors".to_owned(), level.to_string()),
        What::Backlog { level, durable } => (format!("{durable} backlog"), level.to_string()),
    };
    let (before, after, change) = match finding.values {
        Values::Answers { before, after } => (answer(before, unit), answer(after, unit), String::new()),
        Values::Latencies { before, after } => {
            let change = after.as_secs_f64() / before.as_secs_f64() - 1.0;
            (words::duration(before), words::duration(after), format!("{:+.1} %", change * 100.0))
        }
        Values::Parts { before, after } => {
            let percent = |part: f64| format!("{:.3} %", part * 100.0);
            (percent(before), percent(after), String::new())
        }
        Values::Growths { before, after } => (growth(before), growth(after), String::new()),
    };
    vec![what, level, before, after, change, change_words(finding.change).to_owned()]
}

fn answer((passed, tripped): (Option<Rate>, Option<Rate>), unit: &str) -> String {
    match (passed, tripped) {
        (Some(passed), Some(tripped)) => format!("{passed} to {tripped}{unit}"),
        (Some(passed), None) => format!(">= {passed}{unit}"),
        (None, Some(tripped)) => format!("< {tripped}{unit}"),
        (None, None) => "none".to_owned(),
    }
}

fn growth(per_second: Option<f64>) -> String {
    per_second.map_or("gone or recreated".to_owned(), |per_second| format!("{per_second:+.1}/s"))
}

fn change_words(change: Change) -> &'static str {
    match change {
        Change::Regression => "REGRESSION",
        Change::WorseWithinTolerance => "worse, within the tolerance",
        Change::NotSignificant => "not significant",
        Change::BetterWithinTolerance => "better, within the tolerance",
        Change::Improvement => "better",
    }
}

fn skipped_words(why: Skipped) -> &'static str {
    match why {
        Skipped::PassedInNeither => "it passed in neither run, and in overload latencies grow with the hold",
        Skipped::NotTrusted => "one of the runs has no trial of it that can be trusted",
        Skipped::TooFewBlocks => "load boxes spoiled too many of its blocks, or its hold is below 3s",
    }
}

fn conclusion(comparison: &Comparison, tolerance: Fraction, unit: &str) -> String {
    let tolerance = words::percent(tolerance);
    let worse: Vec<String> = comparison
        .findings
        .iter()
        .filter(|finding| finding.change == Change::Regression)
        .map(|finding| {
            let [what, level, before, after, ..] = &row(finding, unit)[..] else { unreachable!("six cells") };
            let at = if level.is_empty() { String::new() } else { format!(" at {level}{unit}") };
            format!("{what}{at} {before} -> {after}")
        })
        .collect();
    match worse.as_slice() {
        [] => format!("NO REGRESSION beyond {tolerance} %"),
        worse => format!("REGRESSION beyond {tolerance} %: {}", worse.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::slo::Quantile;
    use std::time::Duration;

    fn finding(what: What, values: Values, change: Change) -> Finding {
        Finding { what, values, change }
    }

    #[test]
    fn every_finding_has_a_line_and_the_last_one_is_the_conclusion() {
        let rate = |rate| Rate::per_second(rate).unwrap();
        let level = rate(1800);
        let ms = Duration::from_millis;
        let answers = Values::Answers {
            before: (Some(rate(1900)), Some(rate(2000))),
            after: (Some(rate(1600)), Some(rate(1800))),
        };
        let tail = What::Tail { level, series: "E2".into(), quantile: Quantile::P99 };
        let backlog = What::Backlog { level, durable: "message-worker".into() };
        let mut comparison = Comparison {
            findings: vec![
                finding(What::Answer, answers, Change::Regression),
                finding(tail, Values::Latencies { before: ms(20), after: ms(25) }, Change::Regression),
                finding(What::Errors { level }, Values::Parts { before: 0.0, after: 0.00001 }, Change::NotSignificant),
                finding(backlog, Values::Growths { before: Some(0.2), after: None }, Change::Improvement),
            ],
            skipped: vec![(rate(2000), Skipped::PassedInNeither)],
        };
        let tolerance = "0.05".parse().unwrap();
        insta::assert_snapshot!(render(&comparison, tolerance, "/s"), @r"
         what                     level/s                A                   B    change
        ---------------------------------------------------------------------------------------------------
         answer                             1900 to 2000/s      1600 to 1800/s             REGRESSION
         E2 p99                      1800             20ms                25ms   +25.0 %   REGRESSION
         errors                      1800          0.000 %             0.001 %             not significant
         message-worker backlog      1800           +0.2/s   gone or recreated             better
        2000/s is not compared: it passed in neither run, and in overload latencies grow with the hold

        REGRESSION beyond 5 %: answer 1900 to 2000/s -> 1600 to 1800/s; E2 p99 at 1800/s 20ms -> 25ms
        ");
        let users = render(&comparison, tolerance, " users");
        assert!(
            users.contains(" users ") && users.contains("1900 to 2000 users") && users.contains("at 1800 users"),
            "{users}"
        );
        comparison.findings.truncate(0);
        comparison.skipped.truncate(0);
        assert!(render(&comparison, tolerance, "/s").ends_with("NO REGRESSION beyond 5 %\n"));
    }
}
