//! Members are added: capacities that are set are found, nobody is added twice, and a pool that is too small is said to be.

use std::num::NonZeroU64;
use std::time::Duration;

use plimsoll_common::contract::members::MembersPreset;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, Ended, Process, Program};
use plimsoll_tests::harness::run::{Outcome, Run, Verdict};
use plimsoll_tests::standin::config::Refusal;
use plimsoll_tests::standin::{Endpoint, Stage, Standin, StandinConfig};

const ADD: usize = Endpoint::AddMembers as usize;

fn every(n: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(n)
}

/// A server with a stand-in, alone on the box.
struct Target {
    server: NatsServer,
    standin: Standin,
    _shared: Shared,
}

async fn target(preset: MembersPreset, change: impl FnOnce(&mut StandinConfig)) -> anyhow::Result<Target> {
    let shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    config.members = preset;
    change(&mut config);
    Ok(Target { standin: Standin::start(config).await?, server, _shared: shared })
}

impl Target {
    fn run(&self, preset: MembersPreset) -> Run {
        let run = Run::new(&self.server.url(), preset.name()).flag("--workload", "members");
        let run = run.flag("--request-timeout", "1s").warmup(Duration::from_millis(500));
        run.hold(Duration::from_secs(2)).steps(&[300.0])
    }
}

async fn finish(run: Run) -> anyhow::Result<Outcome> {
    tokio::task::spawn_blocking(move || run.finish()).await?
}

/// Runs the program with these arguments.
async fn program(arguments: &[&str]) -> anyhow::Result<Ended> {
    let mut command = Program::Cli.command()?;
    command.args(arguments);
    let mut process = Process::spawn(command)?;
    tokio::task::spawn_blocking(move || process.wait(Duration::from_secs(60))).await?
}

