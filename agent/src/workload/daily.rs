//! People who use the chat as their daily messenger. Each has a connection, or shares one; what each does and when follows from
//! its own day ([`crate::core::people`]), which is the schedule of this workload.
//!
//! A message is measured to its first and to its last recipient among this worker's users: whoever is in the room and online.

mod bodies;
mod candidates;
mod fan_out;
mod presence;
mod users;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use plimsoll_common::contract::daily::behaviour::Action;
use plimsoll_common::contract::daily::fixtures::DailyFixtures;
use plimsoll_common::contract::fixtures::account;
use plimsoll_common::contract::ids::{IdCodec, Owner};
use plimsoll_common::contract::read::{self, Ack, broadcast_message_id, classify_ack, read_page};
use plimsoll_common::contract::subjects;
use plimsoll_common::plan::{DailyWorkload, StepOrder};
use plimsoll_common::workload::WorkloadPlan as _;
use plimsoll_common::workload::daily::{HISTORY_ROWS, RECIPIENTS_EXPECTED, RECIPIENTS_REACHED, ROOMS_LISTED};
use rand_chacha::ChaCha8Rng;

use self::bodies::Bodies;
use self::candidates::Candidates;
use self::fan_out::{Copied, FanOuts};
use self::presence::Presence;
use self::users::{Tag, Users};
use super::{Aside, Incoming, Outgoing, Probe, Setup, Subscription, Workload};
use crate::core::ledger::{Choice, Kind, Ledger, Outcome};
use crate::core::nats_words::Heard;
use crate::core::people::{Act, Crowd, Day};
use crate::shell::lines::Wanted;

/// Series, in the order of the plan's.
mod series {
    pub const E1: u32 = 0;
    pub const E2: u32 = 1;
    pub const E2_LAST: u32 = 2;
    pub const THREAD_REPLY: u32 = 3;
    pub const THREAD_REPLY_E2: u32 = 4;
    pub const MARK_READ: u32 = 5;
    pub const REFRESH_ROOM_LIST: u32 = 6;
    pub const SCROLL_HISTORY: u32 = 7;
    pub const MEMBER_ADD: u32 = 8;
    pub const ROOM_CREATE: u32 = 9;
    pub const MUTE_TOGGLE: u32 = 10;
    pub const MEMBER_ADD_DONE: u32 = 11;
    pub const ROOM_CREATE_DONE: u32 = 12;
}

/// Messages of a page of history.
const PAGE: u64 = 20;

/// One worker's users.
pub struct Daily {
    plan: DailyWorkload,
    seed: u64,
    request_timeout: Duration,
    fixtures: Arc<DailyFixtures>,
    ids: IdCodec,
    /// Replies arrive under this, the line, and the request id.
    inbox: String,
    users: Users,
    bodies: Bodies,
    candidates: Candidates,
    crowd: Option<Crowd>,
    /// What the schedule has given last: who, and what.
    acting: Option<(u32, Act)>,
    fan_outs: FanOuts,
    /// Where users say that they are there.
    presence: Option<Presence>,
}

/// What an operation of this kind owes; kinds are actions.
fn kind(action: Action) -> Kind {
    match action {
        Action::Send => Kind::replied(&[series::E1, series::E2, series::E2_LAST], series::E1),
        Action::ThreadReply => Kind::replied(&[series::THREAD_REPLY, series::THREAD_REPLY_E2], series::THREAD_REPLY),
        Action::MarkRead => Kind::replied(&[series::MARK_READ], series::MARK_READ),
        Action::RefreshRoomList => Kind::replied(&[series::REFRESH_ROOM_LIST], series::REFRESH_ROOM_LIST),
        Action::ScrollHistory => Kind::replied(&[series::SCROLL_HISTORY], series::SCROLL_HISTORY),
        Action::MemberAdd => Kind::replied(&[series::MEMBER_ADD, series::MEMBER_ADD_DONE], series::MEMBER_ADD),
        Action::RoomCreate => Kind::replied(&[series::ROOM_CREATE, series::ROOM_CREATE_DONE], series::ROOM_CREATE),
        Action::MuteToggle => Kind::replied(&[series::MUTE_TOGGLE], series::MUTE_TOGGLE),
    }
}

fn action(choice: Choice) -> Action {
    Action::ALL[usize::from(choice.kind)]
}

