//! Whether every load box reached the target: one that hears nothing for a second while others are answered is cut off, and
//! what it then counts as failed says nothing of the service.

use plimsoll_common::plan::BLOCK;
use plimsoll_common::snapshot::{Snapshot, Stall};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// What a box heard of the target in a block of wall time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Heard {
    /// The box stood still.
    Nothing,
    /// Nothing was open, or the block was not reported: in the drain, all has ended.
    #[default]
    Idle,
    /// Some were open or could not be sent, and nothing was answered.
    Silence,
    /// Something.
    Answers,
}

/// Silence is one where so many wait for an answer together: that none of so many comes while others are answered is no chance.
const ANSWERS_DUE: u64 = 10;
/// A box that stood still for so long heard nothing for reasons of its own.
const STANDING_STILL_US: u64 = 100_000;
/// Blocks of silence in a row that are no accident.
const LONG: usize = 2;

/// What one box heard, block for block.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach {
    heard: Vec<Heard>,
    /// Of each block of silence: operations that waited for an answer together, at most, and those that were given up or could not
    /// be sent.
    waited: BTreeMap<usize, (u64, u64)>,
}

impl Reach {
    /// Takes a block of wall time.
    pub(super) fn add(&mut self, snapshot: &Snapshot) {
        let counters = || snapshot.blocks.iter().map(|delta| &delta.counters).chain([&snapshot.warmup]);
        let ended: u64 =
            counters().map(|c| c.completed + c.failed.refused + c.failed.bad_reply + c.failed.no_responders).sum();
        // An operation that has one of the answers that it waits for is open yet.
        let samples: u64 =
            snapshot.blocks.iter().flat_map(|delta| &delta.series).map(|s| s.n.saturating_sub(s.given_up)).sum();
        let answers = ended + samples;
        // What cannot even be handed over, as a connection is gone, is not open any more, and waits for an answer in vain too.
        let unsent: u64 = counters().map(|c| c.failed.publish).sum();
        let strays = snapshot.strays;
        let stood_still = match snapshot.health.stall {
            Stall::Bounded(us) => us >= STANDING_STILL_US,
            Stall::Unbounded => true,
        };
        let heard = if answers + strays.late + strays.duplicate + strays.foreign > 0 {
            Heard::Answers
        } else if stood_still {
            Heard::Nothing
        } else {
            match snapshot.health.in_flight_max.saturating_add(unsent) {
                0 => Heard::Idle,
                1.. => Heard::Silence,
            }
        };
        let at = snapshot.number as usize;
        if self.heard.len() <= at {
            self.heard.resize(at + 1, Heard::Idle);
        }
        self.heard[at] = heard;
        if heard == Heard::Silence {
            let given_up: u64 = counters().map(|c| c.failed.timeout + c.lost).sum();
            self.waited.insert(at, (snapshot.health.in_flight_max, given_up.saturating_add(unsent)));
        }
    }

    fn at(&self, block: usize) -> Heard {
        self.heard.get(block).copied().unwrap_or_default()
    }

    /// Whether so many answers were due in these blocks that their absence is no chance: while none comes, what is open grows by
    /// what sets out, until it is given up.
    fn misses_answers(&self, blocks: &Range<usize>) -> bool {
        let mut waited = self.waited.range(blocks.clone()).map(|(_, waited)| waited);
        let Some(&(open, given_up)) = waited.next_back() else { return false };
        // Each once: it was given up before, or it is in the last block.
        waited.fold(open.max(given_up), |sum, (_, given_up)| sum.saturating_add(*given_up)) >= ANSWERS_DUE
    }
}

