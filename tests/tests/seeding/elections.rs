//! A replica set whose primary steps down in the middle: whoever seeds or removes waits for another to be elected.

use super::{LIMIT, command, done, frozen_when};
use plimsoll_tests::harness::databases::{MongoOptions, MongoServer, need_mongo, with_database};
use plimsoll_tests::harness::processes::{Ended, Process};
use plimsoll_tests::harness::prove;
use serde_json::json;

const SEED: &str = "seed --preset large --create-schema";
const COUNTS: &str = "out = [db[c].count_documents({}) for c in ('users', 'rooms', 'subscriptions')]";

/// How a command ends whose primary steps down for so long as soon as this is true of the database.
fn stepped_down(arguments: &str, mongo: &MongoServer, uri: &str, when: &str, seconds: u32) -> anyhow::Result<Ended> {
    let mut process = Process::spawn(command(arguments, &[format!("--mongo-uri={uri}")])?)?;
    frozen_when(process.pid(), mongo, when)?;
    mongo.step_down(seconds)?;
    process.signal(libc::SIGCONT)?;
    // Its last write is the note that it is whole, which no secondary takes: while that lasts it does too.
    process.wait(LIMIT)
}

#[test]
fn a_primary_that_steps_down_is_waited_for_whatever_is_being_done() {
    need_mongo();
    let mongo = MongoServer::start(&MongoOptions { fails_when_told: true, ..MongoOptions::default() }).unwrap();
    // Whoever knows the set looks for another primary; who was told of one server alone asks that again.
    let (of_set, alone) = ("replicaSet=secantus&serverSelectionTimeoutMS=500", "directConnection=true");
    let uri = |options: &str| format!("{}/?{options}", mongo.uri());
    let begun = "db.users.find_one() is not None and db.plimsoll_seeds.count_documents({'finished': True}) == 0";
    let seeded = stepped_down(SEED, &mongo, &uri(of_set), begun, 3).unwrap();
    assert_eq!(seeded.code, Some(0), "{seeded:?}");
    assert_eq!(with_database(&mongo.uri(), "chat", COUNTS).unwrap(), json!([10_000, 1_000, 10_000]));
    let begun = "db.plimsoll_seeds.count_documents({'kind': 'shard'}) == 0";
    let removed = stepped_down("teardown --yes", &mongo, &uri(alone), begun, 3).unwrap();
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert_eq!(with_database(&mongo.uri(), "chat", COUNTS).unwrap(), json!([0, 0, 0]));
    // Written, and not known to have reached the others before it stepped down, was shut down or began to recover.
    // No primary really steps down here, of which the server would tell: the driver asks soon.
    let flags = [format!("--mongo-uri={}", uri("heartbeatFrequencyMS=500"))];
    done("seed --preset small", &flags).unwrap();
    for (command, code) in [("insert", 189), ("update", 91), ("delete", 11_602)] {
        let script = format!(
            "db.client.admin.command('configureFailPoint', 'failCommand', mode={{'times': 2}}, \
             data={{'failCommands': ['{command}'], 'writeConcernError': {{'code': {code}, 'errmsg': 'unknown'}}}})"
        );
        with_database(&mongo.uri(), "chat", &script).unwrap();
        done("seed --preset small", &flags).unwrap();
        // It has happened so often: to nobody else any more.
        let again = "db.others.insert_one({})\ndb.others.update_one({}, {'$set': {'x': 1}})\ndb.others.delete_one({})";
        with_database(&mongo.uri(), "chat", again).unwrap();
    }
    if prove::whole() {
        done("teardown --yes", &flags).unwrap();
        let ended = stepped_down(SEED, &mongo, &uri(of_set), "db.users.find_one() is not None", 3600).unwrap();
        assert!(ended.code == Some(3) && ended.stdout.is_empty(), "{ended:?}");
        let words = "once it is back or another is elected, the same command goes on";
        assert!(ended.stderr.contains("was lost while") && ended.stderr.contains(words), "{ended:?}");
    }
}
