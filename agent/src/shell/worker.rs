//! A worker: one thread with one single-threaded runtime and one connection to the target. On it run the pacer, which
//! releases what the schedule says is due and never waits for anybody; the writer, which feeds the client; and a reader per
//! subscription. They share the worker's state without a lock, since they share the thread.
mod blocks;
mod deal;
mod fence;
mod orders;
mod pace;
mod state;
mod thread;
mod trial;
mod writer;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use async_nats::Client;
use plimsoll_common::plan::TrialId;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

pub use self::orders::{
    BlockHealth, COMMANDS, Finish, WorkerCommand, WorkerEvent, WorkerOrder, WorkerRefusal, WorkerSpec,
};
use self::state::State;
use self::thread::unless_over;
pub use self::thread::{run, run_null};
use self::writer::Writer;
use super::nats_target::{ClientEvents, connect};
use crate::core::confirmations::Confirmations;
use crate::workload::{Aside, Workload};

struct Worker<W: Workload> {
    spec: WorkerSpec,
    plan: W::Plan,
    client: Client,
    client_events: ClientEvents,
    inbox: String,
    events: mpsc::UnboundedSender<(u8, WorkerEvent)>,
    state: Rc<RefCell<State<W>>>,
    writer_wakes: Rc<Notify>,
    readers: Vec<JoinHandle<()>>,
    fences: u64,
    /// Users who act in the trial under way: those who were online when it began. Who comes later does nothing in it.
    crowd: Option<u64>,
}

impl<W: Workload> Worker<W> {
    async fn connect(
        mut spec: WorkerSpec,
        plan: W::Plan,
        events: mpsc::UnboundedSender<(u8, WorkerEvent)>,
    ) -> Result<Self, WorkerRefusal> {
        let (client, client_events) = connect(&spec.plan.target, &spec.connection).await?;
        let info = client.server_info();
        let state = State {
            workload: None,
            trial: None,
            lines: None,
            desk: spec.desk.take(),
            next_sequence: 0,
            queue: VecDeque::new(),
            replies: VecDeque::new(),
            aside: Aside::default(),
            fence: 0,
            confirmations: Confirmations::default(),
            write_blocked_us: 0,
            flush_began_ns: None,
        };
        let inbox = client.new_inbox();
        let state = Rc::new(RefCell::new(state));
        let writer_wakes = Rc::new(Notify::new());
        let writer = Writer { client: client.clone(), inbox: inbox.clone(), lease: spec.lease.clone() };
        tokio::task::spawn_local(writer.write(state.clone(), writer_wakes.clone()));
        let (readers, fences, crowd) = (Vec::new(), 0, None);
        let worker =
            Self { spec, plan, client, client_events, inbox, events, state, writer_wakes, readers, fences, crowd };
        worker.listen_for_fences().await?;
        worker.say(WorkerEvent::Connected(format!("{} {}", info.server_name, info.version)));
        Ok(worker)
    }

    async fn serve(mut self, mut commands: mpsc::Receiver<WorkerCommand>) {
        while let Some(command) = commands.recv().await {
            match command {
                WorkerCommand::Deal(part) => {
                    let lease = self.spec.lease.clone();
                    let event = match unless_over(self.deal(&part), &mut commands, &lease).await {
                        None => return,
                        Some(Ok(())) => WorkerEvent::Dealt(self.state.borrow().workload.as_ref().and_then(W::budget)),
                        Some(Err(refusal)) => WorkerEvent::Refused(refusal),
                    };
                    self.say(event);
                }
                WorkerCommand::Start(order) => {
                    if let Some(refusal) = self.lacks_budget(&order) {
                        self.say(WorkerEvent::Refused(refusal));
                    } else if !self.hold(order, &mut commands).await {
                        return;
                    }
                }
                WorkerCommand::Stop | WorkerCommand::Drain => {}
            }
        }
    }

    fn say(&self, event: WorkerEvent) {
        // A session that is gone needs no answer: its end ends the commands too.
        let _ = self.events.send((self.spec.index, event));
    }

    /// Whether the workload can make all operations of this order, and if not, in words.
    fn lacks_budget(&self, order: &WorkerOrder) -> Option<WorkerRefusal> {
        let budget = self.state.borrow().workload.as_ref().and_then(W::budget)?;
        let due = order.warmup_due + order.hold_due;
        (due > budget).then(|| {
            WorkerRefusal::Fixtures(format!("the step takes {due} operations here and only {budget} can still be made"))
        })
    }

    fn chance(&self, trial: TrialId, phase: u64) -> ChaCha8Rng {
        // Every number goes in whole, so that no two of (seed, agent, worker, step, trial, phase) share a stream.
        let mut seed = [0_u8; 32];
        seed[0..8].copy_from_slice(&self.spec.plan.seed.to_le_bytes());
        seed[8..12].copy_from_slice(&trial.step.to_le_bytes());
        seed[12..16].copy_from_slice(&trial.trial.to_le_bytes());
        seed[16..18].copy_from_slice(&self.spec.plan.agent_index.to_le_bytes());
        seed[18] = self.spec.index;
        seed[24..32].copy_from_slice(&phase.to_le_bytes());
        ChaCha8Rng::from_seed(seed)
    }
}
