//! Interrupted, in parts, removed: what is in the databases is whole or said not to be.

use super::{both, command, done, frozen_when, mongo_flags, plimsoll, refused};
use plimsoll_tests::harness::databases::{MongoServer, documents, need_both, need_mongo, with_database};
use plimsoll_tests::harness::mongo_proxy::{Fault, MongoProxy};
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Ended, Process};
use plimsoll_tests::standin::{Standin, StandinConfig};
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const ANCHOR: &str = "2026-01-31T08:00:00Z";

#[test]
fn killed_in_the_middle_it_goes_on_and_says_so_meanwhile() {
    need_mongo();
    let mut mongo = MongoServer::start(&Default::default()).unwrap();
    let flags = mongo_flags(&mongo);
    let mut seeding = Process::spawn(command("seed --preset large --create-schema", &flags).unwrap()).unwrap();
    let noted = "any(d['chunks'] > 0 and not d['finished'] for d in db.plimsoll_seeds.find({'kind': 'shard'}))";
    frozen_when(seeding.pid(), &mongo, noted).unwrap();
    seeding.signal(libc::SIGKILL).unwrap();
    assert_eq!(seeding.wait(Duration::from_secs(5)).unwrap().signal, Some(libc::SIGKILL));
    let half = with_database(&mongo.uri(), "chat", "out = db.users.count_documents({})").unwrap();
    let error = refused("verify --preset large --nats-url nats://127.0.0.1:1", &flags, 2);
    let words = plimsoll("verify --preset large --nats-url nats://127.0.0.1:1", &flags).unwrap().stderr;
    assert!(
        error.is_err() && words.contains("is not whole: `plimsoll seed --workload messages --preset large"),
        "{words}"
    );
    let anchor = "out = str(db.plimsoll_seeds.find_one({'kind': 'seed'})['anchor'])";
    let before = with_database(&mongo.uri(), "chat", anchor).unwrap();
    let resumed = plimsoll("seed --preset large", &flags).unwrap();
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.stderr.contains("seed: goes on after"), "it had {half} users: {resumed:?}");
    assert_eq!(with_database(&mongo.uri(), "chat", anchor).unwrap(), before);
    let counts = "out = [db[c].count_documents({}) for c in ('users', 'rooms', 'subscriptions')]";
    assert_eq!(with_database(&mongo.uri(), "chat", counts).unwrap(), json!([10_000, 1_000, 10_000]));
    let begun = |uri: &str| -> Process {
        let mut seeding =
            Process::spawn(command("seed --preset large", &[format!("--mongo-uri={uri}")]).unwrap()).unwrap();
        seeding.wait_for_stderr("seed: ", Duration::from_secs(30)).unwrap();
        seeding
    };
    // Who is frozen says nothing, and is not waited for for ever.
    let mut seeding = begun(&format!("{}/?socketTimeoutMS=2000", mongo.uri().trim_end_matches('/')));
    mongo.signal(libc::SIGSTOP).unwrap();
    let frozen = seeding.wait(super::LIMIT).unwrap();
    mongo.signal(libc::SIGCONT).unwrap();
    assert_eq!(frozen.code, Some(3), "{frozen:?}");
    assert!(
        frozen.stderr.contains("was lost while") && frozen.stderr.contains("the same command goes on"),
        "{frozen:?}"
    );
    // Whose record is taken away has not seeded what it says.
    let mut seeding = begun(&mongo.uri());
    with_database(&mongo.uri(), "chat", "db.plimsoll_seeds.delete_many({'kind': 'seed'})").unwrap();
    let robbed = seeding.wait(super::LIMIT).unwrap();
    assert!(robbed.code == Some(3) && robbed.stdout.is_empty(), "{robbed:?}");
    assert!(
        robbed.stderr.contains("the record site-local/room in plimsoll_seeds is no longer that of this seeding"),
        "{robbed:?}"
    );
}

