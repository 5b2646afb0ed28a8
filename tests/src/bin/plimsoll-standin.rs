//! The stand-in chat backend as a program: prints one READY line when its durables exist, and works until interrupted.

use anyhow::Context as _;
use clap::Parser;
use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_common::contract::history::HistoryPreset;
use plimsoll_common::contract::members::MembersPreset;
use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_tests::standin::config::{
    BroadcastFaults, Databases, GateFaults, Incident, Refusal, Trigger, parse_endpoint_capacity,
    parse_endpoint_latency, parse_endpoint_reject, parse_fraction, parse_reject,
};
use plimsoll_tests::standin::null::{NullAnswers, NullGatekeeper};
use plimsoll_tests::standin::{
    Counters, DailyConfig, Endpoint, Latency, Stage, StageConfig, Standin, StandinConfig, Storage,
};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A chat backend to measure against: the real streams and durables, with a capacity and faults of your choosing.
#[derive(Debug, Parser)]
#[command(name = "plimsoll-standin", version, after_help = EXAMPLES)]
struct Args {
    /// The NATS server; the URL may carry user and password
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats_url: String,
    /// Credentials file for the NATS server
    #[arg(long, env = "NATS_CREDS_FILE")]
    nats_creds: Option<PathBuf>,
    /// The site: a token of subjects and part of the streams' names
    #[arg(long, env = "SITE_ID", default_value = "site-local")]
    site_id: String,
    /// Users and rooms: small, medium, large or realistic; the load must use the same
    #[arg(long, default_value = "medium")]
    preset: MessagesPreset,
    /// Seed of the fixtures, and of everything drawn by chance
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Where new streams keep their messages
    #[arg(long, value_enum, default_value_t = Storage::File)]
    storage: Storage,
    /// Delete the site's streams first
    #[arg(long)]
    purge: bool,
    /// Broadcast to channels encrypted, under their room's key
    #[arg(long)]
    encrypted: bool,
    /// Tell the whole room of each reply in a channel's thread (`thread_metadata_updated`), which is most of what large rooms hear
    #[arg(long)]
    thread_metadata: bool,
    /// Refuse posts to rooms with more members than this
    #[arg(long, default_value_t = 500)]
    large_room_threshold: u64,
    /// Messages of every room that can be replied to in a thread
    #[arg(long, default_value_t = 8)]
    parents_per_room: u32,
    /// The rooms of daily-light, daily-heavy or daily-power in place of those of --preset
    #[arg(long, value_name = "PRESET")]
    daily_preset: Option<DailyPreset>,
    /// Users of --daily-preset
    #[arg(long, default_value_t = 10_000)]
    users: u32,
    /// Serve /healthz here once READY is said, for a container's health check
    #[arg(long, value_name = "ADDRESS")]
    health_listen: Option<SocketAddr>,
    #[command(flatten)]
    stages: Stages,
    #[command(flatten)]
    reads: Reads,
    #[command(flatten)]
    databases: DatabaseArgs,
    #[command(flatten)]
    faults: Faults,
    #[command(flatten)]
    null: Null,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Speed of the stages (capacities in messages per second, unlimited unless set)")]
struct Stages {
    #[arg(long, value_name = "RATE")]
    gatekeeper_capacity: Option<f64>,
    #[arg(long, value_name = "RATE")]
    message_worker_capacity: Option<f64>,
    #[arg(long, value_name = "RATE")]
    broadcast_worker_capacity: Option<f64>,
    /// In copies: a message to a room costs as many as the room has members; replaces --broadcast-worker-capacity
    #[arg(long, value_name = "RATE")]
    fan_out_capacity: Option<f64>,
    #[arg(long, value_name = "RATE")]
    notification_worker_capacity: Option<f64>,
    #[arg(long, value_name = "RATE")]
    room_worker_capacity: Option<f64>,
    /// Delay of each message, which takes no capacity: 5ms, uniform:1ms..9ms or exp:5ms
    #[arg(long, value_name = "DELAY")]
    gatekeeper_latency: Option<Latency>,
    #[arg(long, value_name = "DELAY")]
    message_worker_latency: Option<Latency>,
    #[arg(long, value_name = "DELAY")]
    broadcast_worker_latency: Option<Latency>,
    #[arg(long, value_name = "DELAY")]
    notification_worker_latency: Option<Latency>,
    #[arg(long, value_name = "DELAY")]
    room_worker_latency: Option<Latency>,
}

#[derive(Debug, clap::Args)]
#[command(
    next_help_heading = "Request services (of history, thread, mark-read, read-receipt, member-add, room-list, room-create, mute)"
)]
struct Reads {
    /// Rooms with a history: history-small, history-medium or history-large
    #[arg(long, value_name = "PRESET", default_value = "history-small")]
    history_preset: HistoryPreset,
    /// Rooms to which members are added: members-small, members-medium, members-heavy, …
    #[arg(long, value_name = "PRESET", default_value = "members-small")]
    members_preset: MembersPreset,
    /// Requests per second that an endpoint answers, such as history:800; may be repeated
    #[arg(long, value_name = "ENDPOINT:RATE", value_parser = parse_endpoint_capacity)]
    endpoint_capacity: Vec<(Endpoint, f64)>,
    /// Delay of an endpoint's answers, such as thread:exp:5ms; may be repeated
    #[arg(long, value_name = "ENDPOINT:DELAY", value_parser = parse_endpoint_latency)]
    endpoint_latency: Vec<(Endpoint, Latency)>,
    /// Answer an endpoint's every N-th request with an error, such as history:10:internal; may be repeated
    #[arg(long, value_name = "ENDPOINT:N:REASON", value_parser = parse_endpoint_reject)]
    endpoint_reject: Vec<(Endpoint, (NonZeroU64, Refusal))>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Databases (given, histories, threads and readers come from what was seeded there)")]
struct DatabaseArgs {
    /// The MongoDB that was seeded
    #[arg(long, value_name = "URI", requires = "cassandra_hosts", hide_env_values = true, env = "MONGO_URI")]
    mongo_uri: Option<String>,
    /// The database in it
    #[arg(long, value_name = "NAME", default_value = "chat")]
    mongo_db: String,
    /// Nodes of the Cassandra or ScyllaDB that was seeded
    #[arg(long, value_name = "HOST:PORT,…", requires = "mongo_uri", value_delimiter = ',', env = "CASSANDRA_HOSTS")]
    cassandra_hosts: Vec<String>,
    /// The keyspace in it
    #[arg(long, value_name = "NAME", default_value = "chat")]
    cassandra_keyspace: String,
    /// Who we are there; the password is read from CASSANDRA_PASSWORD
    #[arg(long, value_name = "NAME")]
    cassandra_username: Option<String>,
    /// The length of a bucket of messages
    #[arg(long, value_name = "HOURS", default_value_t = 72, value_parser = clap::value_parser!(u32).range(1..=8784))]
    message_bucket_hours: u32,
}

impl DatabaseArgs {
    fn into_config(self) -> Option<Databases> {
        Some(Databases {
            mongo_uri: self.mongo_uri?,
            mongo_db: self.mongo_db,
            cassandra_hosts: self.cassandra_hosts,
            cassandra_keyspace: self.cassandra_keyspace,
            cassandra_username: self.cassandra_username,
            cassandra_password: std::env::var("CASSANDRA_PASSWORD").unwrap_or_default(),
            bucket_hours: self.message_bucket_hours,
        })
    }
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Faults")]
struct Faults {
    /// Refuse every N-th valid send with a reason such as not_subscribed
    #[arg(long, value_name = "N:REASON", value_parser = parse_reject)]
    reject: Option<(NonZeroU64, Refusal)>,
    /// Do not send every N-th reply
    #[arg(long, value_name = "N")]
    skip_reply_every: Option<NonZeroU64>,
    /// Send something that is no JSON instead of every N-th reply
    #[arg(long, value_name = "N")]
    garbage_reply_every: Option<NonZeroU64>,
    /// Send every N-th reply twice
    #[arg(long, value_name = "N")]
    duplicate_reply_every: Option<NonZeroU64>,
    /// With every N-th reply, answer a request that nobody made
    #[arg(long, value_name = "N")]
    foreign_reply_every: Option<NonZeroU64>,
    /// Do not broadcast every N-th message; 1 drops all
    #[arg(long, value_name = "N")]
    drop_broadcast_every: Option<NonZeroU64>,
    /// Do not broadcast this part of all messages, drawn by chance: 0.1 or 10%
    #[arg(long, value_name = "FRACTION", value_parser = parse_fraction, default_value = "0")]
    drop_broadcasts: f64,
    /// Broadcast every N-th message twice
    #[arg(long, value_name = "N")]
    duplicate_broadcast_every: Option<NonZeroU64>,
    /// With every N-th message, broadcast one that nobody sent
    #[arg(long, value_name = "N")]
    foreign_broadcast_every: Option<NonZeroU64>,
    /// Do not publish every N-th member event; 1 drops all
    #[arg(long, value_name = "N")]
    drop_member_event_every: Option<NonZeroU64>,
    /// Let a stage, or all, serve nothing for a while, such as message-worker:1s@5s; may be repeated
    #[arg(long, value_name = "STAGE:LENGTH@AFTER", value_parser = Incident::parse_stall)]
    stall: Vec<Incident>,
    /// Delete a stage's durable, and create it anew some time later if told so, such as message-worker@5s+2s; may be repeated
    #[arg(long, value_name = "STAGE@AFTER[+BACK]", value_parser = Incident::parse_vanish)]
    vanish: Vec<Incident>,
    /// From when stalls and vanishings count: when all is ready, or from the stage's own first message
    #[arg(long, value_enum, default_value_t = Trigger::Ready)]
    incidents_from: Trigger,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Null gatekeeper (no streams, no checks: the ruler for a generator's own speed)")]
struct Null {
    /// Answer every send at once, and do nothing else
    #[arg(long)]
    null: bool,
    /// With --null, also broadcast every message at once
    #[arg(long, requires = "null")]
    null_broadcast: bool,
}

const EXAMPLES: &str = "\
Examples:
  plimsoll-standin --preset medium --message-worker-capacity 2000
  plimsoll-standin --gatekeeper-latency exp:5ms --reject 100:not_subscribed --drop-broadcasts 10%
  plimsoll-standin --history-preset history-medium --endpoint-capacity history:800 --endpoint-latency thread:exp:5ms
  plimsoll-standin --members-preset members-medium --endpoint-capacity member-add:500 --room-worker-capacity 300
  plimsoll-standin --daily-preset daily-light --users 10000 --fan-out-capacity 20000
  plimsoll-standin --stall broadcast-worker:1s@5s --incidents-from first-message
  plimsoll-standin --null --null-broadcast";

fn main() -> anyhow::Result<()> {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,async_nats=warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    runtime.block_on(async { if args.null.null { run_null(args).await } else { run(args).await } })
}

async fn run(args: Args) -> anyhow::Result<()> {
    let mut interrupts = Interrupts::listen()?;
    let health_listen = args.health_listen;
    let config = config(args);
    let preset = config.daily.map_or_else(|| config.preset.to_string(), |daily| daily.preset.to_string());
    let ready = format!("READY site={} preset={preset} seed={}", config.site, config.seed);
    let mut standin = Standin::start(config).await?;
    println!("{ready}");
    health_listen.map_or(Ok(()), serve_health)?;
    tokio::select! {
        outcome = standin.failed() => return outcome,
        () = interrupts.next() => (),
    }
    tracing::info!("{}", summary(standin.counters()));
    standin.shutdown().await
}

/// Says on this address that all is well, as long as the process lives.
fn serve_health(address: SocketAddr) -> anyhow::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let listener =
        TcpListener::bind(address).with_context(|| format!("--health-listen: cannot listen on {address}"))?;
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { continue };
            // Whoever asks and goes away is not waited for.
            let _ = socket.set_read_timeout(Some(PATIENCE)).and_then(|()| socket.read(&mut [0; 1024]));
            let _ = socket.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
        }
    });
    Ok(())
}

