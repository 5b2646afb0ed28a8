//! What load boxes have shown that they cannot carry, and what the rest of the fleet is to make of it.

use plimsoll_common::plan::BLOCK;
use plimsoll_common::units::Rate;

use super::measurement::{AgentMeasurement, StepMeasurement};
use super::split::SplitError;
use super::verdict::{Doubt, Verdict};

/// A box that leaves out or spoils operations in at least this part of the hold's blocks is too small for its share; one that does
/// so in fewer was disturbed, and may do better next time. One that did no better is too small all the same. That it stalls is not
/// enough: a tenth of a tight limit is a stall that
/// every box has all the time.
const WEAK_PART: f64 = 0.5;
/// Of what a box released in time it is asked for no more than this: at its very ceiling it would stall again.
const MARGIN: f64 = 0.7;
/// Of a share that was released in time, but so that the box spoiled the latencies.
const MARGIN_OF_SHARE: f64 = 0.5;

/// By position: what each box that could not carry its share is to be asked for at most from now on, in operations per second,
/// of which a share, a rate or users, makes as many as `rate_of` says. Nothing is learned from a trial that the boxes did not
/// make inconclusive. `before` is the verdict of the trial that this one repeats.
pub fn learned(
    step: &StepMeasurement,
    verdict: &Verdict,
    before: Option<&Verdict>,
    rate_of: impl Fn(Rate) -> Rate,
) -> Vec<(usize, Rate)> {
    let (blamed, blamed_before) =
        (verdict.boxes_that_spoiled(), before.map_or(Vec::new(), Verdict::boxes_that_spoiled));
    let blocks = (step.hold.as_secs_f64() / BLOCK.as_secs_f64()).ceil();
    let is_weak = |agent: &AgentMeasurement| {
        let spoilt = agent.health.spoilt_blocks;
        let (some, always) = (spoilt > 0, f64::from(spoilt) >= blocks * WEAK_PART);
        blamed.contains(&&*agent.agent) && (always || (some && blamed_before.contains(&&*agent.agent)))
    };
    let carries = |agent: &AgentMeasurement| {
        let counters = &agent.counters;
        // A part of what was due: people make less over a day than at its peak, which the share's rate is of.
        let part = match counters.underrun {
            0 => MARGIN_OF_SHARE,
            // What the in-flight cap refused it would have released.
            underrun => counters.due.saturating_sub(underrun) as f64 / counters.due.max(1) as f64 * MARGIN,
        };
        let milli = rate_of(agent.share).as_f64() * part * 1000.0;
        Rate::from_milli((milli as u64).max(1)).expect("at least one")
    };
    let agents = step.agents.iter().enumerate();
    agents.filter(|(_, agent)| is_weak(agent)).map(|(position, agent)| (position, carries(agent))).collect()
}

