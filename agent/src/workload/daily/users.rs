//! The users of one worker: their rooms, their connections, and who of them, and of the agent's others, hears what.

use std::collections::HashMap;
use std::sync::Arc;

use plimsoll_common::contract::daily::Band;
use plimsoll_common::contract::daily::behaviour::Action;
use plimsoll_common::contract::daily::fixtures::DailyFixtures;
use plimsoll_common::contract::fixtures::account;
use plimsoll_common::plan::DailyWorkload;

use super::Setup;
use super::candidates::{Candidates, takes_members};
use super::fan_out::Audience;
use crate::core::exchange::Exchange;
use crate::core::people::Act;
pub(super) use crate::core::splitmix::splitmix64;
use crate::shell::lines::Wanted;
use crate::workload::Part;

/// Lines from this number on are shared, and are numbered over all workers of the agent; below it, a line is the user of that
/// number.
const SHARED: u32 = 1 << 31;

/// What a subscription of a user's connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// Broadcasts of a channel.
    Room(u32),
    /// A user's own copies of broadcasts.
    User(u32),
    /// Answers to a user.
    Responses(u32),
    /// Replies to requests that were made on this line.
    Inbox(u32),
    /// What a user's presence is.
    Presence(u32),
}

impl Tag {
    fn pack(self) -> u64 {
        let (kind, number) = match self {
            Self::Room(number) => (0, number),
            Self::User(number) => (1, number),
            Self::Responses(number) => (2, number),
            Self::Inbox(number) => (3, number),
            Self::Presence(number) => (4, number),
        };
        kind << 32 | u64::from(number)
    }

    pub(super) fn unpack(tag: u64) -> Self {
        let number = tag as u32;
        match tag >> 32 {
            0 => Self::Room(number),
            1 => Self::User(number),
            2 => Self::Responses(number),
            3 => Self::Inbox(number),
            _ => Self::Presence(number),
        }
    }
}

struct User {
    id: u32,
    line: u32,
    /// In the order in which this user likes them.
    rooms: Box<[u32]>,
    online: bool,
    /// Where it reads on: a room, and the time of the oldest message that it has seen of it.
    scrolled: Option<(u32, u64)>,
}

struct Line {
    users: Vec<u32>,
    tags: Vec<u64>,
    /// The arrival of its users, while they are online.
    since: Option<u64>,
}

/// All users of a worker.
pub(super) struct Users {
    users: Vec<User>,
    index: HashMap<u32, u32>,
    /// In the order in which their first users come online.
    lines: Vec<(u32, Line)>,
    line_index: HashMap<u32, usize>,
    /// Knows who else of the agent is online.
    exchange: Arc<Exchange>,
    /// Users of a shared line by the channel that they are in.
    on_line: HashMap<(u32, u32), u32>,
    online: u64,
    /// Cumulative weights of Zipf's law, by rank.
    zipf: Vec<f64>,
}

impl Users {
    pub(super) fn new(plan: &DailyWorkload, setup: &Setup<'_>, fixtures: &DailyFixtures) -> Self {
        let part = setup.part;
        let (worker, workers) = (u32::from(setup.worker), u32::from(setup.workers));
        let shared_lines = Part::shared_lines(plan.multiplex_pool_size, worker, workers);
        let mut all = Self {
            users: Vec::with_capacity(part.users.len()),
            index: HashMap::with_capacity(part.users.len()),
            lines: Vec::new(),
            line_index: HashMap::new(),
            exchange: setup.exchange().clone(),
            on_line: HashMap::new(),
            online: 0,
            zipf: Vec::new(),
        };
        for (at, &id) in (0..).zip(&part.users) {
            let line = match (at as usize).checked_sub(part.direct_users) {
                None => id,
                // Whoever shares is dealt to a worker that has a line to share.
                Some(at) => SHARED + worker + at as u32 % shared_lines.max(1) * workers,
            };
            let mut rooms = fixtures.rooms_of(id);
            rooms.sort_by_key(|&room| splitmix64(setup.plan.seed ^ u64::from(id) << 32 ^ u64::from(room)));
            let user = User { id, line, rooms: rooms.into(), online: false, scrolled: None };
            all.add(user, plan.presence, fixtures);
        }
        let longest = all.users.iter().map(|user| user.rooms.len()).max().unwrap_or(0);
        let mut sum = 0.0;
        all.zipf = (1..=longest)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        all
    }

