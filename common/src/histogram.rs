//! Latency histograms with the one set of bounds that the protocol knows, their HdrHistogram V2 encoding, and a decoder
//! that checks everything before it believes anything.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};

/// Smallest value told apart, in microseconds.
pub const LOWEST_US: u64 = 1;
/// Largest value, in microseconds: 60 s. What lies above is recorded as this and counted as clipped.
pub const HIGHEST_US: u64 = 60_000_000;
/// Significant decimal digits.
pub const DIGITS: u8 = 3;

/// A histogram of integer microseconds, 1 µs to 60 s at 3 significant digits.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyHistogram {
    counts: Histogram<u64>,
    clipped: u64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl LatencyHistogram {
    /// An empty histogram.
    pub fn new() -> Self {
        let counts =
            Histogram::new_with_bounds(LOWEST_US, HIGHEST_US, DIGITS).expect("the bounds are constants that fit");
        Self { counts, clipped: 0 }
    }

    /// Records one value in microseconds; zero counts as 1 µs, and what lies above 60 s is clipped and counted.
    #[inline]
    pub fn record(&mut self, value_us: u64) {
        if value_us > HIGHEST_US {
            self.clipped += 1;
        }
        self.counts.saturating_record(value_us.clamp(LOWEST_US, HIGHEST_US));
    }

    /// Samples recorded.
    pub fn len(&self) -> u64 {
        self.counts.len()
    }

    /// Whether nothing was recorded: then there are no percentiles, rather than percentiles of zero.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Samples above 60 s.
    pub fn clipped(&self) -> u64 {
        self.clipped
    }

    /// Adds what another agent clipped; its histogram carries the values themselves.
    pub fn add_clipped(&mut self, clipped: u64) {
        self.clipped += clipped;
    }

    /// The value in microseconds at `quantile` (0 to 1) by the nearest rank, rounded up to its bucket's end; `None`
    /// when empty.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        (!self.is_empty()).then(|| self.counts.value_at_quantile(quantile))
    }

    /// The largest value in microseconds; `None` when empty.
    pub fn max_us(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.counts.max())
    }

    /// The mean in microseconds; `None` when empty.
    pub fn mean_us(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.counts.mean())
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.counts.reset();
        self.clipped = 0;
    }

    /// Adds the counts of another histogram of the same bounds.
    pub fn add(&mut self, other: &Self) {
        if !other.counts.is_empty() {
            self.counts.add(&other.counts).expect("all latency histograms have the same bounds");
        }
        self.clipped += other.clipped;
    }

    /// The V2 encoding without `clipped`; empty bytes when nothing was recorded.
    pub fn to_v2(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.is_empty() {
            V2Serializer::new().serialize(&self.counts, &mut bytes).expect("writing to memory does not fail");
        }
        bytes
    }

    /// Adds the counts of a V2 encoding, which is checked as it is read; empty bytes add nothing. Returns how many
    /// samples were added.
    ///
    /// Format: the HdrHistogram V2 encoding: cookie, payload length, normalizing offset, digits, lowest, highest,
    /// ratio (all big-endian, 40 bytes), then one zigzag LEB128 number per bucket, negative for a run of empty ones.
    ///
    /// # Errors
    /// Other bounds, a wrong cookie or length, a bucket beyond the bounds, or counts that overflow: nothing was added.
    pub fn add_v2(&mut self, bytes: &[u8]) -> Result<u64, HistogramError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let payload = check_header(bytes)?;
        // Two passes: the first proves that the payload is whole, so that a bad one adds nothing.
        let added = for_each_bucket(payload, |_, _| {})?;
        if self.counts.len().checked_add(added).is_none() {
            return Err(HistogramError::Overflow);
        }
        for_each_bucket(payload, |index, count| {
            self.counts.saturating_record_n(value_of(index).min(HIGHEST_US), count);
        })?;
        Ok(added)
    }
}

/// Why bytes are no histogram of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// Shorter than its own header, or than the header says.
    #[error("histogram of {got} bytes, expected {expected}")]
    Length {
        /// What the header asks for.
        expected: usize,
        /// What there is.
        got: usize,
    },
    /// Not the V2 encoding.
    #[error("histogram with cookie {cookie:#x}, expected the V2 encoding {V2_COOKIE:#x}")]
    Cookie {
        /// The first four bytes.
        cookie: u32,
    },
    /// Bounds, digits, offset or ratio that the protocol does not know.
    #[error(
        "histogram of {lowest} to {highest} us at {digits} digits, expected {LOWEST_US} to {HIGHEST_US} at {DIGITS}"
    )]
    Bounds {
        /// Lowest discernible value.
        lowest: u64,
        /// Highest trackable value.
        highest: u64,
        /// Significant digits.
        digits: u32,
    },
    /// A bucket outside the bounds, or a number that does not end.
    #[error("histogram payload broken at byte {at}")]
    Payload {
        /// Offset into the payload.
        at: usize,
    },
    /// More samples than can be counted.
    #[error("histogram counts overflow")]
    Overflow,
}

