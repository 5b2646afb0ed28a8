//! The chat's message pipeline: one worker's rooms and senders, their subjects, and what comes back.

use std::io::Write as _;

use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::{Bytes, BytesMut};
use plimsoll_common::contract::fixtures::{RoomKind, account, thread_parent_id, user_id};
use plimsoll_common::contract::ids::{IdCodec, MESSAGE_ID_BYTES, Owner};
use plimsoll_common::contract::presets::PresetShape;
use plimsoll_common::contract::read::{Ack, broadcast_message_id, classify_ack};
use plimsoll_common::contract::{subjects, time, write};
use plimsoll_common::plan::{Inject, MessagesWorkload};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::{Aside, Incoming, Outgoing, Probe, Setup, Subscription, Workload};
use crate::core::alias::AliasTable;
use crate::core::ledger::{Choice, Kind, Ledger, Outcome};

/// Series of the reply, and of the broadcast.
pub const E1: u32 = 0;
/// See [`E1`].
pub const E2: u32 = 1;

/// What a subscription carries: the two low bits of its tag; the rest is the user where there is one.
const REPLY: u32 = 0;
const ROOM_EVENT: u32 = 1;
const USER_EVENT: u32 = 2;
const PUBLISH_ACK: u32 = 3;

/// Bodies are cut from chunks of this size, so that an operation costs no allocation of its own.
const CHUNK_BYTES: usize = 256 * 1024;
/// Random text that contents are cut from: a service that compresses or caches must not see one content only.
const TEXT_BYTES: usize = 64 * 1024;

/// Contents are shorter than this.
const MAX_LENGTH: usize = 1 << 12;

/// One piece of the worker's assignment: a room as far as it is this worker's.
struct Place {
    room_id: String,
    kind: RoomKind,
    /// Per sender: user, account, and the subject of the send.
    senders: Vec<Sender>,
}

struct Sender {
    user: u32,
    account: String,
    subject: Subject,
}

/// The message pipeline as one worker drives it.
pub struct Messages {
    inject: Inject,
    site: String,
    places: Vec<Place>,
    rooms: AliasTable,
    ids: IdCodec,
    shape: PresetShape,
    users: u32,
    text: Vec<u8>,
    chunk: BytesMut,
    canonical_subject: Subject,
    /// Where publish acknowledgements arrive: this, a dot, and the operation's message id.
    ack_prefix: String,
    created_at: String,
    content: Vec<u8>,
    /// Per place: the messages that are replied to; empty where nothing is.
    parents: Vec<Vec<[u8; MESSAGE_ID_BYTES]>>,
}

impl Messages {
    /// The pipeline driven with replies to so many seeded messages of every room.
    pub(super) fn with_parents(
        plan: &MessagesWorkload,
        parents_per_room: u16,
        setup: Setup<'_>,
    ) -> Result<Self, String> {
        let seed = setup.dealt().seed;
        let parents = |room| (0..u32::from(parents_per_room)).map(|at| thread_parent_id(seed, room, at)).collect();
        let parents = setup.part.assignment.pieces.iter().map(|piece| parents(piece.room)).collect();
        Ok(Self { parents, ..Self::new(plan, setup)? })
    }

    /// The content of an operation: letters that need no escape in JSON, after a mention where one was drawn.
    fn fill_content(&mut self, choice: Choice) {
        let (at, length, mention) = unpack_content(choice.content as u32);
        self.content.clear();
        if mention {
            // A user drawn by where the text begins: any user will do, in or out of the room.
            let user = (at as u64 * u64::from(self.users) / TEXT_BYTES as u64) as u32;
            // Writing to memory does not fail.
            let _ = write!(self.content, "@{} ", account(user));
        }
        self.content.extend_from_slice(&self.text[at..at + length]);
    }

    fn sender(&self, choice: Choice) -> &Sender {
        &self.places[choice.place as usize].senders[choice.actor as usize]
    }

