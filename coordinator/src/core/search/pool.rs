//! Every level that was visited, with its evidence, and how the levels bear on each other.

use plimsoll_common::units::Rate;

use super::evidence::{Evidence, Figures, Judgement, PASS_BLOCKS, TRIP_BLOCKS};
use super::outcome::{Limits, TrialOutcome};
use super::statistics::Quantiles;

/// Evidence by level, and what the search learned beside it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pool {
    /// In the order of their rates.
    levels: Vec<LevelPool>,
}

/// One level.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelPool {
    /// The level.
    pub rate: Rate,
    /// Of its visits and soaks.
    pub evidence: Evidence,
    /// Visits, soaks included.
    pub visits: u32,
    /// How its newest soak ended.
    pub soak: Soak,
    /// A contradiction sent it back: it decides nothing before it has so many blocks.
    needed: usize,
}

/// How a soak ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Soak {
    /// There was none.
    Untried,
    /// Nothing was over a limit beyond what is allowed.
    Held,
    /// Something was.
    Failed,
}

impl Pool {
    /// The levels so far, in the order of their rates.
    pub fn levels(&self) -> &[LevelPool] {
        &self.levels
    }

    /// One level, if it was visited.
    pub fn level(&self, rate: Rate) -> Option<&LevelPool> {
        self.levels.iter().find(|level| level.rate == rate)
    }

    /// Adds a visit.
    pub fn add(&mut self, rate: Rate, outcome: &TrialOutcome, limits: &Limits) {
        let level = self.entry(rate);
        level.evidence.add(&outcome.showing, &outcome.vanished, limits);
        level.visits += 1;
    }

    /// Notes how a soak ended.
    pub fn soaked(&mut self, rate: Rate, soak: Soak) {
        self.entry(rate).soak = soak;
    }

    fn entry(&mut self, rate: Rate) -> &mut LevelPool {
        let at = match self.levels.binary_search_by_key(&rate, |level| level.rate) {
            Ok(at) => at,
            Err(at) => {
                let evidence = Evidence::default();
                self.levels.insert(at, LevelPool { rate, evidence, visits: 0, soak: Soak::Untried, needed: 0 });
                at
            }
        };
        &mut self.levels[at]
    }

    /// A limit at a level, in figures; `None` where the level was never visited.
    pub fn figures(&self, rate: Rate, limit: usize, limits: &Limits, quantiles: &Quantiles) -> Option<Figures> {
        let level = self.level(rate)?;
        let known = self.levels.iter().filter(|level| level.rate <= rate);
        let largest = known.map(|level| level.evidence.episodes(limit).largest).fold(0.0, f64::max);
        let mut figures = level.evidence.figures(limits, limit, largest, quantiles);
        if level.evidence.blocks() < level.needed {
            figures.judgement = Judgement::Undecided;
        }
        Some(figures)
    }

    /// What a level's evidence says of these limits together: broken where one is, held where all are.
    pub fn judge(&self, rate: Rate, limits: &Limits, focus: &[usize], quantiles: &Quantiles) -> Judgement {
        let each = |limit: &usize| self.figures(rate, *limit, limits, quantiles).map(|figures| figures.judgement);
        let judgements: Vec<Option<Judgement>> = focus.iter().map(each).collect();
        if judgements.contains(&Some(Judgement::Trip)) {
            Judgement::Trip
        } else if judgements.iter().all(|judgement| *judgement == Some(Judgement::Pass)) {
            Judgement::Pass
        } else {
            Judgement::Undecided
        }
    }

    /// The limits in `focus` that are broken at a level.
    pub fn broken(&self, rate: Rate, limits: &Limits, focus: &[usize], quantiles: &Quantiles) -> Vec<usize> {
        let is_broken = |limit: &usize| {
            self.figures(rate, *limit, limits, quantiles).is_some_and(|figures| figures.judgement == Judgement::Trip)
        };
        focus.iter().copied().filter(is_broken).collect()
    }

