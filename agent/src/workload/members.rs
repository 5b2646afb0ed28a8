//! Adding members to rooms: one request, one reply, and the room's member event. Every candidate is used once: all that this
//! worker was dealt are shuffled when it is made, and operations take them in that order until they are used up.

use async_nats::Message;
use bytes::BytesMut;
use plimsoll_common::contract::fixtures::user_of_account;
use plimsoll_common::contract::members::{added_accounts, write_add_members};
use plimsoll_common::contract::read::classify_status;
use plimsoll_common::contract::subjects;
use plimsoll_common::deal::Piece;
use plimsoll_common::plan::MembersWorkload;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::replies::Replies;
use super::room_requests::{Askers, below, status};
use super::{Aside, Incoming, Outgoing, Probe, Setup, Subscription, Workload};
use crate::core::ledger::{Choice, Kind, Ledger, Outcome};

/// Series of the reply, and of the member event.
const E1: u32 = 0;
const E2: u32 = 1;

/// The tag of replies; a room's events have that of its place, and one more.
const REPLY: u32 = 0;

const CHUNK_BYTES: usize = 64 * 1024;
/// A body without its accounts, and each of these.
const BODY_BYTES: usize = 128;
const ACCOUNT_BYTES: usize = 20;

/// No operation has used these candidates yet: a sequence that is never given out.
const NEVER: u64 = u64::MAX;

/// The candidates of one room, in groups of those that one request adds.
struct Candidates {
    /// All of the room, in its own order: group `g` is the `g`-th chunk.
    users: Vec<u32>,
    /// The same, ascending, each with its group.
    by_user: Vec<(u32, u32)>,
    /// The first group that is this worker's.
    first: u32,
    /// Per group of this worker's: the operation that used it.
    used_by: Vec<u64>,
}

impl Candidates {
    /// Of a room whose groups are split over the owners of its parts as its weight is.
    fn new(plan: &MembersWorkload, seed: u64, piece: &Piece, room_weight: f64) -> Self {
        let groups = plan.adds_per_room();
        let mut users = plan.preset.candidates(seed, piece.room);
        users.truncate((groups * plan.users_per_add) as usize);
        // Where one piece ends, the next begins, to the last bit: so do their groups.
        let cut = |at: f64| ((at / room_weight * f64::from(groups)).round() as u32).min(groups);
        let (first, end) = (cut(piece.start), cut(piece.start + piece.weight));
        let group = |at: usize| at as u32 / plan.users_per_add;
        let mut by_user: Vec<(u32, u32)> = users.iter().enumerate().map(|(at, &user)| (user, group(at))).collect();
        by_user.sort_unstable();
        Self { users, by_user, first, used_by: vec![NEVER; (end - first) as usize] }
    }

    fn group(&self, group: u32, users_per_add: u32) -> &[u32] {
        let start = (group * users_per_add) as usize;
        &self.users[start..start + users_per_add as usize]
    }

    fn group_of(&self, account: &str) -> Option<u32> {
        let user = user_of_account(account)?;
        let at = self.by_user.binary_search_by_key(&user, |(user, _)| *user).ok()?;
        Some(self.by_user[at].1)
    }

    fn used_by(&mut self, group: u32) -> Option<&mut u64> {
        self.used_by.get_mut(group.checked_sub(self.first)? as usize)
    }
}

/// Members add users to rooms.
pub struct Members {
    users_per_add: u32,
    askers: Askers,
    replies: Replies,
    /// Per place.
    candidates: Vec<Candidates>,
    /// Place and group of every operation that can be made, and how many have been.
    order: Vec<(u32, u32)>,
    taken: usize,
    chunk: BytesMut,
}

