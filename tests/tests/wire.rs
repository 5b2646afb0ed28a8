//! The ways in which a target may differ: encrypted broadcasts, direct messages, durables that vanish, credentials that
//! may not use the JetStream API, a target that was never seeded.

use std::time::Duration;

use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer, NatsUser};
use plimsoll_tests::harness::run::{Outcome, Run, Verdict};
use plimsoll_tests::standin::config::{Incident, Trigger};
use plimsoll_tests::standin::{Stage, Standin, StandinConfig};

const RATE: f64 = 300.0;

/// Holds a rate for 3 s with a preset; `change` may use the server.
async fn hold(
    options: NatsOptions,
    preset: MessagesPreset,
    service: impl FnOnce(&mut StandinConfig),
    change: impl FnOnce(Run, &NatsServer) -> Run,
) -> anyhow::Result<Outcome> {
    let _shared = Shared::acquire()?;
    let owner = options.users.first().cloned();
    let server = NatsServer::start(options)?;
    let url = owner.map_or(server.url(), |owner| server.url_of(&owner));
    let mut config = StandinConfig::new(&url);
    config.preset = preset;
    service(&mut config);
    let standin = Standin::start(config).await?;
    let run = Run::new(&url, &preset.to_string()).steps(&[RATE]).warmup(Duration::from_millis(500));
    let run = change(run.hold(Duration::from_secs(3)), &server);
    let outcome = tokio::task::spawn_blocking(move || run.finish()).await??;
    standin.shutdown().await?;
    Ok(outcome)
}

fn check_all_completed(outcome: &Outcome) -> anyhow::Result<()> {
    let trial = outcome.trial_at(RATE)?;
    assert_ne!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.attempted > 800, "{outcome}");
    let all = trial.attempted;
    assert_eq!((trial.completed, trial.e1_n, trial.e2_n, trial.foreign), (all, all, all, 0), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn encrypted_broadcasts_complete_their_operations_through_either_door() -> anyhow::Result<()> {
    for inject in ["frontdoor", "canonical"] {
        let encrypted = |config: &mut StandinConfig| config.encrypted = true;
        let run = |run: Run, _: &NatsServer| run.flag("--inject", inject);
        check_all_completed(&hold(NatsOptions::default(), MessagesPreset::Medium, encrypted, run).await?)?;
    }
    Ok(())
}

#[tokio::test]
async fn direct_messages_and_channels_of_the_realistic_preset_complete() -> anyhow::Result<()> {
    let two = |run: Run, _: &NatsServer| run.local(2);
    check_all_completed(&hold(NatsOptions::default(), MessagesPreset::Realistic, |_| {}, two).await?)
}

#[tokio::test]
async fn a_durable_that_vanishes_during_the_hold_trips_whether_or_not_it_comes_back() -> anyhow::Result<()> {
    for (vanish, words) in
        [("notification-worker@2s", "is gone"), ("notification-worker@1500ms+500ms", "deleted and created anew")]
    {
        let vanishing = |config: &mut StandinConfig| {
            config.incidents = Incident::parse_vanish(vanish).into_iter().collect();
            config.incidents_from = Trigger::FirstMessage;
        };
        let watched = |run: Run, _: &NatsServer| run.flag("--durable", "+notification-worker");
        let outcome = hold(NatsOptions::default(), MessagesPreset::Small, vanishing, watched).await?;
        let trial = outcome.trial_at(RATE)?;
        assert_eq!(trial.verdict, Verdict::Trip, "{vanish}: {outcome}");
        assert!(trial.reasons.contains(words), "{vanish}: {outcome}");
        assert_eq!(outcome.code(), Some(1), "no step passed: {outcome}");
    }
    Ok(())
}

#[tokio::test]
async fn a_durable_that_was_added_trips_by_its_backlog() -> anyhow::Result<()> {
    let slow = |config: &mut StandinConfig| config.stage_mut(Stage::NotificationWorker).capacity = Some(100.0);
    let watched = |run: Run, _: &NatsServer| {
        run.flag("--durable", "+notification-worker").flag("--slo-pending-growth", 200).hold(Duration::from_secs(6))
    };
    let outcome = hold(NatsOptions::default(), MessagesPreset::Small, slow, watched).await?;
    let trial = outcome.trial_at(RATE)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.reasons.contains("notification-worker pending"), "{outcome}");
    for default in ["message-worker ", "broadcast-worker "] {
        assert!(outcome.ended.stdout.contains(default), "the default durables are watched too: {outcome}");
    }
    Ok(())
}

