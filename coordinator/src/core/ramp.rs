//! Which level is held next: the steps in order, repeats where load boxes spoiled a trial, and where to stop.

use std::num::NonZeroU32;

use plimsoll_common::plan::TrialId;
use plimsoll_common::units::{Rate, Steps};

use super::verdict::Verdict;

/// What a TRIP does to the levels above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTrip {
    /// They are not held.
    Stop,
    /// They are held all the same.
    GoOn,
}

/// One trial that was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A ramp under way: every trial so far, and from them what comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ramp {
    levels: Vec<Rate>,
    on_trip: OnTrip,
    /// Trials that a step may have.
    most_trials: NonZeroU32,
    trials: Vec<JudgedTrial>,
}

impl Ramp {
    /// A ramp before its first trial.
    pub fn new(steps: &Steps, on_trip: OnTrip, most_trials: NonZeroU32) -> Self {
        Self { levels: steps.rates().to_vec(), on_trip, most_trials, trials: Vec::new() }
    }

    /// The trial to hold now; `None` when the ramp is over. Says the same until its verdict is recorded.
    ///
    /// An INCONCLUSIVE trial is repeated where load boxes were the reason and trials are left; the first conclusive
    /// trial is the step's verdict.
    pub fn next_trial(&self) -> Option<NextTrial> {
        let Some(last) = self.trials.last() else { return self.first_of(0) };
        match &last.verdict {
            Verdict::Trip(_) if self.on_trip == OnTrip::Stop => None,
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

    /// All trials so far, in order.
    pub fn trials(&self) -> &[JudgedTrial] {
        &self.trials
    }

    fn is_worth_repeating(&self, trial: TrialId, verdict: &Verdict) -> bool {
        trial.trial + 1 < self.most_trials.get() && !verdict.boxes_to_blame().is_empty()
    }

    fn first_of(&self, step: u32) -> Option<NextTrial> {
        let level = *self.levels.get(usize::try_from(step).ok()?)?;
        Some(NextTrial { trial: TrialId { step, trial: 0 }, level })
    }
}