#[test]
fn parts_that_are_seeded_side_by_side_make_the_whole() {
    need_mongo();
    let (apart, at_once) =
        (MongoServer::start(&Default::default()).unwrap(), MongoServer::start(&Default::default()).unwrap());
    let flags = mongo_flags(&apart);
    // Of a seeding whose record is gone: it says nothing of this one.
    let orphan = "from bson.int64 import Int64\n\
        db.plimsoll_seeds.insert_one({'_id': 'site-local/room#2/3', 'kind': 'shard', 'of': 'site-local/room', 'shard': Int64(2), \
        'shards': Int64(3), 'chunks': Int64(1), 'finished': True})";
    with_database(&apart.uri(), "chat", orphan).unwrap();
    let ahead = refused("seed --preset medium --create-schema --anchor 2999-01-31T08:00:00Z", &flags, 2).unwrap();
    assert!(ahead.starts_with("--anchor: 2999-01-31T08:00:00Z lies ahead"), "{ahead}");
    // Indexes first: several at once would make them at once.
    done(&format!("seed --preset medium --create-schema --shard 1/3 --anchor {ANCHOR}"), &flags).unwrap();
    let later = refused("seed --preset medium --shard 2/3 --anchor 2026-01-31T08:00:01Z", &flags, 2).unwrap();
    assert!(later.contains("whose times count from 2026-01-31T08:00:00Z and not from 2026-01-31T08:00:01Z"), "{later}");
    let error = refused("seed --preset medium --shard 1/2", &flags, 2).unwrap();
    assert!(error.contains("in 3 parts is not whole: finish it first with --shard 2/3, 3/3"), "{error}");
    let told = plimsoll("verify --preset medium --nats-url nats://127.0.0.1:1", &flags).unwrap().stderr;
    assert!(told.contains(" --shard 2/3 --mongo-uri ") && told.contains("` and `plimsoll seed "), "{told}");
    assert!(told.contains(" --shard 3/3 --mongo-uri ") && told.contains("` go on"), "{told}");
    let mut others: Vec<Process> = ["2/3", "3/3"]
        .map(|shard| {
            Process::spawn(command(&format!("seed --preset medium --shard {shard}"), &flags).unwrap()).unwrap()
        })
        .into();
    let ended = others.iter_mut().map(|other| other.wait(Duration::from_secs(60)).unwrap()).collect::<Vec<_>>();
    assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:?}");
    assert!(ended.iter().any(|ended| ended.stdout.ends_with("all parts are seeded\n")), "{ended:?}");
    // Elsewhere, at another time, from the same instant on: the same documents to the last field.
    done(&format!("seed --preset medium --create-schema --anchor {ANCHOR}"), &mongo_flags(&at_once)).unwrap();
    for collection in ["users", "rooms", "subscriptions"] {
        let parts = documents(&apart.uri(), "chat", collection).unwrap();
        let whole = documents(&at_once.uri(), "chat", collection).unwrap();
        assert!(!whole.is_empty() && parts == whole, "{collection}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_all_find_an_older_seeding_go_on_together() {
    need_mongo();
    const PARTS: u32 = 3;
    let mongo = MongoServer::start(&Default::default()).unwrap();
    // Each has read the older record when the first replaces it.
    let proxy = MongoProxy::start(mongo.address(), &["update"], Fault::Together(PARTS)).await.unwrap();
    tokio::task::spawn_blocking(move || {
        done("seed --preset medium --create-schema", &mongo_flags(&mongo)).unwrap();
        let through = [format!("--mongo-uri={}", proxy.uri())];
        let part = |index: u32| command(&format!("seed --preset medium --shard {index}/{PARTS}"), &through).unwrap();
        let mut parts: Vec<Process> = (1..=PARTS).map(|index| Process::spawn(part(index)).unwrap()).collect();
        let ended: Vec<Ended> = parts.iter_mut().map(|part| part.wait(super::LIMIT).unwrap()).collect();
        assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:?}");
        assert!(ended.iter().any(|ended| ended.stdout.ends_with("all parts are seeded\n")), "{ended:?}");
        let records = "out = [db.plimsoll_seeds.count_documents({'kind': kind}) for kind in ('seed', 'shard')]";
        assert_eq!(with_database(&mongo.uri(), "chat", records).unwrap(), json!([1, PARTS]));
    })
    .await
    .unwrap();
}

