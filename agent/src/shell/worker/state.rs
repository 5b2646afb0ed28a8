//! What the tasks of a worker share: the trial under way, what is to be sent, and what came back.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use rand_chacha::ChaCha8Rng;

use crate::core::confirmations::Confirmations;
use crate::core::exchange::Desk;
use crate::core::ledger::{Choice, Ledger, Outcome, Release};
use crate::core::nats_words::Heard;
use crate::core::schedule::Schedule;
use crate::shell::clock::boottime_ns;
use crate::shell::lease::Lease;
use crate::shell::lines::{Ear, Lines};
use crate::workload::{Aside, Incoming, Outgoing, Workload};

/// Releases between two looks at the clock, and at most in one wake-up, so that readers get their turn.
const RELEASES_PER_LOOK: usize = 32;
const RELEASES_PER_WAKE: usize = 2048;

/// What the tasks of a worker share.
pub struct State<W> {
    pub workload: Option<W>,
    pub trial: Option<Trial>,
    /// The connections of users, where there are users.
    pub lines: Option<Rc<Lines>>,
    /// Where siblings tell of copies that they have heard, where there are users.
    pub desk: Option<Desk>,
    /// Goes on over trials, so that no id is used twice.
    pub next_sequence: u64,
    /// Released, but not yet taken by the client.
    pub queue: VecDeque<u64>,
    /// What is to be sent beside operations.
    pub replies: VecDeque<Outgoing>,
    pub aside: Aside,
    /// The newest fence that came back.
    pub fence: u64,
    /// What the server has yet to confirm of what nobody answers.
    pub confirmations: Confirmations,
    pub write_blocked_us: u64,
    pub flush_began_ns: Option<u64>,
}

/// A trial under way.
pub struct Trial {
    pub ledger: Ledger,
    pub schedule: Times,
    pub next_due_ns: Option<u64>,
    pub chance: ChaCha8Rng,
}

/// Where intended times come from.
pub enum Times {
    /// Arrivals.
    Arrivals(Phases),
    /// The workload, counted from this instant.
    Workload(u64),
}

impl Times {
    pub fn next(&mut self, workload: &mut impl Workload) -> Option<u64> {
        match self {
            Self::Arrivals(phases) => phases.next(),
            Self::Workload(start_ns) => workload.next_due().map(|since_ns| *start_ns + since_ns),
        }
    }
}

/// Warmup, then hold.
pub struct Phases {
    pub warmup: Schedule,
    pub hold: Schedule,
    pub warmup_start_ns: u64,
    pub hold_start_ns: u64,
}

impl Phases {
    pub fn next(&mut self) -> Option<u64> {
        self.warmup
            .next()
            .map(|at| self.warmup_start_ns + at)
            .or_else(|| self.hold.next().map(|at| self.hold_start_ns + at))
    }
}

impl<W: Workload> State<W> {
    /// Takes a message. Returns whether there is something to be sent in answer to it.
    pub fn arrive(&mut self, tag: u32, message: &async_nats::Message, now_ns: u64) -> bool {
        let (Some(workload), Some(trial)) = (&mut self.workload, &mut self.trial) else { return false };
        let incoming = workload.incoming(tag, message, &trial.ledger, &mut self.aside);
        trial.take(incoming, &mut self.aside, now_ns);
        if self.aside.replies.is_empty() {
            return false;
        }
        self.replies.extend(self.aside.replies.drain(..));
        true
    }

    /// Takes a message that arrived on a user's line.
    pub fn hear(&mut self, line: u32, tag: u64, heard: &Heard<'_>, now_ns: u64) {
        // What siblings heard before comes before.
        self.take_copies(now_ns);
        let Some(workload) = &mut self.workload else { return };
        let Some(trial) = &mut self.trial else { return workload.overheard(line, tag, heard, now_ns) };
        self.aside.now_ns = now_ns;
        let incoming = workload.heard(line, tag, heard, &trial.ledger, &mut self.aside);
        let ended_ns = self.aside.now_ns;
        trial.take(incoming, &mut self.aside, ended_ns);
    }

    /// Takes the copies of this worker's messages that siblings have heard by then.
    pub fn take_copies(&mut self, until_ns: u64) {
        let Self { workload: Some(workload), trial: Some(trial), desk: Some(desk), aside, .. } = self else { return };
        desk.gather();
        while let Some(copy) = desk.next_until(until_ns) {
            aside.now_ns = copy.heard_ns;
            let incoming = workload.told(&copy, &trial.ledger, aside);
            let ended_ns = aside.now_ns;
            trial.take(incoming, aside, ended_ns);
        }
    }

