//! A session: one coordinator's stream, which is the lease. It passes orders to the workers and their blocks back, and
//! when it ends, for whatever reason, so do the workers and their connections.

mod answers;
mod end;
mod orders;
mod refusal;
mod workers;

use std::time::Duration;

use plimsoll_common::calibration::{Calibration, CalibrationOrder};
use plimsoll_proto::v1::{self, agent_message, coordinator_message};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

pub use self::end::{HadRun, Over, SessionEnd};
use self::end::{await_threads, run_over};
use self::workers::{Workers, tell};
use super::calibrate::calibrate;
use super::clock::boottime_ns;
use super::health::BoxWatch;
use super::lease::Lease;
use super::metrics::Metrics;
use super::worker::{WorkerCommand, WorkerEvent};
use crate::AfterRun;
use crate::core::limits::Limits;
use crate::core::pings::Pings;

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

/// Where the session's messages go; the stream's other end. Bounded: a coordinator that does not read loses its lease.
pub type Outbox = mpsc::Sender<Result<v1::AgentMessage, Status>>;

/// One coordinator's hold on this agent.
pub struct Session {
    config: SessionConfig,
    claim: Claim,
    outbox: Outbox,
    lease: Lease,
    claimed_ns: u64,
    last_echo: Option<v1::EchoReceipt>,
    pings: Pings,
    workers: Option<Workers>,
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

impl Session {
    /// A session whose lease begins now.
    pub fn new(config: SessionConfig, claim: Claim, outbox: Outbox) -> Self {
        // Unbounded, and cannot grow: workers say a block per 0.5 s each, and where the session does not read, its lease ends
        // and so do they.
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
                    Err(status) => Err(SessionEnd::unread(&status)),
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
        self.config.metrics.idle();
        if let Some(status) = end.status() {
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

    fn is_running(&self) -> bool {
        self.workers.as_ref().is_some_and(|prepared| prepared.running.is_some())
    }

    /// Has the workers release nothing more. What they released ends within the request timeout, and the totals follow.
    fn drain(&self) {
        for commands in self.workers.iter().flat_map(|prepared| &prepared.commands) {
            tell(commands, WorkerCommand::Drain);
        }
    }
}
