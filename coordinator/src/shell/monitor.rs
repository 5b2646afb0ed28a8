//! The coordinator's view of streams and durables: by the JetStream API or by a monitoring URL.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use async_nats::{Client, ConnectErrorKind, Event, RequestErrorKind};
use futures::future::{join, join_all};
use plimsoll_agent::shell::nats_target::{authenticated, bare_addresses};
use plimsoll_common::plan::{Target, redact_url};
use plimsoll_common::wire::{MAX_NAME, MAX_WORDS, printable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::broadcast;
use tokio::time::timeout;

use super::jsz::{self, Jsz};
use crate::core::backlog::{Backlog, DurableName, DurableState};

/// How long the target may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The client's default of a minute would show a dead server late.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Complaints of the server that may wait for those who ask: more than are ever asked for at once.
const COMPLAINTS: usize = 64;

/// A connection of the coordinator to the target.
#[derive(Debug, Clone)]
pub struct Nats {
    client: Client,
    /// Without secrets.
    url: Arc<str>,
    complaints: Complaints,
}

/// What the server reports apart from the request that it is about: permission errors.
#[derive(Debug, Clone)]
struct Complaints {
    all: broadcast::Sender<String>,
    /// For those who ask after an error that was reported only once.
    newest: Arc<Mutex<Option<String>>>,
}

impl Nats {
    /// Connects as `plimsoll/<run>/coordinator`.
    ///
    /// # Errors
    /// The target cannot be reached or refuses us; for people, with its words.
    pub async fn connect(target: &Target, run_id: &str) -> Result<Self, String> {
        let complaints = Complaints { all: broadcast::Sender::new(COMPLAINTS), newest: Arc::default() };
        let kept = complaints.clone();
        let options = authenticated(target)?
            .name(format!("plimsoll/{run_id}/coordinator"))
            .ignore_discovered_servers()
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECT_LIMIT)
            .event_callback(move |event| {
                kept.keep(&event);
                std::future::ready(())
            });
        let shown = redact_url(&target.url);
        let addresses = bare_addresses(&target.url).map_err(|words| format!("--nats-url: {words}"))?;
        let client = options.connect(addresses).await.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                format!(
                    "NATS at {shown} refuses the credentials: {error}; check --nats-creds, --nats-nkey, --nats-token, or the user in --nats-url"
                )
            }
            _ => format!("NATS at {shown} cannot be reached: {error}; check --nats-url"),
        });
        let client = client.map_err(|words| printable(&words, MAX_WORDS))?;
        Ok(Self { client, url: shown.into(), complaints })
    }

    /// What of the server's setup may change an answer; not its name, which is drawn anew at each start.
    pub fn server_configuration(&self) -> Map<String, Value> {
        let info = self.client.server_info();
        let says = [
            ("version", printable(&info.version, MAX_NAME).into()),
            ("cluster", info.cluster.map(|cluster| printable(&cluster, MAX_NAME)).into()),
            ("max_payload", info.max_payload.into()),
            ("tls_required", info.tls_required.into()),
        ];
        says.into_iter().map(|(name, value): (&str, Value)| (name.to_owned(), value)).collect()
    }

    /// The connection itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The server's name and version, for the report.
    pub fn server(&self) -> String {
        let info = self.client.server_info();
        let cluster = info.cluster.map_or(String::new(), |cluster| format!(", cluster {cluster}"));
        printable(&format!("nats-server {} ({}{cluster})", info.version, info.server_name), MAX_WORDS)
    }

    /// What the JetStream API knows of our account.
    ///
    /// # Errors
    /// It does not answer; for people.
    pub async fn account(&self, within: Duration) -> Result<AccountInfo, String> {
        let account: Option<AccountInfo> = self.ask("$JS.API.INFO".to_owned(), within).await?;
        account.ok_or_else(|| "the server knows no such account".to_owned())
    }

    /// Asks the JetStream API; `None` where it answers that there is no such thing.
    async fn ask<T: DeserializeOwned>(&self, subject: String, within: Duration) -> Result<Option<T>, String> {
        let answer = tokio::select! {
            answer = timeout(within, self.client.request(subject.clone(), Default::default())) => answer,
            words = self.denial_of(&subject) => return Err(format!("the server says: {words}")),
        };
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
                return Err("JetStream is not enabled for this account (nobody answers its API)".to_owned());
            }
            Ok(Err(error)) => return Err(format!("{subject}: {error}{}", self.circumstances())),
            Err(_) => return Err(format!("{subject}: no answer within {within:?}{}", self.circumstances())),
        };
        let answer: ApiAnswer<T> = serde_json::from_slice(&answer.payload)
            .map_err(|error| format!("{subject}: an answer that cannot be read: {error}"))?;
        match answer {
            ApiAnswer::Error { error } if error.is_not_found() => Ok(None),
            ApiAnswer::Error { error } => {
                Err(format!("{subject}: {} ({})", printable(&error.description, MAX_WORDS), error.code))
            }
            ApiAnswer::Found(found) => Ok(Some(found)),
        }
    }

    /// Waits until the server denies a request that is made meanwhile, or the subscription that its answer would come by: it says
    /// so apart from the request, which is never answered.
    pub(super) fn denial_of(&self, subject: &str) -> impl Future<Output = String> {
        complaint_about(self.complaints.all.subscribe(), subject)
    }

    /// What the server said where it denies the subscription that answers come by: it says so once, to whoever asks first.
    pub(super) fn denied_answers(&self) -> Option<String> {
        let newest = self.complaints.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.clone().filter(|words| words.contains(OF_ANSWERS))
    }

    /// What may be why there is no answer.
    pub(super) fn circumstances(&self) -> String {
        if self.client.connection_state() != ConnectionState::Connected {
            return format!(": the connection to NATS at {} is down", self.url);
        }
        let newest = self.complaints.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.as_ref().map_or(String::new(), |words| format!("; the server says: {words}"))
    }
}

