//! Counting what became of operations: exact counters per block of intended time, histograms of what ended, and the
//! second look at what lies above a limit once the box's stalls are known.

mod block;
mod second_look;
mod stalls;

use std::collections::VecDeque;
use std::sync::Arc;

use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::{BLOCK, SeriesLimits};
use plimsoll_common::snapshot::{BlockDelta, Counters, Observed, SeriesCounts, SeriesHistograms, Stall, Strays};

pub use self::block::{WorkerBlock, WorkerTotals};
use self::block::{empty_histograms, take_observed};
use self::second_look::Suspect;
use self::stalls::{SPARE_STALLS, nanoseconds};
use super::exchange::Stalls;
use super::ledger::Window;

/// A block in nanoseconds.
pub const BLOCK_NS: u64 = BLOCK.as_nanos() as u64;

/// How an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Given up: no reply.
    Timeout,
    /// Given up: a reply, but not all that it announced.
    Lost,
    /// It was not handed over: the connection that it was to go out on has not been there since this instant (that of the
    /// attempt, or of what was intended, where none broke).
    Publish {
        /// On the clock of all times here.
        since_ns: u64,
    },
    /// The service said no.
    Refused,
    /// The reply could not be read.
    BadReply,
    /// Nobody listens where the request was sent.
    NoResponders,
}

#[derive(Debug)]
pub struct Recorder {
    window: Window,
    limits_ns: Vec<Vec<u64>>,
    /// Nothing counted yet, per series.
    zero: Vec<SeriesCounts>,
    largest_limit_ns: u64,
    longest_ns: u64,
    /// Blocks of the hold, the last of which may be short.
    block_count: u32,
    /// What changed since the last close, from block `first_block` on; what did not is `None`. As long as the hold's
    /// operations that can still change, however long the hold is.
    blocks: VecDeque<Option<Box<BlockDelta>>>,
    first_block: u32,
    warmup: Counters,
    series: Vec<SeriesHistograms>,
    overdue: Vec<Vec<i64>>,
    /// Public to the ledger, which alone knows whose a message is.
    pub strays: Strays,
    lateness: LatencyHistogram,
    /// Largest lateness per wall block from the next to be closed on, in nanoseconds.
    lateness_ns: VecDeque<u64>,
    /// Stalls of the newest closed wall blocks, in nanoseconds: of more than any operation spans.
    stalls_ns: VecDeque<u64>,
    most_stalls: usize,
    /// Wall blocks closed.
    closed: u32,
    /// What holds up any worker that hears answers for this one, where there are such.
    shared: Option<Arc<Stalls>>,
    /// Whether what ended is looked at again only once the block after it is closed.
    judges_late: bool,
    suspects: Vec<Suspect>,
    in_flight_max: u64,
    in_flight_sum: u64,
    in_flight_samples: u64,
    open_time_us: u64,
    observed: Vec<Observed>,
    totals: WorkerTotals,
}

impl Recorder {
    /// An empty record of a trial.
    ///
    /// `longest_ns`: how long an operation stays open at most.
    pub fn new(series: &[SeriesLimits], observations: &[String], window: Window, longest_ns: u64) -> Self {
        let observed: Vec<Observed> = observations.iter().map(Observed::new).collect();
        let limits_ns: Vec<Vec<u64>> =
            series.iter().map(|series| series.limits_us.iter().map(|us| us * 1000).collect()).collect();
        let zero: Vec<SeriesCounts> = limits_ns.iter().map(|limits| SeriesCounts::zero(limits.len())).collect();
        Self {
            window,
            largest_limit_ns: limits_ns.iter().flatten().max().copied().unwrap_or(0),
            longest_ns,
            block_count: (window.hold_end_ns - window.hold_start_ns).div_ceil(BLOCK_NS) as u32,
            blocks: VecDeque::new(),
            first_block: 0,
            warmup: Counters::default(),
            series: empty_histograms(limits_ns.len()),
            overdue: limits_ns.iter().map(|limits| vec![0; limits.len()]).collect(),
            strays: Strays::default(),
            lateness: LatencyHistogram::new(),
            lateness_ns: VecDeque::new(),
            stalls_ns: VecDeque::new(),
            most_stalls: longest_ns.div_ceil(BLOCK_NS) as usize + SPARE_STALLS,
            closed: 0,
            shared: None,
            judges_late: false,
            suspects: Vec::new(),
            in_flight_max: 0,
            in_flight_sum: 0,
            in_flight_samples: 0,
            open_time_us: 0,
            totals: WorkerTotals {
                series: zero.clone(),
                samples: vec![0; limits_ns.len()],
                observed: observed.clone(),
                ..WorkerTotals::default()
            },
            observed,
            limits_ns,
            zero,
        }
    }

