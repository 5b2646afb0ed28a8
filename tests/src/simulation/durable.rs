//! A durable off the latency path, in virtual time: what it does not do waits in its backlog, and only reads of that tell.
//! Messages come by chance, as Poisson arrivals or after a load box's stalls.

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll::core::backlog::{Backlog, BacklogRead, DurableName, DurableState, read_interval};
use plimsoll::core::measurement::FleetBlock;
use plimsoll::core::search::measured::{self, Due};
use plimsoll::core::search::outcome::{Block, Count, FractionLimit, Limits, Showing, Signal, SlopeLimit, TrialOutcome};
use plimsoll::core::search::plan::{Lengths, Levels, SearchPlan, blocks};
use plimsoll::core::search::slope::slope;
use plimsoll::core::search::trail::NextTrial;
use plimsoll::core::search::{Search, Step};
use plimsoll_common::plan::BLOCK;
use plimsoll_common::snapshot::Counters;
use plimsoll_common::units::Rate;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::methods::Found;

/// Messages per second that the durable does.
pub const CAPACITY: f64 = 900.0;
/// Messages per second by which it may fall behind.
pub const ALLOWED: f64 = 4.5;
/// A box that stands still sends what became due in this time before it goes on, in seconds.
const STILL_SENT: f64 = 0.1;
/// Arming a trial and reading backlogs, in seconds.
const OVERHEAD: f64 = 0.5;

/// The durable, and an error rate that nothing breaks.
pub fn limits() -> Limits {
    let durable = DurableName { stream: "S".into(), durable: "message-worker".into() };
    Limits {
        fractions: vec![FractionLimit { signal: Signal::ErrorRate, allowed: 0.001, rare: false }],
        slopes: vec![SlopeLimit { durable, per_second: ALLOWED }],
    }
}

/// A search for its capacity: five minutes, with the visits that a limit of 200 ms on something else leads to.
pub fn plan(precision: f64) -> SearchPlan {
    SearchPlan {
        from: Rate::per_second(300),
        highest: None,
        precision,
        confidence: 0.95,
        max_time: Duration::from_secs(300),
        limits: limits(),
        frontier: false,
        lengths: Lengths::for_limit(Some(Duration::from_millis(200)), precision),
        levels: Levels::Rates,
    }
}

/// The durable, and who sends to it.
#[derive(Debug)]
pub struct Durable {
    random: SmallRng,
    /// The box stands still for a second, once in so many on average; infinite: never.
    stalls_every: f64,
}

impl Durable {
    /// An idle one.
    pub fn new(seed: u64, stalls_every: f64) -> Self {
        Self { random: SmallRng::seed_from_u64(seed), stalls_every }
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.random.random_range(0.0..1.0_f64)).ln()
    }

    /// Holds a trial as the search asks for it.
    pub fn hold(&mut self, search: &Search, trial: &NextTrial) -> TrialOutcome {
        let rate = trial.level.as_f64();
        let settle = trial.settle.as_secs_f64();
        let mut showing = Showing::default();
        let mut hold = Hold::new(settle, read_interval(trial.hold).as_secs_f64());
        let mut due = 0.0;
        let mut stall = self.exponential() * self.stalls_every;
        let mut shown: Vec<FleetBlock> = Vec::new();
        while showing.blocks.len() < blocks(trial.hold) && !search.may_stop(&showing) {
            let end = settle + BLOCK.as_secs_f64() * (shown.len() + 1) as f64;
            let mut block = FleetBlock::default();
            while due < end {
                due += self.exponential() / rate;
                if due >= stall + 1.0 {
                    block.void |= true;
                    stall = due + self.exponential() * self.stalls_every;
                }
                block.void |= due >= stall;
                // What became due long before the box goes on is never sent.
                match due {
                    due if due < stall => hold.arrive(due),
                    due if due >= stall + 1.0 - STILL_SENT => hold.arrive(stall + 1.0),
                    _ => block.counters.underrun += 1,
                }
                block.counters.due += u64::from(due >= settle);
            }
            hold.read_until(end);
            let counters = Counters { attempted: block.counters.due, ..block.counters };
            shown.push(FleetBlock { counters, ..block });
            showing = showing_of(&shown, &hold.reads, rate, trial.hold);
        }
        let held = BLOCK * showing.blocks.len() as u32;
        let behind = slope(&showing.reads[0]).unwrap_or_default().max(0.0);
        TrialOutcome {
            showing,
            served: Some(rate - behind).filter(|_| behind > 0.0),
            behind: 0.0,
            boxes_get_less: false,
            lost_an_agent: false,
            vanished: Vec::new(),
            fault: None,
            unproved: None,
            load: trial.settle + held,
            took: trial.settle + held + Duration::from_secs_f64(OVERHEAD + hold.backlog() as f64 / CAPACITY),
        }
    }
}

fn showing_of(shown: &[FleetBlock], reads: &[BacklogRead], rate: f64, hold: Duration) -> Showing {
    let due = Due::at(rate, shown);
    let count = |block: &FleetBlock| Count { n: block.counters.due, ..Count::default() };
    let blocks = shown.iter().map(|block| Block { counts: vec![count(block)], void: block.void }).collect();
    Showing { blocks, reads: vec![measured::reads(reads, hold, due.as_ref())] }
}

/// A trial under way.
#[derive(Debug)]
struct Hold {
    settle: f64,
    every: f64,
    next_read: f64,
    /// When each message that waits is done.
    done_at: VecDeque<f64>,
    given: u64,
    reads: Vec<BacklogRead>,
}

impl Hold {
    fn new(settle: f64, every: f64) -> Self {
        Self { settle, every, next_read: settle, done_at: VecDeque::new(), given: 1, reads: Vec::new() }
    }

    fn arrive(&mut self, at: f64) {
        self.read_until(at);
        let free = self.done_at.back().map_or(at, |&free| free.max(at));
        self.done_at.push_back(free + 1.0 / CAPACITY);
        self.given += 1;
    }

    fn read_until(&mut self, at: f64) {
        while self.next_read <= at {
            while self.done_at.front().is_some_and(|&done| done <= self.next_read) {
                self.done_at.pop_front();
            }
            let backlog = Backlog { pending: self.backlog(), ack_pending: 0, given: self.given };
            let state = DurableState::Present { backlog, created: "then".into() };
            self.reads.push(BacklogRead { at: Duration::from_secs_f64(self.next_read - self.settle), state });
            self.next_read += self.every;
        }
    }

    fn backlog(&self) -> u64 {
        self.done_at.len() as u64
    }
}

/// Lets the search look, and returns it at its end.
pub fn search(mut durable: Durable, plan: &SearchPlan) -> (Found, Search) {
    let mut search = Search::new(plan.clone());
    loop {
        let trial = match search.next() {
            Step::Hold(trial) => *trial,
            Step::Done(conclusion) => {
                let found = Found::of(conclusion);
                return (found, search);
            }
        };
        let outcome = durable.hold(&search, &trial);
        search.record(&outcome);
    }
}
