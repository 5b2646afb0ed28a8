//! What one trial measured over the whole fleet, as plain data: the verdict judges it and the report shows it.

use std::time::Duration;

use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::TrialId;
use plimsoll_common::snapshot::{Counters, Observed, SeriesCounts, Stall, StepEnd, Strays, UsersOnline};
use plimsoll_common::units::Rate;
use serde::{Deserialize, Serialize};

use super::backlog::{DurableBacklog, StreamLoad};
use super::slo::Quantile;

/// One trial of one step, merged over the fleet. Every figure covers every operation of the hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMeasurement {
    /// Which trial of which step.
    pub trial: TrialId,
    /// What the step asked of the fleet.
    pub target: Rate,
    /// The window whose operations count.
    #[serde(rename = "hold_ns", with = "crate::core::encoding::nanos")]
    pub hold: Duration,
    /// What was later than this was never sent. `None`: of a trial that was saved before this was.
    #[serde(default)]
    pub max_lateness: Option<Duration>,
    /// Of the hold.
    pub counters: Counters,
    /// Of the warmup; part of nothing else here.
    pub warmup: Counters,
    /// Of hold and warmup.
    pub strays: Strays,
    /// One per series, in the workload's order.
    pub series: Vec<SeriesMeasurement>,
    /// What the workload observed beside latency, in its order.
    #[serde(default)]
    pub observed: Vec<Observed>,
    /// One per block of the hold, in order.
    pub blocks: Vec<FleetBlock>,
    /// What ended in the hold, in order, its drain with the last: how much the latencies vary over time.
    pub batches: Vec<Batch>,
    /// One per agent, by agent index.
    pub agents: Vec<AgentMeasurement>,
    /// Why the measurement cannot be trusted; empty: it can.
    pub faults: Vec<Fault>,
    /// Whether operations in flight, rate and time agree; `None` where there is too little to compare.
    pub little: Option<LittleCheck>,
    /// One per watched durable.
    pub backlog: Vec<DurableBacklog>,
    /// What the streams took that our messages enter; none where an agent was lost, since what that one sent nobody knows.
    #[serde(alias = "foreign_load")]
    pub streams: Vec<StreamLoad>,
}

impl StepMeasurement {
    /// Attempted operations per second of the hold.
    pub fn achieved_rate(&self) -> f64 {
        per_second(self.counters.attempted, self.hold)
    }

    /// Completed operations per second of the hold.
    pub fn completion_rate(&self) -> f64 {
        per_second(self.counters.completed, self.hold)
    }

    /// (failed + lost) ÷ attempted, for display; `None` when nothing was attempted.
    pub fn error_rate(&self) -> Option<f64> {
        self.counters.error_rate()
    }

    /// Users online throughout the hold, and the connections that they had at most; `None`: levels are no users.
    pub fn users_online(&self) -> Option<UsersOnline> {
        let seen = self.agents.iter().filter_map(|agent| agent.health.users);
        seen.reduce(|sum, more| UsersOnline {
            online: sum.online + more.online,
            connections: sum.connections + more.connections,
        })
    }

    /// Latest start − earliest start of the agents, and how far each of the two may be off; `None` unless every agent's
    /// start is known.
    pub fn skew(&self) -> Option<(Duration, Duration)> {
        let starts: Vec<StartLag> = self.agents.iter().map(|agent| agent.start).collect::<Option<_>>()?;
        let (first, last) = (starts.iter().min_by_key(|s| s.lag_ns)?, starts.iter().max_by_key(|s| s.lag_ns)?);
        Some((Duration::from_nanos(last.lag_ns.abs_diff(first.lag_ns)), first.error + last.error))
    }
}

/// Operations per second of a window; none in no time.
pub fn per_second(operations: u64, window: Duration) -> f64 {
    if window.is_zero() { 0.0 } else { operations as f64 / window.as_secs_f64() }
}

/// One series of the hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesMeasurement {
    /// The series' name.
    pub series: String,
    /// What `counts` is counted against, ascending, in microseconds.
    pub limits_us: Vec<u64>,
    /// Exact: what the verdict judges.
    pub counts: SeriesCounts,
    /// From the intended time to the end; for display.
    #[serde(with = "crate::core::encoding::histogram")]
    pub latency: LatencyHistogram,
    /// From the release to the end; for diagnosis.
    #[serde(with = "crate::core::encoding::histogram")]
    pub service_time: LatencyHistogram,
}

