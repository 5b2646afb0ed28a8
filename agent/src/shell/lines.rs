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

use self::connection::keep_open;
use self::login::Door;
use super::clock::boottime_ns;
use super::lease::Lease;
use crate::core::nats_words::{self, Heard};

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

/// All lines of a worker.
pub struct Lines {
    hub: Rc<Hub>,
    lines: HashMap<u32, Line>,
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
}

struct Line {
    shared: Rc<Shared>,
    task: JoinHandle<()>,
    users: u32,
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
        };
        Ok(Self { hub: Rc::new(hub), lines: HashMap::new() })
    }

    /// Makes the lines those that are wanted, and tells the ear which are online. Ends when every line has come online or
    /// failed to.
    ///
    /// # Errors
    /// The server denies a subject, in its words; or the lease has ended.
    pub async fn settle(&mut self, wanted: Vec<Wanted>, users_per_second: f64) -> Result<(), Unsettled> {
        let keep: HashMap<u32, &Wanted> = wanted.iter().map(|wanted| (wanted.line, wanted)).collect();
        self.lines.retain(|line, open| {
            let extends = |wanted: &&Wanted| wanted.tags.starts_with(&open.shared.tags.borrow());
            keep.get(line).is_some_and(extends)
        });
        drop(keep);
        let pause = Duration::from_secs_f64(1.0 / users_per_second);
        let mut due = tokio::time::Instant::now();
        for wanted in wanted {
            let new_users = self.bring(wanted);
            if new_users > 0 {
                due += pause * new_users;
                tokio::time::sleep_until(due).await;
                self.fails()?;
            }
        }
        let limit = tokio::time::Instant::now() + SETTLE;
        while self.lines.values().any(|line| matches!(line.shared.state.get(), State::Opening | State::Subscribing)) {
            let waited = tokio::time::timeout(Duration::from_millis(50), self.hub.settled.notified());
            let _ = waited.await;
            self.fails()?;
            if tokio::time::Instant::now() > limit {
                break;
            }
        }
        self.fails()
    }

    /// Opens a line or has it listen to more. How many users come online by that.
    fn bring(&mut self, wanted: Wanted) -> u32 {
        let Wanted { line, tags, users } = wanted;
        if let Some(open) = self.lines.get_mut(&line) {
            let new_users = users.saturating_sub(open.users);
            open.users = users;
            open.shared.extend(&self.hub, tags);
            return new_users;
        }
        let shared = Rc::new(Shared {
            line,
            tags: RefCell::new(tags),
            out: RefCell::default(),
            wakes: Notify::new(),
            state: Cell::new(State::Opening),
            pongs_due: Cell::new(0),
        });
        let task = tokio::task::spawn_local(keep_open(self.hub.clone(), shared.clone()));
        self.lines.insert(line, Line { shared, task, users });
        users
    }

    fn fails(&self) -> Result<(), Unsettled> {
        if let Some(words) = &*self.hub.denied.borrow() {
            return Err(Unsettled::Denied(words.clone()));
        }
        if self.hub.lease.holds(boottime_ns()) { Ok(()) } else { Err(Unsettled::LeaseEnded) }
    }

    /// Hands a message to a line. Whether it is taken: not by one that is down.
    pub fn publish(&self, line: u32, subject: &str, reply: Option<&str>, header: (&str, &str), payload: &[u8]) -> bool {
        let Some(open) = self.lines.get(&line) else { return false };
        let mut out = open.shared.out.borrow_mut();
        if open.shared.state.get() != State::Online || out.len() > MOST_UNWRITTEN {
            return false;
        }
        nats_words::publish(&mut out, subject, reply, header, payload);
        open.shared.wakes.notify_one();
        true
    }

    /// Hands over a message that nobody waits for; none to a line that is down.
    pub fn say(&self, line: u32, subject: &str, payload: &[u8]) {
        let Some(open) = self.lines.get(&line).filter(|open| open.shared.state.get() == State::Online) else { return };
        let mut out = open.shared.out.borrow_mut();
        if out.len() <= MOST_UNWRITTEN {
            nats_words::publish_bare(&mut out, subject, payload);
            open.shared.wakes.notify_one();
        }
    }

    /// Lines that are connected.
    pub fn connected(&self) -> u64 {
        let is_up = |line: &&Line| matches!(line.shared.state.get(), State::Online | State::Subscribing);
        self.lines.values().filter(is_up).count() as u64
    }

    /// Takes what was reported since the last call.
    pub fn take_reported(&self) -> Vec<String> {
        std::mem::take(&mut self.hub.reported.borrow_mut())
    }
}

impl Hub {
    fn report(&self, words: String) {
        let mut reported = self.reported.borrow_mut();
        if reported.len() < MAX_ERRORS && !reported.contains(&words) {
            reported.push(words);
        }
    }
}

impl Shared {
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
mod tests {
    use super::*;
    use crate::core::nats_words::Word;

    /// Tags are rooms; keeps what it is told of the line.
    struct Told(Rc<RefCell<Vec<bool>>>);

    impl Ear for Told {
        fn subject(&self, tag: u64) -> String {
            format!("room.{tag}")
        }

        fn heard(&self, _: u32, _: u64, _: &Heard<'_>) {}

        fn changed(&self, _: u32, online: bool) {
            self.0.borrow_mut().push(online);
        }
    }

    #[test]
    fn a_line_that_is_asked_for_more_before_it_is_online_is_so_with_all_of_it_only() {
        let told = Rc::new(RefCell::new(Vec::new()));
        let target = Target { url: "nats://127.0.0.1:4222".into(), credentials: None };
        let lease = Lease::until(u64::MAX);
        let lines = Lines::new(&target, "test", lease, Box::new(Told(told.clone()))).unwrap();
        let shared = Shared {
            line: 1,
            tags: RefCell::new(vec![7]),
            out: RefCell::default(),
            wakes: Notify::new(),
            state: Cell::new(State::Subscribing),
            pongs_due: Cell::new(0),
        };
        let (hub, written) = (&lines.hub, || shared.out.borrow_mut().split());
        let pong = || connection::on_word(Word::Pong, hub, &shared);
        shared.subscribe(hub, 0);
        assert_eq!(&written()[..], b"SUB room.7 1\r\nPING\r\n");
        // Dealt anew while the server has yet to answer, with more and then with the same.
        shared.extend(hub, vec![7, 8, 9]);
        shared.extend(hub, vec![7, 8, 9]);
        assert_eq!(&written()[..], b"SUB room.8 2\r\nSUB room.9 3\r\nPING\r\n");
        pong();
        assert_eq!((shared.state.get(), told.borrow().as_slice()), (State::Subscribing, &[][..]));
        pong();
        assert_eq!((shared.state.get(), told.borrow().as_slice()), (State::Online, &[true][..]));
        // Online, it is asked for more, and then for more again.
        shared.extend(hub, vec![7, 8, 9, 10]);
        shared.extend(hub, vec![7, 8, 9, 10, 11]);
        assert_eq!(&written()[..], b"SUB room.10 4\r\nPING\r\nSUB room.11 5\r\nPING\r\n");
        pong();
        assert_eq!(shared.state.get(), State::Subscribing);
        pong();
        assert_eq!((shared.state.get(), told.borrow().as_slice()), (State::Online, &[true, true][..]));
    }
}
