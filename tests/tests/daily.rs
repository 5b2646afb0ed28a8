//! People in place of rates: the capacity that is set is found, whoever drives them does the same, and what is wrong shows.

use std::num::NonZeroU64;
use std::process::Command;
use std::time::Duration;

use plimsoll_agent::clock::boottime_ns;
use plimsoll_agent::core::exchange::Exchange;
use plimsoll_agent::core::people::users_of;
use plimsoll_agent::workload::daily::Daily;
use plimsoll_agent::workload::{Part, Setup, Workload as _};
use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_common::contract::ids::{IdCodec, Sender};
use plimsoll_common::plan::{self, AgentPlan, Workload};
use plimsoll_common::workload::Given;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, Process};
use plimsoll_tests::harness::prove;
use plimsoll_tests::harness::run::{Outcome, Run, Verdict};
use plimsoll_tests::standin::config::{Incident, Latency, Refusal, Trigger};
use plimsoll_tests::standin::{DailyConfig, Endpoint, Stage, Standin, StandinConfig};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// Users that the stand-in knows.
const USERS: u32 = 1_000;

/// A server with a stand-in, alone on the box.
struct Target {
    server: NatsServer,
    standin: Standin,
    _shared: Shared,
}

async fn target(options: NatsOptions, change: impl FnOnce(&mut StandinConfig)) -> anyhow::Result<Target> {
    let shared = Shared::acquire()?;
    let server = NatsServer::start(options)?;
    let mut config = StandinConfig::new(server.url());
    config.daily = Some(DailyConfig { preset: DailyPreset::Light, users: USERS });
    change(&mut config);
    Ok(Target { standin: Standin::start(config).await?, server, _shared: shared })
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
    assert_eq!(one.trials[0].due, three.trials[0].due, "{one}{three}");
    Ok(())
}

#[tokio::test]
async fn copies_that_saturate_are_found_where_messages_would_not() -> anyhow::Result<()> {
    // A message goes to some 17 people on average: 200 users make 3,400 copies a second, and 400 twice as many, of 400 messages.
    let copies = target(NatsOptions::default(), |config| config.fan_out_capacity = Some(5_000.0)).await?;
    let outcome = finish(copies.run().steps(&[200.0, 400.0]).local(1)).await?;
    assert_eq!(outcome.answer()?, "ANSWER: N = 200 (workload=daily, preset=daily-light)", "{outcome}");
    let tripped = outcome.trial_at(400.0)?;
    assert_eq!(tripped.verdict, Verdict::Trip, "{outcome}");
    assert!(tripped.reasons.contains("E2"), "{outcome}");
    // What is not broadcast is as quick as ever.
    assert!(!tripped.reasons.contains("E1 ") && !tripped.reasons.contains("mark_read"), "{outcome}");
    drop(copies);

    let messages = target(NatsOptions::default(), |config| {
        config.stage_mut(Stage::BroadcastWorker).capacity = Some(5_000.0);
    })
    .await?;
    let outcome = finish(messages.run().steps(&[400.0]).hold(Duration::from_secs(2)).trials(1).local(1)).await?;
    assert_ne!(outcome.trial_at(400.0)?.verdict, Verdict::Trip, "{outcome}");
    Ok(())
}

#[tokio::test]
async fn a_second_fleet_is_told_although_only_some_of_our_actions_enter_a_stream() -> anyhow::Result<()> {
    let target = target(NatsOptions::default(), |_| {}).await?;
    let mut running = target.run().steps(&[60.0]).trials(1).local(1).start()?;
    let client = async_nats::connect(target.server.url()).await?;
    running.wait_for_hold()?;
    // Some 280 messages of ours in the trial, of 430 actions.
    for _ in 0..100 {
        client.publish("chat.user.nobody.room.none.site-local.msg.send", "{}".into()).await?;
    }
    client.flush().await?;
    let outcome = tokio::task::spawn_blocking(move || running.finish()).await??;
    let words = "stream MESSAGES_site-local took ";
    let note = outcome.ended.stdout.lines().find(|line| line.contains(words)).unwrap_or_default();
    assert!(note.contains("somebody else drives this target"), "{outcome}");
    // The others are as we left them.
    assert_eq!(outcome.ended.stdout.matches("somebody else drives").count(), 1, "{outcome}");
    Ok(())
}

