//! Budget: one second of a fleet (two snapshots from each of 1,000 agents, 4 series of 10,000 samples) is received and
//! merged in at most 0.5 s of one core.

use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use plimsoll::core::merge::{AgentPart, TrialMerge, TrialPlan};
use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::{SeriesLimits, TrialId};
use plimsoll_common::snapshot::{BlockDelta, Counters, Health, SeriesCounts, SeriesHistograms, Snapshot, Strays};
use plimsoll_common::units::Rate;
use plimsoll_proto::v1;
use prost::Message;

const AGENTS: usize = 1_000;
const SERIES: usize = 4;
/// Of each series in half a second.
const SAMPLES: u64 = 5_000;
const LIMITS_US: [u64; 2] = [100_000, 250_000];
const TRIAL: TrialId = TrialId { step: 0, trial: 0 };

fn main() {
    divan::main();
}

fn plan() -> TrialPlan {
    let share = Rate::per_second(2 * SAMPLES).expect("a positive rate");
    let part = |index| AgentPart { agent: format!("box-{index}"), share, clock: None, due: None, server: None };
    TrialPlan {
        trial: TRIAL,
        target: Rate::per_second(2 * SAMPLES * AGENTS as u64).expect("a positive rate"),
        warmup: Duration::ZERO,
        hold: Duration::from_secs(30),
        start_boottime_ns: 0,
        limits: (0..SERIES).map(|i| SeriesLimits { series: format!("E{i}"), limits_us: LIMITS_US.to_vec() }).collect(),
        observations: vec![],
        max_lateness: Duration::from_millis(100),
        minutes: None,
        agents: (0..AGENTS).map(part).collect(),
    }
}

/// Log-normal latencies around 5 ms with a tail of seconds, as a service near its limit has them, from a fixed seed.
fn latencies(seed: u64) -> LatencyHistogram {
    let mut histogram = LatencyHistogram::new();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    for _ in 0..SAMPLES {
        let normal: f64 = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        histogram.record((5_000.0 * normal.exp()) as u64);
    }
    histogram
}

fn snapshot(agent: usize, number: u32) -> Vec<u8> {
    let n = SAMPLES;
    let counters = Counters { due: n, attempted: n, sent: n, completed: n, ..Counters::default() };
    let counts = SeriesCounts { n: n / 2, above: vec![40, 9], above_anyway: vec![40, 9], ..SeriesCounts::default() };
    let delta = |block| BlockDelta { block, counters, series: vec![counts.clone(); SERIES] };
    let series = |index: usize| {
        let latency = latencies((agent * SERIES + index) as u64 + 1);
        SeriesHistograms { service_time: latency.clone(), latency }
    };
    let snapshot = Snapshot {
        trial: TRIAL,
        number,
        blocks: vec![delta(number), delta(number + 1)],
        series: (0..SERIES).map(series).collect(),
        overdue: vec![vec![3, 1]; SERIES],
        strays: Strays::default(),
        warmup: Counters::default(),
        health: Health { lateness: latencies(agent as u64 + 77), ..Health::default() },
        open_time_us: 1_000_000,
        observed: vec![],
    };
    v1::Snapshot::from(&snapshot).encode_to_vec()
}

/// Every message in memory of its own, as it would be off the network; 16 agents' worth of different content.
fn one_second() -> Vec<(usize, Vec<u8>)> {
    let contents: Vec<[Vec<u8>; 2]> = (0..16).map(|agent| [snapshot(agent, 0), snapshot(agent, 1)]).collect();
    (0..2)
        .flat_map(|number| (0..AGENTS).map(move |agent| (agent, number)))
        .map(|(agent, number)| (agent, contents[agent % contents.len()][number].clone()))
        .collect()
}

fn decode(bytes: &[u8]) -> Snapshot {
    let message = v1::Snapshot::decode(bytes).expect("encoded above");
    Snapshot::try_from(message).expect("encoded above")
}

/// Bytes to the fleet's measurement: budget 0.5 s.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn one_second_of_a_thousand_agents(bencher: Bencher) {
    let messages = one_second();
    bencher.with_inputs(|| TrialMerge::new(plan())).bench_local_values(|mut merge| {
        for (agent, bytes) in &messages {
            merge.add_snapshot(*agent, &decode(bytes));
        }
        assert_eq!(merge.progress().counters.due, 4 * SAMPLES * AGENTS as u64);
        merge
    });
}

/// The part of it that reading and checking the bytes takes.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn decoding_alone(bencher: Bencher) {
    let messages = one_second();
    bencher.bench_local(|| messages.iter().for_each(|(_, bytes)| drop(black_box(decode(bytes)))));
}

/// The part of it that adding up takes.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn merging_alone(bencher: Bencher) {
    let snapshots: Vec<Snapshot> =
        (0..16).flat_map(|agent| [snapshot(agent, 0), snapshot(agent, 1)]).map(|b| decode(&b)).collect();
    bencher.with_inputs(|| TrialMerge::new(plan())).bench_local_values(|mut merge| {
        for number in 0..2 {
            for agent in 0..AGENTS {
                merge.add_snapshot(agent, &snapshots[agent % 16 * 2 + number]);
            }
        }
        merge
    });
}
