//! The presets of the messages workload: how many users and rooms, how large the rooms, how long the messages.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A preset of the messages workload, named as the chat's own tools name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessagesPreset {
    /// 10 users in 5 rooms: a smoke test.
    Small,
    /// 1,000 users in 100 rooms of 10.
    Medium,
    /// 10,000 users in 1,000 rooms of 10.
    Large,
    /// 1,000 users in 100 rooms of very different sizes, ten of them direct messages; contents of 50 to 2,000 bytes.
    Realistic,
}

/// The numbers behind a preset.
#[derive(Debug, Clone, PartialEq)]
pub struct PresetShape {
    /// Users, with indices from 0.
    pub users: u32,
    /// Rooms, with indices from 0, direct messages included.
    pub rooms: u32,
    /// How many of the rooms, the last ones, are direct messages of two users.
    pub dm_rooms: u32,
    /// How the channels get their sizes.
    pub sizes: RoomSizes,
    /// Length of a message's content in bytes, drawn uniformly.
    pub content_bytes: RangeInclusive<u32>,
    /// Probability that a message mentions somebody.
    pub mention_rate: f64,
}

/// How channels get their sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomSizes {
    /// User `i` belongs to room `i mod rooms` and to no other; a room is padded to at least two members.
    Uniform,
    /// A size drawn from `usual`, but from `rare` once in `rare_one_in` rooms.
    Mixed { usual: RangeInclusive<u32>, rare: RangeInclusive<u32>, rare_one_in: u32 },
}

/// The name of no preset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown preset {given:?}: the messages workload knows small, medium, large and realistic")]
pub struct UnknownPreset {
    pub given: String,
}

impl MessagesPreset {
    /// Every preset, smallest first.
    pub const ALL: [Self; 4] = [Self::Small, Self::Medium, Self::Large, Self::Realistic];

    /// The preset's name, as flags and reports write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
            Self::Realistic => "realistic",
        }
    }

    /// The preset's numbers, those of the chat's reference load generator.
    pub fn shape(self) -> PresetShape {
        let uniform = |users, rooms| PresetShape {
            users,
            rooms,
            dm_rooms: 0,
            sizes: RoomSizes::Uniform,
            content_bytes: 200..=200,
            mention_rate: 0.0,
        };
        match self {
            Self::Small => uniform(10, 5),
            Self::Medium => uniform(1_000, 100),
            Self::Large => uniform(10_000, 1_000),
            Self::Realistic => PresetShape {
                users: 1_000,
                rooms: 100,
                dm_rooms: 10,
                sizes: RoomSizes::Mixed { usual: 2..=20, rare: 2..=500, rare_one_in: 10 },
                content_bytes: 50..=2_000,
                mention_rate: 0.10,
            },
        }
    }
}

impl fmt::Display for MessagesPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for MessagesPreset {
    type Err = UnknownPreset;

    fn from_str(given: &str) -> Result<Self, UnknownPreset> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.name() == given)
            .ok_or_else(|| UnknownPreset { given: given.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_contract() {
        let table: Vec<String> = MessagesPreset::ALL
            .iter()
            .map(|preset| {
                let s = preset.shape();
                format!("{preset} {} {} {} {:?} {}", s.users, s.rooms, s.dm_rooms, s.content_bytes, s.mention_rate)
            })
            .collect();
        assert_eq!(
            table,
            [
                "small 10 5 0 200..=200 0",
                "medium 1000 100 0 200..=200 0",
                "large 10000 1000 0 200..=200 0",
                "realistic 1000 100 10 50..=2000 0.1",
            ]
        );
    }

    #[test]
    fn names_round_trip_and_an_unknown_one_lists_them_all() {
        for preset in MessagesPreset::ALL {
            assert_eq!(preset.to_string().parse(), Ok(preset));
        }
        let error = "huge".parse::<MessagesPreset>().unwrap_err().to_string();
        for preset in MessagesPreset::ALL {
            assert!(error.contains(preset.name()), "{error}");
        }
        assert!(error.contains("\"huge\""), "{error}");
    }
}