impl Daily {
    /// The answer to a send, or the outcome of a job, on a user's own subject.
    fn response(&mut self, heard: &Heard<'_>, ledger: &Ledger, aside: &mut Aside) -> Incoming {
        let id = heard.subject.rsplit('.').next().unwrap_or_default();
        let sequence = match self.ids.owner_of_request(id.as_bytes()) {
            Owner::Mine(sequence) => sequence,
            Owner::OtherOwner => return Incoming::NotForUs,
            Owner::Foreign => return Incoming::Foreign,
        };
        let Some(choice) = ledger.choice_ever(sequence) else { return Incoming::NotForUs };
        let (series, outcome) = match action(choice) {
            Action::Send => (series::E1, outcome_of_ack(heard.payload)),
            Action::ThreadReply => (series::THREAD_REPLY, outcome_of_ack(heard.payload)),
            Action::MemberAdd => (series::MEMBER_ADD_DONE, outcome_of_job(heard.payload)),
            Action::RoomCreate => (series::ROOM_CREATE_DONE, outcome_of_job(heard.payload)),
            // Answered on the inbox alone.
            Action::MarkRead | Action::RefreshRoomList | Action::ScrollHistory | Action::MuteToggle => {
                return Incoming::Foreign;
            }
        };
        if series == series::E1 && outcome == Outcome::Sample {
            // Also of a message that is never broadcast.
            aside.observed.extend(self.expected(sequence));
        }
        Incoming::Answer { sequence, series, outcome }
    }

    /// The answer to a request.
    fn reply(&mut self, heard: &Heard<'_>, ledger: &Ledger, aside: &mut Aside) -> Incoming {
        let id = heard.subject.rsplit('.').next().unwrap_or_default();
        let Owner::Mine(sequence) = self.ids.owner_of_request(id.as_bytes()) else { return Incoming::Foreign };
        let Some(choice) = ledger.choice_ever(sequence) else { return Incoming::NotForUs };
        let action = action(choice);
        let series = match action {
            Action::MarkRead => series::MARK_READ,
            Action::RefreshRoomList => series::REFRESH_ROOM_LIST,
            Action::ScrollHistory => series::SCROLL_HISTORY,
            Action::MemberAdd => series::MEMBER_ADD,
            Action::RoomCreate => series::ROOM_CREATE,
            Action::MuteToggle => series::MUTE_TOGGLE,
            // The stream's acknowledgement is asked for by nobody.
            Action::Send | Action::ThreadReply => return Incoming::Foreign,
        };
        let outcome = match (heard.status, action) {
            (Some(503), _) => Outcome::NoResponders,
            (Some(_), _) => Outcome::Refused,
            (None, Action::ScrollHistory) => self.page(choice, heard.payload, aside),
            (None, Action::RefreshRoomList) => {
                aside.observed.push((ROOMS_LISTED, heard.payload.len() as u64));
                // Everybody is in dozens of rooms: an empty list is no list.
                read::read_list(heard.payload).into()
            }
            (None, _) => read::classify_status(heard.payload).into(),
        };
        Incoming::Answer { sequence, series, outcome }
    }

    /// A page of history, behind which its reader may go on.
    fn page(&mut self, choice: Choice, payload: &[u8], aside: &mut Aside) -> Outcome {
        let (answer, page) = read_page(payload);
        if let Some(page) = page {
            aside.observed.push((HISTORY_ROWS, page.rows));
            let more = page.oldest_ms.filter(|_| page.rows == PAGE);
            self.users.scrolled(choice.actor, choice.place, more);
        }
        answer.into()
    }

    /// A message that was broadcast to a room, or to a user; by which line or to which user this copy came, and to how many
    /// of ours with it.
    fn broadcast(
        &mut self,
        copy_of: Option<u32>,
        (way, came_to): (u32, u32),
        heard: &Heard<'_>,
        ledger: &Ledger,
        aside: &mut Aside,
    ) -> Incoming {
        // Other events share these subjects and answer nothing that we sent.
        let Some(id) = broadcast_message_id(heard.payload) else { return Incoming::NotForUs };
        let sequence = match self.ids.owner_of_message(id) {
            Owner::Mine(sequence) => sequence,
            Owner::OtherOwner => return Incoming::NotForUs,
            Owner::Foreign => return Incoming::Foreign,
        };
        let Some(choice) = ledger.choice_ever(sequence) else { return Incoming::NotForUs };
        if action(choice) == Action::ThreadReply {
            // Whoever follows the thread has a copy; how many those are, only the service knows.
            let own = copy_of == Some(self.users.id(choice.actor));
            let answer = Incoming::Answer { sequence, series: series::THREAD_REPLY_E2, outcome: Outcome::Sample };
            return if own { answer } else { Incoming::NotForUs };
        }
        let answer = |series| Incoming::Answer { sequence, series, outcome: Outcome::Sample };
        let Some(copied) = self.fan_outs.copy(sequence, way, came_to) else { return Incoming::NotForUs };
        if ledger.choice(sequence).is_none() {
            // Given up, or whole already: it is late, or comes twice, and nobody is reached by it any more.
            let first = matches!(copied, Copied::First | Copied::FirstAndLast);
            return answer(if first { series::E2 } else { series::E2_LAST });
        }
        if copied == Copied::Again {
            // Its first recipient has answered for it, so this is counted as a duplicate and changes nothing else.
            return answer(series::E2);
        }
        aside.observed.push((RECIPIENTS_REACHED, u64::from(came_to)));
        aside.observed.extend(self.expected(sequence));
        match copied {
            Copied::First => answer(series::E2),
            Copied::FirstAndLast => {
                aside.also.push((sequence, series::E2_LAST, Outcome::Sample));
                answer(series::E2)
            }
            Copied::Last => answer(series::E2_LAST),
            Copied::Between | Copied::Again => Incoming::Copy { sequence },
        }
    }

