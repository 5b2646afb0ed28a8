//! People of a daily preset: seeded as the contract has it, found by a run, and removed with what a run has made.

use super::{both, done, plimsoll, refused};
use anyhow::Context as _;
use plimsoll_common::contract::daily::fixtures::DailyFixtures;
use plimsoll_common::contract::daily::{Band, DailyPreset};
use plimsoll_common::contract::fixtures::{account, eng_name, room_key, user_id};
use plimsoll_tests::harness::databases::{
    CASSANDRA_USER, CassandraServer, MongoServer, collections, need_both, with_database,
};
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::run::Run;
use plimsoll_tests::standin::config::Databases;
use plimsoll_tests::standin::{DailyConfig, Standin, StandinConfig};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

const USERS: u32 = 100;
const SITE: &str = "site-local";
const DAY_MS: i64 = 86_400_000;
const SEED: &str = "seed --workload daily --preset daily-light --users 100";

type Dump = HashMap<&'static str, Vec<Value>>;

fn dump(mongo: &MongoServer) -> anyhow::Result<Dump> {
    collections(&mongo.uri(), "chat", &["users", "rooms", "subscriptions", "thread_rooms", "plimsoll_seeds"])
}

/// Rooms and memberships against the fixtures.
fn assert_documents(dump: &Dump, fixtures: &DailyFixtures, anchor: i64) {
    let by_id = |name: &str| -> HashMap<&str, &Value> {
        dump[name].iter().map(|document| (document["_id"].as_str().expect("an id"), document)).collect()
    };
    let (rooms, subscriptions) = (by_id("rooms"), by_id("subscriptions"));
    assert_eq!((dump["users"].len(), rooms.len()), (USERS as usize, fixtures.rooms() as usize + 5));
    let made = json!({"ms": anchor - 8 * DAY_MS});
    let mut memberships = 0;
    for room in 0..fixtures.rooms() {
        let (id, members) = (fixtures.room_id(room), fixtures.members(room));
        let last = fixtures.seeded_message(room, fixtures.band(room).seeded_messages() - 1);
        let newest = anchor - last.age_ms as i64;
        let is_dm = fixtures.band(room) == Band::Dm;
        let mut seen = Vec::new();
        for (position, &user) in members.iter().enumerate() {
            let found = subscriptions[format!("sub-{id}-{}", user_id(user)).as_str()];
            let last_seen = found["lastSeenAt"]["ms"].as_i64().expect("a time");
            // Nobody has read the newest, and everybody has looked since they joined.
            assert!((1..=DAY_MS).contains(&(newest - last_seen)), "{found}");
            seen.push(last_seen);
            let partner = || account(*members.iter().find(|&&other| other != user).expect("two people"));
            let wanted = json!({
                "_id": format!("sub-{id}-{}", user_id(user)), "u": {"_id": user_id(user), "account": account(user), "isBot": false},
                "roomId": id, "siteId": SITE, "name": if is_dm { partner() } else { id.clone() },
                "roles": if is_dm { Value::Null } else { json!([if position == 0 { "owner" } else { "member" }]) },
                "roomType": if is_dm { "dm" } else { "channel" }, "joinedAt": made, "lastSeenAt": {"ms": last_seen},
                "hasMention": false, "alert": false, "muted": false, "favorite": false, "hasGroupMention": false,
                "hasUnread": false,
            });
            assert_eq!(found, &wanted);
        }
        memberships += members.len();
        let mut wanted = json!({
            "_id": id, "name": if is_dm { "" } else { &id }, "type": if is_dm { "dm" } else { "channel" }, "siteId": SITE,
            "userCount": members.len(), "appCount": 0, "lastMsgAt": {"ms": newest},
            "lastMsgId": String::from_utf8_lossy(&last.id), "minUserLastSeenAt": {"ms": seen.iter().min()},
            "createdAt": made, "updatedAt": made,
        });
        if is_dm {
            let mut pair = members.clone();
            pair.sort_unstable();
            wanted["uids"] = json!(pair.iter().map(|&user| user_id(user)).collect::<Vec<_>>());
            wanted["accounts"] = json!(pair.iter().map(|&user| account(user)).collect::<Vec<_>>());
        } else {
            let key: String = room_key(42, room).iter().map(|byte| format!("{byte:02x}")).collect();
            wanted["encKey"] = json!({"priv": {"hex": key}, "ver": 0});
        }
        assert_eq!(rooms[id.as_str()], &wanted);
    }
    assert_eq!(subscriptions.len(), memberships + 10);
}

