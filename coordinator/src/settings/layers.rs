//! The layers a setting can come from, and which of them applies.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use plimsoll_common::plan::redact_url;
use plimsoll_common::workload::{self, Entry, SettingDefault};

use super::command_line::Flags;
use super::commands::LoadCommand;
use super::error::SettingsError;
use super::plan_file::{self, PlanFile};
use super::storage;
use super::table::{self, DefaultValue, Kind, Setting};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody gave one.
    Default,
    /// A plan file.
    PlanFile {
        /// Its path as given.
        path: String,
        /// The key's line, from 1.
        line: usize,
    },
    /// A variable that other tools know too.
    NativeVariable(&'static str),
    /// The setting's own variable.
    Variable(&'static str),
    /// A saved run.
    Saved,
    /// The command line.
    Flag,
}

impl Source {
    /// The larger, the stronger.
    pub fn strength(&self) -> u8 {
        match self {
            Self::Default | Self::Saved => 0,
            Self::PlanFile { .. } => 1,
            Self::NativeVariable(_) => 2,
            Self::Variable(_) => 3,
            Self::Flag => 4,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Saved => f.write_str("saved run"),
            Self::PlanFile { path, line } => write!(f, "{path}:{line}"),
            Self::NativeVariable(name) | Self::Variable(name) => f.write_str(name),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    /// As a flag takes it.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

/// Values may be addresses with passwords.
impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("value", &redact_url(&self.value)).field("source", &self.source).finish()
    }
}

/// The applying value of every setting that has one.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    given: HashMap<&'static str, Given>,
    /// Of files that settings name, as a saved run has them: by the setting's name.
    texts: HashMap<&'static str, String>,
    workload: Option<&'static Entry>,
}

/// Under which name a saved run has the text of the file that a setting names.
pub fn text_of_file(setting: &str) -> String {
    format!("{setting}.text")
}

/// Looks up a variable of the environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Layers {
    /// Lays the flags over the environment over the plan file, which is read here, over the defaults.
    ///
    /// # Errors
    /// The plan file cannot be read, or holds what no plan file can.
    pub fn gather(command: LoadCommand, flags: Flags, environment: Environment) -> Result<Self, SettingsError> {
        let from_above = |setting: &Setting| strongest_above_file(setting, &flags, environment);
        let plan = table::find("plan").and_then(from_above);
        let file = plan.map(|plan| plan_file::read(&plan.value, command)).transpose()?.unwrap_or_default();
        let given = |setting: &Setting| from_above(setting).or_else(|| from_file(setting, &file));
        // The workload first: other settings' defaults depend on it.
        let name = || table::find("workload").and_then(|setting| given(setting).or_else(|| default_of(setting, None)));
        let workload = match command.workload() {
            Some(own) => workload::entry(own),
            None => name().and_then(|name| workload::entry(&name.value)),
        };
        let applying = |setting: &'static Setting| {
            let given = given(setting).or_else(|| default_of(setting, workload))?;
            // A variable that other tools know too says nothing of this run.
            let meant = !matches!(given.source, Source::NativeVariable(_));
            let takes = workload.is_none_or(|workload| setting.is_of(workload.name));
            (takes || meant).then_some((setting.name, given))
        };
        let given = command.settings().filter_map(applying).collect();
        let mut layers = Self { given, texts: HashMap::new(), workload };
        storage::one_user(&mut layers);
        Ok(layers)
    }

    /// Takes the settings of a saved run. Its secrets were not saved: they come from flags and environment again. A flag may
    /// also say where the same target and agents are found now.
    ///
    /// # Errors
    /// A secret that nobody gives, or another target.
    pub fn of_saved(
        command: LoadCommand,
        saved: &BTreeMap<String, String>,
        flags: &Flags,
        environment: Environment,
    ) -> Result<Self, SettingsError> {
        let mut given = HashMap::new();
        let workload = command.workload().or(saved.get("workload").map(String::as_str)).and_then(workload::entry);
        for setting in command.settings() {
            let was = saved.get(setting.name).map(|value| Given { value: value.clone(), source: Source::Saved });
            let hides = was.as_ref().is_some_and(|was| was.value.contains(HIDDEN));
            let is = if hides { strongest_above_file(setting, flags, environment) } else { flag(setting, flags) };
            if (setting.name.ends_with("-url") || setting.name.ends_with("-uri"))
                && let Some(was) = &was
            {
                same_target(setting, &was.value, is.as_ref())?;
            }
            // A setting that was not there when the run was saved; only a fleet is saved as one of two.
            let default = || default_of(setting, workload).filter(|_| setting.name != "local");
            given.extend(is.or(was).or_else(default).map(|given| (setting.name, given)));
        }
        if flags.contains_key("agents") {
            given.remove("local");
        }
        let text = |setting: &'static Setting| Some((setting.name, saved.get(&text_of_file(setting.name))?.clone()));
        let texts = command.settings().filter_map(text).collect();
        let mut layers = Self { given, texts, workload };
        storage::one_user(&mut layers);
        Ok(layers)
    }

    /// The workload's entry; `None` where no workload has the name that was given.
    pub fn workload(&self) -> Option<&'static Entry> {
        self.workload
    }

    /// The text of the file that a setting named when the run was saved: the file may say something else by now.
    pub fn saved_text(&self, name: &str) -> Option<&String> {
        self.texts.get(name)
    }

    /// Gives a setting another value.
    pub fn set(&mut self, name: &'static str, given: Given) {
        self.given.insert(name, given);
    }

    /// Takes a setting's value away.
    pub fn remove(&mut self, name: &str) {
        self.given.remove(name);
    }

    /// The applying value; `None` where nothing was given and there is no default.
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.given.get(name)
    }
}

