//! The stand-in's one clock: monotonic, and in step with the wall clock by which the server stamps stored messages.

use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Time since the stand-in's start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    started_unix: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        let started_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_unix }
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The instant to sleep to.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.started + at
    }

    /// Unix nanoseconds, now.
    pub(super) fn unix_nanos(&self) -> u64 {
        (self.started_unix + self.now()).as_nanos() as u64
    }

    /// When, on this clock, something was stamped by the wall clock; never in the future, not before the start.
    pub(super) fn at_unix_nanos(&self, unix_nanos: i128) -> Duration {
        let unix = Duration::from_nanos(u64::try_from(unix_nanos).unwrap_or(0));
        unix.saturating_sub(self.started_unix).min(self.now())
    }
}
