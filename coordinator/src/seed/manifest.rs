//! The record that MongoDB keeps of what was seeded: one document per site and family of rooms, and one per shard that says
//! how far it has come. Without it nobody could tell an interrupted seeding from a whole one.

use mongodb::bson::{DateTime, Document, doc};
use plimsoll_common::workload;

use super::dataset::Dataset;
use super::plan::Shard;
use super::spec::{Content, Spec};

/// Where it is kept, beside the chat's own collections.
pub const COLLECTION: &str = "plimsoll_seeds";

/// Of the record. A newer one is refused.
const FORMAT: i32 = 2;
/// Since then times of messages to reply to do not depend on how many there are.
const FORMAT_OF_PARENTS: i32 = 2;

/// What was seeded, and when its times count from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What.
    pub spec: Spec,
    /// Milliseconds since 1970.
    pub anchor_ms: i64,
    /// When it was last seeded from its beginning: what lies ahead is ahead of this. Milliseconds since 1970.
    pub renewed_ms: i64,
    /// In how many shards it was written.
    pub shards: u32,
    /// Messages to reply to that were seeded in every room, now or for a workload that this one replaces: a workload without
    /// messages leaves them where they are.
    pub parents: u32,
    /// Where its messages are; `None`: it has none, or is of a release that did not say.
    pub keyspace: Option<String>,
    /// Whose record it is: parts of a seeding under another claim, which this one replaced, say nothing of it. `None`: of a
    /// release that made none.
    pub claim: Option<String>,
    /// Of the release that seeded first.
    format: i32,
}

/// How far a shard has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardProgress {
    /// Which.
    pub shard: Shard,
    /// Of its chunks, the first so many are written.
    pub chunks: u64,
    /// Whether that is all.
    pub finished: bool,
}

impl Manifest {
    /// The record of a first seeding.
    pub fn new(spec: Spec, anchor_ms: i64, shards: u32) -> Self {
        let parents = spec.parents_per_room;
        Self { spec, anchor_ms, renewed_ms: anchor_ms, shards, parents, keyspace: None, claim: None, format: FORMAT }
    }

    /// The same with its messages, if any, in this keyspace.
    #[must_use]
    pub fn with_messages_in(self, keyspace: Option<&str>) -> Self {
        let keyspace = keyspace.filter(|_| self.has_messages()).map(str::to_owned);
        Self { keyspace, ..self }
    }

    /// The same, which whoever makes this claim alone goes on with.
    #[must_use]
    pub fn claimed_by(self, claim: String) -> Self {
        Self { claim: Some(claim), ..self }
    }

    /// The record of a seeding over this one: its times, and what it left.
    pub fn replaced_by(&self, by: Self) -> Self {
        let parents = self.parents.max(by.parents);
        let keyspace = self.keyspace.clone().or(by.keyspace);
        Self { anchor_ms: self.anchor_ms, parents, keyspace, format: self.format, ..by }
    }

    /// The same, seeded once more from its beginning.
    #[must_use]
    pub fn renewed(self, now_ms: i64) -> Self {
        let ahead = self.spec.content().is_ok_and(Content::lies_ahead);
        let renewed_ms = if ahead { now_ms } else { self.renewed_ms };
        Self { renewed_ms, ..self }
    }

    /// Whether there are seeded messages, which live in Cassandra.
    pub fn has_messages(&self) -> bool {
        self.parents > 0 || self.spec.content().is_ok_and(Content::has_messages)
    }

    /// What is in the way of seeding this spec over what was seeded, in words; nothing: it can be.
    pub fn in_the_way(&self, spec: &Spec) -> Vec<String> {
        let mut differs = spec.differs(&self.spec);
        let (hours, parents) = (spec.bucket_hours, spec.parents_per_room);
        let has_messages = |spec: &Spec| spec.content().is_ok_and(Content::has_messages);
        let is_compared = has_messages(spec) && has_messages(&self.spec);
        if self.parents > 0 && hours != self.spec.bucket_hours && !is_compared {
            let there = self.spec.bucket_hours;
            differs.push(format!("--message-bucket-hours is {hours} here and {there} there"));
        }
        if parents > 0 && parents < self.parents {
            differs.push(format!("--parents-per-room is {parents} here and {} there", self.parents));
        }
        if parents > 0 {
            differs.extend(self.outdated());
        }
        differs
    }

