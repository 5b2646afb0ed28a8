//! Reads the watched durables: all through a trial, and before it until they have recovered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_agent::clock::boottime_ns;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::monitor::Monitor;
use crate::core::backlog::{
    Backlog, BacklogRead, DurableName, DurableReads, DurableState, READ_DEADLINE, SETTLED_READS, read_interval,
    recovered, settled,
};

/// Between two reads while waiting for a recovery.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(200);

/// The newest total of each durable, where it was read.
pub type Newest = Vec<(DurableName, Option<u64>)>;

/// Reads every durable at an interval until it is finished.
#[derive(Debug)]
pub struct BacklogWatch {
    durables: Vec<DurableName>,
    reads: Arc<Mutex<Vec<Reads>>>,
    newest: watch::Receiver<Newest>,
    task: JoinHandle<()>,
}

/// One durable's answers with their instants on our clock.
type Reads = Vec<(u64, DurableState)>;

/// How many reads of a durable are kept at most: beyond half an hour, fewer than there are. A median of hundreds does not
/// change by what lies between them.
const MOST_READS: u32 = 3600;

/// Keeps an answer where the last one kept is old enough, or another durable's.
fn keep(reads: &mut Reads, at_ns: u64, state: DurableState, spacing_ns: u64) {
    let is_same = |before: &DurableState| match (before, &state) {
        (DurableState::Present { created, .. }, DurableState::Present { created: now, .. }) => created == now,
        (before, now) => before == now,
    };
    if reads.last().is_none_or(|(at, before)| at_ns.saturating_sub(*at) >= spacing_ns || !is_same(before)) {
        reads.push((at_ns, state));
    }
}

impl BacklogWatch {
    /// Starts to read, for a hold of this length.
    pub fn start(monitor: Monitor, durables: Vec<DurableName>, hold: Duration) -> Self {
        let every = read_interval(hold);
        // Reads do not come as the clock ticks: half an interval less, so that a hold of half an hour keeps all.
        let spacing = (hold / MOST_READS).saturating_sub(every / 2);
        let reads = Arc::new(Mutex::new(vec![Vec::new(); durables.len()]));
        let (newest_found, newest) = watch::channel(durables.iter().map(|name| (name.clone(), None)).collect());
        let task = tokio::spawn(read_on(monitor, durables.clone(), (every, spacing), reads.clone(), newest_found));
        Self { durables, reads, newest, task }
    }

    /// What was read last.
    pub fn newest(&self) -> Newest {
        self.newest.borrow().clone()
    }

    /// What was read since an instant on our clock, by durable.
    pub fn since(&self, hold_start_ns: u64) -> Vec<Vec<BacklogRead>> {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.iter().map(|reads| reads_since(reads.iter().cloned(), hold_start_ns)).collect()
    }

    /// Stops reading. Instants count from the start of the hold; what was read before it belongs to the warmup.
    pub fn finish(self, baselines: &[Option<DurableState>], hold_start_ns: u64) -> Vec<DurableReads> {
        self.task.abort();
        let reads = std::mem::take(&mut *self.reads.lock().unwrap_or_else(PoisonError::into_inner));
        let durables = self.durables.iter().zip(baselines).zip(reads);
        durables
            .map(|((name, baseline), reads)| DurableReads {
                name: name.clone(),
                baseline: baseline.clone(),
                reads: reads_since(reads.into_iter(), hold_start_ns),
            })
            .collect()
    }
}

fn reads_since(reads: impl Iterator<Item = (u64, DurableState)>, hold_start_ns: u64) -> Vec<BacklogRead> {
    let since = |at_ns: u64| Some(Duration::from_nanos(at_ns.checked_sub(hold_start_ns)?));
    reads.filter_map(|(at_ns, state)| Some(BacklogRead { at: since(at_ns)?, state })).collect()
}

impl Drop for BacklogWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_on(
    monitor: Monitor,
    durables: Vec<DurableName>,
    (every, spacing): (Duration, Duration),
    reads: Arc<Mutex<Vec<Reads>>>,
    newest: watch::Sender<Newest>,
) {
    if durables.is_empty() {
        return;
    }
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let answers = monitor.read(&durables, READ_DEADLINE).await;
        answers.iter().filter_map(|answer| answer.as_ref().err()).for_each(|words| {
            tracing::debug!(words, "a backlog was not read");
        });
        let states: Vec<Option<DurableState>> = answers.into_iter().map(Result::ok).collect();
        let at_ns = boottime_ns();
        let total = |state: &Option<DurableState>| state.as_ref()?.backlog().map(|backlog| backlog.total());
        newest.send_replace(durables.iter().cloned().zip(states.iter().map(total)).collect());
        let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
        for (reads, state) in reads.iter_mut().zip(states) {
            if let Some(state) = state {
                keep(reads, at_ns, state, u64::try_from(spacing.as_nanos()).unwrap_or(u64::MAX));
            }
        }
    }
}

/// The backlogs at rest, and how long they took to come there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The newest reads.
    pub states: Vec<Option<DurableState>>,
    /// `None`: they were there.
    pub took: Option<Duration>,
}

