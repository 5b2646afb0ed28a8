//! Reads a saved run. A last line that breaks off is what a crash leaves and is passed over; anything else that is not as it
//! was written is an error with its place.

use std::path::Path;
use std::time::Duration;

use plimsoll_common::units::parse_duration;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::write::since_epoch;
use super::{FORMAT, Header, LOG, Record, RunKind, SavedTrial, hlog};
use crate::core::answer::Ending;
use crate::core::search::Search;
use crate::core::search::trail::TrailRecord;
use crate::report::soak::{MinuteReport, Soak};
use crate::report::{RunReport, TrialReport};

/// A saved run as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedRun {
    /// What was asked for, and of which service.
    pub header: Header,
    /// In order.
    pub trials: Vec<SavedTrial>,
    /// In order, each with the number of trials before it.
    pub trail: Vec<(usize, serde_json::Value)>,
    /// Of a soak, as far as it came.
    pub minutes: Vec<MinuteReport>,
    /// How it ended; `None`: the process that wrote it was killed, or still runs.
    pub ending: Option<Ending>,
    /// Bytes of its records up to the last whole line.
    pub whole_bytes: u64,
}

/// Why a directory is no saved run that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not there, or its records are not.
    #[error("'{dir}' is no saved run: {why}; give a directory such as results/20260102-030405-messages")]
    NoRun {
        /// As given.
        dir: String,
        /// What is missing.
        why: String,
    },
    /// Another release wrote it.
    #[error("'{dir}' was written by plimsoll {version} in format {format}, and this one ({own}) reads up to {FORMAT}: use that release or a newer one", own = env!("CARGO_PKG_VERSION"))]
    Newer {
        /// As given.
        dir: String,
        /// The writer's release.
        version: String,
        /// Its format.
        format: u64,
    },
    /// A line that nobody wrote.
    #[error("'{dir}' is damaged: line {line} of {LOG}: {why}")]
    Damaged {
        /// As given.
        dir: String,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads the saved run in a directory.
///
/// # Errors
/// It is none, of a newer format, or damaged.
pub fn read(dir: &Path) -> Result<SavedRun, ReadError> {
    let name = dir.display().to_string();
    let bytes = std::fs::read(dir.join(LOG)).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound if dir.is_dir() => format!("it has no {LOG}"),
            std::io::ErrorKind::NotFound => "there is no such directory".to_owned(),
            _ => error.to_string(),
        };
        ReadError::NoRun { dir: name.clone(), why }
    })?;
    parse(&name, &bytes)
}

fn parse(dir: &str, bytes: &[u8]) -> Result<SavedRun, ReadError> {
    let damaged = |line: usize, why: String| ReadError::Damaged { dir: dir.to_owned(), line: line + 1, why };
    // What stands behind the last line's end was being written when the process died.
    let whole_bytes = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let mut lines = bytes[..whole_bytes].split_inclusive(|&byte| byte == b'\n').enumerate();
    let Some((_, first)) = lines.next() else {
        let why = format!("its {LOG} breaks off before the first trial");
        return Err(ReadError::NoRun { dir: dir.to_owned(), why });
    };
    let mut run = SavedRun {
        header: first_line(dir, first)?,
        trials: Vec::new(),
        trail: Vec::new(),
        minutes: Vec::new(),
        ending: None,
        whole_bytes: whole_bytes as u64,
    };
    for (index, line) in lines {
        match serde_json::from_slice(line).map_err(|error| damaged(index, error.to_string()))? {
            Record::Run(_) => return Err(damaged(index, "a second run in one file".to_owned())),
            Record::Trial(trial) => run.trials.push(*trial),
            Record::Trail { entry } => run.trail.push((run.trials.len(), entry)),
            Record::Minute(minute) => run.minutes.push(*minute),
            // A soak begins anew: what was told of the one that broke off is no part of it.
            Record::Resumed { .. } => (run.ending, run.minutes) = (None, Vec::new()),
            Record::Ended { ending, .. } => run.ending = Some(ending),
        }
    }
    Ok(run)
}

/// Looks at the format before anything that may have changed with it.
fn first_line(dir: &str, line: &[u8]) -> Result<Header, ReadError> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
        version: String,
    }
    let damaged = |why: String| ReadError::Damaged { dir: dir.to_owned(), line: 1, why };
    let Format { format, version } = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
    if format > u64::from(FORMAT) {
        return Err(ReadError::Newer { dir: dir.to_owned(), version, format });
    }
    match serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))? {
        Record::Run(header) => Ok(*header),
        _ => Err(damaged("it does not begin with the run".to_owned())),
    }
}

