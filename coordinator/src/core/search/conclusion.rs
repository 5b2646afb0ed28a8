//! What a search comes to: an interval that was measured at both ends, or why there is none.

use std::time::Duration;

use plimsoll_common::units::Rate;

use super::Step;
use super::estimate::Estimate;
use super::outcome::Signal;
use crate::core::answer::{Ending, ExitCode};

/// What a search came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Conclusion {
    /// The largest level that passed and was soaked.
    pub passed: Option<PassedLevel>,
    /// The smallest level above it that tripped, confirmed.
    pub tripped: Option<TrippedLevel>,
    /// What is rare, and so many operations of it at the level that passed are too few to show that it holds.
    pub thin: Vec<Thin>,
    /// `None`: the interval is as narrow as was asked.
    pub doubt: Option<SearchDoubt>,
    /// What it would take.
    pub estimate: Estimate,
    /// How often levels contradicted each other.
    pub contradictions: u32,
    /// The largest level of each limit, where that was asked for.
    pub frontier: Vec<FrontierEntry>,
    /// Load that was sent.
    pub load: Duration,
    /// Everything.
    pub spent: Duration,
}

/// A level that passed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PassedLevel {
    /// The level.
    pub level: Rate,
    /// Of all its visits and soaks.
    pub held: Duration,
    /// Episodes that were seen in that time, against any limit.
    pub episodes: usize,
}

/// A limit that was not broken by operations that are too few to show that it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Thin {
    /// What it is about.
    pub signal: Signal,
    /// Operations that were held to it.
    pub operations: u64,
    /// The part of them that may be over it in the long run all the same; 1 where there were none.
    pub at_most: f64,
}

/// A level that tripped.
#[derive(Debug, Clone, PartialEq)]
pub struct TrippedLevel {
    /// The level.
    pub level: Rate,
    /// What it broke, the worst first.
    pub broke: Vec<Broken>,
}

/// A limit that was broken at a level.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken {
    /// What it is about.
    pub signal: Signal,
    /// The part of the operations over it; for a durable how fast it fell behind, in messages per second.
    pub observed: f64,
    /// What is allowed.
    pub allowed: f64,
}

/// Why a search did not come to an interval as narrow as was asked.
#[derive(Debug, Clone, PartialEq)]
pub enum SearchDoubt {
    /// The time was up.
    OutOfTime,
    /// The precision takes longer than the time that was left.
    TooCoarse,
    /// Nothing tripped up to the highest level that the fleet can offer.
    FleetTooSmall {
        /// That level.
        highest: Rate,
    },
    /// Over a limit at the lowest level already.
    NothingPasses {
        /// That level.
        lowest: Rate,
    },
    /// What operations use up does not last for the next trial.
    UsedUp {
        /// Operations of it that an agent would have to make.
        needed: u64,
        /// Operations that this agent has left.
        left: u64,
    },
    /// Trial after trial could not be trusted.
    NotTrusted {
        /// Why the last one could not.
        why: String,
    },
    /// The load boxes' doings hide what the service does.
    Boxes {
        /// At this level.
        level: Rate,
    },
}

/// One limit by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontierEntry {
    /// What it is about.
    pub signal: Signal,
    /// The largest level that holds it.
    pub holds: Option<Rate>,
    /// The smallest level above it that breaks it.
    pub breaks: Option<Rate>,
    /// Whether the two are as close as was asked.
    pub is_precise: bool,
}

/// What the process exits with, by where a search stands and how the run ended.
pub fn exit_code(step: &Step, ending: &Ending) -> ExitCode {
    match (ending, step) {
        (Ending::Aborted, _) => ExitCode::Interrupted,
        (Ending::Failed(_), _) | (Ending::Completed, Step::Hold(_)) => ExitCode::Incomplete,
        (Ending::Completed, Step::Done(conclusion)) => match conclusion.doubt {
            None => ExitCode::Answer,
            Some(SearchDoubt::NothingPasses { .. }) => ExitCode::NothingPassed,
            Some(_) => ExitCode::Inconclusive,
        },
    }
}

impl Conclusion {
    /// Whether the interval is as narrow as was asked.
    pub fn is_conclusive(&self) -> bool {
        self.doubt.is_none()
    }
}

impl PassedLevel {
    /// What nothing seen cannot exclude: episodes rarer than one in this time (the rule of three).
    pub fn cannot_exclude(&self) -> Duration {
        self.held / 3
    }
}
