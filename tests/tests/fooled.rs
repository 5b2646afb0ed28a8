//! It cannot be fooled: a service that flatters itself is found out, one test for each way.

use std::num::NonZeroU64;
use std::time::Duration;

use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::run::{Outcome, Run, Trial, Verdict};
use plimsoll_tests::standin::config::Refusal;
use plimsoll_tests::standin::{Stage, Standin, StandinConfig};

const RATE: f64 = 300.0;

/// Holds 300/s against a stand-in with a fault.
async fn hold(fault: impl FnOnce(&mut StandinConfig), change: impl FnOnce(Run) -> Run) -> anyhow::Result<Outcome> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    fault(&mut config);
    let standin = Standin::start(config).await?;
    let run = change(Run::new(&server.url(), "small").steps(&[RATE]).hold(Duration::from_secs(4)));
    let outcome = tokio::task::spawn_blocking(move || run.finish()).await??;
    standin.shutdown().await?;
    Ok(outcome)
}

async fn trial(fault: impl FnOnce(&mut StandinConfig)) -> anyhow::Result<Trial> {
    let outcome = hold(fault, |run| run).await?;
    Ok(outcome.trial_at(RATE)?.clone())
}

fn every(n: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(n)
}

#[tokio::test]
async fn replies_that_never_come_trip_and_enter_the_percentiles() -> anyhow::Result<()> {
    // A run's own check would not let it begin.
    let outcome = hold(|config| config.gate_faults.skip_reply_every = every(1), |run| run.switch("--skip-preflight"));
    let trial = outcome.await?.trial_at(RATE)?.clone();
    assert_eq!(trial.verdict, Verdict::Trip, "{trial:?}");
    assert_eq!((trial.completed, trial.failed_timeout, trial.e1_n), (0, trial.attempted, trial.attempted), "{trial:?}");
    assert!(trial.e1_p95_ms >= Some(1_900.0), "{trial:?}");
    Ok(())
}

#[tokio::test]
async fn a_tenth_of_the_broadcasts_dropped_is_lost_operations() -> anyhow::Result<()> {
    let trial = trial(|config| config.broadcast_faults.drop_every = every(10)).await?;
    assert_eq!(trial.verdict, Verdict::Trip, "{trial:?}");
    let lost = trial.lost as f64 / trial.attempted as f64;
    assert!((0.09..0.11).contains(&lost), "{trial:?}");
    assert!(trial.e2_p95_ms >= Some(1_900.0) && trial.e2_n == trial.attempted, "{trial:?}");
    Ok(())
}

#[tokio::test]
async fn all_broadcasts_dropped_is_every_operation_lost() -> anyhow::Result<()> {
    let trial = trial(|config| config.broadcast_faults.drop_every = every(1)).await?;
    assert_eq!((trial.verdict, trial.lost, trial.completed), (Verdict::Trip, trial.attempted, 0), "{trial:?}");
    Ok(())
}

#[tokio::test]
async fn error_replies_are_failures_and_no_samples() -> anyhow::Result<()> {
    let trial = trial(|config| config.gate_faults.reject = every(1).map(|n| (n, Refusal::Unavailable))).await?;
    assert_eq!(trial.verdict, Verdict::Trip, "{trial:?}");
    assert_eq!((trial.failed_refused, trial.e1_n, trial.e2_n), (trial.attempted, 0, 0), "{trial:?}");
    Ok(())
}

#[tokio::test]
async fn garbage_replies_are_failures() -> anyhow::Result<()> {
    let trial = trial(|config| config.gate_faults.garbage_reply_every = every(2)).await?;
    assert_eq!(trial.verdict, Verdict::Trip, "{trial:?}");
    assert!(trial.failed_bad_reply > trial.attempted / 3, "{trial:?}");
    Ok(())
}

#[tokio::test]
async fn duplicates_and_foreign_messages_change_nothing() -> anyhow::Result<()> {
    let trial = trial(|config| {
        config.gate_faults.duplicate_reply_every = every(3);
        config.gate_faults.foreign_reply_every = every(3);
        config.broadcast_faults.duplicate_every = every(3);
        config.broadcast_faults.foreign_every = every(3);
    })
    .await?;
    assert_eq!((trial.verdict, trial.completed), (Verdict::Pass, trial.attempted), "{trial:?}");
    assert_eq!((trial.e1_n, trial.e2_n), (trial.attempted, trial.attempted), "{trial:?}");
    assert!(trial.duplicate > trial.attempted / 4 && trial.foreign > trial.attempted / 4, "{trial:?}");
    Ok(())
}

#[tokio::test]
async fn a_stall_of_one_second_shows_in_the_percentiles() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let lenient = Run::new(&server.url(), "small").flag("--slo-p99", "2s").flag("--slo-p95", "1s");
    let run = lenient.flag("--request-timeout", "3s").steps(&[RATE]).hold(Duration::from_secs(6));
    let mut running = run.start()?;
    let running = tokio::task::spawn_blocking(move || running.wait_for_hold().map(|()| running)).await??;
    standin.stall(Some(Stage::BroadcastWorker), Duration::from_secs(1)).await?;
    let outcome = tokio::task::spawn_blocking(move || running.finish()).await??;
    standin.shutdown().await?;
    let trial = outcome.trial_at(RATE)?;
    // A second of waiting, evenly from 1 s to nothing, in six: p95 is seven tenths of a second, p99 more than nine.
    assert!(trial.e2_p95_ms >= Some(500.0) && trial.e2_p99_ms >= Some(800.0), "{outcome}");
    Ok(())
}
