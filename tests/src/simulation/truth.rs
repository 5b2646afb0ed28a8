//! The largest rate that a simulated queue carries in the long run: what is said of it, and long holds that show it.

use super::queue::{Held, Queue, Regime};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The largest rate that the 99th percentile allows in the long run, per second, as [`measure`] found it.
pub fn true_limit(regime: Regime) -> f64 {
    match regime {
        // Exact: sojourn times of M/M/1 are exponential, so 1 % above T at C − ln(100) / T.
        Regime::Clean => 19_079.0,
        // ± 3, by 1,020,000 s; ± 15, by as many; ± 23, by 3,000,000 s.
        Regime::Drift => 18_853.0,
        Regime::Stalls => 13_679.0,
        Regime::RareStalls => 15_217.0,
    }
}

/// The part of the operations that may be over the limit.
const ALLOWED: f64 = 0.01;
/// One hold, in seconds: fifty time constants of the drift and more, so that holds know nothing of each other.
const HOLD: usize = 2000;
/// The rates of the holds, around a first guess.
const AROUND: [f64; 3] = [0.985, 1.0, 1.015];
/// Halvings of the first guess.
const HALVINGS: usize = 7;

/// A limit found by long holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Per second.
    pub limit: f64,
    /// Its standard error.
    pub error: f64,
    /// How long it was held for, in seconds.
    pub held: f64,
}

/// Holds a queue for so many seconds in all, at three rates around where its limit shows, and draws a line through the
/// logarithms of the parts over the limit. The standard error is that of ten parts of the holds, each with its own line.
pub fn measure(regime: Regime, seconds: usize) -> Measured {
    const PARTS: usize = 10;
    let guess = guess(regime, (seconds / HOLD / 40).max(1));
    let each = seconds.div_ceil(HOLD * AROUND.len() * PARTS).max(1);
    let holds = each * PARTS;
    // One list per rate, of the parts over the limit.
    let parts: Vec<Vec<f64>> = (0..AROUND.len()).map(|at| hold_all(regime, guess * AROUND[at], at, holds)).collect();
    let limit = |from: usize, to: usize| {
        let means = parts.iter().map(|parts| parts[from..to].iter().sum::<f64>() / (to - from) as f64);
        let points: Vec<(f64, f64)> =
            AROUND.iter().zip(means).map(|(around, mean)| ((guess * around).ln(), (mean / ALLOWED).ln())).collect();
        crossing(&points).exp()
    };
    let of_parts: Vec<f64> = (0..PARTS).map(|part| limit(part * each, (part + 1) * each)).collect();
    let mean = of_parts.iter().sum::<f64>() / PARTS as f64;
    let variance = of_parts.iter().map(|limit| (limit - mean).powi(2)).sum::<f64>() / (PARTS - 1) as f64;
    Measured {
        limit: limit(0, holds),
        error: (variance / PARTS as f64).sqrt(),
        held: (holds * AROUND.len() * HOLD) as f64,
    }
}

/// Where the line of least squares through the points is 0.
fn crossing(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = (points.iter().map(|p| p.0).sum::<f64>() / count, points.iter().map(|p| p.1).sum::<f64>() / count);
    let slope = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>()
        / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>();
    x - y / slope
}

/// By so many holds at each of a few rates.
fn guess(regime: Regime, holds: usize) -> f64 {
    let (mut low, mut high) = (10_000.0, 20_000.0);
    for halving in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        let parts = hold_all(regime, middle, AROUND.len() + halving, holds);
        if parts.iter().sum::<f64>() > ALLOWED * holds as f64 { high = middle } else { low = middle }
    }
    (low + high) / 2.0
}

/// The parts over the limit of holds at one rate, the one at position `at`, over all cores.
fn hold_all(regime: Regime, rate: f64, at: usize, holds: usize) -> Vec<f64> {
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let work = || {
        let mut parts = Vec::new();
        loop {
            let hold = next.fetch_add(1, Ordering::Relaxed);
            if hold >= holds {
                return parts;
            }
            parts.push((hold, part_over(regime, rate, (1_000_000 * (at + 1) + hold) as u64)));
        }
    };
    let mut parts: Vec<(usize, f64)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a simulation does not panic")).collect()
    });
    parts.sort_unstable_by_key(|(hold, _)| *hold);
    parts.into_iter().map(|(_, part)| part).collect()
}

/// The part of the operations of one hold that is over the limit.
fn part_over(regime: Regime, rate: f64, seed: u64) -> f64 {
    over(&Queue::new(regime, seed).load(rate, 1.0, HOLD * 2, |_| false))
}

/// The part of a hold's operations that is over the limit.
pub fn over(held: &Held) -> f64 {
    let counts = held.showing.blocks.iter().map(|block| block.counts[0]);
    let (n, above) = counts.fold((0, 0), |(n, above), count| (n + count.n, above + count.above));
    above as f64 / n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_crosses_where_it_is_nothing() {
        assert!((crossing(&[(1.0, -2.0), (2.0, 0.0), (3.0, 2.0)]) - 2.0).abs() < 1e-12);
        assert!((crossing(&[(1.0, -1.0), (2.0, 1.5), (3.0, 2.5)]) - 1.428_571).abs() < 1e-5);
    }
}
