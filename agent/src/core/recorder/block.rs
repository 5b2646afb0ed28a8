//! What a worker hands out at the end of a block, and what that adds up to.

use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::snapshot::{BlockDelta, Counters, Observed, SeriesCounts, SeriesHistograms, Stall, Strays};

/// What one worker recorded since its last closed block.
#[derive(Debug)]
pub struct WorkerBlock {
    /// The wall block since the step's start.
    pub number: u32,
    /// Blocks of intended time that changed.
    pub blocks: Vec<BlockDelta>,
    /// One per series.
    pub series: Vec<SeriesHistograms>,
    /// Per series and limit.
    pub overdue: Vec<Vec<u64>>,
    /// Messages that changed nothing else.
    pub strays: Strays,
    /// What changed of the warmup.
    pub warmup: Counters,
    /// Lateness of every release.
    pub lateness: LatencyHistogram,
    /// The stall that this block was judged by.
    pub stall: Stall,
    /// Of the operations open.
    pub in_flight_max: u64,
    /// Hold only.
    pub in_flight_sum: u64,
    /// Hold only.
    pub in_flight_samples: u64,
    /// Sum of end − release of the hold's operations that ended, in microseconds.
    pub open_time_us: u64,
    /// What changed, one per observation of the workload.
    pub observed: Vec<Observed>,
}

/// All that one worker counted in a trial, tallied apart from the blocks.
#[derive(Debug, Clone, Default)]
pub struct WorkerTotals {
    /// Of the hold.
    pub counters: Counters,
    /// Of the warmup.
    pub warmup: Counters,
    /// Per series.
    pub series: Vec<SeriesCounts>,
    /// Samples per series.
    pub samples: Vec<u64>,
    /// Messages that changed nothing else.
    pub strays: Strays,
    /// One per observation of the workload.
    pub observed: Vec<Observed>,
}

impl WorkerTotals {
    pub(super) fn add(&mut self, block: &WorkerBlock) {
        for delta in &block.blocks {
            self.counters.add(&delta.counters);
            self.series.iter_mut().zip(&delta.series).for_each(|(total, counts)| total.add(counts));
        }
        self.warmup.add(&block.warmup);
        self.strays.add(&block.strays);
        self.observed.iter_mut().zip(&block.observed).for_each(|(total, observed)| total.add(observed));
        self.samples.iter_mut().zip(&block.series).for_each(|(total, series)| *total += series.latency.len());
    }
}

/// Hands out what was observed and begins anew.
pub(super) fn take_observed(observed: &mut Observed) -> Observed {
    let empty = Observed::new(observed.name.clone());
    std::mem::replace(observed, empty)
}

pub(super) fn empty_histograms(series: usize) -> Vec<SeriesHistograms> {
    let empty = || SeriesHistograms { latency: LatencyHistogram::new(), service_time: LatencyHistogram::new() };
    (0..series).map(|_| empty()).collect()
}
