//! Users who say that they are there: once as they come online, every half minute from then on for as long as they are, and in
//! trials when they become active or idle; and how long it takes until everybody could see that.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use plimsoll_common::contract::fixtures::account;
use plimsoll_common::plan::StepOrder;
use plimsoll_common::workload::daily::{PRESENCE_LOST, PRESENCE_SAID, PRESENCE_US};

use super::users::{Users, splitmix64};
use crate::core::people::{Day, Flips};
use crate::workload::Aside;

/// Between two signs of life.
const PING_NS: u64 = 30_000_000_000;
/// A sign of life that is due while its user's connection is opened anew waits so long.
const RETRY_NS: u64 = 1_000_000_000;
/// What people are as a trial begins is told over its warmup, but over no less and no more than this.
const TOLD_OVER_NS: (u64, u64) = (1_000_000_000, 10_000_000_000);

/// What the users of one worker say of themselves. Goes on over trials and deals.
pub(super) struct Presence {
    /// Those who have said hello.
    voices: HashMap<u32, Voice>,
    /// When each gives the next sign of life; void where its voice has another time for it.
    pings: BinaryHeap<Reverse<(u64, u32)>>,
    /// Who are to say hello.
    coming: Vec<u32>,
    trial: Option<Trial>,
    timeout_ns: u64,
}

struct Voice {
    /// Its next sign of life.
    ping_ns: u64,
    /// Whether it has said last that it is active; hello says so.
    active: bool,
}

/// Who is active or idle in a trial, and what has yet to show of it.
struct Trial {
    flips: Flips,
    active: HashMap<u32, bool>,
    /// When each tells what it was as the trial began, the first one last.
    beginnings: Vec<(u64, u32)>,
    hold_ns: Range<u64>,
    /// Per user, in the order in which they were said.
    waiting: HashMap<u32, VecDeque<Change>>,
    /// When what was said is lost unless it shows, and who said it.
    limits: VecDeque<(u64, u32)>,
}

/// A change that has yet to show.
struct Change {
    said_ns: u64,
    /// The state that shows it.
    shows: &'static str,
}

/// Says something on behalf of a user: who, what, and the body.
type Say<'a> = dyn FnMut(u32, &'static str, Bytes) + 'a;

impl Presence {
    pub(super) fn new(timeout_ns: u64) -> Self {
        Self { voices: HashMap::new(), pings: BinaryHeap::new(), coming: Vec::new(), trial: None, timeout_ns }
    }

    /// Goes on with what the users of an earlier deal have said, if they are users still.
    pub(super) fn inherit(&mut self, before: &mut Self, users: &Users) {
        self.voices = std::mem::take(&mut before.voices);
        self.voices.retain(|&user, _| users.has(user));
        self.pings = std::mem::take(&mut before.pings);
    }

    /// A user is online; said again of one who has been all along.
    pub(super) fn came(&mut self, user: u32) {
        if !self.voices.contains_key(&user) {
            self.coming.push(user);
        }
    }

    /// A user's connection is gone. What it has said and nobody saw is neither shown nor lost: it could not have seen it itself.
    pub(super) fn went(&mut self, user: u32) {
        self.voices.remove(&user);
        if let Some(trial) = &mut self.trial {
            trial.waiting.remove(&user);
        }
    }

    /// A trial begins with these users online.
    pub(super) fn begin(&mut self, seed: u64, order: &StepOrder, online: &[u32], day: Day) {
        let mut flips = Flips::new(seed, order.trial, online.iter().copied(), day);
        let mut active = HashMap::with_capacity(online.len());
        while let Some((user, flip)) = flips.due(0) {
            active.insert(user, flip.active);
        }
        let over_ns = (order.warmup.as_nanos() as u64).clamp(TOLD_OVER_NS.0, TOLD_OVER_NS.1);
        let mut beginnings: Vec<(u64, u32)> =
            online.iter().map(|&user| (splitmix64(seed ^ u64::from(user)) % over_ns, user)).collect();
        beginnings.sort_unstable_by_key(|&beginning| Reverse(beginning));
        let begins_ns = order.start_boottime_ns + order.warmup.as_nanos() as u64;
        let hold_ns = begins_ns..begins_ns + order.hold.as_nanos() as u64;
        let (waiting, limits) = (HashMap::new(), VecDeque::new());
        self.trial = Some(Trial { flips, active, beginnings, hold_ns, waiting, limits });
    }

