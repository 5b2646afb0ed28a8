//! `plimsoll completions` and `plimsoll man`: what is asked of them, in flags alone.

use std::path::PathBuf;

use clap::{ArgMatches, FromArgMatches as _, Subcommand};
use clap_complete::Shell;

/// The commands about this program's own command line.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ManualCommand {
    /// Prints a shell completion script for this program
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Writes this program's manual pages, one for each command
    #[command(after_help = MAN)]
    Man {
        /// The directory to write to, created if it does not exist
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

const COMPLETIONS: &str = "\
`plimsoll-agent completions` does the same for the agent; `make install` installs both.

Exit codes: 0 printed, 2 usage, 3 standard output cannot be written.

Examples:
  plimsoll completions bash
  plimsoll completions zsh";

const MAN: &str = "\
`plimsoll-agent man` does the same for the agent; `make install` installs both.

Exit codes: 0 written, 2 not written.

Examples:
  plimsoll man --dir man1";

/// Adds the commands to those of the program.
pub fn augment(command: clap::Command) -> clap::Command {
    ManualCommand::augment_subcommands(command)
}

/// The command that was asked for, if it is one of these.
///
/// # Errors
/// Clap's.
pub fn parse(matches: &ArgMatches) -> Option<Result<ManualCommand, clap::Error>> {
    matches.subcommand_name().filter(|name| ManualCommand::has_subcommand(name))?;
    Some(ManualCommand::from_arg_matches(matches))
}
