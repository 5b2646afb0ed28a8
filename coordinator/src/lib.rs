//! `plimsoll`, the CLI on the control host.
//!
//! The command line, variables and a plan file become a [`settings::RunPlan`]; [`shell`] carries it out with a fleet of
//! agents, asking [`core`] for every decision; [`report`] turns what came of it into text and CSV; [`results`] saves it as
//! it comes and reads it again; [`seed`] fills the databases behind the target; [`certs`] makes the fleet's certificates; [`kube`] makes a run in a cluster; [`exit`] says what the process ends with.

mod awaited;
pub mod certs;
pub mod core;
pub mod exit;
pub mod kube;
pub mod report;
pub mod results;
pub mod seed;
pub mod settings;
pub mod shell;

use std::path::Path;

use core::answer::Ending;
use exit::{ExitCode, Failure};
use plimsoll_agent::shell::{logs, manual};
use results::RunKind;
use settings::Environment;
use settings::RunPlan;
use settings::agents::Reach;
use settings::calibrate::CalibrateCommand;
use settings::commands::LoadCommand;
use settings::manual::ManualCommand;
use settings::saved::{Format, Resume, SavedCommand};
use settings::seeding::{SeedPlan, TeardownPlan};
use shell::run::Before;
use shell::signals::Interrupt;

/// Makes the load of a plan, judges it, and writes the report to stdout.
///
/// # Errors
/// The run could not be set up; no load was started.
pub async fn run(plan: &RunPlan) -> Result<ExitCode, Failure> {
    run_on(plan, None).await
}

/// Goes on with a saved run.
///
/// # Errors
/// It cannot be read, has come to its end, or could not be set up; no load was started.
pub async fn resume(ask: &Resume, environment: Environment<'_>) -> Result<ExitCode, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    let run = results::read::read(&ask.dir).map_err(|error| usage(&error))?;
    if run.ending == Some(Ending::Completed) {
        let dir = ask.dir.display();
        return Err(Failure::Usage(format!("'{dir}' came to its end: `plimsoll report {dir}` shows it again")));
    }
    if run.header.kind == RunKind::Soak && !run.trials.is_empty() {
        let dir = ask.dir.display();
        return Err(Failure::Usage(format!(
            "'{dir}' is a soak that was ended early: the time in between is missing in it, so start it anew; \
             `plimsoll report {dir}` shows what it measured"
        )));
    }
    let command = match run.header.kind {
        RunKind::Steps | RunKind::Find if LoadCommand::Daily.drives(&run.header.workload) => LoadCommand::Daily,
        RunKind::Steps | RunKind::Find => LoadCommand::MaxRps,
        RunKind::Soak => LoadCommand::Run,
    };
    let plan = settings::saved::plan_again(command, &run.header.settings, ask, environment).map_err(|e| usage(&e))?;
    run_on(&plan, Some(Before { dir: ask.dir.clone(), run, ignore_config: ask.ignore_config })).await
}

async fn run_on(plan: &RunPlan, before: Option<Before>) -> Result<ExitCode, Failure> {
    let report = shell::run::run(plan, before, listen()?).await?;
    to_stdout(&report::render(&report))?;
    if let Some(search) = &report.search {
        return Ok(core::search::conclusion::exit_code(search.next(), &report.ending));
    }
    let trials: Vec<_> = report.trials.iter().map(|trial| trial.judged.clone()).collect();
    Ok(core::answer::answer(&trials).exit_code(&report.ending))
}

/// Says what a run would do.
///
/// # Errors
/// A step cannot be split over the fleet, or its users take too many connections.
pub fn dry_run(plan: &RunPlan) -> Result<ExitCode, Failure> {
    let text = settings::dry_run::describe(plan).map_err(Failure::Usage)?;
    to_stdout(&text)?;
    Ok(ExitCode::Answer)
}

/// Writes what a run needs into the databases.
///
/// # Errors
/// It could not begin, or not go on.
pub async fn seed(plan: &SeedPlan) -> Result<ExitCode, Failure> {
    if plan.dry_run {
        to_stdout(&seed::write::describe(plan).map_err(Failure::Usage)?)?;
        return Ok(ExitCode::Answer);
    }
    unless_interrupted(GOES_ON, async {
        to_stdout(&seed::write::seed(plan).await?.words)?;
        Ok(ExitCode::Answer)
    })
    .await
}

/// Removes it.
///
/// # Errors
/// It could not begin, or not go on.
pub async fn teardown(plan: &TeardownPlan) -> Result<ExitCode, Failure> {
    unless_interrupted(GOES_ON, async {
        to_stdout(&seed::teardown::teardown(plan).await?)?;
        Ok(ExitCode::Answer)
    })
    .await
}

