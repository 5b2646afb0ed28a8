//! People and their days: who is active when, and what they do. Pure: a person's acts follow from (seed, trial, person) alone,
//! whoever drives them, so that any agent and the coordinator compute the same.
//!
//! A person is idle or active by a Markov chain that is looked at `TICKS_PER_DAY` times in a day, and acts only while active, as
//! a Poisson process whose rate follows the day's envelope and makes the day's budget whole in the time that people are active.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use plimsoll_common::contract::daily::behaviour::{
    ACTIVE_PART, Action, BECOMES_ACTIVE, BECOMES_IDLE, FIRST_PEAK, TICKS_PER_DAY, envelope, envelope_mean,
    tenths_per_day,
};
use plimsoll_common::plan::{DailyWorkload, TrialId};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// How a hold lies in the day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Day {
    /// In seconds.
    length: f64,
    /// Where the hold begins in it, in seconds.
    hold_begins: f64,
    warmup: f64,
    hold: f64,
    /// Acts per second of somebody who is active, where the envelope is 1.
    peak_rate: f64,
    /// The envelope is 1 throughout.
    at_peak: bool,
}

impl Day {
    /// A hold that is the whole day, or a slice of a longer one around its first peak.
    pub fn new(length: Option<Duration>, warmup: Duration, hold: Duration) -> Self {
        let hold = hold.as_secs_f64();
        let length = length.map_or(hold, |length| length.as_secs_f64().max(hold));
        let hold_begins = (FIRST_PEAK * length - hold / 2.0).clamp(0.0, length - hold);
        let budget = f64::from(tenths_per_day()) / 10.0;
        let peak_rate = budget / (ACTIVE_PART * envelope_mean() * length);
        Self { length, hold_begins, warmup: warmup.as_secs_f64(), hold, peak_rate, at_peak: false }
    }

    /// The day of a workload's people.
    pub fn of(daily: &DailyWorkload, warmup: Duration, hold: Duration) -> Self {
        let day = Self::new(daily.day, warmup, hold);
        if !daily.at_peak {
            return day;
        }
        // However long the hold is, also beyond the day.
        let length = daily.day_length(hold).as_secs_f64();
        Self { at_peak: true, peak_rate: day.peak_rate * day.length / length, length, ..day }
    }

    /// How busy people are so many seconds after the warmup began: in it, as when the hold begins.
    fn envelope(&self, since: f64) -> f64 {
        if self.at_peak {
            return 1.0;
        }
        envelope((self.hold_begins + (since - self.warmup).max(0.0)) / self.length)
    }

    /// How many acts a person has in the warmup and in the hold, on average.
    pub fn acts_of_each(&self) -> (f64, f64) {
        // Simpson's rule: what the envelope's kink costs is less than a thousandth.
        const INTERVALS: u32 = 1_000;
        let step = self.hold / f64::from(INTERVALS);
        let weight = |i: u32| if i == 0 || i == INTERVALS { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
        let at = |i: u32| self.envelope(self.warmup + f64::from(i) * step);
        let hold = (0..=INTERVALS).map(|i| weight(i) * at(i)).sum::<f64>() * step / 3.0;
        let rate = self.peak_rate * ACTIVE_PART;
        (rate * self.envelope(0.0) * self.warmup, rate * hold)
    }

    fn tick(&self) -> f64 {
        self.length / TICKS_PER_DAY
    }

    fn ends(&self) -> f64 {
        self.warmup + self.hold
    }
}

/// Something that a person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// When, in nanoseconds after the warmup began.
    pub at_ns: u64,
    /// What.
    pub action: Action,
    /// What else it takes is drawn from this: the room, the content.
    pub bits: u64,
}

/// Somebody becomes active or idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// When, in nanoseconds after the warmup began.
    pub at_ns: u64,
    /// Which.
    pub active: bool,
}

enum Step {
    Act(Act),
    Flip(Flip),
}

/// One person through one trial.
#[derive(Debug, Clone)]
struct Person {
    chance: ChaCha8Rng,
    /// Seconds after the warmup began.
    at: f64,
    /// How long it stays as it is.
    until: f64,
    active: bool,
}

