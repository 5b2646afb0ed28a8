//! The commands that work on saved runs. They have few settings of their own, so these are
//! flags alone.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches as _, Subcommand, ValueEnum};

use super::commands::LoadCommand;
use super::error::{SettingsError, got};
use super::layers::{Environment, Layers};
use super::plan::RunPlan;
use super::resolve::resolve;
use crate::core::slo::Fraction;

/// What is asked of saved runs.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum SavedCommand {
    /// Renders a saved run again
    #[command(after_help = REPORT_EXAMPLES)]
    Report(Report),
    /// Tells whether the answer or a tail latency of run B is significantly worse than run A's
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(Compare),
    /// Resumes a saved run that was killed or interrupted, keeping its trials
    #[command(after_help = RESUME_EXAMPLES)]
    Resume(Resume),
}

const RESUME_EXAMPLES: &str = "\
Everything is as the run was planned. What a URL carried before its '@' is not saved: give it again by the flag or its
variable (PLIMSOLL_NATS_URL, NATS_URL, PLIMSOLL_JSZ_URL, PLIMSOLL_MONGO_URI, MONGO_URI).

Exit codes: as of the run.

Examples:
  plimsoll resume results/20260102-030405-messages
  plimsoll resume results/20260102-030405-messages --agents box-1:7700,box-2:7700";

const REPORT_EXAMPLES: &str = "\
Exit codes: 0 rendered, 2 no saved run, of a newer format, or damaged, 3 standard output cannot be written.

Examples:
  plimsoll report results/20260102-030405-messages
  plimsoll report results/20260102-030405-messages --format markdown
  plimsoll report results/20260102-030405-messages --explain";

const COMPARE_EXAMPLES: &str = "\
Exit codes: 0 no regression, 1 B is significantly worse by more than the tolerance, 2 the runs cannot be compared,
3 standard output cannot be written.

Examples:
  plimsoll compare results/20260102-030405-messages results/20260109-030405-messages
  plimsoll compare before after --tolerance 10% --ignore-config";

/// `plimsoll report`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Report {
    /// The directory of a saved run
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Output format; text is what the run printed
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Show every trial of a search, even if the run did not
    #[arg(long)]
    pub explain: bool,
}

/// How a report is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// As the run printed it.
    Text,
    /// One row per trial.
    Csv,
    /// For programs.
    Json,
    /// For pages and pull requests.
    Markdown,
}

/// `plimsoll compare`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Compare {
    /// The directory of the run to compare with
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// The directory of the run in question
    #[arg(value_name = "B")]
    pub after: PathBuf,
    /// A significant change up to this much is no regression
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    pub tolerance: Fraction,
    /// Compare even if server, streams or consumers are configured differently
    #[arg(long)]
    pub ignore_config: bool,
}

/// `plimsoll resume`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Resume {
    /// The directory of the run to resume
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The service's NATS, the same as before
    #[arg(long, value_name = "URL")]
    pub nats_url: Option<String>,
    /// The NATS credentials file
    #[arg(long, value_name = "PATH")]
    pub nats_creds: Option<String>,
    /// The monitoring URL, the same as before
    #[arg(long, value_name = "URL")]
    pub jsz_url: Option<String>,
    /// The chat's MongoDB, the same as before
    #[arg(long, value_name = "URI")]
    pub mongo_uri: Option<String>,
    /// The agents that generate the load from now on
    #[arg(long, value_name = "HOST:PORT,…")]
    pub agents: Option<String>,
    /// Resume even if server, streams or consumers are configured differently now
    #[arg(long)]
    pub ignore_config: bool,
}

impl Resume {
    /// By the names of their settings.
    pub fn flags(&self) -> HashMap<&'static str, String> {
        let given = [
            ("nats-url", &self.nats_url),
            ("nats-creds", &self.nats_creds),
            ("jsz-url", &self.jsz_url),
            ("mongo-uri", &self.mongo_uri),
            ("agents", &self.agents),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

fn percent(text: &str) -> Result<Fraction, String> {
    let fraction = || {
        let percent: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
        Fraction::try_from(percent / 100.0).ok()
    };
    fraction().ok_or_else(|| got(text, "a percentage from 0% to 100%, such as 5%"))
}

/// Adds the commands to those of the program.
pub fn augment(command: clap::Command) -> clap::Command {
    SavedCommand::augment_subcommands(command)
}

/// The command that was asked for, if it is one of these.
///
/// # Errors
/// Clap's.
pub fn parse(matches: &ArgMatches) -> Option<Result<SavedCommand, clap::Error>> {
    let name = matches.subcommand_name()?;
    SavedCommand::has_subcommand(name).then(|| SavedCommand::from_arg_matches(matches))
}

/// The plan of a saved run, to go on with it.
///
/// # Errors
/// A secret is missing, the target is another, or what was saved is none of this release's settings.
pub fn plan_again(
    command: LoadCommand,
    settings: &BTreeMap<String, String>,
    ask: &Resume,
    environment: Environment,
) -> Result<RunPlan, SettingsError> {
    resolve(command, &Layers::of_saved(command, settings, &ask.flags(), environment)?)
}