#[tokio::test]
async fn the_room_workers_capacity_shows_in_e2_and_the_room_services_in_e1() -> anyhow::Result<()> {
    let target = target(MembersPreset::Medium, |config| {
        config.stage_mut(Stage::RoomWorker).capacity = Some(600.0);
        config.endpoint_mut(Endpoint::AddMembers).speed.capacity = Some(1_800.0);
    })
    .await?;
    let run = target.run(MembersPreset::Medium).flag("--request-timeout", "3s").local(2);
    let outcome = finish(run.steps(&[300.0, 900.0, 3_000.0]).switch("--no-stop-on-trip")).await?;
    let [below, worker, service] = [300.0, 900.0, 3_000.0].map(|rate| outcome.trial_at(rate));
    let (below, worker, service) = (below?, worker?, service?);
    assert_eq!((below.verdict, below.completed), (Verdict::Pass, below.attempted), "{outcome}");
    assert_eq!((below.e1_n, below.e2_n), (below.attempted, below.attempted), "{outcome}");
    assert_eq!(worker.verdict, Verdict::Trip, "{outcome}");
    assert!(worker.reasons.contains("E2 p95") && !worker.reasons.contains("E1 p"), "{outcome}");
    assert!(worker.worst_durable.contains("room-worker"), "{outcome}");
    assert!(service.verdict == Verdict::Trip && service.reasons.contains("E1 p95"), "{outcome}");
    assert_eq!(outcome.max_rps(), Some(300.0), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn no_candidate_is_used_twice_by_agents_that_share_rooms_and_a_used_target_refuses_them_all() -> anyhow::Result<()>
{
    // Five rooms for two agents: one of them is cut. Two steps take 240 of the 250 candidates.
    let target = target(MembersPreset::Small, |_| {}).await?;
    let agents = Agent::start_many(2)?;
    let run = target.run(MembersPreset::Small).warmup(Duration::from_secs(1)).hold(Duration::from_secs(1));
    // A second is too short to judge a backlog by.
    let run = run.agents(&agents).flag("--durable", "none").steps(&[40.0, 80.0]);
    let outcome = finish(run.clone()).await?;
    assert_eq!(outcome.code(), Some(0), "{outcome}");
    assert!(outcome.trials.iter().all(|trial| trial.verdict == Verdict::Pass && trial.foreign == 0), "{outcome}");
    let counters = target.standin.counters();
    assert_eq!((counters.answered[ADD].get(), counters.member_events.get()), (240, 240), "{outcome}");

    let again = finish(run).await?;
    let trial = again.trial_at(40.0)?;
    assert_eq!((trial.verdict, trial.failed_refused), (Verdict::Trip, trial.attempted), "{again}");
    assert_eq!((trial.e1_n, trial.e2_n), (0, 0), "{again}");
    Ok(())
}

#[tokio::test]
async fn error_envelopes_are_no_samples_and_what_never_comes_enters_its_series() -> anyhow::Result<()> {
    let target = target(MembersPreset::Medium, |config| {
        let endpoint = config.endpoint_mut(Endpoint::AddMembers);
        endpoint.reject = every(5).map(|n| (n, Refusal::UserNotFound));
        endpoint.skip_every = every(4);
        config.member_event_faults.drop_every = every(3);
    })
    .await?;
    let outcome = finish(target.run(MembersPreset::Medium).flag("--users-per-add", 10)).await?;
    let trial = outcome.trial_at(300.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.failed_timeout > trial.attempted / 5, "{outcome}");
    assert!(trial.failed_refused > trial.attempted / 8 && trial.lost > trial.attempted / 8, "{outcome}");
    assert_eq!(
        trial.completed + trial.failed_timeout + trial.failed_refused + trial.lost,
        trial.attempted,
        "{outcome}"
    );
    // A refused one owes nothing more; a lost one has had its reply.
    let owed = trial.attempted - trial.failed_refused;
    assert_eq!((trial.e1_n, trial.e2_n), (owed, owed), "{outcome}");
    assert!(trial.e1_p95_ms >= Some(990.0) && trial.e2_p95_ms >= Some(990.0), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn foreign_and_second_replies_and_events_change_nothing() -> anyhow::Result<()> {
    let target = target(MembersPreset::Medium, |config| {
        let endpoint = config.endpoint_mut(Endpoint::AddMembers);
        (endpoint.foreign_every, endpoint.duplicate_every) = (every(3), every(3));
        (config.member_event_faults.foreign_every, config.member_event_faults.duplicate_every) = (every(2), every(2));
    })
    .await?;
    let outcome = finish(target.run(MembersPreset::Medium).flag("--users-per-add", 3)).await?;
    let trial = outcome.trial_at(300.0)?;
    assert_eq!((trial.verdict, trial.completed), (Verdict::Pass, trial.attempted), "{outcome}");
    assert_eq!((trial.e1_n, trial.e2_n), (trial.attempted, trial.attempted), "{outcome}");
    assert!(trial.foreign > trial.attempted * 3 / 4 && trial.duplicate > trial.attempted * 3 / 4, "{outcome}");
    Ok(())
}

#[tokio::test]
async fn a_room_service_that_is_not_there_stops_the_run_before_it_and_is_a_failure_of_its_own_in_it()
-> anyhow::Result<()> {
    let target = target(MembersPreset::Medium, |_| {}).await?;
    let running = target.run(MembersPreset::Medium);
    let mut running = running.start()?;
    let running = tokio::task::spawn_blocking(move || running.wait_for_hold().map(|()| running)).await??;
    target.standin.leave(Endpoint::AddMembers).await?;
    let outcome = tokio::task::spawn_blocking(move || running.finish()).await??;
    let trial = outcome.trial_at(300.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.failed_no_responders > 0, "{outcome}");
    assert_eq!(trial.completed + trial.failed_no_responders, trial.attempted, "{outcome}");

    let absent = finish(target.run(MembersPreset::Medium)).await?;
    assert!(absent.trials.is_empty() && absent.code() == Some(2), "{absent}");
    assert!(absent.ended.stderr.contains("start the room service"), "{absent}");
    Ok(())
}

#[tokio::test]
async fn a_plan_that_needs_more_candidates_than_there_are_is_told_what_would_fit() -> anyhow::Result<()> {
    let run = Run::new("nats://127.0.0.1:1", "members-small").flag("--workload", "members").steps(&[20.0, 50.0]);
    let outcome = finish(run.warmup(Duration::from_secs(2)).hold(Duration::from_secs(8))).await?;
    assert_eq!(outcome.code(), Some(2), "{outcome}");
    let words = "--steps: the plan needs 700 operations, and members-small has 50 candidates in each of 5 rooms, 1 per \
                 operation: enough for 250; what would fit: --steps 20, or --hold 1s, or --preset members-capacity";
    assert!(outcome.ended.stderr.contains(words), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn a_search_ends_where_the_candidates_do_and_a_run_that_used_some_is_not_resumed() -> anyhow::Result<()> {
    let target = target(MembersPreset::Small, |_| {}).await?;
    let (url, dir) = (target.server.url(), tempfile::tempdir()?);
    let results = dir.path().to_str().expect("a temporary directory has a plain name");
    let of_run = ["max-rps", "--workload", "members", "--preset", "members-small", "--nats-url", &url];
    let search = ["--find", "--from", "40", "--slo-p95", "250ms", "--slo-p99", "none", "--results", results];
    let found = program(&[&of_run[..], &search].concat()).await?;
    assert_eq!(found.code, Some(4), "{found:?}");
    let words = "Why: there is too little left of what operations use up: the next trial takes ";
    let needed_and_left =
        found.stdout.split_once(words).map(|(_, rest)| rest.split_once(" operations of an agent that has "));
    let (needed, rest) = needed_and_left.flatten().unwrap_or_else(|| panic!("{found:?}"));
    let (needed, left): (u64, u64) = (needed.parse()?, rest.split(' ').next().unwrap_or_default().parse()?);
    // Which trial that is depends on what boxes disturbed before; five rooms have 250 candidates.
    assert!(needed > left && left < 250, "{found:?}");
    // What coordinator and agent asked before the run, with a body that changes nothing.
    assert_eq!(target.standin.counters().rejected[ADD].get(), 2, "{found:?}");

    let saved = std::fs::read_dir(dir.path())?.next().expect("the run was saved")?.path();
    let saved = saved.to_str().expect("a name of ours is plain");
    let report = program(&["report", saved]).await?;
    assert!(report.code == Some(0) && report.stdout.contains(words), "{report:?}");
    // As a crash would have left it: without its last line.
    let log = std::path::Path::new(saved).join("run.jsonl");
    let text = std::fs::read_to_string(&log)?;
    let (rest, _) = text.trim_end().rsplit_once('\n').expect("a run has more than one line");
    std::fs::write(&log, format!("{rest}\n"))?;
    let resumed = program(&["resume", saved]).await?;
    assert_eq!(resumed.code, Some(2), "{resumed:?}");
    assert!(resumed.stderr.contains("cannot be resumed: the workload members uses up"), "{resumed:?}");
    Ok(())
}
