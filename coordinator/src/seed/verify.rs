//! Compares what the databases hold with what a run needs: the record of the seeding, counts of every collection and table,
//! and a sample of each, field by field. It reads only; what services change while a run lasts is not compared.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::bson::{Bson, Document, doc};
use plimsoll_common::contract::fixtures::account;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;

use super::cassandra::{Cassandra, Missing};
use super::dataset::{Dataset, Message, SeedRoom, spread};
use super::documents;
use super::manifest::{COLLECTION, Manifest, id, unfinished};
use super::mongo::Mongo;
use super::plan::Shard;
use super::progress::grouped;
use super::rows::{bucket, buckets};
use super::schema::indexes;
use super::spec::{Content, Spec};
use super::write::{progress, room_ranges, user_range};
use crate::settings::storage::StoragePlan;

/// How much is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Counts of collections, and messages of some rooms: seconds, whatever the size.
    Quick,
    /// Messages of all rooms too.
    Full,
}

/// Rooms and users whose documents are compared.
const SAMPLE: usize = 32;
/// Rooms whose messages are compared, and counted where not all are.
const MESSAGE_SAMPLE: usize = 4;
/// Messages of each of those that are compared.
const MESSAGES: usize = 8;
/// Partitions that are counted at once.
const COUNTS_AT_ONCE: usize = 16;

/// What was found, one line each, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What is as it should be.
    pub found: Vec<(String, String)>,
}

/// Compares.
///
/// # Errors
/// What is not as it should be or could not be read: one line each, with the command that mends it.
pub async fn verify(spec: &Spec, storage: &StoragePlan, depth: Depth) -> Result<Verified, Vec<String>> {
    let one = |words: String| vec![words];
    let mongo = Mongo::open(&storage.mongo).await.map_err(one)?;
    let (manifest, dataset) = recorded(&mongo, spec).await.map_err(one)?;
    let cassandra = match &storage.cassandra {
        Some(plan) => Some(Cassandra::open(plan, Missing::Refuse).await.map_err(one)?),
        None => None,
    };
    let mut check = Check { mongo, mend: mend(spec, &manifest), dataset, found: Vec::new(), wrong: Vec::new() };
    check.documents().await.map_err(one)?;
    match cassandra {
        Some(cassandra) if check.dataset.content.has_messages() => {
            check.messages(&cassandra, depth).await.map_err(one)?;
        }
        Some(cassandra) => check.say("cassandra", format!("{}: the tables of messages are there", cassandra.place())),
        None if check.dataset.content.has_messages() => {
            check.say("cassandra", "not checked: no --cassandra-hosts".to_owned());
        }
        None => {}
    }
    if check.wrong.is_empty() { Ok(Verified { found: check.found }) } else { Err(check.wrong) }
}

/// The record of a whole seeding that serves this spec.
async fn recorded(mongo: &Mongo, spec: &Spec) -> Result<(Manifest, Dataset), String> {
    let place = mongo.place();
    let name = id(spec);
    let found = mongo.find(COLLECTION, doc! { "kind": "seed" }, 100).await?;
    let Some(record) = found.iter().find(|document| document.get_str("_id").is_ok_and(|id| id == name)) else {
        let others: Vec<String> =
            found.iter().filter_map(|document| Some(Manifest::read(document).ok()?.spec.flags())).collect();
        let others = match others.len() {
            0 => "nothing was seeded there by plimsoll".to_owned(),
            _ => format!("it was seeded with {}", others.join(" and ")),
        };
        return Err(format!(
            "MongoDB at {place} has no seeding for --workload {} --site-id {} ({others}): name the site and workload that it \
             was seeded with, or `plimsoll seed {}`",
            spec.workload,
            spec.site,
            spec.flags()
        ));
    };
    let manifest = Manifest::read(record)?;
    let lacks = spec.lacks(&manifest.spec);
    if !lacks.is_empty() {
        let remedy = match spec.differs(&manifest.spec).is_empty() {
            true => format!("`plimsoll seed {}`", spec.flags()),
            false => format!(
                "`plimsoll teardown --workload {} --site-id {}`, then `plimsoll seed {}`",
                spec.workload,
                spec.site,
                spec.flags()
            ),
        };
        return Err(format!(
            "MongoDB at {place} is seeded with {}: {}; run with what it was seeded with, or {remedy}",
            manifest.spec.flags(),
            lacks.join("; ")
        ));
    }
    let left = unfinished(&manifest, &progress(mongo, &name).await?);
    if !left.is_empty() {
        let shards: Vec<String> = left.iter().map(Shard::to_string).collect();
        let shards = if manifest.shards == 1 { String::new() } else { format!(" --shard {}", shards.join(" and ")) };
        return Err(format!(
            "the seeding of MongoDB at {place} is not whole: `plimsoll seed {}{shards}` goes on",
            manifest.spec.flags()
        ));
    }
    let dataset = manifest.dataset()?;
    Ok((manifest, dataset))
}

