//! Memberships that grow: who may add whom, the job that an accepted request becomes, and the room worker, which tells the
//! room.

use super::config::{BroadcastFaults, Refusal};
use super::reads::{BAD_PAYLOAD, Envelope, NOT_MEMBER};
use super::service::unit;
use super::stage::{Tools, is_nth, settle};
use async_nats::{Message, Subject};
use bytes::Bytes;
use plimsoll_common::contract::fixtures::{Fixtures, account, user_of_account};
use plimsoll_common::contract::subjects;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

const USER_NOT_FOUND: Envelope = Refusal::UserNotFound.envelope();
const ALREADY_MEMBER: Envelope = Refusal::AlreadyMember.envelope();

/// What the room service asks of the room worker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AddJob {
    pub(super) room_id: String,
    pub(super) users: Vec<String>,
    pub(super) requester_account: String,
    /// What the request carried, to which the result goes.
    #[serde(default)]
    pub(super) request_id: Option<String>,
}

/// What the room service asks of the room worker where a room is to be made.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateJob {
    pub(super) room_id: String,
    pub(super) creator_account: String,
    #[serde(default)]
    pub(super) request_id: Option<String>,
}

/// Rooms to which users are added, and who was.
pub(super) struct Memberships {
    fixtures: Fixtures,
    by_id: HashMap<String, usize>,
    added: Mutex<HashSet<(usize, u32)>>,
}

impl Memberships {
    pub(super) fn new(fixtures: Fixtures) -> Self {
        let by_id = fixtures.rooms.iter().enumerate().map(|(at, room)| (room.id(), at)).collect();
        Self { fixtures, by_id, added: Mutex::default() }
    }

    /// What becomes of a request to add users to a room: all of them, or none and an error.
    pub(super) fn add(&self, asker: &str, room_id: &str, body: &[u8]) -> Result<AddJob, Envelope> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Request {
            room_id: Option<String>,
            #[serde(default)]
            users: Vec<String>,
        }
        let request: Request = serde_json::from_slice(body).map_err(|_| BAD_PAYLOAD)?;
        if request.room_id.is_some_and(|named| named != room_id) {
            return Err(BAD_PAYLOAD);
        }
        let at = *self.by_id.get(room_id).ok_or(NOT_MEMBER)?;
        let room = &self.fixtures.rooms[at];
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        let is_member = |user: u32| room.has_member(user) || added.contains(&(at, user));
        if !user_of_account(asker).is_some_and(is_member) {
            return Err(NOT_MEMBER);
        }
        let known = |name: &String| user_of_account(name).filter(|&user| user < self.fixtures.users);
        let users: Vec<u32> = request.users.iter().map(known).collect::<Option<_>>().ok_or(USER_NOT_FOUND)?;
        if users.iter().any(|&user| is_member(user)) {
            return Err(ALREADY_MEMBER);
        }
        added.extend(users.into_iter().map(|user| (at, user)));
        Ok(AddJob {
            room_id: room_id.to_owned(),
            users: request.users,
            requester_account: asker.to_owned(),
            request_id: None,
        })
    }
}

/// Tells a room who was added to it.
pub(super) struct RoomWorker {
    tools: Tools,
    faults: BroadcastFaults,
    /// Jobs done, from 1 for the first.
    seen: u64,
}

impl RoomWorker {
    pub(super) fn new(tools: Tools, faults: BroadcastFaults) -> Self {
        Self { tools, faults, seen: 0 }
    }

    /// Carries out one job whose service has ended.
    pub(super) async fn handle(&mut self, stored: Message) -> anyhow::Result<()> {
        // Whatever somebody else has put into the stream is no addition.
        if let Ok(job) = serde_json::from_slice::<AddJob>(&stored.payload)
            && !job.users.is_empty()
        {
            let result = (job.requester_account.clone(), job.request_id.clone(), job.room_id.clone());
            self.tell(job).await?;
            self.result("room.member.add", result).await?;
        } else if let Ok(job) = serde_json::from_slice::<CreateJob>(&stored.payload) {
            self.tools.counters.rooms_created.add(1);
            self.result("room.create", (job.creator_account, job.request_id, job.room_id)).await?;
        }
        settle(&self.tools.client, &stored).await
    }

