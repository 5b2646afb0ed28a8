//! A message is measured among all users of its sender's agent, whichever of the agent's threads have their connections.

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, AgentOptions};
use plimsoll_tests::harness::run::{Outcome, Run, Trial};
use plimsoll_tests::standin::config::BroadcastFaults;
use plimsoll_tests::standin::{DailyConfig, Standin, StandinConfig};

const SEEDED: u32 = 1_000;
const USERS: f64 = 120.0;
/// Of whom so many have a connection each, and the others share so many.
const DIRECT: u32 = 60;
const SHARED: u32 = 5;

/// What an agent of so many workers makes of the same people, on a target with these faults.
async fn hold(workers: usize, faults: BroadcastFaults) -> anyhow::Result<Outcome> {
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    config.daily = Some(DailyConfig { preset: DailyPreset::Light, users: SEEDED });
    config.broadcast_faults = faults;
    let _standin = Standin::start(config).await?;
    let agents = [Agent::start(&AgentOptions { workers, ..AgentOptions::default() })?];
    let run = Run::daily(&server.url(), "daily-light", SEEDED).flag("--day", "80s").flag("--max-lateness", "1s");
    let run = run.flag("--max-direct-users", DIRECT).flag("--multiplex-pool-size", SHARED).agents(&agents).trials(1);
    let run = run.steps(&[USERS]).warmup(Duration::from_millis(500)).hold(Duration::from_secs(3));
    tokio::task::spawn_blocking(move || run.finish()).await?
}

fn only(outcome: &Outcome) -> anyhow::Result<&Trial> {
    outcome.trials.first().with_context(|| format!("no trial: {outcome}"))
}

#[tokio::test]
async fn the_same_people_reach_the_same_people_however_many_workers_drive_them() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let mut expected = Vec::new();
    for workers in [1, 3] {
        // What comes twice, to whichever worker, reaches nobody a second time.
        let faults = BroadcastFaults { duplicate_every: NonZeroU64::new(4), ..BroadcastFaults::default() };
        let outcome = hold(workers, faults).await?;
        let trial = only(&outcome)?;
        let connections = f64::from(DIRECT + SHARED);
        assert_eq!(
            (trial.number("users_active"), trial.number("connections")),
            (Some(USERS), Some(connections)),
            "{outcome}"
        );
        assert_eq!((trial.completed, trial.attempted, trial.foreign), (trial.due, trial.due, 0), "{outcome}");
        assert!(trial.duplicate > 0 && trial.number("recipients_dropped") == Some(0.0), "{outcome}");
        assert_eq!(trial.number("E2_last_n"), Some(trial.e2_n as f64), "{outcome}");
        expected.push((trial.due, trial.e2_n, trial.number("recipients_expected")));
    }
    // A worker alone has everybody; each of three has a third.
    assert_eq!(expected[0], expected[1]);
    assert!(expected[0].2 > Some(3.0 * expected[0].1 as f64), "{expected:?}");
    Ok(())
}

#[tokio::test]
async fn copies_that_never_come_are_missing_whichever_worker_waits_for_them() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let outcome = hold(2, BroadcastFaults { drop_every: NonZeroU64::new(8), ..BroadcastFaults::default() }).await?;
    let trial = only(&outcome)?;
    let (expected, dropped) = (trial.number("recipients_expected"), trial.number("recipients_dropped"));
    let part = dropped.zip(expected).map(|(dropped, expected)| dropped / expected);
    // Every eighth of all messages and replies, in rooms of five to all of them.
    assert!(part.is_some_and(|part| (0.04..0.3).contains(&part)), "{part:?}: {outcome}");
    assert!(trial.lost > 0 && trial.completed + trial.lost == trial.attempted, "{outcome}");
    Ok(())
}
