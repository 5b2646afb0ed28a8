//! A session: one coordinator's stream, which is the lease. It passes orders to the workers and their blocks back, and
//! when it ends, for whatever reason, so do the workers and their connections.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_common::calibration::{Calibration, CalibrationOrder};
use plimsoll_common::contract::fixtures::{Fixtures, Room};
use plimsoll_common::deal::{deal_to_agents, deal_to_workers};
use plimsoll_common::plan::{AgentPlan, Arrivals, DailyWorkload, MAX_AGENTS, StepOrder, TrialId};
use plimsoll_proto::v1::{self, agent_message, coordinator_message};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

use super::aggregate::Aggregate;
use super::calibrate::calibrate;
use super::clock::boottime_ns;
use super::health::BoxWatch;
use super::lease::Lease;
use super::metrics::Metrics;
use super::nats_target::{ConnectError, servers};
use super::worker::{self, WorkerCommand, WorkerEvent, WorkerOrder, WorkerRefusal, WorkerSpec};
use crate::AfterRun;
use crate::core::admission::{Hand, NotHeld, check_step};
use crate::core::exchange::Exchange;
use crate::core::limits::{LimitError, Limits};
use crate::core::people::users_of;
use crate::core::pings::Pings;
use crate::workload::Part;

/// What the session needs from its daemon.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Worker threads.
    pub workers: u8,
    /// What no coordinator can raise.
    pub limits: Limits,
    /// For the daemon's own metrics.
    pub metrics: Metrics,
    /// Whether the daemon stays for another run.
    pub after_run: AfterRun,
}

/// What the coordinator claimed.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The run's name.
    pub run_id: String,
    /// How long the lease outlives the sending of the newest ping that was echoed.
    pub lease_timeout: Duration,
    /// How long the run has held this agent already, by earlier claims.
    pub held_before: Duration,
}

/// Workers end within a look at their lease, and close what they have open. One that takes longer stands still for other reasons.
const ENDING_LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked whether they have.
const LOOK_AT_WORKERS: Duration = Duration::from_millis(5);

/// Where the session's messages go; the stream's other end. Bounded: a coordinator that does not read loses its lease.
pub type Outbox = mpsc::Sender<Result<v1::AgentMessage, Status>>;

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionEnd {
    /// The coordinator said so.
    #[error("released")]
    Released,
    /// The coordinator ended the stream.
    #[error("the coordinator's stream ended")]
    StreamEnded,
    /// The stream broke.
    #[error("the coordinator's stream broke: {0}")]
    StreamBroke(String),
    /// What came is no message, or a larger one than there may be.
    #[error("a message of the coordinator cannot be read: {0}")]
    Unreadable(String),
    /// No echo came in time.
    #[error("the lease timed out")]
    LeaseTimedOut,
    /// The coordinator does not read, or sends what makes no sense.
    #[error("{0}")]
    Protocol(String),
    /// The run holds this agent for longer than it may.
    #[error("the run has held this agent for its --max-run of {} s", .0.as_secs_f64())]
    RunTooLong(Duration),
    /// The daemon is being shut down.
    #[error("the agent is shutting down")]
    ShuttingDown,
}

/// Whether a session had a run: one that was only claimed, or calibrated, had none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HadRun {
    /// It was prepared, or its coordinator said that it is over before it was.
    Yes,
    /// It was not.
    No,
}

/// What a session came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// Why it is over.
    pub end: SessionEnd,
    /// Whether a run was.
    pub run: HadRun,
}

/// One coordinator's hold on this agent.
pub struct Session {
    config: SessionConfig,
    claim: Claim,
    outbox: Outbox,
    lease: Lease,
    claimed_ns: u64,
    last_echo: Option<v1::EchoReceipt>,
    pings: Pings,
    workers: Option<Prepared>,
    events: mpsc::UnboundedReceiver<(u8, WorkerEvent)>,
    events_in: mpsc::UnboundedSender<(u8, WorkerEvent)>,
    /// Every worker's, whether it still works or not.
    threads: Vec<std::thread::JoinHandle<()>>,
    box_watch: BoxWatch,
    /// At most one; it ends with the session.
    calibrating: JoinSet<Result<Calibration, String>>,
    /// Whether it was asked to.
    calibrated: bool,
    run: HadRun,
}

