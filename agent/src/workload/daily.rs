//! People who use the chat as their daily messenger. Each has a connection, or shares one; what each does and when follows from
//! its own day ([`crate::core::people`]), which is the schedule of this workload.
//!
//! A message is measured to its first and to its last recipient among the users of its sender's agent: whoever is in the room and
//! online, whichever of the agent's workers has the connection.

mod bodies;
mod candidates;
mod copies;
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
use plimsoll_common::contract::read::{self, Ack, classify_ack, read_page};
use plimsoll_common::contract::subjects;
use plimsoll_common::plan::{DailyWorkload, StepOrder};
use plimsoll_common::workload::WorkloadPlan as _;
use plimsoll_common::workload::daily::{EMPTY_PAGES, HISTORY_ROWS, RECIPIENTS_EXPECTED, ROOMS_LISTED};
use rand_chacha::ChaCha8Rng;

use self::bodies::Bodies;
use self::candidates::Candidates;
use self::copies::Copy;
use self::fan_out::FanOuts;
use self::presence::Presence;
use self::users::{Tag, Users};
use super::{Aside, Incoming, Outgoing, Probe, Setup, Subscription, Workload};
use crate::core::exchange::{CopyHeard, Exchange};
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

/// The content of a choice of history that is its reader's first page of the room; of a further one it is the time before which
/// the page ends, in Unix milliseconds.
const NEWEST: u64 = 0;

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
    /// Tells siblings what this worker's users hear of their messages.
    exchange: Arc<Exchange>,
    /// Users who say that they are there, if they are asked to.
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

/// The time before which a page of history ends; `None`: it is the first.
fn page_before(choice: Choice) -> Option<u64> {
    (choice.content != NEWEST).then_some(choice.content)
}

impl Daily {
    /// The answer to a send, or the outcome of a job, on a user's own subject.
    fn response(&self, heard: &Heard<'_>, ledger: &Ledger) -> Incoming {
        let id = heard.subject.rsplit('.').next().unwrap_or_default();
        let sequence = match self.ids.owner_of_request(id.as_bytes()) {
            Owner::Mine(sequence) => sequence,
            // Answers come to whoever asked.
            Owner::Sibling { .. } | Owner::OtherOwner => return Incoming::NotForUs,
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
            if page.rows == 0 {
                // Every room is seeded with messages, so its newest page has some; only a further one may lie behind its end.
                if page_before(choice).is_none() {
                    return Outcome::Unreadable;
                }
                aside.observed.push((EMPTY_PAGES, 0));
            }
        }
        answer.into()
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
            bodies: Bodies::new(nonce, (agent, setup.worker), setup.plan.seed),
            candidates: Candidates::new(nonce, agent, (setup.worker, setup.workers)),
            fixtures,
            exchange: setup.exchange().clone(),
            ids: setup.ids,
            inbox: format!("{}.u", setup.inbox),
            users,
            crowd: None,
            acting: None,
            fan_outs: FanOuts::default(),
            presence: plan.presence.then(|| Presence::new(setup.plan.request_timeout.as_nanos() as u64)),
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
        if let (Some(presence), Some(before)) = (&mut self.presence, &mut before.presence) {
            presence.inherit(before, &self.users);
        }
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
        if let Some(presence) = &mut self.presence {
            let tell = if online { Presence::came } else { Presence::went };
            self.users.on(line).for_each(|user| tell(presence, user));
        }
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
        if let Some(presence) = &mut self.presence {
            presence.begin(self.seed, order, &online, day);
        }
        self.crowd = Some(Crowd::new(self.seed, order.trial, online, day));
        Some(rate)
    }

    fn beside(&mut self, since_ns: Option<u64>, aside: &mut Aside, say: &mut Vec<(u32, String, Bytes)>) {
        let Some(presence) = &mut self.presence else { return };
        let (users, site) = (&self.users, &self.plan.site_id);
        presence.due(since_ns, users, aside, &mut |user, what, body| {
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
            Action::ScrollHistory => self.users.reads_before(actor, place).unwrap_or(NEWEST),
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
                self.fan_outs.begin(sequence, self.users.recipients(choice.actor, room));
                let send = subjects::send(&account, &room_id(), &site);
                let mentioned = bodies::mentioned(&self.fixtures, room, user, choice.content);
                (send, bodies.message(&message_id, &request_id, choice.content, mentioned))
            }
            Action::ThreadReply => {
                let parent = bodies::parent(&self.fixtures, room, choice.content);
                let send = subjects::send(&account, &room_id(), &site);
                let mentioned = bodies::mentioned(&self.fixtures, room, user, choice.content);
                (send, bodies.reply(&message_id, &request_id, &parent, choice.content, mentioned))
            }
            Action::MarkRead => (request(subjects::MARK_READ), Bytes::from_static(b"{}")),
            Action::RefreshRoomList => {
                let list = subjects::user_request(&account, &site, subjects::LIST_ROOMS);
                (list, Bytes::from_static(b"{\"type\":\"rooms\"}"))
            }
            Action::ScrollHistory => (request(subjects::LOAD_HISTORY), Bodies::history(page_before(choice), PAGE)),
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

    fn handed_over(&mut self, sequence: u64) -> Option<(u8, u64)> {
        // Of every message that sets out, also of one that nobody ever hears of again.
        self.fan_outs.expected(sequence).map(|expected| (RECIPIENTS_EXPECTED, u64::from(expected)))
    }

    fn heard(&mut self, line: u32, tag: u64, heard: &Heard<'_>, ledger: &Ledger, aside: &mut Aside) -> Incoming {
        match Tag::unpack(tag) {
            tag @ (Tag::Room(_) | Tag::User(_)) => match self.copy_on(line, tag, heard, aside.now_ns) {
                Copy::Mine(copy) => self.copy(Some(tag), &copy, ledger, aside),
                Copy::Others => Incoming::NotForUs,
                Copy::Foreign => Incoming::Foreign,
            },
            Tag::Responses(_) => self.response(heard, ledger),
            Tag::Inbox(_) => self.reply(heard, ledger, aside),
            Tag::Presence(user) => {
                self.presence.iter_mut().for_each(|presence| presence.shown(user, heard.payload, aside));
                Incoming::Seen
            }
        }
    }

    fn overheard(&mut self, line: u32, tag: u64, heard: &Heard<'_>, now_ns: u64) {
        if let tag @ (Tag::Room(_) | Tag::User(_)) = Tag::unpack(tag) {
            // What is not a sibling's answers nothing any more.
            let _ = self.copy_on(line, tag, heard, now_ns);
        }
    }

    fn told(&mut self, copy: &CopyHeard, ledger: &Ledger, aside: &mut Aside) -> Incoming {
        self.copy(None, copy, ledger, aside)
    }

    fn incoming(&mut self, _: u32, _: &Message, _: &Ledger, _: &mut Aside) -> Incoming {
        // Nothing is subscribed on the worker's own connection.
        Incoming::Foreign
    }
}

#[cfg(test)]
pub(crate) mod tests;
