//! Drawing one of many by weight in constant time.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// A discrete distribution over `0..n` (Vose's alias method, IEEE Transactions on Software Engineering 17(9), 1991).
#[derive(Debug, Clone, Default)]
pub struct AliasTable {
    /// Per column: the part of it that is its own, scaled to 2^32, and who has the rest.
    columns: Vec<(u32, u32)>,
}

impl AliasTable {
    /// A table of positive weights. Empty weights make an empty table, from which nothing can be drawn.
    pub fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut scaled: Vec<f64> = weights.iter().map(|weight| weight * weights.len() as f64 / total).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&i| scaled[i] < 1.0);
        let mut columns: Vec<(u32, u32)> = (0..weights.len() as u32).map(|i| (u32::MAX, i)).collect();
        while let (Some(&less), Some(&more)) = (small.last(), large.last()) {
            small.pop();
            columns[less] = ((scaled[less] * 4_294_967_296.0) as u32, more as u32);
            scaled[more] -= 1.0 - scaled[less];
            if scaled[more] < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        Self { columns }
    }

    /// One index, with the probability of its weight.
    ///
    /// # Panics
    /// When the table is empty.
    #[inline]
    pub fn draw(&self, chance: &mut ChaCha8Rng) -> u32 {
        let bits: u64 = chance.random();
        let column = (((bits >> 32) * self.columns.len() as u64) >> 32) as u32;
        let (own, other) = self.columns[column as usize];
        if bits as u32 <= own { column } else { other }
    }

    /// Whether nothing can be drawn.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn draws_follow_the_weights() {
        let weights = [1.0, 2.0, 3.0, 0.5, 93.5];
        let (table, mut chance) = (AliasTable::new(&weights), ChaCha8Rng::seed_from_u64(1));
        let mut drawn = [0_u32; 5];
        for _ in 0..1_000_000 {
            drawn[table.draw(&mut chance) as usize] += 1;
        }
        for (drawn, weight) in drawn.iter().zip(weights) {
            let expected = weight * 10_000.0;
            // Five standard deviations of a binomial count.
            assert!((f64::from(*drawn) - expected).abs() < 5.0 * expected.sqrt(), "{drawn} against {expected}");
        }
    }
}
