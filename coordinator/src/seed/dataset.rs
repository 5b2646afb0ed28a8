//! What the databases are to hold: users, rooms, and the messages of each room, of which any room can be made alone. A
//! function of spec and anchor, the instant that all times are relative to.

use std::ops::Range;

use plimsoll_common::contract::daily::Band;
use plimsoll_common::contract::daily::fixtures::{DailyFixtures, SEEDED_OVER_DAYS};
use plimsoll_common::contract::fixtures::{Room, RoomKind, thread_parent_id};
use plimsoll_common::contract::history::{HistoryPreset, RoomHistory, message_id, reply_id, thread_room_id};

use super::spec::{Content, People, Spec};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// How far `lastMsgAt` of a room to be marked as read lies ahead of its seeding: who reads such a room after it is through at
/// once, and a run would find a service far faster than it is.
pub const UNREAD_AHEAD_MS: i64 = DAY_MS;
/// The longest that somebody has not looked into such a room.
const UNREAD_MINUTES: u64 = 10_080;
/// The same of a room of a daily preset: long enough to be worth marking as read, and no longer ago than people are in it.
const UNREAD_MINUTES_OF_WEEK: u64 = 1_440;

/// Messages to reply to of a room, at most: as many as `--parents-per-room` takes.
const MOST_PARENTS: u32 = 1_000;

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

/// A top-level message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// As the room's history names it.
    pub id: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// A user.
    pub author: u32,
    /// Its content.
    pub text: String,
    /// Its replies, where it has some.
    pub thread: Option<Thread>,
}

/// The replies to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Of the thread.
    pub room_id: String,
    /// Oldest first, at least one.
    pub replies: Vec<Reply>,
}

/// A reply to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// As the room's history names it.
    pub id: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// A user.
    pub author: u32,
    /// Its content.
    pub text: String,
}

impl Thread {
    /// The newest reply.
    pub fn newest(&self) -> &Reply {
        self.replies.last().expect("a thread has a reply")
    }