#[test]
fn a_teardown_removes_what_was_seeded_and_nothing_else() {
    need_both();
    let (mongo, cassandra, flags) = both("gone").unwrap();
    done("seed --workload thread --preset small --create-schema", &flags).unwrap();
    done("seed --workload members --preset members-small", &flags).unwrap();
    let others = "db.users.insert_one({'_id': '0198', 'account': 'ann', 'siteId': 'site-local'})\n\
        db.rooms.insert_one({'_id': 'Ab3dE6gH9jK2mN5pQ', 'siteId': 'site-local'})\n\
        db.subscriptions.insert_one({'_id': '0199', 'roomId': 'Ab3dE6gH9jK2mN5pQ', 'siteId': 'site-local', 'u': {'account': 'ann'}})\n\
        db.subscriptions.insert_one({'_id': '019a', 'roomId': 'room-000001', 'siteId': 'site-local', 'u': {'account': 'user-9'}})\n\
        db.thread_rooms.insert_one({'_id': '019b', 'roomId': 'room-000001', 'siteId': 'site-local', 'parentMessageId': 'p'})";
    with_database(&mongo.uri(), "chat", others).unwrap();
    let now = "toTimestamp(now())";
    // Seeding again takes a run's threads back, and their replies before the way to them is gone.
    let of_a_run = [
        format!(
            "INSERT INTO gone.messages_by_id (message_id, room_id, created_at) VALUES ('r0', 'room-000001', {now})"
        ),
        format!(
            "INSERT INTO gone.thread_messages_by_thread (thread_room_id, created_at, message_id) VALUES ('019b', {now}, 'r0')"
        ),
    ];
    cassandra.execute(&of_a_run).unwrap();
    done("seed --workload thread --preset small", &flags).unwrap();
    assert!(cassandra.rows("gone.thread_messages_by_thread").unwrap().is_empty());
    assert!(cassandra.select("SELECT message_id FROM gone.messages_by_id WHERE message_id = 'r0'").unwrap().is_empty());
    with_database(&mongo.uri(), "chat", &others.lines().skip(3).collect::<Vec<_>>().join("\n")).unwrap();
    // Whose ids only begin like ours.
    let near = "db.users.insert_one({'_id': 'u-0000ab', 'account': 'kim', 'siteId': 'site-local'})\n\
        db.rooms.insert_many([{'_id': id, 'siteId': 'site-local'} for id in ('room-00000x', 'mroom-0kitchen')])";
    with_database(&mongo.uri(), "chat", near).unwrap();
    // What services of another bucket length have written.
    let hours = |hours: i64, at_ms: i64| at_ms.div_euclid(hours * 3_600_000) * hours * 3_600_000;
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let days = [today, today - 86_400_000].map(|at| hours(24, at));
    let bucket = days.into_iter().find(|&day| day != hours(72, day)).unwrap();
    cassandra
        .execute(&[
            format!("INSERT INTO gone.messages_by_room (room_id, bucket, created_at, message_id) VALUES ('room-000001', {bucket}, {now}, 'd1')"),
            format!("INSERT INTO gone.messages_by_id (message_id, room_id, created_at) VALUES ('d1', 'room-000001', {now})"),
            format!("INSERT INTO gone.messages_by_room (room_id, bucket, created_at, message_id) VALUES ('other', 0, {now}, 'm1')"),
            format!("INSERT INTO gone.messages_by_id (message_id, room_id, created_at) VALUES ('m1', 'other', {now})"),
            // As a run leaves them: a reply in a thread of a seeded room.
            format!("INSERT INTO gone.messages_by_id (message_id, room_id, created_at) VALUES ('r1', 'room-000001', {now})"),
            format!("INSERT INTO gone.thread_messages_by_thread (thread_room_id, created_at, message_id) VALUES ('019b', {now}, 'r1')"),
        ])
        .unwrap();
    let asked = plimsoll("teardown --workload thread", &flags).unwrap();
    assert!(asked.code == Some(2) && asked.stderr.contains("pass --yes; nothing was removed"), "{asked:?}");
    let told = plimsoll("teardown --workload thread --dry-run", &flags).unwrap();
    assert!(told.code == Some(0) && told.stderr.contains("subscriptions                    11"), "{told:?}");
    for place in ["from the database chat of MongoDB at mongodb://", "from the keyspace gone of Cassandra at "] {
        assert!(told.stderr.contains(place), "{told:?}");
    }
    done("teardown --workload thread --message-bucket-hours 24 --yes", &flags).unwrap();
    let counts = "out = [db[c].count_documents({}) for c in ('users', 'rooms', 'subscriptions', 'thread_rooms', 'plimsoll_seeds')]";
    // The users are those of the members too.
    assert_eq!(with_database(&mongo.uri(), "chat", counts).unwrap(), json!([202, 8, 51, 0, 2]));
    assert_eq!(cassandra.select("SELECT message_id FROM gone.messages_by_id").unwrap(), [json!({"message_id": "m1"})]);
    assert_eq!(
        cassandra.select("SELECT message_id FROM gone.messages_by_room").unwrap(),
        [json!({"message_id": "m1"})]
    );
    assert!(cassandra.rows("gone.thread_messages_by_thread").unwrap().is_empty());
    assert!(done("teardown --workload thread --yes", &flags).unwrap().starts_with("nothing to remove"));
    done("teardown --workload members --yes", &flags).unwrap();
    assert_eq!(with_database(&mongo.uri(), "chat", counts).unwrap(), json!([2, 3, 1, 0, 0]));
    done("teardown --drop --yes", &flags).unwrap();
    assert_eq!(with_database(&mongo.uri(), "chat", counts).unwrap(), json!([0, 0, 0, 0, 0]));
    assert!(cassandra.rows("gone.messages_by_id").unwrap().is_empty());
}

