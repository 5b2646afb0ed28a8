//! Which level is held next: the steps in order, repeats where load boxes spoiled a trial, and where to stop.

use std::num::NonZeroU32;

use plimsoll_common::plan::TrialId;
use plimsoll_common::units::{Rate, Steps};
use serde::{Deserialize, Serialize};

use super::verdict::{Doubt, Verdict};

/// What a TRIP does to the levels above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTrip {
    /// They are not held.
    Stop,
    /// They are held all the same.
    GoOn,
}

/// What becomes of agents that alone do not reach the target as the others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Astray {
    /// They are let go, and the others hold the trial again.
    LetGo,
    /// They stay.
    Stay,
}

/// One trial that was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedTrial {
    /// Which trial of which step.
    pub trial: TrialId,
    /// The step's target rate.
    pub level: Rate,
    /// What it says of the level.
    pub verdict: Verdict,
}

/// The trial to hold next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextTrial {
    /// Which trial of which step.
    pub trial: TrialId,
    /// The step's target rate.
    pub level: Rate,
}

/// A trial that does not follow from those before it and the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("trial {} of step {} at {level}/s does not follow from its plan and the trials before it", trial.trial + 1, trial.step + 1)]
pub struct NotOfThisRamp {
    trial: TrialId,
    level: Rate,
}

/// A ramp under way: every trial so far, and from them what comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ramp {
    levels: Vec<Rate>,
    on_trip: OnTrip,
    /// Trials that a step may have.
    most_trials: NonZeroU32,
    astray: Astray,
    trials: Vec<JudgedTrial>,
}

impl Ramp {
    /// A ramp before its first trial.
    pub fn new(steps: &Steps, on_trip: OnTrip, most_trials: NonZeroU32, astray: Astray) -> Self {
        Self { levels: steps.rates().to_vec(), on_trip, most_trials, astray, trials: Vec::new() }
    }

