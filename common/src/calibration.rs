//! What a load box can do by itself: measured against a null target of its own, before the service is driven.

use std::time::Duration;

use crate::histogram::LatencyHistogram;
use crate::units::Rate;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationOrder {
    /// Bytes of a request, at most [`MOST_BYTES`].
    pub request_bytes: u32,
    /// Bytes of its reply, at most [`MOST_BYTES`].
    pub reply_bytes: u32,
    /// A release later than this after its intended time is none.
    pub max_lateness: Duration,
}

/// The largest request or reply: what a NATS server takes by default.
pub const MOST_BYTES: u32 = 1 << 20;

/// What a load box can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Requests per second that its workers would make and have answered with a processor each and nothing else to do: an
    /// upper bound, not a promise.
    pub ceiling: Rate,
    /// The rate at which the lateness was measured.
    pub paced: Rate,
    /// Requests due at that rate.
    pub due: u64,
    /// Of them, those released in time.
    pub released: u64,
    /// How late each was released.
    pub lateness: LatencyHistogram,
}
