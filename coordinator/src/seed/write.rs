//! Seeding: looks before it writes, records what it is about to write, writes chunk after chunk, and says that it is whole
//! when it is.

use std::ops::Range;
use std::time::Duration;

use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::bson::{Document, doc};
use plimsoll_agent::shell::logs;
use tokio::time::{Instant, interval, timeout};

use super::cassandra::{Cassandra, RowWriter};
use super::claim::{Ground, claim, ended, forget_progress, holds, progress};
use super::dataset::{Dataset, Message, SeedRoom, spread};
use super::documents;
use super::manifest::{COLLECTION, Manifest, ShardProgress, unfinished};
use super::mongo::Mongo;
use super::ownership::rooms;
use super::plan::{Chunk, Shard, chunks, of_shard, totals};
use super::progress::{Count, grouped, line};
use super::remove::Messages;
use super::rows::{self, MessageRow, ReplyRow};
use super::spec::{Content, prefixed};
use crate::exit::Failure;
use crate::settings::seeding::SeedPlan;

/// Chunks written at once: enough that neither database waits for us, few enough that memory stays flat.
const CHUNKS_AT_ONCE: usize = 4;
/// Documents of one insert.
const INSERT: usize = 1000;
/// Rows of one batch of `messages_by_room`: about 20 kB in one partition.
const BATCH: usize = 64;
/// Rooms of a chunk whose messages are written at once: those of a daily preset have few each.
const ROOMS_AT_ONCE: usize = 16;
/// Messages of a room in one go: their rows are made, written and forgotten.
const MESSAGES_AT_ONCE: usize = 1024;
/// Rooms of those that count as written that are looked into before a seeding goes on.
const PROBES: usize = 16;
/// Between two lines of progress.
const LINE_INTERVAL: Duration = Duration::from_secs(2);
/// Between two notes in the database of how far it is: what is written in between is written again after a crash.
const NOTE_INTERVAL: Duration = Duration::from_millis(250);
/// What is noted last may take as long: the server may be gone.
const LAST_NOTE: Duration = Duration::from_secs(5);

/// What a seeding came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeded {
    /// For people.
    pub words: String,
}

/// Seeds what the plan says.
///
/// # Errors
/// It could not begin (usage), or could not go on (incomplete): the same command goes on where it stopped.
pub async fn seed(plan: &SeedPlan) -> Result<Seeded, Failure> {
    let began = Instant::now();
    let (seeder, start) = Seeder::ready(plan).await?;
    let dataset = &seeder.dataset;
    let own = of_shard(&chunks(dataset), plan.shard);
    let start = seeder.still_there(&own, start).await.map_err(Failure::Incomplete)?;
    let sizes: Vec<u64> = own.iter().map(|chunk| totals(dataset, chunk).all()).collect();
    let (all, before) = (sizes.iter().sum::<u64>(), sizes.iter().take(start).sum::<u64>());
    if start > 0 {
        logs::say(format_args!("seed: goes on after {} of {} rows and documents", grouped(before), grouped(all)));
    }
    let written = seeder.write_all(&own, start, before, all).await;
    if let Err(words) = written {
        return Err(Failure::Incomplete(words));
    }
    logs::say(format_args!("{}", line(before, seeder.count.get(), all, began.elapsed())));
    let left = seeder.finish(own.len()).await.map_err(Failure::Incomplete)?;
    Ok(Seeded { words: seeder.ending(&left, all) })
}

struct Seeder {
    mongo: Mongo,
    cassandra: Option<Cassandra>,
    rows: Option<RowWriter>,
    manifest: Manifest,
    dataset: Dataset,
    shard: Shard,
    count: Count,
}

impl Seeder {
    /// Opens the databases, checks that they can take what is to be written, and records it. The first of our chunks that
    /// is not written yet.
    async fn ready(plan: &SeedPlan) -> Result<(Self, usize), Failure> {
        let mongo = Mongo::open(&plan.storage.mongo).await.map_err(Failure::Usage)?;
        let cassandra = match &plan.storage.cassandra {
            Some(cassandra) => Some(Cassandra::connect(cassandra).await.map_err(Failure::Usage)?),
            None => None,
        };
        let ground = Ground::look(&mongo, cassandra.as_ref(), plan).await.map_err(Failure::Usage)?;
        let made = ground.prepare(&mongo, cassandra.as_ref()).await?;
        let rows = match cassandra.clone() {
            Some(cassandra) if plan.spec.content().is_ok_and(Content::has_messages) => {
                let writer = RowWriter::new(cassandra, plan.writes).await;
                Some(writer.map_err(|words| ended(made, words))?)
            }
            _ => None,
        };
        let (manifest, start) = claim(&mongo, plan, &ground, made).await?;
        let dataset = manifest.dataset().map_err(Failure::Incomplete)?;
        let (shard, count) = (plan.shard, Count::default());
        Ok((Self { mongo, cassandra, rows, manifest, dataset, shard, count }, start))
    }

