//! The book of one worker: every due operation, what it still owes, and what became of it. Pure: times come in as
//! nanoseconds of one clock, and nothing here waits.
//!
//! An operation's sequence number is its place in a ring: operations are released in the order of their intended times and
//! expire in that order, so a ring that is long enough for one timeout needs no free list, and an answer finds its
//! operation by a mask and one comparison.

use std::time::Duration;

use plimsoll_common::contract::read::Answer;
use plimsoll_common::plan::SeriesLimits;

use super::recorder::{Ending, Recorder, WorkerBlock};

/// What an operation of a workload owes, and by when.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The series' limits, in the workload's order; at most 32 series.
    pub series: Vec<SeriesLimits>,
    /// What each kind of operation owes, by [`Choice::kind`]; at least one.
    pub kinds: Vec<Kind>,
    /// What the workload observes beside latency, by name.
    pub observations: Vec<String>,
    /// How long an operation may stay open, from its intended time.
    pub request_timeout_ns: u64,
    /// A release later than this is an underrun instead.
    pub max_lateness_ns: u64,
}

impl Terms {
    fn timeout_ns(&self, kind: &Kind) -> u64 {
        kind.timeout_ns.map_or(self.request_timeout_ns, |own| own.min(self.request_timeout_ns))
    }
}

/// What operations of one kind owe. Series are bits, the first series the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The series that are owed a sample; never none.
    pub owes: u32,
    /// Of these, the replies: an operation that expires without one of them timed out, one that has them all but lacks
    /// another was lost.
    pub replies: u32,
    /// The series whose sample is the server's having taken the message, for what is answered by nobody: see
    /// [`super::confirmations`]. It is one of the replies.
    pub taken: Option<u32>,
    /// How long an operation of this kind may stay open; `None`: as long as any.
    pub timeout_ns: Option<u64>,
}

impl Kind {
    /// Owes these series, of which `reply` is the reply.
    ///
    /// # Panics
    /// When `reply` is none of the series, or a series is none of 32.
    pub fn replied(series: &[u32], reply: u32) -> Self {
        assert!(series.contains(&reply), "a reply that is not owed");
        let owes = series.iter().map(|&series| bit(series)).sum();
        Self { owes, replies: bit(reply), taken: None, timeout_ns: None }
    }

    /// Owes these series, of which `taken` has its sample when the server is known to have taken the message. What else is
    /// owed is lost where it does not come.
    ///
    /// # Panics
    /// When `taken` is none of the series, or a series is none of 32.
    pub fn taken(series: &[u32], taken: u32) -> Self {
        Self { taken: Some(taken), ..Self::replied(series, taken) }
    }

    /// The same with a timeout of its own, where it is shorter than that of all.
    #[must_use]
    pub fn within(self, timeout_ns: Option<u64>) -> Self {
        Self { timeout_ns, ..self }
    }
}

fn bit(series: u32) -> u32 {
    1_u32.checked_shl(series).expect("a workload has at most 32 series")
}

/// When a trial's phases are, as instants of the worker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The warmup begins.
    pub start_ns: u64,
    /// The hold begins.
    pub hold_start_ns: u64,
    /// The hold ends.
    pub hold_end_ns: u64,
}

/// What is to be sent: chosen by the workload at release, meaningful to it alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    /// For chat workloads: the piece, an index into the worker's assignment.
    pub place: u32,
    /// For chat workloads: the acting user.
    pub actor: u32,
    /// What else it takes to write the message, packed.
    pub content: u64,
    /// Which of the workload's kinds of operation, an index into [`Terms::kinds`].
    pub kind: u8,
}

/// What became of a due operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Released under this sequence number; it is now open.
    Released(u64),
    /// The in-flight cap was reached.
    Saturated,
    /// The pacer woke too late.
    Underrun,
}