impl Complaints {
    fn keep(&self, event: &Event) {
        tracing::info!(%event, "connection to the target");
        let Event::ServerError(error) = event else { return };
        let words = printable(&error.to_string(), MAX_WORDS);
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(words.clone());
        // Nobody may be asking.
        let _ = self.all.send(words);
    }
}

/// How the server names the subscription that answers come by.
const OF_ANSWERS: &str = "Subscription to \"_INBOX.";

/// Waits until the server denies this request, or the subscription that its answer would come by.
async fn complaint_about(mut complaints: broadcast::Receiver<String>, subject: &str) -> String {
    let request = format!("\"{subject}\"");
    loop {
        match complaints.recv().await {
            Ok(words) if words.contains(&request) || words.contains(OF_ANSWERS) => return words,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ApiAnswer<T> {
    Error { error: ApiError },
    Found(T),
}

#[derive(Deserialize)]
struct ApiError {
    code: u32,
    #[serde(default)]
    description: String,
}

impl ApiError {
    fn is_not_found(&self) -> bool {
        self.code == 404
    }
}

/// Of our account.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AccountInfo {
    /// Bytes of memory streams.
    #[serde(default)]
    pub memory: u64,
    /// Bytes of file streams.
    #[serde(default)]
    pub storage: u64,
    /// Negative: unlimited.
    #[serde(default)]
    pub limits: AccountLimits,
}

/// Bytes that an account's streams may take; negative: unlimited.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct AccountLimits {
    /// In memory.
    pub max_memory: i64,
    /// In files.
    pub max_storage: i64,
}

impl Default for AccountLimits {
    fn default() -> Self {
        Self { max_memory: -1, max_storage: -1 }
    }
}

/// Of a stream.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StreamInfo {
    /// How it was set up.
    pub config: StreamConfig,
    /// What it holds.
    pub state: StreamState,
}

/// How a stream was set up, as far as it changes an answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    /// "file" or "memory".
    pub storage: String,
    /// "limits", "interest", "workqueue".
    pub retention: String,
    /// Copies.
    pub num_replicas: u32,
    /// In nanoseconds; 0: for ever.
    pub max_age: u64,
    /// Negative or 0: unlimited.
    pub max_bytes: i64,
    /// Negative or 0: unlimited.
    pub max_msgs: i64,
    /// Whatever else the server says of it.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What a stream holds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StreamState {
    /// The newest message's number.
    pub last_seq: u64,
    /// In all.
    pub bytes: u64,
}

