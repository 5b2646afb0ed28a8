//! Before the first row: looks at what is there, makes what is missing of the schema where that was asked for, and records
//! what is about to be written. What is refused was refused before anything was written; what fails later may go on.

use std::time::{SystemTime, UNIX_EPOCH};

use mongodb::bson::{DateTime, Document, doc};
use plimsoll_common::contract::fixtures::account;

use super::cassandra::{Cassandra, Missing};
use super::dataset::{Dataset, spread};
use super::manifest::{COLLECTION, Manifest, ShardProgress, id, unfinished};
use super::mongo::Mongo;
use super::ownership::{is_others, rooms, user_range};
use super::plan::Shard;
use super::remedy::Commands;
use super::rows::bucket;
use super::schema::{UniqueIndex, indexes};
use super::spec::{Content, Spec};
use crate::exit::Failure;
use crate::settings::seeding::SeedPlan;

/// Rooms that are looked into for messages of another site, and messages of each.
const ROOMS: usize = 32;
const MESSAGES: usize = 3;
/// Buckets of each, the newest: of 72 hours a year.
const BUCKETS: i64 = 128;
/// Partitions of one statement: ScyllaDB takes a hundred at most.
const PARTITIONS: usize = 64;
/// Users of the chat whose accounts look like ours, at most.
const MOST_ACCOUNTS: i64 = 10_000;

/// How often a record is looked at that others change meanwhile: once it is that of a seeding in so many parts, none of them
/// does.
const LOOKS: u32 = 4;

/// How long ago an interrupted seeding whose times lie ahead may have begun to be gone on with.
const FRESH_MS: i64 = 3_600_000;

/// What was found that a seeding can be written to.
pub(super) struct Ground {
    lacking: Vec<UniqueIndex>,
    lacks_tables: bool,
    /// What is in the place of our rooms already.
    recorded: Option<Manifest>,
}

impl Ground {
    /// Looks, and writes nothing.
    ///
    /// # Errors
    /// What is in the way, or missing and not to be made; one line, with what to do.
    pub async fn look(mongo: &Mongo, cassandra: Option<&Cassandra>, plan: &SeedPlan) -> Result<Self, String> {
        let missing = if plan.create_schema { Missing::Make } else { Missing::Refuse("pass --create-schema") };
        let now = now_ms();
        if let Some(anchor) = plan.anchor_ms.filter(|anchor| *anchor > now) {
            return Err(format!("--anchor: {} lies ahead: nobody has written anything then", rfc3339(anchor)));
        }
        let dataset = Dataset::build(plan.spec.clone(), plan.anchor_ms.unwrap_or(now))?;
        let lacking = mongo.missing(indexes(dataset.content)).await?;
        if let (Some(index), Missing::Refuse(_)) = (lacking.first(), missing) {
            return Err(format!(
                "MongoDB at {} has no unique index ({}) on {}, which {} makes when it starts: start it once, or pass \
                 --create-schema",
                mongo.place(),
                index.keys.join(", "),
                index.collection,
                index.service
            ));
        }
        let lacks_tables = match cassandra {
            Some(cassandra) => cassandra.lacks_tables(missing).await?,
            None => false,
        };
        refuse_other_sites(mongo, &dataset, Commands(&plan.storage)).await?;
        refuse_others_accounts(mongo, &dataset).await?;
        if let (Some(cassandra), false) = (cassandra, lacks_tables) {
            refuse_other_messages(cassandra, &dataset).await?;
        }
        let there = recorded(mongo, &plan.spec).await?;
        if let Some(there) = &there {
            let progress = progress(mongo, there).await?;
            fits(mongo, there, plan, &progress)?;
        }
        Ok(Self { lacking, lacks_tables, recorded: there })
    }

    /// Makes what is missing. Whether anything was.
    ///
    /// # Errors
    /// It cannot be made, or not all of it.
    pub async fn prepare(&self, mongo: &Mongo, cassandra: Option<&Cassandra>) -> Result<bool, Failure> {
        let mut made = false;
        if let (Some(cassandra), true) = (cassandra, self.lacks_tables) {
            // Where there was no table there is no message: whatever parts are said to be written are to be written again.
            if let Some(there) = self.recorded.as_ref().filter(|there| there.has_messages()) {
                forget_progress(mongo, &there.id()).await.map_err(|words| ended(false, words))?;
                made = true;
            }
            match cassandra.make().await {
                Err(Failure::Usage(words)) => return Err(ended(made, words)),
                other => other?,
            }
            made = true;
        }
        for index in &self.lacking {
            mongo.make(index).await.map_err(|words| ended(made, words))?;
            made = true;
        }
        Ok(made)
    }
}