impl Person {
    fn new(seed: u64, trial: TrialId, user: u32, day: &Day) -> Self {
        // What is drawn for people shares its key with nothing else that is drawn from the seed: see the worker's streams.
        let mut key = [0_u8; 32];
        key[0..8].copy_from_slice(&seed.to_le_bytes());
        key[8..12].copy_from_slice(&trial.step.to_le_bytes());
        key[12..16].copy_from_slice(&trial.trial.to_le_bytes());
        key[24..32].copy_from_slice(b"a person");
        let mut chance = ChaCha8Rng::from_seed(key);
        chance.set_stream(u64::from(user));
        let active = chance.random::<f64>() < ACTIVE_PART;
        // Ticks are a person's own: all people's at once would change who is active for all at once.
        let first_tick = chance.random::<f64>() * day.tick();
        let mut person = Self { chance, at: 0.0, until: 0.0, active };
        person.until = first_tick + person.ticks_left() * day.tick();
        person
    }

    /// Ticks that pass before the one at which the state changes: a chain has no memory of how long it has been in it.
    fn ticks_left(&mut self) -> f64 {
        let leaves = if self.active { BECOMES_IDLE } else { BECOMES_ACTIVE };
        // 1 − U lies in (0, 1], so that the logarithm is finite.
        let uniform = 1.0 - self.chance.random::<f64>();
        (uniform.ln() / (1.0 - leaves).ln()).floor()
    }

    /// The next act of the trial.
    fn next(&mut self, day: &Day) -> Option<Act> {
        loop {
            if let Step::Act(act) = self.step(day)? {
                return Some(act);
            }
        }
    }

    /// When it becomes active or idle next, and which. The same chance is drawn as for its acts, so that both agree.
    fn next_flip(&mut self, day: &Day) -> Option<Flip> {
        loop {
            if let Step::Flip(flip) = self.step(day)? {
                return Some(flip);
            }
        }
    }

    fn step(&mut self, day: &Day) -> Option<Step> {
        loop {
            let gap = if self.active {
                let uniform = 1.0 - self.chance.random::<f64>();
                -uniform.ln() / day.peak_rate
            } else {
                f64::INFINITY
            };
            if self.at + gap >= self.until {
                self.at = self.until;
                if self.at >= day.ends() {
                    return None;
                }
                self.active = !self.active;
                // The change took a tick; the new state lasts at least to the next.
                self.until += (1.0 + self.ticks_left()) * day.tick();
                return Some(Step::Flip(Flip { at_ns: (self.at * 1e9) as u64, active: self.active }));
            }
            self.at += gap;
            if self.at >= day.ends() {
                return None;
            }
            // Thinned: the rate is that of the peak, and the envelope says which acts there are.
            if self.chance.random::<f64>() < day.envelope(self.at) {
                let tenth = self.chance.random_range(0..tenths_per_day());
                let at_ns = (self.at * 1e9) as u64;
                let act = Act { at_ns, action: Action::of_tenth(tenth), bits: self.chance.random() };
                return Some(Step::Act(act));
            }
        }
    }
}

/// Many people through one trial: all their acts in their order.
#[derive(Debug)]
pub struct Crowd {
    day: Day,
    people: Vec<(u32, Person)>,
    /// Everybody's next act by its time; who has none is not in it.
    next: BinaryHeap<Reverse<(u64, u32)>>,
    acts: Vec<Act>,
}

impl Crowd {
    /// These users in a trial.
    pub fn new(seed: u64, trial: TrialId, users: impl IntoIterator<Item = u32>, day: Day) -> Self {
        let mut people: Vec<(u32, Person)> =
            users.into_iter().map(|user| (user, Person::new(seed, trial, user, &day))).collect();
        let none = Act { at_ns: 0, action: Action::Send, bits: 0 };
        let mut acts = vec![none; people.len()];
        let mut next = Vec::with_capacity(people.len());
        for (index, (_, person)) in (0..).zip(&mut people) {
            if let Some(act) = person.next(&day) {
                acts[index as usize] = act;
                next.push(Reverse((act.at_ns, index)));
            }
        }
        Self { day, people, next: next.into(), acts }
    }
}

