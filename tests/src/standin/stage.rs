//! One stage at work: it pulls its durable, serves at its capacity, does its part, and acknowledges.

use super::broadcast::Broadcaster;
use super::clock::Clock;
use super::config::{Incident, Mishap, Stage, StageConfig, Trigger};
use super::counters::{Counters, StageCounters};
use super::directory::Directory;
use super::gatekeeper::Gatekeeper;
use super::jetstream::{create_durable, delete_durable, pull};
use super::rooms::RoomWorker;
use super::service::Service;
use anyhow::Context as _;
use async_nats::jetstream::consumer::{PullConsumer, pull as feed};
use async_nats::{Client, Message, jetstream};
use bytes::Bytes;
use futures::StreamExt as _;
use rand_chacha::ChaCha8Rng;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How soon a stage looks again for a durable that it has lost without having deleted it.
const RETRY: Duration = Duration::from_millis(500);

/// How often the gatekeeper looks for events that the stream never acknowledged.
const SWEEP: Duration = Duration::from_secs(1);

/// What a stage works with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) client: Client,
    pub(super) directory: Arc<Directory>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    pub(super) rng: ChaCha8Rng,
}

/// What a stage does with a message once it is served.
pub(super) enum Role {
    Gatekeeper(Box<Gatekeeper>),
    Broadcaster(Box<Broadcaster>),
    RoomWorker(Box<RoomWorker>),
    /// Storing and notifying leave no trace on the wire but the acknowledgement.
    Acknowledger(Client),
}

/// What a stage can be told while it works.
pub(super) enum Command {
    Stall(Duration),
    SetCapacity(Option<f64>),
    Vanish(oneshot::Sender<anyhow::Result<()>>),
    Return(oneshot::Sender<anyhow::Result<()>>),
}

/// What happens to a stage by itself, and when, counted from the trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scheduled {
    after: Duration,
    what: Happening,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    Stall(Duration),
    Vanish,
    Return,
}

enum Feed {
    Open(Box<feed::Stream>),
    /// Ended by somebody else: the server went away, or the durable was deleted behind our back.
    Lost {
        retry_at: Duration,
    },
    /// Deleted by us.
    Gone,
}

pub(super) struct Worker {
    stage: Stage,
    site: String,
    context: jetstream::Context,
    clock: Clock,
    counters: Arc<Counters>,
    role: Role,
    service: Service<Message>,
    /// Where its capacity is in copies: whom a message goes to.
    copies: Option<Arc<Directory>>,
    feed: Feed,
    commands: mpsc::Receiver<Command>,
    /// Latest first, so that the next one is popped.
    scheduled: Vec<Scheduled>,
    triggered_at: Option<Duration>,
    sweep_at: Duration,
}

/// What a worker is made from, besides its role.
pub(super) struct WorkerParts<'a> {
    pub(super) stage: Stage,
    pub(super) config: StageConfig,
    /// Its capacity is in copies, not in messages.
    pub(super) counts_copies: bool,
    pub(super) seed: u64,
    pub(super) tools: &'a Tools,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) incidents: &'a [Incident],
    pub(super) incidents_from: Trigger,
}

impl Worker {
    /// Creates the durable and starts to pull.
    pub(super) async fn new(parts: WorkerParts<'_>, role: Role) -> anyhow::Result<Self> {
        let WorkerParts { stage, config, counts_copies, seed, tools, commands, incidents, incidents_from } = parts;
        let context = jetstream::new(tools.client.clone());
        let site = tools.directory.site.clone();
        let durable = create_durable(&context, stage, &site).await?;
        let now = tools.clock.now();
        let mut service = Service::new(config.capacity, config.latency, seed);
        // What was stored before we came gives no credit.
        service.clear(now);
        Ok(Self {
            stage,
            site,
            context,
            clock: tools.clock,
            counters: Arc::clone(&tools.counters),
            role,
            service,
            copies: counts_copies.then(|| Arc::clone(&tools.directory)),
            feed: Feed::Open(Box::new(pull(&durable).await?)),
            commands,
            scheduled: schedule(stage, incidents),
            triggered_at: (incidents_from == Trigger::Ready).then_some(now),
            sweep_at: now + SWEEP,
        })
    }