#[tokio::test]
async fn every_action_reaches_its_service_and_changes_what_it_should() -> anyhow::Result<()> {
    let target = target(NatsOptions::default(), |config| config.thread_metadata = true).await?;
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
    assert_eq!(counters.unnamed.get(), 0, "requests without an id: {outcome}");
    // Rooms are told of replies, which is nobody's load and answers nothing.
    assert!(counters.thread_metadata.get() as f64 >= trial.number("thread_reply_n").unwrap_or(1.0), "{outcome}");
    // Ours alone were in the streams, in each as many as the actions make.
    assert!(!outcome.ended.stdout.contains("somebody else drives"), "{outcome}");
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
    // None is counted twice; what is still open at the end is neither.
    let said = trial.number("presence_said_count").unwrap_or_default();
    assert!(said >= shown.unwrap_or_default() + lost.unwrap_or_default(), "{outcome}");
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
    let run = run.flag("--activation-rate", ACTIVATED_PER_SECOND);
    let mut running = run.hold(Duration::from_secs(6)).start()?;
    // An agent's connections, its users' among them, have its index in their name.
    let open_of_first = || -> anyhow::Result<usize> {
        Ok(target.server.agents_seen()?.open.iter().filter(|name| name.ends_with("/0")).count())
    };
    // Forty users and the worker, who is the first: nobody's turn is before that of whoever is before.
    let (begun, mut nobody) = (tokio::time::Instant::now(), tokio::time::Instant::now());
    loop {
        let asked = tokio::time::Instant::now();
        match open_of_first()? {
            0 | 1 => nobody = asked,
            41 => break,
            _ => {}
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "not all users came online");
        std::thread::sleep(Duration::from_millis(10));
    }
    let coming = nobody.elapsed();
    let turns = Duration::from_secs_f64(39.0 / ACTIVATED_PER_SECOND);
    // Those of a second may have waited for the box; at the pace that is the default all were there in a tenth of one.
    assert!(coming >= turns / 2, "forty users came online in {coming:?}");
    running.wait_for_hold()?;
    assert_eq!(open_of_first()?, 41, "forty users and the worker");
    let (lost, other) = (agents[0].address.to_string(), agents[1].address.to_string());
    agents[0].process.signal(libc::SIGKILL)?;
    let began = tokio::time::Instant::now();
    while open_of_first()? > 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "its users are still connected");
        std::thread::sleep(Duration::from_millis(20));
    }
    let outcome = tokio::task::spawn_blocking(move || running.finish()).await??;
    let trial = outcome.trials.first().unwrap_or_else(|| panic!("no trial: {outcome}"));
    assert_eq!(trial.verdict, Verdict::Inconclusive, "{outcome}");
    assert!(trial.reasons.starts_with(&format!("agent {lost} was lost")), "{outcome}");
    // The other has them all in the repeat, and they do what they are there for.
    let again = outcome.trial_at(80.0)?;
    assert!(again.trial == 2 && again.verdict != Verdict::Trip, "{outcome}");
    assert_eq!((again.number("users_active"), again.number("connections")), (Some(80.0), Some(80.0)), "{outcome}");
    assert!(again.completed == again.attempted && again.attempted > 0, "{outcome}");
    assert!(outcome.ended.stdout.contains(&format!("held without agent {lost}, which was lost: ")), "{outcome}");
    let of_repeat = |line: &&str| line.contains(&other) && line.contains(" 80 ") && !line.contains('=');
    assert!(outcome.ended.stdout.lines().any(|line| of_repeat(&line)), "{outcome}");
    Ok(())
}

/// Users that each agent brings online in the proof above.
const ACTIVATED_PER_SECOND: f64 = 20.0;

/// What is done to the stand-in, the flags of the run, and what its verdict says.
type Trip = (fn(&mut StandinConfig), &'static [(&'static str, &'static str)], &'static str);

