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
            fractions: vec![FractionLimit { signal: Signal::ErrorRate, allowed: 0.01, rare: false }],
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
            boxes_get_less: false,
            lost_an_agent: false,
            vanished: vec![],
            fault: None,
            unproved: None,
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
fn a_frontier_that_is_cut_short_leaves_the_answer_what_it_is() {
    let mut search = Search::new(SearchPlan { frontier: true, ..plan(500, 0.05) });
    let (mut answers, mut unfinished) = (Vec::new(), 0);
    while let Step::Hold(trial) = search.next().clone() {
        search.record(&Service { knee: 5000.0, durable: 2000.0 }.hold(&search, &trial));
        unfinished += u32::from(search.conclusion().is_none() && search.concluded().is_some());
        answers.extend(search.concluded().map(|conclusion| (conclusion.passed.unwrap().level, conclusion.tripped)));
    }
    assert!(unfinished > 2, "the error rate takes trials of its own");
    answers.dedup();
    assert!(answers.len() == 1 && answers[0].0.as_f64() <= 2001.0, "{answers:?}");
}

#[test]
fn a_last_soak_that_cannot_be_trusted_costs_the_frontier_no_trial() {
    // From the third fault of a comparison on nothing can be used until the frontier begins, whose trials can.
    let mut search = Search::new(SearchPlan { frontier: true, ..plan(500, 0.05) });
    let (mut soaks, mut of_frontier) = (0, 0);
    while let Step::Hold(trial) = search.next().clone() {
        let mut outcome = Service { knee: 5000.0, durable: 2000.0 }.hold(&search, &trial);
        match search.concluded() {
            Some(_) => of_frontier += 1,
            None if matches!(trial.why, Why::Low(_) | Why::High(_) | Why::Soak) => {
                soaks += u32::from(trial.why == Why::Soak);
                outcome.fault = Some("a box stood still".to_owned());
            }
            None => {}
        }
        search.record(&outcome);
    }
    let conclusion = search.conclusion().unwrap();
    assert!(matches!(conclusion.doubt, Some(SearchDoubt::NotTrusted { .. })) && soaks == 1, "{conclusion:?}");
    assert!(
        of_frontier > 2 && conclusion.frontier.iter().all(|entry| entry.is_precise),
        "{of_frontier} {conclusion:?}"
    );
}

