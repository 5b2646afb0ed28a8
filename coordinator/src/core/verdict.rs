//! PASS, TRIP or INCONCLUSIVE: what a measurement says about the objectives, with the reasons as data.

mod aftermath;
mod alone;
mod errors;
mod reason;

use plimsoll_common::snapshot::{SeriesCounts, StepEnd};
use serde::{Deserialize, Serialize};

pub(in crate::core) use self::aftermath::QUIET_BLOCKS;
pub use self::alone::alone;
pub use self::reason::{Alone, BoxAtFault, Breach, Doubt, Errors, Objective, Percentile, Shortfall};
use super::backlog::{DurableBacklog, Fate};
use super::measurement::{AgentMeasurement, Fault, SeriesMeasurement, StepMeasurement};
use super::non_empty::NonEmpty;
use super::slo::{Gate, SeriesSlo, Slo, WHOLE_PPM};

/// What a trial says of its level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every objective holds.
    Pass,
    /// The service broke an objective.
    Trip(NonEmpty<Breach>),
    /// The measurement cannot be trusted, or proves neither.
    Inconclusive(NonEmpty<Doubt>),
}

/// Judges a trial by objectives whose limits travelled with its plan. What load boxes alone see broken, while the others hold
/// every objective, is no TRIP.
///
/// # Panics
/// When the measurement was counted against other limits.
pub fn judge(step: &StepMeasurement, slo: &Slo) -> Verdict {
    match judge_as_one(step, slo) {
        Verdict::Trip(breaches) => {
            NonEmpty::new(alone(step, slo)).map_or(Verdict::Trip(breaches), Verdict::Inconclusive)
        }
        verdict => verdict,
    }
}

/// The same where no load box is excused: what one saw alone at a level was then seen by another, who had taken over its part.
///
/// # Panics
/// As [`judge`].
pub fn judge_as_one(step: &StepMeasurement, slo: &Slo) -> Verdict {
    if let Some(failures) = NonEmpty::new(measurement_failures(step, slo)) {
        return Verdict::Inconclusive(failures);
    }
    // Before what is not proved: a service that pushes back slows the generator too, and is not excused by it.
    let breaches = NonEmpty::new(breaches(step, slo));
    if let Some(apart) = apart(step, slo) {
        // What was broken is no verdict where the load was never whole; which boxes were in trouble is worth knowing.
        let besides = if breaches.is_none() { unproved(step, slo) } else { Vec::new() };
        return Verdict::Inconclusive(besides.into_iter().fold(NonEmpty::one(apart), NonEmpty::and));
    }
    if let Some(breaches) = breaches {
        return Verdict::Trip(breaches);
    }
    NonEmpty::new(unproved(step, slo)).map_or(Verdict::Pass, Verdict::Inconclusive)
}

/// Why the figures say nothing at all.
fn measurement_failures(step: &StepMeasurement, slo: &Slo) -> Vec<Doubt> {
    let mut doubts: Vec<Doubt> = step.faults.iter().cloned().map(Doubt::Fault).collect();
    if step.counters.attempted == 0 {
        doubts.push(Doubt::NothingAttempted);
    } else if slo.error_rate.holds(step.counters.errors(), step.counters.attempted) {
        // Where the error rate is broken, an empty series is what that looks like.
        // What is rare may not have been due at all.
        let attempted = step.counters.attempted;
        let mut empty: Vec<&str> = gates_of(step, slo)
            .filter(|(objective, series, _)| series.counts.n == 0 && owed_a_sample(objective, attempted))
            .filter(|(objective, series, _)| !errors::is_broken(objective, &series.counts, attempted, slo))
            .map(|(_, series, _)| &*series.series)
            .collect();
        empty.dedup();
        doubts.extend(empty.iter().map(|&series| Doubt::NoSamples { series: series.to_owned() }));
    }
    doubts.extend(few_users(step));
    doubts
}

/// So many that are expected are not all missing by chance: once in 500 million.
const SURE: u64 = 20;