    fn body_space(&mut self, needed: usize) {
        if self.chunk.capacity() < needed {
            // The old chunk lives on in the bodies cut from it; the new one is another allocation.
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES.max(needed));
        }
    }

    fn frontdoor(&mut self, sequence: u64, choice: Choice) -> Outgoing {
        let (message_id, request_id) = (self.ids.message_id(sequence), self.ids.request_id(sequence));
        self.body_space(self.content.len() + 320);
        match self.parents.get(choice.place as usize) {
            Some(parents) => {
                let parent = &parents[(choice.content >> u32::BITS) as usize];
                write::write_thread_reply(&mut self.chunk, &message_id, &request_id, parent, &self.content);
            }
            None => write::write_send_request(&mut self.chunk, &message_id, &request_id, &self.content),
        }
        let payload = self.chunk.split().freeze();
        let subject = self.sender(choice).subject.clone();
        Outgoing { subject, reply: None, headers: None, payload }
    }

    fn canonical(&mut self, sequence: u64, choice: Choice) -> Outgoing {
        let (message_id, request_id) = (self.ids.message_id(sequence), self.ids.request_id(sequence));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.created_at.clear();
        // Writing to memory does not fail.
        let _ = time::write_rfc3339(&mut self.created_at, now.as_nanos() as u64);
        self.body_space(self.content.len() + 512);
        let place = &self.places[choice.place as usize];
        let sender = &place.senders[choice.actor as usize];
        write::write_canonical_event(
            &mut self.chunk,
            &message_id,
            place.room_id.as_bytes(),
            user_id(sender.user).as_bytes(),
            sender.account.as_bytes(),
            &self.content,
            self.created_at.as_bytes(),
            self.site.as_bytes(),
            now.as_millis() as u64,
        );
        let payload = self.chunk.split().freeze();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut headers = HeaderMap::new();
        headers.insert(subjects::DEDUP_HEADER, text(&message_id));
        headers.insert(subjects::REQUEST_ID_HEADER, text(&request_id));
        let reply = Subject::from(format!("{}.{}", self.ack_prefix, text(&message_id)));
        Outgoing { subject: self.canonical_subject.clone(), reply: Some(reply), headers: Some(headers), payload }
    }

    fn reply(&self, message: &Message) -> Incoming {
        // `chat.user.{account}.response.` and the request id: everything before the last dot was matched by the server.
        let request_id = message.subject.rsplit('.').next().unwrap_or_default();
        let Owner::Mine(sequence) = self.ids.owner_of_request(request_id.as_bytes()) else { return Incoming::Foreign };
        let outcome = match classify_ack(&message.payload) {
            Ack::Accepted => Outcome::Sample,
            Ack::Refused { .. } => Outcome::Refused,
            Ack::Unreadable => Outcome::Unreadable,
        };
        Incoming::Answer { sequence, series: E1, outcome }
    }

    fn publish_ack(&self, message: &Message) -> Incoming {
        let id = message.subject.rsplit('.').next().unwrap_or_default();
        let Owner::Mine(sequence) = self.ids.owner_of_message(id.as_bytes()) else { return Incoming::Foreign };
        let outcome = match message.status {
            Some(StatusCode::NO_RESPONDERS) => Outcome::NoResponders,
            Some(_) => Outcome::Refused,
            None => classify_publish_ack(&message.payload),
        };
        Incoming::Answer { sequence, series: E1, outcome }
    }

    /// `copy_of`: the user whose own copy it is, where the broadcast goes to each member. Only the sender's counts.
    fn broadcast(&self, copy_of: Option<u32>, message: &Message, ledger: &Ledger) -> Incoming {
        // Other events share these subjects and answer nothing that we sent.
        let Some(id) = broadcast_message_id(&message.payload) else { return Incoming::NotForUs };
        match self.ids.owner_of_message(id) {
            Owner::Mine(sequence) => {
                let sent_by = ledger.choice_ever(sequence).map(|choice| self.sender(choice).user);
                match (copy_of, sent_by) {
                    (Some(copy_of), Some(sent_by)) if copy_of != sent_by => Incoming::NotForUs,
                    _ => Incoming::Answer { sequence, series: E2, outcome: Outcome::Sample },
                }
            }
            Owner::Sibling { .. } | Owner::OtherOwner => Incoming::NotForUs,
            Owner::Foreign => Incoming::Foreign,
        }
    }
}

/// A publish acknowledgement without error that stored the message: a duplicate was dropped, so its E2 will never come.
pub(super) fn classify_publish_ack(payload: &[u8]) -> Outcome {
    #[derive(serde::Deserialize)]
    struct PublishAck {
        error: Option<serde::de::IgnoredAny>,
        seq: Option<u64>,
        #[serde(default)]
        duplicate: bool,
    }
    match serde_json::from_slice(payload) {
        Ok(PublishAck { error: None, seq: Some(_), duplicate: false }) => Outcome::Sample,
        Ok(PublishAck { error: None, seq: None, .. }) | Err(_) => Outcome::Unreadable,
        Ok(_) => Outcome::Refused,
    }
}

/// A subject whose clones share one allocation from the first clone on.
fn shared_subject(text: String) -> Subject {
    let subject = Subject::from(text);
    // The first clone is what turns the bytes into shared ones; later clones only count.
    let shared = subject.clone();
    drop(subject);
    shared
}

// A content in 32 bits: where its text begins (16), its length (12, up to 4,095 bytes), and whether it mentions somebody.
fn pack_content(at: usize, length: usize, mention: bool) -> u32 {
    (at as u32 & 0xffff) << 16 | (length as u32 & 0xfff) << 4 | u32::from(mention)
}

fn unpack_content(packed: u32) -> (usize, usize, bool) {
    ((packed >> 16) as usize, (packed >> 4 & 0xfff) as usize, packed & 1 == 1)
}

impl Workload for Messages {
    type Plan = MessagesWorkload;

