//! What `plimsoll seed` and `plimsoll teardown` are asked for.

use mongodb::bson::DateTime;
use plimsoll_common::workload::{BadSetting, Given, SettingDefault, is_subject_token};

use super::commands::LoadCommand;
use super::error::SettingsError;
use super::layers::{Layers, Source};
use super::storage::{StoragePlan, storage};
use super::values::{Named, Values, number};
use crate::seed::plan::Shard;
use crate::seed::spec::{RoomIds, SEEDED, Spec, room_ids};

/// What to seed, where, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedPlan {
    /// What.
    pub spec: Spec,
    /// Where.
    pub storage: StoragePlan,
    /// Which part of it.
    pub shard: Shard,
    /// What all times of a first seeding count from, in Unix milliseconds; the present if none.
    pub anchor_ms: Option<i64>,
    /// Writes to Cassandra under way at once.
    pub writes: usize,
    /// Whether indexes, keyspace and tables are made where they are missing.
    pub create_schema: bool,
    /// Whether nothing is to be touched.
    pub dry_run: bool,
}

/// What to remove, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct TeardownPlan {
    /// Whose documents.
    pub site: String,
    /// The rooms of which workloads.
    pub room_ids: RoomIds,
    /// One of these.
    pub workload: &'static str,
    /// Where.
    pub storage: StoragePlan,
    /// Whether what others wrote goes too.
    pub drop: bool,
    /// Whether nobody is asked.
    pub yes: bool,
    /// Whether nothing is to be touched.
    pub dry_run: bool,
}

/// What `plimsoll seed` is asked for.
///
/// # Errors
/// A setting that is missing or wrong.
pub fn seed(layers: &Layers) -> Result<SeedPlan, SettingsError> {
    let values = Values::new(layers);
    let storage = needed(&values)?;
    let name = values.required("workload", "messages")?;
    let seeded = || SEEDED.join(", ");
    let entry = layers.workload().filter(|entry| SEEDED.contains(&entry.name)).ok_or_else(|| name.takes(seeded()))?;
    for setting in LoadCommand::Seed.settings().filter(|setting| !setting.is_of(entry.name)) {
        if let Some(value) = values.optional(setting.name) {
            let takers = setting.workloads.join(", ");
            return Err(value.error(format!("the workload {} does not take it: only {takers}", entry.name)));
        }
    }
    let text = |name: &str| {
        let default = || match entry.setting(name)?.default {
            SettingDefault::Text(text) => Some(text.to_owned()),
            SettingDefault::Required | SettingDefault::Nothing => None,
        };
        layers.get(name).map(|given| given.value.clone()).or_else(default)
    };
    let workload = (entry.read)(&Given::new(&text)).map_err(|error| match error {
        BadSetting::Missing { name, takes } => values.missing(name, takes),
        BadSetting::Value { name, problem } => match values.optional(name) {
            Some(value) => value.error(problem),
            None => SettingsError::Value { place: format!("--{name}"), problem },
        },
    })?;
    let seed = values.number("seed", 0, u64::MAX)?;
    let spec = Spec::of(&workload, seed, storage.bucket_hours).ok_or_else(|| name.takes(seeded()))?;
    let spec = Spec { read_per_mille: read_per_mille(&values, &spec)?, ..spec };
    if storage.cassandra.is_none() && spec.content().is_ok_and(|content| content.has_messages()) {
        let takes = "addresses of the chat's Cassandra such as chat-db:9042, where its messages go";
        return Err(values.missing("cassandra-hosts", takes));
    }
    Ok(SeedPlan {
        spec,
        storage,
        shard: values.parsed("shard", "I/N, such as 1/4")?,
        anchor_ms: values.optional("anchor").map(|value| anchor_ms(&value)).transpose()?,
        writes: number(&values.required("writes-in-flight", "a whole number")?, 1, 4096)? as usize,
        create_schema: values.switch("create-schema")?,
        dry_run: values.switch("dry-run")?,
    })
}

/// Whole seconds, as every time of a seeding.
fn anchor_ms(value: &Named<'_>) -> Result<i64, SettingsError> {
    const FIRST: i64 = 946_684_800_000;
    let read = DateTime::parse_rfc3339_str(value.text().trim()).ok().map(DateTime::timestamp_millis);
    let fits = read.filter(|ms| *ms >= FIRST && ms % 1000 == 0);
    fits.ok_or_else(|| value.takes("an instant in whole seconds since 2000, such as 2026-01-31T08:00:00Z"))
}

