//! Two saved runs side by side: refused where they are not of one kind, else what the core makes of their trials.

use super::Header;
use super::read::SavedRun;
use crate::core::compare::{self, Comparison, Difference, Held, Side};
use crate::report::words;
use crate::settings::saved::Compare;

/// Why two runs cannot be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// They asked different things of the service, or judged it otherwise.
    #[error("the runs cannot be compared, they differ in {}", list(.0))]
    Load(Vec<Difference>),
    /// The service was set up otherwise.
    #[error("the runs cannot be compared, the target was set up differently: {}; --ignore-config compares them all the same", list(.0))]
    Target(Vec<Difference>),
    /// There is nothing in both.
    #[error("the runs have nothing to compare: no level that can be trusted is in both, and no answer that excludes the other{}", skipped(.0))]
    Nothing(Comparison),
}

fn list(differences: &[Difference]) -> String {
    let words = |d: &Difference| format!("{} ({} in A, {} in B)", d.what, d.before, d.after);
    differences.iter().map(words).collect::<Vec<_>>().join("; ")
}

fn skipped(comparison: &Comparison) -> String {
    let levels: Vec<String> = comparison.skipped.iter().map(|(level, _)| level.to_string()).collect();
    if levels.is_empty() { String::new() } else { format!(" (both held {}, in vain)", levels.join(", ")) }
}

/// Settings that change what a level asks of the service, or what counts; steps and lengths may differ.
const LOAD_SETTINGS: [&str; 9] = [
    "inject",
    "arrivals",
    "request-timeout",
    "max-in-flight",
    "site-id",
    "durable",
    // Of people: who shares their rooms, and how fast they live.
    "users",
    "day",
    "at-peak",
];

/// Compares the second run with the first.
///
/// # Errors
/// They cannot be compared, and why.
pub fn compare(before: &SavedRun, after: &SavedRun, ask: &Compare) -> Result<Comparison, CompareError> {
    let load = load_differences(&before.header, &after.header);
    if !load.is_empty() {
        return Err(CompareError::Load(load));
    }
    let target = compare::differences(&before.header.target, &after.header.target);
    if !target.is_empty() && !ask.ignore_config {
        return Err(CompareError::Target(target));
    }
    let comparison = compare::compare(&side(before), &side(after), ask.tolerance);
    if comparison.findings.is_empty() { Err(CompareError::Nothing(comparison)) } else { Ok(comparison) }
}

fn load_differences(before: &Header, after: &Header) -> Vec<Difference> {
    let difference = |what: &str, one: String, other: String| {
        (one != other).then(|| Difference { what: what.to_owned(), before: one, after: other })
    };
    let setting = |header: &Header, name: &str| header.settings.get(name).cloned().unwrap_or("not set".to_owned());
    let settings =
        LOAD_SETTINGS.iter().filter_map(|name| difference(name, setting(before, name), setting(after, name)));
    let scenario = |header: &Header| header.settings.get("scenario.text").cloned();
    let same = scenario(before) == scenario(after);
    let (one, other) = ("one text".to_owned(), if same { "one text" } else { "another" }.to_owned());
    [
        difference("scenario", one, other),
        difference("workload", before.workload.clone(), after.workload.clone()),
        difference("preset", before.preset.clone(), after.preset.clone()),
        difference("objectives", words::objectives(&before.slo), words::objectives(&after.slo)),
    ]
    .into_iter()
    .flatten()
    .chain(settings)
    .collect()
}

