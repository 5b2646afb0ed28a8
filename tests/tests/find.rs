//! `--find` end to end: the stand-in's capacity is known, and the interval must hold it. PLIMSOLL_PROVE=1 looks at every
//! stage and three capacities at 5 %; the suite looks at one at 20 %.

use plimsoll_tests::harness::exclusive::Exclusive;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Process, Program};
use plimsoll_tests::standin::{Stage, Standin, StandinConfig};
use std::time::Duration;

/// What a search said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    text: String,
}

/// Searches a stand-in of which one stage carries so many messages per second.
async fn find(stage: Stage, capacity: f64, precision: &str, max_time: &str) -> anyhow::Result<Said> {
    let _exclusive = Exclusive::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    config.stage_mut(stage).capacity = Some(capacity);
    let standin = Standin::start(config).await?;
    // A durable off the latency path shows by its backlog alone: half a per cent of the capacity, for thirty seconds. Where
    // latency shows an overload, so tight a limit would only measure how a backlog wanders just below the capacity.
    let growth = if stage == Stage::MessageWorker { capacity * 0.15 } else { 1000.0 };
    let growth = growth.ceil().to_string();
    let from = (capacity / 4.0).ceil().to_string();
    let mut command = Program::Cli.command()?;
    command.args([
        "max-rps",
        "--find",
        "--explain",
        "--preset",
        "small",
        "--results",
        "none",
        "--nats-url",
        &server.url(),
    ]);
    command.args(["--slo-pending-growth", &growth, "--from", &from, "--precision", precision]);
    command.args(["--slo-p95", "none", "--slo-p99", "200ms", "--request-timeout", "3s", "--max-time", max_time]);
    let mut process = Process::spawn(command)?;
    let ended = tokio::task::spawn_blocking(move || process.wait(Duration::from_secs(400))).await??;
    standin.shutdown().await?;
    Ok(Said { code: ended.code, text: format!("{}\n{}", ended.stdout, ended.stderr) })
}

/// The two ends of `between A and B`.
fn interval(said: &Said) -> Option<(f64, f64)> {
    let answer = said.text.lines().find(|line| line.starts_with("ANSWER"))?;
    let (low, rest) = answer.split_once("between ")?.1.split_once(" and ")?;
    Some((low.parse().ok()?, rest.split_whitespace().next()?.parse().ok()?))
}

fn check(said: &Said, capacity: f64, width: f64) {
    let (low, high) = interval(said).unwrap_or_else(|| panic!("no interval: {}", said.text));
    assert!(low <= capacity && capacity <= high, "{low} to {high} does not hold {capacity}: {}", said.text);
    assert!(high / low <= 1.0 + width + 1e-9 && said.code == Some(0), "{:?}: {}", said.code, said.text);
    assert!(said.text.contains("Trail\n  trial 1 "), "{}", said.text);
}

#[tokio::test]
async fn the_interval_holds_the_capacity() -> anyhow::Result<()> {
    if std::env::var("PLIMSOLL_PROVE").is_ok_and(|value| value == "1") {
        for stage in [Stage::Gatekeeper, Stage::BroadcastWorker, Stage::MessageWorker] {
            for capacity in [900.0, 3_300.0, 12_500.0] {
                check(&find(stage, capacity, "5%", "4m").await?, capacity, 0.05);
            }
        }
        return Ok(());
    }
    check(&find(Stage::BroadcastWorker, 900.0, "20%", "100s").await?, 900.0, 0.2);
    Ok(())
}