/// What stands after Prepare.
struct Prepared {
    plan: Arc<AgentPlan>,
    /// `None`: the workload has no rooms to deal.
    fixtures: Option<Arc<Fixtures>>,
    commands: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    /// One per worker once dealt.
    parts: Vec<Part>,
    awaited: Awaited,
    running: Option<Aggregate>,
}

/// What the workers have yet to answer.
enum Awaited {
    Nothing,
    Connections { left: usize },
    Deal { left: usize, answer: v1::Dealt, budgets: Vec<Option<u64>> },
}

impl Session {
    /// A session whose lease begins now.
    pub fn new(config: SessionConfig, claim: Claim, outbox: Outbox) -> Self {
        let (events_in, events) = mpsc::unbounded_channel();
        let now_ns = boottime_ns();
        let lease = Lease::until(now_ns + claim.lease_timeout.as_nanos() as u64);
        let box_watch = BoxWatch::new(now_ns);
        let pings = Pings::new(claim.lease_timeout);
        Self {
            config,
            claim,
            outbox,
            lease,
            claimed_ns: now_ns,
            last_echo: None,
            pings,
            workers: None,
            events,
            events_in,
            threads: Vec::new(),
            box_watch,
            calibrating: JoinSet::new(),
            calibrated: false,
            run: HadRun::No,
        }
    }

