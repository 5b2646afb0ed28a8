//! Writes a saved run as it goes: every line is on the disk before the next trial begins.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{HISTOGRAMS, Header, LOG, REPORT, Record, SavedTrial, hlog};
use crate::core::answer::Ending;
use crate::report::soak::MinuteReport;

/// Runs that begin in one second are told apart by a number; more than this many are no accident.
const MOST_ALIKE: u32 = 100;

/// A run's directory, open for writing. While it lives nobody else writes there.
///
/// What cannot be written does not end a run: the first error is returned for people, and nothing more is written after it.
#[derive(Debug)]
pub struct RunWriter {
    dir: PathBuf,
    log: File,
    histograms: File,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is in it; dropped now, it leaves nothing behind.
    Empty,
    /// As it should be.
    Writing,
    /// An error came; what is there stays.
    GaveUp,
}

/// Why a run is no longer saved; for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{dir} cannot be written ({why}): the run goes on and saves nothing more; trials up to here stay readable")]
pub struct NotSaved {
    dir: String,
    why: String,
}

impl RunWriter {
    /// Makes the directory `<time>-<workload>` of a run, with its files empty, and takes it for this process.
    ///
    /// # Errors
    /// It cannot be made or written; nothing is left behind.
    pub fn create(results: &Path, time: &str, workload: &str) -> io::Result<Self> {
        std::fs::create_dir_all(results)?;
        let dir = new_dir(results, &format!("{time}-{workload}"))?;
        let opened = File::create_new(dir.join(LOG)).and_then(|log| Ok((log, File::create_new(dir.join(HISTOGRAMS))?)));
        let (log, histograms) = opened.inspect_err(|_| remove(&dir))?;
        let writer = Self { dir, log, histograms, state: State::Empty };
        writer.log.try_lock()?;
        Ok(writer)
    }

    /// Takes a run's directory to go on with it: what is behind `whole_bytes` of its records is cut off, and the histograms
    /// are written again from the trials.
    ///
    /// # Errors
    /// Somebody else writes there, or it cannot be written.
    pub fn go_on(dir: &Path, whole_bytes: u64, histograms: &str) -> io::Result<Self> {
        let log = OpenOptions::new().append(true).open(dir.join(LOG))?;
        log.try_lock()?;
        log.set_len(whole_bytes)?;
        replace(&dir.join(HISTOGRAMS), histograms)?;
        let histograms = OpenOptions::new().append(true).open(dir.join(HISTOGRAMS))?;
        Ok(Self { dir: dir.to_owned(), log, histograms, state: State::Writing })
    }

    /// Where it writes.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether all that it was given is there; an error was returned where it is not.
    pub fn is_whole(&self) -> bool {
        self.state != State::GaveUp
    }

    /// Writes the first line, and the head of the histograms' log.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(&mut self, header: Header, started: SystemTime) -> Result<(), NotSaved> {
        self.state = State::Writing;
        let head = hlog::head(since_epoch(started));
        self.attempt(|run| {
            run.histograms.write_all(head.as_bytes())?;
            run.append(&Record::Run(Box::new(header)))?;
            // The names too: a directory that a crash forgets holds nothing.
            File::open(&run.dir)?.sync_all()
        })
    }

    /// Writes a trial that was judged. `hold_started` stands in the histograms' log.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn trial(&mut self, trial: SavedTrial, hold_started: SystemTime) -> Result<(), NotSaved> {
        let lines = hlog::trial(&trial.report, since_epoch(hold_started));
        self.attempt(|run| {
            run.histograms.write_all(lines.as_bytes())?;
            run.histograms.sync_data()?;
            run.append(&Record::Trial(Box::new(trial)))
        })
    }

    /// Writes a minute of a soak.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn minute(&mut self, minute: &MinuteReport) -> Result<(), NotSaved> {
        self.attempt(|run| run.append(&Record::Minute(Box::new(minute.clone()))))
    }

    /// Writes why the next trial was chosen, in a type of the search's own.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn trail(&mut self, entry: &impl Serialize) -> Result<(), NotSaved> {
        self.attempt(|run| run.append(&Record::Trail { entry: serde_json::to_value(entry)? }))
    }

    /// Writes that another process goes on.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn resumed(&mut self) -> Result<(), NotSaved> {
        self.attempt(|run| run.append(&Record::Resumed { at: now() }))
    }

    /// Writes how the run ended, and what it printed.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(&mut self, ending: &Ending, report: &str) -> Result<(), NotSaved> {
        self.attempt(|run| {
            run.append(&Record::Ended { ending: ending.clone(), at: now() })?;
            replace(&run.dir.join(REPORT), report)
        })
    }

    fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        // In one piece, so that a torn line can only be the last.
        self.log.write_all(&line)?;
        self.log.sync_data()
    }

    fn attempt(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<(), NotSaved> {
        if self.state == State::GaveUp {
            return Ok(());
        }
        write(self).map_err(|error| {
            self.state = State::GaveUp;
            NotSaved { dir: self.dir.display().to_string(), why: error.to_string() }
        })
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        if self.state == State::Empty {
            remove(&self.dir);
        }
    }
}

