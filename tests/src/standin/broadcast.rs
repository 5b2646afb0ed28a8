//! The broadcast worker: tells a room's members about an accepted message.

use super::clock::Clock;
use super::config::BroadcastFaults;
use super::directory::RoomEntry;
use super::ids::message_id;
use super::service::unit;
use super::stage::{Tools, is_nth, settle};
use aes_gcm::aead::Aead as _;
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use anyhow::anyhow;
use async_nats::{HeaderMap, Message, Subject};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use plimsoll_common::contract::fixtures::{RoomKind, account, chinese_name, eng_name, user_of_account};
use plimsoll_common::contract::payload::{CanonicalEvent, EncryptedMessage, Participant, RoomEvent};
use plimsoll_common::contract::subjects;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) struct Broadcaster {
    tools: Tools,
    faults: BroadcastFaults,
    /// None if channels are not encrypted.
    sealer: Option<Sealer>,
    /// How many replies each thread has, by its parent; `None`: nobody is told.
    threads: Option<HashMap<String, u32>>,
    /// Messages to broadcast, from 1 for the first.
    seen: u64,
}

impl Broadcaster {
    pub(super) fn new(tools: Tools, faults: BroadcastFaults, sealer: Option<Sealer>, thread_metadata: bool) -> Self {
        Self { tools, faults, sealer, threads: thread_metadata.then(HashMap::new), seen: 0 }
    }

    /// Broadcasts one canonical event whose service has ended.
    pub(super) async fn handle(&mut self, stored: Message) -> anyhow::Result<()> {
        // Edits, and whatever somebody else has put into the stream, are not broadcast.
        if let Ok(event) = serde_json::from_slice::<CanonicalEvent<'_>>(&stored.payload)
            && event.event == "created"
        {
            let directory = Arc::clone(&self.tools.directory);
            if let Some(room) = directory.room(&event.message.room_id) {
                self.broadcast(&stored, event, room).await?;
            }
        }
        settle(&self.tools.client, &stored).await
    }

    async fn broadcast(&mut self, stored: &Message, event: CanonicalEvent<'_>, room: &RoomEntry) -> anyhow::Result<()> {
        self.seen += 1;
        let unlucky = self.faults.drop_fraction > 0.0 && unit(&mut self.tools.rng) < self.faults.drop_fraction;
        if unlucky || is_nth(self.faults.drop_every, self.seen) {
            self.tools.counters.broadcasts_dropped.add(1);
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        if let Some(id) = stored.headers.as_ref().and_then(|h| h.get(subjects::REQUEST_ID_HEADER)) {
            headers.insert(subjects::REQUEST_ID_HEADER, id.as_str());
        }
        if is_nth(self.faults.foreign_every, self.seen) {
            let mut foreign = event.clone();
            foreign.message.id = message_id(&mut self.tools.rng).into();
            let body = self.body(foreign, room)?;
            self.tools.counters.broadcasts_foreign.add(1);
            self.publish(&room.audience, &HeaderMap::new(), body).await?;
        }
        let followers = self.followers(&event, room);
        if followers.is_some() {
            self.tell_of_reply(&event, room).await?;
        }
        let audience = followers.as_deref().unwrap_or(&room.audience);
        let body = self.body(event, room)?;
        if is_nth(self.faults.duplicate_every, self.seen) {
            self.tools.counters.broadcasts_duplicated.add(1);
            self.publish(audience, &headers, body.clone()).await?;
        }
        self.tools.counters.broadcasts.add(1);
        self.publish(audience, &headers, body).await
    }

    /// Tells everybody in the room that a thread has one more reply.
    async fn tell_of_reply(&mut self, event: &CanonicalEvent<'_>, room: &RoomEntry) -> anyhow::Result<()> {
        let (Some(threads), Some(parent)) = (&mut self.threads, event.message.thread_parent_message_id.as_deref())
        else {
            return Ok(());
        };
        let replies = threads.entry(parent.to_owned()).or_default();
        // The chat counts no further.
        *replies = (*replies + 1).min(99);
        let told = ThreadMetadata {
            kind: "thread_metadata_updated",
            room_id: &room.id,
            timestamp: self.tools.clock.unix_nanos() / 1_000_000,
            site_id: &event.site_id,
            event_timestamp: event.timestamp,
            parent_message_id: parent,
            reply_message_id: &event.message.id,
            new_tcount: *replies,
            new_thread_last_msg_at: &event.message.created_at,
            action: "reply_added",
        };
        let body = serde_json::to_vec(&told)?.into();
        self.tools.counters.thread_metadata.add(1);
        self.publish(&room.audience, &HeaderMap::new(), body).await
    }

    /// Who gets a reply in a channel's thread, each a copy: its sender and the parent's author. `None`: it is no such reply.
    fn followers(&self, event: &CanonicalEvent<'_>, room: &RoomEntry) -> Option<Vec<Subject>> {
        let parent = event.message.thread_parent_message_id.as_deref()?;
        if room.room.kind == RoomKind::Dm {
            return None;
        }
        let sender = event.message.user_account.to_string();
        let author = self.tools.directory.parent_author(room, parent).map(account).filter(|author| *author != sender);
        Some(std::iter::once(sender).chain(author).map(|account| subjects::user_event(&account).into()).collect())
    }

    async fn publish(&self, audience: &[Subject], headers: &HeaderMap, body: Bytes) -> anyhow::Result<()> {
        for subject in audience {
            if headers.is_empty() {
                self.tools.client.publish(subject.clone(), body.clone()).await?;
            } else {
                self.tools.client.publish_with_headers(subject.clone(), headers.clone(), body.clone()).await?;
            }
        }
        Ok(())
    }

    fn body(&mut self, event: CanonicalEvent<'_>, room: &RoomEntry) -> anyhow::Result<Bytes> {
        let mut message = event.message;
        let user = user_of_account(&message.user_account);
        message.sender = Some(Participant {
            user_id: Some(message.user_id.clone()),
            account: message.user_account.clone(),
            chinese_name: user.map(|user| chinese_name(user).into()),
            eng_name: user.map(|user| eng_name(user).into()),
        });
        let (created_at, id) = (message.created_at.clone(), message.id.clone());
        let channel = room.room.kind == RoomKind::Channel;
        let encrypted_message = match &mut self.sealer {
            Some(sealer) if channel => {
                let key = || self.tools.directory.key(room);
                Some(sealer.seal(room.room.index, key, &serde_json::to_vec(&message)?)?)
            }
            _ => None,
        };
        let broadcast = RoomEvent {
            kind: "new_message".into(),
            room_id: room.id.as_str().into(),
            timestamp: self.tools.clock.unix_nanos() / 1_000_000,
            event_timestamp: Some(event.timestamp),
            room_name: room.name.as_str().into(),
            room_type: if channel { "channel" } else { "dm" }.into(),
            site_id: event.site_id,
            user_count: room.room.weight(),
            last_msg_at: created_at,
            last_msg_id: id,
            message: encrypted_message.is_none().then_some(message),
            encrypted_message,
        };
        Ok(serde_json::to_vec(&broadcast)?.into())
    }
}

/// What a room is told of a reply in one of its threads, in the order in which the chat writes it.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ThreadMetadata<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    room_id: &'a str,
    timestamp: u64,
    site_id: &'a str,
    event_timestamp: u64,
    parent_message_id: &'a str,
    reply_message_id: &'a str,
    new_tcount: u32,
    new_thread_last_msg_at: &'a str,
    action: &'a str,
}

