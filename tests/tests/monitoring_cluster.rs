//! What the monitoring pages of a cluster's servers are believed about: each only about what it leads.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::{self, consumer, stream};
use plimsoll::core::backlog::DurableName;
use plimsoll::shell::jsz;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::ports::free_port;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(60);
const MESSAGES: u64 = 100;

fn cluster() -> anyhow::Result<Vec<NatsServer>> {
    let ports = [free_port()?, free_port()?, free_port()?];
    let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
    let server = |(index, port): (usize, u16)| {
        let extra = format!(
            "server_name: nats-{index}\ncluster {{ name: three, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}"
        );
        NatsServer::start(NatsOptions { extra, ..NatsOptions::default() })
    };
    ports.into_iter().enumerate().map(server).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_servers_only_the_leader_of_a_durable_is_believed_about_it() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let servers = cluster()?;
    let streams = jetstream::new(async_nats::connect(servers[0].url()).await?);
    let config = stream::Config {
        name: "MESSAGES".into(),
        subjects: vec!["messages".into()],
        num_replicas: 3,
        storage: stream::StorageType::Memory,
        ..stream::Config::default()
    };
    // Until the three have found each other and elected one, nothing can be made.
    let began = Instant::now();
    let stream = loop {
        match streams.create_stream(config.clone()).await {
            Ok(stream) => break stream,
            Err(error) => anyhow::ensure!(began.elapsed() < LIMIT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let worker = consumer::pull::Config { durable_name: Some("worker".into()), ..consumer::pull::Config::default() };
    stream.create_consumer(worker).await?;
    for _ in 0..MESSAGES {
        streams.publish("messages", "x".into()).await?.await?;
    }
    let worker = DurableName { stream: "MESSAGES".into(), durable: "worker".into() };
    let page = |server: &NatsServer| {
        let url = format!("{}/jsz", server.monitoring_url());
        tokio::task::spawn_blocking(move || jsz::fetch(&url, Duration::from_secs(10)))
    };
    // The others hear a moment later of what there is.
    loop {
        let (mut pending, mut refused) = (Vec::new(), 0);
        for server in &servers {
            match page(server).await?.map_err(anyhow::Error::msg)?.consumer(&worker) {
                Ok(found) => pending.push(found.context("it is there and said to be gone")?.num_pending),
                Err(words) if words.contains(" leads it; name that server in --jsz-url") => refused += 1,
                Err(words) => eprintln!("{words}"),
            }
        }
        if refused == 2 {
            assert_eq!(pending, [MESSAGES]);
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < LIMIT, "{pending:?} and {refused} refused");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
