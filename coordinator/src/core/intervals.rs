//! How sure a percentile is. Latencies near capacity depend on each other, so the datum is the part of a batch's operations
//! above a value, never a single operation; and what happens seldom is counted in episodes.

use std::time::Duration;

use plimsoll_common::histogram::LatencyHistogram;
use statrs::distribution::{Binomial, ContinuousCDF as _, DiscreteCDF as _, Gamma, StudentsT};

use super::measurement::{Batch, FleetBlock, StepMeasurement};
use super::slo::{Gate, Slo};

/// Fewer values than this say nothing about their spread.
const FEWEST: usize = 6;
/// An episode is cut after so many blocks, so that steady overload is many.
const LONGEST_EPISODE: u32 = 5;
/// With more episodes than this, means of batches are trusted alone.
const FEW_EPISODES: usize = 25;

/// An estimate and what it may be instead.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// From all that was measured.
    pub estimate: f64,
    /// Not less than this.
    pub lower: f64,
    /// Not more than this.
    pub upper: f64,
}

/// The latencies of one series, batch by batch, ready to be asked how many lie above a value.
#[derive(Debug, Clone)]
pub struct Spread {
    batches: Vec<Distribution>,
    total: u64,
    /// Of all batches.
    whole: Distribution,
}

/// A batch: the end of each bucket in use, with the operations up to it.
#[derive(Debug, Clone, Default)]
struct Distribution {
    blocks: u32,
    up_to: Vec<(u64, u64)>,
}

impl Distribution {
    fn of(histogram: &LatencyHistogram, blocks: u32) -> Self {
        let mut sum = 0_u64;
        let up_to = histogram.filled_us().into_iter().map(|(end, count)| {
            sum = sum.saturating_add(count);
            (end, sum)
        });
        Self { blocks, up_to: up_to.collect() }
    }

    fn n(&self) -> u64 {
        self.up_to.last().map_or(0, |&(_, sum)| sum)
    }

    fn above(&self, value_us: u64) -> u64 {
        let behind = self.up_to.partition_point(|&(end, _)| end <= value_us);
        self.n() - behind.checked_sub(1).map_or(0, |last| self.up_to[last].1)
    }

    /// The end of the bucket of the operation of this rank, from 1; `None` beyond the last one.
    fn at_rank(&self, rank: u64) -> Option<u64> {
        self.up_to.get(self.up_to.partition_point(|&(_, sum)| sum < rank)).map(|&(end, _)| end)
    }
}

impl Spread {
    /// One series over the whole hold of a trial.
    pub fn of_trial(step: &StepMeasurement, series: usize) -> Self {
        Self::of(step.batches.iter(), series)
    }

