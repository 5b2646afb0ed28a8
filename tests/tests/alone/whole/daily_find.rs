//! `daily --find` end to end: the users whose messages the stand-in carries are known, and the interval must hold them.
//! PLIMSOLL_PROVE=1 looks to 5 %; the suite to 50 %, kills the coordinator on the way, and reads the saved run back.

use anyhow::Context as _;
use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_common::contract::daily::behaviour::{Action, envelope_mean};
use plimsoll_tests::harness::exclusive::{Exclusive, Pair};
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Ended, Process, Program};
use plimsoll_tests::harness::prove;
use plimsoll_tests::standin::{DailyConfig, Stage, Standin, StandinConfig};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(900);
/// Users that the stand-in knows.
const SEEDED: u32 = 1_000;
/// Of the day, which stands still at its peak.
const DAY_S: f64 = 40.0;
/// Messages that the broadcast worker carries a second.
const CAPACITY: f64 = 800.0;

/// The users who write and reply as much as that, on average.
fn carried() -> f64 {
    let tenths = Action::Send.tenths_per_day() + Action::ThreadReply.tenths_per_day();
    CAPACITY / (f64::from(tenths) / 10.0 / envelope_mean() / DAY_S)
}

async fn standin(server: &NatsServer, users: u32, capacity: Option<f64>) -> anyhow::Result<Standin> {
    let mut config = StandinConfig::new(server.url());
    config.daily = Some(DailyConfig { preset: DailyPreset::Light, users });
    config.stage_mut(Stage::BroadcastWorker).capacity = capacity;
    Standin::start(config).await
}

fn command(server: &NatsServer, users: u32, results: &Path, search: &[&str]) -> anyhow::Result<Command> {
    let requests = ["mark_read", "refresh_room_list", "scroll_history", "member_add", "room_create", "mute_toggle"];
    let limits: Vec<String> =
        requests.iter().flat_map(|name| [format!("{name}:p95=400ms"), format!("{name}:p99=800ms")]).collect();
    let mut command = Program::Cli.command()?;
    command.args(["daily", "--find", "--explain", "--preset", "daily-light", "--nats-url", &server.url(), "--results"]);
    command.arg(results).args(["--users", &users.to_string(), "--day", &format!("{DAY_S}s"), "--local", "1"]);
    command.args(["--slo-p95", "400ms", "--slo-p99", "800ms", "--slo", &limits.join(","), "--request-timeout", "3s"]);
    command.args(search);
    Ok(command)
}

async fn wait(mut process: Process) -> anyhow::Result<Ended> {
    tokio::task::spawn_blocking(move || process.wait(LONGEST)).await?
}

/// The two ends of `between A and B`.
fn interval(ended: &Ended) -> Option<(f64, f64)> {
    let answer = ended.stdout.lines().find(|line| line.starts_with("ANSWER: N = "))?;
    let (low, rest) = answer.split_once("between ")?.1.split_once(" and ")?;
    Some((low.parse().ok()?, rest.split_whitespace().next()?.parse().ok()?))
}

/// The interval holds what is carried on average, or ends a little below it: people come in bursts.
fn check(ended: &Ended, precision: f64) {
    let (low, high) = interval(ended).unwrap_or_else(|| panic!("no interval: {ended:?}"));
    let carried = carried();
    assert!(low <= carried && high >= 0.85 * carried, "{low} to {high}, not {carried}: {ended:?}");
    assert!(high / low <= 1.0 + precision + 1e-9 && ended.code == Some(0), "{ended:?}");
    assert_eq!((low.fract(), high.fract()), (0.0, 0.0), "people are whole: {ended:?}");
    assert!(ended.stdout.contains("\nPace: an 8h day in 40s, x720, at its peak"), "{ended:?}");
    assert!(ended.stdout.contains("Next limit: ") && ended.stdout.contains("workload=daily"), "{ended:?}");
}

fn only_run_in(results: &Path) -> anyhow::Result<PathBuf> {
    let mut runs = std::fs::read_dir(results)?;
    let run = runs.next().context("no run")??.path();
    anyhow::ensure!(runs.next().is_none(), "several runs");
    Ok(run)
}

#[tokio::test]
async fn the_users_that_are_carried_are_found_by_a_search_that_is_killed_resumed_reported_and_compared()
-> anyhow::Result<()> {
    let exclusive = Exclusive::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = standin(&server, SEEDED, Some(CAPACITY)).await?;
    let results = tempfile::tempdir()?;
    let (precision, search) = match prove::whole() {
        true => (0.05, ["--precision", "5%", "--max-time", "12m", "--from", "300"]),
        false => (0.5, ["--precision", "50%", "--max-time", "80s", "--from", "300"]),
    };
    let mut process = Process::spawn(command(&server, SEEDED, results.path(), &search)?)?;
    let killed = tokio::task::spawn_blocking(move || {
        process.wait_for_stderr("-> hint: under every limit", LONGEST)?;
        process.signal(libc::SIGKILL)?;
        process.wait(Duration::from_secs(10))
    });
    assert!(killed.await??.stderr.contains("trial 1 300 users "));
    let dir = only_run_in(results.path())?;
    let mut resume = Program::Cli.command()?;
    let resumed = wait(Process::spawn({
        resume.arg("resume").arg(&dir);
        resume
    })?)
    .await?;
    standin.shutdown().await?;
    println!("{}", resumed.stdout.lines().filter(|line| line.starts_with("ANSWER")).collect::<String>());
    check(&resumed, precision);
    let trail = resumed.stdout.lines().map(str::trim).filter(|line| line.contains("; now between "));
    let trail: Vec<&str> = trail.collect();
    assert!(trail[0].starts_with("trial 1 300 users ") && trail[1].starts_with("trial 2 "), "{trail:?}");
    // Down as well as up: those who are too many go offline, and the others stay.
    let levels: Vec<f64> = trail.iter().filter_map(|line| line.split(' ').nth(2)?.parse().ok()).collect();
    assert!(levels.windows(2).any(|pair| pair[1] < pair[0]), "{levels:?}");
    let report = Program::Cli.run(["report".into(), dir.display().to_string()])?;
    assert_eq!(interval(&report), interval(&resumed), "{report:?}");
    let compared = Program::Cli.run(["compare".into(), dir.display().to_string(), dir.display().to_string()])?;
    assert!(compared.code == Some(0) && compared.stdout.contains(" users"), "{compared:?}");
    drop((server, exclusive));
    Ok(())
}

#[tokio::test]
async fn an_answer_that_only_the_seeded_users_bound_says_so() -> anyhow::Result<()> {
    let _pair = Pair::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = standin(&server, 100, None).await?;
    let results = tempfile::tempdir()?;
    let search = ["--precision", "50%", "--max-time", "84s", "--from", "50", "--skip-self-check"];
    let ended = wait(Process::spawn(command(&server, 100, results.path(), &search)?)?).await?;
    standin.shutdown().await?;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stdout.contains("ANSWER: N >= 100 (INCONCLUSIVE, nothing above it was shown to trip"), "{ended:?}");
    let why = "Why: nothing tripped up to 100 users, all that the target was seeded for: seed it for more";
    assert!(ended.stdout.contains(why), "{ended:?}");
    Ok(())
}
