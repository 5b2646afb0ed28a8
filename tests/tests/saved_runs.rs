//! Runs are saved as they go: what a crash leaves is gone on with, and what was printed is printed again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Ended, Process, Program};
use plimsoll_tests::harness::run::Run;
use plimsoll_tests::standin::{Stage, Standin, StandinConfig};

/// What the CLI says to this, within a minute and a half.
fn cli(arguments: &[&str]) -> anyhow::Result<Ended> {
    let mut command = Program::Cli.command()?;
    command.args(arguments);
    Process::spawn(command)?.wait(Duration::from_secs(90))
}

fn only_run_in(results: &Path) -> anyhow::Result<PathBuf> {
    let runs: Vec<PathBuf> =
        std::fs::read_dir(results)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    anyhow::ensure!(runs.len() == 1, "{runs:?}");
    runs.into_iter().next().context("no run")
}

fn trials_in(dir: &Path) -> usize {
    let text = std::fs::read_to_string(dir.join("run.jsonl")).unwrap_or_default();
    text.lines().filter(|line| line.starts_with("{\"record\":\"trial\"")).count()
}

#[tokio::test]
async fn a_run_killed_in_the_middle_is_resumed_to_the_answer_of_an_undisturbed_one() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    config.stage_mut(Stage::BroadcastWorker).capacity = Some(1000.0);
    let standin = Standin::start(config).await?;
    let results = tempfile::tempdir()?;
    let run = Run::new(&server.url(), "small")
        .steps(&[300.0, 600.0, 1500.0])
        .warmup(Duration::from_secs(1))
        .hold(Duration::from_secs(4))
        // Far above what a busy box makes of 600/s, and far below what half a second's work too much a second makes.
        .flag("--slo-p95", "1s")
        .flag("--slo-p99", "1500ms")
        .without_backlogs()
        .flag("--results", results.path().display());
    tokio::task::spawn_blocking(move || check(&run, results.path()).map(|()| drop(results))).await??;
    standin.shutdown().await?;
    Ok(())
}

fn check(run: &Run, results: &Path) -> anyhow::Result<()> {
    let mut running = run.start()?;
    running.process.wait_for_stderr("step 2/3 600/s PASS", Duration::from_secs(90))?;
    running.process.signal(libc::SIGKILL)?;
    // It keeps the directory of the CSV, which the run goes on to write.
    running.process.wait(Duration::from_secs(10))?;
    let dir = only_run_in(results)?;
    let name = dir.display().to_string();
    assert_eq!(trials_in(&dir), 2);
    let broken_off = cli(&["report", &name])?;
    assert!(broken_off.stdout.contains("NOT COMPLETED: the saved run breaks off here"), "{broken_off:?}");
    assert!(broken_off.stdout.contains("ANSWER: max RPS >= 600 "), "{broken_off:?}");

    let resumed = cli(&["resume", &name])?;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    let answer = resumed.stdout.lines().find(|line| line.starts_with("ANSWER"));
    assert_eq!(answer, Some("ANSWER: max RPS = 600 (workload=messages, preset=small)"), "{resumed:?}");
    assert_eq!(trials_in(&dir), 3, "the two trials of the killed process counted");

    assert_eq!(cli(&["report", &name])?.stdout, resumed.stdout);
    assert_eq!(std::fs::read_to_string(dir.join("report.txt"))?, resumed.stdout);
    let again = cli(&["resume", &name])?;
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.stderr.contains("came to its end"), "{again:?}");

    let compared = cli(&["compare", &name, &name])?;
    assert_eq!(compared.code, Some(0), "{compared:?}");
    assert!(compared.stdout.ends_with("NO REGRESSION beyond 5 %\n"), "{compared:?}");
    let missing = cli(&["compare", &name, "/nowhere"])?;
    assert_eq!(missing.code, Some(2), "{missing:?}");
    Ok(())
}

#[test]
fn a_results_directory_that_cannot_be_written_ends_the_command_before_anything_starts() -> anyhow::Result<()> {
    // Nobody listens there: a run that got so far would say so.
    let ended =
        cli(&["max-rps", "--preset", "small", "--nats-url", "nats://127.0.0.1:1", "--results", "/dev/null/runs"])?;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("--results: got '/dev/null/runs', expected a directory that can be written"),
        "{ended:?}"
    );
    Ok(())
}