    /// Of these batches; those without an operation say nothing of latencies and are left out.
    pub fn of<'a>(batches: impl Iterator<Item = &'a Batch>, series: usize) -> Self {
        let mut whole = LatencyHistogram::new();
        let batches: Vec<Distribution> = batches
            .filter(|batch| batch.latency.get(series).is_some_and(|latency| !latency.is_empty()))
            .map(|batch| {
                whole.add(&batch.latency[series]);
                Distribution::of(&batch.latency[series], batch.blocks)
            })
            .collect();
        Self { batches, total: whole.len(), whole: Distribution::of(&whole, 0) }
    }

    /// Operations.
    pub fn n(&self) -> u64 {
        self.total
    }

    /// The value at a quantile by the nearest rank, at its bucket's end; `None`: no data.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        self.whole.at_rank(((quantile * self.total as f64).ceil() as u64).max(1))
    }

    /// The part of the operations above a value, as [`share`] has it.
    pub fn share_above(&self, value_us: u64, allowed: f64, alpha: f64, known_excess: f64) -> Option<Interval> {
        share(&self.parts_above(value_us), allowed, alpha, known_excess)
    }

    /// What a batch of its own counts above a value.
    pub fn parts_above(&self, value_us: u64) -> Vec<Part> {
        let part = |batch: &Distribution| Part { some: batch.above(value_us), all: batch.n(), blocks: batch.blocks };
        self.batches.iter().map(part).collect()
    }

    /// A percentile's interval for display: the values at the ranks that a binomial with `n_eff` operations leaves open,
    /// `n_eff` being n over how much more the batches vary than independent operations would.
    pub fn display(&self, quantile: f64, confidence: f64) -> Option<PercentileInterval> {
        let alpha = (1.0 - confidence) / 2.0;
        let value_us = self.quantile_us(quantile)?;
        if self.batches.len() < FEWEST {
            return None;
        }
        let parts = self.parts_above(value_us);
        let above = parts.iter().map(|part| part.some).sum::<u64>() as f64 / self.total as f64;
        let half = widest_half(&parts, above, alpha);
        let n_eff = effective(self.total, quantile, half, alpha);
        // Binomial(n_eff, q): ranks of n_eff operations, scaled to n.
        let binomial = Binomial::new(quantile, n_eff).expect("a quantile is a probability");
        let scale = self.total as f64 / n_eff as f64;
        let (low, high) = (binomial.inverse_cdf(alpha), binomial.inverse_cdf(1.0 - alpha) + 1);
        let lower_us = self.whole.at_rank(((low as f64 * scale).floor() as u64).max(1))?;
        let upper_us = if high > n_eff { None } else { self.whole.at_rank((high as f64 * scale).ceil() as u64) };
        Some(PercentileInterval { lower_us, upper_us, n_eff })
    }

    /// The smallest bucket end that a quantile certainly does not exceed; `None`: there is none. `known_excess` is asked
    /// as in [`share`].
    pub fn upper_limit_us(&self, quantile: f64, alpha: f64, known_excess: impl Fn(u64) -> f64) -> Option<u64> {
        let allowed = 1.0 - quantile;
        let holds = |value_us: u64| {
            let share = self.share_above(value_us, allowed, alpha, known_excess(value_us));
            share.is_some_and(|share| share.upper <= allowed)
        };
        let ends = &self.whole.up_to;
        let index = ends.partition_point(|&(end, _)| !holds(end));
        ends.get(index).map(|&(end, _)| end)
    }
}

/// How sure the intervals of a report are.
pub const CONFIDENCE: f64 = 0.95;

/// What the hold of a trial leaves open: events rarer than one in this time, given how many episodes of blocks that break
/// an objective it has. Without any it is a third of the hold, the rule of three; `None`: nothing is gated.
pub fn not_excluded(step: &StepMeasurement, slo: &Slo) -> Option<Duration> {
    let breaks = |block: &FleetBlock| {
        let errors = !slo.error_rate.holds(block.counters.errors(), block.counters.attempted);
        let percentile = slo.series.iter().zip(&block.series).any(|(series, counts)| {
            let above = |gate: &Gate| counts.above.get(gate.above_index).copied().unwrap_or(0);
            series.gates().iter().any(|gate| above(gate) > gate.quantile.allowed_above(counts.n))
        });
        Part { some: u64::from(errors || percentile), all: 1, blocks: 1 }
    };
    let parts: Vec<Part> = step.blocks.iter().map(breaks).collect();
    let most = poisson_upper(Episodes::of(&parts, 0.0).count, 1.0 - CONFIDENCE);
    slo.tightest_limit().map(|_| step.hold.div_f64(most))
}

/// Some of the operations of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Those in question.
    pub some: u64,
    /// Of so many.
    pub all: u64,
    /// Blocks of the batch.
    pub blocks: u32,
}

/// The part that some of the operations are of all, each bound wrong with probability `alpha`; `None`: too few batches.
///
/// The interval is the widest of Student's t over batches merged by 1, 2, 4, …. Few episodes widen it to what their number
/// may have been as well: `allowed` is the part that a batch may have without being one, and `known_excess` what an episode
/// brings, in operations, where that is known from elsewhere and none was seen here.
pub fn share(parts: &[Part], allowed: f64, alpha: f64, known_excess: f64) -> Option<Interval> {
    let total = parts.iter().map(|part| part.all).sum::<u64>() as f64;
    if parts.len() < FEWEST || total == 0.0 {
        return None;
    }
    let estimate = parts.iter().map(|part| part.some).sum::<u64>() as f64 / total;
    let half = widest_half(parts, estimate, alpha);
    let (mut lower, mut upper) = (estimate - half, estimate + half);
    let episodes = Episodes::of(parts, allowed);
    if episodes.count < FEW_EPISODES {
        let excess = if episodes.count == 0 { known_excess } else { episodes.mean_excess() };
        let rest = estimate - episodes.excess / total;
        let with = |expected: f64| rest + expected * excess / total;
        lower = lower.min(with(poisson_lower(episodes.count, alpha)));
        upper = upper.max(with(poisson_upper(episodes.count, alpha)));
    }
    Some(Interval { estimate, lower: lower.max(0.0), upper: upper.min(1.0) })
}