    /// Serves the coordinator until the session ends; then nothing is sent to the target any more. Once `drain` resolves,
    /// nothing more is released, and the session ends when what was released has; once `shutdown` does, at once.
    pub async fn serve(
        mut self,
        mut inbound: Streaming<v1::CoordinatorMessage>,
        drain: impl Future<Output = ()>,
        shutdown: impl Future<Output = ()>,
    ) -> Over {
        let mut pings = tokio::time::interval(self.pings.interval());
        let run_over = run_over(self.config.limits.max_run, self.claim.held_before);
        tokio::pin!(drain, shutdown, run_over);
        let mut draining = false;
        let end = loop {
            let step = tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => self.on_message(message).await,
                    Ok(None) => Err(SessionEnd::StreamEnded),
                    Err(status) => Err(unread(&status)),
                },
                _ = pings.tick() => {
                    pings.reset_after(self.pings.interval());
                    self.ping()
                }
                Some((worker, event)) = self.events.recv() => self.on_event(worker, event),
                Some(done) = self.calibrating.join_next() => {
                    self.on_calibrated(done.unwrap_or_else(|error| Err(error.to_string())))
                }
                limit = &mut run_over => Err(SessionEnd::RunTooLong(limit)),
                () = &mut drain, if !draining => {
                    draining = true;
                    self.drain();
                    Ok(())
                }
                () = &mut shutdown => Err(SessionEnd::ShuttingDown),
            };
            if let Err(end) = step {
                break end;
            }
            if draining && !self.is_running() {
                break SessionEnd::ShuttingDown;
            }
        };
        // First the lease, which every worker looks at before it sends; then the commands' ends, which end the workers.
        self.lease.end();
        self.workers = None;
        let parting = match &end {
            SessionEnd::Released | SessionEnd::StreamEnded | SessionEnd::StreamBroke(_) => None,
            SessionEnd::Unreadable(_) => Some(Status::invalid_argument(end.to_string())),
            SessionEnd::Protocol(words) => Some(Status::failed_precondition(words.clone())),
            SessionEnd::RunTooLong(_) => Some(Status::failed_precondition(end.to_string())),
            SessionEnd::LeaseTimedOut | SessionEnd::ShuttingDown => Some(Status::unavailable(end.to_string())),
        };
        if let Some(status) = parting {
            // A coordinator that does not read has no room for it; it finds the stream ended.
            let _ = self.outbox.try_send(Err(status));
        }
        let Self { outbox, threads, run, .. } = self;
        // The coordinator sees the end at once; who comes next finds the connections closed.
        drop(outbox);
        await_threads(&threads).await;
        Over { end, run }
    }

    fn send(&self, message: agent_message::Message) -> Result<(), SessionEnd> {
        let message = v1::AgentMessage { message: Some(message) };
        self.outbox.try_send(Ok(message)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SessionEnd::Protocol("the coordinator does not read".into()),
            mpsc::error::TrySendError::Closed(_) => SessionEnd::StreamEnded,
        })
    }

    fn refuse(&self, kind: v1::RefusedKind, message: impl Into<String>) -> Result<(), SessionEnd> {
        let refused = v1::Refused { kind: kind.into(), message: message.into() };
        self.send(agent_message::Message::Refused(refused))
    }

    fn ping(&mut self) -> Result<(), SessionEnd> {
        let now_ns = boottime_ns();
        if !self.lease.holds(now_ns) {
            return Err(SessionEnd::LeaseTimedOut);
        }
        self.pings.sent(now_ns);
        let ping = v1::Ping { sent_boottime_ns: now_ns, last_echo: self.last_echo };
        self.send(agent_message::Message::Ping(ping))
    }

    async fn on_message(&mut self, message: v1::CoordinatorMessage) -> Result<(), SessionEnd> {
        use coordinator_message::Message;
        match message.message {
            Some(Message::Echo(echo)) => self.on_echo(&echo),
            Some(Message::Calibrate(order)) => self.on_calibrate(order),
            Some(Message::Prepare(prepare)) => self.on_prepare(prepare).await,
            Some(Message::Deal(deal)) => self.on_deal(&deal),
            Some(Message::StartStep(start)) => self.on_start(start),
            Some(Message::StopStep(_)) => self.on_stop(),
            Some(Message::Release(_)) => {
                // Who is let go after a calibration alone may have a run yet.
                if !self.calibrated {
                    self.run = HadRun::Yes;
                }
                Err(SessionEnd::Released)
            }
            Some(Message::Claim(_)) => Err(SessionEnd::Protocol("claimed twice".into())),
            None => Err(SessionEnd::Protocol("a message without content".into())),
        }
    }

    fn on_echo(&mut self, echo: &v1::Echo) -> Result<(), SessionEnd> {
        let now_ns = boottime_ns();
        if !self.lease.holds(now_ns) {
            return Err(SessionEnd::LeaseTimedOut);
        }
        let Some(end_ns) = self.pings.echoed(echo.ping_sent_boottime_ns) else {
            return Err(SessionEnd::Protocol("an echo of a ping that was not sent".into()));
        };
        if !self.lease.extend(now_ns, end_ns) {
            return Err(SessionEnd::LeaseTimedOut);
        }
        self.last_echo = Some(v1::EchoReceipt {
            ping_sent_boottime_ns: echo.ping_sent_boottime_ns,
            coordinator_ns: echo.coordinator_ns,
            received_boottime_ns: now_ns,
        });
        Ok(())
    }

    fn on_calibrate(&mut self, order: v1::Calibrate) -> Result<(), SessionEnd> {
        if self.workers.is_some() || !self.calibrating.is_empty() {
            return self.refuse(v1::RefusedKind::Invalid, "calibrated after Prepare, or twice at once");
        }
        match CalibrationOrder::try_from(order) {
            Ok(order) => {
                self.calibrated = true;
                self.calibrating.spawn(calibrate(order, self.config.workers, self.lease.clone()));
                Ok(())
            }
            Err(error) => self.refuse(v1::RefusedKind::Invalid, error.to_string()),
        }
    }

    fn on_calibrated(&mut self, done: Result<Calibration, String>) -> Result<(), SessionEnd> {
        match done {
            Ok(calibration) => self.send(agent_message::Message::Calibrated((&calibration).into())),
            Err(words) => self.refuse(v1::RefusedKind::Box, format!("no calibration: {words}")),
        }
    }

    async fn on_prepare(&mut self, prepare: v1::Prepare) -> Result<(), SessionEnd> {
        if self.workers.is_some() {
            return self.refuse(v1::RefusedKind::Invalid, "prepared twice");
        }
        if !self.calibrating.is_empty() {
            return self.refuse(v1::RefusedKind::Invalid, "prepared while calibrating");
        }
        let plan = match AgentPlan::try_from(prepare) {
            Ok(plan) => Arc::new(plan),
            Err(error) => return self.refuse(v1::RefusedKind::Invalid, error.to_string()),
        };
        let limits = &self.config.limits;
        let limited = match servers(&plan.target.url) {
            Ok(servers) => limits
                .check_targets(&servers)
                .and_then(|()| limits.check_connections(u32::from(self.config.workers)))
                .map_err(|limit| (kind_of_limit(&limit), limit.to_string())),
            Err(words) => Err((v1::RefusedKind::Invalid, words)),
        };
        if let Err((kind, words)) = limited {
            return self.refuse(kind, words);
        }
        let building = plan.clone();
        let built = tokio::task::spawn_blocking(move || building.workload.fixtures(building.seed));
        let Ok(fixtures) = built.await else {
            return self.refuse(v1::RefusedKind::Fixtures, "building the fixtures failed");
        };
        let fixtures = fixtures.map(Arc::new);
        let workers = self.config.workers;
        let mut desks = plan.workload.daily().map(|_| Exchange::desks(workers)).unwrap_or_default().into_iter();
        let mut commands = Vec::new();
        for index in 0..workers {
            let desk = desks.next();
            let connection = format!("plimsoll/{}/{}", self.claim.run_id, plan.agent_index);
            let (plan, fixtures, lease) = (plan.clone(), fixtures.clone(), self.lease.clone());
            let spec = WorkerSpec { index, connection, plan, fixtures, workers, desk, lease };
            let (sender, receiver) = mpsc::unbounded_channel();
            let events = self.events_in.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            match thread.spawn(move || worker::run(spec, receiver, events)) {
                Ok(thread) => self.threads.push(thread),
                Err(error) => {
                    return self.refuse(v1::RefusedKind::Box, format!("cannot start a worker thread: {error}"));
                }
            }
            commands.push(sender);
        }
        let awaited = Awaited::Connections { left: commands.len() };
        self.run = HadRun::Yes;
        self.workers = Some(Prepared { plan, fixtures, commands, parts: Vec::new(), awaited, running: None });
        Ok(())
    }

    fn on_deal(&mut self, deal: &v1::Deal) -> Result<(), SessionEnd> {
        let Some(prepared) = self.workers.as_mut().filter(|prepared| prepared.is_idle()) else {
            return self.refuse(v1::RefusedKind::Invalid, "dealt while not ready");
        };
        let shares = &deal.share_milli_per_s;
        if shares.len() > MAX_AGENTS {
            let words = format!("a deal to {} agents, and a fleet has at most {MAX_AGENTS}", shares.len());
            return self.refuse(v1::RefusedKind::Invalid, words);
        }
        let own = usize::from(prepared.plan.agent_index);
        if own >= shares.len() || shares[own] == 0 {
            return self.refuse(v1::RefusedKind::Invalid, "a deal without a share for this agent");
        }
        if let Some(daily) = prepared.plan.workload.daily() {
            let users = shares[own] / 1000;
            let needed = daily.connections(users) + u64::from(self.config.workers);
            let needed = u32::try_from(needed).unwrap_or(u32::MAX);
            if let Err(limit) = self.config.limits.check_connections(needed) {
                return self.refuse(kind_of_limit(&limit), limit.to_string());
            }
        }
        let (parts, answer) = match prepared.deal(deal.deal, own, shares) {
            Ok(dealt) => dealt,
            Err(words) => return self.refuse(v1::RefusedKind::Fixtures, words),
        };
        prepared.parts = parts;
        let budgets = vec![None; prepared.commands.len()];
        prepared.awaited = Awaited::Deal { left: prepared.commands.len(), answer, budgets };
        for (commands, part) in prepared.commands.iter().zip(&prepared.parts) {
            let _ = commands.send(WorkerCommand::Deal(part.clone()));
        }
        Ok(())
    }

    fn on_start(&mut self, start: v1::StartStep) -> Result<(), SessionEnd> {
        let order = match StepOrder::try_from(start) {
            Ok(order) => order,
            Err(error) => return self.refuse(v1::RefusedKind::Invalid, error.to_string()),
        };
        let now_ns = boottime_ns();
        let until_start = order.start_boottime_ns.saturating_sub(self.claimed_ns.min(now_ns));
        let to_the_end = Duration::from_nanos(until_start).saturating_add(order.warmup).saturating_add(order.hold);
        let limits = &self.config.limits;
        if let Err(limit) = limits.check_run(to_the_end.saturating_add(self.claim.held_before)) {
            return self.refuse(kind_of_limit(&limit), limit.to_string());
        }
        let Some(prepared) = self.workers.as_ref().filter(|prepared| prepared.is_idle() && !prepared.parts.is_empty())
        else {
            return self.refuse(v1::RefusedKind::Invalid, "started while not dealt");
        };
        if let Err(why) = check_step(limits, &prepared.plan, &prepared.hand(), &order) {
            return self.refuse(kind_of_step(&why), why.to_string());
        }
        if order.start_boottime_ns <= boottime_ns() {
            return self.refuse(v1::RefusedKind::TooLate, "the start instant is already past");
        }
        if let Some(prepared) = &mut self.workers {
            prepared.start(&order);
        }
        let v1_order = v1::Armed { step: order.trial.step, trial: order.trial.trial };
        self.send(agent_message::Message::Armed(v1_order))
    }

    fn is_running(&self) -> bool {
        self.workers.as_ref().is_some_and(|prepared| prepared.running.is_some())
    }

    /// Has the workers release nothing more. What they released ends within the request timeout, and the totals follow.
    fn drain(&self) {
        for commands in self.workers.iter().flat_map(|prepared| &prepared.commands) {
            let _ = commands.send(WorkerCommand::Drain);
        }
    }

    fn on_stop(&mut self) -> Result<(), SessionEnd> {
        // A step that is already over has said so; its totals are on their way.
        if let Some(prepared) = self.workers.as_ref().filter(|prepared| prepared.running.is_some()) {
            for commands in &prepared.commands {
                let _ = commands.send(WorkerCommand::Stop);
            }
        }
        Ok(())
    }

    fn on_event(&mut self, worker: u8, event: WorkerEvent) -> Result<(), SessionEnd> {
        match event {
            WorkerEvent::Refused(refusal) => {
                self.workers = None;
                self.refuse(kind_of(&refusal), refusal.to_string())
            }
            WorkerEvent::Connected(server) => self.on_ready(Some(server)),
            WorkerEvent::Dealt(budget) => {
                if let Some(Prepared { awaited: Awaited::Deal { budgets, .. }, .. }) = &mut self.workers {
                    budgets[usize::from(worker)] = budget;
                }
                self.on_ready(None)
            }
            WorkerEvent::Block(trial, block, health) => {
                let Some(running) = self.running(trial) else { return Ok(()) };
                running.block(worker, *block, health);
                self.report()
            }
            WorkerEvent::Finished(trial, finish) => {
                let Some(running) = self.running(trial) else { return Ok(()) };
                running.finish(worker, *finish);
                self.report()
            }
        }
    }

    fn running(&mut self, trial: TrialId) -> Option<&mut Aggregate> {
        self.workers.as_mut()?.running.as_mut().filter(|running| running.trial() == trial)
    }

    fn on_ready(&mut self, server: Option<String>) -> Result<(), SessionEnd> {
        let Some(prepared) = &mut self.workers else { return Ok(()) };
        let (Awaited::Connections { left } | Awaited::Deal { left, .. }) = &mut prepared.awaited else { return Ok(()) };
        *left -= 1;
        if *left > 0 {
            return Ok(());
        }
        let message = match std::mem::replace(&mut prepared.awaited, Awaited::Nothing) {
            Awaited::Deal { answer, budgets, .. } => {
                let budgets: Option<Vec<u64>> = budgets.into_iter().collect();
                let operations_left = budgets.map(|budgets| Part::most(budgets.into_iter(), &prepared.parts));
                agent_message::Message::Dealt(v1::Dealt { operations_left, ..answer })
            }
            _ => agent_message::Message::Prepared(v1::Prepared { server: server.unwrap_or_default() }),
        };
        self.send(message)
    }

    fn report(&mut self) -> Result<(), SessionEnd> {
        let Some(running) = self.workers.as_mut().and_then(|prepared| prepared.running.as_mut()) else { return Ok(()) };
        let mut snapshots = Vec::new();
        while let Some(snapshot) = running.next_snapshot(|| self.box_watch.look(boottime_ns())) {
            snapshots.push(snapshot);
        }
        let totals = running.totals();
        let series = self.workers.as_ref().map(|prepared| prepared.plan.series.as_slice()).unwrap_or_default();
        for snapshot in &snapshots {
            self.config.metrics.record(snapshot, series);
            self.send(agent_message::Message::Snapshot(snapshot.into()))?;
        }
        if let Some(totals) = totals {
            if let Some(prepared) = &mut self.workers {
                prepared.running = None;
            }
            self.send(agent_message::Message::StepTotals((&totals).into()))?;
        }
        Ok(())
    }
}

