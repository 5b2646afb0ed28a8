use super::conclusion::Conclusion;
use super::outcome::{AS_IT_LIKES, Block, Count, FractionLimit, Limits, Read, Signal, SlopeLimit};
use super::plan::{Bound as HighestBy, Lengths, Levels, Users};
use super::*;
use crate::core::backlog::DurableName;
use proptest::prelude::*;

/// A service that is perfect up to a knee and late with everything above it; a durable that does so many a second.
#[derive(Clone, Copy)]
struct Service {
    knee: f64,
    durable: f64,
}

fn plan(from: u64, precision: f64) -> SearchPlan {
    let durable = DurableName { stream: "S".into(), durable: "d".into() };
    SearchPlan {
        from: Rate::per_second(from),
        highest: None,
        precision,
        confidence: 0.95,
        max_time: Duration::from_secs(900),
        limits: Limits {
            fractions: vec![FractionLimit { signal: Signal::ErrorRate, allowed: 0.01 }],
            slopes: vec![SlopeLimit { durable, per_second: 1.0 }],
        },
        frontier: false,
        lengths: Lengths::for_limit(Some(Duration::from_millis(100)), precision),
        levels: Levels::Rates,
    }
}

impl Service {
    fn hold(self, search: &Search, trial: &NextTrial) -> TrialOutcome {
        let rate = trial.level.as_f64();
        let over = u64::from(rate > self.knee) * 1000;
        let block = Block { counts: vec![Count { n: 1000, above: over, anyway: over }], void: false };
        let mut showing = Showing { blocks: Vec::new(), reads: vec![Vec::new()] };
        while showing.blocks.len() < blocks(trial.hold) && !search.may_stop(&showing) {
            let from = showing.blocks.len() as f64 / 2.0;
            let reads = (0..4).map(|i| from + f64::from(i) / 8.0);
            let backlog = |at: f64| at * (rate - self.durable).max(0.0);
            showing.reads[0].extend(reads.map(|at| Read { at, backlog: backlog(at), surplus: 0.0 }));
            showing.blocks.push(block.clone());
        }
        let load = trial.settle + BLOCK * showing.blocks.len() as u32;
        let took = load + Duration::from_millis(500);
        TrialOutcome {
            showing,
            served: (over > 0).then_some(self.knee),
            behind: 0.0,
            vanished: vec![],
            fault: None,
            load,
            took,
        }
    }

    fn search(self, plan: SearchPlan) -> (Search, Conclusion) {
        let mut search = Search::new(plan);
        loop {
            match search.next().clone() {
                Step::Hold(trial) => search.record(&self.hold(&search, &trial)),
                Step::Done(conclusion) => return (search, *conclusion),
            }
        }
    }
}

const NO_LIMIT: f64 = 1e12;

#[test]
fn the_trail_of_a_knee_at_3300() {
    let (search, conclusion) = Service { knee: 3300.0, durable: NO_LIMIT }.search(plan(500, 0.05));
    let word = |entry: &TrailEntry| match &entry.result {
        Outcome::Hint(hint::Hint::Under) => "under",
        Outcome::Hint(_) => "over",
        Outcome::Judged(Judgement::Pass) => "PASS",
        Outcome::Judged(Judgement::Trip) => "TRIP",
        Outcome::Soaked { held: true, .. } => "soaked",
        Outcome::Judged(Judgement::Undecided) => "more",
        _ => "?",
    };
    let trail: Vec<String> =
        search.trail().iter().map(|entry| format!("{} {}", entry.trial.level, word(entry))).collect();
    insta::assert_snapshot!(
        trail.join(", "),
        @"500 under, 1000 under, 2000 under, 4000 over, 3201 under, 3399 over, 3222 more, 3379 TRIP, 3222 more, 3222 more, 3222 soaked"
    );
    assert!(conclusion.is_conclusive(), "{conclusion:?}");
}

