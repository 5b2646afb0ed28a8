//! Runs look at the databases before their first load.

use super::{command, mongo_flags, plimsoll};
use plimsoll_tests::harness::databases::{MongoServer, need_both, need_mongo, with_database};
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::Process;
use plimsoll_tests::standin::{Standin, StandinConfig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_says_what_it_found_and_does_not_begin_on_what_it_must_not() {
    need_mongo();
    let _box = Shared::acquire().unwrap();
    let nats = NatsServer::start(NatsOptions::default()).unwrap();
    let config = StandinConfig { preset: "small".parse().unwrap(), ..StandinConfig::new(nats.url()) };
    let standin = Standin::start(config).await.unwrap();
    let run = format!(
        "max-rps --preset small --steps 50 --warmup 0s --hold 1s --slo-p95 2s --slo-p99 2s --request-timeout 3s --results none \
         --local 1 --nats-url {}",
        nats.url()
    );
    tokio::task::spawn_blocking(move || {
        let mongo = MongoServer::start(&Default::default()).unwrap();
        let flags = mongo_flags(&mongo);
        let unchecked = plimsoll(&run, &[]).unwrap();
        let line = |text: &str, what: &str| {
            text.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").contains(what))
        };
        assert!(line(&unchecked.stdout, "storage = not checked: no --mongo-uri"), "{unchecked:?}");
        let unseeded = plimsoll(&run, &flags).unwrap();
        assert_eq!((unseeded.code, unseeded.stdout.as_str()), (Some(2), ""), "{unseeded:?}");
        let words =
            "has no seeding for --workload messages --site-id site-local (nothing was seeded there by plimsoll)";
        assert!(unseeded.stderr.contains(words) && unseeded.stderr.lines().count() == 1, "{unseeded:?}");
        super::done("seed --preset small --create-schema", &flags).unwrap();
        let seeded = plimsoll(&run, &flags).unwrap();
        assert!(line(&seeded.stdout, "storage mongodb subscriptions = 10 for site-local (target)"), "{seeded:?}");
        let medium = plimsoll(&run.replace("small", "medium"), &flags).unwrap();
        assert!(
            medium.code == Some(2) && medium.stderr.contains("--preset is medium here and small there"),
            "{medium:?}"
        );
        let skipped = plimsoll(&format!("{run} --skip-preflight --mongo-uri mongodb://127.0.0.1:1"), &[]).unwrap();
        assert!(
            line(&skipped.stdout, "skip-preflight = true (flag)") && !line(&skipped.stdout, "storage mongodb"),
            "{skipped:?}"
        );
    })
    .await
    .unwrap();
    standin.shutdown().await.unwrap();
}

#[test]
fn nothing_is_counted_before_a_run_by_an_index_that_is_not_there() {
    need_both();
    let (mongo, _, flags) = super::both("unindexed").unwrap();
    super::done("seed --workload history --preset history-small --create-schema", &flags).unwrap();
    let changes =
        "db.thread_subscriptions.drop_indexes()\ndb.thread_subscriptions.delete_many({})\ndb.users.delete_many({})";
    with_database(&mongo.uri(), "chat", changes).unwrap();
    let target = "--workload history --preset history-small --nats-url nats://127.0.0.1:1";
    let run = format!("max-rps {target} --steps 50 --hold 1s --local 1 --results none");
    let told = plimsoll(&run, &flags).unwrap();
    let words = "preflight: MongoDB has no unique index (threadRoomId, userAccount) on thread_subscriptions: start message-worker";
    assert!(told.code == Some(2) && told.stderr.contains(words), "{told:?}");
    assert_eq!(told.stderr.lines().count(), 1, "{told:?}");
    // Who takes the time says all that is wrong.
    let told = plimsoll(&format!("verify {target}"), &flags).unwrap().stderr;
    assert!(
        told.contains("no unique index (threadRoomId") && told.contains("0 documents of history-small in users"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_accepts_and_never_answers_is_named_within_one_limit() {
    need_both();
    let nats = NatsServer::start(NatsOptions::default()).unwrap();
    let url = nats.url();
    tokio::task::spawn_blocking(move || {
        let (mongo, _, flags) = super::both("silent").unwrap();
        super::done("seed --workload thread --preset small --create-schema", &flags).unwrap();
        // Connections wait in its queue for ever.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let run = |nats: &str| {
            format!(
                "max-rps --workload thread --preset small --steps 50 --hold 1s --results none --local 1 --nats-url {nats} \
                 --slo-p95 2s --slo-p99 2s"
            )
        };
        let mongo_of_silent = format!("--mongo-uri=mongodb://{address}/?serverSelectionTimeoutMS=90000&connectTimeoutMS=90000");
        let cases = [
            (url.clone(), vec![mongo_of_silent], format!("no answer within 10s from MongoDB at mongodb://{address}")),
            (
                url.clone(),
                vec![
                    format!("--mongo-uri={}", mongo.uri()),
                    format!("--cassandra-hosts={address}"),
                    "--cassandra-keyspace=silent".to_owned(),
                ],
                format!("no answer within 10s from Cassandra at {address}"),
            ),
            (format!("nats://{address}"), vec![], format!("NATS at nats://{address} cannot be reached")),
        ];
        // Side by side: each takes its ten seconds.
        let running: Vec<(Process, String)> = cases
            .into_iter()
            .map(|(nats, flags, words)| (Process::spawn(command(&run(&nats), &flags).unwrap()).unwrap(), words))
            .collect();
        for (mut process, words) in running {
            let ended = process.wait(super::LIMIT).unwrap();
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
            assert!(ended.stderr.contains(&words) && ended.stderr.lines().count() == 1, "{words}: {ended:?}");
        }
    })
    .await
    .unwrap();
}