/// How a seeding ends that could not go on, by whether it has written anything.
pub(super) fn ended(written: bool, words: String) -> Failure {
    if written { Failure::Incomplete(words) } else { Failure::Usage(words) }
}

/// Ids do not hold the site: two sites with the same rooms cannot be in one database.
async fn refuse_other_sites(mongo: &Mongo, dataset: &Dataset, commands: Commands<'_>) -> Result<(), String> {
    let Spec { site, .. } = &dataset.spec;
    let rooms = rooms(dataset).into_iter().map(|ids| ("rooms", ids));
    for (collection, ids) in rooms.chain([("users", user_range(0..dataset.users()))]) {
        let found = mongo.find(collection, doc! { "_id": ids, "siteId": { "$ne": site } }, 1).await?;
        if let Some(document) = found.first() {
            let of = document.get_str("siteId").unwrap_or("none");
            let records = mongo.find(COLLECTION, doc! { "kind": "seed", "site": of }, 100).await?;
            let manifests: Vec<Manifest> = records.iter().filter_map(|record| Manifest::read(record).ok()).collect();
            // Users are those of all its seedings, rooms of one.
            let theirs = manifests
                .iter()
                .filter(|there| collection == "users" || there.spec.room_ids() == dataset.spec.room_ids());
            let teardowns: Vec<String> = theirs.map(|there| commands.teardown(there)).collect();
            let remove = match teardowns.as_slice() {
                [] => String::new(),
                all => format!("name that site with --site-id, remove it with {}, or ", all.join(" and ")),
            };
            return Err(format!(
                "MongoDB at {} has {} in {collection} for the site {of}, not {site}: {remove}take another --mongo-db and \
                 --cassandra-keyspace",
                mongo.place(),
                document.get_str("_id").unwrap_or("a document"),
            ));
        }
    }
    Ok(())
}

/// Accounts are unique: one of ours that somebody else has would be met in the middle of the writing.
async fn refuse_others_accounts(mongo: &Mongo, dataset: &Dataset) -> Result<(), String> {
    let filter = others_with_our_accounts(dataset.users());
    let found = mongo.find("users", filter, MOST_ACCOUNTS).await?;
    let clash = |document: &&Document| document.get_str("account").is_ok_and(|of| is_account(of, dataset.users()));
    let Some(other) = found.iter().find(clash) else { return Ok(()) };
    Err(format!(
        "MongoDB at {} has the account {} in users under the id {}, which is none of ours: it is somebody's of the chat, so take \
         another --mongo-db",
        mongo.place(),
        other.get_str("account").unwrap_or("?"),
        other.get("_id").map_or("?".to_owned(), |id| id.as_str().map_or(id.to_string(), str::to_owned)),
    ))
}

/// Users whose accounts look like those of the first so many of ours, and whose ids do not.
fn others_with_our_accounts(users: u32) -> Document {
    let digits = users.saturating_sub(1).to_string().len();
    let accounts = format!("^user-[0-9]{{1,{digits}}}$");
    doc! {
        "account": { "$gte": "user-0", "$lt": "user-:", "$regex": accounts },
        "_id": { "$not": { "$regex": "^u-[0-9]{6,}$" } },
    }
}

fn is_account(text: &str, users: u32) -> bool {
    let number = text.strip_prefix("user-").and_then(|number| number.parse::<u32>().ok());
    number.is_some_and(|number| number < users && account(number) == text)
}

/// Nor do ids of messages: in a keyspace that two MongoDBs share, one site's would be written over the other's.
async fn refuse_other_messages(cassandra: &Cassandra, dataset: &Dataset) -> Result<(), String> {
    let Spec { site, workload, bucket_hours, .. } = &dataset.spec;
    let by_id = cassandra.prepare("SELECT site_id FROM KEYSPACE.messages_by_id WHERE message_id = ?").await?;
    let by_room =
        "SELECT site_id FROM KEYSPACE.messages_by_room WHERE room_id = ? AND bucket IN ? PER PARTITION LIMIT 1";
    let by_room = cassandra.prepare(by_room).await?;
    let step = i64::from(*bucket_hours) * 3_600_000;
    let newest = bucket(dataset.anchor_ms, *bucket_hours) + step;
    let buckets: Vec<i64> = (0..BUCKETS).map(|at| newest - at * step).collect();
    for room in dataset.sample(ROOMS) {
        let mut sites: Vec<(Option<String>,)> = Vec::new();
        for buckets in buckets.chunks(PARTITIONS) {
            sites.extend(cassandra.rows("reading messages_by_room", &by_room, (&room.id, buckets)).await?);
        }
        let picked = spread(dataset.times(&room).count(), MESSAGES);
        let messages = dataset.messages(&room).enumerate().filter(|(at, _)| picked.contains(at));
        for (_, message) in messages {
            sites.extend(cassandra.rows("reading messages_by_id", &by_id, (&message.id,)).await?);
        }
        if let Some(of) = sites.iter().filter_map(|(of,)| of.as_deref()).find(|of| is_others(Some(of), site)) {
            return Err(format!(
                "Cassandra at {} has messages of {} in the keyspace {} for the site {of}, not {site}: take another \
                 --cassandra-keyspace, name that site with --site-id, or tear down its {workload} first, with the --mongo-uri and \
                 --mongo-db that it is recorded in",
                cassandra.place(),
                room.id,
                cassandra.keyspace(),
            ));
        }
    }
    Ok(())
}