/// What stands in a saved URL in place of a user, password or token.
const HIDDEN: &str = "***@";

fn same_target(setting: &Setting, was: &str, is: Option<&Given>) -> Result<(), SettingsError> {
    let place = format!("--{}", setting.name);
    match is {
        None if was.contains(HIDDEN) => {
            let problem =
                format!("the run's {was} is not saved with its secret: give it again, or set {}", setting.variable);
            Err(SettingsError::Value { place, problem })
        }
        Some(is) if redact_url(&is.value) != was => {
            let problem = format!("got '{}', and the run to resume is one of {was}", redact_url(&is.value));
            Err(SettingsError::Value { place, problem })
        }
        _ => Ok(()),
    }
}

fn flag(setting: &Setting, flags: &Flags) -> Option<Given> {
    flags.get(setting.name).map(|value| Given { value: value.clone(), source: Source::Flag })
}

fn strongest_above_file(setting: &Setting, flags: &Flags, environment: Environment) -> Option<Given> {
    let flag = || flag(setting, flags);
    let variable = |name: &'static str, source: fn(&'static str) -> Source| {
        // An empty variable is the usual way to unset one in scripts and Compose files.
        let value = environment(name).filter(|value| !value.is_empty())?;
        Some(Given { value, source: source(name) })
    };
    flag()
        .or_else(|| variable(setting.variable, Source::Variable))
        .or_else(|| setting.native.and_then(|name| variable(name, Source::NativeVariable)))
}

fn from_file(setting: &Setting, file: &PlanFile) -> Option<Given> {
    let entry = file.entries.get(setting.name)?;
    let source = Source::PlanFile { path: file.path.clone(), line: entry.line };
    Some(Given { value: entry.value.clone(), source })
}

fn default_of(setting: &Setting, workload: Option<&Entry>) -> Option<Given> {
    let given = |value: &str| Given { value: value.to_owned(), source: Source::Default };
    if !setting.workloads.is_empty() {
        return match workload?.setting(setting.name)?.default {
            SettingDefault::Text(text) => Some(given(text)),
            SettingDefault::Required | SettingDefault::Nothing => None,
        };
    }
    match (setting.kind, workload.and_then(|workload| workload.default_of(setting.name)), setting.default) {
        (_, Some(text), _) | (_, None, DefaultValue::Text(text)) => Some(given(text)),
        (Kind::Switch | Kind::InvocationSwitch, ..) => Some(given("false")),
        _ => None,
    }
}