/// Of a durable.
#[derive(Debug, Clone, Deserialize)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: String,
    /// In the server's words.
    #[serde(default)]
    pub created: String,
    /// Not delivered yet.
    #[serde(default)]
    pub num_pending: u64,
    /// Delivered and not acknowledged.
    #[serde(default)]
    pub num_ack_pending: u64,
    /// The last delivery.
    #[serde(default)]
    pub delivered: Delivered,
    /// How it was set up.
    #[serde(default)]
    pub config: ConsumerConfig,
    /// Of a server in a cluster: who leads it.
    #[serde(default)]
    pub cluster: Option<Group>,
}

/// The servers that have a durable, as one of them sees it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Group {
    /// The name of the one that leads; empty while none does.
    leader: String,
    /// The others: all but the one that answers.
    replicas: Vec<Peer>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Peer {
    name: String,
}

impl Group {
    /// Who leads, where that is not the server that answers; empty if nobody does.
    pub fn led_by_another(&self) -> Option<&str> {
        let is_other = self.leader.is_empty() || self.replicas.iter().any(|peer| peer.name == self.leader);
        is_other.then_some(self.leader.as_str())
    }
}

/// How far a durable has come.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Delivered {
    /// Deliveries so far, each message's every one.
    pub consumer_seq: u64,
}

/// How a durable was set up, as far as it changes an answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerConfig {
    /// Negative or 0: unlimited.
    pub max_ack_pending: i64,
    /// In nanoseconds.
    pub ack_wait: u64,
    /// Negative or 0: unlimited.
    pub max_deliver: i64,
    /// Whatever else the server says of it.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl ConsumerInfo {
    fn state(self) -> DurableState {
        let given = match self.delivered.consumer_seq {
            0 => 0,
            delivered => delivered.saturating_add(self.num_pending),
        };
        let backlog = Backlog { pending: self.num_pending, ack_pending: self.num_ack_pending, given };
        DurableState::Present { backlog, created: self.created }
    }
}

/// An answer about something that may not be there; an error in words where there was no answer.
pub type Look<T> = Result<Option<T>, String>;

/// Where streams and durables are looked at.
#[derive(Clone)]
pub enum Monitor {
    /// By the JetStream API.
    Api(Nats),
    /// By a monitoring URL.
    Jsz(Arc<str>),
}

/// A monitoring URL may carry a password.
impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(nats) => f.debug_tuple("Api").field(nats).finish(),
            Self::Jsz(url) => f.debug_tuple("Jsz").field(&redact_url(url)).finish(),
        }
    }
}

impl Monitor {
    /// Looks at streams and durables, all at once.
    pub async fn look(
        &self,
        streams: &[String],
        durables: &[DurableName],
        within: Duration,
    ) -> (Vec<Look<StreamInfo>>, Vec<Look<ConsumerInfo>>) {
        match self {
            Self::Api(nats) => {
                let stream = |name: &String| nats.ask(format!("$JS.API.STREAM.INFO.{name}"), within);
                let consumer = |DurableName { stream, durable }: &DurableName| {
                    nats.ask(format!("$JS.API.CONSUMER.INFO.{stream}.{durable}"), within)
                };
                join(join_all(streams.iter().map(stream)), join_all(durables.iter().map(consumer))).await
            }
            Self::Jsz(url) => match fetch(url.clone(), within).await {
                Ok(jsz) => (
                    streams.iter().map(|name| jsz.stream(name)).collect(),
                    durables.iter().map(|durable| jsz.consumer(durable)).collect(),
                ),
                Err(words) => (
                    streams.iter().map(|_| Err(words.clone())).collect(),
                    durables.iter().map(|_| Err(words.clone())).collect(),
                ),
            },
        }
    }

    /// Reads durables; why not, for one whose answer did not come in time.
    pub async fn read(&self, durables: &[DurableName], within: Duration) -> Vec<Result<DurableState, String>> {
        let (_, consumers) = self.look(&[], durables, within).await;
        let state = |look: Look<ConsumerInfo>| look.map(|info| info.map_or(DurableState::Gone, ConsumerInfo::state));
        consumers.into_iter().map(state).collect()
    }
}

async fn fetch(url: Arc<str>, within: Duration) -> Result<Jsz, String> {
    let asked = tokio::task::spawn_blocking({
        let url = url.clone();
        move || jsz::fetch(&url, within)
    });
    let answer = asked.await.map_err(|error| error.to_string())?;
    answer.map_err(|words| format!("{}: {words}", redact_url(&url)))
}
