//! What an agent measured: counters, series, blocks, and the health of its box.

use serde::{Deserialize, Serialize};

use crate::histogram::LatencyHistogram;
use crate::plan::TrialId;

/// Operations by what became of them. `due = attempted + saturated + underrun` always; after the drain
/// `attempted = completed + failed + lost`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// By the pure schedule.
    pub due: u64,
    /// Due and released.
    pub attempted: u64,
    /// Accepted by the client.
    pub sent: u64,
    /// Due, but the in-flight cap was reached.
    pub saturated: u64,
    /// Due, but the pacer woke too late to release it.
    pub underrun: u64,
    /// Everything that was owed came.
    pub completed: u64,
    /// By kind.
    pub failed: Failed,
    /// An expected broadcast that did not come within the request timeout.
    pub lost: u64,
    /// Of failed and lost: those that the service alone is to blame for.
    pub failed_anyway: u64,
}

/// Failed operations by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// No reply within the request timeout.
    pub timeout: u64,
    /// The service answered with an error.
    pub refused: u64,
    /// The reply could not be read.
    pub bad_reply: u64,
    /// The client did not take it in time, or the stream did not store it.
    pub publish: u64,
    /// Nobody listens where the request was sent.
    pub no_responders: u64,
}

impl Failed {
    /// All kinds.
    pub fn total(&self) -> u64 {
        self.timeout + self.refused + self.bad_reply + self.publish + self.no_responders
    }
}

impl Counters {
    /// Adds another agent's or block's counters. Written as a full pattern, so that no field can be forgotten.
    pub fn add(&mut self, other: &Self) {
        let Self { due, attempted, sent, saturated, underrun, completed, failed, lost, failed_anyway } = other;
        let Failed { timeout, refused, bad_reply, publish, no_responders } = failed;
        self.due += due;
        self.attempted += attempted;
        self.sent += sent;
        self.saturated += saturated;
        self.underrun += underrun;
        self.completed += completed;
        self.failed.timeout += timeout;
        self.failed.refused += refused;
        self.failed.bad_reply += bad_reply;
        self.failed.publish += publish;
        self.failed.no_responders += no_responders;
        self.lost += lost;
        self.failed_anyway += failed_anyway;
    }

    /// Whether every due operation is accounted for, and (after a drain) every attempted one has ended.
    pub fn add_up(&self) -> bool {
        self.due == self.attempted + self.saturated + self.underrun
            && self.attempted == self.completed + self.failed.total() + self.lost
            && self.failed_anyway <= self.failed.total() + self.lost
            && self.sent <= self.attempted
    }

    /// Failed and lost operations.
    pub fn errors(&self) -> u64 {
        self.failed.total() + self.lost
    }

    /// (failed + lost) ÷ attempted, for display; `None` when nothing was attempted.
    pub fn error_rate(&self) -> Option<f64> {
        (self.attempted > 0).then(|| self.errors() as f64 / self.attempted as f64)
    }

    /// Due operations that never left.
    pub fn never_left(&self) -> u64 {
        self.saturated + self.underrun
    }
}

/// Of one series: operations that completed or were given up, and how many of them lie above each limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesCounts {
    /// Operations that completed or were given up.
    pub n: u64,
    /// Operations that ended without a sample that they owed it: refused, unreadable, or heard by nobody. Not of `n`.
    #[serde(default)]
    pub refused: u64,
    /// Of `n`: operations that were given up.
    #[serde(default)]
    pub given_up: u64,
    /// Of both: those that the service alone is to blame for.
    #[serde(default)]
    pub failed_anyway: u64,
    /// One per limit, ascending as the limits are.
    pub above: Vec<u64>,
    /// The same after subtracting the box's stalls.
    pub above_anyway: Vec<u64>,
}

impl SeriesCounts {
    /// Nothing counted against `limits` limits.
    pub fn zero(limits: usize) -> Self {
        Self { above: vec![0; limits], above_anyway: vec![0; limits], ..Self::default() }
    }

    /// Adds counts against the same limits.
    pub fn add(&mut self, other: &Self) {
        let Self { n, refused, given_up, failed_anyway, above, above_anyway } = other;
        self.n += n;
        self.refused += refused;
        self.given_up += given_up;
        self.failed_anyway += failed_anyway;
        add_each(&mut self.above, above);
        add_each(&mut self.above_anyway, above_anyway);
    }

    /// Operations that owed it a sample and have ended, whichever way.
    pub fn ended(&self) -> u64 {
        self.n + self.refused
    }

    /// Of them: those that failed or were lost before it came.
    pub fn errors(&self) -> u64 {
        self.refused + self.given_up
    }
}

fn add_each(to: &mut Vec<u64>, from: &[u64]) {
    if to.len() < from.len() {
        to.resize(from.len(), 0);
    }
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

/// What changed for one block of intended time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockDelta {
    /// Index of the block in the hold, from 0.
    pub block: u32,
    /// What was due in it, and what became of that.
    pub counters: Counters,
    /// One per series, in the workload's order.
    pub series: Vec<SeriesCounts>,
}

