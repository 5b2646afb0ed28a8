//! Removes what was seeded, and what runs have added to the same rooms: by site and by the pattern of ids, never a document
//! of anybody else; with `--drop` everything in the collections and tables that seeding writes to. The record goes last, so
//! an interrupted removal goes on with the same command.

use std::io::{IsTerminal as _, Write as _};

use mongodb::bson::{DateTime, Document, doc};
use tokio::sync::oneshot;

use super::cassandra::Cassandra;
use super::claim::new_claim;
use super::dataset::Dataset;
use super::manifest::{COLLECTION, Manifest};
use super::mongo::Mongo;
use super::ownership::{any_of, made_by_runs, rooms, user_range};
use super::progress::grouped;
use super::remedy::Commands;
use super::remove::Messages;
use super::schema::TABLES;
use super::spec::Spec;
use crate::exit::Failure;
use crate::settings::seeding::TeardownPlan;

/// Collections that seeding or runs write to.
const COLLECTIONS: [&str; 6] =
    ["users", "rooms", "subscriptions", "thread_rooms", "thread_subscriptions", "room_members"];
/// Records of seedings, at most.
const MOST: i64 = 1_000_000;

/// The record of a seeding that is gone from MongoDB, and of whose rooms Cassandra may have messages of runs.
const REMOVED: &str = "removed";

/// The way to what runs have sent to the rooms of seedings that are gone.
struct Kept {
    /// Under which name it is kept.
    id: String,
    manifest: Manifest,
    dataset: Dataset,
}

impl Kept {
    /// Those among the records that are of these rooms.
    fn of(removed: &[Document], name: &str) -> Result<Vec<Self>, String> {
        let begins = format!("{name}{KEPT}");
        let of_rooms = removed.iter().filter_map(|record| Some((record.get_str("_id").ok()?, record)));
        let of_rooms = of_rooms.filter(|(id, _)| id.starts_with(&begins));
        let kept = of_rooms.map(|(id, record)| {
            let (manifest, dataset) = read(record)
                .map_err(|words| format!("{words}; it is the way to messages in Cassandra, and nothing was removed"))?;
            Ok(Self { id: id.to_owned(), manifest, dataset })
        });
        kept.collect()
    }

    /// How this seeding is kept beside those: one that had the same rooms tells where to look for the messages of both.
    fn record(manifest: &Manifest, kept: &[Self]) -> Document {
        let mut record = manifest.document();
        let id = kept_id(manifest);
        let first = kept.iter().filter(|kept| kept.id == id).map(|kept| kept.manifest.anchor_ms);
        let anchor_ms = first.fold(manifest.anchor_ms, i64::min);
        record.insert("_id", id);
        record.insert("kind", REMOVED);
        record.insert("anchor", DateTime::from_millis(anchor_ms));
        record
    }
}

/// Between the name of rooms and what they were seeded with; older releases ended here.
const KEPT: &str = "!messages";

/// Of the same rooms and buckets one is kept.
fn kept_id(manifest: &Manifest) -> String {
    let Spec { workload, preset, seed, users, bucket_hours, .. } = &manifest.spec;
    format!("{}{KEPT}:{workload}/{preset}/{seed}/{users}/{bucket_hours}", manifest.id())
}

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
        agreed().await.map_err(Failure::Usage)?;
    }
    teardown.remove().await.map_err(Failure::Incomplete)?;
    Ok(teardown.ending())
}

/// Asks whoever sits at the terminal. Nobody waits for the thread that reads: Ctrl-C is an answer too.
async fn agreed() -> Result<(), String> {
    if !std::io::stdin().is_terminal() {
        return Err("nobody can be asked whether to remove this: pass --yes; nothing was removed".to_owned());
    }
    eprint!("Remove this? [y/N] ");
    let _ = std::io::stderr().flush();
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        let _ = tell.send(read.map(|_| answer));
    });
    let answer = told.await.ok().and_then(Result::ok).unwrap_or_default();
    if !answer.ends_with('\n') {
        eprintln!();
    }
    let yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if yes { Ok(()) } else { Err("nothing was removed".to_owned()) }
}

