//! The first look: a climb by doubling until something is over a limit, and a bisection by hints until two levels lie close
//! enough to compare them in earnest.

use std::time::Duration;

use plimsoll_common::units::Rate;

use super::grid::round;
use super::hint::Hint;
use super::plan::{SHOWS_BOXES, SearchPlan};
use super::trail::Why;

/// The bracket so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bracket {
    /// The largest level that was under every limit.
    pub under: Option<Rate>,
    /// The smallest level that was over one.
    pub over: Option<Rate>,
    /// The most that the service carried under overload, per second.
    served: Option<f64>,
    /// The limits that were over then, by position.
    broken: Vec<usize>,
    /// How far the next level lies below the one that was over a limit, in steps of twice the precision.
    gallop: u32,
    /// Unclear trials in a row.
    unclear: u32,
    /// The level above which the load boxes hide what the service does.
    pub clouded: Option<Rate>,
    /// Where to climb from, and by what.
    start: Option<(Rate, f64)>,
}

/// The next level to look at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Look {
    /// A short trial.
    At(Rate, Why, Duration),
    /// The two levels are close enough; where between them to begin.
    Around(f64),
    /// Under every limit at the highest level there is.
    Highest(Rate),
    /// Over a limit at the lowest level there is.
    Lowest(Rate),
}

/// Trials at one level that may be unclear, before the search goes on below it.
const UNCLEAR: u32 = 3;
/// A probe just below what the service carried, and one just above.
const NEAR_CAPACITY: [f64; 2] = [0.97, 1.03];

/// Where to climb from after a probe in which the service carried so much: half of it, which is no overload.
pub fn begin_below(served: Option<f64>) -> Rate {
    round((served.unwrap_or_default() / 2.0).max(1.0))
}

impl Bracket {
    /// A bracket that climbs from a level known to be good by steps of this factor.
    pub fn above(known: Rate, factor: f64) -> Self {
        Self { under: Some(known), start: Some((known, factor)), ..Self::default() }
    }

    /// What was unclear by a box that gets less from now on says nothing of the next trial.
    pub fn relieve_boxes(&mut self) {
        self.unclear = 0;
    }

    /// Takes what a trial hinted at.
    pub fn take(&mut self, level: Rate, hint: &Hint, served: Option<f64>) {
        match hint {
            Hint::Under => {
                self.under = self.under.max(Some(level));
                self.over = self.over.filter(|&over| over > level);
                self.gallop = 0;
            }
            Hint::Over(_) | Hint::Behind(_) => {
                self.put_over(level);
                // A trial that was ended early leaves out what was still under way.
                self.served = self.served.into_iter().chain(served).reduce(f64::max);
                self.broken = if let Hint::Over(broken) = hint { broken.clone() } else { Vec::new() };
            }
            Hint::Unclear if self.unclear + 1 < UNCLEAR => {
                self.unclear += 1;
                return;
            }
            Hint::Unclear => {
                self.clouded = Some(level);
                self.put_over(level);
            }
        }
        self.unclear = 0;
    }

    fn put_over(&mut self, level: Rate) {
        self.over = Some(self.over.map_or(level, |over| over.min(level)));
        self.under = self.under.filter(|&under| under < level);
        self.gallop += 1;
    }

    /// Where to look next; the same level again while a trial was unclear, for so long that it shows which box is too small.
    pub fn look(&self, plan: &SearchPlan, again: Option<(Rate, Why, Duration)>) -> Look {
        if let Some((level, why, hold)) = again.filter(|_| self.unclear > 0) {
            return Look::At(level, why, hold.max(SHOWS_BOXES));
        }
        // What lies above the highest level, which may have become lower, can be looked at no more.
        let over = self.over.filter(|&over| plan.highest.is_none_or(|highest| over <= highest));
        match (self.under, over) {
            (None, None) => Look::At(plan.first_level(), Why::First, plan.lengths.climb),
            (Some(under), None) => self.climb(under, plan),
            (None, Some(over)) => self.descend(over, plan),
            (Some(under), Some(over)) => self.between(under, over, plan),
        }
    }

    fn climb(&self, under: Rate, plan: &SearchPlan) -> Look {
        if let Some(highest) = plan.highest.filter(|&highest| under >= highest) {
            return Look::Highest(highest);
        }
        let factor = match self.start {
            // Known to be near: each step is twice the one before.
            Some((start, factor)) => (under.as_f64() / start.as_f64() * factor).min(2.0),
            None => 2.0,
        };
        Look::At(capped(plan.levels.round(under.as_f64() * factor), plan), Why::Climb, plan.lengths.climb)
    }

    fn descend(&self, over: Rate, plan: &SearchPlan) -> Look {
        let lowest = plan.levels.lowest();
        if over.as_f64() <= lowest {
            return Look::Lowest(over);
        }
        let half = over.as_f64() / 2.0;
        // What the service carried under overload is about where it stands; less is tried only after that was over too.
        let near =
            self.served.map(|served| served * 0.9).filter(|near| *near < over.as_f64() * 0.95 && *near > half / 16.0);
        match near {
            Some(level) => {
                let served = self.served.unwrap_or_default();
                Look::At(plan.levels.round(level.max(lowest)), Why::Capacity { served }, plan.lengths.probe)
            }
            None => Look::At(plan.levels.round(half.max(lowest)), Why::Descend, plan.lengths.probe),
        }
    }

    fn between(&self, under: Rate, over: Rate, plan: &SearchPlan) -> Look {
        let (low, high) = (under.as_f64(), over.as_f64());
        let close = 1.0 + 2.0 * plan.precision;
        let middle = (low * high).sqrt();
        let round = |level: f64| plan.levels.round(level);
        if high / low <= close || round(middle) <= under || round(middle) >= over {
            return Look::Around(
                self.served.map_or(middle, |served| {
                    towards(middle, served * plan.utilization(served, &self.broken), low, high)
                }),
            );
        }
        let inside =
            |level: f64| level > low * (1.0 + plan.precision / 2.0) && level < high / (1.0 + plan.precision / 2.0);
        if let Some(served) = self.served {
            // The one above only where the one below was under every limit: else the limit lies far below the capacity.
            let near = NEAR_CAPACITY.map(|part| part * served);
            let above = inside(near[1]) && low > 0.95 * served;
            let found = if inside(near[0]) { Some(near[0]) } else { above.then_some(near[1]) };
            if let Some(level) = found {
                return Look::At(round(level), Why::Capacity { served }, plan.lengths.probe);
            }
        }
        let steps = 1_u32 << self.gallop.saturating_sub(1).min(5);
        let gallop = if self.gallop > 1 { high / close.powi(steps as i32 / 2) } else { middle };
        Look::At(round(middle.max(gallop)), Why::Bisect, plan.lengths.probe)
    }
}

/// Between the middle of a bracket and what the service carries, where that lies in the bracket or close below it: hints this
/// near to the capacity come by chance, and the middle alone would put the lower level of a pair just above the limit.
fn towards(middle: f64, near: f64, low: f64, high: f64) -> f64 {
    let is_told = (low * low / high..=high).contains(&near);
    if is_told { (middle * near.max(low)).sqrt() } else { middle }
}

fn capped(level: Rate, plan: &SearchPlan) -> Rate {
    plan.highest.map_or(level, |highest| level.min(highest))
}