impl Prepared {
    fn is_idle(&self) -> bool {
        matches!(self.awaited, Awaited::Nothing) && self.running.is_none()
    }

    /// What was dealt to it, and what of it to its workers.
    fn hand(&self) -> Hand {
        let users = self.parts.iter().map(|part| part.users.len() as u64).sum();
        Hand { users, workers_ppm: Part::split(1_000_000, &self.parts) }
    }

    /// What each worker does of this agent's share, and what of it the coordinator is told. The error is for people.
    fn deal(&self, deal: u32, own: usize, shares: &[u64]) -> Result<(Vec<Part>, v1::Dealt), String> {
        let workers = self.commands.len();
        if let Some(daily) = self.plan.workload.daily() {
            return deal_users(daily, deal, own, shares, workers);
        }
        let Some(fixtures) = &self.fixtures else {
            return Ok((Part::equal(workers), v1::Dealt { deal, ..v1::Dealt::default() }));
        };
        let members: Vec<&[u32]> = fixtures.rooms.iter().map(|room| room.members.as_slice()).collect();
        let weight = |room: &Room| self.plan.workload.room_weight(room);
        let weights: Vec<f64> = fixtures.rooms.iter().map(weight).collect();
        let dealt = deal_to_agents(&members, &weights, fixtures.users, shares).map_err(|error| error.to_string())?;
        let hand = &dealt.hands[own];
        let answer = v1::Dealt {
            deal,
            rooms: hand.pieces.len() as u32,
            senders: hand.sender_count(),
            pairs: hand.pairs(),
            largest_deviation_ppm: (dealt.largest_deviation * 1e6).round() as u64,
            operations_left: None,
        };
        Ok((Part::of_hands(deal_to_workers(hand, &members, fixtures.users, workers)), answer))
    }

