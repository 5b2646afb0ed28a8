//! History, room-read, read-receipt and thread find a capacity that is set, and cannot be flattered.

use std::num::NonZeroU64;
use std::time::Duration;

use plimsoll_common::contract::history::HistoryPreset;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::Agent;
use plimsoll_tests::harness::run::{Outcome, Run, Trial, Verdict};
use plimsoll_tests::standin::config::Refusal;
use plimsoll_tests::standin::{Endpoint, Stage, Standin, StandinConfig};

fn every(n: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(n)
}

/// A server with a stand-in, alone on the box.
struct Target {
    server: NatsServer,
    _standin: Standin,
    _shared: Shared,
}

async fn target(change: impl FnOnce(&mut StandinConfig)) -> anyhow::Result<Target> {
    let shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    change(&mut config);
    Ok(Target { _standin: Standin::start(config).await?, server, _shared: shared })
}

impl Target {
    fn run(&self, workload: &str) -> Run {
        let preset = if matches!(workload, "room-read" | "thread") { "small" } else { "history-small" };
        run(&self.server, workload, preset)
    }

    async fn trial(&self, workload: &str) -> anyhow::Result<Trial> {
        let outcome = finish(self.run(workload).hold(Duration::from_secs(1))).await?;
        Ok(outcome.trial_at(300.0)?.clone())
    }
}

fn run(server: &NatsServer, workload: &str, preset: &str) -> Run {
    let run = Run::new(&server.url(), preset).flag("--workload", workload).warmup(Duration::from_millis(500));
    run.hold(Duration::from_secs(2)).steps(&[300.0])
}

async fn finish(run: Run) -> anyhow::Result<Outcome> {
    tokio::task::spawn_blocking(move || run.finish()).await?
}