/// The record of what is in the place of this spec.
async fn recorded(mongo: &Mongo, spec: &Spec) -> Result<Option<Manifest>, String> {
    let found = mongo.find(COLLECTION, doc! { "_id": id(spec) }, 1).await?;
    found.first().map(Manifest::read).transpose()
}

/// Records what is about to be written, or joins what another shard or an interrupted seeding has recorded. The first of our
/// chunks that is to be written. `written`: whether this seeding has written anything yet.
///
/// # Errors
/// It cannot be; or, since somebody else was faster, must not be.
pub(super) async fn claim(
    mongo: &Mongo,
    plan: &SeedPlan,
    ground: &Ground,
    written: bool,
) -> Result<(Manifest, usize), Failure> {
    let wanted = Manifest::new(plan.spec.clone(), plan.anchor_ms.unwrap_or_else(now_ms), plan.shard.of)
        .with_messages_in(keyspace(plan))
        .claimed_by(new_claim());
    for _ in 0..LOOKS {
        match mongo.insert_new(COLLECTION, &wanted.document()).await {
            // What there is of an earlier one, whose record is gone, stays under its own claim.
            Ok(true) => return begin(mongo, wanted, plan.shard).await.map_err(Failure::Incomplete),
            Ok(false) => {}
            Err(words) => {
                // A record that was there before is not ours, and where none can be found none was written.
                let is_ours = ground.recorded.is_none() && !matches!(recorded(mongo, &plan.spec).await, Ok(None));
                return Err(ended(written || is_ours, words));
            }
        }
        let found = recorded(mongo, &plan.spec).await.map_err(|words| ended(written, words))?;
        // Gone again, as somebody tears it down, or replaced, as another part of the same seeding does: another look tells.
        let Some(found) = found else { continue };
        if let Some(claimed) = join(mongo, found, wanted.clone(), plan, written).await? {
            return Ok(claimed);
        }
    }
    let name = id(&plan.spec);
    let words = format!("the record {name} in {COLLECTION} comes and goes: is somebody removing what is being seeded?");
    Err(ended(written, words))
}

/// Where the plan would have its messages.
fn keyspace(plan: &SeedPlan) -> Option<&str> {
    plan.storage.cassandra.as_ref().map(|cassandra| &*cassandra.keyspace)
}

async fn begin(mongo: &Mongo, manifest: Manifest, shard: Shard) -> Result<(Manifest, usize), String> {
    let progress = ShardProgress { shard, chunks: 0, finished: false };
    mongo.put(COLLECTION, &progress.document(&manifest)).await?;
    Ok((manifest, 0))
}

/// Writes it once more from its beginning. `None`: somebody else has replaced the record meanwhile.
async fn anew(mongo: &Mongo, there: Manifest, shard: Shard) -> Result<Option<(Manifest, usize)>, String> {
    let manifest = there.clone().renewed(now_ms());
    if manifest.renewed_ms != there.renewed_ms && !replaced(mongo, &there, &manifest).await? {
        return Ok(None);
    }
    begin(mongo, manifest, shard).await.map(Some)
}

/// Replaces the record, if it is still the one that was found. Whether it was.
async fn replaced(mongo: &Mongo, there: &Manifest, by: &Manifest) -> Result<bool, String> {
    mongo.replace_if(COLLECTION, held(there), &by.document()).await
}

/// The record, where it is still that of this claim.
fn held(manifest: &Manifest) -> Document {
    doc! { "_id": manifest.id(), "claim": manifest.claim.clone() }
}

/// Whether what it has written is not too old to be gone on with.
fn is_fresh(there: &Manifest) -> bool {
    !there.spec.content().is_ok_and(Content::lies_ahead) || now_ms() - there.renewed_ms < FRESH_MS
}

/// From here on no part counts as written.
pub(super) async fn forget_progress(mongo: &Mongo, manifest: &str) -> Result<(), String> {
    mongo.delete(COLLECTION, doc! { "kind": "shard", "of": manifest }).await.map(drop)
}

