//! `--find` end to end: the stand-in's capacity is known, and the interval must hold it. PLIMSOLL_PROVE=1 looks at every
//! stage and three capacities at 5 % (PLIMSOLL_PROVE_ONLY=stage/capacity: at one); the suite looks at one at 30 %, and kills
//! the coordinator on the way.

use anyhow::Context as _;
use plimsoll_tests::harness::exclusive::Pair;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Ended, Process, Program};
use plimsoll_tests::harness::prove;
use plimsoll_tests::standin::{Stage, Standin, StandinConfig};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio::time::Instant;

/// The longest that a search of these tests may take, setting up included.
const LONGEST: Duration = Duration::from_secs(400);

/// A search for the capacity of one stage.
struct Find {
    stage: Stage,
    capacity: f64,
    precision: &'static str,
    max_time: &'static str,
}

impl Find {
    /// The stand-in, of which one stage carries so many messages per second.
    async fn standin(&self, server: &NatsServer) -> anyhow::Result<Standin> {
        let mut config = StandinConfig::new(server.url());
        config.stage_mut(self.stage).capacity = Some(self.capacity);
        Standin::start(config).await
    }

    fn command(&self, server: &NatsServer, results: &Path) -> anyhow::Result<Command> {
        // A durable off the latency path shows by its backlog alone: half a per cent of the capacity, for thirty seconds.
        // Where latency shows an overload, so tight a limit would only measure how a backlog wanders just below the capacity.
        let growth = if self.stage == Stage::MessageWorker { self.capacity * 0.15 } else { 1000.0 };
        let growth = growth.ceil().to_string();
        let mut command = Program::Cli.command()?;
        command.args(["max-rps", "--find", "--explain", "--preset", "small", "--nats-url", &server.url(), "--results"]);
        command.arg(results);
        command.args(["--slo-pending-growth", &growth, "--precision", self.precision, "--max-time", self.max_time]);
        command.args(["--slo-p95", "none", "--slo-p99", "200ms", "--request-timeout", "3s"]);
        Ok(command)
    }

    /// The interval holds the capacity and is no wider than asked.
    fn check(&self, ended: &Ended) {
        let width = self.precision.trim_end_matches('%').parse::<f64>().expect("a percentage") / 100.0;
        let (low, high) = interval(ended).unwrap_or_else(|| panic!("no interval: {ended:?}"));
        // A box that is slower meanwhile carries less.
        let least = if prove::whole() { self.capacity } else { self.capacity * 0.85 };
        assert!(low <= self.capacity && least <= high, "{low} to {high}, not {}: {ended:?}", self.capacity);
        assert!(high / low <= 1.0 + width + 1e-9 && ended.code == Some(0), "{ended:?}");
        assert!(
            ended.stdout.contains("Trail\n  trial 1 50000/s 1s (probe with 8 operations open at once"),
            "{ended:?}"
        );
        assert!(ended.stdout.contains("self-check = at most "), "{ended:?}");
    }
}

/// The two ends of `between A and B`.
pub fn interval(ended: &Ended) -> Option<(f64, f64)> {
    let answer = ended.stdout.lines().find(|line| line.starts_with("ANSWER"))?;
    let (low, rest) = answer.split_once("between ")?.1.split_once(" and ")?;
    Some((low.parse().ok()?, rest.split_whitespace().next()?.parse().ok()?))
}

async fn wait(mut process: Process) -> anyhow::Result<Ended> {
    tokio::task::spawn_blocking(move || process.wait(LONGEST)).await?
}

async fn look_at(find: Find) -> anyhow::Result<()> {
    let _pair = Pair::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = find.standin(&server).await?;
    let results = tempfile::tempdir()?;
    let began = Instant::now();
    let ended = wait(Process::spawn(find.command(&server, results.path())?)?).await?;
    standin.shutdown().await?;
    let answer = ended.stdout.lines().filter(|line| line.starts_with("ANSWER") || line.starts_with("Why"));
    println!(
        "{:?} {}: {:?}, {:.0} s",
        find.stage,
        find.capacity,
        answer.collect::<Vec<_>>(),
        began.elapsed().as_secs_f64()
    );
    find.check(&ended);
    Ok(())
}

/// One stage, or one stage and one capacity, as PLIMSOLL_PROVE_ONLY names them.
fn is_asked_for(stage: Stage, capacity: f64) -> bool {
    let only = std::env::var("PLIMSOLL_PROVE_ONLY").unwrap_or_default();
    only.is_empty() || only == format!("{stage:?}") || only == format!("{stage:?}/{capacity}")
}

/// The whole matrix.
async fn look_at_every_stage() -> anyhow::Result<()> {
    for stage in [Stage::Gatekeeper, Stage::BroadcastWorker, Stage::MessageWorker] {
        for capacity in [900.0, 3_300.0, 12_500.0] {
            if is_asked_for(stage, capacity) {
                look_at(Find { stage, capacity, precision: "5%", max_time: "3m" }).await?;
            }
        }
    }
    Ok(())
}

fn only_run_in(results: &Path) -> anyhow::Result<PathBuf> {
    let runs: Vec<PathBuf> =
        std::fs::read_dir(results)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    anyhow::ensure!(runs.len() == 1, "{runs:?}");
    runs.into_iter().next().context("no run")
}

#[tokio::test]
async fn the_capacity_is_found_also_by_a_search_that_is_killed_in_the_middle_and_resumed() -> anyhow::Result<()> {
    let find = Find { stage: Stage::BroadcastWorker, capacity: 900.0, precision: "30%", max_time: "120s" };
    let pair = Pair::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = find.standin(&server).await?;
    let results = tempfile::tempdir()?;
    let mut process = Process::spawn(find.command(&server, results.path())?)?;
    let killed = tokio::task::spawn_blocking(move || {
        process.wait_for_stderr("-> hint: over", LONGEST)?;
        process.signal(libc::SIGKILL)?;
        process.wait(Duration::from_secs(10))
    });
    let killed = killed.await??;
    let before = killed.stderr.lines().filter(|line| line.contains("; now between ")).map(str::to_owned);
    let before: Vec<String> = before.collect();
    assert!(before.len() >= 2 && killed.stdout.is_empty(), "{killed:?}");

    let dir = only_run_in(results.path())?;
    let mut resume = Program::Cli.command()?;
    resume.arg("resume").arg(&dir);
    let resumed = wait(Process::spawn(resume)?).await?;
    standin.shutdown().await?;
    find.check(&resumed);
    // What the killed process held counts, and is held no second time.
    let trail = resumed.stdout.lines().map(str::trim).filter(|line| line.contains("; now between "));
    let trail: Vec<&str> = trail.collect();
    assert!(before.iter().zip(&trail).all(|(before, after)| before == after), "{before:?} {trail:?}");
    let numbers = trail.iter().filter_map(|line| line.split(' ').nth(1)?.parse::<usize>().ok());
    assert!(numbers.eq(1..=trail.len()) && trail.len() > before.len(), "{trail:?}");
    drop((server, pair));
    if prove::whole() {
        // One that nobody disturbs comes to the same.
        look_at(find).await?;
    }
    if prove::whole() { look_at_every_stage().await } else { Ok(()) }
}
