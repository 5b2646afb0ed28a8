//! The stand-in chat backend: the ground truth of the suite.
//!
//! Five stages read real JetStream durables, named and configured as the chat's, over rooms built from the same fixtures
//! as the load. Each has a capacity that is met exactly ([`service`]), a latency, and faults on demand
//! ([`config`]); [`counters`] tell what it did. [`null`] is something else: a gatekeeper without streams that answers at
//! once, the ruler for a load generator's own speed.

mod broadcast;
mod clock;
pub mod config;
pub mod counters;
mod daily;
mod directory;
mod gatekeeper;
mod ids;
mod jetstream;
pub mod null;
mod presence;
mod reads;
pub mod responder;
mod rooms;
pub mod service;
mod stage;
mod stored;

pub use config::{DailyConfig, Endpoint, EndpointConfig, Latency, Stage, StageConfig, StandinConfig, Storage};
pub use counters::Counters;

use anyhow::{Context as _, anyhow};
use broadcast::{Broadcaster, Sealer};
use clock::Clock;
use daily::DailyBook;
use directory::Directory;
use gatekeeper::Gatekeeper;
use plimsoll_common::contract::fixtures::Fixtures;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use reads::{Archive, EndpointCommand, Reader, ReaderParts};
use rooms::RoomWorker;
use stage::{Command, Role, Tools, Worker, WorkerParts};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for one stage: they come from a test's few calls.
const COMMANDS: usize = 64;

/// A running stand-in backend, on a thread of its own. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct Standin {
    counters: Arc<Counters>,
    commands: Vec<mpsc::Sender<Command>>,
    endpoints: Vec<mpsc::Sender<EndpointCommand>>,
    ended: Option<oneshot::Receiver<anyhow::Result<()>>>,
    thread: Option<JoinHandle<()>>,
}

impl Standin {
    /// Starts all stages and returns when their durables exist.
    ///
    /// # Errors
    /// If a setting makes no sense, or the server refuses something.
    pub async fn start(config: StandinConfig) -> anyhow::Result<Self> {
        config.check()?;
        let counters = Arc::new(Counters::default());
        let (senders, receivers): (Vec<_>, Vec<_>) = Stage::ALL.iter().map(|_| mpsc::channel(COMMANDS)).unzip();
        let (endpoints, endpoint_receivers): (Vec<_>, Vec<_>) =
            Endpoint::ALL.iter().map(|_| mpsc::channel(COMMANDS)).unzip();
        let (ready_sender, ready) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        let theirs = Arc::clone(&counters);
        let thread = std::thread::Builder::new().name("standin".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = match runtime {
                Ok(runtime) => runtime.block_on(serve(config, theirs, receivers, endpoint_receivers, ready_sender)),
                Err(error) => Err(error.into()),
            };
            // Nobody may be waiting any more.
            let _ = ended_sender.send(outcome);
        })?;
        let mut standin = Self { counters, commands: senders, endpoints, ended: Some(ended), thread: Some(thread) };
        match ready.await {
            Ok(()) => Ok(standin),
            Err(_) => match standin.join().await {
                Ok(()) => Err(anyhow!("the stand-in ended before it was ready")),
                Err(error) => Err(error),
            },
        }
    }

    /// What it has done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The stage serves nothing from now on for `length`; none means every stage.
    pub async fn stall(&self, stage: Option<Stage>, length: Duration) -> anyhow::Result<()> {
        for stage in stage.map_or(Stage::ALL.to_vec(), |stage| vec![stage]) {
            self.tell(stage, Command::Stall(length)).await?;
        }
        Ok(())
    }

    /// Changes a stage's capacity, in messages per second, from the next message on.
    ///
    /// # Errors
    /// If the capacity makes no sense, or the stage has ended.
    pub async fn set_capacity(&self, stage: Stage, capacity: Option<f64>) -> anyhow::Result<()> {
        if let Some(capacity) = capacity {
            config::check_capacity(capacity)?;
        }
        self.tell(stage, Command::SetCapacity(capacity)).await
    }

    /// Deletes the stage's durable; the stage is idle from then on.
    ///
    /// # Errors
    /// If the server refuses, or the stage has ended.
    pub async fn vanish(&self, stage: Stage) -> anyhow::Result<()> {
        let (answer, answered) = oneshot::channel();
        self.tell(stage, Command::Vanish(answer)).await?;
        answered.await.context("the stage ended")?
    }

    /// Creates the stage's durable anew; like the chat's, it starts with everything that is in the stream.
    ///
    /// # Errors
    /// If the server refuses, or the stage has ended.
    pub async fn come_back(&self, stage: Stage) -> anyhow::Result<()> {
        let (answer, answered) = oneshot::channel();
        self.tell(stage, Command::Return(answer)).await?;
        answered.await.context("the stage ended")?
    }

    /// Nobody answers the endpoint's requests from now on: NATS says so to whoever asks.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn leave(&self, endpoint: Endpoint) -> anyhow::Result<()> {
        let (answer, answered) = oneshot::channel();
        let sender = self.endpoints.get(endpoint as usize).context("the stand-in is shutting down")?;
        let gone = || anyhow!("{} has ended", endpoint.operation());
        sender.send(EndpointCommand::Leave(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    /// Stops all stages. Streams and durables stay.
    ///
    /// # Errors
    /// What ended a stage before its time.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        self.commands.clear();
        self.endpoints.clear();
        self.join().await
    }

    /// Waits until a stage fails; for ever if none does.
    ///
    /// # Errors
    /// What ended the stage.
    pub async fn failed(&mut self) -> anyhow::Result<()> {
        match self.ended.as_mut() {
            Some(ended) => {
                let outcome = ended.await;
                self.ended = None;
                outcome.unwrap_or_else(|_| Err(anyhow!("the stand-in's thread panicked")))
            }
            None => std::future::pending().await,
        }
    }

    async fn tell(&self, stage: Stage, command: Command) -> anyhow::Result<()> {
        let at = Stage::ALL.iter().position(|other| *other == stage).expect("ALL has every stage");
        let sender = self.commands.get(at).context("the stand-in is shutting down")?;
        sender.send(command).await.map_err(|_| anyhow!("stage {stage} has ended"))
    }

    async fn join(&mut self) -> anyhow::Result<()> {
        let outcome = match self.ended.take() {
            Some(ended) => ended.await.unwrap_or_else(|_| Err(anyhow!("the stand-in's thread panicked"))),
            None => Ok(()),
        };
        if let Some(thread) = self.thread.take() {
            // A panic has already shown as an outcome that never came.
            let _ = thread.join();
        }
        outcome
    }
}