/// Whether this can be seeded where that was.
fn fits(mongo: &Mongo, there: &Manifest, plan: &SeedPlan, progress: &[ShardProgress]) -> Result<(), String> {
    let commands = Commands(&plan.storage);
    let mut in_the_way = there.in_the_way(&plan.spec);
    if Manifest::new(plan.spec.clone(), 0, 1).has_messages() {
        in_the_way.extend(keyspace(plan).and_then(|keyspace| there.elsewhere(keyspace)));
    }
    if !in_the_way.is_empty() {
        return Err(format!(
            "MongoDB at {} is seeded with {}, whose rooms would be in the way ({}): remove them with {} first",
            mongo.place(),
            there.spec.flags(),
            in_the_way.join("; "),
            commands.teardown(there),
        ));
    }
    if let Some(anchor) = plan.anchor_ms.filter(|anchor| *anchor != there.anchor_ms) {
        return Err(format!(
            "MongoDB at {} is seeded with {}, whose times count from {} and not from {}: leave out --anchor, or remove them with {} \
             first",
            mongo.place(),
            there.spec.flags(),
            rfc3339(there.anchor_ms),
            rfc3339(anchor),
            commands.teardown(there),
        ));
    }
    let left = unfinished(there, progress);
    if there.shards != plan.shard.of && !left.is_empty() && !progress.is_empty() {
        let names: Vec<String> = left.iter().map(Shard::to_string).collect();
        return Err(format!(
            "a seeding of {} in {} parts is not whole: finish it first with --shard {}, or remove it with {}",
            there.spec.flags(),
            there.shards,
            names.join(", "),
            commands.teardown(there),
        ));
    }
    Ok(())
}

/// `None`: somebody else has replaced the record meanwhile.
async fn join(
    mongo: &Mongo,
    there: Manifest,
    wanted: Manifest,
    plan: &SeedPlan,
    written: bool,
) -> Result<Option<(Manifest, usize)>, Failure> {
    let usage = |words| ended(written, words);
    let progress = progress(mongo, &there).await.map_err(usage)?;
    fits(mongo, &there, plan, &progress).map_err(usage)?;
    let shard = plan.shard;
    if there.spec == wanted.spec && there.shards == wanted.shards {
        return match progress.iter().find(|progress| progress.shard == shard) {
            Some(own) if !own.finished && is_fresh(&there) => Ok(Some((there, own.chunks as usize))),
            // Seeded before: everything is written again, with the times that it had, but for what has to lie ahead.
            _ => anew(mongo, there, shard).await.map_err(Failure::Incomplete),
        };
    }
    // The same rooms for another workload, or in other parts: its times stay, and what there are of messages is not forgotten.
    let replace = async {
        let manifest = there.replaced_by(wanted);
        if !replaced(mongo, &there, &manifest).await? {
            return Ok(None);
        }
        // Other parts of this seeding may have noted theirs already.
        let others = doc! { "kind": "shard", "of": manifest.id(), "claim": { "$ne": manifest.claim.clone() } };
        mongo.delete(COLLECTION, others).await?;
        begin(mongo, manifest, shard).await.map(Some)
    };
    replace.await.map_err(Failure::Incomplete)
}

/// How far each shard of a seeding has come.
pub(super) async fn progress(mongo: &Mongo, manifest: &Manifest) -> Result<Vec<ShardProgress>, String> {
    let found = mongo.find(COLLECTION, ShardProgress::filter(manifest), i64::from(Shard::MOST)).await?;
    Ok(found.iter().filter_map(ShardProgress::read).collect())
}

/// What nobody else claims a record by.
pub(super) fn new_claim() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Whether the record is still that of this claim.
///
/// # Errors
/// It is not, or cannot be read; one line, with what to do.
pub(super) async fn holds(mongo: &Mongo, manifest: &Manifest) -> Result<(), String> {
    let name = manifest.id();
    if mongo.count(COLLECTION, held(manifest)).await? > 0 {
        return Ok(());
    }
    Err(format!(
        "the record {name} in {COLLECTION} is no longer that of this seeding: a teardown has removed it, or another seeding has \
         replaced it, while this one was writing; once that has ended, seed what is to stay once more, and tear it down after \
         that if it is to go"
    ))
}

fn rfc3339(ms: i64) -> String {
    DateTime::from_millis(ms).try_to_rfc3339_string().unwrap_or_else(|_| format!("{ms} ms after 1970"))
}

/// In whole seconds, so that times read well.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX / 1000) * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_ours_only_as_we_write_it() {
        assert!(is_account("user-0", 10) && is_account("user-9", 10));
        for other in ["user-10", "user-07", "user-", "user-x", "ann", "user-7 "] {
            assert!(!is_account(other, 10), "{other}");
        }
        let filter = others_with_our_accounts(1_000);
        assert_eq!(filter.get_document("account").unwrap().get_str("$regex").unwrap(), "^user-[0-9]{1,3}$");
    }
}
