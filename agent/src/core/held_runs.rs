//! How long each run has held this agent, over all its claims: what a limit of `--max-run` counts.

use std::collections::VecDeque;
use std::time::Duration;

/// Runs that are remembered. One that comes back after so many others begins anew.
const MOST: usize = 256;

/// Runs, the newest last, each with the time that it has held the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldRuns(VecDeque<(String, Duration)>);

impl HeldRuns {
    /// How long a run has held the agent.
    pub fn of(&self, run_id: &str) -> Duration {
        self.0.iter().find(|(id, _)| id == run_id).map_or(Duration::ZERO, |(_, held)| *held)
    }

    /// A run has held it for so long more.
    pub fn add(&mut self, run_id: &str, more: Duration) {
        let held = self.of(run_id).saturating_add(more);
        self.0.retain(|(id, _)| id != run_id);
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((run_id.to_owned(), held));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_claim_of_a_run_counts_and_no_more_runs_are_kept_than_there_is_room_for() {
        let second = Duration::from_secs(1);
        let mut runs = HeldRuns::default();
        runs.add("a", second);
        runs.add("b", second);
        runs.add("a", second * 2);
        assert_eq!((runs.of("a"), runs.of("b"), runs.of("c")), (second * 3, second, Duration::ZERO));
        (0..MOST - 1).for_each(|n| runs.add(&format!("run-{n}"), second));
        assert_eq!((runs.of("a"), runs.of("b"), runs.0.len()), (second * 3, Duration::ZERO, MOST));
    }
}
