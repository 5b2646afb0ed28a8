//! Values out of a TOML table, each with its line.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::describe::{DescriptionError, Document};
use super::template::{Role, Template};
use crate::units::parse_duration;

/// Knows the lines of a text.
pub(super) struct Reader<'a> {
    text: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text }
    }

    pub(super) fn document(&self) -> Result<Document<'a>, DescriptionError> {
        DeTable::parse(self.text).map_err(|cause| {
            let line = cause.span().map_or(1, |span| self.line_at(span.start));
            DescriptionError { line, problem: cause.message().to_owned() }
        })
    }

    pub(super) fn line<T>(&self, value: &Spanned<T>) -> usize {
        self.line_at(value.span().start)
    }

    fn line_at(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
    }

    /// The error of a value of another kind or out of bounds.
    pub(super) fn takes(&self, line: usize, key: &str, found: &DeValue, takes: &str) -> DescriptionError {
        let found = match found {
            DeValue::String(text) => format!("'{text}'"),
            DeValue::Integer(number) => format!("'{number}'"),
            DeValue::Float(number) => format!("'{number}'"),
            DeValue::Boolean(on) => format!("'{on}'"),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        DescriptionError { line, problem: format!("{key}: got {found}, expected {takes}") }
    }
}

/// A table of a description.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    table: &'a DeTable<'a>,
    line: usize,
    /// "an operation".
    what: &'static str,
}

impl<'a> Section<'a> {
    pub(super) fn new(reader: &'a Reader<'a>, table: &'a DeTable<'a>, line: usize, what: &'static str) -> Self {
        Self { reader, table, line, what }
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// Every key with its line.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'a str, usize)> {
        self.table.iter().map(|(key, _)| (&**key.get_ref(), self.reader.line(key)))
    }

    /// Refuses keys but these.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), DescriptionError> {
        let mut unknown: Vec<(&str, usize)> = self.keys().filter(|(key, _)| !known.contains(key)).collect();
        unknown.sort_by_key(|(_, line)| *line);
        let Some((key, line)) = unknown.first() else { return Ok(()) };
        let kind = self.table.get("kind").and_then(|kind| kind.get_ref().as_str());
        let what = kind.map_or_else(|| self.what.to_owned(), |kind| format!("{} of kind {kind}", self.what));
        let problem = format!("unknown key '{key}' in {what}: expected {}", known.join(", "));
        Err(DescriptionError { line: *line, problem })
    }

    pub(super) fn value(&self, key: &str) -> Option<(&'a Spanned<DeValue<'a>>, usize)> {
        let (key, value) = self.table.get_key_value(key)?;
        Some((value, self.reader.line(key)))
    }

    pub(super) fn takes(&self, line: usize, key: &str, found: &DeValue, takes: &str) -> DescriptionError {
        self.reader.takes(line, key, found, takes)
    }

    pub(super) fn got(&self, line: usize, key: &str, found: &str, takes: &str) -> DescriptionError {
        DescriptionError { line, problem: format!("{key}: got '{found}', expected {takes}") }
    }

    pub(super) fn missing(&self, key: &str, takes: &str) -> DescriptionError {
        DescriptionError { line: self.line, problem: format!("{} without '{key}': expected {takes}", self.what) }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<(&'a str, usize)>, DescriptionError> {
        let Some((value, line)) = self.value(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::String(text) => Ok(Some((text, line))),
            other => Err(self.takes(line, key, other, "a text")),
        }
    }

    pub(super) fn required_text(&self, key: &str, takes: &str) -> Result<(&'a str, usize), DescriptionError> {
        let Some((value, line)) = self.value(key) else { return Err(self.missing(key, takes)) };
        match value.get_ref() {
            DeValue::String(text) => Ok((text, line)),
            other => Err(self.takes(line, key, other, takes)),
        }
    }

    pub(super) fn template(&self, key: &str, role: Role) -> Result<Option<Template>, DescriptionError> {
        let Some((text, line)) = self.text(key)? else { return Ok(None) };
        let problem = |problem| DescriptionError { line, problem: format!("{key}: {problem}") };
        Template::parse(text, role).map(Some).map_err(problem)
    }

    pub(super) fn number(&self, key: &str, low: i64, high: i64) -> Result<Option<i64>, DescriptionError> {
        let Some((value, line)) = self.value(key) else { return Ok(None) };
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.to_string().parse::<i64>().ok(),
            _ => None,
        };
        let within = number.filter(|number| (low..=high).contains(number));
        let takes = || self.takes(line, key, value.get_ref(), &format!("a whole number from {low} to {high}"));
        within.map(Some).ok_or_else(takes)
    }

    pub(super) fn switch(&self, key: &str) -> Result<Option<bool>, DescriptionError> {
        let Some((value, line)) = self.value(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(on) => Ok(Some(*on)),
            other => Err(self.takes(line, key, other, "true or false")),
        }
    }

    pub(super) fn duration(&self, key: &str) -> Result<Option<Duration>, DescriptionError> {
        const TAKES: &str = "a time with its unit from 1ms to 1h, such as \"500ms\" or \"5s\"";
        let Some((text, line)) = self.text(key)? else { return Ok(None) };
        let length = parse_duration(text).filter(|length| (1..=3_600_000).contains(&length.as_millis()));
        length.map(Some).ok_or_else(|| self.got(line, key, text, TAKES))
    }

    pub(super) fn table(&self, key: &'static str, takes: &str) -> Result<Option<Section<'a>>, DescriptionError> {
        let Some((value, line)) = self.value(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Table(table) => Ok(Some(Section::new(self.reader, table, line, key))),
            other => Err(self.takes(line, key, other, takes)),
        }
    }
}
