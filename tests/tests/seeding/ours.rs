//! What is ours and what is not: data of other sites, of people and of other seedings stays, and every remedy that is told
//! mends what it is told for.

use super::{both, both_flags, done, mongo_flags, plimsoll, refused};
use plimsoll_tests::harness::databases::{MongoServer, cassandra, documents, need_both, need_mongo, with_database};
use plimsoll_tests::harness::mongo_proxy::{Fault, MongoProxy};
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::standin::{Standin, StandinConfig};
use serde_json::{Value, json};
use std::collections::HashMap;

const ALL: [&str; 6] = ["users", "rooms", "subscriptions", "thread_rooms", "thread_subscriptions", "room_members"];

fn counts(mongo: &MongoServer) -> Value {
    let script = format!("out = [db[c].count_documents({{}}) for c in {ALL:?}]");
    with_database(&mongo.uri(), "chat", &script).expect("MongoDB answers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_number_of_parents_moves_none_and_fewer_are_refused_with_what_mends() {
    need_both();
    let nats = NatsServer::start(NatsOptions::default()).unwrap();
    let config = StandinConfig { preset: "small".parse().unwrap(), ..StandinConfig::new(nats.url()) };
    let standin = Standin::start(config).await.unwrap();
    let url = nats.url();
    tokio::task::spawn_blocking(move || {
        let (mongo, cassandra, flags) = both("numbers").unwrap();
        let seed = |parents: u32| format!("seed --workload thread --preset small --parents-per-room {parents}");
        let verify = |parents: u32| {
            format!("verify --workload thread --preset small --parents-per-room {parents} --nats-url {url}")
        };
        done(&format!("{} --create-schema", seed(3)), &flags).unwrap();
        let three = cassandra.rows("numbers.messages_by_room").unwrap();
        done(&seed(5), &flags).unwrap();
        let five = cassandra.rows("numbers.messages_by_room").unwrap();
        assert_eq!((three.len(), five.len()), (15, 25));
        assert!(three.iter().all(|row| five.contains(row)), "{three:?} {five:?}");
        done(&verify(5), &flags).unwrap();
        // Five serve whoever needs three, and what is told of them is what mends them.
        done(&verify(3), &flags).unwrap();
        cassandra.execute(&["TRUNCATE numbers.messages_by_id".to_owned()]).unwrap();
        let told = plimsoll(&verify(3), &flags).unwrap().stderr;
        let mend = "seed --workload thread --preset small --parents-per-room 5 --site-id site-local";
        assert!(
            told.contains(&format!("`plimsoll {mend} --mongo-uri ")) && told.contains("` writes it again"),
            "{told}"
        );
        done(mend, &flags).unwrap();
        done(&verify(3), &flags).unwrap();
        let error = refused(&seed(3), &flags, 2).unwrap();
        assert!(error.contains("--parents-per-room is 3 here and 5 there"), "{error}");
        assert!(error.contains("`plimsoll teardown --workload thread --site-id site-local --mongo-uri "), "{error}");
        // A workload without messages leaves them, which its record knows: nobody removes it without them.
        done("seed --workload messages --preset small", &flags).unwrap();
        let error = refused(&seed(3), &flags, 2).unwrap();
        assert!(error.contains("--parents-per-room is 3 here and 5 there"), "{error}");
        let error = refused("teardown --workload messages --yes", &mongo_flags(&mongo), 2).unwrap();
        assert!(error.contains("messages were seeded too: pass the --cassandra-hosts"), "{error}");
        assert_eq!(cassandra.rows("numbers.messages_by_id").unwrap().len(), 25);
        done("teardown --workload messages --yes", &flags).unwrap();
        assert!(cassandra.rows("numbers.messages_by_room").unwrap().is_empty());
        assert!(cassandra.rows("numbers.messages_by_id").unwrap().is_empty());
        // Without messages nothing is known of Cassandra, and that is said.
        done("seed --workload messages --preset small", &mongo_flags(&mongo)).unwrap();
        let told = plimsoll("teardown --workload messages --yes", &mongo_flags(&mongo)).unwrap();
        assert!(told.code == Some(0) && told.stderr.contains("--cassandra-hosts"), "{told:?}");
        assert!(told.stdout.contains("are left in Cassandra"), "{told:?}");
        // The way to them is kept, and the command that is told finds them.
        cassandra
            .execute(&[
                "INSERT INTO numbers.messages_by_id (message_id, room_id, created_at, site_id) VALUES ('run', \
                        'room-000001', toTimestamp(now()), 'site-local')"
                    .to_owned(),
                format!(
                    "INSERT INTO numbers.messages_by_room (room_id, bucket, created_at, message_id, site_id) VALUES \
                         ('room-000001', {}, toTimestamp(now()), 'run', 'site-local')",
                    bucket_of_now()
                ),
            ])
            .unwrap();
        let nothing = done("teardown --workload messages --yes", &mongo_flags(&mongo)).unwrap();
        assert!(nothing.starts_with("nothing to remove"), "{nothing}");
        done("teardown --workload messages --yes", &flags).unwrap();
        assert!(cassandra.rows("numbers.messages_by_id").unwrap().is_empty());
        assert!(documents(&mongo.uri(), "chat", "plimsoll_seeds").unwrap().is_empty());
        // Rows from before count as seeded: the remedy takes them away.
        done(&seed(3), &flags).unwrap();
        let anchor = documents(&mongo.uri(), "chat", "plimsoll_seeds").unwrap();
        let anchor = anchor.iter().find_map(|record| record["anchor"]["ms"].as_i64()).unwrap();
        let bucket = (anchor - 1_000_000).div_euclid(259_200_000) * 259_200_000;
        cassandra
            .execute(&[format!(
                "INSERT INTO numbers.messages_by_room (room_id, bucket, created_at, message_id) \
                 VALUES ('room-000002', {bucket}, {}, 'before')",
                (anchor - 999_500).max(bucket)
            )])
            .unwrap();
        let told = plimsoll(&verify(3), &flags).unwrap().stderr;
        assert!(told.contains("messages_by_room has 4 seeded rows for room-000002"), "{told}");
        assert!(
            told.contains("`plimsoll teardown --workload thread --site-id site-local --mongo-uri ")
                && told.contains("`, then `plimsoll seed "),
            "{told}"
        );
        done("teardown --workload thread --yes", &flags).unwrap();
        done(&seed(3), &flags).unwrap();
        done(&verify(3), &flags).unwrap();
    })
    .await
    .unwrap();
    standin.shutdown().await.unwrap();
}

#[test]
fn what_runs_have_sent_is_found_again_however_often_was_seeded_in_between() {
    need_both();
    let (mongo, cassandra, flags) = both("runs_before").unwrap();
    let without = mongo_flags(&mongo);
    let now = bucket_of_now();
    let rows = || {
        ["messages_by_room", "messages_by_id"]
            .map(|table| cassandra.rows(&format!("runs_before.{table}")).unwrap().len())
    };
    let sent = |room: &str, bucket: i64| {
        let (id, at) = (format!("{room}-{bucket}"), bucket + 1_000);
        let by_id = "message_id, room_id, created_at, site_id";
        cassandra
            .execute(&[
                format!("INSERT INTO runs_before.messages_by_id ({by_id}) VALUES ('{id}', '{room}', {at}, 'site-local')"),
                format!(
                    "INSERT INTO runs_before.messages_by_room (bucket, {by_id}) VALUES ({bucket}, '{id}', '{room}', {at}, \
                     'site-local')"
                ),
            ])
            .unwrap();
    };
    let anchor = |buckets: i64| {
        let ms = now - buckets * 259_200_000 + 7_000;
        let script = format!(
            "out = datetime.datetime.fromtimestamp({ms} / 1000, datetime.timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')"
        );
        let text = with_database(&mongo.uri(), "chat", &script).unwrap();
        format!("--anchor {}", text.as_str().unwrap())
    };
    done(&format!("seed --workload thread --preset small --create-schema {}", anchor(1)), &flags).unwrap();
    done("teardown --workload thread --yes", &flags).unwrap();
    assert_eq!(rows(), [0, 0]);
    // Longer ago and in more rooms than what is seeded last, and the first again in between.
    for (preset, buckets, room) in
        [("small", 9, "room-000001"), ("medium", 6, "room-000070"), ("small", 3, "room-000002")]
    {
        done(&format!("seed --preset {preset} {}", anchor(buckets)), &without).unwrap();
        sent(room, now - buckets * 259_200_000);
        done("teardown --yes", &without).unwrap();
    }
    done("seed --preset small", &without).unwrap();
    sent("room-000003", now);
    // Of rooms that nobody has seeded here.
    sent("room-000500", now);
    assert_eq!(rows(), [5, 5]);
    let told = plimsoll("teardown --dry-run", &flags).unwrap();
    assert!(
        told.stderr.contains("those of 100 rooms of a seeding before it, with --workload messages --preset medium"),
        "{told:?}"
    );
    done("teardown --yes", &flags).unwrap();
    assert_eq!(rows(), [1, 1]);
    assert!(documents(&mongo.uri(), "chat", "plimsoll_seeds").unwrap().is_empty());
}

/// The bucket of 72 hours that services write to now.
fn bucket_of_now() -> i64 {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970").as_millis()
            as i64;
    now.div_euclid(259_200_000) * 259_200_000
}

#[test]
fn messages_of_another_site_are_neither_written_over_nor_removed() {
    need_both();
    let (a, cassandra, of_a) = both("shared").unwrap();
    done("seed --workload history --preset history-small --create-schema --site-id a", &of_a).unwrap();
    let rows = |table: &str| cassandra.rows(&format!("shared.{table}")).unwrap();
    let (by_room, by_id) = (rows("messages_by_room"), rows("messages_by_id"));
    // Of another MongoDB that shares the keyspace.
    let b = MongoServer::start(&Default::default()).unwrap();
    let of_b = both_flags(&b, cassandra, "shared");
    let seed = "seed --workload history --preset history-small --create-schema --site-id b";
    let error = refused(seed, &of_b, 2).unwrap();
    assert!(error.contains("has messages of hroom-000000 in the keyspace shared for the site a, not b"), "{error}");
    assert!(error.contains("take another --cassandra-keyspace"), "{error}");
    // Not an index, not a record.
    assert_eq!(with_database(&b.uri(), "chat", "out = db.list_collection_names()").unwrap(), json!([]));
    assert_eq!((rows("messages_by_room"), rows("messages_by_id")), (by_room.clone(), by_id.clone()));
    // In one MongoDB too, with a keyspace of its own.
    let error = refused(&seed.replace(" --create-schema", ""), &of_a, 2).unwrap();
    assert!(
        error.contains("for the site a, not b") && error.contains("--mongo-db and --cassandra-keyspace"),
        "{error}"
    );
    // Where both are there already, whoever wrote last has the ids; each removes its own.
    done(seed, &both_flags(&b, cassandra, "shared_b")).unwrap();
    let columns = "room_id, created_at, message_id, site_id";
    let of = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        (text("room_id"), row["created_at"].as_i64().unwrap(), text("message_id"))
    };
    let (mut statements, taken) = (Vec::new(), cassandra.rows("shared_b.messages_by_id").unwrap());
    for row in &taken[..40] {
        let (room, at, id) = of(row);
        let bucket = at.div_euclid(259_200_000) * 259_200_000;
        // A millisecond later: the two sites were not seeded in the same instant.
        let at = at + 1;
        statements.push(format!("INSERT INTO shared.messages_by_id ({columns}) VALUES ('{room}', {at}, '{id}', 'b')"));
        statements.push(format!(
            "INSERT INTO shared.messages_by_room (bucket, {columns}) VALUES ({bucket}, '{room}', {at}, '{id}', 'b')"
        ));
    }
    cassandra.execute(&statements).unwrap();
    let torn = done("teardown --workload history --site-id a --yes", &of_a).unwrap();
    assert!(torn.contains("left in Cassandra: 40 messages of other sites"), "{torn}");
    for table in ["messages_by_room", "messages_by_id"] {
        let left = rows(table);
        assert!(left.len() == 40 && left.iter().all(|row| row["site_id"] == "b"), "{table}: {left:?}");
    }
    assert_eq!(documents(&a.uri(), "chat", "rooms").unwrap().len(), 0);
}

