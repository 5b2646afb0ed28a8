mod aftermath;
mod starts;

use std::time::Duration;

use super::*;
use crate::core::backlog::Growth;
use crate::core::fixture::{DUE, durable, measurement, slo};
use crate::core::measurement::{Fault, Mismatch};
use crate::core::slo::Quantile;
use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::snapshot::{StepEnd, UsersOnline};
use proptest::prelude::*;

/// The verdict on a trial in which all held until `change`.
fn verdict(change: impl FnOnce(&mut StepMeasurement)) -> Verdict {
    let mut step = measurement();
    change(&mut step);
    judge(&step, &slo())
}

/// The verdict and its reasons in short.
fn check(change: impl FnOnce(&mut StepMeasurement)) -> String {
    let verdict = verdict(change);
    let reasons: Vec<String> = match &verdict {
        Verdict::Pass => vec![],
        Verdict::Trip(breaches) => breaches.iter().map(breach).collect(),
        Verdict::Inconclusive(doubts) => doubts.iter().map(doubt).collect(),
    };
    format!("{} {}", verdict.word(), reasons.join(", ")).trim().to_owned()
}

fn breach(breach: &Breach) -> String {
    match breach {
        Breach::Percentile(p) => format!("{} {} {}/{}", p.series, p.quantile, p.above, p.n),
        Breach::ErrorRate(errors) => format!("errors {}/{}", errors.errors, errors.attempted),
        Breach::SeriesErrors { series, errors } => format!("{series} errors {}/{}", errors.errors, errors.attempted),
        Breach::BacklogGrowth { durable, growth, limit } => format!("{} {growth}>{limit}", durable.durable),
        Breach::DurableGone { durable } => format!("{} gone", durable.durable),
        Breach::DurableRecreated { durable } => format!("{} recreated", durable.durable),
    }
}

fn doubt(doubt: &Doubt) -> String {
    let names = |boxes: &[BoxAtFault]| {
        boxes.iter().map(|spoiler| format!("{}:{}", spoiler.agent, spoiler.operations)).collect::<Vec<_>>().join("+")
    };
    let short = |s: &Shortfall| format!("saturated[{}] underrun[{}]", names(&s.capped), names(&s.late));
    match doubt {
        Doubt::Fault(Fault::AgentLost { agent, .. }) => format!("{agent} lost"),
        Doubt::Fault(Fault::CutOff { agent, .. }) => format!("{agent} cut off"),
        Doubt::Fault(Fault::EndedEarly { agent, .. }) => format!("{agent} ended early"),
        Doubt::Fault(Fault::DoesNotAddUp { agent, .. }) => format!("{agent} does not add up"),
        Doubt::SlowAlone { agent, alone } => format!("{agent} alone {}/{}", alone.bad, alone.of),
        Doubt::NothingAttempted => "nothing attempted".into(),
        Doubt::FewUsers { online, users } => format!("{online} of {users} users"),
        Doubt::NoSamples { series } => format!("{series} no samples"),
        Doubt::PercentileByBoxes { percentile: p, boxes } => {
            format!("{} {} {}/{} by {}", p.series, p.quantile, p.above, p.n, names(boxes))
        }
        Doubt::ErrorRateByBoxes { errors, boxes } => {
            format!("errors {}/{} by {}", errors.errors, errors.attempted, names(boxes))
        }
        Doubt::SeriesErrorsByBoxes { series, errors, boxes } => {
            format!("{series} errors {}/{} by {}", errors.errors, errors.attempted, names(boxes))
        }
        Doubt::BacklogUnreadable { durable, .. } => format!("{} unreadable", durable.durable),
        Doubt::BacklogNotStationary { durable, growth, .. } => format!("{} rising {growth}", durable.durable),
        Doubt::BacklogStands { durable, above, limit } => format!("{} stands {above}>{limit}", durable.durable),
        Doubt::NeverLeft { series, quantile, shortfall, .. } => {
            format!("{series} {quantile} never left {}", short(shortfall))
        }
        Doubt::StartsApart { last, skew, limit } => format!("{last} {skew:?} apart > {limit:?}"),
        Doubt::NoHeadroom { level, more_boxes, .. } => format!("{level} takes {more_boxes} more boxes"),
        Doubt::NoHeadroomForUsers { users, more_boxes, .. } => format!("{users} users take {more_boxes} more boxes"),
        Doubt::RateShort { due, attempted, shortfall, .. } => format!("rate {attempted}/{due} {}", short(shortfall)),
    }
}

fn empty_series(step: &mut StepMeasurement, index: usize) {
    step.series[index].counts = SeriesCounts::zero(2);
    step.series[index].latency = LatencyHistogram::new();
}

fn lost() -> Fault {
    Fault::AgentLost { agent: "box-b".into(), after: Duration::from_secs(3), why: "reset".into() }
}

