//! Agents that do not begin together measure no one window: neither a soak nor a search believes what they show.

use std::time::Duration;

use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Ended, Process, Program};
use plimsoll_tests::standin::{Standin, StandinConfig};

/// Four agents of one process are never all woken within a microsecond.
const NEVER: [&str; 4] = ["--local", "4", "--max-skew", "1us"];
const LIMIT: Duration = Duration::from_secs(90);

/// The program against a stand-in that answers everything at once, with starts further apart than they may be.
async fn run(arguments: &[&str]) -> anyhow::Result<Ended> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let mut command = Program::Cli.command()?;
    command.args(arguments).args(NEVER).args(["--preset", "small", "--results", "none", "--nats-url", &server.url()]);
    command.args(["--request-timeout", "1s", "--slo-p95", "400ms", "--slo-p99", "800ms"]);
    let mut process = Process::spawn(command)?;
    let ended = tokio::task::spawn_blocking(move || process.wait(LIMIT)).await??;
    standin.shutdown().await?;
    Ok(ended)
}

/// No verdict but that one, with the reason and what was measured.
fn check(ended: &Ended) {
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let (words, knob) = ("the agents' holds began ", " apart > 1us (--max-skew), local-");
    let reason = ended.stdout.lines().find(|line| line.contains(words) && line.contains(knob));
    assert!(reason.is_some_and(|line| line.contains(" last: they are not one window")), "{ended:?}");
    assert!(ended.stdout.contains("agents started at most ") && ended.stdout.contains(" apart, +/- "), "{ended:?}");
    assert!(!ended.stdout.contains("PASS") && !ended.stdout.contains("TRIP"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_whose_agents_did_not_begin_together_proves_nothing() -> anyhow::Result<()> {
    check(&run(&["run", "--rate", "100", "--duration", "2s", "--warmup", "500ms"]).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_whose_agents_never_begin_together_ends_with_the_reason() -> anyhow::Result<()> {
    check(&run(&["max-rps", "--find", "--from", "100", "--max-time", "60s", "--skip-self-check"]).await?);
    Ok(())
}