impl Members {
    /// Whose addition a member event tells of. One request adds a group, so an event of anything else is nobody's.
    fn event(&mut self, place: u32, message: &Message) -> Incoming {
        // Other events share the subject and answer nothing that we sent.
        let Some(accounts) = added_accounts(&message.payload) else { return Incoming::NotForUs };
        let users_per_add = self.users_per_add as usize;
        let Some(candidates) = self.candidates.get_mut(place as usize) else { return Incoming::Foreign };
        let Some(group) = accounts.first().and_then(|account| candidates.group_of(account)) else {
            return Incoming::Foreign;
        };
        let is_of_group = |account| candidates.group_of(account) == Some(group);
        if accounts.len() != users_per_add || !accounts.iter().all(|account| is_of_group(account)) {
            return Incoming::Foreign;
        }
        match candidates.used_by(group) {
            None => Incoming::NotForUs,
            Some(&mut NEVER) => Incoming::Foreign,
            Some(&mut sequence) => Incoming::Answer { sequence, series: E2, outcome: Outcome::Sample },
        }
    }
}

/// In an order that chance decides (Fisher and Yates).
fn shuffle<T>(items: &mut [T], chance: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(chance.random(), last as u64 + 1) as usize);
    }
}

impl Workload for Members {
    type Plan = MembersWorkload;

