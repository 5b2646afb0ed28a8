//! Plan and snapshots to and from the protocol's messages. Every message is checked once, here, on arrival; generated
//! types go no further.

mod calibration;
mod plan;
mod snapshot;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::snapshot::{count, histogram};
use crate::histogram::HistogramError;
use crate::workload::BadSetting;
pub use crate::workload::is_subject_token;

/// The largest message that either side accepts: a snapshot of 64 series with full histograms stays below 4 MiB.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// No workload has more series than this.
const MAX_SERIES: usize = 64;
/// No workload observes more than this beside its series.
const MAX_OBSERVED: usize = 64;
/// No series is judged against more limits than this.
const MAX_LIMITS: usize = 16;
/// A snapshot touches the blocks of one request timeout at most; a timeout is an hour at most.
const MAX_BLOCKS: usize = 8192;
/// Phases longer than this are a mistake of units.
pub const MAX_PHASE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Operations that one box can have open at once: at some 100 bytes each this is already beyond its memory.
const MAX_IN_FLIGHT: u64 = 1 << 32;
/// Client errors per snapshot, and bytes of each, that are kept.
const MAX_CLIENT_ERRORS: usize = 8;
const MAX_TEXT: usize = 512;
/// Characters of a peer's name, release or host that are shown.
pub const MAX_NAME: usize = 128;
/// Characters of a peer's own words that are shown: what, where and how to fix.
pub const MAX_WORDS: usize = 1024;
/// Files of credentials and certificates are some kilobytes.
const MAX_SECRET: usize = 1024 * 1024;

/// A peer's text as it may be shown: of so many characters at most, none of which does anything to a terminal or a report.
pub fn printable(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

/// Why a message makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field or `oneof` that must be set is not.
    #[error("{message}.{field} is not set")]
    Missing {
        /// The message's type.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// A value outside its range.
    #[error("{message}.{field} is {got}, expected {expected}")]
    Range {
        /// The message's type.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// What came.
        got: String,
        /// What fits.
        expected: &'static str,
    },
    /// Settings that make no workload.
    #[error("Prepare.workload_settings: {0}")]
    Workload(BadSetting),
    /// A histogram that cannot be read.
    #[error("{message}.{field}: {error}")]
    Histogram {
        /// The message's type.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        error: HistogramError,
    },
}

fn missing(message: &'static str, field: &'static str) -> WireError {
    WireError::Missing { message, field }
}

fn range(message: &'static str, field: &'static str, got: impl ToString, expected: &'static str) -> WireError {
    WireError::Range { message, field, got: got.to_string(), expected }
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

fn phase(message: &'static str, field: &'static str, us: u64) -> Result<Duration, WireError> {
    let length = Duration::from_micros(us);
    if length > MAX_PHASE {
        return Err(range(message, field, us, "at most a week"));
    }
    Ok(length)
}
