//! The rows of the message tables, as values that a prepared statement takes.

use plimsoll_common::contract::fixtures::{account, eng_name, user_id};
use scylla::SerializeValue;
use scylla::value::{CqlTimestamp, MaybeUnset};

use super::dataset::{Dataset, Message, Reply, SeedRoom};
use super::spec::Content;

/// Who wrote a message: the fields of the type `"Participant"` that seeding fills.
#[derive(Debug, Clone, PartialEq, Eq, SerializeValue)]
pub struct Participant {
    /// `u-000007`
    pub id: String,
    /// In Latin letters.
    pub eng_name: &'static str,
    /// `user-7`
    pub account: String,
}

/// A row of `messages_by_room`, and without its bucket one of `messages_by_id`.
#[derive(Debug, Clone)]
pub struct MessageRow {
    /// The room.
    pub room_id: String,
    /// Where its time lies: with the room the partition.
    pub bucket: i64,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// The message.
    pub message_id: String,
    /// Who wrote it.
    pub sender: Participant,
    /// What it says.
    pub msg: String,
    /// The site.
    pub site_id: String,
    /// The thread of its replies.
    pub thread: Option<ThreadColumns>,
    /// Whether columns of a thread that it has not are emptied: services may have filled them since.
    pub clear: bool,
}

/// What a row says of its message's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadColumns {
    /// The thread.
    pub room_id: String,
    /// Replies.
    pub count: i32,
    /// When the newest came.
    pub last_ms: i64,
}

/// A row of `thread_messages_by_thread`, and of `messages_by_id`.
#[derive(Debug, Clone)]
pub struct ReplyRow {
    /// The thread: the partition.
    pub thread_room_id: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// The reply.
    pub message_id: String,
    /// The room.
    pub room_id: String,
    /// What it replies to.
    pub parent_id: String,
    /// When that was written.
    pub parent_created_ms: i64,
    /// Who wrote it.
    pub sender: Participant,
    /// What it says.
    pub msg: String,
    /// The site.
    pub site_id: String,
}

/// The bucket of a time: the start of the window of so many hours that it lies in.
pub fn bucket(created_ms: i64, bucket_hours: u32) -> i64 {
    let window = i64::from(bucket_hours) * 3_600_000;
    created_ms.div_euclid(window) * window
}

/// The buckets of a room's messages, oldest first.
pub fn buckets(dataset: &Dataset, room: &SeedRoom) -> Vec<i64> {
    let hours = dataset.spec.bucket_hours;
    let Some(first) = dataset.times(room).next() else { return Vec::new() };
    let Some(newest) = dataset.newest(room) else { return Vec::new() };
    let (first, last) = (bucket(first, hours), bucket(newest.created_ms, hours));
    (first..=last).step_by(hours as usize * 3_600_000).collect()
}

fn participant(user: u32) -> Participant {
    Participant { id: user_id(user), eng_name: eng_name(user), account: account(user) }
}

/// The row of a top-level message.
pub fn message(dataset: &Dataset, room_id: &str, message: &Message) -> MessageRow {
    MessageRow {
        room_id: room_id.to_owned(),
        bucket: bucket(message.created_ms, dataset.spec.bucket_hours),
        created_ms: message.created_ms,
        message_id: message.id.clone(),
        sender: participant(message.author),
        msg: message.text.clone(),
        site_id: dataset.spec.site.clone(),
        thread: message.thread.as_ref().map(|thread| ThreadColumns {
            room_id: thread.room_id.clone(),
            count: i32::try_from(thread.replies.len()).unwrap_or(i32::MAX),
            last_ms: thread.newest().created_ms,
        }),
        clear: matches!(dataset.content, Content::Parents { .. } | Content::Week),
    }
}

/// The rows of the replies to a message.
pub fn replies(dataset: &Dataset, room_id: &str, message: &Message) -> Vec<ReplyRow> {
    let Some(thread) = &message.thread else { return Vec::new() };
    let row = |reply: &Reply| ReplyRow {
        thread_room_id: thread.room_id.clone(),
        created_ms: reply.created_ms,
        message_id: reply.id.clone(),
        room_id: room_id.to_owned(),
        parent_id: message.id.clone(),
        parent_created_ms: message.created_ms,
        sender: participant(reply.author),
        msg: reply.text.clone(),
        site_id: dataset.spec.site.clone(),
    };
    thread.replies.iter().map(row).collect()
}

/// `INSERT INTO messages_by_room`.
pub const INSERT_BY_ROOM: &str = "INSERT INTO KEYSPACE.messages_by_room (room_id, bucket, created_at, message_id, sender, msg, site_id, \
     updated_at, thread_room_id, tcount, thread_last_msg_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// `INSERT INTO messages_by_id`, of a top-level message.
pub const INSERT_BY_ID: &str = "INSERT INTO KEYSPACE.messages_by_id (message_id, room_id, created_at, sender, msg, site_id, updated_at, \
     thread_room_id, tcount, thread_last_msg_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// `INSERT INTO messages_by_id`, of a reply.