    /// Works until the commands end.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        loop {
            self.happen().await;
            while let Some(done) = self.service.due(self.clock.now()) {
                self.counters().record_served(done.finished);
                self.finish(done.work).await?;
            }
            let wake = self.clock.instant(self.next_wake());
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return Ok(()),
                },
                Some(puback) = next_puback(&mut self.role) => {
                    if let Role::Gatekeeper(gatekeeper) = &mut self.role {
                        gatekeeper.on_puback(puback).await?;
                    }
                }
                next = next_message(&mut self.feed) => self.on_feed(next),
                () = tokio::time::sleep_until(wake) => self.on_wake().await?,
            }
        }
    }

    fn counters(&self) -> &StageCounters {
        self.counters.stage(self.stage)
    }

    async fn finish(&mut self, message: Message) -> anyhow::Result<()> {
        match &mut self.role {
            Role::Gatekeeper(gatekeeper) => gatekeeper.handle(message).await,
            Role::Broadcaster(broadcaster) => broadcaster.handle(message).await,
            Role::RoomWorker(room_worker) => room_worker.handle(message).await,
            Role::Acknowledger(client) => settle(client, &message).await,
        }
    }

    fn next_wake(&self) -> Duration {
        let happening = self.triggered_at.zip(self.scheduled.last()).map(|(from, next)| from + next.after);
        let retry = match self.feed {
            Feed::Lost { retry_at } => Some(retry_at),
            Feed::Open(_) | Feed::Gone => None,
        };
        [self.service.next_event(), happening, retry].into_iter().flatten().fold(self.sweep_at, Duration::min)
    }

    async fn on_wake(&mut self) -> anyhow::Result<()> {
        let now = self.clock.now();
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP;
            if let Role::Gatekeeper(gatekeeper) = &mut self.role {
                gatekeeper.expire().await?;
            }
        }
        if matches!(self.feed, Feed::Lost { retry_at } if now >= retry_at) {
            self.feed = match self.find().await {
                Ok(stream) => Feed::Open(Box::new(stream)),
                Err(error) => {
                    tracing::debug!(stage = %self.stage, "no durable: {error:#}");
                    Feed::Lost { retry_at: now + RETRY }
                }
            };
        }
        Ok(())
    }

    fn on_feed(&mut self, next: Option<Result<jetstream::Message, feed::MessagesError>>) {
        match next {
            Some(Ok(message)) => self.arrive(message),
            Some(Err(error)) => {
                tracing::warn!(stage = %self.stage, "pulling failed: {error}");
                self.feed = Feed::Lost { retry_at: self.clock.now() + RETRY };
            }
            None => self.feed = Feed::Lost { retry_at: self.clock.now() + RETRY },
        }
    }

    fn arrive(&mut self, message: jetstream::Message) {
        let now = self.clock.now();
        self.triggered_at.get_or_insert(now);
        // A message arrives when the stream has stored it: how fast this process fetches it changes no capacity.
        let (stored_at, deliveries) = message
            .info()
            .map_or((now, 1), |info| (self.stored_at(info.published.unix_timestamp_nanos()), info.delivered));
        self.counters().received.add(1);
        if deliveries > 1 {
            self.counters().redelivered.add(1);
        }
        let cost = self.copies.as_ref().map_or(1, |directory| directory.copies(&message.message.payload));
        self.service.arrive_costing(stored_at, message.message, cost);
    }

    fn stored_at(&self, unix_nanos: i128) -> Duration {
        self.clock.at_unix_nanos(unix_nanos)
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Stall(length) => self.service.stall(self.clock.now(), length),
            Command::SetCapacity(capacity) => self.service.set_capacity(capacity),
            // Whoever asked may have gone; then nobody waits for the answer.
            Command::Vanish(answer) => drop(answer.send(self.vanish().await)),
            Command::Return(answer) => drop(answer.send(self.come_back().await)),
        }
    }

    async fn happen(&mut self) {
        let now = self.clock.now();
        while let Some((from, next)) = self.triggered_at.zip(self.scheduled.last().copied()) {
            if from + next.after > now {
                return;
            }
            self.scheduled.pop();
            let outcome = match next.what {
                Happening::Stall(length) => {
                    self.service.stall(from + next.after, length);
                    Ok(())
                }
                Happening::Vanish => self.vanish().await,
                Happening::Return => self.come_back().await,
            };
            match outcome {
                Ok(()) => tracing::info!(stage = %self.stage, happening = ?next.what, "incident"),
                Err(error) => tracing::warn!(stage = %self.stage, happening = ?next.what, "incident failed: {error:#}"),
            }
        }
    }

    async fn vanish(&mut self) -> anyhow::Result<()> {
        self.feed = Feed::Gone;
        self.service.clear(self.clock.now());
        if let Role::Gatekeeper(gatekeeper) = &mut self.role {
            gatekeeper.forget();
        }
        delete_durable(&self.context, self.stage, &self.site).await
    }

    async fn come_back(&mut self) -> anyhow::Result<()> {
        let durable = create_durable(&self.context, self.stage, &self.site).await?;
        self.service.clear(self.clock.now());
        self.feed = Feed::Open(Box::new(pull(&durable).await?));
        Ok(())
    }

    /// The durable as it is, without creating it.
    async fn find(&self) -> anyhow::Result<feed::Stream> {
        let (name, stream) = (self.stage.durable(), self.stage.stream(&self.site));
        let durable: PullConsumer = self.context.get_consumer_from_stream(name, stream).await?;
        pull(&durable).await
    }
}

