//! Any NATS service, as a file describes it: requests, publishes and publishes into streams, drawn by their weights. Replies and
//! acknowledgements are correlated by their subject, deliveries by the id that the operation wrote.

mod extract;
pub mod fill;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap, HeaderName, HeaderValue, Message, Subject};
use bytes::Bytes;
use plimsoll_common::contract::ids::{IdCodec, Owner};
use plimsoll_common::workload::custom::CustomWorkload;
use plimsoll_common::workload::custom::describe::{Action, DEDUP_HEADER, Operation, Place, Source, Success};
use plimsoll_common::workload::custom::template::{Role, Template};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use self::extract::{Found, NoJson, at, judge};
use self::fill::{Compiled, Filler, Filling};
use super::messages::classify_publish_ack;
use super::replies::Replies;
use super::room_requests::{below, status};
use super::{Aside, Incoming, Outgoing, Probe, Setup, Subscription, Workload};
use crate::core::alias::AliasTable;
use crate::core::ledger::{Choice, Kind, Ledger, Outcome};

/// The tag of replies and acknowledgements; that of an operation's deliveries is its place and one.
const REPLIES: u32 = 0;
/// How long the JetStream API may take to make a consumer.
const CONSUMER_LIMIT: Duration = Duration::from_secs(5);
/// A server forgets a consumer of ours so long after we are gone.
const CONSUMER_LIFE: Duration = Duration::from_secs(10);
/// Consumers of one connection, each with a subject of its own: those of a deal that was replaced may deliver for a while.
static CONSUMERS: AtomicU64 = AtomicU64::new(0);

/// A described workload as one worker drives it.
pub struct Custom {
    operations: Vec<Prepared>,
    weights: AliasTable,
    filler: Filler,
    ids: IdCodec,
    replies: Replies,
}

/// One operation, compiled.
struct Prepared {
    name: String,
    probe: bool,
    subject: Compiled,
    /// Where the subject is always the same: its clones share one allocation.
    shared_subject: Option<Subject>,
    payload: Compiled,
    headers: Vec<(HeaderName, Compiled)>,
    answer: Answer,
    delivery: Option<Delivered>,
    /// Its own series; that of its delivery is the next.
    series: u32,
    kind: Kind,
}

/// What comes back to the sender.
enum Answer {
    Reply(Success),
    Acknowledgement,
    None,
}

/// What comes of an operation elsewhere.
struct Delivered {
    /// What is subscribed to.
    subject: String,
    correlation: Place,
    /// Who delivers there, where that has to be made.
    consumer: Option<Consumer>,
}

struct Consumer {
    stream: String,
    filter: String,
}

impl Custom {
    fn operation(&self, choice: Choice) -> &Prepared {
        &self.operations[usize::from(choice.kind)]
    }

    fn reply(&self, message: &Message, ledger: &Ledger) -> Incoming {
        let Some(sequence) = self.replies.sequence(&message.subject) else { return Incoming::Foreign };
        let Some(choice) = ledger.choice_ever(sequence) else {
            // Long given up, or never sent: the ledger says which.
            return Incoming::Answer { sequence, series: 0, outcome: Outcome::Unreadable };
        };
        let operation = self.operation(choice);
        let outcome = status(message).unwrap_or_else(|| match &operation.answer {
            Answer::Reply(success) => judge(message, success),
            Answer::Acknowledgement => classify_publish_ack(&message.payload),
            // Nothing was asked: what comes all the same is nobody's.
            Answer::None => Outcome::Unreadable,
        });
        if matches!(operation.answer, Answer::None) {
            return Incoming::Foreign;
        }
        Incoming::Answer { sequence, series: operation.series, outcome }
    }

    fn delivery(&self, operation: &Prepared, message: &Message) -> Incoming {
        let Some(delivered) = &operation.delivery else { return Incoming::Foreign };
        let id = match at(message, &delivered.correlation) {
            Ok(Found::Text(id)) => id,
            Ok(_) | Err(NoJson) => return Incoming::Foreign,
        };
        let owner = match self.ids.owner_of_message(id.as_bytes()) {
            Owner::Foreign => self.ids.owner_of_request(id.as_bytes()),
            owner => owner,
        };
        match owner {
            Owner::Mine(sequence) => {
                Incoming::Answer { sequence, series: operation.series + 1, outcome: Outcome::Sample }
            }
            Owner::Sibling { .. } | Owner::OtherOwner => Incoming::NotForUs,
            Owner::Foreign => Incoming::Foreign,
        }
    }
}

