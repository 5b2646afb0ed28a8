//! The rooms of the daily presets: what each request about them is answered, and what changes by it.

use super::clock::Clock;
use super::config::{DailyConfig, Endpoint, Refusal};
use super::directory::RoomEntry;
use super::reads::{BAD_PAYLOAD, Envelope, NOT_MEMBER};
use super::rooms::{AddJob, CreateJob};
use plimsoll_common::contract::daily::Band;
use plimsoll_common::contract::daily::fixtures::DailyFixtures;
use plimsoll_common::contract::fixtures::{Family, Room, RoomKind, account, eng_name, user_id, user_of_account};
use plimsoll_common::contract::subjects;
use plimsoll_common::contract::time::write_rfc3339;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The chat takes no more people into a room.
const MAX_ROOM_SIZE: usize = 1_000;
const NOT_SUBSCRIBED: Envelope = ("forbidden", Some("not_subscribed"), "not subscribed to room");
const NOT_A_CHANNEL: Envelope =
    ("bad_request", Some("non_channel_operation"), "cannot add members to a non-channel room");
const TOO_LARGE: Envelope = ("conflict", Some("max_room_size_reached"), "room is full");
const NO_NAME: Envelope = ("bad_request", None, "request must include at least one of users, orgs, channels, or name");

/// Who came into which room since the seeding.
#[derive(Debug, Default)]
pub(super) struct Joined(Mutex<HashMap<u32, HashSet<u32>>>);

impl Joined {
    /// How many came into a room.
    pub(super) fn count(&self, room: u32) -> u64 {
        self.rooms().get(&room).map_or(0, |users| users.len() as u64)
    }