/// Whether a series that has no sample after so many operations is missing them.
pub(in crate::core) fn owed_a_sample(objective: &SeriesSlo, attempted: u64) -> bool {
    objective.part_ppm == WHOLE_PPM || objective.part_of(attempted) >= SURE
}

/// Where levels are users, that too few of them were online.
pub(in crate::core) fn few_users(step: &StepMeasurement) -> Option<Doubt> {
    let (online, users) = (step.users_online()?.online, step.target.milli() / 1000);
    (u128::from(online) * 100 < u128::from(users) * 95).then_some(Doubt::FewUsers { online, users })
}

/// What the service broke, by the counts that the load boxes cannot have spoiled.
fn breaches(step: &StepMeasurement, slo: &Slo) -> Vec<Breach> {
    let percentiles = gates(step, slo).filter_map(|(series, gate)| {
        let above = by_service(step, series, &gate);
        is_broken(&gate, above, series.counts.n).then(|| Breach::Percentile(percentile(series, &gate, above)))
    });
    let anyway = Errors { errors: step.counters.failed_anyway, ..errors(step, slo) };
    let error_rate = (!anyway.hold()).then_some(Breach::ErrorRate(anyway));
    let backlog = step.backlog.iter().filter_map(|durable| backlog_breach(durable, slo));
    percentiles.chain(errors::breaches(step, slo)).chain(error_rate).chain(backlog).collect()
}

/// Operations of a series that the service alone put over a limit.
fn by_service(step: &StepMeasurement, series: &SeriesMeasurement, gate: &Gate) -> u64 {
    let anyway = series.counts.above_anyway[gate.above_index];
    let index = step.series.iter().position(|measured| measured.series == series.series);
    // Where the boxes' own stalls are excuse enough, nobody has to ask what they did to others.
    index
        .filter(|_| is_broken(gate, anyway, series.counts.n))
        .map_or(anyway, |i| aftermath::above_anyway(step, i, gate))
}

fn backlog_breach(backlog: &DurableBacklog, slo: &Slo) -> Option<Breach> {
    let limit = slo.pending_growth;
    let durable = backlog.name.clone();
    match (backlog.fate, backlog.growth) {
        (Fate::Gone, _) => Some(Breach::DurableGone { durable }),
        (Fate::Recreated, _) => Some(Breach::DurableRecreated { durable }),
        (Fate::Kept | Fate::Unknown, _) if slo.may_grow.contains(&durable.durable) => None,
        (Fate::Kept | Fate::Unknown, Some(growth)) if i128::from(growth.messages) > i128::from(limit) => {
            Some(Breach::BacklogGrowth { durable, growth: growth.messages, limit })
        }
        (Fate::Kept | Fate::Unknown, _) => None,
    }
}

/// What is not broken by the service and not proved to hold either.
fn unproved(step: &StepMeasurement, slo: &Slo) -> Vec<Doubt> {
    let percentiles = gates(step, slo).filter_map(|(series, gate)| {
        let above = series.counts.above[gate.above_index];
        is_broken(&gate, above, series.counts.n).then(|| Doubt::PercentileByBoxes {
            percentile: percentile(series, &gate, above),
            boxes: by_boxes(step, series, &gate),
        })
    });
    let errors = errors(step, slo);
    let error_rate = (!errors.hold()).then(|| Doubt::ErrorRateByBoxes {
        errors,
        boxes: boxes(step, |agent| agent.counters.errors().saturating_sub(agent.counters.failed_anyway)),
    });
    let backlog = step.backlog.iter().filter_map(|durable| backlog_doubt(durable, step, slo));
    let of_series = errors::unproved(step, slo);
    percentiles.chain(of_series).chain(error_rate).chain(backlog).chain(shortfall_doubt(step, slo)).collect()
}

