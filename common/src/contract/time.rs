//! Wall-clock times as the chat writes them: RFC 3339 in UTC, up to nine fractional digits, trailing zeros dropped.

use std::fmt::{self, Write};

/// Writes the instant `unix_nanos` nanoseconds after 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// # Errors
/// Only those of `out`.
pub fn write_rfc3339(out: &mut impl Write, unix_nanos: u64) -> fmt::Result {
    let (seconds, nanos) = (unix_nanos / 1_000_000_000, unix_nanos % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
    if nanos > 0 {
        let (mut fraction, mut digits) = (nanos, 9);
        while fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        write!(out, ".{fraction:0digits$}")?;
    }
    out.write_char('Z')
}

/// Year, month and day of a number of days since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unix_nanos: u64, expected: &str) {
        let mut text = String::new();
        write_rfc3339(&mut text, unix_nanos).unwrap();
        assert_eq!(text, expected);
    }

    #[test]
    fn times_read_as_the_contracts_example_does() {
        check(1_782_617_354_123_456_789, "2026-06-28T03:29:14.123456789Z");
        check(1_782_617_354_120_000_000, "2026-06-28T03:29:14.12Z");
        check(1_782_617_354_000_000_001, "2026-06-28T03:29:14.000000001Z");
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400_000_000_000, "2000-02-29T00:00:00Z");
        check(4_107_542_399_000_000_000, "2100-02-28T23:59:59Z");
        check(4_107_542_400_000_000_000, "2100-03-01T00:00:00Z");
    }
}
