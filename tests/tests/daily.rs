//! People in place of rates: the capacity that is set is found, whoever drives them does the same, and what is wrong shows.

use std::num::NonZeroU64;
use std::time::Duration;

use plimsoll_agent::clock::boottime_ns;
use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_common::contract::daily::fixtures::DailyFixtures;
use plimsoll_tests::harness::exclusive::Exclusive;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::Agent;
use plimsoll_tests::harness::prove;
use plimsoll_tests::harness::run::{Outcome, Run, Verdict};
use plimsoll_tests::standin::config::Refusal;
use plimsoll_tests::standin::{DailyConfig, Endpoint, Stage, Standin, StandinConfig};

/// Users that the stand-in knows.
const USERS: u32 = 1_000;

/// A server with a stand-in, alone on the box.
struct Target {
    server: NatsServer,
    standin: Standin,
    _exclusive: Exclusive,
}

async fn target(options: NatsOptions, change: impl FnOnce(&mut StandinConfig)) -> anyhow::Result<Target> {
    let exclusive = Exclusive::acquire()?;
    let server = NatsServer::start(options)?;
    let mut config = StandinConfig::new(server.url());
    config.daily = Some(DailyConfig { preset: DailyPreset::Light, users: USERS });
    change(&mut config);
    Ok(Target { standin: Standin::start(config).await?, server, _exclusive: exclusive })
}

impl Target {
    /// A day of 80 s, of which the hold is a slice at the peak: some 1.6 actions a second of each user, two thirds of them
    /// messages.
    fn run(&self) -> Run {
        let run = Run::daily(&self.server.url(), "daily-light", USERS).flag("--day", "80s");
        run.flag("--max-lateness", "500ms").warmup(Duration::from_millis(500)).hold(Duration::from_secs(4))
    }
}

async fn finish(run: Run) -> anyhow::Result<Outcome> {
    tokio::task::spawn_blocking(move || run.finish()).await?
}

fn every(n: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(n)
}

#[tokio::test]
async fn the_capacity_that_is_set_is_found_by_one_agent_and_by_three() -> anyhow::Result<()> {
    // 200 users write some 200 messages a second, 400 users twice as many.
    let target = target(NatsOptions::default(), |config| {
        config.stage_mut(Stage::BroadcastWorker).capacity = Some(310.0);
    })
    .await?;
    let one = finish(target.run().steps(&[200.0, 400.0]).local(1)).await?;
    let three = finish(target.run().steps(&[200.0, 400.0]).local(3)).await?;
    for outcome in [&one, &three] {
        assert_eq!(outcome.code(), Some(0), "{outcome}");
        assert_eq!(outcome.answer()?, "ANSWER: N = 200 (workload=daily, preset=daily-light)", "{outcome}");
        let limit = outcome.ended.stdout.lines().find(|line| line.starts_with("Next limit: ")).unwrap_or_default();
        assert!(limit.ends_with(" at 400") && limit.contains("E2"), "{outcome}");
        assert!(outcome.ended.stdout.contains("Pace: an 8h day in 1m 20s, x360"), "{outcome}");
        let passed = outcome.trial_at(200.0)?;
        assert_eq!((passed.completed, passed.foreign), (passed.attempted, 0), "{outcome}");
        assert_eq!(passed.number("users_active"), Some(200.0), "{outcome}");
        assert_eq!(passed.number("connections"), Some(200.0), "{outcome}");
        assert_eq!(passed.number("recipients_dropped"), Some(0.0), "{outcome}");
        // Whoever writes hears it; people in channels hear others too.
        assert!(passed.number("recipients_expected") > Some(passed.e2_n as f64), "{outcome}");
    }
    // The same people did the same, whoever drove them.
    assert_eq!(one.trial_at(200.0)?.due, three.trial_at(200.0)?.due, "{one}{three}");
    Ok(())
}

