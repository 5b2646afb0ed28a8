//! How far a seeding has come: one count, its rate, and how long the rest will take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Documents and rows written, counted as they are acknowledged.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// So many more.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// All so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// `seed: 1,234,000 of 65,000,000 rows and documents (1.9%), 45,000/s, 23m 37s left`; `before` were there when it began.
pub fn line(before: u64, done: u64, all: u64, elapsed: Duration) -> String {
    let now = before + done;
    let percent = if all == 0 { 100.0 } else { now as f64 * 100.0 / all as f64 };
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = match all.saturating_sub(now) {
        0 => String::new(),
        rest if rate >= 1.0 => {
            let left = Duration::from_secs((rest as f64 / rate).ceil() as u64);
            format!(", {} left", humantime::format_duration(left))
        }
        _ => ", nothing moves".to_owned(),
    };
    format!(
        "seed: {} of {} rows and documents ({percent:.1}%), {}/s{left}",
        grouped(now),
        grouped(all),
        grouped(rate as u64)
    )
}

/// `1,234,000`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let line_of = |before, done, all, seconds| line(before, done, all, Duration::from_secs(seconds));
        assert_eq!(
            line_of(0, 1_234_000, 65_000_000, 20),
            "seed: 1,234,000 of 65,000,000 rows and documents (1.9%), 61,700/s, 17m 14s left"
        );
        assert_eq!(line_of(100, 0, 1_000, 5), "seed: 100 of 1,000 rows and documents (10.0%), 0/s, nothing moves");
        assert_eq!(line_of(0, 30, 30, 1), "seed: 30 of 30 rows and documents (100.0%), 30/s");
        assert_eq!(line_of(0, 0, 0, 1), "seed: 0 of 0 rows and documents (100.0%), 0/s");
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
