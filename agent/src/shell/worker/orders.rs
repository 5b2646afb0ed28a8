//! What a worker is told, and what it says.

use std::sync::Arc;

use plimsoll_common::contract::fixtures::Fixtures;
use plimsoll_common::plan::{AgentPlan, StepOrder, TrialId};
use plimsoll_common::snapshot::{StepEnd, UsersOnline};

use super::fence::FENCE_TIMEOUT;
use crate::core::exchange::Desk;
use crate::core::recorder::{WorkerBlock, WorkerTotals};
use crate::shell::lease::Lease;
use crate::shell::nats_target::ConnectError;
use crate::workload::Part;

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerSpec {
    /// Position on this agent, from 0.
    pub index: u8,
    /// The name of the connection: `plimsoll/<run>/<agent>`.
    pub connection: String,
    /// The run.
    pub plan: Arc<AgentPlan>,
    /// Who is in which room, where the workload has rooms.
    pub fixtures: Option<Arc<Fixtures>>,
    /// Workers of this agent.
    pub workers: u8,
    /// Where the agent's workers tell each other what their users hear, if levels are users.
    pub desk: Option<Desk>,
    /// Looked at before every release.
    pub lease: Lease,
}

/// Room for commands that a worker has not taken yet. At most four can wait: a deal or a start, since the next one comes after
/// its answer; the stop of that trial, and that of the trial before, which may have ended by itself; and a drain.
pub const COMMANDS: usize = 8;

/// What a worker is told.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Listen to what this part needs.
    Deal(Part),
    /// Hold a step.
    Start(WorkerOrder),
    /// Be silent at once.
    Stop,
    /// Release nothing more, and end the step once what was released has ended.
    Drain,
}

/// A worker's part of a trial.
#[derive(Debug, Clone)]
pub struct WorkerOrder {
    /// The agent's order.
    pub order: StepOrder,
    /// Operations due in the warmup and in the hold.
    pub warmup_due: u64,
    /// See `warmup_due`.
    pub hold_due: u64,
    /// Operations open at once, at least 1.
    pub max_in_flight: u64,
    /// Where its schedule begins within its own interval, in millionths.
    pub phase_ppm: u32,
}

/// What a worker says.
#[derive(Debug)]
pub enum WorkerEvent {
    /// Connected to the target, which says this of itself.
    Connected(String),
    /// Every subscription is active at the server. How many operations can still be made, where they use something up.
    Dealt(Option<u64>),
    /// What was asked cannot be done.
    Refused(WorkerRefusal),
    /// It panicked, on its main path or in a task beside it, and is not to be trusted any more; for people.
    Panicked(String),
    /// A wall block was closed.
    Block(TrialId, Box<WorkerBlock>, BlockHealth),
    /// The trial is over here.
    Finished(TrialId, Box<Finish>),
}

/// Why a worker cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerRefusal {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The target denies a subject.
    #[error("NATS denies what this workload needs: {words}")]
    Denied {
        /// The server's words.
        words: String,
    },
    /// Nobody takes what would be sent.
    #[error("nobody listens on '{subject}': {words}")]
    NobodyListens {
        /// What would be sent to.
        subject: String,
        /// What that means, and what to do.
        words: &'static str,
    },
    /// What was dealt does not do, or is used up.
    #[error("{0}")]
    Fixtures(String),
    /// The server did not confirm the subscriptions.
    #[error("NATS did not confirm {count} subscriptions within {FENCE_TIMEOUT:?}")]
    NotConfirmed {
        /// How many there are.
        count: usize,
    },
    /// What was asked cannot be done at this target, by whichever box.
    #[error("{0}")]
    Asked(String),
    /// Something that the box should have.
    #[error("{0}")]
    Box(String),
}

/// What a worker saw of the box in a block.
#[derive(Debug, Clone, Default)]
pub struct BlockHealth {
    /// Largest delay of the pacer's timer, which is also the reader's, in microseconds.
    pub timer_delay_us: u64,
    /// How long a cgroup quota held the process back, at most the block's length, in microseconds.
    pub throttled_us: u64,
    /// The longest that a connection took to write out what it was handed, the worker's own or a user's, in microseconds.
    pub write_blocked_us: u64,
    /// What the client reported.
    pub client_errors: Vec<String>,
    /// Where there are users.
    pub users: Option<UsersOnline>,
}

/// A worker's end of a trial.
#[derive(Debug)]
pub struct Finish {
    /// All that was counted.
    pub totals: WorkerTotals,
    /// When the pacer really began.
    pub started_boottime_ns: u64,
    /// Why it ended.
    pub end: StepEnd,
    /// Nanoseconds that the worker ran on a processor meanwhile.
    pub cpu_ns: u64,
}
