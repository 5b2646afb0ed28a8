//! Compares messages in Cassandra with what was seeded: counts of every bucket, and some messages of some rooms.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use plimsoll_common::contract::fixtures::account;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;

use super::cassandra::Cassandra;
use super::dataset::{Dataset, Message, SeedRoom, spread};
use super::progress::grouped;
use super::rows::{bucket, buckets};
use super::verify::{Depth, Findings, MESSAGE_SAMPLE, MOST_WRONG};
use crate::settings::storage::CassandraPlan;

/// Messages of a room that are compared.
const MESSAGES: usize = 8;
/// Partitions that are counted at once.
const COUNTS_AT_ONCE: usize = 16;

/// Opens it, and compares the messages of all rooms, or of some.
pub(super) async fn messages(
    plan: &CassandraPlan,
    dataset: &Dataset,
    depth: Depth,
    findings: &mut Findings,
) -> Result<(), String> {
    let cassandra = Cassandra::open(plan).await?;
    if !dataset.content.has_messages() {
        findings.say("cassandra", format!("{}: the tables of messages are there", cassandra.place()));
        return Ok(());
    }
    let reader = Reader::new(&cassandra).await?;
    let Some(there) = reader.counts(dataset, depth, findings).await? else { return Ok(()) };
    let sample = dataset.sample(MESSAGE_SAMPLE);
    let mut differs = Differences::default();
    for room in &sample {
        reader.compare(dataset, room, &mut differs).await?;
    }
    if differs.are_none() {
        let words = format!(
            "{} of {} rooms as seeded, {} compared",
            grouped(there),
            if depth == Depth::Quick { sample.len() as u32 } else { dataset.rooms() },
            MESSAGES * sample.len()
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

struct Reader<'a> {
    cassandra: &'a Cassandra,
    count: PreparedStatement,
    by_room: PreparedStatement,
    by_id: PreparedStatement,
    by_thread: PreparedStatement,
}

impl<'a> Reader<'a> {
    async fn new(cassandra: &'a Cassandra) -> Result<Self, String> {
        let count =
            "SELECT count(*) FROM KEYSPACE.messages_by_room WHERE room_id = ? AND bucket = ? AND created_at < ?";
        let by_room = "SELECT sender.account, msg, site_id FROM KEYSPACE.messages_by_room WHERE room_id = ? AND bucket = ? AND \
                       created_at = ? AND message_id = ?";
        let by_id = "SELECT room_id, created_at, sender.account, msg, site_id FROM KEYSPACE.messages_by_id WHERE message_id = ?";
        let by_thread = "SELECT message_id, created_at, sender.account, msg FROM KEYSPACE.thread_messages_by_thread WHERE thread_room_id = ?";
        Ok(Self {
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

    /// Compares some messages of a room.
    async fn compare(&self, dataset: &Dataset, room: &SeedRoom, differs: &mut Differences) -> Result<(), String> {
        let room_id = &room.id;
        let picked = spread(dataset.times(room).count(), MESSAGES);
        let messages = dataset.messages(room).enumerate().filter(|(at, _)| picked.contains(at));
        let messages: Vec<Message> = messages.map(|(_, message)| message).collect();
        for message in &messages {
            let at = CqlTimestamp(message.created_ms);
            let bucket = bucket(message.created_ms, dataset.spec.bucket_hours);
            let wanted = (account(message.author), message.text.clone(), dataset.spec.site.clone());
            let key = (room_id, bucket, at, &message.id);
            type Row = (Option<String>, Option<String>, Option<String>);
            let found: Vec<Row> = self.cassandra.rows("reading messages_by_room", &self.by_room, key).await?;
            if found != [(Some(wanted.0.clone()), Some(wanted.1.clone()), Some(wanted.2.clone()))] {
                differs.by_room.push(format!("{} not as it was seeded", message.id));
            }
            type ById = (Option<String>, Option<CqlTimestamp>, Option<String>, Option<String>, Option<String>);
            let found: Vec<ById> = self.cassandra.rows("reading messages_by_id", &self.by_id, (&message.id,)).await?;
            if found != [(Some(room_id.clone()), Some(at), Some(wanted.0), Some(wanted.1), Some(wanted.2))] {
                differs.by_id.push(format!("{} not as it was seeded", message.id));
            }
        }
        let Some(parent) = dataset.messages(room).find(|message| message.thread.is_some()) else { return Ok(()) };
        let Some(thread) = &parent.thread else { return Ok(()) };
        type Reply = (String, CqlTimestamp, Option<String>, Option<String>);
        let found: Vec<Reply> =
            self.cassandra.rows("reading thread_messages_by_thread", &self.by_thread, (&thread.room_id,)).await?;
        let wanted = thread.replies.iter().rev().map(|reply| {
            (reply.id.clone(), CqlTimestamp(reply.created_ms), Some(account(reply.author)), Some(reply.text.clone()))
        });
        if !found.iter().filter(|(id, ..)| id.starts_with("hreply-")).cloned().eq(wanted) {
            differs.by_thread.push(format!("the replies of {} not as they were seeded", thread.room_id));
        }
        Ok(())
    }
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
}
