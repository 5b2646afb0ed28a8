//! The gatekeeper: checks a send in the chat's order, stores it as a canonical event, and answers.

use super::config::{GateFaults, Refusal};
use super::directory::{Directory, RoomEntry};
use super::ids::uuid_v7;
use super::stage::{Tools, give_back, is_nth, settle};
use anyhow::Context as _;
use async_nats::{HeaderMap, Message, Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use plimsoll_common::contract::fixtures::{chinese_name, eng_name, user_id};
use plimsoll_common::contract::payload::{self, MAX_CONTENT_BYTES, SendRequest};
use plimsoll_common::contract::subjects::{self, SendSubject};
use plimsoll_common::contract::time::write_rfc3339;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a stored message may go without the stream's word for it; then the send is given back. The client
/// library waits as long.
const PUBACK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Gatekeeper {
    tools: Tools,
    faults: GateFaults,
    large_room_threshold: u64,
    pubacks: Subscriber,
    inbox: String,
    canonical: Subject,
    storing: HashMap<u64, Storing>,
    next_token: u64,
    /// Sends that every check let pass, from 1 for the first.
    valid: u64,
    /// Answers due, from 1 for the first, sent or skipped.
    answers: u64,
}

/// A send whose canonical event is on its way into the stream.
struct Storing {
    send: Message,
    reply: Reply,
    since: Duration,
}

/// An answer ready to go.
struct Reply {
    account: String,
    request_id: String,
    header: String,
    body: Bytes,
}

/// What the checks make of a send.
enum Outcome<'a> {
    Accept { request: SendRequest<'a>, account: &'a str, room: &'a RoomEntry, user: u32 },
    Refuse { account: &'a str, request_id: String, refusal: Refusal },
    Unanswerable,
}

impl Gatekeeper {
    pub(super) async fn new(tools: Tools, faults: GateFaults, large_room_threshold: u64) -> anyhow::Result<Self> {
        let inbox = tools.client.new_inbox();
        let pubacks = tools.client.subscribe(format!("{inbox}.*")).await.context("subscribing to acknowledgements")?;
        tools.client.flush().await?;
        Ok(Self {
            faults,
            large_room_threshold,
            pubacks,
            inbox,
            canonical: subjects::canonical_created(&tools.directory.site).into(),
            storing: HashMap::new(),
            next_token: 0,
            valid: 0,
            answers: 0,
            tools,
        })
    }

    /// Looks at one send whose service has ended.
    pub(super) async fn handle(&mut self, send: Message) -> anyhow::Result<()> {
        let directory = Arc::clone(&self.tools.directory);
        let message = send.clone();
        match examine(&message, &directory, self.large_room_threshold) {
            Outcome::Unanswerable => {
                self.tools.counters.unanswerable.add(1);
                settle(&self.tools.client, &send).await
            }
            Outcome::Refuse { account, request_id, refusal } => self.refuse(&send, account, request_id, refusal).await,
            Outcome::Accept { request, account, room, user } => {
                self.valid += 1;
                match self.faults.reject {
                    Some((every, refusal)) if is_nth(Some(every), self.valid) => {
                        self.refuse(&send, account, request.request_id.into_owned(), refusal).await
                    }
                    _ => self.store(send, &request, account, room, user).await,
                }
            }
        }
    }

    /// The next word of the stream about a stored event.
    pub(super) async fn next_puback(&mut self) -> Option<Message> {
        self.pubacks.next().await
    }

    /// Answers the send whose event has been stored, or gives it back if it could not be.
    pub(super) async fn on_puback(&mut self, puback: Message) -> anyhow::Result<()> {
        let token = puback.subject.rsplit('.').next().and_then(|token| token.parse().ok());
        let Some(storing) = token.and_then(|token: u64| self.storing.remove(&token)) else { return Ok(()) };
        // `{"error":{…}}`, or a status without responders; an acknowledgement has a sequence.
        if memchr::memmem::find(&puback.payload, b"\"seq\"").is_none() {
            self.tools.counters.gatekeeper.naks.add(1);
            return give_back(&self.tools.client, &storing.send).await;
        }
        self.tools.counters.accepted.add(1);
        self.reply(storing.reply).await?;
        settle(&self.tools.client, &storing.send).await
    }

    /// Gives back what the stream has not stored in time.
    pub(super) async fn expire(&mut self) -> anyhow::Result<()> {
        let now = self.tools.clock.now();
        let late: Vec<u64> =
            self.storing.iter().filter(|(_, s)| now - s.since > PUBACK_TIMEOUT).map(|(token, _)| *token).collect();
        for token in late {
            if let Some(storing) = self.storing.remove(&token) {
                self.tools.counters.gatekeeper.naks.add(1);
                give_back(&self.tools.client, &storing.send).await?;
            }
        }
        Ok(())
    }

    /// Forgets what was being stored: the durable it came from is gone.
    pub(super) fn forget(&mut self) {
        self.storing.clear();
    }

    async fn store(
        &mut self,
        send: Message,
        request: &SendRequest<'_>,
        account: &str,
        room: &RoomEntry,
        user: u32,
    ) -> anyhow::Result<()> {
        let unix_nanos = self.tools.clock.unix_nanos();
        let message = message_json(request, account, room, user, unix_nanos);
        let event = canonical_json(&message, &self.tools.directory.site, unix_nanos / 1_000_000);
        let mut headers = HeaderMap::new();
        headers.insert(subjects::REQUEST_ID_HEADER, &*request.request_id);
        headers.insert(subjects::DEDUP_HEADER, &*request.id);
        let reply = Reply {
            account: account.to_owned(),
            request_id: request.request_id.clone().into_owned(),
            header: self.reply_header(&send),
            body: message.into(),
        };
        self.next_token += 1;
        let inbox = format!("{}.{}", self.inbox, self.next_token);
        self.storing.insert(self.next_token, Storing { send, reply, since: self.tools.clock.now() });
        self.tools.client.publish_with_reply_and_headers(self.canonical.clone(), inbox, headers, event.into()).await?;
        Ok(())
    }

    async fn refuse(
        &mut self,
        send: &Message,
        account: &str,
        request_id: String,
        refusal: Refusal,
    ) -> anyhow::Result<()> {
        self.tools.counters.refused.add(1);
        let (code, reason, error) = refusal.envelope();
        let envelope = payload::ErrorEnvelope {
            code: code.to_owned(),
            reason: reason.map(str::to_owned),
            error: error.to_owned(),
        };
        let body = serde_json::to_vec(&envelope).context("writing an error envelope")?.into();
        let header = self.reply_header(send);
        self.reply(Reply { account: account.to_owned(), request_id, header, body }).await?;
        settle(&self.tools.client, send).await
    }

    /// The answer's own request id: what the send carried as a header, or a new one.
    fn reply_header(&mut self, send: &Message) -> String {
        let carried = send.headers.as_ref().and_then(|headers| headers.get(subjects::REQUEST_ID_HEADER));
        carried.map_or_else(
            || uuid_v7(self.tools.clock.unix_nanos() / 1_000_000, &mut self.tools.rng),
            |value| value.as_str().to_owned(),
        )
    }

    async fn reply(&mut self, reply: Reply) -> anyhow::Result<()> {
        self.answers += 1;
        let nth = self.answers;
        if is_nth(self.faults.skip_reply_every, nth) {
            self.tools.counters.replies_skipped.add(1);
            return Ok(());
        }
        let mut body = reply.body;
        if is_nth(self.faults.garbage_reply_every, nth) {
            self.tools.counters.replies_garbage.add(1);
            body = Bytes::from_static(b"\xfe{not json");
        }
        let subject: Subject = subjects::response(&reply.account, &reply.request_id).into();
        let mut headers = HeaderMap::new();
        headers.insert(subjects::REQUEST_ID_HEADER, reply.header);
        if is_nth(self.faults.duplicate_reply_every, nth) {
            self.tools.counters.replies_duplicated.add(1);
            self.tools.client.publish_with_headers(subject.clone(), headers.clone(), body.clone()).await?;
        }
        if is_nth(self.faults.foreign_reply_every, nth) {
            self.tools.counters.replies_foreign.add(1);
            let nobody = uuid_v7(self.tools.clock.unix_nanos() / 1_000_000, &mut self.tools.rng);
            let subject = subjects::response(&reply.account, &nobody);
            self.tools.client.publish_with_headers(subject, headers.clone(), body.clone()).await?;
        }
        self.tools.counters.replies.add(1);
        self.tools.client.publish_with_headers(subject, headers, body).await?;
        Ok(())
    }
}

/// The chat's checks in its order; the first that fails decides.
fn examine<'a>(send: &'a Message, directory: &'a Directory, large_room_threshold: u64) -> Outcome<'a> {
    let Some(SendSubject { account, room, site }) = subjects::parse_send(&send.subject) else {
        return Outcome::Unanswerable;
    };
    let request: SendRequest<'a> = match serde_json::from_slice(&send.payload) {
        Ok(request) => request,
        Err(_) => return unreadable(account, &send.payload),
    };
    // A site that is not ours is not in the stream, and without a request id there is no subject to answer on.
    if site != directory.site || !is_uuid(&request.request_id) {
        return Outcome::Unanswerable;
    }
    let subscription = directory.subscription(account, room);
    let large = subscription
        .is_some_and(|(entry, user)| directory.people(entry) > large_room_threshold && entry.owner != Some(user));
    let parent = request.thread_parent_message_id.as_deref();
    let refusal = if !is_message_id(&request.id) {
        Refusal::MessageId
    } else if parent.is_some_and(|parent| !is_message_id(parent)) {
        Refusal::ParentId
    } else if request.content.is_empty() {
        Refusal::ContentEmpty
    } else if request.content.len() > MAX_CONTENT_BYTES {
        Refusal::ContentTooLong
    } else if large && parent.is_none() {
        Refusal::LargeRoom
    } else {
        match subscription {
            // Nobody here keeps old messages that could be quoted.
            Some(_) if request.quoted_parent_message_id.is_some() => Refusal::Unavailable,
            Some((room, _)) if parent.is_some_and(|parent| directory.parent_author(room, parent).is_none()) => {
                Refusal::ParentNotFound
            }
            Some((room, user)) => return Outcome::Accept { request, account, room, user },
            None => Refusal::NotSubscribed,
        }
    };
    Outcome::Refuse { account, request_id: request.request_id.into_owned(), refusal }
}

/// JSON of the wrong shape is answered if its request id can be found; what is no JSON is not.
fn unreadable<'a>(account: &'a str, payload: &[u8]) -> Outcome<'a> {
    let fields: Result<serde_json::Value, _> = serde_json::from_slice(payload);
    match fields.ok().as_ref().and_then(|fields| fields.get("requestId")?.as_str()) {
        Some(id) if is_uuid(id) => Outcome::Refuse { account, request_id: id.to_owned(), refusal: Refusal::Unmarshal },
        _ => Outcome::Unanswerable,
    }
}

