//! The answer of a run: the largest level that passed below the first that tripped, and what limits the next one.

use plimsoll_common::units::Rate;
use serde::{Deserialize, Serialize};

use super::ramp::JudgedTrial;
use super::verdict::Verdict;

/// What a run found out. Every level in it was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The largest level that passed below the first that tripped; `None`: no step passed there.
    pub passed: Option<Rate>,
    /// The first level that tripped; `None` makes `passed` a lower bound.
    pub tripped: Option<Rate>,
    /// Levels between the two (or above `passed`, where nothing tripped) that stayed INCONCLUSIVE.
    pub gaps: Vec<Rate>,
    /// The level that limits the answer and why: the first TRIP, else the first gap.
    pub next_limit: Option<JudgedTrial>,
}

/// How a run came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// By its plan.
    Completed,
    /// SIGINT or SIGTERM.
    Aborted,
    /// It could not go on; why, for people.
    Failed(String),
}

/// What the process exits with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// There is an answer.
    Answer = 0,
    /// No step passed; of two runs, the second is worse.
    NothingPassed = 1,
    /// Usage or configuration; nothing was started.
    Usage = 2,
    /// The run could not be completed.
    Incomplete = 3,
    /// Measured, but INCONCLUSIVE.
    Inconclusive = 4,
    /// SIGINT or SIGTERM.
    Interrupted = 130,
}

impl ExitCode {
    /// All that there are.
    pub const ALL: [Self; 6] =
        [Self::Answer, Self::NothingPassed, Self::Usage, Self::Incomplete, Self::Inconclusive, Self::Interrupted];
}

/// Reads the answer off all trials of a run, in their order.
pub fn answer(trials: &[JudgedTrial]) -> Answer {
    let steps = verdicts_of_steps(trials);
    let first_trip = steps.iter().find(|step| matches!(step.verdict, Verdict::Trip(_)));
    let tripped = first_trip.map(|step| step.level);
    let below_trip = |step: &&&JudgedTrial| tripped.is_none_or(|tripped| step.level < tripped);
    let passed = steps.iter().filter(below_trip).filter(|s| s.verdict == Verdict::Pass).map(|s| s.level).max();
    let gaps: Vec<&JudgedTrial> = steps
        .iter()
        .filter(below_trip)
        .filter(|step| matches!(step.verdict, Verdict::Inconclusive(_)) && Some(step.level) > passed)
        .copied()
        .collect();
    let next_limit = first_trip.or(gaps.first()).map(|&step| step.clone());
    Answer { passed, tripped, gaps: gaps.iter().map(|step| step.level).collect(), next_limit }
}

/// The verdict of each step is that of its first conclusive trial, or of its last.
fn verdicts_of_steps(trials: &[JudgedTrial]) -> Vec<&JudgedTrial> {
    let mut steps: Vec<&JudgedTrial> = Vec::new();
    for trial in trials {
        match steps.last_mut().filter(|step| step.trial.step == trial.trial.step) {
            None => steps.push(trial),
            Some(step) if matches!(step.verdict, Verdict::Inconclusive(_)) => *step = trial,
            Some(_) => {}
        }
    }
    steps
}

