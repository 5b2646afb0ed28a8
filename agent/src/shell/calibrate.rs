//! Measures what this box's generator can do: the very workers that drive a service drive a null target in this process,
//! first flat out, which shows what a request costs them, and then at half of their ceiling, which shows how late they are.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_common::calibration::{Calibration, CalibrationOrder};
use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::{
    AgentPlan, Arrivals, More, RoomReadWorkload, SeriesLimits, StepOrder, Target, TrialId, Workload,
};
use plimsoll_common::units::Rate;
use tokio::sync::mpsc;

use super::clock::boottime_ns;
use super::health;
use super::lease::Lease;
use super::null_target::NullTarget;
use super::worker::{self, COMMANDS, Finish, WorkerCommand, WorkerEvent, WorkerOrder, WorkerSpec};
use crate::core::recorder::WorkerBlock;
use crate::workload::Part;
use crate::workload::null::NullPlan;

/// More requests per second than a worker can make: what it cannot is left out for lack of room among [`OPEN`].
const FLAT_OUT: u64 = 400_000;
/// Requests that a worker has open at once: enough that it never waits for one.
const OPEN: u64 = 4096;
/// Load that does not count, and load that does.
const WARMUP: Duration = Duration::from_millis(100);
const FLAT_OUT_HOLD: Duration = Duration::from_millis(400);
const PACED_HOLD: Duration = Duration::from_secs(1);
/// Between an order and its start.
const LEAD: Duration = Duration::from_millis(20);
/// A reply that takes longer than this never comes.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Each of connecting, subscribing and the two holds takes at most this much beyond its own length.
const LIMIT: Duration = Duration::from_secs(10);

/// Calibrates with so many workers, while the lease holds. Takes about two seconds.
///
/// # Errors
/// The box has no port, thread or time for it; for people.
pub async fn calibrate(order: CalibrationOrder, workers: u8, lease: Lease) -> Result<Calibration, String> {
    let target = NullTarget::start(order.reply_bytes as usize).map_err(|error| format!("no null target: {error}"))?;
    let mut running = Workers::start(&order, workers, &lease, target.url())?;
    running.await_all(|event| matches!(event, WorkerEvent::Connected(_))).await?;
    for (commands, part) in running.commands.iter().zip(Part::equal(usize::from(workers))) {
        let _ = commands.try_send(WorkerCommand::Deal(part));
    }
    running.await_all(|event| matches!(event, WorkerEvent::Dealt(_))).await?;
    let flat_out = running.hold(0, FLAT_OUT as f64, FLAT_OUT_HOLD).await?;
    let ceiling = ceiling(&flat_out.finishes).ok_or("the null target was never asked anything")?;
    let paced = ceiling / 2.0;
    let held = running.hold(1, paced / f64::from(workers), PACED_HOLD).await?;
    let counters = held.finishes.iter().map(|finish| finish.totals.counters);
    let rate = |per_second: f64| Rate::from_milli((per_second * 1000.0) as u64).ok_or("it is too slow to tell");
    Ok(Calibration {
        ceiling: rate(ceiling)?,
        paced: rate(paced)?,
        due: counters.clone().map(|counters| counters.due).sum(),
        released: counters.map(|counters| counters.attempted).sum(),
        lateness: held.lateness,
    })
}

/// Requests per second of all workers with a processor each: by what a request cost each of them in time on a processor,
/// which neither a busy neighbour nor the null target adds to. Workers beyond the box's processors add nothing.
fn ceiling(finishes: &[Finish]) -> Option<f64> {
    let of_worker = |finish: &Finish| {
        let answered = finish.totals.counters.completed + finish.totals.warmup.completed;
        (answered > 0 && finish.cpu_ns > 0).then(|| answered as f64 * 1e9 / finish.cpu_ns as f64)
    };
    let sum: f64 = finishes.iter().filter_map(of_worker).sum();
    let room = (health::cores() as f64 / finishes.len().max(1) as f64).min(1.0);
    (sum > 0.0).then_some(sum * room)
}

/// The workers of a calibration. Dropping it ends them: their commands end.
struct Workers {
    commands: Vec<mpsc::Sender<WorkerCommand>>,
    events: mpsc::UnboundedReceiver<(u8, WorkerEvent)>,
}

struct Held {
    finishes: Vec<Finish>,
    lateness: LatencyHistogram,
}

impl Workers {
    fn start(order: &CalibrationOrder, workers: u8, lease: &Lease, url: String) -> Result<Self, String> {
        let plan = Arc::new(plan(order, url));
        // Unbounded, and cannot grow: each worker has some ten events, its answers and the blocks of two short holds.
        let (events_in, events) = mpsc::unbounded_channel();
        let mut commands = Vec::new();
        for index in 0..workers {
            let (plan, lease) = (plan.clone(), lease.clone());
            let connection = "plimsoll/calibration".to_owned();
            let spec = WorkerSpec { index, connection, plan, fixtures: None, workers, desk: None, lease };
            let (sender, receiver) = mpsc::channel(COMMANDS);
            let (null, events_in) = (NullPlan { request_bytes: order.request_bytes as usize }, events_in.clone());
            let thread = std::thread::Builder::new().name(format!("calibrate-{index}"));
            let spawned = thread.spawn(move || worker::run_null(spec, null, receiver, events_in));
            spawned.map_err(|error| format!("cannot start a worker thread: {error}"))?;
            commands.push(sender);
        }
        Ok(Self { commands, events })
    }