    /// The agents that are let go after this verdict, each with what says that it is astray.
    pub fn to_let_go<'v>(&self, verdict: &'v Verdict) -> Vec<(&'v str, &'v Doubt)> {
        if self.astray == Astray::LetGo { verdict.astray() } else { Vec::new() }
    }

    /// The trial to hold now; `None` when the ramp is over. Says the same until its verdict is recorded.
    ///
    /// An INCONCLUSIVE trial is repeated where load boxes were the reason and trials are left, and where an agent was lost in
    /// it or is let go after it, which takes none of them: whether there is a fleet to repeat it is not the ramp's to say. The first conclusive
    /// trial is the step's verdict.
    pub fn next_trial(&self) -> Option<NextTrial> {
        let Some(last) = self.trials.last() else { return self.first_of(0) };
        match &last.verdict {
            Verdict::Trip(_) if self.on_trip == OnTrip::Stop => None,
            verdict if verdict.lacks_headroom() => None,
            verdict if self.is_worth_repeating(last.trial, verdict) => {
                let trial = TrialId { trial: last.trial.trial + 1, ..last.trial };
                Some(NextTrial { trial, level: last.level })
            }
            _ => self.first_of(last.trial.step + 1),
        }
    }

    /// Records the verdict of the trial that [`Self::next_trial`] named.
    ///
    /// # Panics
    /// When the ramp is over.
    pub fn record(&mut self, verdict: Verdict) {
        let NextTrial { trial, level } = self.next_trial().expect("a verdict needs a trial that was asked for");
        self.trials.push(JudgedTrial { trial, level, verdict });
    }

    /// From now on no trial is repeated.
    pub fn repeat_no_more(&mut self) {
        self.most_trials = NonZeroU32::MIN;
    }

    /// The levels of all trials that come yet if none is repeated but the one to hold now.
    pub fn to_come(&self) -> Vec<Rate> {
        let Some(next) = self.next_trial() else { return Vec::new() };
        self.levels.iter().skip(next.trial.step as usize).copied().collect()
    }

    /// Records trials that were held before, in their order.
    ///
    /// # Errors
    /// One that this ramp would not have asked for.
    pub fn replay(&mut self, held: impl IntoIterator<Item = JudgedTrial>) -> Result<(), NotOfThisRamp> {
        for JudgedTrial { trial, level, verdict } in held {
            if self.next_trial() != Some(NextTrial { trial, level }) {
                return Err(NotOfThisRamp { trial, level });
            }
            self.record(verdict);
        }
        Ok(())
    }

    /// All trials so far, in order.
    pub fn trials(&self) -> &[JudgedTrial] {
        &self.trials
    }

    fn is_worth_repeating(&self, trial: TrialId, verdict: &Verdict) -> bool {
        let takes_none = |verdict: &Verdict| verdict.lost_an_agent() || !self.to_let_go(verdict).is_empty();
        if takes_none(verdict) {
            return true;
        }
        let of_step = self.trials.iter().filter(|held| held.trial.step == trial.step);
        let whole = of_step.filter(|held| !takes_none(&held.verdict)).count();
        whole < self.most_trials.get() as usize && (!verdict.boxes_to_blame().is_empty() || verdict.may_pass())
    }

    fn first_of(&self, step: u32) -> Option<NextTrial> {
        let level = *self.levels.get(usize::try_from(step).ok()?)?;
        Some(NextTrial { trial: TrialId { step, trial: 0 }, level })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::measurement::Fault;
    use crate::core::non_empty::NonEmpty;
    use crate::core::verdict::{Alone, BoxAtFault, Breach, Errors, Objective, Shortfall};
    use plimsoll_common::snapshot::Stall;
    use proptest::prelude::*;
    use std::time::Duration;

    fn trip() -> Verdict {
        let limit = "0.001".parse().unwrap();
        Verdict::Trip(NonEmpty::one(Breach::ErrorRate(Errors { errors: 1, attempted: 1, limit })))
    }

    fn inconclusive() -> Verdict {
        Verdict::Inconclusive(NonEmpty::one(Doubt::NothingAttempted))
    }

    fn by_a_box() -> Verdict {
        let agent = "box-a".to_owned();
        let late = vec![BoxAtFault { agent, operations: 9, worst_stall: Stall::Unbounded, void_blocks: 3 }];
        let shortfall = Shortfall { saturated: 0, underrun: 9, capped: vec![], late };
        let tolerance = "0.05".parse().unwrap();
        Verdict::Inconclusive(NonEmpty::one(Doubt::RateShort { due: 10, attempted: 1, tolerance, shortfall }))
    }

    /// The trail of a ramp whose trials get these verdicts in turn: `level.trial word`.
    fn trail(on_trip: OnTrip, trials: u32, verdicts: &[Verdict]) -> String {
        let steps: Steps = "500,1k,2k".parse().unwrap();
        let mut ramp = Ramp::new(&steps, on_trip, NonZeroU32::new(trials).unwrap(), Astray::LetGo);
        let mut verdicts = verdicts.iter();
        let mut trail = Vec::new();
        while let Some(NextTrial { trial, level }) = ramp.next_trial() {
            let Some(verdict) = verdicts.next() else {
                trail.push(format!("{level}.{} next", trial.trial));
                break;
            };
            trail.push(format!("{level}.{} {}", trial.trial, verdict.word()));
            ramp.record(verdict.clone());
        }
        assert!(verdicts.next().is_none(), "the ramp was over after {trail:?}");
        trail.join(", ")
    }

    #[test]
    fn every_level_is_held_in_order() {
        let all = [Verdict::Pass, Verdict::Pass, Verdict::Pass];
        assert_eq!(trail(OnTrip::Stop, 3, &all), "500.0 PASS, 1000.0 PASS, 2000.0 PASS");
        assert_eq!(trail(OnTrip::Stop, 3, &[]), "500.0 next");
    }

    #[test]
    fn the_first_trip_ends_the_ramp_unless_told_otherwise() {
        assert_eq!(trail(OnTrip::Stop, 3, &[Verdict::Pass, trip()]), "500.0 PASS, 1000.0 TRIP");
        assert_eq!(trail(OnTrip::GoOn, 3, &[Verdict::Pass, trip()]), "500.0 PASS, 1000.0 TRIP, 2000.0 next");
    }

    #[test]
    fn an_inconclusive_level_never_ends_the_ramp() {
        assert_eq!(trail(OnTrip::Stop, 3, &[inconclusive()]), "500.0 INCONCLUSIVE, 1000.0 next");
    }

    #[test]
    fn a_level_that_the_fleet_cannot_carry_ends_the_ramp_whatever_is_left() {
        let level = "1k".parse().unwrap();
        let short = Doubt::NoHeadroom { level, carries: level, more_boxes: 1 };
        let Verdict::Inconclusive(doubts) = by_a_box() else { unreachable!("it is inconclusive") };
        let short = Verdict::Inconclusive(doubts.and(short));
        assert_eq!(trail(OnTrip::GoOn, 3, &[Verdict::Pass, short]), "500.0 PASS, 1000.0 INCONCLUSIVE");
    }

    #[test]
    fn a_trial_is_repeated_only_when_boxes_or_missing_reads_were_the_reason() {
        let durable = crate::core::fixture::durable("message-worker", 0).name;
        let unread = || {
            Verdict::Inconclusive(NonEmpty::one(Doubt::BacklogUnreadable {
                durable: durable.clone(),
                reads_at_ends: (5, 2),
            }))
        };
        assert_eq!(trail(OnTrip::Stop, 3, &[unread(), Verdict::Pass]), "500.0 INCONCLUSIVE, 500.1 PASS, 1000.0 next");
        assert_eq!(
            trail(OnTrip::Stop, 3, &[by_a_box(), by_a_box(), by_a_box()]),
            "500.0 INCONCLUSIVE, 500.1 INCONCLUSIVE, 500.2 INCONCLUSIVE, 1000.0 next"
        );
        assert_eq!(trail(OnTrip::Stop, 1, &[by_a_box()]), "500.0 INCONCLUSIVE, 1000.0 next");
        assert_eq!(
            trail(OnTrip::Stop, 3, &[by_a_box(), inconclusive()]),
            "500.0 INCONCLUSIVE, 500.1 INCONCLUSIVE, 1000.0 next"
        );
    }

    #[test]
    fn a_trial_after_which_somebody_is_let_go_is_held_again_and_takes_none_of_a_steps() {
        let slow = |agent: &str| {
            let objective = Objective::Errors;
            let alone = Alone { objective, bad: 9, of: 9, others_bad: 0, others: 9, write_blocked: Duration::ZERO };
            Doubt::SlowAlone { agent: agent.to_owned(), alone }
        };
        let cut_off = || {
            Doubt::Fault(Fault::CutOff {
                agent: "box-b".to_owned(),
                length: Duration::from_secs(1),
                one_of_many: false,
            })
        };
        let by = |doubt| Verdict::Inconclusive(NonEmpty::one(doubt));
        assert_eq!(
            trail(OnTrip::Stop, 1, &[by(slow("box-a")), by(cut_off()), trip()]),
            "500.0 INCONCLUSIVE, 500.1 INCONCLUSIVE, 500.2 TRIP"
        );
        let steps: Steps = "500,1k".parse().unwrap();
        let ramp = Ramp::new(&steps, OnTrip::Stop, NonZeroU32::MIN, Astray::LetGo);
        let both = Verdict::Inconclusive(NonEmpty::one(cut_off()).and(slow("box-b")).and(slow("box-a")));
        let names = |ramp: &Ramp| ramp.to_let_go(&both).iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&ramp), ["box-b", "box-a"], "each once");
        let mut stay = Ramp::new(&steps, OnTrip::Stop, NonZeroU32::MIN, Astray::Stay);
        assert_eq!(names(&stay), Vec::<String>::new());
        stay.record(both.clone());
        assert_eq!(stay.next_trial().map(|next| next.trial.step), Some(1));
    }

    #[test]
    fn a_ramp_that_repeats_no_more_goes_on_with_the_next_level() {
        let steps: Steps = "500,1k,2k".parse().unwrap();
        let mut ramp = Ramp::new(&steps, OnTrip::Stop, NonZeroU32::new(3).unwrap(), Astray::LetGo);
        ramp.record(by_a_box());
        assert_eq!(ramp.to_come(), steps.rates());
        ramp.repeat_no_more();
        assert_eq!(ramp.next_trial().map(|next| next.trial), Some(TrialId { step: 1, trial: 0 }));
        assert_eq!(ramp.to_come(), steps.rates()[1..]);
        ramp.record(trip());
        assert_eq!(ramp.to_come(), []);
    }

    #[test]
    fn the_first_conclusive_trial_is_the_steps_verdict() {
        assert_eq!(trail(OnTrip::Stop, 3, &[by_a_box(), Verdict::Pass]), "500.0 INCONCLUSIVE, 500.1 PASS, 1000.0 next");
        assert_eq!(trail(OnTrip::Stop, 3, &[by_a_box(), trip()]), "500.0 INCONCLUSIVE, 500.1 TRIP");
    }

    proptest! {
        #[test]
        fn every_ramp_ends_and_keeps_every_trial(verdicts in prop::collection::vec(0_u8..4, 9), trials in 1_u32..=3) {
            let steps: Steps = "500,1k,2k".parse().unwrap();
            let mut ramp = Ramp::new(&steps, OnTrip::GoOn, NonZeroU32::new(trials).unwrap(), Astray::LetGo);
            let mut held = 0;
            while ramp.next_trial().is_some() {
                let verdict = match verdicts[held] {
                    0 => Verdict::Pass,
                    1 => trip(),
                    2 => inconclusive(),
                    _ => by_a_box(),
                };
                ramp.record(verdict);
                held += 1;
            }
            prop_assert!((3..=3 * trials as usize).contains(&held));
            prop_assert_eq!(ramp.trials().len(), held);
            let mut again = Ramp::new(&steps, OnTrip::GoOn, NonZeroU32::new(trials).unwrap(), Astray::LetGo);
            prop_assert_eq!(again.replay(ramp.trials().iter().cloned()), Ok(()));
            prop_assert_eq!(&again, &ramp);
            let mut without_first = Ramp::new(&steps, OnTrip::GoOn, NonZeroU32::new(trials).unwrap(), Astray::LetGo);
            prop_assert!(without_first.replay(ramp.trials()[1..].iter().cloned()).is_err());
            prop_assert!(ramp.trials().windows(2).all(|pair| pair[0].trial < pair[1].trial));
        }
    }
}
