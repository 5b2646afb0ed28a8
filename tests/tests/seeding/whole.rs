//! Interrupted, in parts, removed: what is in the databases is whole or said not to be.

use super::{both, command, done, mongo_flags, plimsoll, refused};
use plimsoll_tests::harness::databases::{MongoServer, documents, need_both, need_mongo, with_database};
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::Process;
use plimsoll_tests::standin::{Standin, StandinConfig};
use serde_json::json;
use std::time::Duration;

#[test]
fn killed_in_the_middle_it_goes_on_and_says_so_meanwhile() {
    need_mongo();
    let mongo = MongoServer::start(&Default::default()).unwrap();
    let flags = mongo_flags(&mongo);
    let mut seeding = Process::spawn(command("seed --preset large --create-schema", &flags).unwrap()).unwrap();
    seeding.wait_for_stderr("seed: ", Duration::from_secs(30)).unwrap();
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
}

#[test]
fn parts_that_are_seeded_side_by_side_make_the_whole() {
    need_mongo();
    let (apart, at_once) =
        (MongoServer::start(&Default::default()).unwrap(), MongoServer::start(&Default::default()).unwrap());
    let flags = mongo_flags(&apart);
    // Indexes first: several at once would make them at once.
    done("seed --preset medium --create-schema --shard 1/3", &flags).unwrap();
    let error = refused("seed --preset medium --shard 1/2", &flags, 2).unwrap();
    assert!(error.contains("in 3 parts is not whole: finish it first with --shard 2/3, 3/3"), "{error}");
    let mut others: Vec<Process> = ["2/3", "3/3"]
        .map(|shard| {
            Process::spawn(command(&format!("seed --preset medium --shard {shard}"), &flags).unwrap()).unwrap()
        })
        .into();
    let ended = others.iter_mut().map(|other| other.wait(Duration::from_secs(60)).unwrap()).collect::<Vec<_>>();
    assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:?}");
    assert!(ended.iter().any(|ended| ended.stdout.ends_with("all parts are seeded\n")), "{ended:?}");
    done("seed --preset medium --create-schema", &mongo_flags(&at_once)).unwrap();
    for collection in ["users", "rooms", "subscriptions"] {
        let parts = documents(&apart.uri(), "chat", collection).unwrap();
        let whole = documents(&at_once.uri(), "chat", collection).unwrap();
        let untimed = |mut documents: Vec<serde_json::Value>| {
            for document in &mut documents {
                ["createdAt", "updatedAt", "joinedAt"]
                    .iter()
                    .for_each(|time| drop(document.as_object_mut().unwrap().remove(*time)));
            }
            documents
        };
        assert_eq!(untimed(parts), untimed(whole), "{collection}");
    }
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
    cassandra
        .execute(&[
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
    done("teardown --workload thread --yes", &flags).unwrap();
    let counts = "out = [db[c].count_documents({}) for c in ('users', 'rooms', 'subscriptions', 'thread_rooms', 'plimsoll_seeds')]";
    // The users are those of the members too.
    assert_eq!(with_database(&mongo.uri(), "chat", counts).unwrap(), json!([201, 6, 51, 0, 2]));
    assert_eq!(cassandra.select("SELECT message_id FROM gone.messages_by_id").unwrap(), [json!({"message_id": "m1"})]);
    assert_eq!(
        cassandra.select("SELECT message_id FROM gone.messages_by_room").unwrap(),
        [json!({"message_id": "m1"})]
    );
    assert!(cassandra.rows("gone.thread_messages_by_thread").unwrap().is_empty());
    assert!(done("teardown --workload thread --yes", &flags).unwrap().starts_with("nothing to remove"));
    done("teardown --workload members --yes", &flags).unwrap();
    assert_eq!(with_database(&mongo.uri(), "chat", counts).unwrap(), json!([1, 1, 1, 0, 0]));
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
            ("db.subscriptions.update_many({}, {'$unset': {'roomType': 1}})", "has roomType nothing, and has to have \"channel\""),
            ("db.subscriptions.insert_one({'_id': '0198', 'roomId': 'room-000001', 'siteId': 'site-local', 'u': {'account': 'a'}})", "MongoDB has 11 documents"),
        ] {
            let told = wrong_after(script, &flags, &mongo, &verify).unwrap();
            assert!(told.contains(words) && told.contains("`plimsoll seed --workload thread --preset small --site-id site-local` writes it again"), "{told}");
            assert!(!told.contains("priv"), "{told}");
            done(seed, &flags).unwrap();
        }
        let told = wrong_after("db.thread_rooms.drop_indexes()", &flags, &mongo, &verify).unwrap();
        assert!(told.contains("no unique index (parentMessageId) on thread_rooms: start message-worker"), "{told}");
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
        done(&verify, &flags).unwrap();
    })
    .await
    .unwrap();
    standin.shutdown().await.unwrap();
}
