//! Removes messages from Cassandra, room by room: those of our site, and no other's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::bson::doc;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;

use super::cassandra::Cassandra;
use super::dataset::Dataset;
use super::mongo::Mongo;
use super::ours::{any_of, is_others, rooms};
use super::rows::bucket;

/// Rooms whose messages are removed at once, and rows of each.
const ROOMS_AT_ONCE: usize = 8;
const ROWS_AT_ONCE: usize = 64;
/// Buckets of a room that are looked into at once: of the largest histories some 40,000 messages.
const BUCKETS: usize = 8;

const ROWS_OF_ROOM: &str =
    "SELECT bucket, created_at, message_id, site_id FROM KEYSPACE.messages_by_room WHERE room_id = ? AND bucket IN ?";
const ROWS_OF_THREAD: &str =
    "SELECT created_at, message_id, site_id FROM KEYSPACE.thread_messages_by_thread WHERE thread_room_id = ?";
const SITES: &str = "SELECT message_id, site_id FROM KEYSPACE.messages_by_id WHERE message_id IN ?";
const REMOVE_ID: &str = "DELETE FROM KEYSPACE.messages_by_id WHERE message_id = ?";
const REMOVE_BUCKETS: &str = "DELETE FROM KEYSPACE.messages_by_room WHERE room_id = ? AND bucket IN ?";
const REMOVE_ROW: &str =
    "DELETE FROM KEYSPACE.messages_by_room WHERE room_id = ? AND bucket = ? AND created_at = ? AND message_id = ?";
const REMOVE_THREAD: &str = "DELETE FROM KEYSPACE.thread_messages_by_thread WHERE thread_room_id = ?";
const REMOVE_REPLY: &str =
    "DELETE FROM KEYSPACE.thread_messages_by_thread WHERE thread_room_id = ? AND created_at = ? AND message_id = ?";

/// The messages of the seeded rooms: what was seeded, and what runs have sent.
pub(super) struct Messages<'a> {
    cassandra: &'a Cassandra,
    mongo: &'a Mongo,
    dataset: &'a Dataset,
    rows_of_room: PreparedStatement,
    rows_of_thread: PreparedStatement,
    sites: PreparedStatement,
    remove_id: PreparedStatement,
    remove_buckets: PreparedStatement,
    remove_row: PreparedStatement,
    remove_thread: PreparedStatement,
    remove_reply: PreparedStatement,
    /// Of other sites, in the same rooms.
    kept: AtomicU64,
}

type OfRoom = (i64, CqlTimestamp, String, Option<String>);
type OfThread = (CqlTimestamp, String, Option<String>);

impl<'a> Messages<'a> {
    pub async fn new(cassandra: &'a Cassandra, mongo: &'a Mongo, dataset: &'a Dataset) -> Result<Self, String> {
        let prepare = |text: &'static str| cassandra.prepare(text);
        Ok(Self {
            rows_of_room: prepare(ROWS_OF_ROOM).await?,
            rows_of_thread: prepare(ROWS_OF_THREAD).await?,
            sites: prepare(SITES).await?,
            remove_id: prepare(REMOVE_ID).await?,
            remove_buckets: prepare(REMOVE_BUCKETS).await?,
            remove_row: prepare(REMOVE_ROW).await?,
            remove_thread: prepare(REMOVE_THREAD).await?,
            remove_reply: prepare(REMOVE_REPLY).await?,
            kept: AtomicU64::new(0),
            cassandra,
            mongo,
            dataset,
        })
    }

    /// Those of the seeded rooms, and of these that runs have made. How many of other sites in the same rooms were left.
    pub async fn remove_all(&self, of_runs: &[String]) -> Result<u64, String> {
        self.remove_threads(of_runs).await?;
        let seeded = (0..self.dataset.rooms()).map(|at| self.dataset.room(at).id);
        let rooms = stream::iter(seeded.chain(of_runs.iter().cloned()).map(Ok));
        rooms.try_for_each_concurrent(ROOMS_AT_ONCE, |room| self.remove_room(room)).await?;
        Ok(self.kept.load(Ordering::Relaxed))
    }

