//! The search on simulated queues: right, fast, and never fooled by a load box. PLIMSOLL_PROVE=1 runs the whole table.

use plimsoll::core::search::evidence::{Evidence, Judgement};
use plimsoll::core::search::hint::{Hint, hint, is_hopeless};
use plimsoll::core::search::outcome::Showing;
use plimsoll::core::search::plan::blocks;
use plimsoll::core::search::statistics::Quantiles;
use plimsoll::core::search::{Search, Step};
use plimsoll_tests::harness::prove;
use plimsoll_tests::simulation::durable::{self, Durable};
use plimsoll_tests::simulation::load_box::{self, Trouble};
use plimsoll_tests::simulation::methods::{Found, Method, plan, search};
use plimsoll_tests::simulation::queue::{CAPACITY, Queue, Regime, limits};
use plimsoll_tests::simulation::table::{FRESH, Score, runs};
use plimsoll_tests::simulation::truth::{over, true_limit};
use statrs::distribution::{Binomial, DiscreteCDF as _};

fn seeds(prove: u64, short: u64) -> u64 {
    if prove::whole() { prove } else { short }
}

fn score(precision: f64, regime: Regime, seeds: u64) -> Score {
    Score::of(&runs(Method::Search(precision), regime, FRESH..FRESH + seeds), true_limit(regime))
}

#[test]
fn a_steady_queue_is_found_to_five_per_cent_and_the_answer_is_right() {
    let score = score(0.05, Regime::Clean, seeds(600, 16));
    assert!(score.wrong_part() <= 0.01 && score.conclusive_part() >= 0.66 && score.load.0 <= 180.0, "{score:?}");
}

#[test]
fn a_drifting_queue_is_found_to_five_per_cent_and_the_answer_is_right() {
    let score = score(0.05, Regime::Drift, seeds(600, 16));
    // A median of sixteen is no median of six hundred.
    let in_time = !prove::whole() || score.load.0 <= 180.0;
    assert!(score.wrong_part() <= 0.01 && score.conclusive_part() >= 0.5 && in_time, "{score:?}");
}

#[test]
fn ten_per_cent_takes_two_and_a_half_minutes_at_most() {
    for regime in [Regime::Clean, Regime::Drift] {
        let score = score(0.1, regime, seeds(600, 16));
        assert!(score.load.0 <= 150.0, "{regime:?} {score:?}");
        // Half the samples decide here: what is drawn may show a little more than 1 %, but no more than chance makes of it.
        assert!(score.wrong <= most_by_chance(score.runs, 0.01), "{regime:?} {score:?}");
    }
}

/// The most of `runs` that are wrong with a probability of at least 1 % where each is wrong with `part`: the upper 99 %
/// point of the binomial distribution.
fn most_by_chance(runs: usize, part: f64) -> usize {
    let runs = u64::try_from(runs).expect("fits");
    let wrong = Binomial::new(part, runs).expect("a part of one").inverse_cdf(0.99);
    usize::try_from(wrong).expect("fits")
}

#[test]
fn chance_makes_at_most_so_many_wrong() {
    // Binomial(600, 0.01) is at most 12 with 0.9917 and at most 11 with 0.9808; Binomial(16, 0.01) at most 1 with 0.9891.
    assert_eq!((most_by_chance(600, 0.01), most_by_chance(16, 0.01)), (12, 2));
}

#[test]
fn a_queue_that_stalls_is_rather_left_open_than_answered_wrongly() {
    for regime in [Regime::Stalls, Regime::RareStalls] {
        let score = score(0.05, regime, seeds(600, 6));
        assert!(score.wrong_part() <= 0.03, "{regime:?} {score:?}");
    }
}

#[test]
fn twice_the_capacity_trips_within_two_seconds() {
    let mut plan = plan(0.05);
    plan.from = Some(plimsoll::core::search::grid::round(2.0 * CAPACITY));
    for seed in 0..20 {
        for regime in Regime::ALL {
            let search = Search::new(plan.clone());
            let Step::Hold(trial) = *search.next() else { panic!("a new search has a trial to hold") };
            let mut queue = Queue::new(regime, seed);
            let held = queue.load(trial.level.as_f64(), 0.5, blocks(trial.hold), |so_far| search.may_stop(so_far));
            assert!(held.load <= 2.0, "{regime:?} {seed}: {}", held.load);
            assert_eq!(hint(&held.showing, &plan.limits, &[0]), Hint::Over(vec![0]), "{regime:?} {seed}");
        }
    }
}

#[test]
fn a_load_box_in_trouble_never_makes_a_trip() {
    let (limits, quantiles) = (limits(), Quantiles::new(0.01));
    let rate = 0.9 * true_limit(Regime::Clean);
    for seed in 0..seeds(1000, 30) {
        for trouble in Trouble::ALL {
            let mut evidence = Evidence::default();
            for visit in 0..4 {
                let mut queue = Queue::new(Regime::Clean, seed * 4 + visit);
                let showing = load_box::load(&mut queue, trouble, rate, 10, seed * 4 + visit);
                let so_far = |blocks| Showing { blocks: showing.blocks[..blocks].to_vec(), reads: Vec::new() };
                let stops = (1..=10).any(|blocks| is_hopeless(&so_far(blocks), &limits, &[0], 10, rate));
                assert!(!stops, "{trouble:?} {seed} {showing:?}");
                assert!(!matches!(hint(&showing, &limits, &[0]), Hint::Over(_)), "{trouble:?} {seed} {showing:?}");
                evidence.add(&showing, &[], &limits);
            }
            let judgement = evidence.figures(&limits, 0, 0.0, &quantiles).judgement;
            assert_ne!(judgement, Judgement::Trip, "{trouble:?} {seed}");
        }
    }
}

#[test]
fn a_durable_off_the_latency_path_is_found_to_five_per_cent_and_the_answer_is_right() {
    let seeds = seeds(600, 30);
    let found: Vec<Found> =
        (0..seeds).map(|seed| durable::search(Durable::new(seed, f64::INFINITY), &durable::plan(0.05)).0).collect();
    let score = Score::of(&found, durable::CAPACITY + durable::ALLOWED);
    println!("{score:?}");
    assert!(score.wrong <= most_by_chance(score.runs, 0.01), "{score:?}");
    assert!(score.conclusive_part() >= 0.66 && score.load.0 <= 180.0, "{score:?}");
}

#[test]
fn a_load_box_that_stalls_never_makes_a_durable_trip_below_what_it_does() {
    for seed in 0..seeds(300, 20) {
        let (found, _) = durable::search(Durable::new(seed, 8.0), &durable::plan(0.05));
        assert!(found.tripped.is_none_or(|tripped| tripped > 0.99 * durable::CAPACITY), "{seed} {found:?}");
    }
}

#[test]
fn the_limits_of_the_simulated_queues_are_what_long_holds_show() {
    let seconds = if prove::whole() { 8000 } else { 400 };
    for (regime, tolerance) in
        [(Regime::Clean, 2.0), (Regime::Drift, 4.0), (Regime::Stalls, 1.5), (Regime::RareStalls, 3.0)]
    {
        let held = Queue::new(regime, 7).load(true_limit(regime), 1.0, seconds * 2, |_| false);
        let part = over(&held);
        assert!((0.01 / tolerance..0.01 * tolerance).contains(&part), "{regime:?}: {part}");
    }
}

#[test]
fn the_same_outcomes_lead_to_the_same_search() {
    let (once, again) =
        (search(Queue::new(Regime::Drift, 5), &plan(0.1)), search(Queue::new(Regime::Drift, 5), &plan(0.1)));
    assert_eq!(once, again);
}