impl Iterator for Crowd {
    type Item = (u32, Act);

    /// Who acts next, and what it is.
    fn next(&mut self) -> Option<(u32, Act)> {
        let mut top = self.next.peek_mut()?;
        let Reverse((_, index)) = *top;
        let act = self.acts[index as usize];
        let (user, person) = &mut self.people[index as usize];
        let user = *user;
        match person.next(&self.day) {
            Some(following) => {
                self.acts[index as usize] = following;
                *top = Reverse((following.at_ns, index));
            }
            None => drop(std::collections::binary_heap::PeekMut::pop(top)),
        }
        Some((user, act))
    }
}

/// Many people through one trial: when each becomes active or idle, in order, beginning with what each is at first.
#[derive(Debug)]
pub struct Flips {
    day: Day,
    people: Vec<(u32, Person)>,
    next: BinaryHeap<Reverse<(u64, u32, bool)>>,
}

impl Flips {
    /// These users in a trial.
    pub fn new(seed: u64, trial: TrialId, users: impl IntoIterator<Item = u32>, day: Day) -> Self {
        let people: Vec<(u32, Person)> =
            users.into_iter().map(|user| (user, Person::new(seed, trial, user, &day))).collect();
        let next = (0..).zip(&people).map(|(index, (_, person))| Reverse((0, index, person.active))).collect();
        Self { day, people, next }
    }

    /// Who is due by then, and what they are from now on.
    pub fn due(&mut self, since_ns: u64) -> Option<(u32, Flip)> {
        let Reverse((at_ns, index, active)) = *self.next.peek()?;
        if at_ns > since_ns {
            return None;
        }
        self.next.pop();
        let (user, person) = &mut self.people[index as usize];
        if let Some(flip) = person.next_flip(&self.day) {
            self.next.push(Reverse((flip.at_ns, index, flip.active)));
        }
        Some((*user, Flip { at_ns, active }))
    }
}

/// How many acts these users have in the warmup and in the hold of a trial.
pub fn acts_due(seed: u64, trial: TrialId, users: impl IntoIterator<Item = u32>, day: &Day) -> (u64, u64) {
    let hold_begins_ns = (day.warmup * 1e9) as u64;
    let (mut warmup, mut hold) = (0, 0);
    for user in users {
        let mut person = Person::new(seed, trial, user, day);
        while let Some(act) = person.next(day) {
            *(if act.at_ns < hold_begins_ns { &mut warmup } else { &mut hold }) += 1;
        }
    }
    (warmup, hold)
}

/// Which agent has which user, given how many each has: `0..sum` users, each of whom stays with its agent where more come and
/// the agents' parts stay the same. The next user goes to whoever has the smallest part of what it is to have.
pub fn owners(counts: &[u64]) -> Vec<u16> {
    let users: u64 = counts.iter().sum();
    // (users it has + ½) ÷ its count (Webster's rule), as an exact fraction: the smallest goes first, the first of equals before
    // the others.
    struct Turn {
        has: u64,
        count: u64,
        agent: u16,
    }
    impl Ord for Turn {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            let (this, that) = (
                u128::from(2 * self.has + 1) * u128::from(other.count),
                u128::from(2 * other.has + 1) * u128::from(self.count),
            );
            that.cmp(&this).then(other.agent.cmp(&self.agent))
        }
    }
    impl PartialOrd for Turn {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl PartialEq for Turn {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }
    impl Eq for Turn {}
    let mut turns: BinaryHeap<Turn> = (0..)
        .zip(counts)
        .filter(|&(_, &count)| count > 0)
        .map(|(agent, &count)| Turn { has: 0, count, agent })
        .collect();
    (0..users)
        .map(|_| {
            let mut turn = turns.peek_mut().expect("users are the sum of what agents have");
            turn.has += 1;
            turn.agent
        })
        .collect()
}

/// The users of one agent.
pub fn users_of(agent: usize, counts: &[u64]) -> Vec<u32> {
    (0..).zip(owners(counts)).filter(|&(_, owner)| usize::from(owner) == agent).map(|(user, _)| user).collect()
}

#[cfg(test)]
mod tests;