struct Teardown {
    mongo: Mongo,
    cassandra: Option<Cassandra>,
    /// What was seeded; none with `--drop` where nothing is recorded.
    seeded: Option<(Manifest, Dataset)>,
    /// Of the same rooms, from seedings before it.
    kept: Vec<Kept>,
    /// Rooms that runs have made, by their ids.
    of_runs: Vec<String>,
    parts: Vec<Part>,
    /// Messages of other sites that were left.
    others: u64,
    /// Of a bucket of messages, as the services write them.
    bucket_hours: u32,
    drop: bool,
    /// The same command, for people.
    again: String,
}

impl Teardown {
    async fn ready(plan: &TeardownPlan) -> Result<Option<Self>, String> {
        let mongo = Mongo::open(&plan.storage.mongo).await?;
        let records = mongo.find(COLLECTION, doc! { "kind": { "$ne": "shard" } }, MOST).await?;
        let (removed, records): (Vec<Document>, Vec<Document>) =
            records.into_iter().partition(|record| record.get_str("kind").is_ok_and(|kind| kind == REMOVED));
        let name = format!("{}/{}", plan.site, plan.room_ids.name());
        let mut seedings = if plan.drop { Vec::new() } else { of_site(&records, &plan.site)? };
        let kept = if plan.drop { Vec::new() } else { Kept::of(&removed, &name)? };
        let position = seedings.iter().position(|(manifest, _)| manifest.id() == name);
        let seeded = match (position, kept.first()) {
            (Some(at), _) => Some(seedings.swap_remove(at)),
            // What MongoDB had of it is gone; messages of runs may be left.
            (None, Some(kept)) if plan.storage.cassandra.is_some() => {
                Some((kept.manifest.clone(), kept.dataset.clone()))
            }
            (None, _) if plan.drop => None,
            (None, _) => return Ok(None),
        };
        let kept_users = seeded.as_ref().map_or(0, |(manifest, _)| kept_users(&seedings, manifest));
        let again = seeded.as_ref().map(|(manifest, _)| Commands(&plan.storage).teardown(manifest)).unwrap_or_default();
        // Of one that cannot be read nobody knows.
        let has_messages = match &seeded {
            None => records.iter().any(|record| read(record).map_or(true, |(manifest, _)| manifest.has_messages())),
            Some((manifest, _)) => manifest.has_messages(),
        };
        let elsewhere = seeded.as_ref().zip(plan.storage.cassandra.as_ref());
        if let Some(words) = elsewhere.and_then(|((manifest, _), cassandra)| manifest.elsewhere(&cassandra.keyspace)) {
            return Err(format!(
                "messages were seeded into another keyspace ({words}): name that one; nothing was removed"
            ));
        }
        if let (true, Some(cassandra)) = (plan.drop, &plan.storage.cassandra) {
            refuse_to_empty(&records, &cassandra.keyspace, Commands(&plan.storage))?;
        }
        let cassandra = match &plan.storage.cassandra {
            Some(cassandra) => {
                // Whose tables are gone has another keyspace in mind, or lost its messages with them.
                Some(Cassandra::open(cassandra, "correct --cassandra-keyspace").await?)
            }
            None if has_messages => {
                return Err(
                    "messages were seeded too: pass the --cassandra-hosts that they are in; nothing was removed".into(),
                );
            }
            None => None,
        };
        let of_runs = match &seeded {
            Some((_, dataset)) => made_by_runs(&mongo, dataset).await?,
            None => Vec::new(),
        };
        let bucket_hours = plan.storage.bucket_hours;
        let (parts, others, drop) = (Vec::new(), 0, plan.drop);
        let mut teardown = Self { mongo, cassandra, seeded, kept, of_runs, parts, others, bucket_hours, drop, again };
        teardown.parts = teardown.look(kept_users).await?;
        Ok(Some(teardown))
    }

