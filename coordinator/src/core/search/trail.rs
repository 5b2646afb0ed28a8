//! The trail of a search: every trial, why it was chosen, what it showed, and the bounds after it. Data, turned into words
//! by the report.

use std::time::Duration;

use plimsoll_common::units::Rate;

use super::evidence::Judgement;
use super::grid::Pair;
use super::hint::Hint;

/// A trial to hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NextTrial {
    /// Position in the search, from 0.
    pub number: u32,
    /// Its level.
    pub level: Rate,
    /// Why this one.
    pub why: Why,
    /// Load before the hold, which counts for nothing.
    pub settle: Duration,
    /// The hold, at most.
    pub hold: Duration,
}

/// Why a trial is held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// Nothing is known yet, not even where to begin: what the service carries with few operations open at once says that.
    Probe,
    /// Nothing is known yet.
    First,
    /// Nothing was over a limit at the level before.
    Climb,
    /// Nothing under every limit is known yet.
    Descend,
    /// Under overload the service carried so many operations per second.
    Capacity {
        /// Per second.
        served: f64,
    },
    /// Between a level under every limit and one over a limit.
    Bisect,
    /// The lower level of a pair is to be shown to pass.
    Low(Pair),
    /// The upper level of a pair is to be shown to trip.
    High(Pair),
    /// The level is held before it may be the answer.
    Soak,
}

/// A trial that was held.
#[derive(Debug, Clone, PartialEq)]
pub struct TrailEntry {
    /// What was asked.
    pub trial: NextTrial,
    /// The limits that it was about, by position.
    pub focus: Vec<usize>,
    /// The hold as it was; shorter where the outcome was clear early.
    pub held: Duration,
    /// Per limit: the part of the operations over it, at most, in this trial; for a durable its slope.
    pub showed: Vec<Option<f64>>,
    /// Its blocks, and how many of them are void.
    pub blocks: (usize, usize),
    /// Why nothing of it counts.
    pub fault: Option<String>,
    /// What came of it.
    pub result: Outcome,
    /// Levels that contradict each other since, and decide nothing any more.
    pub sent_back: Vec<Rate>,
    /// What is known after it.
    pub bounds: Bounds,
    /// Everything so far.
    pub spent: Duration,
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Nothing: it cannot be trusted.
    Nothing,
    /// Where to begin.
    Begin(Rate),
    /// A hint.
    Hint(Hint),
    /// What the level's visits together say.
    Judged(Judgement),
    /// The soak held or failed, and what the level's visits together say.
    Soaked {
        /// Whether it held.
        held: bool,
        /// With it.
        judged: Judgement,
    },
}

/// Between which levels the limit lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The largest level that passed, or hints at it while none has.
    pub below: Option<Bound>,
    /// The smallest level above it that tripped, or hints at it while none has.
    pub above: Option<Bound>,
}

/// A level and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The level.
    pub level: Rate,
    /// Confirmed, or a hint only.
    pub confirmed: bool,
}

/// What a saved run keeps of a search: with these the search is what it was.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrailRecord {
    /// First: what was asked.
    Plan(Box<super::plan::SearchPlan>),
    /// Then, after each trial: what it showed.
    Outcome(Box<super::outcome::TrialOutcome>),
    /// Where a trial was begun and nothing of it was measured, since agents were lost before: the time that it took.
    NotHeld {
        /// Of the time that the search may take.
        took: Duration,
    },
    /// Where agents were lost and the others cannot offer the next level: what they can, at most.
    Highest {
        /// The level.
        highest: plimsoll_common::units::Rate,
    },
    /// Last, where it is so: what operations use up does not last for the next trial.
    UsedUp {
        /// Operations of it that an agent would have to make.
        needed: u64,
        /// Operations that this agent has left.
        left: u64,
    },
}
