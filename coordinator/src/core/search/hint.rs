//! What a single short trial hints at: quick, by point values, and never a verdict.

use super::evidence::{fractions_at_least, mean_at_most};
use super::outcome::{Limits, Showing};
use super::slope::{longest_undisturbed, slope};

/// What a short trial hints at.
#[derive(Debug, Clone, PartialEq)]
pub enum Hint {
    /// Over these limits, by position.
    Over(Vec<usize>),
    /// Over none.
    Under,
    /// Over none yet, but so much of what came in was left undone that a longer trial would be.
    Behind(f64),
    /// Over one, but not by what the service did alone.
    Unclear,
}

/// A block is gross where more than half of its operations are over a limit.
const GROSS: f64 = 0.5;
/// So many gross blocks in a row are no accident; one less where the part over the limit does not fall.
const GROSS_BLOCKS: usize = 3;
/// Violations of so many times what the whole trial is allowed end it.
const HOPELESS: f64 = 1.5;
/// A backlog that rises by less than this in a trial is noise.
const NOISE: f64 = 50.0;

/// What a trial that is over hints at, of the limits in `focus`.
pub fn hint(showing: &Showing, limits: &Limits, focus: &[usize]) -> Hint {
    let over: Vec<usize> = focus.iter().copied().filter(|&limit| is_over(showing, limits, limit)).collect();
    if !over.is_empty() {
        return Hint::Over(over);
    }
    let doubtful = |&limit: &usize| match limits.fractions.get(limit) {
        Some(fraction) => mean_at_most(&showing.blocks, limit).is_none_or(|mean| mean > fraction.allowed),
        None => slope(reads(showing, limits, limit)).is_none(),
    };
    if focus.iter().any(doubtful) { Hint::Unclear } else { Hint::Under }
}

fn is_over(showing: &Showing, limits: &Limits, limit: usize) -> bool {
    match limits.fractions.get(limit) {
        Some(fraction) => {
            let sum: f64 = fractions_at_least(&showing.blocks, limit).iter().sum();
            sum > fraction.allowed * showing.blocks.len() as f64
        }
        None => {
            let allowed = limits.slopes[limit - limits.fractions.len()].per_second;
            rises_beyond(reads(showing, limits, limit), allowed)
        }
    }
}

fn reads<'a>(showing: &'a Showing, limits: &Limits, limit: usize) -> &'a [super::outcome::Read] {
    longest_undisturbed(showing, limit - limits.fractions.len())
}

fn rises_beyond(reads: &[super::outcome::Read], per_second: f64) -> bool {
    let (Some(first), Some(last), Some(slope)) = (reads.first(), reads.last(), slope(reads)) else { return false };
    slope > per_second && slope * (last.at - first.at) > NOISE
}

/// Whether a trial of `planned` blocks at this many operations per second cannot but be over a limit in `focus`.
pub fn is_hopeless(showing: &Showing, limits: &Limits, focus: &[usize], planned: usize, rate: f64) -> bool {
    let hopeless = |&limit: &usize| match limits.fractions.get(limit) {
        Some(fraction) => {
            let fractions = fractions_at_least(&showing.blocks, limit);
            let violating = fractions.iter().filter(|&&value| value > fraction.allowed).count();
            let spent = fractions.iter().sum::<f64>() > HOPELESS * fraction.allowed * planned as f64;
            spent && (violating >= GROSS_BLOCKS || is_gross(&fractions))
        }
        // A tenth of what comes in stays: no noise, and no start from empty, is as much.
        None => {
            let allowed = limits.slopes[limit - limits.fractions.len()].per_second;
            let reads = reads(showing, limits, limit);
            let long_enough = matches!((reads.first(), reads.last()), (Some(a), Some(b)) if b.at - a.at >= 1.0);
            long_enough && rises_beyond(reads, allowed.max(0.1 * rate))
        }
    };
    focus.iter().any(hopeless)
}

/// Whether a trial that may not be over a limit at all has more over it already than it may have in the end.
pub fn cannot_pass(showing: &Showing, limits: &Limits, focus: &[usize], planned: usize) -> bool {
    let spent = |&limit: &usize| {
        limits.fractions.get(limit).is_some_and(|fraction| {
            let sum: f64 = fractions_at_least(&showing.blocks, limit).iter().sum();
            sum > fraction.allowed * planned as f64
        })
    };
    focus.iter().any(spent)
}

fn is_gross(fractions: &[f64]) -> bool {
    let run = fractions.iter().rev().take_while(|&&fraction| fraction > GROSS).count();
    let rising = matches!(fractions, [.., before, last] if last >= before);
    run >= GROSS_BLOCKS || (run + 1 == GROSS_BLOCKS && rising)
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{Block, Count, FractionLimit, Read, Signal, SlopeLimit};
    use super::*;
    use crate::core::backlog::DurableName;

    fn limits() -> Limits {
        let durable = DurableName { stream: "S".into(), durable: "d".into() };
        Limits {
            fractions: vec![FractionLimit { signal: Signal::ErrorRate, allowed: 0.01, rare: false }],
            slopes: vec![SlopeLimit { durable, per_second: 30.0 }],
        }
    }

    fn showing(percent: &[u64], slope: f64) -> Showing {
        let block =
            |&percent: &u64| Block { counts: vec![Count { n: 100, above: percent, anyway: percent }], void: false };
        let reads = (0..percent.len() * 4)
            .map(|i| i as f64 / 8.0)
            .map(|at| Read { at, backlog: slope * at, surplus: 0.0 })
            .collect();
        Showing { blocks: percent.iter().map(block).collect(), reads: vec![reads] }
    }

    #[test]
    fn hints_are_point_values() {
        for (percent, slope, expected) in [
            (&[0, 0, 1, 1][..], 0.0, Hint::Under),
            (&[0, 0, 3, 2], 0.0, Hint::Over(vec![0])),
            (&[0, 0, 0, 0], 40.0, Hint::Over(vec![1])),
            // 40 a second for a second are forty messages: noise.
            (&[0, 0], 40.0, Hint::Under),
        ] {
            assert_eq!(hint(&showing(percent, slope), &limits(), &[0, 1]), expected, "{percent:?} {slope}");
        }
    }

    #[test]
    fn what_only_the_boxes_did_is_unclear() {
        let mut showing = showing(&[50, 0, 0, 0], 0.0);
        showing.blocks[0].void = true;
        assert_eq!(hint(&showing, &limits(), &[0]), Hint::Unclear);
        assert_eq!(hint(&Showing::default(), &limits(), &[0]), Hint::Unclear);
    }

    #[test]
    fn a_trial_ends_as_soon_as_its_outcome_is_clear() {
        for (percent, slope, hopeless) in [
            (&[100][..], 0.0, false),
            (&[60, 100], 0.0, true),
            (&[100, 60], 0.0, false),
            (&[100, 60, 55], 0.0, true),
            (&[40, 0, 40], 0.0, false),
            (&[40, 0, 40, 40], 0.0, true),
            (&[0, 0, 0], 120.0, true),
            (&[0, 0, 0], 90.0, false),
        ] {
            let got = is_hopeless(&showing(percent, slope), &limits(), &[0, 1], 4, 1000.0);
            assert_eq!(got, hopeless, "{percent:?} {slope}");
        }
    }

    #[test]
    fn a_soak_ends_when_its_allowance_is_spent() {
        assert!(!cannot_pass(&showing(&[50, 50], 0.0), &limits(), &[0], 120));
        assert!(cannot_pass(&showing(&[50, 50, 21], 0.0), &limits(), &[0], 120));
    }
}