    /// What is wrong with looking for its messages in this keyspace, in words.
    pub fn elsewhere(&self, keyspace: &str) -> Option<String> {
        let there = self.keyspace.as_deref().filter(|there| *there != keyspace)?;
        Some(format!("--cassandra-keyspace is {keyspace} here and {there} there"))
    }

    /// What of the messages to reply to is not as this release writes them.
    pub fn outdated(&self) -> Option<String> {
        let outdated = self.parents > 0 && self.format < FORMAT_OF_PARENTS;
        outdated.then(|| "the times of its messages are those of an older release".to_owned())
    }

    /// `site-local/room`: what is in the database under one name is seeded once.
    pub fn id(&self) -> String {
        id(&self.spec)
    }

    /// As it is kept.
    pub fn document(&self) -> Document {
        let Spec { workload, preset, seed, users, site, parents_per_room, read_per_mille, bucket_hours } = &self.spec;
        let mut document = doc! {
            "_id": self.id(),
            "kind": "seed",
            "format": self.format,
            "site": site,
            "workload": *workload,
            "preset": preset,
            // BSON has no unsigned number.
            "seed": seed.to_string(),
            "users": i64::from(*users),
            "parentsPerRoom": i64::from(*parents_per_room),
            "readPerMille": i64::from(*read_per_mille),
            "bucketHours": i64::from(*bucket_hours),
            "anchor": DateTime::from_millis(self.anchor_ms),
            "shards": i64::from(self.shards),
            "parentsSeeded": i64::from(self.parents),
        };
        if let Some(keyspace) = &self.keyspace {
            document.insert("keyspace", keyspace);
        }
        if let Some(claim) = &self.claim {
            document.insert("claim", claim);
        }
        if self.renewed_ms != self.anchor_ms {
            document.insert("renewed", DateTime::from_millis(self.renewed_ms));
        }
        document
    }

    /// Reads what [`Self::document`] wrote.
    ///
    /// # Errors
    /// It is of a newer release or damaged; for people.
    pub fn read(document: &Document) -> Result<Self, String> {
        let id = document.get_str("_id").unwrap_or("?");
        let damaged = |what: &str| {
            format!(
                "the record {id} in {COLLECTION} has no readable {what}, somebody else has changed it: remove that document, \
                 and seed again what it was seeded with before anything else"
            )
        };
        let format = document.get_i32("format").map_err(|_| damaged("format"))?;
        if format > FORMAT {
            return Err(format!(
                "{id} was seeded by a newer release (format {format}, this one reads {FORMAT}): update it"
            ));
        }
        let text = |key: &str| document.get_str(key).map_err(|_| damaged(key));
        let number = |key: &str| {
            let number = document.get_i64(key).ok().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| damaged(key))
        };
        let workload = workload::entry(text("workload")?).ok_or_else(|| damaged("workload"))?.name;
        let spec = Spec {
            workload,
            preset: text("preset")?.to_owned(),
            seed: text("seed")?.parse().map_err(|_| damaged("seed"))?,
            // Records from before people were seeded have none.
            users: if document.contains_key("users") { number("users")? } else { 0 },
            site: text("site")?.to_owned(),
            parents_per_room: number("parentsPerRoom")?,
            read_per_mille: number("readPerMille")?,
            bucket_hours: number("bucketHours")?,
        };
        let time = |key: &str| document.get_datetime(key).map(|time| time.timestamp_millis()).map_err(|_| damaged(key));
        let anchor_ms = time("anchor")?;
        // None: seeded once, or by a release that renewed nothing.
        let renewed_ms = if document.contains_key("renewed") { time("renewed")? } else { anchor_ms };
        let shards = number("shards")?;
        if !(1..=Shard::MOST).contains(&shards) || spec.bucket_hours == 0 {
            return Err(damaged("shards"));
        }
        // Older records have none.
        let parents = match document.contains_key("parentsSeeded") {
            true => number("parentsSeeded")?,
            false => spec.parents_per_room,
        };
        // Older records have none, nor has who has no messages.
        let keyspace = match document.contains_key("keyspace") {
            true => Some(text("keyspace")?.to_owned()),
            false => None,
        };
        let claim = document.get_str("claim").ok().map(str::to_owned);
        Ok(Self { spec, anchor_ms, renewed_ms, shards, parents, keyspace, claim, format })
    }

    /// The data that it is the record of.
    ///
    /// # Errors
    /// It names what this release does not know.
    pub fn dataset(&self) -> Result<Dataset, String> {
        let dataset = Dataset::build(self.spec.clone(), self.anchor_ms)?;
        Ok(Dataset { renewed_ms: self.renewed_ms, ..dataset })
    }
}