    /// What is observed of a message when it is first heard of: how many it goes to.
    fn expected(&mut self, sequence: u64) -> Option<(u8, u64)> {
        self.fan_outs.tell(sequence).map(|expected| (RECIPIENTS_EXPECTED, u64::from(expected)))
    }
}

fn outcome_of_ack(payload: &[u8]) -> Outcome {
    match classify_ack(payload) {
        Ack::Accepted => Outcome::Sample,
        Ack::Refused { .. } => Outcome::Refused,
        Ack::Unreadable => Outcome::Unreadable,
    }
}

fn outcome_of_job(payload: &[u8]) -> Outcome {
    read::classify_job(payload).into()
}

impl Workload for Daily {
    type Plan = DailyWorkload;

    fn new(plan: &DailyWorkload, setup: Setup<'_>) -> Result<Self, String> {
        let fixtures = Arc::new(plan.daily_fixtures(setup.plan.seed));
        let users = Users::new(plan, &setup, &fixtures);
        let (nonce, agent) = (setup.plan.run_nonce, setup.plan.agent_index);
        Ok(Self {
            plan: plan.clone(),
            seed: setup.plan.seed,
            request_timeout: setup.plan.request_timeout,
            bodies: Bodies::new(nonce, (agent, setup.worker), setup.chance),
            candidates: Candidates::new(nonce, agent, (setup.worker, setup.workers)),
            fixtures,
            ids: setup.ids,
            inbox: format!("{}.u", setup.inbox),
            users,
            crowd: None,
            acting: None,
            fan_outs: FanOuts::default(),
            presence: None,
        })
    }

    fn kinds(&self) -> Vec<Kind> {
        Action::ALL.map(kind).to_vec()
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        Vec::new()
    }

    fn probes(&self) -> Vec<Probe> {
        let Some((account, room)) = self.users.somebody(&self.fixtures) else { return Vec::new() };
        let site = &self.plan.site_id;
        let send = Probe {
            subject: subjects::send(&account, &room, site),
            payload: Bytes::new(),
            nobody: "no stream takes it: are the target's streams and the site id right?",
        };
        let services = self.plan.service_probes().into_iter().map(Probe::of_service);
        std::iter::once(send).chain(services).collect()
    }

    fn inherit(&mut self, before: &mut Self) {
        self.candidates.inherit(&mut before.candidates);
    }

    fn lines(&self) -> Option<Vec<Wanted>> {
        Some(self.users.lines())
    }

    fn line_subject(&self, tag: u64) -> String {
        match Tag::unpack(tag) {
            Tag::Room(room) => subjects::room_event(&self.fixtures.room_id(room)),
            Tag::User(user) => subjects::user_event(&account(user)),
            Tag::Responses(user) => subjects::response_wildcard(&account(user)),
            Tag::Inbox(line) => format!("{}.{line:x}.*", self.inbox),
            Tag::Presence(user) => subjects::presence_state(&account(user)),
        }
    }

    fn line_changed(&mut self, line: u32, online: bool) {
        self.users.line_changed(line, online);
    }

    fn users_online(&self) -> Option<u64> {
        Some(self.users.online())
    }

    fn begin(&mut self, order: &StepOrder) -> Option<f64> {
        let day = Day::of(&self.plan, order.warmup, order.hold);
        let online = self.users.who_are_online();
        let level = plimsoll_common::units::Rate::per_second((online.len() as u64).max(1));
        let rate = level.map_or(0.0, |level| self.plan.rate(level, order.hold).as_f64());
        self.fan_outs = FanOuts::for_open((rate * (self.request_timeout.as_secs_f64() + 2.5) * 1.5) as usize);
        let timeout_ns = self.request_timeout.as_nanos() as u64;
        self.presence = self.plan.presence.then(|| Presence::new(self.seed, order.trial, &online, day, timeout_ns));
        self.crowd = Some(Crowd::new(self.seed, order.trial, online, day));
        Some(rate)
    }