    /// How far a level is from the nearest limit: see [`Figures::distance`]; `room` in operations per second. `None` while
    /// any limit has shown too little, since it may be the nearest; but where one is broken, the level lies above the largest
    /// whatever the others will show.
    pub fn distance(
        &self,
        rate: Rate,
        limits: &Limits,
        focus: &[usize],
        room: f64,
        quantiles: &Quantiles,
    ) -> Option<f64> {
        let each = |limit: &usize| {
            self.figures(rate, *limit, limits, quantiles)?.distance(*limit >= limits.fractions.len(), room)
        };
        let distances: Vec<Option<f64>> = focus.iter().map(each).collect();
        if distances.contains(&None) && self.judge(rate, limits, focus, quantiles) != Judgement::Trip {
            return None;
        }
        distances.into_iter().flatten().max_by(f64::total_cmp)
    }

    /// Levels that contradict each other, a TRIP below a PASS, go back to undecided until each has seen as much again as a
    /// decision takes. Returns the levels.
    pub fn send_back_contradictions(&mut self, limits: &Limits, focus: &[usize], quantiles: &Quantiles) -> Vec<Rate> {
        let judged: Vec<(Rate, Judgement)> =
            self.levels.iter().map(|level| (level.rate, self.judge(level.rate, limits, focus, quantiles))).collect();
        let lowest_trip = judged.iter().find(|(_, judgement)| *judgement == Judgement::Trip).map(|(rate, _)| *rate);
        let highest_pass = judged.iter().rev().find(|(_, j)| *j == Judgement::Pass).map(|(rate, _)| *rate);
        let (Some(trip), Some(pass)) = (lowest_trip, highest_pass) else { return Vec::new() };
        let contradicts = |(rate, judgement): &&(Rate, Judgement)| match judgement {
            Judgement::Trip => *rate < pass,
            Judgement::Pass => *rate > trip,
            Judgement::Undecided => false,
        };
        let sent_back: Vec<(Rate, Judgement)> = judged.iter().filter(contradicts).copied().collect();
        for (rate, judgement) in &sent_back {
            let more = if *judgement == Judgement::Pass { PASS_BLOCKS } else { TRIP_BLOCKS };
            let level = self.entry(*rate);
            level.needed = level.evidence.blocks() + more;
            if *judgement == Judgement::Pass {
                level.soak = Soak::Untried;
            }
        }
        sent_back.into_iter().map(|(rate, _)| rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::backlog::DurableName;
    use crate::core::search::evidence::FARTHEST_ABOVE;
    use crate::core::search::outcome::{Block, Count, FractionLimit, Showing, Signal, SlopeLimit};

    /// Visits of a level at which every operation is over the limit, so many blocks long, in which the durable was not read.
    fn distance_after(blocks: usize) -> Option<f64> {
        let durable = DurableName { stream: "S".into(), durable: "d".into() };
        let limits = Limits {
            fractions: vec![FractionLimit { signal: Signal::ErrorRate, allowed: 0.01, rare: false }],
            slopes: vec![SlopeLimit { durable, per_second: 1.0 }],
        };
        let block = Block { counts: vec![Count { n: 1000, above: 1000, anyway: 1000 }], void: false };
        let outcome = TrialOutcome {
            showing: Showing { blocks: vec![block; blocks], reads: vec![Vec::new()] },
            served: None,
            behind: 0.0,
            boxes_get_less: false,
            lost_an_agent: false,
            vanished: Vec::new(),
            fault: None,
            unproved: None,
            load: Duration::ZERO,
            took: Duration::ZERO,
        };
        let rate = Rate::per_second(1000).unwrap();
        let mut pool = Pool::default();
        pool.add(rate, &outcome, &limits);
        pool.distance(rate, &limits, &[0, 1], 25.0, &Quantiles::new(0.01))
    }

    #[test]
    fn a_level_that_breaks_a_limit_is_above_it_whatever_another_has_yet_to_show() {
        assert_eq!(distance_after(TRIP_BLOCKS), Some(FARTHEST_ABOVE));
        assert_eq!(distance_after(TRIP_BLOCKS - 1), None, "nothing is decided yet, and the durable may be the nearest");
    }
}
