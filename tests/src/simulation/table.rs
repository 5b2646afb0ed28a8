//! How often each method is right, and how fast: one row per method, one column per regime.

use super::methods::{Found, Method};
use super::queue::Regime;
use super::truth::true_limit;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// The search was tuned on lower seeds.
pub const FRESH: u64 = 300_000;

/// A claim further than this from the truth is wrong.
const OFF: f64 = 0.01;

/// What the runs of a method in a regime come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// How many.
    pub runs: usize,
    /// Conclusive, and the truth lies more than 1 % outside what was said.
    pub wrong: usize,
    /// Conclusive.
    pub conclusive: usize,
    /// Intervals with two ends, conclusive or not, and how many of them hold the truth.
    pub covered: (usize, usize),
    /// Seconds of load: the median, and the largest of the fastest nine in ten.
    pub load: (f64, f64),
    /// The median of how far the passed rate is from the truth, as a part of it.
    pub error: f64,
}

impl Score {
    /// Of runs against a known limit.
    pub fn of(found: &[Found], truth: f64) -> Self {
        let is_wrong = |found: &&Found| {
            found.conclusive
                && (found.passed.is_some_and(|passed| passed > truth * (1.0 + OFF))
                    || found.tripped.is_some_and(|tripped| tripped < truth * (1.0 - OFF)))
        };
        let two_ended = found.iter().filter_map(|found| found.passed.zip(found.tripped));
        let holds = |(passed, tripped): &(f64, f64)| *passed <= truth && truth <= *tripped;
        let load = sorted(found.iter().map(|found| found.load));
        let errors = sorted(found.iter().filter_map(|found| found.passed).map(|passed| passed / truth - 1.0));
        Self {
            runs: found.len(),
            wrong: found.iter().filter(is_wrong).count(),
            conclusive: found.iter().filter(|found| found.conclusive).count(),
            covered: (two_ended.clone().count(), two_ended.filter(holds).count()),
            load: (at(&load, 0.5), at(&load, 0.9)),
            error: at(&errors, 0.5),
        }
    }

    /// The part of all runs that is conclusive and wrong.
    pub fn wrong_part(&self) -> f64 {
        self.wrong as f64 / self.runs as f64
    }

    /// The part of all runs that is conclusive.
    pub fn conclusive_part(&self) -> f64 {
        self.conclusive as f64 / self.runs as f64
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn at(sorted: &[f64], part: f64) -> f64 {
    let index = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Runs a method on these seeds, over all cores.
pub fn runs(method: Method, regime: Regime, seeds: Range<u64>) -> Vec<Found> {
    let next = AtomicU64::new(seeds.start);
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let work = || {
        let mut found = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return found;
            }
            found.push((seed, method.run(regime, seed)));
        }
    };
    let mut found: Vec<(u64, Found)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a simulation does not panic")).collect()
    });
    found.sort_by_key(|(seed, _)| *seed);
    found.into_iter().map(|(_, found)| found).collect()
}

/// One row of the table: seconds of load (median / nine in ten), error of the passed rate, conclusive, wrong.
pub fn row(method: Method, queues: &[Regime], seeds: &Range<u64>) -> String {
    let cell = |&regime: &Regime| {
        let score = Score::of(&runs(method, regime, seeds.clone()), true_limit(regime));
        cell(&score)
    };
    format!("| {} | {} |", method.name(), queues.iter().map(cell).collect::<Vec<_>>().join(" | "))
}

fn cell(score: &Score) -> String {
    let percent = |part: f64| format!("{:.1}", part * 100.0);
    let (two_ended, holds) = score.covered;
    let covered = if two_ended == 0 { "–".to_owned() } else { percent(holds as f64 / two_ended as f64) };
    format!(
        "{:.0}/{:.0} s, {:+.1} %, {} % wrong, {} % conclusive, holds {covered}",
        score.load.0,
        score.load.1,
        score.error * 100.0,
        percent(score.wrong_part()),
        percent(score.conclusive_part()),
    )
}
