//! Texts into values, one function per kind of value, each saying what it takes.

use std::str::FromStr;
use std::time::Duration;

use plimsoll_common::plan::redact_url;
use plimsoll_common::units::parse_duration;

use super::error::{SettingsError, got};
use super::layers::{Given, Layers, Source};
use super::table;

/// Reads single settings out of the layers.
pub struct Values<'a> {
    layers: &'a Layers,
}

/// What a value came as, for the words of an error.
pub struct Named<'a> {
    name: &'static str,
    given: &'a Given,
}

impl Named<'_> {
    /// The text as given.
    pub fn text(&self) -> &str {
        &self.given.value
    }

    /// An error in the words of this setting.
    pub fn error(&self, problem: impl std::fmt::Display) -> SettingsError {
        let flag = format!("--{}", self.name);
        let place = match &self.given.source {
            Source::Flag | Source::Default | Source::Saved => flag,
            Source::Variable(name) | Source::NativeVariable(name) => format!("{flag} (from {name})"),
            Source::PlanFile { path, line } => format!("{flag} (from {path}, line {line}, key {})", self.name),
        };
        SettingsError::Value { place, problem: problem.to_string() }
    }

    /// The error of a value that the setting does not take.
    pub fn takes(&self, takes: impl std::fmt::Display) -> SettingsError {
        self.error(got(redact_url(self.text()), takes))
    }

    /// How strongly it was given.
    pub fn strength(&self) -> u8 {
        self.given.source.strength()
    }
}

impl<'a> Values<'a> {
    /// Reads out of these.
    pub fn new(layers: &'a Layers) -> Self {
        Self { layers }
    }

    /// The setting's value, where it has one.
    pub fn optional(&self, name: &'static str) -> Option<Named<'a>> {
        self.layers.get(name).map(|given| Named { name, given })
    }

    /// The setting's value.
    ///
    /// # Errors
    /// It has none.
    pub fn required(&self, name: &'static str, takes: &'static str) -> Result<Named<'a>, SettingsError> {
        self.optional(name).ok_or_else(|| self.missing(name, takes))
    }

    /// The error of a setting that has to be given and was not.
    pub fn missing(&self, name: &'static str, takes: &'static str) -> SettingsError {
        let setting = table::find(name).expect("settings are looked up by names of the table");
        SettingsError::Missing { name, takes, variable: setting.variable }
    }

    /// A value whose own error says what it got and takes.
    ///
    /// # Errors
    /// It has none, or one that is no `T`.
    pub fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &self,
        name: &'static str,
        takes: &'static str,
    ) -> Result<T, SettingsError> {
        let value = self.required(name, takes)?;
        value.text().parse().map_err(|error| value.error(error))
    }

    /// A length of time within bounds.
    ///
    /// # Errors
    /// It is none, or lies outside.
    pub fn duration(&self, name: &'static str, lowest: Duration, highest: Duration) -> Result<Duration, SettingsError> {
        let value = self.required(name, "a time with its unit, such as 30s")?;
        let takes = || {
            let bounds = [lowest, highest].map(|bound| humantime::format_duration(bound).to_string());
            value.takes(format!("a time with its unit from {} to {}, such as 30s", bounds[0], bounds[1]))
        };
        let length = parse_duration(value.text()).ok_or_else(takes)?;
        if length < lowest || length > highest {
            return Err(takes());
        }
        Ok(length)
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// It is none, or lies outside.
    pub fn number(&self, name: &'static str, lowest: u64, highest: u64) -> Result<u64, SettingsError> {
        let value = self.required(name, "a whole number")?;
        number(&value, lowest, highest)
    }

    /// A switch.
    ///
    /// # Errors
    /// It is neither on nor off.
    pub fn switch(&self, name: &'static str) -> Result<bool, SettingsError> {
        let Some(value) = self.optional(name) else { return Ok(false) };
        match value.text() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(value.takes("true or false")),
        }
    }
}

/// A whole number within bounds.
///
/// # Errors
/// It is none, or lies outside.
pub fn number(value: &Named, lowest: u64, highest: u64) -> Result<u64, SettingsError> {
    let parsed = value.text().trim().parse::<u64>().ok().filter(|number| (lowest..=highest).contains(number));
    parsed.ok_or_else(|| value.takes(format!("a whole number from {lowest} to {highest}")))
}

/// The parts of a list, none of them empty.
///
/// # Errors
/// One is empty.
pub fn list<'a>(value: &'a Named, takes: &str) -> Result<Vec<&'a str>, SettingsError> {
    let parts: Vec<&str> = value.text().split(',').map(str::trim).collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(value.takes(takes));
    }
    Ok(parts)
}
