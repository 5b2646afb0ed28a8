//! For tests: a service as one queue in virtual time, and the ramp against it. Poisson arrivals, exponential service, a
//! capacity that may drift, stalls now and then. What comes out is what the fleet would have measured.

use std::num::NonZeroU32;
use std::time::Duration;

use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::BLOCK;
use plimsoll_common::snapshot::{Counters, SeriesCounts};
use plimsoll_common::units::{Rate, Steps};
use rand::SeedableRng as _;
use rand::distr::{Distribution as _, OpenClosed01};
use rand::rngs::StdRng;

use super::fixture::measurement;
use super::measurement::{Batch, FleetBlock, SeriesMeasurement, StepMeasurement};
use super::ramp::{Astray, JudgedTrial, NextTrial, OnTrip, Ramp};
use super::slo::{SeriesSlo, Slo};
use super::verdict::judge;

/// A queue and what disturbs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Queue {
    /// Operations per second.
    pub capacity: f64,
    /// The capacity is an AR(1) process of this relative spread, with a time constant of 20 s.
    pub drift: f64,
    /// Mean length and mean time between the starts of stalls.
    pub stalls: Option<(Duration, Duration)>,
}

/// One series, judged by its p99 alone.
pub fn slo(limit: Duration) -> Slo {
    let series = vec![SeriesSlo {
        series: "E1".into(),
        p95: None,
        p99: Some(limit),
        part_ppm: super::slo::WHOLE_PPM,
        makes: Default::default(),
    }];
    Slo { series, ..super::fixture::slo() }
}

/// A random state of the queue as its trials go on.
pub struct Simulation {
    queue: Queue,
    random: StdRng,
    /// Relative to the capacity.
    drifted: f64,
    next_stall: f64,
}

impl Simulation {
    /// At its first trial.
    pub fn new(queue: Queue, seed: u64) -> Self {
        let mut new = Self { queue, random: StdRng::seed_from_u64(seed), drifted: 0.0, next_stall: 0.0 };
        new.drifted = queue.drift * new.normal();
        new.next_stall = new.stall_gap();
        new
    }

    /// Ramps over the steps and judges each.
    pub fn ramp(&mut self, steps: &Steps, hold: Duration, slo: &Slo) -> Vec<(JudgedTrial, StepMeasurement)> {
        let mut ramp = Ramp::new(steps, OnTrip::Stop, NonZeroU32::MIN, Astray::Stay);
        let mut measured = Vec::new();
        while let Some(NextTrial { trial, level }) = ramp.next_trial() {
            let step = StepMeasurement { trial, target: level, ..self.hold(level, hold, slo) };
            ramp.record(judge(&step, slo));
            measured.push(step);
        }
        ramp.trials().iter().cloned().zip(measured).collect()
    }

    /// Holds a level from an empty queue, 2 s before the hold not counted.
    pub fn hold(&mut self, level: Rate, hold: Duration, slo: &Slo) -> StepMeasurement {
        let (settle, end) = (2.0, 2.0 + hold.as_secs_f64());
        let block = BLOCK.as_secs_f64();
        let blocks = (hold.as_secs_f64() / block).ceil() as usize;
        let limit_us = slo.series[0].limits().limits_us[0];
        let mut of_block = vec![(Counters::default(), SeriesCounts::zero(1)); blocks];
        let mut batches = vec![LatencyHistogram::new(); blocks];
        let (mut arrival, mut free_at, mut drift_until) = (0.0, 0.0_f64, 0.5);
        loop {
            arrival += self.exponential(1.0 / level.as_f64());
            if arrival >= end {
                break;
            }
            while arrival >= drift_until {
                self.drift(0.5);
                drift_until += 0.5;
            }
            let mut start = free_at.max(arrival);
            if let Some((length, _)) = self.queue.stalls
                && start >= self.next_stall
            {
                start += self.exponential(length.as_secs_f64());
                self.next_stall = start + self.stall_gap();
            }
            free_at = start + self.exponential(1.0 / (self.queue.capacity * (1.0 + self.drifted)));
            let Some(due) = (arrival - settle >= 0.0).then(|| ((arrival - settle) / block) as usize) else { continue };
            let latency_us = ((free_at - arrival) * 1e6).ceil() as u64;
            let (counters, counts) = &mut of_block[due.min(blocks - 1)];
            counters.add(&Counters { due: 1, attempted: 1, sent: 1, completed: 1, ..Counters::default() });
            let above = u64::from(latency_us > limit_us);
            counts.add(&SeriesCounts {
                n: 1,
                above: vec![above],
                above_anyway: vec![above],
                ..SeriesCounts::default()
            });
            batches[(((free_at - settle) / block) as usize).min(blocks - 1)].record(latency_us);
        }
        self.next_stall -= end;
        measured(hold, limit_us, of_block, batches)
    }

    fn drift(&mut self, seconds: f64) {
        let keeps = (-seconds / 20.0_f64).exp();
        self.drifted = self.drifted * keeps + self.queue.drift * (1.0 - keeps * keeps).sqrt() * self.normal();
    }

    fn stall_gap(&mut self) -> f64 {
        self.queue.stalls.map_or(f64::INFINITY, |(_, gap)| self.exponential(gap.as_secs_f64()))
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        let uniform: f64 = OpenClosed01.sample(&mut self.random);
        -mean * uniform.ln()
    }

    fn normal(&mut self) -> f64 {
        let (one, other): (f64, f64) = (OpenClosed01.sample(&mut self.random), OpenClosed01.sample(&mut self.random));
        (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * other).cos()
    }
}

/// A trial of so many blocks, each with its batch of latencies.
pub fn measured(
    hold: Duration,
    limit_us: u64,
    blocks: Vec<(Counters, SeriesCounts)>,
    batches: Vec<LatencyHistogram>,
) -> StepMeasurement {
    let (mut counters, mut counts) = (Counters::default(), SeriesCounts::zero(1));
    let mut latency = LatencyHistogram::new();
    blocks.iter().for_each(|(block, _)| counters.add(block));
    blocks.iter().for_each(|(_, block)| counts.add(block));
    batches.iter().for_each(|batch| latency.add(batch));
    let block = |(counters, counts)| FleetBlock { counters, series: vec![counts], ..FleetBlock::default() };
    StepMeasurement {
        hold,
        counters,
        series: vec![SeriesMeasurement {
            series: "E1".into(),
            limits_us: vec![limit_us],
            counts,
            service_time: latency.clone(),
            latency,
        }],
        blocks: blocks.into_iter().map(block).collect(),
        batches: batches.iter().map(|batch| Batch { blocks: 1, void: false, latency: vec![batch.packed()] }).collect(),
        backlog: vec![],
        ..measurement()
    }
}
