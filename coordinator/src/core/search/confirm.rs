//! The comparison in earnest: two levels a step apart are visited in turns until the lower one passes and the upper one
//! trips, and the lower one is soaked. Where the evidence points elsewhere, the pair moves.

use super::estimate::{Estimate, guess, time_to_precision};
use super::evidence::Judgement;
use super::grid::{Grid, Pair};
use super::outcome::Limits;
use super::plan::{SearchPlan, blocks};
use super::pool::{LevelPool, Pool, Soak};
use super::statistics::Quantiles;
use plimsoll_common::units::Rate;
use std::time::Duration;

/// What a level is judged by, and how.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// All limits.
    pub limits: &'a Limits,
    /// Those that count here, by position.
    pub focus: &'a [usize],
    /// For decisions.
    pub quantiles: &'a Quantiles,
}

/// A comparison under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confirm {
    grid: Grid,
    index: i32,
    /// A level has to be soaked before it may be the answer.
    soaks: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Move {
    /// The lower level of the pair again.
    VisitLow(Pair),
    /// The upper level of the pair again.
    VisitHigh(Pair),
    /// The lower level passes and the upper one trips: hold it before it may be the answer.
    Soak(Pair),
    /// Both levels are shown.
    Settled(Pair),
}

/// A pair moves by at most so many half steps at once, and by no more than so many times before something is visited.
const FARTHEST_MOVE: i32 = 8;
const MOST_MOVES: u32 = 16;
/// Blocks that both levels of a pair have before the evidence may point elsewhere.
const TELLING_BLOCKS: usize = 20;
/// Blocks that both levels have before the precision may be given up.
const HOPELESS_BLOCKS: usize = 40;
/// The guess must lie so many half steps from the middle of a pair to move it.
const FAR_OFF: f64 = 0.8;
/// A level that has so many blocks, and little more than a third of what is allowed (−1 is its logarithm) over its limits, is worth a soak.
const PROMISING_BLOCKS: usize = 20;
const PROMISING: f64 = -1.0;
/// A step that is wider than this tells nothing.
const WIDEST: f64 = 3.0;

impl Confirm {
    /// Around a first guess.
    pub fn around(centre: f64, plan: &SearchPlan, soaks: bool) -> Self {
        Self { grid: Grid::around(centre, plan.precision, plan.levels), index: 0, soaks }
    }

    /// A level and the next one above it.
    pub fn from(low: Rate, plan: &SearchPlan, soaks: bool) -> Self {
        Self { grid: Grid::from(low, plan.precision, plan.levels), index: 0, soaks }
    }

    /// The pair that is compared.
    pub fn pair(&self) -> Pair {
        self.grid.pair(self.index)
    }

    /// By how much the upper level lies above the lower one.
    pub fn width(&self) -> f64 {
        self.grid.width()
    }

    /// Goes on below after a soak that failed.
    pub fn step_down(&mut self) {
        self.index -= 1;
    }

    /// What comes next, moving the pair where the evidence points elsewhere. `left` is the time for it.
    pub fn next(&mut self, pool: &Pool, judge: Judge, plan: &SearchPlan, left: Duration) -> Move {
        for _ in 0..MOST_MOVES {
            if !self.shift(pool, judge, plan, left) {
                break;
            }
        }
        let pair = self.pair();
        let (low, high) = (implied(pool, judge, pair.low), implied(pool, judge, pair.high));
        match (low, high) {
            (Judgement::Pass, Judgement::Trip) => self.settle(pool, judge, pair),
            (Judgement::Pass, _) => Move::VisitHigh(pair),
            (_, Judgement::Trip) if self.looks_good(pool, judge, pair) => Move::Soak(pair),
            (_, Judgement::Trip) => Move::VisitLow(pair),
            _ => {
                let seen = |rate| pool.level(rate).map_or(0, |level| level.evidence.blocks());
                if seen(pair.low) <= seen(pair.high) { Move::VisitLow(pair) } else { Move::VisitHigh(pair) }
            }
        }
    }

    /// Whether the lower level has shown enough to spend its soak on it: the soak is evidence as the visits are.
    fn looks_good(&self, pool: &Pool, judge: Judge, pair: Pair) -> bool {
        let is_promising = |level: &LevelPool| is_promising(pool, judge, level, self.room(pair.low));
        self.soaks && pool.level(pair.low).is_some_and(is_promising)
    }

    fn settle(&self, pool: &Pool, judge: Judge, pair: Pair) -> Move {
        let soaked = pool.level(pair.low).is_some_and(|level| level.soak == Soak::Held);
        let own = pool.judge(pair.low, judge.limits, judge.focus, judge.quantiles) == Judgement::Pass;
        match (self.soaks, soaked && own) {
            (true, false) => Move::Soak(pair),
            _ => Move::Settled(pair),
        }
    }

