//! Latency histograms with the one set of bounds that the protocol knows: HdrHistogram's buckets in memory of our own, so
//! that recording is a few instructions and everything else walks only the buckets in use.

mod v2;

use std::fmt;

use v2::V2_COOKIE;

/// Smallest value told apart, in microseconds.
pub const LOWEST_US: u64 = 1;
/// Largest value, in microseconds: 60 s. What lies above is recorded as this and counted as clipped.
pub const HIGHEST_US: u64 = 60_000_000;
/// Significant decimal digits.
pub const DIGITS: u8 = 3;

/// A histogram of integer microseconds, 1 µs to 60 s at 3 significant digits.
///
/// Invariants: `total` is the sum of the counts (both saturate), and `lowest..=highest` is exactly the range from the
/// first to the last bucket that is not empty.
pub struct LatencyHistogram {
    // Zeroed by the allocator: pages that no sample touched are not resident.
    counts: Box<Counts>,
    total: u64,
    lowest: usize,
    highest: usize,
    clipped: u64,
}

type Counts = [u64; COUNTS];

impl LatencyHistogram {
    /// An empty histogram.
    pub fn new() -> Self {
        let counts = vec![0_u64; COUNTS].into_boxed_slice().try_into().expect("as long as its type says");
        Self { counts, total: 0, lowest: NO_LOWEST, highest: 0, clipped: 0 }
    }

    /// Records one value in microseconds; zero counts as 1 µs, and what lies above 60 s is clipped and counted.
    #[inline]
    pub fn record(&mut self, value_us: u64) {
        self.clipped += u64::from(value_us > HIGHEST_US);
        let index = index_of(value_us.clamp(LOWEST_US, HIGHEST_US));
        let count = &mut self.counts[index];
        *count = count.saturating_add(1);
        self.total = self.total.saturating_add(1);
        self.lowest = self.lowest.min(index);
        self.highest = self.highest.max(index);
    }

    /// Samples recorded.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Whether nothing was recorded: then there are no percentiles, rather than percentiles of zero.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Samples above 60 s.
    pub fn clipped(&self) -> u64 {
        self.clipped
    }

    /// Adds what another agent clipped; its histogram carries the values themselves.
    pub fn add_clipped(&mut self, clipped: u64) {
        self.clipped += clipped;
    }

    /// The value in microseconds at `quantile` (0 to 1) by the nearest rank, rounded up to its bucket's end, at most
    /// 60 s; at 0 the start of the first bucket. `None` when empty.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let rank = ((quantile.min(1.0) * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0_u64;
        let at_rank = |&(_, count): &(usize, u64)| {
            seen = seen.saturating_add(count);
            seen >= rank
        };
        // A rank beyond the last sample comes from rounding a total of more than 2^53.
        let (index, _) = self.buckets().find(at_rank).or_else(|| self.buckets().next_back())?;
        Some(if quantile == 0.0 { start_of(index) } else { end_of(index) }.min(HIGHEST_US))
    }

    /// The end of the largest value's bucket in microseconds, at most 60 s; `None` when empty.
    pub fn max_us(&self) -> Option<u64> {
        (!self.is_empty()).then(|| end_of(self.highest).min(HIGHEST_US))
    }

    /// The mean in microseconds, each value taken as the middle of its bucket, at most 60 s; `None` when empty.
    pub fn mean_us(&self) -> Option<f64> {
        let part = |(index, count)| middle_of(index) as f64 * count as f64 / self.total as f64;
        (!self.is_empty()).then(|| self.buckets().map(part).sum::<f64>().min(HIGHEST_US as f64))
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        if !self.is_empty() {
            self.counts[self.lowest..=self.highest].fill(0);
        }
        (self.total, self.lowest, self.highest, self.clipped) = (0, NO_LOWEST, 0, 0);
    }

    /// Adds the counts of another histogram.
    pub fn add(&mut self, other: &Self) {
        self.clipped += other.clipped;
        if other.is_empty() {
            return;
        }
        let touched = other.lowest..=other.highest;
        let pairs = self.counts[touched.clone()].iter_mut().zip(&other.counts[touched]);
        if let Some(total) = self.total.checked_add(other.total) {
            // No count exceeds its total, so none overflows here: a loop without branches.
            pairs.for_each(|(to, from)| *to = to.wrapping_add(*from));
            self.total = total;
        } else {
            pairs.for_each(|(to, from)| *to = to.saturating_add(*from));
            self.total = u64::MAX;
        }
        self.widen(other.lowest, other.highest);
    }

    /// Samples in the buckets up to and including the one that `value_us` lies in.
    pub fn count_up_to_us(&self, value_us: u64) -> u64 {
        let last = index_of(value_us.clamp(LOWEST_US, HIGHEST_US));
        self.counts[..=last].iter().fold(0, |sum: u64, &count| sum.saturating_add(count))
    }

    /// The V2 encoding without `clipped`; empty bytes when nothing was recorded.
    pub fn to_v2(&self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        v2::encode(self.lowest, &self.counts[self.lowest..=self.highest])
    }

    /// Adds the counts of a V2 encoding, which is checked as it is read; empty bytes add nothing. Returns how many
    /// samples were added.
    ///
    /// # Errors
    /// Other bounds, a wrong cookie or length, a bucket beyond the bounds, or counts that overflow: nothing was added.
    pub fn add_v2(&mut self, bytes: &[u8]) -> Result<u64, HistogramError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let payload = v2::check(bytes)?;
        let total = self.total.checked_add(payload.total()).ok_or(HistogramError::Overflow)?;
        if let Some((lowest, highest)) = payload.add_to(&mut self.counts) {
            self.widen(lowest, highest);
        }
        self.total = total;
        Ok(payload.total())
    }

    fn widen(&mut self, lowest: usize, highest: usize) {
        self.lowest = self.lowest.min(lowest);
        self.highest = self.highest.max(highest);
    }

    /// Index and count of the buckets that are not empty, in ascending order.
    fn buckets(&self) -> impl DoubleEndedIterator<Item = (usize, u64)> {
        let touched = if self.is_empty() { 0..0 } else { self.lowest..self.highest + 1 };
        touched.map(|index| (index, self.counts[index])).filter(|&(_, count)| count > 0)
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

/// By hand, so that a copy touches no more pages than its original.
impl Clone for LatencyHistogram {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.add(self);
        copy
    }
}

