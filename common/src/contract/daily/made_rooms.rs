//! The rooms that people of a daily run make: what they are called, by which they are told from those of everybody else.

use std::fmt;

/// The name of a room that a run makes: `plimsoll-1f-0-2a-7`. No other room of this or any other run has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeRoom {
    /// Drawn by the run.
    pub run: u64,
    /// The worker, among all of the fleet: 256 × its agent + its number there.
    pub lane: u64,
    /// The worker's operation.
    pub sequence: u64,
    /// Who made it, and owns it.
    pub user: u32,
}

impl fmt::Display for MadeRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, lane, sequence, user } = self;
        write!(f, "{PREFIX}{run:x}-{lane}-{sequence:x}-{user}")
    }
}

impl MadeRoom {
    /// What every such name begins with; others' names may too.
    pub const PREFIX: &'static str = PREFIX;

    /// Reads a whole name; `None` for one that no run gives.
    pub fn read(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.strip_prefix(PREFIX)?.split('-').collect();
        let [run, lane, sequence, user] = parts[..] else { return None };
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let read =
            Self { run: hex(run)?, lane: lane.parse().ok()?, sequence: hex(sequence)?, user: user.parse().ok()? };
        // Signs, capitals and zeros in front are read, and never written.
        (read.to_string() == name).then_some(read)
    }
}

const PREFIX: &str = "plimsoll-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written_and_no_other_is() {
        for made in [
            MadeRoom { run: 0x1f, lane: 0, sequence: 0x2a, user: 7 },
            MadeRoom { run: u64::MAX, lane: 12, sequence: 0, user: u32::MAX },
        ] {
            assert_eq!(MadeRoom::read(&made.to_string()), Some(made));
        }
        assert_eq!(MadeRoom::read("plimsoll-1f-0-2a-7").map(|made| made.user), Some(7));
        for other in [
            "plimsoll-team",
            "plimsoll-",
            "plimsoll-1f-0-2a",
            "plimsoll-1f-0-2a-7-8",
            "plimsoll-1F-0-2a-7",
            "plimsoll-1f-0-2a-07",
            "plimsoll-+1f-0-2a-7",
            "plimsoll-1f-0-2a-ann",
            "Plimsoll-1f-0-2a-7",
            " plimsoll-1f-0-2a-7",
            "plimsoll-summer-1-party-2",
        ] {
            assert_eq!(MadeRoom::read(other), None, "{other}");
        }
    }
}
