//! Whether the service's backlog grew: robust statistics over the reads of each watched durable.

use std::fmt;
use std::time::Duration;

/// A durable consumer; its name says little without its stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurableName {
    /// The stream it reads.
    pub stream: String,
    /// Its own name.
    pub durable: String,
}

impl fmt::Display for DurableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.durable)
    }
}

/// What a durable still has to do, in messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Not delivered yet (`num_pending`).
    pub pending: u64,
    /// Delivered and not acknowledged (`num_ack_pending`).
    pub ack_pending: u64,
}

impl Backlog {
    /// Both: an ack-pending cap would hide its own size otherwise.
    pub fn total(self) -> u64 {
        self.pending.saturating_add(self.ack_pending)
    }
}

/// One answer to a read of a durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DurableState {
    /// It is there.
    Present {
        /// What it still has to do.
        backlog: Backlog,
        /// When it was created, in the server's words; compared, never parsed.
        created: String,
    },
    /// The server knows no such durable.
    Gone,
}

/// A read that was answered in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BacklogRead {
    /// The instant of the answer, since the start of the hold.
    pub at: Duration,
    /// What it said.
    pub state: DurableState,
}

/// An answer that is later than this after its question is no read: it says nothing of the instant it was asked for.
pub const READ_DEADLINE: Duration = Duration::from_millis(500);

/// How often a durable is read: half a second, and more often where a short hold would give too few reads.
pub fn read_interval(hold: Duration) -> Duration {
    (hold / 30).min(Duration::from_millis(500))
}

/// The reads of one durable over a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableReads {
    /// Which durable.
    pub name: DurableName,
    /// The last read before the warmup's load: what it was like at rest; `None` where none was answered.
    pub baseline: Option<DurableState>,
    /// In the order of their instants, from the start of the hold on.
    pub reads: Vec<BacklogRead>,
}

/// What a hold's reads say of one durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableBacklog {
    /// Which durable.
    pub name: DurableName,
    /// Whether it outlived the hold.
    pub fate: Fate,
    /// Over the hold; `None` when unreadable.
    pub growth: Option<Growth>,
    /// Reads in the first and in the last sixth of the hold, at least 3 of which each must have.
    pub reads_at_ends: (usize, usize),
    /// The median of the first sixth, or the first read.
    pub first: Option<Backlog>,
    /// The median of the last sixth, or the last read.
    pub last: Option<Backlog>,
}

/// What became of a durable by the end of the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is the one that was there before.
    Kept,
    /// It is not there.
    Gone,
    /// Another one stands under its name.
    Recreated,
    /// Nothing was read.
    Unknown,
}

/// How a backlog moved over the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// 6/5 × (median of the last sixth − median of the first), rounded up.
    pub messages: i64,
    /// Whether the medians of the hold's thirds rise from each to the next.
    pub rising: bool,
}

/// Messages in a stream that our sends do not explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignLoad {
    /// The stream.
    pub stream: String,
    /// Messages it took over the trial.
    pub grew: u64,
    /// Messages we attempted to send in that time, warmup included.
    pub sent: u64,
}

/// A stream's growth over the trial, as the coordinator read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamGrowth {
    /// The stream.
    pub stream: String,
    /// Messages it took from before the warmup to after the drain (last sequence − last sequence).
    pub messages: u64,
}
