//! One snapshot per block from what the workers closed, and the agent's totals at the end. Pure but for what the box's
//! watch says, which comes in as a value.

use std::collections::BTreeMap;

use plimsoll_common::plan::TrialId;
use plimsoll_common::snapshot::{
    BlockDelta, Counters, Health, Observed, SeriesCounts, SeriesHistograms, Snapshot, StepEnd, StepTotals, Strays,
};

use super::health::BoxUse;
use super::worker::{BlockHealth, Finish};
use crate::core::recorder::WorkerBlock;

/// Client errors per snapshot.
const MAX_CLIENT_ERRORS: usize = 8;

/// Gathers the workers' blocks of one trial.
#[derive(Debug)]
pub struct Aggregate {
    trial: TrialId,
    workers: Vec<WorkerProgress>,
    /// Blocks that not every worker has closed yet.
    pending: BTreeMap<u32, Vec<(WorkerBlock, BlockHealth)>>,
    sent: u32,
}

#[derive(Debug, Default)]
struct WorkerProgress {
    closed: u32,
    finish: Option<Finish>,
}

impl Aggregate {
    /// For `workers` workers, each of which will finish.
    pub fn new(trial: TrialId, workers: usize) -> Self {
        let workers = (0..workers).map(|_| WorkerProgress::default()).collect();
        Self { trial, workers, pending: BTreeMap::new(), sent: 0 }
    }

    /// The trial.
    pub fn trial(&self) -> TrialId {
        self.trial
    }

    /// A worker closed its next block.
    pub fn block(&mut self, worker: u8, block: WorkerBlock, health: BlockHealth) {
        if let Some(progress) = self.workers.get_mut(usize::from(worker)) {
            progress.closed = progress.closed.max(block.number + 1);
            self.pending.entry(block.number).or_default().push((block, health));
        }
    }

    /// A worker is through; its blocks are all here.
    pub fn finish(&mut self, worker: u8, finish: Finish) {
        if let Some(progress) = self.workers.get_mut(usize::from(worker)) {
            progress.finish = Some(finish);
        }
    }

    /// The next snapshot, once every worker has closed its block or is through.
    pub fn next_snapshot(&mut self, watch: impl FnOnce() -> BoxUse) -> Option<Snapshot> {
        let number = self.sent;
        let complete = self.workers.iter().all(|worker| worker.closed > number || worker.finish.is_some());
        if !complete || !self.pending.contains_key(&number) {
            return None;
        }
        let blocks = self.pending.remove(&number)?;
        self.sent += 1;
        Some(merge(self.trial, number, blocks, watch()))
    }

    /// The totals, once every worker is through and every snapshot is out.
    pub fn totals(&self) -> Option<StepTotals> {
        if !self.pending.is_empty() {
            return None;
        }
        let finishes: Vec<&Finish> = self.workers.iter().map(|worker| worker.finish.as_ref()).collect::<Option<_>>()?;
        let mut counters = Counters::default();
        let (mut warmup, mut strays) = (Counters::default(), Strays::default());
        let (mut series, mut samples): (Vec<SeriesCounts>, Vec<u64>) = (Vec::new(), Vec::new());
        let mut observed: Vec<Observed> = Vec::new();
        for Finish { totals, .. } in &finishes {
            counters.add(&totals.counters);
            warmup.add(&totals.warmup);
            strays.add(&totals.strays);
            series.resize_with(totals.series.len(), SeriesCounts::default);
            series.iter_mut().zip(&totals.series).for_each(|(sum, counts)| sum.add(counts));
            add_observed(&mut observed, &totals.observed);
            samples.resize(totals.samples.len(), 0);
            samples.iter_mut().zip(&totals.samples).for_each(|(sum, count)| *sum += count);
        }
        let end = |end| finishes.iter().any(|finish| finish.end == end);
        Some(StepTotals {
            trial: self.trial,
            snapshots: self.sent,
            counters,
            series,
            samples,
            strays,
            warmup,
            // The last worker to begin is the one that shows how far the fleet was apart.
            started_boottime_ns: finishes.iter().map(|finish| finish.started_boottime_ns).max()?,
            end: if end(StepEnd::TargetGone) {
                StepEnd::TargetGone
            } else if end(StepEnd::ShutDown) {
                StepEnd::ShutDown
            } else if end(StepEnd::Stopped) {
                StepEnd::Stopped
            } else {
                StepEnd::Finished
            },
            observed,
        })
    }
}

