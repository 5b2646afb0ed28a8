//! Compares messages in Cassandra with what was seeded: counts of every bucket, and some messages of some rooms.

use std::collections::HashSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use plimsoll_common::contract::fixtures::account;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;

use super::cassandra::Cassandra;
use super::dataset::{Dataset, Message, SeedRoom, Thread};
use super::progress::grouped;
use super::rows::{bucket, buckets};
use super::spec::Content;
use super::verify::{Depth, Findings, MESSAGE_SAMPLE, MOST_WRONG};
use crate::settings::storage::CassandraPlan;

/// Messages of a room that are compared, and of its threads, where few rooms are looked into and where many are.
const MESSAGES: usize = 8;
const MESSAGES_OF_MANY: usize = 4;
/// Messages of a room that are looked for by their ids, at most, and in one statement: all that were seeded to be replied to.
const IDS: usize = 1_000;
const IDS_OF_HISTORY: usize = 64;
const IDS_AT_ONCE: usize = 64;
/// Rooms that are looked into, at most, and at once.
const MANY_ROOMS: usize = 1_000;
const ROOMS_AT_ONCE: usize = 16;
/// Partitions that are counted at once.
const COUNTS_AT_ONCE: usize = 16;

/// Opens it, and compares the messages of all rooms, or of some.
pub(super) async fn messages(
    plan: &CassandraPlan,
    dataset: &Dataset,
    depth: Depth,
    findings: &mut Findings,
) -> Result<(), String> {
    let cassandra = Cassandra::open(plan, &findings.schema).await?;
    if !dataset.content.has_messages() {
        findings.say("cassandra", format!("{}: the tables of messages are there", cassandra.place()));
        return Ok(());
    }
    let reader = Reader::new(&cassandra).await?;
    let Some(there) = reader.counts(dataset, depth, findings).await? else { return Ok(()) };
    let (rooms, each) = match depth {
        Depth::Quick => (MESSAGE_SAMPLE, MESSAGES),
        Depth::Full => (MANY_ROOMS, MESSAGES_OF_MANY),
    };
    let sample = dataset.sample(rooms);
    let compared = stream::iter(&sample).map(|room| reader.compare(dataset, room, each, depth));
    let compared: Vec<Differences> = compared.buffered(ROOMS_AT_ONCE).try_collect().await?;
    let mut differs = Differences::default();
    compared.into_iter().for_each(|more| differs.add(more));
    if depth == Depth::Full {
        differs.by_id.extend(reader.ids_of_all(dataset).await?);
    }
    if differs.are_none() {
        let words = format!(
            "{} of {} rooms as seeded, {} compared",
            grouped(there),
            if depth == Depth::Quick { sample.len() as u32 } else { dataset.rooms() },
            grouped((each * sample.len()) as u64)
        );
        findings.say("cassandra messages", words);
    }
    for (table, ids) in [
        ("messages_by_room", differs.by_room),
        ("messages_by_id", differs.by_id),
        ("thread_messages_by_thread", differs.by_thread),
    ] {
        findings.some_wrong(&format!("Cassandra: {table} has "), ids);
    }
    Ok(())
}

/// What is not as it was seeded, table by table.
#[derive(Default)]
struct Differences {
    by_room: Vec<String>,
    by_id: Vec<String>,
    by_thread: Vec<String>,
}

impl Differences {
    fn add(&mut self, more: Self) {
        self.by_room.extend(more.by_room);
        self.by_id.extend(more.by_id);
        self.by_thread.extend(more.by_thread);
    }

    fn are_none(&self) -> bool {
        self.by_room.is_empty() && self.by_id.is_empty() && self.by_thread.is_empty()
    }
}

/// How many messages of a room lie in each bucket.
fn of_buckets(dataset: &Dataset, room: &SeedRoom) -> Vec<(String, i64, u64)> {
    let mut counts: Vec<(String, i64, u64)> =
        buckets(dataset, room).into_iter().map(|bucket| (room.id.clone(), bucket, 0)).collect();
    for created_ms in dataset.times(room) {
        let bucket = bucket(created_ms, dataset.spec.bucket_hours);
        if let Some((.., count)) = counts.iter_mut().find(|(_, of, _)| *of == bucket) {
            *count += 1;
        }
    }
    counts
}

/// Room, time, author, text and site.
type ById = (Option<String>, Option<CqlTimestamp>, Option<String>, Option<String>, Option<String>);