    /// What is to be said by now. `since_ns`: nanoseconds since the trial's warmup began; none between trials, when people only
    /// give signs of life.
    pub(super) fn due(&mut self, since_ns: Option<u64>, users: &Users, aside: &mut Aside, say: &mut Say<'_>) {
        for user in std::mem::take(&mut self.coming) {
            if !self.voices.contains_key(&user) && users.is_online(user) {
                let ping_ns = aside.now_ns + PING_NS;
                self.voices.insert(user, Voice { ping_ns, active: true });
                self.pings.push(Reverse((ping_ns, user)));
                say(user, "hello", sign(user));
                if since_ns.is_some() {
                    self.tell(user, users, aside, say);
                }
            }
        }
        if let Some(since_ns) = since_ns {
            self.changes(since_ns, users, aside, say);
        }
        while let Some(&Reverse((at_ns, user))) = self.pings.peek().filter(|next| next.0.0 <= aside.now_ns) {
            self.pings.pop();
            let Some(voice) = self.voices.get_mut(&user).filter(|voice| voice.ping_ns == at_ns) else { continue };
            let is_online = users.is_online(user);
            voice.ping_ns = if is_online { at_ns + PING_NS } else { aside.now_ns + RETRY_NS };
            self.pings.push(Reverse((voice.ping_ns, user)));
            if is_online {
                say(user, "ping", sign(user));
            }
        }
    }

    /// What is to be said by then of who is active and idle, and what will not show any more.
    fn changes(&mut self, since_ns: u64, users: &Users, aside: &mut Aside, say: &mut Say<'_>) {
        while let Some(trial) = &mut self.trial {
            let Some(&(_, user)) = trial.beginnings.last().filter(|beginning| beginning.0 <= since_ns) else { break };
            trial.beginnings.pop();
            self.tell(user, users, aside, say);
        }
        while let Some(trial) = &mut self.trial {
            let Some((user, flip)) = trial.flips.due(since_ns) else { break };
            trial.active.insert(user, flip.active);
            self.tell(user, users, aside, say);
        }
        let Some(trial) = &mut self.trial else { return };
        while let Some((limit_ns, user)) = trial.limits.front().copied().filter(|limit| limit.0 <= aside.now_ns) {
            trial.limits.pop_front();
            let waiting = trial.waiting.get_mut(&user);
            let is_late = |change: &mut Change| change.said_ns + self.timeout_ns <= limit_ns;
            if let Some(change) = waiting.and_then(|waiting| waiting.pop_front_if(is_late)) {
                trial.lost(&change, aside);
            }
        }
    }

    /// A user says whether it is active, if it has said otherwise.
    fn tell(&mut self, user: u32, users: &Users, aside: &mut Aside, say: &mut Say<'_>) {
        let (Some(trial), Some(voice)) = (&mut self.trial, self.voices.get_mut(&user)) else { return };
        let active = trial.active.get(&user).copied().unwrap_or(true);
        if voice.active == active || !users.is_online(user) {
            return;
        }
        voice.active = active;
        say(user, "activity", activity(user, !active));
        let said_ns = aside.now_ns;
        trial
            .waiting
            .entry(user)
            .or_default()
            .push_back(Change { said_ns, shows: if active { "online" } else { "away" } });
        trial.limits.push_back((said_ns + self.timeout_ns, user));
        if trial.hold_ns.contains(&said_ns) {
            aside.observed.push((PRESENCE_SAID, 0));
        }
    }

    /// A user's state shows. What it has said before that and did not show never will: states are told in their order.
    pub(super) fn shown(&mut self, user: u32, payload: &[u8], aside: &mut Aside) {
        #[derive(serde::Deserialize)]
        struct State<'a> {
            #[serde(borrow)]
            status: std::borrow::Cow<'a, str>,
        }
        let Ok(state) = serde_json::from_slice::<State<'_>>(payload) else { return };
        let Some(trial) = &mut self.trial else { return };
        let Some(waiting) = trial.waiting.get_mut(&user) else { return };
        let Some(at) = waiting.iter().position(|change| change.shows == state.status) else { return };
        let mut changes: Vec<Change> = waiting.drain(..=at).collect();
        let shown = changes.pop();
        changes.iter().for_each(|change| trial.lost(change, aside));
        if let Some(shown) = shown.filter(|change| trial.hold_ns.contains(&change.said_ns)) {
            aside.observed.push((PRESENCE_US, aside.now_ns.saturating_sub(shown.said_ns) / 1000));
        }
    }
}

impl Trial {
    /// A change that did not show, which counts as those do that were said in the hold.
    fn lost(&self, change: &Change, aside: &mut Aside) {
        if self.hold_ns.contains(&change.said_ns) {
            aside.observed.push((PRESENCE_LOST, 0));
        }
    }
}

/// The body of a hello and of a sign of life.
fn sign(user: u32) -> Bytes {
    format!("{{\"connId\":\"c-{}\",\"timestamp\":{}}}", account(user), now_ms()).into()
}

fn activity(user: u32, away: bool) -> Bytes {
    format!("{{\"connId\":\"c-{}\",\"away\":{away},\"timestamp\":{}}}", account(user), now_ms()).into()
}

/// Unix milliseconds, which these messages have to carry; nothing is measured by them.
fn now_ms() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis()
}
