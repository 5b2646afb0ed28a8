//! A long hold minute by minute, so that drift shows while it runs. A minute is kept only until the operations that were due
//! in it must have ended: what is open here does not grow with the hold.

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::{BLOCK, SeriesLimits};
use plimsoll_common::snapshot::{Counters, Observed, SeriesCounts, Snapshot, Strays};
use plimsoll_common::units::Rate;
use serde::{Deserialize, Serialize};

use super::TrialPlan;
use super::health::Window;
use crate::core::measurement::SeriesMeasurement;

/// What a minute is.
pub const MINUTE: Duration = Duration::from_secs(60);
const BLOCKS_PER_MINUTE: u32 = (MINUTE.as_millis() / BLOCK.as_millis()) as u32;
/// An operation is given up this much after its timeout at the latest, and its agent says so in the next snapshot.
const EXPIRY_LAG: Duration = Duration::from_secs(2);

/// One minute of a hold over the whole fleet. Counters are of the operations due in it, series and strays of what ended or
/// came in it: with the last, in the drain too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Minute {
    /// From 0.
    pub number: u32,
    /// What the hold asked of the fleet.
    pub target: Rate,
    /// A minute, or what the hold has left for its last.
    #[serde(rename = "length_ns", with = "crate::core::encoding::nanos")]
    pub length: Duration,
    /// Of the operations due in it.
    pub counters: Counters,
    /// One per series, without limits: `n` is what ended in it.
    pub series: Vec<SeriesMeasurement>,
    /// What the workload observed beside latency.
    pub observed: Vec<Observed>,
    /// Messages that changed nothing else.
    pub strays: Strays,
    /// Blocks in which a load box stalled.
    pub void_blocks: u32,
}

/// The minutes that are not over yet.
#[derive(Debug, Clone)]
pub(super) struct Minutes {
    window: Window,
    target: Rate,
    limits: Vec<SeriesLimits>,
    observations: Vec<String>,
    warmup: Duration,
    hold: Duration,
    /// From its end until all of a minute has ended.
    lag: Duration,
    /// Of the first that is open.
    first: u32,
    open: VecDeque<Open>,
}

#[derive(Debug, Clone, Default)]
struct Open {
    counters: Counters,
    latency: Vec<LatencyHistogram>,
    service_time: Vec<LatencyHistogram>,
    observed: Vec<Observed>,
    strays: Strays,
    /// By block of the minute, a bit each.
    void: u128,
}

impl Minutes {
    pub(super) fn new(plan: &TrialPlan, request_timeout: Duration) -> Self {
        Self {
            window: Window::new(plan),
            target: plan.target,
            limits: plan.limits.clone(),
            observations: plan.observations.clone(),
            warmup: plan.warmup,
            hold: plan.hold,
            lag: request_timeout + EXPIRY_LAG,
            first: 0,
            open: VecDeque::new(),
        }
    }

    pub(super) fn add(&mut self, snapshot: &Snapshot) {
        for delta in &snapshot.blocks {
            if let Some(minute) = self.minute(delta.block / BLOCKS_PER_MINUTE) {
                minute.counters.add(&delta.counters);
            }
        }
        let blocks = self.window.hold_blocks(snapshot.number);
        let is_void = self.window.voids(snapshot.health.stall);
        for block in blocks.clone().filter(|_| is_void) {
            if let Some(minute) = self.minute(block / BLOCKS_PER_MINUTE) {
                minute.void |= 1 << (block % BLOCKS_PER_MINUTE);
            }
        }
        // The drain belongs to the last minute, what ends in the warmup to the first.
        let block = self.window.hold_block_of(snapshot.number);
        let Some(minute) = self.minute(block / BLOCKS_PER_MINUTE) else { return };
        for (index, series) in snapshot.series.iter().enumerate() {
            minute.latency[index].add(&series.latency);
            minute.service_time[index].add(&series.service_time);
        }
        minute.observed.iter_mut().zip(&snapshot.observed).for_each(|(sum, more)| sum.add(more));
        minute.strays.add(&snapshot.strays);
    }

    /// `None` for one that is over: what comes later enters the whole hold's figures alone.
    fn minute(&mut self, number: u32) -> Option<&mut Open> {
        let index = number.checked_sub(self.first)? as usize;
        while self.open.len() <= index {
            self.open.push_back(Open {
                latency: vec![LatencyHistogram::new(); self.limits.len()],
                service_time: vec![LatencyHistogram::new(); self.limits.len()],
                observed: self.observations.iter().map(Observed::new).collect(),
                ..Open::default()
            });
        }
        Some(&mut self.open[index])
    }

    /// The minutes that are over, now that all agents have reported so much since the start of the warmup.
    pub(super) fn take_ended(&mut self, reported: Duration) -> Vec<Minute> {
        let ended = reported.saturating_sub(self.warmup + self.lag).min(self.hold);
        let whole = (ended.as_secs() / MINUTE.as_secs()) as u32;
        self.take(whole, self.hold)
    }

    /// All that are left of a hold of this length.
    pub(super) fn take_all(&mut self, hold: Duration) -> Vec<Minute> {
        self.take(hold.as_millis().div_ceil(MINUTE.as_millis()) as u32, hold)
    }