#[test]
fn without_a_place_to_begin_a_probe_of_a_second_finds_it() {
    let mut search = Search::new(SearchPlan { from: None, ..plan(1, 0.05) });
    let Step::Hold(probe) = search.next().clone() else { panic!("{:?}", search.next()) };
    assert_eq!((probe.why, probe.hold, probe.level.to_string()), (Why::Probe, Duration::from_secs(1), "50000".into()));
    let outcome = Service { knee: 3300.0, durable: NO_LIMIT }.hold(&search, &probe);
    let carried = |served| TrialOutcome { served, ..outcome.clone() };
    let begun = |served| {
        let mut search = search.clone();
        search.record(&carried(served));
        let Step::Hold(trial) = search.next().clone() else { panic!("{:?}", search.next()) };
        assert_eq!(trial.why, Why::First);
        trial.level.to_string()
    };
    assert_eq!([Some(3300.0), Some(0.5), None].map(begun), ["1650", "1", "1"]);

    search.record(&carried(Some(3300.0)));
    while let Step::Hold(trial) = search.next().clone() {
        search.record(&Service { knee: 3300.0, durable: NO_LIMIT }.hold(&search, &trial));
    }
    assert!(search.conclusion().is_some_and(Conclusion::is_conclusive), "{:?}", search.next());
    let records = |from| {
        std::iter::once(TrailRecord::Plan(Box::new(SearchPlan { from, ..plan(1, 0.05) })))
            .chain([TrailRecord::Outcome(Box::new(carried(Some(3300.0))))])
    };
    let replayed = Search::replay(records(None)).unwrap();
    assert_eq!(replayed.plan().from, Rate::per_second(1650), "a resumed search begins where the probe said");
}

#[test]
fn a_durable_that_falls_behind_binds_and_is_named() {
    let (_, conclusion) = Service { knee: 5000.0, durable: 2000.0 }.search(plan(500, 0.05));
    let (passed, tripped) = (conclusion.passed.unwrap(), conclusion.tripped.clone().unwrap());
    assert!(passed.level.as_f64() <= 2001.0 && tripped.level.as_f64() > 2001.0, "{conclusion:?}");
    assert!(matches!(tripped.broke[0].signal, Signal::Backlog(_)), "{conclusion:?}");
}

#[test]
fn the_frontier_finds_the_level_of_every_limit() {
    let plan = SearchPlan { frontier: true, ..plan(500, 0.05) };
    let (_, conclusion) = Service { knee: 5000.0, durable: 2000.0 }.search(plan);
    let found: Vec<(f64, f64)> =
        conclusion.frontier.iter().map(|e| (e.holds.unwrap().as_f64(), e.breaks.unwrap().as_f64())).collect();
    assert_eq!(found.len(), 2, "{conclusion:?}");
    // By position: the operations over the limit, then the durable, which takes one more a second than it does.
    for ((holds, breaks), knee) in found.into_iter().zip([5000.0, 2001.0]) {
        assert!(holds <= knee && knee <= breaks && breaks / holds <= 1.05, "{knee} {conclusion:?}");
    }
}

#[test]
fn a_fleet_that_is_too_small_gives_a_lower_bound_that_was_soaked() {
    let plan = SearchPlan { highest: Rate::per_second(1000), ..plan(500, 0.05) };
    let (_, conclusion) = Service { knee: 5000.0, durable: NO_LIMIT }.search(plan);
    assert_eq!(conclusion.passed.unwrap().level, Rate::per_second(1000).unwrap());
    assert!(matches!(conclusion.doubt, Some(SearchDoubt::FleetTooSmall { .. })), "{conclusion:?}");
}

