//! Every workload that is seeded is found whole, by `verify` and by a run before its first load, and one thing that is wrong
//! with it is told with what mends it, which does.

use super::{both, done, mongo_flags, plimsoll};
use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_tests::harness::databases::{MongoServer, need_both, need_mongo, with_database};
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::standin::{Standin, StandinConfig};
use serde_json::json;

/// Of a run that ends soon.
fn run(workload: &str, preset: &str, nats: &str) -> String {
    format!(
        "max-rps --workload {workload} --preset {preset} --steps 20 --warmup 0s --hold 1s --slo-p95 2s --slo-p99 2s \
         --request-timeout 3s --results none --local 1 --nats-url {nats}"
    )
}

/// On one line, however it was broken.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn with_standin(test: impl FnOnce(String) + Send + 'static) {
    let _box = Shared::acquire().expect("a share of the box");
    let nats = NatsServer::start(NatsOptions::default()).expect("NATS starts");
    let config = StandinConfig { preset: MessagesPreset::Small, ..StandinConfig::new(nats.url()) };
    let standin = Standin::start(config).await.expect("a stand-in starts");
    let url = nats.url();
    tokio::task::spawn_blocking(move || test(url)).await.expect("the test does not panic");
    standin.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_to_be_read_are_renewed_where_their_newest_message_is_no_longer_ahead() {
    need_mongo();
    with_standin(|url| {
        let mongo = MongoServer::start(&Default::default()).unwrap();
        let flags = mongo_flags(&mongo);
        let seed = "seed --workload room-read --preset small";
        let verify = format!("verify --workload room-read --preset small --nats-url {url}");
        done(&format!("{seed} --create-schema"), &flags).unwrap();
        let verified = joined(&done(&verify, &flags).unwrap());
        assert!(verified.contains("storage mongodb lastMsgAt ahead for another "), "{verified}");
        let ran = plimsoll(&run("room-read", "small", &url), &flags).unwrap();
        assert!(joined(&ran.stdout).contains("storage mongodb lastMsgAt = ahead for another "), "{ran:?}");
        // As if it had been seeded 30 hours ago.
        let long_ago = "\
before = datetime.timedelta(hours=30)
record = db.plimsoll_seeds.find_one({'kind': 'seed'})
db.plimsoll_seeds.update_one({'kind': 'seed'}, {'$set': {'anchor': record['anchor'] - before}})
for room in db.rooms.find():
    times = {name: room[name] - before for name in ('lastMsgAt', 'minUserLastSeenAt', 'createdAt', 'updatedAt')}
    db.rooms.update_one({'_id': room['_id']}, {'$set': times})";
        with_database(&mongo.uri(), "chat", long_ago).unwrap();
        let mend = format!("`plimsoll seed --workload room-read --preset small --site-id site-local --mongo-uri {} --mongo-db chat` writes it again", mongo.uri());
        for asked in [&verify, &run("room-read", "small", &url)] {
            let told = plimsoll(asked, &flags).unwrap();
            assert_eq!((told.code, told.stdout.as_str()), (Some(2), ""), "{told:?}");
            assert!(told.stderr.contains("lastMsgAt of room-000000 was 6h ") && told.stderr.contains(&mend), "{told:?}");
        }
        done(seed, &flags).unwrap();
        // What counts from the first seeding stays where it was.
        let times = "\
record = db.plimsoll_seeds.find_one({'kind': 'seed'})
day = datetime.timedelta(days=1)
rooms = list(db.rooms.find())
out = [all(room['createdAt'] == record['anchor'] - day for room in rooms),
       all(room['lastMsgAt'] == record['renewed'] + day for room in rooms)]";
        assert_eq!(with_database(&mongo.uri(), "chat", times).unwrap(), json!([true, true]));
        done(&verify, &flags).unwrap();
        // A run that outlasts what is ahead is told that no seeding helps.
        let long = format!(
            "run --workload room-read --preset small --rate 5 --duration 25h --results none --local 1 --nats-url {url}"
        );
        let told = plimsoll(&long, &flags).unwrap();
        assert!(
            told.code == Some(2) && told.stderr.contains("and no seeding puts lastMsgAt of a room further ahead"),
            "{told:?}"
        );
        let never = "db.subscriptions.update_one({'_id': 'sub-room-000001-u-000001'}, {'$unset': {'lastSeenAt': 1}})";
        with_database(&mongo.uri(), "chat", never).unwrap();
        let told = plimsoll(&verify, &flags).unwrap();
        assert!(told.stderr.contains("sub-room-000001-u-000001 has no lastSeenAt"), "{told:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_readers_and_members_are_found_whole_and_what_is_not_is_told() {
    need_both();
    with_standin(|url| {
        let (mongo, cassandra, flags) = both("green").unwrap();
        let receipts = "seed --workload read-receipt --preset history-small";
        done(&format!("{receipts} --create-schema"), &flags).unwrap();
        done("seed --workload members --preset members-small", &flags).unwrap();
        let verify = |workload: &str, preset: &str| format!("verify --workload {workload} --preset {preset} --nats-url {url}");
        let all = [("history", "history-small"), ("read-receipt", "history-small"), ("members", "members-small")];
        for (workload, preset) in all {
            let verified = done(&verify(workload, preset), &flags).unwrap();
            assert!(verified.contains("everything is as"), "{workload}: {verified}");
        }
        let ran = joined(&plimsoll(&run("history", "history-small", &url), &flags).unwrap().stdout);
        assert!(ran.contains("storage cassandra messages = 400 of 4 rooms as seeded, 32 compared"), "{ran}");
        // A message between the first and the last, which only its id finds.
        let gone = "DELETE FROM green.messages_by_id WHERE message_id = 'hmsg-hroom-000002-000033'";
        cassandra.execute(&[gone.to_owned()]).unwrap();
        for (asked, found) in [(verify("history", "history-small"), "99 of 100"), (run("history", "history-small", &url), "63 of 64")] {
            let told = plimsoll(&asked, &flags).unwrap();
            let words = format!("messages_by_id has {found} messages of hroom-000002 that were looked for, and not hmsg-hroom-000002-000033");
            assert!(told.code == Some(2) && told.stderr.contains(&words), "{told:?}");
        }
        done(receipts, &flags).unwrap();
        done(&verify("history", "history-small"), &flags).unwrap();
        // Readers who have not read, members who are gone or too many.
        let wrong = |script: &str, workload: &str, preset: &str| {
            with_database(&mongo.uri(), "chat", script).unwrap();
            let told = plimsoll(&verify(workload, preset), &flags).unwrap();
            assert_eq!(told.code, Some(2), "{script}: {told:?}");
            told.stderr
        };
        let unread = "db.subscriptions.update_many({'roomId': 'hroom-000001'}, {'$unset': {'lastSeenAt': 1}})";
        let told = wrong(unread, "read-receipt", "history-small");
        assert!(told.contains("sub-hroom-000001-") && told.contains("has no lastSeenAt, and has to have one: `plimsoll seed"), "{told}");
        let gone = "db.subscriptions.delete_one({'roomId': 'mroom-000003', 'roles': 'member'})";
        let told = wrong(gone, "members", "members-small");
        assert!(told.contains("MongoDB has 49 documents of members-small in subscriptions") && told.contains("writes it again"), "{told}");
        done("seed --workload members --preset members-small", &flags).unwrap();
        // Whose ids are like ours, and who are not ours, stay when it is seeded again: another remedy is told.
        for (collection, id) in [("subscriptions", "sub-hroom-000001-u-999999"), ("thread_rooms", "tr-hroom-000001-000001")] {
            let script = format!(
                "db.{collection}.insert_one({{'_id': '{id}', 'roomId': 'hroom-000001', 'siteId': 'site-local', \
                 'u': {{'account': 'x'}}, 'parentMessageId': 'x'}})"
            );
            let told = wrong(&script, "history", "history-small");
            let mend = "`plimsoll teardown --workload read-receipt --site-id site-local --mongo-uri ";
            assert!(told.contains(&format!(" in {collection} for the site")) && told.contains(mend), "{told}");
            assert!(told.contains("`, then `plimsoll seed --workload read-receipt"), "{told}");
        }
        done("teardown --workload read-receipt --yes", &flags).unwrap();
        done(receipts, &flags).unwrap();
        for (workload, preset) in all {
            done(&verify(workload, preset), &flags).unwrap();
        }
    })
    .await;
}
