//! From what a trial measured to what a search asks of it: which limits there are, and how each block stands to them.

use std::time::Duration;

use plimsoll_common::plan::BLOCK;

use super::outcome::{
    AS_IT_LIKES, BLOCKS_PER_SECOND, Block, Count, FractionLimit, Limits, Read, Showing, Signal, SlopeLimit,
};
use crate::core::backlog::{Backlog, BacklogRead, DurableName};
use crate::core::measurement::{Fault, FleetBlock, SeriesMeasurement, StepMeasurement};
use crate::core::slo::{Gate, SeriesSlo, Slo, WHOLE_PPM};
use crate::core::verdict::{apart, few_users, owed_a_sample};
use plimsoll_common::snapshot::StepEnd;

/// The growth limit of a durable is one of so many seconds.
const GROWTH_SECONDS: f64 = 30.0;
/// An error rate of nothing at all is held to one in a thousand million.
const LEAST_ALLOWED: f64 = 1e-9;
/// A block in which more than this part was released too late or never is void.
const UNDERRUN: u64 = 100;

/// What a level is judged by.
pub fn limits(slo: &Slo, durables: &[DurableName]) -> Limits {
    let percentile = |(series, gate): (&SeriesSlo, Gate)| FractionLimit {
        signal: Signal::Percentile { series: series.series.clone(), quantile: gate.quantile, limit: gate.limit },
        allowed: 1.0 - gate.quantile.as_f64(),
        rare: series.part_ppm != WHOLE_PPM,
    };
    let allowed = slo.error_rate.as_f64();
    // No number of operations shows that there are no errors at all.
    let rare = allowed < LEAST_ALLOWED;
    let errors = FractionLimit { signal: Signal::ErrorRate, allowed: allowed.max(LEAST_ALLOWED), rare };
    let slope = |durable: &DurableName| SlopeLimit {
        durable: durable.clone(),
        per_second: match slo.may_grow.contains(&durable.durable) {
            true => AS_IT_LIKES,
            false => slo.pending_growth as f64 / GROWTH_SECONDS,
        },
    };
    Limits {
        fractions: gates(slo).map(|(_, series, gate)| percentile((series, gate))).chain([errors]).collect(),
        slopes: durables.iter().map(slope).collect(),
    }
}

