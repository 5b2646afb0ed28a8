//! Budgets: recording an operation (histogram and counters) takes at most 60 ns; merging one second of a thousand agents,
//! 18,000 histograms that are decoded and added, at most 0.5 s of one core, so 27 µs for both.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use plimsoll_common::histogram::LatencyHistogram;

/// Of half a second at 10,000/s, and of ten times as much.
const SAMPLES: [usize; 2] = [5_000, 50_000];

fn main() {
    divan::main();
}

/// Log-normal values around 5 ms with a tail of seconds, from a fixed seed.
fn latencies(n: usize) -> Vec<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut normal = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
    (0..n).map(|_| (5_000.0 * normal().exp()) as u64).collect()
}

fn histogram(n: usize) -> LatencyHistogram {
    let mut histogram = LatencyHistogram::new();
    latencies(n).into_iter().for_each(|value| histogram.record(value));
    histogram
}

/// The time is of all values: divide, or read the items per second. Budget: at most 60 ns for an operation with all of its
/// counters and histograms, so some 5 ns for one of these.
#[divan::bench(args = SAMPLES)]
fn record(bencher: Bencher, n: usize) {
    let values = latencies(n);
    let mut histogram = LatencyHistogram::new();
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        for &value in black_box(&values) {
            histogram.record(value);
        }
    });
}

#[divan::bench(args = SAMPLES)]
fn add(bencher: Bencher, n: usize) {
    let part = histogram(n);
    let mut sum = LatencyHistogram::new();
    bencher.bench_local(|| sum.add(black_box(&part)));
}

/// What an agent does for every series and block.
#[divan::bench(args = SAMPLES)]
fn encode(bencher: Bencher, n: usize) {
    let histogram = histogram(n);
    bencher.bench_local(|| black_box(&histogram).to_v2());
}

/// As a snapshot is received: checked, kept as it came, and added later. Budget: 27 µs for 5,000 samples.
#[divan::bench(args = SAMPLES)]
fn decode_and_add(bencher: Bencher, n: usize) {
    let bytes = histogram(n).to_v2();
    let mut sum = LatencyHistogram::new();
    bencher
        .with_inputs(|| bytes.clone())
        .bench_local_values(|bytes| sum.add(&LatencyHistogram::from_v2(bytes).expect("encoded above")));
}
