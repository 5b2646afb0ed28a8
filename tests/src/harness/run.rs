//! A run of the whole system: `plimsoll max-rps` with a test's arguments, and what it said as values.

use super::hosts::Host;
use super::processes::{Agent, Ended, Process, Program, in_shell};
use anyhow::{Context as _, ensure};
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// What a run may take beyond the time that its phases add up to.
const GRACE: Duration = Duration::from_secs(90);

/// A run to be started. Phases are short and limits generous by default: a shared box must not decide a test.
#[derive(Debug, Clone)]
pub struct Run {
    arguments: Vec<String>,
    steps: u32,
    warmup: Duration,
    hold: Duration,
    cooldown: Duration,
    trials: u32,
    host: Option<Host>,
    script: Option<String>,
}

/// A verdict as the CSV says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    Pass,
    Trip,
    Inconclusive,
}

/// A row of the CSV: one trial.
#[derive(Debug, Clone, Deserialize)]
pub struct Trial {
    pub step: u32,
    pub trial: u32,
    pub target_rate: f64,
    pub achieved_rate: f64,
    pub completion_rate: f64,
    pub due: u64,
    pub attempted: u64,
    pub sent: u64,
    pub completed: u64,
    pub saturated: u64,
    pub underrun: u64,
    pub failed_timeout: u64,
    pub failed_refused: u64,
    pub failed_bad_reply: u64,
    pub failed_publish: u64,
    pub failed_no_responders: u64,
    pub lost: u64,
    pub failed_anyway: u64,
    /// None where nothing was attempted.
    pub error_rate: Option<f64>,
    #[serde(rename = "E1_n", default)]
    pub e1_n: u64,
    #[serde(rename = "E1_p95_ms", default)]
    pub e1_p95_ms: Option<f64>,
    #[serde(rename = "E1_p99_ms", default)]
    pub e1_p99_ms: Option<f64>,
    #[serde(rename = "E1_max_ms", default)]
    pub e1_max_ms: Option<f64>,
    #[serde(rename = "E2_n", default)]
    pub e2_n: u64,
    #[serde(rename = "E2_p95_ms", default)]
    pub e2_p95_ms: Option<f64>,
    #[serde(rename = "E2_p99_ms", default)]
    pub e2_p99_ms: Option<f64>,
    #[serde(rename = "E2_max_ms", default)]
    pub e2_max_ms: Option<f64>,
    pub worst_durable: String,
    pub worst_growth: Option<i64>,
    pub foreign: u64,
    pub duplicate: u64,
    pub late: u64,
    pub void_blocks: u64,
    pub verdict: Verdict,
    pub reasons: String,
    /// Every column as it stands, for series and observations of any workload.
    #[serde(skip)]
    pub columns: HashMap<String, String>,
}

impl Trial {
    /// A column as a number; none where it has no data.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn number(&self, column: &str) -> Option<f64> {
        let text = self.columns.get(column).unwrap_or_else(|| panic!("no column {column}: {:?}", self.columns.keys()));
        text.parse().ok()
    }
}

/// What a run ended with.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub ended: Ended,
    /// In the order in which they were held; empty where the run never came so far.
    pub trials: Vec<Trial>,
}

/// A run under way.
#[derive(Debug)]
pub struct Running {
    pub process: Process,
    limit: Duration,
    /// What its progress says in a hold.
    in_hold: &'static str,
    dir: TempDir,
}

impl Run {
    /// Against this server with this preset: 1 s of warmup, 6 s of hold, limits of 400 and 800 ms. The fleet is the
    /// program's own until one is named.
    pub fn new(nats_url: &str, preset: &str) -> Self {
        Self::of(nats_url).flag("--preset", preset)
    }

    /// The same of what a file describes.
    pub fn custom(nats_url: &str, scenario: &Path) -> Self {
        Self::of(nats_url).flag("--workload", "custom").flag("--scenario", scenario.display())
    }