/// The longest time in which this box alone heard nothing of what was due in the hold, whose blocks of wall time are given: it may
/// have begun in the warmup or go on in the drain. `None` where it was no longer than chance makes it.
pub(super) fn cut_off(all: &[&Reach], which: usize, hold: Range<usize>) -> Option<Duration> {
    // In the drain who has heard all that it waited for is not silent.
    let heard = |other: &Reach, block| match other.at(block) {
        Heard::Answers => true,
        Heard::Idle => block >= hold.end && other.heard[..block.min(other.heard.len())].contains(&Heard::Answers),
        Heard::Nothing | Heard::Silence => false,
    };
    let others_heard = |block| (0..all.len()).any(|other| other != which && heard(all[other], block));
    let alone: Vec<bool> = (0..all[which].heard.len())
        .map(|block| all[which].at(block) == Heard::Silence && others_heard(block))
        .collect();
    let mut begin = 0;
    let runs = alone.chunk_by(|a, b| a == b).map(|run| {
        begin += run.len();
        (run[0], begin - run.len()..begin)
    });
    // What a service loses of one box's rooms waits in the drain too: silence that begins there says nothing.
    let of_hold = |run: &Range<usize>| run.start < hold.end && run.end > hold.start;
    let longest = runs
        .filter(|(alone, run)| *alone && of_hold(run) && all[which].misses_answers(run))
        .map(|(_, run)| run.len())
        .max()?;
    (longest >= LONG).then(|| BLOCK * u32::try_from(longest).unwrap_or(u32::MAX / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_common::plan::TrialId;
    use plimsoll_common::snapshot::{BlockDelta, Counters, Failed, Health, SeriesCounts, Strays};

    fn reach(heard: &str) -> Reach {
        let of = |letter| match letter {
            's' => Heard::Silence,
            'a' => Heard::Answers,
            '.' => Heard::Nothing,
            _ => Heard::Idle,
        };
        let heard: Vec<Heard> = heard.chars().map(of).collect();
        Reach { waited: (0..heard.len()).map(|at| (at, (32, 0))).collect(), heard }
    }

    #[test]
    fn a_box_whose_connections_are_gone_hears_as_little_as_one_whose_answers_do_not_come() {
        let with = |open: u64, unsent: u64, completed: u64, series: &[SeriesCounts]| {
            let failed = Failed { publish: unsent, ..Failed::default() };
            let warmup = Counters { failed, completed, ..Counters::default() };
            let health = Health { in_flight_max: open, ..Health::default() };
            let snapshot = Snapshot {
                trial: TrialId { step: 0, trial: 0 },
                number: 0,
                blocks: vec![BlockDelta { block: 0, counters: Counters::default(), series: series.to_vec() }],
                series: Vec::new(),
                overdue: Vec::new(),
                strays: Strays::default(),
                warmup,
                health,
                open_time_us: 0,
                observed: Vec::new(),
            };
            let mut reach = Reach::default();
            reach.add(&snapshot);
            reach.at(0)
        };
        let of = |open, unsent, completed| with(open, unsent, completed, &[]);
        assert_eq!([of(32, 0, 0), of(0, 32, 0), of(1, 1, 0)], [Heard::Silence; 3]);
        assert_eq!(of(0, 0, 0), Heard::Idle);
        // A part of its connections alone tells nothing of its way to the target.
        assert_eq!(of(0, 500, 1), Heard::Answers);
        // Acknowledged, and not yet broadcast. What was given up enters its series too.
        let series = |given_up: u64| [SeriesCounts { n: 3, given_up, ..SeriesCounts::zero(1) }, SeriesCounts::zero(1)];
        assert_eq!([0, 3].map(|given_up| with(32, 0, 0, &series(given_up))), [Heard::Answers, Heard::Silence]);
    }

    #[test]
    fn who_alone_hears_nothing_for_a_second_is_cut_off() {
        for (heard, others, expected) in [
            ("aassaa", "aaaaaa", Some(1000)),
            ("aasssss", "aaaaaaa", Some(2500)),
            ("aassss", "aassss", None),
            ("aassss", "aasaas", Some(1000)),
            ("asasas", "aaaaaa", None),
            ("......", "aaaaaa", None),
            ("ssssss", "......", None),
            ("ssssss", "aa", Some(1000)),
        ] {
            let (one, other) = (reach(heard), reach(others));
            let found = cut_off(&[&other, &one], 1, 0..99).map(|length| length.as_millis());
            assert_eq!(found, expected, "{heard} {others}");
            assert_eq!(cut_off(&[&one], 0, 0..99), None, "with nobody beside it nobody can tell");
        }
    }

    #[test]
    fn few_operations_take_longer_to_tell_who_is_cut_off() {
        // Four boxes at 20/s in all: five a second each, given up after five seconds.
        let alone = |open: &[u64], given_up: u64| {
            let waited = open.iter().map(|&open| (open, given_up)).enumerate().collect();
            let one = Reach { heard: vec![Heard::Silence; open.len()], waited };
            cut_off(&[&reach("aaaaaaaaaa"), &one], 1, 0..99).map(|length| length.as_millis())
        };
        assert_eq!(alone(&[2, 5, 7, 10], 0), Some(2000));
        assert_eq!(alone(&[2, 5, 7, 9], 0), None, "so few may wait together for a while");
        assert_eq!(alone(&[3, 5, 8, 10, 13, 15, 18, 20, 23, 25], 0), Some(5000));
        // Given up after a second.
        assert_eq!((alone(&[2, 5, 5, 5], 2), alone(&[2, 5, 5], 1)), (Some(2000), None));
        // Who waits and is given up then is one, not two.
        let one = Reach {
            heard: vec![Heard::Silence; 3],
            waited: [(5, 0), (5, 0), (5, 5)].into_iter().enumerate().collect(),
        };
        assert_eq!(cut_off(&[&reach("aaaaaa"), &one], 1, 0..99), None);
    }

    #[test]
    fn it_may_begin_in_the_warmup_and_go_on_in_the_drain_as_long_as_it_is_of_the_hold() {
        // Two blocks of warmup, four of hold, the drain.
        for (heard, others, expected) in [
            ("asaaaa", "aaaaaa", None),
            ("ssaaaa", "aaaaaa", None),
            ("assaaa", "aaaaaa", Some(1000)),
            ("aaaaassss", "aaaaaaiii", Some(2000)),
            ("aaaaassss", "aaaaaa", Some(2000)),
            // Answers until the end, and then much that never comes: the service lost it.
            ("aaaaaasss", "aaaaaaaii", None),
            ("aaaaaasssss", "aaaaaa", None),
            ("aaaaaaass", "aaaaaaaii", None),
            // The other waits too, for more or for less.
            ("aaaaassss", "aaaaaasss", None),
            ("aaaaassss", "aaaaaa...", None),
            // Who never heard anything is no witness.
            ("aaaaassss", "......iii", None),
        ] {
            let found = cut_off(&[&reach(others), &reach(heard)], 1, 2..6).map(|length| length.as_millis());
            assert_eq!(found, expected, "{heard} {others}");
        }
    }
}
