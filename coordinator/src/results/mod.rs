//! Saved runs: what a run writes into a directory of its own as it goes, and what is read back from it.
//!
//! `run.jsonl` holds everything, a [`Record`] per line and a line per event, so that a crash loses at most the trial under
//! way: [`write`] appends, [`read`] reads. `histograms.hlog` holds the trials' histograms once more for HdrHistogram's own
//! tools ([`hlog`]), and `report.txt` what the run printed.

pub mod compare;
#[cfg(test)]
pub mod fixture;
pub mod hlog;
pub mod read;
pub mod write;

use std::collections::BTreeMap;

use plimsoll_common::units::Rate;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::answer::Ending;
use crate::core::merge::ServiceReads;
use crate::core::slo::Slo;
use crate::report::soak::MinuteReport;
use crate::report::{Applied, TrialReport};
use crate::settings::commands::DAILY;

/// What this release writes, and the newest that it reads. It grows when a reader of the old one would misread the new.
pub const FORMAT: u32 = 1;

/// The file of records.
pub const LOG: &str = "run.jsonl";
/// The file for HdrHistogram's tools.
pub const HISTOGRAMS: &str = "histograms.hlog";
/// What the run printed.
pub const REPORT: &str = "report.txt";

/// One line of a saved run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The first line: what was asked for, and of which service.
    Run(Box<Header>),
    /// A trial that was judged.
    Trial(Box<SavedTrial>),
    /// A minute of a soak that is over.
    Minute(Box<MinuteReport>),
    /// Why the next trial was chosen, in the words of whoever chose it; its type is the search's own.
    Trail {
        /// As it was serialized.
        entry: Value,
    },
    /// Another process goes on from here.
    Resumed {
        /// RFC 3339 in UTC.
        at: String,
    },
    /// The run came to its end.
    Ended {
        /// How.
        ending: Ending,
        /// RFC 3339 in UTC.
        at: String,
    },
}

/// What kind of run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// A list of levels.
    Steps,
    /// A search for the largest level.
    Find,
    /// One level for long.
    Soak,
}

/// What a run is, before its first trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// Release of the writer.
    pub version: String,
    /// What kind of run it is.
    pub kind: RunKind,
    /// The run's name.
    pub run_id: String,
    /// RFC 3339 in UTC.
    pub started_at: String,
    /// "messages".
    pub workload: String,
    /// "medium".
    pub preset: String,
    /// Every setting with a value, by its name and as a flag takes it, secrets hidden: what a resumed run starts from.
    pub settings: BTreeMap<String, String>,
    /// The same as the report shows it, with what was seen of target and boxes.
    pub applied: Vec<Applied>,
    /// What the trials are judged by.
    pub slo: Slo,
    /// How the target was set up.
    pub target: Configuration,
}

impl Header {
    /// What stands behind a level: `/s`, ` users`.
    pub fn unit(&self) -> &'static str {
        if self.workload == DAILY { " users" } else { "/s" }
    }
}

/// How a target was set up, in the server's words: by "server", "stream S", "durable S/D". Empty where it was not looked at.
pub type Configuration = BTreeMap<String, Map<String, Value>>;

/// A trial as it is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedTrial {
    /// What the report shows.
    pub report: TrialReport,
    /// Every read of the service's backlogs and streams.
    pub reads: ServiceReads,
}

impl SavedTrial {
    /// The level it held.
    pub fn level(&self) -> Rate {
        self.report.judged.level
    }
}