fn read_per_mille(values: &Values, spec: &Spec) -> Result<u32, SettingsError> {
    const TAKES: &str = "a number from 0.001 to 1, such as 0.7";
    let value = values.required("read-ratio", TAKES)?;
    if spec.workload != "read-receipt" {
        return match value.strength() == Source::Default.strength() {
            true => Ok(0),
            false => Err(value.error(format!("the workload {} does not take it: only read-receipt", spec.workload))),
        };
    }
    let ratio = value.text().trim().parse::<f64>().ok().filter(|ratio| (0.001..=1.0).contains(ratio));
    ratio.map(|ratio| (ratio * 1000.0).round() as u32).ok_or_else(|| value.takes(TAKES))
}

/// What `plimsoll teardown` is asked for.
///
/// # Errors
/// A setting that is missing or wrong.
pub fn teardown(layers: &Layers) -> Result<TeardownPlan, SettingsError> {
    let values = Values::new(layers);
    let name = values.required("workload", "messages")?;
    let entry = layers.workload().filter(|entry| SEEDED.contains(&entry.name));
    let entry = entry.ok_or_else(|| name.takes(SEEDED.join(", ")))?;
    const TOKEN: &str = "one token of a subject";
    let site = match values.optional("site-id") {
        Some(site) if is_subject_token(site.text()) => site.text().to_owned(),
        Some(site) => return Err(site.takes(TOKEN)),
        None => return Err(values.missing("site-id", TOKEN)),
    };
    Ok(TeardownPlan {
        site,
        room_ids: room_ids(entry.name),
        workload: entry.name,
        storage: needed(&values)?,
        drop: values.switch("drop")?,
        yes: values.switch("yes")?,
        dry_run: values.switch("dry-run")?,
    })
}

fn needed(values: &Values) -> Result<StoragePlan, SettingsError> {
    let takes = "the address of the chat's MongoDB, such as mongodb://chat-db:27017";
    storage(values)?.ok_or_else(|| values.missing("mongo-uri", takes))
}

#[cfg(test)]
mod tests {
    use super::super::{Invocation, read};
    use super::*;

    fn ask(line: &str) -> Result<Invocation, String> {
        read(line.split_whitespace().map(Into::into), &|_| None).map_err(|error| error.to_string())
    }

    fn seed(flags: &str) -> Result<SeedPlan, String> {
        match ask(&format!("plimsoll seed {flags}"))? {
            Invocation::Seed(plan) => Ok(*plan),
            other => panic!("{other:?}"),
        }
    }

    const MONGO: &str = "--mongo-uri mongodb://db:27017";

    #[test]
    fn a_seeding_is_what_its_flags_say() {
        let plan = seed(&format!("--preset small {MONGO}")).unwrap();
        assert_eq!(plan.spec.flags(), "--workload messages --preset small --site-id site-local");
        assert_eq!((plan.shard, plan.writes, plan.create_schema), (Shard::WHOLE, 256, false));
        assert_eq!(plan.anchor_ms, None);
        let plan = seed(&format!("--preset small --anchor 2026-01-31T09:00:00+01:00 {MONGO}")).unwrap();
        assert_eq!(plan.anchor_ms, Some(1_769_846_400_000));
        let line = "--workload read-receipt --preset history-small --read-ratio 0.25 --shard 2/4 --seed 7 --site-id s1 \
                    --cassandra-hosts a,b:9043 --cassandra-keyspace chat2 --message-bucket-hours 24";
        let plan = seed(&format!("{line} {MONGO}")).unwrap();
        let cassandra = plan.storage.cassandra.unwrap();
        assert_eq!(cassandra.hosts, ["a:9042", "b:9043"]);
        assert_eq!((plan.spec.read_per_mille, plan.spec.bucket_hours, plan.spec.seed), (250, 24, 7));
        assert_eq!(plan.shard, Shard { index: 2, of: 4 });
        let line = "--workload daily --preset daily-heavy --users 2k --cassandra-hosts a";
        let plan = seed(&format!("{line} {MONGO}")).unwrap();
        assert_eq!(plan.spec.flags(), "--workload daily --preset daily-heavy --users 2000 --site-id site-local");
    }

