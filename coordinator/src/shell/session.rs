//! One agent's session: the stream that is the lease. A task of its own reads it, so that a ping never waits for anything
//! but the stream before its echo.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_agent::clock::boottime_ns;
use plimsoll_common::calibration::Calibration;
use plimsoll_common::plan::TrialId;
use plimsoll_common::snapshot::{Snapshot, StepTotals};
use plimsoll_common::units::Rate;
use plimsoll_common::wire::{MAX_MESSAGE_BYTES, MAX_NAME, MAX_WORDS, printable};
use plimsoll_proto::PROTOCOL_VERSION;
use plimsoll_proto::v1::agent_client::AgentClient;
use plimsoll_proto::v1::agent_message::Message as FromAgent;
use plimsoll_proto::v1::coordinator_message::Message as ToAgent;
use plimsoll_proto::v1::{self, CoordinatorMessage, RefusedKind};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::fleet::{FleetError, Refusal};
use super::tls::{Heard, Wire, explain};
use crate::core::ceilings::Ceilings;
use crate::core::clock_offset::{ClockEstimator, ClockOffset, RoundTrip};

/// How long a connection may take to come up.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long an agent may take to answer the claim: it only looks at what it has.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Workloads of an agent that are known of: no release has more.
const MAX_WORKLOADS: usize = 256;
/// Messages to an agent that may wait: a dozen orders at most besides echoes, and an agent with this many unread is gone.
const OUTBOUND: usize = 64;

/// Where an agent is and what reports call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAddress {
    /// Its name.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// The name or address under which it was given, without port: what its certificate has to be for.
    pub given: String,
}

impl AgentAddress {
    /// An agent that is called as its `host:port`.
    pub fn at(address: &str) -> Self {
        Self { name: address.to_owned(), address: address.to_owned(), given: host(address).to_owned() }
    }
}

/// `host` of `host:port`, without the brackets of an address.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// What every agent of a run is told first.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Who we are, for people.
    pub coordinator: String,
    /// The run's name.
    pub run_id: String,
    /// How long the agent outlives the newest ping that was echoed.
    pub lease_timeout: Duration,
    /// Whether the run's orders carry a password or credentials.
    pub secrets: Secrets,
    /// How agents are reached.
    pub wire: Wire,
    /// The most that each is asked for, where that was found before; `None`: nothing was.
    pub ceilings: Option<Arc<Ceilings>>,
}

/// Whether what an agent is told must not be read on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// It may be read by anybody.
    None,
    /// It carries a password or credentials.
    Carried,
}

/// What an agent said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentHello {
    /// Random per process.
    pub instance: String,
    /// Its box.
    pub hostname: String,
    /// Threads that make load.
    pub workers: NonZeroU32,
    /// Its share is never above this.
    pub ceiling: Option<Rate>,
    /// How long a run may hold it.
    pub max_run: Option<Duration>,
    /// Connections to the target that a run may open there.
    pub max_connections: Option<u32>,
    /// The workloads it knows.
    pub workloads: Vec<String>,
}

/// What came from an agent, beside its pings.
#[derive(Debug)]
pub enum AgentEvent {
    /// Connected to the target, which says so of itself.
    Prepared(String),
    /// What its box can do.
    Calibrated(Box<Calibration>),
    /// Rooms and users are dealt.
    Dealt(v1::Dealt),
    /// The step is accepted.
    Armed(TrialId),
    /// A block of wall time.
    Snapshot(Box<Snapshot>),
    /// The step is over.
    Totals(Box<StepTotals>),
    /// What was asked cannot be done.
    Refused {
        /// Its words.
        words: String,
        /// What kind of refusal.
        kind: Refusal,
    },
    /// The session is over; why.
    Lost(String),
}

/// An agent's session that is under way. Dropping it ends the stream and with it the agent's lease.
#[derive(Debug)]
pub struct Session {
    /// The agent's name.
    pub name: String,
    /// What it said of itself.
    pub hello: AgentHello,
    outbound: mpsc::Sender<CoordinatorMessage>,
    clock: watch::Receiver<ClockEstimator>,
    lease_timeout: Duration,
    /// Our CLOCK_BOOTTIME at the newest echo, in nanoseconds.
    echoed_ns: Arc<AtomicU64>,
    listener: JoinHandle<()>,
}