/// The command that writes everything again.
fn mend(spec: &Spec, manifest: &Manifest) -> String {
    // What was seeded may serve more than this run.
    let flags = if spec.workload == manifest.spec.workload { spec.flags() } else { manifest.spec.flags() };
    format!("`plimsoll seed {flags}` writes it again")
}

struct Check {
    mongo: Mongo,
    dataset: Dataset,
    mend: String,
    found: Vec<(String, String)>,
    wrong: Vec<String>,
}

/// Fields of a subscription that services do not change.
const SUBSCRIPTION_FIELDS: [&str; 6] = ["u", "roomId", "siteId", "roles", "name", "roomType"];
const ROOM_FIELDS: [&str; 6] = ["name", "type", "siteId", "userCount", "uids", "encKey"];
const USER_FIELDS: [&str; 4] = ["account", "siteId", "engName", "chineseName"];
const THREAD_FIELDS: [&str; 3] = ["parentMessageId", "roomId", "siteId"];

impl Check {
    fn say(&mut self, what: &str, words: String) {
        self.found.push((what.to_owned(), words));
    }

    fn wrong(&mut self, words: String) {
        self.wrong.push(format!("{words}: {}", self.mend));
    }

    async fn documents(&mut self) -> Result<(), String> {
        for index in self.mongo.missing(indexes(self.dataset.content)).await? {
            self.wrong.push(format!(
                "MongoDB has no unique index ({}) on {}: start {}, or `plimsoll seed` with --create-schema",
                index.keys.join(", "),
                index.collection,
                index.service
            ));
        }
        let totals = self.dataset.totals();
        let site = self.dataset.spec.site.clone();
        let users = doc! { "_id": user_range(0..self.dataset.users()), "siteId": &site };
        self.count("users", vec![users], totals.users).await?;
        let of_rooms = |field: &str| -> Vec<Document> {
            let ranges = room_ranges(&self.dataset).into_iter();
            ranges.map(|range| doc! { field: range, "siteId": &site }).collect()
        };
        let (rooms, members) = (of_rooms("_id"), of_rooms("roomId"));
        self.count("rooms", rooms, totals.rooms).await?;
        self.count("subscriptions", members.clone(), totals.subscriptions).await?;
        if let Content::History { .. } = self.dataset.content {
            self.count("thread_rooms", members.clone(), totals.thread_rooms).await?;
            self.count("thread_subscriptions", members, totals.thread_subscriptions).await?;
        }
        let dataset = &self.dataset;
        let (users, rooms) = (spread(dataset.users() as usize, SAMPLE), dataset.sample(SAMPLE));
        let users = users.into_iter().map(|at| documents::user(dataset, at as u32)).collect();
        let subscriptions = rooms.iter().map(|room| documents::subscription(dataset, room, room.members.len() - 1));
        let subscriptions = subscriptions.collect();
        let room_documents = rooms.iter().map(|room| documents::room(dataset, room)).collect();
        let threads = rooms.iter().take(MESSAGE_SAMPLE).filter_map(|room| {
            let parent = dataset.messages(room).find(|message| message.thread.is_some())?;
            Some((
                documents::thread_room(dataset, room, &parent)?,
                documents::thread_subscriptions(dataset, room, &parent),
            ))
        });
        let (thread_rooms, followers): (Vec<Document>, Vec<Vec<Document>>) = threads.unzip();
        self.compare("users", users, &USER_FIELDS).await?;
        self.compare("rooms", room_documents, &ROOM_FIELDS).await?;
        self.compare("subscriptions", subscriptions, &SUBSCRIPTION_FIELDS).await?;
        self.compare("thread_rooms", thread_rooms, &THREAD_FIELDS).await?;
        self.compare("thread_subscriptions", followers.concat(), &["parentMessageId", "threadRoomId", "userAccount"])
            .await
    }