impl PartialEq for LatencyHistogram {
    fn eq(&self, other: &Self) -> bool {
        (self.total, self.clipped) == (other.total, other.clipped) && self.buckets().eq(other.buckets())
    }
}

/// By hand: nobody reads 17,000 counts.
impl fmt::Debug for LatencyHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LatencyHistogram")
            .field("len", &self.total)
            .field("clipped", &self.clipped)
            .field("us_p50", &self.quantile_us(0.5))
            .field("us_p99", &self.quantile_us(0.99))
            .field("max_us", &self.max_us())
            .finish_non_exhaustive()
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

/// Buckets per power of two at 3 digits: the smallest power of two at or above 2 × 10³.
const SUB_BUCKETS: usize = 2048;
const SUB_BUCKET_HALF: usize = SUB_BUCKETS / 2;
/// Powers of two to reach 60 s: 2048 µs doubled until it exceeds [`HIGHEST_US`], which takes 15 more.
const BUCKETS: usize = 16;
/// Buckets of the layout; those behind the one of [`HIGHEST_US`] exist in an encoding only.
const BUCKET_COUNT: usize = (BUCKETS + 1) * SUB_BUCKET_HALF;
/// The bucket of [`HIGHEST_US`].
const TOP: usize = index_of(HIGHEST_US);
const COUNTS: usize = TOP + 1;
/// An empty histogram's `lowest`: any bucket is below it.
const NO_LOWEST: usize = COUNTS;

/// The bucket of a value (HdrHistogram's layout, unit magnitude 0): 2048 of width 1, then 1024 for every further power of
/// two, each range with buckets twice as wide as the one before.
#[inline]
const fn index_of(value_us: u64) -> usize {
    const LEADING_ZEROS: u32 = (SUB_BUCKETS as u64 - 1).leading_zeros();
    let doublings = LEADING_ZEROS - (value_us | (SUB_BUCKETS as u64 - 1)).leading_zeros();
    doublings as usize * SUB_BUCKET_HALF + (value_us >> doublings) as usize
}

fn doublings_of(index: usize) -> usize {
    (index / SUB_BUCKET_HALF).saturating_sub(1)
}

/// The lowest value of a bucket.
fn start_of(index: usize) -> u64 {
    let doublings = doublings_of(index);
    ((index - doublings * SUB_BUCKET_HALF) as u64) << doublings
}

/// The value half a width above the lowest one.
fn middle_of(index: usize) -> u64 {
    start_of(index) + (1 << doublings_of(index) >> 1)
}

/// The highest value of a bucket.
fn end_of(index: usize) -> u64 {
    start_of(index) + (1 << doublings_of(index)) - 1
}

#[cfg(test)]
mod tests;