    /// Tells who asked what became of it, if the request had an id.
    async fn result(&self, operation: &str, of: (String, Option<String>, String)) -> anyhow::Result<()> {
        let (account, Some(request_id), room_id) = of else { return Ok(()) };
        let now_ms = self.tools.clock.unix_nanos() / 1_000_000;
        let result = json!({
            "requestId": request_id, "operation": operation, "status": "ok", "roomId": room_id, "timestamp": now_ms,
        });
        let subject = subjects::response(&account, &request_id);
        Ok(self.tools.client.publish(subject, serde_json::to_vec(&result)?.into()).await?)
    }

    async fn tell(&mut self, job: AddJob) -> anyhow::Result<()> {
        self.seen += 1;
        let unlucky = self.faults.drop_fraction > 0.0 && unit(&mut self.tools.rng) < self.faults.drop_fraction;
        if unlucky || is_nth(self.faults.drop_every, self.seen) {
            return Ok(());
        }
        let subject = Subject::from(subjects::member_event(&job.room_id));
        if is_nth(self.faults.foreign_every, self.seen) {
            // Added by somebody else: no user of the fixtures.
            let stranger = account(u32::MAX);
            let foreign = AddJob {
                room_id: job.room_id.clone(),
                users: vec![stranger],
                requester_account: "p".into(),
                request_id: None,
            };
            self.tools.client.publish(subject.clone(), self.event(&foreign)?).await?;
        }
        let event = self.event(&job)?;
        if is_nth(self.faults.duplicate_every, self.seen) {
            self.tools.client.publish(subject.clone(), event.clone()).await?;
        }
        self.tools.counters.member_events.add(1);
        Ok(self.tools.client.publish(subject, event).await?)
    }

    fn event(&self, job: &AddJob) -> anyhow::Result<Bytes> {
        let now_ms = self.tools.clock.unix_nanos() / 1_000_000;
        let index = job.room_id.rsplit('-').next().unwrap_or_default().trim_start_matches('0');
        // Daily rooms are called as their ids.
        let name = match job.room_id.starts_with("mroom-") {
            true => format!("mroom-{}", if index.is_empty() { "0" } else { index }),
            false => job.room_id.clone(),
        };
        Ok(serde_json::to_vec(&json!({
            "type": "member_added", "roomId": job.room_id, "roomName": name, "roomType": "channel",
            "accounts": job.users, "siteId": self.tools.directory.site, "requesterAccount": job.requester_account,
            "joinedAt": now_ms, "timestamp": now_ms,
        }))?
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_common::contract::members::MembersPreset;

    #[test]
    fn members_add_each_candidate_once_and_nobody_else_does() {
        let memberships = Memberships::new(MembersPreset::Small.fixtures(42, "s"));
        let room = memberships.fixtures.rooms[2].clone();
        let member = account(room.members[0]);
        let candidates = MembersPreset::Small.candidates(42, 2);
        let add = |asker: &str, users: &[&str]| {
            memberships.add(asker, &room.id(), json!({"roomId": room.id(), "users": users}).to_string().as_bytes())
        };
        let (first, second) = (account(candidates[0]), account(candidates[1]));
        assert_eq!(add(&first, &[&second]).unwrap_err(), NOT_MEMBER);
        let job = add(&member, &[&first]).unwrap();
        assert_eq!((job.users, job.requester_account), (vec![first.clone()], member.clone()));
        // All or nobody.
        assert_eq!(add(&member, &[&second, &first]).unwrap_err(), ALREADY_MEMBER);
        assert_eq!(add(&member, &[&second, "user-200"]).unwrap_err(), USER_NOT_FOUND);
        assert_eq!(add(&member, &[&second, "nobody"]).unwrap_err(), USER_NOT_FOUND);
        assert_eq!(add(&member, &[&member]).unwrap_err(), ALREADY_MEMBER);
        // Who was added may add.
        assert!(add(&first, &[&second]).is_ok());
        assert_eq!(add(&member, &[]).unwrap().users, Vec::<String>::new());
        assert_eq!(memberships.add(&member, &room.id(), b""), Err(BAD_PAYLOAD));
        assert_eq!(memberships.add(&member, &room.id(), br#"{"roomId":"mroom-000001"}"#), Err(BAD_PAYLOAD));
        assert_eq!(memberships.add(&member, "mroom-000009", b"{}"), Err(NOT_MEMBER));
    }
}