struct Reader<'a> {
    cassandra: &'a Cassandra,
    count: PreparedStatement,
    by_room: PreparedStatement,
    by_id: PreparedStatement,
    by_thread: PreparedStatement,
    ids: PreparedStatement,
    thread_of: PreparedStatement,
    thread_by_id: PreparedStatement,
}

impl<'a> Reader<'a> {
    async fn new(cassandra: &'a Cassandra) -> Result<Self, String> {
        let count =
            "SELECT count(*) FROM KEYSPACE.messages_by_room WHERE room_id = ? AND bucket = ? AND created_at < ?";
        let by_room = "SELECT sender.account, msg, site_id FROM KEYSPACE.messages_by_room WHERE room_id = ? AND bucket = ? AND \
                       created_at = ? AND message_id = ?";
        let by_id = "SELECT room_id, created_at, sender.account, msg, site_id FROM KEYSPACE.messages_by_id WHERE message_id = ?";
        let by_thread = "SELECT message_id, created_at, sender.account, msg, site_id, room_id, thread_parent_id FROM \
                         KEYSPACE.thread_messages_by_thread WHERE thread_room_id = ?";
        let thread_of = "SELECT thread_room_id, tcount FROM KEYSPACE.messages_by_room WHERE room_id = ? AND bucket = ? AND \
                         created_at = ? AND message_id = ?";
        let thread_by_id = "SELECT thread_room_id, tcount FROM KEYSPACE.messages_by_id WHERE message_id = ?";
        let ids = "SELECT message_id FROM KEYSPACE.messages_by_id WHERE message_id IN ?";
        Ok(Self {
            ids: cassandra.prepare(ids).await?,
            thread_of: cassandra.prepare(thread_of).await?,
            thread_by_id: cassandra.prepare(thread_by_id).await?,
            count: cassandra.prepare(count).await?,
            by_room: cassandra.prepare(by_room).await?,
            by_id: cassandra.prepare(by_id).await?,
            by_thread: cassandra.prepare(by_thread).await?,
            cassandra,
        })
    }

    /// The rows of a bucket from before a time.
    async fn count(&self, room: &str, bucket: i64, before_ms: i64) -> Result<u64, String> {
        let values = (room, bucket, CqlTimestamp(before_ms));
        let rows: Vec<(i64,)> = self.cassandra.rows("counting messages_by_room", &self.count, values).await?;
        Ok(rows.first().map_or(0, |(count,)| count.unsigned_abs()))
    }

    /// Counts the messages of every bucket. How many there are; `None`: not as many as were seeded, in some.
    async fn counts(&self, dataset: &Dataset, depth: Depth, findings: &mut Findings) -> Result<Option<u64>, String> {
        // Room by room: there may be a million.
        let rooms: Box<dyn Iterator<Item = SeedRoom> + Send> = match depth {
            Depth::Quick => Box::new(dataset.sample(MESSAGE_SAMPLE).into_iter()),
            Depth::Full => Box::new((0..dataset.rooms()).map(|at| dataset.room(at))),
        };
        let anchor = dataset.anchor_ms;
        let counted =
            stream::iter(rooms.flat_map(|room| of_buckets(dataset, &room))).map(async |(room, bucket, wanted)| {
                Ok::<_, String>((self.count(&room, bucket, anchor).await?, room, bucket, wanted))
            });
        let mut counted = counted.buffered(COUNTS_AT_ONCE);
        let (mut there, mut off) = (0, 0);
        while let Some((found, room, bucket, wanted)) = counted.try_next().await? {
            there += found;
            if found == wanted {
                continue;
            }
            let words = format!(
                "Cassandra: messages_by_room has {found} seeded rows for {room} in bucket {bucket} and has to have {wanted} ({} \
                 hours a bucket)",
                dataset.spec.bucket_hours
            );
            match found > wanted {
                true => findings.too_much(words),
                false => findings.wrong(words),
            }
            off += 1;
            // They say enough of millions.
            if off == MOST_WRONG {
                break;
            }
        }
        Ok((off == 0).then_some(there))
    }

