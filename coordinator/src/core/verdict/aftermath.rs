//! What a load box's stall does to the operations of others: when it goes on, all that was due goes out at once, and the
//! service answers everybody later for a while. An agent subtracts its own stalls, and knows nothing of the other boxes'.

use std::time::Duration;

use plimsoll_common::snapshot::Stall;

use crate::core::measurement::{FleetBlock, StepMeasurement};
use crate::core::slo::Gate;

/// Blocks without anything over a limit, one after the other, that end the aftermath of a load box's stall.
pub(in crate::core) const QUIET_BLOCKS: usize = 2;

/// What a stall of a second put off is worked off in so many seconds, in a service that is used to 95 %. Beyond, what is over a limit
/// is the service's: nothing is quiet where it is too slow all the time.
const LONGEST: f64 = 20.0;

/// Operations of a series over a limit that neither their own box's stalls nor the burst after another's can have put
/// there, at least.
///
/// Two counts prove as much, and the larger is taken. Outside the aftermaths, what is over the limit anyway. And inside,
/// since a service that takes operations in their order answers none later by more than the longest that any came late: what
/// is over the limit by more than that, less what the boxes themselves explain.
pub(super) fn above_anyway(step: &StepMeasurement, series: usize, gate: &Gate) -> u64 {
    let counts = &step.series[series].counts;
    let (above, anyway) = (counts.above[gate.above_index], counts.above_anyway[gate.above_index]);
    let late_by = late_by(step, series, gate);
    if late_by.iter().all(Option::is_none) {
        return anyway;
    }
    let of_block = |block: &FleetBlock| block.series.get(series).map_or(0, |of| of.above_anyway[gate.above_index]);
    let in_aftermath = step.blocks.iter().zip(&late_by).filter(|(_, late)| late.is_some());
    let outside = anyway.saturating_sub(in_aftermath.map(|(block, _)| of_block(block)).sum());
    let beyond = beyond(step, series, gate.limit, &late_by).saturating_sub(above.saturating_sub(anyway));
    anyway.min(outside.max(beyond))
}

/// Samples that are over the limit by more than operations of their batch may have come late.
fn beyond(step: &StepMeasurement, series: usize, limit: Duration, late_by: &[Option<Duration>]) -> u64 {
    let all: usize = step.batches.iter().map(|batch| batch.blocks as usize).sum();
    let per_kept = (all / late_by.len().max(1)).max(1);
    let mut begin = 0;
    let of_batch = step.batches.iter().map(|batch| {
        let end = (begin + batch.blocks as usize / per_kept).min(late_by.len());
        let late = late_by[begin..end].iter().flatten().max().copied().unwrap_or_default();
        begin = end;
        let Some(latency) = batch.latency.get(series) else { return 0 };
        let most_us = u64::try_from((limit + late).as_micros()).unwrap_or(u64::MAX);
        latency.len() - latency.count_up_to_us(most_us)
    });
    of_batch.sum()
}

/// Per block of the hold, by how much operations came late before it or in it where it is a void one or follows one
/// ([`QUIET_BLOCKS`], [`LONGEST`]).
fn late_by(step: &StepMeasurement, series: usize, gate: &Gate) -> Vec<Option<Duration>> {
    // What is later than the pacer allows is never sent, however long the box stood still; it counts among the late all the same.
    let latest = step.agents.iter().filter_map(|agent| Some(agent.health.lateness?.max)).max().unwrap_or_default();
    let latest = latest.min(step.max_lateness.unwrap_or(Duration::MAX));
    let length = step.hold.as_secs_f64() / step.blocks.len().max(1) as f64;
    let mut aftermath: Option<Aftermath> = None;
    let of_block = |block: &FleetBlock| {
        let is_quiet = block.series.get(series).is_none_or(|of| of.above[gate.above_index] == 0);
        aftermath = match aftermath {
            before if block.void => {
                let late = stalled(block, latest).max(before.map_or(Duration::ZERO, |before| before.late));
                let blocks = (late.as_secs_f64() * LONGEST / length).ceil() as usize;
                Some(Aftermath { late, quiet: 0, left: blocks.max(QUIET_BLOCKS) + 1 })
            }
            Some(before) => Some(Aftermath { quiet: if is_quiet { before.quiet + 1 } else { 0 }, ..before }),
            None => None,
        };
        aftermath = aftermath.map(|now| Aftermath { left: now.left - 1, ..now });
        let late = aftermath.map(|now| now.late);
        aftermath = aftermath.filter(|now| now.quiet < QUIET_BLOCKS && now.left > 0);
        late
    };
    step.blocks.iter().map(of_block).collect()
}

#[derive(Clone, Copy)]
struct Aftermath {
    late: Duration,
    quiet: usize,
    /// Blocks that it lasts at most.
    left: usize,
}

fn stalled(block: &FleetBlock, latest: Duration) -> Duration {
    match block.stall {
        Stall::Bounded(us) => Duration::from_micros(us).min(latest),
        Stall::Unbounded => latest,
    }
}