/// What an answer says of one series of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What was owed came.
    Sample,
    /// The service answered with an error.
    Refused,
    /// The answer could not be read.
    Unreadable,
    /// The server says that nobody listens where the request was sent.
    NoResponders,
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Accepted => Self::Sample,
            Answer::Refused => Self::Refused,
            Answer::Unreadable => Self::Unreadable,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    sequence: u64,
    intended_ns: u64,
    released_ns: u64,
    choice: Choice,
    /// Series that still owe a sample, a bit each; zero when closed.
    owes: u32,
    /// Series that had one.
    had: u32,
    /// Distinct limits that the operation has passed while open.
    passed: u32,
    sent: bool,
}

/// Bytes of a slot.
pub const SLOT_BYTES: u64 = size_of::<Slot>() as u64;

/// How many slots a book has in which so many operations can be released within one request timeout. All of them are written when
/// it is made.
pub fn slots(issued_per_timeout: u64) -> u64 {
    issued_per_timeout.max(64).checked_next_power_of_two().unwrap_or(u64::MAX)
}

/// How many operations can be released within one request timeout at a rate: what is due in it and in the longest that expiry may
/// lag, with room for the spread of a Poisson stream.
pub fn issued_at(per_second: f64, timeout: Duration) -> u64 {
    let expected = per_second * (timeout.as_secs_f64() + 2.5);
    ((expected + 6.0 * expected.sqrt()) as u64).saturating_add(1024)
}

/// No slot has carried an operation yet: a sequence that is never given out.
const NEVER: u64 = u64::MAX;

/// One worker's open operations and its recorder.
#[derive(Debug)]
pub struct Ledger {
    terms: Terms,
    window: Window,
    slots: Vec<Slot>,
    mask: u64,
    next: u64,
    /// Distinct timeouts in ns, each with the oldest sequence that may still be open under it: operations of one timeout expire in
    /// the order of their release.
    expiries: Vec<(u64, u64)>,
    open: u64,
    max_in_flight: u64,
    /// Distinct limits in ns, ascending, each with the next sequence to look at.
    ages: Vec<(u64, u64)>,
    recorder: Recorder,
}

impl Ledger {
    /// An empty book whose first sequence number is `first`: sequences go on over trials, so that no id is used twice.
    /// `issued_per_timeout` bounds how many operations can be released within one request timeout.
    pub fn new(terms: Terms, window: Window, first: u64, issued_per_timeout: u64, max_in_flight: u64) -> Self {
        let capacity = slots(issued_per_timeout);
        let mut ages: Vec<u64> = terms.series.iter().flat_map(|series| &series.limits_us).map(|us| us * 1000).collect();
        ages.sort_unstable();
        ages.dedup();
        ages.truncate(u32::BITS as usize);
        let mut timeouts: Vec<u64> = terms.kinds.iter().map(|kind| terms.timeout_ns(kind)).collect();
        timeouts.sort_unstable();
        timeouts.dedup();
        let recorder = Recorder::new(&terms.series, &terms.observations, window, terms.request_timeout_ns);
        Self {
            slots: vec![Slot { sequence: NEVER, ..Slot::default() }; capacity as usize],
            mask: capacity - 1,
            next: first,
            expiries: timeouts.into_iter().map(|timeout| (timeout, first)).collect(),
            open: 0,
            max_in_flight,
            ages: ages.into_iter().map(|age| (age, first)).collect(),
            terms,
            window,
            recorder,
        }
    }

    /// The sequence number that the next operation will get.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Operations open now.
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Whether everything due has ended, `now_ns` being past the hold.
    pub fn is_settled(&self, now_ns: u64) -> bool {
        now_ns >= self.window.hold_end_ns && self.open == 0
    }

