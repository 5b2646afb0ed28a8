//! SIGINT and SIGTERM before the first load: agents that are there for one run are told that it is over, and end in order.

use std::time::Duration;

use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::ports::free_port;
use plimsoll_tests::harness::processes::{Agent, AgentOptions};
use plimsoll_tests::harness::run::{Run, Running};
use plimsoll_tests::standin::{DailyConfig, Standin, StandinConfig};

const LIMIT: Duration = Duration::from_secs(40);
const SEEDED: u32 = 200;

fn for_one_run() -> anyhow::Result<Agent> {
    Agent::start(&AgentOptions { arguments: vec!["--exit-after-run".into()], ..AgentOptions::default() })
}

/// Interrupts it, and looks how it and its agents end.
fn ends_in_order(mut running: Running, signal: libc::c_int, agents: &mut [Agent]) -> anyhow::Result<()> {
    running.process.signal(signal)?;
    let outcome = running.finish()?;
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(130), 0), "{outcome}");
    assert!(outcome.ended.stdout.contains("\nABORTED: "), "{outcome}");
    for agent in agents {
        let ended = agent.process.wait(LIMIT)?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains("as --exit-after-run says"), "{ended:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_while_a_fleet_is_waited_for_releases_those_that_are_there() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut agents = [for_one_run()?];
        let nobody = format!("127.0.0.1:{}", free_port()?);
        let run = Run::new(&server.url(), "small").flag("--agents", format!("{},{nobody}", agents[0].address));
        let mut running = run.flag("--wait-agents", 2).flag("--wait-timeout", "2m").start()?;
        running.process.wait_for_stderr("waiting for agents: 1 of 2 are there", LIMIT)?;
        ends_in_order(running, signal, &mut agents)?;
    }
    standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_in_the_first_deal_releases_the_fleet() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let daily = Some(DailyConfig { preset: DailyPreset::Light, users: SEEDED });
    let standin = Standin::start(StandinConfig { daily, ..StandinConfig::new(server.url()) }).await?;
    let mut agents = [for_one_run()?, for_one_run()?];
    // Each takes a minute to bring its users online.
    let run = Run::daily(&server.url(), "daily-light", SEEDED).flag("--activation-rate", 1).steps(&[120.0]);
    let running = run.agents(&agents).start()?;
    let began = tokio::time::Instant::now();
    while server.agents_seen()?.open.len() < 2 {
        assert!(began.elapsed() < LIMIT, "the agents do not connect: {}", running.process.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ends_in_order(running, libc::SIGTERM, &mut agents)?;
    standin.shutdown().await
}
