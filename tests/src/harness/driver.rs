//! A coordinator of one agent, as small as one can be: it drives a step over the real protocol and returns what came back.
//! For benchmarks and for tests of an agent alone.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use plimsoll_agent::clock::boottime_ns;
use plimsoll_common::plan::{AgentPlan, Arrivals, More, StepOrder, TrialId};
use plimsoll_common::snapshot::{Snapshot, StepTotals};
use plimsoll_common::units::Rate;
use plimsoll_common::wire::MAX_MESSAGE_BYTES;
use plimsoll_proto::PROTOCOL_VERSION;
use plimsoll_proto::v1::agent_client::AgentClient;
use plimsoll_proto::v1::agent_message::Message as FromAgent;
use plimsoll_proto::v1::coordinator_message::Message as ToAgent;
use plimsoll_proto::v1::{self};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// An answer that takes longer than this will not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// From the order of a step to its warmup: a busy agent hears of it in time.
const LEAD: Duration = Duration::from_secs(1);

/// A lease on one agent.
pub struct Driver {
    to_agent: Option<mpsc::UnboundedSender<v1::CoordinatorMessage>>,
    from_agent: Streaming<v1::AgentMessage>,
    /// What the agent said of itself.
    pub hello: v1::Hello,
    /// Whether pings are answered: without echoes the lease runs out.
    pub echoes: bool,
    /// The agent's clock at the sending of the newest ping that was echoed, in nanoseconds; 0 before the first.
    pub last_echoed: u64,
    trials: u32,
}

/// One step to be driven.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub rate: Rate,
    pub warmup: Duration,
    pub hold: Duration,
    pub max_in_flight: u64,
}

/// What an agent said of a step.
#[derive(Debug, Clone)]
pub struct Driven {
    pub snapshots: Vec<Snapshot>,
    pub totals: StepTotals,
}

impl Driver {
    /// Claims the agent.
    ///
    /// # Errors
    /// When it cannot be reached or refuses, with its words.
    pub async fn claim(agent: SocketAddr, lease_timeout: Duration) -> anyhow::Result<Self> {
        let claim = v1::Claim {
            protocol_version: PROTOCOL_VERSION,
            build: "driver".into(),
            coordinator: format!("driver pid {}", std::process::id()),
            run_id: "driver".into(),
            lease_timeout_ms: u32::try_from(lease_timeout.as_millis())?,
        };
        Self::claim_as(agent, claim).await
    }

