//! The date changes while load is made, forwards here and backwards there: nothing that is measured or agreed on moves with it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, AgentOptions};
use plimsoll_tests::harness::run::{Run, Verdict};
use plimsoll_tests::standin::{Standin, StandinConfig};

/// Put before the C library: the date of a program is off by so many seconds from the moment on at which a file is there.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME && access(getenv("DATE_CHANGED"), F_OK) == 0)
        now->tv_sec += atol(getenv("DATE_CHANGE"));
    return result;
}
"#;

/// Dates that change at a test's word.
struct Dates {
    dir: tempfile::TempDir,
}

impl Dates {
    fn new() -> anyhow::Result<Self> {
        let dates = Self { dir: tempfile::tempdir()? };
        let source = dates.dir.path().join("date.c");
        std::fs::write(&source, SHIM)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(dates.library()).arg(&source);
        ensure!(compiler.status()?.success(), "cc cannot compile {}", source.display());
        Ok(dates)
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("date.so")
    }

    fn word(&self) -> PathBuf {
        self.dir.path().join("changed")
    }

    /// What a shell does so that the date of the program that it becomes changes by so many seconds.
    fn script(&self, seconds: i64) -> String {
        let (library, word) = (self.library(), self.word());
        let (library, word) = (library.display(), word.display());
        format!(r#"DATE_CHANGED={word} DATE_CHANGE={seconds} LD_PRELOAD={library} exec "$0" "$@""#)
    }

    fn change(&self) -> std::io::Result<()> {
        std::fs::write(self.word(), "")
    }

    /// What a program says is the date, in seconds since 1970.
    fn seen(&self, seconds: i64) -> anyhow::Result<i64> {
        let said = Command::new("sh").args(["-c", &self.script(seconds), "date", "+%s"]).output()?;
        Ok(String::from_utf8(said.stdout)?.trim().parse()?)
    }
}

/// By how many seconds the date in the agent's own words differs from ours.
fn is_off_by(agent: &mut Agent) -> anyhow::Result<i64> {
    agent.process.wait_for_stderr("lease over", Duration::from_secs(20))?;
    let log = agent.process.stderr();
    let line = log.lines().rfind(|line| line.contains("lease over")).context("it was there")?;
    let date = line.split_whitespace().next().context("a line begins with its date")?;
    let said = humantime::parse_rfc3339(date)?.duration_since(UNIX_EPOCH)?.as_secs() as i64;
    Ok(said - SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64)
}

/// The run is saved and told in the right order, whatever its dates are.
fn check_saved(results: &Path) -> anyhow::Result<()> {
    let dir = std::fs::read_dir(results)?.next().expect("it was saved")?.path();
    let shown = plimsoll_tests::harness::processes::Program::Cli.run([Path::new("report"), &dir])?;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("ANSWER: max RPS >= 300 "), "{shown:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dates_that_change_in_a_hold_change_nothing_that_is_measured() -> anyhow::Result<()> {
    const HOUR: i64 = 3600;
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let dates = Dates::new()?;
    let results = tempfile::tempdir()?;
    let agent =
        |seconds| Agent::start(&AgentOptions { script: Some(dates.script(seconds)), ..AgentOptions::default() });
    let mut agents = [agent(HOUR)?, agent(-HOUR)?];
    let run =
        Run::new(&server.url(), "small").steps(&[200.0, 300.0]).agents(&agents).warmup(Duration::from_millis(500));
    let run = run
        .hold(Duration::from_secs(3))
        .without_backlogs()
        .lenient()
        .flag("--lease-timeout", "1s")
        .script(&dates.script(24 * HOUR));
    let mut running = run.flag("--results", results.path().display()).start()?;
    running.wait_for_hold()?;
    let before = dates.seen(HOUR)?;
    dates.change()?;
    assert!(dates.seen(HOUR)? - before >= HOUR, "the shim works");
    let outcome = running.finish()?;
    standin.shutdown().await?;
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(0), 2), "{outcome}");
    for (trial, due) in outcome.trials.iter().zip([600, 900]) {
        assert_eq!((trial.verdict, trial.due), (Verdict::Pass, due), "{outcome}");
        assert_eq!(trial.completed, trial.attempted, "{outcome}");
    }
    assert!(outcome.answer()?.starts_with("ANSWER: max RPS >= 300 "), "{outcome}");
    for (agent, change) in agents.iter_mut().zip([HOUR, -HOUR]) {
        let off = is_off_by(agent)?;
        assert!((off - change).abs() < 60, "its date was changed by {off} s, not {change}");
    }
    check_saved(results.path())
}
