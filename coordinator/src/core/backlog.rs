//! Whether the service's backlog grew: robust statistics over the reads of each watched durable.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A durable consumer; its name says little without its stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DurableName {
    /// The stream it reads.
    pub stream: String,
    /// Its own name.
    pub durable: String,
}

impl fmt::Display for DurableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.durable)
    }
}

/// What a durable still has to do, in messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Not delivered yet (`num_pending`).
    pub pending: u64,
    /// Delivered and not acknowledged (`num_ack_pending`).
    pub ack_pending: u64,
    /// All that it was ever given: delivered, every delivery counted, and pending. 0 where the server did not say.
    #[serde(default)]
    pub given: u64,
}

impl Backlog {
    /// Both: an ack-pending cap would hide its own size otherwise.
    pub fn total(self) -> u64 {
        self.pending.saturating_add(self.ack_pending)
    }
}

/// One answer to a read of a durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DurableState {
    /// It is there.
    Present {
        /// What it still has to do.
        backlog: Backlog,
        /// When it was created, in the server's words; compared, never parsed.
        created: String,
    },
    /// The server knows no such durable.
    Gone,
}

/// A read that was answered in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogRead {
    /// The instant of the answer, since the start of the hold.
    #[serde(rename = "at_ns", with = "crate::core::encoding::nanos")]
    pub at: Duration,
    /// What it said.
    pub state: DurableState,
}

/// An answer that is later than this after its question is no read: it says nothing of the instant it was asked for.
pub const READ_DEADLINE: Duration = Duration::from_millis(500);

/// How often a durable is read: half a second, and more often where a short hold would give too few reads.
pub fn read_interval(hold: Duration) -> Duration {
    (hold / 30).min(Duration::from_millis(500))
}

/// The reads of one durable over a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurableReads {
    /// Which durable.
    pub name: DurableName,
    /// The last read before the warmup's load: what it was like at rest; `None` where none was answered.
    pub baseline: Option<DurableState>,
    /// In the order of their instants, from the start of the hold on.
    pub reads: Vec<BacklogRead>,
}

/// What a hold's reads say of one durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurableBacklog {
    /// Which durable.
    pub name: DurableName,
    /// Whether it outlived the hold.
    pub fate: Fate,
    /// Over the hold; `None` when unreadable.
    pub growth: Option<Growth>,
    /// Reads in the first and in the last sixth of the hold, at least 3 of which each must have.
    pub reads_at_ends: (usize, usize),
    /// What it was before the warmup's load; `None` where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<u64>,
    /// The median of the first sixth, or the first read.
    pub first: Option<Backlog>,
    /// The median of the last sixth, or the last read.
    pub last: Option<Backlog>,
}

/// What became of a durable by the end of the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is the one that was there before.
    Kept,
    /// It is not there.
    Gone,
    /// Another one stands under its name.
    Recreated,
    /// Nothing was read.
    Unknown,
}

/// How a backlog moved over the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// 6/5 × (median of the last sixth − median of the first), rounded up.
    pub messages: i64,
    /// Whether the medians of the hold's thirds rise from each to the next.
    pub rising: bool,
}

impl Growth {
    /// Below this a rise says nothing: a healthy consumer's reads scatter by as much.
    const NOISE: i64 = 50;

    /// Whether a growth that is within its limit may be the start of one that is not: more than noise and than 1 % of
    /// the operations due, and rising from third to third.
    pub fn keeps_rising(self, due: u64) -> bool {
        let above_a_hundredth = i128::from(self.messages) * 100 > i128::from(due);
        self.rising && above_a_hundredth && self.messages > Self::NOISE
    }
}