/// What is going to happen to a stage, latest first.
fn schedule(stage: Stage, incidents: &[Incident]) -> Vec<Scheduled> {
    let mut scheduled = Vec::new();
    for incident in incidents.iter().filter(|incident| incident.stage.is_none_or(|of| of == stage)) {
        let after = incident.after;
        match incident.what {
            Mishap::Stall(length) => scheduled.push(Scheduled { after, what: Happening::Stall(length) }),
            Mishap::Vanish { back_after } => {
                scheduled.push(Scheduled { after, what: Happening::Vanish });
                scheduled.extend(back_after.map(|back| Scheduled { after: after + back, what: Happening::Return }));
            }
        }
    }
    scheduled.sort_by_key(|next| std::cmp::Reverse(next.after));
    scheduled
}

async fn next_message(feed: &mut Feed) -> Option<Result<jetstream::Message, feed::MessagesError>> {
    match feed {
        Feed::Open(stream) => stream.next().await,
        Feed::Lost { .. } | Feed::Gone => std::future::pending().await,
    }
}

async fn next_puback(role: &mut Role) -> Option<Message> {
    match role {
        Role::Gatekeeper(gatekeeper) => gatekeeper.next_puback().await,
        Role::Broadcaster(_) | Role::RoomWorker(_) | Role::Acknowledger(_) => std::future::pending().await,
    }
}

/// Whether the `count`-th, from 1, is one of every n-th.
pub(super) fn is_nth(every: Option<NonZeroU64>, count: u64) -> bool {
    every.is_some_and(|every| count.is_multiple_of(every.get()))
}

/// Acknowledges a message: it will not come again.
pub(super) async fn settle(client: &Client, message: &Message) -> anyhow::Result<()> {
    respond(client, message, b"+ACK").await
}

/// Gives a message back: it comes again at once, up to five times.
pub(super) async fn give_back(client: &Client, message: &Message) -> anyhow::Result<()> {
    respond(client, message, b"-NAK").await
}

async fn respond(client: &Client, message: &Message, word: &'static [u8]) -> anyhow::Result<()> {
    let reply = message.reply.clone().context("a message from a durable has no subject to acknowledge on")?;
    Ok(client.publish(reply, Bytes::from_static(word)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incidents_come_in_order_and_only_to_their_stage() {
        let second = Duration::from_secs(1);
        let incidents = [
            Incident::parse_vanish("message-worker@2s+3s").unwrap(),
            Incident::parse_stall("all:1s@4s").unwrap(),
            Incident::parse_stall("broadcast-worker:1s@1s").unwrap(),
        ];
        let of = |stage| schedule(stage, &incidents);
        assert_eq!(
            of(Stage::MessageWorker),
            [
                Scheduled { after: 5 * second, what: Happening::Return },
                Scheduled { after: 4 * second, what: Happening::Stall(second) },
                Scheduled { after: 2 * second, what: Happening::Vanish },
            ]
        );
        assert_eq!(of(Stage::Gatekeeper).len(), 1);
        assert_eq!(of(Stage::BroadcastWorker).len(), 2);
    }

    #[test]
    fn every_nth_starts_with_the_nth() {
        let every = NonZeroU64::new(3);
        assert_eq!((1..=7).filter(|n| is_nth(every, *n)).collect::<Vec<_>>(), [3, 6]);
        assert!(!is_nth(None, 3));
    }
}
