//! The answer of a run: the largest level that passed below the first that tripped, and what limits the next one.

use plimsoll_common::units::Rate;

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// No step passed.
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