/// Messages of both tables against the fixtures.
fn assert_messages(cassandra: &CassandraServer, fixtures: &DailyFixtures, anchor: i64) -> anyhow::Result<()> {
    let sorted = |mut rows: Vec<Value>| {
        rows.sort_by_key(Value::to_string);
        rows
    };
    let (mut by_room, mut by_id) = (Vec::new(), Vec::new());
    for room in 0..fixtures.rooms() {
        for index in 0..fixtures.band(room).seeded_messages() {
            let message = fixtures.seeded_message(room, index);
            let (author, created) = (message.author, anchor - message.age_ms as i64);
            let mut row = json!({
                "room_id": fixtures.room_id(room), "created_at": created, "updated_at": created, "site_id": SITE,
                "message_id": String::from_utf8_lossy(&message.id), "msg": fixtures.seeded_text(room, index),
                "sender": {"id": user_id(author), "account": account(author), "eng_name": eng_name(author)},
            });
            by_id.push(row.clone());
            row["bucket"] = json!(created.div_euclid(3 * DAY_MS) * 3 * DAY_MS);
            by_room.push(row);
        }
    }
    assert!(sorted(cassandra.rows("people.messages_by_room")?) == sorted(by_room));
    assert!(sorted(cassandra.rows("people.messages_by_id")?) == sorted(by_id));
    Ok(())
}

