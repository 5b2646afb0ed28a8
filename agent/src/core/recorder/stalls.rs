//! How much the box held the worker up, by wall block.

use std::sync::Arc;

use plimsoll_common::snapshot::Stall;

use super::{BLOCK_NS, Recorder};
use crate::core::exchange::Stalls;

/// A stall without bound: larger than any latency, small enough to be added up.
const UNBOUNDED_NS: u64 = 1 << 52;

/// Stalls that are kept beyond what an operation spans: expiry may lag while a box stands still, and what is older than this is
/// subtracted no more, which only makes the box's part smaller.
pub(super) const SPARE_STALLS: usize = 240;

impl Recorder {
    /// Others hear answers for this worker, so what holds up any of them holds up this one, and the other way round. What
    /// they were held up by is known for certain a block later: until then what ended is not looked at again.
    pub fn share(&mut self, stalls: Arc<Stalls>) {
        self.shared = Some(stalls);
        self.judges_late = true;
    }

    /// The block that is closed next is the last one.
    pub fn comes_to_its_end(&mut self) {
        self.judges_late = false;
    }

    /// Takes over what is known by now of others' stalls in a closed block.
    pub(super) fn learn(&mut self, shared: &Stalls, number: u32) {
        let stall_ns = nanoseconds(shared.of(self.begin_of(number)));
        let since = (self.closed - 1 - number) as usize;
        if let Some(known) = self.stalls_ns.iter_mut().rev().nth(since) {
            *known = stall_ns.max(*known);
        }
    }

    /// When a wall block begins.
    pub(super) fn begin_of(&self, number: u32) -> u64 {
        self.window.start_ns + u64::from(number) * BLOCK_NS
    }

    /// The box held the worker up by this much, seen at `now_ns`.
    #[inline]
    pub fn held_up(&mut self, now_ns: u64, delay_ns: u64) {
        // A block that was closed already has its stall.
        let number = self.wall_of(now_ns);
        let Some(wall) = number.checked_sub(self.closed) else { return };
        let wall = wall as usize;
        if self.lateness_ns.len() <= wall {
            self.lateness_ns.resize(wall + 1, 0);
        }
        let largest = &mut self.lateness_ns[wall];
        if delay_ns > *largest {
            *largest = delay_ns;
            if let Some(shared) = &self.shared {
                shared.held_up(self.begin_of(number), Stall::Bounded(delay_ns.div_ceil(1000)));
            }
        }
    }

    pub(super) fn push_stall(&mut self, stall_ns: u64) {
        if self.stalls_ns.len() == self.most_stalls {
            self.stalls_ns.pop_front();
        }
        self.stalls_ns.push_back(stall_ns);
        self.closed += 1;
    }

    /// The stalls of closed wall blocks from the first to the last of these.
    pub(super) fn stalled_ns(&self, first: u32, last: u32) -> u64 {
        let kept_from = self.closed as usize - self.stalls_ns.len();
        let newest = self.stalls_ns.len() - 1;
        let last = (last as usize).saturating_sub(kept_from).min(newest);
        let first = (first as usize).saturating_sub(kept_from).min(last);
        self.stalls_ns.range(first..=last).sum()
    }
}

/// A stall as it is added up.
pub(super) fn nanoseconds(stall: Stall) -> u64 {
    match stall {
        Stall::Bounded(us) => us.saturating_mul(1000).min(UNBOUNDED_NS),
        Stall::Unbounded => UNBOUNDED_NS,
    }
}
