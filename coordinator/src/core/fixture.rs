//! For tests: a measurement in which everything holds, to be spoiled one thing at a time.

use std::time::Duration;

use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::TrialId;
use plimsoll_common::snapshot::{Counters, SeriesCounts, Stall, Strays};
use plimsoll_common::units::Rate;

use super::backlog::{Backlog, DurableBacklog, DurableName, Fate, Growth};
use super::measurement::{
    AgentMeasurement, Batch, FleetBlock, HealthDigest, Lateness, MeanMax, SeriesMeasurement, StartLag, StepMeasurement,
};
use super::slo::Slo;

/// Operations due in [`measurement`].
pub const DUE: u64 = 10_000;

/// 100 ms at p95 and 250 ms at p99 for E1 and E2, errors 0.001, backlog +1000, tolerance 0.05, starts 100 ms apart.
pub fn slo() -> Slo {
    let (p95, p99) = (Duration::from_millis(100), Duration::from_millis(250));
    Slo {
        series: Slo::for_every_series(&["E1", "E2"], Some(p95), Some(p99)),
        error_rate: "0.001".parse().unwrap(),
        pending_growth: 1000,
        rate_tolerance: "0.05".parse().unwrap(),
        max_skew: Duration::from_millis(100),
        may_grow: Vec::new(),
    }
}

/// 1,000/s for 10 s by two agents, all completed within 20 ms, the backlog steady.
pub fn measurement() -> StepMeasurement {
    let counters = counters(DUE);
    let series = |name: &str, each_us: u64| {
        let mut latency = LatencyHistogram::new();
        (0..DUE).for_each(|i| latency.record(each_us + i % 100 * 10));
        SeriesMeasurement {
            series: name.into(),
            limits_us: vec![100_000, 250_000],
            counts: SeriesCounts { n: DUE, ..SeriesCounts::zero(2) },
            service_time: latency.clone(),
            latency,
        }
    };
    StepMeasurement {
        trial: TrialId { step: 0, trial: 0 },
        target: Rate::per_second(1000).unwrap(),
        hold: Duration::from_secs(10),
        max_lateness: Some(Duration::from_millis(100)),
        counters,
        warmup: self::counters(DUE / 2),
        strays: Strays::default(),
        series: vec![series("E1", 4_000), series("E2", 19_000)],
        observed: vec![],
        blocks: vec![FleetBlock { counters: self::counters(DUE / 20), ..FleetBlock::default() }; 20],
        batches: batches(),
        agents: vec![agent("box-a"), agent("box-b")],
        faults: vec![],
        little: None,
        backlog: vec![durable("message-worker", 2), durable("broadcast-worker", -5)],
        streams: vec![],
    }
}

/// The latencies of [`measurement`], spread evenly over its blocks.
fn batches() -> Vec<Batch> {
    let latency = |each_us: u64| {
        let mut latency = LatencyHistogram::new();
        (0..DUE / 20).for_each(|i| latency.record(each_us + i % 100 * 10));
        latency.packed()
    };
    let batch = Batch { blocks: 1, void: false, latency: vec![latency(4_000), latency(19_000)] };
    vec![batch; 20]
}

fn counters(due: u64) -> Counters {
    Counters { due, attempted: due, sent: due, completed: due, ..Counters::default() }
}

fn agent(name: &str) -> AgentMeasurement {
    let us = Duration::from_micros;
    AgentMeasurement {
        agent: name.into(),
        share: Rate::per_second(500).unwrap(),
        counters: counters(DUE / 2),
        series: vec![SeriesCounts { n: DUE / 2, ..SeriesCounts::zero(2) }; 2],
        strays: Strays::default(),
        health: HealthDigest {
            lateness: Some(Lateness { p50: us(61), p99: us(420), max: us(2_300) }),
            process_cpu_milli: MeanMax { mean: 213, max: 300 },
            box_cpu_milli: MeanMax { mean: 400, max: 550 },
            worst_stall: Stall::Bounded(2_300),
            in_flight_max: 31,
            ..HealthDigest::default()
        },
        start: Some(StartLag { lag_ns: 80_000, error: us(150), own_boottime_ns: 5_000_080_000 }),
        server: None,
    }
}

/// A durable that was read and grew by so much.
pub fn durable(name: &str, growth: i64) -> DurableBacklog {
    let last = Backlog { pending: growth.max(0) as u64, ack_pending: 12, given: 0 };
    DurableBacklog {
        name: DurableName { stream: "MESSAGES_CANONICAL_site-local".into(), durable: name.into() },
        fate: Fate::Kept,
        growth: Some(Growth { messages: growth, rising: false }),
        reads_at_ends: (5, 5),
        rest: Some(10),
        first: Some(Backlog { pending: 0, ack_pending: 10, given: 0 }),
        last: Some(last),
    }
}

impl StepMeasurement {
    /// Marks operations of a series as above one limit (and those below it): by the service, and by box-a's stalls.
    pub fn slow(&mut self, series: usize, limit: usize, by_service: u64, by_box: u64) {
        let mark = |counts: &mut SeriesCounts| {
            for index in 0..=limit {
                counts.above[index] = counts.above[index].max(by_service + by_box);
                counts.above_anyway[index] = counts.above_anyway[index].max(by_service);
            }
        };
        mark(&mut self.series[series].counts);
        mark(&mut self.agents[0].series[series]);
    }

    /// Fails operations of box-a: by the service (refused), and by its own stalls (timeout).
    pub fn fail(&mut self, by_service: u64, by_box: u64) {
        for counters in [&mut self.counters, &mut self.agents[0].counters] {
            counters.completed -= by_service + by_box;
            counters.failed.refused += by_service;
            counters.failed.timeout += by_box;
            counters.failed_anyway += by_service;
        }
    }

    /// Keeps operations of box-a from leaving.
    pub fn keep_back(&mut self, saturated: u64, underrun: u64) {
        for counters in [&mut self.counters, &mut self.agents[0].counters] {
            counters.attempted -= saturated + underrun;
            counters.sent -= saturated + underrun;
            counters.completed -= saturated + underrun;
            counters.saturated += saturated;
            counters.underrun += underrun;
        }
        self.series.iter_mut().for_each(|series| series.counts.n -= saturated + underrun);
    }
}
