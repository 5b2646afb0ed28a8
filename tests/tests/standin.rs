//! The stand-in backend keeps its promises: the chat's answers, and a capacity that is exact.

#![expect(clippy::unwrap_used, reason = "a test helper fails by panicking")]

use async_nats::jetstream::{self, consumer::PullConsumer};
use bytes::BytesMut;
use futures::StreamExt as _;
use plimsoll_common::contract::fixtures::{Fixtures, RoomKind, account};
use plimsoll_common::contract::payload::{Ack, RoomEvent, broadcast_message_id, classify_ack, write_send_request};
use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_common::contract::subjects;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::standin::config::{Incident, Refusal};
use plimsoll_tests::standin::{Counters, Stage, Standin, StandinConfig};
use std::num::NonZeroU64;
use std::time::Duration;
use tokio::time::timeout;

const SITE: &str = "site-local";
const PATIENCE: Duration = Duration::from_secs(20);

/// A server, a backend on it, and a client that sends as users do.
struct Chat {
    server: NatsServer,
    standin: Standin,
    client: async_nats::Client,
    sent: u64,
}

impl Chat {
    async fn start(change: impl FnOnce(&mut StandinConfig)) -> Self {
        let server = NatsServer::start(NatsOptions::default()).unwrap();
        let mut config = StandinConfig::new(server.url());
        change(&mut config);
        let standin = Standin::start(config).await.unwrap();
        let client = async_nats::connect(server.url()).await.unwrap();
        Self { server, standin, client, sent: 0 }
    }

    async fn subscribe(&self, subject: String) -> async_nats::Subscriber {
        let subscriber = self.client.subscribe(subject).await.unwrap();
        self.client.flush().await.unwrap();
        subscriber
    }

    /// Sends and returns message id and request id.
    async fn send(&mut self, account: &str, room: &str, content: &str) -> (String, String) {
        self.sent += 1;
        let (id, request) = (format!("{:020}", self.sent), format!("01980a2b-7c3d-7e4f-8a5b-{:012}", self.sent));
        let mut body = BytesMut::new();
        write_send_request(&mut body, id.as_bytes(), request.as_bytes(), content.as_bytes());
        self.client.publish(subjects::send(account, room, SITE), body.freeze()).await.unwrap();
        (id, request)
    }

    /// Sends a number of messages of user 0 to room 0.
    async fn flood(&mut self, count: u64) {
        for _ in 0..count {
            self.send("user-0", "room-000000", "hello").await;
        }
        self.client.flush().await.unwrap();
    }

    fn counters(&self) -> &Counters {
        self.standin.counters()
    }

