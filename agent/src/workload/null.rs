//! Requests of one size to one subject, and replies that say nothing: what costs a load box least. It is no workload that a
//! plan can name; a calibration drives it against a null target.

use async_nats::{Message, Subject};
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;

use super::replies::Replies;
use super::{Aside, Incoming, Outgoing, Probe, Setup, Subscription, Workload};
use crate::core::ledger::{Choice, Kind, Ledger, Outcome};

/// Where its requests go.
pub const SUBJECT: &str = "plimsoll.null";

/// What its requests are.
#[derive(Debug, Clone)]
pub struct NullPlan {
    /// Bytes of a request.
    pub request_bytes: usize,
}

/// Requests that ask for nothing.
pub struct Null {
    subject: Subject,
    payload: Bytes,
    replies: Replies,
}

impl Workload for Null {
    type Plan = NullPlan;

    fn new(plan: &NullPlan, setup: Setup<'_>) -> Result<Self, String> {
        let payload = Bytes::from(vec![b'.'; plan.request_bytes]);
        Ok(Self { subject: Subject::from_static(SUBJECT), payload, replies: Replies::new(setup.inbox, "r") })
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::replied(&[0], 0)]
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        vec![self.replies.subscription(0)]
    }

    fn probes(&self) -> Vec<Probe> {
        Vec::new()
    }

    fn choose(&mut self, _: &mut ChaCha8Rng) -> Choice {
        Choice::default()
    }

    fn message(&mut self, sequence: u64, _: Choice) -> Outgoing {
        Outgoing {
            subject: self.subject.clone(),
            reply: Some(self.replies.subject(sequence)),
            headers: None,
            payload: self.payload.clone(),
        }
    }

    fn incoming(&mut self, _: u32, message: &Message, _: &Ledger, _: &mut Aside) -> Incoming {
        match self.replies.sequence(&message.subject) {
            Some(sequence) => Incoming::Answer { sequence, series: 0, outcome: Outcome::Sample },
            None => Incoming::Foreign,
        }
    }
}