/// Encrypts under the rooms' keys.
pub(super) struct Sealer {
    ciphers: HashMap<u32, Aes256Gcm>,
    /// Never the same twice under one key: it starts at the clock and counts up.
    next_nonce: u64,
}

impl Sealer {
    pub(super) fn new(clock: &Clock) -> Self {
        Self { ciphers: HashMap::new(), next_nonce: clock.unix_nanos() }
    }

    fn seal(
        &mut self,
        room: u32,
        key: impl FnOnce() -> [u8; 32],
        plaintext: &[u8],
    ) -> anyhow::Result<EncryptedMessage<'static>> {
        let cipher = self.ciphers.entry(room).or_insert_with(|| Aes256Gcm::new(&key().into()));
        let mut nonce = [0_u8; 12];
        nonce[4..].copy_from_slice(&self.next_nonce.to_be_bytes());
        self.next_nonce += 1;
        let ciphertext =
            cipher.encrypt(&Nonce::from(nonce), plaintext).map_err(|_| anyhow!("message too long to encrypt"))?;
        Ok(EncryptedMessage {
            version: 0,
            nonce: BASE64.encode(nonce).into(),
            ciphertext: BASE64.encode(ciphertext).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_rooms_key() {
        let mut sealer = Sealer::new(&Clock::start());
        let sealed = sealer.seal(3, || [7; 32], b"{\"id\":\"x\"}").unwrap();
        let nonce: [u8; 12] = BASE64.decode(&*sealed.nonce).unwrap().try_into().unwrap();
        let ciphertext = BASE64.decode(&*sealed.ciphertext).unwrap();
        assert_eq!(ciphertext.len(), 10 + 16);
        let opened = Aes256Gcm::new(&[7; 32].into()).decrypt(&Nonce::from(nonce), &*ciphertext).unwrap();
        assert_eq!(opened, b"{\"id\":\"x\"}");
        assert_ne!(sealer.seal(3, || [7; 32], b"{\"id\":\"x\"}").unwrap().nonce, sealed.nonce);
    }
}
