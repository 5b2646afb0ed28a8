//! Compares what the databases hold with what a run needs: the record of the seeding, counts of every collection and table,
//! and a sample of each, field by field. It reads only; what services change while a run lasts is not compared.

use std::collections::HashMap;
use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};
use plimsoll_common::plan::redact_url;

use super::claim::{now_ms, progress};
use super::dataset::{Dataset, spread};
use super::documents;
use super::manifest::{COLLECTION, Manifest, id, unfinished};
use super::mongo::Mongo;
use super::plan::Shard;
use super::read_state::{Behind, ahead, looked, sees, shown};
use super::reader::messages;
use super::remedy::Commands;
use super::schema::indexes;
use super::spec::{Content, Spec};
use crate::awaited::Awaited;
use crate::settings::storage::StoragePlan;

/// How much is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Counts of people and rooms, threads and messages of some rooms: seconds, whatever the size.
    Quick,
    /// Threads and messages of all rooms too.
    Full,
}

/// Rooms and users whose documents are compared.
pub(super) const SAMPLE: usize = 32;
/// Rooms whose messages are compared, and counted where not all are.
pub(super) const MESSAGE_SAMPLE: usize = 4;

/// What was found, one line each, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What is as it should be.
    pub found: Vec<(String, String)>,
}

/// Compares. `run` is how long a run may take that begins now; `awaited` is told which database is being waited for.
///
/// # Errors
/// What is not as it should be or could not be read: one line each, with the command that mends it.
pub(crate) async fn verify(
    spec: &Spec,
    storage: &StoragePlan,
    depth: Depth,
    run: Duration,
    awaited: &Awaited,
) -> Result<Verified, Vec<String>> {
    let one = |words: String| vec![words];
    let mongo_place = format!("MongoDB at {}", redact_url(&storage.mongo.uri));
    let recorded = async {
        let mongo = Mongo::open(&storage.mongo).await?;
        let (manifest, dataset) = recorded(&mongo, spec, Commands(storage)).await?;
        Ok((mongo, manifest, dataset))
    };
    let (mongo, manifest, dataset) = awaited.from(&*mongo_place, recorded).await.map_err(one)?;
    let elsewhere = storage.cassandra.as_ref().and_then(|cassandra| manifest.elsewhere(&cassandra.keyspace));
    if let Some(words) = elsewhere.filter(|_| dataset.content.has_messages()) {
        return Err(one(format!("messages were seeded into another keyspace ({words}): name that one")));
    }
    let findings = || Findings::new(&manifest, Commands(storage));
    let documents = async {
        let mut check = Check { mongo: &mongo, dataset: &dataset, depth, run, findings: findings() };
        let ended = check.documents().await;
        check.findings.ended_by(ended)
    };
    let messages = async {
        let mut findings = findings();
        let Some(plan) = &storage.cassandra else {
            if dataset.content.has_messages() {
                findings.say("cassandra", "not checked: no --cassandra-hosts".to_owned());
            }
            return findings;
        };
        let place = format!("Cassandra at {}", plan.hosts.join(","));
        let ended = awaited.from(place, messages(plan, &dataset, depth, &mut findings)).await;
        findings.ended_by(ended)
    };
    // What one cannot be asked hides nothing of what is wrong with the other.
    let (documents, messages) = tokio::join!(awaited.from(&*mongo_place, documents), messages);
    let all = documents.and(messages);
    if all.wrong.is_empty() { Ok(Verified { found: all.found }) } else { Err(all.wrong) }
}