    /// `plimsoll daily` of so many seeded users. Requests of people have the same limits as the rest.
    pub fn daily(nats_url: &str, preset: &str, users: u32) -> Self {
        let requests = ["mark_read", "refresh_room_list", "scroll_history", "member_add", "room_create", "mute_toggle"];
        let limits: Vec<String> =
            requests.iter().flat_map(|name| [format!("{name}:p95=400ms"), format!("{name}:p99=800ms")]).collect();
        let mut run =
            Self::of(nats_url).flag("--preset", preset).flag("--users", users).flag("--slo", limits.join(","));
        run.arguments[0] = "daily".into();
        run
    }

    fn of(nats_url: &str) -> Self {
        let run = Self {
            arguments: vec!["max-rps".into()],
            steps: 5,
            warmup: Duration::from_secs(1),
            hold: Duration::from_secs(6),
            cooldown: Duration::from_millis(200),
            trials: 3,
            host: None,
            script: None,
        };
        run.flag("--nats-url", nats_url)
            .flag("--request-timeout", "2s")
            .flag("--max-skew", "1s")
            .flag("--slo-p95", "400ms")
            .flag("--slo-p99", "800ms")
            // What others on the test's box hold up for less is released late and not left out: no test but those of weak boxes is
            // about that.
            .flag("--max-lateness", "1s")
    }

    /// Where backlogs are not what a test is about: a box that is busy for a tenth of a second leaves too few reads of them in a
    /// hold of one or two.
    #[must_use]
    pub fn without_backlogs(self) -> Self {
        self.flag("--durable", "none")
    }

    /// Where latency is not what a test is about: limits just below the request timeout, which half a second's pause of a busy box does
    /// not break.
    #[must_use]
    pub fn lenient(self) -> Self {
        self.flag("--slo-p95", "1500ms").flag("--slo-p99", "1900ms")
    }

    /// A flag with its value, in the words of the command line; a later one of the same name wins.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        if let Some(at) = self.arguments.iter().position(|argument| argument == name) {
            self.arguments.drain(at..=at + 1);
        }
        self.arguments.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// An argument that stands alone.
    #[must_use]
    pub fn switch(mut self, name: &str) -> Self {
        self.arguments.push(name.to_owned());
        self
    }

    /// Rates to hold, ascending.
    #[must_use]
    pub fn steps(mut self, rates: &[f64]) -> Self {
        self.steps = rates.len().try_into().unwrap_or(u32::MAX);
        let texts: Vec<String> = rates.iter().map(f64::to_string).collect();
        self.flag("--steps", texts.join(","))
    }

    #[must_use]
    pub fn warmup(mut self, length: Duration) -> Self {
        self.warmup = length;
        self
    }

    #[must_use]
    pub fn hold(mut self, length: Duration) -> Self {
        self.hold = length;
        self
    }

    #[must_use]
    pub fn cooldown(mut self, length: Duration) -> Self {
        self.cooldown = length;
        self
    }

    #[must_use]
    pub fn trials(mut self, count: u32) -> Self {
        self.trials = count;
        self
    }

    /// Over these daemons.
    #[must_use]
    pub fn agents(self, agents: &[Agent]) -> Self {
        let addresses: Vec<String> = agents.iter().map(|agent| agent.address.to_string()).collect();
        self.flag("--agents", addresses.join(","))
    }

    /// From another host.
    #[must_use]
    pub fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// In a shell that does this first, as [`in_shell`] says.
    #[must_use]
    pub fn script(mut self, script: &str) -> Self {
        self.script = Some(script.to_owned());
        self
    }

    /// Over so many agents in the program itself.
    #[must_use]
    pub fn local(self, count: usize) -> Self {
        self.flag("--local", count)
    }

    /// Starts it.
    ///
    /// # Errors
    /// If the program is not to be had.
    pub fn start(&self) -> anyhow::Result<Running> {
        let dir = tempfile::Builder::new().prefix("plimsoll-run-").tempdir().context("making a directory")?;
        let length = |length: Duration| format!("{}ms", length.as_millis());
        let mut command = Program::Cli.command()?;
        command
            .args(&self.arguments)
            .args(["--warmup", &length(self.warmup), "--hold", &length(self.hold)])
            .args(["--cooldown", &length(self.cooldown), "--trials", &self.trials.to_string()])
            .args([OsStr::new("--csv"), dir.path().join("trials.csv").as_os_str()]);
        if !self.arguments.iter().any(|argument| argument == "--results") {
            command.args([OsStr::new("--results"), dir.path().join("results").as_os_str()]);
        }
        if let Some(script) = &self.script {
            command = in_shell(script, &command);
        }
        self.host.iter().for_each(|host| host.put(&mut command));
        // Of each trial: its phases, the drain, and a recovery that takes about as long.
        let trial = self.warmup + self.hold * 2 + self.cooldown + Duration::from_secs(10);
        let limit = trial * self.steps * self.trials + GRACE;
        let in_hold = if self.arguments[0] == "daily" { " users hold " } else { "/s hold " };
        Ok(Running { process: Process::spawn(command)?, limit, in_hold, dir })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// If it does not end in time, or its CSV cannot be read.
    pub fn finish(&self) -> anyhow::Result<Outcome> {
        self.start()?.finish()
    }
}