/// What the reads of a durable say of the hold.
pub fn measure(reads: &DurableReads, hold: Duration) -> DurableBacklog {
    let part = |from: u32, to: u32, parts: u32| in_window(&reads.reads, hold * from / parts, hold * to / parts);
    let (first, last) = (part(0, 1, 6), part(5, 6, 6));
    let readable = first.len() >= READS_AT_EACH_END && last.len() >= READS_AT_EACH_END;
    let growth = || {
        let risen = doubled_median(&last)? - doubled_median(&first)?;
        let thirds: Vec<i128> = (0..3).filter_map(|i| doubled_median(&part(i, i + 1, 3))).collect();
        // 6/5 because the medians stand for the middles of their sixths, five sixths of the hold apart.
        let messages = i64::try_from((3 * risen).div_euclid(5) + i128::from((3 * risen).rem_euclid(5) > 0)).ok()?;
        Some(Growth { messages, rising: thirds.windows(2).all(|pair| pair[0] < pair[1]) })
    };
    let all = in_window(&reads.reads, Duration::ZERO, hold);
    DurableBacklog {
        name: reads.name.clone(),
        fate: fate(reads, hold),
        growth: if readable { growth() } else { None },
        reads_at_ends: (first.len(), last.len()),
        rest: reads.baseline.as_ref().and_then(DurableState::backlog).map(Backlog::total),
        first: median(&first).or(all.first().copied()),
        last: median(&last).or(all.last().copied()),
    }
}

/// Fewer reads than this have no median that a single hiccup could not move.
const READS_AT_EACH_END: usize = 3;

fn in_window(reads: &[BacklogRead], from: Duration, to: Duration) -> Vec<Backlog> {
    let in_time = reads.iter().filter(|read| (from..=to).contains(&read.at));
    in_time.filter_map(|read| read.state.backlog()).collect()
}

/// Twice the median, so that the middle of an even number of reads is exact; `None` of nothing.
fn doubled_median(reads: &[Backlog]) -> Option<i128> {
    let mut totals: Vec<i128> = reads.iter().map(|read| i128::from(read.total())).collect();
    totals.sort_unstable();
    let upper = *totals.get(totals.len() / 2)?;
    Some(upper + totals[(totals.len() - 1) / 2])
}

/// The read in the middle, to show; the lower of two.
fn median(reads: &[Backlog]) -> Option<Backlog> {
    let mut sorted = reads.to_vec();
    sorted.sort_unstable_by_key(|read| read.total());
    sorted.get(reads.len().checked_sub(1)? / 2).copied()
}

fn fate(reads: &DurableReads, hold: Duration) -> Fate {
    let by_hold_end = reads.reads.iter().filter(|read| read.at <= hold + READ_DEADLINE).map(|read| &read.state);
    let states: Vec<&DurableState> = reads.baseline.iter().chain(by_hold_end).collect();
    let mut stamps = states.iter().filter_map(|state| match state {
        DurableState::Present { created, .. } => Some(created),
        DurableState::Gone => None,
    });
    match states.last() {
        None => Fate::Unknown,
        Some(DurableState::Gone) => Fate::Gone,
        Some(DurableState::Present { created, .. }) if stamps.any(|stamp| stamp != created) => Fate::Recreated,
        Some(DurableState::Present { .. }) => Fate::Kept,
    }
}

impl DurableState {
    /// What it still has to do; `None` when it is gone.
    pub fn backlog(&self) -> Option<Backlog> {
        match self {
            Self::Present { backlog, .. } => Some(*backlog),
            Self::Gone => None,
        }
    }
}

/// Whether a backlog of which nobody knows what it is at rest has come to rest: it is next to nothing, or its reads, the newest
/// last, have not fallen by more than a tenth of the growth limit. What an earlier run left behind goes on falling until it is done.
pub fn settled(growth_limit: u64, reads: &[u64]) -> bool {
    let slack = growth_limit / 10;
    match reads {
        [] => false,
        [first, .., last] if reads.len() >= SETTLED_READS => *last <= slack || first.saturating_sub(*last) <= slack,
        [.., last] => *last <= slack,
    }
}

/// Reads that [`settled`] compares the first and the last of.
pub const SETTLED_READS: usize = 6;

/// Whether a backlog is back: the newest two reads, in messages, are at most the baseline and a tenth of the growth limit.
pub fn recovered(baseline: u64, growth_limit: u64, newest_two: [u64; 2]) -> bool {
    newest_two.iter().all(|&read| read <= baseline.saturating_add(growth_limit / 10))
}

/// The smallest excess over a durable's capacity, in messages per second, that a hold can show as a growth beyond the
/// limit.
pub fn smallest_excess(growth_limit: u64, hold: Duration) -> f64 {
    growth_limit as f64 / hold.as_secs_f64()
}