    async fn until(&self, what: &str, reached: impl Fn(&Counters) -> bool) {
        let waiting = async {
            while !reached(self.counters()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("{what} never came: {:?}", self.counters());
        }
    }

    async fn backlog(&self, stage: Stage) -> u64 {
        let context = jetstream::new(self.client.clone());
        let mut durable: PullConsumer =
            context.get_consumer_from_stream(stage.durable(), stage.stream(SITE)).await.unwrap();
        let info = durable.info().await.unwrap();
        info.num_pending + info.num_ack_pending as u64
    }
}

async fn next(subscriber: &mut async_nats::Subscriber) -> async_nats::Message {
    timeout(PATIENCE, subscriber.next()).await.expect("a message in time").expect("an open subscription")
}

fn every(n: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(n)
}

#[tokio::test]
async fn a_send_is_answered_and_broadcast() {
    let mut chat = Chat::start(|_| ()).await;
    let mut replies = chat.subscribe(subjects::response_wildcard("user-7")).await;
    let mut events = chat.subscribe(subjects::room_event("room-000002")).await;
    let (id, request) = chat.send("user-7", "room-000002", "hello").await;

    let reply = next(&mut replies).await;
    assert_eq!(reply.subject.as_str(), subjects::response("user-7", &request));
    assert_eq!(classify_ack(&reply.payload), Ack::Accepted);

    let broadcast = next(&mut events).await;
    assert_eq!(broadcast_message_id(&broadcast.payload), Some(id.as_bytes()));
    assert_eq!(broadcast.headers.unwrap().get(subjects::REQUEST_ID_HEADER).unwrap().as_str(), request);
    let event: RoomEvent = serde_json::from_slice(&broadcast.payload).unwrap();
    let message = event.message.unwrap();
    assert_eq!((&*event.room_type, &*event.room_name, event.user_count), ("channel", "room-2", 2));
    assert_eq!((&*message.user_id, &*message.content), ("u-000007", "hello"));

    chat.until("the other workers", |c| c.message_worker.served.get() + c.notification_worker.served.get() == 2).await;
    let stages = Stage::ALL;
    chat.standin.shutdown().await.unwrap();
    let context = jetstream::new(chat.client.clone());
    for stage in stages {
        let mut durable: PullConsumer =
            context.get_consumer_from_stream(stage.durable(), stage.stream(SITE)).await.unwrap();
        let info = durable.info().await.unwrap();
        assert_eq!((info.num_pending, info.num_ack_pending), (0, 0), "{stage}");
        assert_eq!(info.config.max_ack_pending, 1_000);
    }
    drop(chat.server);
}

#[tokio::test]
async fn a_direct_message_comes_to_both_and_a_channel_can_be_encrypted() {
    let mut chat = Chat::start(|config| {
        config.preset = MessagesPreset::Realistic;
        config.encrypted = true;
    })
    .await;
    let fixtures = Fixtures::build(MessagesPreset::Realistic, 42, SITE);
    let dm = fixtures.rooms.iter().find(|room| room.kind == RoomKind::Dm).unwrap();
    let mut copies = Vec::new();
    for member in &dm.members {
        copies.push(chat.subscribe(subjects::user_event(&account(*member))).await);
    }
    let (id, _) = chat.send(&account(dm.members[0]), &dm.id(), "psst").await;
    for copy in &mut copies {
        let event = next(copy).await;
        assert_eq!(broadcast_message_id(&event.payload), Some(id.as_bytes()));
        assert!(serde_json::from_slice::<RoomEvent>(&event.payload).unwrap().message.is_some());
    }

    let mut events = chat.subscribe(subjects::room_event("room-000000")).await;
    let (id, _) = chat.send(&account(fixtures.rooms[0].members[0]), "room-000000", "secret").await;
    let event = next(&mut events).await;
    assert_eq!(broadcast_message_id(&event.payload), Some(id.as_bytes()));
    let event: RoomEvent = serde_json::from_slice(&event.payload).unwrap();
    assert!(event.message.is_none() && event.encrypted_message.is_some());
}

#[tokio::test]
async fn refusals_say_why() {
    let mut chat = Chat::start(|config| {
        config.gate_faults.reject = every(2).map(|every| (every, Refusal::LargeRoom));
    })
    .await;
    let mut replies = chat.subscribe("chat.user.*.response.>".into()).await;
    let mut refused = async |account: &str, room: &str, content: &str| {
        chat.send(account, room, content).await;
        match classify_ack(&next(&mut replies).await.payload) {
            Ack::Refused { code, reason, .. } => format!("{code} {}", reason.unwrap_or_default()),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(refused("user-1", "room-000000", "hello").await, "forbidden not_subscribed");
    assert_eq!(refused("user-0", "room-000000", "").await, "bad_request ");
    assert_eq!(refused("user-0", "room-000000", "first").await, "Accepted");
    assert_eq!(refused("user-0", "room-000000", "second").await, "forbidden large_room_post_restricted");
    assert_eq!(refused("user-0", "room-000000", "third").await, "Accepted");
}

#[tokio::test]
async fn faults_are_done_as_often_as_asked_for() {
    let mut chat = Chat::start(|config| {
        config.gate_faults.skip_reply_every = every(10);
        config.gate_faults.garbage_reply_every = every(7);
        config.gate_faults.duplicate_reply_every = every(9);
        config.gate_faults.foreign_reply_every = every(11);
        config.broadcast_faults.drop_every = every(4);
        config.broadcast_faults.duplicate_every = every(5);
        config.broadcast_faults.foreign_every = every(50);
    })
    .await;
    let mut replies = chat.subscribe(subjects::response_wildcard("user-0")).await;
    let mut events = chat.subscribe(subjects::room_event("room-000000")).await;
    chat.flood(100).await;
    chat.until("all", |c| c.broadcast_worker.served.get() == 100 && c.replies.get() == 90).await;
    let c = chat.counters();
    assert_eq!((c.accepted.get(), c.replies_skipped.get(), c.replies_garbage.get()), (100, 10, 13));
    // Of 11 multiples of 9 the 90th is skipped; of 9 multiples of 11 none.
    assert_eq!((c.replies_duplicated.get(), c.replies_foreign.get()), (10, 9));
    assert_eq!((c.broadcasts.get(), c.broadcasts_dropped.get()), (75, 25));
    // Of 20 multiples of 5 those of 4 are dropped; of 2 multiples of 50 one is.
    assert_eq!((c.broadcasts_duplicated.get(), c.broadcasts_foreign.get()), (15, 1));
    for _ in 0..90 + 10 + 9 {
        next(&mut replies).await;
    }
    for _ in 0..75 + 15 + 1 {
        next(&mut events).await;
    }
}

#[tokio::test]
async fn a_capacity_is_met_within_one_percent() {
    for (stage, capacity) in
        [(Stage::Gatekeeper, 3_000.0), (Stage::MessageWorker, 1_700.0), (Stage::BroadcastWorker, 2_500.0)]
    {
        let mut chat = Chat::start(|config| config.stage_mut(stage).capacity = Some(capacity)).await;
        // More than six windows' work, so that the stage is never idle while it is watched.
        let work = (capacity * 14.0) as u64;
        chat.flood(work).await;
        let served = |chat: &Chat| chat.counters().stage(stage).served.get();
        chat.until("a start", |c| c.stage(stage).served.get() > 100).await;
        let mut rates = Vec::new();
        // In a window in which others keep the box busy it falls behind, or catches up: that is not its capacity.
        while rates.len() < 6 && rates.last().is_none_or(|rate: &f64| (rate / capacity - 1.0).abs() >= 0.01) {
            let (from, since) = (served(&chat), tokio::time::Instant::now());
            tokio::time::sleep(Duration::from_secs(2)).await;
            rates.push((served(&chat) - from) as f64 / since.elapsed().as_secs_f64());
        }
        let rate = rates[rates.len() - 1];
        assert!((rate / capacity - 1.0).abs() < 0.01, "{stage} served {rates:?}/s of {capacity}/s");
        // The backlog is what has been sent and not been served; some of it is on its way to the stage.
        let before = work - served(&chat);
        let backlog = chat.backlog(stage).await;
        let after = work - served(&chat);
        assert!((after.saturating_sub(300)..before + 300).contains(&backlog), "{backlog}; {before} to {after} left");
    }
}

#[tokio::test]
async fn a_stall_stops_one_stage_for_as_long_as_it_lasts() {
    let mut chat = Chat::start(|config| {
        config.broadcast_worker.capacity = Some(1_000.0);
        config.incidents = vec![Incident::parse_stall("message-worker:2s@0ms").unwrap()];
        config.incidents_from = plimsoll_tests::standin::config::Trigger::FirstMessage;
    })
    .await;
    let started = tokio::time::Instant::now();
    chat.flood(10).await;
    chat.until("broadcasts", |c| c.broadcasts.get() == 10).await;
    assert_eq!(chat.counters().message_worker.served.get(), 0, "after {:?}", started.elapsed());
    chat.until("the stalled stage", |c| c.message_worker.served.get() == 10).await;
    assert!(started.elapsed() >= Duration::from_secs(2));

    chat.standin.stall(None, Duration::from_millis(200)).await.unwrap();
    let stalled = tokio::time::Instant::now();
    chat.flood(1).await;
    chat.until("one more", |c| c.accepted.get() == 11).await;
    assert!(stalled.elapsed() >= Duration::from_millis(190), "{:?}", stalled.elapsed());
}

#[tokio::test]
async fn a_durable_vanishes_and_comes_back() {
    let mut chat = Chat::start(|_| ()).await;
    chat.flood(5).await;
    chat.until("the first five", |c| c.message_worker.served.get() == 5).await;
    chat.standin.vanish(Stage::MessageWorker).await.unwrap();
    let context = jetstream::new(chat.client.clone());
    let stream = Stage::MessageWorker.stream(SITE);
    let gone: Result<PullConsumer, _> = context.get_consumer_from_stream("message-worker", &*stream).await;
    assert!(gone.is_err());
    chat.flood(5).await;
    chat.until("broadcasts", |c| c.broadcasts.get() == 10).await;
    chat.standin.come_back(Stage::MessageWorker).await.unwrap();
    chat.until("everything anew", |c| c.message_worker.served.get() == 15).await;
}
