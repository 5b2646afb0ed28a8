//! What load boxes have shown that they cannot carry, and what the rest of the fleet is to make of it.

use plimsoll_common::plan::BLOCK;
use plimsoll_common::units::Rate;

use super::measurement::{AgentMeasurement, StepMeasurement};
use super::split::{Capacity, SplitError, split};
use super::verdict::{Doubt, Verdict};

/// A box that stalls in at least this part of the hold's blocks is too small for its share; one that stalls in fewer was
/// disturbed, and may do better next time.
const WEAK_PART: f64 = 0.5;
/// Of what a box released in time it is asked for no more than this: at its very ceiling it would stall again.
const MARGIN: f64 = 0.7;
/// Of a share that was released in time, but so that the box spoiled the latencies.
const MARGIN_OF_SHARE: f64 = 0.5;

/// By position: what each box that could not carry its share is to be asked for at most from now on. Nothing is learned from
/// a trial that the boxes did not make inconclusive.
pub fn learned(step: &StepMeasurement, verdict: &Verdict) -> Vec<(usize, Rate)> {
    let blamed = verdict.boxes_to_blame();
    let blocks = (step.hold.as_secs_f64() / BLOCK.as_secs_f64()).ceil();
    let is_weak = |agent: &AgentMeasurement| {
        blamed.contains(&&*agent.agent) && f64::from(agent.health.void_blocks) >= blocks * WEAK_PART
    };
    let carries = |agent: &AgentMeasurement| {
        let milli = match agent.counters.underrun {
            0 => agent.share.as_f64() * MARGIN_OF_SHARE * 1000.0,
            _ => agent.achieved_rate(step.hold).min(agent.share.as_f64()) * MARGIN * 1000.0,
        };
        Rate::from_milli((milli as u64).max(1)).expect("at least one")
    };
    let agents = step.agents.iter().enumerate();
    agents.filter(|(_, agent)| is_weak(agent)).map(|(position, agent)| (position, carries(agent))).collect()
}

/// The verdict of a trial with what its boxes showed: where those that are there cannot carry the level whatever is split
/// over them, that is said, and how many more boxes it takes.
pub fn with_headroom(verdict: Verdict, level: Rate, capacities: &[Capacity]) -> Verdict {
    let Verdict::Inconclusive(doubts) = verdict else { return verdict };
    match split(level, capacities) {
        Err(SplitError::Short { sum, more_boxes, .. }) => {
            Verdict::Inconclusive(doubts.and(Doubt::NoHeadroom { level, carries: sum, more_boxes }))
        }
        _ => Verdict::Inconclusive(doubts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::{measurement, slo};
    use crate::core::verdict::judge;
    use std::num::NonZeroU32;

    /// Two boxes of 500/s each for 10 s, 20 blocks; the second left so many out and stalled in so many blocks.
    fn check(underrun: u64, void_blocks: u32) -> Vec<(usize, String)> {
        let mut step = measurement();
        step.counters.attempted -= underrun;
        step.counters.underrun = underrun;
        let weak = &mut step.agents[1];
        weak.share = Rate::per_second(500).unwrap();
        weak.counters.due = 5000;
        weak.counters.attempted = 5000 - underrun;
        weak.counters.underrun = underrun;
        weak.health.void_blocks = void_blocks;
        let verdict = judge(&step, &slo());
        learned(&step, &verdict).into_iter().map(|(position, rate)| (position, rate.to_string())).collect()
    }

    #[test]
    fn a_box_that_stalls_all_the_time_is_asked_for_less_than_it_carried() {
        assert_eq!(check(2000, 20), [(1, "210".to_owned())]);
        assert_eq!(check(2000, 10), [(1, "210".to_owned())]);
        assert_eq!(check(5000, 20), [(1, "0.001".to_owned())]);
    }

    #[test]
    fn a_box_that_was_disturbed_is_asked_for_as_much_again() {
        assert_eq!(check(2000, 9), []);
        assert_eq!(check(0, 20), [], "the trial passed all the same");
    }

    fn capacities(ceilings: &[Option<u64>]) -> Vec<Capacity> {
        let capacity = |(index, ceiling): (usize, &Option<u64>)| Capacity {
            agent: format!("box-{index}"),
            weight: NonZeroU32::MIN,
            ceiling: ceiling.and_then(Rate::per_second),
        };
        ceilings.iter().enumerate().map(capacity).collect()
    }

    #[test]
    fn a_fleet_without_headroom_says_how_many_more_boxes_the_level_takes() {
        let level = Rate::per_second(1000).unwrap();
        let doubt = || Verdict::Inconclusive(crate::core::non_empty::NonEmpty::one(Doubt::NothingAttempted));
        let words = |verdict: &Verdict| crate::report::words::reasons(verdict).last().cloned().unwrap_or_default();
        let short = with_headroom(doubt(), level, &capacities(&[Some(210), Some(300)]));
        assert!(short.lacks_headroom());
        insta::assert_snapshot!(words(&short), @"1000/s is more than the load boxes carry, 510/s by what they showed: it takes 2 more like the largest");
        for enough in [&[Some(210), None][..], &[Some(500), Some(500)]] {
            assert_eq!(with_headroom(doubt(), level, &capacities(enough)), doubt());
        }
        assert_eq!(with_headroom(Verdict::Pass, level, &capacities(&[Some(1)])), Verdict::Pass);
    }
}