/// Under which name a spec is kept.
pub fn id(spec: &Spec) -> String {
    format!("{}/{}", spec.site, spec.room_ids().name())
}

impl ShardProgress {
    /// Under which name it is kept: under another for each claim, so that who lost one writes over nobody's.
    fn id(manifest: &Manifest, shard: Shard) -> String {
        let claim = manifest.claim.as_ref().map(|claim| format!("@{claim}")).unwrap_or_default();
        format!("{}#{shard}{claim}", manifest.id())
    }

    /// As it is kept.
    pub fn document(&self, manifest: &Manifest) -> Document {
        let mut document = doc! {
            "_id": Self::id(manifest, self.shard),
            "kind": "shard",
            "of": manifest.id(),
            "shard": i64::from(self.shard.index),
            "shards": i64::from(self.shard.of),
            "chunks": i64::try_from(self.chunks).unwrap_or(i64::MAX),
            "finished": self.finished,
        };
        if let Some(claim) = &manifest.claim {
            document.insert("claim", claim);
        }
        document
    }

    /// Which documents are those of a seeding.
    pub fn filter(manifest: &Manifest) -> Document {
        // Null is what a document has that has none.
        doc! { "kind": "shard", "of": manifest.id(), "claim": manifest.claim.clone() }
    }

    /// Reads what [`Self::document`] wrote; `None` for anything else.
    pub fn read(document: &Document) -> Option<Self> {
        let number = |key: &str| document.get_i64(key).ok();
        let small = |key: &str| u32::try_from(number(key)?).ok();
        Some(Self {
            shard: Shard { index: small("shard")?, of: small("shards")? },
            chunks: u64::try_from(number("chunks")?).ok()?,
            finished: document.get_bool("finished").ok()?,
        })
    }
}