    /// Releases what is due. Returns whether more may be due already.
    pub fn release(&mut self, lease: &Lease) -> bool {
        let (Some(workload), Some(trial)) = (&mut self.workload, &mut self.trial) else { return false };
        let mut now_ns = boottime_ns();
        for release in 0..RELEASES_PER_WAKE {
            if release % RELEASES_PER_LOOK == 0 {
                now_ns = boottime_ns();
                if !lease.holds(now_ns) {
                    return false;
                }
            }
            let Some(due_ns) = trial.next_due_ns.filter(|&due_ns| due_ns <= now_ns) else { return false };
            let chance = &mut trial.chance;
            if let Release::Released(sequence) = trial.ledger.due(due_ns, now_ns, || workload.choose(chance)) {
                self.queue.push_back(sequence);
            }
            trial.next_due_ns = trial.schedule.next(workload);
        }
        true
    }

    /// What users say beside their operations, in trials and between them.
    pub fn say_beside(&mut self, now_ns: u64) {
        let Self { workload: Some(workload), lines: Some(lines), trial, aside, .. } = self else { return };
        let since_ns = trial.as_ref().and_then(|trial| match trial.schedule {
            Times::Workload(start_ns) => now_ns.checked_sub(start_ns),
            Times::Arrivals(_) => None,
        });
        let mut said = Vec::new();
        aside.now_ns = now_ns;
        workload.beside(since_ns, aside, &mut said);
        for (line, subject, payload) in said {
            lines.say(line, &subject, &payload);
        }
        match trial {
            Some(trial) => trial.take(Incoming::Seen, aside, now_ns),
            None => aside.observed.clear(),
        }
    }

    /// The message of an operation was taken: observes what is known of it by that alone.
    pub fn handed_over(&mut self, sequence: u64) {
        let (Some(workload), Some(trial)) = (&mut self.workload, &mut self.trial) else { return };
        if let Some((observation, value)) = workload.handed_over(sequence)
            && trial.ledger.is_of_hold(sequence)
        {
            trial.ledger.recorder().observe(observation, value);
        }
    }

    /// The message behind this burst is back.
    pub fn confirm(&mut self, burst: u64, connection: u64) {
        let Self { trial, confirmations, .. } = self;
        confirmations.came_back(burst, connection, |sequence, series| {
            if let Some(trial) = trial {
                trial.ledger.answer(sequence, series, Outcome::Sample, boottime_ns());
            }
        });
    }

    /// The next message for the client, skipping operations that were given up while they waited. One that is no
    /// operation's has no sequence number.
    pub fn next_outgoing(&mut self) -> Option<Next> {
        if let Some(outgoing) = self.replies.pop_front() {
            return Some(Next { sequence: None, line: None, outgoing });
        }
        let (Some(workload), Some(trial)) = (&mut self.workload, &self.trial) else { return None };
        while let Some(sequence) = self.queue.pop_front() {
            let choice: Option<Choice> = trial.ledger.choice(sequence);
            if let Some(choice) = choice {
                let outgoing = workload.message(sequence, choice);
                return Some(Next { sequence: Some(sequence), line: workload.line_of(choice), outgoing });
            }
        }
        None
    }
}

/// A message for the client.
pub struct Next {
    /// The operation that it is of, if any.
    pub sequence: Option<u64>,
    /// The user's line that it goes out on; `None`: the worker's own connection.
    pub line: Option<u32>,
    pub outgoing: Outgoing,
}

impl Trial {
    /// Counts what a message was.
    pub fn take(&mut self, incoming: Incoming, aside: &mut Aside, now_ns: u64) {
        let counts = match incoming {
            Incoming::Answer { sequence, series, outcome } => self.ledger.answer(sequence, series, outcome, now_ns),
            Incoming::Copy { sequence } => self.ledger.is_of_hold(sequence),
            Incoming::Seen => true,
            Incoming::NotForUs => false,
            Incoming::Foreign => {
                self.ledger.foreign();
                false
            }
        };
        for (sequence, series, outcome) in aside.also.drain(..) {
            self.ledger.answer(sequence, series, outcome, now_ns);
        }
        for (observation, value) in aside.observed.drain(..) {
            if counts {
                self.ledger.recorder().observe(observation, value);
            }
        }
    }
}

/// Hears what arrives on users' lines.
pub struct UsersEar<W> {
    pub state: Rc<RefCell<State<W>>>,
}

impl<W: Workload> Ear for UsersEar<W> {
    fn subject(&self, tag: u64) -> String {
        self.state.borrow().workload.as_ref().map(|workload| workload.line_subject(tag)).unwrap_or_default()
    }

    fn heard(&self, line: u32, tag: u64, heard: &Heard<'_>) {
        self.state.borrow_mut().hear(line, tag, heard, boottime_ns());
    }

    fn changed(&self, line: u32, online: bool) {
        if let Some(workload) = &mut self.state.borrow_mut().workload {
            workload.line_changed(line, online);
        }
    }
}

#[cfg(test)]
mod tests;