    fn new(plan: &MembersWorkload, setup: Setup<'_>) -> Result<Self, String> {
        let askers = Askers::new(&setup, &plan.site_id, &[subjects::ADD_MEMBERS]);
        let fixtures = setup.dealt();
        let candidates = |piece: &Piece| {
            let room = &fixtures.rooms[piece.room as usize];
            Candidates::new(plan, fixtures.seed, piece, setup.plan.workload.room_weight(room))
        };
        let candidates: Vec<Candidates> = setup.part.assignment.pieces.iter().map(candidates).collect();
        let groups = |(place, of): (u32, &Candidates)| {
            let first = of.first;
            (0..of.used_by.len() as u32).map(move |at| (place, first + at))
        };
        let mut order: Vec<(u32, u32)> = (0..).zip(&candidates).flat_map(groups).collect();
        shuffle(&mut order, setup.chance);
        Ok(Self {
            users_per_add: plan.users_per_add,
            askers,
            replies: Replies::new(setup.inbox, "r"),
            candidates,
            order,
            taken: 0,
            chunk: BytesMut::new(),
        })
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::replied(&[E1, E2], E1)]
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        let event = |(place, room_id): (u32, &String)| Subscription {
            subject: subjects::member_event(room_id),
            tag: place + 1,
        };
        let rooms = self.askers.places().iter().map(|place| &place.room_id);
        std::iter::once(self.replies.subscription(REPLY)).chain((0..).zip(rooms).map(event)).collect()
    }

    fn probes(&self) -> Vec<Probe> {
        self.askers.probes("start the room service, and check --site-id")
    }

    fn budget(&self) -> Option<u64> {
        Some((self.order.len() - self.taken) as u64)
    }

    fn choose(&mut self, chance: &mut ChaCha8Rng) -> Choice {
        let (place, group) = self.order[self.taken];
        self.taken += 1;
        Choice { place, actor: self.askers.draw_asker(place, chance), content: u64::from(group), kind: 0 }
    }

    fn message(&mut self, sequence: u64, choice: Choice) -> Outgoing {
        let needed = BODY_BYTES + ACCOUNT_BYTES * self.users_per_add as usize;
        if self.chunk.capacity() < needed {
            // The old chunk lives on in the bodies cut from it.
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES.max(needed));
        }
        let candidates = &mut self.candidates[choice.place as usize];
        let group = choice.content as u32;
        *candidates.used_by(group).expect("only groups of this worker's are chosen") = sequence;
        let room_id = &self.askers.place(choice).room_id;
        write_add_members(&mut self.chunk, room_id, candidates.group(group, self.users_per_add));
        Outgoing {
            subject: self.askers.subject(choice, 0),
            reply: Some(self.replies.subject(sequence)),
            headers: None,
            payload: self.chunk.split().freeze(),
        }
    }

    fn incoming(&mut self, tag: u32, message: &Message, _: &Ledger, _: &mut Aside) -> Incoming {
        if tag != REPLY {
            return self.event(tag - 1, message);
        }
        let Some(sequence) = self.replies.sequence(&message.subject) else { return Incoming::Foreign };
        let outcome = status(message).unwrap_or_else(|| classify_status(&message.payload).into());
        Incoming::Answer { sequence, series: E1, outcome }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use plimsoll_common::plan::Workload as AnyWorkload;
    use rand::SeedableRng as _;

    use super::super::fixture::{fleet, ledger, message};
    use super::*;

    fn members(users_per_add: u32, agents: usize, workers: usize) -> (Vec<Members>, AnyWorkload) {
        let preset = "members-small".parse().unwrap();
        let plan = MembersWorkload { preset, site_id: "s".into(), users_per_add };
        let any = AnyWorkload::Members(plan.clone());
        (fleet(&plan, &any, agents, workers), any)
    }

    #[test]
    fn a_fleet_adds_every_candidate_once_however_rooms_are_cut() {
        for (users_per_add, agents, workers) in [(1, 1, 1), (1, 2, 2), (3, 3, 1), (7, 4, 2), (50, 2, 1)] {
            let (mut fleet, any) = members(users_per_add, agents, workers);
            let mut chance = ChaCha8Rng::seed_from_u64(1);
            let mut added: HashSet<(String, String)> = HashSet::new();
            let mut operations = 0;
            for worker in &mut fleet {
                while worker.budget() != Some(0) {
                    let choice = worker.choose(&mut chance);
                    let body = worker.message(operations, choice).payload;
                    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
                    let users = body["users"].as_array().unwrap();
                    assert_eq!(users.len(), users_per_add as usize);
                    assert!(users.iter().all(|user| added.insert((text(&body["roomId"]), text(user)))), "{body}");
                    operations += 1;
                }
            }
            assert_eq!(operations, any.pool().unwrap().operations, "{users_per_add} {agents} {workers}");
        }
    }

    #[test]
    fn an_event_is_of_the_operation_that_added_exactly_these() {
        let (mut fleet, any) = members(2, 1, 1);
        let worker = &mut fleet[0];
        let ledger = ledger(worker, &any);
        let choice = worker.choose(&mut ChaCha8Rng::seed_from_u64(1));
        let body = worker.message(77, choice).payload;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let (room, users) = (body["roomId"].as_str().unwrap(), body["users"].as_array().unwrap());
        let room_index: usize = room.rsplit('-').next().unwrap().parse().unwrap();
        let strangers = any.fixtures(42).unwrap().rooms[room_index].members.clone();
        let subject = subjects::member_event(room);
        let tag = worker.subscriptions().iter().find(|subscription| subscription.subject == subject).unwrap().tag;
        let mut event = |kind: &str, accounts: &[&serde_json::Value]| {
            let payload = serde_json::json!({"type": kind, "roomId": room, "accounts": accounts}).to_string();
            worker.incoming(tag, &message(&subject, payload), &ledger, &mut Aside::default())
        };
        let answer = Incoming::Answer { sequence: 77, series: E2, outcome: Outcome::Sample };
        let member = serde_json::Value::from(format!("user-{}", strangers[0]));
        assert_eq!(event("member_added", &[&users[0], &users[1]]), answer);
        assert_eq!(event("member_added", &[&users[1], &users[0]]), answer);
        assert_eq!(event("member_removed", &[&users[0], &users[1]]), Incoming::NotForUs);
        for foreign in [&[&users[0]][..], &[&users[0], &member], &[&member, &users[1]], &[]] {
            assert_eq!(event("member_added", foreign), Incoming::Foreign, "{foreign:?}");
        }
        // Candidates that nobody has added yet.
        let next = worker.order[worker.taken];
        let waiting = worker.candidates[next.0 as usize].group(next.1, 2).to_vec();
        let accounts: Vec<String> = waiting.iter().map(|user| format!("user-{user}")).collect();
        let payload = serde_json::json!({"type": "member_added", "accounts": accounts}).to_string();
        let incoming = worker.incoming(next.0 + 1, &message("x", payload), &ledger, &mut Aside::default());
        assert_eq!(incoming, Incoming::Foreign);
    }
}