#[tokio::test]
async fn every_action_reaches_its_service_and_changes_what_it_should() -> anyhow::Result<()> {
    let target = target(NatsOptions::default(), |_| {}).await?;
    // A whole day in the hold, on shared connections for most.
    let run = Run::daily(&target.server.url(), "daily-light", USERS).warmup(Duration::from_millis(500));
    let run = run.flag("--max-direct-users", 20).flag("--multiplex-pool-size", 5).hold(Duration::from_secs(8));
    let outcome = finish(run.flag("--max-lateness", "1s").steps(&[60.0]).trials(1).local(1)).await?;
    let trial = outcome.trial_at(60.0)?;
    // A crowded box may leave it without a verdict, but nothing fails.
    assert_ne!(trial.verdict, Verdict::Trip, "{outcome}");
    assert_eq!(trial.completed, trial.attempted, "{outcome}");
    assert_eq!((trial.foreign, trial.duplicate), (0, 0), "{outcome}");
    assert_eq!((trial.number("users_active"), trial.number("connections")), (Some(60.0), Some(25.0)), "{outcome}");
    assert_eq!(trial.number("recipients_dropped"), Some(0.0), "{outcome}");
    let counters = target.standin.counters();
    let of = |endpoint: Endpoint| counters.answered[endpoint as usize].get() as f64;
    for (column, endpoint) in [
        ("mark_read_n", Endpoint::MarkRead),
        ("refresh_room_list_n", Endpoint::ListRooms),
        ("scroll_history_n", Endpoint::LoadHistory),
        ("member_add_n", Endpoint::AddMembers),
        ("room_create_n", Endpoint::CreateRoom),
        ("mute_toggle_n", Endpoint::ToggleMute),
    ] {
        let done = trial.number(column).unwrap_or_default();
        // The warmup's are the rest.
        assert!(done > 0.0 && (done..=done * 1.3 + 6.0).contains(&of(endpoint)), "{column} {} {outcome}", of(endpoint));
    }
    assert_eq!(counters.member_events.get() as f64, of(Endpoint::AddMembers), "{outcome}");
    assert_eq!(counters.rooms_created.get() as f64, of(Endpoint::CreateRoom), "{outcome}");
    assert!(trial.number("history_rows_mean") > Some(1.0), "{outcome}");
    assert!(trial.number("rooms_listed_mean") > Some(3_000.0), "{outcome}");
    assert!(
        outcome.ended.stdout.contains("\nActions\n") && outcome.ended.stdout.contains("room_create_done"),
        "{outcome}"
    );
    Ok(())
}