/// The verdict of a trial with what its boxes showed: where its level cannot be split over those that are there any more, that
/// is said, and how many more boxes it takes.
pub fn with_headroom(verdict: Verdict, split: Result<Vec<Rate>, SplitError>) -> Verdict {
    let Verdict::Inconclusive(doubts) = verdict else { return verdict };
    Verdict::Inconclusive(match split {
        Err(SplitError::Short { target, sum, more_boxes, .. }) => {
            doubts.and(Doubt::NoHeadroom { level: target, carries: sum, more_boxes })
        }
        Err(SplitError::ShortOfUsers { users, sum, more_boxes, .. }) => {
            doubts.and(Doubt::NoHeadroomForUsers { users, carries: sum, more_boxes })
        }
        _ => doubts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::{measurement, slo};
    use crate::core::measurement::StartLag;
    use crate::core::split::{Capacity, split, split_users};
    use crate::core::verdict::judge;
    use std::num::NonZeroU32;

    /// Two boxes of 500/s each for 10 s, 20 blocks; the second left so many out and stalled in so many blocks.
    fn check(underrun: u64, void_blocks: u32, spoilt_blocks: u32) -> Vec<(usize, String)> {
        let mut step = measurement();
        step.counters.attempted -= underrun;
        step.counters.underrun = underrun;
        let weak = &mut step.agents[1];
        weak.share = Rate::per_second(500).unwrap();
        weak.counters.due = 5000;
        weak.counters.attempted = 5000 - underrun;
        weak.counters.underrun = underrun;
        (weak.health.void_blocks, weak.health.spoilt_blocks) = (void_blocks, spoilt_blocks);
        learned_of(&step, |share| share)
    }

    fn learned_of(step: &StepMeasurement, rate_of: impl Fn(Rate) -> Rate) -> Vec<(usize, String)> {
        let learned = learned(step, &judge(step, &slo()), None, rate_of);
        learned.into_iter().map(|(position, rate)| (position, rate.to_string())).collect()
    }

    #[test]
    fn a_box_that_stalls_all_the_time_is_asked_for_less_than_it_carried() {
        assert_eq!(check(2000, 20, 20), [(1, "210".to_owned())]);
        assert_eq!(check(2000, 10, 10), [(1, "210".to_owned())]);
        assert_eq!(check(5000, 20, 20), [(1, "0.001".to_owned())]);
    }

    #[test]
    fn a_box_that_leaves_some_out_all_the_time_is_asked_for_less_however_short_its_stalls() {
        assert_eq!(check(600, 0, 20), [(1, "308".to_owned())]);
        assert_eq!(check(600, 1, 10), [(1, "308".to_owned())]);
    }

    #[test]
    fn a_box_that_was_disturbed_is_asked_for_as_much_again() {
        assert_eq!(check(2000, 9, 9), []);
        assert_eq!(
            check(2000, 20, 2),
            [],
            "it stalls by a tenth of a tight limit all the time, and left all out in one pause"
        );
        assert_eq!(check(0, 20, 20), [], "the trial passed all the same");
    }

    #[test]
    fn a_box_that_was_disturbed_in_the_trial_before_too_is_asked_for_less() {
        let of = |underrun: u64| {
            let mut step = measurement();
            step.counters.attempted -= underrun;
            step.counters.underrun = underrun;
            let weak = &mut step.agents[1];
            (weak.counters.attempted, weak.counters.underrun) = (5000 - underrun, underrun);
            weak.health.spoilt_blocks = 4;
            step
        };
        let (disturbed, quiet) = (of(2000), of(0));
        let learned = |before: Option<&Verdict>| {
            let verdict = judge(&disturbed, &slo());
            let learned = super::learned(&disturbed, &verdict, before, |share| share);
            learned.into_iter().map(|(position, rate)| (position, rate.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(learned(Some(&judge(&disturbed, &slo()))), [(1, "210".to_owned())]);
        assert_eq!(learned(Some(&judge(&quiet, &slo()))), []);
        assert_eq!(learned(None), []);
        // One operation in each trial is what every box leaves out now and then.
        let mut hardly = of(2000);
        hardly.agents[1].health.spoilt_blocks = 0;
        let verdict = judge(&hardly, &slo());
        assert_eq!(super::learned(&hardly, &verdict, Some(&verdict), |share| share), []);
    }

    #[test]
    fn what_the_in_flight_cap_refused_is_nothing_that_a_box_could_not_carry() {
        let mut step = measurement();
        for counters in [&mut step.counters, &mut step.agents[1].counters] {
            counters.attempted -= 3000;
            (counters.saturated, counters.underrun) = (2500, 500);
        }
        step.agents[1].share = Rate::per_second(500).unwrap();
        step.agents[1].health.spoilt_blocks = 20;
        // 500/s · 4500/5000 · 0.7.
        assert_eq!(learned_of(&step, |share| share), [(1, "315".to_owned())]);
    }

    #[test]
    fn a_box_that_began_late_has_shown_nothing_of_what_it_carries() {
        let mut step = measurement();
        step.agents[1].health.spoilt_blocks = 20;
        step.agents[1].start = step.agents[1].start.map(|start| StartLag { lag_ns: 3_000_000_000, ..start });
        assert_eq!(judge(&step, &slo()).boxes_to_blame(), [&*step.agents[1].agent], "worth another trial");
        assert_eq!(learned_of(&step, |share| share), []);
    }

    #[test]
    fn what_a_box_of_users_shows_is_a_part_of_what_they_make_at_most_and_never_a_number_of_users() {
        let mut step = measurement();
        step.counters.attempted -= 2000;
        step.counters.underrun = 2000;
        let weak = &mut step.agents[1];
        // 800 users who make 500/s at the day's peak and 400/s over the hold's ten seconds, of which half was released.
        weak.share = Rate::per_second(800).unwrap();
        weak.counters =
            plimsoll_common::snapshot::Counters { due: 4000, attempted: 2000, underrun: 2000, ..weak.counters };
        weak.health.spoilt_blocks = 20;
        let rate_of = |users: Rate| Rate::from_milli(users.milli() * 5 / 8).unwrap();
        // 500 · ½ · 0.7: 280 users, not 175 and not all 800.
        assert_eq!(learned_of(&step, rate_of), [(1, "175".to_owned())]);
        let agents = capacities(&[None, Some(175)]);
        let again = split_users(Rate::per_second(1600).unwrap(), 0.625, &agents).unwrap();
        assert_eq!(again.iter().map(Rate::to_string).collect::<Vec<_>>(), ["1320", "280"]);
        // The other carries the rest, so that no box is missing.
        let doubt = Verdict::Inconclusive(crate::core::non_empty::NonEmpty::one(Doubt::NothingAttempted));
        assert_eq!(with_headroom(doubt.clone(), Ok(again)), doubt);
        let alone = with_headroom(doubt, split_users(Rate::per_second(800).unwrap(), 0.625, &agents[1..]));
        assert!(alone.lacks_headroom());
        insta::assert_snapshot!(crate::report::words::reasons(&alone).last().cloned().unwrap_or_default(),
            @"800 users are more than the load boxes carry, 280 by what they showed: it takes 2 more like the largest");
    }

    fn capacities(ceilings: &[Option<u64>]) -> Vec<Capacity> {
        let capacity = |(index, ceiling): (usize, &Option<u64>)| Capacity {
            agent: format!("box-{index}"),
            weight: NonZeroU32::MIN,
            ceiling: ceiling.and_then(Rate::per_second),
            max_connections: None,
        };
        ceilings.iter().enumerate().map(capacity).collect()
    }

    #[test]
    fn a_fleet_without_headroom_says_how_many_more_boxes_the_level_takes() {
        let level = Rate::per_second(1000).unwrap();
        let doubt = || Verdict::Inconclusive(crate::core::non_empty::NonEmpty::one(Doubt::NothingAttempted));
        let words = |verdict: &Verdict| crate::report::words::reasons(verdict).last().cloned().unwrap_or_default();
        let headroom = |verdict, ceilings: &[Option<u64>]| with_headroom(verdict, split(level, &capacities(ceilings)));
        let short = headroom(doubt(), &[Some(210), Some(300)]);
        assert!(short.lacks_headroom());
        insta::assert_snapshot!(words(&short), @"1000/s is more than the load boxes carry, 510/s by what they showed: it takes 2 more like the largest");
        for enough in [&[Some(210), None][..], &[Some(500), Some(500)]] {
            assert_eq!(headroom(doubt(), enough), doubt());
        }
        assert_eq!(headroom(Verdict::Pass, &[Some(1)]), Verdict::Pass);
    }
}