fn merge(trial: TrialId, number: u32, workers: Vec<(WorkerBlock, BlockHealth)>, used: BoxUse) -> Snapshot {
    let mut blocks: BTreeMap<u32, BlockDelta> = BTreeMap::new();
    let mut series: Vec<SeriesHistograms> = Vec::new();
    let mut overdue: Vec<Vec<u64>> = Vec::new();
    let (mut strays, mut warmup, mut open_time_us) = (Strays::default(), Counters::default(), 0);
    let mut observed: Vec<Observed> = Vec::new();
    let mut health = Health {
        process_cpu_milli: used.process_cpu_milli,
        box_cpu_milli: used.box_cpu_milli,
        steal_milli: used.steal_milli,
        ..Health::default()
    };
    for (block, seen) in workers {
        for delta in block.blocks {
            add_delta(blocks.entry(delta.block).or_insert_with(|| empty(&delta)), &delta);
        }
        if series.is_empty() {
            (series, overdue) = (block.series, block.overdue);
        } else {
            for (sum, more) in series.iter_mut().zip(&block.series) {
                sum.latency.add(&more.latency);
                sum.service_time.add(&more.service_time);
            }
            let limits = overdue.iter_mut().flatten().zip(block.overdue.iter().flatten());
            limits.for_each(|(sum, more)| *sum += more);
        }
        strays.add(&block.strays);
        warmup.add(&block.warmup);
        open_time_us += block.open_time_us;
        add_observed(&mut observed, &block.observed);
        health.stall = health.stall.max(block.stall);
        health.timer_delay_us = health.timer_delay_us.max(seen.timer_delay_us);
        // The quota is the process's: every worker saw the same.
        health.throttled_us = health.throttled_us.max(seen.throttled_us);
        health.write_blocked_us = health.write_blocked_us.max(seen.write_blocked_us);
        health.in_flight_max += block.in_flight_max;
        health.in_flight_sum += block.in_flight_sum;
        // Workers sample at the same ticks: the agent's in-flight is the sum of theirs, sampled as often as one of them.
        health.in_flight_samples = health.in_flight_samples.max(block.in_flight_samples);
        health.lateness.add(&block.lateness);
        if let Some(seen) = seen.users {
            let users = health.users.get_or_insert_default();
            users.online += seen.online;
            users.connections += seen.connections;
        }
        health.client_errors.extend(seen.client_errors);
    }
    health.client_errors.truncate(MAX_CLIENT_ERRORS);
    let blocks = blocks.into_values().collect();
    Snapshot { trial, number, blocks, series, overdue, strays, warmup, health, open_time_us, observed }
}

fn add_observed(sum: &mut Vec<Observed>, more: &[Observed]) {
    if sum.is_empty() {
        *sum = more.to_vec();
    } else {
        sum.iter_mut().zip(more).for_each(|(sum, more)| sum.add(more));
    }
}

fn empty(like: &BlockDelta) -> BlockDelta {
    let series = like.series.iter().map(|counts| SeriesCounts::zero(counts.above.len())).collect();
    BlockDelta { block: like.block, counters: Counters::default(), series }
}

fn add_delta(sum: &mut BlockDelta, delta: &BlockDelta) {
    sum.counters.add(&delta.counters);
    sum.series.iter_mut().zip(&delta.series).for_each(|(sum, counts)| sum.add(counts));
}