fn backlog_doubt(backlog: &DurableBacklog, step: &StepMeasurement, slo: &Slo) -> Option<Doubt> {
    let durable = backlog.name.clone();
    match backlog.growth {
        // It may grow as it likes, but somebody has to have seen in the hold that it is still there.
        _ if slo.may_grow.contains(&durable.durable) && backlog.fate != Fate::Unknown && backlog.last.is_some() => None,
        None => Some(Doubt::BacklogUnreadable { durable, reads_at_ends: backlog.reads_at_ends }),
        Some(growth) if growth.keeps_rising(step.counters.due) => {
            Some(Doubt::BacklogNotStationary { durable, growth: growth.messages, limit: slo.pending_growth })
        }
        Some(_) => stands(backlog, step, slo),
    }
}

/// Whether a backlog that does not grow any more stands so high that a stream's limits, or a consumer's, may be what ends its
/// growth: above rest by more than it may grow and what comes in within half a second.
fn stands(backlog: &DurableBacklog, step: &StepMeasurement, slo: &Slo) -> Option<Doubt> {
    let above = backlog.last?.total().checked_sub(backlog.rest?)?;
    let due = slo.messages_of(&backlog.name.stream, step.counters.due) as f64;
    let half_a_second = due * (0.5 / step.hold.as_secs_f64().max(0.5));
    let limit = slo.pending_growth.saturating_add(half_a_second as u64);
    let matters = above > limit && !slo.may_grow.contains(&backlog.name.durable);
    matters.then(|| Doubt::BacklogStands { durable: backlog.name.clone(), above, limit })
}

/// Whether the holds began too far apart to be one window: by the estimate itself, whatever its error.
pub(in crate::core) fn apart(step: &StepMeasurement, slo: &Slo) -> Option<Doubt> {
    let limit = slo.max_skew;
    let (skew, _) = step.skew().filter(|(skew, _)| *skew > limit)?;
    let last = step.agents.iter().max_by_key(|agent| agent.start.map(|start| start.lag_ns))?;
    Some(Doubt::StartsApart { last: last.agent.clone(), skew, limit })
}

/// Why a trial that breaks nothing would be no PASS of its level, apart from what the boxes did to its percentiles: too much
/// never left, or a backlog stands high.
pub fn no_pass(step: &StepMeasurement, slo: &Slo) -> Option<Doubt> {
    let stands = || step.backlog.iter().find_map(|durable| stands(durable, step, slo));
    rate_short(step, slo).or_else(stands)
}

/// Whether the operations that never left are too many: for the tolerance, or for a percentile if they are counted as
/// slower than its limit.
fn shortfall_doubt(step: &StepMeasurement, slo: &Slo) -> Option<Doubt> {
    if let Some(short) = rate_short(step, slo) {
        return Some(short);
    }
    let never_left = step.counters.never_left();
    let flattered = gates_of(step, slo).find(|(objective, series, gate)| {
        let SeriesCounts { n, above, .. } = &series.counts;
        let (above, never_left) = (above[gate.above_index], objective.part_of(never_left));
        !is_broken(gate, above, *n) && is_broken(gate, above + never_left, n + never_left)
    });
    flattered.map(|(_, series, gate)| Doubt::NeverLeft {
        series: series.series.clone(),
        quantile: gate.quantile,
        limit: gate.limit,
        shortfall: shortfall(step),
    })
}

fn rate_short(step: &StepMeasurement, slo: &Slo) -> Option<Doubt> {
    (!slo.rate_tolerance.holds(step.counters.never_left(), step.counters.due)).then(|| Doubt::RateShort {
        due: step.counters.due,
        attempted: step.counters.attempted,
        tolerance: slo.rate_tolerance,
        shortfall: shortfall(step),
    })
}

fn shortfall(step: &StepMeasurement) -> Shortfall {
    Shortfall {
        saturated: step.counters.saturated,
        underrun: step.counters.underrun,
        capped: boxes(step, |agent| agent.counters.saturated),
        late: boxes(step, |agent| agent.counters.underrun),
    }
}

/// Every gated percentile with its series.
fn gates<'a>(step: &'a StepMeasurement, slo: &'a Slo) -> impl Iterator<Item = (&'a SeriesMeasurement, Gate)> {
    gates_of(step, slo).map(|(_, series, gate)| (series, gate))
}

