//! Connections of users: one per person, or one that several share. A worker has as many as its users need, opens them no
//! faster than it is told, and opens those again that break. All run on the worker's own thread and share nothing but it.

mod connection;
mod login;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use plimsoll_common::plan::Target;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::connection::keep_open;
use self::login::Door;
use super::clock::boottime_ns;
use super::lease::Lease;
use crate::core::nats_words::{self, Heard};
use crate::core::rate_limiter::RateLimiter;

/// What a line has yet to write at most: a server that takes nothing more for so long is gone.
const MOST_UNWRITTEN: usize = 8 * 1024 * 1024;
/// Errors kept per block.
const MAX_ERRORS: usize = 8;
/// How long users may take to come online beyond what their rate takes.
const SETTLE: Duration = Duration::from_secs(20);

/// Who listens to the lines, and knows what their subscriptions mean.
pub trait Ear {
    /// The subject of a subscription.
    fn subject(&self, tag: u64) -> String;
    /// A message arrived.
    fn heard(&self, line: u32, tag: u64, heard: &Heard<'_>);
    /// A line is online with every subscription active, or no longer.
    fn changed(&self, line: u32, online: bool);
}

/// A line that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its number, for as long as it is wanted.
    pub line: u32,
    /// Its subscriptions; where more come, they come last.
    pub tags: Vec<u64>,
    /// Users who come online with it.
    pub users: u32,
}

/// Why lines cannot be brought up at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsettled {
    /// The server denies a subject, in these words of its own.
    Denied(String),
    /// Nothing may be sent any more.
    LeaseEnded,
}

/// A line takes no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTaken {
    /// When its connection broke, on the box's clock; just now, where it is there and takes nothing more.
    pub since_ns: u64,
}

/// All lines of a worker.
pub struct Lines {
    hub: Rc<Hub>,
    lines: RefCell<HashMap<u32, Line>>,
}

/// What all lines of a worker share.
struct Hub {
    door: Door,
    name: String,
    lease: Lease,
    ear: Box<dyn Ear>,
    reported: RefCell<Vec<String>>,
    denied: RefCell<Option<String>>,
    /// When a line that is being opened has come so far, or has failed.
    settled: Notify,
    /// When users may come online, first or again.
    limiter: RefCell<RateLimiter>,
    /// What its turns are counted from.
    began: Instant,
    /// The longest that a line took to write out what it had, since the last look.
    write_blocked_ns: Cell<u64>,
}

struct Line {
    shared: Rc<Shared>,
    task: JoinHandle<()>,
}

/// What a line's task and its owner share.
struct Shared {
    line: u32,
    /// By the subscription's number less one.
    tags: RefCell<Vec<u64>>,
    out: RefCell<BytesMut>,
    wakes: Notify,
    state: Cell<State>,
    /// Pings that were sent since the connection came up, less those answered.
    pongs_due: Cell<u32>,
    /// Who come online with it.
    users: Cell<u32>,
    /// When its connection broke last.
    broke_ns: Cell<u64>,
    /// Since when it has been writing.
    writes_since_ns: Cell<Option<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Never yet online.
    Opening,
    /// Connected; its subscriptions have yet to be confirmed.
    Subscribing,
    Online,
    /// Could not be opened, or broke; it is tried again.
    Down,
}

impl Lines {
    /// No lines yet.
    ///
    /// # Errors
    /// The target's credentials make no sense.
    pub fn new(target: &Target, name: &str, lease: Lease, ear: Box<dyn Ear>) -> Result<Self, String> {
        let hub = Hub {
            door: Door::new(target)?,
            name: name.to_owned(),
            lease,
            ear,
            reported: RefCell::default(),
            denied: RefCell::default(),
            settled: Notify::new(),
            limiter: RefCell::new(RateLimiter::new(1.0)),
            began: Instant::now(),
            write_blocked_ns: Cell::new(0),
        };
        Ok(Self { hub: Rc::new(hub), lines: RefCell::default() })
    }

