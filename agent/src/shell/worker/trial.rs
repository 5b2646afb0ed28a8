//! A trial: from the order to its start, through every wake-up of the pacer, until everything released has ended.

use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use plimsoll_common::plan::{Arrivals, TrialId};
use plimsoll_common::snapshot::StepEnd;
use tokio::sync::mpsc;

use super::Worker;
use super::fence::FENCE_LIMIT_NS;
use super::orders::{WorkerCommand, WorkerEvent, WorkerOrder, WorkerRefusal};
use super::pace::Pace;
use super::state::{Phases, Times, Trial};
use crate::core::admission::{BURSTS, issued_of};
use crate::core::ledger::{Ledger, Terms, Window, issued_at};
use crate::core::schedule::Schedule;
use crate::shell::clock::boottime_ns;
use crate::workload::{Workload, observations};

/// The pacer looks after ageing and samples at least this often.
const TICK_NS: u64 = 10_000_000;
/// Releases closer together than this leave in one wake-up: at high rates a wake-up for each would cost most of a core.
const COALESCE_NS: u64 = 50_000;
/// A wake-up later than this is a gap: answers that came meanwhile are read before anything expires.
const GAP_NS: u64 = 20_000_000;

impl<W: Workload> Worker<W> {
    /// Holds one trial. Returns whether the worker goes on: not when the lease or the session has ended.
    pub(super) async fn hold(&mut self, order: WorkerOrder, commands: &mut mpsc::Receiver<WorkerCommand>) -> bool {
        let window = self.begin(&order);
        let trial = order.order.trial;
        let mut pace = match Pace::new(window) {
            Ok(pace) => pace,
            Err(error) => return self.has_no_timer(&error),
        };
        match self.await_start(window.start_ns, &pace, commands).await {
            Ok(None) => {}
            Ok(Some(end)) => return self.finish(trial, &mut pace, window.start_ns, end),
            Err(error) => return self.has_no_timer(&error),
        }
        let started_ns = boottime_ns();
        let (mut end, mut stopped) = (StepEnd::Finished, false);
        loop {
            let now_ns = boottime_ns();
            if !self.spec.lease.holds(now_ns) {
                return false;
            }
            let more = self.turn(trial, &mut pace, now_ns);
            if stopped || self.is_settled(now_ns, end) {
                break;
            }
            let wake_ns = if more { now_ns } else { self.next_wake(&pace, now_ns) };
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(WorkerCommand::Stop) => {
                        stopped = true;
                        end = if end == StepEnd::ShutDown { end } else { StepEnd::Stopped };
                    }
                    Some(WorkerCommand::Drain) => {
                        self.release_no_more();
                        end = StepEnd::ShutDown;
                    }
                    None => return false,
                    Some(WorkerCommand::Deal(..) | WorkerCommand::Start(_)) => {
                        debug_assert!(false, "the session deals and starts between trials only");
                    }
                },
                slept = pace.sleep_until(wake_ns) => if let Err(error) = slept { return self.has_no_timer(&error) },
            }
        }
        self.finish(trial, &mut pace, started_ns, end)
    }

    /// Without a timer neither this trial goes on nor any other.
    fn has_no_timer(&self, error: &std::io::Error) -> bool {
        self.say(WorkerEvent::Refused(WorkerRefusal::Box(format!("no timer: {error}"))));
        false
    }

    fn begin(&mut self, order: &WorkerOrder) -> Window {
        self.crowd = self.state.borrow().workload.as_ref().and_then(W::users_online);
        // What blocked while users came online is of no trial.
        if let Some(lines) = &self.state.borrow().lines {
            lines.take_write_blocked_ns(boottime_ns());
        }
        let step = &order.order;
        let nanos = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let start_ns = step.start_boottime_ns;
        let hold_start_ns = start_ns + nanos(step.warmup);
        let window = Window { start_ns, hold_start_ns, hold_end_ns: hold_start_ns + nanos(step.hold) };
        let plan = &self.spec.plan;
        let terms = Terms {
            series: plan.series.clone(),
            kinds: self.state.borrow().workload.as_ref().map(W::kinds).unwrap_or_default(),
            observations: observations(&plan.workload),
            request_timeout_ns: nanos(plan.request_timeout),
            max_lateness_ns: nanos(plan.max_lateness),
        };
        let schedule = |due, length, phase| match step.arrivals {
            Arrivals::Uniform { .. } => Schedule::uniform(due, length, order.phase_ppm),
            Arrivals::Poisson => Schedule::poisson(due, length, self.chance(step.trial, phase)),
        };
        let own_rate = self.state.borrow_mut().workload.as_mut().and_then(|workload| workload.begin(step));
        let phases = Phases {
            warmup: schedule(order.warmup_due, nanos(step.warmup), 1),
            hold: schedule(order.hold_due, nanos(step.hold), 2),
            warmup_start_ns: start_ns,
            hold_start_ns,
        };
        let mut state = self.state.borrow_mut();
        let first = state.next_sequence;
        let issued = match own_rate {
            Some(rate) => issued_at(rate * BURSTS, plan.request_timeout),
            None => issued_of(order.warmup_due + order.hold_due, step, plan.request_timeout),
        };
        let mut ledger = Ledger::new(terms, window, first, issued, order.max_in_flight);
        if let Some(desk) = &mut state.desk {
            desk.begin(start_ns);
            desk.stalls().into_iter().for_each(|stalls| ledger.recorder().share(stalls));
        }
        let mut schedule = match own_rate {
            Some(_) => Times::Workload(start_ns),
            None => Times::Arrivals(phases),
        };
        let next_due_ns = state.workload.as_mut().and_then(|workload| schedule.next(workload));
        state.queue.clear();
        state.trial = Some(Trial { ledger, schedule, next_due_ns, chance: self.chance(step.trial, 3) });
        window
    }

    /// Waits for the start; how the trial ends, where it is over before it began.
    ///
    /// # Errors
    /// The timer's.
    async fn await_start(
        &self,
        start_ns: u64,
        pace: &Pace,
        commands: &mut mpsc::Receiver<WorkerCommand>,
    ) -> std::io::Result<Option<StepEnd>> {
        while boottime_ns() < start_ns {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(WorkerCommand::Deal(..) | WorkerCommand::Start(_)) => {}
                    Some(WorkerCommand::Stop) | None => return Ok(Some(StepEnd::Stopped)),
                    Some(WorkerCommand::Drain) => return Ok(Some(StepEnd::ShutDown)),
                },
                slept = pace.timer.sleep_until(start_ns) => slept?,
            }
        }
        // A connection that is down when the step begins would only produce failures of its own.
        Ok((self.client.connection_state() != ConnectionState::Connected).then_some(StepEnd::TargetGone))
    }

    /// One wake-up: housekeeping at its ticks, then all that is due. Returns whether more may be due already.
    fn turn(&mut self, trial: TrialId, pace: &mut Pace, now_ns: u64) -> bool {
        let delay_ns = pace.woke(now_ns);
        if delay_ns > GAP_NS && pace.fence.is_none() {
            pace.fence = Some((self.raise_fence(), now_ns));
        }
        {
            let mut state = self.state.borrow_mut();
            state.desk.iter().for_each(|desk| desk.looks_up(now_ns));
            // Before anything expires, and before the block is closed in which they were heard.
            state.take_copies(now_ns);
            let fence_back = state.fence;
            if pace.fence.is_some_and(|(number, since)| number <= fence_back || since + FENCE_LIMIT_NS < now_ns) {
                pace.fence = None;
            }
            if let Some(running) = &mut state.trial {
                running.ledger.recorder().held_up(now_ns, delay_ns);
                if now_ns >= pace.next_tick_ns {
                    pace.next_tick_ns = now_ns - now_ns % TICK_NS + TICK_NS;
                    running.ledger.sample_in_flight(now_ns);
                    if pace.fence.is_none() {
                        running.ledger.age(now_ns);
                    }
                    state.say_beside(now_ns);
                }
            }
        }
        while now_ns >= pace.block_end_ns {
            self.close_block(trial, pace, now_ns);
        }
        let (more, queued) = {
            let mut state = self.state.borrow_mut();
            let more = state.release(&self.spec.lease);
            (more, !state.queue.is_empty())
        };
        if queued {
            self.writer_wakes.notify_one();
        }
        more
    }

    fn next_wake(&self, pace: &Pace, now_ns: u64) -> u64 {
        let housekeeping = pace.next_tick_ns.min(pace.block_end_ns);
        let state = self.state.borrow();
        let due = state.trial.as_ref().and_then(|trial| trial.next_due_ns);
        due.map_or(housekeeping, |due_ns| due_ns.max(now_ns + COALESCE_NS).min(housekeeping))
    }

    /// Whether everything due has ended; of a step that is drained early, everything released. Where siblings hear answers for
    /// each other, everything of theirs too: until then this one goes on hearing.
    fn is_settled(&self, now_ns: u64, end: StepEnd) -> bool {
        let state = self.state.borrow();
        let over = |ledger: &Ledger| match end {
            StepEnd::ShutDown => ledger.open() == 0,
            _ => ledger.is_settled(now_ns),
        };
        let own = state.trial.as_ref().is_none_or(|trial| trial.next_due_ns.is_none() && over(&trial.ledger));
        let Some(desk) = state.desk.as_ref().filter(|_| own) else { return own };
        desk.settle();
        desk.others_settled()
    }

    fn release_no_more(&self) {
        if let Some(trial) = &mut self.state.borrow_mut().trial {
            trial.next_due_ns = None;
        }
    }
}