    fn take(&mut self, up_to: u32, hold: Duration) -> Vec<Minute> {
        let mut taken = Vec::new();
        while self.first < up_to {
            self.minute(self.first);
            let Some(open) = self.open.pop_front() else { break };
            let left = hold.saturating_sub(MINUTE * self.first);
            taken.push(self.close(open, left.min(MINUTE)));
            self.first += 1;
        }
        taken
    }

    fn close(&self, open: Open, length: Duration) -> Minute {
        let series = self.limits.iter().zip(open.latency.iter().zip(&open.service_time));
        let series = series.map(|(limits, (latency, service_time))| SeriesMeasurement {
            series: limits.series.clone(),
            limits_us: Vec::new(),
            counts: SeriesCounts { n: latency.len(), ..SeriesCounts::zero(0) },
            latency: latency.packed(),
            service_time: service_time.packed(),
        });
        Minute {
            number: self.first,
            target: self.target,
            length,
            counters: open.counters,
            series: series.collect(),
            observed: open.observed,
            strays: open.strays,
            void_blocks: open.void.count_ones(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_common::plan::TrialId;
    use plimsoll_common::snapshot::{BlockDelta, Health, SeriesHistograms, Stall};

    const WARMUP: Duration = Duration::from_secs(1);

    fn minutes(hold_s: u64) -> Minutes {
        let plan = TrialPlan {
            trial: TrialId { step: 0, trial: 0 },
            target: Rate::per_second(2).unwrap(),
            warmup: WARMUP,
            hold: Duration::from_secs(hold_s),
            start_boottime_ns: 0,
            limits: vec![SeriesLimits { series: "E1".into(), limits_us: vec![100_000] }],
            observations: vec!["bytes".into()],
            max_lateness: Duration::from_millis(100),
            minutes: None,
            agents: vec![],
        };
        Minutes::new(&plan, Duration::from_secs(3))
    }

    /// The snapshot of a wall block, with one operation that was due so many blocks before.
    fn snapshot(number: u32, due_before: u32, stall_us: u64) -> Snapshot {
        let mut latency = LatencyHistogram::new();
        latency.record(u64::from(number));
        let block = number.checked_sub(2 + due_before);
        let counters = Counters { due: 1, attempted: 1, completed: 1, ..Counters::default() };
        let delta = |block| BlockDelta { block, counters, series: vec![SeriesCounts::zero(1)] };
        let mut observed = Observed::new("bytes");
        observed.observe(10);
        Snapshot {
            trial: TrialId { step: 0, trial: 0 },
            number,
            blocks: block.map(delta).into_iter().collect(),
            series: vec![SeriesHistograms { latency: latency.clone(), service_time: latency }],
            overdue: vec![],
            strays: Strays::default(),
            warmup: Counters::default(),
            health: Health { stall: Stall::Bounded(stall_us), ..Health::default() },
            open_time_us: 0,
            observed: vec![observed],
        }
    }

    #[test]
    fn a_minute_is_over_when_its_last_operation_must_have_ended() {
        let mut minutes = minutes(150);
        for (seconds, ended) in [(0, 0), (65, 0), (66, 1), (125, 0), (126, 1), (400, 0)] {
            let taken = minutes.take_ended(Duration::from_secs(seconds));
            assert_eq!(taken.len(), ended, "{seconds}");
        }
        let last = minutes.take_all(Duration::from_secs(150));
        assert_eq!(last.iter().map(|minute| (minute.number, minute.length.as_secs())).collect::<Vec<_>>(), [(2, 30)]);
        assert!(minutes.take_all(Duration::from_secs(150)).is_empty());
    }

    #[test]
    fn counts_are_by_the_intended_time_and_latencies_by_the_end_and_nothing_is_counted_twice() {
        let mut minutes = minutes(120);
        // 1 s of warmup, 120 s, and 2 s of drain; every operation ends two blocks after it was due.
        let mut all = Vec::new();
        for number in 0..246 {
            minutes.add(&snapshot(number, 2, if number == 125 { 20_000 } else { 0 }));
            all.extend(minutes.take_ended(BLOCK * (number + 1)));
            assert!(minutes.open.len() <= 2);
        }
        all.extend(minutes.take_all(Duration::from_secs(120)));
        let of = |minute: &Minute| (minute.counters.due, minute.series[0].counts.n, minute.observed[0].count);
        // What ended in the warmup's two blocks is the first minute's, what ended in the drain's four the last one's.
        assert_eq!(all.iter().map(of).collect::<Vec<_>>(), [(120, 122, 122), (120, 124, 124)]);
        assert_eq!(all.iter().map(|minute| minute.void_blocks).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn what_comes_after_its_minute_changes_nothing() {
        let mut minutes = minutes(180);
        assert_eq!(minutes.take_ended(Duration::from_secs(70)).len(), 1);
        minutes.add(&snapshot(130, 125, 0));
        let second = &minutes.take_all(Duration::from_secs(180))[0];
        assert_eq!((second.number, second.counters.due, second.series[0].counts.n), (1, 0, 1));
    }
}