#[test]
fn a_limit_just_below_the_highest_level_is_no_matter_of_the_fleet() {
    let plan = SearchPlan { highest: Rate::per_second(1000), ..plan(500, 0.05) };
    let mut search = Search::new(plan);
    let conclusion = loop {
        match search.next().clone() {
            Step::Hold(trial) => {
                // What is short shows nothing of it.
                let knee = if trial.hold < Duration::from_secs(5) { NO_LIMIT } else { 980.0 };
                search.record(&Service { knee, durable: NO_LIMIT }.hold(&search, &trial));
            }
            Step::Done(conclusion) => break conclusion,
        }
    };
    let (passed, tripped) = (conclusion.passed.unwrap().level.as_f64(), conclusion.tripped.as_ref().unwrap().level);
    assert!((930.0..=980.0).contains(&passed) && tripped.as_f64() <= 1000.0, "{conclusion:?}");
    assert!(conclusion.is_conclusive(), "{conclusion:?}");
}

#[test]
fn a_durable_that_may_fall_behind_limits_nothing() {
    let mut plan = plan(500, 0.05);
    plan.limits.slopes[0].per_second = AS_IT_LIKES;
    plan.frontier = true;
    let (_, conclusion) = Service { knee: 3300.0, durable: 800.0 }.search(plan);
    let (passed, tripped) = (conclusion.passed.unwrap().level.as_f64(), conclusion.tripped.as_ref().unwrap().level);
    assert!(passed <= 3300.0 && tripped.as_f64() >= 3300.0 && conclusion.is_conclusive(), "{conclusion:?}");
    assert_eq!(conclusion.frontier.len(), 1, "{conclusion:?}");
}

#[test]
fn a_service_that_holds_nothing_says_so() {
    let (_, conclusion) = Service { knee: 0.01, durable: NO_LIMIT }.search(plan(500, 0.05));
    assert!(matches!(conclusion.doubt, Some(SearchDoubt::NothingPasses { .. })), "{conclusion:?}");
    assert_eq!(conclusion.passed, None);
}

#[test]
fn trials_that_cannot_be_trusted_are_repeated_and_end_the_search_after_three() {
    let mut search = Search::new(plan(500, 0.05));
    for _ in 0..3 {
        let Step::Hold(trial) = search.next().clone() else { panic!("{:?}", search.next()) };
        let outcome = Service { knee: 1e9, durable: NO_LIMIT }.hold(&search, &trial);
        search.record(&TrialOutcome { fault: Some("an agent was lost".into()), ..outcome });
    }
    let Step::Done(conclusion) = search.next() else { panic!("{:?}", search.next()) };
    assert!(matches!(conclusion.doubt, Some(SearchDoubt::NotTrusted { .. })));
}

#[test]
fn the_time_ends_a_search_with_what_was_shown() {
    let plan = SearchPlan { max_time: Duration::from_secs(40), ..plan(500, 0.01) };
    let (_, conclusion) = Service { knee: 3300.0, durable: NO_LIMIT }.search(plan);
    assert_eq!(conclusion.doubt, Some(SearchDoubt::OutOfTime));
    assert!(conclusion.spent <= Duration::from_secs(40), "{conclusion:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_search_ends_and_holds_its_knee_between_two_measured_levels(
        knee in 5.0_f64..1e6, from in 1_u64..2_000_000, percent in 1_u32..30,
    ) {
        let precision = f64::from(percent) / 100.0;
        let (search, conclusion) = Service { knee, durable: NO_LIMIT }.search(plan(from, precision));
        prop_assert!(conclusion.spent <= Duration::from_secs(901));
        prop_assert!(search.trail().len() < 1000);
        if let (Some(passed), Some(tripped)) = (&conclusion.passed, &conclusion.tripped) {
            prop_assert!(passed.level.as_f64() <= knee && knee < tripped.level.as_f64(), "{conclusion:?}");
        }
        if conclusion.is_conclusive() {
            let (passed, tripped) = (conclusion.passed.unwrap().level, conclusion.tripped.clone().unwrap().level);
            prop_assert!(tripped.as_f64() / passed.as_f64() <= 1.0 + precision + 1e-9, "{conclusion:?}");
        }
    }
}