/// All stages until their commands end or one of them fails.
async fn serve(
    config: StandinConfig,
    counters: Arc<Counters>,
    receivers: Vec<mpsc::Receiver<Command>>,
    endpoint_receivers: Vec<mpsc::Receiver<EndpointCommand>>,
    ready: oneshot::Sender<()>,
) -> anyhow::Result<()> {
    let clock = Clock::start();
    let daily = config.daily.map(|daily| DailyBook::new(&daily, config.seed, &config.site, &clock)).transpose()?;
    let daily = daily.map(Arc::new);
    let directory = Arc::new(match &daily {
        Some(daily) => Directory::of_daily(daily, &config.site),
        None => Directory::new(Fixtures::build(config.preset, config.seed, &config.site), config.parents_per_room),
    });
    let setup = jetstream::connect(&config, "setup").await?;
    jetstream::create_streams(&async_nats::jetstream::new(setup.clone()), &config).await?;
    let mut workers = Vec::new();
    let mut clients = Vec::new();
    for (at, (stage, commands)) in Stage::ALL.into_iter().zip(receivers).enumerate() {
        // A stage's chance depends on the seed and on which stage it is.
        let seed = config.seed ^ ((at as u64 + 1) << 56);
        let tools = Tools {
            client: jetstream::connect(&config, stage.durable()).await?,
            directory: Arc::clone(&directory),
            counters: Arc::clone(&counters),
            clock,
            rng: ChaCha8Rng::seed_from_u64(seed),
        };
        clients.push(tools.client.clone());
        let role = role(stage, &config, &tools).await?;
        let parts = WorkerParts {
            stage,
            config: config.stage(stage),
            counts_copies: stage == Stage::BroadcastWorker && config.fan_out_capacity.is_some(),
            seed,
            tools: &tools,
            commands,
            incidents: &config.incidents,
            incidents_from: config.incidents_from,
        };
        workers.push(Worker::new(parts, role).await?.run());
    }
    let archive = Arc::new(Archive::open(&config, Arc::clone(&directory), daily, &clock).await?);
    let mut endpoints = Vec::new();
    for (endpoint, commands) in Endpoint::ALL.into_iter().zip(endpoint_receivers) {
        let client = jetstream::connect(&config, endpoint.operation()).await?;
        let faults = config.endpoint(endpoint).clone();
        let parts =
            ReaderParts { client, archive: Arc::clone(&archive), counters: Arc::clone(&counters), clock, commands };
        endpoints.push(Reader::new(endpoint, faults, config.seed, parts).await?.run());
    }
    let presence = presence::serve(
        jetstream::connect(&config, "presence").await?,
        config.site.clone(),
        config.presence_drop_every,
        Arc::clone(&counters),
        clock,
    );
    // If nobody waits for it, the commands have ended too, and so do the workers.
    let _ = ready.send(());
    let work =
        async { futures::try_join!(futures::future::try_join_all(workers), futures::future::try_join_all(endpoints)) };
    // Presence ends with the rest.
    tokio::select! {
        done = work => drop(done?),
        failed = presence => failed?,
    }
    for client in clients {
        client.flush().await.context("flushing the last acknowledgements")?;
    }
    Ok(())
}

async fn role(stage: Stage, config: &StandinConfig, tools: &Tools) -> anyhow::Result<Role> {
    Ok(match stage {
        Stage::Gatekeeper => Role::Gatekeeper(Box::new(
            Gatekeeper::new(tools.clone(), config.gate_faults.clone(), config.large_room_threshold).await?,
        )),
        Stage::BroadcastWorker => Role::Broadcaster(Box::new(Broadcaster::new(
            tools.clone(),
            config.broadcast_faults.clone(),
            config.encrypted.then(|| Sealer::new(&tools.clock)),
            config.thread_metadata,
        ))),
        Stage::RoomWorker => {
            Role::RoomWorker(Box::new(RoomWorker::new(tools.clone(), config.member_event_faults.clone())))
        }
        Stage::MessageWorker | Stage::NotificationWorker => Role::Acknowledger(tools.client.clone()),
    })
}
