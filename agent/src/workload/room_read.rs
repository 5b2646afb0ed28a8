//! Marking rooms as read: one request, one reply.

use async_nats::Message;
use bytes::Bytes;
use plimsoll_common::contract::read::classify_status;
use plimsoll_common::contract::subjects;
use plimsoll_common::plan::RoomReadWorkload;
use plimsoll_common::workload::WorkloadPlan as _;
use rand_chacha::ChaCha8Rng;

use super::replies::Replies;
use super::room_requests::{Askers, status};
use super::{Aside, Incoming, Outgoing, Probe, Setup, Subscription, Workload};
use crate::core::ledger::{Choice, Kind, Ledger};

/// Members mark rooms as read.
pub struct RoomRead {
    askers: Askers,
    replies: Replies,
    probes: Vec<Probe>,
}

impl Workload for RoomRead {
    type Plan = RoomReadWorkload;

    fn new(plan: &RoomReadWorkload, setup: Setup<'_>) -> Result<Self, String> {
        let askers = Askers::new(&setup, &plan.site_id, &[subjects::MARK_READ]);
        // As a member it would mark something as read.
        let probes = plan.service_probes().into_iter().map(Probe::of_service).collect();
        Ok(Self { askers, replies: Replies::new(setup.inbox, "r"), probes })
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::replied(&[0], 0)]
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        vec![self.replies.subscription(0)]
    }

    fn probes(&self) -> Vec<Probe> {
        self.probes.clone()
    }

    fn choose(&mut self, chance: &mut ChaCha8Rng) -> Choice {
        let (place, actor) = self.askers.draw(chance);
        Choice { place, actor, ..Choice::default() }
    }

    fn message(&mut self, sequence: u64, choice: Choice) -> Outgoing {
        Outgoing {
            subject: self.askers.subject(choice, 0),
            reply: Some(self.replies.subject(sequence)),
            headers: None,
            // The service reads no body.
            payload: Bytes::from_static(b"{}"),
        }
    }

    fn incoming(&mut self, _: u32, message: &Message, _: &Ledger, _: &mut Aside) -> Incoming {
        let Some(sequence) = self.replies.sequence(&message.subject) else { return Incoming::Foreign };
        let outcome = status(message).unwrap_or_else(|| classify_status(&message.payload).into());
        Incoming::Answer { sequence, series: 0, outcome }
    }
}
