//! The answer is right: the stand-in's capacity is known, and the whole system must find it. PLIMSOLL_PROVE=1 holds more
//! levels, nearer to it and for longer.

use std::time::Duration;

use plimsoll_tests::harness::exclusive::Pair;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::Agent;
use plimsoll_tests::harness::prove;
use plimsoll_tests::harness::run::{Outcome, Run, Verdict};
use plimsoll_tests::standin::{Stage, Standin, StandinConfig};

/// What the limiting stage carries, in messages per second.
const CAPACITY: f64 = 1000.0;

/// Rates to hold, of which none lies between the capacity and 1.1 times it, and for how long each.
fn levels() -> (&'static [f64], Duration) {
    if prove::whole() {
        (&[700.0, 950.0, 1110.0, 1300.0, 2000.0], Duration::from_secs(12))
    } else {
        (&[700.0, 1200.0], Duration::from_secs(4))
    }
}

/// Holds them against a stand-in of which one stage carries 1,000/s.
async fn find_1000(stage: Stage, change: impl FnOnce(Run) -> Run) -> anyhow::Result<Outcome> {
    let _pair = Pair::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    config.stage_mut(stage).capacity = Some(CAPACITY);
    let standin = Standin::start(config).await?;
    let (rates, hold) = levels();
    let run = change(Run::new(&server.url(), "small").steps(rates).hold(hold).switch("--no-stop-on-trip"));
    let outcome = tokio::task::spawn_blocking(move || run.finish()).await??;
    standin.shutdown().await?;
    Ok(outcome)
}

fn check(outcome: &Outcome, signal: &str) -> anyhow::Result<()> {
    let (rates, _) = levels();
    for &rate in rates {
        let trial = outcome.trial_at(rate)?;
        let expected = if rate < CAPACITY { Verdict::Pass } else { Verdict::Trip };
        assert_eq!(trial.verdict, expected, "at {rate}: {outcome}");
        assert!(rate < CAPACITY || trial.reasons.contains(signal), "at {rate}: {outcome}");
    }
    let largest = rates.iter().copied().filter(|&rate| rate < CAPACITY).reduce(f64::max);
    assert_eq!((outcome.max_rps(), outcome.code()), (largest, Some(0)), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn the_broadcast_workers_capacity_is_found_by_its_broadcasts() -> anyhow::Result<()> {
    check(&find_1000(Stage::BroadcastWorker, |run| run).await?, "E2")
}

#[tokio::test]
async fn the_gatekeepers_capacity_is_found_by_its_replies() -> anyhow::Result<()> {
    check(&find_1000(Stage::Gatekeeper, |run| run).await?, "E1")
}

#[tokio::test]
async fn the_message_workers_capacity_is_found_by_its_backlog() -> anyhow::Result<()> {
    let outcome = find_1000(Stage::MessageWorker, |run| run.flag("--slo-pending-growth", 500)).await?;
    check(&outcome, "message-worker pending")
}

#[tokio::test]
async fn two_agents_give_the_answer_of_one_also_past_the_gatekeeper() -> anyhow::Result<()> {
    let agents = Agent::start_many(2)?;
    check(&find_1000(Stage::BroadcastWorker, |run| run.agents(&agents).flag("--inject", "canonical")).await?, "E2")?;
    if prove::whole() {
        check(&find_1000(Stage::BroadcastWorker, |run| run.flag("--inject", "canonical")).await?, "E2")?;
        check(&find_1000(Stage::BroadcastWorker, |run| run.agents(&agents)).await?, "E2")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_backend_without_a_limit_never_trips() -> anyhow::Result<()> {
    let _pair = Pair::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let hold = Duration::from_secs(if prove::whole() { 12 } else { 3 });
    let run = Run::new(&server.url(), "small").steps(&[500.0, 1000.0]).hold(hold);
    let outcome = tokio::task::spawn_blocking(move || run.finish()).await??;
    standin.shutdown().await?;
    assert!(outcome.trials.iter().all(|trial| trial.verdict != Verdict::Trip), "{outcome}");
    assert!(outcome.answer()?.starts_with("ANSWER: max RPS >= 1000 "), "{outcome}");
    Ok(())
}
