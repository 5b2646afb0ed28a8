//! A deal: what the worker's part needs is subscribed to, probed and brought online before it is answered.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use async_nats::{HeaderMap, StatusCode};
use futures::StreamExt as _;
use plimsoll_common::contract::ids::{IdCodec, Sender};
use plimsoll_common::plan::TrialId;

use super::Worker;
use super::fence::FENCE_TIMEOUT;
use super::orders::WorkerRefusal;
use super::state::{State, UsersEar};
use crate::shell::clock::boottime_ns;
use crate::shell::lease::Lease;
use crate::shell::lines::{Lines, Unsettled, Wanted};
use crate::workload::{Part, Probe, Setup, Workload};

/// A server says at once that nobody listens; whoever does may take his time, and need not answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often users say what is due beside their operations where no trial has its own ticks.
const SPEAK: Duration = Duration::from_millis(100);

impl<W: Workload> Worker<W> {
    pub(super) async fn deal(&mut self, part: &Part) -> Result<(), WorkerRefusal> {
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
