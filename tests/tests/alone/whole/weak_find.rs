//! A search over two boxes of which one is too small: it gets less, and the answer is the service's. With PLIMSOLL_PROVE=1 for
//! longer, and what it found has to be near.

use std::time::Duration;

use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_tests::harness::exclusive::Exclusive;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, CpuQuota, Ended, Process, Program};
use plimsoll_tests::harness::prove;
use plimsoll_tests::standin::{Stage, Standin, StandinConfig};

/// Messages that the broadcast worker carries a second.
const CAPACITY: f64 = 3000.0;
const LIMIT: Duration = Duration::from_secs(400);

async fn find(agents: &[Agent], more: &'static [&'static str]) -> anyhow::Result<Ended> {
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    // In more rooms than the small preset's each box hears little of what the other makes.
    config.preset = MessagesPreset::Medium;
    config.stage_mut(Stage::BroadcastWorker).capacity = Some(CAPACITY);
    let standin = Standin::start(config).await?;
    let addresses: Vec<String> = agents.iter().map(|agent| agent.address.to_string()).collect();
    let mut command = Program::Cli.command()?;
    command.args(["max-rps", "--find", "--explain", "--preset", "medium", "--from", "2000", "--results", "none"]);
    command.args(["--nats-url", &server.url(), "--agents", &addresses.join(",")]).args(more);
    // So little of a core is too little for pings every second too, where others keep it busy.
    command.args(["--skip-self-check", "--precision", "30%", "--lease-timeout", "10s"]);
    command.args(["--slo-p95", "none", "--slo-p99", "200ms", "--request-timeout", "3s", "--max-skew", "1s"]);
    let mut process = Process::spawn(command)?;
    let ended = tokio::task::spawn_blocking(move || process.wait(LIMIT)).await??;
    standin.shutdown().await?;
    println!("{}", ended.stdout);
    Ok(ended)
}

/// The two ends of `between A and B`.
fn interval(ended: &Ended) -> Option<(f64, f64)> {
    let answer = ended.stdout.lines().find(|line| line.starts_with("ANSWER"))?;
    let (low, rest) = answer.split_once("between ")?.1.split_once(" and ")?;
    Some((low.parse().ok()?, rest.split_whitespace().next()?.parse().ok()?))
}

/// The last `now between A and B` of the trail, as far as they are levels: what trials hinted at or confirmed.
fn bounds(ended: &Ended) -> (Option<f64>, Option<f64>) {
    let last = ended.stdout.lines().filter_map(|line| line.split_once("; now between ")).next_back();
    let (low, high) = last.and_then(|(_, bounds)| bounds.split_once(" and ")).unwrap_or_default();
    let level = |text: &str| text.split_whitespace().next()?.parse().ok();
    (level(low), level(high))
}

#[tokio::test]
async fn a_search_gives_a_box_that_is_too_small_less_and_finds_what_the_service_carries() -> anyhow::Result<()> {
    let _exclusive = Exclusive::acquire()?;
    let agents = Agent::start_many(2)?;
    // 20 ms of a core in 500 ms: what is due while it waits for the next period waits with it.
    let quota = CpuQuota::in_periods(40, 500)?;
    quota.take(&agents[1].process)?;
    let ended = find(&agents, if prove::whole() { &["--max-time", "2m"] } else { &["--max-time", "25s"] }).await?;
    let weak = agents[1].address.to_string();
    assert!(ended.stdout.contains(&format!(" by {weak}, which could not carry ")), "{ended:?}");
    // What a box of this size spoils still may leave too little for an answer, and never makes a wrong one.
    assert!(matches!(ended.code, Some(0 | 4)), "{ended:?}");
    if let Some((low, high)) = interval(&ended) {
        assert!(low <= CAPACITY && CAPACITY <= high, "{low} to {high}, not {CAPACITY}: {ended:?}");
    }
    let hidden = ended.stdout.contains("stalls of load boxes hide what the service does");
    let (low, high) = bounds(&ended);
    assert!(low.is_none_or(|low| low <= CAPACITY), "{ended:?}");
    assert!(hidden || high.is_none_or(|high| high >= CAPACITY), "what the weak box carries is no limit: {ended:?}");
    if prove::whole() {
        let near = low.is_some_and(|low| low >= CAPACITY / 2.0) && high.is_some_and(|high| high <= CAPACITY * 2.0);
        assert!(near, "found although the half of it was the weak box's: {ended:?}");
    }
    Ok(())
}
