//! How many copies of each message have come, of those that are expected, and to whom: a copy that comes twice is no second
//! recipient.

use std::collections::{HashMap, HashSet};

/// What a copy was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// The first of several.
    First,
    /// The only one that was expected.
    FirstAndLast,
    /// Neither.
    Between,
    /// The last that was expected.
    Last,
    /// To somebody who has one already, or of a message that everybody has.
    Again,
}

#[derive(Debug, Clone, Copy)]
struct FanOut {
    sequence: u64,
    expected: u32,
    reached: u32,
    /// Whether somebody has asked how many are expected.
    told: bool,
}

/// No message has this number.
const NEVER: u64 = u64::MAX;

/// The messages that are open, in a ring by their sequence numbers: one that is written over was given up long ago.
#[derive(Debug)]
pub(super) struct FanOuts {
    ring: Vec<FanOut>,
    /// By message: who has a copy, of those that some have and some have not. A service hands out all copies of a message at
    /// once, so these are few.
    reached: HashMap<u64, HashSet<u32>>,
    /// Emptied, to be filled again.
    spare: Vec<HashSet<u32>>,
}

/// Emptied sets that are kept.
const SPARE: usize = 256;

impl Default for FanOuts {
    fn default() -> Self {
        Self::for_open(0)
    }
}

impl FanOuts {
    /// For so many that are open at once.
    pub(super) fn for_open(most: usize) -> Self {
        // Room for bursts, and a bound: so many are 1.5 GB, which no agent's share comes near.
        let capacity = most.clamp(1_024, 1 << 26).next_power_of_two();
        let none = FanOut { sequence: NEVER, expected: 0, reached: 0, told: false };
        Self { ring: vec![none; capacity], reached: HashMap::new(), spare: Vec::new() }
    }

    fn at(&mut self, sequence: u64) -> &mut FanOut {
        let mask = self.ring.len() as u64 - 1;
        &mut self.ring[(sequence & mask) as usize]
    }

    /// A message sets out to so many recipients.
    pub(super) fn begin(&mut self, sequence: u64, expected: u32) {
        let fan_out = FanOut { sequence, expected, reached: 0, told: false };
        let before = std::mem::replace(self.at(sequence), fan_out);
        self.forget(before.sequence);
    }

    /// Nobody asks any more who has a copy of a message.
    fn forget(&mut self, sequence: u64) {
        if let Some(mut set) = self.reached.remove(&sequence)
            && self.spare.len() < SPARE
        {
            set.clear();
            self.spare.push(set);
        }
    }

    /// How many recipients are expected of a message: told once.
    pub(super) fn tell(&mut self, sequence: u64) -> Option<u32> {
        let fan_out = self.at(sequence);
        let fresh = fan_out.sequence == sequence && !std::mem::replace(&mut fan_out.told, true);
        fresh.then_some(fan_out.expected)
    }

    /// A copy came by one way, such as a line, to so many recipients at once; `None`: of a message that is not known any more.
    pub(super) fn copy(&mut self, sequence: u64, way: u32, came_to: u32) -> Option<Copied> {
        let FanOut { reached: before, expected, .. } = *self.at(sequence);
        if self.at(sequence).sequence != sequence {
            return None;
        }
        let again = before > 0 && (before >= expected || !self.reached.entry(sequence).or_default().insert(way));
        if again {
            return Some(Copied::Again);
        }
        let reached = before.saturating_add(came_to);
        self.at(sequence).reached = reached;
        let copied = match (before, reached >= expected) {
            (0, true) => Copied::FirstAndLast,
            (0, false) => Copied::First,
            (_, true) => Copied::Last,
            (_, false) => Copied::Between,
        };
        match copied {
            Copied::First => {
                let mut set = self.spare.pop().unwrap_or_default();
                set.insert(way);
                self.reached.insert(sequence, set);
            }
            Copied::Last => self.forget(sequence),
            Copied::FirstAndLast | Copied::Between | Copied::Again => {}
        }
        Some(copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_counted_to_the_last_one_and_beyond() {
        let mut fan_outs = FanOuts::default();
        fan_outs.begin(7, 4);
        let mut copy = |way, came_to| fan_outs.copy(7, way, came_to).unwrap();
        assert_eq!([copy(1, 1), copy(2, 2)], [Copied::First, Copied::Between]);
        // However often one way brings it, the last recipient is another one.
        assert_eq!([copy(1, 1), copy(2, 2), copy(1, 1)], [Copied::Again; 3]);
        assert_eq!([copy(3, 1), copy(3, 1), copy(4, 1)], [Copied::Last, Copied::Again, Copied::Again]);
        fan_outs.begin(8, 1);
        assert_eq!(fan_outs.copy(8, 1, 1), Some(Copied::FirstAndLast));
        assert_eq!(fan_outs.copy(8, 2, 1), Some(Copied::Again));
        assert_eq!(fan_outs.copy(9, 1, 1), None);
        assert_eq!([fan_outs.tell(7), fan_outs.tell(7), fan_outs.tell(9)], [Some(4), None, None]);
        // Its place was taken.
        fan_outs.begin(7 + 1_024, 1);
        assert_eq!(fan_outs.copy(7, 1, 1), None);
    }

    #[test]
    fn who_has_a_copy_is_kept_for_messages_under_way_alone() {
        let mut fan_outs = FanOuts::default();
        for sequence in 0..5_000 {
            fan_outs.begin(sequence, 3);
            let ways = if sequence % 2 == 0 { 3 } else { 2 };
            let copies = (0..ways).filter_map(|way| fan_outs.copy(sequence, way, 1));
            assert_eq!(copies.count(), ways as usize);
        }
        // Of the last 1,024 every second one was never whole.
        assert_eq!((fan_outs.reached.len(), fan_outs.spare.len() <= SPARE), (512, true));
    }
}
