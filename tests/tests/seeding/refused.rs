//! What cannot be seeded is said in one line, with what to do, and nothing is claimed that is not there.

use super::{both, both_flags, command, done, mongo_flags, refused};
use plimsoll_tests::harness::databases::{
    MongoOptions, MongoServer, cassandra, certificate, documents, need_both, need_mongo, with_database,
};
use plimsoll_tests::harness::mongo_proxy::{Fault, MongoProxy};
use plimsoll_tests::harness::processes::Process;
use std::time::Duration;

#[test]
fn another_site_preset_or_schema_is_refused_before_anything_is_written() {
    need_mongo();
    let mongo = MongoServer::start(&Default::default()).unwrap();
    let flags = mongo_flags(&mongo);
    let error = refused("seed --preset small", &flags, 2).unwrap();
    assert!(
        error.contains("has no unique index (account) on users, which room-service makes when it starts"),
        "{error}"
    );
    assert!(error.contains("--create-schema"), "{error}");
    assert!(documents(&mongo.uri(), "chat", "plimsoll_seeds").unwrap().is_empty());
    done("seed --preset small --create-schema", &flags).unwrap();
    let error = refused("seed --preset medium", &flags, 2).unwrap();
    assert!(error.contains("--preset is medium here and small there"), "{error}");
    assert!(
        error.contains("remove them with `plimsoll teardown --workload messages --site-id site-local --mongo-uri ")
            && error.contains(" --mongo-db chat` first"),
        "{error}"
    );
    let error = refused("seed --preset small --seed 7", &flags, 2).unwrap();
    assert!(error.contains("--seed is 7 here and 42 there"), "{error}");
    let error = refused("seed --preset small --site-id elsewhere", &flags, 2).unwrap();
    assert!(error.contains("has room-000000 in rooms for the site site-local, not elsewhere"), "{error}");
    assert!(
        error.contains("remove it with `plimsoll teardown --workload messages --site-id site-local --mongo-"),
        "{error}"
    );
    // What is in the way of other rooms are the users, and those are of what was seeded.
    let error = refused("seed --workload members --preset members-small --site-id elsewhere", &flags, 2).unwrap();
    assert!(
        error.contains(" in users for the site") && error.contains("teardown --workload messages --site-id"),
        "{error}"
    );
    let taken = "db.users.delete_one({'_id': 'u-000003'})\ndb.users.insert_one({'_id': 'x', 'account': 'user-3', 'siteId': 's'})";
    with_database(&mongo.uri(), "chat", taken).unwrap();
    // Found before anything is written, and nobody is told to empty the chat.
    let error = refused("seed --preset small", &flags, 2).unwrap();
    assert!(error.contains("has the account user-3 in users under the id x, which is none of ours"), "{error}");
    assert!(error.contains("take another --mongo-db") && !error.contains("--drop"), "{error}");
}

