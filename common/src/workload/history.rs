//! Reading pages of rooms' history and of threads.

use std::fmt;
use std::str::FromStr;

use super::{
    BadSetting, Entry, Given, HISTORY_SERVICE, ObservationKind, ObservationSpec, READ_STEPS, REPLY_BYTES, SITE_ID,
    ServiceProbe, SettingDefault, SettingKind, Workload, WorkloadPlan, WorkloadSetting, part_ppm, preset,
};
use crate::contract::fixtures::{Fixtures, Room};
use crate::contract::history::{HistoryPreset, room_weight};
use crate::contract::subjects;

pub(super) const ENTRY: Entry = Entry {
    name: "history",
    summary: "pages of rooms' history and of threads, a series each",
    settings: &[
        preset("Fixtures to use: history-small, history-medium or history-large"),
        own("mix", "PLIMSOLL_MIX", "WEIGHTS", "history:80,thread:20", SettingKind::List, MIX),
        own("before-mode", "PLIMSOLL_BEFORE_MODE", "WEIGHTS", "open:70,scrollback:30", SettingKind::List, BEFORE_MODE),
        own("scrollback-pages", "PLIMSOLL_SCROLLBACK_PAGES", "COUNT", "5", SettingKind::One, PAGES),
        own("page-limit", "PLIMSOLL_PAGE_LIMIT", "ROWS", "20", SettingKind::One, LIMIT),
        SITE_ID,
    ],
    defaults: &[READ_STEPS],
    observations: &[
        REPLY_BYTES,
        ObservationSpec { name: "rows", words: "rows per reply", kind: ObservationKind::Size },
        ObservationSpec { name: "empty_replies", words: "empty replies", kind: ObservationKind::Event },
        ObservationSpec {
            name: "thread_fallbacks",
            words: "thread requests that fell back to history, their room having no thread",
            kind: ObservationKind::Event,
        },
    ],
    read,
};

const MIX: &str = "How many requests read a room's history, and how many a thread";
const BEFORE_MODE: &str = "How many history requests open a room at its newest page, and how many go on scrolling back";
const PAGES: &str = "Pages that a scroll reads, each from where the reply before it ended, 1 to 100";
const LIMIT: &str = "Rows that a request asks for, 1 to 100";

const fn own(
    name: &'static str,
    variable: &'static str,
    value: &'static str,
    default: &'static str,
    kind: SettingKind,
    help: &'static str,
) -> WorkloadSetting {
    let default = SettingDefault::Text(default);
    WorkloadSetting { name, variable, native: None, value, default, kind, help }
}

/// Pages of history and of threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryWorkload {
    /// The fixtures.
    pub preset: HistoryPreset,
    /// A literal token in subjects.
    pub site_id: String,
    /// Which request.
    pub mix: Mix,
    /// Which page of the history.
    pub before_mode: BeforeMode,
    /// Pages that a scroll reads.
    pub scrollback_pages: u8,
    /// Rows that a request asks for.
    pub page_limit: u8,
}

impl HistoryWorkload {
    /// Whether threads are read at all: asked for, and there are some.
    pub fn reads_threads(&self) -> bool {
        self.mix.thread > 0 && self.preset.shape().threads_per_mille > 0
    }

    /// Whether history is read at all.
    pub fn reads_history(&self) -> bool {
        self.mix.history > 0 || !self.reads_threads()
    }
}

/// Weights of history and thread requests; not both zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// Of `LoadHistory`.
    pub history: u32,
    /// Of `GetThreadMessages`.
    pub thread: u32,
}

/// Weights of the newest page and of scrolling back; not both zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeforeMode {
    /// The newest page.
    pub open: u32,
    /// From where the reply before ended.
    pub scrollback: u32,
}

/// Why a text is no pair of weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("got '{got}', expected {first}:WEIGHT,{second}:WEIGHT: both once, whole numbers from 0 to 1000000, not both 0")]
pub struct WeightsError {
    got: String,
    first: &'static str,
    second: &'static str,
}

/// Two weights by name, in either order.
fn weights(text: &str, first: &'static str, second: &'static str) -> Result<(u32, u32), WeightsError> {
    let error = || WeightsError { got: text.to_owned(), first, second };
    let mut found: [Option<u32>; 2] = [None; 2];
    for part in text.split(',') {
        let (name, weight) = part.trim().split_once(':').ok_or_else(error)?;
        let at = [first, second].iter().position(|known| *known == name.trim()).ok_or_else(error)?;
        let weight = weight.trim().parse::<u32>().ok().filter(|&weight| weight <= 1_000_000).ok_or_else(error)?;
        if found[at].replace(weight).is_some() {
            return Err(error());
        }
    }
    match found {
        [Some(0), Some(0)] => Err(error()),
        [Some(first), Some(second)] => Ok((first, second)),
        _ => Err(error()),
    }
}

impl FromStr for Mix {
    type Err = WeightsError;

    fn from_str(text: &str) -> Result<Self, WeightsError> {
        let (history, thread) = weights(text, "history", "thread")?;
        Ok(Self { history, thread })
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "history:{},thread:{}", self.history, self.thread)
    }
}

