//! How many copies of each message have come, of those that are expected, and to whom: a copy that comes twice is no second
//! recipient.

use std::collections::{HashMap, HashSet};

use crate::core::exchange::CopyHeard;

/// What a copy was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// The first of several.
    First,
    /// The only one that was expected.
    FirstAndLast,
    /// Neither.
    Between,
    /// The last that was expected; when the latest of all was heard. Copies that siblings have heard are known a little later
    /// than those of one's own, so it need not be this one.
    Last {
        /// On the worker's clock.
        at_ns: u64,
    },
    /// To somebody who has one already, or of a message that everybody has.
    Again,
    /// To somebody who was not online as it set out, and so is no recipient.
    Uninvited,
}

/// Who is to have a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Audience {
    /// How many are in its room, and online as it sets out.
    pub(super) expected: u32,
    /// The number of the last arrival among them.
    pub(super) arrivals: u64,
}

/// A copy that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Came {
    /// What it was.
    pub(super) copied: Copied,
    /// How many recipients have the message by it, who had it not.
    pub(super) reached: u32,
}

#[derive(Debug, Clone, Copy)]
struct FanOut {
    sequence: u64,
    audience: Audience,
    reached: u32,
    /// When the latest copy was heard.
    latest_ns: u64,
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
        // Room for bursts, and a bound: so many are 2 GB, which no agent's share comes near.
        let capacity = most.clamp(1_024, 1 << 26).next_power_of_two();
        let audience = Audience { expected: 0, arrivals: 0 };
        let none = FanOut { sequence: NEVER, audience, reached: 0, latest_ns: 0 };
        Self { ring: vec![none; capacity], reached: HashMap::new(), spare: Vec::new() }
    }

    fn at(&mut self, sequence: u64) -> &mut FanOut {
        let mask = self.ring.len() as u64 - 1;
        &mut self.ring[(sequence & mask) as usize]
    }

    /// A message sets out to these recipients.
    pub(super) fn begin(&mut self, sequence: u64, audience: Audience) {
        let fan_out = FanOut { sequence, audience, reached: 0, latest_ns: 0 };
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

    /// How many recipients are expected of a message; `None`: it is none that is known.
    pub(super) fn expected(&mut self, sequence: u64) -> Option<u32> {
        let fan_out = self.at(sequence);
        (fan_out.sequence == sequence).then_some(fan_out.audience.expected)
    }

    /// A copy came; `None`: of a message that is not known any more.
    pub(super) fn copy(&mut self, copy: &CopyHeard) -> Option<Came> {
        let CopyHeard { sequence, way, came_to, since, heard_ns } = *copy;
        let FanOut { reached: before, audience: Audience { expected, arrivals }, latest_ns, .. } = *self.at(sequence);
        if self.at(sequence).sequence != sequence {
            return None;
        }
        if since > arrivals {
            return Some(Came { copied: Copied::Uninvited, reached: 0 });
        }
        let again = before > 0 && (before >= expected || !self.reached.entry(sequence).or_default().insert(way));
        if again {
            return Some(Came { copied: Copied::Again, reached: 0 });
        }
        // Of no message more than it has recipients, so that none makes up for what another lacks.
        let reached = before.saturating_add(came_to).min(expected);
        let at_ns = latest_ns.max(heard_ns);
        let fan_out = self.at(sequence);
        (fan_out.reached, fan_out.latest_ns) = (reached, at_ns);
        let copied = match (before, reached >= expected) {
            (0, true) => Copied::FirstAndLast,
            (0, false) => Copied::First,
            (_, true) => Copied::Last { at_ns },
            (_, false) => Copied::Between,
        };
        match copied {
            Copied::First => {
                let mut set = self.spare.pop().unwrap_or_default();
                set.insert(way);
                self.reached.insert(sequence, set);
            }
            Copied::Last { .. } => self.forget(sequence),
            Copied::FirstAndLast | Copied::Between | Copied::Again | Copied::Uninvited => {}
        }
        Some(Came { copied, reached: reached - before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many who were there from the beginning.
    fn all(expected: u32) -> Audience {
        Audience { expected, arrivals: 1 }
    }

    fn copy(fan_outs: &mut FanOuts, sequence: u64, (way, came_to): (u32, u32), heard_ns: u64) -> Option<Copied> {
        fan_outs.copy(&CopyHeard { sequence, way, came_to, since: 1, heard_ns }).map(|came| came.copied)
    }

    #[test]
    fn copies_are_counted_to_the_last_one_and_beyond() {
        let mut fan_outs = FanOuts::default();
        fan_outs.begin(7, all(4));
        let mut of_7 = |way, came_to| copy(&mut fan_outs, 7, (way, came_to), 5).unwrap();
        assert_eq!([of_7(1, 1), of_7(2, 2)], [Copied::First, Copied::Between]);
        // However often one way brings it, the last recipient is another one.
        assert_eq!([of_7(1, 1), of_7(2, 2), of_7(1, 1)], [Copied::Again; 3]);
        let last = Copied::Last { at_ns: 5 };
        assert_eq!([of_7(3, 1), of_7(3, 1), of_7(4, 1)], [last, Copied::Again, Copied::Again]);
        fan_outs.begin(8, all(1));
        assert_eq!(copy(&mut fan_outs, 8, (1, 1), 5), Some(Copied::FirstAndLast));
        assert_eq!(copy(&mut fan_outs, 8, (2, 1), 5), Some(Copied::Again));
        assert_eq!(copy(&mut fan_outs, 9, (1, 1), 5), None);
        assert_eq!([fan_outs.expected(7), fan_outs.expected(9)], [Some(4), None]);
        // Its place was taken.
        fan_outs.begin(7 + 1_024, all(1));
        assert_eq!(copy(&mut fan_outs, 7, (1, 1), 5), None);
    }

    #[test]
    fn who_came_after_a_message_set_out_neither_has_it_for_others_nor_makes_up_for_what_they_lack() {
        let mut fan_outs = FanOuts::default();
        fan_outs.begin(1, Audience { expected: 3, arrivals: 4 });
        let mut copy = |way, came_to, since| {
            let came = fan_outs.copy(&CopyHeard { sequence: 1, way, came_to, since, heard_ns: 5 }).unwrap();
            (came.copied, came.reached)
        };
        // A shared connection that came back meanwhile, and one that is not back yet.
        assert_eq!([copy(9, 5, 5), copy(8, 5, u64::MAX)], [(Copied::Uninvited, 0); 2]);
        assert_eq!([copy(1, 1, 4), copy(9, 5, 5)], [(Copied::First, 1), (Copied::Uninvited, 0)]);
        // Nor is anybody counted twice of a line that says more than were expected.
        assert_eq!(copy(2, 7, 1), (Copied::Last { at_ns: 5 }, 2));
    }

    #[test]
    fn the_last_copy_is_the_one_that_was_heard_last_not_the_one_that_is_known_last() {
        let mut fan_outs = FanOuts::default();
        fan_outs.begin(1, all(3));
        let copies = [(1, 20), (2, 30), (3, 10)].map(|(way, at_ns)| copy(&mut fan_outs, 1, (way, 1), at_ns).unwrap());
        assert_eq!(copies, [Copied::First, Copied::Between, Copied::Last { at_ns: 30 }]);
        // A second copy is none, so it makes nothing later either.
        fan_outs.begin(2, all(2));
        let copies = [(1, 20), (1, 90), (2, 30)].map(|(way, at_ns)| copy(&mut fan_outs, 2, (way, 1), at_ns).unwrap());
        assert_eq!(copies, [Copied::First, Copied::Again, Copied::Last { at_ns: 30 }]);
    }

    #[test]
    fn who_has_a_copy_is_kept_for_messages_under_way_alone() {
        let mut fan_outs = FanOuts::default();
        for sequence in 0..5_000 {
            fan_outs.begin(sequence, all(3));
            let ways = if sequence % 2 == 0 { 3 } else { 2 };
            let copies = (0..ways).filter_map(|way| copy(&mut fan_outs, sequence, (way, 1), 5));
            assert_eq!(copies.count(), ways as usize);
        }
        // Of the last 1,024 every second one was never whole.
        assert_eq!((fan_outs.reached.len(), fan_outs.spare.len() <= SPARE), (512, true));
    }
}
