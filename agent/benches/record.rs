//! What an operation costs inside the agent, without the network: `cargo bench -p plimsoll-agent --bench record`.
//!
//! Budget: recording an operation (histograms and counters of one series) at most 60 ns.

use divan::Bencher;
use plimsoll_agent::core::ledger::{Choice, Kind, Ledger, Outcome, Release, Terms, Window};
use plimsoll_agent::core::recorder::Recorder;
use plimsoll_agent::core::schedule::Schedule;
use plimsoll_common::plan::SeriesLimits;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

const S: u64 = 1_000_000_000;
const WINDOW: Window = Window { start_ns: S, hold_start_ns: S, hold_end_ns: 31 * S };
/// Operations per sample of a bench: enough to hide the clock.
const OPERATIONS: u64 = 10_000;

fn main() {
    divan::main();
}

fn series() -> Vec<SeriesLimits> {
    ["E1", "E2"].map(|name| SeriesLimits { series: name.into(), limits_us: vec![100_000, 250_000] }).to_vec()
}

/// Latencies as a service has them: spread over two decades.
fn latency_ns(n: u64) -> u64 {
    200_000 + n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 20_000_000
}

/// Latency and service time of one series, and its block's counters.
#[divan::bench(counters = [divan::counter::ItemsCount::new(OPERATIONS)])]
fn record(bencher: Bencher) {
    let mut recorder = Recorder::new(&series(), &[], WINDOW, 5 * S);
    bencher.bench_local(|| {
        for n in 0..OPERATIONS {
            let intended_ns = 2 * S + n * 10_000;
            let ended_ns = intended_ns + latency_ns(n);
            recorder.sample(0, intended_ns, intended_ns + 50_000, ended_ns);
            recorder.completed(intended_ns, intended_ns + 50_000, ended_ns);
        }
    });
}

/// An operation's whole life: due, sent, replied to, broadcast, and looked at by the ageing.
#[divan::bench(counters = [divan::counter::ItemsCount::new(OPERATIONS)])]
fn life(bencher: Bencher) {
    let terms = Terms {
        series: series(),
        kinds: vec![Kind::replied(&[0, 1], 0)],
        observations: vec![],
        request_timeout_ns: 5 * S,
        max_lateness_ns: S / 10,
    };
    let mut ledger = Ledger::new(terms, WINDOW, 0, 500_000, u64::MAX);
    bencher.bench_local(|| {
        for n in 0..OPERATIONS {
            let intended_ns = 2 * S + n * 10_000;
            let Release::Released(sequence) = ledger.due(intended_ns, intended_ns + 50_000, Choice::default) else {
                continue;
            };
            ledger.sent(sequence);
            let ended_ns = intended_ns + latency_ns(n);
            ledger.answer(sequence, 0, Outcome::Sample, ended_ns);
            ledger.answer(sequence, 1, Outcome::Sample, ended_ns + 300_000);
        }
        ledger.age(2 * S + OPERATIONS * 10_000);
    });
}

/// Drawing the next intended time of a Poisson stream.
#[divan::bench(counters = [divan::counter::ItemsCount::new(OPERATIONS)])]
fn schedule(bencher: Bencher) {
    bencher.bench_local(|| Schedule::poisson(OPERATIONS, S, ChaCha8Rng::seed_from_u64(1)).sum::<u64>());
}