impl FromStr for BeforeMode {
    type Err = WeightsError;

    fn from_str(text: &str) -> Result<Self, WeightsError> {
        let (open, scrollback) = weights(text, "open", "scrollback")?;
        Ok(Self { open, scrollback })
    }
}

impl fmt::Display for BeforeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open:{},scrollback:{}", self.open, self.scrollback)
    }
}

fn read(given: &Given<'_>) -> Result<Workload, BadSetting> {
    let preset: HistoryPreset = given.parsed("preset", "history-small, history-medium or history-large")?;
    let workload = HistoryWorkload {
        preset,
        site_id: given.token("site-id")?,
        mix: given.parsed("mix", "history:80,thread:20")?,
        before_mode: given.parsed("before-mode", "open:70,scrollback:30")?,
        scrollback_pages: given.number("scrollback-pages", 1, 100)? as u8,
        page_limit: given.number("page-limit", 1, 100)? as u8,
    };
    if workload.mix.history == 0 && !workload.reads_threads() {
        let takes = format!("a mix with history: the preset {preset} has no threads");
        return Err(BadSetting::takes("mix", workload.mix, takes));
    }
    Ok(Workload::History(workload))
}

impl WorkloadPlan for HistoryWorkload {
    fn service_probes(&self) -> Vec<ServiceProbe> {
        let reads = [(self.reads_history(), subjects::LOAD_HISTORY), (self.reads_threads(), subjects::GET_THREAD)];
        let read = reads.into_iter().filter(|(reads, _)| *reads);
        read.map(|(_, operation)| ServiceProbe::about_room(operation, &self.site_id, HISTORY_SERVICE)).collect()
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("preset", self.preset.to_string()),
            ("site-id", self.site_id.clone()),
            ("mix", self.mix.to_string()),
            ("before-mode", self.before_mode.to_string()),
            ("scrollback-pages", self.scrollback_pages.to_string()),
            ("page-limit", self.page_limit.to_string()),
        ]
    }

    fn series(&self) -> Vec<String> {
        let series = [("history", self.reads_history()), ("thread", self.reads_threads())];
        series.into_iter().filter(|(_, read)| *read).map(|(name, _)| name.to_owned()).collect()
    }

    /// By the mix: thread requests that fall back to history are counted as threads, so that is the most.
    fn part_ppm(&self, series: &str) -> u32 {
        let Mix { history, thread } = self.mix;
        match (series, self.reads_history() && self.reads_threads()) {
            (_, false) => 1_000_000,
            ("thread", true) => part_ppm(thread.into(), u64::from(history) + u64::from(thread)),
            (_, true) => part_ppm(history.into(), u64::from(history) + u64::from(thread)),
        }
    }

    fn preset(&self) -> String {
        self.preset.to_string()
    }

    fn fixtures(&self, seed: u64) -> Option<Fixtures> {
        Some(self.preset.fixtures(seed, &self.site_id))
    }

    fn room_weight(&self, room: &Room) -> f64 {
        room_weight(room.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_has_both_keys_once_and_is_not_nothing() {
        assert_eq!("history:80,thread:20".parse(), Ok(Mix { history: 80, thread: 20 }));
        assert_eq!(" thread:0 , history:1 ".parse(), Ok(Mix { history: 1, thread: 0 }));
        for wrong in ["", "history:80", "history:80,history:20", "history:0,thread:0", "history:-1,thread:2", "a:1,b:2"]
        {
            let error = wrong.parse::<Mix>().unwrap_err().to_string();
            assert!(error.contains("expected history:WEIGHT,thread:WEIGHT"), "{error}");
        }
        assert_eq!("open:1,scrollback:2".parse::<BeforeMode>().unwrap().to_string(), "open:1,scrollback:2");
    }

    fn workload(preset: HistoryPreset, history: u32, thread: u32) -> HistoryWorkload {
        HistoryWorkload {
            preset,
            site_id: "s".into(),
            mix: Mix { history, thread },
            before_mode: BeforeMode { open: 1, scrollback: 1 },
            scrollback_pages: 5,
            page_limit: 20,
        }
    }

    #[test]
    fn operations_are_parted_by_the_mix_where_both_are_read() {
        for (preset, history, thread, parts) in [
            (HistoryPreset::Medium, 80, 20, [800_000, 200_000]),
            (HistoryPreset::Medium, 999_999, 1, [999_999, 1]),
            (HistoryPreset::Medium, 1, 0, [1_000_000; 2]),
            (HistoryPreset::Small, 80, 20, [1_000_000; 2]),
        ] {
            assert_eq!(["history", "thread"].map(|series| workload(preset, history, thread).part_ppm(series)), parts);
        }
    }

    #[test]
    fn a_series_that_can_have_no_samples_is_none() {
        for (preset, history, thread, series) in [
            (HistoryPreset::Medium, 80, 20, &["history", "thread"][..]),
            (HistoryPreset::Medium, 0, 1, &["thread"]),
            (HistoryPreset::Medium, 1, 0, &["history"]),
            (HistoryPreset::Small, 80, 20, &["history"]),
        ] {
            assert_eq!(workload(preset, history, thread).series(), series);
        }
    }
}
