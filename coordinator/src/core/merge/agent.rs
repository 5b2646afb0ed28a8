//! One agent's part of a trial: its sums, and whether they add up to what it says in the end.

use std::time::Duration;

use plimsoll_common::plan::TrialId;
use plimsoll_common::snapshot::{Counters, Failed, Observed, SeriesCounts, Snapshot, StepEnd, StepTotals, Strays};

use super::health::{HealthMerge, Window};
use super::reach::Reach;
use super::spoilt::Spoilt;
use super::{AgentPart, TrialPlan};
use crate::core::measurement::{AgentMeasurement, Fault, HealthDigest, Mismatch, StartLag, SumOf};

/// An agent's sums as they come.
#[derive(Debug, Clone)]
pub(super) struct AgentMerge {
    trial: TrialId,
    pub(super) counters: Counters,
    pub(super) warmup: Counters,
    pub(super) series: Vec<SeriesCounts>,
    pub(super) strays: Strays,
    pub(super) observed: Vec<Observed>,
    /// Of the hold's operations that ended.
    pub(super) open_time_us: u64,
    /// Per series, in its latency histogram.
    samples: Vec<u64>,
    /// Of the newest snapshot.
    overdue: Vec<Vec<u64>>,
    health: HealthMerge,
    pub(super) reach: Reach,
    spoilt: Spoilt,
    next_number: u32,
    received: u32,
    /// Nothing that an agent counts can exceed this: see [`Most`].
    most: Most,
    mismatches: Vec<Mismatch>,
    ending: Option<Ending>,
}

#[derive(Debug, Clone)]
enum Ending {
    Totals(Box<StepTotals>),
    Lost { after: Duration, why: String },
}

/// What an agent's sums can reach at most. Generous, so that an honest difference shows in the totals; there to keep
/// nonsense from overflowing the fleet's sums.
#[derive(Debug, Clone, Copy)]
struct Most {
    hold: u64,
    warmup: u64,
    strays: u64,
}

/// Mismatches kept per agent: the first is the one that explains the rest.
const MISMATCHES: usize = 4;

impl AgentMerge {
    /// `limits` holds the number of limits of each series.
    pub(super) fn new(part: &AgentPart, plan: &TrialPlan, limits: &[usize]) -> Self {
        let (warmup, hold) = due(plan, part);
        let most = |due: u64| due.saturating_mul(2).saturating_add(1000).min(1 << 50);
        Self {
            trial: plan.trial,
            counters: Counters::default(),
            warmup: Counters::default(),
            series: limits.iter().map(|&limits| SeriesCounts::zero(limits)).collect(),
            strays: Strays::default(),
            observed: plan.observations.iter().map(Observed::new).collect(),
            open_time_us: 0,
            samples: vec![0; limits.len()],
            overdue: Vec::new(),
            health: HealthMerge::default(),
            reach: Reach::default(),
            spoilt: Spoilt::default(),
            next_number: 0,
            received: 0,
            most: Most { hold: most(hold), warmup: most(warmup), strays: 1 << 50 },
            mismatches: Vec::new(),
            ending: None,
        }
    }

    /// Adds a snapshot; false where it cannot belong to the trial and was left out.
    pub(super) fn add_snapshot(&mut self, window: &Window, snapshot: &Snapshot) -> bool {
        if matches!(self.ending, Some(Ending::Lost { .. })) {
            return false;
        }
        if let Some(mismatch) = self.refusal(window, snapshot) {
            self.note(mismatch);
            return false;
        }
        if snapshot.number > self.next_number {
            self.note(Mismatch::Numbering { expected: self.next_number, got: snapshot.number });
        }
        self.next_number = snapshot.number.saturating_add(1);
        self.received += 1;
        for delta in &snapshot.blocks {
            self.counters.add(&delta.counters);
            self.spoilt.add(window, delta);
            self.series.iter_mut().zip(&delta.series).for_each(|(sum, counts)| sum.add(counts));
        }
        for (samples, series) in self.samples.iter_mut().zip(&snapshot.series) {
            *samples += series.latency.len();
        }
        self.warmup.add(&snapshot.warmup);
        self.strays.add(&snapshot.strays);
        self.observed.iter_mut().zip(&snapshot.observed).for_each(|(sum, observed)| sum.add(observed));
        self.open_time_us = self.open_time_us.saturating_add(snapshot.open_time_us);
        self.overdue.clone_from(&snapshot.overdue);
        self.health.add(window, snapshot.number, &snapshot.health);
        self.reach.add(snapshot);
        true
    }