/// The shards that have not finished, of all that there are to be.
pub fn unfinished(manifest: &Manifest, progress: &[ShardProgress]) -> Vec<Shard> {
    let shards = (1..=manifest.shards).map(|index| Shard { index, of: manifest.shards });
    let finished = |shard: &Shard| progress.iter().any(|progress| progress.shard == *shard && progress.finished);
    shards.filter(|shard| !finished(shard)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::fixture::{ANCHOR_MS, dataset};

    fn manifest() -> Manifest {
        let spec = Spec { seed: u64::MAX, ..dataset("thread", "small").spec };
        Manifest::new(spec, ANCHOR_MS, 2)
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let manifest = manifest();
        assert_eq!(manifest.id(), "site-local/room");
        assert_eq!(Manifest::read(&manifest.document()), Ok(manifest.clone()));
        let progress = ShardProgress { shard: Shard { index: 2, of: 2 }, chunks: 7, finished: true };
        assert_eq!(ShardProgress::read(&progress.document(&manifest)), Some(progress));
        assert_eq!(unfinished(&manifest, &[progress]), [Shard { index: 1, of: 2 }]);
    }

    #[test]
    fn what_a_replaced_workload_left_is_not_forgotten() {
        let thread = manifest();
        let messages = Spec { workload: "messages", parents_per_room: 0, ..thread.spec.clone() };
        let over = thread.replaced_by(Manifest::new(messages.clone(), ANCHOR_MS + 1, 1));
        assert_eq!((over.anchor_ms, over.parents, over.has_messages()), (ANCHOR_MS, 8, true));
        assert_eq!(Manifest::read(&over.document()), Ok(over.clone()));
        let per_room = |parents: u32| Spec { parents_per_room: parents, ..thread.spec.clone() };
        for there in [&thread, &over] {
            assert_eq!(there.in_the_way(&per_room(3)), ["--parents-per-room is 3 here and 8 there"]);
            assert!(there.in_the_way(&per_room(8)).is_empty() && there.in_the_way(&per_room(9)).is_empty());
            let hours = Spec { bucket_hours: 24, ..messages.clone() };
            assert_eq!(there.in_the_way(&hours), ["--message-bucket-hours is 24 here and 72 there"]);
        }
        assert!(!Manifest::new(messages, ANCHOR_MS, 1).has_messages());
    }

    #[test]
    fn a_later_seeding_renews_what_lies_ahead_and_no_other() {
        let thread = manifest();
        assert_eq!(thread.clone().renewed(ANCHOR_MS + 5), thread);
        let unread = Manifest::new(dataset("room-read", "small").spec, ANCHOR_MS, 1);
        let later = unread.clone().renewed(ANCHOR_MS + 5);
        assert_eq!((later.anchor_ms, later.renewed_ms), (ANCHOR_MS, ANCHOR_MS + 5));
        assert_eq!(Manifest::read(&later.document()), Ok(later.clone()));
        assert_eq!(later.dataset().unwrap().renewed_ms, ANCHOR_MS + 5);
        assert_eq!(Manifest::read(&unread.document()).unwrap().renewed_ms, ANCHOR_MS);
        // Over messages, whose times stay.
        let over = thread.replaced_by(later);
        assert_eq!((over.anchor_ms, over.renewed_ms), (ANCHOR_MS, ANCHOR_MS + 5));
    }

    #[test]
    fn messages_are_looked_for_where_they_were_seeded() {
        let thread = manifest().with_messages_in(Some("chat"));
        assert_eq!(Manifest::read(&thread.document()), Ok(thread.clone()));
        assert_eq!(thread.elsewhere("chat"), None);
        assert_eq!(thread.elsewhere("caht").unwrap(), "--cassandra-keyspace is caht here and chat there");
        let messages = Spec { workload: "messages", parents_per_room: 0, ..thread.spec.clone() };
        let without = Manifest::new(messages, ANCHOR_MS, 1).with_messages_in(Some("other"));
        assert_eq!(without.keyspace, None, "it has no messages");
        assert_eq!(thread.replaced_by(without.clone()).keyspace.as_deref(), Some("chat"));
        assert_eq!(without.replaced_by(thread).keyspace.as_deref(), Some("chat"));
        assert_eq!(without.elsewhere("any"), None);
    }

    #[test]
    fn messages_of_an_older_release_are_in_the_way_of_ours() {
        let mut document = manifest().document();
        document.insert("format", 1);
        document.remove("parentsSeeded");
        let older = Manifest::read(&document).unwrap();
        assert_eq!((older.parents, older.has_messages()), (8, true));
        assert_eq!(older.in_the_way(&older.spec), ["the times of its messages are those of an older release"]);
        let messages = Spec { workload: "messages", parents_per_room: 0, ..older.spec.clone() };
        assert!(older.in_the_way(&messages).is_empty());
    }

    #[test]
    fn a_damaged_or_newer_record_is_refused_with_what_to_do() {
        let mut document = manifest().document();
        document.insert("format", 3);
        let error = Manifest::read(&document).unwrap_err();
        assert_eq!(error, "site-local/room was seeded by a newer release (format 3, this one reads 2): update it");
        for key in ["format", "workload", "seed", "anchor", "shards", "bucketHours"] {
            let mut document = manifest().document();
            document.insert(key, mongodb::bson::Bson::Null);
            let error = Manifest::read(&document).unwrap_err();
            assert!(error.contains(&format!("no readable {key}")) && error.contains("remove that document"), "{error}");
        }
    }

    #[test]
    fn parts_are_of_one_claim() {
        let (older, one) = (manifest(), manifest().claimed_by("one".to_owned()));
        assert_eq!(Manifest::read(&one.document()), Ok(one.clone()));
        let two = one.replaced_by(manifest().claimed_by("two".to_owned()));
        assert_eq!(two.claim.as_deref(), Some("two"));
        assert_eq!(two.clone().renewed(ANCHOR_MS + 5).claim, two.claim);
        let progress = ShardProgress { shard: Shard { index: 2, of: 2 }, chunks: 7, finished: true };
        let id = |manifest: &Manifest| progress.document(manifest).get_str("_id").unwrap().to_owned();
        assert_eq!(
            [id(&older), id(&one), id(&two)],
            ["site-local/room#2/2", "site-local/room#2/2@one", "site-local/room#2/2@two"]
        );
        assert_eq!(ShardProgress::filter(&one).get_str("claim").unwrap(), "one");
        assert_eq!(ShardProgress::filter(&older).get("claim"), Some(&mongodb::bson::Bson::Null));
    }
}
