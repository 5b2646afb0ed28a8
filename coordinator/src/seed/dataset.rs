//! What the databases are to hold: users, rooms, and the messages of each room, of which any room can be made alone. A
//! function of spec and anchor, the instant that all times are relative to.
mod message;
mod read_state;
mod room_messages;
mod totals;

use std::ops::Range;

use plimsoll_common::contract::daily::Band;
use plimsoll_common::contract::daily::fixtures::SEEDED_OVER_DAYS;
use plimsoll_common::contract::fixtures::{Room, RoomKind};

pub use self::message::{Message, Reply, Thread};
pub use self::read_state::UNREAD_AHEAD_MS;
pub use self::totals::Totals;
use super::spec::{Content, People, Spec};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// Everything that is seeded.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// What was asked for.
    pub spec: Spec,
    /// Who is in which room.
    pub people: People,
    /// What the rooms hold.
    pub content: Content,
    /// Milliseconds since 1970.
    pub anchor_ms: i64,
    /// What is to lie ahead is ahead of this; milliseconds since 1970.
    pub renewed_ms: i64,
}

/// A room as it is seeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedRoom {
    /// Among all of the preset, from 0; its key and messages follow from it.
    pub index: u32,
    /// On the wire.
    pub id: String,
    /// What people see; for a direct message nothing does.
    pub name: String,
    /// Whether it is a direct message.
    pub kind: RoomKind,
    /// User indices, each once; of a channel the owner first.
    pub members: Vec<u32>,
}

impl From<&Room> for SeedRoom {
    fn from(room: &Room) -> Self {
        let Room { index, kind, members, .. } = room.clone();
        Self { index, id: room.id(), name: room.name(), kind, members }
    }
}

impl Dataset {
    /// What this spec asks for, seeded for the first time.
    ///
    /// # Errors
    /// The spec is none of this release.
    pub fn build(spec: Spec, anchor_ms: i64) -> Result<Self, String> {
        let (people, content) = (spec.people()?, spec.content()?);
        Ok(Self { spec, people, content, anchor_ms, renewed_ms: anchor_ms })
    }

    /// Users, with indices from 0.
    pub fn users(&self) -> u32 {
        match &self.people {
            People::Rooms(fixtures) => fixtures.users,
            People::Daily(daily) => daily.users(),
        }
    }

    /// Rooms, with indices from 0.
    pub fn rooms(&self) -> u32 {
        match &self.people {
            People::Rooms(fixtures) => fixtures.rooms.len() as u32,
            People::Daily(daily) => daily.rooms(),
        }
    }

    /// A room, made as it is asked for.
    ///
    /// # Panics
    /// There is no room of this index.
    pub fn room(&self, index: u32) -> SeedRoom {
        match &self.people {
            People::Rooms(fixtures) => SeedRoom::from(&fixtures.rooms[index as usize]),
            People::Daily(daily) => SeedRoom {
                index,
                id: daily.room_id(index),
                name: daily.room_id(index),
                kind: if daily.band(index) == Band::Dm { RoomKind::Dm } else { RoomKind::Channel },
                members: daily.members(index),
            },
        }
    }

    /// How many people are in a room.
    pub fn size(&self, index: u32) -> u32 {
        match &self.people {
            People::Rooms(fixtures) => fixtures.rooms[index as usize].members.len() as u32,
            People::Daily(daily) => daily.size(index),
        }
    }

    /// Rooms spread over all, the first and the last among them, and as many of each size where sizes are drawn from bands.
    pub fn sample(&self, most: usize) -> Vec<SeedRoom> {
        let of = |rooms: Range<u32>, most: usize| {
            let picked = spread((rooms.end - rooms.start) as usize, most).into_iter();
            picked.map(move |at| self.room(rooms.start + at as u32))
        };
        match &self.people {
            People::Rooms(_) => of(0..self.rooms(), most).collect(),
            People::Daily(daily) => {
                let each = most.div_ceil(Band::ALL.len());
                Band::ALL.into_iter().flat_map(|band| of(daily.rooms_in(band), each)).collect()
            }
        }
    }

    /// When rooms were made and their members joined: before the oldest message, or services would not show it.
    pub fn made_ms(&self) -> i64 {
        let days = match self.content {
            Content::History { preset, .. } => preset.shape().days as i64,
            Content::Week => i64::from(SEEDED_OVER_DAYS),
            Content::Nothing | Content::Parents { .. } | Content::Unread => 0,
        };
        self.anchor_ms - (days + 1) * DAY_MS
    }
}

/// So many positions of `0..len`, spread evenly, the first and the last among them.
pub fn spread(len: usize, most: usize) -> Vec<usize> {
    let count = len.min(most);
    (0..count).map(|at| if count < 2 { 0 } else { at * (len - 1) / (count - 1) }).collect()
}

#[cfg(test)]
mod tests;
