//! The daily workload's presets: how many rooms of which size each person is in, and what a person does in a working day.
//! [`fixtures`] says who is in which room, [`made`] what the rooms are called that runs make.

pub mod behaviour;
pub mod fixtures;
pub mod made_rooms;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A preset of the daily workload, named as the chat's own tools name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DailyPreset {
    /// 32 rooms per person.
    Light,
    /// 56 rooms per person.
    Heavy,
    /// 83 rooms per person.
    Power,
}

/// What kind of room it is by its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Band {
    /// Two people.
    Dm,
    /// 5 to 20.
    Small,
    /// 50 to 200.
    Medium,
    /// 500 to 2,000.
    Large,
}

/// The name of no preset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown preset {given:?}: the daily workload knows daily-light, daily-heavy and daily-power")]
pub struct UnknownDailyPreset {
    given: String,
}

/// Users of a preset where nothing else was asked for.
pub const DEFAULT_USERS: u32 = 10_000;
/// As few users as the bands make sense for. Below 500 a large room is one of everybody, below 50 a medium one would be.
pub const FEWEST_USERS: u32 = 100;
/// As many users as ids have digits for.
pub const MOST_USERS: u32 = 1_000_000;
/// Length of a message's content in bytes, drawn uniformly.
pub const CONTENT_BYTES: RangeInclusive<u32> = 50..=2_000;
/// Probability that a message mentions somebody, in thousandths.
pub const MENTIONS_PER_MILLE: u64 = 50;
/// The chat refuses posts of plain members to rooms of more people than this; replies in threads are exempt.
pub const LARGE_ROOM_THRESHOLD: u32 = 500;

impl DailyPreset {
    /// Every preset, lightest first.
    pub const ALL: [Self; 3] = [Self::Light, Self::Heavy, Self::Power];

    /// As flags and reports write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Light => "daily-light",
            Self::Heavy => "daily-heavy",
            Self::Power => "daily-power",
        }
    }

    /// How many rooms of a band each person is in.
    pub const fn rooms_per_user(self, band: Band) -> u32 {
        let [dm, small, medium, large] = match self {
            Self::Light => [15, 10, 5, 2],
            Self::Heavy => [25, 20, 8, 3],
            Self::Power => [40, 30, 10, 3],
        };
        match band {
            Band::Dm => dm,
            Band::Small => small,
            Band::Medium => medium,
            Band::Large => large,
        }
    }
}

impl Band {
    /// Every band, in the order of the rooms' indices.
    pub const ALL: [Self; 4] = [Self::Dm, Self::Small, Self::Medium, Self::Large];

    /// As room ids write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dm => "dm",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    /// The fewest and the most people of such a room.
    pub const fn sizes(self) -> (u32, u32) {
        match self {
            Self::Dm => (2, 2),
            Self::Small => (5, 20),
            Self::Medium => (50, 200),
            Self::Large => (500, 2_000),
        }
    }

    /// People per room on average.
    pub(super) const fn mean_size(self) -> u32 {
        match self {
            Self::Dm => 2,
            Self::Small => 10,
            Self::Medium => 100,
            Self::Large => 1_000,
        }
    }

    /// Messages that every such room is seeded with: pages to scroll through, and parents of threads.
    pub const fn seeded_messages(self) -> u32 {
        match self {
            Self::Dm => 2,
            Self::Small => 10,
            Self::Medium => 45,
            Self::Large => 60,
        }
    }
}

impl fmt::Display for DailyPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DailyPreset {
    type Err = UnknownDailyPreset;

    fn from_str(given: &str) -> Result<Self, UnknownDailyPreset> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == given);
        found.ok_or_else(|| UnknownDailyPreset { given: given.to_owned() })
    }
}