/// The first user is the service's, the second may not use the JetStream API.
fn two_users() -> NatsOptions {
    let user = |name: &str| NatsUser { name: name.into(), password: "secret".into(), ..NatsUser::default() };
    let outside = NatsUser { publish_deny: vec!["$JS.API.>".into()], ..user("outside") };
    NatsOptions { users: vec![user("service"), outside], ..NatsOptions::default() }
}

#[tokio::test]
async fn a_monitoring_url_gives_the_verdict_of_the_api_to_a_user_who_may_not_use_it() -> anyhow::Result<()> {
    let slow = |config: &mut StandinConfig| config.stage_mut(Stage::MessageWorker).capacity = Some(100.0);
    let judged = |run: Run| run.flag("--slo-pending-growth", 200).hold(Duration::from_secs(6));
    let api = hold(two_users(), MessagesPreset::Small, slow, |run, _| judged(run)).await?;
    let by_url = hold(two_users(), MessagesPreset::Small, slow, |run, server| {
        let jsz = format!("{}/jsz", server.monitoring_url());
        judged(run).flag("--nats-url", server.url_of(&two_users().users[1])).flag("--jsz-url", jsz)
    })
    .await?;
    let (api_trial, url_trial) = (api.trial_at(RATE)?, by_url.trial_at(RATE)?);
    for (trial, outcome) in [(api_trial, &api), (url_trial, &by_url)] {
        assert_eq!(
            (trial.verdict, &*trial.worst_durable),
            (Verdict::Trip, url_trial.worst_durable.as_str()),
            "{outcome}"
        );
        assert!(trial.reasons.contains("message-worker pending +"), "{outcome}");
        // 200/s more than it carries, for 6 s: how the reads fall decides the rest.
        assert!(trial.worst_growth.is_some_and(|growth| (800..1_600).contains(&growth)), "{outcome}");
    }
    Ok(())
}

#[tokio::test]
async fn without_the_api_and_without_a_url_preflight_says_what_to_give() -> anyhow::Result<()> {
    let outcome = hold(
        two_users(),
        MessagesPreset::Small,
        |_| {},
        |run, server| run.flag("--nats-url", server.url_of(&two_users().users[1])),
    )
    .await?;
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(2), 0), "{outcome}");
    assert!(
        outcome.ended.stderr.contains("do not allow the JetStream API, give --jsz-url, or pass --skip-preflight"),
        "{outcome}"
    );
    Ok(())
}

#[tokio::test]
async fn a_target_seeded_with_other_fixtures_is_refused_before_any_load() -> anyhow::Result<()> {
    for (seeded, flag, value) in
        [(MessagesPreset::Small, "--preset", "medium"), (MessagesPreset::Realistic, "--seed", "7")]
    {
        let other = |run: Run, _: &NatsServer| run.flag(flag, value);
        let outcome = hold(NatsOptions::default(), seeded, |_| {}, other).await?;
        assert_eq!((outcome.code(), outcome.trials.len()), (Some(2), 0), "{flag}: {outcome}");
        assert!(outcome.ended.stderr.contains("the target was not seeded with the fixtures of"), "{flag}: {outcome}");
    }
    Ok(())
}

#[tokio::test]
async fn what_enters_past_the_gatekeeper_carries_its_message_id_as_the_header_that_the_stream_deduplicates_by()
-> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let run = Run::new(&server.url(), "small").steps(&[200.0]).warmup(Duration::ZERO).hold(Duration::from_secs(1));
    // A second's backlog is read too seldom for a verdict: only what was sent matters here.
    let run = run.flag("--inject", "canonical").flag("--durable", "none").trials(1);
    let outcome = tokio::task::spawn_blocking(move || run.finish()).await??;
    let client = async_nats::connect(server.url()).await?;
    let stream = async_nats::jetstream::new(client).get_stream("MESSAGES_CANONICAL_site-local").await?;
    let sent = outcome.trial_at(200.0)?.sent;
    assert!(sent > 100 && stream.get_info().await?.state.messages == sent, "{outcome}");
    let mut ids = std::collections::HashSet::new();
    for sequence in 1..=50 {
        let message = stream.get_raw_message(sequence).await?;
        let body: serde_json::Value = serde_json::from_slice(&message.payload)?;
        let id = message.headers.get("Nats-Msg-Id").map(|id| id.as_str().to_owned());
        assert_eq!(id.as_deref(), body["message"]["id"].as_str(), "{body}");
        assert!(message.headers.get("X-Request-ID").is_some_and(|id| id.as_str().len() == 36));
        ids.insert(id);
    }
    assert_eq!(ids.len(), 50);
    standin.shutdown().await?;
    Ok(())
}
