//! The levels that a search compares: half steps of the asked precision around its best guess, as people write numbers.

use plimsoll_common::units::Rate;

use super::plan::Levels;

/// As a rate, more than these are none.
const MOST_USERS: u64 = 1_000_000_000;

/// Levels at half steps: two neighbours of a pair are a whole step apart, and pairs overlap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    centre: f64,
    /// The largest part by which the upper level of a pair may lie above the lower one.
    width: f64,
    levels: Levels,
}

/// Two levels, a step apart: one that should pass and one that should trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The lower.
    pub low: Rate,
    /// The upper.
    pub high: Rate,
}

/// Rounding both levels to four digits widens their ratio by at most this factor: half a unit of the fourth digit each.
const ROUNDING: f64 = 1.0011;

impl Grid {
    /// Around a guess. `width` is the asked precision, such as 0.05.
    pub fn around(centre: f64, width: f64, levels: Levels) -> Self {
        Self { centre, width, levels }
    }

    /// Whose first pair begins at this level.
    pub fn from(low: Rate, width: f64, levels: Levels) -> Self {
        let grid = Self::around(low.as_f64(), width, levels);
        Self { centre: low.as_f64() * grid.half_step().exp(), ..grid }
    }

    /// The same levels in other steps around another guess.
    pub fn again(&self, centre: f64, width: f64) -> Self {
        Self { centre, width, ..*self }
    }

    /// Operations per second that a level makes.
    pub fn operations(&self, level: Rate) -> f64 {
        self.levels.operations(level.as_f64())
    }

    /// What its levels are.
    pub fn levels(&self) -> Levels {
        self.levels
    }

    /// The asked precision.
    pub fn width(&self) -> f64 {
        self.width
    }

    fn half_step(&self) -> f64 {
        ((1.0 + self.width) / ROUNDING).ln() / 2.0
    }

    /// The pair whose middle lies so many half steps above the first guess.
    pub fn pair(&self, index: i32) -> Pair {
        let (low, high) = (self.level(index - 1), self.level(index + 1));
        match self.levels {
            Levels::Rates => Pair { low, high },
            // Of few users whole numbers are coarse: as near as was asked, or next to each other.
            Levels::Users(_) => {
                let low = (low.milli() / 1000).min(MOST_USERS - 1);
                let farthest = (low as f64 * (1.0 + self.width)) as u64;
                let high = (high.milli() / 1000).min(farthest).max(low + 1);
                let whole = |users: u64| Rate::per_second(users).expect("at least one, and no more than a rate may be");
                Pair { low: whole(low), high: whole(high) }
            }
        }
    }

    fn level(&self, index: i32) -> Rate {
        self.levels.round(self.centre * (self.half_step() * f64::from(index)).exp())
    }

    /// The pair whose middle is nearest to a guess.
    pub fn nearest(&self, guess: f64) -> i32 {
        ((guess / self.centre).ln() / self.half_step()).round().clamp(-1e6, 1e6) as i32
    }

    /// How far a guess is from the middle of a pair, in half steps.
    pub fn offset(&self, index: i32, guess: f64) -> f64 {
        (guess / self.centre).ln() / self.half_step() - f64::from(index)
    }
}

/// A level as people write it: four digits, and whole requests per second where that is finer.
pub fn round(level: f64) -> Rate {
    let milli = (level * 1000.0).clamp(1.0, 1e12);
    let grain = 10_f64.powi((milli.log10().floor() as i32 - 3).max(0));
    let rounded = (milli / grain).round() * grain;
    Rate::from_milli(rounded as u64).expect("within the bounds of a rate")
}

impl Pair {
    /// By how much the upper level lies above the lower one.
    pub fn width(&self) -> f64 {
        self.high.as_f64() / self.low.as_f64() - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::search::plan::{Bound, Users};
    use proptest::prelude::*;

    #[test]
    fn levels_have_four_digits() {
        for (level, text) in
            [(19_026.3, "19030"), (3_121.7, "3122"), (899.96, "900"), (12.3456, "12.35"), (0.0001, "0.001")]
        {
            assert_eq!(round(level).to_string(), text);
        }
    }

    #[test]
    fn pairs_overlap_by_half() {
        let grid = Grid::around(1000.0, 0.05, Levels::Rates);
        let (pair, above) = (grid.pair(0), grid.pair(1));
        assert_eq!((pair.low.to_string(), pair.high.to_string()), ("976.4".into(), "1024".into()));
        assert_eq!((above.low.to_string(), above.high.to_string()), ("1000".into(), "1049".into()));
        assert_eq!(grid.pair(2).low, pair.high);
        assert_eq!((grid.nearest(1000.0), grid.nearest(1030.0), grid.nearest(990.0)), (0, 1, 0));
    }

    #[test]
    fn rounding_does_not_widen_a_wide_pair() {
        let pair = Grid::around(857_149.482_494_539_1, 0.482, Levels::Rates).pair(37);
        assert!(pair.width() <= 0.482, "{pair:?} {}", pair.width());
    }

    proptest! {
        /// As long as a rate has four digits (below one request per second it has thousandths) and does not meet its end.
        #[test]
        fn no_pair_is_wider_than_asked(centre in 1.0_f64..1e6, index in -40_i32..40, per_mille in 5_u32..500) {
            let width = f64::from(per_mille) / 1000.0;
            let pair = Grid::around(centre, width, Levels::Rates).pair(index);
            prop_assume!(pair.low >= round(1.0) && pair.high < round(f64::MAX));
            prop_assert!(pair.low < pair.high && pair.width() <= width, "{pair:?} {}", pair.width());
        }

        #[test]
        fn pairs_of_users_are_whole_and_as_near_as_asked_or_next_to_each_other(
            centre in 1.0_f64..1e6, index in -40_i32..40, per_mille in 5_u32..500,
        ) {
            let width = f64::from(per_mille) / 1000.0;
            let users = Users { operations: 0.1, activation: 1.0, fewest: 3, bound: Bound::Seeded };
            let Pair { low, high } = Grid::around(centre, width, Levels::Users(users)).pair(index);
            prop_assume!(high < round(f64::MAX));
            prop_assert!(low.milli() % 1000 == 0 && high.milli() % 1000 == 0 && low.milli() >= 3_000 && low < high);
            let near = high.as_f64() / low.as_f64() <= 1.0 + width;
            prop_assert!(near || high.milli() == low.milli() + 1000, "{low} {high} {width}");
        }
    }
}