    async fn count(&mut self, collection: &str, filters: Vec<Document>, wanted: u64) -> Result<(), String> {
        let mut found = 0;
        for filter in filters {
            found += self.mongo.count(collection, filter).await?;
        }
        let site = &self.dataset.spec.site;
        if found == wanted {
            self.say(&format!("mongodb {collection}"), format!("{} for {site}", grouped(found)));
        } else {
            let words = format!(
                "MongoDB has {} documents of {} in {collection} for the site {site}, and has to have {}",
                grouped(found),
                self.dataset.spec.preset,
                grouped(wanted)
            );
            if found > wanted && collection == "rooms" {
                let Spec { workload, .. } = &self.dataset.spec;
                let flags = self.dataset.spec.flags();
                self.wrong.push(format!(
                    "{words}: `plimsoll teardown --workload {workload} --site-id {site}`, then `plimsoll seed {flags}`"
                ));
            } else {
                self.wrong(words);
            }
        }
        Ok(())
    }

    async fn compare(&mut self, collection: &str, wanted: Vec<Document>, fields: &[&str]) -> Result<(), String> {
        if wanted.is_empty() {
            return Ok(());
        }
        let ids: Vec<Bson> = wanted.iter().filter_map(|document| document.get("_id").cloned()).collect();
        let found = self.mongo.find(collection, doc! { "_id": { "$in": ids } }, wanted.len() as i64).await?;
        for document in &wanted {
            let there = found.iter().find(|there| there.get("_id") == document.get("_id"));
            if let Some(words) = difference(document, there, fields) {
                self.wrong(format!("MongoDB: {collection}: {words}"));
                // The first says enough of its collection.
                break;
            }
        }
        Ok(())
    }

    async fn messages(&mut self, cassandra: &Cassandra, depth: Depth) -> Result<(), String> {
        let reader = Reader::new(cassandra).await?;
        let sample = self.dataset.sample(MESSAGE_SAMPLE);
        // Room by room: there may be a million.
        let rooms: Box<dyn Iterator<Item = SeedRoom> + Send> = match depth {
            Depth::Quick => Box::new(sample.clone().into_iter()),
            Depth::Full => Box::new((0..self.dataset.rooms()).map(|at| self.dataset.room(at))),
        };
        let (dataset, anchor) = (&self.dataset, self.dataset.anchor_ms);
        let counted = stream::iter(rooms.flat_map(|room| of_buckets(dataset, &room))).map(|(room, bucket, wanted)| {
            let reader = &reader;
            async move { Ok::<_, String>((reader.count(&room, bucket, anchor).await?, room, bucket, wanted)) }
        });
        let mut counted = counted.buffered(COUNTS_AT_ONCE);
        let mut there = 0;
        let mut off = None;
        while let Some((found, room, bucket, wanted)) = counted.try_next().await? {
            there += found;
            if found != wanted {
                off = Some(format!(
                    "Cassandra: messages_by_room has {found} seeded rows for {room} in bucket {bucket} and has to have \
                     {wanted} ({} hours a bucket)",
                    dataset.spec.bucket_hours
                ));
                break;
            }
        }
        drop(counted);
        if let Some(words) = off {
            self.wrong(words);
            return Ok(());
        }
        for room in &sample {
            if let Some(words) = reader.differs(&self.dataset, room).await? {
                self.wrong(format!("Cassandra: {words}"));
                return Ok(());
            }
        }
        let words = format!(
            "{} of {} rooms as seeded, {} compared",
            grouped(there),
            if depth == Depth::Quick { sample.len() as u32 } else { self.dataset.rooms() },
            MESSAGES * sample.len()
        );
        self.say("cassandra messages", words);
        Ok(())
    }
}

