//! Bounds that survive a queue: latencies near capacity depend on each other, so means are taken over batches of blocks,
//! and rare events are counted as what they are.

use statrs::distribution::{ContinuousCDF as _, Gamma, StudentsT};

/// Fewer batches than this say nothing about their spread.
pub const FEWEST_BATCHES: usize = 6;

/// Degrees of freedom up to which quantiles are kept; beyond, they differ by less than 0.3 %.
const KEPT: usize = 512;

/// Events up to which the Poisson bound is kept: with more of them batch means are trusted alone.
pub const FEW_EVENTS: usize = 25;

/// Quantiles for one-sided decisions that are wrong with probability α each.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantiles {
    student: Vec<f64>,
    poisson_upper: Vec<f64>,
}

impl Quantiles {
    /// For this α, between 0 and ½.
    ///
    /// # Panics
    /// When it is not.
    pub fn new(alpha: f64) -> Self {
        assert!(alpha > 0.0 && alpha < 0.5, "α is a small probability");
        let student = |freedom: usize| {
            StudentsT::new(0.0, 1.0, freedom as f64).expect("freedom is positive").inverse_cdf(1.0 - alpha)
        };
        // The rate at which k events or fewer have probability α: a quantile of the gamma distribution of shape k + 1.
        let poisson = |k: usize| Gamma::new(k as f64 + 1.0, 1.0).expect("shape is positive").inverse_cdf(1.0 - alpha);
        Self { student: (1..=KEPT).map(student).collect(), poisson_upper: (0..FEW_EVENTS).map(poisson).collect() }
    }

    /// Student's t for so many degrees of freedom, at least 1.
    pub fn student(&self, freedom: usize) -> f64 {
        self.student[freedom.clamp(1, KEPT) - 1]
    }

    /// What the expected number of events may be at most where there was none: so many operations, each of which might have been
    /// one, show that few are.
    pub fn none_of_so_many(&self) -> f64 {
        self.poisson_upper[0]
    }

    /// What the expected number of events may be at most where `seen` were; `None` for [`FEW_EVENTS`] and more.
    pub fn poisson_upper(&self, seen: usize) -> Option<f64> {
        self.poisson_upper.get(seen).copied()
    }
}

/// A mean and where it may lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// Of all values.
    pub mean: f64,
    /// The lower end of the interval.
    pub lower: f64,
    /// The upper end of the interval.
    pub upper: f64,
}

/// The mean of values that may depend on their neighbours: the widest of the intervals by batches of 1, 2, 4, … values, of
/// which there must be [`FEWEST_BATCHES`]. `None` where there are too few.
pub fn batch_mean(values: &[f64], quantiles: &Quantiles) -> Option<Mean> {
    if values.len() < FEWEST_BATCHES {
        return None;
    }
    let mean = average(values);
    let sizes =
        std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|s| values.len() / s >= FEWEST_BATCHES);
    let start = Mean { mean, lower: mean, upper: mean };
    Some(sizes.fold(start, |widest, size| {
        let (below, above) = half_widths(values, size, quantiles);
        Mean { mean, lower: widest.lower.min(mean - below), upper: widest.upper.max(mean + above) }
    }))
}

/// How far the mean may be off, below and above, by batches of one size. Parts over a limit are skewed: most batches have
/// few and some have many, so the plain t interval reaches too far down. Johnson's correction (1978) moves its lower end
/// up; the upper end stays, and rare events are its guard.
fn half_widths(values: &[f64], size: usize, quantiles: &Quantiles) -> (f64, f64) {
    let means: Vec<f64> = values.chunks_exact(size).map(average).collect();
    let (count, mean) = (means.len() as f64, average(&means));
    let moment = |power: i32| means.iter().map(|value| (value - mean).powi(power)).sum::<f64>();
    let variance = moment(2) / (count - 1.0);
    if variance <= 0.0 {
        return (0.0, 0.0);
    }
    let skewness = moment(3) / count / (moment(2) / count).powf(1.5);
    let t = quantiles.student(means.len() - 1);
    let error = (variance / count).sqrt();
    let shift = skewness.max(0.0) * (1.0 + 2.0 * t * t) / (6.0 * count.sqrt());
    // Never beyond what half the quantile says: the correction is one of the first order.
    (error * (t - shift).max(t / 2.0), error * t)
}

/// Of at least one value.
pub fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_are_those_of_the_printed_tables() {
        let q = Quantiles::new(0.01);
        for (freedom, t) in [(1, 31.821), (5, 3.365), (12, 2.681), (30, 2.457), (120, 2.358)] {
            assert!((q.student(freedom) - t).abs() < 0.001, "t({freedom}) = {}", q.student(freedom));
        }
        for (seen, upper) in [(0, 4.605), (1, 6.638), (3, 10.045), (10, 20.145)] {
            assert!((q.poisson_upper(seen).unwrap() - upper).abs() < 0.001, "{seen}: {:?}", q.poisson_upper(seen));
        }
        assert_eq!(q.poisson_upper(FEW_EVENTS), None);
        assert!((Quantiles::new(0.05).student(10) - 1.812).abs() < 0.001);
    }

    #[test]
    fn fewer_than_six_values_have_no_interval() {
        let q = Quantiles::new(0.01);
        assert_eq!(batch_mean(&[0.0; 5], &q), None);
        assert_eq!(batch_mean(&[0.25; 6], &q), Some(Mean { mean: 0.25, lower: 0.25, upper: 0.25 }));
    }

    #[test]
    fn values_that_hang_together_widen_the_interval() {
        let q = Quantiles::new(0.01);
        let alternating: Vec<f64> = (0..96).map(|i| f64::from(i % 2)).collect();
        let in_runs: Vec<f64> = (0..96).map(|i| f64::from(i / 8 % 2)).collect();
        let (alternating, in_runs) = (batch_mean(&alternating, &q).unwrap(), batch_mean(&in_runs, &q).unwrap());
        assert_eq!(alternating.mean, in_runs.mean);
        let width = |mean: Mean| mean.upper - mean.lower;
        assert!(width(in_runs) > 2.0 * width(alternating), "{in_runs:?} {alternating:?}");
    }

    proptest! {
        #[test]
        fn an_interval_holds_its_mean_and_moves_with_its_values(
            values in prop::collection::vec(0.0_f64..1.0, 6..200), shift in 0.0_f64..10.0,
        ) {
            let q = Quantiles::new(0.01);
            let mean = batch_mean(&values, &q).unwrap();
            prop_assert!(mean.lower <= mean.mean && mean.mean <= mean.upper);
            let shifted: Vec<f64> = values.iter().map(|value| value + shift).collect();
            let moved = batch_mean(&shifted, &q).unwrap();
            prop_assert!((moved.mean - mean.mean - shift).abs() < 1e-9 && (moved.upper - mean.upper - shift).abs() < 1e-6);
        }
    }
}
