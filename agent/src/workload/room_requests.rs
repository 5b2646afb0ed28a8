//! What the workloads share in which a member asks the service something about a room: who asks where, the room by its weight
//! and the member evenly, and what a reply says at first sight.

use async_nats::{Message, StatusCode, Subject};
use bytes::Bytes;
use plimsoll_common::contract::fixtures::account;
use plimsoll_common::contract::subjects;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::{Probe, Setup};
use crate::core::alias::AliasTable;
use crate::core::ledger::{Choice, Ledger, Outcome};

/// Rooms and members of one worker, with the subjects of their requests.
pub(super) struct Askers {
    places: Vec<Place>,
    rooms: AliasTable,
}

pub(super) struct Place {
    /// Index of the room in the fixtures.
    pub(super) room: u32,
    pub(super) room_id: String,
    pub(super) askers: Vec<Asker>,
}

pub(super) struct Asker {
    pub(super) user: u32,
    /// One per operation, in the order in which they were given.
    subjects: Vec<Subject>,
}

impl Askers {
    /// Of what a worker was dealt, for requests of these operations.
    pub(super) fn new(setup: &Setup<'_>, site: &str, operations: &[&str]) -> Self {
        let fixtures = setup.dealt();
        let assignment = &setup.part.assignment;
        let places = assignment.pieces.iter().zip(&assignment.senders).map(|(piece, senders)| {
            let room_id = fixtures.rooms[piece.room as usize].id();
            let asker = |&user: &u32| {
                let subject =
                    |operation: &&str| shared(subjects::room_request(&account(user), &room_id, site, operation));
                Asker { user, subjects: operations.iter().map(subject).collect() }
            };
            Place { room: piece.room, askers: senders.iter().map(asker).collect(), room_id: room_id.clone() }
        });
        let places = places.collect();
        let weights: Vec<f64> = assignment.pieces.iter().map(|piece| piece.weight).collect();
        Self { places, rooms: AliasTable::new(&weights) }
    }

    /// A room by its weight, and one of its members evenly.
    #[inline]
    pub(super) fn draw(&self, chance: &mut ChaCha8Rng) -> (u32, u32) {
        let place = self.rooms.draw(chance);
        (place, self.draw_asker(place, chance))
    }

    /// One of a room's members evenly.
    #[inline]
    pub(super) fn draw_asker(&self, place: u32, chance: &mut ChaCha8Rng) -> u32 {
        below(chance.random(), self.places[place as usize].askers.len() as u64) as u32
    }

    pub(super) fn place(&self, choice: Choice) -> &Place {
        &self.places[choice.place as usize]
    }

    pub(super) fn asker(&self, choice: Choice) -> &Asker {
        &self.place(choice).askers[choice.actor as usize]
    }

    /// Where an operation's request goes.
    #[inline]
    pub(super) fn subject(&self, choice: Choice, operation: usize) -> Subject {
        self.asker(choice).subjects[operation].clone()
    }

    /// One probe per operation, with a body that the service refuses or that changes nothing.
    pub(super) fn probes(&self, nobody: &'static str) -> Vec<Probe> {
        let asker = self.places.iter().find_map(|place| place.askers.first());
        let subjects = asker.map(|asker| asker.subjects.as_slice()).unwrap_or_default();
        let probe = |subject: &Subject| Probe { subject: subject.to_string(), payload: Bytes::new(), nobody };
        subjects.iter().map(probe).collect()
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }
}

/// A number below `n` from evenly distributed bits.
#[inline]
pub(super) fn below(bits: u64, n: u64) -> u64 {
    ((u128::from(bits) * u128::from(n)) >> 64) as u64
}

/// A subject whose clones share one allocation from the first clone on.
fn shared(text: String) -> Subject {
    let subject = Subject::from(text);
    let shared = subject.clone();
    drop(subject);
    shared
}

/// What a status in place of a reply says; `None`: it is a reply.
pub(super) fn status(message: &Message) -> Option<Outcome> {
    match message.status {
        None => None,
        Some(StatusCode::NO_RESPONDERS) => Some(Outcome::NoResponders),
        Some(_) => Some(Outcome::Refused),
    }
}

/// Whether an operation can still be told anything: what else a message says is worth reading then.
pub(super) fn is_open(ledger: &Ledger, sequence: u64) -> bool {
    ledger.choice(sequence).is_some()
}