    fn has(&self, room: u32, user: u32) -> bool {
        self.rooms().get(&room).is_some_and(|users| users.contains(&user))
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<u32, HashSet<u32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is where, and what has changed since the seeding.
#[derive(Debug)]
pub(super) struct DailyBook {
    site: String,
    pub(super) fixtures: DailyFixtures,
    joined: Arc<Joined>,
    muted: Mutex<HashSet<(u32, u32)>>,
    anchor_ms: u64,
}

impl DailyBook {
    pub(super) fn new(config: &DailyConfig, seed: u64, site: &str, clock: &Clock) -> anyhow::Result<Self> {
        Ok(Self {
            site: site.to_owned(),
            fixtures: DailyFixtures::build(config.preset, config.users, seed)?,
            joined: Arc::default(),
            muted: Mutex::default(),
            anchor_ms: clock.unix_nanos() / 1_000_000,
        })
    }

    /// All rooms, as the pipeline looks them up.
    pub(super) fn entries(&self) -> Vec<RoomEntry> {
        (0..self.fixtures.rooms()).map(|room| self.entry(room)).collect()
    }

    fn entry(&self, index: u32) -> RoomEntry {
        let kind = if self.fixtures.band(index) == Band::Dm { RoomKind::Dm } else { RoomKind::Channel };
        let mut members = self.fixtures.members(index);
        members.sort_unstable();
        let room = Room { index, kind, family: Family::Messages, members };
        let id = self.fixtures.room_id(index);
        RoomEntry::named(room, id.clone(), id, self.fixtures.owner(index))
    }

    /// The room of this id.
    pub(super) fn room(&self, id: &str) -> Option<u32> {
        let (band, digits) = id.strip_prefix("room-")?.split_once('-')?;
        let band = Band::ALL.into_iter().find(|known| known.name() == band)?;
        let rooms = self.fixtures.rooms_in(band);
        let room = rooms.start.checked_add(digits.parse().ok()?)?;
        (rooms.contains(&room) && self.fixtures.room_id(room) == id).then_some(room)
    }

    fn user(&self, account: &str) -> Option<u32> {
        user_of_account(account).filter(|&user| user < self.fixtures.users())
    }

    fn member(&self, asker: &str, room: u32) -> Option<u32> {
        self.user(asker).filter(|&user| self.fixtures.has_member(room, user) || self.joined.has(room, user))
    }

    /// Who came since the seeding, which the pipeline looks up.
    pub(super) fn joined(&self) -> Arc<Joined> {
        Arc::clone(&self.joined)
    }

    /// The answer to a request about one of these rooms.
    pub(super) fn answer(&self, endpoint: Endpoint, asker: &str, room: u32, body: &[u8]) -> Result<Value, Envelope> {
        let denied = if endpoint == Endpoint::LoadHistory { NOT_SUBSCRIBED } else { NOT_MEMBER };
        let user = self.member(asker, room).ok_or(denied)?;
        match endpoint {
            Endpoint::MarkRead => Ok(json!({"status": "accepted"})),
            Endpoint::ToggleMute => {
                let mut all = self.muted.lock().unwrap_or_else(PoisonError::into_inner);
                let muted = all.insert((room, user)) || !all.remove(&(room, user));
                Ok(json!({"status": "ok", "muted": muted}))
            }
            Endpoint::LoadHistory => self.page(room, body),
            _ => Err(Refusal::Internal.envelope()),
        }
    }

    fn page(&self, room: u32, body: &[u8]) -> Result<Value, Envelope> {
        let body: Value = serde_json::from_slice(body).map_err(|_| BAD_PAYLOAD)?;
        let before_ms = body.get("before").and_then(Value::as_u64).unwrap_or(u64::MAX);
        let limit = body.get("limit").and_then(Value::as_u64).filter(|&limit| limit > 0).unwrap_or(20).min(100);
        let room_id = self.fixtures.room_id(room);
        let newest_first = (0..self.fixtures.band(room).seeded_messages()).rev();
        let messages = newest_first
            .map(|index| self.fixtures.seeded_message(room, index))
            .filter(|message| self.anchor_ms - message.age_ms < before_ms)
            .take(limit as usize)
            .map(|message| {
                let mut created_at = String::new();
                write_rfc3339(&mut created_at, (self.anchor_ms - message.age_ms) * 1_000_000)
                    .expect("a String takes everything");
                json!({
                    "roomId": room_id, "createdAt": created_at, "messageId": String::from_utf8_lossy(&message.id),
                    "sender": {"id": user_id(message.author), "engName": eng_name(message.author), "account": account(message.author)},
                    "msg": "seeded", "siteId": self.site, "updatedAt": created_at,
                })
            });
        Ok(json!({"messages": messages.collect::<Vec<_>>()}))
    }

    /// The rooms of whoever asks, without direct messages to bots.
    pub(super) fn list(&self, asker: &str, body: &[u8]) -> Result<Value, Envelope> {
        let body: Value = serde_json::from_slice(body).map_err(|_| BAD_PAYLOAD)?;
        if !matches!(body.get("type").and_then(Value::as_str), Some("rooms" | "current")) {
            return Err(("bad_request", None, "unknown subscription type"));
        }
        let user = self.user(asker).ok_or(Refusal::UserNotFound.envelope())?;
        let rows: Vec<Value> = self
            .fixtures
            .rooms_of(user)
            .into_iter()
            .map(|room| {
                let id = self.fixtures.room_id(room);
                let kind = if self.fixtures.band(room) == Band::Dm { "dm" } else { "channel" };
                json!({
                    "id": format!("sub-{id}-{}", user_id(user)), "roomId": id, "siteId": self.site, "roles": ["member"],
                    "u": {"id": user_id(user), "account": asker, "isBot": false}, "name": id, "roomType": kind,
                    "joinedAt": "2026-01-01T00:00:00Z", "hasMention": false, "alert": false, "muted": false,
                    "favorite": false, "hasGroupMention": false, "hasUnread": false,
                })
            })
            .collect();
        let total = rows.len();
        Ok(json!({"subscriptions": rows, "total": total}))
    }

    /// What becomes of a request to add users: all of them, or none and an error.
    pub(super) fn add(&self, asker: &str, room: u32, body: &[u8]) -> Result<AddJob, Envelope> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Request {
            room_id: Option<String>,
            #[serde(default)]
            users: Vec<String>,
        }
        let request: Request = serde_json::from_slice(body).map_err(|_| BAD_PAYLOAD)?;
        let room_id = self.fixtures.room_id(room);
        if request.room_id.is_some_and(|named| named != room_id) {
            return Err(BAD_PAYLOAD);
        }
        self.member(asker, room).ok_or(NOT_MEMBER)?;
        if self.fixtures.band(room) == Band::Dm {
            return Err(NOT_A_CHANNEL);
        }
        let users: Option<Vec<u32>> = request.users.iter().map(|name| self.user(name)).collect();
        let users = users.ok_or(Refusal::UserNotFound.envelope())?;
        // The chat accepts an empty list, and then adds nobody; here that is a mistake that must show.
        if users.is_empty() {
            return Err(Refusal::UserNotFound.envelope());
        }
        let mut joined = self.joined.rooms();
        let added = joined.entry(room).or_default();
        // Whoever is a member already is one afterwards: the chat upserts.
        let new: HashSet<u32> =
            users.into_iter().filter(|user| !self.fixtures.has_member(room, *user) && !added.contains(user)).collect();
        if self.fixtures.size(room) as usize + added.len() + new.len() > MAX_ROOM_SIZE {
            return Err(TOO_LARGE);
        }
        added.extend(new);
        Ok(AddJob { room_id, users: request.users, requester_account: asker.to_owned(), request_id: None })
    }

    /// What becomes of a request to make a room.
    pub(super) fn create(&self, subject: &str, body: &[u8]) -> Result<CreateJob, Envelope> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(default)]
            name: String,
            #[serde(default)]
            users: Vec<String>,
        }
        let asker = subject.strip_prefix("chat.user.").and_then(|rest| rest.split('.').next()).unwrap_or_default();
        let request: Request = serde_json::from_slice(body).map_err(|_| BAD_PAYLOAD)?;
        self.user(asker).ok_or(Refusal::UserNotFound.envelope())?;
        if request.name.is_empty() || request.users.is_empty() {
            return Err(NO_NAME);
        }
        if request.users.iter().any(|name| self.user(name).is_none() || name == asker) {
            return Err(Refusal::UserNotFound.envelope());
        }
        let room_id = format!("created-{}", request.name);
        Ok(CreateJob { room_id, creator_account: asker.to_owned(), request_id: None })
    }
}