/// Of one series: what ended since the last snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesHistograms {
    /// Completion (or giving up) − intended time.
    pub latency: LatencyHistogram,
    /// Completion (or giving up) − release.
    pub service_time: LatencyHistogram,
}

/// Messages that changed nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strays {
    /// Not ours.
    pub foreign: u64,
    /// Came twice.
    pub duplicate: u64,
    /// Ours, after the operation had been given up.
    pub late: u64,
}

impl Strays {
    /// Adds another agent's or block's.
    pub fn add(&mut self, other: &Self) {
        let Self { foreign, duplicate, late } = other;
        self.foreign += foreign;
        self.duplicate += duplicate;
        self.late += late;
    }
}

/// Something that a workload observed beside latency, over operations of the hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// As the workload calls it.
    pub name: String,
    /// How often.
    pub count: u64,
    /// The values' sum; zero for what has no value.
    pub sum: u64,
    /// The largest value.
    pub max: u64,
}

impl Observed {
    /// Nothing observed yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Another value.
    #[inline]
    pub fn observe(&mut self, value: u64) {
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
    }

    /// Adds another agent's or block's of the same name.
    pub fn add(&mut self, other: &Self) {
        let Self { name, count, sum, max } = other;
        debug_assert_eq!(&self.name, name);
        self.count = self.count.saturating_add(*count);
        self.sum = self.sum.saturating_add(*sum);
        self.max = self.max.max(*max);
    }

    /// Of the values; `None`: there are none.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }
}

/// How long the box held a worker up in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stall {
    /// In microseconds.
    Bounded(u64),
    /// Replies were dropped on the client's side.
    Unbounded,
}

impl Default for Stall {
    fn default() -> Self {
        Self::Bounded(0)
    }
}

/// What the load box did during one block of wall time since the step's start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// The largest stall of a worker.
    pub stall: Stall,
    /// Thousandths of one core.
    pub process_cpu_milli: u32,
    /// Thousandths of the whole box.
    pub box_cpu_milli: u32,
    /// Thousandths of the whole box that the hypervisor took.
    pub steal_milli: u32,
    /// How long a cgroup quota held the process back, in microseconds.
    pub throttled_us: u64,
    /// Largest delay of the reading runtimes' timer, in microseconds.
    pub timer_delay_us: u64,
    /// Longest time that a connection's writer was blocked, in microseconds.
    pub write_blocked_us: u64,
    /// Most operations open at once.
    pub in_flight_max: u64,
    /// Sum of the samples of the operations open, in the hold.
    pub in_flight_sum: u64,
    /// Number of those samples.
    pub in_flight_samples: u64,
    /// Lateness of every release.
    pub lateness: LatencyHistogram,
    /// What the NATS client reported, at most 8.
    pub client_errors: Vec<String>,
    /// Where levels are users.
    pub users: Option<UsersOnline>,
}

/// Users online, and the connections that they have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsersOnline {
    /// Connected, every subscription active.
    pub online: u64,
    /// Beside those of the workers.
    pub connections: u64,
}

/// One agent's block of wall time.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Which trial of which step.
    pub trial: TrialId,
    /// Counts from 0 without a gap.
    pub number: u32,
    /// Only the hold's blocks, only what changed.
    pub blocks: Vec<BlockDelta>,
    /// One per series, in the workload's order.
    pub series: Vec<SeriesHistograms>,
    /// Per series and limit: operations of the hold that are open and already older than the limit.
    pub overdue: Vec<Vec<u64>>,
    /// Messages that changed nothing else.
    pub strays: Strays,
    /// Warmup's operations: what changed.
    pub warmup: Counters,
    /// What the box did.
    pub health: Health,
    /// Sum over the hold's operations that ended of end − release, in microseconds.
    pub open_time_us: u64,
    /// What changed: one per observation of the workload, in its order.
    pub observed: Vec<Observed>,
}

/// What an agent says at the end of a trial; its snapshots must add up to it.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTotals {
    /// Which trial of which step.
    pub trial: TrialId,
    /// How many snapshots were sent.
    pub snapshots: u32,
    /// Of the hold.
    pub counters: Counters,
    /// One per series.
    pub series: Vec<SeriesCounts>,
    /// Samples in each series' latency histogram.
    pub samples: Vec<u64>,
    /// Messages that changed nothing else.
    pub strays: Strays,
    /// Of the warmup.
    pub warmup: Counters,
    /// When the pacer really began, in the agent's CLOCK_BOOTTIME, in nanoseconds.
    pub started_boottime_ns: u64,
    /// Why the trial ended.
    pub end: StepEnd,
    /// One per observation of the workload, in its order.
    pub observed: Vec<Observed>,
}

/// Why a trial ended on an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepEnd {
    /// Warmup, hold and drain ran to their end.
    Finished,
    /// The coordinator stopped it.
    Stopped,
    /// The target's connections failed for good.
    TargetGone,
    /// The agent was shut down: it released nothing more, and what it had released has ended.
    ShutDown,
}