    /// The counters that an operation of this intended time belongs to: its block's, or the warmup's.
    #[inline]
    pub fn counters(&mut self, intended_ns: u64) -> &mut Counters {
        match self.block_of(intended_ns) {
            Some(block) => &mut self.touch(block).counters,
            None => &mut self.warmup,
        }
    }

    #[inline]
    fn block_of(&self, intended_ns: u64) -> Option<u32> {
        let since = intended_ns.checked_sub(self.window.hold_start_ns)?;
        Some(((since / BLOCK_NS) as u32).min(self.block_count - 1))
    }

    #[inline]
    fn touch(&mut self, block: u32) -> &mut BlockDelta {
        let index = block.wrapping_sub(self.first_block) as usize;
        if !matches!(self.blocks.get(index), Some(Some(_))) {
            self.open(block);
        }
        let index = (block - self.first_block) as usize;
        self.blocks[index].as_mut().expect("it was there, or has just been opened")
    }

    /// Makes room for a block that changes for the first time since the last close.
    #[cold]
    fn open(&mut self, block: u32) {
        if self.blocks.is_empty() {
            self.first_block = block;
        }
        while block < self.first_block {
            self.blocks.push_front(None);
            self.first_block -= 1;
        }
        let index = (block - self.first_block) as usize;
        if self.blocks.len() <= index {
            self.blocks.resize_with(index + 1, || None);
        }
        let series = self.zero.clone();
        self.blocks[index] = Some(Box::new(BlockDelta { block, counters: Counters::default(), series }));
    }

    #[inline]
    fn wall_of(&self, at_ns: u64) -> u32 {
        (at_ns.saturating_sub(self.window.start_ns) / BLOCK_NS) as u32
    }

    /// A release (or an underrun), with its lateness.
    #[inline]
    pub fn late_release(&mut self, now_ns: u64, lateness_ns: u64) {
        self.lateness.record(lateness_ns / 1000);
        self.held_up(now_ns, lateness_ns);
    }

    /// A series of an operation got what it was owed.
    #[inline]
    pub fn sample(&mut self, series: u32, intended_ns: u64, released_ns: u64, now_ns: u64) {
        let Some(block) = self.block_of(intended_ns) else { return };
        let latency_ns = now_ns.saturating_sub(intended_ns);
        let index = series as usize;
        let histograms = &mut self.series[index];
        histograms.latency.record(latency_ns / 1000);
        histograms.service_time.record(now_ns.saturating_sub(released_ns) / 1000);
        let counts = &mut self.touch(block).series[index];
        counts.n += 1;
        // The smallest limit decides whether a second look is needed.
        if self.limits_ns[index].first().is_some_and(|&limit| latency_ns > limit) {
            self.count_above(series, block, latency_ns, false);
            self.suspect(Some(series), (intended_ns, now_ns), latency_ns, None, false);
        }
    }

    fn count_above(&mut self, series: u32, block: u32, latency_ns: u64, given_up: bool) {
        let index = series as usize;
        let limits_ns = std::mem::take(&mut self.limits_ns[index]);
        let above = &mut self.touch(block).series[index].above;
        for (above, &limit) in above.iter_mut().zip(&limits_ns) {
            *above += u64::from(given_up || latency_ns > limit);
        }
        self.limits_ns[index] = limits_ns;
    }

    /// All that was owed came.
    #[inline]
    pub fn completed(&mut self, intended_ns: u64, released_ns: u64, now_ns: u64) {
        self.counters(intended_ns).completed += 1;
        self.ended(intended_ns, released_ns, now_ns);
    }

    #[inline]
    fn ended(&mut self, intended_ns: u64, released_ns: u64, now_ns: u64) {
        if intended_ns >= self.window.hold_start_ns {
            self.open_time_us += now_ns.saturating_sub(released_ns) / 1000;
        }
    }

    /// An operation failed while `owed` series had no sample. What was given up enters those series, above every limit; what
    /// was not even handed over was never answered, so it does as if it had been waited for, however soon it is known. What was
    /// refused has no latency; each series counts it, so that it is known which of them fails.
    pub fn failed(&mut self, ending: Ending, owed: u32, intended_ns: u64, released_ns: u64, now_ns: u64) {
        let counters = self.counters(intended_ns);
        match ending {
            Ending::Timeout => counters.failed.timeout += 1,
            Ending::Lost => counters.lost += 1,
            Ending::Publish { .. } => counters.failed.publish += 1,
            Ending::Refused => counters.failed.refused += 1,
            Ending::BadReply => counters.failed.bad_reply += 1,
            Ending::NoResponders => counters.failed.no_responders += 1,
        }
        self.ended(intended_ns, released_ns, now_ns);
        if matches!(ending, Ending::Refused | Ending::BadReply | Ending::NoResponders) {
            self.counters(intended_ns).failed_anyway += 1;
            self.refused(owed, intended_ns);
            return;
        }
        let Some(block) = self.block_of(intended_ns) else { return };
        let waited_ns = now_ns.saturating_sub(intended_ns);
        let (latency_ns, broke_ns) = match ending {
            Ending::Publish { since_ns } => (waited_ns.max(self.longest_ns), Some(since_ns)),
            _ => (waited_ns, None),
        };
        for series in self.series_of(owed) {
            let histograms = &mut self.series[series as usize];
            histograms.latency.record(latency_ns / 1000);
            histograms.service_time.record(now_ns.saturating_sub(released_ns) / 1000);
            let counts = &mut self.touch(block).series[series as usize];
            counts.n += 1;
            counts.given_up += 1;
            self.count_above(series, block, latency_ns, true);
            self.suspect(Some(series), (intended_ns, now_ns), latency_ns, broke_ns, true);
        }
        self.suspect(None, (intended_ns, now_ns), latency_ns, broke_ns, true);
    }

