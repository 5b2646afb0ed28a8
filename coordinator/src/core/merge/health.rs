//! Which blocks of wall time belong to the hold, and what an agent's box did in them.

use std::ops::Range;
use std::time::Duration;

use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::BLOCK;
use plimsoll_common::snapshot::{Health, Stall};

use super::TrialPlan;
use crate::core::measurement::{HealthDigest, Lateness, MOST_BATCHES, MeanMax};

/// A trial's time line, in microseconds since the start of its warmup.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    warmup_us: u64,
    hold_us: u64,
    /// Blocks that are kept as one.
    per_kept: u32,
    /// Kept blocks that make a batch.
    per_batch: u32,
    /// A stall of more than a tenth of it voids its block; `None`: nothing is gated.
    tightest_limit_us: Option<u64>,
}

/// An hour of blocks: what is kept of a longer hold does not grow with it.
const MOST_BLOCKS: u32 = 7200;

/// Blocks after the hold: ten minutes, where the largest request timeout is one.
const LONGEST_DRAIN: u32 = 1200;

const BLOCK_US: u64 = BLOCK.as_micros() as u64;

impl Window {
    pub(super) fn new(plan: &TrialPlan) -> Self {
        let micros = |length: Duration| u64::try_from(length.as_micros()).unwrap_or(u64::MAX / 4);
        let tightest = plan.limits.iter().filter_map(|limits| limits.limits_us.first()).min();
        let hold_us = micros(plan.hold);
        let blocks = u32::try_from(hold_us.div_ceil(BLOCK_US)).unwrap_or(u32::MAX);
        let per_kept = blocks.div_ceil(MOST_BLOCKS).max(1);
        let per_batch = blocks.div_ceil(per_kept).div_ceil(MOST_BATCHES).max(1);
        Self { warmup_us: micros(plan.warmup), hold_us, per_kept, per_batch, tightest_limit_us: tightest.copied() }
    }

    /// The same for a hold that ended after so much.
    pub(super) fn cut(self, hold: Duration) -> Self {
        Self { hold_us: u64::try_from(hold.as_micros()).unwrap_or(u64::MAX).min(self.hold_us), ..self }
    }

    /// Blocks that are kept as one: beyond an hour a record of every half second would be larger than what it tells.
    pub(super) fn blocks_per_kept(&self) -> u32 {
        self.per_kept
    }

    /// Where a block is kept.
    pub(super) fn kept(&self, block: u32) -> usize {
        (block / self.per_kept) as usize
    }

    /// How many are kept.
    pub(super) fn kept_blocks(&self) -> u32 {
        self.blocks().div_ceil(self.per_kept)
    }

    /// Blocks of the hold, the last of which may be short.
    pub(super) fn blocks(&self) -> u32 {
        u32::try_from(self.hold_us.div_ceil(BLOCK_US)).unwrap_or(u32::MAX)
    }

    /// No block of wall time has this number or a larger one: a trial ends within its request timeout after its hold.
    pub(super) fn end_of_numbers(&self) -> u32 {
        let blocks = (self.warmup_us + self.hold_us).div_ceil(BLOCK_US);
        u32::try_from(blocks).unwrap_or(u32::MAX).saturating_add(LONGEST_DRAIN)
    }

    /// The blocks of the hold that a block of wall time covers, two where the warmup is no whole number of blocks; empty
    /// in warmup and drain.
    pub(super) fn hold_blocks(&self, number: u32) -> Range<u32> {
        let start = u64::from(number) * BLOCK_US;
        let end = start + BLOCK_US;
        if end <= self.warmup_us {
            return 0..0;
        }
        let first = start.saturating_sub(self.warmup_us) / BLOCK_US;
        let behind = (end - self.warmup_us).div_ceil(BLOCK_US).min(u64::from(self.blocks()));
        u32::try_from(first).unwrap_or(u32::MAX).min(behind as u32)..behind as u32
    }

    /// The blocks of wall time that cover the hold.
    pub(super) fn hold_in_wall_blocks(&self) -> Range<usize> {
        let block = |us: u64| usize::try_from(us).unwrap_or(usize::MAX);
        block(self.warmup_us / BLOCK_US)..block((self.warmup_us + self.hold_us).div_ceil(BLOCK_US))
    }

    /// Consecutive kept blocks that make a batch; the last may have fewer.
    pub(super) fn kept_per_batch(&self) -> u32 {
        self.per_batch
    }

    pub(super) fn batches(&self) -> usize {
        self.kept_blocks().div_ceil(self.per_batch) as usize
    }

