//! What people write: contents, replies, and the bodies of their requests.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use plimsoll_common::contract::daily::fixtures::DailyFixtures;
use plimsoll_common::contract::daily::made_rooms::MadeRoom;
use plimsoll_common::contract::daily::{CONTENT_BYTES, MENTIONS_PER_MILLE};
use plimsoll_common::contract::fixtures::account;
use plimsoll_common::contract::members::write_add_members;
use plimsoll_common::contract::write;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::users::splitmix64;

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
    /// For a worker of a run. Contents follow from the run's seed, whoever writes them.
    pub(super) fn new(nonce: u64, writer: (u16, u8), seed: u64) -> Self {
        let mut chance = ChaCha8Rng::seed_from_u64(splitmix64(seed ^ 7));
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.";
        let length = TEXT_BYTES + *CONTENT_BYTES.end() as usize;
        let text = (0..length).map(|_| LETTERS[chance.random_range(0..LETTERS.len())]).collect();
        Self { text, content: Vec::new(), nonce, writer }
    }

    /// A message of its own, which may mention somebody.
    pub(super) fn message(&mut self, id: &[u8], request_id: &[u8], bits: u64, mentioned: Option<u32>) -> Bytes {
        self.fill(bits, mentioned);
        let mut body = BytesMut::with_capacity(self.content.len() + 128);
        write::write_send_request(&mut body, id, request_id, &self.content);
        body.freeze()
    }

    /// A reply in the thread of this message, which may mention somebody.
    pub(super) fn reply(
        &mut self,
        id: &[u8],
        request_id: &[u8],
        parent: &[u8],
        bits: u64,
        mentioned: Option<u32>,
    ) -> Bytes {
        self.fill(bits, mentioned);
        let mut body = BytesMut::with_capacity(self.content.len() + 192);
        write::write_thread_reply(&mut body, id, request_id, parent, &self.content);
        body.freeze()
    }

    fn fill(&mut self, bits: u64, mentioned: Option<u32>) {
        let (shortest, longest) = (u64::from(*CONTENT_BYTES.start()), u64::from(*CONTENT_BYTES.end()));
        let length = (shortest + splitmix64(bits ^ 4) % (longest - shortest + 1)) as usize;
        let at = (splitmix64(bits ^ 5) % TEXT_BYTES as u64) as usize;
        self.content.clear();
        if let Some(user) = mentioned {
            self.content.extend_from_slice(format!("@{} ", account(user)).as_bytes());
        }
        // The mention is a part of the content.
        let rest = length - self.content.len();
        self.content.extend_from_slice(&self.text[at..at + rest]);
    }

    /// A page of so many messages: those before a time in Unix milliseconds that a page before has given, or without one the
    /// newest. Which these are, the service says: this box's clock may be wrong.
    pub(super) fn history(before: Option<u64>, limit: u64) -> Bytes {
        match before {
            Some(before) => format!("{{\"before\":{before},\"limit\":{limit}}}").into(),
            None => format!("{{\"limit\":{limit}}}").into(),
        }
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

/// Whom a message of a room mentions, one in twenty times: somebody else in it.
pub(super) fn mentioned(fixtures: &DailyFixtures, room: u32, sender: u32, bits: u64) -> Option<u32> {
    let mentions = splitmix64(bits ^ 2) % 1_000 < MENTIONS_PER_MILLE;
    mentions.then(|| fixtures.companion(room, sender, splitmix64(bits ^ 3))).flatten()
}

/// The seeded message that is replied to.
pub(super) fn parent(fixtures: &DailyFixtures, room: u32, bits: u64) -> [u8; 20] {
    let messages = u64::from(fixtures.band(room).seeded_messages());
    fixtures.seeded_message(room, (splitmix64(bits ^ 6) % messages) as u32).id
}
