//! What a run looks like right now: written by the trial, read by the progress line and the metrics page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_common::units::Rate;

use super::backlog::Newest;
use crate::core::merge::Progress;
use crate::core::ramp::NextTrial;

/// A run, now.
#[derive(Debug, Clone, PartialEq)]
pub struct Now {
    /// Which step of how many, both from 1; of 0: a trial of a search, which knows no number.
    pub step: (usize, usize),
    /// Which trial of it, from 1.
    pub trial: u32,
    /// The step's level.
    pub target: Rate,
    /// What it is doing.
    pub phase: Phase,
    /// Since the phase began.
    pub elapsed: Duration,
    /// How long the phase is to take; for recovery and drain, at most.
    pub length: Duration,
    /// What was attempted in the phase of what was due, as a level; `None` where nothing was due yet.
    pub achieved: Option<f64>,
    /// Users online; `None`: levels are no users, or none were heard of yet.
    pub online: Option<u64>,
    /// Failed and lost operations of the hold ÷ attempted ones; `None` where none were attempted yet.
    pub error_rate: Option<f64>,
    /// Of the hold so far, by series.
    pub p99: Vec<(String, Option<Duration>)>,
    /// Each durable's newest total.
    pub backlog: Newest,
}

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the service's backlog.
    Recovery,
    /// Load that does not count.
    Warmup,
    /// Load that counts.
    Hold,
    /// Waiting for what is open.
    Drain,
    /// Silence before the next step.
    Cooldown,
}

impl Phase {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Recovery => "recovery",
            Self::Warmup => "warmup",
            Self::Hold => "hold",
            Self::Drain => "drain",
            Self::Cooldown => "cooldown",
        }
    }
}

impl Now {
    /// A step that has not sent anything yet.
    pub fn idle(next: NextTrial, steps: usize, phase: Phase, length: Duration) -> Self {
        Self {
            step: (next.trial.step as usize + 1, steps),
            trial: next.trial.trial + 1,
            target: next.level,
            phase,
            elapsed: Duration::ZERO,
            length,
            achieved: None,
            online: None,
            error_rate: None,
            p99: Vec::new(),
            backlog: Vec::new(),
        }
    }

    /// What the merge knows so far.
    pub fn measured(self, progress: &Progress, backlog: Newest) -> Self {
        let counters = if self.phase == Phase::Warmup { &progress.warmup } else { &progress.counters };
        // Agents report whole blocks: what was attempted of what was due in them says more than a count so far.
        let achieved =
            (counters.due > 0).then(|| self.target.as_f64() * counters.attempted as f64 / counters.due as f64);
        let attempted = progress.counters.attempted;
        let error_rate = (attempted > 0).then(|| progress.counters.errors() as f64 / attempted as f64);
        let p99 = progress.series.iter().map(|series| (series.series.clone(), series.p99)).collect();
        Self { achieved, online: progress.online, error_rate, p99, backlog, ..self }
    }
}

/// Shared between the run and who shows it; `None` before the first step.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Mutex<Option<Now>>>);

impl Live {
    /// Replaces what is shown.
    pub fn set(&self, now: Now) {
        *self.lock() = Some(now);
    }

    /// What is shown.
    pub fn get(&self) -> Option<Now> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Now>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
