//! What is driven against a target. A workload is one file here and one entry in the plan's vocabulary: it names its
//! subjects, draws operations, writes their messages and says whose an incoming message is.

pub mod messages;

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;

use crate::core::ledger::{Choice, Outcome};

/// What is sent for one operation.
#[derive(Debug)]
pub struct Outgoing {
    /// Where to.
    pub subject: Subject,
    /// Where the answer goes, for requests and acknowledged publishes.
    pub reply: Option<Subject>,
    /// Headers, where the operation has any.
    pub headers: Option<HeaderMap>,
    /// The body.
    pub payload: Bytes,
}

/// What an incoming message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// An answer to one of this worker's operations.
    Answer {
        /// Which.
        sequence: u64,
        /// Which of its series.
        series: u32,
        /// What it says.
        outcome: Outcome,
        /// Counts only if the operation's actor is this one: a copy meant for somebody else changes nothing.
        actor: Option<u32>,
    },
    /// Another owner's, or of a kind that answers nothing: expected, and nothing to count.
    NotForUs,
    /// Nobody's.
    Foreign,
}

/// One subscription of a worker. What it means is the workload's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The subject, possibly with wildcards.
    pub subject: String,
    /// Handed back with every message that arrives on it.
    pub tag: u32,
}

/// A workload as one worker drives it. One instance per worker and deal; never shared between threads.
pub trait Workload {
    /// What the worker must listen to: only what answers its own operations.
    fn subscriptions(&self) -> Vec<Subscription>;

    /// A subject that operations will be sent to, to ask beforehand whether anybody takes it.
    fn probe_subject(&self) -> String;

    /// Draws the next operation.
    fn choose(&self, chance: &mut ChaCha8Rng) -> Choice;

    /// Writes the message of operation `sequence`.
    fn message(&mut self, sequence: u64, choice: Choice) -> Outgoing;

    /// Who acts in an operation, in the numbers that [`Incoming::Answer`]'s `actor` uses.
    fn actor(&self, choice: Choice) -> u32;

    /// Says whose a message is that arrived on the subscription with this tag.
    fn incoming(&self, tag: u32, message: &Message) -> Incoming;
}
