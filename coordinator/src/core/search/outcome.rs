//! What one trial of a search showed, as plain numbers: per block and limit how many operations were over it, what the
//! backlogs did, and whether any of it may be used.

use std::time::Duration;

use plimsoll_common::plan::BLOCK;
use serde::{Deserialize, Serialize};

use crate::core::backlog::DurableName;
use crate::core::slo::Quantile;

/// Blocks in a second.
pub const BLOCKS_PER_SECOND: f64 = 1.0 / BLOCK.as_secs_f64();

/// One of the things a level is judged by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// A percentile of a series.
    Percentile {
        /// The series.
        series: String,
        /// Which percentile.
        quantile: Quantile,
        /// What it must not exceed.
        limit: Duration,
    },
    /// Failed and lost operations.
    ErrorRate,
    /// A durable's backlog.
    Backlog(DurableName),
}

/// A limit on a part of the operations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FractionLimit {
    /// What is counted.
    pub signal: Signal,
    /// The largest part of the operations that may be over it, above 0 and below 1.
    pub allowed: f64,
    /// Too rare for a search to wait until their number alone shows that it holds: what is left open is said instead.
    #[serde(default)]
    pub rare: bool,
}

/// A limit on how fast a durable may fall behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlopeLimit {
    /// Which durable.
    pub durable: DurableName,
    /// Messages per second; [`AS_IT_LIKES`]: it has to be there, and no more.
    pub per_second: f64,
}

/// The limit of a durable that may fall behind as fast as it likes.
pub const AS_IT_LIKES: f64 = f64::MAX;

impl SlopeLimit {
    /// Whether it can be broken by a backlog.
    pub fn is_limit(&self) -> bool {
        self.per_second < AS_IT_LIKES
    }
}

/// Everything a level is judged by.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// One count each in every block.
    pub fractions: Vec<FractionLimit>,
    /// One list of reads each in every trial.
    pub slopes: Vec<SlopeLimit>,
}

impl Limits {
    /// How many there are. A limit is named by its position: fractions first, slopes behind them.
    pub fn len(&self) -> usize {
        self.fractions.len() + self.slopes.len()
    }

    /// Whether there is nothing to judge by.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a level can break it: a durable that may fall behind as it likes is only looked after.
    pub fn is_limit(&self, limit: usize) -> bool {
        limit.checked_sub(self.fractions.len()).is_none_or(|slope| self.slopes[slope].is_limit())
    }

    /// Whether it is one of a percentile.
    pub fn is_percentile(&self, limit: usize) -> bool {
        self.fractions.get(limit).is_some_and(|fraction| matches!(fraction.signal, Signal::Percentile { .. }))
    }

    /// What a limit is about.
    ///
    /// # Panics
    /// When there is no such limit.
    pub fn signal(&self, limit: usize) -> Signal {
        match self.fractions.get(limit) {
            Some(fraction) => fraction.signal.clone(),
            None => Signal::Backlog(self.slopes[limit - self.fractions.len()].durable.clone()),
        }
    }
}

/// Operations of a block against one limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Of so many.
    pub n: u64,
    /// Over the limit at most: the load boxes' doings and what never left included.
    pub above: u64,
    /// Over the limit at least: by what the service did alone.
    pub anyway: u64,
}

/// A block of half a second of intended time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// One per fraction limit.
    pub counts: Vec<Count>,
    /// A load box stalled in it, was lost, or sent less than asked: no evidence against the service.
    pub void: bool,
}

/// One read of a durable.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// Seconds since the start of the hold.
    pub at: f64,
    /// Messages that it still has to do.
    pub backlog: f64,
    /// Messages that it was given since the first read beyond what its level brings in the long run: what chance made of it.
    /// 0 where that is not known.
    #[serde(default)]
    pub surplus: f64,
}

/// What a trial showed, so far or in the end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Showing {
    /// Those whose operations have all ended, in order.
    pub blocks: Vec<Block>,
    /// Per durable, in the order of their instants.
    pub reads: Vec<Vec<Read>>,
}

/// A trial that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialOutcome {
    /// What was measured.
    pub showing: Showing,
    /// Operations that ended per second while the service had more to do than it could, where it had.
    pub served: Option<f64>,
    /// The part of what came in that the service left undone, where it fell behind steadily: see [`super::behind`].
    #[serde(default)]
    pub behind: f64,
    /// A load box was found too small in it, and gets less from the next trial on: the others can carry its level then.
    #[serde(default)]
    pub boxes_get_less: bool,
    /// An agent was lost in it, which is why nothing of it counts.
    #[serde(default)]
    pub lost_an_agent: bool,
    /// Durables, by their position among the slopes, that were deleted or created anew under load.
    pub vanished: Vec<usize>,
    /// Why nothing of this can be trusted, in words; `None`: it can.
    pub fault: Option<String>,
    /// Why a trial in which no limit is broken shows nothing of its level, in words: that was not what the service had to do.
    #[serde(default)]
    pub unproved: Option<String>,
    /// Load that was sent: settle and hold.
    pub load: Duration,
    /// All that the trial took, recovery before it and drain behind it included.
    pub took: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durable_that_may_fall_behind_as_it_likes_may_after_it_was_saved_too() {
        let durable = DurableName { stream: "S".into(), durable: "d".into() };
        let limit = SlopeLimit { durable, per_second: AS_IT_LIKES };
        let saved = serde_json::to_string(&limit).unwrap();
        let read: SlopeLimit = serde_json::from_str(&saved).unwrap();
        assert!(read == limit && !read.is_limit(), "{saved}");
    }
}