fn check_found(outcome: &Outcome, signal: &str) -> anyhow::Result<()> {
    let (below, above) = (outcome.trial_at(300.0)?, outcome.trial_at(1800.0)?);
    assert_eq!((below.verdict, above.verdict), (Verdict::Pass, Verdict::Trip), "{outcome}");
    assert!(above.reasons.contains(signal), "{outcome}");
    assert_eq!((outcome.max_rps(), outcome.code()), (Some(300.0), Some(0)), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn each_read_workload_finds_the_capacity_of_its_endpoint() -> anyhow::Result<()> {
    let target = target(|config| {
        for endpoint in [Endpoint::LoadHistory, Endpoint::MarkRead, Endpoint::ReadReceipt] {
            config.endpoint_mut(endpoint).speed.capacity = Some(600.0);
        }
    })
    .await?;
    for (workload, signal) in
        [("history", "history p95"), ("room-read", "room-read p95"), ("read-receipt", "read-receipt p95")]
    {
        let run = target.run(workload).flag("--slo-p95", "1s").flag("--slo-p99", "1500ms");
        let run = run.hold(Duration::from_millis(1_500)).steps(&[300.0, 1800.0]);
        check_found(&finish(run).await?, signal)?;
    }
    Ok(())
}

#[tokio::test]
async fn history_and_thread_are_judged_apart_by_two_agents_that_scroll() -> anyhow::Result<()> {
    let agents = Agent::start_many(2)?;
    let target = target(|config| {
        config.history = HistoryPreset::Medium;
        config.endpoint_mut(Endpoint::GetThread).speed.capacity = Some(75.0);
    })
    .await?;
    let run = run(&target.server, "history", "history-medium").agents(&agents).flag("--page-limit", 10);
    let outcome = finish(run.flag("--mix", "history:50,thread:50")).await?;
    let trial = outcome.trial_at(300.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.reasons.contains("thread p95") && !trial.reasons.contains("history p"), "{outcome}");
    let (history, thread) = (trial.number("history_n").unwrap(), trial.number("thread_n").unwrap());
    assert!((history + thread - trial.attempted as f64).abs() < 0.5, "{outcome}");
    assert!((0.4..0.6).contains(&(thread / trial.attempted as f64)), "{outcome}");
    // Pages are full, threads have three replies, and scrolling never leaves the room's history.
    let rows = trial.number("rows_mean").unwrap();
    assert!((3.0..10.0).contains(&rows) && trial.number("rows_max") == Some(10.0), "{outcome}");
    assert_eq!(trial.number("empty_replies_count"), Some(0.0), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn error_envelopes_are_failures_and_no_samples() -> anyhow::Result<()> {
    let target = target(|config| {
        for endpoint in [Endpoint::LoadHistory, Endpoint::MarkRead, Endpoint::ReadReceipt] {
            config.endpoint_mut(endpoint).reject = every(1).map(|n| (n, Refusal::Unavailable));
        }
    })
    .await?;
    for (workload, n) in [("history", "history_n"), ("room-read", "room-read_n"), ("read-receipt", "read-receipt_n")] {
        let outcome = finish(target.run(workload).hold(Duration::from_secs(1))).await?;
        let trial = outcome.trial_at(300.0)?;
        assert_eq!(trial.verdict, Verdict::Trip, "{trial:?}");
        assert_eq!((trial.failed_refused, trial.number(n)), (trial.attempted, Some(0.0)), "{trial:?}");
    }
    Ok(())
}

#[tokio::test]
async fn replies_that_never_come_enter_the_series_and_garbage_does_not() -> anyhow::Result<()> {
    let target = target(|config| {
        let endpoint = config.endpoint_mut(Endpoint::LoadHistory);
        (endpoint.skip_every, endpoint.garbage_every) = (every(4), every(3));
    })
    .await?;
    let outcome = finish(target.run("history").flag("--request-timeout", "1s")).await?;
    let trial = outcome.trial_at(300.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{trial:?}");
    assert!(trial.failed_timeout > trial.attempted / 5, "{trial:?}");
    assert!(trial.failed_bad_reply > trial.attempted / 5, "{trial:?}");
    assert_eq!(trial.number("history_n"), Some((trial.attempted - trial.failed_bad_reply) as f64), "{trial:?}");
    assert!(trial.number("history_p95_ms") >= Some(990.0), "{trial:?}");
    Ok(())
}

#[tokio::test]
async fn foreign_and_second_replies_change_nothing() -> anyhow::Result<()> {
    let target = target(|config| {
        let endpoint = config.endpoint_mut(Endpoint::LoadHistory);
        endpoint.foreign_every = every(3);
        endpoint.duplicate_every = every(3);
    })
    .await?;
    let clean = target.trial("history").await?;
    assert_eq!((clean.verdict, clean.completed), (Verdict::Pass, clean.attempted), "{clean:?}");
    assert_eq!(clean.number("history_n"), Some(clean.attempted as f64), "{clean:?}");
    assert_eq!(clean.number("rows_count"), Some(clean.attempted as f64), "{clean:?}");
    // The preset has no threads: a fifth falls back to history. A row is more than its 200 bytes of content.
    let fallbacks = clean.number("thread_fallbacks_count").unwrap() / clean.attempted as f64;
    assert!((0.1..0.3).contains(&fallbacks), "{clean:?}");
    let (bytes, rows) = (clean.number("reply_bytes_mean").unwrap(), clean.number("rows_mean").unwrap());
    assert!(bytes > 200.0 * rows && rows > 15.0, "{clean:?}");
    assert!(clean.foreign > clean.attempted / 4 && clean.duplicate > clean.attempted / 4, "{clean:?}");
    Ok(())
}

#[tokio::test]
async fn a_service_that_is_not_there_stops_the_run_before_it_and_is_a_failure_of_its_own_in_it() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let absent = finish(run(&server, "history", "history-small")).await?;
    assert!(absent.trials.is_empty() && absent.code() == Some(2), "{absent}");
    assert!(absent.ended.stderr.contains("start the history service"), "{absent}");

    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let running = run(&server, "history", "history-small").hold(Duration::from_secs(3));
    let mut running = running.start()?;
    let running = tokio::task::spawn_blocking(move || running.wait_for_hold().map(|()| running)).await??;
    standin.leave(Endpoint::LoadHistory).await?;
    let outcome = tokio::task::spawn_blocking(move || running.finish()).await??;
    standin.shutdown().await?;
    let trial = outcome.trial_at(300.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.failed_no_responders > trial.attempted / 4, "{outcome}");
    assert_eq!(trial.completed + trial.failed_no_responders, trial.attempted, "{outcome}");
    Ok(())
}

#[tokio::test]
async fn a_gatekeeper_that_answers_nobody_stops_the_run_before_it() -> anyhow::Result<()> {
    let target = target(|_| ()).await?;
    // Stream and durable stay: what is sent is taken, and nothing comes of it.
    target._standin.stall(Some(Stage::Gatekeeper), Duration::from_secs(600)).await?;
    for workload in ["thread", "messages"] {
        let outcome = finish(run(&target.server, workload, "small")).await?;
        assert!(outcome.trials.is_empty() && outcome.code() == Some(2), "{outcome}");
        let told = &outcome.ended.stderr;
        assert!(
            told.contains("no answer within 3s to msg.send") && told.contains("start the message-gatekeeper"),
            "{outcome}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn replies_in_threads_find_the_broadcast_workers_capacity_by_the_senders_own_copies() -> anyhow::Result<()> {
    let target = target(|config| config.stage_mut(Stage::BroadcastWorker).capacity = Some(600.0)).await?;
    let run = target.run("thread").flag("--slo-p95", "1s").flag("--slo-p99", "1500ms");
    let run = run.hold(Duration::from_secs(3)).steps(&[300.0, 1800.0]);
    check_found(&finish(run).await?, "E2")
}

#[tokio::test]
async fn replies_to_parents_that_were_never_seeded_are_failures() -> anyhow::Result<()> {
    let target = target(|config| config.parents_per_room = 1).await?;
    let trial = target.trial("thread").await?;
    // Seven of eight parents are unknown to the service.
    let refused = trial.failed_refused as f64 / trial.attempted as f64;
    assert!(trial.verdict == Verdict::Trip && (0.8..0.95).contains(&refused), "{trial:?}");
    assert_eq!(trial.e1_n, trial.completed, "{trial:?}");
    Ok(())
}

#[tokio::test]
async fn settings_of_another_workload_are_refused_with_who_takes_them() -> anyhow::Result<()> {
    let run = Run::new("nats://127.0.0.1:1", "small").flag("--mix", "history:1,thread:1");
    let outcome = tokio::task::spawn_blocking(move || run.finish()).await??;
    assert_eq!(outcome.code(), Some(2), "{outcome}");
    let words = "--mix: the workload messages does not take it: only history";
    assert!(outcome.ended.stderr.contains(words), "{outcome}");
    Ok(())
}