impl SeriesMeasurement {
    /// A percentile to show; `None`: no data. The histogram rounds within a bucket, so its value is moved to the side of
    /// each limit on which the exact counts say that it lies: what is shown never contradicts the verdict.
    pub fn percentile(&self, quantile: Quantile) -> Option<Duration> {
        let mut shown_us = self.latency.quantile_us(quantile.as_f64())?;
        let allowed = quantile.allowed_above(self.counts.n);
        for (&limit_us, &above) in self.limits_us.iter().zip(&self.counts.above) {
            shown_us = if above <= allowed { shown_us.min(limit_us) } else { shown_us.max(limit_us + 1) };
        }
        Some(Duration::from_micros(shown_us))
    }
}

/// One block of the hold over the whole fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetBlock {
    /// What was due in it, and what became of that.
    pub counters: Counters,
    /// One per series.
    pub series: Vec<SeriesCounts>,
    /// The largest stall of any agent in it.
    pub stall: Stall,
    /// Whether that stall exceeds a tenth of the tightest limit.
    pub void: bool,
}

/// More than this many batches say no more about how latencies vary, and would make a long hold's record large.
pub const MOST_BATCHES: u32 = 240;

/// Consecutive blocks of wall time over the whole fleet: what ended in them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// How many blocks.
    pub blocks: u32,
    /// Whether one of them is void.
    pub void: bool,
    /// One per series.
    #[serde(with = "crate::core::encoding::histogram::list")]
    pub latency: Vec<LatencyHistogram>,
}

/// One agent's part of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentMeasurement {
    /// Its name.
    pub agent: String,
    /// Its part of the target rate.
    pub share: Rate,
    /// Of the hold.
    pub counters: Counters,
    /// One per series; `above` − `above_anyway` is what this box alone added.
    pub series: Vec<SeriesCounts>,
    /// Messages that changed nothing else.
    pub strays: Strays,
    /// What its box did in the hold.
    pub health: HealthDigest,
    /// When it really began, against the instant it was given; `None` if it never said or its clock is unknown.
    pub start: Option<StartLag>,
    /// What the target's server that it is connected to says of itself; `None`: it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

impl AgentMeasurement {
    /// Attempted operations per second of the hold.
    pub fn achieved_rate(&self, hold: Duration) -> f64 {
        per_second(self.counters.attempted, hold)
    }
}

/// A load box over the blocks of the hold; what is marked so covers the drain too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthDigest {
    /// Of every release; `None` when nothing was released.
    pub lateness: Option<Lateness>,
    /// CPU of the process in thousandths of one core.
    pub process_cpu_milli: MeanMax,
    /// CPU of the box in thousandths of the whole box.
    pub box_cpu_milli: MeanMax,
    /// What the hypervisor took, in thousandths of the whole box.
    pub steal_milli: MeanMax,
    /// How long a cgroup quota held the process back, in sum.
    #[serde(rename = "throttled_ns", with = "crate::core::encoding::nanos")]
    pub throttled: Duration,
    /// Most operations open at once.
    pub in_flight_max: u64,
    /// Longest time that a connection's writer was blocked.
    #[serde(rename = "write_blocked_ns", with = "crate::core::encoding::nanos")]
    pub write_blocked: Duration,
    /// Largest delay of the reading runtimes' timer.
    #[serde(rename = "timer_delay_ns", with = "crate::core::encoding::nanos")]
    pub timer_delay: Duration,
    /// The largest stall of hold and drain.
    pub worst_stall: Stall,
    /// Blocks of the hold in which this box's stall exceeds a tenth of the tightest limit.
    pub void_blocks: u32,
    /// Blocks of the hold of whose operations this box left out or spoiled more than one in a hundred, each counted once for
    /// each limit that it exceeds by the box's stalls alone.
    #[serde(default)]
    pub spoilt_blocks: u32,
    /// What the NATS client reported in the whole trial, each text once, at most 8.
    pub client_errors: Vec<String>,
    /// Where levels are users: the fewest online and the most connections of any block of the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<UsersOnline>,
}

