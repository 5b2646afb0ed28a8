//! Seeding: looks before it writes, records what it is about to write, writes chunk after chunk, and says that it is whole
//! when it is.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::bson::{Document, doc};
use plimsoll_agent::shell::logs;
use plimsoll_common::contract::fixtures::{RoomKind, user_id};
use tokio::time::{Instant, interval};

use super::cassandra::{Cassandra, Missing, RowWriter};
use super::dataset::{Dataset, Message, SeedRoom};
use super::documents;
use super::manifest::{COLLECTION, Manifest, ShardProgress, id, unfinished};
use super::mongo::Mongo;
use super::plan::{Chunk, Shard, chunks, of_shard, totals};
use super::progress::{Count, grouped, line};
use super::rows::{self, MessageRow, ReplyRow};
use super::schema::indexes;
use super::spec::{Content, People, RoomIds, Spec, prefixed};
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
/// Between two lines of progress.
const LINE_INTERVAL: Duration = Duration::from_secs(2);
/// Between two notes in the database of how far it is: what is written in between is written again after a crash.
const NOTE_INTERVAL: Duration = Duration::from_millis(250);

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
    let (seeder, start) = Seeder::ready(plan).await.map_err(Failure::Usage)?;
    let dataset = &seeder.dataset;
    let own = of_shard(&chunks(dataset), plan.shard);
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
    rows: Option<RowWriter>,
    manifest: Manifest,
    dataset: Dataset,
    shard: Shard,
    count: Count,
}