    /// An operation is due. `choose` is asked only if it is released.
    #[inline]
    pub fn due(&mut self, intended_ns: u64, now_ns: u64, choose: impl FnOnce() -> Choice) -> Release {
        let lateness_ns = now_ns.saturating_sub(intended_ns);
        let counters = self.recorder.counters(intended_ns);
        counters.due += 1;
        if lateness_ns > self.terms.max_lateness_ns {
            counters.underrun += 1;
            self.recorder.late_release(now_ns, lateness_ns);
            return Release::Underrun;
        }
        let slot = &mut self.slots[(self.next & self.mask) as usize];
        if self.open >= self.max_in_flight || slot.owes != 0 {
            counters.saturated += 1;
            return Release::Saturated;
        }
        counters.attempted += 1;
        let sequence = self.next;
        let choice = choose();
        let owes = self.terms.kinds[usize::from(choice.kind)].owes;
        *slot = Slot { sequence, intended_ns, released_ns: now_ns, choice, owes, had: 0, passed: 0, sent: false };
        self.next += 1;
        self.open += 1;
        self.recorder.late_release(now_ns, lateness_ns);
        Release::Released(sequence)
    }

    /// What an operation that is still open was to send, with the time it was released; `None` when it has ended.
    #[inline]
    pub fn choice(&self, sequence: u64) -> Option<Choice> {
        let slot = &self.slots[(sequence & self.mask) as usize];
        (slot.sequence == sequence && slot.owes != 0).then_some(slot.choice)
    }

    /// What an operation was to send, also after it has ended, while its slot remembers it.
    #[inline]
    pub fn choice_ever(&self, sequence: u64) -> Option<Choice> {
        let slot = &self.slots[(sequence & self.mask) as usize];
        (slot.sequence == sequence).then_some(slot.choice)
    }

    /// The client has accepted the operation's message. The series that is owed a sample once the server has it, too, if any.
    #[inline]
    pub fn sent(&mut self, sequence: u64) -> Option<u32> {
        let slot = &mut self.slots[(sequence & self.mask) as usize];
        if slot.sequence != sequence || slot.owes == 0 {
            return None;
        }
        slot.sent = true;
        self.recorder.counters(slot.intended_ns).sent += 1;
        self.terms.kinds[usize::from(slot.choice.kind)].taken
    }

    /// Nobody takes the operation's message: the connection that it was to go out on broke at `since_ns`, or the client refuses
    /// it, now.
    pub fn publish_failed(&mut self, sequence: u64, since_ns: u64, now_ns: u64) {
        if self.choice(sequence).is_some() {
            self.end(sequence, now_ns, Ending::Publish { since_ns });
        }
    }

    /// An answer to one of our operations. Returns whether it was the one that was owed, to an operation of the hold: only
    /// then does what else it says count.
    #[inline]
    pub fn answer(&mut self, sequence: u64, series: u32, outcome: Outcome, now_ns: u64) -> bool {
        let bit = 1 << series;
        let slot = &mut self.slots[(sequence & self.mask) as usize];
        if slot.sequence != sequence {
            // Never released, or so long ago that its slot has been used again: then it had been given up.
            let strays = &mut self.recorder.strays;
            *(if sequence < self.next { &mut strays.late } else { &mut strays.foreign }) += 1;
            return false;
        }
        if slot.owes & bit == 0 {
            let strays = &mut self.recorder.strays;
            let never_owed = self.terms.kinds[usize::from(slot.choice.kind)].owes & bit == 0;
            *(if never_owed {
                &mut strays.foreign
            } else if slot.had & bit == 0 {
                &mut strays.late
            } else {
                &mut strays.duplicate
            }) += 1;
            return false;
        }
        slot.had |= bit;
        let counts = slot.intended_ns >= self.window.hold_start_ns;
        match outcome {
            Outcome::Sample => {
                slot.owes &= !bit;
                let (intended_ns, released_ns, passed, done) =
                    (slot.intended_ns, slot.released_ns, slot.passed, slot.owes == 0);
                self.recorder.sample(series, intended_ns, released_ns, now_ns);
                if passed != 0 {
                    self.no_longer_overdue(series, passed, intended_ns);
                }
                if done {
                    self.open -= 1;
                    self.recorder.completed(intended_ns, released_ns, now_ns);
                }
            }
            Outcome::Refused => self.end(sequence, now_ns, Ending::Refused),
            Outcome::Unreadable => self.end(sequence, now_ns, Ending::BadReply),
            Outcome::NoResponders => self.end(sequence, now_ns, Ending::NoResponders),
        }
        counts
    }