/// A step of 1,000 users of whom so many were online throughout.
fn of_users(online: u64) -> StepMeasurement {
    let mut step = measurement();
    let users = UsersOnline { online: online / 2, connections: 500 };
    step.agents[0].health.users = Some(users);
    step.agents[1].health.users = Some(UsersOnline { online: online - online / 2, ..users });
    step
}

#[test]
fn fewer_than_95_of_100_users_prove_nothing() {
    assert_eq!(judge(&of_users(950), &slo()), Verdict::Pass);
    let few = judge(&of_users(949), &slo());
    assert_eq!(few, Verdict::Inconclusive(NonEmpty::one(Doubt::FewUsers { online: 949, users: 1000 })));
    // Whatever else is broken: half of the users say nothing of all of them.
    let mut step = of_users(500);
    step.counters.failed_anyway = DUE;
    step.counters.failed.refused = DUE;
    assert_eq!(judge(&step, &slo()).word(), "INCONCLUSIVE");
}

#[test]
fn a_durable_that_may_grow_may_not_vanish() {
    let mut slo = slo();
    slo.may_grow = vec!["notification-worker".into()];
    let with = |change: fn(&mut DurableBacklog)| {
        let mut step = measurement();
        let mut backlog = durable("notification-worker", 500_000);
        change(&mut backlog);
        step.backlog.push(backlog);
        judge(&step, &slo)
    };
    assert_eq!(with(|_| {}), Verdict::Pass);
    assert_eq!(with(|backlog| backlog.growth = None), Verdict::Pass);
    let unseen = with(|backlog| (backlog.growth, backlog.fate) = (None, Fate::Unknown));
    assert_eq!(unseen.word(), "INCONCLUSIVE", "nobody knows whether it is still there");
    assert_eq!(with(|backlog| backlog.fate = Fate::Gone).word(), "TRIP");
    assert_eq!(with(|backlog| backlog.fate = Fate::Recreated).word(), "TRIP");
}

#[test]
fn what_is_rare_need_not_have_happened_and_is_charged_its_part_of_what_never_left() {
    let mut slo = slo();
    // One in a thousand operations: ten of 10,000.
    slo.series[1].part_ppm = 1_000;
    let with = |n: u64, never_left: u64, slo: &Slo| {
        let mut step = measurement();
        step.series[1].counts.n = n;
        step.counters.underrun = never_left;
        step.counters.attempted -= never_left;
        step.counters.completed -= never_left;
        judge(&step, slo)
    };
    assert_eq!(with(0, 0, &slo), Verdict::Pass);
    assert_eq!(with(8, 60, &slo), Verdict::Pass);
    // 600 that never left are one of its kind, and one of nine is more than one in a hundred.
    assert_eq!(with(8, 600, &Slo { rate_tolerance: "0.1".parse().unwrap(), ..slo.clone() }).word(), "INCONCLUSIVE");
    slo.series[1].part_ppm = 10_000;
    assert_eq!(with(0, 0, &slo), Verdict::Inconclusive(NonEmpty::one(Doubt::NoSamples { series: "E2".into() })));
}

#[test]
fn a_measurement_in_which_all_holds_passes() {
    assert_eq!(check(|_| {}), "PASS");
}

#[test]
fn an_agent_lost_is_inconclusive_even_where_the_service_broke_an_slo() {
    let got = check(|step| {
        step.faults.push(lost());
        step.slow(1, 1, DUE, 0);
    });
    assert_eq!(got, "INCONCLUSIVE box-b lost");
}

#[test]
fn totals_that_do_not_add_up_are_inconclusive() {
    let mismatch = Mismatch::Due { expected: 10, got: 9 };
    let got = check(|step| step.faults.push(Fault::DoesNotAddUp { agent: "box-a".into(), mismatch }));
    assert_eq!(got, "INCONCLUSIVE box-a does not add up");
}

#[test]
fn a_trial_that_did_not_run_to_its_end_is_inconclusive() {
    let end = StepEnd::TargetGone;
    let got = check(|step| step.faults.push(Fault::EndedEarly { agent: "box-a".into(), end }));
    assert_eq!(got, "INCONCLUSIVE box-a ended early");
}

#[test]
fn nothing_attempted_is_inconclusive() {
    assert_eq!(check(|step| step.keep_back(0, DUE)), "INCONCLUSIVE nothing attempted");
}

#[test]
fn a_gated_series_without_samples_is_inconclusive_while_the_error_rate_holds() {
    assert_eq!(check(|step| empty_series(step, 1)), "INCONCLUSIVE E2 no samples");
}

#[test]
fn a_service_that_answers_only_errors_trips() {
    let got = check(|step| {
        step.fail(DUE, 0);
        empty_series(step, 0);
        empty_series(step, 1);
        let all = step.counters;
        step.agents.iter_mut().for_each(|agent| agent.counters = all);
    });
    assert_eq!(got, "TRIP errors 10000/10000");
}

