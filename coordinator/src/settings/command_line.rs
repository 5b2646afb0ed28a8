//! The command line: one flag per setting of the table, with its variable and default in the help.

use std::collections::HashMap;
use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::table::{DefaultValue, Kind, SETTINGS, Setting};

/// Reads the flags that were given, by the names of their settings.
///
/// # Errors
/// An argument that there is not; or help or version, which clap prints in place of an error.
pub fn flags(arguments: impl IntoIterator<Item = OsString>) -> Result<HashMap<&'static str, String>, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let Some(("max-rps", flags)) = matches.subcommand() else { return Ok(HashMap::new()) };
    Ok(SETTINGS.iter().filter_map(|setting| Some((setting.name, given(setting, flags)?))).collect())
}

fn given(setting: &Setting, flags: &ArgMatches) -> Option<String> {
    let values: Vec<&str> = flags.get_many::<String>(setting.name)?.map(String::as_str).collect();
    Some(values.join(","))
}

/// `plimsoll`, for parsing and for its help.
pub fn command() -> Command {
    Command::new("plimsoll")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Finds the largest load a NATS-based service carries while every service-level objective holds")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(max_rps())
}

fn max_rps() -> Command {
    Command::new("max-rps")
        .about("Ramps a request rate over a fleet of agents and prints the largest that holds every objective")
        .args(SETTINGS.iter().map(flag))
        .after_help(EXAMPLES)
}

const EXAMPLES: &str = "\
Each flag wins over its PLIMSOLL_ variable, that over variables such as NATS_URL, those over the plan file.

Exit codes: 0 an answer, 1 no step passed, 2 usage or configuration, 3 the run could not be completed,
4 measured but INCONCLUSIVE, 130 interrupted.

Examples:
  plimsoll max-rps --preset medium
  plimsoll max-rps --preset medium --agents box-1:7700,box-2:7700 --nats-url nats://chat:4222
  plimsoll max-rps --preset realistic --steps 200,400,800 --slo E2:p99=400ms --csv steps.csv
  plimsoll max-rps --plan nightly.toml --dry-run";

fn flag(setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.name).long(setting.name).help(help(setting)).help_heading(setting.heading);
    match setting.kind {
        _ if setting.is_switch() => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true)
            .value_name("true|false"),
        Kind::List => arg.action(ArgAction::Append).value_name(setting.value),
        _ => arg.action(ArgAction::Set).value_name(setting.value),
    }
}

fn help(setting: &Setting) -> String {
    let native = setting.native.map(|name| format!(", {name}")).unwrap_or_default();
    let default = match setting.default {
        DefaultValue::Required => " [required]".to_owned(),
        DefaultValue::Text(text) | DefaultValue::Derived(text) => format!(" [default: {text}]"),
        DefaultValue::Nothing => String::new(),
    };
    format!("{} [env: {}{native}]{default}", setting.help, setting.variable)
}