    /// All threads in one pass over their documents: an index by room is the services' own, and may not be there.
    async fn remove_threads(&self, of_runs: &[String]) -> Result<(), String> {
        for rooms in rooms(self.dataset).into_iter().chain(any_of(of_runs)) {
            let filter = doc! { "siteId": &self.dataset.spec.site, "roomId": rooms };
            let threads = self.mongo.ids("thread_rooms", filter).await?;
            threads.try_for_each_concurrent(ROWS_AT_ONCE, |thread| self.remove_replies(thread)).await?;
        }
        Ok(())
    }

    async fn remove_room(&self, room_id: String) -> Result<(), String> {
        let hours = self.dataset.spec.bucket_hours;
        let (first, last) = (bucket(self.dataset.made_ms(), hours), bucket(tomorrow_ms(), hours));
        let buckets: Vec<i64> = (first..=last).step_by(hours as usize * 3_600_000).collect();
        for buckets in buckets.chunks(BUCKETS) {
            let doing = "reading messages_by_room";
            let rows: Vec<OfRoom> = self.cassandra.rows(doing, &self.rows_of_room, (&room_id, buckets)).await?;
            if rows.is_empty() {
                continue;
            }
            let all = rows.len();
            let ours: Vec<OfRoom> = rows.into_iter().filter(|(.., site)| self.is_ours(site)).collect();
            self.remove_ids(ours.iter().map(|(_, _, id, _)| id.clone()).collect()).await?;
            let doing = "removing from messages_by_room";
            if ours.len() == all {
                self.cassandra.execute(doing, &self.remove_buckets, (&room_id, buckets)).await?;
                continue;
            }
            self.kept.fetch_add((all - ours.len()) as u64, Ordering::Relaxed);
            let removals = ours
                .iter()
                .map(|(bucket, at, id, _)| self.cassandra.execute(doing, &self.remove_row, (&room_id, bucket, at, id)));
            stream::iter(removals).buffer_unordered(ROWS_AT_ONCE).try_collect::<()>().await?;
        }
        Ok(())
    }

    async fn remove_replies(&self, thread: String) -> Result<(), String> {
        let doing = "reading thread_messages_by_thread";
        let rows: Vec<OfThread> = self.cassandra.rows(doing, &self.rows_of_thread, (&thread,)).await?;
        let all = rows.len();
        let ours: Vec<OfThread> = rows.into_iter().filter(|(.., site)| self.is_ours(site)).collect();
        self.remove_ids(ours.iter().map(|(_, id, _)| id.clone()).collect()).await?;
        let doing = "removing from thread_messages_by_thread";
        if ours.len() == all {
            return self.cassandra.execute(doing, &self.remove_thread, (&thread,)).await;
        }
        self.kept.fetch_add((all - ours.len()) as u64, Ordering::Relaxed);
        let removals =
            ours.iter().map(|(at, id, _)| self.cassandra.execute(doing, &self.remove_reply, (&thread, at, id)));
        stream::iter(removals).buffer_unordered(ROWS_AT_ONCE).try_collect().await
    }

    fn is_ours(&self, site: &Option<String>) -> bool {
        !is_others(site.as_deref(), &self.dataset.spec.site)
    }

    /// The same id may be another site's row: ids do not hold the site, and whoever wrote last has it.
    async fn remove_ids(&self, ids: Vec<String>) -> Result<(), String> {
        let parts = ids.chunks(ROWS_AT_ONCE).map(|ids| async move {
            let found: Vec<(String, Option<String>)> =
                self.cassandra.rows("reading messages_by_id", &self.sites, (ids,)).await?;
            let ours = found.iter().filter(|(_, site)| self.is_ours(site));
            let removals =
                ours.map(|(id, _)| self.cassandra.execute("removing from messages_by_id", &self.remove_id, (id,)));
            stream::iter(removals).buffer_unordered(ROWS_AT_ONCE).try_collect::<()>().await
        });
        stream::iter(parts).buffer_unordered(2).try_collect().await
    }
}

/// Messages of runs are not newer, whatever the clocks say.
fn tomorrow_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 2) + 86_400_000
}