/// Half an operation per second each, and 50 of them come online in a second.
fn users(from: u64, seeded: u64, precision: f64) -> SearchPlan {
    let users = Users { operations: 0.5, activation: 50.0, fewest: 1, bound: HighestBy::Seeded };
    SearchPlan { highest: Rate::per_second(seeded), levels: Levels::Users(users), ..plan(from, precision) }
}

#[test]
fn a_search_of_users_is_bounded_by_those_that_were_seeded_and_says_so() {
    let (_, conclusion) = Service { knee: 5000.0, durable: NO_LIMIT }.search(users(100, 1_000, 0.05));
    assert_eq!(conclusion.passed.unwrap().level, Rate::per_second(1_000).unwrap());
    assert!(matches!(conclusion.doubt, Some(SearchDoubt::FleetTooSmall { .. })), "{conclusion:?}");
}

#[test]
fn nobody_at_all_is_carried_and_the_search_ends() {
    let (search, conclusion) = Service { knee: 0.5, durable: NO_LIMIT }.search(users(100, 1_000, 0.05));
    assert!(matches!(conclusion.doubt, Some(SearchDoubt::NothingPasses { .. })), "{conclusion:?}");
    assert!(search.trail().len() < 30);
}

#[test]
fn the_time_that_users_take_to_come_is_within_the_time_that_a_search_may_take() {
    // Twice 2,000 users take 80 s to come online.
    let plan = SearchPlan { max_time: Duration::from_secs(60), ..users(2_000, 1_000_000, 0.05) };
    let mut search = Search::new(plan);
    let mut online = 0.0;
    while let Step::Hold(trial) = search.next().clone() {
        let coming = Duration::from_secs_f64((trial.level.as_f64() - online).max(0.0) / 50.0);
        online = trial.level.as_f64();
        let outcome = Service { knee: 1e9, durable: NO_LIMIT }.hold(&search, &trial);
        search.record(&TrialOutcome { took: outcome.took + coming, ..outcome });
    }
    // The first level is what was asked for.
    assert!(search.spent() <= Duration::from_secs(60) && search.trail().len() == 1, "{:?}", search.trail());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_search_of_users_ends_between_whole_numbers_that_hold_its_knee(
        knee in 1.0_f64..90_000.0, from in 1_u64..100_000, percent in 1_u32..30,
    ) {
        let precision = f64::from(percent) / 100.0;
        let (search, conclusion) = Service { knee, durable: NO_LIMIT }.search(users(from, 100_000, precision));
        prop_assert!(search.trail().len() < 1000);
        prop_assert!(search.trail().iter().all(|entry| entry.trial.level.milli() % 1000 == 0));
        if let (Some(passed), Some(tripped)) = (&conclusion.passed, &conclusion.tripped) {
            prop_assert!(passed.level.as_f64() <= knee && knee < tripped.level.as_f64(), "{conclusion:?}");
        }
        if conclusion.is_conclusive() {
            let (passed, tripped) = (conclusion.passed.unwrap().level, conclusion.tripped.clone().unwrap().level);
            let near = tripped.as_f64() / passed.as_f64() <= 1.0 + precision + 1e-9;
            prop_assert!(near || tripped.milli() == passed.milli() + 1000, "{conclusion:?}");
        }
    }
}

