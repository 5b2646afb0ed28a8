//! The fixtures as the stages look them up: rooms by id, with what their broadcasts need.

use async_nats::Subject;
use plimsoll_common::contract::fixtures::{Fixtures, Room, RoomKind, account, room_key, user_of_account};
use plimsoll_common::contract::subjects;
use std::collections::HashMap;

/// All rooms of the fixtures.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) site: String,
    pub(super) seed: u64,
    rooms: Vec<RoomEntry>,
    by_id: HashMap<String, usize>,
}

/// A room, and what is derived from it.
#[derive(Debug)]
pub(super) struct RoomEntry {
    pub(super) room: Room,
    pub(super) id: String,
    pub(super) name: String,
    /// Where its broadcasts go: one subject for a channel, one per member for a direct message.
    pub(super) audience: Vec<Subject>,
}

impl Directory {
    pub(super) fn new(fixtures: Fixtures) -> Self {
        let rooms: Vec<RoomEntry> = fixtures.rooms.into_iter().map(RoomEntry::new).collect();
        let by_id = rooms.iter().enumerate().map(|(at, entry)| (entry.id.clone(), at)).collect();
        Self { site: fixtures.site, seed: fixtures.seed, rooms, by_id }
    }

    pub(super) fn room(&self, id: &str) -> Option<&RoomEntry> {
        self.by_id.get(id).map(|at| &self.rooms[*at])
    }

    /// The room and the user, if the account belongs to a member of the room.
    pub(super) fn subscription(&self, account: &str, room: &str) -> Option<(&RoomEntry, u32)> {
        let (entry, user) = (self.room(room)?, user_of_account(account)?);
        entry.room.has_member(user).then_some((entry, user))
    }

    pub(super) fn key(&self, entry: &RoomEntry) -> [u8; 32] {
        room_key(self.seed, entry.room.index)
    }
}

impl RoomEntry {
    fn new(room: Room) -> Self {
        let id = room.id();
        let audience = match room.kind {
            RoomKind::Channel => vec![subjects::room_event(&id).into()],
            RoomKind::Dm => room.members.iter().map(|user| subjects::user_event(&account(*user)).into()).collect(),
        };
        Self { name: room.name(), room, id, audience }
    }
}