/// Every gated percentile, with the position of its series.
fn gates(slo: &Slo) -> impl Iterator<Item = (usize, &SeriesSlo, Gate)> {
    let of = |(index, series): (usize, &'_ SeriesSlo)| (index, series.gates());
    slo.series.iter().enumerate().flat_map(move |(index, series)| {
        let (index, gates) = of((index, series));
        gates.into_iter().map(move |gate| (index, series, gate))
    })
}

/// The blocks of a trial against the limits, those whose operations have all ended or are over every limit by now.
/// `elapsed` is how much of the hold the agents have reported; `None`: all, and the drain.
pub fn blocks(blocks: &[FleetBlock], slo: &Slo, elapsed: Option<Duration>) -> Vec<Block> {
    let largest = slo.largest_limit().unwrap_or_default();
    let is_known = |(index, block): &(usize, &FleetBlock)| match elapsed {
        None => true,
        Some(elapsed) => {
            let end = BLOCK * (*index as u32 + 1);
            elapsed >= end && (open(block) == 0 || elapsed >= end + largest)
        }
    };
    blocks.iter().enumerate().take_while(is_known).map(|(_, block)| one(block, slo)).collect()
}

/// See [`super::behind::behind`]: of every operation of a trial, whose error rate is the last of the counts. `completed` has one
/// entry per block. What failed is not under way any more, and is for the error rate to judge.
pub fn behind(showing: &Showing, completed: &[u64]) -> f64 {
    let to_complete = |block: &Block| block.counts.last().map_or(0, |errors| errors.n.saturating_sub(errors.above));
    let to_complete: Vec<u64> = showing.blocks.iter().map(to_complete).collect();
    super::behind::behind(&to_complete, completed)
}

fn open(block: &FleetBlock) -> u64 {
    let counters = &block.counters;
    counters.attempted.saturating_sub(counters.completed + counters.errors())
}

fn one(block: &FleetBlock, slo: &Slo) -> Block {
    let (counters, open) = (&block.counters, open(block));
    let percentile = |(index, objective, gate): (usize, &SeriesSlo, Gate)| {
        let series = &block.series[index];
        // What never left counts as slower for a PASS, and as nothing for a TRIP. Of what is still open a series is charged its part,
        // and no more than it still waits for: an operation may have what this one measures, and be open for another.
        let (above, anyway) = (series.above[gate.above_index], series.above_anyway[gate.above_index]);
        let awaited = objective.part_of(counters.attempted).saturating_sub(series.n + series.refused);
        let (open, never_left) = (objective.part_of(open).min(awaited), objective.part_of(counters.never_left()));
        let refused = if counts_refused(objective, &gate, slo) { series.refused } else { 0 };
        Count {
            n: series.n + refused + open + never_left,
            above: above + refused + open + never_left,
            anyway: anyway + refused + open,
        }
    };
    let errors = Count { n: counters.attempted, above: counters.errors(), anyway: counters.failed_anyway };
    Block {
        counts: gates(slo).map(percentile).chain([errors]).collect(),
        void: block.void || counters.underrun * UNDERRUN > counters.due,
    }
}

/// Whether what was refused of a series lies above its limit: where workloads have several kinds of operations, so that one that
/// fails altogether is not lost among the others. Of a rare one too few happen to prove that no more of it fail than may; where
/// more may fail than may be slow, they are no matter of the percentile.
fn counts_refused(objective: &SeriesSlo, gate: &Gate, slo: &Slo) -> bool {
    objective.part_ppm != WHOLE_PPM && slo.error_rate.as_f64() <= 1.0 - gate.quantile.as_f64()
}

/// What was due over a hold, beside what its level brings in the long run: the difference is chance.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    per_block: Vec<u64>,
    /// In the long run.
    per_second: f64,
}

impl Due {
    /// Of a level of so many operations per second. `None` where a load box was in trouble: what came then is not chance alone.
    pub fn at(per_second: f64, blocks: &[FleetBlock]) -> Option<Self> {
        let in_trouble = blocks.iter().any(|block| block.void || block.counters.underrun > 0);
        let per_block = blocks.iter().map(|block| block.counters.due).collect();
        (!in_trouble).then_some(Self { per_block, per_second })
    }

    /// Operations due by an instant of the hold, in seconds; `None` beyond what is known.
    fn by(&self, at: f64) -> Option<f64> {
        let blocks = at * BLOCKS_PER_SECOND;
        let whole = blocks as usize;
        let begun = if blocks > whole as f64 { *self.per_block.get(whole)? as f64 * blocks.fract() } else { 0.0 };
        Some(self.per_block.get(..whole)?.iter().sum::<u64>() as f64 + begun)
    }

    /// Messages per second that a durable is given in the long run, by how many it was given for each operation.
    fn given_per_second(&self, reads: &[(f64, Backlog)]) -> Option<f64> {
        let known = || reads.iter().filter_map(|&(at, backlog)| Some((self.by(at)?, backlog.given)));
        let ((due_before, given_before), (due, given)) = (known().next()?, known().next_back()?);
        let is_told = given_before > 0 && given > given_before && due > due_before;
        is_told.then(|| (given - given_before) as f64 / (due - due_before) * self.per_second)
    }
}

/// Reads of one durable, and what chance has to do with them.
pub fn reads(reads: &[BacklogRead], hold: Duration, due: Option<&Due>) -> Vec<Read> {
    let in_hold = reads.iter().filter(|read| read.at <= hold);
    let in_hold: Vec<(f64, Backlog)> =
        in_hold.filter_map(|read| Some((read.at.as_secs_f64(), read.state.backlog()?))).collect();
    let per_second = due.and_then(|due| due.given_per_second(&in_hold));
    let first = in_hold.first().copied();
    let surplus = |at: f64, given: u64| match (per_second, first) {
        (Some(per_second), Some((began, first))) => given as f64 - first.given as f64 - per_second * (at - began),
        _ => 0.0,
    };
    let read = |&(at, backlog): &(f64, Backlog)| Read {
        at,
        backlog: backlog.total() as f64,
        surplus: surplus(at, backlog.given),
    };
    in_hold.iter().map(read).collect()
}

