//! Whether every load box reached the target: one that hears nothing for a second while others are answered is cut off, and
//! what it then counts as failed says nothing of the service.

use plimsoll_common::plan::BLOCK;
use plimsoll_common::snapshot::{Snapshot, Stall};
use std::time::Duration;

/// What a box heard of the target in a block of wall time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Heard {
    /// Too little was open to expect anything, the box stood still, or the block was not reported.
    #[default]
    Nothing,
    /// Much was open, and nothing was answered.
    Silence,
    /// Something.
    Answers,
}

/// Fewer operations than this may wait for an answer together for a while.
const MANY_OPEN: u64 = 32;
/// A box that stood still for so long heard nothing for reasons of its own.
const STANDING_STILL_US: u64 = 100_000;
/// Blocks of silence in a row that are no accident.
const LONG: usize = 2;

/// What one box heard, block for block.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach(Vec<Heard>);

impl Reach {
    /// Takes a block of the hold.
    pub(super) fn add(&mut self, snapshot: &Snapshot) {
        let counters = snapshot.blocks.iter().map(|delta| &delta.counters).chain([&snapshot.warmup]);
        let answers: u64 =
            counters.map(|c| c.completed + c.failed.refused + c.failed.bad_reply + c.failed.no_responders).sum();
        let strays = snapshot.strays;
        let stood_still = match snapshot.health.stall {
            Stall::Bounded(us) => us >= STANDING_STILL_US,
            Stall::Unbounded => true,
        };
        let heard = if answers + strays.late + strays.duplicate + strays.foreign > 0 {
            Heard::Answers
        } else if stood_still {
            Heard::Nothing
        } else if snapshot.health.in_flight_max >= MANY_OPEN {
            Heard::Silence
        } else {
            Heard::Nothing
        };
        let at = snapshot.number as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, Heard::Nothing);
        }
        self.0[at] = heard;
    }

    fn at(&self, block: usize) -> Heard {
        self.0.get(block).copied().unwrap_or_default()
    }
}

/// The longest time in which this box alone heard nothing; `None` where it was no longer than chance makes it.
pub(super) fn cut_off(all: &[&Reach], which: usize) -> Option<Duration> {
    let others_heard = |block| (0..all.len()).any(|other| other != which && all[other].at(block) == Heard::Answers);
    let alone: Vec<bool> =
        (0..all[which].0.len()).map(|block| all[which].at(block) == Heard::Silence && others_heard(block)).collect();
    let longest = alone.chunk_by(|a, b| a == b).filter(|run| run[0]).map(<[bool]>::len).max()?;
    (longest >= LONG).then(|| BLOCK * u32::try_from(longest).unwrap_or(u32::MAX / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(heard: &str) -> Reach {
        let of = |letter| match letter {
            's' => Heard::Silence,
            'a' => Heard::Answers,
            _ => Heard::Nothing,
        };
        Reach(heard.chars().map(of).collect())
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
            let found = cut_off(&[&other, &one], 1).map(|length| length.as_millis());
            assert_eq!(found, expected, "{heard} {others}");
            assert_eq!(cut_off(&[&one], 0), None, "with nobody beside it nobody can tell");
        }
    }
}
