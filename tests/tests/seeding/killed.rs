//! A seeding of both databases and a teardown, killed in the middle: the same command makes of them what an undisturbed one
//! does, field by field.

use super::{both, command, done, frozen_when, plimsoll, refused};
use plimsoll_common::contract::history::{HistoryPreset, RoomHistory, message_id};
use plimsoll_tests::harness::databases::{CassandraServer, MongoServer, collections, need_both, with_database};
use plimsoll_tests::harness::processes::Process;
use serde_json::{Value, json};
use std::time::Duration;

/// Of history-medium two rooms: 10,000 messages and some 1,300 replies.
const SEED: &str = "seed --workload read-receipt --preset history-medium --shard 3/50";
const COLLECTIONS: [&str; 5] = ["users", "rooms", "subscriptions", "thread_rooms", "thread_subscriptions"];
const TABLES: [&str; 3] = ["messages_by_room", "messages_by_id", "thread_messages_by_thread"];
const BUCKET_MS: i64 = 72 * 3_600_000;

/// Kills a command as soon as this is true of the database.
fn killed_when(arguments: &str, flags: &[String], mongo: &MongoServer, is_true: &str) -> anyhow::Result<()> {
    let mut process = Process::spawn(command(arguments, flags)?)?;
    frozen_when(process.pid(), mongo, is_true)?;
    process.signal(libc::SIGKILL)?;
    let ended = process.wait(Duration::from_secs(5))?;
    anyhow::ensure!(ended.signal == Some(libc::SIGKILL), "it ended before it was killed: {ended:?}");
    Ok(())
}

fn anchor_ms(mongo: &MongoServer) -> i64 {
    let mut records = collections(&mongo.uri(), "chat", &["plimsoll_seeds"]).expect("MongoDB answers");
    let records = records.remove("plimsoll_seeds").expect("it was asked for");
    records.iter().find_map(|record| record["anchor"]["ms"].as_i64()).expect("a record has an anchor")
}