    /// Makes the lines those that are wanted, whose users come online, for the first time or again, no faster than so many a second
    /// from now on; and tells the ear which are online. Ends when every line is online, also those
    /// that had to be tried again, or when some are not by the time that all could have been: who acts is known by then.
    /// Meanwhile those that are online can be spoken on.
    ///
    /// # Errors
    /// The server denies a subject, in its words; or the lease has ended.
    pub async fn settle(&self, wanted: Vec<Wanted>, users_per_second: f64) -> Result<(), Unsettled> {
        self.hub.limiter.borrow_mut().set_rate(users_per_second);
        let keep: HashMap<u32, &Wanted> = wanted.iter().map(|wanted| (wanted.line, wanted)).collect();
        self.lines.borrow_mut().retain(|line, open| {
            let extends = |wanted: &&Wanted| wanted.tags.starts_with(&open.shared.tags.borrow());
            keep.get(line).is_some_and(extends)
        });
        drop(keep);
        let coming = wanted.iter().map(|wanted| self.coming(wanted)).fold(0, u32::saturating_add);
        let limit = Instant::now() + self.hub.limiter.borrow().lasts(coming) + SETTLE;
        for wanted in wanted {
            let new_users = self.new_users(&wanted);
            if new_users > 0 {
                self.hub.turn(new_users).await;
                self.fails()?;
            }
            self.bring(wanted);
        }
        while self.are_some_not_online() {
            let waited = tokio::time::timeout(Duration::from_millis(50), self.hub.settled.notified());
            let _ = waited.await;
            self.fails()?;
            if Instant::now() > limit {
                break;
            }
        }
        self.fails()
    }

    fn are_some_not_online(&self) -> bool {
        self.lines.borrow().values().any(|line| line.shared.state.get() != State::Online)
    }

    /// How many users come online, for the first time or again, by the time that a line is online.
    fn coming(&self, wanted: &Wanted) -> u32 {
        let is_down = |open: &Line| open.shared.state.get() == State::Down;
        if self.lines.borrow().get(&wanted.line).is_some_and(is_down) { wanted.users } else { self.new_users(wanted) }
    }

    /// How many users come online that a line did not have.
    fn new_users(&self, wanted: &Wanted) -> u32 {
        let has = self.lines.borrow().get(&wanted.line).map_or(0, |open| open.shared.users.get());
        wanted.users.saturating_sub(has)
    }

    /// Opens a line or has it listen to more.
    fn bring(&self, wanted: Wanted) {
        let Wanted { line, tags, users } = wanted;
        let mut lines = self.lines.borrow_mut();
        if let Some(open) = lines.get_mut(&line) {
            open.shared.users.set(users);
            open.shared.extend(&self.hub, tags);
            return;
        }
        let shared = Rc::new(Shared::new(line, tags, users));
        let task = tokio::task::spawn_local(keep_open(self.hub.clone(), shared.clone()));
        lines.insert(line, Line { shared, task });
    }

    fn fails(&self) -> Result<(), Unsettled> {
        if let Some(words) = &*self.hub.denied.borrow() {
            return Err(Unsettled::Denied(words.clone()));
        }
        if self.hub.lease.holds(boottime_ns()) { Ok(()) } else { Err(Unsettled::LeaseEnded) }
    }

    /// Hands a message to a line.
    ///
    /// # Errors
    /// It takes none: its connection is down, or the server has not taken what was handed to it before.
    pub fn publish(
        &self,
        line: u32,
        subject: &str,
        reply: Option<&str>,
        header: (&str, &str),
        payload: &[u8],
    ) -> Result<(), NotTaken> {
        let full = || NotTaken { since_ns: boottime_ns() };
        let lines = self.lines.borrow();
        let shared = &lines.get(&line).ok_or_else(full)?.shared;
        if shared.state.get() != State::Online {
            return Err(NotTaken { since_ns: shared.broke_ns.get() });
        }
        let mut out = shared.out.borrow_mut();
        if out.len() > MOST_UNWRITTEN {
            return Err(full());
        }
        nats_words::publish(&mut out, subject, reply, header, payload);
        shared.wakes.notify_one();
        Ok(())
    }

