//! The work that an agent does does not grow when agents are added: each receives only what answers its own operations.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_common::plan::{AgentPlan, SeriesLimits, Target};
use plimsoll_common::units::Rate;
use plimsoll_common::workload::{Inject, MessagesWorkload, Workload};
use plimsoll_tests::harness::driver::{Driver, Load};
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::http;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::Agent;
use plimsoll_tests::standin::{Standin, StandinConfig};

/// Of the whole fleet: enough operations that contents of random length differ by little on average.
const RATE: u64 = 1600;
const HOLD: Duration = Duration::from_secs(3);

fn plan(url: &str, preset: MessagesPreset, agent_index: u16) -> AgentPlan {
    let limits = |series: &str| SeriesLimits { series: series.into(), limits_us: vec![800_000] };
    AgentPlan {
        agent_index,
        run_nonce: 4711,
        seed: 42,
        target: Target { url: url.into(), credentials: None },
        workload: Workload::Messages(MessagesWorkload {
            preset,
            site_id: "site-local".into(),
            inject: Inject::Frontdoor,
        }),
        request_timeout: Duration::from_secs(3),
        series: vec![limits("E1"), limits("E2")],
        max_lateness: Duration::from_secs(1),
    }
}

/// Bytes that the server has sent to each connection so far, by the connection's name.
fn received(server: &NatsServer) -> anyhow::Result<HashMap<String, u64>> {
    let page = http::get(&format!("{}/connz?limit=1000", server.monitoring_url()))?;
    let page: serde_json::Value = serde_json::from_str(&page)?;
    let connections = page["connections"].as_array().context("no connections")?;
    let of = |c: &serde_json::Value| Some((c["name"].as_str()?.to_owned(), c["out_bytes"].as_u64()?));
    Ok(connections.iter().filter_map(of).collect())
}

/// The most that one agent of so many received per operation, in bytes.
async fn bytes_per_operation(preset: MessagesPreset, count: u16) -> anyhow::Result<f64> {
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    config.preset = preset;
    let standin = Standin::start(config).await?;
    let agents = Agent::start_many(usize::from(count))?;
    let (url, shares) = (server.url(), vec![1000; usize::from(count)]);
    let mut drivers = try_join_all((0..count).map(|index| {
        let (plan, shares, agent) = (plan(&url, preset, index), shares.clone(), agents[usize::from(index)].address);
        async move {
            let mut driver = Driver::claim(agent, Duration::from_secs(5)).await?;
            driver.prepare_as_one_of(&plan, shares).await?;
            anyhow::Ok(driver)
        }
    }))
    .await?;
    let before = received(&server)?;
    let load = Load {
        rate: Rate::per_second(RATE / u64::from(count)).context("a rate")?,
        warmup: Duration::ZERO,
        hold: HOLD,
        max_in_flight: 100_000,
    };
    let driven = try_join_all(drivers.iter_mut().map(|driver| driver.hold(load))).await?;
    let after = received(&server)?;
    let mut most = 0.0_f64;
    for (index, driven) in driven.iter().enumerate() {
        let name = format!("plimsoll/driver/{index}");
        let bytes = after.get(&name).context("no connection")? - before.get(&name).context("no connection")?;
        let counters = driven.totals.counters;
        assert_eq!(
            counters.completed, counters.attempted,
            "an operation without its answers proves nothing: {counters:?}"
        );
        most = most.max(bytes as f64 / counters.attempted as f64);
    }
    standin.shutdown().await?;
    Ok(most)
}

async fn check(preset: MessagesPreset) -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let (alone, of_four) = (bytes_per_operation(preset, 1).await?, bytes_per_operation(preset, 4).await?);
    println!("{preset}: {alone:.0} bytes per operation alone, at most {of_four:.0} of four");
    // A reply and a broadcast of the mean content at least: otherwise nothing was received.
    assert!(alone > 400.0, "{alone}");
    assert!(of_four <= 1.1 * alone, "{of_four:.0} bytes per operation, {alone:.0} alone");
    Ok(())
}

#[tokio::test]
async fn with_four_agents_one_receives_per_operation_what_one_alone_does_in_channels() -> anyhow::Result<()> {
    check(MessagesPreset::Medium).await
}

#[tokio::test]
async fn with_four_agents_one_receives_per_operation_what_one_alone_does_in_direct_messages_too() -> anyhow::Result<()>
{
    check(MessagesPreset::Realistic).await
}
