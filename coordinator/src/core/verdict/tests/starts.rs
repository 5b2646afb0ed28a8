//! Holds that do not begin together.

use super::*;

/// What is done to a measurement in which all holds.
type Change = fn(&mut StepMeasurement);

/// Begins the hold of one agent so much later than the other's.
pub fn late(step: &mut StepMeasurement, agent: usize, us: i64) {
    step.agents[agent].start.as_mut().unwrap().lag_ns += us * 1000;
}

#[test]
fn holds_that_begin_apart_are_not_one_window_whatever_else_they_show() {
    let table: [(&str, Change); 8] = [
        ("PASS", |step| late(step, 1, 100_000)),
        ("INCONCLUSIVE box-b 100.001ms apart > 100ms", |step| late(step, 1, 100_001)),
        ("INCONCLUSIVE box-a 100.001ms apart > 100ms", |step| late(step, 1, -100_001)),
        // A longer hold makes no longer skew one window.
        ("INCONCLUSIVE box-b 200ms apart > 100ms", |step| {
            step.hold = Duration::from_secs(3600);
            late(step, 1, 200_000);
        }),
        // The estimate is compared, and not how far it may be off.
        ("PASS", |step| {
            step.agents[1].start.as_mut().unwrap().error = Duration::from_secs(1);
            late(step, 1, 100_000);
        }),
        ("TRIP E1 p95 501/10000", |step| {
            step.slow(0, 0, 501, 0);
            late(step, 1, 100_000);
        }),
        ("INCONCLUSIVE box-b 101ms apart > 100ms", |step| {
            step.slow(0, 0, 501, 0);
            step.fail(11, 0);
            step.backlog[1].fate = Fate::Gone;
            late(step, 1, 101_000);
        }),
        ("INCONCLUSIVE box-b 101ms apart > 100ms, E2 p95 501/10000 by box-a:101", |step| {
            step.slow(1, 0, 400, 101);
            late(step, 1, 101_000);
        }),
    ];
    for (expected, change) in table {
        assert_eq!(check(change), expected);
    }
}

#[test]
fn who_is_alone_or_never_said_when_it_began_is_not_apart() {
    assert_eq!(
        check(|step| {
            step.agents.truncate(1);
            late(step, 0, 5_000_000);
        }),
        "PASS"
    );
    assert_eq!(
        check(|step| {
            step.agents[0].start = None;
            late(step, 1, 5_000_000);
        }),
        "PASS"
    );
}

#[test]
fn the_limit_of_starts_is_the_plans() {
    let mut step = measurement();
    late(&mut step, 1, 2);
    let judged = |us: u64| judge(&step, &Slo { max_skew: Duration::from_micros(us), ..slo() });
    assert_eq!(judged(2), Verdict::Pass);
    let (last, skew, limit) = ("box-b".to_owned(), Duration::from_micros(2), Duration::from_micros(1));
    assert_eq!(judged(1), Verdict::Inconclusive(NonEmpty::one(Doubt::StartsApart { last, skew, limit })));
}