impl Session {
    /// Dials an agent, claims it, and hands what it sends to `events` under its index.
    ///
    /// # Errors
    /// It cannot be reached, refuses, or says of itself what does not fit.
    pub async fn open(
        agent: &AgentAddress,
        index: usize,
        claim: &Claim,
        events: mpsc::Sender<(usize, AgentEvent)>,
    ) -> Result<Self, FleetError> {
        let unreachable = |why: String| FleetError::Unreachable { agent: agent.address.clone(), why };
        let Asked { mut client, heard } = connect(agent, &claim.wire, claim.secrets).await?;
        let (outbound, orders) = mpsc::channel(OUTBOUND);
        outbound.try_send(order(claim_message(claim))).expect("a new queue has room");
        let greeting = async {
            let mut inbound = client.session(ReceiverStream::new(orders)).await?.into_inner();
            let first = inbound.message().await?;
            Ok::<_, Status>((inbound, first))
        };
        let (inbound, first) = timeout(HELLO_LIMIT, greeting)
            .await
            .map_err(|_| unreachable(format!("no Hello within {HELLO_LIMIT:?}")))?
            .map_err(|status| denied(agent, &status, &heard))?;
        let mut hello = hello(agent, first.and_then(|message| message.message))?;
        let found = claim.ceilings.as_ref().and_then(|ceilings| ceilings.agents.get(&agent.name));
        hello.ceiling = hello.ceiling.into_iter().chain(found.copied()).min();
        let (clock_found, clock) = watch::channel(ClockEstimator::default());
        let echoed_ns = Arc::new(AtomicU64::new(boottime_ns()));
        let listener =
            Listener { echoed_ns: echoed_ns.clone(), index, outbound: outbound.clone(), clock: clock_found, events };
        let listener = tokio::spawn(listener.listen(inbound, claim.lease_timeout));
        let (name, lease_timeout) = (agent.name.clone(), claim.lease_timeout);
        Ok(Self { name, hello, outbound, clock, lease_timeout, echoed_ns, listener })
    }

    /// Queues an order. One that cannot be queued is not lost sight of: the listener finds out why and says so.
    pub fn send(&self, message: ToAgent) {
        if self.outbound.try_send(order(message)).is_err() {
            tracing::debug!(agent = self.name, "an order could not be queued");
        }
    }

    /// The agent's clock against ours, once it is known well, or as well as it is after the time; `None`: not at all.
    pub async fn clock(&self, within: Duration) -> Option<ClockOffset> {
        let mut clock = self.clock.clone();
        // What waiting returns holds a lock on the value: it goes before the value is read.
        let in_time = timeout(within, clock.wait_for(ClockEstimator::knows_it_well)).await.is_ok();
        if !in_time {
            tracing::debug!(agent = self.name, "its clock is not known well");
        }
        self.clock.borrow().estimate()
    }

    /// The instant of our CLOCK_BOOTTIME, in nanoseconds, from which the agent is silent whatever became of it and of the
    /// network, if it hears nothing more: its lease ends a timeout after the sending of a ping that was echoed no later.
    pub fn silent_at_ns(&self) -> u64 {
        let timeout_ns = u64::try_from(self.lease_timeout.as_nanos()).unwrap_or(u64::MAX);
        self.echoed_ns.load(Ordering::Relaxed).saturating_add(timeout_ns)
    }

    /// Ends the session: waits until the agent has read what was queued and closed the stream, or for `limit`.
    pub async fn close(mut self, limit: Duration) {
        self.send(ToAgent::Release(v1::Release {}));
        if timeout(limit, &mut self.listener).await.is_err() {
            tracing::debug!(agent = self.name, "did not close its session in time");
        }
    }
}

#[cfg(test)]
impl Session {
    /// The agent was heard last at this instant.
    pub fn echoed(&self, at_ns: u64) {
        self.echoed_ns.store(at_ns, Ordering::Relaxed);
    }