#[test]
fn a_database_that_is_not_there_is_named_with_its_flag() {
    need_mongo();
    let nowhere = ["--mongo-uri=mongodb://ann:SECRET@127.0.0.1:1".to_owned()];
    let error = refused("seed --preset small", &nowhere, 2).unwrap();
    assert!(error.starts_with("MongoDB at mongodb://***@127.0.0.1:1 cannot be reached"), "{error}");
    assert!(error.contains("correct --mongo-uri") && !error.contains("SECRET"), "{error}");
    let mongo = MongoServer::start(&Default::default()).unwrap();
    let mut flags = mongo_flags(&mongo);
    flags.push("--cassandra-hosts=127.0.0.1:1".to_owned());
    let error = refused("seed --workload history --preset history-small", &flags, 2).unwrap();
    assert!(error.starts_with("Cassandra at 127.0.0.1:1 cannot be reached"), "{error}");
    assert!(error.contains("correct --cassandra-hosts"), "{error}");
    for unread in ["mongodb://ann:SECRETWORD?@db:27017", "mongodb://ann:SECRETWORD"] {
        let error = refused("seed --preset small", &[format!("--mongo-uri={unread}")], 2).unwrap();
        assert!(error.contains("percent-encoded") && !error.contains("SECRET"), "{error}");
    }
    for (flag, named) in [
        ("--mongo-uri=mongodb://db.invalid:27017", "MongoDB at mongodb://db.invalid:27017 cannot be reached"),
        (
            "--mongo-uri=mongodb+srv://db.invalid",
            "--mongo-uri: the servers of mongodb+srv://db.invalid cannot be looked up",
        ),
    ] {
        let error = refused("seed --preset small", &[flag.to_owned()], 2).unwrap();
        assert!(error.contains(named) && (error.contains("lookup") || error.contains("in DNS")), "{error}");
    }
    let unknown = [mongo_flags(&mongo)[0].clone(), "--cassandra-hosts=db.invalid".to_owned()];
    let seed = "seed --workload history --preset history-small --create-schema";
    for command in [seed, "teardown --workload history --drop --yes"] {
        let error = refused(command, &unknown, 2).unwrap();
        assert!(
            error.starts_with("Cassandra at db.invalid:9042 cannot be reached (Couldn't resolve any hostname"),
            "{error}"
        );
        assert!(error.contains("correct --cassandra-hosts"), "{error}");
    }
    let collections = with_database(&mongo.uri(), "chat", "out = db.list_collection_names()").unwrap();
    assert_eq!(collections, serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_may_not_or_cannot_write_is_told_and_a_lost_connection_is_made_anew() {
    need_mongo();
    let mongo = MongoServer::start(&Default::default()).unwrap();
    done("seed --preset small --create-schema", &mongo_flags(&mongo)).unwrap();
    let seed = |uri: String, code: i32| async move {
        let asked =
            tokio::task::spawn_blocking(move || refused("seed --preset small", &[format!("--mongo-uri={uri}")], code));
        asked.await.unwrap().unwrap()
    };
    let may_not = Fault::Refuse(13, "not authorized on chat to execute command { insert: \"users\" }");
    let proxy = MongoProxy::start(mongo.address(), &["insert"], may_not.clone()).await.unwrap();
    let error = seed(proxy.uri(), 2).await;
    assert!(
        error.contains("does not allow writing to plimsoll_seeds")
            && error.contains("give the user the role readWrite on chat"),
        "{error}"
    );
    // Where its record was written, it has begun.
    let begun = MongoServer::start(&Default::default()).unwrap();
    let indexes = "db.users.create_index('account', unique=True)\n\
        db.subscriptions.create_index([('roomId', 1), ('u.account', 1)], unique=True)";
    with_database(&begun.uri(), "chat", indexes).unwrap();
    for (commands, code, records) in [(&["insert"], 2, 0), (&["update"], 3, 1)] {
        let proxy = MongoProxy::start(begun.address(), commands, may_not.clone()).await.unwrap();
        let error = seed(proxy.uri(), code).await;
        assert!(error.contains("does not allow writing to plimsoll_seeds"), "{error}");
        assert_eq!(documents(&begun.uri(), "chat", "plimsoll_seeds").unwrap().len(), records);
    }
    let proxy = MongoProxy::start(mongo.address(), &["delete"], may_not).await.unwrap();
    let error = seed(proxy.uri(), 3).await;
    assert!(error.contains("does not allow removing from subscriptions"), "{error}");
    let full =
        Fault::Refuse(14_031, "available disk space of 209715200 bytes is less than required minimum of 524288000");
    let proxy = MongoProxy::start(mongo.address(), &["update"], full).await.unwrap();
    let error = seed(proxy.uri(), 3).await;
    assert!(error.contains("has no disk space left for writing 10 documents to users"), "{error}");
    assert!(error.contains("make room, and the same command goes on"), "{error}");
    let proxy = MongoProxy::start(mongo.address(), &["insert", "update"], Fault::Close(2)).await.unwrap();
    let flags = [format!("--mongo-uri={}", proxy.uri())];
    tokio::task::spawn_blocking(move || done("seed --preset small", &flags).unwrap()).await.unwrap();
    let proxy = MongoProxy::start(mongo.address(), &["delete"], Fault::Close(u32::MAX)).await.unwrap();
    let error = seed(proxy.uri(), 3).await;
    assert!(error.contains("was lost while removing from subscriptions"), "{error}");
    assert!(error.contains("once it is back, the same command goes on"), "{error}");
}

#[test]
fn who_may_only_read_and_who_is_nobody_are_told_apart() {
    need_both();
    let (mongo, cassandra, flags) = both("locked").unwrap();
    done("seed --workload thread --preset small --create-schema", &flags).unwrap();
    cassandra
        .execute(&[
            "CREATE ROLE reader WITH PASSWORD = 'cassandra' AND LOGIN = true".to_owned(),
            "GRANT SELECT ON KEYSPACE locked TO reader".to_owned(),
        ])
        .unwrap();
    let as_user = |user: &str| -> Vec<String> {
        let mut flags = both_flags(&mongo, cassandra, "locked");
        flags.pop();
        flags.push(format!("--cassandra-username={user}"));
        flags
    };
    let error = refused("seed --workload thread --preset small", &as_user("reader"), 3).unwrap();
    assert!(error.contains("does not allow writing to messages_by_"), "{error}");
    assert!(error.contains("grant SELECT and MODIFY on keyspace locked to the role"), "{error}");
    let error = refused("seed --workload thread --preset small", &as_user("nobody"), 2).unwrap();
    assert!(
        error.contains("does not let us in") && error.contains("check --cassandra-username and --cassandra-password"),
        "{error}"
    );
    let mut elsewhere = both_flags(&mongo, cassandra, "nothere");
    let error = refused("seed --workload thread --preset small", &elsewhere, 2).unwrap();
    assert!(error.contains("has no keyspace nothere with tables: run the chat's Cassandra scripts"), "{error}");
    let error = refused("seed --workload thread --preset small --create-schema", &elsewhere, 2).unwrap();
    assert!(error.contains("--cassandra-keyspace is nothere here and locked there"), "{error}");
    let error = refused("teardown --workload thread --yes", &elsewhere, 2).unwrap();
    assert!(
        error.contains("seeded into another keyspace (--cassandra-keyspace is nothere here and locked there)"),
        "{error}"
    );
    let error = refused("teardown --drop --yes", &elsewhere, 2).unwrap();
    assert!(
        error.contains("--drop would empty the keyspace nothere, and the messages of --workload thread"),
        "{error}"
    );
    assert!(error.contains("name that one with --cassandra-keyspace locked"), "{error}");
    assert!(!cassandra.rows("locked.messages_by_id").unwrap().is_empty());
    // Who may read everything may make nothing.
    cassandra
        .execute(&[
            "CREATE KEYSPACE bare WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}".to_owned()
        ])
        .unwrap();
    for (keyspace, grant) in
        [("unmade2", "grant CREATE on all keyspaces"), ("bare", "grant CREATE, SELECT and MODIFY on keyspace bare")]
    {
        let mut flags = both_flags(&mongo, cassandra, keyspace);
        flags.pop();
        flags.push("--cassandra-username=reader".to_owned());
        // Its indexes are there: nothing else is made.
        let error = refused("seed --workload history --preset history-small --create-schema", &flags, 2).unwrap();
        assert!(error.contains("does not allow making") && error.contains(grant), "{error}");
    }
    cassandra.execute(&["ALTER TABLE locked.messages_by_id DROP tcount".to_owned()]).unwrap();
    elsewhere = both_flags(&mongo, cassandra, "locked");
    let error = refused("seed --workload thread --preset small", &elsewhere, 2).unwrap();
    assert!(error.contains("the column tcount of locked.messages_by_id is missing"), "{error}");
}

#[test]
fn both_are_reached_over_tls_and_with_passwords_that_nothing_shows() {
    need_both();
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path()).unwrap();
    let file = |name: &str| dir.path().join(name);
    let mongo = MongoServer::start(&MongoOptions {
        tls: Some((file("ca.pem"), file("server.key"))),
        user: Some(("ann".to_owned(), "SECRETWORD".to_owned())),
        dir: Some(file("data")),
        ..MongoOptions::default()
    })
    .unwrap();
    let cassandra = cassandra().unwrap();
    std::fs::write(file("password"), "SECRETWORD\n").unwrap();
    std::fs::write(file("cassandra-password"), "cassandra\n").unwrap();
    let mut flags = both_flags(&mongo, cassandra, "secret");
    flags.extend([
        format!("--mongo-tls-ca={}", file("ca.pem").display()),
        "--mongo-username=ann".to_owned(),
        format!("--mongo-password={}", file("password").display()),
        format!("--cassandra-tls-ca={}", cassandra.ca().display()),
        format!("--cassandra-password={}", file("cassandra-password").display()),
    ]);
    let mut seeding = command("seed --workload thread --preset small --create-schema", &flags).unwrap();
    seeding.env_remove("CASSANDRA_PASSWORD").env("RUST_LOG", "trace");
    let ended = Process::spawn(seeding).unwrap().wait(Duration::from_secs(60)).unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!format!("{ended:?}").contains("SECRETWORD"), "a secret shows");
    // Another CA, another password, no TLS at all.
    let other = tempfile::tempdir().unwrap();
    certificate(other.path()).unwrap();
    let with = |flag: &str, value: String| -> Vec<String> {
        let kept = flags.iter().filter(|given| !given.starts_with(flag)).cloned();
        kept.chain([format!("{flag}={value}")]).collect()
    };
    let foreign = other.path().join("ca.pem").display().to_string();
    let seed = "seed --workload thread --preset small";
    let error = refused(seed, &with("--mongo-tls-ca", foreign.clone()), 2).unwrap();
    assert!(error.contains("cannot be reached") && error.to_lowercase().contains("certificate"), "{error}");
    let error = refused(seed, &with("--cassandra-tls-ca", foreign), 2).unwrap();
    assert!(error.contains("Cassandra") && error.to_lowercase().contains("certificate"), "{error}");
    let error = refused(seed, &with("--mongo-password", file("cassandra-password").display().to_string()), 2).unwrap();
    assert!(error.contains("does not let us in") && error.contains("--mongo-password"), "{error}");
    let error = refused(seed, &with("--mongo-password", "SECRETWORD".to_owned()), 2).unwrap();
    assert!(error.contains("expected the path of a file") && !error.contains("SECRETWORD"), "{error}");
}