    fn add(&mut self, user: User, presence: bool, fixtures: &DailyFixtures) {
        let (at, line) = (self.users.len() as u32, user.line);
        let next = self.lines.len();
        let place = *self.line_index.entry(line).or_insert(next);
        if place == next {
            let tags = vec![Tag::Inbox(line).pack()];
            self.lines.push((line, Line { users: Vec::new(), tags, since: None }));
        }
        let open = &mut self.lines[place].1;
        open.users.push(at);
        open.tags.extend([Tag::Responses(user.id).pack(), Tag::User(user.id).pack()]);
        open.tags.extend(presence.then(|| Tag::Presence(user.id).pack()));
        for &room in user.rooms.iter().filter(|&&room| fixtures.band(room) != Band::Dm) {
            let users =
                if line < SHARED { 0 } else { *self.on_line.entry((line, room)).and_modify(|n| *n += 1).or_insert(1) };
            // The first user of a shared line who is in the room has it listen to it.
            if users <= 1 {
                open.tags.push(Tag::Room(room).pack());
            }
        }
        self.index.insert(user.id, at);
        self.users.push(user);
    }

    pub(super) fn lines(&self) -> Vec<Wanted> {
        let wanted = |(line, open): &(u32, Line)| Wanted {
            line: *line,
            tags: open.tags.clone(),
            users: open.users.len() as u32,
        };
        self.lines.iter().map(wanted).collect()
    }

    pub(super) fn line_changed(&mut self, line: u32, online: bool) {
        let Some(&place) = self.line_index.get(&line) else { return };
        let open = &mut self.lines[place].1;
        if open.since.is_some() == online {
            return;
        }
        for &at in &open.users {
            self.users[at as usize].online = online;
        }
        // All at once: a message that sets out meanwhile is for all of them or for none.
        let rooms = open.users.iter().map(|&at| &*self.users[at as usize].rooms);
        if online {
            open.since = Some(self.exchange.online().come(rooms));
        } else {
            self.exchange.online().go(rooms);
            open.since = None;
        }
        let users = open.users.len() as u64;
        self.online = if online { self.online + users } else { self.online - users };
    }

    pub(super) fn online(&self) -> u64 {
        self.online
    }

    pub(super) fn who_are_online(&self) -> Vec<u32> {
        self.users.iter().filter(|user| user.online).map(|user| user.id).collect()
    }

    /// Whether a user is one of ours.
    pub(super) fn has(&self, user: u32) -> bool {
        self.index.contains_key(&user)
    }

    /// Whether a user is one of ours and online.
    pub(super) fn is_online(&self, user: u32) -> bool {
        self.index.get(&user).is_some_and(|&at| self.users[at as usize].online)
    }

    /// The users of a line.
    pub(super) fn on(&self, line: u32) -> impl Iterator<Item = u32> {
        let place = self.line_index.get(&line);
        place.into_iter().flat_map(move |&place| &self.lines[place].1.users).map(move |&at| self.id(at))
    }

    /// The user of this number, who is one of ours.
    pub(super) fn index(&self, user: u32) -> u32 {
        self.index[&user]
    }

    pub(super) fn id(&self, actor: u32) -> u32 {
        self.users[actor as usize].id
    }

    pub(super) fn line(&self, actor: u32) -> u32 {
        self.users[actor as usize].line
    }