/// The record of a whole seeding that serves this spec.
async fn recorded(mongo: &Mongo, spec: &Spec, commands: Commands<'_>) -> Result<(Manifest, Dataset), String> {
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
             was seeded with, or {}",
            spec.workload,
            spec.site,
            commands.seed(spec, "")
        ));
    };
    let manifest = Manifest::read(record)?;
    let mut lacks = spec.lacks(&manifest.spec);
    if let Content::Parents { .. } = manifest.spec.content()? {
        lacks.extend(manifest.outdated());
    }
    if !lacks.is_empty() {
        let remedy = match manifest.in_the_way(spec).is_empty() && manifest.outdated().is_none() {
            true => commands.seed(spec, ""),
            false => format!("{}, then {}", commands.teardown(&manifest), commands.seed(spec, "")),
        };
        return Err(format!(
            "MongoDB at {place} is seeded with {}: {}; run with what it was seeded with, or {remedy}",
            manifest.spec.flags(),
            lacks.join("; ")
        ));
    }
    let left = unfinished(&manifest, &progress(mongo, &manifest).await?);
    if !left.is_empty() {
        return Err(format!("the seeding of MongoDB at {place} is not whole: {}", goes_on(&manifest, &left, commands)));
    }
    let dataset = manifest.dataset()?;
    Ok((manifest, dataset))
}

/// What goes on with the parts of a seeding that are not whole: a command for each.
fn goes_on(manifest: &Manifest, left: &[Shard], commands: Commands<'_>) -> String {
    let command = |shard: &Shard| {
        let more = if manifest.shards == 1 { String::new() } else { format!(" --shard {shard}") };
        commands.again(manifest, &more)
    };
    let all: Vec<String> = left.iter().map(command).collect();
    format!("{} {}", all.join(" and "), if all.len() == 1 { "goes on" } else { "go on" })
}

/// What was found, and what mends what is wrong.
pub(super) struct Findings {
    /// Makes what is missing of the schema, too.
    pub schema: String,
    /// Writes everything again.
    mend: String,
    /// Removes what there is too much of, first.
    anew: String,
    found: Vec<(String, String)>,
    wrong: Vec<String>,
}

/// As many wrong documents or rows of a kind are named.
pub(super) const MOST_WRONG: usize = 10;

impl Findings {
    fn new(manifest: &Manifest, commands: Commands<'_>) -> Self {
        // What was seeded may serve more than this run: that is what is mended.
        let seed = commands.again(manifest, "");
        Self {
            schema: commands.again(manifest, " --create-schema"),
            mend: format!("{seed} writes it again"),
            anew: format!("{}, then {seed}", commands.teardown(manifest)),
            found: Vec::new(),
            wrong: Vec::new(),
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.found.extend(other.found);
        self.wrong.extend(other.wrong);
        self
    }

    /// What was found until it ended, and why it did not go on.
    fn ended_by(mut self, ended: Result<(), String>) -> Self {
        self.wrong.extend(ended.err());
        self
    }

    /// Something is as it should be.
    pub fn say(&mut self, what: &str, words: String) {
        self.found.push((what.to_owned(), words));
    }

    /// Something is not, and is written again.
    pub fn wrong(&mut self, words: String) {
        self.wrong.push(format!("{words}: {}", self.mend));
    }

    /// Something is there that seeding again does not take away.
    pub fn too_much(&mut self, words: String) {
        self.wrong.push(format!("{words}: {}", self.anew));
    }

    /// Some of a kind are not as they should be; the first ones are named.
    pub fn some_wrong(&mut self, of: &str, words: Vec<String>) {
        let more = words.len().saturating_sub(MOST_WRONG);
        words.into_iter().take(MOST_WRONG).for_each(|words| self.wrong(format!("{of}{words}")));
        if more > 0 {
            self.wrong(format!("{of}{more} more that were compared are not as they were seeded"));
        }
    }
}

pub(super) struct Check<'a> {
    pub mongo: &'a Mongo,
    pub dataset: &'a Dataset,
    pub depth: Depth,
    run: Duration,
    pub findings: Findings,
}

/// Fields of a subscription that services do not change.
const SUBSCRIPTION_FIELDS: [&str; 6] = ["u", "roomId", "siteId", "roles", "name", "roomType"];
const ROOM_FIELDS: [&str; 6] = ["name", "type", "siteId", "userCount", "uids", "encKey"];
const USER_FIELDS: [&str; 4] = ["account", "siteId", "engName", "chineseName"];
const THREAD_FIELDS: [&str; 3] = ["parentMessageId", "roomId", "siteId"];