/// Times from the anchor on; buckets, which follow from times, are compared with those here.
fn relative(value: &mut Value, anchor: i64) {
    match value {
        Value::Object(fields) => {
            if let Some(bucket) = fields.remove("bucket") {
                let at = fields["created_at"].as_i64().expect("a row has its time");
                assert_eq!(bucket, json!(at.div_euclid(BUCKET_MS) * BUCKET_MS));
            }
            for (name, field) in fields {
                let is_time = name == "ms" || name.ends_with("_at");
                match field.as_i64().filter(|_| is_time) {
                    Some(at) => *field = json!(at - anchor),
                    None => relative(field, anchor),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| relative(one, anchor)),
        _ => {}
    }
}

/// Everything that is there, in an order that times do not change.
fn everything(mongo: &MongoServer, cassandra: &CassandraServer, keyspace: &str) -> Vec<(&'static str, Vec<Value>)> {
    let anchor = anchor_ms(mongo);
    let mut documents = collections(&mongo.uri(), "chat", &COLLECTIONS).expect("MongoDB answers");
    let of_mongo = COLLECTIONS.map(|name| (name, documents.remove(name).expect("it was asked for")));
    let of_cassandra =
        TABLES.map(|name| (name, cassandra.rows(&format!("{keyspace}.{name}")).expect("Cassandra answers")));
    let mut all: Vec<(&'static str, Vec<Value>)> = of_mongo.into_iter().chain(of_cassandra).collect();
    for (_, rows) in &mut all {
        rows.iter_mut().for_each(|row| relative(row, anchor));
        rows.sort_by_cached_key(Value::to_string);
    }
    all
}

#[test]
fn what_was_killed_in_both_databases_ends_as_if_it_had_not_been() {
    need_both();
    let (mongo, cassandra, flags) = both("killed").unwrap();
    let (whole, _, whole_flags) = both("undisturbed").unwrap();
    done(&format!("{SEED} --create-schema"), &whole_flags).unwrap();
    // A thread's document is written beside its messages; the room's own comes last.
    let in_the_middle = "db.thread_rooms.find_one() is not None";
    killed_when(&format!("{SEED} --create-schema --writes-in-flight 4"), &flags, &mongo, in_the_middle).unwrap();
    let rooms = "out = db.rooms.count_documents({})";
    assert!(
        with_database(&mongo.uri(), "chat", rooms).unwrap().as_u64().is_some_and(|rooms| rooms < 2),
        "it was whole"
    );
    let anchor = anchor_ms(&mongo);
    done(SEED, &flags).unwrap();
    assert_eq!(anchor_ms(&mongo), anchor);
    let (resumed, undisturbed) =
        (everything(&mongo, cassandra, "killed"), everything(&whole, cassandra, "undisturbed"));
    assert_eq!(resumed.iter().map(|(_, rows)| rows.len()).max(), undisturbed[6].1.len().into());
    for ((name, resumed), (_, undisturbed)) in resumed.iter().zip(&undisturbed) {
        assert!(resumed == undisturbed, "{name}: {} and {} are not the same", resumed.len(), undisturbed.len());
    }
    // The record of the shard goes first, and that of the seeding last.
    let begun = "db.plimsoll_seeds.count_documents({'kind': 'shard'}) == 0";
    let teardown = "teardown --workload read-receipt --yes";
    killed_when(teardown, &flags, &mongo, begun).unwrap();
    let record = "out = db.plimsoll_seeds.count_documents({'kind': 'seed'})";
    assert_eq!(with_database(&mongo.uri(), "chat", record).unwrap(), json!(1));
    let told =
        plimsoll("verify --workload history --preset history-medium --nats-url nats://127.0.0.1:1", &flags).unwrap();
    assert!(told.stderr.contains("is not whole"), "{told:?}");
    done(teardown, &flags).unwrap();
    for name in TABLES {
        assert!(cassandra.rows(&format!("killed.{name}")).unwrap().is_empty(), "{name}");
    }
    let left = collections(&mongo.uri(), "chat", &COLLECTIONS).unwrap();
    assert!(left.values().all(Vec::is_empty), "{left:?}");
    assert_eq!(cassandra.rows("undisturbed.messages_by_room").unwrap().len(), 10_000);
}

#[test]
fn what_a_seeding_that_ended_in_the_middle_has_written_is_removed_without_a_rest() {
    need_both();
    let (mongo, cassandra, flags) = both("half").unwrap();
    // Of history-medium one room, one of whose threads cannot be recorded: somebody else's is in its place.
    let threads = RoomHistory::new(HistoryPreset::Medium, 42, 2).threads();
    let parent = message_id("hroom-000002", threads[threads.len() / 2]);
    let taken = format!(
        "db.thread_rooms.create_index('parentMessageId', unique=True)\n\
         db.thread_rooms.insert_one({{'_id': 'x', 'siteId': 'other', 'roomId': 'other', 'parentMessageId': '{parent}'}})"
    );
    with_database(&mongo.uri(), "chat", &taken).unwrap();
    let seed = "seed --workload history --preset history-medium --shard 4/101";
    let error = refused(&format!("{seed} --create-schema"), &flags, 3).unwrap();
    assert!(error.contains("holds another document in the place of one of ours"), "{error}");
    let is_empty = |name: &str| cassandra.rows(&format!("half.{name}")).unwrap().is_empty();
    assert!(TABLES.iter().all(|name| !is_empty(name)), "it ended before it wrote anything");
    let removed = || {
        done("teardown --workload history --yes", &flags).unwrap();
        for name in TABLES {
            assert!(is_empty(name), "{name}");
        }
    };
    removed();
    let left = "out = [d['_id'] for d in db.thread_rooms.find()] + [d['_id'] for d in db.thread_subscriptions.find()]";
    assert_eq!(with_database(&mongo.uri(), "chat", left).unwrap(), json!(["x"]));
    with_database(&mongo.uri(), "chat", "db.thread_rooms.delete_one({'_id': 'x'})").unwrap();
    let in_the_middle = "db.thread_rooms.count_documents({}) > 100";
    killed_when(&format!("{seed} --writes-in-flight 4"), &flags, &mongo, in_the_middle).unwrap();
    removed();
}

#[test]
fn a_cassandra_that_was_lost_is_seeded_anew_whatever_is_said_to_be_written() {
    need_both();
    let (mongo, cassandra, flags) = both("lost").unwrap();
    let seed = "seed --workload thread --preset small --create-schema";
    done(seed, &flags).unwrap();
    let whole = cassandra.rows("lost.messages_by_id").unwrap();
    // As if it had been interrupted behind its last room.
    let interrupted = "db.plimsoll_seeds.update_many({'kind': 'shard'}, {'$set': {'finished': False}})\n\
        out = [d['chunks'] for d in db.plimsoll_seeds.find({'kind': 'shard'})]";
    let emptied: [&[&str]; 2] =
        [&["DROP KEYSPACE lost"], &["TRUNCATE lost.messages_by_room", "TRUNCATE lost.messages_by_id"]];
    for statements in emptied {
        assert_eq!(with_database(&mongo.uri(), "chat", interrupted).unwrap(), json!([2]));
        cassandra.execute(&statements.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()).unwrap();
        let seeded = plimsoll(seed, &flags).unwrap();
        assert!(seeded.code == Some(0) && !seeded.stderr.contains("goes on after"), "{seeded:?}");
        assert_eq!(cassandra.rows("lost.messages_by_id").unwrap(), whole);
        assert_eq!(cassandra.rows("lost.messages_by_room").unwrap().len(), whole.len());
    }
    // What is there is gone on with.
    with_database(&mongo.uri(), "chat", interrupted).unwrap();
    let seeded = plimsoll(seed, &flags).unwrap();
    assert!(seeded.code == Some(0) && seeded.stderr.contains("goes on after"), "{seeded:?}");
}
