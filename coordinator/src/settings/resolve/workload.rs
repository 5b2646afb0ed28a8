//! The workload that was named, of the settings that it takes.

use plimsoll_agent::shell::files;
use plimsoll_common::plan::Workload;
use plimsoll_common::workload::{self, BadSetting, Given, SettingKind};

use crate::settings::commands::LoadCommand;
use crate::settings::error::SettingsError;
use crate::settings::layers::Layers;
use crate::settings::values::{Named, Values};

/// The workload that was named, of the settings that it takes.
pub(super) fn workload(command: LoadCommand, layers: &Layers, values: &Values) -> Result<Workload, SettingsError> {
    let known = || workload::names().into_iter().filter(|name| command.drives(name)).collect::<Vec<_>>().join(", ");
    let entry = match layers.workload().filter(|entry| command.drives(entry.name)) {
        Some(entry) => entry,
        None => {
            let name = values.required("workload", "messages")?;
            let own = LoadCommand::ALL.into_iter().find(|other| other.workload() == Some(name.text()));
            let instead = own.map_or(String::new(), |own| format!("; its levels are users: `plimsoll {}`", own.name()));
            return Err(name.takes(format!("{}{instead}", known())));
        }
    };
    for setting in command.settings().filter(|setting| !setting.is_of(entry.name)) {
        if let Some(value) = values.optional(setting.name) {
            let takers = setting.workloads.join(", ");
            return Err(value.error(format!("the workload {} does not take it: only {takers}", entry.name)));
        }
    }
    let files = (entry.settings.iter().filter(|setting| setting.kind == SettingKind::File))
        .filter_map(|setting| {
            let saved = layers.saved_text(setting.name).cloned();
            let text = || Some(file_text(&values.optional(setting.name)?));
            Some((setting.name, saved.map(Ok).or_else(text)?))
        })
        .map(|(name, text)| Ok((name, text?)))
        .collect::<Result<Vec<(&str, String)>, SettingsError>>()?;
    let text = |name: &str| {
        let in_file = files.iter().find(|(file, _)| *file == name).map(|(_, text)| text.clone());
        in_file.or_else(|| layers.get(name).map(|given| given.value.clone()))
    };
    (entry.read)(&Given::new(&text)).map_err(|error| match error {
        BadSetting::Missing { name, takes } => values.missing(name, takes),
        BadSetting::Value { name, problem } if entry.setting(name).is_some_and(|s| s.kind == SettingKind::File) => {
            let path = values.optional(name).map(|value| value.text().to_owned()).unwrap_or_default();
            SettingsError::Value { place: format!("--{name}: {path}"), problem }
        }
        BadSetting::Value { name, problem } => match values.optional(name) {
            Some(value) => value.error(problem),
            None => SettingsError::Value { place: format!("--{name}"), problem },
        },
    })
}

/// More text than this is no description of anything.
const MOST_FILE_BYTES: u64 = 1024 * 1024;

/// The text of the file that a setting names.
fn file_text(value: &Named) -> Result<String, SettingsError> {
    let error = |why| value.takes(format!("the path of a text file: {why}"));
    files::read_text(value.text(), MOST_FILE_BYTES).map_err(error)
}