/// What is wrong after somebody has done this to a whole seeding.
fn wrong_after(script: &str, flags: &[String], mongo: &MongoServer, verify: &str) -> anyhow::Result<String> {
    with_database(&mongo.uri(), "chat", script)?;
    let ended = plimsoll(verify, flags)?;
    anyhow::ensure!(ended.code == Some(2), "{script}: {ended:?}");
    Ok(ended.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_as_seeded_is_told_with_what_mends_it() {
    need_both();
    let nats = NatsServer::start(NatsOptions::default()).unwrap();
    let config = StandinConfig { preset: "small".parse().unwrap(), ..StandinConfig::new(nats.url()) };
    let standin = Standin::start(config).await.unwrap();
    let url = nats.url();
    tokio::task::spawn_blocking(move || {
        let (mongo, cassandra, flags) = both("looked").unwrap();
        let seed = "seed --workload thread --preset small";
        done(&format!("{seed} --create-schema"), &flags).unwrap();
        let verify = format!("verify --workload thread --preset small --nats-url {url}");
        let verified = done(&verify, &flags).unwrap();
        for words in ["users        10 for", "subscriptions 10 for", "cassandra messages   40 of 5 rooms as seeded", "everything is as"] {
            assert!(verified.contains(words), "{verified}");
        }
        // What serves threads serves messages too.
        done(&format!("verify --preset small --nats-url {url}"), &flags).unwrap();
        for (script, words) in [
            ("db.users.delete_one({'_id': 'u-000004'})", "MongoDB has 9 documents of small in users"),
            ("db.rooms.update_one({'_id': 'room-000001'}, {'$set': {'name': 'x'}})", "rooms: room-000001 has name \"x\", and has to have \"room-1\""),
            ("db.rooms.update_one({'_id': 'room-000000'}, {'$unset': {'encKey': 1}})", "room-000000 has another encKey"),
            ("db.rooms.update_many({}, {'$unset': {'lastMsgAt': 1}})", "room-000000 has no lastMsgAt, and has to have one, or services show none of its messages"),
            ("import datetime\ndb.rooms.update_many({}, {'$set': {'createdAt': datetime.datetime.now()}})", "or services show nothing of what is older"),
            ("db.subscriptions.update_many({}, {'$unset': {'roomType': 1}})", "has roomType nothing, and has to have \"channel\""),
            ("db.subscriptions.insert_one({'_id': '0198', 'roomId': 'room-000001', 'siteId': 'site-local', 'u': {'account': 'a'}})", "MongoDB has 11 documents"),
        ] {
            let told = wrong_after(script, &flags, &mongo, &verify).unwrap();
            assert!(told.contains(words) && told.contains("`plimsoll seed --workload thread --preset small --site-id site-local --mongo-uri "), "{told}");
            assert!(told.contains("` writes it again") && !told.contains("priv"), "{told}");
            // As it is told, and nowhere else, whatever the environment names.
            let printed = told.split("`plimsoll ").nth(1).and_then(|rest| rest.split('`').next()).unwrap();
            let mut pasted = command(printed, &[]).unwrap();
            pasted.env("MONGO_DB", "elsewhere").env("MONGO_URI", "mongodb://127.0.0.1:1").env("CASSANDRA_KEYSPACE", "elsewhere");
            let mended = Process::spawn(pasted).unwrap().wait(super::LIMIT).unwrap();
            assert_eq!(mended.code, Some(0), "{printed}: {mended:?}");
        }
        let told = wrong_after("db.thread_rooms.drop_indexes()", &flags, &mongo, &verify).unwrap();
        assert!(told.contains("no unique index (parentMessageId) on thread_rooms: start message-worker"), "{told}");
        assert!(told.contains("or `plimsoll seed --workload thread --preset small --site-id site-local --create-schema --mongo-uri "), "{told}");
        done(&format!("{seed} --create-schema"), &flags).unwrap();
        for (statement, words) in [
            ("TRUNCATE looked.messages_by_room", "messages_by_room has 0 seeded rows for room-000000"),
            ("TRUNCATE looked.messages_by_id", "messages_by_id has"),
        ] {
            cassandra.execute(&[statement.to_owned()]).unwrap();
            let told = plimsoll(&verify, &flags).unwrap().stderr;
            assert!(told.contains(words) && told.contains("writes it again"), "{told}");
            done(seed, &flags).unwrap();
        }
        // Rows of any room, not of those alone that a run looks into.
        let rows = cassandra.select("SELECT message_id, room_id FROM looked.messages_by_id").unwrap();
        let of_room = rows.iter().filter(|row| row["room_id"] == "room-000003");
        let ids: Vec<&str> = of_room.filter_map(|row| row["message_id"].as_str()).collect();
        assert_eq!(ids.len(), 8, "{rows:?}");
        let statements = ids.iter().map(|id| format!("DELETE FROM looked.messages_by_id WHERE message_id = '{id}'"));
        cassandra.execute(&statements.collect::<Vec<_>>()).unwrap();
        let told = plimsoll(&verify, &flags).unwrap().stderr;
        assert!(told.contains("messages_by_id has") && told.contains("not as it was seeded"), "{told}");
        done(seed, &flags).unwrap();
        done(&verify, &flags).unwrap();
    })
    .await
    .unwrap();
    standin.shutdown().await.unwrap();
}
