//! The request services: history and rooms. Each endpoint is a member of its service's queue group, with a capacity, a latency
//! and faults of its own, over the history that preset and seed make.

use super::clock::Clock;
use super::config::{Endpoint, EndpointConfig, Refusal, StandinConfig};
use super::counters::Counters;
use super::daily::{DailyBook, asker_of_list};
use super::directory::Directory;
use super::gatekeeper::is_uuid;
use super::rooms::{AddJob, CreateJob, Memberships};
use super::service::Service;
use super::stage::is_nth;
use super::stored::Stored;
use async_nats::{Client, Message, Subject, Subscriber};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::StreamExt as _;
use plimsoll_common::contract::fixtures::{Fixtures, Room, account, chinese_name, eng_name, user_id, user_of_account};
use plimsoll_common::contract::history::{
    HistoryPreset, RoomHistory, message_id, message_index, reply_id, thread_room_id,
};
use plimsoll_common::contract::subjects;
use plimsoll_common::contract::time::write_rfc3339;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The longest sleep of an endpoint that has nothing to do.
const IDLE: Duration = Duration::from_secs(1);
/// Rows of a page where a request asks for none, and at most.
pub(super) const DEFAULT_LIMIT: u64 = 20;
pub(super) const MOST_LIMIT: u64 = 100;

/// What an endpoint can be told.
pub(super) enum EndpointCommand {
    /// Leave the queue group; answered when the server knows.
    Leave(oneshot::Sender<()>),
}

/// Everything that can be read.
pub(super) struct Archive {
    site: String,
    directory: Arc<Directory>,
    preset: HistoryPreset,
    fixtures: Fixtures,
    by_id: HashMap<String, usize>,
    memberships: Memberships,
    daily: Option<Arc<DailyBook>>,
    /// When the history was written, as far as anybody can tell.
    anchor_ms: u64,
    /// Where messages are read in place of that.
    stored: Option<Stored>,
}