    fn start(&mut self, order: &StepOrder) {
        // Where levels are users, workers find out themselves what is due.
        let rate = self.plan.workload.rate(order.share, order.hold);
        let (warmup, hold) = order.due(rate);
        let (warmup, hold) = (Part::split(warmup, &self.parts), Part::split(hold, &self.parts));
        let in_flight = Part::split(order.max_in_flight, &self.parts);
        self.running = Some(Aggregate::new(order.trial, self.commands.len()));
        let workers = self.commands.len() as u64;
        for (index, commands) in self.commands.iter().enumerate() {
            // Workers are staggered as agents are: (index + the agent's own phase) of the workers' interval.
            let agent_phase = match order.arrivals {
                Arrivals::Uniform { phase_ppm } => u64::from(phase_ppm),
                Arrivals::Poisson => 0,
            };
            let phase_ppm = ((index as u64 * 1_000_000 + agent_phase) / workers) as u32;
            let order = WorkerOrder {
                order: order.clone(),
                warmup_due: warmup[index],
                hold_due: hold[index],
                max_in_flight: in_flight[index].max(1),
                phase_ppm,
            };
            let _ = commands.send(WorkerCommand::Start(order));
        }
    }
}

/// Why no message came: of what breaks below it a status has a cause, of what it reads itself it has words only.
fn unread(status: &Status) -> SessionEnd {
    match std::error::Error::source(status) {
        Some(cause) => SessionEnd::StreamBroke(cause.to_string()),
        None => SessionEnd::Unreadable(status.message().to_owned()),
    }
}

