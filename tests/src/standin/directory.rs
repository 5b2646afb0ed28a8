//! The fixtures as the stages look them up: rooms by id, with what their broadcasts need.

use super::daily::{DailyBook, Joined};
use async_nats::Subject;
use plimsoll_common::contract::fixtures::{
    Fixtures, Room, RoomKind, account, room_key, thread_parent_author, thread_parent_id, user_of_account,
};
use plimsoll_common::contract::payload::CanonicalEvent;
use plimsoll_common::contract::subjects;
use std::collections::HashMap;
use std::sync::Arc;

/// All rooms of the fixtures.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) site: String,
    pub(super) seed: u64,
    rooms: Vec<RoomEntry>,
    by_id: HashMap<String, usize>,
    /// Room and author of every seeded parent of a thread, by its id.
    parents: HashMap<[u8; 20], (usize, u32)>,
    /// Who came into the rooms of a daily preset since they were seeded.
    joined: Option<Arc<Joined>>,
}

/// A room, and what is derived from it.
#[derive(Debug)]
pub(super) struct RoomEntry {
    pub(super) room: Room,
    pub(super) id: String,
    pub(super) name: String,
    /// Where its broadcasts go: one subject for a channel, one per member for a direct message.
    pub(super) audience: Vec<Subject>,
    /// Who may post however large it is.
    pub(super) owner: Option<u32>,
}

impl Directory {
    pub(super) fn new(fixtures: Fixtures, parents_per_room: u32) -> Self {
        let rooms: Vec<RoomEntry> = fixtures.rooms.into_iter().map(RoomEntry::new).collect();
        let by_id = rooms.iter().enumerate().map(|(at, entry)| (entry.id.clone(), at)).collect();
        let parent = |at: usize, number| {
            let author = thread_parent_author(&rooms[at].room, number);
            (thread_parent_id(fixtures.seed, rooms[at].room.index, number), (at, author))
        };
        let parents = (0..rooms.len()).flat_map(|at| (0..parents_per_room).map(move |number| (at, number)));
        let parents = parents.map(|(at, number)| parent(at, number)).collect();
        Self { site: fixtures.site, seed: fixtures.seed, by_id, parents, rooms, joined: None }
    }

    /// The rooms of a daily preset. Every seeded message may be replied to.
    pub(super) fn of_daily(daily: &DailyBook, site: &str) -> Self {
        let rooms = daily.entries();
        let by_id = rooms.iter().enumerate().map(|(at, entry)| (entry.id.clone(), at)).collect();
        let fixtures = &daily.fixtures;
        let messages = |room: u32| (0..fixtures.band(room).seeded_messages()).map(move |index| (room, index));
        let parent = |(room, index)| {
            let message = fixtures.seeded_message(room, index);
            (message.id, (room as usize, message.author))
        };
        let parents = (0..fixtures.rooms()).flat_map(messages).map(parent).collect();
        let joined = Some(daily.joined());
        Self { site: site.to_owned(), seed: fixtures.seed(), rooms, by_id, parents, joined }
    }

    /// To how many people a canonical event goes: one for what is none.
    pub(super) fn copies(&self, event: &[u8]) -> u64 {
        let Ok(event) = serde_json::from_slice::<CanonicalEvent<'_>>(event) else { return 1 };
        let Some(entry) = self.room(&event.message.room_id) else { return 1 };
        let replies = event.message.thread_parent_message_id.is_some() && entry.room.kind == RoomKind::Channel;
        // A reply goes to its sender and to the parent's author.
        if replies { 2 } else { self.people(entry).max(1) }
    }

    /// How many people are in a room by now.
    pub(super) fn people(&self, entry: &RoomEntry) -> u64 {
        let joined = self.joined.as_ref().map_or(0, |joined| joined.count(entry.room.index));
        entry.room.weight() + joined
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
        let (at, author) = self.parents.get(&id)?;
        (self.rooms[*at].room.index == entry.room.index).then_some(*author)
    }

    pub(super) fn key(&self, entry: &RoomEntry) -> [u8; 32] {
        room_key(self.seed, entry.room.index)
    }
}

impl RoomEntry {
    fn new(room: Room) -> Self {
        let (id, name) = (room.id(), room.name());
        Self::named(room, id, name, None)
    }

    /// A room of this id and name.
    pub(super) fn named(room: Room, id: String, name: String, owner: Option<u32>) -> Self {
        let audience = match room.kind {
            RoomKind::Channel => vec![subjects::room_event(&id).into()],
            RoomKind::Dm => room.members.iter().map(|user| subjects::user_event(&account(*user)).into()).collect(),
        };
        Self { room, id, name, audience, owner }
    }
}