#[test]
fn a_fleet_that_becomes_smaller_gives_what_it_can_and_the_same_when_it_is_read_again() {
    let can = Rate::per_second(3000).unwrap();
    for (knee, tripped) in [(NO_LIMIT, false), (2500.0, true)] {
        for lost_after in 0..12 {
            let mut search = Search::new(SearchPlan { highest: Rate::per_second(4000), ..plan(500, 0.05) });
            let mut records = vec![TrailRecord::Plan(Box::new(search.plan().clone()))];
            let mut held = 0;
            while let Step::Hold(trial) = search.next().clone() {
                if held >= lost_after && trial.level > can {
                    records.push(TrailRecord::Highest { highest: can });
                    search.lower_highest(can);
                    continue;
                }
                held += 1;
                let outcome = Service { knee, durable: NO_LIMIT }.hold(&search, &trial);
                search.record(&outcome);
                records.push(TrailRecord::Outcome(Box::new(outcome)));
            }
            let conclusion = search.conclusion().unwrap();
            let passed = conclusion.passed.unwrap().level.as_f64();
            assert!(passed <= knee && conclusion.tripped.is_some() == tripped, "{lost_after}: {conclusion:?}");
            assert!(tripped || (3000.0..=4000.0).contains(&passed), "{lost_after}: {conclusion:?}");
            assert_eq!(Search::replay(records).unwrap().conclusion(), Some(conclusion));
        }
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
fn trials_that_lost_agents_are_held_again_without_a_limit_of_their_own_and_end_with_the_time() {
    let service = Service { knee: 3300.0, durable: NO_LIMIT };
    let mut search = Search::new(plan(500, 0.05));
    let lost = |outcome: TrialOutcome| TrialOutcome {
        fault: Some("agent box-b was lost".into()),
        lost_an_agent: true,
        ..outcome
    };
    // One box is lost in every trial of the first level, of which there are more than there may be faults.
    for _ in 0..2 * MOST_FAULTS {
        let Step::Hold(trial) = *search.next() else { panic!("{:?}", search.next()) };
        assert_eq!((trial.why, trial.level), (Why::First, Rate::per_second(500).unwrap()));
        search.record(&lost(service.hold(&search, &trial)));
    }
    // A fault of another kind is one of three all the same, and losses between them make it no less.
    let mut untrusted = search.clone();
    for is_loss in [false, true, false, true, false] {
        let Step::Hold(trial) = *untrusted.next() else { panic!("{:?}", untrusted.next()) };
        let outcome = lost(service.hold(&untrusted, &trial));
        untrusted.record(&TrialOutcome { lost_an_agent: is_loss, ..outcome });
    }
    assert!(matches!(untrusted.conclusion().unwrap().doubt, Some(SearchDoubt::NotTrusted { .. })));
    // With who is left it ends as every search.
    let mut healthy = search.clone();
    while let Step::Hold(trial) = *healthy.next() {
        healthy.record(&service.hold(&healthy, &trial));
    }
    assert!(healthy.conclusion().is_some_and(Conclusion::is_conclusive), "{:?}", healthy.next());
    // Where nobody is ever left in peace, the time ends it.
    while let Step::Hold(trial) = *search.next() {
        assert!(search.spent() < Duration::from_secs(900), "it goes on for ever");
        search.record(&lost(service.hold(&search, &trial)));
    }
    assert_eq!(search.conclusion().unwrap().doubt, Some(SearchDoubt::OutOfTime));
}

#[test]
fn the_time_of_trials_that_were_not_held_is_the_searchs_own_and_replays_so() {
    let service = Service { knee: 3300.0, durable: NO_LIMIT };
    let mut search = Search::new(plan(500, 0.05));
    let mut records = vec![TrailRecord::Plan(Box::new(plan(500, 0.05)))];
    let took = Duration::from_secs(290);
    for _ in 0..2 {
        let Step::Hold(trial) = *search.next() else { panic!("{:?}", search.next()) };
        search.not_held(took);
        records.push(TrailRecord::NotHeld { took });
        assert_eq!(*search.next(), Step::Hold(trial), "the same trial is begun anew");
        let outcome = service.hold(&search, &trial);
        search.record(&outcome);
        records.push(TrailRecord::Outcome(Box::new(outcome)));
    }
    assert!(search.spent() > took * 2 && search.trail().len() == 2);
    search.not_held(took * 2);
    records.push(TrailRecord::NotHeld { took: took * 2 });
    let Step::Done(conclusion) = search.next() else { panic!("{:?}", search.next()) };
    assert_eq!((conclusion.doubt.clone(), conclusion.spent), (Some(SearchDoubt::OutOfTime), search.spent()));
    let read = |record: &TrailRecord| serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap();
    assert_eq!(Search::replay(records.iter().map(read)), Some(search));
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
fn a_level_that_boxes_hide_is_held_until_they_show_and_again_once_they_get_less() {
    let mut search = Search::new(plan(1000, 0.05));
    let mut holds = |boxes_get_less: &[bool]| -> Vec<String> {
        let held = |&boxes_get_less: &bool| {
            let Step::Hold(trial) = search.next().clone() else { panic!("{:?}", search.next()) };
            let mut outcome = Service { knee: 3300.0, durable: NO_LIMIT }.hold(&search, &trial);
            outcome.showing.blocks.iter_mut().for_each(|block| block.void = true);
            search.record(&TrialOutcome { boxes_get_less, ..outcome });
            format!("{} {:?}", trial.level, trial.hold)
        };
        boxes_get_less.iter().map(held).collect()
    };
    // However often a box gets less, the level is not over anything.
    assert_eq!(holds(&[false, true, true, true]), ["1000 1s", "1000 5s", "1000 5s", "1000 5s"]);
    // Where none gets less, two more of the same are the last.
    assert_eq!(holds(&[false, false, false]), ["1000 5s", "1000 5s", "500 3s"]);
}

#[test]
fn where_a_pair_begins_depends_on_what_broke() {
    let signal = Signal::Percentile {
        series: "E1".into(),
        quantile: crate::core::slo::Quantile::P99,
        limit: Duration::from_millis(200),
    };
    let mut plan = plan(500, 0.05);
    plan.limits.fractions.insert(0, FractionLimit { signal, allowed: 0.01, rare: false });
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

/// A search against a service under every limit, whose trials of more than so many a second leave out more than they may.
fn with_a_cap(knee: f64, cap: f64) -> (Search, Conclusion) {
    let service = Service { knee, durable: NO_LIMIT };
    let mut search = Search::new(plan(500, 0.05));
    loop {
        match search.next().clone() {
            Step::Hold(trial) => {
                let unproved = (trial.level.as_f64() > cap).then(|| "attempted 200 of 400 due".to_owned());
                search.record(&TrialOutcome { unproved, ..service.hold(&search, &trial) });
            }
            Step::Done(conclusion) => return (search, *conclusion),
        }
    }
}

#[test]
fn a_level_that_was_never_offered_in_whole_never_passes() {
    let (search, conclusion) = with_a_cap(1e6, 2000.0);
    assert!(!conclusion.is_conclusive(), "{conclusion:?}");
    let passed = conclusion.passed.map(|passed| passed.level.as_f64());
    assert!(passed.is_some_and(|passed| passed <= 2000.0), "{passed:?}: what looked good is soaked before the end");
    assert!(search.trail().iter().any(|entry| entry.result == Outcome::Hint(hint::Hint::Unclear)), "{conclusion:?}");
    // A limit that is broken all the same is broken: a service that pushes back is not excused.
    let (_, conclusion) = with_a_cap(2000.0, 2000.0);
    let (passed, tripped) = (conclusion.passed.unwrap(), conclusion.tripped.clone().unwrap());
    assert!(conclusion.is_conclusive() && passed.level.as_f64() <= 2000.0, "{conclusion:?}");
    assert!(tripped.level.as_f64() > 2000.0, "{conclusion:?}");
}

/// Users of whom none fewer than two are looked for.
fn few_users() -> SearchPlan {
    let levels = Levels::Users(Users { operations: 1.0, activation: 1e6, fewest: 2, bound: HighestBy::Fleet });
    SearchPlan { levels, ..plan(4, 0.5) }
}

#[test]
fn a_hint_at_the_lowest_level_ends_no_search() {
    let lowest_first = |spoil: fn(&mut TrialOutcome), times: usize| {
        let mut search = Search::new(few_users());
        let mut spoilt = 0;
        loop {
            match search.next().clone() {
                Step::Hold(trial) => {
                    let mut outcome = Service { knee: 100.0, durable: NO_LIMIT }.hold(&search, &trial);
                    if spoilt < times {
                        spoilt += 1;
                        spoil(&mut outcome);
                    }
                    search.record(&outcome);
                }
                Step::Done(conclusion) => return *conclusion,
            }
        }
    };
    // One slow request in each of the first two trials: at four users and at two.
    let slow =
        |outcome: &mut TrialOutcome| outcome.showing.blocks[0].counts[0] = Count { n: 1000, above: 200, anyway: 200 };
    let conclusion = lowest_first(slow, 2);
    assert!(!matches!(conclusion.doubt, Some(SearchDoubt::NothingPasses { .. })), "{conclusion:?}");
    assert!(conclusion.passed.is_some(), "{conclusion:?}");
    // What load boxes hide is no limit of the service's.
    let stalled = |outcome: &mut TrialOutcome| {
        outcome.showing.blocks.iter_mut().for_each(|block| {
            block.void = true;
            block.counts[0].above = 500;
        });
    };
    let conclusion = lowest_first(stalled, usize::MAX);
    assert!(matches!(conclusion.doubt, Some(SearchDoubt::Boxes { .. })), "{conclusion:?}");
}