    fn new(plan: &MessagesWorkload, setup: Setup<'_>) -> Result<Self, String> {
        let (fixtures, assignment, site) = (setup.dealt(), &setup.part.assignment, plan.site_id.clone());
        let places = assignment.pieces.iter().zip(&assignment.senders).map(|(piece, senders)| {
            let room = &fixtures.rooms[piece.room as usize];
            let room_id = room.id();
            let senders = senders.iter().map(|&user| {
                let account = account(user);
                let subject = shared_subject(subjects::send(&account, &room_id, &site));
                Sender { user, account, subject }
            });
            Place { kind: room.kind, senders: senders.collect(), room_id }
        });
        let places: Vec<Place> = places.collect();
        let weights: Vec<f64> = assignment.pieces.iter().map(|piece| piece.weight).collect();
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.";
        let chance = setup.chance;
        let text = (0..TEXT_BYTES + MAX_LENGTH).map(|_| LETTERS[chance.random_range(0..LETTERS.len())]).collect();
        Ok(Self {
            inject: plan.inject,
            canonical_subject: shared_subject(subjects::canonical_created(&site)),
            site,
            places,
            rooms: AliasTable::new(&weights),
            shape: plan.preset.shape(),
            users: fixtures.users,
            text,
            chunk: BytesMut::new(),
            ack_prefix: format!("{}.ack", setup.inbox),
            ids: setup.ids,
            created_at: String::new(),
            content: Vec::new(),
            parents: Vec::new(),
        })
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::replied(&[E1, E2], E1)]
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        let mut subscriptions = Vec::new();
        let (mut repliers, mut listeners) = (Vec::new(), Vec::new());
        for place in &self.places {
            repliers.extend(place.senders.iter().map(|sender| sender.user));
            match place.kind {
                RoomKind::Channel if self.parents.is_empty() => {
                    subscriptions.push(Subscription { subject: subjects::room_event(&place.room_id), tag: ROOM_EVENT })
                }
                // A reply in a thread goes to those who follow it, each a copy, as everything does in a direct message.
                RoomKind::Channel | RoomKind::Dm => listeners.extend(place.senders.iter().map(|sender| sender.user)),
            }
        }
        let unique = |users: &mut Vec<u32>| {
            users.sort_unstable();
            users.dedup();
        };
        unique(&mut repliers);
        unique(&mut listeners);
        let user_event =
            |user| Subscription { subject: subjects::user_event(&account(user)), tag: user << 2 | USER_EVENT };
        subscriptions.extend(listeners.into_iter().map(user_event));
        match self.inject {
            Inject::Frontdoor => subscriptions.extend(repliers.into_iter().map(|user| Subscription {
                subject: subjects::response_wildcard(&account(user)),
                tag: user << 2 | REPLY,
            })),
            Inject::Canonical => {
                subscriptions.push(Subscription { subject: format!("{}.*", self.ack_prefix), tag: PUBLISH_ACK });
            }
        }
        subscriptions
    }

    fn probes(&self) -> Vec<Probe> {
        let subject = match (self.inject, self.places.first().and_then(|place| place.senders.first())) {
            (Inject::Frontdoor, Some(sender)) => sender.subject.to_string(),
            _ => self.canonical_subject.to_string(),
        };
        let nobody = "no stream takes it: are the target's streams and the site id right?";
        vec![Probe { subject, payload: Bytes::new(), nobody }]
    }

    fn choose(&mut self, chance: &mut ChaCha8Rng) -> Choice {
        let place = self.rooms.draw(chance);
        let bits: u64 = chance.random();
        let below = |bits: u64, n: u64| ((u128::from(bits) * u128::from(n)) >> 64) as u64;
        let actor = below(bits, self.places[place as usize].senders.len() as u64) as u32;
        let bits: u64 = chance.random();
        let (shortest, longest) = (*self.shape.content_bytes.start(), *self.shape.content_bytes.end());
        let length = shortest as usize + below(bits << 16, u64::from(longest - shortest) + 1) as usize;
        let mention = self.shape.mention_rate > 0.0 && chance.random::<f64>() < self.shape.mention_rate;
        let content = u64::from(pack_content((bits >> 48) as usize, length, mention));
        let parent = self.parents.get(place as usize).map_or(0, |parents| below(chance.random(), parents.len() as u64));
        Choice { place, actor, content: parent << u32::BITS | content, kind: 0 }
    }

    fn message(&mut self, sequence: u64, choice: Choice) -> Outgoing {
        self.fill_content(choice);
        match self.inject {
            Inject::Frontdoor => self.frontdoor(sequence, choice),
            Inject::Canonical => self.canonical(sequence, choice),
        }
    }

    fn incoming(&mut self, tag: u32, message: &Message, ledger: &Ledger, _: &mut Aside) -> Incoming {
        match tag & 3 {
            REPLY => self.reply(message),
            ROOM_EVENT => self.broadcast(None, message, ledger),
            USER_EVENT => self.broadcast(Some(tag >> 2), message, ledger),
            _ => self.publish_ack(message),
        }
    }
}