    fn beside(&mut self, since_ns: u64, aside: &mut Aside, say: &mut Vec<(u32, String, Bytes)>) {
        let Some(presence) = &mut self.presence else { return };
        let (users, site) = (&self.users, &self.plan.site_id);
        presence.due(since_ns, aside, |user, what, body| {
            say.push((users.line(users.index(user)), subjects::presence(&account(user), site, what), body));
        });
    }

    fn next_due(&mut self) -> Option<u64> {
        self.acting = self.crowd.as_mut().and_then(Iterator::next);
        self.acting.map(|(_, act)| act.at_ns)
    }

    fn choose(&mut self, _: &mut ChaCha8Rng) -> Choice {
        let (user, act) = self.acting.expect("what is due was given by the schedule");
        let actor = self.users.index(user);
        let place = self.users.room_for(actor, &act, &self.fixtures, &self.candidates);
        let content = match act.action {
            Action::MemberAdd => self.candidates.take(place),
            _ => act.bits,
        };
        Choice { place, actor, content, kind: act.action as u8 }
    }

    fn line_of(&self, choice: Choice) -> Option<u32> {
        Some(self.users.line(choice.actor))
    }

    fn message(&mut self, sequence: u64, choice: Choice) -> Outgoing {
        let (user, site) = (self.users.id(choice.actor), self.plan.site_id.clone());
        let account = account(user);
        let request_id = self.ids.request_id(sequence);
        let request_text = String::from_utf8_lossy(&request_id).into_owned();
        let message_id = self.ids.message_id(sequence);
        let room = choice.place;
        let room_id = || self.fixtures.room_id(room);
        let request = |operation| subjects::room_request(&account, &room_id(), &site, operation);
        let bodies = &mut self.bodies;
        let (subject, payload) = match action(choice) {
            Action::Send => {
                let expected = self.users.recipients(choice.actor, room, &self.fixtures);
                self.fan_outs.begin(sequence, expected);
                let send = subjects::send(&account, &room_id(), &site);
                (send, bodies.message(&message_id, &request_id, choice.content, self.plan.users))
            }
            Action::ThreadReply => {
                let parent = bodies::parent(&self.fixtures, room, choice.content);
                let send = subjects::send(&account, &room_id(), &site);
                (send, bodies.reply(&message_id, &request_id, &parent, choice.content))
            }
            Action::MarkRead => (request(subjects::MARK_READ), Bytes::from_static(b"{}")),
            Action::RefreshRoomList => {
                let list = subjects::user_request(&account, &site, subjects::LIST_ROOMS);
                (list, Bytes::from_static(b"{\"type\":\"rooms\"}"))
            }
            Action::ScrollHistory => {
                let before = self.users.reads_before(choice.actor, room);
                (request(subjects::LOAD_HISTORY), bodies.history(before, PAGE))
            }
            Action::MemberAdd => {
                let add = bodies.member_add(&self.fixtures, room, &room_id(), choice.content);
                (request(subjects::ADD_MEMBERS), add)
            }
            Action::RoomCreate => {
                let partner = users::neighbour(user, choice.content, self.plan.users);
                (subjects::create_room(&account, &site), bodies.room_create(sequence, user, partner))
            }
            Action::MuteToggle => (request(subjects::TOGGLE_MUTE), Bytes::new()),
        };
        let is_request = !matches!(action(choice), Action::Send | Action::ThreadReply);
        let reply = is_request
            .then(|| Subject::from(format!("{}.{:x}.{request_text}", self.inbox, self.users.line(choice.actor))));
        let mut headers = HeaderMap::new();
        headers.insert(subjects::REQUEST_ID_HEADER, request_text);
        Outgoing { subject: subject.into(), reply, headers: Some(headers), payload }
    }

    fn heard(&mut self, line: u32, tag: u64, heard: &Heard<'_>, ledger: &Ledger, aside: &mut Aside) -> Incoming {
        match Tag::unpack(tag) {
            Tag::Room(room) => {
                let came_to = self.users.in_room_on(line, room);
                self.broadcast(None, (line, came_to), heard, ledger, aside)
            }
            Tag::User(user) => self.broadcast(Some(user), (user, 1), heard, ledger, aside),
            Tag::Responses(_) => self.response(heard, ledger, aside),
            Tag::Inbox(_) => self.reply(heard, ledger, aside),
            Tag::Presence(user) => {
                let shown =
                    self.presence.as_mut().and_then(|presence| presence.shown(user, heard.payload, aside.now_ns));
                aside.observed.extend(shown);
                Incoming::Seen
            }
        }
    }

    fn incoming(&mut self, _: u32, _: &Message, _: &Ledger, _: &mut Aside) -> Incoming {
        // Nothing is subscribed on the worker's own connection.
        Incoming::Foreign
    }
}

#[cfg(test)]
mod tests;
