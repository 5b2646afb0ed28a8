//! Users who say that they are there: once as they come, every half minute, and when they become active or idle; and how long
//! it takes until everybody could see it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use bytes::Bytes;
use plimsoll_common::contract::fixtures::account;
use plimsoll_common::plan::TrialId;
use plimsoll_common::workload::daily::{PRESENCE_LOST, PRESENCE_US};

use super::users::mixed;
use crate::core::people::{Day, Flips};
use crate::workload::Aside;

/// Between two signs of life.
const PING_NS: u64 = 30_000_000_000;

/// What the users of one worker say of themselves in one trial.
pub(super) struct Presence {
    flips: Flips,
    /// When each gives the next sign of life.
    pings: BinaryHeap<Reverse<(u64, u32)>>,
    /// Changes that have yet to show: since when, and what will.
    waiting: HashMap<u32, (u64, &'static str)>,
    timeout_ns: u64,
}

impl Presence {
    pub(super) fn new(seed: u64, trial: TrialId, users: &[u32], day: Day, timeout_ns: u64) -> Self {
        let flips = Flips::new(seed, trial, users.iter().copied(), day);
        let pings = users.iter().map(|&user| Reverse((mixed(seed ^ u64::from(user)) % PING_NS, user))).collect();
        Self { flips, pings, waiting: HashMap::new(), timeout_ns }
    }

    /// What is to be said by then: who, what, and the body.
    pub(super) fn due(&mut self, since_ns: u64, aside: &mut Aside, mut say: impl FnMut(u32, &'static str, Bytes)) {
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
        while let Some((user, flip)) = self.flips.due(since_ns) {
            let name = account(user);
            if flip.at_ns == 0 {
                // Whether that is news depends on the trial before: it is not waited for.
                say(user, "hello", format!("{{\"connId\":\"c-{name}\",\"timestamp\":{now_ms}}}").into());
            } else {
                self.waiting.insert(user, (aside.now_ns, if flip.active { "online" } else { "away" }));
            }
            let away = !flip.active;
            let body = format!("{{\"connId\":\"c-{name}\",\"away\":{away},\"timestamp\":{now_ms}}}");
            say(user, "activity", body.into());
        }
        while let Some(&Reverse((at_ns, user))) = self.pings.peek().filter(|next| next.0.0 <= since_ns) {
            self.pings.pop();
            self.pings.push(Reverse((at_ns + PING_NS, user)));
            say(user, "ping", format!("{{\"connId\":\"c-{}\",\"timestamp\":{now_ms}}}", account(user)).into());
        }
        let (now_ns, timeout_ns) = (aside.now_ns, self.timeout_ns);
        self.waiting.retain(|_, (since_ns, _)| {
            let waits = now_ns < *since_ns + timeout_ns;
            if !waits {
                aside.observed.push((PRESENCE_LOST, 0));
            }
            waits
        });
    }

    /// A user's state shows: how long it took, if it is the one that is waited for.
    pub(super) fn shown(&mut self, user: u32, payload: &[u8], now_ns: u64) -> Option<(u8, u64)> {
        #[derive(serde::Deserialize)]
        struct State<'a> {
            #[serde(borrow)]
            status: std::borrow::Cow<'a, str>,
        }
        let state: State<'_> = serde_json::from_slice(payload).ok()?;
        let (since_ns, expected) = *self.waiting.get(&user)?;
        if state.status != expected {
            return None;
        }
        self.waiting.remove(&user);
        Some((PRESENCE_US, now_ns.saturating_sub(since_ns) / 1000))
    }
}