    /// What there is to remove.
    async fn look(&self, kept_users: u32) -> Result<Vec<Part>, String> {
        let filters = match &self.seeded {
            None => COLLECTIONS.map(|collection| (collection, doc! {})).to_vec(),
            Some((_, dataset)) => filters(dataset, &self.of_runs, kept_users),
        };
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
        let (place, database) = (self.mongo.place(), self.mongo.database());
        let mut words = format!("teardown removes {what}\n  from the database {database} of MongoDB at {place}:\n");
        for collection in COLLECTIONS {
            let count: u64 =
                self.parts.iter().filter(|part| part.collection == collection).map(|part| part.count).sum();
            if count > 0 {
                words.push_str(&format!("    {collection:<22} {:>12}\n", grouped(count)));
            }
        }
        match (&self.cassandra, &self.seeded) {
            (Some(cassandra), Some((manifest, dataset))) => {
                words.push_str(&format!(
                    "  from the keyspace {} of Cassandra at {}:\n    all messages of {} rooms\n",
                    cassandra.keyspace(),
                    cassandra.place(),
                    grouped(u64::from(dataset.rooms()))
                ));
                for Kept { manifest, dataset, .. } in self.before(manifest) {
                    words.push_str(&format!(
                        "    those of {} rooms of a seeding before it, with {}\n",
                        grouped(u64::from(dataset.rooms())),
                        manifest.spec.flags()
                    ));
                }
            }
            (Some(cassandra), None) => {
                let tables = TABLES.map(|table| table.name).join(", ");
                let (keyspace, place) = (cassandra.keyspace(), cassandra.place());
                words.push_str(&format!("  from the keyspace {keyspace} of Cassandra at {place}:\n    everything in {tables}\n"));
            }
            (None, Some(_)) => words.push_str(&format!(
                "  not from Cassandra: messages that runs have sent to these rooms stay there, and a record of it, so that {} \
                 with --cassandra-hosts that the chat writes to removes them, now or later\n",
                self.again
            )),
            (None, None) => {
                words.push_str("  not from Cassandra: messages stay there; with --cassandra-hosts they go too\n");
            }
        }
        words
    }

    /// Those whose messages are not among those of this seeding.
    fn before(&self, seeded: &Manifest) -> impl Iterator<Item = &Kept> {
        self.kept.iter().filter(move |kept| kept.manifest != *seeded)
    }