/// How late a box released its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// Median.
    #[serde(rename = "p50_ns", with = "crate::core::encoding::nanos")]
    pub p50: Duration,
    /// 99 of 100.
    #[serde(rename = "p99_ns", with = "crate::core::encoding::nanos")]
    pub p99: Duration,
    /// Largest.
    #[serde(rename = "max_ns", with = "crate::core::encoding::nanos")]
    pub max: Duration,
}

/// Mean and largest of the blocks' values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeanMax {
    /// Rounded down.
    pub mean: u32,
    /// Of any block.
    pub max: u32,
}

/// When an agent began, on the coordinator's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartLag {
    /// After the instant asked for; negative: before it.
    pub lag_ns: i64,
    /// Half the round trip by which the clock offset was found.
    #[serde(rename = "error_ns", with = "crate::core::encoding::nanos")]
    pub error: Duration,
    /// By the agent's own CLOCK_BOOTTIME, which nobody has estimated; zero in runs that were saved before it was kept.
    #[serde(default)]
    pub own_boottime_ns: u64,
}

/// Little's law: mean in flight ≈ attempted rate × mean time from release to end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LittleCheck {
    /// Sampled in the hold, the agents' means added up.
    pub in_flight: f64,
    /// Attempted rate × mean open time.
    pub expected: f64,
}

impl LittleCheck {
    /// The two differ by at most this part of what is expected.
    pub const TOLERANCE: f64 = 0.05;

    /// Whether the two agree.
    pub fn holds(&self) -> bool {
        (self.in_flight - self.expected).abs() <= Self::TOLERANCE * self.expected
    }
}

/// Why a trial's figures cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Its session ended before its totals came.
    AgentLost {
        /// Which.
        agent: String,
        /// Since the start of the warmup.
        #[serde(rename = "after_ns", with = "crate::core::encoding::nanos")]
        after: Duration,
        /// For people.
        why: String,
    },
    /// It heard nothing of the target while others did: its way there is cut, or the part of the target that it talks to is gone.
    CutOff {
        /// Which agent.
        agent: String,
        /// The longest time without any answer while others were answered.
        #[serde(rename = "length_ns", with = "crate::core::encoding::nanos")]
        length: Duration,
        /// With it everybody was who talks to its server while others talk to another, or more agents than were answered: it may as
        /// well be the target.
        #[serde(default)]
        one_of_many: bool,
    },
    /// Its trial did not run to its end.
    EndedEarly {
        /// Which agent.
        agent: String,
        /// How it ended.
        end: StepEnd,
    },
    /// What it sent does not fit together.
    DoesNotAddUp {
        /// Which agent.
        agent: String,
        /// What does not.
        mismatch: Mismatch,
    },
}

/// What does not fit together in what an agent sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mismatch {
    /// A snapshot or totals of another trial.
    Trial {
        /// The trial under way.
        expected: TrialId,
        /// What came.
        got: TrialId,
    },
    /// A snapshot missing, repeated or out of order.
    Numbering {
        /// The next number.
        expected: u32,
        /// What came.
        got: u32,
    },
    /// Not the workload's series, or not the plan's limits.
    Shape,
    /// A block beyond the end of the hold.
    Block {
        /// What came.
        block: u32,
        /// How many the hold has.
        blocks: u32,
    },
    /// More operations than the agent's share can ever be.
    Implausible,
    /// The totals never came.
    NoTotals,
    /// The totals came twice, or a snapshot after them.
    AfterTotals,
    /// Snapshots sent, by the totals, and received.
    Snapshots {
        /// By the totals.
        sent: u32,
        /// Here.
        received: u32,
    },
    /// The snapshots' sum is not the totals'.
    Sum {
        /// Which field.
        of: SumOf,
    },
    /// Operations are missing: due ≠ attempted + saturated + underrun, or not every attempted one ended once.
    Unaccounted,
    /// The agent's schedule and the coordinator's differ.
    Due {
        /// By the coordinator.
        expected: u64,
        /// By the agent.
        got: u64,
    },
    /// A series' samples, by its counts and by its histogram.
    Samples {
        /// Which series.
        series: String,
        /// By the counts.
        counted: u64,
        /// By the histogram.
        recorded: u64,
    },
}

/// A part of the totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SumOf {
    /// The hold's counters.
    Counters,
    /// The warmup's counters.
    Warmup,
    /// Counts of the series.
    Series,
    /// Foreign, duplicate and late messages.
    Strays,
    /// What the workload observed beside latency.
    Observed,
}
