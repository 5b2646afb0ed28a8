//! The stand-in's history and room services on the seeded databases: what they answer is what was seeded.

#![expect(clippy::unwrap_used, reason = "a test helper fails by panicking")]

use super::{both, done};
use plimsoll_common::contract::fixtures::account;
use plimsoll_common::contract::history::{HistoryPreset, RoomHistory, message_id, reply_id};
use plimsoll_common::contract::read::read_page;
use plimsoll_common::contract::subjects;
use plimsoll_tests::harness::databases::{CASSANDRA_USER, need_both};
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Process, Program};
use serde_json::{Value, json};
use std::time::Duration;

const SITE: &str = "site-local";

async fn ask(client: &async_nats::Client, user: u32, operation: &str, body: &Value) -> Value {
    let subject = subjects::room_request(&account(user), "hroom-000002", SITE, operation);
    let answer = client.request(subject, body.to_string().into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

fn ids(page: &Value) -> Vec<String> {
    let messages = page["messages"].as_array().unwrap_or_else(|| panic!("{page}"));
    messages.iter().map(|message| message["messageId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paging_back_through_a_room_meets_every_message_once() {
    need_both();
    // Not on a thread that ends when it has nothing to do: its processes end with it.
    let (mongo, cassandra, flags) = both("paged").unwrap();
    let seeded = tokio::task::spawn_blocking(move || {
        let seed = "seed --workload read-receipt --preset history-medium --create-schema";
        // Room 2, and the users.
        for shard in ["1/101", "4/101"] {
            let more = if shard == "1/101" { seed.to_owned() } else { seed.replace(" --create-schema", "") };
            done(&format!("{more} --shard {shard}"), &flags).unwrap();
        }
        (mongo, cassandra)
    });
    let (mongo, cassandra) = seeded.await.unwrap();
    let nats = NatsServer::start(NatsOptions::default()).unwrap();
    // Its own fixtures are others: what it answers can only be from the databases.
    let mut program = Program::Standin.command().unwrap();
    program.args(["--nats-url", &nats.url(), "--history-preset", "history-small", "--preset", "small"]);
    program.args(["--mongo-uri", &mongo.uri(), "--cassandra-hosts", &cassandra.address()]);
    program.args(["--cassandra-keyspace", "paged", "--cassandra-username", CASSANDRA_USER]);
    program.env("CASSANDRA_PASSWORD", CASSANDRA_USER);
    let mut standin = Process::spawn(program).unwrap();
    standin.wait_for_line("READY ").unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let room = &HistoryPreset::Medium.fixtures(42, SITE).rooms[2];
    let history = RoomHistory::new(HistoryPreset::Medium, 42, 2);
    let (mut seen, mut before) = (Vec::new(), json!(null));
    loop {
        let page =
            ask(&client, room.members[3], subjects::LOAD_HISTORY, &json!({"before": before, "limit": 100})).await;
        let found = ids(&page);
        let (_, read) = read_page(page.to_string().as_bytes());
        before = json!(read.unwrap().oldest_ms);
        let is_last = found.len() < 100;
        for (at, message) in found.iter().zip(page["messages"].as_array().unwrap()) {
            let index = 4_999 - seen.len() as u32;
            assert_eq!(message["msg"], history.content(index, None), "{at}");
            assert_eq!(message["sender"]["account"], account(room.members[history.author(index) as usize]));
            seen.push(at.clone());
        }
        if is_last {
            break;
        }
    }
    let expected: Vec<String> = (0..5_000).rev().map(|index| message_id("hroom-000002", index)).collect();
    assert_eq!(seen, expected);
    let parent = history.threads()[0];
    let body = json!({"threadMessageId": message_id("hroom-000002", parent), "limit": 2});
    let first = ask(&client, room.members[0], subjects::GET_THREAD, &body).await;
    let body =
        json!({"threadMessageId": message_id("hroom-000002", parent), "limit": 2, "cursor": first["nextCursor"]});
    let last = ask(&client, room.members[0], subjects::GET_THREAD, &body).await;
    let replies: Vec<String> = [ids(&first), ids(&last)].concat();
    assert_eq!(replies, [2, 1, 0].map(|reply| reply_id("hroom-000002", parent, reply)));
    assert_eq!((&first["parentMessage"]["tcount"], &last["hasNext"]), (&json!(3), &json!(false)));
    // 14 of 20 have read everything; whoever asks is not among the readers of what they wrote.
    let author = history.author(7);
    let body = json!({"messageId": message_id("hroom-000002", 7)});
    let readers = ask(&client, room.members[author as usize], subjects::READ_RECEIPT, &body).await;
    let expected = if author < 14 { 13 } else { 14 };
    assert_eq!(readers["readers"].as_array().map(Vec::len), Some(expected), "{readers}");
    let stranger = (0..1000).find(|&user| !room.has_member(user)).unwrap();
    let refused = ask(&client, stranger, subjects::LOAD_HISTORY, &json!({"limit": 1})).await;
    assert_eq!(refused["reason"], "not_subscribed");
    standin.signal(libc::SIGTERM).unwrap();
    assert_eq!(standin.wait(Duration::from_secs(30)).unwrap().code, Some(0));
}
