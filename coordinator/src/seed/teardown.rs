//! Removes what was seeded, and what runs have added to the same rooms: by site and by the pattern of ids, never a document
//! of anybody else; with `--drop` everything in the collections and tables that seeding writes to. The record goes last, so
//! an interrupted removal goes on with the same command.

use std::io::{IsTerminal as _, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::bson::{Document, doc};
use scylla::statement::prepared::PreparedStatement;

use super::cassandra::{Cassandra, Missing};
use super::dataset::Dataset;
use super::manifest::{COLLECTION, Manifest};
use super::mongo::Mongo;
use super::progress::grouped;
use super::rows::bucket;
use super::schema::TABLES;
use super::write::{direct_messages, made_by_runs, user_range};
use crate::exit::Failure;
use crate::settings::seeding::TeardownPlan;

/// Collections that seeding or runs write to.
const COLLECTIONS: [&str; 6] =
    ["users", "rooms", "subscriptions", "thread_rooms", "thread_subscriptions", "room_members"];
/// Ids in one filter.
const IDS: usize = 1000;
/// Rooms whose messages are removed at once, and rows of each.
const ROOMS_AT_ONCE: usize = 8;
const ROWS_AT_ONCE: usize = 64;
/// Buckets of a room that are looked into at once: of the largest histories some 40,000 messages.
const BUCKETS: usize = 8;
/// Records of seedings, at most.
const MOST: i64 = 1_000_000;

/// What is to be removed from a collection.
struct Part {
    collection: &'static str,
    filter: Document,
    count: u64,
}

/// Removes what the plan says. What it did, for people.
///
/// # Errors
/// Nothing was removed (usage), or not everything (incomplete).
pub async fn teardown(plan: &TeardownPlan) -> Result<String, Failure> {
    let mut teardown = Teardown::ready(plan).await.map_err(Failure::Usage)?;
    let Some(teardown) = &mut teardown else {
        return Ok(format!(
            "nothing to remove: no seeding of --workload {} --site-id {} is recorded\n",
            plan.workload, plan.site
        ));
    };
    let words = teardown.words();
    eprint!("{words}");
    if plan.dry_run {
        return Ok("Dry run: nothing was removed.\n".to_owned());
    }
    if !plan.yes {
        agreed().map_err(Failure::Usage)?;
    }
    teardown.remove().await.map_err(Failure::Incomplete)?;
    Ok(teardown.ending())
}

/// Asks whoever sits at the terminal.
fn agreed() -> Result<(), String> {
    if !std::io::stdin().is_terminal() {
        return Err("nobody can be asked whether to remove this: pass --yes; nothing was removed".to_owned());
    }
    eprint!("Remove this? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    let yes = read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if yes { Ok(()) } else { Err("nothing was removed".to_owned()) }
}

struct Teardown {
    mongo: Mongo,
    cassandra: Option<Cassandra>,
    /// What was seeded; none with `--drop` where nothing is recorded.
    seeded: Option<(Manifest, Dataset)>,
    parts: Vec<Part>,
    drop: bool,
}

impl Teardown {
    async fn ready(plan: &TeardownPlan) -> Result<Option<Self>, String> {
        let mongo = Mongo::open(&plan.storage.mongo).await?;
        let records = mongo.find(COLLECTION, doc! { "kind": "seed" }, MOST).await?;
        let name = format!("{}/{}", plan.site, plan.room_ids.name());
        let record = records.iter().find(|record| record.get_str("_id").is_ok_and(|id| id == name));
        let read = |record: &Document| -> Result<(Manifest, Dataset), String> {
            let manifest = Manifest::read(record)?;
            let dataset = manifest.dataset()?;
            Ok((manifest, dataset))
        };
        let seeded = match (record, plan.drop) {
            (Some(record), false) => Some(read(record)?),
            (None, false) => return Ok(None),
            (_, true) => None,
        };
        let has_messages = match plan.drop {
            true => records.iter().any(|record| read(record).is_ok_and(|(_, dataset)| dataset.content.has_messages())),
            false => seeded.as_ref().is_some_and(|(_, dataset)| dataset.content.has_messages()),
        };
        let cassandra = match &plan.storage.cassandra {
            Some(cassandra) => Some(Cassandra::open(cassandra, Missing::Refuse).await?),
            None if has_messages => {
                return Err(
                    "messages were seeded too: pass the --cassandra-hosts that they are in; nothing was removed".into(),
                );
            }
            None => None,
        };
        let mut teardown = Self { mongo, cassandra, seeded, parts: Vec::new(), drop: plan.drop };
        teardown.parts = teardown.look(&records).await?;
        Ok(Some(teardown))
    }

    /// What there is to remove.
    async fn look(&self, records: &[Document]) -> Result<Vec<Part>, String> {
        let mut filters: Vec<(&'static str, Document)> = Vec::new();
        match &self.seeded {
            None => filters.extend(COLLECTIONS.map(|collection| (collection, doc! {}))),
            Some((manifest, dataset)) => {
                let site = &manifest.spec.site;
                let mut of_rooms = |ids: &Document| {
                    filters.push(("subscriptions", doc! { "siteId": site, "roomId": ids.clone() }));
                    filters.push(("thread_rooms", doc! { "siteId": site, "roomId": ids.clone() }));
                    filters.push(("thread_subscriptions", doc! { "siteId": site, "roomId": ids.clone() }));
                    filters.push(("room_members", doc! { "rid": ids.clone() }));
                    filters.push(("rooms", doc! { "siteId": site, "_id": ids.clone() }));
                };
                rooms(dataset).iter().for_each(&mut of_rooms);
                if let Some(names) = made_by_runs(dataset) {
                    filters.push(("subscriptions", doc! { "siteId": site, "name": names.clone() }));
                    filters.push(("rooms", doc! { "siteId": site, "name": names }));
                }
                let users = dataset.users();
                let kept = kept_users(records, manifest);
                if kept < users {
                    filters.push(("users", doc! { "siteId": site, "_id": user_range(kept..users) }));
                }
            }
        }
        let mut parts = Vec::new();
        for (collection, filter) in filters {
            let count = self.mongo.count(collection, filter.clone()).await?;
            parts.push(Part { collection, filter, count });
        }
        Ok(parts)
    }

    fn words(&self) -> String {
        let what = match &self.seeded {
            Some((manifest, _)) => format!("what was seeded with {}", manifest.spec.flags()),
            None => "EVERYTHING in the chat's collections, whoever wrote it".to_owned(),
        };
        let mut words = format!("teardown removes {what}\n  from {}:\n", self.mongo.place());
        for collection in COLLECTIONS {
            let count: u64 =
                self.parts.iter().filter(|part| part.collection == collection).map(|part| part.count).sum();
            if count > 0 {
                words.push_str(&format!("    {collection:<22} {:>12}\n", grouped(count)));
            }
        }
        match (&self.cassandra, &self.seeded) {
            (Some(cassandra), Some((_, dataset))) => words.push_str(&format!(
                "  from Cassandra at {}:\n    all messages of {} rooms\n",
                cassandra.place(),
                grouped(u64::from(dataset.rooms()))
            )),
            (Some(cassandra), None) => {
                let tables = TABLES.map(|table| table.name).join(", ");
                words.push_str(&format!("  from Cassandra at {}:\n    everything in {tables}\n", cassandra.place()));
            }
            (None, _) => {}
        }
        words
    }

    async fn remove(&mut self) -> Result<(), String> {
        // From here on nobody takes it for whole.
        let records = match &self.seeded {
            Some((manifest, _)) => doc! { "kind": "shard", "of": manifest.id() },
            None => doc! { "kind": "shard" },
        };
        self.mongo.delete(COLLECTION, records).await?;
        match (&self.cassandra, &self.seeded) {
            (Some(cassandra), Some((_, dataset))) => {
                Messages::new(cassandra, &self.mongo, dataset).await?.remove_all(made_by_runs(dataset)).await?;
            }
            (Some(cassandra), None) => {
                for table in TABLES {
                    cassandra.truncate(table.name).await?;
                }
            }
            (None, _) => {}
        }
        for part in &mut self.parts {
            part.count = self.mongo.delete(part.collection, part.filter.clone()).await?;
        }
        let record = match &self.seeded {
            Some((manifest, _)) => doc! { "_id": manifest.id() },
            None => doc! {},
        };
        self.mongo.delete(COLLECTION, record).await.map(drop)
    }

    fn ending(&self) -> String {
        let documents: u64 = self.parts.iter().map(|part| part.count).sum();
        let messages = if self.cassandra.is_none() { "" } else { " and all messages of their rooms" };
        let messages = if self.drop && self.cassandra.is_some() { " and all messages" } else { messages };
        format!("removed {} documents{messages}\n", grouped(documents))
    }
}

/// The seeded rooms, by their ids and no other's.
fn rooms(dataset: &Dataset) -> Vec<Document> {
    let pairs: Vec<String> = direct_messages(dataset).collect();
    let pairs = pairs.chunks(IDS).map(|ids| doc! { "$in": ids });
    dataset.spec.room_ids().ranges().into_iter().chain(pairs).collect()
}

/// The first so many users are of other seedings of the same site too.
fn kept_users(records: &[Document], removed: &Manifest) -> u32 {
    let others = records.iter().filter_map(|record| Manifest::read(record).ok());
    let others = others.filter(|other| other.spec.site == removed.spec.site && other.id() != removed.id());
    others.filter_map(|other| Some(other.dataset().ok()?.users())).max().unwrap_or(0)
}

/// The messages of the seeded rooms: what was seeded, and what runs have sent.
struct Messages<'a> {
    cassandra: &'a Cassandra,
    mongo: &'a Mongo,
    dataset: &'a Dataset,
    ids_of_room: PreparedStatement,
    ids_of_thread: PreparedStatement,
    remove_id: PreparedStatement,
    remove_buckets: PreparedStatement,
    remove_thread: PreparedStatement,
}

impl<'a> Messages<'a> {
    async fn new(cassandra: &'a Cassandra, mongo: &'a Mongo, dataset: &'a Dataset) -> Result<Self, String> {
        let prepare = |text: &'static str| cassandra.prepare(text);
        Ok(Self {
            ids_of_room: prepare("SELECT message_id FROM KEYSPACE.messages_by_room WHERE room_id = ? AND bucket IN ?")
                .await?,
            ids_of_thread: prepare(
                "SELECT message_id FROM KEYSPACE.thread_messages_by_thread WHERE thread_room_id = ?",
            )
            .await?,
            remove_id: prepare("DELETE FROM KEYSPACE.messages_by_id WHERE message_id = ?").await?,
            remove_buckets: prepare("DELETE FROM KEYSPACE.messages_by_room WHERE room_id = ? AND bucket IN ?").await?,
            remove_thread: prepare("DELETE FROM KEYSPACE.thread_messages_by_thread WHERE thread_room_id = ?").await?,
            cassandra,
            mongo,
            dataset,
        })
    }

    /// `of_runs`: names of rooms that runs have made.
    async fn remove_all(&self, of_runs: Option<Document>) -> Result<(), String> {
        self.remove_threads().await?;
        let seeded = (0..self.dataset.rooms()).map(|at| Ok(self.dataset.room(at).id));
        let rooms = stream::iter(seeded);
        rooms.try_for_each_concurrent(ROOMS_AT_ONCE, |room| self.remove_room(room)).await?;
        let Some(names) = of_runs else { return Ok(()) };
        let rooms = self.mongo.ids("rooms", doc! { "siteId": &self.dataset.spec.site, "name": names }).await?;
        rooms.try_for_each_concurrent(ROOMS_AT_ONCE, |room| self.remove_room(room)).await
    }

    /// All threads in one pass over their documents: an index by room is the services' own, and may not be there.
    async fn remove_threads(&self) -> Result<(), String> {
        for rooms in rooms(self.dataset) {
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
            let ids: Vec<(String,)> = self.cassandra.rows(doing, &self.ids_of_room, (&room_id, buckets)).await?;
            if ids.is_empty() {
                continue;
            }
            self.remove_ids(&ids).await?;
            let doing = "removing from messages_by_room";
            self.cassandra.execute(doing, &self.remove_buckets, (&room_id, buckets)).await?;
        }
        Ok(())
    }

    async fn remove_replies(&self, thread: String) -> Result<(), String> {
        let doing = "reading thread_messages_by_thread";
        let ids: Vec<(String,)> = self.cassandra.rows(doing, &self.ids_of_thread, (&thread,)).await?;
        self.remove_ids(&ids).await?;
        self.cassandra.execute("removing from thread_messages_by_thread", &self.remove_thread, (&thread,)).await
    }

    async fn remove_ids(&self, ids: &[(String,)]) -> Result<(), String> {
        stream::iter(ids)
            .map(|id| self.cassandra.execute("removing from messages_by_id", &self.remove_id, id))
            .buffer_unordered(ROWS_AT_ONCE)
            .try_collect::<()>()
            .await
    }
}

/// Messages of runs are not newer, whatever the clocks say.
fn tomorrow_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 2) + 86_400_000
}