/// 20 characters of base62, or 17 as old clients sent.
fn is_message_id(id: &str) -> bool {
    matches!(id.len(), 17 | 20) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

pub(super) fn is_uuid(id: &str) -> bool {
    id.len() == 36
        && id.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn message_json(request: &SendRequest<'_>, account: &str, room: &RoomEntry, user: u32, unix_nanos: u64) -> Vec<u8> {
    let mut created_at = String::with_capacity(30);
    write_rfc3339(&mut created_at, unix_nanos).expect("a String takes every character");
    let message = payload::Message {
        id: (&*request.id).into(),
        room_id: room.id.as_str().into(),
        user_id: user_id(user).into(),
        user_account: account.into(),
        user_display_name: Some(format!("{} {}", eng_name(user), chinese_name(user)).into()),
        content: (&*request.content).into(),
        created_at: created_at.into(),
        thread_parent_message_id: request.thread_parent_message_id.as_deref().map(Into::into),
        sender: None,
    };
    serde_json::to_vec(&message).expect("strings serialize")
}

/// The canonical event around a message that is already JSON.
fn canonical_json(message: &[u8], site: &str, timestamp_ms: u64) -> Vec<u8> {
    let tail = format!(",\"siteId\":\"{site}\",\"timestamp\":{timestamp_ms}}}");
    [b"{\"event\":\"created\",\"message\":", message, tail.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::super::config::DailyConfig;
    use super::super::daily::DailyBook;
    use super::*;
    use plimsoll_common::contract::daily::{Band, DailyPreset};
    use plimsoll_common::contract::fixtures::{Fixtures, account};
    use plimsoll_common::contract::presets::MessagesPreset;

    const ID: &str = "0aZ9kLmN3pQrS7tUvWxY";
    const REQUEST: &str = "01980a2b-7c3d-7e4f-8a5b-1c2d3e4f5a6b";

    /// What the checks say to a send of user 2 (a member of room 2) in the small preset.
    fn check(subject: &str, payload: &str, threshold: u64) -> String {
        let directory = Directory::new(Fixtures::build(MessagesPreset::Small, 42, "site-local"), 8);
        let payload = Bytes::from(payload.to_owned());
        let send = Message {
            subject: subject.into(),
            reply: None,
            headers: None,
            status: None,
            description: None,
            length: payload.len(),
            payload,
        };
        match examine(&send, &directory, threshold) {
            Outcome::Accept { user, room, .. } => format!("accept {user} in {}", room.id),
            Outcome::Refuse { refusal, request_id, .. } => format!("{refusal:?} to {}", &request_id[..8]),
            Outcome::Unanswerable => "unanswerable".to_owned(),
        }
    }

    #[test]
    fn the_first_check_that_fails_decides() {
        let to = |account: &str, room: &str| subjects::send(account, room, "site-local");
        let body = |id: &str, content: &str, request: &str| {
            serde_json::json!({"id": id, "content": content, "requestId": request, "unknown": 1}).to_string()
        };
        let (own, long) = (to("user-2", "room-000002"), "x".repeat(20_481));
        for (subject, payload, expected) in [
            (&own, body(ID, "hello", REQUEST), "accept 2 in room-000002"),
            (&own, body(&ID[..17], &long[..20_480], REQUEST), "accept 2 in room-000002"),
            (&own, body("bad id", "", REQUEST), "MessageId to 01980a2b"),
            (&own, body(ID, "", REQUEST), "ContentEmpty to 01980a2b"),
            (&own, body(ID, &long, REQUEST), "ContentTooLong to 01980a2b"),
            (&own, body("bad id", "", "no uuid"), "unanswerable"),
            (&own, "{".to_owned(), "unanswerable"),
            (&own, format!("{{\"id\":7,\"requestId\":\"{REQUEST}\"}}"), "Unmarshal to 01980a2b"),
            (&to("user-3", "room-000002"), body(ID, "hello", REQUEST), "NotSubscribed to 01980a2b"),
            (&to("user-2", "room-000099"), body(ID, "hello", REQUEST), "NotSubscribed to 01980a2b"),
            (&to("mallory", "room-000002"), body(ID, "hello", REQUEST), "NotSubscribed to 01980a2b"),
            (&"chat.user.user-2.room.room-000002.site-local.msg.edit".into(), body(ID, "a", REQUEST), "unanswerable"),
        ] {
            assert_eq!(check(subject, &payload, 500), expected, "{subject} {payload:.60}");
        }
        assert_eq!(check(&own, &body(ID, "hello", REQUEST), 1), "LargeRoom to 01980a2b");
        // Who is no member is told so before anything is looked up.
        let quoting = |id: &str| {
            serde_json::json!({"id": ID, "content": "x", "requestId": REQUEST, "quotedParentMessageId": id}).to_string()
        };
        assert_eq!(check(&own, &quoting(ID), 500), "Unavailable to 01980a2b");
        assert_eq!(check(&to("user-3", "room-000002"), &quoting(ID), 500), "NotSubscribed to 01980a2b");
        let reply = |parent: &[u8]| {
            let parent = std::str::from_utf8(parent).unwrap();
            serde_json::json!({"id": ID, "content": "a", "requestId": REQUEST, "threadParentMessageId": parent})
                .to_string()
        };
        let parent = |room| plimsoll_common::contract::fixtures::thread_parent_id(42, room, 7);
        // Replies are exempt from the rule of large rooms.
        assert_eq!(check(&own, &reply(&parent(2)), 1), "accept 2 in room-000002");
        assert_eq!(check(&own, &reply(&parent(3)), 500), "ParentNotFound to 01980a2b");
        assert_eq!(check(&own, &reply(b"hmsg-1"), 500), "ParentId to 01980a2b");
    }

    #[test]
    fn who_was_added_counts_where_members_may_not_post() {
        let daily = DailyConfig { preset: DailyPreset::Light, users: 2_000 };
        let book = DailyBook::new(&daily, 42, "s", &Clock::start()).unwrap();
        let directory = Directory::of_daily(&book, "s");
        let room = book.fixtures.rooms_in(Band::Medium).start;
        let members = book.fixtures.members(room);
        let (owner, member) = (account(members[0]), account(members[1]));
        let strangers: Vec<String> =
            (0..2_000).filter(|&user| !book.fixtures.has_member(room, user)).map(account).collect();
        let id = book.fixtures.room_id(room);
        let says = |who: &str| {
            let payload = Bytes::from(serde_json::json!({"id": ID, "content": "a", "requestId": REQUEST}).to_string());
            let subject = subjects::send(who, &id, "s").into();
            let length = payload.len();
            let send =
                Message { subject, reply: None, headers: None, status: None, description: None, length, payload };
            match examine(&send, &directory, 500) {
                Outcome::Accept { .. } => None,
                Outcome::Refuse { refusal, .. } => Some(refusal),
                Outcome::Unanswerable => panic!("unanswerable"),
            }
        };
        let add = |who: &[String]| book.add(&member, room, serde_json::json!({"users": who}).to_string().as_bytes());
        let (first, more) = strangers.split_at(500 - members.len());
        add(first).unwrap();
        assert_eq!((says(&owner), says(&member)), (None, None));
        add(&more[..1]).unwrap();
        assert_eq!((says(&owner), says(&member)), (None, Some(Refusal::LargeRoom)));
        // Nor are there ever more than a thousand.
        add(&more[1..500]).unwrap();
        assert!(add(&more[500..501]).is_err_and(|(_, reason, _)| reason == Some("max_room_size_reached")));
        assert_eq!(directory.people(directory.room(&id).unwrap()), 1_000);
    }

    #[test]
    fn the_canonical_event_is_the_contracts() {
        let directory = Directory::new(Fixtures::build(MessagesPreset::Small, 42, "s"), 8);
        let request = SendRequest {
            id: ID.into(),
            content: "\"hi\"".into(),
            request_id: REQUEST.into(),
            quoted_parent_message_id: None,
            thread_parent_message_id: None,
        };
        let room = directory.room("room-000002").unwrap();
        let message = message_json(&request, "user-7", room, 7, 1_782_617_354_123_456_789);
        let json = canonical_json(&message, "s", 1_782_617_354_123);
        let event: payload::CanonicalEvent = serde_json::from_slice(&json).unwrap();
        assert_eq!(serde_json::to_vec(&event).unwrap(), json);
        assert_eq!(event.message.created_at, "2026-06-28T03:29:14.123456789Z");
        assert_eq!(event.message.user_display_name.as_deref(), Some("Carol Lee 卡蘿"));
    }
}
