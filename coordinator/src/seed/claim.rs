//! Before the first row: looks at what is there, makes what is missing of the schema where that was asked for, and records
//! what is about to be written. What is refused was refused before anything was written; what fails later may go on.

use std::time::{SystemTime, UNIX_EPOCH};

use mongodb::bson::doc;

use super::cassandra::{Cassandra, Missing};
use super::dataset::{Dataset, spread};
use super::manifest::{COLLECTION, Manifest, ShardProgress, id, unfinished};
use super::mongo::Mongo;
use super::ours::{is_others, rooms, user_range};
use super::plan::Shard;
use super::rows::bucket;
use super::schema::{UniqueIndex, indexes};
use super::spec::Spec;
use crate::exit::Failure;
use crate::settings::seeding::SeedPlan;

/// Rooms that are looked into for messages of another site, and messages of each.
const ROOMS: usize = 32;
const MESSAGES: usize = 3;
/// Buckets of each, the newest: of 72 hours a year.
const BUCKETS: i64 = 128;

/// What was found that a seeding can be written to.
pub(super) struct Ground {
    lacking: Vec<UniqueIndex>,
    lacks_tables: bool,
    /// Whether the rooms are seeded already.
    recorded: bool,
}

impl Ground {
    /// Looks, and writes nothing.
    ///
    /// # Errors
    /// What is in the way, or missing and not to be made; one line, with what to do.
    pub async fn look(mongo: &Mongo, cassandra: Option<&Cassandra>, plan: &SeedPlan) -> Result<Self, String> {
        let missing = if plan.create_schema { Missing::Make } else { Missing::Refuse };
        let dataset = Dataset::build(plan.spec.clone(), now_ms())?;
        let lacking = mongo.missing(indexes(dataset.content)).await?;
        if let (Some(index), Missing::Refuse) = (lacking.first(), missing) {
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
        refuse_other_sites(mongo, &dataset).await?;
        if let (Some(cassandra), false) = (cassandra, lacks_tables) {
            refuse_other_messages(cassandra, &dataset).await?;
        }
        let there = recorded(mongo, &plan.spec).await?;
        if let Some(there) = &there {
            let progress = progress(mongo, &there.id()).await?;
            fits(mongo, there, plan, &progress)?;
        }
        Ok(Self { lacking, lacks_tables, recorded: there.is_some() })
    }

    /// Makes what is missing. Whether anything was.
    ///
    /// # Errors
    /// It cannot be made, or not all of it.
    pub async fn prepare(&self, mongo: &Mongo, cassandra: Option<&Cassandra>) -> Result<bool, Failure> {
        let mut made = false;
        if let (Some(cassandra), true) = (cassandra, self.lacks_tables) {
            cassandra.make().await?;
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
async fn refuse_other_sites(mongo: &Mongo, dataset: &Dataset) -> Result<(), String> {
    let Spec { site, workload, .. } = &dataset.spec;
    let rooms = rooms(dataset).into_iter().map(|ids| ("rooms", ids));
    for (collection, ids) in rooms.chain([("users", user_range(0..dataset.users()))]) {
        let found = mongo.find(collection, doc! { "_id": ids, "siteId": { "$ne": site } }, 1).await?;
        if let Some(document) = found.first() {
            let of = document.get_str("siteId").unwrap_or("none");
            return Err(format!(
                "MongoDB at {} has {} in {collection} for the site {of}, not {site}: name that site with --site-id, remove it \
                 with `plimsoll teardown --workload {workload} --site-id {of}`, or take another --mongo-db and \
                 --cassandra-keyspace",
                mongo.place(),
                document.get_str("_id").unwrap_or("a document"),
            ));
        }
    }
    Ok(())
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
        let mut sites: Vec<(Option<String>,)> =
            cassandra.rows("reading messages_by_room", &by_room, (&room.id, &buckets)).await?;
        let picked = spread(dataset.times(&room).count(), MESSAGES);
        let messages = dataset.messages(&room).enumerate().filter(|(at, _)| picked.contains(at));
        for (_, message) in messages {
            sites.extend(cassandra.rows::<(Option<String>,)>("reading messages_by_id", &by_id, (&message.id,)).await?);
        }
        if let Some(of) = sites.iter().filter_map(|(of,)| of.as_deref()).find(|of| is_others(Some(of), site)) {
            return Err(format!(
                "Cassandra at {} has messages of {} in the keyspace {} for the site {of}, not {site}: take another \
                 --cassandra-keyspace, name that site with --site-id, or remove them with `plimsoll teardown --workload \
                 {workload} --site-id {of}` and its --mongo-uri and --mongo-db",
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
    let wanted = Manifest::new(plan.spec.clone(), now_ms(), plan.shard.of);
    for _ in 0..2 {
        match mongo.insert_new(COLLECTION, &wanted.document()).await {
            Ok(true) => return begin(mongo, wanted, plan.shard).await.map_err(Failure::Incomplete),
            Ok(false) => {}
            Err(words) => {
                // A record that was there before is not ours, and where none can be found none was written.
                let is_ours = !ground.recorded && !matches!(recorded(mongo, &plan.spec).await, Ok(None));
                return Err(ended(written || is_ours, words));
            }
        }
        let found = recorded(mongo, &plan.spec).await.map_err(|words| ended(written, words))?;
        // Gone again: somebody tears it down; the second look tells.
        let Some(found) = found else { continue };
        return join(mongo, found, wanted, plan, written).await;
    }
    let name = id(&plan.spec);
    let words = format!("the record {name} in {COLLECTION} comes and goes: is somebody removing what is being seeded?");
    Err(ended(written, words))
}

async fn begin(mongo: &Mongo, manifest: Manifest, shard: Shard) -> Result<(Manifest, usize), String> {
    let progress = ShardProgress { shard, chunks: 0, finished: false };
    mongo.put(COLLECTION, &progress.document(&manifest.id())).await?;
    Ok((manifest, 0))
}

/// Whether this can be seeded where that was.
fn fits(mongo: &Mongo, there: &Manifest, plan: &SeedPlan, progress: &[ShardProgress]) -> Result<(), String> {
    let Spec { workload, site, .. } = &there.spec;
    let in_the_way = there.in_the_way(&plan.spec);
    if !in_the_way.is_empty() {
        return Err(format!(
            "MongoDB at {} is seeded with {}, whose rooms would be in the way ({}): remove them with `plimsoll teardown \
             --workload {workload} --site-id {site}` first",
            mongo.place(),
            there.spec.flags(),
            in_the_way.join("; "),
        ));
    }
    let left = unfinished(there, progress);
    if there.shards != plan.shard.of && !left.is_empty() && !progress.is_empty() {
        let names: Vec<String> = left.iter().map(Shard::to_string).collect();
        return Err(format!(
            "a seeding of {} in {} parts is not whole: finish it first with --shard {}, or remove it with `plimsoll teardown \
             --workload {workload} --site-id {site}`",
            there.spec.flags(),
            there.shards,
            names.join(", "),
        ));
    }
    Ok(())
}

async fn join(
    mongo: &Mongo,
    there: Manifest,
    wanted: Manifest,
    plan: &SeedPlan,
    written: bool,
) -> Result<(Manifest, usize), Failure> {
    let name = there.id();
    let usage = |words| ended(written, words);
    let progress = progress(mongo, &name).await.map_err(usage)?;
    fits(mongo, &there, plan, &progress).map_err(usage)?;
    let shard = plan.shard;
    if there.spec == wanted.spec && there.shards == wanted.shards {
        return match progress.iter().find(|progress| progress.shard == shard) {
            Some(own) if !own.finished => Ok((there, own.chunks as usize)),
            // Seeded before: everything is written again, with the times that it had.
            _ => begin(mongo, there, shard).await.map_err(Failure::Incomplete),
        };
    }
    // The same rooms for another workload, or in other parts: its times stay, and what there are of messages is not forgotten.
    let replace = async {
        let manifest = there.replaced_by(wanted);
        mongo.delete(COLLECTION, doc! { "kind": "shard", "of": &name }).await?;
        mongo.put(COLLECTION, &manifest.document()).await?;
        begin(mongo, manifest, shard).await
    };
    replace.await.map_err(Failure::Incomplete)
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
