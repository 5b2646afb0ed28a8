//! Whether a service falls behind although no limit is broken yet. A queue that fills up to a latency limit of 200 ms takes
//! eight seconds at 2.5 % too much load: a trial that ends before looks good at every percentile.

/// The first block is left out: operations only set out in it.
const SKIPPED: usize = 1;
/// Fewer blocks than this rise by chance.
const FEWEST_BLOCKS: usize = 4;
/// So much of what varies has to be a steady rise (the coefficient of determination of a straight line).
const STEADY: f64 = 0.9;
/// Less than this part of the load is not told from no rise at all.
const LEAST: f64 = 0.01;

/// The part of what came in that stayed: by how much the number of operations under way rose per block, if it did so steadily.
/// Zero where it did not. Both slices have one entry per block of the hold.
pub fn behind(attempted: &[u64], ended: &[u64]) -> f64 {
    let blocks = attempted.len().min(ended.len());
    let Some(pairs) = (SKIPPED + FEWEST_BLOCKS <= blocks).then_some(SKIPPED..blocks) else { return 0.0 };
    let came_in: f64 = pairs.clone().map(|block| attempted[block] as f64).sum();
    let mut open = 0.0;
    let under_way = pairs.map(|block| {
        open += attempted[block] as f64 - ended[block] as f64;
        open
    });
    let under_way: Vec<f64> = under_way.collect();
    let count = under_way.len() as f64;
    let (middle, mean) = ((count - 1.0) / 2.0, under_way.iter().sum::<f64>() / count);
    let (mut along, mut both, mut across) = (0.0, 0.0, 0.0);
    for (at, open) in (0_u32..).map(f64::from).zip(&under_way) {
        let (x, y) = (at - middle, open - mean);
        (along, both, across) = (along + x * x, both + x * y, across + y * y);
    }
    let (rise, steadiness) = (both / along, both * both / (along * across).max(f64::MIN_POSITIVE));
    let part = rise * count / came_in.max(1.0);
    if part >= LEAST && steadiness >= STEADY { part } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rises_steadily_is_what_the_service_does_not_carry() {
        let attempted = [6405; 12];
        // It carries 12,500 of 12,810 a second.
        let part = behind(&attempted, &[6250; 12]);
        assert!((part - 155.0 / 6405.0).abs() < 1e-9, "{part}");
        // A first block in which less ends than sets out is none of it.
        let mut ended = [6405; 12];
        ended[0] = 3000;
        assert_eq!(behind(&attempted, &ended), 0.0);
    }

    #[test]
    fn what_goes_up_and_down_or_hardly_up_is_no_overload() {
        let attempted = [1000; 8];
        for (ended, words) in [
            (vec![1000, 900, 1100, 850, 1150, 900, 1100, 1000], "a latency that wanders"),
            (vec![1000, 1000, 1000, 500, 1000, 1000, 1000, 1000], "one stall"),
            (vec![1000, 995, 995, 995, 995, 995, 995, 995], "half a per cent"),
            (vec![1000, 1050, 1050, 1050, 1050, 1050, 1050, 1050], "a backlog that is worked off"),
        ] {
            assert_eq!(behind(&attempted, &ended), 0.0, "{words}");
        }
        assert_eq!(behind(&attempted[..4], &[900; 4]), 0.0, "too short to tell");
        assert_eq!((behind(&[], &[]), behind(&[0; 8], &[0; 8])), (0.0, 0.0));
    }
}
