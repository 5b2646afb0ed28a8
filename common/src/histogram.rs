//! Latency histograms with the one set of bounds that the protocol knows: HdrHistogram's buckets in memory of our own, so
//! that recording is a few instructions and everything else walks only the buckets in use.

mod v2;

use std::borrow::Cow;
use std::fmt;

use v2::{Payload, V2_COOKIE};

/// Smallest value told apart, in microseconds.
pub const LOWEST_US: u64 = 1;
/// Largest value, in microseconds: 60 s. What lies above is recorded as this and counted as clipped.
pub const HIGHEST_US: u64 = 60_000_000;
/// Significant decimal digits.
pub const DIGITS: u8 = 3;

/// A histogram of integer microseconds, 1 µs to 60 s at 3 significant digits.
///
/// One that came over the wire stays as small as it came until something is recorded in it or added to it: a coordinator
/// holds thousands for a moment, and at 134 KiB each it would spend most of its time on getting zeroed pages.
#[derive(Clone)]
pub struct LatencyHistogram {
    buckets: Buckets,
    // The sum of the counts; both saturate.
    total: u64,
    clipped: u64,
}

#[derive(Clone)]
enum Buckets {
    Counted(Counted),
    Received(Payload<Vec<u8>>),
}

impl LatencyHistogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self { buckets: Buckets::Counted(Counted::new()), total: 0, clipped: 0 }
    }

    /// Takes a V2 encoding, which is checked; empty bytes are an empty histogram.
    ///
    /// # Errors
    /// Other bounds, a wrong cookie or length, a bucket beyond the bounds, or counts that overflow.
    pub fn from_v2(bytes: Vec<u8>) -> Result<Self, HistogramError> {
        let payload = Payload::check(bytes)?;
        Ok(Self { total: payload.total(), buckets: Buckets::Received(payload), clipped: 0 })
    }

    /// Records one value in microseconds; zero counts as 1 µs, and what lies above 60 s is clipped and counted.
    #[inline]
    pub fn record(&mut self, value_us: u64) {
        self.clipped += u64::from(value_us > HIGHEST_US);
        self.total = self.total.saturating_add(1);
        self.counted_mut().record(index_of(value_us.clamp(LOWEST_US, HIGHEST_US)));
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
        let counted = self.counted();
        // A rank beyond the last sample comes from rounding a total of more than 2^53.
        let (index, _) = counted.filled().find(at_rank).or_else(|| counted.filled().next_back())?;
        Some(if quantile == 0.0 { start_of(index) } else { end_of(index) }.min(HIGHEST_US))
    }

    /// The end of the largest value's bucket in microseconds, at most 60 s; `None` when empty.
    pub fn max_us(&self) -> Option<u64> {
        self.counted().filled().next_back().map(|(index, _)| end_of(index).min(HIGHEST_US))
    }

    /// The mean in microseconds, each value taken as the middle of its bucket, at most 60 s; `None` when empty.
    pub fn mean_us(&self) -> Option<f64> {
        let part = |(index, count)| middle_of(index) as f64 * count as f64 / self.total as f64;
        (!self.is_empty()).then(|| self.counted().filled().map(part).sum::<f64>().min(HIGHEST_US as f64))
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        match &mut self.buckets {
            Buckets::Counted(counted) => counted.clear(),
            received @ Buckets::Received(_) => *received = Buckets::Counted(Counted::new()),
        }
        (self.total, self.clipped) = (0, 0);
    }

    /// Adds the counts of another histogram.
    pub fn add(&mut self, other: &Self) {
        let total = self.total.checked_add(other.total);
        match &other.buckets {
            // No count exceeds its total: where the totals do not overflow, no count does.
            Buckets::Counted(counts) if total.is_some() => self.counted_mut().add(counts, u64::wrapping_add),
            Buckets::Counted(counts) => self.counted_mut().add(counts, u64::saturating_add),
            Buckets::Received(payload) => self.counted_mut().add_payload(payload),
        }
        self.total = total.unwrap_or(u64::MAX);
        self.clipped += other.clipped;
    }

    /// Samples in the buckets up to and including the one that `value_us` lies in.
    pub fn count_up_to_us(&self, value_us: u64) -> u64 {
        let last = index_of(value_us.clamp(LOWEST_US, HIGHEST_US));
        let up_to = |&(index, _): &(usize, u64)| index <= last;
        self.counted().filled().take_while(up_to).fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// The end of each bucket that is not empty, in microseconds and at most 60 s, with its count, ascending.
    pub fn filled_us(&self) -> Vec<(u64, u64)> {
        self.counted().filled().map(|(index, count)| (end_of(index).min(HIGHEST_US), count)).collect()
    }

    /// The same in as little memory as it takes, until something is added again.
    #[must_use]
    pub fn packed(&self) -> Self {
        let packed = Self::from_v2(self.to_v2()).expect("our own encoding is one of ours");
        Self { clipped: self.clipped, ..packed }
    }

    /// The V2 encoding without `clipped`; empty bytes when nothing was recorded.
    pub fn to_v2(&self) -> Vec<u8> {
        let counted = self.counted();
        if counted.is_empty() { Vec::new() } else { v2::encode(counted.lowest, counted.touched()) }
    }

    /// Adds the counts of a V2 encoding, which is checked as it is read; empty bytes add nothing. Returns how many
    /// samples were added.
    ///
    /// # Errors
    /// Other bounds, a wrong cookie or length, a bucket beyond the bounds, or counts that overflow: nothing was added.
    pub fn add_v2(&mut self, bytes: &[u8]) -> Result<u64, HistogramError> {
        let payload = Payload::check(bytes)?;
        self.total = self.total.checked_add(payload.total()).ok_or(HistogramError::Overflow)?;
        self.counted_mut().add_payload(&payload);
        Ok(payload.total())
    }

    fn counted(&self) -> Cow<'_, Counted> {
        match &self.buckets {
            Buckets::Counted(counted) => Cow::Borrowed(counted),
            Buckets::Received(payload) => Cow::Owned(Counted::of(payload)),
        }
    }

    #[inline]
    fn counted_mut(&mut self) -> &mut Counted {
        if let Buckets::Received(payload) = &self.buckets {
            self.buckets = Buckets::Counted(Counted::of(payload));
        }
        match &mut self.buckets {
            Buckets::Counted(counted) => counted,
            Buckets::Received(_) => unreachable!("replaced above"),
        }
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for LatencyHistogram {
    fn eq(&self, other: &Self) -> bool {
        (self.total, self.clipped) == (other.total, other.clipped)
            && self.counted().filled().eq(other.counted().filled())
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

type Counts = [u64; COUNTS];

/// A count per bucket. `lowest..=highest` is exactly the range from the first to the last bucket that is not empty;
/// without any, `lowest` is above `highest`.
struct Counted {
    // Zeroed by the allocator: pages that no sample touched are not resident.
    counts: Box<Counts>,
    lowest: usize,
    highest: usize,
}

impl Counted {
    fn new() -> Self {
        let counts = vec![0_u64; COUNTS].into_boxed_slice().try_into().expect("as long as its type says");
        Self { counts, lowest: COUNTS, highest: 0 }
    }

    #[cold]
    fn of(payload: &Payload<Vec<u8>>) -> Self {
        let mut counted = Self::new();
        counted.add_payload(payload);
        counted
    }

    #[inline]
    fn record(&mut self, index: usize) {
        self.counts[index] = self.counts[index].saturating_add(1);
        self.widen(index, index);
    }

    fn is_empty(&self) -> bool {
        self.lowest > self.highest
    }

    /// The counts from the first to the last bucket that is not empty.
    fn touched(&self) -> &[u64] {
        if self.is_empty() { &[] } else { &self.counts[self.lowest..=self.highest] }
    }

    /// Index and count of the buckets that are not empty, in ascending order.
    fn filled(&self) -> impl DoubleEndedIterator<Item = (usize, u64)> {
        let counts = self.touched().iter().enumerate();
        counts.map(|(offset, &count)| (self.lowest + offset, count)).filter(|&(_, count)| count > 0)
    }

    fn add(&mut self, other: &Self, sum: impl Fn(u64, u64) -> u64) {
        let counts = self.counts.iter_mut().skip(other.lowest);
        counts.zip(other.touched()).for_each(|(to, &from)| *to = sum(*to, from));
        self.widen(other.lowest, other.highest);
    }

    fn add_payload(&mut self, payload: &Payload<impl AsRef<[u8]>>) {
        if let Some((lowest, highest)) = payload.add_to(&mut self.counts) {
            self.widen(lowest, highest);
        }
    }

    #[inline]
    fn widen(&mut self, lowest: usize, highest: usize) {
        self.lowest = self.lowest.min(lowest);
        self.highest = self.highest.max(highest);
    }

    fn clear(&mut self) {
        if !self.is_empty() {
            self.counts[self.lowest..=self.highest].fill(0);
        }
        (self.lowest, self.highest) = (COUNTS, 0);
    }
}

/// By hand, so that a copy touches no more pages than its original.
impl Clone for Counted {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.add(self, u64::wrapping_add);
        copy
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