/// Checks that a run with this plan would find what it needs.
///
/// # Errors
/// It would not: one line for each thing, with what mends it.
pub async fn verify(plan: &RunPlan) -> Result<ExitCode, Failure> {
    unless_interrupted("not everything was compared", async {
        to_stdout(&shell::setup::verify(plan).await?)?;
        Ok(ExitCode::Answer)
    })
    .await
}

/// What the database is left with is what a crash would leave, and every write of a seeding or a removal may be made again.
const GOES_ON: &str = "the same command goes on";

/// Does what may end at any instant, and ends it on SIGINT and SIGTERM. Who does not listen for them is not ended by them as the
/// first process of a container.
async fn unless_interrupted(
    consequence: &str,
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    let interrupt = listen()?;
    tokio::select! {
        ended = command => ended,
        () = interrupt.raised() => {
            logs::say(format_args!("interrupted: {consequence}"));
            Ok(ExitCode::Interrupted)
        }
    }
}

fn listen() -> Result<Interrupt, Failure> {
    Interrupt::listen().map_err(|error| Failure::Incomplete(format!("no signals: {error}")))
}

/// Runs a command on a runtime of its own.
///
/// # Errors
/// The command's, or there is no runtime.
pub fn on_runtime(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new();
    let runtime = runtime.map_err(|error| Failure::Incomplete(format!("no runtime: {error}")))?;
    let ended = runtime.block_on(command);
    if matches!(ended, Ok(ExitCode::Interrupted) | Err(_)) {
        // A name that is being looked up would be waited for, before the error is even said.
        runtime.shutdown_background();
    }
    ended
}

/// Prints completions, or writes manual pages.
///
/// # Errors
/// They cannot be written.
pub fn manual(command: &ManualCommand) -> Result<ExitCode, Failure> {
    let of_program = settings::command_line::command();
    match command {
        ManualCommand::Completions { shell } => {
            manual::print(&manual::completions(of_program, *shell)).map_err(Failure::Incomplete)?;
        }
        ManualCommand::Man { dir } => manual::write_pages(of_program, dir).map_err(Failure::Usage)?,
    }
    Ok(ExitCode::Answer)
}

/// Lists agents.
///
/// # Errors
/// A name cannot be looked up.
pub fn agents(command: &Reach) -> Result<ExitCode, Failure> {
    on_runtime(unless_interrupted("not every agent has answered", async {
        let (table, code) = shell::describe::list(command).await?;
        to_stdout(&table)?;
        Ok(code)
    }))
}

/// Has agents measure what their boxes carry, and keeps it.
///
/// # Errors
/// An agent cannot be used, or the file cannot be written; or agents were lost, of which nothing is kept beside what the others
/// found.
pub fn calibrate(command: &CalibrateCommand) -> Result<ExitCode, Failure> {
    on_runtime(unless_interrupted("nothing was kept", async {
        let shell::calibrate::Calibrated { table, missing } = shell::calibrate::calibrate(command).await?;
        to_stdout(&table)?;
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        if missing.is_empty() {
            return Ok(ExitCode::Answer);
        }
        Err(Failure::Incomplete(missing.join("\nerror: ")))
    }))
}

/// Does what is asked of saved runs.
///
/// # Errors
/// They cannot be read, compared or resumed.
pub fn saved(command: &SavedCommand, environment: Environment) -> Result<ExitCode, Failure> {
    let read = |dir: &Path| results::read::read(dir).map_err(|error| Failure::Usage(error.to_string()));
    match command {
        SavedCommand::Report(ask) => {
            let mut report = read(&ask.dir)?.report();
            report.explain |= ask.explain;
            to_stdout(&match ask.format {
                Format::Text => report::render(&report),
                Format::Csv => report::formats::csv(&report),
                Format::Json => report::formats::json(&report),
                Format::Markdown => report::formats::markdown(&report),
            })?;
            Ok(ExitCode::Answer)
        }
        SavedCommand::Resume(ask) => on_runtime(resume(ask, environment)),
        SavedCommand::Compare(ask) => {
            let (before, after) = (read(&ask.before)?, read(&ask.after)?);
            let comparison =
                results::compare::compare(&before, &after, ask).map_err(|error| Failure::Usage(error.to_string()))?;
            to_stdout(&report::comparison::render(&comparison, ask.tolerance, before.header.unit()))?;
            Ok(if comparison.has_regression() { ExitCode::NothingPassed } else { ExitCode::Answer })
        }
    }
}

/// Writes what was asked for. A reader that has gone away, as `head` does, is no reason to fail.
///
/// # Errors
/// It cannot be written, as on a full disk: whoever reads the exit code must not take it for read.
pub fn to_stdout(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Incomplete(format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