    /// What was owed to these series will not come, as the service says: nobody else is to blame.
    fn refused(&mut self, owed: u32, intended_ns: u64) {
        let Some(block) = self.block_of(intended_ns) else { return };
        for series in self.series_of(owed) {
            let counts = &mut self.touch(block).series[series as usize];
            counts.refused += 1;
            counts.failed_anyway += 1;
        }
    }

    /// The series of these bits.
    fn series_of(&self, bits: u32) -> impl Iterator<Item = u32> + use<> {
        (0..self.limits_ns.len() as u32).filter(move |series| bits & 1 << series != 0)
    }

    /// Operations that are open and have just passed (or no longer count as having passed) a limit.
    pub fn overdue(&mut self, series_bits: u32, age_ns: u64, change: i64) {
        for (index, limits) in self.limits_ns.iter().enumerate() {
            if series_bits & 1 << index != 0
                && let Some(at) = limits.iter().position(|&limit| limit == age_ns)
            {
                self.overdue[index][at] += change;
            }
        }
    }

    /// Something that an answer to an operation of the hold says beside its latency.
    #[inline]
    pub fn observe(&mut self, observation: u8, value: u64) {
        self.observed[usize::from(observation)].observe(value);
    }

    /// Samples how many operations are open.
    pub fn sample_in_flight(&mut self, now_ns: u64, open: u64) {
        self.in_flight_max = self.in_flight_max.max(open);
        if (self.window.hold_start_ns..self.window.hold_end_ns).contains(&now_ns) {
            self.in_flight_sum += open;
            self.in_flight_samples += 1;
        }
    }

    /// Closes wall block `number`: with its stall known, looks again at what ended in it above a limit (or in the block before
    /// it, see [`Self::share`]), and hands out everything recorded since the last close. The block's largest lateness counts as
    /// a stall too.
    pub fn close_block(&mut self, number: u32, stall: Stall) -> WorkerBlock {
        while self.closed < number {
            self.lateness_ns.pop_front();
            self.push_stall(0);
        }
        let lateness_us = self.lateness_ns.pop_front().unwrap_or(0).div_ceil(1000);
        let mut stall = stall.max(Stall::Bounded(lateness_us));
        let shared = self.shared.clone();
        if let Some(shared) = &shared {
            let begins_ns = self.begin_of(number);
            shared.held_up(begins_ns, stall);
            stall = stall.max(shared.of(begins_ns));
        }
        self.push_stall(nanoseconds(stall));
        let before = number.checked_sub(1);
        if let (Some(shared), Some(before)) = (&shared, before) {
            self.learn(shared, before);
        }
        if let Some(known) = if self.judges_late { before } else { Some(number) } {
            self.look_again(known);
        }
        let taken: Vec<BlockDelta> = self.blocks.drain(..).flatten().map(|delta| *delta).collect();
        let block = WorkerBlock {
            number,
            blocks: taken,
            series: std::mem::replace(&mut self.series, empty_histograms(self.limits_ns.len())),
            overdue: self.overdue.iter().map(|list| list.iter().map(|&n| n.max(0) as u64).collect()).collect(),
            strays: std::mem::take(&mut self.strays),
            warmup: std::mem::take(&mut self.warmup),
            lateness: std::mem::take(&mut self.lateness),
            stall,
            in_flight_max: std::mem::take(&mut self.in_flight_max),
            in_flight_sum: std::mem::take(&mut self.in_flight_sum),
            in_flight_samples: std::mem::take(&mut self.in_flight_samples),
            open_time_us: std::mem::take(&mut self.open_time_us),
            observed: self.observed.iter_mut().map(take_observed).collect(),
        };
        self.totals.add(&block);
        block
    }

    /// How many wall blocks were closed.
    pub fn closed_blocks(&self) -> u32 {
        self.closed
    }

    /// Everything that closed blocks have handed out, for the end of the trial.
    pub fn totals(&self) -> WorkerTotals {
        self.totals.clone()
    }
}

#[cfg(test)]
mod tests;