    async fn remove(&mut self) -> Result<(), String> {
        // From here on nobody takes it for whole, and who is seeding it finds that it is no longer theirs.
        if let Some((manifest, _)) = &self.seeded
            && self.mongo.count(COLLECTION, doc! { "_id": manifest.id() }).await? > 0
        {
            self.mongo.put(COLLECTION, &manifest.clone().claimed_by(new_claim()).document()).await?;
        }
        let records = match &self.seeded {
            Some((manifest, _)) => doc! { "kind": "shard", "of": manifest.id() },
            None => doc! { "kind": "shard" },
        };
        self.mongo.delete(COLLECTION, records).await?;
        match (&self.cassandra, &self.seeded) {
            (Some(cassandra), Some((manifest, dataset))) => {
                let messages = Messages::new(cassandra, &self.mongo, dataset, self.bucket_hours).await?;
                let mut others = messages.remove_all(&self.of_runs).await?;
                for Kept { dataset, .. } in self.before(manifest) {
                    let messages = Messages::new(cassandra, &self.mongo, dataset, self.bucket_hours).await?;
                    // Of rooms that both had, the same.
                    others = messages.remove_all(&[]).await?.max(others);
                }
                self.others = others;
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
        let record = match (&self.seeded, &self.cassandra) {
            (Some((manifest, _)), Some(_)) => {
                let kept = self.kept.iter().map(|kept| kept.id.clone());
                doc! { "_id": { "$in": kept.chain([manifest.id()]).collect::<Vec<_>>() } }
            }
            (Some((manifest, _)), None) => {
                self.mongo.put(COLLECTION, &Kept::record(manifest, &self.kept)).await?;
                doc! { "_id": manifest.id() }
            }
            (None, Some(_)) => doc! {},
            // Messages stay, and what leads to them.
            (None, None) => doc! { "kind": { "$ne": REMOVED } },
        };
        self.mongo.delete(COLLECTION, record).await.map(drop)
    }

    fn ending(&self) -> String {
        let documents: u64 = self.parts.iter().map(|part| part.count).sum();
        let messages = if self.cassandra.is_none() { "" } else { " and all messages of their rooms" };
        let messages = if self.drop && self.cassandra.is_some() { " and all messages" } else { messages };
        let keyspace = self.cassandra.as_ref().map(|cassandra| format!(", keyspace {}", cassandra.keyspace()));
        let mut words = format!(
            "removed {} documents{messages} (database {}{})\n",
            grouped(documents),
            self.mongo.database(),
            keyspace.unwrap_or_default()
        );
        if self.others > 0 {
            let others = grouped(self.others);
            words.push_str(&format!("left in Cassandra: {others} messages of other sites in rooms of the same ids\n"));
        }
        if self.cassandra.is_none() {
            let later = match self.again.as_str() {
                "" => String::new(),
                again => format!("; {again} with --cassandra-hosts removes them"),
            };
            words.push_str(&format!(
                "messages that runs have sent to these rooms, if any, are left in Cassandra{later}\n"
            ));
        }
        words
    }
}

/// All records go with what they are of: nobody would find messages again that are in another keyspace.
fn refuse_to_empty(records: &[Document], keyspace: &str, commands: Commands<'_>) -> Result<(), String> {
    let elsewhere = |record: &Document| {
        let manifest = Manifest::read(record).ok()?;
        manifest.elsewhere(keyspace)?;
        Some((manifest.keyspace.clone()?, manifest))
    };
    let Some((there, manifest)) = records.iter().find_map(elsewhere) else { return Ok(()) };
    Err(format!(
        "--drop would empty the keyspace {keyspace}, and the messages of {} are in the keyspace {there}: name that one with \
         --cassandra-keyspace {there}, or remove them first with {}; nothing was removed",
        manifest.spec.flags(),
        commands.teardown(&manifest),
    ))
}

/// What of MongoDB is ours, in the order in which it goes.
fn filters(dataset: &Dataset, of_runs: &[String], kept_users: u32) -> Vec<(&'static str, Document)> {
    let site = &dataset.spec.site;
    let mut filters: Vec<(&'static str, Document)> = Vec::new();
    for ids in rooms(dataset).into_iter().chain(any_of(of_runs)) {
        let of_room = || doc! { "siteId": site, "roomId": ids.clone() };
        filters.push(("thread_rooms", of_room()));
        filters.push(("thread_subscriptions", of_room()));
        filters.push(("room_members", doc! { "rid": ids.clone() }));
        filters.push(("rooms", doc! { "siteId": site, "_id": ids.clone() }));
        // By its owner a room of a run is known again, should this be interrupted.
        let members = doc! { "siteId": site, "roomId": ids.clone(), "roles": { "$ne": "owner" } };
        filters.push(("subscriptions", members));
        filters.push(("subscriptions", doc! { "siteId": site, "roomId": ids.clone(), "roles": "owner" }));
    }
    if kept_users < dataset.users() {
        filters.push(("users", doc! { "siteId": site, "_id": user_range(kept_users..dataset.users()) }));
    }
    filters
}

/// What a record says, if this release can read it.
fn read(record: &Document) -> Result<(Manifest, Dataset), String> {
    let manifest = Manifest::read(record)?;
    let dataset = manifest.dataset()?;
    Ok((manifest, dataset))
}

/// All records of a site: what they say decides which users stay.
fn of_site(records: &[Document], site: &str) -> Result<Vec<(Manifest, Dataset)>, String> {
    let begins = format!("{site}/");
    let is_of_site = |record: &&Document| {
        record.get_str("_id").is_ok_and(|id| id.starts_with(&begins))
            || record.get_str("site").is_ok_and(|of| of == site)
    };
    let unreadable =
        |words| format!("{words}; until then nothing of the site {site} is removed: users of that seeding might be");
    records.iter().filter(is_of_site).map(|record| read(record).map_err(unreadable)).collect()
}

/// The first so many users are of other seedings of the same site too.
fn kept_users(seedings: &[(Manifest, Dataset)], removed: &Manifest) -> u32 {
    let others = seedings.iter().filter(|(other, _)| other.id() != removed.id());
    others.map(|(_, dataset)| dataset.users()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::fixture::{ANCHOR_MS, dataset, storage};

    fn record(workload: &'static str, preset: &str) -> Document {
        Manifest::new(dataset(workload, preset).spec, ANCHOR_MS, 1).document()
    }

    #[test]
    fn what_is_emptied_is_where_the_records_say_that_messages_are() {
        let of = |workload, preset, keyspace| {
            Manifest::new(dataset(workload, preset).spec, ANCHOR_MS, 1).with_messages_in(Some(keyspace)).document()
        };
        let mut records = vec![of("messages", "small", "none"), of("history", "history-small", "one")];
        assert_eq!(refuse_to_empty(&records, "one", Commands(&storage("mongodb://db"))), Ok(()));
        let error = refuse_to_empty(&records, "two", Commands(&storage("mongodb://db"))).unwrap_err();
        assert!(
            error.contains("--drop would empty the keyspace two") && error.contains("--cassandra-keyspace one"),
            "{error}"
        );
        records.push(of("thread", "small", "two"));
        for keyspace in ["one", "two"] {
            assert!(refuse_to_empty(&records, keyspace, Commands(&storage("mongodb://db"))).is_err(), "{keyspace}");
        }
    }

    #[test]
    fn what_is_kept_leads_to_the_messages_of_every_seeding_that_is_gone() {
        let removed = |preset: &str, days: i64, kept: &[Kept]| {
            let spec = dataset("messages", preset).spec;
            Kept::record(&Manifest::new(spec, ANCHOR_MS + days * 86_400_000, 1), kept)
        };
        let name = "site-local/room";
        // As an older release has kept it, two of ours, and one of other rooms.
        let mut older = removed("large", 1, &[]);
        older.insert("_id", "site-local/room!messages");
        let mut records = vec![older, removed("small", 2, &[]), removed("medium", 3, &[])];
        records.push(Kept::record(&Manifest::new(dataset("members", "members-small").spec, ANCHOR_MS, 1), &[]));
        let kept = Kept::of(&records, name).unwrap();
        let presets: Vec<&str> = kept.iter().map(|kept| kept.manifest.spec.preset.as_str()).collect();
        assert_eq!(presets, ["large", "small", "medium"]);
        // Of the same rooms the first is not forgotten, whichever came later.
        for days in [0, 9] {
            let again = removed("small", days, &kept);
            assert_eq!(again.get_str("_id").unwrap(), kept[1].id);
            let anchor = Manifest::read(&again).unwrap().anchor_ms;
            assert_eq!(anchor, ANCHOR_MS + days.min(2) * 86_400_000);
        }
        records[1].insert("format", 99);
        let error = Kept::of(&records, name).err().unwrap();
        assert!(error.contains("newer release (format 99") && error.contains("nothing was removed"), "{error}");
    }

    #[test]
    fn users_stay_that_another_seeding_needs_and_who_cannot_be_asked_forbids_all() {
        let mut records = vec![record("messages", "large"), record("members", "members-small")];
        let seedings = of_site(&records, "site-local").unwrap();
        assert_eq!(kept_users(&seedings, &seedings[0].0), 200);
        assert_eq!(kept_users(&seedings, &seedings[1].0), 10_000);
        for (key, value) in [("format", 99.into()), ("preset", "members-none".into()), ("workload", "none".into())] {
            let kept = records[1].insert(key, mongodb::bson::Bson::clone(&value)).unwrap();
            let error = of_site(&records, "site-local").unwrap_err();
            assert!(error.contains("until then nothing of the site site-local is removed"), "{error}");
            assert!(of_site(&records, "elsewhere").unwrap().is_empty());
            records[1].insert(key, kept);
        }
    }
}