    /// The batch of what ended in a block of wall time: of the hold's block that it begins in, the drain with the last.
    pub(super) fn batch_of(&self, number: u32) -> usize {
        self.kept(self.hold_block_of(number)) / self.per_batch as usize
    }

    /// The hold's block that a block of wall time begins in: in the warmup the first, in the drain the last.
    pub(super) fn hold_block_of(&self, number: u32) -> u32 {
        let since = (u64::from(number) * BLOCK_US).saturating_sub(self.warmup_us) / BLOCK_US;
        u32::try_from(since).unwrap_or(u32::MAX).min(self.blocks().saturating_sub(1))
    }

    /// Whether a block of wall time lies behind the warmup: in hold or drain.
    fn is_measured(&self, number: u32) -> bool {
        (u64::from(number) + 1) * BLOCK_US > self.warmup_us
    }

    /// Whether a stall exceeds a tenth of the tightest limit.
    pub(super) fn voids(&self, stall: Stall) -> bool {
        match (stall, self.tightest_limit_us) {
            (Stall::Unbounded, _) => true,
            (Stall::Bounded(us), Some(limit_us)) => u128::from(us) * 10 > u128::from(limit_us),
            (Stall::Bounded(_), None) => false,
        }
    }
}

/// Client errors that are kept of a trial: enough to see what is wrong.
const CLIENT_ERRORS: usize = 8;

/// One agent's health over the hold, as it comes.
#[derive(Debug, Clone, Default)]
pub(super) struct HealthMerge {
    // Zeroed pages are not resident until touched, so a thousand agents' histograms are small: lateness fills few buckets.
    lateness: LatencyHistogram,
    process_cpu: Level,
    box_cpu: Level,
    steal: Level,
    digest: HealthDigest,
    /// The most users online of those who act, in any block; `None`: levels are no users.
    most_users: Option<u64>,
    /// The same in the newest block.
    users_now: Option<u64>,
    /// Blocks of the hold below this have been counted as void or not.
    void_counted_to: u32,
    pub(super) in_flight_sum: u64,
    in_flight_samples: u64,
}

/// Sum and largest of the blocks' values.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    sum: u64,
    blocks: u64,
    max: u32,
}

impl Level {
    fn add(&mut self, value: u32) {
        self.sum += u64::from(value);
        self.blocks += 1;
        self.max = self.max.max(value);
    }

    fn digest(self) -> MeanMax {
        let mean = self.sum.checked_div(self.blocks).unwrap_or(0);
        MeanMax { mean: u32::try_from(mean).unwrap_or(u32::MAX), max: self.max }
    }
}

impl HealthMerge {
    pub(super) fn add(&mut self, window: &Window, number: u32, health: &Health) {
        self.in_flight_sum = self.in_flight_sum.saturating_add(health.in_flight_sum);
        self.in_flight_samples = self.in_flight_samples.saturating_add(health.in_flight_samples);
        for error in &health.client_errors {
            if self.digest.client_errors.len() < CLIENT_ERRORS && !self.digest.client_errors.contains(error) {
                self.digest.client_errors.push(error.clone());
            }
        }
        if window.is_measured(number) {
            self.digest.worst_stall = self.digest.worst_stall.max(health.stall);
        }
        self.users_now = health.users.map(|seen| seen.online);
        self.most_users = self.most_users.max(self.users_now);
        let blocks = window.hold_blocks(number);
        if blocks.is_empty() {
            return;
        }
        if window.voids(health.stall) {
            self.digest.void_blocks += blocks.end - blocks.start.max(self.void_counted_to).min(blocks.end);
            self.void_counted_to = blocks.end;
        }
        self.add_of_hold(health);
    }

    fn add_of_hold(&mut self, health: &Health) {
        let digest = &mut self.digest;
        digest.throttled = digest.throttled.saturating_add(Duration::from_micros(health.throttled_us));
        digest.in_flight_max = digest.in_flight_max.max(health.in_flight_max);
        digest.write_blocked = digest.write_blocked.max(Duration::from_micros(health.write_blocked_us));
        digest.timer_delay = digest.timer_delay.max(Duration::from_micros(health.timer_delay_us));
        if let Some(seen) = health.users {
            let users = digest.users.get_or_insert(seen);
            users.online = users.online.min(seen.online);
            users.connections = users.connections.max(seen.connections);
        }
        self.process_cpu.add(health.process_cpu_milli);
        self.box_cpu.add(health.box_cpu_milli);
        self.steal.add(health.steal_milli);
        self.lateness.add(&health.lateness);
    }

    /// Of the samples; `None` without any.
    pub(super) fn mean_in_flight(&self) -> Option<f64> {
        (self.in_flight_samples > 0).then(|| self.in_flight_sum as f64 / self.in_flight_samples as f64)
    }