impl SavedRun {
    /// The trail in the search's own type, each entry with the number of trials before it.
    ///
    /// # Errors
    /// Entries of another type; which one, from 1.
    pub fn trail<T: DeserializeOwned>(&self) -> Result<Vec<(usize, T)>, String> {
        let entry = |(index, (trials, entry)): (usize, &(usize, serde_json::Value))| {
            let entry = T::deserialize(entry).map_err(|error| format!("entry {} of the trail: {error}", index + 1))?;
            Ok((*trials, entry))
        };
        self.trail.iter().enumerate().map(entry).collect()
    }

    /// The search as far as it came, where the run is one: rebuilt from what each trial showed.
    pub fn search(&self) -> Option<Search> {
        if self.header.kind != RunKind::Find {
            return None;
        }
        let records = self.trail::<TrailRecord>().ok()?;
        Search::replay(records.into_iter().map(|(_, record)| record))
    }

    /// The HdrHistogram log of its trials, as it was written. `warmup`: of its plan.
    pub fn histograms(&self, warmup: Duration) -> String {
        let time = |text: &str| humantime::parse_rfc3339(text).map(since_epoch).unwrap_or_default();
        let trials =
            self.trials.iter().map(|trial| hlog::trial(&trial.report, time(&trial.report.started_at) + warmup));
        std::iter::once(hlog::head(time(&self.header.started_at))).chain(trials).collect()
    }

    /// The report that the run printed, or would have if it had come to its end.
    pub fn report(&self) -> RunReport {
        let Header { run_id, workload, preset, applied, slo, .. } = self.header.clone();
        let broke_off = || {
            Ending::Failed(
                "the saved run breaks off here (its process was killed, or still runs; `plimsoll resume` goes on)"
                    .to_owned(),
            )
        };
        RunReport {
            run_id,
            workload,
            preset,
            applied,
            slo,
            trials: self.trials.iter().map(|trial| trial.report.clone()).collect::<Vec<TrialReport>>(),
            ending: self.ending.clone().unwrap_or_else(broke_off),
            search: self.search(),
            explain: self.header.settings.get("explain").is_some_and(|explain| explain == "true" || explain == "1"),
            soak: self.soak(),
        }
    }