/// Runs of batches with more than the allowed part.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Episodes {
    /// How many.
    pub count: usize,
    /// Operations beyond the allowed part, of all of them.
    excess: f64,
    /// Batches with more than the allowed part.
    batches: usize,
}

impl Episodes {
    /// Those of a hold.
    pub fn of(parts: &[Part], allowed: f64) -> Self {
        let mut episodes = Self::default();
        let mut length = 0;
        for part in parts {
            let excess = part.some as f64 - allowed * part.all as f64;
            if excess <= 0.0 {
                length = 0;
                continue;
            }
            if length == 0 || length + part.blocks > LONGEST_EPISODE {
                episodes.count += 1;
                length = 0;
            }
            length += part.blocks;
            episodes.batches += 1;
            episodes.excess += excess;
        }
        episodes
    }

    /// What one of them brings, where they are events in a hold of so many batches and not its steady state.
    pub fn rare_excess(&self, batches: usize) -> f64 {
        if self.batches * 2 > batches { 0.0 } else { self.mean_excess() }
    }

    /// What one of them brings; 0 without any.
    pub fn mean_excess(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.excess / self.count as f64 }
    }
}

/// A percentile's interval as the report shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileInterval {
    /// Not less than this.
    pub lower_us: u64,
    /// Not more than this; `None`: the hold is too short to say.
    pub upper_us: Option<u64>,
    /// As many independent operations would say as much.
    pub n_eff: u64,
}

/// Half the width of the widest interval over batch sizes 1, 2, 4, …, of which at least [`FEWEST`] there must be. The mean
/// is a ratio of sums, so its spread is that of the residuals.
fn widest_half(parts: &[Part], estimate: f64, alpha: f64) -> f64 {
    let sizes = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| parts.len() / size >= FEWEST);
    let all = parts.iter().map(|part| part.all).sum::<u64>() as f64 / parts.len() as f64;
    let half = |size: usize| {
        let beyond = |part: &Part| part.some as f64 - estimate * part.all as f64;
        let residual = |batch: &[Part]| batch.iter().map(beyond).sum::<f64>() / (all * size as f64);
        let residuals: Vec<f64> = parts.chunks_exact(size).map(residual).collect();
        let count = residuals.len() as f64;
        let mean = residuals.iter().sum::<f64>() / count;
        let variance = residuals.iter().map(|residual| (residual - mean).powi(2)).sum::<f64>() / (count - 1.0);
        student(count - 1.0, alpha) * (variance / count).sqrt()
    };
    sizes.map(half).fold(0.0, f64::max)
}

/// Independent operations whose binomial interval is as wide as ±`half`.
fn effective(n: u64, quantile: f64, half: f64, alpha: f64) -> u64 {
    let z = normal(alpha);
    let independent = z * z * quantile * (1.0 - quantile);
    if half <= 0.0 {
        return n;
    }
    ((independent / (half * half)) as u64).clamp(1, n)
}

fn student(freedom: f64, alpha: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).expect("six batches and more").inverse_cdf(1.0 - alpha)
}

fn normal(alpha: f64) -> f64 {
    // Student's t of very many values.
    student(1e6, alpha)
}

/// The expected number of events at which so few have probability `alpha`.
pub fn poisson_upper(seen: usize, alpha: f64) -> f64 {
    Gamma::new(seen as f64 + 1.0, 1.0).expect("shape is positive").inverse_cdf(1.0 - alpha)
}

/// The expected number of events at which so many have probability `alpha`.
pub fn poisson_lower(seen: usize, alpha: f64) -> f64 {
    if seen == 0 { 0.0 } else { Gamma::new(seen as f64, 1.0).expect("shape is positive").inverse_cdf(alpha) }
}

#[cfg(test)]
mod tests;
