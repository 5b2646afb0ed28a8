//! What a reader must know beside the figures: what is odd, and how sharp the measurement was.

use std::time::Duration;

use plimsoll_common::snapshot::{Observed, Strays};
use plimsoll_common::workload::{ObservationKind, ObservationSpec};

use super::table::name;
use super::{RunReport, TrialReport, observations, words};
use crate::core::backlog::smallest_excess;
use crate::core::measurement::{AgentMeasurement, StepMeasurement};
use crate::core::roster::FleetChange;
use crate::core::slo::Slo;

/// One line each; those of a trial begin with its target rate.
pub fn notes(report: &RunReport) -> Vec<String> {
    let of_trial = |trial: &TrialReport| {
        let name = name(trial);
        let notes = observed(trial, report).into_iter().chain(trial_notes(trial, &report.slo));
        notes.map(move |note| format!("{name}: {note}")).collect::<Vec<_>>()
    };
    report.trials.iter().flat_map(of_trial).chain(run_notes(report)).collect()
}

/// What the workload observed beside latency, in one line.
fn observed(trial: &TrialReport, report: &RunReport) -> Option<String> {
    let specs = observations(&report.workload);
    let words = |(spec, observed): (&ObservationSpec, &Observed)| match spec.kind {
        ObservationKind::Event => format!("{} {}", observed.count, spec.words),
        ObservationKind::Size => match observed.mean() {
            Some(mean) => format!("{mean:.1} {} (at most {})", spec.words, observed.max),
            None => format!("no data on {}", spec.words),
        },
    };
    // Presence is observed where that was asked for.
    let asked =
        |(spec, observed): &(&ObservationSpec, &Observed)| observed.count > 0 || !spec.name.starts_with("presence");
    let words: Vec<String> = specs.iter().zip(&trial.measurement.observed).filter(asked).map(words).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn trial_notes(trial: &TrialReport, slo: &Slo) -> Vec<String> {
    let step = &trial.measurement;
    let recovery = trial.recovery.map(|took| {
        format!("the backlog took {} to come back to its baseline before this trial", words::duration(took))
    });
    let foreign = step.streams.iter().filter_map(|load| {
        let most = slo.most_messages_of(&load.stream, step);
        let ours = match most {
            Some(most) => format!("ours were at most {most}"),
            None => format!("we sent {}", load.sent),
        };
        load.is_foreign(most.unwrap_or(load.sent)).then(|| {
            format!("stream {} took {} messages and {ours}: somebody else drives this target", load.stream, load.grew)
        })
    });
    [recovery, void_blocks(step), never_left(step), strays(step.strays), clipped(step), little(step), deal(trial)]
        .into_iter()
        .flatten()
        .chain(foreign)
        .chain(trial.fleet.iter().map(fleet_change))
        .chain(boxes(trial, slo))
        .collect()
}

fn fleet_change(change: &FleetChange) -> String {
    match change {
        FleetChange::Joined { agent } => format!("agent {agent} joined before this trial"),
        FleetChange::Capped { agent, share, ceiling, of } => {
            let unit = of.unit();
            format!(
                "held with at most {ceiling}{unit} by {agent}, which could not carry {share}{unit}: its box is too small"
            )
        }
        FleetChange::Lost { agent, why } => format!("held without agent {agent}, which was lost: {why}"),
    }
}

/// Notes on single boxes beyond this many are counted only.
const BOX_NOTES: usize = 8;

/// What single load boxes had to say.
fn boxes(trial: &TrialReport, slo: &Slo) -> Vec<String> {
    let disturbing = slo.tightest_limit().unwrap_or(Duration::MAX) / 10;
    let of_agent = |agent: &AgentMeasurement| {
        let (name, health) = (&agent.agent, &agent.health);
        let throttled = (!health.throttled.is_zero())
            .then(|| format!("{name} was held back by a CPU quota for {}", words::duration(health.throttled)));
        let blocked = (health.write_blocked > disturbing)
            .then(|| format!("a write of {name} was blocked for {}", words::duration(health.write_blocked)));
        let errors = health.client_errors.iter().map(|error| format!("the NATS client of {name} reported: {error}"));
        throttled.into_iter().chain(blocked).chain(errors).collect::<Vec<_>>()
    };
    let mut notes: Vec<String> = trial.measurement.agents.iter().flat_map(of_agent).collect();
    if notes.len() > BOX_NOTES {
        let more = notes.len() - BOX_NOTES;
        notes.truncate(BOX_NOTES);
        notes.push(format!("{more} more such notes on load boxes"));
    }
    notes
}

fn void_blocks(step: &StepMeasurement) -> Option<String> {
    let void = step.blocks.iter().filter(|block| block.void).count();
    let worst = step.agents.iter().max_by_key(|agent| agent.health.worst_stall)?;
    (void > 0).then(|| {
        format!(
            "{void} of {} blocks are void, a load box stalled in them for over a tenth of the tightest limit; worst: {}, {}",
            step.blocks.len(),
            worst.agent,
            words::stall(worst.health.worst_stall)
        )
    })
}

fn never_left(step: &StepMeasurement) -> Option<String> {
    let counters = &step.counters;
    (counters.never_left() > 0).then(|| {
        format!(
            "{} of {} due never left: {} saturated, {} underrun",
            counters.never_left(),
            counters.due,
            counters.saturated,
            counters.underrun
        )
    })
}

fn strays(strays: Strays) -> Option<String> {
    let Strays { foreign, duplicate, late } = strays;
    (strays != Strays::default()).then(|| {
        format!("{foreign} foreign, {duplicate} duplicate and {late} late messages, which changed nothing else")
    })
}

fn clipped(step: &StepMeasurement) -> Option<String> {
    let clipped: u64 = step.series.iter().map(|series| series.latency.clipped()).sum();
    (clipped > 0).then(|| format!("{clipped} samples above 60s are shown as 60s"))
}

fn little(step: &StepMeasurement) -> Option<String> {
    let check = step.little.filter(|check| !check.holds())?;
    Some(format!(
        "Little's law is off: {:.1} operations in flight where rate and time make {:.1}: a queue that grows, or something is not what it says",
        check.in_flight, check.expected
    ))
}

fn deal(trial: &TrialReport) -> Option<String> {
    let deal = trial.deal?;
    Some(format!(
        "{} rooms, {} senders and {} pairs of them in use; a room's rate is off its weight by at most {:.2}%",
        deal.rooms,
        deal.senders,
        deal.pairs,
        deal.largest_deviation_ppm as f64 / 10_000.0
    ))
}

fn run_notes(report: &RunReport) -> Vec<String> {
    let several = |trial: &&TrialReport| trial.measurement.agents.len() > 1;
    let skews = report.trials.iter().filter(several).filter_map(|trial| trial.measurement.skew());
    let skew = skews.max().map(|(skew, error)| {
        format!("agents started at most {} apart, +/- {}", words::duration(skew), words::duration(error))
    });
    [skew, excess(report)].into_iter().flatten().collect()
}

fn excess(report: &RunReport) -> Option<String> {
    let watched = |trial: &&TrialReport| !trial.measurement.backlog.is_empty();
    let hold: Duration = report.trials.iter().find(watched)?.measurement.hold;
    let limit = report.slo.pending_growth;
    Some(format!(
        "a durable that falls behind by less than {:.1}/s does not show: +{limit} over a hold of {}",
        smallest_excess(limit, hold),
        words::duration(hold)
    ))
}
