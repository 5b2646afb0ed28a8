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

/// Milliseconds after 1970-01-01T00:00:00Z of an instant as [`write_rfc3339`] writes it, rounded down; `None` for any other
/// text.
pub fn parse_rfc3339_ms(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| {
        let digits = bytes.get(from..to)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0')))
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| bytes.get(at) != Some(&byte)) || bytes.last() != Some(&b'Z') {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    let millis = match bytes.get(19)? {
        b'Z' if bytes.len() == 20 => 0,
        b'.' if (22..=30).contains(&bytes.len()) => {
            let digits = bytes.len() - 21;
            let fraction = number(20, bytes.len() - 1)?;
            if digits <= 3 {
                fraction * 10_u64.pow(3 - digits as u32)
            } else {
                fraction / 10_u64.pow(digits as u32 - 3)
            }
        }
        _ => return None,
    };
    Some((((days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

/// The inverse of [`civil`] (same source).
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
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

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back_in_milliseconds(nanos in 0_u64..4_107_542_400_000_000_000) {
            let mut text = String::new();
            write_rfc3339(&mut text, nanos).unwrap();
            proptest::prop_assert_eq!(parse_rfc3339_ms(&text), Some(nanos / 1_000_000), "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9TZ:.+-]{0,32}|\\PC{0,32}") {
            let _ = parse_rfc3339_ms(&text);
        }
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