#[test]
fn rooms_and_members_of_people_stay_and_what_runs_made_goes_whole() {
    need_both();
    let (mongo, cassandra, flags) = both("people_stay").unwrap();
    done("seed --workload daily --preset daily-light --users 100 --create-schema", &flags).unwrap();
    let script = "\
def room(id, name, owner, other):
    site = {'siteId': 'site-local', 'roomId': id}
    db.rooms.insert_one({'_id': id, 'name': name, 'siteId': 'site-local'})
    db.subscriptions.insert_one({**site, '_id': id + '1', 'name': name, 'roles': ['owner'], 'u': {'account': owner}})
    db.subscriptions.insert_one({**site, '_id': id + '2', 'name': name, 'roles': ['member'], 'u': {'account': other}})
    db.thread_rooms.insert_one({**site, '_id': id + '3', 'parentMessageId': id})
    db.thread_subscriptions.insert_one({**site, '_id': id + '4', 'threadRoomId': id + '3', 'userAccount': other})
    db.room_members.insert_one({'_id': id + '5', 'rid': id})
room('team', 'plimsoll-team', 'ann', 'user-3')
room('hers', 'plimsoll-1f-0-2a-7', 'ann', 'user-7')
room('run', 'plimsoll-1f-0-2a-7', 'user-7', 'user-8')";
    with_database(&mongo.uri(), "chat", script).unwrap();
    let bucket = "1700000000000";
    let now = "toTimestamp(now())";
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let bucket_now = at.div_euclid(259_200_000) * 259_200_000;
    assert_ne!(bucket_now.to_string(), bucket);
    let mut statements = Vec::new();
    for room in ["team", "hers", "run"] {
        let more = [
            (
                "messages_by_room",
                format!("'{room}', {bucket_now}, {now}, 'm-{room}'"),
                "room_id, bucket, created_at, message_id",
            ),
            ("messages_by_id", format!("'{room}', {now}, 'm-{room}'"), "room_id, created_at, message_id"),
            ("messages_by_id", format!("'{room}', {now}, 'r-{room}'"), "room_id, created_at, message_id"),
            (
                "thread_messages_by_thread",
                format!("'{room}3', {now}, 'r-{room}'"),
                "thread_room_id, created_at, message_id",
            ),
        ];
        statements.extend(
            more.map(|(table, values, columns)| {
                format!("INSERT INTO people_stay.{table} ({columns}) VALUES ({values})")
            }),
        );
    }
    cassandra.execute(&statements).unwrap();
    done("teardown --workload daily --yes", &flags).unwrap();
    assert_eq!(counts(&mongo), json!([0, 2, 4, 2, 2, 2]));
    let ids = |table: &str| -> Vec<String> {
        let rows = cassandra.rows(&format!("people_stay.{table}")).unwrap();
        let mut ids: Vec<String> = rows.iter().map(|row| row["message_id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids("messages_by_room"), ["m-hers", "m-team"]);
    assert_eq!(ids("messages_by_id"), ["m-hers", "m-team", "r-hers", "r-team"]);
    assert_eq!(ids("thread_messages_by_thread"), ["r-hers", "r-team"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_message_that_the_chat_opened_is_nobodys_to_seed_to_count_or_to_remove() {
    need_mongo();
    let nats = NatsServer::start(NatsOptions::default()).unwrap();
    let config = StandinConfig { preset: "realistic".parse().unwrap(), ..StandinConfig::new(nats.url()) };
    let standin = Standin::start(config).await.unwrap();
    let url = nats.url();
    tokio::task::spawn_blocking(move || {
        let mongo = MongoServer::start(&Default::default()).unwrap();
        let flags = mongo_flags(&mongo);
        done("seed --preset realistic --create-schema", &flags).unwrap();
        let script = "\
seeded = {r['_id'] for r in db.rooms.find({'type': 'dm'})}
pairs = (f'u-{a:06}u-{b:06}' for a in range(1000) for b in range(a + 1, 1000))
id = next(pair for pair in pairs if pair not in seeded)
db.rooms.insert_one({'_id': id, 'name': '', 'type': 'dm', 'siteId': 'site-local'})
db.subscriptions.insert_many([{'_id': f'0198{n}', 'roomId': id, 'siteId': 'site-local', 'u': {'account': f'user-{n}'}} for n in (1, 2)])";
        with_database(&mongo.uri(), "chat", script).unwrap();
        done("seed --preset realistic", &flags).unwrap();
        done(&format!("verify --preset realistic --nats-url {url}"), &flags).unwrap();
        done("teardown --yes", &flags).unwrap();
        assert_eq!(counts(&mongo), json!([0, 1, 2, 0, 0, 0]));
    })
    .await
    .unwrap();
    standin.shutdown().await.unwrap();
}

#[test]
fn nothing_is_removed_while_a_record_of_the_site_cannot_be_read() {
    need_mongo();
    let mongo = MongoServer::start(&Default::default()).unwrap();
    let flags = mongo_flags(&mongo);
    done("seed --preset small --create-schema", &flags).unwrap();
    done("seed --workload members --preset members-small", &flags).unwrap();
    let before = counts(&mongo);
    for (change, words) in [
        ("'format': 99", "site-local/mroom was seeded by a newer release (format 99"),
        ("'format': 2, 'preset': 'members-huge'", "members-huge"),
    ] {
        let script = format!("db.plimsoll_seeds.update_one({{'_id': 'site-local/mroom'}}, {{'$set': {{{change}}}}})");
        with_database(&mongo.uri(), "chat", &script).unwrap();
        let error = refused("teardown --yes", &flags, 2).unwrap();
        assert!(
            error.contains(words) && error.contains("until then nothing of the site site-local is removed"),
            "{error}"
        );
        // Of what it seeded, messages might be part.
        let error = refused("teardown --drop --yes", &flags, 2).unwrap();
        assert!(error.contains("pass the --cassandra-hosts"), "{error}");
        assert_eq!(counts(&mongo), before);
    }
}

#[test]
fn what_is_in_the_way_is_found_before_any_schema_is_made() {
    need_both();
    let mongo = MongoServer::start(&Default::default()).unwrap();
    let cassandra = cassandra().unwrap();
    let flags = both_flags(&mongo, cassandra, "unmade");
    with_database(&mongo.uri(), "chat", "db.rooms.insert_one({'_id': 'room-000001', 'siteId': 'b'})").unwrap();
    let seed = "seed --workload thread --preset small --create-schema";
    let error = refused(seed, &flags, 2).unwrap();
    assert!(error.contains("for the site b, not site-local"), "{error}");
    let collections = "out = db.list_collection_names()";
    assert_eq!(with_database(&mongo.uri(), "chat", collections).unwrap(), json!(["rooms"]));
    let keyspaces = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = 'unmade'";
    assert!(cassandra.select(keyspaces).unwrap().is_empty());
    // Another preset of the same rooms is found as early.
    with_database(&mongo.uri(), "chat", "db.rooms.drop()").unwrap();
    done("seed --preset small --create-schema", &mongo_flags(&mongo)).unwrap();
    refused(&seed.replace("small", "medium"), &flags, 2).unwrap();
    assert!(cassandra.select(keyspaces).unwrap().is_empty());
}

#[test]
fn what_is_wrong_with_one_database_is_told_whatever_is_wrong_with_the_others() {
    need_both();
    let (mongo, cassandra, flags) = both("halves").unwrap();
    done("seed --workload thread --preset small --create-schema", &flags).unwrap();
    cassandra.execute(&["DROP KEYSPACE halves".to_owned()]).unwrap();
    let changes = "db.users.drop_indexes()\ndb.rooms.update_one({'_id': 'room-000000'}, {'$set': {'name': 'x'}})";
    with_database(&mongo.uri(), "chat", changes).unwrap();
    let told = plimsoll("verify --workload thread --preset small --nats-url nats://127.0.0.1:1", &flags).unwrap();
    assert_eq!(told.code, Some(2), "{told:?}");
    let lines: Vec<&str> = told.stderr.lines().collect();
    for (line, words) in lines.iter().zip([
        "MongoDB has no unique index (account) on users",
        "MongoDB: rooms: room-000000 has name",
        "has no keyspace halves with tables",
        "NATS at nats://127.0.0.1:1 cannot be reached",
    ]) {
        assert!(line.starts_with("error: ") && line.contains(words), "no {words} in {line}: {told:?}");
    }
    assert_eq!(lines.len(), 4, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_are_asked_for_a_few_at_once_however_many_there_are() {
    need_both();
    let (mongo, _, flags) = tokio::task::spawn_blocking(|| both("threads").unwrap()).await.unwrap();
    let proxy = MongoProxy::start(mongo.address(), &["getMore"], Fault::Bound).await.unwrap();
    tokio::task::spawn_blocking(move || {
        done("seed --workload thread --preset small --create-schema", &flags).unwrap();
        let threads = "\
db.thread_rooms.insert_many([{'_id': f't{n}', 'parentMessageId': f'm{n}', 'roomId': 'room-000001', 'siteId': 'site-local'} for n in range(2500)])";
        with_database(&mongo.uri(), "chat", threads).unwrap();
        let through = [&[format!("--mongo-uri={}", proxy.uri())], &flags[1..]].concat();
        done("teardown --workload thread --yes", &through).unwrap();
        assert_eq!(counts(&mongo), json!([0, 0, 0, 0, 0, 0]));
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_document_is_named_up_to_ten_of_a_kind() {
    need_mongo();
    let nats = NatsServer::start(NatsOptions::default()).unwrap();
    let config = StandinConfig { preset: "medium".parse().unwrap(), ..StandinConfig::new(nats.url()) };
    let standin = Standin::start(config).await.unwrap();
    let url = nats.url();
    tokio::task::spawn_blocking(move || {
        let mongo = MongoServer::start(&Default::default()).unwrap();
        let flags = mongo_flags(&mongo);
        done("seed --preset medium --create-schema", &flags).unwrap();
        let changes = "\
db.rooms.update_many({}, {'$set': {'name': 'x'}})
db.users.update_many({'_id': {'$in': ['u-000000', 'u-000999']}}, {'$set': {'engName': 'x'}})
db.subscriptions.update_many({'roles': 'owner'}, {'$set': {'roles': ['member']}})";
        with_database(&mongo.uri(), "chat", changes).unwrap();
        let told = plimsoll(&format!("verify --preset medium --nats-url {url}"), &flags).unwrap();
        assert_eq!(told.code, Some(2), "{told:?}");
        let mut named: HashMap<&str, usize> = HashMap::new();
        for line in told.stderr.lines() {
            let kind = ["users", "rooms", "subscriptions"]
                .into_iter()
                .find(|kind| line.contains(&format!("MongoDB: {kind}: ")));
            *named.entry(kind.unwrap_or("other")).or_default() += 1;
        }
        // Of 32 rooms ten, and how many more.
        assert_eq!(named, HashMap::from([("users", 2), ("rooms", 11), ("subscriptions", 11)]), "{told:?}");
        assert!(told.stderr.contains("rooms: 22 more that were compared"), "{told:?}");
        assert!(told.stderr.contains("has roles [\"member\"], and has to have [\"owner\"]"), "{told:?}");
    })
    .await
    .unwrap();
    standin.shutdown().await.unwrap();
}