/// Which of an agent's users each worker drives. The error is for people.
fn deal_users(
    daily: &DailyWorkload,
    deal: u32,
    own: usize,
    shares: &[u64],
    workers: usize,
) -> Result<(Vec<Part>, v1::Dealt), String> {
    let counts: Vec<u64> = shares.iter().map(|share| share / 1000).collect();
    let all: u64 = counts.iter().fold(0, |sum, &count| sum.saturating_add(count));
    if shares.iter().any(|share| share % 1000 != 0) || all > u64::from(daily.users) {
        return Err(format!("{all} users of {} cannot be dealt in whole", daily.users));
    }
    let users = users_of(own, &counts);
    let direct_users = users.len().min(daily.max_direct_users as usize);
    let answer = v1::Dealt { deal, senders: users.len() as u32, ..v1::Dealt::default() };
    Ok((Part::of_users(&users, direct_users, daily.multiplex_pool_size, workers), answer))
}

/// Returns once these have ended, or have not in all the time that they take.
async fn await_threads(threads: &[std::thread::JoinHandle<()>]) {
    let began = tokio::time::Instant::now();
    while !threads.iter().all(std::thread::JoinHandle::is_finished) {
        if began.elapsed() > ENDING_LIMIT {
            tracing::warn!(
                "workers have not ended within {ENDING_LIMIT:?}: the next run may find connections of theirs"
            );
            return;
        }
        tokio::time::sleep(LOOK_AT_WORKERS).await;
    }
}