    /// Whether an operation is of the hold, as long as its slot remembers it.
    #[inline]
    pub fn is_of_hold(&self, sequence: u64) -> bool {
        let slot = &self.slots[(sequence & self.mask) as usize];
        slot.sequence == sequence && slot.intended_ns >= self.window.hold_start_ns
    }

    /// A message that belongs to nobody here.
    pub fn foreign(&mut self) {
        self.recorder.strays.foreign += 1;
    }

    /// Gives up what is older than the request timeout, and notes what has passed a limit while still open.
    pub fn age(&mut self, now_ns: u64) {
        for index in 0..self.ages.len() {
            self.pass_limit(index, now_ns);
        }
        for index in 0..self.expiries.len() {
            self.expire(index, now_ns);
        }
    }

    /// Gives up the operations of one timeout that are older than it.
    fn expire(&mut self, index: usize, now_ns: u64) {
        let (timeout_ns, mut oldest) = self.expiries[index];
        while oldest < self.next {
            let slot = self.slots[(oldest & self.mask) as usize];
            if slot.sequence == oldest {
                if slot.intended_ns + timeout_ns > now_ns {
                    break;
                }
                let kind = &self.terms.kinds[usize::from(slot.choice.kind)];
                if slot.owes != 0 && self.terms.timeout_ns(kind) == timeout_ns {
                    let ending = if !slot.sent {
                        Ending::Publish { since_ns: slot.intended_ns }
                    } else if slot.owes & kind.replies != 0 {
                        Ending::Timeout
                    } else {
                        Ending::Lost
                    };
                    self.end(oldest, now_ns, ending);
                }
            }
            oldest += 1;
        }
        self.expiries[index].1 = oldest;
    }

    fn pass_limit(&mut self, index: usize, now_ns: u64) {
        let (age_ns, mut cursor) = self.ages[index];
        while cursor < self.next {
            let slot = &mut self.slots[(cursor & self.mask) as usize];
            if slot.sequence == cursor {
                if slot.intended_ns + age_ns >= now_ns {
                    break;
                }
                if slot.owes != 0 && slot.intended_ns >= self.window.hold_start_ns {
                    slot.passed |= 1 << index;
                    self.recorder.overdue(slot.owes, age_ns, 1);
                }
            }
            cursor += 1;
        }
        self.ages[index].1 = cursor;
    }

    fn no_longer_overdue(&mut self, series: u32, passed: u32, intended_ns: u64) {
        if intended_ns < self.window.hold_start_ns {
            return;
        }
        for (index, (age_ns, _)) in self.ages.iter().enumerate() {
            if passed & 1 << index != 0 {
                self.recorder.overdue(1 << series, *age_ns, -1);
            }
        }
    }

    fn end(&mut self, sequence: u64, now_ns: u64, ending: Ending) {
        let slot = &mut self.slots[(sequence & self.mask) as usize];
        let owed = std::mem::take(&mut slot.owes);
        let (intended_ns, released_ns, passed) = (slot.intended_ns, slot.released_ns, slot.passed);
        self.open -= 1;
        for series in (0..u32::BITS).filter(|series| owed & 1 << series != 0) {
            self.no_longer_overdue(series, passed, intended_ns);
        }
        self.recorder.failed(ending, owed, intended_ns, released_ns, now_ns);
    }

    /// Samples how many operations are open; only the hold's samples count.
    pub fn sample_in_flight(&mut self, now_ns: u64) {
        self.recorder.sample_in_flight(now_ns, self.open);
    }

    /// The recorder, for what the box did and for closing blocks.
    pub fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// Closes the wall block `number` and takes what was recorded since the last one closed.
    pub fn close_block(&mut self, number: u32, stall: plimsoll_common::snapshot::Stall) -> WorkerBlock {
        self.recorder.close_block(number, stall)
    }
}

#[cfg(test)]
mod tests;