/// Code, reason and text of an error envelope.
pub(super) type Envelope = (&'static str, Option<&'static str>, &'static str);

pub(super) const NOT_SUBSCRIBED: Envelope = ("forbidden", Some("not_subscribed"), "not subscribed to room");
pub(super) const NOT_MEMBER: Envelope = Refusal::NotRoomMember.envelope();
pub(super) const NOT_FOUND: Envelope = ("not_found", None, "message not found");
pub(super) const BAD_CURSOR: Envelope = ("bad_request", None, "invalid pagination cursor");
pub(super) const BAD_PAYLOAD: Envelope = ("bad_request", None, "invalid request payload");

impl Archive {
    pub(super) fn new(
        config: &StandinConfig,
        directory: Arc<Directory>,
        daily: Option<Arc<DailyBook>>,
        clock: &Clock,
    ) -> Self {
        let fixtures = config.history.fixtures(config.seed, &config.site);
        let by_id = fixtures.rooms.iter().enumerate().map(|(at, room)| (room.id(), at)).collect();
        let anchor_ms = clock.unix_nanos() / 1_000_000;
        let memberships = Memberships::new(config.members.fixtures(config.seed, &config.site));
        let (site, preset) = (config.site.clone(), config.history);
        Self { site, directory, preset, fixtures, by_id, memberships, daily, anchor_ms, stored: None }
    }

    /// With the databases, where there are some.
    ///
    /// # Errors
    /// They cannot be opened.
    pub(super) async fn open(
        config: &StandinConfig,
        directory: Arc<Directory>,
        daily: Option<Arc<DailyBook>>,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let stored = match &config.databases {
            Some(databases) => Some(Stored::open(databases).await?),
            None => None,
        };
        Ok(Self { stored, ..Self::new(config, directory, daily, clock) })
    }

    /// What an accepted request to add members asks of the room worker.
    fn job(&self, subject: &str, body: &[u8]) -> Result<AddJob, Envelope> {
        let parsed = subjects::parse_room_request(subject, &self.site, subjects::ADD_MEMBERS);
        let (asker, room_id) = parsed.ok_or(BAD_PAYLOAD)?;
        match self.of_daily(room_id) {
            Some((daily, room)) => daily.add(asker, room, body),
            None => self.memberships.add(asker, room_id, body),
        }
    }

    /// The room of a daily preset that has this id.
    fn of_daily(&self, room_id: &str) -> Option<(&DailyBook, u32)> {
        let daily = self.daily.as_deref()?;
        Some((daily, daily.room(room_id)?))
    }

    /// What an accepted request to make a room asks of the room worker.
    fn creation(&self, subject: &str, body: &[u8]) -> Result<CreateJob, Envelope> {
        self.daily.as_ref().ok_or(Refusal::Internal.envelope())?.create(subject, body)
    }

    /// The answer to a request that only reads.
    fn answer(&self, endpoint: Endpoint, subject: &str, body: &[u8]) -> Result<Value, Envelope> {
        if endpoint == Endpoint::ListRooms {
            let daily = self.daily.as_ref().ok_or(Refusal::UserNotFound.envelope())?;
            return daily.list(asker_of_list(subject, &self.site).ok_or(BAD_PAYLOAD)?, body);
        }
        let (asker, room_id) =
            subjects::parse_room_request(subject, &self.site, endpoint.operation()).ok_or(BAD_PAYLOAD)?;
        if let Some((daily, room)) = self.of_daily(room_id) {
            return daily.answer(endpoint, asker, room, body);
        }
        if endpoint == Endpoint::MarkRead {
            // Its body is not looked at.
            let member = self.directory.subscription(asker, room_id).is_some() || self.member(asker, room_id).is_some();
            return if member { Ok(json!({"status": "accepted"})) } else { Err(NOT_MEMBER) };
        }
        let body: Value = serde_json::from_slice(body).map_err(|_| BAD_PAYLOAD)?;
        let denied = if endpoint == Endpoint::ReadReceipt { NOT_MEMBER } else { NOT_SUBSCRIBED };
        let (room, user) = self.member(asker, room_id).ok_or(denied)?;
        let history = RoomHistory::new(self.preset, self.fixtures.seed, room.index);
        let text = |key: &str| body.get(key).and_then(Value::as_str);
        let index = |key: &str| message_index(room_id, text(key)?).filter(|&index| index < history.messages());
        let limit = match body.get("limit").and_then(Value::as_i64) {
            Some(limit) if limit > 0 => limit.unsigned_abs().min(MOST_LIMIT),
            _ => DEFAULT_LIMIT,
        };
        match endpoint {
            Endpoint::LoadHistory => Ok(self.page(room, &history, body.get("before").and_then(Value::as_u64), limit)),
            Endpoint::GetThread => {
                let parent = index("threadMessageId").ok_or(NOT_FOUND)?;
                self.thread(room, &history, parent, text("cursor"), limit)
            }
            Endpoint::ToggleMute => Ok(json!({"status": "ok", "muted": true})),
            Endpoint::ReadReceipt
            | Endpoint::MarkRead
            | Endpoint::AddMembers
            | Endpoint::ListRooms
            | Endpoint::CreateRoom => {
                let index = index("messageId").ok_or(NOT_FOUND)?;
                readers(room, &history, index, user)
            }
        }
    }

    fn member(&self, asker: &str, room_id: &str) -> Option<(&Room, u32)> {
        let room = &self.fixtures.rooms[*self.by_id.get(room_id)?];
        let user = user_of_account(asker)?;
        room.has_member(user).then_some((room, user))
    }

    fn page(&self, room: &Room, history: &RoomHistory, before_ms: Option<u64>, limit: u64) -> Value {
        let since = before_ms.map_or(0, |before_ms| self.anchor_ms.saturating_sub(before_ms));
        let end = history.older_than(since);
        let start = end.saturating_sub(limit as u32);
        let messages: Vec<Value> = (start..end).rev().map(|index| self.message(room, history, index)).collect();
        json!({"messages": messages})
    }

    fn message(&self, room: &Room, history: &RoomHistory, index: u32) -> Value {
        let room_id = room.id();
        let created_at = self.time(history.age_ms(index));
        let mut message = json!({
            "roomId": room_id, "createdAt": created_at, "messageId": message_id(&room_id, index),
            "sender": sender(room, history.author(index)), "msg": history.content(index, None),
            "siteId": self.site, "updatedAt": created_at,
        });
        if history.has_thread(index) {
            message["tcount"] = json!(history.replies());
            message["threadRoomId"] = json!(thread_room_id(&room_id, index));
        }
        message
    }

    fn thread(
        &self,
        room: &Room,
        history: &RoomHistory,
        parent: u32,
        cursor: Option<&str>,
        limit: u64,
    ) -> Result<Value, Envelope> {
        let replies = if history.has_thread(parent) { u64::from(history.replies()) } else { 0 };
        let skip = match cursor {
            None => 0,
            Some(cursor) => offset(cursor).ok_or(BAD_CURSOR)?,
        };
        let room_id = room.id();
        let reply = |reply: u32| {
            let created_at = self.time(history.reply_age_ms(parent, reply));
            json!({
                "roomId": room_id, "createdAt": created_at, "messageId": reply_id(&room_id, parent, reply),
                "sender": sender(room, history.reply_author(parent, reply)),
                "msg": history.content(parent, Some(reply)), "threadParentId": message_id(&room_id, parent),
                "threadRoomId": thread_room_id(&room_id, parent), "siteId": self.site, "updatedAt": created_at,
            })
        };
        let end = replies.saturating_sub(skip);
        let start = end.saturating_sub(limit);
        let messages: Vec<Value> = (start..end).rev().map(|index| reply(index as u32)).collect();
        let mut answer = json!({
            "messages": messages, "hasNext": start > 0, "parentMessage": self.message(room, history, parent),
        });
        if start > 0 {
            answer["nextCursor"] = json!(BASE64.encode((skip + limit).to_be_bytes()));
        }
        Ok(answer)
    }

    fn time(&self, age_ms: u64) -> String {
        let mut text = String::new();
        write_rfc3339(&mut text, (self.anchor_ms - age_ms) * 1_000_000).expect("a String takes everything");
        text
    }
}

fn offset(cursor: &str) -> Option<u64> {
    BASE64.decode(cursor).ok()?.try_into().ok().map(u64::from_be_bytes)
}

fn sender(room: &Room, member: u32) -> Value {
    let user = room.members[member as usize];
    json!({"id": user_id(user), "engName": eng_name(user), "account": account(user)})
}

/// Seven of ten members have read everything; nobody counts as a reader of their own message.
fn readers(room: &Room, history: &RoomHistory, index: u32, asker: u32) -> Result<Value, Envelope> {
    let author = room.members[history.author(index) as usize];
    if author != asker {
        return Err(("forbidden", None, "only the message sender can view read receipts"));
    }
    let read = (room.members.len() * 7).div_ceil(10);
    let readers = room.members[..read].iter().filter(|&&user| user != author).map(|&user| {
        json!({"userId": user_id(user), "account": account(user), "chineseName": chinese_name(user), "engName": eng_name(user)})
    });
    Ok(json!({"readers": readers.collect::<Vec<_>>()}))
}

/// One endpoint at work.
pub(super) struct Reader {
    endpoint: Endpoint,
    config: EndpointConfig,
    parts: ReaderParts,
    service: Service<Message>,
    requests: Option<Subscriber>,
    /// Answers due, from 1 for the first.
    answers: u64,
}

/// What an endpoint works with.
pub(super) struct ReaderParts {
    pub(super) client: Client,
    pub(super) archive: Arc<Archive>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    pub(super) commands: mpsc::Receiver<EndpointCommand>,
}

impl Reader {
    /// Joins the queue group.
    pub(super) async fn new(
        endpoint: Endpoint,
        config: EndpointConfig,
        seed: u64,
        parts: ReaderParts,
    ) -> anyhow::Result<Self> {
        let subject = endpoint.wildcard(&parts.archive.site);
        let requests = parts.client.queue_subscribe(subject, endpoint.service().to_owned()).await?;
        parts.client.flush().await?;
        let seed = seed ^ ((endpoint as u64 + 64) << 56);
        let mut service = Service::new(config.speed.capacity, config.speed.latency, seed);
        service.clear(parts.clock.now());
        Ok(Self { endpoint, config, service, requests: Some(requests), answers: 0, parts })
    }

    /// Answers until the commands end.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        loop {
            while let Some(done) = self.service.due(self.parts.clock.now()) {
                self.reply(&done.work).await?;
            }
            let idle = self.parts.clock.now() + IDLE;
            let wake = self.parts.clock.instant(self.service.next_event().unwrap_or(idle));
            tokio::select! {
                biased;
                command = self.parts.commands.recv() => match command {
                    Some(EndpointCommand::Leave(answer)) => {
                        if let Some(mut requests) = self.requests.take() {
                            // What is on its way here is answered: nobody else would.
                            requests.drain().await?;
                            while let Some(request) = requests.next().await {
                                self.service.arrive(self.parts.clock.now(), request);
                            }
                        }
                        // Whoever asked may have gone.
                        let _ = answer.send(());
                    }
                    None => return Ok(()),
                },
                Some(request) = next(&mut self.requests) => self.service.arrive(self.parts.clock.now(), request),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn reply(&mut self, request: &Message) -> anyhow::Result<()> {
        let Some(inbox) = request.reply.clone() else { return Ok(()) };
        self.answers += 1;
        let (config, counters, at) = (&self.config, &self.parts.counters, self.endpoint as usize);
        if is_nth(config.skip_every, self.answers) {
            return Ok(());
        }
        let rejected = config.reject.filter(|(every, _)| is_nth(Some(*every), self.answers));
        let answer = match rejected {
            Some((_, refusal)) => Err(refusal.envelope()),
            None if self.endpoint == Endpoint::AddMembers => {
                match self.parts.archive.job(&request.subject, &request.payload) {
                    Ok(job) => {
                        let subject = subjects::add_members_job(&self.parts.archive.site);
                        let job = AddJob { request_id: request_id(request), ..job };
                        self.parts.client.publish(subject, serde_json::to_vec(&job)?.into()).await?;
                        Ok(json!({"status": "accepted"}))
                    }
                    Err(envelope) => Err(envelope),
                }
            }
            None if self.endpoint == Endpoint::CreateRoom => {
                match self.parts.archive.creation(&request.subject, &request.payload) {
                    Ok(job) => {
                        let subject = format!("chat.room.canonical.{}.create", self.parts.archive.site);
                        let job = CreateJob { request_id: request_id(request), ..job };
                        self.parts.client.publish(subject, serde_json::to_vec(&job)?.into()).await?;
                        Ok(json!({"status": "accepted", "roomId": job.room_id, "roomType": "channel"}))
                    }
                    Err(envelope) => Err(envelope),
                }
            }
            None => {
                let archive = &self.parts.archive;
                let stored = archive.stored.as_ref().filter(|_| Stored::answers(self.endpoint));
                match stored {
                    Some(stored) => {
                        stored.answer(self.endpoint, &archive.site, &request.subject, &request.payload).await
                    }
                    None => archive.answer(self.endpoint, &request.subject, &request.payload),
                }
            }
        };
        let body: Bytes = match answer {
            _ if is_nth(config.garbage_every, self.answers) => Bytes::from_static(b"{\"messages\":"),
            Ok(answer) => {
                counters.answered[at].add(1);
                counters.unnamed.add(u64::from(!request_id(request).is_some_and(|id| is_uuid(&id))));
                serde_json::to_vec(&answer)?.into()
            }
            Err((code, reason, error)) => {
                counters.rejected[at].add(1);
                let mut envelope = json!({"code": code, "error": error});
                if let Some(reason) = reason {
                    envelope["reason"] = json!(reason);
                }
                serde_json::to_vec(&envelope)?.into()
            }
        };
        if is_nth(config.foreign_every, self.answers) {
            // The same inbox, and a request that is not yet made.
            let foreign =
                inbox.rsplit_once('.').map_or_else(String::new, |(prefix, _)| format!("{prefix}.fffffffffff"));
            self.parts.client.publish(Subject::from(foreign), body.clone()).await?;
        }
        if is_nth(config.duplicate_every, self.answers) {
            self.parts.client.publish(inbox.clone(), body.clone()).await?;
        }
        Ok(self.parts.client.publish(inbox, body).await?)
    }
}

/// The id that a request carries.
fn request_id(request: &Message) -> Option<String> {
    Some(request.headers.as_ref()?.get(subjects::REQUEST_ID_HEADER)?.as_str().to_owned())
}

async fn next(requests: &mut Option<Subscriber>) -> Option<Message> {
    match requests {
        Some(requests) => requests.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Archive {
        let mut config = StandinConfig::new("nats://nowhere");
        config.history = HistoryPreset::Medium;
        let directory = Directory::new(Fixtures::build(config.preset, config.seed, &config.site), 8);
        Archive::new(&config, Arc::new(directory), None, &Clock::start())
    }

    fn ask(archive: &Archive, endpoint: Endpoint, room: usize, member: usize, body: &Value) -> Result<Value, Envelope> {
        let room = &archive.fixtures.rooms[room];
        let subject =
            subjects::room_request(&account(room.members[member]), &room.id(), &archive.site, endpoint.operation());
        archive.answer(endpoint, &subject, body.to_string().as_bytes())
    }

    #[test]
    fn scrolling_back_reads_every_message_once_and_ends() {
        let archive = archive();
        let (mut seen, mut before) = (Vec::new(), json!(null));
        loop {
            let page = ask(&archive, Endpoint::LoadHistory, 1, 0, &json!({"before": before, "limit": 100})).unwrap();
            let rows = page["messages"].as_array().unwrap().clone();
            let (_, read) = plimsoll_common::contract::read::read_page(page.to_string().as_bytes());
            assert_eq!(read.unwrap().rows, rows.len() as u64);
            seen.extend(rows.iter().map(|row| row["messageId"].as_str().unwrap().to_owned()));
            if rows.len() < 100 {
                break;
            }
            before = json!(read.unwrap().oldest_ms.unwrap());
        }
        let expected: Vec<String> = (0..5_000).rev().map(|index| message_id("hroom-000001", index)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn threads_page_by_cursor_and_repeat_their_parent() {
        let archive = archive();
        let parent = RoomHistory::new(archive.preset, archive.fixtures.seed, 1).threads()[0];
        let id = message_id("hroom-000001", parent);
        let first = ask(&archive, Endpoint::GetThread, 1, 0, &json!({"threadMessageId": id, "limit": 2})).unwrap();
        assert_eq!((first["messages"].as_array().unwrap().len(), &first["hasNext"]), (2, &json!(true)));
        let body = json!({"threadMessageId": id, "limit": 2, "cursor": first["nextCursor"]});
        let last = ask(&archive, Endpoint::GetThread, 1, 0, &body).unwrap();
        assert_eq!((last["messages"].as_array().unwrap().len(), &last["hasNext"]), (1, &json!(false)));
        assert_eq!((&last["parentMessage"]["messageId"], last.get("nextCursor")), (&json!(id), None));
        let body = json!({"threadMessageId": id, "cursor": "?"});
        assert_eq!(ask(&archive, Endpoint::GetThread, 1, 0, &body).unwrap_err().2, "invalid pagination cursor");
    }

    #[test]
    fn only_the_author_sees_the_readers_and_only_members_read() {
        let archive = archive();
        let history = RoomHistory::new(archive.preset, archive.fixtures.seed, 2);
        let author = history.author(7) as usize;
        let body = json!({"messageId": message_id("hroom-000002", 7)});
        let readers = ask(&archive, Endpoint::ReadReceipt, 2, author, &body).unwrap();
        assert!(matches!(readers["readers"].as_array().unwrap().len(), 13 | 14), "{readers}");
        let other = (author + 1) % 20;
        assert_eq!(ask(&archive, Endpoint::ReadReceipt, 2, other, &body).unwrap_err().0, "forbidden");
        let stranger = (0..1000).find(|&user| !archive.fixtures.rooms[2].has_member(user)).unwrap();
        for (endpoint, envelope) in [(Endpoint::LoadHistory, NOT_SUBSCRIBED), (Endpoint::MarkRead, NOT_MEMBER)] {
            let subject =
                subjects::room_request(&account(stranger), "hroom-000002", &archive.site, endpoint.operation());
            assert_eq!(archive.answer(endpoint, &subject, b"{}"), Err(envelope));
        }
        assert_eq!(ask(&archive, Endpoint::MarkRead, 2, 0, &json!(null)), Ok(json!({"status": "accepted"})));
        let subject = subjects::room_request(
            &account(archive.fixtures.rooms[2].members[0]),
            "hroom-000002",
            &archive.site,
            subjects::LOAD_HISTORY,
        );
        assert_eq!(archive.answer(Endpoint::LoadHistory, &subject, b""), Err(BAD_PAYLOAD));
    }
}