    /// Who follows it: its message's author and all who replied, each once, in the order in which they came.
    pub fn followers(&self, author: u32) -> Vec<u32> {
        let mut followers = vec![author];
        for reply in &self.replies {
            if !followers.contains(&reply.author) {
                followers.push(reply.author);
            }
        }
        followers
    }
}

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
    fn week(&self, room: u32) -> Option<(&DailyFixtures, u32)> {
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

    /// When the last message of a room came, as its document says.
    pub fn last_message_ms(&self, room: &SeedRoom) -> Option<i64> {
        match self.content {
            Content::Unread => Some(self.renewed_ms + UNREAD_AHEAD_MS),
            Content::Week => self.times(room).last(),
            _ => self.newest(room).map(|message| message.created_ms),
        }
    }

    /// When the member at this position last looked into the room.
    pub fn last_seen_ms(&self, room: &SeedRoom, position: usize) -> Option<i64> {
        // Spread by a multiplication that leaves no pattern; the same on any machine.
        let looked_before = |most_minutes: u64| {
            let mixed = (u64::from(room.members[position]) << 32 | u64::from(room.index))
                .wrapping_add(self.spec.seed)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            Some(self.last_message_ms(room)? - (1 + (mixed >> 33) % most_minutes) as i64 * MINUTE_MS)
        };
        match self.content {
            Content::Unread => looked_before(UNREAD_MINUTES),
            Content::Week => looked_before(UNREAD_MINUTES_OF_WEEK),
            Content::History { read_per_mille, .. } => {
                let readers = (room.members.len() * read_per_mille as usize).div_ceil(1000);
                let newest = (position < readers).then(|| self.last_message_ms(room)).flatten()?;
                Some(newest + 1)
            }
            Content::Nothing | Content::Parents { .. } => None,
        }
    }

    /// Since when everybody has read everything; `None` as soon as one member never looked.
    pub fn floor_ms(&self, room: &SeedRoom) -> Option<i64> {
        let seen: Option<Vec<i64>> = (0..room.members.len()).map(|at| self.last_seen_ms(room, at)).collect();
        seen?.into_iter().min()
    }

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

/// So many positions of `0..len`, spread evenly, the first and the last among them.
pub fn spread(len: usize, most: usize) -> Vec<usize> {
    let count = len.min(most);
    (0..count).map(|at| if count < 2 { 0 } else { at * (len - 1) / (count - 1) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::fixture::dataset;

    #[test]
    fn totals_are_what_the_messages_make() {
        for (workload, preset) in
            [("history", "history-small"), ("history", "history-medium"), ("thread", "small"), ("daily", "daily-light")]
        {
            let dataset = dataset(workload, preset);
            let mut counted = Totals { rooms: 3, ..Totals::default() };
            for room in (0..3).map(|at| dataset.room(at)) {
                counted.subscriptions += room.members.len() as u64;
                for message in dataset.messages(&room) {
                    counted.messages += 1;
                    if let Some(thread) = &message.thread {
                        counted.thread_rooms += 1;
                        counted.thread_subscriptions += thread.followers(message.author).len() as u64;
                        counted.replies += thread.replies.len() as u64;
                    }
                }
            }
            assert_eq!(dataset.totals_of(0..3), counted, "{workload}");
            let room = dataset.room(1);
            let parents = dataset.some_parents(&room, 3);
            assert_eq!(parents.is_empty(), counted.thread_rooms == 0, "{workload}");
            assert!(parents.iter().all(|parent| parent.thread.is_some()));
            let some = dataset.some_messages(&room, 2);
            let ends = [dataset.messages(&room).next(), dataset.messages(&room).last()];
            assert!(some.into_iter().map(Some).eq(ends), "{workload}");
            let all_ids: Vec<String> = dataset.messages(&room).map(|message| message.id).collect();
            assert_eq!(dataset.some_ids(&room, usize::MAX), all_ids, "{workload}");
            assert_eq!(dataset.some_ids(&room, 2), [all_ids[0].clone(), all_ids[all_ids.len() - 1].clone()]);
            let (all, people) = (dataset.totals(), dataset.people_totals());
            let of = |totals: Totals| (totals.users, totals.rooms, totals.subscriptions);
            assert_eq!(of(all), of(people), "{workload}");
        }
    }

    #[test]
    fn large_is_as_large_as_the_contract_says() {
        let dataset = dataset("history", "history-large");
        let totals = dataset.totals_of(0..10);
        assert_eq!((totals.messages, dataset.rooms()), (500_000, 1_000));
        assert!((145_000..155_000).contains(&totals.replies), "{totals:?}");
    }

    #[test]
    fn rooms_are_older_than_their_messages_and_those_rise() {
        for (workload, preset) in [("history", "history-medium"), ("thread", "small"), ("daily", "daily-power")] {
            let dataset = dataset(workload, preset);
            let room = &dataset.room(dataset.rooms() - 1);
            let times: Vec<i64> = dataset.messages(room).map(|message| message.created_ms).collect();
            assert!(dataset.times(room).eq(times.iter().copied()));
            assert!(times.is_sorted_by(|a, b| a < b) && times[0] > dataset.made_ms());
            assert!(*times.last().unwrap() < dataset.anchor_ms);
            assert_eq!(dataset.last_message_ms(room), times.last().copied());
        }
    }

    #[test]
    fn more_parents_are_later_and_leave_the_others_where_they_were() {
        let eight = dataset("thread", "small");
        let of = |per_room: u32| {
            let spec = Spec { parents_per_room: per_room, ..eight.spec.clone() };
            let dataset = Dataset::build(spec, eight.anchor_ms).unwrap();
            let room = dataset.room(0);
            dataset.messages(&room).collect::<Vec<Message>>()
        };
        let (three, most) = (of(3), of(MOST_PARENTS));
        assert_eq!(most[..3], three);
        assert_eq!(most[..8], of(8));
        assert!(most.is_sorted_by(|a, b| a.created_ms < b.created_ms));
        assert_eq!(most.last().map(|last| last.created_ms), Some(eight.anchor_ms - 1000));
        assert!(three[0].created_ms > eight.made_ms());
    }

    #[test]
    fn seven_of_ten_have_read_everything_and_nobody_all_of_what_is_to_be_read() {
        let receipts = dataset("read-receipt", "history-small");
        let room = &receipts.room(0);
        let newest = receipts.last_message_ms(room).unwrap();
        let seen: Vec<Option<i64>> = (0..10).map(|at| receipts.last_seen_ms(room, at)).collect();
        assert_eq!(seen, [vec![Some(newest + 1); 7], vec![None; 3]].concat());
        assert_eq!(receipts.floor_ms(room), None);
        let unread = dataset("room-read", "small");
        for (dataset, minutes) in [(unread, 10_080), (dataset("daily", "daily-light"), 1_440)] {
            for room in dataset.sample(32) {
                let last = dataset.last_message_ms(&room).unwrap();
                let seen: Vec<i64> =
                    (0..room.members.len()).map(|at| dataset.last_seen_ms(&room, at).unwrap()).collect();
                assert!(
                    seen.iter().all(|&seen| (MINUTE_MS..=minutes * MINUTE_MS).contains(&(last - seen))),
                    "{seen:?}"
                );
                let joined = |&seen: &i64| seen > dataset.made_ms() || dataset.content == Content::Unread;
                assert!(seen.iter().all(joined), "{seen:?}");
                assert_eq!(dataset.floor_ms(&room), seen.iter().min().copied());
            }
        }
    }

    #[test]
    fn what_lies_ahead_moves_with_a_later_seeding_and_nothing_else_does() {
        let first = dataset("room-read", "small");
        let later = Dataset { renewed_ms: first.anchor_ms + 3 * DAY_MS, ..first.clone() };
        for room in first.sample(3) {
            assert_eq!(first.last_message_ms(&room), Some(first.anchor_ms + DAY_MS));
            assert_eq!(later.last_message_ms(&room), Some(first.anchor_ms + 4 * DAY_MS));
            let moved = |at| later.last_seen_ms(&room, at).zip(first.last_seen_ms(&room, at));
            assert!(
                (0..room.members.len()).all(|at| moved(at).is_some_and(|(later, first)| later - first == 3 * DAY_MS))
            );
        }
        assert_eq!(later.made_ms(), first.made_ms());
    }

    #[test]
    fn a_sample_is_spread_from_first_to_last_and_over_all_sizes() {
        assert_eq!(spread(5, 32), [0, 1, 2, 3, 4]);
        assert_eq!(spread(1000, 4), [0, 333, 666, 999]);
        assert_eq!((spread(1, 4), spread(0, 4)), (vec![0], vec![]));
        let daily = dataset("daily", "daily-heavy");
        let ids: Vec<String> = daily.sample(4).into_iter().map(|room| room.id).collect();
        assert_eq!(ids, ["room-dm-000000", "room-small-000000", "room-medium-000000", "room-large-000000"]);
    }
}
