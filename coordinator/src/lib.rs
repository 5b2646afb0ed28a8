//! `plimsoll`, the CLI on the control host.
//!
//! The command line, variables and a plan file become a [`settings::RunPlan`]; [`shell`] carries it out with a fleet of
//! agents, asking [`core`] for every decision; [`report`] turns what came of it into text and CSV; [`exit`] says what the
//! process ends with.

pub mod core;
pub mod exit;
pub mod report;
pub mod settings;
pub mod shell;

use exit::{ExitCode, Failure};
use settings::RunPlan;
use shell::signals::Interrupt;

/// Makes the load of a plan, judges it, and writes the report to stdout.
///
/// # Errors
/// The run could not be set up; no load was started.
pub async fn run(plan: &RunPlan) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::listen().map_err(|error| Failure::Incomplete(format!("no signals: {error}")))?;
    let report = shell::run::run(plan, interrupt).await?;
    to_stdout(&report::render(&report));
    let trials: Vec<_> = report.trials.iter().map(|trial| trial.judged.clone()).collect();
    Ok(core::answer::answer(&trials).exit_code(&report.ending))
}

/// Says what a run would do.
///
/// # Errors
/// A step cannot be split over the fleet.
pub fn dry_run(plan: &RunPlan) -> Result<ExitCode, Failure> {
    let text = settings::dry_run::describe(plan).map_err(|error| Failure::Usage(format!("--steps: {error}")))?;
    to_stdout(&text);
    Ok(ExitCode::Answer)
}

/// A reader that has gone away, as `head` does, is no reason to fail.
fn to_stdout(text: &str) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        tracing::warn!(%error, "the report could not be written to stdout");
    }
}
