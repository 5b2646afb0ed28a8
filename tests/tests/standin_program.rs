//! The stand-in as a program, and the null gatekeeper.

#![expect(clippy::unwrap_used, reason = "a test helper fails by panicking")]

use bytes::BytesMut;
use futures::StreamExt as _;
use plimsoll_common::contract::payload::{Ack, broadcast_message_id, classify_ack, write_send_request};
use plimsoll_common::contract::subjects;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::standin::null::{NullAnswers, NullGatekeeper};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SITE: &str = "site-local";
const ID: &str = "0aZ9kLmN3pQrS7tUvWxY";
const REQUEST: &str = "01980a2b-7c3d-7e4f-8a5b-1c2d3e4f5a6b";

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll-standin"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts the program and returns it with its first line.
fn start(server: &NatsServer, arguments: &[&str]) -> (Child, String) {
    let mut child = program(arguments).args(["--nats-url", &server.url()]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line)
}

fn terminate(mut child: Child) -> bool {
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: kill takes two integers; the child is not reaped yet, so the id is its own.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    child.wait().unwrap().success()
}

async fn answers(server: &NatsServer, event_within: Duration) -> (Ack, Option<String>) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut replies = client.subscribe(subjects::response_wildcard("user-0")).await.unwrap();
    let mut events = client.subscribe(subjects::room_event("room-000000")).await.unwrap();
    client.flush().await.unwrap();
    let mut body = BytesMut::new();
    write_send_request(&mut body, ID.as_bytes(), REQUEST.as_bytes(), b"hello");
    client.publish(subjects::send("user-0", "room-000000", SITE), body.freeze()).await.unwrap();
    let reply = tokio::time::timeout(Duration::from_secs(10), replies.next()).await.unwrap().unwrap();
    assert_eq!(reply.subject.as_str(), subjects::response("user-0", REQUEST));
    let event = tokio::time::timeout(event_within, events.next()).await.ok().flatten();
    let id = event.and_then(|event| Some(String::from_utf8_lossy(broadcast_message_id(&event.payload)?).into_owned()));
    (classify_ack(&reply.payload), id)
}

#[tokio::test]
async fn the_program_is_ready_works_and_ends_when_told() {
    let server = NatsServer::start(NatsOptions::default()).unwrap();
    let (child, line) = start(&server, &["--preset", "small", "--storage", "memory"]);
    assert_eq!(line, "READY site=site-local preset=small seed=42\n");
    assert_eq!(answers(&server, Duration::from_secs(10)).await, (Ack::Accepted, Some(ID.to_owned())));
    assert!(terminate(child));

    let (child, line) = start(&server, &["--null", "--null-broadcast"]);
    assert_eq!(line, "READY site=site-local null\n");
    assert!(terminate(child));
}

#[tokio::test]
async fn the_null_gatekeeper_answers_and_broadcasts_when_asked_to() {
    let server = NatsServer::start(NatsOptions { without_jetstream: true, ..NatsOptions::default() }).unwrap();
    let gatekeeper = NullGatekeeper::start(&server.url(), SITE, NullAnswers::Reply).unwrap();
    assert_eq!(answers(&server, Duration::from_secs(1)).await, (Ack::Accepted, None));
    gatekeeper.shutdown().unwrap();
    let gatekeeper = NullGatekeeper::start(&server.url(), SITE, NullAnswers::ReplyAndBroadcast).unwrap();
    assert_eq!(answers(&server, Duration::from_secs(10)).await, (Ack::Accepted, Some(ID.to_owned())));
    assert_eq!((gatekeeper.answered(), gatekeeper.has_ended()), (1, false));
}

#[test]
fn bad_settings_are_named_before_anything_starts() {
    for (arguments, expected) in [
        (&["--preset", "huge"][..], "the messages workload knows small, medium, large and realistic"),
        (&["--reject", "3:bad"], "unknown reason \"bad\""),
        (&["--stall", "worker:1s@5s"], "unknown stage \"worker\""),
        (&["--gatekeeper-capacity", "fast"], "--gatekeeper-capacity"),
        (&["--gatekeeper-capacity", "0"], "is not within 0.001 and 10,000,000"),
        (&["--site-id", "a.b"], "site \"a.b\" is not one token of a subject"),
        (&["--nats-url", "nats://127.0.0.1:1"], "connecting to NATS at nats://127.0.0.1:1"),
    ] {
        let mut child = program(arguments).spawn().unwrap();
        let mut words = String::new();
        child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(words.contains(expected), "{arguments:?}: {words}");
    }
}
