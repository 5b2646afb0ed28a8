//! The HdrHistogram V2 encoding: cookie, payload length, normalizing offset, digits, lowest, highest, ratio (all
//! big-endian, 40 bytes), then one zigzag LEB128 number per bucket up to the last that is not empty, negative for a run of
//! empty ones. Reading checks everything before it believes anything.

use super::{BUCKET_COUNT, Counts, DIGITS, HIGHEST_US, HistogramError, LOWEST_US, TOP};

const HEADER: usize = 40;
pub(super) const V2_COOKIE: u32 = 0x1c84_9303 | 0x10;

/// Encodes counts that begin and end with a bucket that is not empty, the first being at index `lowest`.
pub(super) fn encode(lowest: usize, counts: &[u64]) -> Vec<u8> {
    // Most numbers are one byte, so this is seldom too little.
    let mut bytes = Vec::with_capacity(HEADER + 2 + counts.len());
    bytes.extend_from_slice(&V2_COOKIE.to_be_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&u32::from(DIGITS).to_be_bytes());
    bytes.extend_from_slice(&LOWEST_US.to_be_bytes());
    bytes.extend_from_slice(&HIGHEST_US.to_be_bytes());
    bytes.extend_from_slice(&1.0_f64.to_be_bytes());
    let mut empty = lowest as u64;
    for &count in counts {
        if count == 0 {
            empty += 1;
            continue;
        }
        match empty {
            0 => {}
            // A single empty bucket is written as its count, a run of them as its negative length.
            1 => bytes.push(0),
            run => push_number(&mut bytes, 2 * run - 1),
        }
        empty = 0;
        push_number(&mut bytes, 2 * count.min(i64::MAX as u64));
    }
    let length = (bytes.len() - HEADER) as u32;
    bytes[4..8].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// LEB128 of at most 9 bytes, the ninth whole.
fn push_number(bytes: &mut Vec<u8>, mut zigzag: u64) {
    for _ in 0..8 {
        if zigzag < 0x80 {
            break;
        }
        bytes.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
}

/// An encoding that was read once and found whole: no number broken, no bucket beyond the layout, no overflow.
#[derive(Clone)]
pub(super) struct Payload<B> {
    bytes: B,
    total: u64,
}

impl<B: AsRef<[u8]>> Payload<B> {
    /// Reads all of an encoding, adding nothing; no bytes are one without samples.
    pub(super) fn check(bytes: B) -> Result<Self, HistogramError> {
        let total = if bytes.as_ref().is_empty() { 0 } else { check_numbers(check_header(bytes.as_ref())?)? };
        Ok(Self { bytes, total })
    }

    /// The sum of the counts.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Adds the counts, those of buckets behind the one of 60 s to that one; returns the lowest and the highest index
    /// that got any.
    pub(super) fn add_to(&self, counts: &mut Counts) -> Option<(usize, usize)> {
        let bytes = self.bytes.as_ref().get(HEADER..)?;
        let (mut at, mut index) = (0, 0);
        let (mut lowest, mut highest) = (usize::MAX, 0);
        while at < bytes.len() {
            let (zigzag, read) = number(&bytes[at..]).expect("checked before");
            let (buckets, count) = meaning(zigzag);
            // Runs of empty buckets and counts come in no predictable order: adding zero is cheaper than to branch.
            let bucket = index.min(TOP);
            counts[bucket] = counts[bucket].saturating_add(count);
            lowest = lowest.min(if count == 0 { usize::MAX } else { bucket });
            highest = if count == 0 { highest } else { bucket };
            (at, index) = (at + read, index + buckets as usize);
        }
        (self.total > 0).then_some((lowest, highest))
    }
}

/// The sum of a payload's counts.
fn check_numbers(bytes: &[u8]) -> Result<u64, HistogramError> {
    let (mut at, mut index, mut total) = (0, 0, 0_u64);
    while at < bytes.len() {
        if let Some((buckets, samples)) = eight_short_numbers(&bytes[at..])
            && index + buckets <= BUCKET_COUNT as u64
        {
            total = total.checked_add(samples).ok_or(HistogramError::Overflow)?;
            (at, index) = (at + 8, index + buckets);
            continue;
        }
        let (zigzag, read) = number(&bytes[at..]).ok_or(HistogramError::Payload { at })?;
        let (buckets, count) = meaning(zigzag);
        index += buckets;
        if index > BUCKET_COUNT as u64 {
            return Err(HistogramError::Payload { at });
        }
        total = total.checked_add(count).ok_or(HistogramError::Overflow)?;
        at += read;
    }
    Ok(total)
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

/// What a number says: how many buckets it covers, and the count of the first of them. Zigzag puts the sign into the
/// lowest bit: odd is a run of empty buckets, even the count of one.
#[inline]
fn meaning(zigzag: u64) -> (u64, u64) {
    let if_run = (zigzag & 1).wrapping_neg();
    let half = zigzag >> 1;
    (1 + (half & if_run), half & !if_run)
}

/// The next 8 numbers together, where they are of one byte each, as most are: buckets covered and the sum of the counts.
#[inline]
fn eight_short_numbers(bytes: &[u8]) -> Option<(u64, u64)> {
    let (eight, _) = bytes.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*eight) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let meanings = eight.iter().map(|&byte| meaning(u64::from(byte)));
    Some(meanings.fold((0, 0), |(buckets, samples), (run, count)| (buckets + run, samples + count)))
}

/// One LEB128 number of at most 9 bytes, the ninth whole. Returns it and its length.
#[inline]
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let &first = bytes.first()?;
    if first < 0x80 { Some((u64::from(first), 1)) } else { long_number(bytes) }
}

fn long_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (position, &byte) in bytes.iter().take(9).enumerate() {
        let shift = 7 * position as u32;
        if position == 8 {
            return Some((value | u64::from(byte) << shift, 9));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, position + 1));
        }
    }
    None
}