async fn run_null(args: Args) -> anyhow::Result<()> {
    let mut interrupts = Interrupts::listen()?;
    let answers = if args.null.null_broadcast { NullAnswers::ReplyAndBroadcast } else { NullAnswers::Reply };
    let gatekeeper = NullGatekeeper::start(&args.nats_url, &args.site_id, answers)?;
    println!("READY site={} null", args.site_id);
    while !gatekeeper.has_ended() {
        if tokio::time::timeout(Duration::from_millis(200), interrupts.next()).await.is_ok() {
            tracing::info!(answered = gatekeeper.answered(), "stopping");
            return gatekeeper.shutdown();
        }
    }
    gatekeeper.shutdown()?;
    anyhow::bail!("nats-server closed the connection")
}

/// What tells the program to stop. Listened for before it says READY, so that whoever waits for that may stop it.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

fn config(args: Args) -> StandinConfig {
    let Args { stages, faults, reads, .. } = args;
    let stage = |capacity, latency: Option<Latency>| StageConfig { capacity, latency: latency.unwrap_or_default() };
    let mut config = StandinConfig {
        nats_url: args.nats_url,
        creds: args.nats_creds,
        preset: args.preset,
        seed: args.seed,
        site: args.site_id,
        storage: args.storage,
        purge: args.purge,
        gatekeeper: stage(stages.gatekeeper_capacity, stages.gatekeeper_latency),
        message_worker: stage(stages.message_worker_capacity, stages.message_worker_latency),
        broadcast_worker: stage(stages.broadcast_worker_capacity, stages.broadcast_worker_latency),
        notification_worker: stage(stages.notification_worker_capacity, stages.notification_worker_latency),
        room_worker: stage(stages.room_worker_capacity, stages.room_worker_latency),
        large_room_threshold: args.large_room_threshold,
        encrypted: args.encrypted,
        thread_metadata: args.thread_metadata,
        gate_faults: GateFaults {
            reject: faults.reject,
            skip_reply_every: faults.skip_reply_every,
            garbage_reply_every: faults.garbage_reply_every,
            duplicate_reply_every: faults.duplicate_reply_every,
            foreign_reply_every: faults.foreign_reply_every,
        },
        broadcast_faults: BroadcastFaults {
            drop_every: faults.drop_broadcast_every,
            drop_fraction: faults.drop_broadcasts,
            duplicate_every: faults.duplicate_broadcast_every,
            foreign_every: faults.foreign_broadcast_every,
        },
        member_event_faults: BroadcastFaults {
            drop_every: faults.drop_member_event_every,
            ..BroadcastFaults::default()
        },
        incidents: faults.stall.into_iter().chain(faults.vanish).collect(),
        incidents_from: faults.incidents_from,
        parents_per_room: args.parents_per_room,
        history: reads.history_preset,
        members: reads.members_preset,
        daily: args.daily_preset.map(|preset| DailyConfig { preset, users: args.users }),
        fan_out_capacity: stages.fan_out_capacity,
        presence_drop_every: None,
        endpoints: Default::default(),
        databases: args.databases.into_config(),
    };
    for (endpoint, capacity) in reads.endpoint_capacity {
        config.endpoint_mut(endpoint).speed.capacity = Some(capacity);
    }
    for (endpoint, latency) in reads.endpoint_latency {
        config.endpoint_mut(endpoint).speed.latency = latency;
    }
    for (endpoint, reject) in reads.endpoint_reject {
        config.endpoint_mut(endpoint).reject = Some(reject);
    }
    config
}

fn summary(counters: &Counters) -> String {
    let stages: Vec<String> =
        Stage::ALL.iter().map(|stage| format!("{stage} {}", counters.stage(*stage).served.get())).collect();
    let (accepted, refused, broadcasts) = (counters.accepted.get(), counters.refused.get(), counters.broadcasts.get());
    format!("served: {}; accepted {accepted}, refused {refused}, broadcast {broadcasts}", stages.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_understood() {
        for line in EXAMPLES.lines().skip(1) {
            let args = Args::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
            config(args).check().unwrap();
        }
    }
}
