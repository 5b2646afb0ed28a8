//! The coordinator's log: passed on line by line, each once, whatever breaks off in between.

use std::time::Duration;

use futures::AsyncBufRead;
use futures::io::AsyncBufReadExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::api::LogParams;

use super::cluster::{Cluster, ClusterError};
use super::follow::Listener;
use super::manifests::COORDINATOR;
use crate::exit::Failure;

/// A run says something every five seconds: a stream that is silent for so long is broken.
const SILENCE: Duration = Duration::from_secs(60);
/// So many failed reads in a row, a minute or more, and a log is taken for one that cannot be read.
const MOST_FAILURES: u32 = 60;
/// So often the rest is asked for of a pod that has ended.
const LAST_TRIES: u32 = 5;
/// Between two of these.
const AGAIN: Duration = Duration::from_secs(1);

/// A pod's log, and how far it was heard.
pub struct Log<'a> {
    cluster: &'a Cluster,
    pod: &'a str,
    heard: Option<Heard>,
    /// Reads in a row that failed and brought nothing.
    failed: u32,
    /// Why the last one did.
    told: String,
}

/// The last instant of which lines were heard, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    instant: Timestamp,
    lines: u32,
}

/// How long a read goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// As long as the pod says something.
    PodEnds,
    /// Up to what is there.
    Now,
}

impl<'a> Log<'a> {
    /// Of this pod, from its beginning on.
    pub fn of(cluster: &'a Cluster, pod: &'a str) -> Self {
        Self { cluster, pod, heard: None, failed: 0, told: String::new() }
    }

    /// Passes on what the pod says until its log ends, breaks off or is silent, from what was heard last on.
    ///
    /// # Errors
    /// The log may not be read, or could not be for too long.
    pub async fn follow(&mut self, listener: &mut impl Listener) -> Result<(), Failure> {
        let Err(error) = self.read(Until::PodEnds, listener).await else { return Ok(()) };
        self.is_allowed(&error)?;
        self.failed += 1;
        if self.failed >= MOST_FAILURES {
            return Err(unread(&error));
        }
        let why = error.to_string();
        // What broke off is taken up again, and mostly goes on.
        if why != self.told && !matches!(error, ClusterError::Broken(_)) {
            listener.fails(&why);
            self.told = why;
        }
        Ok(())
    }

    /// Passes on the rest of a pod that has ended.
    ///
    /// # Errors
    /// It could not be read to its end.
    pub async fn rest(&mut self, listener: &mut impl Listener) -> Result<(), Failure> {
        let mut tries = 0;
        while let Err(error) = self.read(Until::Now, listener).await {
            self.is_allowed(&error)?;
            tries += 1;
            if tries == LAST_TRIES || error.is_absent() {
                return Err(unread(&error));
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }

    /// What is forbidden stays so.
    fn is_allowed(&self, error: &ClusterError) -> Result<(), Failure> {
        match error {
            ClusterError::Refused { code: 403, message } => Err(Failure::Incomplete(format!(
                "the coordinator's log may not be read: {message}; --apply needs the right to get pods/log in the namespace {}",
                self.cluster.namespace()
            ))),
            _ => Ok(()),
        }
    }

    async fn read(&mut self, until: Until, listener: &mut impl Listener) -> Result<(), ClusterError> {
        let parameters = LogParams {
            container: Some(COORDINATOR.to_owned()),
            follow: until == Until::PodEnds,
            timestamps: true,
            // Whole seconds: lines of the last one come again.
            since_time: self.heard.map(|heard| heard.instant),
            ..LogParams::default()
        };
        let mut again = Again::after(self.heard);
        let mut stream = std::pin::pin!(self.cluster.log(self.pod, &parameters).await?);
        while let Some(line) = next_line(&mut stream, until).await? {
            let (instant, text) = line.split_once(' ').unwrap_or((line.as_str(), ""));
            // What is said instead of the log, such as that it is not there any more, has none.
            let instant: Timestamp = instant.parse().map_err(|_| ClusterError::NoLog(line.clone()))?;
            if again.was_heard(instant) {
                continue;
            }
            self.heard = Some(match self.heard {
                Some(Heard { instant: last, lines }) if last == instant => Heard { instant, lines: lines + 1 },
                _ => Heard { instant, lines: 1 },
            });
            self.failed = 0;
            listener.line(text);
        }
        Ok(())
    }
}

/// Which lines come again where a log is taken up.
struct Again {
    from: Option<Heard>,
    /// Lines of the last instant, in this reading.
    seen: u32,
}

impl Again {
    fn after(from: Option<Heard>) -> Self {
        Self { from, seen: 0 }
    }

    /// Whether the next line, of this instant, was heard in an earlier reading.
    fn was_heard(&mut self, instant: Timestamp) -> bool {
        match self.from {
            Some(heard) if instant == heard.instant => {
                self.seen += 1;
                self.seen <= heard.lines
            }
            Some(heard) => instant < heard.instant,
            None => false,
        }
    }
}

/// The next line, without its end; `None`: there is no more. A piece of one at the end of a followed log is left: whatever broke it
/// off, it comes whole in the next reading.
async fn next_line(stream: &mut (impl AsyncBufRead + Unpin), until: Until) -> Result<Option<String>, ClusterError> {
    let mut line = Vec::new();
    match tokio::time::timeout(SILENCE, stream.read_until(b'\n', &mut line)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(ClusterError::Broken(error.to_string())),
        // It is taken up again; whether the pod has ended is looked at before.
        Err(_) if until == Until::PodEnds => return Ok(None),
        Err(_) => return Err(ClusterError::Broken(format!("nothing within {} s", SILENCE.as_secs()))),
    }
    let is_whole = line.last() == Some(&b'\n');
    if is_whole {
        line.pop();
    }
    let goes_on = is_whole || (until == Until::Now && !line.is_empty());
    Ok(goes_on.then(|| String::from_utf8_lossy(&line).into_owned()))
}

fn unread(error: &ClusterError) -> Failure {
    Failure::Incomplete(format!("the coordinator's log could not be read to its end: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(until: Until, bytes: &[u8]) -> Vec<String> {
        let mut stream = bytes;
        let read = async {
            let mut lines = Vec::new();
            while let Some(line) = next_line(&mut stream, until).await.unwrap() {
                lines.push(line);
            }
            lines
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(read)
    }

    #[test]
    fn a_piece_of_a_line_counts_only_where_nothing_can_follow() {
        assert_eq!(lines(Until::PodEnds, b"one\n\ntw"), ["one", ""]);
        assert_eq!(lines(Until::Now, b"one\n\ntw"), ["one", "", "tw"]);
        assert_eq!(lines(Until::Now, b"\xff\n"), ["\u{fffd}"]);
    }

    #[test]
    fn lines_of_one_instant_are_told_apart_by_their_number() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (early, last, late) =
            (at("2026-01-02T03:04:05.1Z"), at("2026-01-02T03:04:05.2Z"), at("2026-01-02T04:04:05.3+01:00"));
        let mut again = Again::after(Some(Heard { instant: last, lines: 2 }));
        let heard: Vec<bool> =
            [early, early, last, last, last, late].into_iter().map(|at| again.was_heard(at)).collect();
        assert_eq!(heard, [true, true, true, true, false, false]);
        assert!(!Again::after(None).was_heard(early));
    }
}
