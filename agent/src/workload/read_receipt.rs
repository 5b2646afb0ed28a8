//! Asking who has read one's own messages: one request, one reply with a row per reader.

use async_nats::Message;
use bytes::Bytes;
use plimsoll_common::contract::history::{RoomHistory, message_id};
use plimsoll_common::contract::read::read_readers;
use plimsoll_common::contract::subjects;
use plimsoll_common::plan::ReadReceiptWorkload;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::replies::Replies;
use super::room_requests::{Askers, below, is_open, status};
use super::{Aside, Incoming, Outgoing, Probe, Setup, Subscription, Workload};
use crate::core::ledger::{Choice, Kind, Ledger};

/// Observations, in the order of the vocabulary.
const REPLY_BYTES: u8 = 0;
const READERS: u8 = 1;

/// Members ask who has read their own messages.
pub struct ReadReceipt {
    askers: Askers,
    replies: Replies,
    /// Per place: its history, and per asker whether they wrote any of it, as a position among the room's members.
    authors: Vec<(RoomHistory, Vec<u32>)>,
}

/// Messages that are looked at before somebody else is asked: a member wrote one in at most thirty.
const MOST_LOOKS: u32 = 2_000;

impl ReadReceipt {
    /// A message that this asker wrote.
    fn own_message(&self, place: u32, actor: u32, chance: &mut ChaCha8Rng) -> Option<u32> {
        let (history, members) = &self.authors[place as usize];
        let member = members[actor as usize];
        let draw = |_| below(chance.random(), u64::from(history.messages())) as u32;
        (0..MOST_LOOKS).map(draw).find(|&index| history.author(index) == member)
    }
}

impl Workload for ReadReceipt {
    type Plan = ReadReceiptWorkload;

    fn new(plan: &ReadReceiptWorkload, setup: Setup<'_>) -> Result<Self, String> {
        let askers = Askers::new(&setup, &plan.site_id, &[subjects::READ_RECEIPT]);
        let fixtures = setup.dealt();
        let authors = askers.places().iter().map(|place| {
            let members = &fixtures.rooms[place.room as usize].members;
            let position = |user: u32| members.binary_search(&user).expect("senders are members") as u32;
            let history = RoomHistory::new(plan.preset, fixtures.seed, place.room);
            (history, place.askers.iter().map(|asker| position(asker.user)).collect())
        });
        Ok(Self { authors: authors.collect(), replies: Replies::new(setup.inbox, "r"), askers })
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::replied(&[0], 0)]
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        vec![self.replies.subscription(0)]
    }

    fn probes(&self) -> Vec<Probe> {
        self.askers.probes("start the room service, and check --site-id")
    }

    fn choose(&mut self, chance: &mut ChaCha8Rng) -> Choice {
        loop {
            let (place, actor) = self.askers.draw(chance);
            // A member who wrote nothing has nothing to ask: next.
            if let Some(index) = self.own_message(place, actor, chance) {
                return Choice { place, actor, content: u64::from(index), kind: 0 };
            }
        }
    }

    fn message(&mut self, sequence: u64, choice: Choice) -> Outgoing {
        let id = message_id(&self.askers.place(choice).room_id, choice.content as u32);
        Outgoing {
            subject: self.askers.subject(choice, 0),
            reply: Some(self.replies.subject(sequence)),
            headers: None,
            payload: Bytes::from(format!("{{\"messageId\":\"{id}\"}}")),
        }
    }

    fn incoming(&mut self, _: u32, message: &Message, ledger: &Ledger, aside: &mut Aside) -> Incoming {
        let Some(sequence) = self.replies.sequence(&message.subject) else { return Incoming::Foreign };
        let outcome = status(message).unwrap_or_else(|| {
            let (answer, readers) = read_readers(&message.payload);
            if let Some(readers) = readers.filter(|_| is_open(ledger, sequence)) {
                aside.observed.extend([(REPLY_BYTES, message.payload.len() as u64), (READERS, readers)]);
            }
            answer.into()
        });
        Incoming::Answer { sequence, series: 0, outcome }
    }
}
