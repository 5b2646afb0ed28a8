//! Writes the minutes of a soak as they are over: to the CSV, to the saved run, and to whoever watches.

use std::fs::File;
use std::time::SystemTime;

use super::backlog::Newest;
use super::progress::Progress;
use crate::core::merge::{MINUTE, Minute};
use crate::report::csv::CsvReport;
use crate::report::soak::{MinuteReport, minute_line};
use crate::results::write::RunWriter;

/// Where minutes go.
pub struct MinuteLog<'a> {
    csv: Option<&'a mut CsvReport<File>>,
    saved: Option<&'a mut RunWriter>,
    /// By durable, when the last minute was told.
    backlog: Newest,
}

impl<'a> MinuteLog<'a> {
    /// To these.
    pub fn new(csv: Option<&'a mut CsvReport<File>>, saved: Option<&'a mut RunWriter>) -> Self {
        Self { csv, saved, backlog: Newest::new() }
    }

    /// What durables grow from: their backlogs as the hold begins.
    pub fn begin(&mut self, newest: Newest) {
        self.backlog = newest;
    }

    /// Writes them.
    ///
    /// # Errors
    /// The CSV cannot be written; a saved run that cannot be only costs a warning.
    pub fn write(
        &mut self,
        minutes: Vec<Minute>,
        hold_started: SystemTime,
        newest: &Newest,
        progress: &Progress,
    ) -> Result<(), String> {
        for minute in minutes {
            let started_at = hold_started + MINUTE * minute.number;
            let backlog = growth(&self.backlog, newest);
            self.backlog.clone_from(newest);
            let started_at = humantime::format_rfc3339_millis(started_at).to_string();
            let report = MinuteReport { minute, started_at, backlog };
            progress.say(&minute_line(&report));
            if let Some(Err(words)) = self.saved.as_mut().map(|saved| saved.minute(&report)) {
                progress.say(&format!("warning: {words}"));
            }
            let row = self.csv.as_mut().map_or(Ok(()), |csv| csv.minute(&report));
            row.map_err(|error| format!("--csv: {error}"))?;
        }
        Ok(())
    }
}

/// Of those that were read both times.
fn growth(before: &Newest, now: &Newest) -> Vec<(crate::core::backlog::DurableName, i64)> {
    let of = |((name, before), (_, now)): (&(_, Option<u64>), &(_, Option<u64>))| {
        let signed = |total: u64| i64::try_from(total).unwrap_or(i64::MAX);
        Some((Clone::clone(name), signed((*now)?) - signed((*before)?)))
    };
    before.iter().zip(now).filter_map(of).collect()
}
