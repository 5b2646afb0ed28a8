//! Small services for what a custom workload describes: a responder, a worker of a queue, a relay. Each has a capacity and faults of
//! the test's choosing.

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{self, RetentionPolicy, StorageType};
use async_nats::{Client, HeaderMap, Message};
use futures::StreamExt as _;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How a responder answers; every count is of the requests that reach it.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// Requests per second, none for no limit.
    pub capacity: Option<f64>,
    /// Answered with an error envelope.
    pub refuse_every: Option<NonZeroU64>,
    /// Answered with the header of a NATS service that failed.
    pub fail_every: Option<NonZeroU64>,
    /// Not answered.
    pub skip_every: Option<NonZeroU64>,
    /// Answered twice.
    pub duplicate_every: Option<NonZeroU64>,
    /// Followed by an answer to a request that nobody made.
    pub foreign_every: Option<NonZeroU64>,
    /// Answered with what is no JSON.
    pub garbage_every: Option<NonZeroU64>,
}

/// A running service. Dropping it ends it.
#[derive(Debug)]
pub struct Responder {
    client: Client,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server of exact capacity: it may wake late, but what it lost it makes up for.
struct Server {
    interval: Duration,
    free_at: Instant,
}

impl Server {
    fn new(capacity: Option<f64>) -> Self {
        Self { interval: Duration::from_secs_f64(capacity.map_or(0.0, f64::recip)), free_at: Instant::now() }
    }

    async fn serve(&mut self) {
        if !self.interval.is_zero() {
            self.free_at = self.free_at.max(Instant::now()) + self.interval;
            sleep_until(self.free_at).await;
        }
    }
}

async fn connect(url: &str) -> anyhow::Result<Client> {
    async_nats::connect(url).await.with_context(|| format!("connecting to {url}"))
}

impl Responder {
    /// Answers requests on a subject with what they say.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn echo(url: &str, subject: &str, answers: Answers) -> anyhow::Result<Self> {
        let client = connect(url).await?;
        let mut requests = client.subscribe(subject.to_owned()).await?;
        client.flush().await?;
        let answering = client.clone();
        let task = tokio::spawn(async move {
            let mut server = Server::new(answers.capacity);
            let mut count = 0;
            while let Some(request) = requests.next().await {
                // A probe is no request of the run.
                if request.payload.is_empty() {
                    continue;
                }
                count += 1;
                server.serve().await;
                answer(&answering, &answers, count, request).await?;
            }
            Ok(())
        });
        Ok(Self { client, task })
    }

    /// Works a queue: takes messages from a durable, publishes each under `done.` and its subject, and acknowledges it. Stream and
    /// durable are made where they are missing.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses.
    pub async fn work_queue(url: &str, capacity: Option<f64>) -> anyhow::Result<Self> {
        let client = connect(url).await?;
        let stream =
            add_stream(&client, "JOBS", "jobs.>", |config| config.retention = RetentionPolicy::WorkQueue).await?;
        let config = pull::Config {
            durable_name: Some("worker".to_owned()),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: 1000,
            ..Default::default()
        };
        let consumer = stream.get_or_create_consumer("worker", config).await?;
        let done = client.clone();
        let task = tokio::spawn(async move {
            let mut server = Server::new(capacity);
            let mut messages = consumer.messages().await?;
            while let Some(message) = messages.next().await {
                let message = message?;
                server.serve().await;
                done.publish(format!("done.{}", message.subject), message.payload.clone()).await?;
                message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))?;
            }
            Ok(())
        });
        Ok(Self { client, task })
    }

    /// Passes on what is published under one first token under another, headers and all.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn relay(url: &str, from: &str, to: &str, capacity: Option<f64>) -> anyhow::Result<Self> {
        let client = connect(url).await?;
        let mut messages = client.subscribe(format!("{from}.>")).await?;
        client.flush().await?;
        let (passing, from, to) = (client.clone(), from.to_owned(), to.to_owned());
        let task = tokio::spawn(async move {
            let mut server = Server::new(capacity);
            while let Some(message) = messages.next().await {
                server.serve().await;
                let subject = message.subject.replacen(&from, &to, 1);
                passing.publish_with_headers(subject, message.headers.unwrap_or_default(), message.payload).await?;
            }
            Ok(())
        });
        Ok(Self { client, task })
    }

    /// Ends it, so that nobody listens any more.
    ///
    /// # Errors
    /// What had gone wrong before.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let failed = if self.task.is_finished() { (&mut self.task).await? } else { Ok(()) };
        self.task.abort();
        let _ = (&mut self.task).await;
        self.client.flush().await?;
        failed
    }
}

async fn answer(client: &Client, answers: &Answers, count: u64, request: Message) -> anyhow::Result<()> {
    let is_due = |every: Option<NonZeroU64>| every.is_some_and(|every| count % every == 0);
    let Some(reply) = request.reply else { return Ok(()) };
    if is_due(answers.skip_every) {
        return Ok(());
    }
    if is_due(answers.foreign_every) {
        // Of the inbox, but no operation's.
        let inbox = reply.rsplit_once('.').map_or(&*reply, |(inbox, _)| inbox);
        client.publish(format!("{inbox}.ffffffff"), request.payload.clone()).await?;
    }
    if is_due(answers.fail_every) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Service-Error-Code", "500");
        client.publish_with_headers(reply, headers, request.payload).await?;
        return Ok(());
    }
    let payload = if is_due(answers.refuse_every) {
        r#"{"error":"no"}"#.into()
    } else if is_due(answers.garbage_every) {
        "no JSON".into()
    } else {
        request.payload
    };
    if is_due(answers.duplicate_every) {
        client.publish(reply.clone(), payload.clone()).await?;
    }
    client.publish(reply, payload).await?;
    Ok(())
}

async fn add_stream(
    client: &Client,
    name: &str,
    subjects: &str,
    change: impl FnOnce(&mut stream::Config),
) -> anyhow::Result<stream::Stream> {
    let context = async_nats::jetstream::new(client.clone());
    let mut config = stream::Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        storage: StorageType::Memory,
        ..Default::default()
    };
    change(&mut config);
    context.get_or_create_stream(config).await.with_context(|| format!("making the stream {name}"))
}

/// Makes a stream in memory.
///
/// # Errors
/// If the server cannot be reached or refuses.
pub async fn make_stream(url: &str, name: &str, subjects: &str) -> anyhow::Result<()> {
    add_stream(&connect(url).await?, name, subjects, |_| {}).await.map(drop)
}

/// Makes the stream of a key-value bucket, with `keys` keys from `item-0` on.
///
/// # Errors
/// If the server cannot be reached or refuses.
pub async fn make_bucket(url: &str, bucket: &str, keys: u32) -> anyhow::Result<()> {
    let client = connect(url).await?;
    add_stream(&client, &format!("KV_{bucket}"), &format!("$KV.{bucket}.>"), |config| {
        config.max_messages_per_subject = 1;
        config.allow_direct = true;
        config.allow_rollup = true;
        config.deny_delete = true;
    })
    .await?;
    let context = async_nats::jetstream::new(client);
    for key in 0..keys {
        context.publish(format!("$KV.{bucket}.item-{key}"), "1".into()).await?.await?;
    }
    Ok(())
}