#[tokio::test]
async fn one_action_or_durable_trips_by_its_own_name() -> anyhow::Result<()> {
    let slow_reads = |config: &mut StandinConfig| {
        config.endpoint_mut(Endpoint::MarkRead).speed.latency = Latency::Fixed(Duration::from_millis(250));
    };
    let vanishing = |config: &mut StandinConfig| {
        config.incidents = vec![Incident::parse_vanish("notification-worker@2s").expect("an incident")];
        config.incidents_from = Trigger::FirstMessage;
    };
    // All of one action, which is less of all than may fail.
    let refused = |config: &mut StandinConfig| {
        config.endpoint_mut(Endpoint::MarkRead).reject = every(1).map(|every| (every, Refusal::Internal));
    };
    let table: [Trip; 3] = [
        (refused, &[("--slo-error-rate", "0.4")], "mark_read errors 100.00% > 40% ("),
        (slow_reads, &[("--slo", "mark_read:p95=100ms,mark_read:p99=900ms")], "mark_read p95"),
        (vanishing, &[], "notification-worker is gone from stream "),
    ];
    for (change, flags, words) in table {
        let target = target(NatsOptions::default(), change).await?;
        let run = flags.iter().fold(target.run(), |run, (flag, value)| run.flag(flag, value));
        let outcome = finish(run.steps(&[40.0]).local(1)).await?;
        let trial = outcome.trial_at(40.0)?;
        assert_eq!(trial.verdict, Verdict::Trip, "{words}: {outcome}");
        assert!(trial.reasons.contains(words), "{words}: {outcome}");
    }
    Ok(())
}

#[tokio::test]
async fn what_channels_are_told_under_their_keys_is_measured_as_what_they_are_told_openly() -> anyhow::Result<()> {
    let target = target(NatsOptions::default(), |config| config.encrypted = true).await?;
    let run = target.run().steps(&[60.0]).hold(Duration::from_secs(3)).trials(1).local(2);
    let outcome = finish(run.flag("--max-lateness", "1s")).await?;
    let trial = outcome.trial_at(60.0)?;
    assert_ne!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.completed == trial.attempted && trial.e2_n > 0, "{outcome}");
    assert_eq!((trial.foreign, trial.number("recipients_dropped")), (0, Some(0.0)), "{outcome}");
    assert!(trial.number("recipients_expected") > Some(trial.e2_n as f64), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn notification_worker_may_fall_behind_and_holds_up_no_step() -> anyhow::Result<()> {
    let slow = |config: &mut StandinConfig| config.stage_mut(Stage::NotificationWorker).capacity = Some(0.5);
    let target = target(NatsOptions::default(), slow).await?;
    let run = target.run().steps(&[60.0, 80.0]).hold(Duration::from_secs(6)).trials(1).local(1);
    let outcome = finish(run.flag("--slo-pending-growth", 10).flag("--recovery-limit", "5s")).await?;
    for users in [60.0, 80.0] {
        assert_eq!(outcome.trial_at(users)?.verdict, Verdict::Pass, "{outcome}");
    }
    // It did fall behind, by more than the others may.
    let backlog = outcome.ended.stdout.lines().filter(|line| line.contains("notification-worker"));
    let growth = backlog.filter_map(|line| line.split_whitespace().last()?.parse::<f64>().ok());
    assert!(growth.fold(0.0, f64::max) > 10.0, "{outcome}");
    Ok(())
}

#[tokio::test]
async fn a_target_that_was_seeded_for_other_users_is_told_so_before_any_load() -> anyhow::Result<()> {
    let target = target(NatsOptions::default(), |_| {}).await?;
    let others = Run::daily(&target.server.url(), "daily-light", USERS * 2).steps(&[100.0]);
    let outcome = finish(others).await?;
    assert!(outcome.trials.is_empty() && outcome.code() == Some(2), "{outcome}");
    let words = format!(
        "the target was not seeded with the fixtures of --preset daily-light --seed 42 --users {}: ",
        USERS * 2
    );
    assert!(outcome.ended.stderr.contains(&words), "{outcome}");

    // A service that nobody runs is told apart from one that refuses.
    target.standin.leave(Endpoint::ToggleMute).await?;
    let alone = finish(Run::daily(&target.server.url(), "daily-light", USERS).steps(&[100.0])).await?;
    assert!(alone.trials.is_empty() && alone.code() == Some(2), "{alone}");
    let words = "preflight: nobody answers mute.toggle, asked at chat.user.plimsoll-probe.request.room.plimsoll-probe";
    assert!(alone.ended.stderr.contains(words) && alone.ended.stderr.contains("start the room service"), "{alone}");

    let too_many = finish(Run::daily("nats://127.0.0.1:1", "daily-light", USERS).steps(&[2_000.0])).await?;
    assert_eq!(too_many.code(), Some(2), "{too_many}");
    let words =
        "--steps: got 2000 users, and the target was seeded for 1000: expected at most that, or a larger --users";
    assert!(too_many.ended.stderr.contains(words), "{too_many}");
    Ok(())
}

/// So many agents share so many users.
const AGENTS_OF_PROOF: &str = "PLIMSOLL_TEST_AGENTS";
const USERS_OF_PROOF: &str = "PLIMSOLL_TEST_USERS";

/// What the first of so many agents builds for so many users, in a process that has built nothing else: seconds, and KiB at most.
fn built_for_one_of(agents: usize, users: u32) -> anyhow::Result<(f64, f64)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "daily::users_of_one_agent_are_built_when_asked_for", "--nocapture"]);
    command.env(AGENTS_OF_PROOF, agents.to_string()).env(USERS_OF_PROOF, users.to_string());
    let ended = Process::spawn(command)?.wait(Duration::from_secs(300))?;
    let figures = ended.stdout.lines().find_map(|line| line.split_once("built: ")).map(|(_, figures)| figures);
    let figures: Vec<f64> = figures.unwrap_or_default().split(' ').filter_map(|figure| figure.parse().ok()).collect();
    let [seconds, kib] = figures[..] else { anyhow::bail!("nothing was built: {ended:?}") };
    Ok((seconds, kib))
}

