//! Whether a run shows a worse service than another: its answer, and at each level that both held its tails, errors and
//! backlogs. A difference counts where the two measurements leave no room for equality, each by how it varies from block to
//! block; it is a regression where it is larger than the tolerance besides.

mod confidence;
mod levels;
mod setup;

use std::time::Duration;

use plimsoll_common::units::Rate;

pub use self::levels::Skipped;
pub use self::setup::{Difference, differences};
use super::answer::{Answer, answer};
use super::measurement::StepMeasurement;
use super::ramp::JudgedTrial;
use super::slo::{Fraction, Quantile, Slo};

/// A trial with what it measured.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// Level and verdict.
    pub judged: &'a JudgedTrial,
    /// What was measured.
    pub step: &'a StepMeasurement,
}

/// A run as it is compared.
#[derive(Debug, Clone)]
pub struct Side<'a> {
    /// The largest level that passed below the first that tripped.
    pub passed: Option<Rate>,
    /// The first level that tripped.
    pub tripped: Option<Rate>,
    /// The largest level of which it is sure that it passes, as a verdict by counts alone is not.
    pub surely_passed: Option<Rate>,
    /// The smallest level of which it is sure that it trips.
    pub surely_tripped: Option<Rate>,
    /// All trials.
    pub trials: Vec<Held<'a>>,
    /// Growth of a backlog over a hold that passes, in messages.
    pub growth_limit: u64,
}

impl<'a> Side<'a> {
    /// A run of fixed steps: of each level it is as sure as its blocks are alike.
    pub fn of_steps(trials: Vec<Held<'a>>, slo: &Slo) -> Self {
        let judged: Vec<JudgedTrial> = trials.iter().map(|held| held.judged.clone()).collect();
        let Answer { passed, tripped, .. } = answer(&judged);
        let levels = |is_sure: fn(&Held, &Slo) -> bool| {
            trials.iter().filter(move |held| is_sure(held, slo)).map(|held| held.judged.level).collect::<Vec<Rate>>()
        };
        Self {
            passed,
            tripped,
            surely_passed: levels(confidence::passes).into_iter().max(),
            surely_tripped: levels(confidence::trips).into_iter().min(),
            growth_limit: slo.pending_growth,
            trials,
        }
    }
}

/// What two runs say about each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Everything that could be compared, the answer first, then level by level.
    pub findings: Vec<Finding>,
    /// What could not be, and why.
    pub skipped: Vec<(Rate, Skipped)>,
}

/// One quantity in both runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Which.
    pub what: What,
    /// In the first run and in the second.
    pub values: Values,
    /// What that says of the second.
    pub change: Change,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The answer.
    Answer,
    /// A percentile of a series.
    Tail {
        /// At this level.
        level: Rate,
        /// Of this series.
        series: String,
        /// Which percentile.
        quantile: Quantile,
    },
    /// Failed and lost operations.
    Errors {
        /// At this level.
        level: Rate,
    },
    /// What a durable falls behind.
    Backlog {
        /// At this level.
        level: Rate,
        /// Its stream and name.
        durable: String,
    },
}

/// A quantity in both runs, in its own unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// Between which levels the answer lies.
    Answers {
        /// Passed and tripped.
        before: (Option<Rate>, Option<Rate>),
        /// Passed and tripped.
        after: (Option<Rate>, Option<Rate>),
    },
    /// Latencies.
    Latencies {
        /// Of the first run.
        before: Duration,
        /// Of the second.
        after: Duration,
    },
    /// Parts of the attempted operations.
    Parts {
        /// Of the first run.
        before: f64,
        /// Of the second.
        after: f64,
    },
    /// Messages per second; `None`: the durable is gone or another one.
    Growths {
        /// Of the first run.
        before: Option<f64>,
        /// Of the second.
        after: Option<f64>,
    },
}

/// What a finding says of the second run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Worse beyond doubt and beyond the tolerance.
    Regression,
    /// Worse beyond doubt, by no more than the tolerance.
    WorseWithinTolerance,
    /// The measurements leave room for equality.
    NotSignificant,
    /// Better beyond doubt, by no more than the tolerance.
    BetterWithinTolerance,
    /// Better beyond doubt and beyond the tolerance.
    Improvement,
}

impl Change {
    /// By how the second differs: `worse` and `better` beyond doubt, and by how much.
    fn of(worse: bool, better: bool, relative: f64, tolerance: Fraction) -> Self {
        let beyond = relative.abs() > tolerance.as_f64();
        match (worse, better, beyond) {
            (true, false, true) => Self::Regression,
            (true, false, false) => Self::WorseWithinTolerance,
            (false, true, true) => Self::Improvement,
            (false, true, false) => Self::BetterWithinTolerance,
            _ => Self::NotSignificant,
        }
    }
}

impl Comparison {
    /// Whether anything of the second run is a regression.
    pub fn has_regression(&self) -> bool {
        self.findings.iter().any(|finding| finding.change == Change::Regression)
    }
}

/// Compares a second run with a first one of the same workload, objectives and setup.
pub fn compare(before: &Side, after: &Side, tolerance: Fraction) -> Comparison {
    let (of_levels, skipped) = levels::compare(before, after, tolerance);
    let findings = answers(before, after, tolerance).into_iter().chain(of_levels).collect();
    Comparison { findings, skipped }
}

/// A limit lies at or above what surely passed and below what surely tripped: the answers differ beyond doubt where one's
/// trip lies below the other's pass. A level that passed in one and tripped in the other proves nothing by itself: the
/// limit may lie there.
fn answers(before: &Side, after: &Side, tolerance: Fraction) -> Option<Finding> {
    let below = |one: &Side, other: &Side| match (one.surely_tripped, other.surely_passed) {
        (Some(tripped), Some(passed)) => tripped < passed,
        _ => false,
    };
    let (was, is) = (middle(before)?, middle(after)?);
    let says_something = before.tripped.is_some() || after.tripped.is_some();
    says_something.then(|| Finding {
        what: What::Answer,
        values: Values::Answers { before: (before.passed, before.tripped), after: (after.passed, after.tripped) },
        change: Change::of(below(after, before), below(before, after), is / was - 1.0, tolerance),
    })
}

/// The geometric middle of an answer, or the end that is known.
fn middle(side: &Side) -> Option<f64> {
    let (passed, tripped) = (side.passed.map(Rate::as_f64), side.tripped.map(Rate::as_f64));
    match (passed, tripped) {
        (Some(passed), Some(tripped)) => Some((passed * tripped).sqrt()),
        (known, other) => known.or(other),
    }
}

#[cfg(test)]
mod tests;
