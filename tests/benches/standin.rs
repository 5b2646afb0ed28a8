//! How fast the stand-in and the null gatekeeper are by themselves, and what they cost: both must be far from being the
//! limit of what is measured against them. Budgets: each stage at least 15,000 messages per second on half a core, the
//! null gatekeeper at most 1 microsecond per send.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use bytes::BytesMut;
use plimsoll_common::contract::{payload::write_send_request, subjects};
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::standin::null::{NullAnswers, NullGatekeeper};
use plimsoll_tests::standin::{Stage, Standin, StandinConfig};
use std::time::Duration;
use tokio::time::Instant;

const SITE: &str = "site-local";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        standin(60_000).await;
        for (stage, capacity) in [
            (Stage::Gatekeeper, 2_000.0),
            (Stage::MessageWorker, 2_000.0),
            (Stage::BroadcastWorker, 2_000.0),
            (Stage::Gatekeeper, 10_000.0),
            (Stage::MessageWorker, 15_000.0),
            (Stage::BroadcastWorker, 15_000.0),
        ] {
            exactness(stage, capacity).await;
        }
        for answers in [NullAnswers::Reply, NullAnswers::ReplyAndBroadcast] {
            null(400_000, answers).await;
        }
    });
}

/// A backlog is sent first, then worked off by all stages at once.
async fn standin(messages: u64) {
    let server = NatsServer::start(NatsOptions::default()).unwrap();
    let standin = Standin::start(StandinConfig::new(server.url())).await.unwrap();
    standin.stall(Some(Stage::Gatekeeper), Duration::from_secs(3)).await.unwrap();
    let stalled = Instant::now();
    flood(&server, messages).await;
    tokio::time::sleep_until(stalled + Duration::from_secs(3)).await;
    let (started, cpu) = (Instant::now(), cpu_of_thread("standin"));
    while Stage::PIPELINE.iter().any(|stage| standin.counters().stage(*stage).served.get() < messages) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_of_thread("standin") - cpu);
    let rate = messages as f64 / elapsed.as_secs_f64();
    let cores = cpu.as_secs_f64() / elapsed.as_secs_f64();
    let micros = cpu.as_secs_f64() * 1e6 / messages as f64;
    println!("stand-in, four stages at once: {rate:.0} messages/s, {cores:.2} cores, {micros:.1} us per message");
    standin.shutdown().await.unwrap();
}

/// What a stage of a set capacity serves in three seconds while it has a backlog.
async fn exactness(stage: Stage, capacity: f64) {
    let server = NatsServer::start(NatsOptions::default()).unwrap();
    let mut config = StandinConfig::new(server.url());
    config.stage_mut(stage).capacity = Some(capacity);
    let standin = Standin::start(config).await.unwrap();
    standin.stall(Some(stage), Duration::from_secs(2)).await.unwrap();
    let (stalled, messages) = (Instant::now(), (capacity * 4.0) as u64);
    flood(&server, messages).await;
    tokio::time::sleep_until(stalled + Duration::from_millis(2_200)).await;
    let served = || standin.counters().stage(stage).served.get();
    let (before, started) = (served(), Instant::now());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let rate = (served() - before) as f64 / started.elapsed().as_secs_f64();
    println!("{stage} set to {capacity}/s: served {rate:.1}/s, off by {:+.3} %", (rate / capacity - 1.0) * 100.0);
    standin.shutdown().await.unwrap();
}

async fn null(messages: u64, answers: NullAnswers) {
    let options = NatsOptions { without_jetstream: true, ..NatsOptions::default() };
    let server = NatsServer::start(options).unwrap();
    let gatekeeper = NullGatekeeper::start(&server.url(), SITE, answers).unwrap();
    let (started, cpu) = (Instant::now(), cpu_of_thread("null-gatekeeper"));
    flood(&server, messages).await;
    while gatekeeper.answered() < messages {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_of_thread("null-gatekeeper") - cpu);
    let rate = messages as f64 / elapsed.as_secs_f64();
    let micros = cpu.as_secs_f64() * 1e6 / messages as f64;
    println!("null gatekeeper, {answers:?}: {rate:.0} sends/s, {micros:.2} us of its thread per send");
    gatekeeper.shutdown().unwrap();
}

/// Sends of 200 bytes of user 0 to room 0, as fast as the connection takes them.
async fn flood(server: &NatsServer, messages: u64) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let subject: async_nats::Subject = subjects::send("user-0", "room-000000", SITE).into();
    let content = [b'x'; 200];
    let mut body = BytesMut::new();
    for n in 0..messages {
        let (id, request) = (format!("{n:020}"), format!("01980a2b-7c3d-7e4f-8a5b-{n:012}"));
        write_send_request(&mut body, id.as_bytes(), request.as_bytes(), &content);
        client.publish(subject.clone(), body.split().freeze()).await.unwrap();
    }
    client.flush().await.unwrap();
}

/// User and system time of our thread of this name, in the kernel's ticks of 10 ms.
fn cpu_of_thread(name: &str) -> Duration {
    // A new thread takes its name a moment after it has started.
    let found = (0..200).find_map(|_| {
        ticks_of_thread(name).or_else(|| {
            std::thread::sleep(Duration::from_millis(5));
            None
        })
    });
    Duration::from_millis(found.unwrap() * 10)
}

fn ticks_of_thread(name: &str) -> Option<u64> {
    std::fs::read_dir("/proc/self/task").unwrap().flatten().find_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        // A thread's name is cut off after 15 bytes.
        let same = name.starts_with(head.split_once('(')?.1) && head.split_once('(')?.1.len() >= name.len().min(15);
        let fields: Vec<&str> = tail.split_whitespace().collect();
        same.then(|| fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
    })
}