/// Resolves once a run has had all the time it may take.
async fn run_over(limit: Option<Duration>, held_before: Duration) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit.saturating_sub(held_before)).await;
            limit
        }
        None => std::future::pending().await,
    }
}

fn kind_of_limit(limit: &LimitError) -> v1::RefusedKind {
    match limit {
        LimitError::Target { .. } => v1::RefusedKind::Denied,
        LimitError::Rate { .. } | LimitError::Connections { .. } | LimitError::Run { .. } => v1::RefusedKind::Ceiling,
    }
}

fn kind_of_step(why: &NotHeld) -> v1::RefusedKind {
    match why {
        NotHeld::Limit(limit) => kind_of_limit(limit),
        NotHeld::OtherUsers { .. } => v1::RefusedKind::Invalid,
        NotHeld::Book { .. } => v1::RefusedKind::Ceiling,
    }
}

fn kind_of(refusal: &WorkerRefusal) -> v1::RefusedKind {
    match refusal {
        WorkerRefusal::Connect(ConnectError::Unreachable { .. }) | WorkerRefusal::NotConfirmed { .. } => {
            v1::RefusedKind::Unreachable
        }
        WorkerRefusal::Connect(ConnectError::Unauthorized { .. }) => v1::RefusedKind::Unauthorized,
        WorkerRefusal::Denied { .. } | WorkerRefusal::NobodyListens { .. } => v1::RefusedKind::Denied,
        WorkerRefusal::Fixtures(_) => v1::RefusedKind::Fixtures,
        WorkerRefusal::Asked(_) => v1::RefusedKind::Invalid,
        WorkerRefusal::Box(_) => v1::RefusedKind::Box,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_box_lacks_is_not_said_to_be_wrong_with_what_was_asked() {
        let kind = |refusal| kind_of(&refusal);
        assert_eq!(kind(WorkerRefusal::Box("no timer: too many open files".into())), v1::RefusedKind::Box);
        assert_eq!(kind(WorkerRefusal::Asked("no consumer".into())), v1::RefusedKind::Invalid);
        assert_eq!(kind(WorkerRefusal::NotConfirmed { count: 1 }), v1::RefusedKind::Unreachable);
    }
}