/// The same with the objective.
fn gates_of<'a>(
    step: &'a StepMeasurement,
    slo: &'a Slo,
) -> impl Iterator<Item = (&'a SeriesSlo, &'a SeriesMeasurement, Gate)> {
    slo.series.iter().flat_map(move |objective| {
        let measured = step.series.iter().find(|series| series.series == objective.series);
        let measured = measured.expect("a trial measures every series of its plan");
        assert_eq!(objective.limits().limits_us, measured.limits_us, "counted against other limits");
        objective.gates().into_iter().map(move |gate| (objective, measured, gate))
    })
}

/// Quantile q holds exactly if at most n − ⌈q·n⌉ operations are above the limit.
fn is_broken(gate: &Gate, above: u64, n: u64) -> bool {
    above > gate.quantile.allowed_above(n)
}

fn percentile(series: &SeriesMeasurement, gate: &Gate, above: u64) -> Percentile {
    Percentile {
        series: series.series.clone(),
        quantile: gate.quantile,
        observed: series.percentile(gate.quantile).unwrap_or(gate.limit),
        limit: gate.limit,
        above,
        n: series.counts.n,
    }
}

fn errors(step: &StepMeasurement, slo: &Slo) -> Errors {
    let (errors, attempted) = (step.counters.errors(), step.counters.attempted);
    Errors { errors, attempted, limit: slo.error_rate }
}

impl Errors {
    fn hold(&self) -> bool {
        self.limit.holds(self.errors, self.attempted)
    }
}

/// Operations of an agent that are above a limit by its box's stalls alone.
fn spoiled(agent: &AgentMeasurement, series: &str, step: &StepMeasurement, gate: &Gate) -> u64 {
    let of =
        |counts: &SeriesCounts| counts.above[gate.above_index].saturating_sub(counts.above_anyway[gate.above_index]);
    counts_of(agent, series, step).map_or(0, of)
}

fn counts_of<'a>(agent: &'a AgentMeasurement, series: &str, step: &StepMeasurement) -> Option<&'a SeriesCounts> {
    let index = step.series.iter().position(|measured| measured.series == series)?;
    agent.series.get(index)
}

/// The agents whose boxes put operations of a series over a limit. What the bursts of those that stalled did to the others' is
/// laid at the door of the one that stalled longest.
fn by_boxes(step: &StepMeasurement, series: &SeriesMeasurement, gate: &Gate) -> Vec<BoxAtFault> {
    let others = series.counts.above_anyway[gate.above_index] - by_service(step, series, gate);
    let longest = step.agents.iter().filter(|agent| agent.health.void_blocks > 0).max_by_key(|a| a.health.worst_stall);
    boxes(step, |agent| {
        let is_longest = longest.is_some_and(|longest| longest.agent == agent.agent);
        spoiled(agent, &series.series, step, gate) + if is_longest { others } else { 0 }
    })
}

/// The agents whose boxes spoiled operations, the worst first.
fn boxes(step: &StepMeasurement, operations: impl Fn(&AgentMeasurement) -> u64) -> Vec<BoxAtFault> {
    let at_fault = |agent: &AgentMeasurement| BoxAtFault {
        agent: agent.agent.clone(),
        operations: operations(agent),
        worst_stall: agent.health.worst_stall,
        void_blocks: agent.health.void_blocks,
    };
    let mut boxes: Vec<BoxAtFault> =
        step.agents.iter().map(at_fault).filter(|spoiler| spoiler.operations > 0).collect();
    boxes.sort_by_key(|spoiler| std::cmp::Reverse(spoiler.operations));
    boxes
}

