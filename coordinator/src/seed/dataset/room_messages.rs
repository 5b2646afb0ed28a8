//! The messages of a room: all of them, some, or only their ids or times, made as they are asked for.

use plimsoll_common::contract::daily::fixtures::DailyFixtures;
use plimsoll_common::contract::fixtures::thread_parent_id;
use plimsoll_common::contract::history::{RoomHistory, message_id, reply_id, thread_room_id};

use super::{Dataset, Message, Reply, SeedRoom, Thread, spread};
use crate::seed::spec::{Content, People};

/// Messages to reply to of a room, at most: as many as `--parents-per-room` takes.
pub(super) const MOST_PARENTS: u32 = 1_000;

impl Dataset {
    /// The top-level messages of a room, oldest first.
    pub fn messages<'a>(&'a self, room: &'a SeedRoom) -> Box<dyn Iterator<Item = Message> + Send + 'a> {
        match self.content {
            Content::Nothing | Content::Unread => Box::new(std::iter::empty()),
            Content::Parents { per_room } => Box::new((0..per_room).map(move |parent| self.parent(room, parent))),
            Content::History { preset, .. } => {
                let history = RoomHistory::new(preset, self.spec.seed, room.index);
                Box::new((0..history.messages()).map(move |index| self.past(&history, room, index)))
            }
            Content::Week => {
                let of_week = move |(daily, messages): (&'a DailyFixtures, u32)| {
                    (0..messages).map(move |index| self.of_week(daily, room.index, index))
                };
                Box::new(self.week(room.index).into_iter().flat_map(of_week))
            }
        }
    }

    fn parent(&self, room: &SeedRoom, parent: u32) -> Message {
        let id = thread_parent_id(self.spec.seed, room.index, parent);
        Message {
            id: String::from_utf8_lossy(&id).into_owned(),
            created_ms: self.parent_ms(parent),
            author: room.members[parent as usize % room.members.len()],
            text: "a message to reply to".to_owned(),
            thread: None,
        }
    }

    /// The people whose rooms have messages of a week, and how many of them this room has.
    pub(super) fn week(&self, room: u32) -> Option<(&DailyFixtures, u32)> {
        match &self.people {
            People::Daily(daily) => Some((daily, daily.band(room).seeded_messages())),
            People::Rooms(_) => None,
        }
    }

    fn of_week(&self, daily: &DailyFixtures, room: u32, index: u32) -> Message {
        let seeded = daily.seeded_message(room, index);
        Message {
            id: String::from_utf8_lossy(&seeded.id).into_owned(),
            created_ms: self.anchor_ms - seeded.age_ms as i64,
            author: seeded.author,
            text: daily.seeded_text(room, index),
            thread: None,
        }
    }

    /// A second apart, so that as many as there can be are older than the anchor: more of them move none of those before.
    fn parent_ms(&self, parent: u32) -> i64 {
        self.anchor_ms - (i64::from(MOST_PARENTS) - i64::from(parent)) * 1000
    }

    fn past(&self, history: &RoomHistory, room: &SeedRoom, index: u32) -> Message {
        let room_id = &room.id;
        let user = |position: u32| room.members[position as usize];
        let at = |age_ms: u64| self.anchor_ms - age_ms as i64;
        let reply = |reply: u32| Reply {
            id: reply_id(room_id, index, reply),
            created_ms: at(history.reply_age_ms(index, reply)),
            author: user(history.reply_author(index, reply)),
            text: history.content(index, Some(reply)),
        };
        let thread =
            || Thread { room_id: thread_room_id(room_id, index), replies: (0..history.replies()).map(reply).collect() };
        Message {
            id: message_id(room_id, index),
            created_ms: at(history.age_ms(index)),
            author: user(history.author(index)),
            text: history.content(index, None),
            thread: history.has_thread(index).then(thread),
        }
    }

    /// So many of a room's top-level messages, spread over all; no others are made.
    pub fn some_messages(&self, room: &SeedRoom, most: usize) -> Vec<Message> {
        if let Content::History { preset, .. } = self.content {
            let history = RoomHistory::new(preset, self.spec.seed, room.index);
            let picked = spread(history.messages() as usize, most).into_iter();
            return picked.map(|index| self.past(&history, room, index as u32)).collect();
        }
        let picked = spread(self.times(room).count(), most);
        let messages = self.messages(room).enumerate().filter(|(at, _)| picked.contains(at));
        messages.map(|(_, message)| message).collect()
    }

    /// The ids of so many of a room's top-level messages, spread over all.
    pub fn some_ids(&self, room: &SeedRoom, most: usize) -> Vec<String> {
        let picked = |count: usize| spread(count, most).into_iter().map(|at| at as u32);
        match self.content {
            Content::Nothing | Content::Unread => Vec::new(),
            Content::Parents { per_room } => picked(per_room as usize).map(|at| self.parent(room, at).id).collect(),
            Content::History { preset, .. } => {
                let history = RoomHistory::new(preset, self.spec.seed, room.index);
                picked(history.messages() as usize).map(|at| message_id(&room.id, at)).collect()
            }
            Content::Week => {
                let Some((daily, messages)) = self.week(room.index) else { return Vec::new() };
                let id = |at| String::from_utf8_lossy(&daily.seeded_message(room.index, at).id).into_owned();
                picked(messages as usize).map(id).collect()
            }
        }
    }

    /// So many of a room's messages that were replied to, spread over all.
    pub fn some_parents(&self, room: &SeedRoom, most: usize) -> Vec<Message> {
        let Content::History { preset, .. } = self.content else { return Vec::new() };
        let history = RoomHistory::new(preset, self.spec.seed, room.index);
        let threads = history.threads();
        let picked = spread(threads.len(), most).into_iter();
        picked.map(|at| self.past(&history, room, threads[at])).collect()
    }

    /// When each top-level message of a room was written, oldest first: as [`Self::messages`], without making them.
    pub fn times<'a>(&'a self, room: &SeedRoom) -> Box<dyn Iterator<Item = i64> + Send + 'a> {
        match self.content {
            Content::Nothing | Content::Unread => Box::new(std::iter::empty()),
            Content::Parents { per_room } => Box::new((0..per_room).map(|parent| self.parent_ms(parent))),
            Content::History { preset, .. } => {
                let history = RoomHistory::new(preset, self.spec.seed, room.index);
                Box::new((0..history.messages()).map(move |index| self.anchor_ms - history.age_ms(index) as i64))
            }
            Content::Week => {
                let room = room.index;
                let of_week = move |(daily, messages): (&'a DailyFixtures, u32)| {
                    (0..messages).map(move |index| self.anchor_ms - daily.seeded_message(room, index).age_ms as i64)
                };
                Box::new(self.week(room).into_iter().flat_map(of_week))
            }
        }
    }

    /// The room's newest top-level message.
    pub fn newest(&self, room: &SeedRoom) -> Option<Message> {
        match self.content {
            Content::Nothing | Content::Unread => None,
            Content::Parents { per_room } => per_room.checked_sub(1).map(|last| self.parent(room, last)),
            Content::History { preset, .. } => {
                let history = RoomHistory::new(preset, self.spec.seed, room.index);
                let last = history.messages().checked_sub(1)?;
                Some(self.past(&history, room, last))
            }
            Content::Week => {
                let (daily, messages) = self.week(room.index)?;
                Some(self.of_week(daily, room.index, messages.checked_sub(1)?))
            }
        }
    }
}
