//! Why a session is over, and what is still to do then.

use std::error::Error as _;
use std::thread::JoinHandle;
use std::time::Duration;

use tonic::Status;

/// Workers end within a look at their lease, and close what they have open. One that takes longer stands still for other reasons.
const ENDING_LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked whether they have.
const LOOK_AT_WORKERS: Duration = Duration::from_millis(5);

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionEnd {
    /// The coordinator said so.
    #[error("released")]
    Released,
    /// The coordinator ended the stream.
    #[error("the coordinator's stream ended")]
    StreamEnded,
    /// The stream broke.
    #[error("the coordinator's stream broke: {0}")]
    StreamBroke(String),
    /// What came is no message, or a larger one than there may be.
    #[error("a message of the coordinator cannot be read: {0}")]
    Unreadable(String),
    /// No echo came in time.
    #[error("the lease timed out")]
    LeaseTimedOut,
    /// The coordinator does not read, or sends what makes no sense.
    #[error("{0}")]
    Protocol(String),
    /// The run holds this agent for longer than it may.
    #[error("the run has held this agent for its --max-run of {} s", .0.as_secs_f64())]
    RunTooLong(Duration),
    /// A worker panicked.
    #[error("worker {worker} ended by {words}; this is a bug of the agent")]
    Panicked {
        /// Which.
        worker: u8,
        /// What the panic was.
        words: String,
    },
    /// The daemon is being shut down.
    #[error("the agent is shutting down")]
    ShuttingDown,
}

/// Whether a session had a run: one that was only claimed, or calibrated, had none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HadRun {
    /// It was prepared, or its coordinator said that it is over before it was.
    Yes,
    /// It was not.
    No,
}

/// What a session came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// Why it is over.
    pub end: SessionEnd,
    /// Whether a run was.
    pub run: HadRun,
}

impl SessionEnd {
    /// What the coordinator is told, where it does not know by itself.
    pub(super) fn status(&self) -> Option<Status> {
        match self {
            Self::Released | Self::StreamEnded | Self::StreamBroke(_) => None,
            Self::Unreadable(_) => Some(Status::invalid_argument(self.to_string())),
            Self::Protocol(words) => Some(Status::failed_precondition(words.clone())),
            Self::RunTooLong(_) => Some(Status::failed_precondition(self.to_string())),
            Self::Panicked { .. } => Some(Status::internal(self.to_string())),
            Self::LeaseTimedOut | Self::ShuttingDown => Some(Status::unavailable(self.to_string())),
        }
    }

    /// Why no message came: of what breaks below it a status has a cause, of what it reads itself it has words only.
    pub(super) fn unread(status: &Status) -> Self {
        match status.source() {
            Some(cause) => Self::StreamBroke(cause.to_string()),
            None => Self::Unreadable(status.message().to_owned()),
        }
    }
}

/// Returns once these have ended, or have not in all the time that they take.
pub(super) async fn await_threads(threads: &[JoinHandle<()>]) {
    let began = tokio::time::Instant::now();
    while !threads.iter().all(JoinHandle::is_finished) {
        if began.elapsed() > ENDING_LIMIT {
            tracing::warn!(
                "workers have not ended within {ENDING_LIMIT:?}: the next run may find connections of theirs"
            );
            return;
        }
        tokio::time::sleep(LOOK_AT_WORKERS).await;
    }
}

/// Resolves once a run has had all the time it may take.
pub(super) async fn run_over(limit: Option<Duration>, held_before: Duration) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit.saturating_sub(held_before)).await;
            limit
        }
        None => std::future::pending().await,
    }
}
