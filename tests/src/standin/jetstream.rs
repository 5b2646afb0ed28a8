//! Streams and durables, configured as the chat's services configure them.

use super::config::{Stage, StandinConfig, Storage};
use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, stream};
use plimsoll_agent::shell::nats_target::{bare_addresses, url_login};
use plimsoll_common::contract::subjects;
use std::time::Duration;

/// How many messages a durable may have out without an acknowledgement; as many are prefetched.
pub(super) const MAX_ACK_PENDING: i64 = 1_000;

/// Connects under a name that operators can read.
pub(super) async fn connect(config: &StandinConfig, name: &str) -> anyhow::Result<async_nats::Client> {
    let mut options = async_nats::ConnectOptions::new().name(format!("plimsoll-standin/{name}"));
    if let Some(creds) = &config.creds {
        options = options
            .credentials_file(creds)
            .await
            .with_context(|| format!("reading credentials from {}", creds.display()))?;
    }
    // The client library leaves alone what the URL has before its `@`.
    let no_url = |words: String| anyhow::anyhow!("{words}");
    match url_login(&config.nats_url).map_err(no_url)? {
        Some((user, Some(password))) => options = options.user_and_password(user, password),
        Some((token, None)) => options = options.token(token),
        None => {}
    }
    let addresses = bare_addresses(&config.nats_url).map_err(no_url)?;
    options.connect(addresses).await.with_context(|| format!("connecting to NATS at {}", config.nats_url))
}

/// Creates the streams of the site where they are missing, after deleting them if asked to.
pub(super) async fn create_streams(context: &jetstream::Context, config: &StandinConfig) -> anyhow::Result<()> {
    let site = &config.site;
    for (name, subjects) in [
        (subjects::messages_stream(site), subjects::messages_stream_subjects(site)),
        (subjects::canonical_stream(site), subjects::canonical_stream_subjects(site)),
        (subjects::rooms_stream(site), subjects::rooms_stream_subjects(site)),
    ] {
        if config.purge {
            // A stream that is not there is as good as deleted; any other failure shows when it is created.
            let _ = context.delete_stream(&name).await;
        }
        let storage = match config.storage {
            Storage::File => stream::StorageType::File,
            Storage::Memory => stream::StorageType::Memory,
        };
        let wanted = stream::Config { name: name.clone(), subjects, storage, ..Default::default() };
        context.get_or_create_stream(wanted).await.with_context(|| format!("creating stream {name}"))?;
    }
    Ok(())
}

/// Creates a stage's durable, or finds it as it is.
pub(super) async fn create_durable(
    context: &jetstream::Context,
    stage: Stage,
    site: &str,
) -> anyhow::Result<PullConsumer> {
    let filter_subject = match stage {
        Stage::Gatekeeper | Stage::BroadcastWorker | Stage::RoomWorker => String::new(),
        Stage::MessageWorker | Stage::NotificationWorker => subjects::canonical_created(site),
    };
    let wanted = pull::Config {
        durable_name: Some(stage.durable().to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_secs(30),
        max_deliver: 5,
        max_waiting: 512,
        max_ack_pending: MAX_ACK_PENDING,
        filter_subject,
        ..Default::default()
    };
    let stream = stage.stream(site);
    context
        .create_consumer_on_stream(wanted, &*stream)
        .await
        .with_context(|| format!("creating durable {stage} of stream {stream}"))
}

/// Deletes a stage's durable.
pub(super) async fn delete_durable(context: &jetstream::Context, stage: Stage, site: &str) -> anyhow::Result<()> {
    let stream = stage.stream(site);
    context
        .delete_consumer_from_stream(stage.durable(), &stream)
        .await
        .with_context(|| format!("deleting durable {stage} of stream {stream}"))?;
    Ok(())
}

/// Starts to pull. Half of the prefetch is asked for again while the other half waits, so that a stage with a backlog
/// never runs dry.
pub(super) async fn pull(durable: &PullConsumer) -> anyhow::Result<pull::Stream> {
    Ok(durable
        .stream()
        .max_messages_per_batch(MAX_ACK_PENDING as usize)
        .expires(Duration::from_secs(30))
        .heartbeat(Duration::from_secs(5))
        .messages()
        .await?)
}
