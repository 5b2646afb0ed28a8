//! What the user asked for: flags over variables over a plan file over defaults, checked into a [`RunPlan`].
//!
//! [`table`] declares every setting once, [`commands`] says which command takes it, [`command_line`] makes flags of it, [`layers`] picks the value that applies,
//! [`resolve`] checks it, and [`dry_run`] says what would be done.

pub mod agents;
pub mod calibrate;
pub mod certs;
pub mod command_line;
pub mod commands;
pub mod dry_run;
mod error;
pub mod kube;
mod layers;
pub mod manual;
mod plan;
mod plan_file;
mod resolve;
pub mod saved;
mod secure;
pub mod seeding;
pub mod storage;
pub mod table;
pub mod users;
mod values;

pub use error::SettingsError;
pub use layers::Environment;
pub use plan::{FindPlan, FleetChoice, GatherPlan, Goal, Login, Phases, Preflight, RunPlan, Spread, TargetChoice};

use commands::LoadCommand;
use layers::Layers;
use saved::SavedCommand;
use seeding::{SeedPlan, TeardownPlan};
use values::Values;

/// What one invocation asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Make load, and judge it.
    Load(Box<RunPlan>),
    /// Say what that would do.
    DryRun(Box<RunPlan>),
    /// Read saved runs.
    Saved(SavedCommand),
    /// Make certificates.
    Certs(certs::Certs),
    /// Make a run in a cluster.
    Kube(Box<kube::KubePlan>),
    /// Say what this program's command line is.
    Manual(manual::ManualCommand),
    /// List agents.
    Agents(agents::Reach),
    /// Measure what their boxes carry.
    Calibrate(calibrate::CalibrateCommand),
    /// Check what a run would find.
    Verify(Box<RunPlan>),
    /// Write what a run needs into the databases.
    Seed(Box<SeedPlan>),
    /// Remove it.
    Teardown(Box<TeardownPlan>),
}

/// Why an invocation asks for nothing that can be done.
#[derive(Debug, thiserror::Error)]
pub enum InvocationError {
    /// The command line is none of ours, or asks for help or version.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// A setting.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Reads the command line, the environment and the plan file they may name.
///
/// # Errors
/// A flag that there is not, or a setting that is missing or wrong.
pub fn read(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
    environment: Environment,
) -> Result<Invocation, InvocationError> {
    let arguments: Vec<std::ffi::OsString> = arguments.into_iter().collect();
    if let Some(plan) = kube::parse(&command_line::command().try_get_matches_from(&arguments)?, environment) {
        return Ok(Invocation::Kube(Box::new(plan??)));
    }
    if let Some(command) = manual::parse(&command_line::command().try_get_matches_from(&arguments)?) {
        return Ok(Invocation::Manual(command?));
    }
    if let Some(command) = saved::parse(&command_line::command().try_get_matches_from(&arguments)?) {
        return Ok(Invocation::Saved(command?));
    }
    if let Some(command) = certs::parse(&command_line::command().try_get_matches_from(&arguments)?) {
        return Ok(Invocation::Certs(command?));
    }
    if let Some(command) = agents::parse(&command_line::command().try_get_matches_from(&arguments)?, environment) {
        return Ok(Invocation::Agents(command??));
    }
    if let Some(command) = calibrate::parse(&command_line::command().try_get_matches_from(&arguments)?, environment) {
        return Ok(Invocation::Calibrate(command??));
    }
    let (command, flags) = command_line::parse(arguments)?;
    let layers = Layers::gather(command, flags, environment)?;
    let dry = Values::new(&layers).switch("dry-run")?;
    let plan = || resolve::resolve(command, &layers).map(Box::new);
    Ok(match command {
        LoadCommand::Seed => Invocation::Seed(Box::new(seeding::seed(&layers)?)),
        LoadCommand::Teardown => Invocation::Teardown(Box::new(seeding::teardown(&layers)?)),
        LoadCommand::MaxRps | LoadCommand::Run | LoadCommand::Verify | LoadCommand::Daily if dry => {
            Invocation::DryRun(plan()?)
        }
        LoadCommand::Verify => Invocation::Verify(plan()?),
        LoadCommand::MaxRps | LoadCommand::Run | LoadCommand::Daily => Invocation::Load(plan()?),
    })
}

#[cfg(test)]
mod tests;