#[test]
fn an_agent_builds_no_more_than_what_its_own_users_need() -> anyhow::Result<()> {
    let [whole, third, tenth] = [1, 3, 10].map(|agents| built_for_one_of(agents, 20_000));
    let ((_, whole), (_, third), (_, tenth)) = (whole?, third?, tenth?);
    println!("20,000 users: {whole} KiB whole, {third} of a third, {tenth} of a tenth");
    for (agents, part) in [(3.0, third), (10.0, tenth)] {
        assert!(part < whole * (1.0 / agents + 0.1), "{part} of {whole} KiB with {agents} agents");
    }
    Ok(())
}

/// A helper of the proofs here: alone it does nothing.
#[test]
fn users_of_one_agent_are_built_when_asked_for() -> anyhow::Result<()> {
    let Ok(agents) = std::env::var(AGENTS_OF_PROOF) else { return Ok(()) };
    let (agents, all): (usize, u32) = (agents.parse()?, std::env::var(USERS_OF_PROOF)?.parse()?);
    let users_given = all.to_string();
    let given = [
        ("preset", "daily-power"),
        ("site-id", "s"),
        ("max-direct-users", "100k"),
        ("multiplex-pool-size", "200"),
        ("max-connections", "100k"),
        ("activation-rate", "500"),
        ("users", &users_given),
    ];
    let value = |name: &str| given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let workload = Workload::read("daily", &Given::new(&value)).map_err(|error| anyhow::anyhow!("{error}"))?;
    let daily = workload.daily().expect("that is what was read").clone();
    let agent_plan = AgentPlan {
        agent_index: 0,
        run_nonce: 1,
        seed: 42,
        target: plan::Target { url: "nats://nowhere".into(), credentials: None },
        workload,
        request_timeout: Duration::from_secs(5),
        series: Vec::new(),
        max_lateness: Duration::from_millis(100),
    };
    let (before, begun_ns) = (most_memory_kib()?, boottime_ns());
    let counts = vec![u64::from(all) / agents as u64; agents];
    let users = users_of(0, &counts);
    let part = Part::of_users(&users, users.len(), daily.multiplex_pool_size, 1).remove(0);
    let desk = Exchange::desks(1).remove(0);
    let setup = Setup {
        plan: &agent_plan,
        fixtures: None,
        part: &part,
        worker: 0,
        workers: 1,
        exchange: Some(desk.exchange()),
        inbox: "_INBOX.proof",
        ids: IdCodec::new(Sender::new(1, 0, 0)),
        chance: &mut ChaCha8Rng::seed_from_u64(1),
    };
    let built = Daily::new(&daily, setup).map_err(|error| anyhow::anyhow!(error))?;
    // As it is handed to whoever opens them.
    let lines = built.lines().unwrap_or_default();
    let took = Duration::from_nanos(boottime_ns() - begun_ns);
    assert_eq!(lines.len(), users.len());
    println!("built: {} {}", took.as_secs_f64(), most_memory_kib()? - before);
    Ok(())
}

