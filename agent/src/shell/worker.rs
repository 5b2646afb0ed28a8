//! A worker: one thread with one single-threaded runtime and one connection to the target. On it run the pacer, which
//! releases what the schedule says is due and never waits for anybody; the writer, which feeds the client; and a reader per
//! subscription. They share the worker's state without a lock, since they share the thread.

mod blocks;
mod orders;
mod pace;
mod state;
mod writer;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use async_nats::{Client, HeaderMap, StatusCode};
use futures::StreamExt as _;
use plimsoll_common::contract::ids::{IdCodec, Sender};
use plimsoll_common::plan::{Arrivals, TrialId};
use plimsoll_common::snapshot::StepEnd;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

pub use self::orders::{BlockHealth, Finish, WorkerCommand, WorkerEvent, WorkerOrder, WorkerRefusal, WorkerSpec};
use self::pace::Pace;
use self::state::{Phases, State, Times, Trial, UsersEar};
use self::writer::{BURST, Writer, connections};
use super::abort::abort_when_closed;
use super::clock::boottime_ns;
use super::health::thread_cpu_ns;
use super::lease::Lease;
use super::lines::{Lines, Unsettled, Wanted};
use super::nats_target::{ClientEvents, connect, servers};
use super::priority;
use crate::core::admission::{BURSTS, issued_of};
use crate::core::confirmations::Confirmations;
use crate::core::ledger::{Ledger, Terms, Window, issued_at};
use crate::core::schedule::Schedule;
use crate::workload::null::{Null, NullPlan};
use crate::workload::{Aside, Part, Probe, Setup, Workload, for_workload, observations};

/// The pacer looks after ageing and samples at least this often.
const TICK_NS: u64 = 10_000_000;
/// Releases closer together than this leave in one wake-up: at high rates a wake-up for each would cost most of a core.
const COALESCE_NS: u64 = 50_000;
/// A wake-up later than this is a gap: answers that came meanwhile are read before anything expires.
const GAP_NS: u64 = 20_000_000;
/// However long the fence takes, expiry waits no longer than this for it.
const FENCE_LIMIT_NS: u64 = 1_000_000_000;
/// Subscriptions and their fence must be through by then; a server takes some 100,000 subscriptions a second.
const FENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// A server says at once that nobody listens; whoever does may take his time, and need not answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often users say what is due beside their operations where no trial has its own ticks.
const SPEAK: Duration = Duration::from_millis(100);
/// The lease is looked at this often while a worker waits for the target.
const LOOK_AT_LEASE: Duration = Duration::from_millis(50);

/// Runs a worker on the calling thread until its commands end or its lease does. Dropping the runtime at the end aborts
/// the connection: nothing that waits in a queue is sent.
pub fn run(
    spec: WorkerSpec,
    commands: mpsc::UnboundedReceiver<WorkerCommand>,
    events: mpsc::UnboundedSender<(u8, WorkerEvent)>,
) {
    let run = spec.plan.clone();
    for_workload!(&run.workload, |plan, W| run_with::<W>(spec, plan.clone(), commands, &events));
}

/// The same for what drives no service: see [`super::calibrate`].
pub fn run_null(
    spec: WorkerSpec,
    plan: NullPlan,
    commands: mpsc::UnboundedReceiver<WorkerCommand>,
    events: mpsc::UnboundedSender<(u8, WorkerEvent)>,
) {
    run_with::<Null>(spec, plan, commands, &events);
}

