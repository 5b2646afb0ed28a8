//! `plimsoll run`: one rate held for as long as asked, told minute by minute, with one verdict. With `PLIMSOLL_PROVE=1` for more
//! than a minute.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Ended, Process, Program};
use plimsoll_tests::harness::prove;
use plimsoll_tests::standin::responder::{Answers, Responder};
use plimsoll_tests::standin::{Standin, StandinConfig};

const LIMIT: Duration = Duration::from_secs(150);

/// A soak at a rate, with its CSV and its saved run in this directory.
fn soak(server: &NatsServer, dir: &Path, rate: &str, duration: &str) -> anyhow::Result<Command> {
    let mut command = Program::Cli.command()?;
    command.args(["run", "--nats-url", &server.url(), "--rate", rate, "--duration", duration]);
    command.args([
        "--max-skew",
        "1s",
        "--warmup",
        "500ms",
        "--max-lateness",
        "1s",
        "--request-timeout",
        "1s",
        "--slo-p95",
        "400ms",
        "--slo-p99",
        "800ms",
    ]);
    command.arg("--csv").arg(dir.join("soak.csv")).arg("--results").arg(dir.join("results"));
    Ok(command)
}

async fn finish(process: anyhow::Result<Process>) -> anyhow::Result<Ended> {
    let mut process = process?;
    tokio::task::spawn_blocking(move || process.wait(LIMIT)).await?
}

/// Columns of the CSV, row by row.
fn rows(csv: &str, columns: &[&str]) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers().cloned().unwrap_or_default();
    let index = |name: &&str| header.iter().position(|column| column == *name).unwrap_or_else(|| panic!("no {name}"));
    let indices: Vec<usize> = columns.iter().map(index).collect();
    let row = |record: csv::StringRecord| indices.iter().map(|&index| record[index].to_owned()).collect();
    reader.records().map_while(Result::ok).map(row).collect()
}

fn saved_in(dir: &Path) -> anyhow::Result<String> {
    let mut runs = std::fs::read_dir(dir.join("results"))?;
    let run = runs.next().context("no saved run")??;
    Ok(run.path().display().to_string())
}

#[tokio::test]
async fn a_soak_has_a_row_per_minute_one_verdict_and_the_same_rows_when_it_is_read_again() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let dir = tempfile::tempdir()?;
    let long = prove::whole();
    let (duration, words) = if long { ("62s", "1m 2s") } else { ("4s", "4s") };
    let mut command = soak(&server, dir.path(), "100", duration)?;
    command.args(["--preset", "small", "--local", "2", "--durable", "none"]);
    let ended = finish(Process::spawn(command)).await?;
    standin.shutdown().await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let answer = format!("ANSWER: PASS at 100/s held for {words} (workload=messages, preset=small)\n");
    assert!(ended.stdout.ends_with(&answer), "{ended:?}");
    assert!(ended.stderr.contains("minute 1: achieved 1"), "{ended:?}");
    let csv = std::fs::read_to_string(dir.path().join("soak.csv"))?;
    let minutes = rows(&csv, &["minute", "verdict"]);
    let expected: &[[&str; 2]] =
        if long { &[["1", ""], ["2", ""], ["all", "PASS"]] } else { &[["1", ""], ["all", "PASS"]] };
    assert_eq!(minutes, expected, "{csv}");
    // Each minute's operations are counted in it, and all of them in the whole.
    for column in ["due", "attempted", "completed", "E1_n", "E2_n"] {
        let counts: Vec<u64> = rows(&csv, &[column]).iter().map(|row| row[0].parse()).collect::<Result<_, _>>()?;
        let (whole, minutes) = counts.split_last().context("no rows")?;
        assert_eq!(minutes.iter().sum::<u64>(), *whole, "{column}: {csv}");
        assert_eq!(*whole, if long { 6200 } else { 400 }, "{column}: {csv}");
        // By chance: operations come as independent users send them.
        assert!(minutes[0].abs_diff(if long { 6000 } else { 400 }) < 60, "{column}: {csv}");
    }

    let run = saved_in(dir.path())?;
    let again = Program::Cli.run(["report", &run, "--format", "csv"])?;
    assert_eq!(again.stdout, csv);
    assert_eq!(Program::Cli.run(["report", &run])?.stdout, ended.stdout);
    Ok(())
}

#[tokio::test]
async fn a_soak_above_the_capacity_trips_and_one_that_is_interrupted_shows_what_it_measured() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let slow = Answers { capacity: Some(300.0), ..Answers::default() };
    let service = Responder::echo(&server.url(), "svc.echo", slow).await?;
    let echo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/echo.toml");
    let of_echo = |dir: &Path, rate: &str, duration: &str| {
        let mut command = soak(&server, dir, rate, duration)?;
        command.args(["--workload", "custom", "--scenario"]).arg(&echo);
        Process::spawn(command)
    };
    let dir = tempfile::tempdir()?;
    let ended = finish(of_echo(dir.path(), "900", "4s")).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("\nANSWER: TRIP at 900/s held for 4s (workload=custom, preset=echo)\n"), "{ended:?}");
    assert!(ended.stdout.contains("Reasons: echo p95="), "{ended:?}");

    // What it still has to do is not the next run's.
    service.stop().await?;
    let _fast = Responder::echo(&server.url(), "svc.echo", Answers::default()).await?;
    let dir = tempfile::tempdir()?;
    let mut process = of_echo(dir.path(), "100", "1h")?;
    let process = tokio::task::spawn_blocking(move || -> anyhow::Result<Process> {
        process.wait_for_stderr("/s hold ", Duration::from_secs(60))?;
        std::thread::sleep(Duration::from_secs(5));
        process.signal(libc::SIGINT)?;
        Ok(process)
    });
    let ended = finish(process.await?).await?;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.stdout.contains("\nABORTED: "), "{ended:?}");
    assert!(ended.stdout.contains("ANSWER: INCONCLUSIVE at 100/s held for "), "{ended:?}");
    let csv = std::fs::read_to_string(dir.path().join("soak.csv"))?;
    let found = rows(&csv, &["minute", "verdict", "completed", "achieved_rate"]);
    assert_eq!((found[0][0].as_str(), found[1][0].as_str(), found.len()), ("1", "all", 2), "{csv}");
    // What was measured, over the time that it took.
    let completed: u64 = found[1][2].parse()?;
    let achieved: f64 = found[1][3].parse()?;
    assert!(completed > 300 && (60.0..140.0).contains(&achieved), "{csv}");
    Ok(())
}