    #[test]
    fn what_makes_no_seeding_is_named() {
        let with_mongo = |flags: &str| seed(&format!("{flags} {MONGO}")).unwrap_err();
        for (error, part) in [
            (seed("--preset small").unwrap_err(), "--mongo-uri is missing"),
            (
                seed("--preset small --mongo-uri db:27017").unwrap_err(),
                "--mongo-uri: got 'db:27017', expected an address",
            ),
            (with_mongo(""), "--preset is missing"),
            (with_mongo("--preset tiny"), "--preset: unknown preset \"tiny\""),
            (
                with_mongo("--workload custom --preset small"),
                "--workload: got 'custom', expected messages, thread, history, room-read",
            ),
            (with_mongo("--workload thread --preset small"), "--cassandra-hosts is missing: expected addresses"),
            (with_mongo("--preset small --read-ratio 0.5"), "--read-ratio: the workload messages does not take it"),
            (
                with_mongo("--preset small --parents-per-room 3"),
                "--parents-per-room: the workload messages does not take it",
            ),
            (with_mongo("--preset small --users 100"), "--users: the workload messages does not take it: only daily"),
            (
                with_mongo("--workload daily --preset daily-light --users 99 --cassandra-hosts a"),
                "--users: got '99', expected a whole number from 100 to 1000000",
            ),
            (with_mongo("--workload daily --preset daily-light"), "--cassandra-hosts is missing: expected addresses"),
            (with_mongo("--preset small --shard 5/4"), "--shard: got '5/4', expected I/N"),
            (
                with_mongo("--preset small --anchor yesterday"),
                "--anchor: got 'yesterday', expected an instant in whole",
            ),
            (with_mongo("--preset small --anchor 2026-01-31T08:00:00.5Z"), "expected an instant in whole seconds"),
            (
                with_mongo("--preset small --anchor 1999-01-31T08:00:00Z"),
                "expected an instant in whole seconds since 2000",
            ),
            (with_mongo("--preset small --mongo-password p"), "--mongo-password: a password is of somebody"),
            (with_mongo("--preset small --mongo-db 1"), "--mongo-db: got '1', expected 1 to 48 letters"),
            (
                with_mongo("--preset small --cassandra-hosts a:x"),
                "--cassandra-hosts: it is not shown, for it may hold a password: expected addresses",
            ),
            (with_mongo("--preset small --steps 5"), "unexpected argument '--steps'"),
        ] {
            assert!(error.contains(part), "{error}");
        }
        let run = ask("plimsoll max-rps --preset small --cassandra-hosts a").unwrap_err();
        assert!(run.contains("--cassandra-hosts: what was seeded is recorded in MongoDB"), "{run}");
    }

    #[test]
    fn no_error_and_no_plan_shows_a_password() {
        let uri = "mongodb://ann:SECRET@db:27017";
        let plan = seed(&format!("--preset small --mongo-uri {uri}")).unwrap();
        assert!(!format!("{plan:?}").contains("SECRET"), "{plan:?}");
        let secret =
            seed(&format!("--preset small --mongo-uri {uri}/?tlsCertificateKeyFilePassword=SECRET")).unwrap_err();
        assert!(secret.contains("its options carry a secret") && !secret.contains("SECRET"), "{secret}");
        let itself = seed(&format!("--preset small {MONGO} --mongo-username ann --mongo-password SECRET")).unwrap_err();
        assert!(itself.contains("expected the path of a file, or env:NAME") && !itself.contains("SECRET"), "{itself}");
    }

    #[test]
    fn a_teardown_is_of_one_site_and_one_kind_of_rooms() {
        let Invocation::Teardown(plan) = ask(&format!("plimsoll teardown --workload history --yes {MONGO}")).unwrap()
        else {
            panic!("no teardown");
        };
        assert_eq!(
            (plan.site.as_str(), plan.room_ids, plan.yes, plan.drop),
            ("site-local", RoomIds::History, true, false)
        );
        let error = ask(&format!("plimsoll teardown --site-id a.b {MONGO}")).unwrap_err();
        assert!(error.contains("--site-id: got 'a.b'"), "{error}");
    }
}