/// The first field of these that is not what it has to be.
fn difference(wanted: &Document, there: Option<&Document>, fields: &[&str]) -> Option<String> {
    let name = wanted.get_str("_id").unwrap_or("?");
    let Some(there) = there else { return Some(format!("{name} is missing")) };
    fields.iter().find_map(|field| {
        let (wanted, is) = (wanted.get(field), there.get(field));
        if wanted == is {
            return None;
        }
        // Keys are secrets of the chat.
        if *field == "encKey" {
            return Some(format!("{name} has another encKey"));
        }
        let words = |value: Option<&Bson>| value.map_or("nothing".to_owned(), |value| value.to_string());
        Some(format!("{name} has {field} {}, and has to have {}", words(is), words(wanted)))
    })
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

    /// What is not as it has to be among some messages of a room.
    async fn differs(&self, dataset: &Dataset, room: &SeedRoom) -> Result<Option<String>, String> {
        let room_id = &room.id;
        let times = dataset.times(room).count();
        let picked = spread(times, MESSAGES);
        let messages: Vec<Message> = dataset
            .messages(room)
            .enumerate()
            .filter(|(at, _)| picked.contains(at))
            .map(|(_, message)| message)
            .collect();
        for message in &messages {
            let at = CqlTimestamp(message.created_ms);
            let bucket = bucket(message.created_ms, dataset.spec.bucket_hours);
            let wanted = (account(message.author), message.text.clone(), dataset.spec.site.clone());
            let key = (room_id, bucket, at, &message.id);
            type Row = (Option<String>, Option<String>, Option<String>);
            let found: Vec<Row> = self.cassandra.rows("reading messages_by_room", &self.by_room, key).await?;
            if found != [(Some(wanted.0.clone()), Some(wanted.1.clone()), Some(wanted.2.clone()))] {
                return Ok(Some(format!("messages_by_room has {} not as it was seeded", message.id)));
            }
            type ById = (Option<String>, Option<CqlTimestamp>, Option<String>, Option<String>, Option<String>);
            let found: Vec<ById> = self.cassandra.rows("reading messages_by_id", &self.by_id, (&message.id,)).await?;
            if found != [(Some(room_id.clone()), Some(at), Some(wanted.0), Some(wanted.1), Some(wanted.2))] {
                return Ok(Some(format!("messages_by_id has {} not as it was seeded", message.id)));
            }
        }
        let Some(parent) = dataset.messages(room).find(|message| message.thread.is_some()) else { return Ok(None) };
        let Some(thread) = &parent.thread else { return Ok(None) };
        type Reply = (String, CqlTimestamp, Option<String>, Option<String>);
        let found: Vec<Reply> =
            self.cassandra.rows("reading thread_messages_by_thread", &self.by_thread, (&thread.room_id,)).await?;
        let wanted = thread.replies.iter().rev().map(|reply| {
            (reply.id.clone(), CqlTimestamp(reply.created_ms), Some(account(reply.author)), Some(reply.text.clone()))
        });
        let fits = found.iter().filter(|(id, ..)| id.starts_with("hreply-")).cloned().eq(wanted);
        Ok((!fits).then(|| {
            format!("thread_messages_by_thread has the replies of {} not as they were seeded", thread.room_id)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::fixture::dataset;

    #[test]
    fn a_difference_names_document_field_and_both_values_but_no_key() {
        let small = dataset("messages", "small");
        let room = documents::room(&small, &small.room(0));
        assert_eq!(difference(&room, Some(&room), &ROOM_FIELDS), None);
        assert_eq!(difference(&room, None, &ROOM_FIELDS), Some("room-000000 is missing".into()));
        let mut other = room.clone();
        other.insert("userCount", 3);
        let words = difference(&room, Some(&other), &ROOM_FIELDS).unwrap();
        assert_eq!(words, "room-000000 has userCount 3, and has to have 2");
        let mut other = room.clone();
        other.remove("encKey");
        assert_eq!(difference(&room, Some(&other), &ROOM_FIELDS).unwrap(), "room-000000 has another encKey");
    }

    #[test]
    fn every_message_is_in_one_of_its_rooms_buckets() {
        let history = dataset("history", "history-medium");
        let counts = of_buckets(&history, &history.room(7));
        assert_eq!(counts.iter().map(|(.., count)| count).sum::<u64>(), 5_000);
        assert!((3..=4).contains(&counts.len()), "{counts:?}");
    }
}
