//! Ways to look for the largest rate, held against the same queue: the search, fixed steps, and plain bisection.

use super::queue::{CAPACITY, Queue, Regime, limits};
use plimsoll::core::search::conclusion::Conclusion;
use plimsoll::core::search::hint::Hint;
use plimsoll::core::search::hint::hint;
use plimsoll::core::search::outcome::{Showing, TrialOutcome};
use plimsoll::core::search::plan::{Lengths, Levels, PROBE_OPEN, SearchPlan, blocks};
use plimsoll::core::search::trail::{NextTrial, Why};
use plimsoll::core::search::{Search, Step};
use std::time::Duration;

/// What a method found, and what it took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Seconds of load.
    pub load: f64,
    /// The largest rate said to pass.
    pub passed: Option<f64>,
    /// The smallest rate above it said to trip.
    pub tripped: Option<f64>,
    /// Whether the method says that this is the answer.
    pub conclusive: bool,
}

impl Found {
    /// What a search came to.
    pub fn of(conclusion: &Conclusion) -> Self {
        Self {
            load: conclusion.load.as_secs_f64(),
            passed: conclusion.passed.map(|passed| passed.level.as_f64()),
            tripped: conclusion.tripped.as_ref().map(|tripped| tripped.level.as_f64()),
            conclusive: conclusion.is_conclusive(),
        }
    }
}

/// A way to look for the largest rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// The search, at a precision.
    Search(f64),
    /// From 1,000/s in steps of 1,000/s (5 % of the capacity) of 30 s each.
    Steps,
    /// Bisection by holds of 60 s to 5 %.
    Bisect,
}

impl Method {
    /// For tables.
    pub fn name(self) -> String {
        match self {
            Self::Search(precision) => format!("search, {:.0} %", precision * 100.0),
            Self::Steps => "steps of 5 % × 30 s".to_owned(),
            Self::Bisect => "bisection, 60 s holds, 5 %".to_owned(),
        }
    }

    /// Lets it look.
    pub fn run(self, regime: Regime, seed: u64) -> Found {
        let queue = Queue::new(regime, seed);
        match self {
            Self::Search(precision) => search(queue, &plan(precision)).0,
            Self::Steps => steps(queue),
            Self::Bisect => bisect(queue),
        }
    }
}

/// What the search is asked for: ten minutes, from where its probe says.
pub fn plan(precision: f64) -> SearchPlan {
    SearchPlan {
        from: None,
        highest: None,
        precision,
        confidence: 0.95,
        max_time: Duration::from_secs(600),
        limits: limits(),
        frontier: false,
        lengths: Lengths::for_limit(Some(Duration::from_secs_f64(super::queue::LIMIT)), precision),
        levels: Levels::Rates,
    }
}

/// Lets the search look, and returns it at its end.
pub fn search(mut queue: Queue, plan: &SearchPlan) -> (Found, Search) {
    let mut search = Search::new(plan.clone());
    loop {
        let trial = match search.next() {
            Step::Hold(trial) => *trial,
            Step::Done(conclusion) => {
                let found = Found::of(conclusion);
                return (found, search);
            }
        };
        let settle = trial.settle.as_secs_f64();
        if trial.why == Why::Probe {
            search.record(&probe(&mut queue, &trial));
            continue;
        }
        let held = queue.load(trial.level.as_f64(), settle, blocks(trial.hold), |so_far| search.may_stop(so_far));
        let drained = queue.drain();
        search.record(&TrialOutcome {
            showing: held.showing,
            served: held.served,
            behind: 0.0,
            boxes_get_less: false,
            lost_an_agent: false,
            vanished: Vec::new(),
            fault: None,
            unproved: None,
            load: Duration::from_secs_f64(held.load),
            took: Duration::from_secs_f64(held.load + drained),
        });
    }
}

/// The probe: as many operations at once as it has open, and no more than it asks for.
fn probe(queue: &mut Queue, trial: &NextTrial) -> TrialOutcome {
    let load = (trial.settle + trial.hold).as_secs_f64();
    let carried = queue.closed_loop(PROBE_OPEN as usize, load).min(trial.level.as_f64());
    let drained = queue.drain();
    TrialOutcome {
        showing: Showing::default(),
        served: Some(carried),
        behind: 0.0,
        boxes_get_less: false,
        lost_an_agent: false,
        vanished: Vec::new(),
        fault: None,
        unproved: None,
        load: Duration::from_secs_f64(load),
        took: Duration::from_secs_f64(load + drained),
    }
}

/// Whether a hold passes by its point value, as fixed steps and bisection judge.
fn passes(queue: &mut Queue, rate: f64, seconds: usize, load: &mut f64) -> bool {
    let held = queue.load(rate, 0.5, seconds * 2, |_| false);
    *load += held.load;
    queue.drain();
    hint(&held.showing, &limits(), &[0]) == Hint::Under
}

fn steps(mut queue: Queue) -> Found {
    let (mut rate, mut passed, mut load) = (1000.0, None, 0.0);
    while rate < 2.0 * CAPACITY && passes(&mut queue, rate, 30, &mut load) {
        passed = Some(rate);
        rate += 1000.0;
    }
    Found { load, passed, tripped: Some(rate), conclusive: passed.is_some() }
}

fn bisect(mut queue: Queue) -> Found {
    let (mut low, mut high, mut load) = (1000.0, 0.05 * CAPACITY, 0.0);
    loop {
        high *= 2.0;
        if !passes(&mut queue, high, 2, &mut load) {
            break;
        }
        low = high;
    }
    while high / low > 1.05 {
        let middle = (low * high).sqrt();
        if passes(&mut queue, middle, 60, &mut load) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Found { load, passed: Some(low), tripped: Some(high), conclusive: true }
}