/// Everything of a trial that ran to its end.
pub fn showing(step: &StepMeasurement, slo: &Slo, durables: Vec<Vec<Read>>) -> Showing {
    Showing { blocks: blocks(&step.blocks, slo, None), reads: durables }
}

/// Why a trial cannot be used; that it was stopped on purpose is no reason.
pub fn fault(step: &StepMeasurement, slo: &Slo, was_stopped: bool) -> Option<String> {
    let matters = |fault: &&Fault| match fault {
        Fault::EndedEarly { end: StepEnd::Stopped, .. } => !was_stopped,
        _ => true,
    };
    let named = step.faults.iter().find(matters).map(crate::report::words::fault);
    let empty = || (step.counters.attempted == 0).then(|| "no operation was released".to_owned());
    let silent = || {
        let owed = |name: &str| {
            let objective = slo.series.iter().find(|objective| objective.series == name);
            objective.is_none_or(|objective| owed_a_sample(objective, step.counters.attempted))
        };
        let is_silent = |series: &&SeriesMeasurement| {
            series.counts.ended() == 0 && !series.limits_us.is_empty() && owed(&series.series)
        };
        let silent = step.series.iter().find(is_silent)?;
        let why = || format!("{} has no samples although operations completed", silent.series);
        let holds = slo.error_rate.holds(step.counters.errors(), step.counters.attempted);
        (step.counters.completed > 0 && holds).then(why)
    };
    let doubt = || few_users(step).or_else(|| apart(step, slo)).map(|doubt| crate::report::words::doubt(&doubt));
    named.or_else(empty).or_else(silent).or_else(doubt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::backlog::DurableState;
    use plimsoll_common::snapshot::{Counters, SeriesCounts};

    /// Blocks of a thousand operations, of which so many fail, and so many complete.
    fn part_left_undone(failed: u64, completed: u64) -> f64 {
        let count = Count { n: 1000, above: failed, anyway: failed };
        let showing = Showing { blocks: vec![Block { counts: vec![count], void: false }; 12], reads: Vec::new() };
        behind(&showing, &[completed; 12])
    }

    #[test]
    fn a_trial_whose_agents_did_not_begin_together_is_not_used_whether_or_not_it_was_stopped() {
        let mut step = crate::core::fixture::measurement();
        let slo = crate::core::fixture::slo();
        let late =
            |step: &mut StepMeasurement, ms: i64| step.agents[1].start.as_mut().unwrap().lag_ns += ms * 1_000_000;
        late(&mut step, 100);
        assert_eq!((fault(&step, &slo, false), fault(&step, &slo, true)), (None, None));
        late(&mut step, 1);
        for was_stopped in [false, true] {
            let words = fault(&step, &slo, was_stopped).unwrap();
            assert_eq!(
                words,
                "the agents' holds began 101ms apart > 100ms (--max-skew), box-b last: they are not one window"
            );
        }
    }

    #[test]
    fn an_action_of_several_that_is_refused_is_above_its_limits() {
        let counted = |part_ppm, error_rate: &str| {
            let mut slo = crate::core::fixture::slo();
            (slo.series[1].part_ppm, slo.error_rate) = (part_ppm, error_rate.parse().unwrap());
            let mut block = crate::core::fixture::measurement().blocks[0].clone();
            let counts = SeriesCounts { n: 6, refused: 4, failed_anyway: 4, ..SeriesCounts::zero(2) };
            block.series = vec![SeriesCounts { n: 500, ..SeriesCounts::zero(2) }, counts];
            let counts = one(&block, &slo).counts;
            [counts[2], counts[3]].map(|count| (count.n, count.above, count.anyway))
        };
        assert_eq!(counted(20_000, "0.001"), [(10, 4, 4); 2]);
        // Three in a hundred may fail, and one in a hundred be slow.
        assert_eq!(counted(20_000, "0.03"), [(10, 4, 4), (6, 0, 0)]);
        // Of the only kind the error rate says it.
        assert_eq!(counted(WHOLE_PPM, "0.001"), [(6, 0, 0); 2]);
    }

    #[test]
    fn what_is_open_for_one_series_is_over_no_limit_of_another() {
        let slo = crate::core::fixture::slo();
        let mut block = crate::core::fixture::measurement().blocks[0].clone();
        block.counters.completed = 0;
        let all = block.counters.attempted;
        let answered = SeriesCounts { n: all - 3, refused: 1, ..SeriesCounts::zero(2) };
        block.series = vec![answered, SeriesCounts::zero(2)];
        let step_of = Duration::from_secs(60);
        let counts = &blocks(&[block], &slo, Some(step_of))[0].counts;
        let seen: Vec<_> = counts.iter().map(|count| (count.n, count.above, count.anyway)).collect();
        let (of_first, of_second) = ((all - 1, 2, 2), (all, all, all));
        assert_eq!(seen, [of_first, of_first, of_second, of_second, (all, 0, 0)]);
    }

    #[test]
    fn a_series_without_a_sample_is_missing_as_long_as_the_error_rate_holds() {
        let slo = crate::core::fixture::slo();
        let empty = |failed: u64| {
            let mut step = crate::core::fixture::measurement();
            step.series[1].counts = plimsoll_common::snapshot::SeriesCounts::zero(2);
            step.fail(failed, 0);
            fault(&step, &slo, false)
        };
        let words = "E2 has no samples although operations completed".to_owned();
        assert_eq!([empty(0), empty(1), empty(10)], [Some(words.clone()), Some(words.clone()), Some(words)]);
        assert_eq!(empty(11), None, "that is what a broken error rate looks like");
    }

    #[test]
    fn what_failed_is_not_left_undone() {
        // Where 5 % may fail, 2 % that are refused are no sign of an overload.
        assert_eq!(part_left_undone(20, 980), 0.0);
        assert!((part_left_undone(0, 980) - 0.02).abs() < 1e-9);
        assert!((part_left_undone(20, 930) - 50.0 / 980.0).abs() < 1e-9);
    }

    #[test]
    fn what_a_durable_was_given_beyond_its_level_is_chance() {
        // 1,000/s, of which two messages come of each operation; in the third block a tenth more was due.
        let block = |due| FleetBlock { counters: Counters { due, ..Counters::default() }, ..FleetBlock::default() };
        let blocks = [500, 500, 550, 500].map(block);
        let due = Due::at(1000.0, &blocks).unwrap();
        let read = |(ms, given): (u64, u64)| {
            let backlog = Backlog { pending: 7, ack_pending: 3, given };
            BacklogRead { at: Duration::from_millis(ms), state: DurableState::Present { backlog, created: "a".into() } }
        };
        let given = |read: &Read| (read.at, read.backlog, read.surplus.round());
        let surplus = |due: Option<&Due>, given_at: &[(u64, u64)]| {
            let all: Vec<BacklogRead> = given_at.iter().copied().map(read).collect();
            reads(&all, Duration::from_secs(2), due).iter().map(given).collect::<Vec<_>>()
        };
        let given_at = [(0, 100), (500, 1100), (1250, 2650), (2000, 4200), (2500, 5200)];
        let expected = [(0.0, 10.0, 0.0), (0.5, 10.0, 0.0), (1.25, 10.0, 50.0), (2.0, 10.0, 100.0)];
        assert_eq!(surplus(Some(&due), &given_at), expected);
        // Nothing is known of chance where nobody says what was given, or what was due.
        for (due, given_at) in [(None, given_at), (Some(&due), given_at.map(|(ms, _)| (ms, 0)))] {
            assert!(surplus(due, &given_at).iter().all(|(.., surplus)| *surplus == 0.0));
        }
        let stalled = FleetBlock { void: true, ..block(500) };
        assert_eq!(Due::at(1000.0, &[block(500), stalled]), None);
    }
}