#[test]
fn every_broken_slo_is_a_reason() {
    let got = check(|step| {
        step.slow(0, 0, 501, 0);
        step.slow(1, 1, 700, 0);
        step.fail(11, 0);
        step.backlog[0] = durable("message-worker", 1001);
        step.backlog[1].fate = Fate::Gone;
    });
    assert_eq!(
        got,
        "TRIP E1 p95 501/10000, E2 p95 700/10000, E2 p99 700/10000, errors 11/10000, message-worker 1001>1000, \
         broadcast-worker gone"
    );
}

#[test]
fn a_value_exactly_at_its_limit_passes_and_the_next_one_trips() {
    for (at, above, trip) in [
        (check(|step| step.slow(1, 0, 500, 0)), check(|step| step.slow(1, 0, 501, 0)), "TRIP E2 p95 501/10000"),
        (check(|step| step.slow(1, 1, 100, 0)), check(|step| step.slow(1, 1, 101, 0)), "TRIP E2 p99 101/10000"),
        (check(|step| step.fail(10, 0)), check(|step| step.fail(11, 0)), "TRIP errors 11/10000"),
        (
            check(|step| step.backlog[0] = durable("message-worker", 1000)),
            check(|step| step.backlog[0] = durable("message-worker", 1001)),
            "TRIP message-worker 1001>1000",
        ),
    ] {
        assert_eq!((at.as_str(), above.as_str()), ("PASS", trip));
    }
}

#[test]
fn a_durable_that_is_gone_or_was_created_anew_trips() {
    for (fate, expected) in [
        (Fate::Gone, "TRIP broadcast-worker gone"),
        (Fate::Recreated, "TRIP broadcast-worker recreated"),
        (Fate::Kept, "PASS"),
    ] {
        assert_eq!(check(|step| step.backlog[1].fate = fate), expected);
    }
}

#[test]
fn a_durable_that_drained_to_zero_does_not_trip() {
    assert_eq!(check(|step| step.backlog[0] = durable("message-worker", -50_000)), "PASS");
}

#[test]
fn a_service_that_pushes_back_is_not_excused_by_the_shortfall_it_causes() {
    let got = check(|step| {
        step.keep_back(3_000, 1_000);
        step.slow(1, 1, 5_000, 0);
        let slow = step.agents[0].series.clone();
        step.agents[1].series = slow;
    });
    assert_eq!(got, "TRIP E2 p95 5000/6000, E2 p99 5000/6000");
}

#[test]
fn a_limit_that_is_broken_only_by_what_boxes_added_is_inconclusive_and_names_them() {
    assert_eq!(check(|step| step.slow(1, 0, 400, 101)), "INCONCLUSIVE E2 p95 501/10000 by box-a:101");
    assert_eq!(check(|step| step.fail(10, 1)), "INCONCLUSIVE errors 11/10000 by box-a:1");
}

#[test]
fn what_boxes_added_within_the_limit_does_not_matter() {
    assert_eq!(check(|step| step.slow(1, 0, 400, 100)), "PASS");
    assert_eq!(check(|step| step.fail(9, 1)), "PASS");
}

#[test]
fn lost_operations_are_errors() {
    let lose = |step: &mut StepMeasurement, lost| {
        (step.counters.lost, step.counters.failed_anyway) = (lost, lost);
        step.counters.completed -= lost;
    };
    assert_eq!(check(|step| lose(step, 10)), "PASS");
    assert_eq!(check(|step| lose(step, 11)), "TRIP errors 11/10000");
}

#[test]
fn an_unreadable_backlog_is_inconclusive() {
    let got = check(|step| (step.backlog[0].growth, step.backlog[0].fate) = (None, Fate::Unknown));
    assert_eq!(got, "INCONCLUSIVE message-worker unreadable");
}

#[test]
fn a_backlog_that_keeps_rising_within_its_limit_is_inconclusive() {
    let rise = |growth: i64| {
        check(|step| {
            step.backlog[0] = durable("message-worker", growth);
            step.backlog[0].growth = Some(Growth { messages: growth, rising: true });
        })
    };
    assert_eq!(rise(100), "PASS", "1 % of due");
    assert_eq!(rise(101), "INCONCLUSIVE message-worker rising 101");
    assert_eq!(rise(1001), "TRIP message-worker 1001>1000");
}

#[test]
fn a_backlog_that_stands_high_above_rest_is_no_pass() {
    // 1,000 that it may grow by, and 500 that come in within half a second of 1,000/s.
    let stands = |above: u64| {
        check(|step| {
            let backlog = &mut step.backlog[0];
            backlog.last.as_mut().unwrap().pending = above + 10 - 12;
            backlog.growth = Some(Growth { messages: 0, rising: false });
        })
    };
    assert_eq!(stands(1500), "PASS");
    assert_eq!(stands(1501), "INCONCLUSIVE message-worker stands 1501>1500");
}