fn run_with<W: Workload>(
    spec: WorkerSpec,
    plan: W::Plan,
    commands: mpsc::UnboundedReceiver<WorkerCommand>,
    events: &mpsc::UnboundedSender<(u8, WorkerEvent)>,
) {
    priority::raise();
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
async fn unless_over<T>(
    work: impl Future<Output = T>,
    commands: &mut mpsc::UnboundedReceiver<WorkerCommand>,
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

    async fn serve(mut self, mut commands: mpsc::UnboundedReceiver<WorkerCommand>) {
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

    async fn listen_for_fences(&self) -> Result<(), WorkerRefusal> {
        let subject = format!("{}.fence.*", self.inbox);
        let mut subscriber =
            self.client.subscribe(subject).await.map_err(|error| WorkerRefusal::Box(error.to_string()))?;
        let (client, state, events) = (self.client.clone(), self.state.clone(), self.client_events.clone());
        tokio::task::spawn_local(async move {
            while let Some(message) = subscriber.next().await {
                let token = message.subject.rsplit('.').next().unwrap_or_default();
                let mut state = state.borrow_mut();
                match token.strip_prefix(BURST) {
                    // The server answers for the connection, not for a message: where it denies one, it vouches for none.
                    Some(_) if events.denial().is_some() => {}
                    Some(burst) => state.confirm(burst.parse().unwrap_or(0), connections(&client)),
                    None => state.fence = state.fence.max(token.parse().unwrap_or(0)),
                }
            }
        });
        Ok(())
    }

    /// Sends a message to ourselves. When it is back, the server has handled all that was sent before it, and all that
    /// it sent us before it has been read. Returns the fence's number.
    fn raise_fence(&mut self) -> u64 {
        self.fences += 1;
        let (client, subject) = (self.client.clone(), format!("{}.fence.{}", self.inbox, self.fences));
        tokio::task::spawn_local(async move { client.publish(subject, bytes::Bytes::new()).await });
        self.fences
    }

    /// Whether the workload can make all operations of this order, and if not, in words.
    fn lacks_budget(&self, order: &WorkerOrder) -> Option<WorkerRefusal> {
        let budget = self.state.borrow().workload.as_ref().and_then(W::budget)?;
        let due = order.warmup_due + order.hold_due;
        (due > budget).then(|| {
            WorkerRefusal::Fixtures(format!("the step takes {due} operations here and only {budget} can still be made"))
        })
    }

    async fn deal(&mut self, part: &Part) -> Result<(), WorkerRefusal> {
        self.readers.drain(..).for_each(|reader| reader.abort());
        // What was reported before is old, but for a denial, which stays: the fence's subscription is older than every deal.
        self.client_events.take();
        // The text that contents are cut from is a phase of no trial.
        let mut chance = self.chance(TrialId { step: u32::MAX, trial: 0 }, 0);
        let spec = &self.spec;
        let exchange = self.state.borrow().desk.as_ref().map(|desk| desk.exchange().clone());
        let setup = Setup {
            plan: &spec.plan,
            fixtures: spec.fixtures.as_ref(),
            part,
            worker: spec.index,
            workers: spec.workers,
            exchange: exchange.as_ref(),
            inbox: &self.inbox,
            ids: IdCodec::new(Sender::new(spec.plan.run_nonce, spec.plan.agent_index, spec.index)),
            chance: &mut chance,
        };
        let mut workload = W::new(&self.plan, setup).map_err(WorkerRefusal::Fixtures)?;
        if let Some(before) = &mut self.state.borrow_mut().workload {
            workload.inherit(before);
        }
        let subscriptions = if part.is_idle() { Vec::new() } else { workload.subscriptions() };
        let count = subscriptions.len();
        for subscription in subscriptions {
            let subscriber = self.client.subscribe(subscription.subject).await;
            let mut subscriber = subscriber.map_err(|error| WorkerRefusal::Box(error.to_string()))?;
            let (state, writer_wakes) = (self.state.clone(), self.writer_wakes.clone());
            self.readers.push(tokio::task::spawn_local(async move {
                while let Some(message) = subscriber.next().await {
                    if state.borrow_mut().arrive(subscription.tag, &message, boottime_ns()) {
                        writer_wakes.notify_one();
                    }
                }
            }));
        }
        if !part.is_idle() {
            for probe in workload.probes() {
                self.probe(probe).await?;
            }
            workload.prepare(&self.client).await.map_err(WorkerRefusal::Asked)?;
        }
        let lines = workload.lines();
        self.state.borrow_mut().workload = Some(workload);
        if let Some(wanted) = lines {
            self.bring_online(wanted, part).await?;
        }
        let fence = self.raise_fence();
        let confirmed = tokio::time::timeout(FENCE_TIMEOUT, async {
            // A fence that is denied never comes back.
            while self.state.borrow().fence < fence && self.client_events.denial().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // The client hands events on through a task of its own: it has run by the time this sleep is over.
            tokio::time::sleep(Duration::from_millis(5)).await;
        });
        let confirmed = confirmed.await.is_ok();
        let denied = self.client_events.denial();
        self.client_events.take();
        match denied {
            Some(words) => Err(WorkerRefusal::Denied { words }),
            None if !confirmed => Err(WorkerRefusal::NotConfirmed { count }),
            None => Ok(()),
        }
    }

    /// Brings users online, and takes those offline who are no longer wanted.
    async fn bring_online(&mut self, wanted: Vec<Wanted>, part: &Part) -> Result<(), WorkerRefusal> {
        let daily = self.spec.plan.workload.daily();
        let lines = self.state.borrow().lines.clone();
        let lines = match lines {
            Some(lines) => lines,
            None => {
                let (spec, ear) = (&self.spec, Box::new(UsersEar { state: self.state.clone() }));
                let lease = spec.lease.clone();
                let lines = Lines::new(&spec.plan.target, &spec.connection, lease.clone(), ear);
                let lines = Rc::new(lines.map_err(WorkerRefusal::Asked)?);
                self.state.borrow_mut().lines = Some(lines.clone());
                if daily.is_some_and(|daily| daily.presence) {
                    tokio::task::spawn_local(speak(self.state.clone(), lease));
                }
                lines
            }
        };
        let rate = daily.map_or(1.0, |daily| daily.activation_rate.as_f64());
        let settled = lines.settle(wanted, part.part_of_users(rate)).await;
        settled.map_err(|why| match why {
            Unsettled::Denied(words) => WorkerRefusal::Denied { words },
            Unsettled::LeaseEnded => WorkerRefusal::Box("the lease ended while users came online".to_owned()),
        })
    }

    /// Asks whether anybody takes what will be sent, without leaving anything: the header makes every stream refuse to
    /// store the probe, and a service finds an empty body.
    async fn probe(&self, probe: Probe) -> Result<(), WorkerRefusal> {
        let Probe { subject, payload, nobody: words } = probe;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", "plimsoll-probe");
        let request = async_nats::Request::new().headers(headers).payload(payload).timeout(Some(PROBE_TIMEOUT));
        match self.client.send_request(subject.clone(), request).await {
            Err(error) if error.kind() == async_nats::RequestErrorKind::NoResponders => {
                Err(WorkerRefusal::NobodyListens { subject, words })
            }
            Ok(message) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(WorkerRefusal::NobodyListens { subject, words })
            }
            // A service that is no stream need not answer an empty body.
            _ => Ok(()),
        }
    }

    /// Holds one trial. Returns whether the worker goes on: not when the lease or the session has ended.
    async fn hold(&mut self, order: WorkerOrder, commands: &mut mpsc::UnboundedReceiver<WorkerCommand>) -> bool {
        let window = self.begin(&order);
        let trial = order.order.trial;
        let mut pace = match Pace::new(window) {
            Ok(pace) => pace,
            Err(error) => {
                self.say(WorkerEvent::Refused(WorkerRefusal::Box(format!("no timer: {error}"))));
                return false;
            }
        };
        if let Err(end) = self.await_start(window.start_ns, &pace, commands).await {
            return self.finish(trial, &mut pace, window.start_ns, end);
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
                slept = pace.sleep_until(wake_ns) => if slept.is_err() { return false },
            }
        }
        self.finish(trial, &mut pace, started_ns, end)
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

    async fn await_start(
        &self,
        start_ns: u64,
        pace: &Pace,
        commands: &mut mpsc::UnboundedReceiver<WorkerCommand>,
    ) -> Result<(), StepEnd> {
        while boottime_ns() < start_ns {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(WorkerCommand::Deal(..) | WorkerCommand::Start(_)) => {}
                    Some(WorkerCommand::Stop) | None => return Err(StepEnd::Stopped),
                    Some(WorkerCommand::Drain) => return Err(StepEnd::ShutDown),
                },
                slept = pace.timer.sleep_until(start_ns) => if slept.is_err() { return Err(StepEnd::Stopped) },
            }
        }
        // A connection that is down when the step begins would only produce failures of its own.
        if self.client.connection_state() == ConnectionState::Connected { Ok(()) } else { Err(StepEnd::TargetGone) }
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

/// Has users say what is due beside their operations between trials too, and while others come online.
async fn speak<W: Workload>(state: Rc<RefCell<State<W>>>, lease: Lease) {
    loop {
        tokio::time::sleep(SPEAK).await;
        let now_ns = boottime_ns();
        if !lease.holds(now_ns) {
            return;
        }
        state.borrow_mut().say_beside(now_ns);
    }
}
