//! When operations are due: a pure schedule of intended times that never waits for anybody.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// Intended times of one worker in one phase, in order, as nanoseconds since the phase began.
#[derive(Debug, Clone)]
pub struct Schedule {
    length_ns: u64,
    count: u64,
    given: u64,
    spread: Spread,
}

#[derive(Debug, Clone)]
enum Spread {
    /// Time n is (n + phase) intervals after the start.
    Uniform { phase_ppm: u64 },
    /// Uniform order statistics: a Poisson process given its count. Drawn in ascending order without keeping them: of
    /// m points left in (t, T), the first is at t + (T − t)·(1 − U^(1/m)) (Bentley and Saxe, 1980).
    Poisson { elapsed: f64, chance: Box<ChaCha8Rng> },
}

impl Schedule {
    /// `count` intended times evenly over `length_ns`, beginning `phase_ppm` millionths of an interval after the start.
    pub fn uniform(count: u64, length_ns: u64, phase_ppm: u32) -> Self {
        Self { length_ns, count, given: 0, spread: Spread::Uniform { phase_ppm: u64::from(phase_ppm) } }
    }

    /// Exactly `count` intended times over `length_ns`, as independent users would choose them.
    pub fn poisson(count: u64, length_ns: u64, chance: ChaCha8Rng) -> Self {
        Self { length_ns, count, given: 0, spread: Spread::Poisson { elapsed: 0.0, chance: Box::new(chance) } }
    }

    /// How many times are still to come.
    pub fn left(&self) -> u64 {
        self.count - self.given
    }
}

impl Iterator for Schedule {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        if self.given == self.count {
            return None;
        }
        let left = (self.count - self.given) as f64;
        let at = match &mut self.spread {
            Spread::Uniform { phase_ppm } => {
                let millionths = u128::from(self.given) * 1_000_000 + u128::from(*phase_ppm);
                (millionths * u128::from(self.length_ns) / (u128::from(self.count) * 1_000_000)) as u64
            }
            Spread::Poisson { elapsed, chance } => {
                // 1 − U lies in (0, 1], so that the logarithm is finite.
                let uniform = 1.0 - chance.random::<f64>();
                *elapsed += (self.length_ns as f64 - *elapsed) * -(uniform.ln() / left).exp_m1();
                *elapsed as u64
            }
        };
        self.given += 1;
        Some(at.min(self.length_ns.saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;

    const SECOND: u64 = 1_000_000_000;

    fn poisson(count: u64, seed: u64) -> Vec<u64> {
        Schedule::poisson(count, 10 * SECOND, ChaCha8Rng::seed_from_u64(seed)).collect()
    }

    proptest! {
        #[test]
        fn the_count_is_what_was_asked_and_times_ascend_within_the_window(
            count in 0_u64..5_000, seed in any::<u64>(), phase in 0_u32..1_000_000,
        ) {
            for times in [poisson(count, seed), Schedule::uniform(count, 10 * SECOND, phase).collect()] {
                prop_assert_eq!(times.len() as u64, count);
                prop_assert!(times.is_sorted());
                prop_assert!(times.iter().all(|&at| at < 10 * SECOND));
            }
        }
    }

    #[test]
    fn uniform_times_are_an_interval_apart_and_staggered_by_the_phase() {
        let times: Vec<u64> = Schedule::uniform(4, SECOND, 500_000).collect();
        assert_eq!(times, [125_000_000, 375_000_000, 625_000_000, 875_000_000]);
    }

    #[test]
    fn poisson_counts_per_slice_vary_as_a_poisson_processs_do() {
        // 100,000 points in 1,000 slices: mean 100, variance that of a multinomial, 100 × (1 − 1/1000).
        let mut slices = vec![0_f64; 1000];
        poisson(100_000, 7).iter().for_each(|at| slices[(at * 1000 / (10 * SECOND)) as usize] += 1.0);
        let variance = slices.iter().map(|n| (n - 100.0).powi(2)).sum::<f64>() / 1000.0;
        assert!((80.0..120.0).contains(&variance), "{variance}");
    }

    #[test]
    fn other_seeds_give_other_times() {
        assert_ne!(poisson(100, 1), poisson(100, 2));
        assert_eq!(poisson(100, 1), poisson(100, 1));
    }
}