#[test]
fn operations_that_never_left_may_not_flatter_a_percentile() {
    // Of 10,000 due, 1 % may be above the p99 limit, whoever kept them back.
    assert_eq!(check(|step| step.keep_back(100, 0)), "PASS");
    assert_eq!(check(|step| step.keep_back(101, 0)), "INCONCLUSIVE E1 p99 never left saturated[box-a:101] underrun[]");
    assert_eq!(check(|step| step.keep_back(0, 101)), "INCONCLUSIVE E1 p99 never left saturated[] underrun[box-a:101]");
    let both = check(|step| {
        step.keep_back(20, 31);
        step.slow(1, 1, 50, 0);
    });
    assert_eq!(both, "INCONCLUSIVE E2 p99 never left saturated[box-a:20] underrun[box-a:31]");
}

#[test]
fn attempted_below_the_tolerance_is_inconclusive_and_says_who_fell_short() {
    let mut ungated = slo();
    ungated.series.iter_mut().for_each(|series| (series.p95, series.p99) = (None, None));
    let judged = |kept_back| {
        let mut step = measurement();
        step.keep_back(kept_back, 0);
        step.series.iter_mut().for_each(|series| series.limits_us.clear());
        judge(&step, &ungated)
    };
    assert_eq!(judged(500), Verdict::Pass, "exactly at the tolerance");
    assert_eq!(judged(501).word(), "INCONCLUSIVE");
    assert_eq!(
        check(|step| step.keep_back(2_000, 1_000)),
        "INCONCLUSIVE rate 7000/10000 saturated[box-a:2000] underrun[box-a:1000]"
    );
}

#[test]
fn boxes_are_to_blame_for_stalls_underruns_and_late_starts_but_not_for_a_cap() {
    let blamed = |change: fn(&mut StepMeasurement)| {
        verdict(change).boxes_to_blame().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(blamed(|step| step.slow(1, 0, 400, 101)), ["box-a"]);
    assert_eq!(blamed(|step| step.fail(10, 1)), ["box-a"]);
    assert_eq!(blamed(|step| step.keep_back(0, 101)), ["box-a"]);
    assert_eq!(blamed(|step| step.keep_back(0, 1_000)), ["box-a"]);
    assert_eq!(blamed(|step| starts::late(step, 1, 101_000)), ["box-b"]);
    for nobody in [
        blamed(|step| step.keep_back(1_000, 0)),
        blamed(|step| step.faults.push(lost())),
        blamed(|step| step.slow(1, 0, 501, 0)),
        blamed(|_| {}),
    ] {
        assert_eq!(nobody, Vec::<String>::new());
    }
}

#[test]
fn the_percentile_that_is_shown_never_contradicts_the_exact_count() {
    // 100.000 ms and 100.001 ms share a bucket that reads 100.031 ms.
    let shown = |latency_us: u64, above: u64| {
        let mut latency = LatencyHistogram::new();
        (0..100).for_each(|_| latency.record(latency_us));
        let counts = SeriesCounts { n: 100, above: vec![above], above_anyway: vec![above], ..SeriesCounts::default() };
        let series = SeriesMeasurement {
            series: "E2".into(),
            limits_us: vec![100_000],
            counts,
            service_time: LatencyHistogram::new(),
            latency,
        };
        series.percentile(Quantile::P95).unwrap().as_micros()
    };
    assert_eq!(shown(100_000, 0), 100_000);
    assert!(shown(100_001, 100) > 100_000);
}

proptest! {
    #[test]
    fn what_boxes_did_never_decides_between_pass_and_trip(
        by_service in 0_u64..1_000, by_box in 0_u64..1_000, failed in 0_u64..20, failed_by_box in 0_u64..20,
        saturated in 0_u64..400, underrun in 0_u64..400, limit in 0_usize..2,
    ) {
        let judged = |by_box: u64, failed_by_box: u64, saturated: u64, underrun: u64| {
            verdict(|step| {
                step.keep_back(saturated, underrun);
                step.slow(1, limit, by_service, by_box);
                step.fail(failed, failed_by_box);
            })
        };
        let (with, without) = (judged(by_box, failed_by_box, saturated, underrun), judged(0, 0, saturated, underrun));
        // The boxes' doing may only turn a PASS into a doubt.
        match with {
            Verdict::Pass => prop_assert_eq!(without, Verdict::Pass),
            Verdict::Trip(_) => prop_assert!(matches!(without, Verdict::Trip(_))),
            Verdict::Inconclusive(_) => prop_assert!(!matches!(without, Verdict::Trip(_))),
        }
    }
}
