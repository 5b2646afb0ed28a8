//! The fixtures as the stages look them up: rooms by id, with what their broadcasts need.

use async_nats::Subject;
use plimsoll_common::contract::fixtures::{
    Fixtures, Room, RoomKind, account, room_key, thread_parent_author, thread_parent_id, user_of_account,
};
use plimsoll_common::contract::subjects;
use std::collections::HashMap;

/// All rooms of the fixtures.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) site: String,
    pub(super) seed: u64,
    rooms: Vec<RoomEntry>,
    by_id: HashMap<String, usize>,
    /// Room and number of every seeded parent of a thread, by its id.
    parents: HashMap<[u8; 20], (usize, u32)>,
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
    pub(super) fn new(fixtures: Fixtures, parents_per_room: u32) -> Self {
        let rooms: Vec<RoomEntry> = fixtures.rooms.into_iter().map(RoomEntry::new).collect();
        let by_id = rooms.iter().enumerate().map(|(at, entry)| (entry.id.clone(), at)).collect();
        let parent = |at: usize, number| (thread_parent_id(fixtures.seed, rooms[at].room.index, number), (at, number));
        let parents = (0..rooms.len()).flat_map(|at| (0..parents_per_room).map(move |number| (at, number)));
        let parents = parents.map(|(at, number)| parent(at, number)).collect();
        Self { site: fixtures.site, seed: fixtures.seed, by_id, parents, rooms }
    }

    pub(super) fn room(&self, id: &str) -> Option<&RoomEntry> {
        self.by_id.get(id).map(|at| &self.rooms[*at])
    }

    /// The room and the user, if the account belongs to a member of the room.
    pub(super) fn subscription(&self, account: &str, room: &str) -> Option<(&RoomEntry, u32)> {
        let (entry, user) = (self.room(room)?, user_of_account(account)?);
        entry.room.has_member(user).then_some((entry, user))
    }

    /// Who wrote a seeded parent of a thread in this room.
    pub(super) fn parent_author(&self, entry: &RoomEntry, id: &str) -> Option<u32> {
        let id: [u8; 20] = id.as_bytes().try_into().ok()?;
        let (at, number) = self.parents.get(&id)?;
        let room = &self.rooms[*at].room;
        (room.index == entry.room.index).then(|| thread_parent_author(room, *number))
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