/// What a stream took over a trial beside what we sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamLoad {
    /// The stream.
    pub stream: String,
    /// Messages it took over the trial.
    pub grew: u64,
    /// Operations that we attempted in that time, warmup included.
    pub sent: u64,
}

impl StreamLoad {
    /// A stream's growth in the time of so many operations.
    pub fn new(growth: &StreamGrowth, sent: u64) -> Self {
        Self { stream: growth.stream.clone(), grew: growth.messages, sent }
    }

    /// Whether it is more than a hundredth above the messages that ours are at most.
    pub fn is_foreign(&self, most: u64) -> bool {
        u128::from(self.grew) * 100 > u128::from(most) * 101
    }
}

/// A stream's growth over the trial, as the coordinator read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamGrowth {
    /// The stream.
    pub stream: String,
    /// Messages it took from before the warmup to after the drain (last sequence − last sequence).
    pub messages: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOLD: Duration = Duration::from_secs(30);

    fn present(total: u64) -> DurableState {
        DurableState::Present {
            backlog: Backlog { pending: total / 2, ack_pending: total - total / 2, given: 0 },
            created: "a".into(),
        }
    }

    fn reads(baseline: Option<DurableState>, states: Vec<(u64, DurableState)>) -> DurableReads {
        let name = DurableName { stream: "MESSAGES".into(), durable: "message-worker".into() };
        let reads =
            states.into_iter().map(|(ms, state)| BacklogRead { at: Duration::from_millis(ms), state }).collect();
        DurableReads { name, baseline, reads }
    }

    /// A read each half second of a 30 s hold.
    fn hold_of(backlog: impl Fn(u64) -> u64) -> DurableBacklog {
        measure(&reads(None, (0..=60).map(|i| (i * 500, present(backlog(i * 500)))).collect()), HOLD)
    }

    fn growth_of(backlog: impl Fn(u64) -> u64) -> Growth {
        hold_of(backlog).growth.unwrap()
    }

    #[test]
    fn growth_is_six_fifths_of_the_difference_of_the_ends_medians() {
        for (what, growth, expected) in [
            ("steady", growth_of(|_| 70), 0),
            ("100 messages/s over 30 s", growth_of(|ms| ms / 10), 3000),
            ("drained to zero", growth_of(|ms| 3000 - ms / 10), -3000),
            ("a jump of 1 in the middle is rounded up", growth_of(|ms| ms / 15_000), 2),
            ("a fall of 1 is rounded up", growth_of(|ms| 5 - ms / 15_000), -1),
        ] {
            assert_eq!(growth.messages, expected, "{what}");
        }
    }

    #[test]
    fn a_hiccup_of_a_healthy_consumer_is_no_growth() {
        assert_eq!(growth_of(|ms| if ms == 30_000 || ms == 29_500 { 1600 } else { 3 }).messages, 0);
    }

    #[test]
    fn ack_pending_counts_as_backlog() {
        let capped = |ms: u64| DurableState::Present {
            backlog: Backlog { pending: 0, ack_pending: ms / 30, given: 0 },
            created: "a".into(),
        };
        let backlog = measure(&reads(None, (0..=60).map(|i| (i * 500, capped(i * 500))).collect()), HOLD);
        assert_eq!(backlog.growth.map(|growth| growth.messages), Some(1000));
        assert!(backlog.last.is_some_and(|last| last.pending == 0 && last.ack_pending > 900));
    }

    #[test]
    fn fewer_than_three_reads_in_either_sixth_is_unreadable() {
        let sparse = |first: u64, last: u64| {
            let first = (0..first).map(|i| (i * 100, present(0)));
            let last = (0..last).map(|i| (30_000 - i * 100, present(0)));
            measure(&reads(None, first.chain(last).collect()), HOLD)
        };
        for (first, last, readable) in [(3, 3, true), (2, 3, false), (3, 2, false), (0, 0, false), (10, 0, false)] {
            let backlog = sparse(first, last);
            assert_eq!(backlog.growth.is_some(), readable, "{first} and {last}");
            assert_eq!(backlog.reads_at_ends, (first as usize, last as usize));
        }
    }

    #[test]
    fn every_hold_gets_enough_reads_at_its_ends() {
        for (hold, interval_ms) in [(5, 166), (10, 333), (15, 500), (600, 500)] {
            assert_eq!(read_interval(Duration::from_secs(hold)).as_millis(), interval_ms);
        }
    }

    #[test]
    fn a_durable_is_gone_or_recreated_by_hold_end() {
        let anew = || DurableState::Present { backlog: Backlog::default(), created: "b".into() };
        for (baseline, states, fate) in [
            (Some(present(0)), vec![(0, present(0)), (30_000, present(0))], Fate::Kept),
            (Some(present(9)), vec![(0, present(9)), (30_000, present(0))], Fate::Kept),
            (Some(present(0)), vec![(0, present(0)), (29_000, DurableState::Gone)], Fate::Gone),
            (Some(present(0)), vec![(0, present(0)), (9_000, DurableState::Gone), (30_000, anew())], Fate::Recreated),
            (Some(present(0)), vec![(0, anew()), (30_000, anew())], Fate::Recreated),
            (None, vec![(0, present(0)), (30_400, anew())], Fate::Recreated),
            // After the hold it is somebody else's business.
            (None, vec![(0, present(0)), (31_000, DurableState::Gone)], Fate::Kept),
            (None, vec![], Fate::Unknown),
        ] {
            assert_eq!(measure(&reads(baseline, states.clone()), HOLD).fate, fate, "{states:?}");
        }
    }

    #[test]
    fn only_a_rise_beyond_noise_and_a_hundredth_of_the_load_keeps_rising() {
        for (what, growth, due, rising) in [
            ("steady", growth_of(|_| 70), 10_000, false),
            ("20/s", growth_of(|ms| ms / 50), 30_000, true),
            ("20/s, within 1 % of due", growth_of(|ms| ms / 50), 60_000, false),
            ("20/s, just above 1 % of due", growth_of(|ms| ms / 50), 59_999, true),
            ("50, which is noise", Growth { messages: 50, rising: true }, 100, false),
            ("51", Growth { messages: 51, rising: true }, 100, true),
            ("up, down, and up at the end", growth_of(|ms| if ms < 25_000 { 100 - ms / 500 } else { 900 }), 0, false),
        ] {
            assert_eq!(growth.keeps_rising(due), rising, "{what}: {growth:?}");
        }
    }

    #[test]
    fn recovery_needs_both_of_the_newest_two_reads() {
        for (newest, back) in [([100, 200], true), ([201, 200], false), ([0, 201], false), ([0, 0], true)] {
            assert_eq!(recovered(100, 1000, newest), back, "{newest:?}");
        }
    }

    #[test]
    fn the_smallest_excess_that_a_hold_can_show() {
        assert!((smallest_excess(1000, HOLD) - 33.333).abs() < 0.001);
    }

    #[test]
    fn a_stream_that_grows_by_a_hundredth_more_than_we_sent_has_another_driver() {
        for (messages, sent, foreign) in
            [(10_100, 10_000, false), (10_101, 10_000, true), (500, 10_000, false), (1, 0, true), (0, 0, false)]
        {
            let growth = StreamGrowth { stream: "MESSAGES".into(), messages };
            assert_eq!(StreamLoad::new(&growth, sent).is_foreign(sent), foreign, "{messages} for {sent}");
        }
    }

    proptest! {
        #[test]
        fn the_rounded_growth_is_above_an_integer_limit_exactly_when_the_growth_is(
            before in 0_u64..10_000, after in 0_u64..10_000, limit in 0_i64..20_000,
        ) {
            let growth = growth_of(|ms| if ms < 15_000 { before } else { after });
            let exact = 6 * (after as i64 - before as i64);
            prop_assert_eq!(growth.messages > limit, exact > 5 * limit);
        }

        #[test]
        fn any_reads_give_a_measurement(
            states in prop::collection::vec((0_u64..40_000, prop::option::of(any::<u64>())), 0..50),
        ) {
            let states = states.into_iter().map(|(ms, total)| (ms, total.map_or(DurableState::Gone, present))).collect();
            let _ = measure(&reads(None, states), HOLD);
        }
    }
}
