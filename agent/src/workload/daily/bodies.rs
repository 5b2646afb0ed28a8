//! What people write: contents, replies, and the bodies of their requests.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use plimsoll_common::contract::daily::fixtures::DailyFixtures;
use plimsoll_common::contract::daily::made::MadeRoom;
use plimsoll_common::contract::daily::{CONTENT_BYTES, MENTIONS_PER_MILLE};
use plimsoll_common::contract::fixtures::account;
use plimsoll_common::contract::members::write_add_members;
use plimsoll_common::contract::write;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::users::mixed;

/// Random text that contents are cut from: a service that compresses or caches must not see one content only.
const TEXT_BYTES: usize = 64 * 1024;

/// Writes bodies.
pub(super) struct Bodies {
    text: Vec<u8>,
    content: Vec<u8>,
    nonce: u64,
    /// The numbers of the agent and of its worker, which nobody else has.
    writer: (u16, u8),
}

impl Bodies {
    pub(super) fn new(nonce: u64, writer: (u16, u8), chance: &mut ChaCha8Rng) -> Self {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.";
        let length = TEXT_BYTES + *CONTENT_BYTES.end() as usize;
        let text = (0..length).map(|_| LETTERS[chance.random_range(0..LETTERS.len())]).collect();
        Self { text, content: Vec::new(), nonce, writer }
    }

    /// A message of its own, which one in twenty times mentions somebody.
    pub(super) fn message(&mut self, id: &[u8], request_id: &[u8], bits: u64, users: u32) -> Bytes {
        let mentioned =
            (mixed(bits ^ 2) % 1_000 < MENTIONS_PER_MILLE).then(|| (mixed(bits ^ 3) % u64::from(users)) as u32);
        self.fill(bits, mentioned);
        let mut body = BytesMut::with_capacity(self.content.len() + 128);
        write::write_send_request(&mut body, id, request_id, &self.content);
        body.freeze()
    }

    /// A reply in the thread of this message.
    pub(super) fn reply(&mut self, id: &[u8], request_id: &[u8], parent: &[u8], bits: u64) -> Bytes {
        self.fill(bits, None);
        let mut body = BytesMut::with_capacity(self.content.len() + 192);
        write::write_thread_reply(&mut body, id, request_id, parent, &self.content);
        body.freeze()
    }

    fn fill(&mut self, bits: u64, mentioned: Option<u32>) {
        let (shortest, longest) = (u64::from(*CONTENT_BYTES.start()), u64::from(*CONTENT_BYTES.end()));
        let length = (shortest + mixed(bits ^ 4) % (longest - shortest + 1)) as usize;
        let at = (mixed(bits ^ 5) % TEXT_BYTES as u64) as usize;
        self.content.clear();
        if let Some(user) = mentioned {
            self.content.extend_from_slice(format!("@{} ", account(user)).as_bytes());
        }
        self.content.extend_from_slice(&self.text[at..at + length]);
    }

    /// A page of so many messages, the newest of all or those before a time in Unix milliseconds.
    pub(super) fn history(&self, before: Option<u64>, limit: u64) -> Bytes {
        let before = before.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            now.as_millis() as u64 + 1
        });
        format!("{{\"before\":{before},\"limit\":{limit}}}").into()
    }

    /// Somebody who is not in the room: see [`super::candidates`].
    pub(super) fn member_add(&self, fixtures: &DailyFixtures, room: u32, room_id: &str, candidate: u64) -> Bytes {
        let mut body = BytesMut::with_capacity(160);
        let stranger = fixtures.stranger(room, candidate).unwrap_or_default();
        write_add_members(&mut body, room_id, &[stranger]);
        body.freeze()
    }

    /// A room of two with a name that no other has.
    pub(super) fn room_create(&self, sequence: u64, user: u32, partner: u32) -> Bytes {
        let (agent, worker) = self.writer;
        let mut body = String::with_capacity(128);
        // Writing to memory does not fail.
        let _ = write!(
            body,
            "{{\"name\":\"{}\",\"users\":[\"{}\"],\"orgs\":[],\"channels\":[]}}",
            MadeRoom { run: self.nonce, lane: u64::from(agent) << 8 | u64::from(worker), sequence, user },
            account(partner)
        );
        body.into()
    }
}

/// The seeded message that is replied to.
pub(super) fn parent(fixtures: &DailyFixtures, room: u32, bits: u64) -> [u8; 20] {
    let messages = u64::from(fixtures.band(room).seeded_messages());
    fixtures.seeded_message(room, (mixed(bits ^ 6) % messages) as u32).id
}