    /// Why a snapshot cannot be added.
    fn refusal(&self, window: &Window, snapshot: &Snapshot) -> Option<Mismatch> {
        if snapshot.trial != self.trial {
            return Some(Mismatch::Trial { expected: self.trial, got: snapshot.trial });
        }
        if self.ending.is_some() {
            return Some(Mismatch::AfterTotals);
        }
        if snapshot.number < self.next_number || snapshot.number >= window.end_of_numbers() {
            return Some(Mismatch::Numbering { expected: self.next_number, got: snapshot.number });
        }
        if !self.has_plan_shape(snapshot) {
            return Some(Mismatch::Shape);
        }
        if let Some(delta) = snapshot.blocks.iter().find(|delta| delta.block >= window.blocks()) {
            return Some(Mismatch::Block { block: delta.block, blocks: window.blocks() });
        }
        (!self.is_plausible(snapshot)).then_some(Mismatch::Implausible)
    }

    fn has_plan_shape(&self, snapshot: &Snapshot) -> bool {
        let limits = || self.series.iter().map(|counts| counts.above.len());
        let fits = |counts: &[SeriesCounts]| {
            counts.iter().map(|c| c.above.len()).eq(limits())
                && counts.iter().all(|c| c.above.len() == c.above_anyway.len())
        };
        let overdue = &snapshot.overdue;
        let names = |list: &[Observed]| list.iter().map(|observed| observed.name.clone()).collect::<Vec<_>>();
        snapshot.series.len() == self.series.len()
            && names(&snapshot.observed) == names(&self.observed)
            && snapshot.blocks.iter().all(|delta| fits(&delta.series))
            && (overdue.is_empty() || overdue.iter().map(Vec::len).eq(limits()))
    }

    fn is_plausible(&self, snapshot: &Snapshot) -> bool {
        let Most { hold, warmup, strays } = self.most;
        let counters = snapshot.blocks.iter().map(|delta| &delta.counters);
        let each_series = (0..self.series.len()).all(|index| {
            let deltas = snapshot.blocks.iter().map(|delta| &delta.series[index]);
            let latency = &snapshot.series[index].latency;
            let samples = [self.samples[index], latency.len()].into_iter().map(u128::from).sum::<u128>();
            stays_within(hold, std::iter::once(&self.series[index]).chain(deltas).map(series_fields))
                && samples <= u128::from(hold)
                && latency.clipped() <= latency.len()
        });
        stays_within(hold, std::iter::once(&self.counters).chain(counters).map(counter_fields))
            && stays_within(warmup, [&self.warmup, &snapshot.warmup].into_iter().map(counter_fields))
            && stays_within(
                strays,
                [self.strays, snapshot.strays].into_iter().map(|s| [s.foreign, s.duplicate, s.late]),
            )
            && each_series
    }

    fn note(&mut self, mismatch: Mismatch) {
        if self.mismatches.len() < MISMATCHES {
            self.mismatches.push(mismatch);
        }
    }

    pub(super) fn add_totals(&mut self, totals: StepTotals) {
        if totals.trial != self.trial {
            self.note(Mismatch::Trial { expected: self.trial, got: totals.trial });
        } else if self.ending.is_none() {
            self.overdue.clear();
            self.ending = Some(Ending::Totals(Box::new(totals)));
        } else if matches!(self.ending, Some(Ending::Totals(_))) {
            self.note(Mismatch::AfterTotals);
        }
    }

    pub(super) fn lose(&mut self, after: Duration, why: String) {
        if self.ending.is_none() {
            self.overdue.clear();
            self.ending = Some(Ending::Lost { after, why });
        }
    }