/// The most that this process has held.
fn most_memory_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let high =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    high.ok_or_else(|| anyhow::anyhow!("no VmHWM in {status}"))
}

/// The 99th percentile of each agent's lateness: the second of the times that a line of its box has.
fn lateness_p99_ms(outcome: &Outcome) -> Vec<f64> {
    let time_ms = |word: &str| {
        let unit = word.find(|c: char| c.is_alphabetic())?;
        let factor = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)].into_iter().find(|(name, _)| *name == &word[unit..])?.1;
        Some(word[..unit].parse::<f64>().ok()? * factor)
    };
    let boxes = outcome.ended.stdout.lines().skip_while(|line| !line.starts_with("Load boxes"));
    boxes
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().filter_map(time_ms).nth(1))
        .collect()
}

/// The longer proofs, of a machine of two cores that does nothing else.
#[tokio::test]
async fn a_hundred_thousand_users_fixtures_and_five_thousand_users_online() -> anyhow::Result<()> {
    if !prove::whole() {
        return Ok(());
    }
    let [(seconds, whole), (_, third)] = [built_for_one_of(1, 100_000)?, built_for_one_of(3, 100_000)?];
    println!(
        "100,000 users of daily-power: {seconds:.2} s, {:.0} MiB; a third of them {:.0} MiB",
        whole / 1024.0,
        third / 1024.0
    );
    assert!(seconds <= 5.0 && whole <= 1.5 * 1024.0 * 1024.0, "{seconds} s, {whole} KiB");
    assert!(third < whole * (1.0 / 3.0 + 0.1), "{third} of {whole} KiB");

    let target = target(NatsOptions::default(), |config| {
        config.daily = Some(DailyConfig { preset: DailyPreset::Light, users: 10_000 });
    })
    .await?;
    let (begun_ns, warmup) = (boottime_ns(), Duration::from_secs(10));
    let run = Run::daily(&target.server.url(), "daily-light", 10_000).steps(&[5_000.0]).local(2);
    let run = run.hold(Duration::from_secs(180)).warmup(warmup).trials(1);
    // On one thread: what a thread has started ends with it.
    let held = tokio::task::spawn_blocking(move || {
        let mut running = run.start()?;
        running.wait_for_hold_within(Duration::from_secs(300))?;
        let online = Duration::from_nanos(boottime_ns() - begun_ns).saturating_sub(warmup);
        anyhow::Ok((online, running.finish()?))
    });
    let (online, outcome) = held.await??;
    println!("{outcome}");
    println!("5,000 direct users online with all subscriptions, preflight and all: {:.1} s", online.as_secs_f64());
    let boxes = outcome.ended.stdout.lines().skip_while(|line| !line.starts_with("Load boxes")).take(5);
    boxes.for_each(|line| println!("{line}"));
    let trial = outcome.trial_at(5_000.0)?;
    assert_eq!(
        (trial.number("users_active"), trial.number("connections")),
        (Some(5_000.0), Some(5_000.0)),
        "{outcome}"
    );
    assert!(online <= Duration::from_secs(60), "{online:?}: {outcome}");
    assert_eq!(trial.verdict, Verdict::Pass, "{outcome}");
    let late = lateness_p99_ms(&outcome);
    assert!(late.len() == 2 && late.iter().all(|&ms| ms <= 5.0), "{late:?} ms: {outcome}");
    Ok(())
}