#[tokio::test]
async fn presence_is_observed_and_never_judged() -> anyhow::Result<()> {
    let target = target(NatsOptions::default(), |config| {
        config.presence_drop_every = every(4);
        config.broadcast_faults.duplicate_every = every(2);
    })
    .await?;
    let run = target.run().flag("--day", "10s").switch("--presence").hold(Duration::from_secs(3)).trials(1);
    let run = run.flag("--max-direct-users", 20).flag("--multiplex-pool-size", 2);
    let outcome = finish(run.steps(&[40.0]).local(1)).await?;
    let trial = outcome.trial_at(40.0)?;
    // What is lost of it fails nothing.
    assert_ne!(trial.verdict, Verdict::Trip, "{outcome}");
    assert_eq!((trial.completed, trial.foreign), (trial.attempted, 0), "{outcome}");
    // Neither does what comes twice, which reaches nobody a second time.
    assert!(trial.duplicate > 0 && trial.number("recipients_dropped") == Some(0.0), "{outcome}");
    let (shown, lost) = (trial.number("presence_us_count"), trial.number("presence_lost_count"));
    assert!(shown > Some(20.0) && lost > Some(0.0), "{outcome}");
    assert!(target.standin.counters().presence_signs.get() as f64 > shown.unwrap_or_default(), "{outcome}");
    assert!(outcome.ended.stdout.contains("microseconds until a change of presence shows"), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn refusals_of_any_service_and_copies_that_never_come_are_failures() -> anyhow::Result<()> {
    let target = target(NatsOptions::default(), |config| {
        config.endpoint_mut(Endpoint::MarkRead).reject = every(5).map(|n| (n, Refusal::Internal));
        config.broadcast_faults.drop_every = every(10);
    })
    .await?;
    let outcome = finish(target.run().steps(&[100.0]).hold(Duration::from_secs(3)).local(1)).await?;
    let trial = outcome.trial_at(100.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.reasons.contains("errors "), "{outcome}");
    // A fifth of a quarter is refused, a tenth of two thirds lost.
    assert!(trial.failed_refused > trial.attempted / 50 && trial.lost > trial.attempted / 30, "{outcome}");
    assert_eq!(trial.completed + trial.failed_refused + trial.lost, trial.attempted, "{outcome}");
    assert!(trial.number("recipients_dropped") > Some(0.0), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn a_killed_agent_takes_its_users_along_and_too_few_users_prove_nothing() -> anyhow::Result<()> {
    // The stand-in, the run and its worker have some 20 connections.
    let options = NatsOptions { extra: "max_connections: 55\n".into(), ..NatsOptions::default() };
    let crowded = target(options, |_| {}).await?;
    let outcome = finish(crowded.run().steps(&[60.0]).hold(Duration::from_secs(2)).trials(1).local(1)).await?;
    let trial = outcome.trial_at(60.0)?;
    assert_eq!((trial.verdict, outcome.code()), (Verdict::Inconclusive, Some(4)), "{outcome}");
    assert!(trial.reasons.contains("of 60 users were online throughout the hold, 95% are needed"), "{outcome}");
    assert!(outcome.ended.stdout.contains("60 ("), "{outcome}");
    drop(crowded);

    let target = target(NatsOptions::default(), |_| {}).await?;
    let mut agents = Agent::start_many(2)?;
    let run = target.run().steps(&[80.0]).agents(&agents).flag("--lease-timeout", "1s").trials(1);
    let mut running = run.hold(Duration::from_secs(20)).start()?;
    running.wait_for_hold()?;
    agents[0].process.signal(libc::SIGKILL)?;
    let outcome = tokio::task::spawn_blocking(move || running.finish()).await??;
    let trial = outcome.trials.first().unwrap_or_else(|| panic!("no trial: {outcome}"));
    assert_eq!(trial.verdict, Verdict::Inconclusive, "{outcome}");
    assert!(trial.reasons.contains("was lost"), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn a_target_that_was_seeded_for_other_users_is_told_so_before_any_load() -> anyhow::Result<()> {
    let target = target(NatsOptions::default(), |_| {}).await?;
    let others = Run::daily(&target.server.url(), "daily-light", USERS * 2).steps(&[100.0]);
    let outcome = finish(others).await?;
    assert!(outcome.trials.is_empty() && outcome.code() == Some(2), "{outcome}");
    assert!(outcome.ended.stderr.contains("the target was not seeded with the fixtures of"), "{outcome}");

    // A service that nobody runs is told apart from one that refuses.
    target.standin.leave(Endpoint::ToggleMute).await?;
    let alone = finish(Run::daily(&target.server.url(), "daily-light", USERS).steps(&[100.0])).await?;
    assert!(alone.trials.is_empty() && alone.code() == Some(2), "{alone}");
    let words = "preflight: nobody answers mute.toggle, asked at chat.user.plimsoll-probe.request.room.plimsoll-probe";
    assert!(alone.ended.stderr.contains(words) && alone.ended.stderr.contains("start the room service"), "{alone}");

    let too_many = finish(Run::daily("nats://127.0.0.1:1", "daily-light", USERS).steps(&[2_000.0])).await?;
    assert_eq!(too_many.code(), Some(2), "{too_many}");
    let words = "--steps: got 2000 users, and the target was seeded for 1000: takes at most that, or a larger --users";
    assert!(too_many.ended.stderr.contains(words), "{too_many}");
    Ok(())
}

/// The longer proofs: figures of this machine are printed, and what does not depend on its speed is asserted.
#[tokio::test]
async fn a_hundred_thousand_users_fixtures_and_five_thousand_users_online() -> anyhow::Result<()> {
    if !prove::whole() {
        return Ok(());
    }
    let begun_ns = boottime_ns();
    let fixtures = DailyFixtures::build(DailyPreset::Power, 100_000, 42)?;
    let rooms: usize = (0..100_000).map(|user| fixtures.rooms_of(user).len()).sum();
    println!("100,000 users of daily-power in {rooms} rooms: {:?}", Duration::from_nanos(boottime_ns() - begun_ns));
    assert_eq!(rooms, 8_300_000);

    let target = target(NatsOptions::default(), |config| {
        config.daily = Some(DailyConfig { preset: DailyPreset::Light, users: 10_000 });
    })
    .await?;
    let begun_ns = boottime_ns();
    let run = Run::daily(&target.server.url(), "daily-light", 10_000).steps(&[5_000.0]).local(2);
    let outcome = finish(run.hold(Duration::from_secs(180)).warmup(Duration::from_secs(10)).trials(1)).await?;
    println!("{outcome}\n5,000 users, hold and all: {:?}", Duration::from_nanos(boottime_ns() - begun_ns));
    let trial = outcome.trial_at(5_000.0)?;
    assert_eq!(
        (trial.number("users_active"), trial.number("connections")),
        (Some(5_000.0), Some(5_000.0)),
        "{outcome}"
    );
    Ok(())
}