    /// Account and room of somebody, for questions to the service.
    pub(super) fn somebody(&self, fixtures: &DailyFixtures) -> Option<(String, String)> {
        let user = self.users.first()?;
        let channel = user.rooms.iter().find(|&&room| fixtures.band(room) == Band::Small)?;
        Some((account(user.id), fixtures.room_id(*channel)))
    }

    /// Who of the agent hears a message in this room, its sender among them: who is in the room, and online when it sets out.
    pub(super) fn recipients(&self, actor: u32, room: u32) -> Audience {
        let (online, arrivals) = self.exchange.online().in_room(room);
        // One whose connection has just broken cannot send either, and is told so.
        let expected = online.max(u32::from(!self.users[actor as usize].online));
        Audience { expected, arrivals }
    }

    /// The arrival of a line's users; of those who are not online, one that is after all messages.
    pub(super) fn since(&self, line: u32) -> u64 {
        let place = self.line_index.get(&line);
        place.and_then(|&place| self.lines[place].1.since).unwrap_or(u64::MAX)
    }

    /// To how many of our users a copy comes that arrives on this line.
    pub(super) fn in_room_on(&self, line: u32, room: u32) -> u32 {
        if line < SHARED { 1 } else { self.on_line.get(&(line, room)).copied().unwrap_or(1) }
    }

    /// The room that an act is about, drawn by Zipf's law from those that do: people are mostly in few of their rooms.
    pub(super) fn room_for(&self, actor: u32, act: &Act, fixtures: &DailyFixtures, candidates: &Candidates) -> u32 {
        let user = &self.users[actor as usize];
        let does = |room: u32| match act.action {
            Action::Send => fixtures.may_post(room, user.id),
            Action::ThreadReply => fixtures.band(room) != Band::Dm,
            Action::MemberAdd => candidates.has(fixtures, room),
            Action::MarkRead
            | Action::RefreshRoomList
            | Action::ScrollHistory
            | Action::RoomCreate
            | Action::MuteToggle => true,
        };
        // Half of the time one reads on where one has read.
        if let (Action::ScrollHistory, Some((room, _)), true) = (act.action, user.scrolled, act.bits & 1 == 0) {
            return room;
        }
        let rooms = &user.rooms;
        let drawn = (splitmix64(act.bits) >> 11) as f64 / (1_u64 << 53) as f64 * self.zipf[rooms.len() - 1];
        let first = self.zipf.partition_point(|&sum| sum <= drawn).min(rooms.len() - 1);
        // One that does not do gives way to the next that does; every user has some of each.
        let in_turn = rooms.iter().copied().cycle().skip(first).take(rooms.len());
        // Where all that one may add were added, somebody is a second time.
        let once_more =
            || in_turn.clone().find(|&room| act.action == Action::MemberAdd && takes_members(fixtures, room));
        let chosen = in_turn.clone().find(|&room| does(room)).or_else(once_more);
        chosen.unwrap_or(rooms[first])
    }

    /// A page of a room was read; where there is more, its oldest message's time.
    pub(super) fn scrolled(&mut self, actor: u32, room: u32, more: Option<u64>) {
        self.users[actor as usize].scrolled = more.map(|oldest_ms| (room, oldest_ms));
    }

    /// The time before which a user goes on reading; `None`: it begins at the newest.
    pub(super) fn reads_before(&self, actor: u32, room: u32) -> Option<u64> {
        self.users[actor as usize].scrolled.filter(|&(read, _)| read == room).map(|(_, oldest_ms)| oldest_ms)
    }
}

impl Drop for Users {
    /// Whoever takes over from these brings its own online.
    fn drop(&mut self) {
        let online = self.users.iter().filter(|user| user.online);
        self.exchange.online().go(online.map(|user| &*user.rooms));
    }
}

/// Somebody else.
pub(super) fn neighbour(user: u32, bits: u64, users: u32) -> u32 {
    let others = u64::from(users) - 1;
    ((u64::from(user) + 1 + splitmix64(bits ^ 1) % others) % u64::from(users)) as u32
}