impl Answer {
    /// What the process exits with, given how the run ended.
    pub fn exit_code(&self, ending: &Ending) -> ExitCode {
        match (ending, self.passed, self.tripped) {
            (Ending::Aborted, ..) => ExitCode::Interrupted,
            (Ending::Failed(_), ..) => ExitCode::Incomplete,
            (Ending::Completed, Some(_), _) => ExitCode::Answer,
            (Ending::Completed, None, Some(_)) => ExitCode::NothingPassed,
            (Ending::Completed, None, None) => ExitCode::Inconclusive,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::non_empty::NonEmpty;
    use crate::core::verdict::{Breach, Doubt, Errors};
    use plimsoll_common::plan::TrialId;
    use proptest::prelude::*;

    /// Trials of the steps 500, 1000, 2000, … by a letter each: p(ass), t(rip), i(nconclusive); `ip` is a step of two
    /// trials.
    fn trials(steps: &[&str]) -> Vec<JudgedTrial> {
        let judged = |(step, letters): (usize, &&str)| {
            let level = Rate::per_second(500 << step).unwrap();
            let trial = move |(trial, letter): (usize, char)| JudgedTrial {
                trial: TrialId { step: step as u32, trial: trial as u32 },
                level,
                verdict: verdict(letter),
            };
            letters.chars().enumerate().map(trial).collect::<Vec<_>>()
        };
        steps.iter().enumerate().flat_map(judged).collect()
    }

    fn verdict(letter: char) -> Verdict {
        let errors = Errors { errors: 1, attempted: 1, limit: "0.001".parse().unwrap() };
        match letter {
            'p' => Verdict::Pass,
            't' => Verdict::Trip(NonEmpty::one(Breach::ErrorRate(errors))),
            _ => Verdict::Inconclusive(NonEmpty::one(Doubt::NothingAttempted)),
        }
    }

    /// Passed, tripped, gaps, the level that limits, and the exit code of a run that completed.
    fn check(steps: &[&str]) -> String {
        let answer = answer(&trials(steps));
        let level = |rate: Option<Rate>| rate.map_or("-".to_owned(), |rate| rate.to_string());
        let gaps: Vec<String> = answer.gaps.iter().map(Rate::to_string).collect();
        format!(
            "passed {} tripped {} gaps [{}] next {} exit {}",
            level(answer.passed),
            level(answer.tripped),
            gaps.join(","),
            level(answer.next_limit.as_ref().map(|step| step.level)),
            answer.exit_code(&Ending::Completed) as u8
        )
    }

    #[test]
    fn the_answer_is_the_largest_pass_below_the_first_trip() {
        for (steps, expected) in [
            (&["p", "p", "t"][..], "passed 1000 tripped 2000 gaps [] next 2000 exit 0"),
            // A PASS above a TRIP is no answer.
            (&["p", "t", "p"], "passed 500 tripped 1000 gaps [] next 1000 exit 0"),
            (&["p", "t", "t"], "passed 500 tripped 1000 gaps [] next 1000 exit 0"),
            // Nothing tripped: a lower bound.
            (&["p", "p", "p"], "passed 2000 tripped - gaps [] next - exit 0"),
            // INCONCLUSIVE levels between the passes and the trip, or above the passes, are gaps.
            (&["p", "i", "t"], "passed 500 tripped 2000 gaps [1000] next 2000 exit 0"),
            (&["p", "i", "i"], "passed 500 tripped - gaps [1000,2000] next 1000 exit 0"),
            (&["p", "i", "p", "t"], "passed 2000 tripped 4000 gaps [] next 4000 exit 0"),
            // No step passed.
            (&["t"], "passed - tripped 500 gaps [] next 500 exit 1"),
            (&["i", "t"], "passed - tripped 1000 gaps [500] next 1000 exit 1"),
            (&["t", "p"], "passed - tripped 500 gaps [] next 500 exit 1"),
            (&["i", "i"], "passed - tripped - gaps [500,1000] next 500 exit 4"),
            (&[], "passed - tripped - gaps [] next - exit 4"),
            // The first conclusive trial is the step's verdict.
            (&["p", "iip", "t"], "passed 1000 tripped 2000 gaps [] next 2000 exit 0"),
            (&["p", "it"], "passed 500 tripped 1000 gaps [] next 1000 exit 0"),
            (&["p", "iii", "t"], "passed 500 tripped 2000 gaps [1000] next 2000 exit 0"),
        ] {
            assert_eq!(check(steps), expected, "{steps:?}");
        }
    }

    #[test]
    fn a_run_that_did_not_complete_says_so_whatever_it_found() {
        for steps in [&["p", "t"][..], &["p"], &[]] {
            let answer = answer(&trials(steps));
            assert_eq!(answer.exit_code(&Ending::Aborted) as u8, 130);
            assert_eq!(answer.exit_code(&Ending::Failed("all agents lost".into())) as u8, 3);
        }
        assert_eq!(ExitCode::Usage as u8, 2);
    }

    proptest! {
        #[test]
        fn the_answer_was_measured_passed_and_lies_below_every_trip_that_counts(letters in "[pti]{0,8}") {
            let steps: Vec<String> = letters.chars().map(String::from).collect();
            let trials = trials(&steps.iter().map(String::as_str).collect::<Vec<_>>());
            let answer = answer(&trials);
            let verdict_of = |level: Rate| trials.iter().find(|trial| trial.level == level).map(|trial| &trial.verdict);
            if let Some(passed) = answer.passed {
                prop_assert_eq!(verdict_of(passed), Some(&Verdict::Pass));
                prop_assert!(answer.tripped.is_none_or(|tripped| passed < tripped));
            }
            prop_assert!(answer.gaps.iter().all(|&gap| Some(gap) > answer.passed));
            prop_assert_eq!(answer.tripped.is_some(), letters.contains('t'));
        }
    }
}