    fn soak(&self) -> Option<Soak> {
        let length = self.header.settings.get("duration").and_then(|text| parse_duration(text));
        (self.header.kind == RunKind::Soak)
            .then(|| Soak { length: length.unwrap_or_default(), minutes: self.minutes.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{inconclusive, pass, report, trip};
    use crate::report::render;
    use crate::results::fixture::{header, saved, write_run};
    use crate::results::write::RunWriter;
    use std::time::SystemTime;

    fn text_of(error: ReadError) -> String {
        error.to_string()
    }

    #[test]
    fn what_was_written_is_read_again_to_the_last_figure() {
        let results = tempfile::tempdir().unwrap();
        let mut odd = trip(1);
        odd.measurement.series[0].latency.record(70_000_000);
        odd.recovery = Some(std::time::Duration::from_nanos(1_234_567_891));
        let trials = [pass(0), inconclusive(1, 0), odd];
        let dir = write_run(results.path(), &trials, Some(Ending::Aborted));
        let run = read(&dir).unwrap();
        assert_eq!(run.header, header());
        assert_eq!(run.trials, trials.clone().map(saved));
        let printed = report(trials.to_vec(), Ending::Aborted);
        assert_eq!(run.report(), printed);
        assert_eq!(render(&run.report()), render(&printed));
    }

    #[test]
    fn a_crash_at_any_byte_loses_at_most_the_trial_under_way() {
        let results = tempfile::tempdir().unwrap();
        let dir = write_run(results.path(), &[pass(0), trip(1)], None);
        let bytes = std::fs::read(dir.join(LOG)).unwrap();
        let ends: Vec<usize> = (1..=bytes.len()).filter(|&at| bytes[at - 1] == b'\n').collect();
        assert_eq!(ends.len(), 3);
        for cut in (0..bytes.len()).step_by(97).chain(ends.iter().flat_map(|end| [end - 1, *end])) {
            let read = parse("d", &bytes[..cut]);
            match ends.iter().filter(|&&end| end <= cut).count() {
                0 => assert!(matches!(read, Err(ReadError::NoRun { .. })), "cut at {cut}: {read:?}"),
                lines => assert_eq!(read.unwrap().trials.len(), lines - 1, "cut at {cut}"),
            }
        }
    }

    #[test]
    fn a_run_that_breaks_off_says_so_and_shows_what_it_has() {
        let results = tempfile::tempdir().unwrap();
        let run = read(&write_run(results.path(), &[pass(0)], None)).unwrap();
        let text = render(&run.report());
        assert!(text.contains("NOT COMPLETED: the saved run breaks off here"), "{text}");
        assert!(text.contains("ANSWER: max RPS >= 1000"), "{text}");
    }

    #[test]
    fn what_is_no_run_newer_or_damaged_is_named() {
        let results = tempfile::tempdir().unwrap();
        let missing = text_of(read(&results.path().join("nowhere")).unwrap_err());
        assert!(missing.contains("nowhere' is no saved run: there is no such directory"), "{missing}");
        let bare = text_of(read(results.path()).unwrap_err());
        assert!(bare.contains("it has no run.jsonl"), "{bare}");

        let newer = br#"{"record":"run","format":2,"version":"9.9.9","all":"else is new"}"#;
        let newer = text_of(parse("d", &[newer.as_slice(), b"\n"].concat()).unwrap_err());
        assert!(newer.starts_with("'d' was written by plimsoll 9.9.9 in format 2, and this one ("), "{newer}");

        let dir = write_run(results.path(), &[pass(0), trip(1)], None);
        let text = std::fs::read_to_string(dir.join(LOG)).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for (bytes, place) in [
            ("{}\n".to_owned(), "line 1"),
            ("no JSON\n".to_owned(), "line 1"),
            (lines[1].to_owned(), "line 1"),
            ([lines[0], &lines[1][..lines[1].len() / 2], "\n", lines[2]].concat(), "line 2"),
            ([lines[0], lines[1], lines[0]].concat(), "line 3"),
            ([lines[0], "{\"record\":\"other\"}\n"].concat(), "line 2"),
            ([lines[0], &lines[1].replacen("HISTF", "XISTF", 1)].concat(), "line 2"),
        ] {
            let error = text_of(parse("d", bytes.as_bytes()).unwrap_err());
            assert!(error.starts_with(&format!("'d' is damaged: {place} of run.jsonl: ")), "{error}");
        }
    }

    #[test]
    fn a_trail_comes_back_in_its_own_type_with_the_trials_before_each_entry() {
        #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
        struct Entry {
            why: String,
        }
        let entry = |why: &str| Entry { why: why.to_owned() };
        let results = tempfile::tempdir().unwrap();
        let mut writer = RunWriter::create(results.path(), "t", "messages").unwrap();
        writer.begin(header(), SystemTime::now()).unwrap();
        writer.trail(&entry("first")).unwrap();
        writer.trial(saved(pass(0)), SystemTime::now()).unwrap();
        writer.trail(&entry("then")).unwrap();
        let run = read(writer.dir()).unwrap();
        assert_eq!(run.trail(), Ok(vec![(0, entry("first")), (1, entry("then"))]));
        assert!(run.trail::<u32>().unwrap_err().starts_with("entry 1 of the trail: "));
    }

    /// A saved run as bytes, with a trail and an ending.
    static SAVED: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let results = tempfile::tempdir().unwrap();
        let dir = write_run(results.path(), &[pass(0), trip(1)], Some(Ending::Completed));
        std::fs::read(dir.join(LOG)).unwrap()
    });

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
        #[test]
        fn a_saved_run_that_was_tampered_with_is_read_or_refused(
            changes in proptest::collection::vec(
                (proptest::prelude::any::<proptest::sample::Index>(), proptest::collection::vec(proptest::prelude::any::<u8>(), 0..4)),
                1..6,
            ),
            lost in 0..40_usize,
        ) {
            let mut bytes = SAVED.clone();
            for (at, put) in changes {
                let at = at.index(bytes.len());
                bytes.splice(at..(at + lost).min(bytes.len()), put);
            }
            match parse("d", &bytes) {
                Ok(run) => drop((render(&run.report()), run.search(), run.histograms(Duration::ZERO))),
                Err(error) => proptest::prop_assert!(text_of(error).contains("'d'")),
            }
        }
    }
}