    /// See the field.
    pub(super) fn most_users(&self) -> Option<u64> {
        self.most_users
    }

    /// See the field.
    pub(super) fn users_now(&self) -> Option<u64> {
        self.users_now
    }

    pub(super) fn digest(&self) -> HealthDigest {
        HealthDigest {
            lateness: self.lateness(),
            process_cpu_milli: self.process_cpu.digest(),
            box_cpu_milli: self.box_cpu.digest(),
            steal_milli: self.steal.digest(),
            ..self.digest.clone()
        }
    }

    fn lateness(&self) -> Option<Lateness> {
        let at = |quantile| self.lateness.quantile_us(quantile).map(Duration::from_micros);
        let max = self.lateness.max_us().map(Duration::from_micros)?;
        Some(Lateness { p50: at(0.5)?, p99: at(0.99)?, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_common::plan::{SeriesLimits, TrialId};
    use plimsoll_common::units::Rate;

    fn window(warmup_ms: u64, hold_ms: u64) -> Window {
        Window::new(&TrialPlan {
            trial: TrialId { step: 0, trial: 0 },
            target: Rate::per_second(1).unwrap(),
            warmup: Duration::from_millis(warmup_ms),
            hold: Duration::from_millis(hold_ms),
            start_boottime_ns: 0,
            limits: vec![SeriesLimits { series: "E1".into(), limits_us: vec![100_000, 250_000] }],
            observations: vec![],
            max_lateness: Duration::from_millis(100),
            minutes: None,
            agents: vec![],
        })
    }

    fn voided(window: &Window, stalls: &[(u32, u64)]) -> u32 {
        let mut merge = HealthMerge::default();
        for &(number, us) in stalls {
            merge.add(window, number, &Health { stall: Stall::Bounded(us), ..Health::default() });
        }
        merge.digest().void_blocks
    }

    #[test]
    fn a_wall_block_belongs_to_the_blocks_of_the_hold_that_it_covers() {
        for (warmup_ms, hold_ms, number, blocks) in [
            (1000, 1500, 0, 0..0),
            (1000, 1500, 1, 0..0),
            (1000, 1500, 2, 0..1),
            (1000, 1500, 4, 2..3),
            (1000, 1500, 5, 3..3),
            (1000, 1500, 900, 3..3),
            (0, 500, 0, 0..1),
            (0, 700, 1, 1..2),
            // The hold starts within wall block 2.
            (1200, 1000, 1, 0..0),
            (1200, 1000, 2, 0..1),
            (1200, 1000, 3, 0..2),
            (1200, 1000, 4, 1..2),
            (1200, 1000, 5, 2..2),
        ] {
            let got = window(warmup_ms, hold_ms).hold_blocks(number);
            assert!(got == blocks || (got.is_empty() && blocks.is_empty()), "{warmup_ms} {hold_ms} {number}: {got:?}");
        }
    }

    #[test]
    fn what_is_kept_does_not_grow_beyond_an_hour_and_every_block_has_its_place() {
        for (hold_s, per_kept, kept, batches) in
            [(1, 1, 2, 2), (120, 1, 240, 240), (3600, 1, 7200, 240), (86_400, 24, 7200, 240), (604_800, 168, 7200, 240)]
        {
            let window = window(0, hold_s * 1000);
            assert_eq!(
                (window.blocks_per_kept(), window.kept_blocks(), window.batches()),
                (per_kept, kept, batches),
                "{hold_s}"
            );
            let last = window.blocks() - 1;
            assert_eq!((window.kept(last) + 1, window.batch_of(last) + 1), (kept as usize, batches), "{hold_s}");
            assert_eq!(window.batch_of(last + 9), window.batch_of(last), "{hold_s}");
        }
    }

    #[test]
    fn a_stall_of_more_than_a_tenth_of_the_tightest_limit_voids_its_block() {
        let window = window(1000, 2000);
        assert_eq!(voided(&window, &[(2, 10_000), (3, 10_001), (4, 0), (5, 50_000)]), 2);
        assert!(window.voids(Stall::Unbounded));
    }

    #[test]
    fn stalls_of_warmup_and_drain_void_nothing() {
        assert_eq!(voided(&window(1000, 2000), &[(0, 900_000), (1, 900_000), (6, 900_000)]), 0);
    }

    #[test]
    fn a_block_that_two_wall_blocks_cover_is_void_once() {
        assert_eq!(voided(&window(1200, 1000), &[(2, 20_000), (3, 20_000), (4, 20_000)]), 2);
    }
}
