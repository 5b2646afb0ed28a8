//! In how many blocks of the hold a box left operations out, or spoiled them.

use plimsoll_common::snapshot::BlockDelta;

use super::health::Window;

/// More than one in so many due make a block one that the box did not carry.
const ONE_IN: u64 = 100;

/// One agent's operations, by kept block.
#[derive(Debug, Clone, Default)]
pub(super) struct Spoilt {
    blocks: Vec<Block>,
    per_kept: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    due: u64,
    /// What the box left out because it woke too late, what failed, and for each limit what was slower.
    bad: u64,
    /// As much of that as is not the box's doing.
    bad_anyway: u64,
}

impl Spoilt {
    pub(super) fn add(&mut self, window: &Window, delta: &BlockDelta) {
        self.per_kept = window.blocks_per_kept();
        let kept = window.kept(delta.block);
        if self.blocks.len() <= kept {
            self.blocks.resize(kept + 1, Block::default());
        }
        let block = &mut self.blocks[kept];
        let counters = &delta.counters;
        let series = || delta.series.iter();
        let bad =
            [counters.underrun, counters.errors()].into_iter().chain(series().flat_map(|counts| counts.above.clone()));
        let anyway =
            std::iter::once(counters.failed_anyway).chain(series().flat_map(|counts| counts.above_anyway.clone()));
        block.due = block.due.saturating_add(counters.due);
        block.bad = bad.fold(block.bad, u64::saturating_add);
        block.bad_anyway = anyway.fold(block.bad_anyway, u64::saturating_add);
    }

    /// Blocks that it did not carry.
    pub(super) fn blocks(&self) -> u32 {
        let is_spoilt = |block: &&Block| block.bad.saturating_sub(block.bad_anyway).saturating_mul(ONE_IN) > block.due;
        let spoilt = self.blocks.iter().filter(is_spoilt).count();
        u32::try_from(spoilt).unwrap_or(u32::MAX).saturating_mul(self.per_kept)
    }
}
