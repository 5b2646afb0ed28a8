//! `plimsoll calibrate`: what is asked of it, in flags, and the variables that say where agents are.

use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches as _, Subcommand};
use plimsoll_common::calibration::MOST_BYTES;
use plimsoll_common::plan::Workload;
use plimsoll_common::workload::{self, Entry, Given, SettingDefault};

use super::agents::{Reach, ReachFlags};
use super::error::{SettingsError, got};
use super::layers::Environment;

#[derive(Debug, Subcommand)]
enum Calibrating {
    /// Measures how much load each agent's box can generate, and saves it for later runs
    #[command(after_help = EXAMPLES)]
    Calibrate(CalibrateFlags),
}

const EXAMPLES: &str = "\
Every agent is leased for about two seconds, in which its workers drive a null target in their own process: nothing is sent to
any service. The result is an upper bound for the workload, which does more work per operation.

Exit codes: 0 measured and saved, 2 usage or configuration, 3 an agent was lost, 130 interrupted.

Examples:
  plimsoll calibrate --agents box-1:7700,box-2:7700 --save ceilings.toml
  plimsoll max-rps --preset medium --agents box-1:7700,box-2:7700 --ceilings ceilings.toml";

#[derive(Debug, Args)]
struct CalibrateFlags {
    #[command(flatten)]
    reach: ReachFlags,
    /// The workload that the ceilings are for; runs of another workload refuse them
    #[arg(long, value_name = "NAME", default_value = "messages")]
    workload: String,
    /// Bytes of a request [default: what a message of the workload's medium preset takes, at least 64]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_BYTES)))]
    request_bytes: Option<u32>,
    /// Bytes of a reply
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_BYTES)))]
    reply_bytes: u32,
    /// The file to save the ceilings to, for --ceilings of later runs
    #[arg(long, value_name = "FILE", default_value = "ceilings.toml")]
    save: PathBuf,
}

/// `plimsoll calibrate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrateCommand {
    /// Where the agents are.
    pub reach: Reach,
    /// What the ceilings are for.
    pub workload: String,
    /// Of a request to the null target.
    pub request_bytes: u32,
    /// Of its reply.
    pub reply_bytes: u32,
    /// Where the ceilings are kept.
    pub save: PathBuf,
}

/// Adds the command to those of the program.
pub fn augment(command: clap::Command) -> clap::Command {
    Calibrating::augment_subcommands(command)
}

/// The command that was asked for, if it is this.
///
/// # Errors
/// Clap's, and where agents or workload are named badly.
pub fn parse(
    matches: &ArgMatches,
    environment: Environment,
) -> Option<Result<Result<CalibrateCommand, SettingsError>, clap::Error>> {
    matches.subcommand_name().filter(|name| Calibrating::has_subcommand(name))?;
    Some(Calibrating::from_arg_matches(matches).map(|Calibrating::Calibrate(flags)| command(flags, environment)))
}

fn command(flags: CalibrateFlags, environment: Environment) -> Result<CalibrateCommand, SettingsError> {
    let CalibrateFlags { reach, workload, request_bytes, reply_bytes, save } = flags;
    if workload::entry(&workload).is_none() {
        let problem = got(&workload, workload::names().join(", "));
        return Err(SettingsError::Value { place: "--workload".to_owned(), problem });
    }
    let request_bytes = request_bytes.unwrap_or_else(|| message_bytes(&workload));
    Ok(CalibrateCommand { reach: reach.read(environment)?, workload, request_bytes, reply_bytes, save })
}

/// Bytes of what one operation sends, as far as its streams tell.
fn message_bytes(name: &str) -> u32 {
    const LEAST: u32 = 64;
    let Some(entry) = workload::entry(name) else { return LEAST };
    let of_preset = |preset: &str| {
        let value = |setting: &str| match setting {
            "preset" => Some(preset.to_owned()),
            "site-id" => Some("site".to_owned()),
            setting => default_of(entry, setting).map(str::to_owned),
        };
        Workload::read(name, &Given::new(&value)).ok()
    };
    // A preset says how much there is of everything, not how large a message is; `daily` has others.
    let Some(workload) = ["medium", "daily-heavy"].into_iter().find_map(of_preset) else { return LEAST };
    let bytes = workload.streams().into_iter().map(|(_, bytes)| bytes).max().unwrap_or_default();
    u32::try_from(bytes).unwrap_or(MOST_BYTES).clamp(LEAST, MOST_BYTES)
}

fn default_of(entry: &Entry, setting: &str) -> Option<&'static str> {
    entry.default_of(setting).or_else(|| match entry.setting(setting)?.default {
        SettingDefault::Text(text) => Some(text),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_large_as_what_the_workload_sends() {
        assert_eq!(message_bytes("messages"), 200);
        assert_eq!(message_bytes("history"), 64);
        assert_eq!(message_bytes("custom"), 64);
        assert!(message_bytes("daily") > 500, "people write longer messages: {}", message_bytes("daily"));
    }
}