    /// Compares so many messages of a room, and as many of its threads.
    async fn compare(
        &self,
        dataset: &Dataset,
        room: &SeedRoom,
        each: usize,
        depth: Depth,
    ) -> Result<Differences, String> {
        let mut differs = Differences::default();
        if depth == Depth::Quick {
            let most = if let Content::History { .. } = dataset.content { IDS_OF_HISTORY } else { IDS };
            let ids = dataset.some_ids(room, most);
            differs.by_id.extend(self.look_for(&format!("messages of {}", room.id), &ids).await?);
        }
        for message in dataset.some_messages(room, each) {
            self.compare_message(dataset, room, &message, &mut differs).await?;
        }
        for parent in dataset.some_parents(room, each) {
            self.compare_thread(dataset, room, &parent, &mut differs).await?;
        }
        Ok(differs)
    }

    /// Looks for every message and reply of every room by its id alone. What is wrong, in words: of as many rooms as are named.
    async fn ids_of_all(&self, dataset: &Dataset) -> Result<Vec<String>, String> {
        let rooms = (0..dataset.rooms()).map(|at| dataset.room(at));
        let looked = stream::iter(rooms).map(async |room: SeedRoom| {
            let mut wrong = Vec::new();
            wrong.extend(
                self.look_for(&format!("messages of {}", room.id), &dataset.some_ids(&room, usize::MAX)).await?,
            );
            let threads = dataset.some_parents(&room, usize::MAX).into_iter().filter_map(|parent| parent.thread);
            let replies: Vec<String> = threads.flat_map(|thread| thread.replies).map(|reply| reply.id).collect();
            wrong.extend(self.look_for(&format!("replies in {}", room.id), &replies).await?);
            Ok::<_, String>(wrong)
        });
        let mut looked = looked.buffered(ROOMS_AT_ONCE);
        let mut wrong = Vec::new();
        while let Some(of_room) = looked.try_next().await? {
            wrong.extend(of_room);
            if wrong.len() > MOST_WRONG {
                break;
            }
        }
        Ok(wrong)
    }

    async fn compare_message(
        &self,
        dataset: &Dataset,
        room: &SeedRoom,
        message: &Message,
        differs: &mut Differences,
    ) -> Result<(), String> {
        let room_id = &room.id;
        let at = CqlTimestamp(message.created_ms);
        let bucket = bucket(message.created_ms, dataset.spec.bucket_hours);
        let wanted = (account(message.author), message.text.clone(), dataset.spec.site.clone());
        let key = (room_id, bucket, at, &message.id);
        type Row = (Option<String>, Option<String>, Option<String>);
        let found: Vec<Row> = self.cassandra.rows("reading messages_by_room", &self.by_room, key).await?;
        if found != [(Some(wanted.0.clone()), Some(wanted.1.clone()), Some(wanted.2.clone()))] {
            differs.by_room.push(format!("{} not as it was seeded", message.id));
        }
        if self.by_id(&message.id).await?
            != [(Some(room_id.clone()), Some(at), Some(wanted.0), Some(wanted.1), Some(wanted.2))]
        {
            differs.by_id.push(format!("{} not as it was seeded", message.id));
        }
        Ok(())
    }

    async fn by_id(&self, id: &str) -> Result<Vec<ById>, String> {
        self.cassandra.rows("reading messages_by_id", &self.by_id, (id,)).await
    }

    /// Counts what there is of these ids in `messages_by_id`. What is wrong, in words.
    async fn look_for(&self, of: &str, ids: &[String]) -> Result<Option<String>, String> {
        let mut found = HashSet::new();
        for ids in ids.chunks(IDS_AT_ONCE) {
            let rows: Vec<(String,)> = self.cassandra.rows("reading messages_by_id", &self.ids, (ids,)).await?;
            found.extend(rows.into_iter().map(|(id,)| id));
        }
        let missing = ids.iter().find(|id| !found.contains(*id));
        Ok(missing
            .map(|missing| format!("{} of {} {of} that were looked for, and not {missing}", found.len(), ids.len())))
    }

    /// Compares what a message's rows say of its thread.
    async fn compare_parent(
        &self,
        dataset: &Dataset,
        room: &SeedRoom,
        parent: &Message,
        differs: &mut Differences,
    ) -> Result<(), String> {
        let Some(thread) = &parent.thread else { return Ok(()) };
        let bucket = bucket(parent.created_ms, dataset.spec.bucket_hours);
        let key = (&room.id, bucket, CqlTimestamp(parent.created_ms), &parent.id);
        let rows = self.cassandra.rows("reading messages_by_room", &self.thread_of, key).await?;
        differs.by_room.extend(of_thread(thread, &rows).map(|words| format!("{} with {words}", parent.id)));
        let rows = self.cassandra.rows("reading messages_by_id", &self.thread_by_id, (&parent.id,)).await?;
        differs.by_id.extend(of_thread(thread, &rows).map(|words| format!("{} with {words}", parent.id)));
        Ok(())
    }

