//! Why a trial tripped or proves nothing, as data: the report turns it into words.

use std::time::Duration;

use plimsoll_common::snapshot::Stall;
use plimsoll_common::units::Rate;
use serde::{Deserialize, Serialize};

use crate::core::backlog::DurableName;
use crate::core::measurement::Fault;
use crate::core::slo::{Fraction, Quantile};

/// A percentile beyond its limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentile {
    /// Which series.
    pub series: String,
    /// Which percentile of it.
    pub quantile: Quantile,
    /// By the histogram, and never at or below the limit that the exact counts say is broken.
    #[serde(rename = "observed_ns", with = "crate::core::encoding::nanos")]
    pub observed: Duration,
    /// What it must not exceed.
    #[serde(rename = "limit_ns", with = "crate::core::encoding::nanos")]
    pub limit: Duration,
    /// Operations above the limit; in a breach those that the service alone is to blame for.
    pub above: u64,
    /// Of so many.
    pub n: u64,
}

/// Errors beyond their limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Failed and lost; in a breach those that the service alone is to blame for.
    pub errors: u64,
    /// Of so many.
    pub attempted: u64,
    /// The largest share that passes.
    pub limit: Fraction,
}

/// An objective that the service broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    /// A series is too slow.
    Percentile(Percentile),
    /// Too many operations failed or were lost.
    ErrorRate(Errors),
    /// Too many operations of one kind failed, few as they may be among all.
    SeriesErrors {
        /// The series that they owed a sample.
        series: String,
        /// Of them.
        errors: Errors,
    },
    /// A durable's backlog grew.
    BacklogGrowth {
        /// Which durable.
        durable: DurableName,
        /// By so many messages over the hold.
        growth: i64,
        /// The most that passes.
        limit: u64,
    },
    /// A durable was gone by the end of the hold.
    DurableGone {
        /// Which.
        durable: DurableName,
    },
    /// A durable was deleted and created anew.
    DurableRecreated {
        /// Which.
        durable: DurableName,
    },
}

/// A load box that spoiled operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxAtFault {
    /// Its name.
    pub agent: String,
    /// Operations that it spoiled.
    pub operations: u64,
    /// Its largest stall in hold and drain.
    pub worst_stall: Stall,
    /// Blocks of the hold in which its stall exceeds a tenth of the tightest limit.
    pub void_blocks: u32,
}

/// Of what one load box alone shows too much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Operations of a series above a limit.
    Limit {
        /// Which series.
        series: String,
        /// What they exceed.
        #[serde(rename = "limit_ns", with = "crate::core::encoding::nanos")]
        limit: Duration,
    },
    /// Failed operations of the kind that owes this series a sample.
    ErrorsOf(String),
    /// Failed operations of all kinds.
    Errors,
}

/// How one load box's operations differ from everybody else's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alone {
    /// Where they differ.
    pub objective: Objective,
    /// Of its operations.
    pub bad: u64,
    /// Of so many.
    pub of: u64,
    /// Of all others.
    pub others_bad: u64,
    /// Of so many.
    pub others: u64,
    /// The longest that one of its writes was blocked.
    #[serde(rename = "write_blocked_ns", with = "crate::core::encoding::nanos")]
    pub write_blocked: Duration,
}

/// Why a trial is neither a PASS nor a TRIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// The measurement failed.
    Fault(Fault),
    /// No operation was released.
    NothingAttempted,
    /// Where levels are users: too few of them were online throughout.
    FewUsers {
        /// Online throughout the hold.
        online: u64,
        /// The level.
        users: u64,
    },
    /// A gated series has no samples although the error rate holds.
    NoSamples {
        /// Which series.
        series: String,
    },
    /// Objectives are broken for this load box alone, and hold for all others.
    SlowAlone {
        /// Its name.
        agent: String,
        /// By what it shows.
        alone: Alone,
    },
    /// A percentile is broken, but not by what the service alone did.
    PercentileByBoxes {
        /// As measured, the boxes' stalls included.
        percentile: Percentile,
        /// Who added what.
        boxes: Vec<BoxAtFault>,
    },
    /// The error rate is broken, but not by what the service alone did.
    ErrorRateByBoxes {
        /// As counted, the boxes' own included.
        errors: Errors,
        /// Who added what.
        boxes: Vec<BoxAtFault>,
    },
    /// The same of one kind of operations.
    SeriesErrorsByBoxes {
        /// The series that they owed a sample.
        series: String,
        /// As counted, the boxes' own included.
        errors: Errors,
        /// Who added what.
        boxes: Vec<BoxAtFault>,
    },
    /// A durable has too few reads to tell whether its backlog grew.
    BacklogUnreadable {
        /// Which durable.
        durable: DurableName,
        /// Reads in the first and in the last sixth of the hold.
        reads_at_ends: (usize, usize),
    },
    /// A durable's backlog rises within its limit: a longer hold decides.
    BacklogNotStationary {
        /// Which durable.
        durable: DurableName,
        /// By so many messages over the hold.
        growth: i64,
        /// The most that passes.
        limit: u64,
    },
    /// A durable's backlog does not grow, and stands so high that something else may end its growth.
    BacklogStands {
        /// Which durable.
        durable: DurableName,
        /// By so many messages above what it was at rest.
        above: u64,
        /// The most that passes.
        limit: u64,
    },
    /// The agents' holds did not begin together: what they did at the edges is not what the whole fleet asks.
    StartsApart {
        /// Whose hold began last.
        last: String,
        /// After the first one's, by the estimated clocks.
        #[serde(rename = "skew_ns", with = "crate::core::encoding::nanos")]
        skew: Duration,
        /// The most that passes.
        #[serde(rename = "limit_ns", with = "crate::core::encoding::nanos")]
        limit: Duration,
    },
    /// The load boxes that are there cannot carry the level, by what they showed.
    NoHeadroom {
        /// The level.
        level: Rate,
        /// What they carry together.
        carries: Rate,
        /// How many more like the largest would do.
        more_boxes: u64,
    },
    /// The same where the level is users.
    NoHeadroomForUsers {
        /// The level.
        users: u64,
        /// What they carry together.
        carries: u64,
        /// How many more like the largest would do.
        more_boxes: u64,
    },
    /// A percentile (the first that does so) does not hold if the operations that never left, few enough for the
    /// tolerance, are counted as slower than the limit.
    NeverLeft {
        /// Which series.
        series: String,
        /// Which percentile of it.
        quantile: Quantile,
        /// What it must not exceed.
        #[serde(rename = "limit_ns", with = "crate::core::encoding::nanos")]
        limit: Duration,
        /// Who fell short and how.
        shortfall: Shortfall,
    },
    /// Attempted operations are short of what was due by more than the tolerance.
    RateShort {
        /// Operations due.
        due: u64,
        /// Operations released.
        attempted: u64,
        /// The share that may be missing.
        tolerance: Fraction,
        /// Who fell short and how.
        shortfall: Shortfall,
    },
}

/// Operations that were due and never left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// The in-flight cap was reached.
    pub saturated: u64,
    /// The pacer woke too late.
    pub underrun: u64,
    /// The agents whose cap was reached, the worst first.
    pub capped: Vec<BoxAtFault>,
    /// The agents that woke too late, the worst first.
    pub late: Vec<BoxAtFault>,
}
