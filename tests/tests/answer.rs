//! The answer is right: the stand-in's capacity is known, and the whole system must find it.

use plimsoll_tests::harness::exclusive::Exclusive;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::Agent;
use plimsoll_tests::harness::run::{Outcome, Run, Verdict};
use plimsoll_tests::standin::{Stage, Standin, StandinConfig};

/// Holds 600/s and 1,500/s against a stand-in of which one stage carries 1,000/s.
async fn find_1000(stage: Stage, change: impl FnOnce(Run) -> Run) -> anyhow::Result<Outcome> {
    let _exclusive = Exclusive::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    config.stage_mut(stage).capacity = Some(1000.0);
    let standin = Standin::start(config).await?;
    let run = change(Run::new(&server.url(), "small").steps(&[600.0, 1500.0]));
    let outcome = tokio::task::spawn_blocking(move || run.finish()).await??;
    standin.shutdown().await?;
    Ok(outcome)
}

fn check(outcome: &Outcome, signal: &str) -> anyhow::Result<()> {
    let (below, above) = (outcome.trial_at(600.0)?, outcome.trial_at(1500.0)?);
    assert_eq!((below.verdict, above.verdict), (Verdict::Pass, Verdict::Trip), "{outcome}");
    assert!(above.reasons.contains(signal), "{outcome}");
    assert_eq!((outcome.max_rps(), outcome.code()), (Some(600.0), Some(0)), "{outcome}");
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
async fn past_the_gatekeeper_the_broadcast_workers_capacity_is_the_same() -> anyhow::Result<()> {
    check(&find_1000(Stage::BroadcastWorker, |run| run.flag("--inject", "canonical")).await?, "E2")
}

#[tokio::test]
async fn two_agents_give_the_answer_of_one() -> anyhow::Result<()> {
    let agents = Agent::start_many(2)?;
    check(&find_1000(Stage::BroadcastWorker, |run| run.agents(&agents)).await?, "E2")
}

#[tokio::test]
async fn a_backend_without_a_limit_never_trips() -> anyhow::Result<()> {
    let _exclusive = Exclusive::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let run = Run::new(&server.url(), "small").steps(&[500.0, 1000.0]);
    let outcome = tokio::task::spawn_blocking(move || run.finish()).await??;
    standin.shutdown().await?;
    assert!(outcome.trials.iter().all(|trial| trial.verdict != Verdict::Trip), "{outcome}");
    assert!(outcome.answer()?.starts_with("ANSWER: max RPS >= 1000 "), "{outcome}");
    Ok(())
}