    /// A session whose agent is the test: its orders come out of the receiver.
    pub fn with_a_test(name: &str) -> (Self, mpsc::Receiver<CoordinatorMessage>) {
        let (outbound, orders) = mpsc::channel(OUTBOUND);
        let hello = AgentHello {
            instance: name.to_owned(),
            hostname: name.to_owned(),
            workers: NonZeroU32::MIN,
            ceiling: None,
            max_run: None,
            max_connections: None,
            workloads: vec!["messages".to_owned()],
        };
        let clock = watch::channel(ClockEstimator::default()).1;
        let session = Self {
            name: name.to_owned(),
            hello,
            outbound,
            clock,
            lease_timeout: Duration::from_secs(3),
            echoed_ns: Arc::default(),
            listener: tokio::spawn(std::future::pending()),
        };
        (session, orders)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// An agent that can be asked, and what was heard of it so far.
#[derive(Debug)]
pub struct Asked {
    /// For gRPC.
    pub client: AgentClient<Channel>,
    /// Why it broke, where it did.
    pub heard: Heard,
}

/// Dials an agent.
///
/// # Errors
/// It cannot be reached, or not so that secrets may go there.
pub async fn connect(agent: &AgentAddress, wire: &Wire, secrets: Secrets) -> Result<Asked, FleetError> {
    let unreachable = |why: String| FleetError::Unreachable { agent: agent.address.clone(), why };
    let mut failed = "its name has no address".to_owned();
    let mut dialled = None;
    for address in resolve(agent, wire, secrets).await? {
        match wire.connect(&agent.given, address, CONNECT_LIMIT).await {
            Ok(connection) => {
                dialled = Some(connection);
                break;
            }
            Err(why) => failed = why,
        }
    }
    let dialled = dialled.ok_or_else(|| unreachable(failed))?;
    let client = AgentClient::new(dialled.channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Ok(Asked { client, heard: dialled.heard })
}

fn order(message: ToAgent) -> CoordinatorMessage {
    CoordinatorMessage { message: Some(message) }
}

fn claim_message(claim: &Claim) -> ToAgent {
    ToAgent::Claim(v1::Claim {
        protocol_version: PROTOCOL_VERSION,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        coordinator: claim.coordinator.clone(),
        run_id: claim.run_id.clone(),
        lease_timeout_ms: u32::try_from(claim.lease_timeout.as_millis()).unwrap_or(u32::MAX),
    })
}

/// The addresses to dial, one after the other. Secrets go to loopback addresses, and elsewhere over TLS only.
async fn resolve(agent: &AgentAddress, wire: &Wire, secrets: Secrets) -> Result<Vec<SocketAddr>, FleetError> {
    let unreachable = |why: String| FleetError::Unreachable { agent: agent.address.clone(), why };
    let found = tokio::net::lookup_host(&agent.address).await.map_err(|error| unreachable(error.to_string()))?;
    let addresses: Vec<SocketAddr> = found.collect();
    let is_safe = |address: &SocketAddr| address.ip().is_loopback() || wire.is_private();
    if secrets == Secrets::Carried && !addresses.iter().all(is_safe) {
        return Err(FleetError::Secrets { agent: agent.address.clone() });
    }
    Ok(one_of_each_family(&addresses))
}

/// A name may stand for both families while the agent listens on one. The older one is what agents default to: it comes first.
fn one_of_each_family(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = |is_ipv4: bool| addresses.iter().find(move |address| address.is_ipv4() == is_ipv4).copied();
    [first(true), first(false)].into_iter().flatten().collect()
}

/// What an agent says of itself, by its first message.
///
/// # Errors
/// It is of another release, or what it says makes no sense.
pub fn hello(agent: &AgentAddress, first: Option<FromAgent>) -> Result<AgentHello, FleetError> {
    let nonsense = |why: &str| FleetError::Denied { agent: agent.address.clone(), words: why.to_owned() };
    let Some(FromAgent::Hello(hello)) = first else { return Err(nonsense("it did not answer the claim with a Hello")) };
    if hello.protocol_version != PROTOCOL_VERSION {
        return Err(FleetError::Version {
            agent: agent.address.clone(),
            theirs: hello.protocol_version,
            their_build: printable(&hello.build, MAX_NAME),
        });
    }
    let ceiling = match hello.max_rate_milli_per_s {
        None => None,
        Some(milli) => Some(Rate::from_milli(milli).ok_or_else(|| nonsense("its ceiling is no rate"))?),
    };
    let workers = NonZeroU32::new(hello.workers).ok_or_else(|| nonsense("it has no workers"))?;
    let v1::Hello { instance, hostname, workloads, max_connections, .. } = hello;
    let max_run = hello.max_run_us.map(Duration::from_micros);
    let hostname = printable(&hostname, MAX_NAME);
    let workloads = workloads.iter().take(MAX_WORKLOADS).map(|name| printable(name, MAX_NAME)).collect();
    Ok(AgentHello { instance, hostname, workers, ceiling, max_run, max_connections, workloads })
}

pub(super) fn denied(agent: &AgentAddress, status: &Status, heard: &Heard) -> FleetError {
    match status.code() {
        tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument | tonic::Code::PermissionDenied => {
            FleetError::Denied { agent: agent.address.clone(), words: printable(status.message(), MAX_WORDS) }
        }
        _ => {
            let why = explain(heard, words(status));
            FleetError::Unreachable { agent: agent.address.clone(), why }
        }
    }
}

/// What the agent says, or how its connection broke where it could say nothing any more.
fn words(status: &Status) -> String {
    if let Some(cause) = std::error::Error::source(status) {
        let cause = chain(cause);
        // TLS has much to say about a connection that was closed without a word.
        let cause = if cause.contains("close_notify") { "it was closed" } else { &cause };
        return format!("its connection broke: {cause}");
    }
    match status.message() {
        "" => format!("{:?}", status.code()),
        message => printable(message, MAX_WORDS),
    }
}

/// An error with its causes: tonic's own texts alone say "transport error".
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// Reads one agent's stream to its end.
struct Listener {
    index: usize,
    outbound: mpsc::Sender<CoordinatorMessage>,
    clock: watch::Sender<ClockEstimator>,
    events: mpsc::Sender<(usize, AgentEvent)>,
    echoed_ns: Arc<AtomicU64>,
}

impl Listener {
    async fn listen(mut self, mut inbound: Streaming<v1::AgentMessage>, silence: Duration) {
        let why = loop {
            let next = match timeout(silence, inbound.message()).await {
                Err(_) => break format!("silent for {silence:?}"),
                Ok(Err(status)) => break words(&status),
                Ok(Ok(None)) => break "ended its session".to_owned(),
                Ok(Ok(Some(message))) => self.take(message),
            };
            if let Err(why) = next {
                break why;
            }
        };
        // The receiver is gone only when the run is over.
        let _ = self.events.send((self.index, AgentEvent::Lost(why))).await;
    }

    fn take(&mut self, message: v1::AgentMessage) -> Result<(), String> {
        let event = match message.message.ok_or("sent an empty message")? {
            FromAgent::Ping(ping) => return self.echo(&ping),
            FromAgent::Prepared(prepared) => AgentEvent::Prepared(printable(&prepared.server, MAX_NAME)),
            FromAgent::Calibrated(calibrated) => {
                let found = calibrated.try_into().map_err(|error| format!("sent a bad calibration: {error}"))?;
                AgentEvent::Calibrated(Box::new(found))
            }
            FromAgent::Dealt(dealt) => AgentEvent::Dealt(dealt),
            FromAgent::Armed(armed) => AgentEvent::Armed(TrialId { step: armed.step, trial: armed.trial }),
            FromAgent::Snapshot(snapshot) => {
                let snapshot = snapshot.try_into().map_err(|error| format!("sent a bad snapshot: {error}"))?;
                AgentEvent::Snapshot(Box::new(snapshot))
            }
            FromAgent::StepTotals(totals) => {
                let totals = totals.try_into().map_err(|error| format!("sent bad totals: {error}"))?;
                AgentEvent::Totals(Box::new(totals))
            }
            FromAgent::Refused(refused) if refused.kind() == RefusedKind::Unspecified => {
                return Err("refused without saying which kind of refusal".to_owned());
            }
            FromAgent::Refused(refused) => {
                let kind = match refused.kind() {
                    RefusedKind::Unreachable => Refusal::Unreachable,
                    RefusedKind::TooLate => Refusal::TooLate,
                    RefusedKind::Box => Refusal::Box,
                    _ => Refusal::Order,
                };
                AgentEvent::Refused { kind, words: printable(&refused.message, MAX_WORDS) }
            }
            FromAgent::Hello(_) => return Err("said Hello twice".to_owned()),
        };
        // Waiting here would let the next ping wait too.
        self.events.try_send((self.index, event)).map_err(|_| "sends more than the coordinator can take".to_owned())
    }

    fn echo(&mut self, ping: &v1::Ping) -> Result<(), String> {
        let coordinator_ns = boottime_ns();
        self.echoed_ns.store(coordinator_ns, Ordering::Relaxed);
        let echo = v1::Echo { ping_sent_boottime_ns: ping.sent_boottime_ns, coordinator_ns };
        self.outbound.try_send(order(ToAgent::Echo(echo))).map_err(|_| "does not read what it is sent".to_owned())?;
        if let Some(receipt) = ping.last_echo {
            let trip = RoundTrip {
                sent_ns: receipt.ping_sent_boottime_ns,
                coordinator_ns: receipt.coordinator_ns,
                received_ns: receipt.received_boottime_ns,
            };
            self.clock.send_modify(|clock| clock.add(trip));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "box\u{1b}[2J-1\r\nPASS";
    const SHOWN: &str = "box[2J-1PASS";

    #[test]
    fn what_an_agent_says_of_itself_is_shown_without_what_a_terminal_would_do() {
        let agent = AgentAddress::at("box-1:7700");
        let said = v1::Hello {
            protocol_version: PROTOCOL_VERSION,
            build: ODD.to_owned(),
            hostname: format!("{ODD}{}", "x".repeat(1 << 20)),
            workers: 1,
            workloads: vec![ODD.to_owned(); 1 << 16],
            ..v1::Hello::default()
        };
        let own = hello(&agent, Some(FromAgent::Hello(said.clone()))).unwrap();
        assert!(own.hostname.starts_with(SHOWN) && own.hostname.len() == MAX_NAME, "{}", own.hostname);
        assert!(own.workloads.len() == MAX_WORKLOADS && own.workloads[0] == SHOWN);
        let other = hello(&agent, Some(FromAgent::Hello(v1::Hello { protocol_version: 1 << 20, ..said })));
        assert!(matches!(other, Err(FleetError::Version { their_build, .. }) if their_build == SHOWN));
    }

    #[test]
    fn of_a_name_with_both_families_one_address_each_is_dialled_the_older_first() {
        let addresses: Vec<SocketAddr> =
            ["[::1]:7", "127.0.0.1:7", "[::2]:7", "127.0.0.2:7"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(one_of_each_family(&addresses), [addresses[1], addresses[0]]);
        assert_eq!(one_of_each_family(&addresses[..1]), [addresses[0]]);
        assert!(one_of_each_family(&[]).is_empty());
    }

    #[tokio::test]
    async fn what_an_agent_refuses_is_told_in_its_words_and_without_what_a_terminal_would_do() {
        let (events, mut heard) = mpsc::channel(8);
        let (clock, outbound) = (watch::channel(ClockEstimator::default()).0, mpsc::channel(8).0);
        let mut listener = Listener { index: 7, outbound, clock, events, echoed_ns: Arc::default() };
        let message = format!("{ODD}{}", "x".repeat(1 << 20));
        let refused = v1::Refused { kind: RefusedKind::TooLate.into(), message };
        listener.take(v1::AgentMessage { message: Some(FromAgent::Refused(refused)) }).unwrap();
        let Some((7, AgentEvent::Refused { words, kind: Refusal::TooLate })) = heard.recv().await else { panic!() };
        assert!(words.starts_with(SHOWN) && words.len() == MAX_WORDS, "{words}");
        for (kind, expected) in [(RefusedKind::Box, Refusal::Box), (RefusedKind::Invalid, Refusal::Order)] {
            let refused = v1::Refused { kind: kind.into(), message: "no timer".to_owned() };
            listener.take(v1::AgentMessage { message: Some(FromAgent::Refused(refused)) }).unwrap();
            let Some((7, AgentEvent::Refused { kind, .. })) = heard.recv().await else { panic!() };
            assert_eq!(kind, expected);
        }
    }
}