impl Check<'_> {
    async fn documents(&mut self) -> Result<(), String> {
        for index in self.mongo.missing(indexes(self.dataset.content)).await? {
            self.findings.wrong.push(format!(
                "MongoDB has no unique index ({}) on {}: start {}, or {}",
                index.keys.join(", "),
                index.collection,
                index.service,
                self.findings.schema
            ));
        }
        // What is counted by an index that is not there takes longer than a run's own check may, and what was found were lost.
        if self.depth == Depth::Quick && !self.findings.wrong.is_empty() {
            return Ok(());
        }
        self.people().await?;
        let members = self.of_rooms("roomId");
        if let Content::History { .. } = self.dataset.content {
            match self.depth {
                Depth::Quick => self.threads_of_some().await?,
                Depth::Full => {
                    let totals = self.dataset.totals();
                    self.count("thread_rooms", "", members.clone(), totals.thread_rooms).await?;
                    self.count("thread_subscriptions", "", members, totals.thread_subscriptions).await?;
                }
            }
        }
        let dataset = self.dataset;
        let (users, rooms) = (spread(dataset.users() as usize, SAMPLE), dataset.sample(SAMPLE));
        let users = users.into_iter().map(|at| documents::user(dataset, at as u32)).collect();
        // The first owns the room, the last is whoever else.
        let picked = rooms.iter().flat_map(|room| spread(room.members.len(), 2).into_iter().map(move |at| (room, at)));
        let subscriptions = picked.map(|(room, at)| documents::subscription(dataset, room, at)).collect();
        let room_documents = rooms.iter().map(|room| documents::room(dataset, room)).collect();
        let threads = rooms.iter().take(MESSAGE_SAMPLE).filter_map(|room| {
            let parent = dataset.messages(room).find(|message| message.thread.is_some())?;
            Some((
                documents::thread_room(dataset, room, &parent)?,
                documents::thread_subscriptions(dataset, room, &parent),
            ))
        });
        let (thread_rooms, followers): (Vec<Document>, Vec<Vec<Document>>) = threads.unzip();
        self.compare("users", users, &USER_FIELDS, none).await?;
        let shown = move |wanted: &Document, there: &Document| shown(dataset.content, wanted, there);
        let found = self.compare("rooms", room_documents, &ROOM_FIELDS, shown).await?;
        let looked = move |wanted: &Document, there: &Document| {
            looked(dataset.content, wanted, there).or_else(|| sees(wanted, there))
        };
        self.compare("subscriptions", subscriptions, &SUBSCRIPTION_FIELDS, looked).await?;
        if dataset.content.lies_ahead() {
            match ahead(&found, now_ms(), self.run) {
                Ok(Some(words)) => self.findings.say("mongodb lastMsgAt", words),
                Ok(None) => {}
                Err(Behind::Mended(words)) => self.findings.wrong(words),
                Err(Behind::RunTooLong(words)) => self.findings.wrong.push(words),
            }
        }
        self.compare("thread_rooms", thread_rooms, &THREAD_FIELDS, none).await?;
        let fields = ["parentMessageId", "threadRoomId", "userAccount"];
        self.compare("thread_subscriptions", followers.concat(), &fields, none).await.map(drop)
    }

    /// Compares these fields, and whatever else is asked of a document beside the one that it is to be. The documents that are
    /// there.
    async fn compare(
        &mut self,
        collection: &str,
        wanted: Vec<Document>,
        fields: &[&str],
        also: impl Fn(&Document, &Document) -> Option<String>,
    ) -> Result<Vec<Document>, String> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Bson> = wanted.iter().filter_map(|document| document.get("_id").cloned()).collect();
        let there = self.mongo.find(collection, doc! { "_id": { "$in": ids } }, wanted.len() as i64).await?;
        let found: HashMap<&str, &Document> =
            there.iter().filter_map(|document| Some((document.get_str("_id").ok()?, document))).collect();
        let differs = wanted.iter().filter_map(|document| {
            let there = document.get_str("_id").ok().and_then(|id| found.get(id).copied());
            difference(document, there, fields).or_else(|| also(document, there?))
        });
        let differs = differs.collect();
        self.findings.some_wrong(&format!("MongoDB: {collection}: "), differs);
        Ok(there)
    }
}

/// Nothing else is asked of a document.
fn none(_: &Document, _: &Document) -> Option<String> {
    None
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
}