/// What a backlog must come back to.
#[derive(Debug, Clone)]
pub struct Rest {
    /// Which durables.
    pub durables: Vec<DurableName>,
    /// Each one's total before the first trial; none before that is known.
    pub baselines: Vec<Option<u64>>,
    /// Those that may grow as they like, by name: they only have to answer.
    pub may_grow: Vec<String>,
    /// The most a backlog may grow in a hold.
    pub growth_limit: u64,
    /// How long it may take.
    pub within: Duration,
    /// The flag that says so.
    pub flag: &'static str,
}

/// Waits until every backlog is twice running at most its baseline and a tenth of the growth limit. Without a baseline it has to
/// have stopped falling.
///
/// # Errors
/// It did not within the limit; for people.
pub async fn wait_for_recovery(monitor: &Monitor, rest: &Rest) -> Result<Recovery, String> {
    let started = Instant::now();
    let mut newest: Vec<Vec<Option<u64>>> = vec![Vec::new(); rest.durables.len()];
    let mut rounds = 0_u32;
    loop {
        let answers = monitor.read(&rest.durables, READ_DEADLINE).await;
        let states: Vec<Option<DurableState>> = answers.iter().map(|answer| answer.clone().ok()).collect();
        rounds += 1;
        for (newest, state) in newest.iter_mut().zip(&states) {
            newest.push(state.as_ref().and_then(DurableState::backlog).map(Backlog::total));
            newest.drain(..newest.len().saturating_sub(SETTLED_READS));
        }
        let waiting: Vec<usize> = (0..states.len()).filter(|&i| !is_at_rest(rest, i, &newest[i])).collect();
        if waiting.is_empty() {
            return Ok(Recovery { states, took: (rounds > 2).then(|| started.elapsed()) });
        }
        if started.elapsed() + RECOVERY_INTERVAL > rest.within {
            return Err(no_recovery(rest, &waiting, &answers));
        }
        sleep(RECOVERY_INTERVAL).await;
    }
}

/// By the newest reads, the last of them last; `None`: no answer.
fn is_at_rest(rest: &Rest, index: usize, newest: &[Option<u64>]) -> bool {
    let [.., Some(before), Some(now)] = newest else { return false };
    let answered: Vec<u64> = newest.iter().rev().map_while(|read| *read).collect();
    let in_order: Vec<u64> = answered.into_iter().rev().collect();
    rest.may_grow.contains(&rest.durables[index].durable)
        || match rest.baselines[index] {
            Some(baseline) => recovered(baseline, rest.growth_limit, [*before, *now]),
            None => settled(rest.growth_limit, &in_order),
        }
}

fn no_recovery(rest: &Rest, waiting: &[usize], answers: &[Result<DurableState, String>]) -> String {
    let words = |&i: &usize| {
        let name = &rest.durables[i];
        match (&answers[i], rest.baselines[i]) {
            (Err(words), _) => format!("{name} gives no answer about its backlog ({words})"),
            (Ok(DurableState::Gone), _) => format!("{name} is gone"),
            (Ok(DurableState::Present { backlog, .. }), None) => {
                format!("{name} still works off a backlog of {} from before this run", backlog.total())
            }
            (Ok(DurableState::Present { backlog, .. }), Some(baseline)) => {
                let allowed = baseline.saturating_add(rest.growth_limit / 10);
                format!("{name} has a backlog of {} and should have at most {allowed}", backlog.total())
            }
        }
    };
    let all: Vec<String> = waiting.iter().map(words).collect();
    format!("no recovery within {} ({}): {}", humantime::format_duration(rest.within), rest.flag, all.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_run_left_behind_is_no_rest_until_it_is_worked_off() {
        let name = DurableName { stream: "S".into(), durable: "d".into() };
        let at_rest = |baseline: Option<u64>, newest: &[u64]| {
            let rest = Rest {
                durables: vec![name.clone()],
                baselines: vec![baseline],
                may_grow: Vec::new(),
                growth_limit: 1000,
                within: Duration::from_secs(60),
                flag: "--recovery-limit",
            };
            is_at_rest(&rest, 0, &newest.iter().copied().map(Some).collect::<Vec<_>>())
        };
        assert!(at_rest(None, &[3, 100]), "next to nothing is rest at once");
        assert!(!at_rest(None, &[50_000, 49_400]) && !at_rest(None, &[50_000, 49_990]), "too short to tell");
        assert!(!at_rest(None, &[50_000, 49_400, 48_800, 48_200, 47_600, 47_000]));
        assert!(at_rest(None, &[50_000, 49_990, 50_020, 50_010, 49_980, 49_950]), "nobody works it off");
        assert!(!at_rest(Some(0), &[50_000, 49_990]) && at_rest(Some(50_000), &[50_100, 50_000]));
    }

    #[test]
    fn reads_are_thinned_out_but_for_what_says_that_a_durable_is_another() {
        let present = |created: &str| DurableState::Present { backlog: Backlog::default(), created: created.into() };
        let mut reads = Reads::new();
        for (at, state) in [
            (0, present("a")),
            (5, present("a")),
            (10, present("a")),
            (12, DurableState::Gone),
            (13, DurableState::Gone),
            (14, present("b")),
            (20, present("b")),
            (24, present("b")),
        ] {
            keep(&mut reads, at, state, 10);
        }
        assert_eq!(reads.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 10, 12, 14, 24]);
    }
}