pub const INSERT_REPLY_BY_ID: &str = "INSERT INTO KEYSPACE.messages_by_id (message_id, room_id, created_at, sender, msg, site_id, \
     updated_at, thread_room_id, thread_parent_id, thread_parent_created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// `INSERT INTO thread_messages_by_thread`.
pub const INSERT_BY_THREAD: &str = "INSERT INTO KEYSPACE.thread_messages_by_thread (thread_room_id, created_at, message_id, room_id, \
     thread_parent_id, sender, msg, site_id, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";

type Columns<'a> = (MaybeUnset<Option<&'a str>>, MaybeUnset<Option<i32>>, MaybeUnset<Option<CqlTimestamp>>);

impl MessageRow {
    fn thread_columns(&self) -> Columns<'_> {
        match &self.thread {
            Some(thread) => (
                MaybeUnset::Set(Some(&thread.room_id)),
                MaybeUnset::Set(Some(thread.count)),
                MaybeUnset::Set(Some(CqlTimestamp(thread.last_ms))),
            ),
            // An empty value is a tombstone: one per message would be 50 million of them.
            None if self.clear => (MaybeUnset::Set(None), MaybeUnset::Set(None), MaybeUnset::Set(None)),
            None => (MaybeUnset::Unset, MaybeUnset::Unset, MaybeUnset::Unset),
        }
    }

    /// The values of [`INSERT_BY_ROOM`].
    pub fn by_room(&self) -> impl scylla::serialize::row::SerializeRow + use<'_> {
        let at = CqlTimestamp(self.created_ms);
        let (thread, count, last) = self.thread_columns();
        let key = (&self.room_id, self.bucket, at, &self.message_id);
        (key.0, key.1, key.2, key.3, &self.sender, &self.msg, &self.site_id, at, thread, count, last)
    }

    /// The values of [`INSERT_BY_ID`].
    pub fn by_id(&self) -> impl scylla::serialize::row::SerializeRow + use<'_> {
        let at = CqlTimestamp(self.created_ms);
        let (thread, count, last) = self.thread_columns();
        (&self.message_id, &self.room_id, at, &self.sender, &self.msg, &self.site_id, at, thread, count, last)
    }
}

impl ReplyRow {
    /// The values of [`INSERT_BY_THREAD`].
    pub fn by_thread(&self) -> impl scylla::serialize::row::SerializeRow + use<'_> {
        let at = CqlTimestamp(self.created_ms);
        let key = (&self.thread_room_id, at, &self.message_id);
        (key.0, key.1, key.2, &self.room_id, &self.parent_id, &self.sender, &self.msg, &self.site_id, at)
    }

    /// The values of [`INSERT_REPLY_BY_ID`].
    pub fn by_id(&self) -> impl scylla::serialize::row::SerializeRow + use<'_> {
        let at = CqlTimestamp(self.created_ms);
        let parent_at = CqlTimestamp(self.parent_created_ms);
        let Self { message_id, room_id, sender, msg, site_id, thread_room_id, parent_id, .. } = self;
        (message_id, room_id, at, sender, msg, site_id, at, thread_room_id, parent_id, parent_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::fixture::{ANCHOR_MS, dataset};

    #[test]
    fn buckets_are_windows_since_1970() {
        let window = 72 * 3_600_000;
        assert_eq!(bucket(0, 72), 0);
        assert_eq!(bucket(window - 1, 72), 0);
        assert_eq!(bucket(window, 72), window);
        assert_eq!(bucket(-1, 72), -window);
        assert_eq!(bucket(ANCHOR_MS, 72) % window, 0);
        let history = dataset("history", "history-medium");
        let room = &history.room(3);
        let mut of_messages: Vec<i64> = history.messages(room).map(|m| bucket(m.created_ms, 72)).collect();
        of_messages.dedup();
        assert_eq!(buckets(&history, room), of_messages);
        assert!(buckets(&dataset("messages", "small"), room).is_empty());
    }

    #[test]
    fn rows_are_the_same_for_ever() {
        let history = dataset("history", "history-medium");
        let room = &history.room(1);
        let parent = history.messages(room).find(|message| message.thread.is_some()).unwrap();
        insta::assert_debug_snapshot!(message(&history, &room.id, &parent));
        insta::assert_debug_snapshot!(replies(&history, &room.id, &parent)[2]);
        let thread = dataset("thread", "small");
        let first = thread.messages(&thread.room(0)).next().unwrap();
        insta::assert_debug_snapshot!(message(&thread, "room-000000", &first));
    }

    #[test]
    fn every_row_of_a_history_is_the_same_on_any_machine() {
        let history = dataset("read-receipt", "history-medium");
        let room = &history.room(1);
        let (mut hash, mut rows) = (0xcbf2_9ce4_8422_2325_u64, 0);
        let mut fold = |row: String| {
            rows += 1;
            row.bytes().for_each(|byte| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        };
        for of_room in history.messages(room) {
            fold(format!("{:?}", message(&history, &room.id, &of_room)));
            replies(&history, &room.id, &of_room).iter().for_each(|reply| fold(format!("{reply:?}")));
        }
        assert_eq!((rows, hash), (5_780, 13_040_461_997_756_621_363));
    }
}
