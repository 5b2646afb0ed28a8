//! Which settings applied, for the report and for the saved run.

use std::collections::BTreeMap;

use plimsoll_common::plan::{Workload, redact_url};
use plimsoll_common::workload::SettingKind;

use super::levels::{NOT_OF_FIND, OF_FIND};
use crate::report::Applied;
use crate::settings::commands::LoadCommand;
use crate::settings::layers::{Layers, text_of_file};
use crate::settings::plan::FleetChoice;
use crate::settings::table::{DefaultValue, STORAGE, Setting, default_for};
use crate::settings::users;

/// Where no database is named, what else is said of databases says nothing.
fn says_something(setting: &Setting, layers: &Layers) -> bool {
    setting.heading != STORAGE || layers.get("mongo-uri").is_some()
}

/// Every setting that has a value. A fleet that was made out from this machine is named: another one would make another.
pub(super) fn settings(
    command: LoadCommand,
    layers: &Layers,
    fleet: &FleetChoice,
    workload: &Workload,
) -> BTreeMap<String, String> {
    let of_run = command.settings().filter(|setting| setting.in_plan_file() && says_something(setting, layers));
    let row = |setting: &Setting| Some((setting.name.to_owned(), redact_url(&layers.get(setting.name)?.value)));
    let mut settings: BTreeMap<String, String> = of_run.filter_map(row).collect();
    // A file may be changed before the run is resumed or compared.
    let is_file = |name: &str| workload.entry().setting(name).is_some_and(|setting| setting.kind == SettingKind::File);
    let files = workload.settings().into_iter().filter(|(name, _)| is_file(name));
    settings.extend(files.map(|(name, text)| (text_of_file(name), text)));
    match fleet {
        FleetChoice::Remote(_) => settings.remove("local"),
        FleetChoice::Local(agents) => {
            settings.remove("agents");
            settings.insert("local".to_owned(), agents.to_string())
        }
    };
    settings
}

/// Every setting that says something, in the table's order, secrets hidden.
pub(super) fn applied(command: LoadCommand, layers: &Layers, fleet: &FleetChoice, workload: &Workload) -> Vec<Applied> {
    let other_fleet = match fleet {
        FleetChoice::Remote(_) => "local",
        FleetChoice::Local(_) => "agents",
    };
    let finds = layers.get("find").is_some_and(|given| matches!(given.value.as_str(), "true" | "1"));
    let idle: &[&str] = if finds { &NOT_OF_FIND } else { &OF_FIND };
    let applies = |setting: &&Setting| {
        let is_idle = setting.name == other_fleet || idle.contains(&setting.name);
        setting.in_plan_file() && !is_idle && says_something(setting, layers)
    };
    let in_report = command.settings().filter(applies).filter(|setting| finds || setting.name != "find");
    let row = |setting: &Setting| {
        let derived = setting.workloads.is_empty().then(|| default_for(setting, Some(workload.name())));
        let (value, source) = match (layers.get(setting.name), derived) {
            (Some(given), _) => (redact_url(&given.value), given.source.to_string()),
            (None, None) if finds => (users::of_find(workload, setting.name)?, "default of --find".to_owned()),
            (None, Some(DefaultValue::Derived(words))) => (words.to_owned(), "default".to_owned()),
            (None, _) => return None,
        };
        Some(Applied { setting: setting.name.to_owned(), value, source })
    };
    in_report.filter_map(row).collect()
}
