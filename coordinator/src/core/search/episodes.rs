//! Rare events: near capacity information comes in episodes (busy periods, stalls, compactions), not in operations, so a
//! conclusion needs enough of them or their plain absence for long enough.

use super::statistics::Quantiles;

/// An episode is cut after so many blocks, so that steady overload is many.
const LONGEST: usize = 5;

/// With fewer episodes than this one more could be as large as the largest that was seen.
const VERY_FEW: usize = 8;

/// Runs of violating blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Episodes {
    /// How many.
    pub count: usize,
    /// The sum of the fractions of all their blocks.
    pub mass: f64,
    /// The largest sum of one of them.
    pub largest: f64,
    /// The sum of their squared sums.
    squares: f64,
}

impl Episodes {
    /// The episodes of a trial's blocks, given as fractions over a limit, where `allowed` may be.
    pub fn of(fractions: &[f64], allowed: f64) -> Self {
        let mut episodes = Self::default();
        let (mut run, mut mass) = (0, 0.0);
        for &fraction in fractions.iter().chain(std::iter::once(&0.0)) {
            if run > 0 && (fraction <= allowed || run == LONGEST) {
                episodes.push(mass);
                (run, mass) = (0, 0.0);
            }
            if fraction > allowed {
                run += 1;
                mass += fraction;
            }
        }
        episodes
    }

    fn push(&mut self, mass: f64) {
        self.count += 1;
        self.mass += mass;
        self.largest = self.largest.max(mass);
        self.squares += mass * mass;
    }

    /// Adds those of another trial.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.mass += other.mass;
        self.largest = self.largest.max(other.largest);
        self.squares += other.squares;
    }

    /// The coefficient of variation of their sums, squared; 0 for fewer than two.
    pub fn variation_squared(&self) -> f64 {
        if self.count < 2 || self.mass <= 0.0 {
            return 0.0;
        }
        let mean = self.mass / self.count as f64;
        (self.squares / self.count as f64 / (mean * mean) - 1.0).max(0.0)
    }

    /// Whether so few episodes in so many blocks leave room for a mean above what is allowed. `largest_known` is the
    /// largest episode of the search at this level or below.
    pub fn leave_doubt(&self, blocks: usize, allowed: f64, largest_known: f64, quantiles: &Quantiles) -> bool {
        let Some(expected) = quantiles.poisson_upper(self.count) else { return false };
        let mean = if self.count == 0 { 0.0 } else { self.mass / self.count as f64 };
        let ordinary = 1.3 * mean;
        let mass = if self.count < VERY_FEW { ordinary.max(largest_known) } else { ordinary };
        expected * mass > allowed * blocks as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_is_a_run_of_violating_blocks_and_at_most_five_of_them() {
        for (fractions, count, largest) in [
            (&[0.0, 0.0][..], 0, 0.0),
            (&[0.5, 0.0, 0.5], 2, 0.5),
            (&[0.0, 0.5, 0.25, 0.0], 1, 0.75),
            (&[1.0; 5], 1, 5.0),
            (&[1.0; 6], 2, 5.0),
            (&[1.0; 20], 4, 5.0),
            (&[0.01, 0.009], 0, 0.0),
        ] {
            let episodes = Episodes::of(fractions, 0.01);
            assert_eq!((episodes.count, episodes.largest), (count, largest), "{fractions:?}");
        }
    }

    #[test]
    fn a_conclusion_does_not_rest_on_three_episodes() {
        let quantiles = Quantiles::new(0.01);
        let three = Episodes::of(&[0.2, 0.0, 0.2, 0.0, 0.2], 0.01);
        // Three of 0.2 in 100 blocks are 0.6 % on average, and ten of them would be as likely.
        assert!(three.leave_doubt(100, 0.01, 0.2, &quantiles));
        assert!(!three.leave_doubt(400, 0.01, 0.2, &quantiles));
    }

    #[test]
    fn one_large_episode_seen_before_is_expected_again() {
        let quantiles = Quantiles::new(0.01);
        assert!(!Episodes::default().leave_doubt(100, 0.01, 0.0, &quantiles));
        assert!(Episodes::default().leave_doubt(100, 0.01, 0.5, &quantiles));
    }
}
