//! How many copies of each message have come, of those that are expected.

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
    /// More than were expected.
    TooMany,
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
}

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
        Self { ring: vec![FanOut { sequence: NEVER, expected: 0, reached: 0, told: false }; capacity] }
    }

    fn at(&mut self, sequence: u64) -> &mut FanOut {
        let mask = self.ring.len() as u64 - 1;
        &mut self.ring[(sequence & mask) as usize]
    }

    /// A message sets out to so many recipients.
    pub(super) fn begin(&mut self, sequence: u64, expected: u32) {
        *self.at(sequence) = FanOut { sequence, expected, reached: 0, told: false };
    }

    /// How many recipients are expected of a message: told once.
    pub(super) fn tell(&mut self, sequence: u64) -> Option<u32> {
        let fan_out = self.at(sequence);
        let fresh = fan_out.sequence == sequence && !std::mem::replace(&mut fan_out.told, true);
        fresh.then_some(fan_out.expected)
    }

    /// A copy came, to so many recipients at once; `None`: of a message that is not known any more.
    pub(super) fn copy(&mut self, sequence: u64, came_to: u32) -> Option<Copied> {
        let fan_out = self.at(sequence);
        if fan_out.sequence != sequence {
            return None;
        }
        let (before, expected) = (fan_out.reached, fan_out.expected);
        fan_out.reached = before.saturating_add(came_to);
        Some(match (before, fan_out.reached >= expected) {
            (before, _) if before >= expected && before > 0 => Copied::TooMany,
            (0, true) => Copied::FirstAndLast,
            (0, false) => Copied::First,
            (_, true) => Copied::Last,
            (_, false) => Copied::Between,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_counted_to_the_last_one_and_beyond() {
        let mut fan_outs = FanOuts::default();
        fan_outs.begin(7, 4);
        let copies: Vec<_> = [1, 2, 1, 1].map(|came_to| fan_outs.copy(7, came_to).unwrap()).to_vec();
        assert_eq!(copies, [Copied::First, Copied::Between, Copied::Last, Copied::TooMany]);
        fan_outs.begin(8, 1);
        assert_eq!(fan_outs.copy(8, 1), Some(Copied::FirstAndLast));
        assert_eq!(fan_outs.copy(9, 1), None);
        assert_eq!([fan_outs.tell(7), fan_outs.tell(7), fan_outs.tell(9)], [Some(4), None, None]);
        // Its place was taken.
        fan_outs.begin(7 + 1_024, 1);
        assert_eq!(fan_outs.copy(7, 1), None);
    }
}