impl Prepared {
    fn new(
        operation: &Operation,
        series: u32,
        inbox: &str,
        filler: &mut Filler,
        chance: &mut ChaCha8Rng,
    ) -> Result<Self, String> {
        let subject = filler.compile(&operation.subject, chance);
        let mut headers = Vec::new();
        for (name, value) in &operation.headers {
            headers.push((header(name)?, filler.compile(value, chance)));
        }
        let answer = match &operation.action {
            Action::Request { success } => Answer::Reply(success.clone()),
            Action::Publish { .. } => Answer::None,
            Action::JetStream { dedup, .. } => {
                if let Some(dedup) = dedup {
                    headers.push((header(DEDUP_HEADER)?, filler.compile(dedup, chance)));
                }
                Answer::Acknowledgement
            }
        };
        let delivery = delivered(operation, inbox, filler, chance);
        let all: &[u32] = if delivery.is_some() { &[series, series + 1] } else { &[series] };
        let kind = match answer {
            Answer::None => Kind::taken(all, series),
            Answer::Reply(_) | Answer::Acknowledgement => Kind::replied(all, series),
        };
        let timeout_ns = operation.timeout.map(|timeout| timeout.as_nanos() as u64);
        Ok(Self {
            name: operation.name.clone(),
            probe: operation.probe,
            shared_subject: subject.constant().map(|text| shared(text.clone())),
            subject,
            payload: filler.compile(&operation.payload, chance),
            headers,
            answer,
            delivery,
            series,
            kind: kind.within(timeout_ns),
        })
    }

    fn subject(&self, filler: &mut Filler, filling: &mut Filling) -> Subject {
        match &self.shared_subject {
            Some(subject) => subject.clone(),
            None => text(filler.fill(&self.subject, filling)),
        }
    }
}

fn delivered(operation: &Operation, inbox: &str, filler: &mut Filler, chance: &mut ChaCha8Rng) -> Option<Delivered> {
    let delivery = operation.delivery()?;
    let mut constant = |template: &Template| {
        let compiled = filler.compile(template, chance);
        let mut filling = filler.begin(0, 0);
        String::from_utf8_lossy(&filler.fill(&compiled, &mut filling)).into_owned()
    };
    let (subject, consumer) = match (&delivery.from, &operation.action) {
        (Source::Subject(subject), _) => (constant(subject), None),
        (Source::Consumer, Action::JetStream { stream, .. }) => {
            let filter = Template::parse(&operation.subject.wildcard(), Role::Filter)
                .expect("a subject whose drawn tokens are wildcards can be subscribed to");
            let consumer = Consumer { stream: stream.clone(), filter: constant(&filter) };
            (format!("{inbox}.c{}", CONSUMERS.fetch_add(1, Ordering::Relaxed)), Some(consumer))
        }
        (Source::Consumer, _) => return None,
    };
    Some(Delivered { subject, correlation: delivery.correlation.clone(), consumer })
}

fn header(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|error| format!("'{name}' is no header: {error}"))
}

fn text(bytes: Bytes) -> Subject {
    Subject::from_utf8(bytes).expect("subjects are filled with texts")
}

/// A subject whose clones share one allocation from the first clone on.
fn shared(bytes: Bytes) -> Subject {
    let subject = text(bytes);
    let shared = subject.clone();
    drop(subject);
    shared
}

impl Workload for Custom {
    type Plan = CustomWorkload;

    fn new(plan: &CustomWorkload, setup: Setup<'_>) -> Result<Self, String> {
        let Setup { plan: run, worker, inbox, ids, chance, .. } = setup;
        let description = &plan.description;
        let own = format!("{}-{worker}", run.agent_index);
        let mut filler = Filler::new(ids.clone(), own, run.run_nonce.to_string(), description.users, description.rooms);
        let (mut operations, mut series) = (Vec::new(), 0);
        for operation in &description.operations {
            operations.push(Prepared::new(operation, series, inbox, &mut filler, chance)?);
            series += operation.series().len() as u32;
        }
        let weights: Vec<f64> = description.operations.iter().map(|one| f64::from(one.weight)).collect();
        Ok(Self { operations, weights: AliasTable::new(&weights), filler, ids, replies: Replies::new(inbox, "r") })
    }