impl Verdict {
    /// The word that reports use.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Trip(_) => "TRIP",
            Self::Inconclusive(_) => "INCONCLUSIVE",
        }
    }

    /// Whether an agent was lost in the trial, or shut down: the others can hold it again.
    pub fn lost_an_agent(&self) -> bool {
        let Self::Inconclusive(doubts) = self else { return false };
        let is_loss =
            |fault: &Fault| matches!(fault, Fault::AgentLost { .. } | Fault::EndedEarly { end: StepEnd::ShutDown, .. });
        doubts.iter().any(|doubt| matches!(doubt, Doubt::Fault(fault) if is_loss(fault)))
    }

    /// The agents that alone did not reach the target as the others did, each once, with what says so: what they measure is their
    /// own way there, and the others can hold the trial again.
    pub fn astray(&self) -> Vec<(&str, &Doubt)> {
        let mut astray: Vec<(&str, &Doubt)> = Vec::new();
        for doubt in self.doubts() {
            if let Doubt::SlowAlone { agent, .. } | Doubt::Fault(Fault::CutOff { agent, one_of_many: false, .. }) =
                doubt
                && astray.iter().all(|(known, _)| known != agent)
            {
                astray.push((agent, doubt));
            }
        }
        astray
    }

    /// Whether the fleet cannot carry the level, so that no level above it either.
    pub fn lacks_headroom(&self) -> bool {
        let Self::Inconclusive(doubts) = self else { return false };
        doubts.iter().any(|doubt| matches!(doubt, Doubt::NoHeadroom { .. } | Doubt::NoHeadroomForUsers { .. }))
    }

    /// The agents whose boxes made the trial inconclusive, each once: only then is another trial worth its time. An
    /// in-flight cap that was reached is no box's doing.
    pub fn boxes_to_blame(&self) -> Vec<&str> {
        let last_to_begin = self.doubts().filter_map(Doubt::last_to_begin);
        each_once(self.boxes_that_spoiled().into_iter().chain(last_to_begin))
    }

    /// Whether what spoiled the trial may be over in the next one, though no box that made load is to blame: a backlog that could not
    /// be read often enough, as the coordinator's box stood still or the server did not answer it, or many who were cut off.
    pub fn may_pass(&self) -> bool {
        let passes = |doubt: &Doubt| {
            matches!(doubt, Doubt::BacklogUnreadable { .. } | Doubt::Fault(Fault::CutOff { one_of_many: true, .. }))
        };
        self.doubts().any(passes)
    }

    /// Those of them that left out or spoiled operations, each once.
    pub fn boxes_that_spoiled(&self) -> Vec<&str> {
        each_once(self.doubts().flat_map(Doubt::boxes).map(|spoiler| &*spoiler.agent))
    }

    fn doubts(&self) -> impl Iterator<Item = &Doubt> {
        let doubts = match self {
            Self::Inconclusive(doubts) => Some(doubts.iter()),
            Self::Pass | Self::Trip(_) => None,
        };
        doubts.into_iter().flatten()
    }
}

fn each_once<'a>(agents: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut agents: Vec<&str> = agents.collect();
    agents.sort_unstable();
    agents.dedup();
    agents
}

impl Doubt {
    fn last_to_begin(&self) -> Option<&str> {
        let Self::StartsApart { last, .. } = self else { return None };
        Some(last)
    }

    fn boxes(&self) -> &[BoxAtFault] {
        match self {
            Self::PercentileByBoxes { boxes, .. }
            | Self::ErrorRateByBoxes { boxes, .. }
            | Self::SeriesErrorsByBoxes { boxes, .. } => boxes,
            Self::NeverLeft { shortfall, .. } | Self::RateShort { shortfall, .. } => &shortfall.late,
            Self::Fault(_)
            | Self::NothingAttempted
            | Self::SlowAlone { .. }
            | Self::FewUsers { .. }
            | Self::NoSamples { .. }
            | Self::StartsApart { .. }
            | Self::NoHeadroom { .. }
            | Self::NoHeadroomForUsers { .. }
            | Self::BacklogUnreadable { .. }
            | Self::BacklogNotStationary { .. }
            | Self::BacklogStands { .. } => &[],
        }
    }
}

#[cfg(test)]
mod tests;