    /// Compares the replies to a message, where they lie together, and the newest by its id too.
    async fn compare_thread(
        &self,
        dataset: &Dataset,
        room: &SeedRoom,
        parent: &Message,
        differs: &mut Differences,
    ) -> Result<(), String> {
        let Some(thread) = &parent.thread else { return Ok(()) };
        self.compare_parent(dataset, room, parent, differs).await?;
        type Text = Option<String>;
        type Reply = (String, CqlTimestamp, Text, Text, Text, Text, Text);
        let found: Vec<Reply> =
            self.cassandra.rows("reading thread_messages_by_thread", &self.by_thread, (&thread.room_id,)).await?;
        let wanted = thread.replies.iter().rev().map(|reply| {
            let (author, site) = (account(reply.author), dataset.spec.site.clone());
            let (room, parent) = (room.id.clone(), parent.id.clone());
            let at = CqlTimestamp(reply.created_ms);
            (reply.id.clone(), at, Some(author), Some(reply.text.clone()), Some(site), Some(room), Some(parent))
        });
        if !found.iter().filter(|(id, ..)| id.starts_with("hreply-")).cloned().eq(wanted) {
            differs.by_thread.push(format!("the replies of {} not as they were seeded", thread.room_id));
        }
        let ids: Vec<String> = thread.replies.iter().map(|reply| reply.id.clone()).collect();
        differs.by_id.extend(self.look_for(&format!("replies of {}", thread.room_id), &ids).await?);
        let newest = thread.newest();
        let wanted = (
            Some(room.id.clone()),
            Some(CqlTimestamp(newest.created_ms)),
            Some(account(newest.author)),
            Some(newest.text.clone()),
            Some(dataset.spec.site.clone()),
        );
        if self.by_id(&newest.id).await? != [wanted] {
            differs.by_id.push(format!("{} not as it was seeded", newest.id));
        }
        Ok(())
    }
}

/// A thread, and how many replies it has.
type OfThread = (Option<String>, Option<i32>);

/// What is wrong with what a message's row says of its thread: without it services answer that nobody has replied. Services
/// count on.
fn of_thread(thread: &Thread, rows: &[OfThread]) -> Option<String> {
    let [(room, count)] = rows else {
        return Some(format!("no row of the message that {} replies to", thread.room_id));
    };
    let wanted = thread.replies.len();
    let is_there =
        room.as_deref() == Some(&*thread.room_id) && count.is_some_and(|count| i64::from(count) >= wanted as i64);
    (!is_there).then(|| {
        let (room, count) = (room.as_deref().unwrap_or("none"), count.unwrap_or(0));
        format!(
            "thread_room_id {room} and tcount {count} where {} and {wanted} have to be, or services show no replies",
            thread.room_id
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::fixture::dataset;

    #[test]
    fn every_message_is_in_one_of_its_rooms_buckets() {
        let history = dataset("history", "history-medium");
        let counts = of_buckets(&history, &history.room(7));
        assert_eq!(counts.iter().map(|(.., count)| count).sum::<u64>(), 5_000);
        assert!((3..=4).contains(&counts.len()), "{counts:?}");
    }

    #[test]
    fn a_message_says_which_thread_it_has() {
        let history = dataset("history", "history-medium");
        let thread = history.some_parents(&history.room(1), 1).remove(0).thread.unwrap();
        let wanted = thread.replies.len() as i32;
        let row = |room: Option<&str>, count: Option<i32>| of_thread(&thread, &[(room.map(str::to_owned), count)]);
        assert_eq!(row(Some(&thread.room_id), Some(wanted)), None);
        assert_eq!(row(Some(&thread.room_id), Some(wanted + 1)), None, "runs reply too");
        assert!(of_thread(&thread, &[]).unwrap().contains("no row"));
        for (room, count) in [(None, Some(wanted)), (Some("other"), Some(wanted)), (Some(&*thread.room_id), None)] {
            assert!(row(room, count).unwrap().contains("or services show no replies"), "{room:?} {count:?}");
        }
    }
}