    fn kinds(&self) -> Vec<Kind> {
        self.operations.iter().map(|operation| operation.kind).collect()
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        let delivered = self.operations.iter().zip(1..).filter_map(|(operation, tag)| {
            let subject = operation.delivery.as_ref()?.subject.clone();
            Some(Subscription { subject, tag })
        });
        std::iter::once(self.replies.subscription(REPLIES)).chain(delivered).collect()
    }

    fn probes(&self) -> Vec<Probe> {
        let probed = self.operations.iter().filter(|operation| operation.probe);
        probed.filter_map(|operation| self.probe(operation)).collect()
    }

    async fn prepare(&mut self, client: &Client) -> Result<(), String> {
        for operation in &self.operations {
            let Some(delivered) = &operation.delivery else { continue };
            if let Some(consumer) = &delivered.consumer {
                make_consumer(client, &operation.name, consumer, &delivered.subject).await?;
            }
        }
        Ok(())
    }

    fn choose(&mut self, chance: &mut ChaCha8Rng) -> Choice {
        let kind = if self.operations.len() == 1 { 0 } else { self.weights.draw(chance) as u8 };
        Choice { place: 0, actor: 0, content: chance.random(), kind }
    }

    fn message(&mut self, sequence: u64, choice: Choice) -> Outgoing {
        let operation = &self.operations[usize::from(choice.kind)];
        let filler = &mut self.filler;
        let mut filling = filler.begin(sequence, choice.content);
        let subject = operation.subject(filler, &mut filling);
        let mut headers = None;
        for (name, value) in &operation.headers {
            let value = filler.fill(value, &mut filling);
            let value = HeaderValue::from(std::str::from_utf8(&value).expect("headers are filled with texts"));
            headers.get_or_insert_with(HeaderMap::new).append(name.clone(), value);
        }
        let payload = filler.fill(&operation.payload, &mut filling);
        let reply = match operation.answer {
            Answer::None => None,
            Answer::Reply(_) | Answer::Acknowledgement => Some(self.replies.subject(sequence)),
        };
        Outgoing { subject, reply, headers, payload }
    }

    fn incoming(&mut self, tag: u32, message: &Message, ledger: &Ledger, _: &mut Aside) -> Incoming {
        match tag.checked_sub(1) {
            None => self.reply(message, ledger),
            Some(operation) => self.delivery(&self.operations[operation as usize], message),
        }
    }
}

impl Custom {
    /// Whether anybody takes an operation: a subject like those that it will have, with an empty body.
    fn probe(&self, operation: &Prepared) -> Option<Probe> {
        let nobody = match operation.answer {
            Answer::Reply(_) => {
                "start the service, or correct `subject` in the description (`probe = false` tries nothing)"
            }
            Answer::Acknowledgement => {
                "no stream takes it: correct `subject` in the description, or make the stream take it"
            }
            Answer::None => return None,
        };
        let subject = operation.subject.sample(&self.filler);
        Some(Probe { subject, payload: Bytes::new(), nobody })
    }
}

/// Makes an ephemeral consumer that delivers what comes from now on and awaits no acknowledgement.
async fn make_consumer(client: &Client, name: &str, consumer: &Consumer, deliver: &str) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        error: Option<ApiError>,
    }
    #[derive(serde::Deserialize)]
    struct ApiError {
        #[serde(default)]
        description: String,
    }
    let Consumer { stream, filter } = consumer;
    let error = |words: String| {
        format!(
            "the deliveries of '{name}' cannot be had from the stream {stream}: {words}; where the stream allows no consumer of \
             our own, give `delivery` a `subject` on which the service says that it is done"
        )
    };
    let config = serde_json::json!({
        "deliver_subject": deliver,
        "deliver_policy": "new",
        "ack_policy": "none",
        "filter_subject": filter,
        "inactive_threshold": CONSUMER_LIFE.as_nanos() as u64,
        "num_replicas": 1,
        "mem_storage": true,
    });
    let ask = serde_json::json!({ "stream_name": stream, "config": config }).to_string();
    let asked = client.request(format!("$JS.API.CONSUMER.CREATE.{stream}"), ask.into());
    let answer = match tokio::time::timeout(CONSUMER_LIMIT, asked).await {
        Err(_) => return Err(error("no answer from the JetStream API".into())),
        Ok(answer) => answer.map_err(|cause| error(cause.to_string()))?,
    };
    match serde_json::from_slice(&answer.payload) {
        Ok(Answer { error: None }) => Ok(()),
        Ok(Answer { error: Some(refused) }) => Err(error(refused.description)),
        Err(cause) => Err(error(cause.to_string())),
    }
}