impl Seeder {
    /// Opens the databases, checks that they can take what is to be written, and records it. The first of our chunks that
    /// is not written yet.
    async fn ready(plan: &SeedPlan) -> Result<(Self, usize), String> {
        let content = plan.spec.content()?;
        let mongo = Mongo::open(&plan.storage.mongo).await?;
        let missing = if plan.create_schema { Missing::Make } else { Missing::Refuse };
        let cassandra = match &plan.storage.cassandra {
            Some(cassandra) => Some(Cassandra::open(cassandra, missing).await?),
            None => None,
        };
        make_or_name_indexes(&mongo, content, missing).await?;
        refuse_other_sites(&mongo, &plan.spec).await?;
        let (manifest, start) = claim(&mongo, plan).await?;
        let dataset = manifest.dataset()?;
        let rows = match cassandra {
            Some(cassandra) if content.has_messages() => Some(RowWriter::new(cassandra, plan.writes).await?),
            _ => None,
        };
        Ok((Self { mongo, rows, manifest, dataset, shard: plan.shard, count: Count::default() }, start))
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
                        let _ = self.note(written, false).await;
                        return Err(words);
                    }
                },
            }
        }
    }

    async fn note(&self, chunks: usize, finished: bool) -> Result<(), String> {
        let progress = ShardProgress { shard: self.shard, chunks: chunks as u64, finished };
        self.mongo.put(COLLECTION, &progress.document(&self.manifest.id())).await
    }

    /// Notes that our part is whole. The shards that are not.
    async fn finish(&self, chunks: usize) -> Result<Vec<Shard>, String> {
        self.note(chunks, true).await?;
        let progress = progress(&self.mongo, &self.manifest.id()).await?;
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

    /// Removes from our rooms what runs since the last seeding have added: members, threads, and who follows them.
    async fn remove_strangers(&self) -> Result<(), String> {
        let site = &self.dataset.spec.site;
        for room in room_ranges(&self.dataset) {
            for (collection, prefix) in
                [("subscriptions", "sub-"), ("thread_rooms", "tr-"), ("thread_subscriptions", "tsub-")]
            {
                let ours = prefixed(prefix);
                let filter = doc! { "siteId": site, "roomId": room.clone(), "_id": { "$not": ours } };
                self.mongo.delete(collection, filter).await?;
            }
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
            futures::try_join!(
                try_join_all(batches.map(|batch| writer.by_room(batch))),
                try_join_all(rows.iter().map(|row| writer.by_id(row))),
                try_join_all(replies.iter().map(|thread| writer.by_thread(thread))),
                try_join_all(replies.iter().flatten().map(|reply| writer.reply_by_id(reply))),
                self.write_threads(room, &part),
            )?;
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

/// The rooms of a dataset, by their ids; of some presets direct messages have ids of another form.
pub(super) fn room_ranges(dataset: &Dataset) -> Vec<Document> {
    let mut ranges = dataset.spec.room_ids().ranges();
    if direct_messages(dataset).next().is_some() {
        ranges.push(prefixed("u-"));
    }
    ranges
}

/// Rooms whose ids are those of two users.
pub(super) fn direct_messages(dataset: &Dataset) -> impl Iterator<Item = String> {
    let rooms = match &dataset.people {
        People::Rooms(fixtures) => fixtures.rooms.as_slice(),
        People::Daily(_) => &[],
    };
    rooms.iter().filter(|room| room.kind == RoomKind::Dm).map(|room| room.id())
}

/// What runs have made that is in no seeded room: rooms of their own, with what is in them.
pub(super) fn made_by_runs(dataset: &Dataset) -> Option<Document> {
    (dataset.spec.room_ids() == RoomIds::Daily).then(|| prefixed("plimsoll-"))
}

/// Some users, at least one, by their ids.
pub(super) fn user_range(users: Range<u32>) -> Document {
    // Up to the last one: the id behind a million users comes before theirs.
    doc! { "$gte": user_id(users.start), "$lte": user_id(users.end - 1) }
}

async fn make_or_name_indexes(mongo: &Mongo, content: Content, missing: Missing) -> Result<(), String> {
    let lacking = mongo.missing(indexes(content)).await?;
    for index in &lacking {
        if missing == Missing::Refuse {
            return Err(format!(
                "MongoDB at {} has no unique index ({}) on {}, which {} makes when it starts: start it once, or pass \
                 --create-schema",
                mongo.place(),
                index.keys.join(", "),
                index.collection,
                index.service
            ));
        }
        mongo.make(index).await?;
    }
    Ok(())
}

/// Ids do not hold the site: two sites with the same rooms cannot be in one database.
async fn refuse_other_sites(mongo: &Mongo, spec: &Spec) -> Result<(), String> {
    let users = Dataset::build(spec.clone(), 0)?.users();
    let other = doc! { "$ne": &spec.site };
    let rooms = spec.room_ids().ranges().into_iter().map(|ids| ("rooms", ids));
    for (collection, ids) in rooms.chain([("users", user_range(0..users))]) {
        let found = mongo.find(collection, doc! { "_id": ids, "siteId": other.clone() }, 1).await?;
        if let Some(document) = found.first() {
            let of = document.get_str("siteId").unwrap_or("none");
            return Err(format!(
                "MongoDB at {} has {} in {collection} for the site {of}, not {}: name that site with --site-id, remove it with \
                 `plimsoll teardown --workload {} --site-id {of}`, or take another --mongo-db",
                mongo.place(),
                document.get_str("_id").unwrap_or("a document"),
                spec.site,
                spec.workload,
            ));
        }
    }
    Ok(())
}

/// Records what is about to be written, or joins what another shard or an interrupted seeding has recorded. The first of our
/// chunks that is to be written.
async fn claim(mongo: &Mongo, plan: &SeedPlan) -> Result<(Manifest, usize), String> {
    let name = id(&plan.spec);
    let wanted = Manifest { spec: plan.spec.clone(), anchor_ms: now_ms(), shards: plan.shard.of };
    for _ in 0..2 {
        if mongo.insert_new(COLLECTION, &wanted.document()).await? {
            return begin(mongo, wanted, plan.shard).await;
        }
        let found = mongo.find(COLLECTION, doc! { "_id": &name }, 1).await?;
        // Gone again: somebody tears it down; the second look tells.
        let Some(found) = found.first() else { continue };
        return join(mongo, Manifest::read(found)?, wanted, plan.shard).await;
    }
    Err(format!("the record {name} in {COLLECTION} comes and goes: is somebody removing what is being seeded?"))
}

async fn begin(mongo: &Mongo, manifest: Manifest, shard: Shard) -> Result<(Manifest, usize), String> {
    let progress = ShardProgress { shard, chunks: 0, finished: false };
    mongo.put(COLLECTION, &progress.document(&manifest.id())).await?;
    Ok((manifest, 0))
}

async fn join(mongo: &Mongo, there: Manifest, wanted: Manifest, shard: Shard) -> Result<(Manifest, usize), String> {
    let differs = wanted.spec.differs(&there.spec);
    if !differs.is_empty() {
        let Spec { workload, site, .. } = &there.spec;
        return Err(format!(
            "MongoDB at {} is seeded with {}, whose rooms would be in the way ({}): remove them with `plimsoll teardown \
             --workload {workload} --site-id {site}` first",
            mongo.place(),
            there.spec.flags(),
            differs.join("; "),
        ));
    }
    let name = there.id();
    let progress = progress(mongo, &name).await?;
    let same = there.spec == wanted.spec && there.shards == wanted.shards;
    let left = unfinished(&there, &progress);
    let own = progress.iter().find(|progress| progress.shard == shard);
    if same {
        return match own {
            // Seeded before: everything is written again, with the times that it had.
            Some(own) if own.finished => begin(mongo, there, shard).await,
            Some(own) => Ok((there, own.chunks as usize)),
            None => begin(mongo, there, shard).await,
        };
    }
    if there.shards != wanted.shards && !left.is_empty() && !progress.is_empty() {
        let names: Vec<String> = left.iter().map(Shard::to_string).collect();
        return Err(format!(
            "a seeding of {} in {} parts is not whole: finish it first with --shard {}, or remove it with `plimsoll teardown \
             --workload {} --site-id {}`",
            there.spec.flags(),
            there.shards,
            names.join(", "),
            there.spec.workload,
            there.spec.site
        ));
    }
    // The same rooms for another workload, or in other parts: its times stay.
    let manifest = Manifest { anchor_ms: there.anchor_ms, ..wanted };
    mongo.delete(COLLECTION, doc! { "kind": "shard", "of": &name }).await?;
    mongo.put(COLLECTION, &manifest.document()).await?;
    begin(mongo, manifest, shard).await
}

/// How far each shard of a seeding has come.
pub(super) async fn progress(mongo: &Mongo, manifest: &str) -> Result<Vec<ShardProgress>, String> {
    let found = mongo.find(COLLECTION, doc! { "kind": "shard", "of": manifest }, i64::from(Shard::MOST)).await?;
    Ok(found.iter().filter_map(ShardProgress::read).collect())
}

/// In whole seconds, so that times read well.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX / 1000) * 1000
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_a_range_of_ids() {
        assert_eq!(user_range(0..10), doc! { "$gte": "u-000000", "$lte": "u-000009" });
        assert_eq!(user_range(5..1_000_000), doc! { "$gte": "u-000005", "$lte": "u-999999" });
    }
}