    /// Claims the agent as soon as nobody else holds it.
    ///
    /// # Errors
    /// When it is not free in time, with its words.
    pub async fn claim_once_free(agent: SocketAddr) -> anyhow::Result<Self> {
        let started = tokio::time::Instant::now();
        loop {
            match Self::claim(agent, Duration::from_secs(3)).await {
                Err(error) if error.to_string().contains("is leased to") && started.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Claims the agent with any claim.
    ///
    /// # Errors
    /// When it cannot be reached or refuses, with its words.
    pub async fn claim_as(agent: SocketAddr, claim: v1::Claim) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{agent}"))?.connect().await?;
        Self::claim_over(channel, claim).await
    }

    /// Claims the agent at the other end of a connection.
    ///
    /// # Errors
    /// When it refuses, with its words.
    pub async fn claim_over(channel: Channel, claim: v1::Claim) -> anyhow::Result<Self> {
        let client = AgentClient::new(channel);
        let mut client = client.max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (to_agent, outbound) = mpsc::unbounded_channel();
        to_agent.send(v1::CoordinatorMessage { message: Some(ToAgent::Claim(claim)) })?;
        let response = client.session(UnboundedReceiverStream::new(outbound)).await;
        let mut from_agent = response.map_err(|status| anyhow!("{}", status.message()))?.into_inner();
        let first = from_agent.message().await?.and_then(|message| message.message);
        let Some(FromAgent::Hello(hello)) = first else { bail!("expected a hello, got {first:?}") };
        Ok(Self { to_agent: Some(to_agent), from_agent, hello, echoes: true, last_echoed: 0, trials: 0 })
    }

    /// Sends anything.
    pub fn send(&self, message: ToAgent) {
        self.send_raw(v1::CoordinatorMessage { message: Some(message) });
    }

    /// Sends anything, also what is no message.
    pub fn send_raw(&self, message: v1::CoordinatorMessage) {
        if let Some(to_agent) = &self.to_agent {
            // A stream that is gone shows in what is received.
            let _ = to_agent.send(message);
        }
    }

    /// The next message that is no ping; pings are echoed on the way.
    ///
    /// # Errors
    /// When the stream ends, with the agent's words, or nothing comes.
    pub async fn next(&mut self) -> anyhow::Result<FromAgent> {
        loop {
            let message =
                tokio::time::timeout(PATIENCE, self.from_agent.message()).await.context("the agent is silent")?;
            let message = message.map_err(|status| anyhow!("{}", status.message()))?.context("the stream ended")?;
            match message.message.context("an empty message")? {
                FromAgent::Ping(ping) if self.echoes => {
                    self.last_echoed = ping.sent_boottime_ns;
                    self.send(ToAgent::Echo(v1::Echo {
                        ping_sent_boottime_ns: ping.sent_boottime_ns,
                        coordinator_ns: boottime_ns(),
                    }));
                }
                FromAgent::Ping(_) => {}
                other => return Ok(other),
            }
        }
    }

    /// Prepares the agent, and deals it all rooms.
    ///
    /// # Errors
    /// When it refuses, with its words.
    pub async fn prepare(&mut self, plan: &AgentPlan) -> anyhow::Result<()> {
        self.prepare_as_one_of(plan, vec![1000]).await
    }

    /// Prepares the agent as one of a fleet with these shares, and deals it its rooms.
    ///
    /// # Errors
    /// When it refuses, with its words.
    pub async fn prepare_as_one_of(&mut self, plan: &AgentPlan, shares: Vec<u64>) -> anyhow::Result<()> {
        self.send(ToAgent::Prepare(plan.into()));
        let answer = self.next().await?;
        ensure!(matches!(answer, FromAgent::Prepared(_)), "{answer:?}");
        self.send(ToAgent::Deal(v1::Deal { deal: 0, share_milli_per_s: shares }));
        let answer = self.next().await?;
        ensure!(matches!(answer, FromAgent::Dealt(_)), "{answer:?}");
        Ok(())
    }

    /// Starts a step and returns when it is armed.
    ///
    /// # Errors
    /// When the agent refuses, with its words.
    pub async fn start(&mut self, load: Load) -> anyhow::Result<()> {
        let trial = TrialId { step: self.trials, trial: 0 };
        self.trials += 1;
        let order = StepOrder {
            trial,
            share: load.rate,
            start_boottime_ns: boottime_ns() + LEAD.as_nanos() as u64,
            warmup: load.warmup,
            hold: load.hold,
            arrivals: Arrivals::Poisson,
            max_in_flight: load.max_in_flight,
            more: More::default(),
        };
        self.send(ToAgent::StartStep((&order).into()));
        let answer = self.next().await?;
        ensure!(matches!(answer, FromAgent::Armed(_)), "{answer:?}");
        Ok(())
    }

    /// Drives a step to its end.
    ///
    /// # Errors
    /// When the agent refuses, falls silent or sends what cannot be read.
    pub async fn hold(&mut self, load: Load) -> anyhow::Result<Driven> {
        self.start(load).await?;
        let mut snapshots = Vec::new();
        loop {
            match self.next().await? {
                FromAgent::Snapshot(snapshot) => snapshots.push(snapshot.try_into()?),
                FromAgent::StepTotals(totals) => return Ok(Driven { snapshots, totals: totals.try_into()? }),
                other => bail!("expected snapshots, got {other:?}"),
            }
        }
    }

    /// Cuts the stream without a word.
    pub fn cut(mut self) {
        self.to_agent = None;
    }
}

impl Driven {
    /// All lateness of the step.
    pub fn lateness(&self) -> plimsoll_common::histogram::LatencyHistogram {
        let mut all = plimsoll_common::histogram::LatencyHistogram::new();
        self.snapshots.iter().for_each(|snapshot| all.add(&snapshot.health.lateness));
        all
    }
}