    /// Blocks of wall time that it has sent.
    pub(super) fn reported(&self) -> u32 {
        self.next_number
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ending.is_some()
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.ending, Some(Ending::Lost { .. }))
    }

    /// Users online in its newest block; of one that is lost none are.
    pub(super) fn users_now(&self) -> Option<u64> {
        self.health.users_now().filter(|_| !self.is_lost())
    }

    pub(super) fn overdue(&self, series: usize, limit: usize) -> u64 {
        self.overdue.get(series).and_then(|limits| limits.get(limit)).copied().unwrap_or(0)
    }

    pub(super) fn mean_in_flight(&self) -> Option<f64> {
        self.health.mean_in_flight()
    }

    pub(super) fn in_flight_sum(&self) -> u64 {
        self.health.in_flight_sum
    }

    /// Everything that keeps this agent's figures from being trusted.
    pub(super) fn faults(&self, plan: &TrialPlan, part: &AgentPart) -> Vec<Fault> {
        let agent = || part.agent.clone();
        let mut mismatches = self.mismatches.clone();
        let mut faults = Vec::new();
        match &self.ending {
            Some(Ending::Lost { after, why }) => {
                faults.push(Fault::AgentLost { agent: agent(), after: *after, why: why.clone() });
            }
            None => mismatches.push(Mismatch::NoTotals),
            Some(Ending::Totals(totals)) => {
                mismatches.extend(self.differences(totals));
                if totals.end == StepEnd::Finished {
                    mismatches.extend(self.unaccounted(plan, part));
                } else {
                    faults.push(Fault::EndedEarly { agent: agent(), end: totals.end });
                }
            }
        }
        let mismatches = mismatches.into_iter().take(MISMATCHES);
        faults.extend(mismatches.map(|mismatch| Fault::DoesNotAddUp { agent: agent(), mismatch }));
        faults
    }

    /// Where the snapshots' sums are not the totals.
    fn differences(&self, totals: &StepTotals) -> Vec<Mismatch> {
        let mut found = Vec::new();
        if totals.snapshots != self.received {
            found.push(Mismatch::Snapshots { sent: totals.snapshots, received: self.received });
        }
        let sums = [
            (SumOf::Counters, totals.counters == self.counters),
            (SumOf::Warmup, totals.warmup == self.warmup),
            (SumOf::Series, totals.series == self.series && totals.samples == self.samples),
            (SumOf::Strays, totals.strays == self.strays),
            (SumOf::Observed, totals.observed == self.observed),
        ];
        found.extend(sums.iter().filter(|(_, equal)| !equal).map(|&(of, _)| Mismatch::Sum { of }));
        found
    }

    /// What a trial that ran to its end must account for.
    fn unaccounted(&self, plan: &TrialPlan, part: &AgentPart) -> Vec<Mismatch> {
        let mut found = Vec::new();
        let (_, expected) = due(plan, part);
        // Users who were not online as the trial began do nothing in it, and nobody does more. Who is lost later is due all the
        // same, and fails: where all have been online together at any time, all act.
        let all_act = self.health.most_users().is_none_or(|online| online >= part.share.milli() / 1000);
        if self.counters.due > expected || all_act && self.counters.due < expected {
            found.push(Mismatch::Due { expected, got: self.counters.due });
        }
        if !self.counters.add_up() {
            found.push(Mismatch::Unaccounted);
        }
        for ((limits, counts), &recorded) in plan.limits.iter().zip(&self.series).zip(&self.samples) {
            let ordered = counts.above.iter().zip(&counts.above_anyway).all(|(above, anyway)| anyway <= above);
            let within =
                counts.ended() <= self.counters.attempted && counts.above.iter().all(|&above| above <= counts.n);
            let within = within && counts.given_up <= counts.n && counts.failed_anyway <= counts.errors();
            if counts.n != recorded {
                found.push(Mismatch::Samples { series: limits.series.clone(), counted: counts.n, recorded });
            } else if !ordered || !within {
                found.push(Mismatch::Unaccounted);
            }
        }
        found
    }

    pub(super) fn measurement(&self, plan: &TrialPlan, part: &AgentPart) -> AgentMeasurement {
        AgentMeasurement {
            agent: part.agent.clone(),
            share: part.share,
            counters: self.counters,
            series: self.series.clone(),
            strays: self.strays,
            health: HealthDigest { spoilt_blocks: self.spoilt.blocks(), ..self.health.digest() },
            start: self.start(plan, part),
            server: part.server.clone(),
        }
    }

    fn start(&self, plan: &TrialPlan, part: &AgentPart) -> Option<StartLag> {
        let (Some(Ending::Totals(totals)), Some(clock)) = (&self.ending, part.clock) else { return None };
        let lag_ns = clock.lag_ns(totals.started_boottime_ns, plan.start_boottime_ns);
        Some(StartLag { lag_ns, error: clock.error, own_boottime_ns: totals.started_boottime_ns })
    }
}

/// What is due of an agent in the warmup and in the hold.
fn due(plan: &TrialPlan, part: &AgentPart) -> (u64, u64) {
    part.due.unwrap_or_else(|| (part.share.due_in(plan.warmup), part.share.due_in(plan.hold)))
}

/// Whether every field's sum is at most `most`.
fn stays_within<const N: usize>(most: u64, rows: impl Iterator<Item = [u64; N]>) -> bool {
    let mut sums = [0_u128; N];
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += u128::from(value));
    }
    sums.iter().all(|&sum| sum <= u128::from(most))
}

/// Every field, written as a full pattern, so that none can be forgotten.
fn counter_fields(counters: &Counters) -> [u64; 13] {
    let Counters { due, attempted, sent, saturated, underrun, completed, failed, lost, failed_anyway } = *counters;
    let Failed { timeout, refused, bad_reply, publish, no_responders } = failed;
    [
        due,
        attempted,
        sent,
        saturated,
        underrun,
        completed,
        timeout,
        refused,
        bad_reply,
        publish,
        no_responders,
        lost,
        failed_anyway,
    ]
}

/// Every field, of the counts above a limit the largest.
fn series_fields(counts: &SeriesCounts) -> [u64; 5] {
    let SeriesCounts { n, refused, given_up, failed_anyway, above, above_anyway } = counts;
    let above = above.iter().chain(above_anyway).max();
    [*n, *refused, *given_up, *failed_anyway, above.copied().unwrap_or(0)]
}