/// The account in the subject of a request about all of a user's own.
pub(super) fn asker_of_list<'a>(subject: &'a str, site: &str) -> Option<&'a str> {
    let (account, rest) = subject.strip_prefix("chat.user.")?.split_once('.')?;
    (rest == format!("request.user.{site}.{}", subjects::LIST_ROOMS)).then_some(account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_common::contract::daily::DailyPreset;

    fn book() -> DailyBook {
        let config = DailyConfig { preset: DailyPreset::Light, users: 1_000 };
        DailyBook::new(&config, 42, "s", &Clock::start()).unwrap()
    }

    #[test]
    fn rooms_are_found_by_their_ids_and_by_no_others() {
        let book = book();
        for room in (0..book.fixtures.rooms()).step_by(97) {
            assert_eq!(book.room(&book.fixtures.room_id(room)), Some(room));
        }
        for wrong in ["room-dm-7", "room-large-999999", "room-000001", "room-tiny-000001", ""] {
            assert_eq!(book.room(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn members_read_add_and_mute_and_nobody_else_does() {
        let book = book();
        let room = book.fixtures.rooms_in(Band::Small).start + 5;
        let (member, stranger) =
            (account(book.fixtures.members(room)[0]), account(book.fixtures.stranger(room, 0).unwrap()));
        let page = book.answer(Endpoint::LoadHistory, &member, room, br#"{"limit":4}"#).unwrap();
        assert_eq!(page["messages"].as_array().map(Vec::len), Some(4));
        assert_eq!(book.answer(Endpoint::LoadHistory, &member, room, b""), Err(BAD_PAYLOAD));
        assert_eq!(book.answer(Endpoint::LoadHistory, &stranger, room, b"{}"), Err(NOT_SUBSCRIBED));
        assert_eq!(book.answer(Endpoint::MarkRead, &stranger, room, b"{}"), Err(NOT_MEMBER));
        let toggle = || book.answer(Endpoint::ToggleMute, &member, room, b"").unwrap()["muted"].clone();
        assert_eq!([toggle(), toggle(), toggle()], [json!(true), json!(false), json!(true)]);
        assert_eq!(book.list(&member, br#"{"type":"rooms"}"#).unwrap()["total"], 32);

        let body = |field: &str, who: &str| format!("{{\"{field}\":[\"{who}\"]}}").into_bytes();
        // The wrong field names nobody.
        assert_eq!(book.add(&member, room, &body("accounts", &stranger)), Err(Refusal::UserNotFound.envelope()));
        assert_eq!(book.add(&stranger, room, &body("users", &stranger)), Err(NOT_MEMBER));
        assert!(book.add(&member, room, &body("users", &stranger)).is_ok());
        // Once more it changes nothing.
        assert!(book.add(&member, room, &body("users", &stranger)).is_ok());
        assert_eq!(book.joined.count(room), 1);
        let dm = book.fixtures.rooms_in(Band::Dm).start;
        let partner = account(book.fixtures.members(dm)[0]);
        assert_eq!(book.add(&partner, dm, &body("users", "user-1")), Err(NOT_A_CHANNEL));
        let create = |body: &str| book.create("chat.user.user-3.request.room.s.create", body.as_bytes());
        assert_eq!(create(r#"{"name":"x","users":["user-4"]}"#).unwrap().creator_account, "user-3");
        assert_eq!(create(r#"{"name":"x","users":[]}"#), Err(NO_NAME));
    }
}
