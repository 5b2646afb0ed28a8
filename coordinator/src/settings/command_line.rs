//! The command line: one flag per setting of the table, with its variable and default in the help.

use std::collections::HashMap;
use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::commands::LoadCommand;
use super::table::{DefaultValue, Kind, Setting, words_of};
use plimsoll_common::workload;

/// Reads which command is asked for, and the flags that were given, by the names of their settings.
///
/// # Errors
/// An argument that there is not; or help or version, which clap prints in place of an error.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<(LoadCommand, Flags), clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let (name, flags) = matches.subcommand().expect("clap asks for a command");
    let command = LoadCommand::find(name).expect("clap knows no other command");
    let given = command.settings().filter_map(|setting| Some((setting.name, given(setting, flags)?)));
    Ok((command, given.collect()))
}

/// Flags that were given, by the names of their settings.
pub type Flags = HashMap<&'static str, String>;

fn given(setting: &Setting, flags: &ArgMatches) -> Option<String> {
    let values: Vec<&str> = flags.get_many::<String>(setting.name)?.map(String::as_str).collect();
    Some(values.join(","))
}

/// What the program is for.
const ABOUT: &str = "Finds the largest load a NATS-based service carries while every service-level objective holds";

/// `plimsoll`, for parsing and for its help.
pub fn command() -> Command {
    let command = Command::new("plimsoll")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(LoadCommand::ALL.map(load_command));
    let command = super::certs::augment(super::saved::augment(command));
    let command = super::calibrate::augment(super::agents::augment(command));
    // Each of these sets it to what it says of itself.
    super::manual::augment(super::kube::augment(command)).about(ABOUT)
}

fn load_command(command: LoadCommand) -> Command {
    let examples: Vec<String> = command.examples().iter().map(|example| format!("  {example}")).collect();
    let after = format!(
        "A flag overrides its PLIMSOLL_ variable, that one variables such as NATS_URL, and those the plan file.\n\n\
         {}\n\nExamples:\n{}",
        command.exit_codes(),
        examples.join("\n")
    );
    Command::new(command.name())
        .about(command.about())
        .args(command.settings().map(|setting| flag(command, setting)))
        .after_help(after)
}

fn flag(command: LoadCommand, setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.name).long(setting.name).help(help(command, setting)).help_heading(setting.heading);
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

fn help(command: LoadCommand, setting: &Setting) -> String {
    let native = setting.native.map(|name| format!(", {name}")).unwrap_or_default();
    let own = command.workload().and_then(workload::entry).and_then(|entry| entry.default_of(setting.name));
    let (help, default) = words_of(setting, command);
    let default = match default {
        _ if own.is_some() => own.map_or(String::new(), |text| format!(" [default: {text}]")),
        DefaultValue::Required => " [required]".to_owned(),
        DefaultValue::Text(text) | DefaultValue::Derived(text) => format!(" [default: {text}]"),
        DefaultValue::Nothing => String::new(),
    };
    format!("{help} [env: {}{native}]{default}", setting.variable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ExitCode;

    #[test]
    fn the_help_of_the_program_says_what_it_is_for() {
        let help = command().render_long_help().to_string();
        assert!(help.starts_with("Finds the largest load "), "{help}");
    }

    #[test]
    fn a_command_of_one_workload_names_no_defaults_of_others() {
        let help = |command: LoadCommand, name: &str| {
            let setting = command.settings().find(|setting| setting.name == name).expect(name);
            super::help(command, setting)
        };
        let others = ["history", "room-read", "members", "custom"];
        for setting in LoadCommand::Daily.settings() {
            let words = help(LoadCommand::Daily, setting.name);
            assert!(!others.iter().any(|other| words.contains(&format!("{other}: "))), "{words}");
        }
        let from = help(LoadCommand::Daily, "from");
        assert!(from.ends_with(" [default: a 64th of --users, at least 10]"), "{from}");
        let (from, steps) = (help(LoadCommand::MaxRps, "from"), help(LoadCommand::MaxRps, "steps"));
        assert!(from.contains("a probe of one second") && !from.contains("64th"), "{from}");
        assert!(steps.contains("history: 200,500,1k,2k,5k; "), "{steps}");
    }

    #[test]
    fn helps_name_exit_codes_that_there_are_and_what_a_signal_ends_with() {
        let all = ExitCode::ALL.map(|code| code as u32);
        for name in ["max-rps", "daily", "run", "seed", "verify", "teardown", "agents", "calibrate"] {
            let mut command = command();
            let help = command.find_subcommand_mut(name).expect(name).render_long_help().to_string();
            let (_, codes) = help.split_once("Exit codes: ").expect(name);
            let (codes, _) = codes.split_once("\n\n").unwrap_or((codes, ""));
            // However wide the terminal is.
            let codes = codes.split_whitespace().collect::<Vec<_>>().join(" ");
            let told: Vec<u32> = codes.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok()).collect();
            assert!(told.len() > 2 && told.iter().all(|code| all.contains(code)), "{name}: {codes}");
            let interrupted = codes.split(", ").find(|part| part.contains("interrupted"));
            assert!(interrupted.is_some_and(|part| part.starts_with("130 ")), "{name}: {codes}");
        }
    }
}
