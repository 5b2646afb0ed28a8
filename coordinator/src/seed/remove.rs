//! Removes messages from Cassandra, room by room: those of our site, and no other's.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::bson::{Document, doc};
use scylla::deserialize::row::DeserializeRow;
use scylla::response::PagingState;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;

use super::cassandra::Cassandra;
use super::dataset::Dataset;
use super::mongo::Mongo;
use super::ownership::{any_of, is_others, rooms};
use super::rows::bucket;

/// Rooms whose messages are removed at once, and rows of each.
const ROOMS_AT_ONCE: usize = 8;
const ROWS_AT_ONCE: usize = 64;
/// Buckets of a room that are looked into in one statement.
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
    /// Hours of a bucket, as messages may have been written.
    bucket_hours: Vec<u32>,
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

/// Rows that were read, and of these the ones of other sites.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    all: u64,
    others: u64,
}

const READING_ROOM: &str = "reading messages_by_room";
const REMOVING_ROOM: &str = "removing from messages_by_room";
const READING_THREAD: &str = "reading thread_messages_by_thread";
const REMOVING_THREAD: &str = "removing from thread_messages_by_thread";

type OfRoom = (i64, CqlTimestamp, String, Option<String>);
type OfThread = (CqlTimestamp, String, Option<String>);

impl<'a> Messages<'a> {
    /// `bucket_hours`: what the services are said to write with, beside what was seeded with.
    pub async fn new(
        cassandra: &'a Cassandra,
        mongo: &'a Mongo,
        dataset: &'a Dataset,
        bucket_hours: u32,
    ) -> Result<Self, String> {
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
            bucket_hours: vec![dataset.spec.bucket_hours, bucket_hours],
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
            self.remove_replies_of(doc! { "siteId": &self.dataset.spec.site, "roomId": rooms }).await?;
        }
        Ok(())
    }

    /// The replies of these threads.
    pub async fn remove_replies_of(&self, threads: Document) -> Result<(), String> {
        let threads = self.mongo.ids("thread_rooms", threads).await?;
        threads.try_for_each_concurrent(ROWS_AT_ONCE, |thread| self.remove_replies(thread)).await
    }

    async fn remove_room(&self, room_id: String) -> Result<(), String> {
        let buckets = of_either(self.dataset.made_ms(), tomorrow_ms(), &self.bucket_hours);
        for buckets in buckets.chunks(BUCKETS) {
            let key = (&room_id, buckets);
            let counted = self
                .each_page(READING_ROOM, &self.rows_of_room, &key, |rows: Vec<OfRoom>| {
                    let all = rows.len();
                    let ours: Vec<String> =
                        rows.into_iter().filter(|(.., site)| self.is_ours(site)).map(|(_, _, id, _)| id).collect();
                    self.remove_ids_of(all, ours)
                })
                .await?;
            match counted {
                Counted { all: 0, .. } => {}
                // Nobody else is in there.
                Counted { others: 0, .. } => {
                    self.cassandra.execute(REMOVING_ROOM, &self.remove_buckets, &key).await?;
                }
                Counted { others, .. } => {
                    self.kept.fetch_add(others, Ordering::Relaxed);
                    self.each_page(READING_ROOM, &self.rows_of_room, &key, |rows: Vec<OfRoom>| {
                        self.remove_rows(&room_id, rows)
                    })
                    .await?;
                }
            }
        }
        Ok(())
    }

    /// One by one, those of ours.
    async fn remove_rows(&self, room_id: &str, rows: Vec<OfRoom>) -> Result<Counted, String> {
        let ours = rows.iter().filter(|(.., site)| self.is_ours(site));
        let removals = ours.map(|(bucket, at, id, _)| {
            self.cassandra.execute(REMOVING_ROOM, &self.remove_row, (room_id, bucket, at, id))
        });
        stream::iter(removals).buffer_unordered(ROWS_AT_ONCE).try_collect::<()>().await?;
        Ok(Counted::default())
    }

    async fn remove_replies(&self, thread: String) -> Result<(), String> {
        let key = (&thread,);
        let counted = self
            .each_page(READING_THREAD, &self.rows_of_thread, &key, |rows: Vec<OfThread>| {
                let all = rows.len();
                let ours: Vec<String> =
                    rows.into_iter().filter(|(.., site)| self.is_ours(site)).map(|(_, id, _)| id).collect();
                self.remove_ids_of(all, ours)
            })
            .await?;
        match counted {
            Counted { all: 0, .. } => Ok(()),
            Counted { others: 0, .. } => self.cassandra.execute(REMOVING_THREAD, &self.remove_thread, &key).await,
            Counted { others, .. } => {
                self.kept.fetch_add(others, Ordering::Relaxed);
                self.each_page(READING_THREAD, &self.rows_of_thread, &key, |rows: Vec<OfThread>| {
                    self.remove_rows_of_thread(&thread, rows)
                })
                .await
                .map(drop)
            }
        }
    }

    async fn remove_rows_of_thread(&self, thread: &str, rows: Vec<OfThread>) -> Result<Counted, String> {
        let ours = rows.iter().filter(|(.., site)| self.is_ours(site));
        let removals =
            ours.map(|(at, id, _)| self.cassandra.execute(REMOVING_THREAD, &self.remove_reply, (thread, at, id)));
        stream::iter(removals).buffer_unordered(ROWS_AT_ONCE).try_collect::<()>().await?;
        Ok(Counted::default())
    }

    /// Reads page after page, and is done with one before it asks for the next: a busy room may hold millions of rows. What
    /// came of all pages.
    async fn each_page<R, F>(
        &self,
        doing: &str,
        statement: &PreparedStatement,
        key: &impl SerializeRow,
        with: impl Fn(Vec<R>) -> F,
    ) -> Result<Counted, String>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
        F: Future<Output = Result<Counted, String>>,
    {
        let (mut counted, mut next) = (Counted::default(), Some(PagingState::start()));
        while let Some(from) = next {
            let (rows, then) = self.cassandra.page(doing, statement, key, from).await?;
            let of_page = with(rows).await?;
            counted.all += of_page.all;
            counted.others += of_page.others;
            next = then;
        }
        Ok(counted)
    }

    /// Of a page of so many rows, ours by their ids: these go from `messages_by_id` first, since the rows are the way to them.
    async fn remove_ids_of(&self, all: usize, ours: Vec<String>) -> Result<Counted, String> {
        let counted = Counted { all: all as u64, others: (all - ours.len()) as u64 };
        self.remove_ids(ours).await?;
        Ok(counted)
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

/// The buckets that lie between two times, by any of these lengths.
fn of_either(first_ms: i64, last_ms: i64, hours: &[u32]) -> Vec<i64> {
    let of = |&hours: &u32| (bucket(first_ms, hours)..=bucket(last_ms, hours)).step_by(hours as usize * 3_600_000);
    let buckets: BTreeSet<i64> = hours.iter().flat_map(of).collect();
    buckets.into_iter().collect()
}

/// Messages of runs are not newer, whatever the clocks say.
fn tomorrow_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 2) + 86_400_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_either_length_are_looked_into_once() {
        const DAY_MS: i64 = 86_400_000;
        assert_eq!(of_either(3 * DAY_MS, 6 * DAY_MS, &[72, 72]), [3 * DAY_MS, 6 * DAY_MS]);
        let both = of_either(3 * DAY_MS, 6 * DAY_MS, &[72, 24]);
        assert_eq!(both, [3 * DAY_MS, 4 * DAY_MS, 5 * DAY_MS, 6 * DAY_MS]);
    }
}