fn side(run: &SavedRun) -> Side<'_> {
    let trials: Vec<Held> =
        run.trials.iter().map(|trial| Held { judged: &trial.report.judged, step: &trial.report.measurement }).collect();
    let side = Side::of_steps(trials, &run.header.slo);
    let Some(search) = run.search() else { return side };
    // A search is sure of both ends of its interval, and of nothing else: its single trials are hints.
    let Some(conclusion) = &search.concluded() else {
        return Side { passed: None, tripped: None, surely_passed: None, surely_tripped: None, ..side };
    };
    let passed = conclusion.passed.map(|passed| passed.level);
    let tripped = conclusion.tripped.as_ref().map(|tripped| tripped.level);
    Side { passed, tripped, surely_passed: passed, surely_tripped: tripped, ..side }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::answer::Ending;
    use crate::report::TrialReport;
    use crate::report::fixture::{inconclusive, pass, trip};
    use crate::results::fixture::write_run;
    use crate::results::read::read;

    fn run(trials: &[TrialReport], change: impl FnOnce(&mut Header)) -> SavedRun {
        let results = tempfile::tempdir().unwrap();
        let mut run = read(&write_run(results.path(), trials, Some(Ending::Completed))).unwrap();
        change(&mut run.header);
        run
    }

    fn error(before: &SavedRun, after: &SavedRun) -> String {
        compare(before, after, &ask(false)).unwrap_err().to_string()
    }

    fn ask(ignore_config: bool) -> Compare {
        let tolerance = "0.05".parse().unwrap();
        Compare { before: "a".into(), after: "b".into(), tolerance, ignore_config }
    }

    #[test]
    fn runs_of_different_load_or_objectives_are_refused_and_what_differs_is_named() {
        let usual = run(&[pass(0)], |_| {});
        let other = run(&[pass(0)], |header| {
            header.preset = "large".into();
            header.slo.pending_growth = 500;
            header.settings.insert("arrivals".into(), "uniform".into());
        });
        insta::assert_snapshot!(error(&usual, &other), @"the runs cannot be compared, they differ in preset (medium in A, large in B); objectives (E1 p95 100ms, E1 p99 250ms, E2 p95 100ms, E2 p99 250ms, errors 0.1%, pending +1000, short 5% in A, E1 p95 100ms, E1 p99 250ms, E2 p95 100ms, E2 p99 250ms, errors 0.1%, pending +500, short 5% in B); arrivals (not set in A, uniform in B)");
        let described =
            |text: &str| run(&[pass(0)], |header| drop(header.settings.insert("scenario.text".into(), text.into())));
        assert!(error(&described("a"), &described("b")).ends_with("differ in scenario (one text in A, another in B)"));
        assert!(compare(&described("a"), &described("a"), &ask(false)).is_ok());
        let lengths = run(&[pass(0)], |header| drop(header.settings.insert("hold".into(), "20s".into())));
        assert!(compare(&usual, &lengths, &ask(false)).is_ok());
    }

    #[test]
    fn another_setup_of_the_target_is_refused_unless_told_to_ignore_it() {
        let usual = run(&[pass(0)], |_| {});
        let other = run(&[pass(0)], |header| {
            header.target.get_mut("stream MESSAGES").unwrap().insert("num_replicas".into(), 3.into());
        });
        insta::assert_snapshot!(error(&usual, &other), @"the runs cannot be compared, the target was set up differently: stream MESSAGES: num_replicas (1 in A, 3 in B); --ignore-config compares them all the same");
        assert!(!compare(&usual, &other, &ask(true)).unwrap().has_regression());
    }

    #[test]
    fn runs_without_anything_in_common_are_an_error_and_not_a_pass() {
        let (one, other) = (run(&[pass(0)], |_| {}), run(&[pass(1)], |_| {}));
        assert!(error(&one, &other).starts_with("the runs have nothing to compare"));
        let nothing = error(&one, &run(&[inconclusive(0, 0)], |_| {}));
        assert!(nothing.ends_with("(both held 1000, in vain)"), "{nothing}");
    }

    #[test]
    fn a_run_that_trips_where_the_other_passes_by_far_is_a_regression() {
        let before = run(&[pass(0), pass(1), trip(2)], |_| {});
        let after = run(&[trip(0)], |_| {});
        assert!(compare(&before, &after, &ask(false)).unwrap().has_regression());
        assert!(!compare(&after, &before, &ask(false)).unwrap().has_regression());
        assert!(!compare(&before, &before, &ask(false)).unwrap().has_regression());
    }
}