const HEADER: usize = 40;
const V2_COOKIE: u32 = 0x1c84_9303 | 0x10;
/// Buckets per power of two at 3 digits: the smallest power of two at or above 2 × 10³.
const SUB_BUCKETS: u64 = 2048;
const SUB_BUCKET_HALF: u64 = SUB_BUCKETS / 2;
/// Powers of two to reach 60 s: 2048 µs doubled until it exceeds [`HIGHEST_US`], which takes 15 more.
const BUCKETS: u64 = 16;
const BUCKET_COUNT: u64 = (BUCKETS + 1) * SUB_BUCKET_HALF;

/// The lowest value of a bucket, given the counts' index (HdrHistogram's layout, unit magnitude 0).
fn value_of(index: u64) -> u64 {
    if index < SUB_BUCKETS {
        return index;
    }
    let bucket = index / SUB_BUCKET_HALF - 1;
    let sub_bucket = index % SUB_BUCKET_HALF + SUB_BUCKET_HALF;
    sub_bucket << bucket
}

fn check_header(bytes: &[u8]) -> Result<&[u8], HistogramError> {
    let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    let long = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    let header =
        || Some((word(0)?, word(4)? as usize, word(8)?, word(12)?, long(16)?, long(24)?, f64::from_bits(long(32)?)));
    let Some((cookie, length, offset, digits, lowest, highest, ratio)) = header() else {
        return Err(HistogramError::Length { expected: HEADER, got: bytes.len() });
    };
    if cookie != V2_COOKIE {
        return Err(HistogramError::Cookie { cookie });
    }
    if offset != 0 || digits != u32::from(DIGITS) || lowest != LOWEST_US || highest != HIGHEST_US || ratio != 1.0 {
        return Err(HistogramError::Bounds { lowest, highest, digits });
    }
    if bytes.len() != HEADER + length {
        return Err(HistogramError::Length { expected: HEADER + length, got: bytes.len() });
    }
    Ok(&bytes[HEADER..])
}

/// Calls `visit(index, count)` for every bucket that is not empty; returns the sum of the counts.
fn for_each_bucket(payload: &[u8], mut visit: impl FnMut(u64, u64)) -> Result<u64, HistogramError> {
    let (mut at, mut index, mut total) = (0, 0_u64, 0_u64);
    while at < payload.len() {
        let broken = HistogramError::Payload { at };
        let (number, read) = zigzag(&payload[at..]).ok_or(broken.clone())?;
        at += read;
        if number <= 0 {
            // A single empty bucket is written as zero, a run of them as its negative length.
            index = index.checked_add(number.unsigned_abs().max(1)).filter(|&i| i <= BUCKET_COUNT).ok_or(broken)?;
            continue;
        }
        if index >= BUCKET_COUNT {
            return Err(broken);
        }
        total = total.checked_add(number as u64).ok_or(HistogramError::Overflow)?;
        visit(index, number as u64);
        index += 1;
    }
    Ok(total)
}

/// One zigzag LEB128 number of the V2 encoding: at most 9 bytes, the ninth whole. Returns it and its length.
fn zigzag(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut value = 0_u64;
    for (position, &byte) in bytes.iter().take(9).enumerate() {
        let shift = 7 * position as u32;
        if position == 8 {
            value |= u64::from(byte) << shift;
            return Some((unzigzag(value), 9));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((unzigzag(value), position + 1));
        }
    }
    None
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::new();
        values.iter().for_each(|&value| histogram.record(value));
        histogram
    }

    #[test]
    fn an_empty_histogram_has_no_percentiles() {
        let empty = LatencyHistogram::new();
        assert_eq!((empty.quantile_us(0.99), empty.max_us(), empty.to_v2()), (None, None, Vec::new()));
    }

    #[test]
    fn what_lies_above_a_minute_is_clipped_and_counted() {
        let histogram = of(&[70_000_000, 10]);
        assert_eq!((histogram.clipped(), histogram.len()), (1, 2));
        assert!(histogram.max_us() >= Some(HIGHEST_US));
    }

    #[test]
    fn other_bounds_are_refused() {
        let mut other = Histogram::<u64>::new_with_bounds(1, 60_000_000, 2).unwrap();
        other.record(5).unwrap();
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&other, &mut bytes).unwrap();
        assert!(matches!(LatencyHistogram::new().add_v2(&bytes), Err(HistogramError::Bounds { digits: 2, .. })));
    }

    proptest! {
        #[test]
        fn decoding_and_adding_equals_adding(
            left in prop::collection::vec(1_u64..=HIGHEST_US, 0..300),
            right in prop::collection::vec(1_u64..=HIGHEST_US, 0..300),
        ) {
            let mut decoded = of(&left);
            let added = decoded.add_v2(&of(&right).to_v2());
            prop_assert_eq!(added, Ok(right.len() as u64));
            let all = of(&[left, right].concat());
            prop_assert_eq!(decoded.len(), all.len());
            for quantile in [0.0, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
                prop_assert_eq!(decoded.quantile_us(quantile), all.quantile_us(quantile));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = LatencyHistogram::new().add_v2(&bytes);
        }

        #[test]
        fn a_broken_histogram_adds_nothing(
            values in prop::collection::vec(1_u64..=HIGHEST_US, 1..100),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = of(&values).to_v2();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let mut histogram = LatencyHistogram::new();
            if histogram.add_v2(&bytes).is_err() {
                prop_assert!(histogram.is_empty());
            }
        }
    }
}