#[test]
fn a_search_whose_operations_are_used_up_ends_with_what_was_shown_and_replays_so() {
    for frontier in [false, true] {
        let service = Service { knee: 3300.0, durable: NO_LIMIT };
        let plan = SearchPlan { frontier, ..plan(500, 0.05) };
        let mut search = Search::new(plan.clone());
        let mut records = vec![TrailRecord::Plan(Box::new(plan))];
        for _ in 0..3 {
            let Step::Hold(trial) = *search.next() else { panic!("over too early") };
            let outcome = service.hold(&search, &trial);
            search.record(&outcome);
            records.push(TrailRecord::Outcome(Box::new(outcome)));
        }
        search.use_up(4_500, 1_000);
        records.push(TrailRecord::UsedUp { needed: 4_500, left: 1_000 });
        let Step::Done(conclusion) = search.next() else { panic!("{:?}", search.next()) };
        assert_eq!(conclusion.doubt, Some(SearchDoubt::UsedUp { needed: 4_500, left: 1_000 }));
        let code = conclusion::exit_code(search.next(), &crate::core::answer::Ending::Completed);
        assert_eq!(code, crate::core::answer::ExitCode::Inconclusive);
        assert_eq!(Search::replay(records), Some(search));
    }
}

#[test]
fn a_level_at_which_the_service_falls_behind_is_above_what_it_carries() {
    let rate = |rate| Rate::per_second(rate).unwrap();
    let mut bracket = bracket::Bracket::default();
    bracket.take(rate(12_060), &hint::Hint::Under, None);
    bracket.take(rate(12_810), &hint::Hint::Behind(0.024), Some(12_500.0));
    assert_eq!((bracket.under, bracket.over), (Some(rate(12_060)), Some(rate(12_810))));
    let bracket::Look::Around(centre) = bracket.look(&plan(500, 0.05), None) else { panic!("they lie a tenth apart") };
    assert!((12_300.0..12_500.0).contains(&centre), "about what it carries, {centre}");
}

#[test]
fn a_search_that_is_short_of_time_shows_a_level_that_holds() {
    let plan = SearchPlan { max_time: Duration::from_secs(40), ..plan(500, 0.05) };
    let lengths = Lengths { soak: Duration::from_secs(7), ..plan.lengths };
    let service = Service { knee: 1e6, durable: NO_LIMIT };
    let (search, conclusion) = service.search(SearchPlan { lengths, ..plan });
    let last = search.trail().last().expect("there were trials");
    assert_eq!(last.trial.why, Why::Soak, "the climb leaves time for it: {:?}", search.trail());
    let passed = conclusion.passed.expect("it was soaked").level.as_f64();
    assert!(passed >= 500.0, "{passed}");
    assert!(conclusion.doubt.is_some(), "and it is no answer to the precision asked for");
}

#[test]
fn where_a_pair_begins_depends_on_what_broke() {
    let signal = Signal::Percentile {
        series: "E1".into(),
        quantile: crate::core::slo::Quantile::P99,
        limit: Duration::from_millis(200),
    };
    let mut plan = plan(500, 0.05);
    plan.limits.fractions.insert(0, FractionLimit { signal, allowed: 0.01 });
    // ln 100 / 200 ms are 23 a second that have to be left over; but not for a durable alone, which is limit 2.
    for (served, broken, expected) in [
        (897.0, &[0][..], 0.9743),
        (897.0, &[], 0.9743),
        (897.0, &[2], 1.0),
        (12_500.0, &[0, 2], 0.9982),
        (50.0, &[0], 0.97),
    ] {
        let got = plan.utilization(served, broken);
        assert!((got - expected).abs() < 1e-4, "{served} {broken:?}: {got}");
    }
}

#[test]
fn operations_that_pile_up_say_nothing_of_a_backlog_elsewhere() {
    let heard = |focus: Vec<usize>| {
        let mut search = Search::new(plan(500, 0.05));
        search.stage.focus = focus;
        let Step::Hold(trial) = search.next().clone() else { panic!("{:?}", search.next()) };
        let outcome = Service { knee: NO_LIMIT, durable: NO_LIMIT }.hold(&search, &trial);
        search.record(&TrialOutcome { behind: 0.02, ..outcome });
        search.trail()[0].result.clone()
    };
    assert_eq!(heard(vec![0, 1]), Outcome::Hint(hint::Hint::Behind(0.02)));
    assert_eq!(heard(vec![1]), Outcome::Hint(hint::Hint::Under), "the frontier of a durable alone");
}
