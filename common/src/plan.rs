//! What an agent is told: the run, and each step of it.

use std::fmt;
use std::time::Duration;

pub use crate::credentials::{Credentials, Login, TlsIdentity, redact_given, redact_url};
use crate::units::Rate;
pub use crate::workload::{
    CustomWorkload, DailyWorkload, HistoryWorkload, Inject, InjectError, MembersWorkload, MessagesWorkload,
    ReadReceiptWorkload, RoomReadWorkload, ThreadWorkload, Workload,
};

/// The grain of snapshots, statistics and box health: half a second of intended time.
pub const BLOCK: Duration = Duration::from_millis(500);

/// More agents than this do not fit into an id.
pub const MAX_AGENTS: usize = 1 << 12;
/// More workers per agent than this do not fit into an id.
pub const MAX_WORKERS: usize = 1 << 8;
/// Run nonces are below this, so that ids hold them.
pub const RUN_NONCE_LIMIT: u64 = 1 << 39;

/// What one agent needs to know of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPlan {
    /// Position in the fleet, from 0, below [`MAX_AGENTS`].
    pub agent_index: u16,
    /// Part of every id of the run, below [`RUN_NONCE_LIMIT`].
    pub run_nonce: u64,
    /// Seeds fixtures, arrivals and choices.
    pub seed: u64,
    /// The service under test.
    pub target: Target,
    /// What is driven against it.
    pub workload: Workload,
    /// How long an operation may stay open, from its intended time.
    pub request_timeout: Duration,
    /// The limits of each of the workload's series, in the order of its `series`.
    pub series: Vec<SeriesLimits>,
    /// A release later than this after the intended time is an underrun instead.
    pub max_lateness: Duration,
}

/// The NATS service under test.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// One or more server addresses, comma separated.
    pub url: String,
    /// What the URL does not carry.
    pub credentials: Option<Credentials>,
}

/// Secrets do not reach logs: neither credentials nor what a URL carries before its `@`.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = &self.credentials;
        f.debug_struct("Target").field("url", &redact_url(&self.url)).field("credentials", credentials).finish()
    }
}

impl Target {
    /// Whether whoever reads this could pass for us.
    pub fn is_secret(&self) -> bool {
        self.url.contains('@') || self.credentials.as_ref().is_some_and(Credentials::are_secret)
    }
}

/// The limits that a series' operations are counted against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesLimits {
    /// The series' name.
    pub series: String,
    /// Strictly ascending, in microseconds; empty: measured, not judged.
    pub limits_us: Vec<u64>,
}

/// One trial of one step, as one agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepOrder {
    /// Which trial of which step.
    pub trial: TrialId,
    /// This agent's share of the target rate.
    pub share: Rate,
    /// The start of the warmup in the agent's CLOCK_BOOTTIME, in nanoseconds.
    pub start_boottime_ns: u64,
    /// Operations before the hold, which count for nothing but keep the service warm.
    pub warmup: Duration,
    /// The only window whose operations count.
    pub hold: Duration,
    /// How intended times are spread.
    pub arrivals: Arrivals,
    /// Operations open at once on this agent, at least 1.
    pub max_in_flight: u64,
    /// Operations that its share leaves to it beside those that it brings in whole.
    pub more: More,
}

/// Shares bring whole operations and parts of one: the parts of a fleet's shares are some more, one each for some of its agents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct More {
    /// In the warmup: 0 or 1.
    pub warmup: u32,
    /// In the hold: 0 or 1.
    pub hold: u32,
}

impl StepOrder {
    /// Operations due in the warmup and in the hold where the agent's share makes this rate.
    pub fn due(&self, rate: Rate) -> (u64, u64) {
        let due = |window, more: u32| rate.due_in(window).saturating_add(more.into());
        (due(self.warmup, self.more.warmup), due(self.hold, self.more.hold))
    }
}

/// A step of a run and a trial of that step, both from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct TrialId {
    /// Position in the run.
    pub step: u32,
    /// One execution of the step.
    pub trial: u32,
}

/// How intended times are spread over a window whose count is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// Evenly, each agent staggered by its phase.
    Uniform {
        /// Where the schedule begins within the agent's own interval, in millionths.
        phase_ppm: u32,
    },
    /// Independent users.
    Poisson,
}
