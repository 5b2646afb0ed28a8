//! The commands that work on saved runs. They have few settings of their own, so these are
//! flags alone.

use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches as _, Subcommand, ValueEnum};

/// What is asked of saved runs.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum SavedCommand {
    /// Renders a saved run again
    #[command(after_help = REPORT_EXAMPLES)]
    Report(Report),
}

const REPORT_EXAMPLES: &str = "\
Exit codes: 0 rendered, 2 no saved run, of a newer format, or damaged.

Examples:
  plimsoll report results/20260102-030405-messages
  plimsoll report results/20260102-030405-messages --format markdown";

/// `plimsoll report`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Report {
    /// The directory of a saved run
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// How it is rendered: text is what the run printed
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
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