    /// Hands over a message that nobody waits for; none to a line that is down.
    pub fn say(&self, line: u32, subject: &str, payload: &[u8]) {
        let lines = self.lines.borrow();
        let Some(open) = lines.get(&line).filter(|open| open.shared.state.get() == State::Online) else { return };
        let mut out = open.shared.out.borrow_mut();
        if out.len() <= MOST_UNWRITTEN {
            nats_words::publish_bare(&mut out, subject, payload);
            open.shared.wakes.notify_one();
        }
    }

    /// Lines that are connected.
    pub fn connected(&self) -> u64 {
        let is_up = |line: &&Line| matches!(line.shared.state.get(), State::Online | State::Subscribing);
        self.lines.borrow().values().filter(is_up).count() as u64
    }

    /// The longest that any line took to write out what it had, in nanoseconds: of those that were through since the last call
    /// or are still at it.
    pub fn take_write_blocked_ns(&self, now_ns: u64) -> u64 {
        let lines = self.lines.borrow();
        let writing = lines.values().filter_map(|line| line.shared.writes_since_ns.get());
        let longest = writing.map(|since_ns| now_ns.saturating_sub(since_ns)).max().unwrap_or(0);
        self.hub.write_blocked_ns.take().max(longest)
    }

    /// Takes what was reported since the last call.
    pub fn take_reported(&self) -> Vec<String> {
        std::mem::take(&mut self.hub.reported.borrow_mut())
    }
}

impl Hub {
    /// Waits until so many users may come online.
    async fn turn(&self, users: u32) {
        let now = self.began.elapsed();
        let turn = self.limiter.borrow_mut().take(now, users);
        if turn > now {
            tokio::time::sleep_until(self.began + turn).await;
        }
    }

    fn report(&self, words: String) {
        let mut reported = self.reported.borrow_mut();
        if reported.len() < MAX_ERRORS && !reported.contains(&words) {
            reported.push(words);
        }
    }
}

impl Shared {
    /// Of a line that is yet to be opened.
    fn new(line: u32, tags: Vec<u64>, users: u32) -> Self {
        Self {
            line,
            tags: RefCell::new(tags),
            out: RefCell::default(),
            wakes: Notify::new(),
            state: Cell::new(State::Opening),
            pongs_due: Cell::new(0),
            users: Cell::new(users),
            broke_ns: Cell::new(boottime_ns()),
            writes_since_ns: Cell::new(None),
        }
    }

    /// There is no connection, or no longer.
    fn breaks(&self, hub: &Hub) {
        let was = self.state.replace(State::Down);
        self.out.borrow_mut().clear();
        self.wrote(hub, boottime_ns());
        if was != State::Down {
            self.broke_ns.set(boottime_ns());
        }
        if was == State::Online {
            hub.ear.changed(self.line, false);
        }
        hub.settled.notify_one();
    }

    /// What was being written is out, or never will be.
    fn wrote(&self, hub: &Hub, now_ns: u64) {
        if let Some(since_ns) = self.writes_since_ns.take() {
            let took_ns = now_ns.saturating_sub(since_ns);
            hub.write_blocked_ns.set(hub.write_blocked_ns.get().max(took_ns));
        }
    }

    /// Listens to more on a connection that may be up.
    fn extend(&self, hub: &Hub, tags: Vec<u64>) {
        let heard = self.tags.borrow().len();
        let more = tags.len() > heard;
        *self.tags.borrow_mut() = tags;
        match self.state.get() {
            State::Online if more => {
                self.state.set(State::Subscribing);
                self.subscribe(hub, heard);
            }
            State::Online => hub.ear.changed(self.line, true),
            // What it has asked for so far is not all of it: it is online once this is confirmed too.
            State::Subscribing if more => self.subscribe(hub, heard),
            // It listens to all once it is connected.
            State::Subscribing | State::Opening | State::Down => {}
        }
    }

    /// Subscribes to all from this one on, and asks the server to say when it has.
    fn subscribe(&self, hub: &Hub, from: usize) {
        let mut out = self.out.borrow_mut();
        for (number, &tag) in (1..).zip(&*self.tags.borrow()).skip(from) {
            nats_words::subscribe(&mut out, &hub.ear.subject(tag), number);
        }
        out.extend_from_slice(b"PING\r\n");
        self.pongs_due.set(self.pongs_due.get() + 1);
        self.wakes.notify_one();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests;
