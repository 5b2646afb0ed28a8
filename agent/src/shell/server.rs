//! The daemon's gRPC side: who may claim this agent, and one session at a time.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use plimsoll_common::wire::{MAX_MESSAGE_BYTES, MAX_NAME, printable};
use plimsoll_common::workload;
use plimsoll_proto::PROTOCOL_VERSION;
use plimsoll_proto::v1::agent_server::{Agent as AgentService, AgentServer};
use plimsoll_proto::v1::{self, agent_message, coordinator_message};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Response, Status, Streaming};

use super::health;
use super::session::{Claim, HadRun, Over, Session, SessionConfig, SessionEnd};
use super::tls;
use crate::AfterRun;
use crate::core::certificate::Certificate;
use crate::core::held_runs::HeldRuns;

/// Bytes of a coordinator's name.
const MAX_COORDINATOR: usize = 256;
/// A stream that does not claim within this time is closed.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that may wait for a coordinator that reads slowly: a minute of snapshots and pings.
const OUTBOX: usize = 1024;
/// How often an agent looks whether somebody holds it.
const IDLE_POLL: Duration = Duration::from_millis(250);
const LEASE_TIMEOUTS_MS: std::ops::RangeInclusive<u32> = 500..=60_000;
/// gRPC's own keep-alive finds a dead peer on an idle connection; the lease does not depend on it.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Whom an agent lets in.
#[derive(Clone, Default)]
pub enum Door {
    /// Whoever reaches it.
    #[default]
    Open,
    /// Who shows a certificate of the CA with one of these names.
    Tls {
        /// Shakes hands.
        acceptor: TlsAcceptor,
        /// The names of `--allow-coordinator`.
        coordinators: Arc<[String]>,
    },
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("Open"),
            Self::Tls { coordinators, .. } => f.debug_tuple("Tls").field(coordinators).finish(),
        }
    }
}

/// Whether the daemon stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// It serves.
    Serving,
    /// A session that is running drains, and no other begins.
    Draining,
    /// A session that is running ends.
    Leaving,
    /// The same, after a run that ended for this agent alone.
    RunLost,
}

impl Stay {
    /// Whether it ends what is running.
    pub fn is_leaving(self) -> bool {
        matches!(self, Self::Leaving | Self::RunLost)
    }
}

/// Serves sessions on a listener until `stay` says otherwise.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    door: Door,
    config: SessionConfig,
    stay: &Arc<watch::Sender<Stay>>,
    idle_limit: Option<Duration>,
) -> Result<(), tonic::transport::Error> {
    let service = Daemon {
        config,
        door: door.clone(),
        instance: format!("{:x}-{:x}", std::process::id(), super::clock::boottime_ns()),
        holder: Arc::default(),
        stay: stay.clone(),
        held: Arc::default(),
    };
    let mut idle = JoinSet::new();
    if let Some(limit) = idle_limit {
        idle.spawn(leave_when_idle(limit, service.holder.clone(), Arc::downgrade(stay)));
    }
    let service = AgentServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let going_down = no_longer(stay.subscribe(), Stay::Serving);
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(service);
    match door {
        Door::Open => server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), going_down).await,
        Door::Tls { acceptor, .. } => {
            let incoming = ReceiverStream::new(tls::handshakes(listener, acceptor));
            server.serve_with_incoming_shutdown(incoming, going_down).await
        }
    }
}

struct Daemon {
    config: SessionConfig,
    door: Door,
    instance: String,
    holder: Arc<Mutex<Option<Holder>>>,
    stay: Arc<watch::Sender<Stay>>,
    held: Arc<Mutex<HeldRuns>>,
}

/// Leaves once nobody has held the lease for so long.
async fn leave_when_idle(limit: Duration, holder: Arc<Mutex<Option<Holder>>>, stay: Weak<watch::Sender<Stay>>) {
    let mut idle_since = Instant::now();
    while idle_since.elapsed() < limit {
        sleep(IDLE_POLL.min(limit)).await;
        if holder.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            idle_since = Instant::now();
        }
    }
    if let Some(stay) = stay.upgrade() {
        tracing::info!("leaves: nobody held this agent for the {limit:?} of --exit-when-idle");
        stay.send_replace(Stay::Leaving);
    }
}

/// Resolves once the daemon is beyond this; a sender that is gone means leaving as well.
async fn no_longer(mut stay: watch::Receiver<Stay>, this: Stay) {
    let beyond = |stay: &Stay| stay.is_leaving() || (*stay == Stay::Draining && this == Stay::Serving);
    let _ = stay.wait_for(beyond).await;
}

/// Who holds the lease.
#[derive(Debug, Clone)]
struct Holder {
    coordinator: String,
    run_id: String,
    peer: Option<SocketAddr>,
    since: SystemTime,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.coordinator)?;
        if let Some(peer) = self.peer {
            write!(f, " ({peer})")?;
        }
        let held = self.since.elapsed().unwrap_or_default();
        write!(f, ", run {}, for {} s", self.run_id, held.as_secs())
    }
}