    /// The first of our chunks that is to be written: none counts as written where messages of them are gone, as from a
    /// Cassandra that was made anew.
    async fn still_there(&self, own: &[Chunk], start: usize) -> Result<usize, String> {
        let (Some(cassandra), Some(_)) = (&self.cassandra, &self.rows) else { return Ok(start) };
        let of_rooms = |chunk: &Chunk| match chunk {
            Chunk::Rooms(rooms) => Some(rooms.start),
            Chunk::Users(_) => None,
        };
        let written: Vec<u32> = own.iter().take(start).filter_map(of_rooms).collect();
        let by_id = cassandra.prepare("SELECT message_id FROM KEYSPACE.messages_by_id WHERE message_id = ?").await?;
        for at in spread(written.len(), PROBES) {
            let Some(newest) = self.dataset.newest(&self.dataset.room(written[at])) else { continue };
            let found: Vec<(String,)> = cassandra.rows("reading messages_by_id", &by_id, (&newest.id,)).await?;
            if found.is_empty() {
                logs::say(format_args!("seed: messages that were written are gone: everything is written again"));
                forget_progress(&self.mongo, &self.manifest.id()).await?;
                self.note(0, false).await?;
                return Ok(0);
            }
        }
        Ok(start)
    }

    async fn write_all(&self, own: &[Chunk], start: usize, before: u64, all: u64) -> Result<(), String> {
        self.remove_strangers().await?;
        let began = Instant::now();
        let mut written = start;
        let mut noted = Instant::now();
        let mut chunks =
            stream::iter(own.iter().skip(start)).map(|chunk| self.write_chunk(chunk)).buffered(CHUNKS_AT_ONCE);
        let mut ticks = interval(LINE_INTERVAL);
        ticks.tick().await;
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => logs::say(format_args!("{}", line(before, self.count.get(), all, began.elapsed()))),
                next = chunks.try_next() => match next {
                    Ok(None) => return Ok(()),
                    Ok(Some(())) => {
                        // In the order of the chunks, whichever was first: so many are written, and none before them is not.
                        written += 1;
                        if noted.elapsed() >= NOTE_INTERVAL {
                            self.note(written, false).await?;
                            noted = Instant::now();
                        }
                    }
                    Err(words) => {
                        // The connection may be gone; then what was noted last is what counts.
                        let _ = timeout(LAST_NOTE, self.note(written, false)).await;
                        return Err(words);
                    }
                },
            }
        }
    }

    async fn note(&self, chunks: usize, finished: bool) -> Result<(), String> {
        holds(&self.mongo, &self.manifest).await?;
        let progress = ShardProgress { shard: self.shard, chunks: chunks as u64, finished };
        self.mongo.put(COLLECTION, &progress.document(&self.manifest)).await
    }

    /// Notes that our part is whole. The shards that are not.
    async fn finish(&self, chunks: usize) -> Result<Vec<Shard>, String> {
        self.note(chunks, true).await?;
        // Who took the record away before the note was written has not seen it.
        if let Err(words) = holds(&self.mongo, &self.manifest).await {
            self.mongo.delete(COLLECTION, ShardProgress::filter(&self.manifest)).await?;
            return Err(words);
        }
        let progress = progress(&self.mongo, &self.manifest).await?;
        Ok(unfinished(&self.manifest, &progress))
    }

    fn ending(&self, left: &[Shard], all: u64) -> String {
        let spec = &self.manifest.spec;
        let what = format!("{} rows and documents of {}", grouped(all), spec.flags());
        let where_to = match &self.rows {
            Some(_) => format!("{} and Cassandra", self.mongo.place()),
            None => self.mongo.place().to_owned(),
        };
        if self.shard == Shard::WHOLE {
            return format!("seeded {what} in {where_to}\n");
        }
        let rest = match left {
            [] => "all parts are seeded".to_owned(),
            left => format!(
                "still to be seeded: --shard {}",
                left.iter().map(Shard::to_string).collect::<Vec<_>>().join(", ")
            ),
        };
        format!("seeded part {} in {where_to}: {what}\n{rest}\n", self.shard)
    }

    /// Removes from our rooms what runs since the last seeding have added: members, threads, and who follows them. Rooms
    /// that are none of ours, as a direct message of two of our users that the chat opened, stay as they are. Without Cassandra
    /// threads stay too: their documents are the way to their replies.
    async fn remove_strangers(&self) -> Result<(), String> {
        let site = &self.dataset.spec.site;
        let strangers = |room: &Document, prefix: &str| {
            let ours = prefixed(prefix);
            doc! { "siteId": site, "roomId": room.clone(), "_id": { "$not": ours } }
        };
        let messages = match &self.cassandra {
            Some(cassandra) => {
                Some(Messages::new(cassandra, &self.mongo, &self.dataset, self.dataset.spec.bucket_hours).await?)
            }
            None => None,
        };
        for room in rooms(&self.dataset) {
            self.mongo.delete("subscriptions", strangers(&room, "sub-")).await?;
            let Some(messages) = &messages else { continue };
            messages.remove_replies_of(strangers(&room, "tr-")).await?;
            self.mongo.delete("thread_rooms", strangers(&room, "tr-")).await?;
            self.mongo.delete("thread_subscriptions", strangers(&room, "tsub-")).await?;
        }
        Ok(())
    }

    async fn write_chunk(&self, chunk: &Chunk) -> Result<(), String> {
        match chunk {
            Chunk::Users(users) => {
                let documents: Vec<Document> = users.clone().map(|user| documents::user(&self.dataset, user)).collect();
                self.insert("users", documents).await
            }
            Chunk::Rooms(rooms) => self.write_rooms(rooms.clone()).await,
        }
    }

    async fn insert(&self, collection: &str, documents: Vec<Document>) -> Result<(), String> {
        for part in documents.chunks(INSERT) {
            self.mongo.write(collection, part).await?;
            self.count.add(part.len());
        }
        Ok(())
    }

    async fn write_rooms(&self, rooms: Range<u32>) -> Result<(), String> {
        let rooms: Vec<SeedRoom> = rooms.map(|at| self.dataset.room(at)).collect();
        if self.rows.is_some() {
            let written = stream::iter(&rooms).map(|room| self.write_messages(room));
            written.buffer_unordered(ROOMS_AT_ONCE).try_collect::<()>().await?;
        }
        let of_room = |room: &'_ SeedRoom| -> Vec<Document> {
            (0..room.members.len()).map(|at| documents::subscription(&self.dataset, room, at)).collect()
        };
        self.insert("subscriptions", rooms.iter().flat_map(of_room).collect()).await?;
        self.insert("rooms", rooms.iter().map(|room| documents::room(&self.dataset, room)).collect()).await
    }

    async fn write_messages(&self, room: &SeedRoom) -> Result<(), String> {
        let Some(writer) = &self.rows else { return Ok(()) };
        let room_id = &room.id;
        let mut messages = self.dataset.messages(room);
        loop {
            let part: Vec<Message> = messages.by_ref().take(MESSAGES_AT_ONCE).collect();
            if part.is_empty() {
                return Ok(());
            }
            let rows: Vec<MessageRow> = part.iter().map(|m| rows::message(&self.dataset, room_id, m)).collect();
            let replies: Vec<Vec<ReplyRow>> =
                part.iter().map(|m| rows::replies(&self.dataset, room_id, m)).filter(|rows| !rows.is_empty()).collect();
            let batches = rows.chunk_by(|a, b| a.bucket == b.bucket).flat_map(|rows| rows.chunks(BATCH));
            // What a removal finds others by comes first: whatever ends this in the middle leaves nothing that it does not find.
            let messages = async {
                try_join_all(batches.map(|batch| writer.by_room(batch))).await?;
                try_join_all(rows.iter().map(|row| writer.by_id(row))).await
            };
            let threads = async {
                self.write_threads(room, &part).await?;
                try_join_all(replies.iter().map(|thread| writer.by_thread(thread))).await?;
                try_join_all(replies.iter().flatten().map(|reply| writer.reply_by_id(reply))).await
            };
            futures::try_join!(messages, threads)?;
            self.count.add(2 * (rows.len() + replies.iter().map(Vec::len).sum::<usize>()));
        }
    }

    async fn write_threads(&self, room: &SeedRoom, messages: &[Message]) -> Result<(), String> {
        let rooms = messages.iter().filter_map(|m| documents::thread_room(&self.dataset, room, m)).collect();
        let followers = messages.iter().flat_map(|m| documents::thread_subscriptions(&self.dataset, room, m)).collect();
        self.insert("thread_rooms", rooms).await?;
        self.insert("thread_subscriptions", followers).await
    }
}

