//! The end of a worker's blocks, and of its trials.

use plimsoll_common::plan::TrialId;
use plimsoll_common::snapshot::{Stall, StepEnd, UsersOnline};

use super::Worker;
use super::orders::{BlockHealth, Finish, WorkerEvent};
use super::pace::Pace;
use super::writer::time_a_flush;
use crate::core::exchange::Desk;
use crate::core::recorder::BLOCK_NS;
use crate::shell::clock::boottime_ns;
use crate::shell::health::thread_cpu_ns;
use crate::shell::lines::Lines;
use crate::workload::Workload;

impl<W: Workload> Worker<W> {
    /// Closes the block that is over, and says what was counted in it.
    pub(super) fn close_block(&mut self, trial: TrialId, pace: &mut Pace, now_ns: u64) {
        let reported = self.client_events.take();
        let mut state = self.state.borrow_mut();
        let lost = state.desk.as_ref().map_or(0, Desk::take_lost);
        let (mut stall, throttled_us) = pace.stall(now_ns, reported.dropped || lost > 0);
        if let Some(desk) = &state.desk {
            // In a block that it has slept through, a sibling was held up for all of it.
            let sibling_ns = desk.others_held_up_ns(now_ns).min(BLOCK_NS);
            stall = stall.max(Stall::Bounded(sibling_ns / 1000));
        }
        if let Some(began) = state.flush_began_ns {
            state.write_blocked_us = state.write_blocked_us.max((now_ns - began) / 1000);
        }
        let mut client_errors = reported.errors;
        if let Some(lines) = &state.lines {
            client_errors.extend(lines.take_reported());
        }
        if lost > 0 {
            client_errors.push(format!("{lost} copies that another worker's users heard found no room with this one"));
        }
        let users = users(
            state.workload.as_ref().and_then(W::users_online),
            self.crowd,
            state.lines.as_deref().map(Lines::connected),
        );
        let lines_blocked_ns = state.lines.as_ref().map_or(0, |lines| lines.take_write_blocked_ns(now_ns));
        let health = BlockHealth {
            users,
            timer_delay_us: std::mem::take(&mut pace.timer_delay_ns) / 1000,
            throttled_us,
            write_blocked_us: std::mem::take(&mut state.write_blocked_us).max(lines_blocked_ns / 1000),
            client_errors,
        };
        let Some(running) = &mut state.trial else { return };
        let block = running.ledger.close_block(pace.block, stall);
        pace.block += 1;
        pace.block_end_ns += BLOCK_NS;
        let time_flush = state.flush_began_ns.is_none();
        drop(state);
        self.say(WorkerEvent::Block(trial, Box::new(block), health));
        if time_flush {
            tokio::task::spawn_local(time_a_flush(self.client.clone(), self.state.clone()));
        }
    }

    /// Ends the trial, and says what was counted in all of it. Returns whether there was one.
    pub(super) fn finish(&mut self, trial: TrialId, pace: &mut Pace, started_boottime_ns: u64, end: StepEnd) -> bool {
        let now_ns = boottime_ns();
        {
            let mut state = self.state.borrow_mut();
            state.take_copies(now_ns);
            state.trial.iter_mut().for_each(|running| running.ledger.recorder().comes_to_its_end());
        }
        self.close_block(trial, pace, now_ns);
        let cpu_ns = thread_cpu_ns().saturating_sub(pace.cpu_began_ns);
        let mut state = self.state.borrow_mut();
        state.desk.iter_mut().for_each(Desk::end);
        state.queue.clear();
        let Some(running) = state.trial.take() else { return false };
        let mut ledger = running.ledger;
        state.next_sequence = ledger.next_sequence();
        let totals = ledger.recorder().totals();
        drop(state);
        self.say(WorkerEvent::Finished(trial, Box::new(Finish { totals, started_boottime_ns, end, cpu_ns })));
        true
    }
}

/// Who are online of those that act: `crowd` were online when the trial began, and whoever comes later does nothing in it.
fn users(online: Option<u64>, crowd: Option<u64>, connections: Option<u64>) -> Option<UsersOnline> {
    let online = online?.min(crowd?);
    Some(UsersOnline { online, connections: connections? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_online_when_the_trial_has_begun_makes_up_for_nobody() {
        let online = |online, crowd| users(Some(online), Some(crowd), Some(70)).map(|users| users.online);
        assert_eq!([online(60, 60), online(59, 60), online(64, 60), online(0, 60)], [60, 59, 60, 0].map(Some));
        assert_eq!(users(None, None, None), None);
    }
}
