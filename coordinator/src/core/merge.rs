//! Merges what the agents send during a trial, as it comes: counts and histograms are added, never averaged, and
//! everything that does not fit together is kept as a fault.

use std::time::Duration;

use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::{SeriesLimits, TrialId};
use plimsoll_common::snapshot::{Counters, Snapshot, StepTotals};
use plimsoll_common::units::Rate;

use super::backlog::{DurableReads, StreamGrowth};
use super::clock_offset::ClockOffset;
use super::measurement::StepMeasurement;

/// What the coordinator knows of a trial before its first snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialPlan {
    /// Which trial of which step.
    pub trial: TrialId,
    /// What the step asks of the fleet.
    pub target: Rate,
    /// Before the hold.
    pub warmup: Duration,
    /// The window whose operations count.
    pub hold: Duration,
    /// The start of the warmup in the coordinator's CLOCK_BOOTTIME, in nanoseconds.
    pub start_boottime_ns: u64,
    /// As they went out with the plan, in the workload's order.
    pub limits: Vec<SeriesLimits>,
    /// By agent index.
    pub agents: Vec<AgentPart>,
}

/// One agent's part of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPart {
    /// Its name.
    pub agent: String,
    /// Its part of the target rate.
    pub share: Rate,
    /// Its clock against the coordinator's, if known.
    pub clock: Option<ClockOffset>,
}

/// What the coordinator itself saw of the service during a trial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceReads {
    /// One per watched durable.
    pub durables: Vec<DurableReads>,
    /// One per stream that our messages enter.
    pub streams: Vec<StreamGrowth>,
}

/// A trial's merge under way. Its size depends on the fleet and the hold, not on how many operations or snapshots come.
#[derive(Debug, Clone)]
pub struct TrialMerge {
    plan: TrialPlan,
}

/// What is known of a trial while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Of the hold so far.
    pub counters: Counters,
    /// Of the warmup so far.
    pub warmup: Counters,
    /// One per series.
    pub series: Vec<SeriesProgress>,
}

/// One series while its trial runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesProgress {
    /// Its name.
    pub series: String,
    /// Of what has ended so far; `None`: nothing has.
    pub p99: Option<Duration>,
    /// Per limit: operations open and already older than it, by each agent's newest snapshot. A total stall shows here
    /// before the first timeout.
    pub overdue: Vec<u64>,
}

impl TrialMerge {
    /// Nothing received yet.
    pub fn new(plan: TrialPlan) -> Self {
        Self { plan }
    }

    /// Adds one snapshot of the agent with this index.
    ///
    /// # Panics
    /// When the plan has no such agent.
    pub fn add_snapshot(&mut self, agent: usize, snapshot: &Snapshot) {
        let _ = (agent, snapshot);
    }

    /// Takes the totals of the agent with this index.
    ///
    /// # Panics
    /// When the plan has no such agent.
    pub fn add_totals(&mut self, agent: usize, totals: StepTotals) {
        let _ = (agent, totals);
    }

    /// Notes that an agent's session ended before its totals came; later of its messages are ignored.
    ///
    /// # Panics
    /// When the plan has no such agent.
    pub fn agent_lost(&mut self, agent: usize, after: Duration, why: String) {
        let _ = (agent, after, why);
    }

    /// Whether every agent has sent its totals or is lost.
    pub fn is_complete(&self) -> bool {
        false
    }

    /// What is known so far.
    pub fn progress(&self) -> Progress {
        Progress { counters: Counters::default(), warmup: Counters::default(), series: Vec::new() }
    }

    /// Checks that everything adds up, and reads off the measurement.
    pub fn finish(self, service: &ServiceReads) -> StepMeasurement {
        let _ = (service, LatencyHistogram::new());
        StepMeasurement {
            trial: self.plan.trial,
            target: self.plan.target,
            hold: self.plan.hold,
            counters: Counters::default(),
            warmup: Counters::default(),
            strays: Default::default(),
            series: Vec::new(),
            blocks: Vec::new(),
            agents: Vec::new(),
            faults: Vec::new(),
            little: None,
            backlog: Vec::new(),
            foreign_load: Vec::new(),
        }
    }
}