/// What a seeding would write, in words.
///
/// # Errors
/// The spec is none of this release.
pub fn describe(plan: &SeedPlan) -> Result<String, String> {
    use std::fmt::Write as _;
    let dataset = Dataset::build(plan.spec.clone(), 0)?;
    let all = dataset.totals();
    let mut text = String::from("Dry run: nothing is contacted, nothing is written.\n\n");
    let mut put = |name: &str, count: u64| {
        if count > 0 {
            writeln!(text, "  {name:<28} {:>12}", grouped(count)).expect("a String takes every line");
        }
    };
    put("users", all.users);
    put("rooms", all.rooms);
    put("subscriptions", all.subscriptions);
    put("thread_rooms", all.thread_rooms);
    put("thread_subscriptions", all.thread_subscriptions);
    put("messages_by_room", all.messages);
    put("messages_by_id", all.messages + all.replies);
    put("thread_messages_by_thread", all.replies);
    let own: u64 = of_shard(&chunks(&dataset), plan.shard).iter().map(|chunk| totals(&dataset, chunk).all()).sum();
    let part = if plan.shard.of > 1 { format!(", part {} of it: {}", plan.shard, grouped(own)) } else { String::new() };
    writeln!(text, "\n{}: {} rows and documents in all{part}", plan.spec.flags(), grouped(all.all()))
        .expect("a String takes every line");
    Ok(text)
}