impl Running {
    /// Waits until the first hold is under way.
    ///
    /// # Errors
    /// If the program ends first or does not come so far.
    pub fn wait_for_hold(&mut self) -> anyhow::Result<()> {
        self.wait_for_hold_within(Duration::from_secs(60))
    }

    /// The same where much comes before it.
    ///
    /// # Errors
    /// As [`Self::wait_for_hold`].
    pub fn wait_for_hold_within(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.process.wait_for_stderr(self.in_hold, limit)
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// If it does not in time, or its CSV cannot be read.
    pub fn finish(mut self) -> anyhow::Result<Outcome> {
        let ended = self.process.wait(self.limit)?;
        let path = self.dir.path().join("trials.csv");
        let trials = if path.exists() { read_trials(&path)? } else { Vec::new() };
        Ok(Outcome { ended, trials })
    }
}

fn read_trials(path: &std::path::Path) -> anyhow::Result<Vec<Trial>> {
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("reading {}", path.display()))?;
    let header = reader.headers()?.clone();
    let trial = |record: Result<csv::StringRecord, csv::Error>| {
        let record = record?;
        let trial: Trial = record.deserialize(Some(&header))?;
        let columns = header.iter().zip(&record).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Trial { columns, ..trial })
    };
    let trials: Result<Vec<Trial>, csv::Error> = reader.records().map(trial).collect();
    trials.with_context(|| format!("reading {}", path.display()))
}

impl Outcome {
    /// What the program exited with.
    pub fn code(&self) -> Option<i32> {
        self.ended.code
    }

    /// The line that begins with ANSWER.
    ///
    /// # Errors
    /// If there is not exactly one.
    pub fn answer(&self) -> anyhow::Result<&str> {
        let mut lines = self.ended.stdout.lines().filter(|line| line.starts_with("ANSWER"));
        let line = lines.next().context("no ANSWER")?;
        ensure!(lines.next().is_none(), "two ANSWERs:\n{self}");
        Ok(line)
    }

    /// The largest rate that passed, from the ANSWER line, whether or not it is a lower bound.
    pub fn max_rps(&self) -> Option<f64> {
        let rest = self.answer().ok()?.split_once("max RPS ")?.1;
        rest.split_whitespace().nth(1)?.parse().ok()
    }

    /// The trial that decided a rate: the first conclusive one, or the last.
    ///
    /// # Errors
    /// If the rate was not held.
    pub fn trial_at(&self, rate: f64) -> anyhow::Result<&Trial> {
        let mut at_rate = self.trials.iter().filter(|trial| (trial.target_rate - rate).abs() < 0.001);
        let conclusive = at_rate.clone().find(|trial| trial.verdict != Verdict::Inconclusive);
        conclusive.or(at_rate.next_back()).with_context(|| format!("{rate}/s was not held:\n{self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ended { code, signal, stdout, stderr } = &self.ended;
        write!(f, "exit {code:?}, signal {signal:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}
