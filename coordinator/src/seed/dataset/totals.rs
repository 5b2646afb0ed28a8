//! How many documents and rows there are, counted without making them.

use std::ops::Range;

use plimsoll_common::contract::history::{HistoryPreset, RoomHistory};

use super::Dataset;
use crate::seed::spec::Content;

/// How many documents and rows there are of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Documents of `users`.
    pub users: u64,
    /// Documents of `rooms`.
    pub rooms: u64,
    /// Documents of `subscriptions`.
    pub subscriptions: u64,
    /// Documents of `thread_rooms`.
    pub thread_rooms: u64,
    /// Documents of `thread_subscriptions`.
    pub thread_subscriptions: u64,
    /// Rows of `messages_by_room`, each of which is one of `messages_by_id` too.
    pub messages: u64,
    /// Rows of `thread_messages_by_thread`, each of which is one of `messages_by_id` too.
    pub replies: u64,
}

impl Totals {
    /// Documents and rows together.
    pub fn all(&self) -> u64 {
        let Self { users, rooms, subscriptions, thread_rooms, thread_subscriptions, messages, replies } = self;
        users + rooms + subscriptions + thread_rooms + thread_subscriptions + 2 * (messages + replies)
    }
}

impl Dataset {
    /// Users, rooms and who is in them, without what was written there.
    pub fn people_totals(&self) -> Totals {
        let subscriptions = (0..self.rooms()).map(|room| u64::from(self.size(room))).sum();
        Totals { users: u64::from(self.users()), rooms: u64::from(self.rooms()), subscriptions, ..Totals::default() }
    }

    /// Documents and rows that these rooms make, users not counted.
    pub fn totals_of(&self, rooms: Range<u32>) -> Totals {
        let mut totals = Totals { rooms: u64::from(rooms.end - rooms.start), ..Totals::default() };
        for room in rooms {
            totals.subscriptions += u64::from(self.size(room));
            match self.content {
                Content::Nothing | Content::Unread => {}
                Content::Parents { per_room } => totals.messages += u64::from(per_room),
                Content::History { preset, .. } => self.add_history(preset, room, &mut totals),
                Content::Week => totals.messages += self.week(room).map_or(0, |(_, messages)| u64::from(messages)),
            }
        }
        totals
    }

    fn add_history(&self, preset: HistoryPreset, room: u32, totals: &mut Totals) {
        let history = RoomHistory::new(preset, self.spec.seed, room);
        totals.messages += u64::from(history.messages());
        let mut followers: Vec<u32> = Vec::new();
        for index in history.threads() {
            followers.clear();
            followers.push(history.author(index));
            followers.extend((0..history.replies()).map(|reply| history.reply_author(index, reply)));
            followers.sort_unstable();
            followers.dedup();
            totals.thread_rooms += 1;
            totals.thread_subscriptions += followers.len() as u64;
            totals.replies += u64::from(history.replies());
        }
    }

    /// Everything that there is.
    pub fn totals(&self) -> Totals {
        Totals { users: u64::from(self.users()), ..self.totals_of(0..self.rooms()) }
    }
}