/// What a run leaves: a room of its own with a message, a member of a seeded room, and a thread with a reply.
fn leave_traces(mongo: &MongoServer, cassandra: &CassandraServer, parent: &str) -> anyhow::Result<()> {
    let made = format!(
        "site = {{'siteId': '{SITE}'}}\n\
         def put(into, **document): db[into].replace_one({{'_id': document['_id']}}, {{**site, **document}}, upsert=True)\n\
         put('rooms', _id='Ab3dE6gH9jK2mN5pQ', name='plimsoll-1f-0-2a-7')\n\
         put('subscriptions', _id='0198', roomId='Ab3dE6gH9jK2mN5pQ', name='plimsoll-1f-0-2a-7', roles=['owner'], u={{'account': 'user-7'}})\n\
         put('thread_rooms', _id='019c', roomId='Ab3dE6gH9jK2mN5pQ', parentMessageId='made')\n\
         put('thread_subscriptions', _id='019d', roomId='Ab3dE6gH9jK2mN5pQ', threadRoomId='019c', userAccount='user-7')\n\
         put('room_members', _id='019e', rid='Ab3dE6gH9jK2mN5pQ')\n\
         put('subscriptions', _id='0199', roomId='room-small-000001', u={{'account': 'x'}})\n\
         put('thread_rooms', _id='019a', roomId='room-small-000001', parentMessageId='{parent}')\n\
         put('rooms', _id='Zz3dE6gH9jK2mN5pQ', name='somebody else')"
    );
    with_database(&mongo.uri(), "chat", &made)?;
    let now = "toTimestamp(now())";
    let bucket = unix_ms().div_euclid(3 * DAY_MS) * 3 * DAY_MS;
    cassandra.execute(&[
        format!("INSERT INTO people.messages_by_room (room_id, bucket, created_at, message_id) VALUES ('Ab3dE6gH9jK2mN5pQ', {bucket}, {now}, 'made')"),
        format!("INSERT INTO people.messages_by_id (message_id, room_id, created_at) VALUES ('made', 'Ab3dE6gH9jK2mN5pQ', {now})"),
        format!("INSERT INTO people.messages_by_id (message_id, room_id, created_at) VALUES ('reply', 'room-small-000001', {now})"),
        format!("INSERT INTO people.thread_messages_by_thread (thread_room_id, created_at, message_id) VALUES ('019a', {now}, 'reply')"),
    ])
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The stand-in that knows these people and reads from the databases.
async fn standin(nats: &NatsServer, mongo_uri: String, cassandra: String) -> anyhow::Result<Standin> {
    let databases = Databases {
        mongo_uri,
        mongo_db: "chat".into(),
        cassandra_hosts: vec![cassandra],
        cassandra_keyspace: "people".into(),
        cassandra_username: Some(CASSANDRA_USER.into()),
        cassandra_password: CASSANDRA_USER.into(),
        bucket_hours: 72,
    };
    let daily = Some(DailyConfig { preset: DailyPreset::Light, users: USERS });
    Standin::start(StandinConfig { daily, databases: Some(databases), ..StandinConfig::new(nats.url()) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_seeded_verified_driven_and_removed() -> anyhow::Result<()> {
    need_both();
    let _box = Shared::acquire()?;
    // Not on a thread that ends when it has nothing to do: its processes end with it.
    let (mongo, cassandra, flags) = both("people")?;
    let seeded = tokio::task::spawn_blocking(move || {
        // Side by side with rooms whose ids begin alike: five, of two each, of the first ten users.
        done("seed --preset small --create-schema", &mongo_only(&flags))?;
        done(&format!("{SEED} --create-schema"), &flags)?;
        let fixtures = DailyFixtures::build(DailyPreset::Light, USERS, 42)?;
        let first = dump(&mongo)?;
        let record = first["plimsoll_seeds"].iter().find(|record| record["kind"] == "seed").context("no record")?;
        let anchor = record["anchor"]["ms"].as_i64().context("no anchor")?;
        assert_documents(&first, &fixtures, anchor);
        assert_messages(cassandra, &fixtures, anchor)?;
        // Twice is once, and takes back what a run has left in seeded rooms.
        let parent = fixtures.seeded_message(fixtures.rooms_in(Band::Small).start + 1, 3).id;
        leave_traces(&mongo, cassandra, &String::from_utf8_lossy(&parent))?;
        done(SEED, &flags)?;
        let again = dump(&mongo)?;
        assert_eq!(again["rooms"].len(), first["rooms"].len() + 2);
        assert_eq!(again["subscriptions"].len(), first["subscriptions"].len() + 1);
        // That of the room which the run made.
        assert_eq!(again["thread_rooms"].len(), 1);
        anyhow::Ok((mongo, cassandra, flags))
    });
    let (mongo, cassandra, flags) = seeded.await??;
    let nats = NatsServer::start(NatsOptions::default())?;
    let standin = standin(&nats, mongo.uri(), cassandra.address()).await?;
    let url = nats.url();
    tokio::task::spawn_blocking(move || {
        let verified = done(&format!("verify --workload daily --preset daily-light --users 100 --nats-url {url}"), &flags)?;
        assert!(verified.contains("users        100 for") && verified.contains("rooms as seeded"), "{verified}");
        for operation in ["msg.history", "message.read", "member.add", "mute.toggle", "create", "subscription.list"] {
            assert!(verified.contains(&format!("service {operation} ")), "{verified}");
        }
        let run = format!("daily --preset daily-light --nats-url {url} --steps 40 --results none");
        for (other, differs) in [
            ("--users 120", "--users is 120 here and 100 there"),
            ("--users 100 --seed 7", "--seed is 7 here and 42 there"),
            ("--users 100 --site-id elsewhere", "has no seeding for --workload daily --site-id elsewhere"),
        ] {
            let error = refused(&format!("{run} {other}"), &flags, 2)?;
            assert!(error.contains(differs) && error.contains("`plimsoll seed --workload daily --preset daily-light"), "{error}");
        }
        let password = tempfile::NamedTempFile::new()?;
        std::fs::write(password.path(), CASSANDRA_USER)?;
        let mut run = Run::daily(&url, "daily-light", USERS).flag("--day", "60s").flag("--max-lateness", "1s");
        for (flag, value) in flags.iter().filter_map(|flag| flag.split_once('=')) {
            run = run.flag(flag, value);
        }
        // The tests' databases answer when they can: how fast that is, is not asked here.
        let limits = "mark_read:p95=9s,refresh_room_list:p95=9s,refresh_room_list:p99=9s,scroll_history:p95=9s,scroll_history:p99=9s";
        let run = run.flag("--cassandra-password", password.path().display()).flag("--slo", limits).flag("--request-timeout", "10s").local(1);
        let ran = run.steps(&[40.0]).hold(Duration::from_secs(4)).trials(1).finish()?;
        let trial = ran.trial_at(40.0)?;
        assert_eq!((trial.completed, trial.foreign), (trial.attempted, 0), "{ran}");
        assert!(ran.ended.stdout.contains("storage mongodb rooms = "), "{ran}");
        assert!(trial.number("refresh_room_list_n") > Some(0.0) && trial.number("scroll_history_n") > Some(0.0), "{ran}");
        // A list of 32 rooms, and pages of what was seeded, straight from the databases.
        assert!(trial.number("rooms_listed_mean") > Some(3_000.0), "{ran}");
        assert!(trial.number("history_rows_mean") >= Some(2.0), "{ran}");
        leave_traces(&mongo, cassandra, "another")?;
        let told = plimsoll("teardown --workload daily --dry-run", &flags)?;
        assert!(told.stderr.contains("all messages of"), "{told:?}");
        done("teardown --workload daily --yes", &flags)?;
        let counts = "out = [db[c].count_documents({}) for c in ('users', 'rooms', 'subscriptions', 'thread_rooms', \
                      'thread_subscriptions', 'room_members')]";
        // The ten of `small`, its five rooms, and the room of somebody else.
        assert_eq!(with_database(&mongo.uri(), "chat", counts)?, json!([10, 6, 10, 0, 0, 0]));
        for table in ["messages_by_room", "messages_by_id", "thread_messages_by_thread"] {
            assert!(cassandra.rows(&format!("people.{table}"))?.is_empty(), "{table}");
        }
        anyhow::Ok(())
    })
    .await??;
    standin.shutdown().await
}

/// Without Cassandra, which workloads without messages do not need.
fn mongo_only(flags: &[String]) -> Vec<String> {
    flags.iter().filter(|flag| flag.starts_with("--mongo")).cloned().collect()
}