/// What this process made and did not fill; what cannot be removed is an empty directory and does no harm.
fn remove(dir: &Path) {
    let _ = std::fs::remove_file(dir.join(LOG));
    let _ = std::fs::remove_file(dir.join(HISTOGRAMS));
    let _ = std::fs::remove_dir(dir);
    // Only if it was made for this run: any other is not empty, or was there before and may go as well as stay.
    let _ = dir.parent().map(std::fs::remove_dir);
}

fn new_dir(results: &Path, name: &str) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let dir = results.join(if number == 1 { name.to_owned() } else { format!("{name}-{number}") });
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MOST_ALIKE => number += 1,
            made => return made.map(|()| dir),
        }
    }
}

/// Replaces a file as a whole: a reader sees the old or the new one, never a part.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// Since 1970; before it there are no runs.
pub(super) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::pass;
    use crate::results::fixture::{header, saved};

    #[test]
    fn a_run_that_never_began_leaves_nothing_behind() {
        let parent = tempfile::tempdir().unwrap();
        let results = parent.path().join("results");
        let writer = RunWriter::create(&results, "20260102-030405", "messages").unwrap();
        assert!(writer.dir().ends_with("20260102-030405-messages"));
        drop(writer);
        assert!(!results.exists());
    }

    #[test]
    fn two_runs_of_one_second_have_a_directory_each() {
        let results = tempfile::tempdir().unwrap();
        let one = RunWriter::create(results.path(), "t", "messages").unwrap();
        let other = RunWriter::create(results.path(), "t", "messages").unwrap();
        assert!(one.dir().ends_with("t-messages") && other.dir().ends_with("t-messages-2"));
    }

    #[test]
    fn a_full_disk_is_said_once_and_what_was_written_stays() {
        let results = tempfile::tempdir().unwrap();
        let mut writer = RunWriter::create(results.path(), "t", "messages").unwrap();
        writer.begin(header(), SystemTime::now()).unwrap();
        writer.trial(saved(pass(0)), SystemTime::now()).unwrap();
        writer.histograms = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let words = writer.trial(saved(pass(1)), SystemTime::now()).unwrap_err().to_string();
        assert!(words.contains("No space left on device") && words.contains("the run goes on"), "{words}");
        assert_eq!(writer.trial(saved(pass(2)), SystemTime::now()), Ok(()));
        assert_eq!(writer.end(&Ending::Completed, "report"), Ok(()));
        let dir = writer.dir().to_owned();
        drop(writer);
        assert_eq!(crate::results::read::read(&dir).unwrap().trials.len(), 1);
    }

    #[test]
    fn nobody_goes_on_with_a_run_that_is_being_written() {
        let results = tempfile::tempdir().unwrap();
        let mut writer = RunWriter::create(results.path(), "t", "messages").unwrap();
        writer.begin(header(), SystemTime::now()).unwrap();
        assert!(RunWriter::go_on(writer.dir(), 0, "").is_err());
        assert!(crate::results::read::read(writer.dir()).is_ok());
    }
}
