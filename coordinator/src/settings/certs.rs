//! `plimsoll certs`: what is asked of it, in flags alone.

use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches as _, Subcommand};

/// The commands about certificates.
#[derive(Debug, Clone, PartialEq, Subcommand)]
enum CertsCommand {
    /// Creates a CA, and the certificates by which a coordinator and its agents authenticate each other
    #[command(after_help = EXAMPLES)]
    Certs(Certs),
}

const EXAMPLES: &str = "\
Writes ca.pem, ca.key, and NAME.pem and NAME.key for the coordinator and each agent. An existing CA signs the new ones, and an
existing certificate of the coordinator stays, so that agents can be added later. Keep ca.key where no agent runs. Private keys
are readable by you only.

Exit codes: 0 written, 2 nothing was written, 3 written, but standard output cannot be.

Examples:
  plimsoll certs --dir certs --agent box-1 --agent box-2=box-2.example.com,10.0.0.2
  plimsoll certs --dir certs --agent box-3 --days 90
  plimsoll certs --dir certs --agent box-1 --force";

/// `plimsoll certs`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Certs {
    /// The directory to write to, created if it does not exist
    #[arg(long, value_name = "DIR", env = "PLIMSOLL_CERTS_DIR", default_value = "certs")]
    pub dir: PathBuf,
    /// An agent: its name, and any further names and addresses under which --agents reaches it; may be repeated
    #[arg(long = "agent", value_name = "NAME[=NAME|IP,…]")]
    pub agents: Vec<String>,
    /// The name in the coordinator's certificate, which agents accept by --allow-coordinator
    #[arg(long, value_name = "NAME", env = "PLIMSOLL_CERTS_COORDINATOR", default_value = "plimsoll-coordinator")]
    pub coordinator: String,
    /// How long the certificates of agents and coordinator are valid, from now
    #[arg(long, value_name = "DAYS", env = "PLIMSOLL_CERTS_DAYS", default_value = "397", value_parser = clap::value_parser!(u32).range(1..=825))]
    pub days: u32,
    /// Replace existing certificates and keys of these names; never the CA's
    #[arg(long)]
    pub force: bool,
}

/// Adds the command to those of the program.
pub fn augment(command: clap::Command) -> clap::Command {
    CertsCommand::augment_subcommands(command)
}

/// What was asked for, if it is this.
///
/// # Errors
/// Clap's.
pub fn parse(matches: &ArgMatches) -> Option<Result<Certs, clap::Error>> {
    let name = matches.subcommand_name()?;
    let parsed = || CertsCommand::from_arg_matches(matches).map(|CertsCommand::Certs(certs)| certs);
    CertsCommand::has_subcommand(name).then(parsed)
}
