//! Reasons, rates and durations in words.

use std::time::Duration;

use crate::core::verdict::{Breach, Doubt, Verdict};

/// `850us`, `143ms`, `1.24s`: three significant digits, or fewer where they say the same.
pub fn duration(length: Duration) -> String {
    format!("{length:?}")
}

/// `E2 p95=143ms > 100ms`, `broadcast-worker pending +1240 > +1000`.
pub fn breach(breach: &Breach) -> String {
    format!("{breach:?}")
}

/// Why a trial proves nothing, with the box and the knob.
pub fn doubt(doubt: &Doubt) -> String {
    format!("{doubt:?}")
}

/// The reasons of a verdict; none for a PASS.
pub fn reasons(verdict: &Verdict) -> Vec<String> {
    match verdict {
        Verdict::Pass => Vec::new(),
        Verdict::Trip(breaches) => breaches.iter().map(breach).collect(),
        Verdict::Inconclusive(doubts) => doubts.iter().map(doubt).collect(),
    }
}