    /// Moves the pair by one decision; false where it stays.
    fn shift(&mut self, pool: &Pool, judge: Judge, plan: &SearchPlan, left: Duration) -> bool {
        let pair = self.pair();
        let (low, high) = (implied(pool, judge, pair.low), implied(pool, judge, pair.high));
        let guess = self.guess(pool, judge, pair);
        let wanted = guess.map_or(self.index, |guess| self.grid.nearest(guess));
        let bounded = |index: i32| index.clamp(self.index - FARTHEST_MOVE, self.index + FARTHEST_MOVE);
        match (low, high) {
            (Judgement::Trip, _) => self.move_to(bounded(wanted.min(self.index - 1))),
            (_, Judgement::Pass) => self.move_to(bounded(wanted.max(self.index + 1))),
            (Judgement::Pass, Judgement::Trip) => false,
            _ => {
                let seen = |rate| pool.level(rate).map_or(0, |level| level.evidence.blocks());
                let undecided = |rate, judgement| (judgement == Judgement::Undecided).then(|| seen(rate));
                let least = [undecided(pair.low, low), undecided(pair.high, high)].into_iter().flatten().min();
                let least = least.unwrap_or(0);
                let far_off = guess.is_some_and(|guess| self.grid.offset(self.index, guess).abs() > FAR_OFF);
                if least >= TELLING_BLOCKS && far_off && wanted != self.index {
                    return self.move_to(bounded(wanted));
                }
                let patient = least < blocks(plan.lengths.patience);
                let hopeless = least >= HOPELESS_BLOCKS && self.takes(pool, judge, pair) > left.as_secs_f64();
                (hopeless || !patient) && self.widen(pool, judge, guess, left)
            }
        }
    }

    fn move_to(&mut self, index: i32) -> bool {
        self.index = index;
        true
    }

    /// Takes wider steps, as the time that is left allows.
    fn widen(&mut self, pool: &Pool, judge: Judge, guess: Option<f64>, left: Duration) -> bool {
        let pair = self.pair();
        let width = self.grid.width();
        let takes = self.takes(pool, judge, pair);
        // The time goes with the square of the precision; half of what is left is for the soak and for bad luck.
        let feasible = width * (2.0 * takes / left.as_secs_f64().max(1.0)).sqrt();
        let wider = feasible.clamp(3.0 * width, 10.0 * width).min(WIDEST);
        if wider <= width {
            return false;
        }
        let middle = (pair.low.as_f64() * pair.high.as_f64()).sqrt();
        *self = Self { grid: self.grid.again(guess.unwrap_or(middle), wider), index: 0, ..*self };
        true
    }

    /// Seconds, as far as can be told.
    fn takes(&self, pool: &Pool, judge: Judge, pair: Pair) -> f64 {
        match time_to_precision(pool, pair, judge, (self.grid.width(), self.grid.levels())) {
            Estimate::More(takes) => takes.as_secs_f64(),
            Estimate::Unknown => 0.0,
        }
    }

    fn guess(&self, pool: &Pool, judge: Judge, pair: Pair) -> Option<f64> {
        guess(pair, self.distance(pool, judge, pair.low), self.distance(pool, judge, pair.high))
    }

    fn distance(&self, pool: &Pool, judge: Judge, rate: Rate) -> Option<f64> {
        pool.distance(rate, judge.limits, judge.focus, self.room(rate), judge.quantiles)
    }

    fn room(&self, rate: Rate) -> f64 {
        self.grid.operations(rate) * self.grid.width() / 2.0
    }
}

/// Whether a level that was never soaked has so little over its limits that it is worth it; `room`: see [`Pool::distance`].
pub fn is_promising(pool: &Pool, judge: Judge, level: &LevelPool, room: f64) -> bool {
    let is_low = || {
        let distance = pool.distance(level.rate, judge.limits, judge.focus, room, judge.quantiles);
        distance.is_some_and(|distance| distance <= PROMISING)
    };
    level.soak == Soak::Untried && level.evidence.blocks() >= PROMISING_BLOCKS && is_low()
}

/// What is known of a level: by its own visits, or because a higher one passes or a lower one trips.
pub fn implied(pool: &Pool, judge: Judge, rate: Rate) -> Judgement {
    let of = |rate| pool.judge(rate, judge.limits, judge.focus, judge.quantiles);
    let own = of(rate);
    if own != Judgement::Undecided {
        return own;
    }
    let levels = pool.levels().iter().map(|level| level.rate);
    if levels.clone().any(|other| other < rate && of(other) == Judgement::Trip) {
        Judgement::Trip
    } else if levels.clone().any(|other| other > rate && of(other) == Judgement::Pass) {
        Judgement::Pass
    } else {
        Judgement::Undecided
    }
}
