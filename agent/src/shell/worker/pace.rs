//! When the pacer wakes next, how late it woke, and what the box did meanwhile.

use plimsoll_common::snapshot::Stall;

use crate::core::ledger::Window;
use crate::core::recorder::BLOCK_NS;
use crate::shell::clock::boottime_ns;
use crate::shell::health::{ThreadWatch, ThrottleWatch, thread_cpu_ns};
use crate::shell::timer::PreciseTimer;

/// Threads that ran or waited to run for more than this part of a block had no room left.
const BUSY_LIMIT: f64 = 0.9;

/// The pacer's timer and the current block.
pub(super) struct Pace {
    pub(super) timer: PreciseTimer,
    wake_ns: Option<u64>,
    pub(super) timer_delay_ns: u64,
    pub(super) next_tick_ns: u64,
    pub(super) block: u32,
    pub(super) block_end_ns: u64,
    closed_at_ns: u64,
    pub(super) fence: Option<(u64, u64)>,
    thread: ThreadWatch,
    throttle: ThrottleWatch,
    pub(super) cpu_began_ns: u64,
}

impl Pace {
    pub(super) fn new(window: Window) -> std::io::Result<Self> {
        Ok(Self {
            timer: PreciseTimer::new()?,
            wake_ns: None,
            timer_delay_ns: 0,
            next_tick_ns: window.start_ns,
            block: 0,
            block_end_ns: window.start_ns + BLOCK_NS,
            closed_at_ns: window.start_ns,
            fence: None,
            thread: ThreadWatch::of_this_thread(),
            throttle: ThrottleWatch::new(),
            cpu_began_ns: thread_cpu_ns(),
        })
    }

    pub(super) async fn sleep_until(&mut self, at_ns: u64) -> std::io::Result<()> {
        if at_ns <= boottime_ns() {
            // Others on this thread get their turn; how long they take is a delay too.
            self.wake_ns = Some(boottime_ns());
            tokio::task::yield_now().await;
            return Ok(());
        }
        self.wake_ns = Some(at_ns);
        self.timer.sleep_until(at_ns).await
    }

    /// How much later than asked this wake-up is, in nanoseconds.
    pub(super) fn woke(&mut self, now_ns: u64) -> u64 {
        let delay_ns = self.wake_ns.take().map_or(0, |asked| now_ns.saturating_sub(asked));
        self.timer_delay_ns = self.timer_delay_ns.max(delay_ns);
        delay_ns
    }

    /// The stall of the block that ends now, but for lateness and timer delay, which the ledger keeps; and how long a quota
    /// held the process back in it.
    pub(super) fn stall(&mut self, now_ns: u64, dropped: bool) -> (Stall, u64) {
        let elapsed_ns = now_ns.saturating_sub(std::mem::replace(&mut self.closed_at_ns, now_ns));
        // Added up over processors it may be more than the thread can have lost.
        let throttled_us = self.throttle.look().min(elapsed_ns / 1000);
        let busy_ns = self.thread.look();
        if dropped {
            return (Stall::Unbounded, throttled_us);
        }
        // A short last block says little about how busy the thread is.
        let crowded = elapsed_ns >= BLOCK_NS / 2 && busy_ns as f64 > elapsed_ns as f64 * BUSY_LIMIT;
        let stall_us = if crowded { throttled_us.max(BLOCK_NS / 1000) } else { throttled_us };
        (Stall::Bounded(stall_us), throttled_us)
    }
}
