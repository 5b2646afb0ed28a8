//! A disk is full: below what a program says, below its report, below its saved run. What can be kept is kept, what cannot is
//! said, and nothing that was measured is lost with it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, AgentOptions, Process, Program, in_shell};
use plimsoll_tests::harness::run::{Outcome, Run, Verdict};
use plimsoll_tests::standin::{Standin, StandinConfig};

const LIMIT: Duration = Duration::from_secs(20);

/// A file system that holds so few bytes, until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("plimsoll-disk-").tempdir()?;
        let options = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).status()?;
        ensure!(mounted.success(), "mounting a file system takes root");
        Ok(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// Two short steps over agents whose logs go nowhere, as `change` has them.
async fn run(agents: &[Agent], change: impl FnOnce(Run) -> Run) -> anyhow::Result<Outcome> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let run = Run::new(&server.url(), "small").steps(&[100.0, 200.0]).agents(agents).warmup(Duration::from_millis(500));
    let run = change(run.hold(Duration::from_secs(2)).without_backlogs().lenient());
    let outcome = tokio::task::spawn_blocking(move || run.finish()).await??;
    standin.shutdown().await?;
    Ok(outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_whose_logs_cannot_be_written_measure_as_before() -> anyhow::Result<()> {
    let script = "RUST_LOG=trace exec \"$0\" \"$@\" 2>/dev/full";
    let agent = Agent::start(&AgentOptions { script: Some(script.to_owned()), ..AgentOptions::default() })?;
    let outcome = run(&[agent], |run| run.script(script)).await?;
    assert_eq!((outcome.code(), outcome.ended.stderr.as_str()), (Some(0), ""), "{outcome}");
    assert!(outcome.answer()?.starts_with("ANSWER: max RPS >= 200 "), "{outcome}");
    assert!(outcome.trials.iter().all(|trial| trial.verdict == Verdict::Pass), "{outcome}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_cannot_be_written_is_no_success_and_stands_in_the_saved_run() -> anyhow::Result<()> {
    let results = tempfile::tempdir()?;
    let script = "exec \"$0\" \"$@\" >/dev/full";
    let outcome =
        run(&Agent::start_many(1)?, |run| run.script(script).flag("--results", results.path().display())).await?;
    assert_eq!(outcome.code(), Some(3), "{outcome}");
    assert!(outcome.ended.stderr.contains("error: stdout cannot be written: No space left on device"), "{outcome}");
    let saved = outcome.ended.stderr.lines().find_map(|line| line.strip_prefix("saved in "));
    let report = std::fs::read_to_string(Path::new(saved.expect("saved before it is shown")).join("report.txt"))?;
    assert!(report.contains("ANSWER: max RPS >= 200 "), "{report}");
    Ok(())
}

#[test]
fn what_cannot_be_printed_ends_with_three_as_the_helps_say() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let certs = dir.path().join("certs").display().to_string();
    let kube = "kube --agents 1 --image example.com/plimsoll:1 -- max-rps --preset small --nats-url nats://chat:4222";
    let kube: Vec<&str> = kube.split(' ').collect();
    for (program, arguments) in [
        (Program::Cli, &["completions", "bash"][..]),
        (Program::Cli, &kube),
        (Program::Cli, &["certs", "--dir", &certs, "--agent", "box-1"]),
        (Program::Cli, &["max-rps", "--preset", "small", "--dry-run"]),
        (Program::Agent, &["completions", "bash"]),
    ] {
        let mut command = program.command()?;
        command.args(arguments);
        let ended = Process::spawn(in_shell("exec \"$0\" \"$@\" >/dev/full", &command))?.wait(LIMIT)?;
        assert_eq!(ended.code, Some(3), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(" cannot be written: No space left on device"), "{arguments:?}: {ended:?}");
        // The agent's commands have no help of their own about codes.
        let of = if program == Program::Agent { vec!["--help"] } else { vec![arguments[0], "--help"] };
        // However wide the terminal is.
        let help = program.run(of)?.stdout.replace('\n', " ");
        let codes = help.split_once("Exit codes: ").map(|(_, codes)| codes.split("  ").next().unwrap_or(codes));
        assert!(codes.is_some_and(|codes| codes.contains(" 3 ")), "{arguments:?}: {help}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_cannot_be_saved_is_measured_to_its_end_and_says_so() -> anyhow::Result<()> {
    let agents = Agent::start_many(1)?;
    // Room for what a run writes at its start, and not for what its first trial measured.
    let disk = SmallDisk::mount(16 * 1024)?;
    let outcome = run(&agents, |run| run.flag("--results", disk.path().join("results").display())).await?;
    assert!(outcome.answer()?.starts_with("ANSWER: max RPS >= 200 "), "{outcome}");
    assert!(outcome.ended.stderr.contains("warning: ") && outcome.ended.stderr.contains("No space left"), "{outcome}");
    assert!(!outcome.ended.stderr.contains("saved in "), "it is not whole: {outcome}");
    assert!(outcome.ended.stderr.contains("holds no more than the run's beginning"), "{outcome}");
    Ok(())
}
