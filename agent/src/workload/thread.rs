//! Replies in threads: the message pipeline, with a parent in every send, and the sender's own copy as the broadcast.

use async_nats::Message;
use plimsoll_common::plan::{Inject, MessagesWorkload, ThreadWorkload};
use rand_chacha::ChaCha8Rng;

use super::messages::Messages;
use super::{Aside, Incoming, Outgoing, Probe, Setup, Subscription, Workload};
use crate::core::ledger::{Choice, Kind, Ledger};

/// The message pipeline as one worker drives it with replies.
pub struct Thread(Messages);

impl Workload for Thread {
    type Plan = ThreadWorkload;

    fn new(plan: &ThreadWorkload, setup: Setup<'_>) -> Result<Self, String> {
        let ThreadWorkload { preset, site_id, parents_per_room } = plan.clone();
        let pipeline = MessagesWorkload { preset, site_id, inject: Inject::Frontdoor };
        Messages::with_parents(&pipeline, parents_per_room, setup).map(Self)
    }

    fn kinds(&self) -> Vec<Kind> {
        self.0.kinds()
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        self.0.subscriptions()
    }

    fn probes(&self) -> Vec<Probe> {
        self.0.probes()
    }

    fn choose(&mut self, chance: &mut ChaCha8Rng) -> Choice {
        self.0.choose(chance)
    }

    fn message(&mut self, sequence: u64, choice: Choice) -> Outgoing {
        self.0.message(sequence, choice)
    }

    fn incoming(&mut self, tag: u32, message: &Message, ledger: &Ledger, aside: &mut Aside) -> Incoming {
        self.0.incoming(tag, message, ledger, aside)
    }
}
