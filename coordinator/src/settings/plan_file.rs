//! A TOML file with settings under the names of their flags. Every error names the file, the line and the key.

use std::collections::HashMap;

use plimsoll_agent::shell::files::{self, ReadError};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::commands::LoadCommand;
use super::error::SettingsError;
use super::table::{self, Kind, Setting};

/// What a plan file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanFile {
    /// As given.
    pub path: String,
    /// By the setting's name.
    pub entries: HashMap<&'static str, Entry>,
}

/// One key of a plan file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As a flag takes it.
    pub value: String,
    /// Of the key, from 1.
    pub line: usize,
}

/// A plan file larger than this is another file.
const MOST_BYTES: u64 = 1024 * 1024;

/// Reads a plan file for this command.
///
/// # Errors
/// It cannot be read, is no TOML, or holds a key or a value that no setting of the command has.
pub fn read(path: &str, command: LoadCommand) -> Result<PlanFile, SettingsError> {
    let error = |problem: String| SettingsError::PlanFile { path: path.to_owned(), problem };
    let text = files::read_text(path, MOST_BYTES).map_err(|cause| match cause {
        ReadError::TooLarge { bytes, .. } => {
            error(format!("{bytes} bytes are too many for a plan: expected a TOML file of settings"))
        }
        ReadError::Io(cause) => error(cause.to_string()),
    })?;
    parse(path, &text, command)
}

/// Reads the text of a plan file.
///
/// # Errors
/// It is no TOML, or holds a key or a value that no setting of the command has.
pub fn parse(path: &str, text: &str, command: LoadCommand) -> Result<PlanFile, SettingsError> {
    let error = |problem: String| SettingsError::PlanFile { path: path.to_owned(), problem };
    let line_at = |offset: usize| text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1;
    let table: Spanned<DeTable> = DeTable::parse(text).map_err(|cause| {
        let line = cause.span().map_or(1, |span| line_at(span.start));
        error(format!("line {line}: {}", cause.message()))
    })?;
    let mut entries = HashMap::new();
    for (key, value) in table.get_ref() {
        let name: &str = key.get_ref();
        let line = line_at(key.span().start);
        let problem = |words: String| error(format!("line {line}: {words}"));
        let setting = table::find(name)
            .filter(|setting| setting.in_plan_file())
            .ok_or_else(|| problem(format!("unknown key '{name}': expected {}", known_keys(command))))?;
        if !command.takes(setting) {
            return Err(problem(format!("'{name}' is no key of {}: expected {}", command.name(), known_keys(command))));
        }
        let value = as_flag(setting, value.get_ref()).ok_or_else(|| {
            problem(format!("key '{name}' is {}, expected {}", describe(value.get_ref()), takes(setting)))
        })?;
        entries.insert(setting.name, Entry { value, line });
    }
    Ok(PlanFile { path: path.to_owned(), entries })
}

fn known_keys(command: LoadCommand) -> String {
    let names: Vec<&str> =
        command.settings().filter(|setting| setting.in_plan_file()).map(|setting| setting.name).collect();
    names.join(", ")
}

fn as_flag(setting: &Setting, value: &DeValue) -> Option<String> {
    match (setting.kind, value) {
        (Kind::Switch, DeValue::Boolean(on)) => Some(on.to_string()),
        (Kind::Switch, _) => None,
        (Kind::List, DeValue::Array(items)) => {
            let items: Option<Vec<String>> = items.iter().map(|item| scalar(item.get_ref())).collect();
            Some(items?.join(","))
        }
        (_, value) => scalar(value),
    }
}

fn scalar(value: &DeValue) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

fn describe(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn takes(setting: &Setting) -> &'static str {
    match setting.kind {
        Kind::Switch => "true or false",
        Kind::List => "a text, a number, or an array of them",
        _ => "a text or a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        parse("plan.toml", text, LoadCommand::MaxRps).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn values_come_out_as_flags_take_them() {
        let file = parse(
            "plan.toml",
            "# a plan\npreset = \"medium\"\nsteps = [500, \"1k\"]\nseed = 7\nslo-error-rate = 0.01\nno-stop-on-trip = true\n",
            LoadCommand::MaxRps,
        )
        .unwrap();
        let value = |name: &str| file.entries[name].value.clone();
        assert_eq!(value("preset"), "medium");
        assert_eq!(value("steps"), "500,1k");
        assert_eq!(value("seed"), "7");
        assert_eq!(value("slo-error-rate"), "0.01");
        assert_eq!(value("no-stop-on-trip"), "true");
        assert_eq!(file.entries["steps"].line, 3);
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let unknown = check("preset = \"medium\"\nholt = \"30s\"\n");
        assert!(
            unknown.starts_with("--plan: plan.toml: line 2: unknown key 'holt': expected workload, preset,"),
            "{unknown}"
        );
        assert_eq!(
            check("hold = true"),
            "--plan: plan.toml: line 1: key 'hold' is true or false, expected a text or a number"
        );
        assert_eq!(
            check("\nno-stop-on-trip = \"yes\""),
            "--plan: plan.toml: line 2: key 'no-stop-on-trip' is a text, expected true or false"
        );
        assert_eq!(
            check("[load]\nhold = \"30s\""),
            format!("--plan: plan.toml: line 1: unknown key 'load': expected {}", known_keys(LoadCommand::MaxRps))
        );
        let of_run = parse("plan.toml", "rate = 500\nsteps = [1, 2]", LoadCommand::Run).unwrap_err().to_string();
        assert!(
            of_run.starts_with("--plan: plan.toml: line 2: 'steps' is no key of run: expected workload, "),
            "{of_run}"
        );
        assert!(check("plan = \"other.toml\"").contains("unknown key 'plan'"));
        assert!(check("preset = \"medium\"\npreset = \"small\"").contains("line 2: duplicate key"));
        assert!(check("preset = ").starts_with("--plan: plan.toml: line 1: "));
        let absent = read("/nonexistent/plan.toml", LoadCommand::MaxRps).unwrap_err().to_string();
        assert!(absent.starts_with("--plan: /nonexistent/plan.toml: No such file"), "{absent}");
    }
}
