//! How fast a durable falls behind, from reads of which single ones lie.

use super::outcome::Read;
use super::statistics::{FEWEST_BATCHES, Mean, Quantiles, average};

/// Seconds of hold in the shortest piece that has a slope of its own: five reads or more, of which one may lie.
const PIECE: f64 = 2.5;

/// Fewer reads than this have no slope that a single hiccup could not turn.
const FEWEST_READS: usize = 5;

/// The median of the slopes between all pairs of reads, in messages per second; `None` of too few reads.
pub fn slope(reads: &[Read]) -> Option<f64> {
    if reads.len() < FEWEST_READS {
        return None;
    }
    // Thirty reads are enough for a median; a long hold would make thousands of pairs more.
    let step = reads.len().div_ceil(30);
    let reads: Vec<Read> = reads.iter().copied().step_by(step).collect();
    let pairs = (0..reads.len()).flat_map(|i| (i + 1..reads.len()).map(move |j| (i, j)));
    let mut slopes: Vec<f64> = pairs
        .filter(|&(i, j)| reads[j].at > reads[i].at)
        .map(|(i, j)| (reads[j].backlog - reads[i].backlog) / (reads[j].at - reads[i].at))
        .collect();
    slopes.sort_unstable_by(f64::total_cmp);
    let upper = *slopes.get(slopes.len() / 2)?;
    Some((upper + slopes[(slopes.len() - 1) / 2]) / 2.0)
}

/// The mean slope over the pieces of several trials, with the widest of the intervals by pieces of 2.5, 5, 10, … seconds.
/// `None` where there are too few pieces.
pub fn pooled<'a>(trials: impl Iterator<Item = &'a [Read]> + Clone, quantiles: &Quantiles) -> Option<Mean> {
    let mut found: Option<Mean> = None;
    let mut length = PIECE;
    loop {
        let slopes: Vec<f64> = trials.clone().flat_map(|reads| pieces(reads, length)).collect();
        if slopes.len() < FEWEST_BATCHES {
            return found;
        }
        let mean = average(&slopes);
        let squares: f64 = slopes.iter().map(|slope| (slope - mean).powi(2)).sum();
        let count = slopes.len() as f64;
        let half = quantiles.student(slopes.len() - 1) * (squares / (count - 1.0) / count).sqrt();
        if found.is_none_or(|found| half > found.upper - found.mean) {
            found = Some(Mean { mean, lower: mean - half, upper: mean + half });
        }
        length *= 2.0;
    }
}

fn pieces(reads: &[Read], length: f64) -> Vec<f64> {
    let piece = |read: &Read| (read.at.max(0.0) / length) as u64;
    // The last piece may be cut short: it would weigh as much as a whole one.
    let whole = |reads: &&[Read]| matches!((reads.first(), reads.last()), (Some(first), Some(last)) if last.at - first.at > 0.7 * length);
    reads.chunk_by(|a, b| piece(a) == piece(b)).filter(whole).filter_map(slope).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(seconds: u32, backlog: impl Fn(f64) -> f64) -> Vec<Read> {
        (0..seconds * 2).map(|i| f64::from(i) / 2.0).map(|at| Read { at, backlog: backlog(at) }).collect()
    }

    #[test]
    fn a_read_that_lies_does_not_turn_the_slope() {
        let hiccup = |at: f64| if at == 2.0 { 1600.0 } else { 3.0 + 20.0 * at };
        assert!((slope(&reads(3, hiccup)).unwrap() - 20.0).abs() < 5.0);
        assert_eq!(slope(&reads(2, |_| 0.0)), None);
    }

    #[test]
    fn slopes_are_pooled_over_trials_and_their_scatter_shows() {
        let quantiles = Quantiles::new(0.01);
        let trials: Vec<Vec<Read>> = (0..3).map(|_| reads(5, |at| 100.0 + 40.0 * at)).collect();
        let steady = pooled(trials.iter().map(Vec::as_slice), &quantiles).unwrap();
        assert!((steady.mean - 40.0).abs() < 1e-9 && steady.upper - steady.lower < 1e-9, "{steady:?}");
        let trials: Vec<Vec<Read>> = [-30.0, 10.0, 80.0].iter().map(|s| reads(5, move |at| s * at)).collect();
        let scattered = pooled(trials.iter().map(Vec::as_slice), &quantiles).unwrap();
        assert!(scattered.lower < 0.0 && scattered.upper > 40.0, "{scattered:?}");
    }

    #[test]
    fn five_pieces_are_too_few() {
        let quantiles = Quantiles::new(0.01);
        let reads = reads(12, |at| at);
        assert_eq!(pooled(std::iter::once(reads.as_slice()), &quantiles), None);
    }
}
