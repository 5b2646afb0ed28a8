//! Compares what the databases hold with what a run needs: the record of the seeding, counts of every collection and table,
//! and a sample of each, field by field. It reads only; what services change while a run lasts is not compared.

use std::collections::HashMap;

use mongodb::bson::{Bson, Document, doc};
use plimsoll_common::plan::redact_url;

use super::claim::progress;
use super::dataset::{Dataset, spread};
use super::documents;
use super::manifest::{COLLECTION, Manifest, id, unfinished};
use super::mongo::Mongo;
use super::ours::{rooms, user_range};
use super::plan::Shard;
use super::progress::grouped;
use super::reader::messages;
use super::schema::indexes;
use super::spec::{Content, Spec};
use crate::awaited::Awaited;
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
pub(super) const MESSAGE_SAMPLE: usize = 4;

/// What was found, one line each, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What is as it should be.
    pub found: Vec<(String, String)>,
}

/// Compares. `awaited` is told which database is being waited for.
///
/// # Errors
/// What is not as it should be or could not be read: one line each, with the command that mends it.
pub(crate) async fn verify(
    spec: &Spec,
    storage: &StoragePlan,
    depth: Depth,
    awaited: &Awaited,
) -> Result<Verified, Vec<String>> {
    let one = |words: String| vec![words];
    let mongo_place = format!("MongoDB at {}", redact_url(&storage.mongo.uri));
    let recorded = async {
        let mongo = Mongo::open(&storage.mongo).await?;
        let (manifest, dataset) = recorded(&mongo, spec).await?;
        Ok((mongo, manifest, dataset))
    };
    let (mongo, manifest, dataset) = awaited.from(&*mongo_place, recorded).await.map_err(one)?;
    let findings = || Findings::new(&manifest);
    let documents = async {
        let mut check = Check { mongo: &mongo, dataset: &dataset, findings: findings() };
        check.documents().await.map(|()| check.findings)
    };
    let messages = async {
        let mut findings = findings();
        let Some(plan) = &storage.cassandra else {
            if dataset.content.has_messages() {
                findings.say("cassandra", "not checked: no --cassandra-hosts".to_owned());
            }
            return Ok(findings);
        };
        let place = format!("Cassandra at {}", plan.hosts.join(","));
        awaited.from(place, messages(plan, &dataset, depth, &mut findings)).await.map(|()| findings)
    };
    let (documents, messages) = tokio::try_join!(awaited.from(&*mongo_place, documents), messages).map_err(one)?;
    let all = documents.and(messages);
    if all.wrong.is_empty() { Ok(Verified { found: all.found }) } else { Err(all.wrong) }
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
    let mut lacks = spec.lacks(&manifest.spec);
    if let Content::Parents { .. } = manifest.spec.content()? {
        lacks.extend(manifest.outdated());
    }
    if !lacks.is_empty() {
        let remedy = match manifest.in_the_way(spec).is_empty() && manifest.outdated().is_none() {
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

/// What was found, and what mends what is wrong.
pub(super) struct Findings {
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
    fn new(manifest: &Manifest) -> Self {
        let Spec { workload, site, .. } = &manifest.spec;
        // What was seeded may serve more than this run: that is what is mended.
        let seed = format!("`plimsoll seed {}`", manifest.spec.flags());
        Self {
            mend: format!("{seed} writes it again"),
            anew: format!("`plimsoll teardown --workload {workload} --site-id {site}`, then {seed}"),
            found: Vec::new(),
            wrong: Vec::new(),
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.found.extend(other.found);
        self.wrong.extend(other.wrong);
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

struct Check<'a> {
    mongo: &'a Mongo,
    dataset: &'a Dataset,
    findings: Findings,
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
            let ranges = rooms(self.dataset).into_iter();
            ranges.map(|range| doc! { field: range, "siteId": &site }).collect()
        };
        let (rooms, members) = (of_rooms("_id"), of_rooms("roomId"));
        self.count("rooms", rooms, totals.rooms).await?;
        self.count("subscriptions", members.clone(), totals.subscriptions).await?;
        if let Content::History { .. } = self.dataset.content {
            self.count("thread_rooms", members.clone(), totals.thread_rooms).await?;
            self.count("thread_subscriptions", members, totals.thread_subscriptions).await?;
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
            self.findings.say(&format!("mongodb {collection}"), format!("{} for {site}", grouped(found)));
        } else {
            let words = format!(
                "MongoDB has {} documents of {} in {collection} for the site {site}, and has to have {}",
                grouped(found),
                self.dataset.spec.preset,
                grouped(wanted)
            );
            match found > wanted && collection == "rooms" {
                true => self.findings.too_much(words),
                false => self.findings.wrong(words),
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
        let found: HashMap<&str, &Document> =
            found.iter().filter_map(|document| Some((document.get_str("_id").ok()?, document))).collect();
        let differs = wanted.iter().filter_map(|document| {
            let there = document.get_str("_id").ok().and_then(|id| found.get(id).copied());
            difference(document, there, fields)
        });
        self.findings.some_wrong(&format!("MongoDB: {collection}: "), differs.collect());
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
