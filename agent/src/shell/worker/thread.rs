//! A worker's thread and its runtime: both end with the session or with the lease.

use std::time::Duration;

use tokio::sync::mpsc;

use super::Worker;
use super::orders::{WorkerCommand, WorkerEvent, WorkerRefusal, WorkerSpec};
use crate::shell::abort::abort_when_closed;
use crate::shell::clock::boottime_ns;
use crate::shell::lease::Lease;
use crate::shell::nats_target::servers;
use crate::shell::{panics, priority};
use crate::workload::null::{Null, NullPlan};
use crate::workload::{Workload, for_workload};

/// The lease is looked at this often while a worker waits for the target.
const LOOK_AT_LEASE: Duration = Duration::from_millis(50);

/// Runs a worker on the calling thread until its commands end or its lease does. Dropping the runtime at the end aborts
/// the connection: nothing that waits in a queue is sent.
pub fn run(
    spec: WorkerSpec,
    commands: mpsc::Receiver<WorkerCommand>,
    events: mpsc::UnboundedSender<(u8, WorkerEvent)>,
) {
    let run = spec.plan.clone();
    for_workload!(&run.workload, |plan, W| run_with::<W>(spec, plan.clone(), commands, &events));
}

/// The same for what drives no service: see [`crate::shell::calibrate`].
pub fn run_null(
    spec: WorkerSpec,
    plan: NullPlan,
    commands: mpsc::Receiver<WorkerCommand>,
    events: mpsc::UnboundedSender<(u8, WorkerEvent)>,
) {
    run_with::<Null>(spec, plan, commands, &events);
}

fn run_with<W: Workload>(
    spec: WorkerSpec,
    plan: W::Plan,
    commands: mpsc::Receiver<WorkerCommand>,
    events: &mpsc::UnboundedSender<(u8, WorkerEvent)>,
) {
    priority::raise();
    let (told, own) = (events.clone(), spec.index);
    panics::heed_this_thread(move |words| drop(told.send((own, WorkerEvent::Panicked(words.to_owned())))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(31).build();
    let (index, servers) = (spec.index, servers(&spec.plan.target.url).unwrap_or_default());
    let refuse = |refusal| drop(events.send((index, WorkerEvent::Refused(refusal))));
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return refuse(WorkerRefusal::Box(format!("cannot start a worker: {error}"))),
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let (lease, mut commands) = (spec.lease.clone(), commands);
        match unless_over(Worker::<W>::connect(spec, plan, events.clone()), &mut commands, &lease).await {
            Some(Ok(worker)) => worker.serve(commands).await,
            Some(Err(refusal)) => refuse(refusal),
            None => {}
        }
    });
    // What was written may wait in the kernel for a network that is gone: it must not arrive once that is back.
    abort_when_closed(&servers);
    drop(local);
    runtime.shutdown_background();
}

/// What this comes to; `None` as soon as the session or the lease is over, which no server that hangs may hold up. No order is
/// given meanwhile but those that end a step, and no step is held.
pub(super) async fn unless_over<T>(
    work: impl Future<Output = T>,
    commands: &mut mpsc::Receiver<WorkerCommand>,
    lease: &Lease,
) -> Option<T> {
    let over = async {
        loop {
            match tokio::time::timeout(LOOK_AT_LEASE, commands.recv()).await {
                Ok(None) => return,
                Ok(Some(command)) => {
                    let is_of_step = matches!(command, WorkerCommand::Stop | WorkerCommand::Drain);
                    debug_assert!(is_of_step, "the session deals and starts once it was answered");
                }
                Err(_) if !lease.holds(boottime_ns()) => return,
                Err(_) => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = over => None,
        done = work => Some(done),
    }
}