/// The lease's place, given back when the session is over, also when it panics.
struct Place(Arc<Mutex<Option<Holder>>>);

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Daemon {
    fn take_place(&self, holder: Holder) -> Result<Place, Status> {
        let mut held = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = &*held {
            return Err(Status::failed_precondition(format!("agent is leased to {other}: one coordinator at a time")));
        }
        *held = Some(holder);
        Ok(Place(self.holder.clone()))
    }

    /// Whether the certificate shown is one of a coordinator that this agent works for.
    fn authorize<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let Door::Tls { coordinators, .. } = &self.door else { return Ok(()) };
        let shown = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
        let shown = shown.as_ref().and_then(|chain| chain.first());
        let certificate = shown.and_then(|der| Certificate::read(der).ok());
        let Some(certificate) = certificate else {
            return Err(Status::permission_denied("the certificate shown cannot be read"));
        };
        if certificate.is_of(coordinators) {
            return Ok(());
        }
        let names = certificate.names.join(", ");
        tracing::warn!(peer = ?request.remote_addr(), %names, "refused a coordinator");
        Err(Status::permission_denied(format!(
            "the coordinator's certificate is of {}, and this agent's --allow-coordinator accepts {}",
            if certificate.names.is_empty() { "no name".to_owned() } else { certificate.names.join(", ") },
            coordinators.join(", "),
        )))
    }

    /// What it says of itself; to a run that has held it before, what is left of its time.
    fn hello(&self, held_before: Duration) -> v1::Hello {
        let left = self.config.limits.max_run.map(|limit| limit.saturating_sub(held_before));
        v1::Hello {
            protocol_version: PROTOCOL_VERSION,
            build: env!("CARGO_PKG_VERSION").into(),
            instance: self.instance.clone(),
            hostname: hostname(),
            cores: health::cores() as u32,
            workers: u32::from(self.config.workers),
            max_rate_milli_per_s: self.config.limits.max_rate.map(|rate| rate.milli()),
            max_run_us: left.map(|left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX)),
            max_connections: self.config.limits.max_connections,
            workloads: workload::names().into_iter().map(str::to_owned).collect(),
        }
    }
}

#[tonic::async_trait]
impl AgentService for Daemon {
    type SessionStream = ReceiverStream<Result<v1::AgentMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::CoordinatorMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.remote_addr();
        self.authorize(&request)?;
        let mut inbound = request.into_inner();
        let claim = await_claim(&mut inbound).await?;
        check_claim(&claim)?;
        let coordinator = printable(&claim.coordinator, MAX_COORDINATOR);
        let run_id = claim.run_id.clone();
        let holder = Holder { coordinator: coordinator.clone(), run_id, peer, since: SystemTime::now() };
        let place = self.take_place(holder)?;
        let held_before = self.held.lock().unwrap_or_else(PoisonError::into_inner).of(&claim.run_id);
        let (outbox, outbound) = mpsc::channel(OUTBOX);
        let hello = v1::AgentMessage { message: Some(agent_message::Message::Hello(self.hello(held_before))) };
        outbox.try_send(Ok(hello)).map_err(|_| Status::internal("an empty outbox takes a message"))?;
        tracing::info!(%coordinator, run = %claim.run_id, "leased");
        let lease_timeout = Duration::from_millis(u64::from(claim.lease_timeout_ms));
        let (held, run_id, claimed) = (self.held.clone(), claim.run_id.clone(), Instant::now());
        let claim = Claim { run_id: claim.run_id, lease_timeout, held_before };
        let session = Session::new(self.config.clone(), claim, outbox);
        let drain = no_longer(self.stay.subscribe(), Stay::Serving);
        let shutdown = no_longer(self.stay.subscribe(), Stay::Draining);
        // Weak: a daemon that is dropped ends its session.
        let stay = (self.config.after_run == AfterRun::Leave).then(|| Arc::downgrade(&self.stay));
        tokio::spawn(async move {
            let Over { end, run } = session.serve(inbound, drain, shutdown).await;
            held.lock().unwrap_or_else(PoisonError::into_inner).add(&run_id, claimed.elapsed());
            tracing::info!(%end, "lease over");
            if let Some(stay) = stay.filter(|_| run == HadRun::Yes).and_then(|stay| stay.upgrade()) {
                let told_so =
                    matches!(end, SessionEnd::Released | SessionEnd::RunTooLong(_) | SessionEnd::ShuttingDown);
                tracing::info!("leaves after its run, as --exit-after-run says");
                stay.send_replace(if told_so { Stay::Leaving } else { Stay::RunLost });
            }
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }

    async fn describe(&self, request: Request<v1::DescribeRequest>) -> Result<Response<v1::Description>, Status> {
        self.authorize(&request)?;
        let holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let holder = holder.map(|Holder { coordinator, run_id, since, .. }| v1::LeaseHolder {
            coordinator,
            run_id,
            held_ms: u64::try_from(since.elapsed().unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
        });
        Ok(Response::new(v1::Description {
            hello: Some(self.hello(Duration::ZERO)),
            holder,
            boottime_ns: super::clock::boottime_ns(),
        }))
    }
}

async fn await_claim(inbound: &mut Streaming<v1::CoordinatorMessage>) -> Result<v1::Claim, Status> {
    let first = tokio::time::timeout(CLAIM_TIMEOUT, inbound.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no claim came"))??;
    match first.and_then(|message| message.message) {
        Some(coordinator_message::Message::Claim(claim)) => Ok(claim),
        _ => Err(Status::invalid_argument("the first message must be a claim")),
    }
}

fn check_claim(claim: &v1::Claim) -> Result<(), Status> {
    if claim.protocol_version != PROTOCOL_VERSION {
        return Err(Status::failed_precondition(format!(
            "this agent ({}) speaks protocol {PROTOCOL_VERSION} and the coordinator ({}) {}: run one release on both",
            env!("CARGO_PKG_VERSION"),
            printable(&claim.build, MAX_NAME),
            claim.protocol_version,
        )));
    }
    let run_id_fits = (1..=64).contains(&claim.run_id.len())
        && claim.run_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !run_id_fits || claim.coordinator.len() > MAX_COORDINATOR || !LEASE_TIMEOUTS_MS.contains(&claim.lease_timeout_ms)
    {
        return Err(Status::invalid_argument(
            "a claim needs a run id of 1 to 64 letters, digits and dashes, a coordinator's name of at most 256 bytes, \
             and a lease timeout of 500 to 60000 ms",
        ));
    }
    Ok(())
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}