    async fn next(&mut self, within: Duration) -> Result<WorkerEvent, String> {
        match tokio::time::timeout(within, self.events.recv()).await {
            Ok(Some((_, WorkerEvent::Refused(refusal)))) => Err(refusal.to_string()),
            Ok(Some((worker, WorkerEvent::Panicked(words)))) => Err(format!("worker {worker} ended by {words}")),
            Ok(Some((_, event))) => Ok(event),
            Ok(None) => Err("its workers ended".to_owned()),
            Err(_) => Err(format!("its workers did not answer within {within:?}")),
        }
    }

    async fn await_all(&mut self, is_answer: fn(&WorkerEvent) -> bool) -> Result<(), String> {
        let mut left = self.commands.len();
        while left > 0 {
            left -= usize::from(is_answer(&self.next(LIMIT).await?));
        }
        Ok(())
    }

    /// Has every worker hold so many requests per second.
    async fn hold(&mut self, trial: u32, per_worker: f64, hold: Duration) -> Result<Held, String> {
        let share = Rate::from_milli((per_worker * 1000.0) as u64).ok_or("it is too slow to tell")?;
        let start_boottime_ns = boottime_ns() + LEAD.as_nanos() as u64;
        for commands in &self.commands {
            let order = StepOrder {
                trial: TrialId { step: 0, trial },
                share,
                start_boottime_ns,
                warmup: WARMUP,
                hold,
                arrivals: Arrivals::Uniform { phase_ppm: 0 },
                max_in_flight: OPEN,
                more: More::default(),
            };
            let (warmup_due, hold_due) = (share.due_in(WARMUP), share.due_in(hold));
            let order = WorkerOrder { order, warmup_due, hold_due, max_in_flight: OPEN, phase_ppm: 0 };
            let _ = commands.try_send(WorkerCommand::Start(order));
        }
        let mut held = Held { finishes: Vec::new(), lateness: LatencyHistogram::new() };
        while held.finishes.len() < self.commands.len() {
            match self.next(LIMIT + hold).await? {
                WorkerEvent::Block(_, block, _) => {
                    let WorkerBlock { lateness, .. } = *block;
                    held.lateness.add(&lateness);
                }
                WorkerEvent::Finished(_, finish) => held.finishes.push(*finish),
                _ => {}
            }
        }
        Ok(held)
    }
}

/// The workers look at a plan for names and limits; the workload in it is nobody's here.
fn plan(order: &CalibrationOrder, url: String) -> AgentPlan {
    let series = vec![SeriesLimits { series: "null".to_owned(), limits_us: Vec::new() }];
    AgentPlan {
        agent_index: 0,
        run_nonce: 0,
        seed: 0,
        target: Target { url, credentials: None },
        workload: Workload::RoomRead(RoomReadWorkload { preset: MessagesPreset::Small, site_id: "null".to_owned() }),
        request_timeout: TIMEOUT,
        series,
        max_lateness: order.max_lateness,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::recorder::WorkerTotals;
    use plimsoll_common::snapshot::{Counters, StepEnd};

    fn finish(completed: u64, cpu_ns: u64) -> Finish {
        let counters = Counters { completed, ..Counters::default() };
        let totals = WorkerTotals { counters, ..WorkerTotals::default() };
        Finish { totals, started_boottime_ns: 1, end: StepEnd::Finished, cpu_ns }
    }

    #[test]
    fn the_ceiling_is_what_the_workers_do_with_a_processor_each() {
        let one = ceiling(&[finish(50_000, 250_000_000)]).unwrap();
        assert!((one - 200_000.0).abs() < 1e-6, "{one}");
        // So many workers share the box's processors.
        let many: Vec<Finish> = (0..4 * health::cores()).map(|_| finish(1000, 10_000_000)).collect();
        let expected = 100_000.0 * health::cores() as f64;
        assert!((ceiling(&many).unwrap() / expected - 1.0).abs() < 1e-9);
        assert_eq!(ceiling(&[finish(0, 1), finish(1, 0)]), None);
    }

    #[tokio::test]
    async fn workers_drive_the_null_target_and_say_what_they_can() {
        let order = CalibrationOrder { request_bytes: 64, reply_bytes: 64, max_lateness: Duration::from_millis(100) };
        let lease = Lease::until(u64::MAX);
        let found = calibrate(order, 1, lease).await.unwrap();
        assert!(found.ceiling > Rate::per_second(100).unwrap() && found.ceiling.milli() / 2 >= found.paced.milli());
        assert!(found.due > 0 && found.released <= found.due, "{found:?}");
        assert!(found.lateness.len() >= found.released, "every release was noted: {found:?}");
    }

    #[tokio::test]
    async fn without_a_lease_nothing_is_driven() {
        let order = CalibrationOrder { request_bytes: 1, reply_bytes: 1, max_lateness: Duration::from_millis(100) };
        let lease = Lease::until(u64::MAX);
        lease.end();
        assert_eq!(calibrate(order, 1, lease).await, Err("its workers ended".to_owned()));
    }
}
