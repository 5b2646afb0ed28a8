//! What is driven against a target. A workload is one file here and one entry in the plan's vocabulary
//! ([`plimsoll_common::workload`]): it names its subjects, draws operations, writes their messages and says what an incoming
//! message means. Each is driven by a worker that is compiled for it, so nothing here is dispatched per operation.

pub mod custom;
pub mod daily;
#[cfg(test)]
pub(crate) mod fixture;
pub mod history;
pub mod members;
pub mod messages;
pub mod null;
pub mod read_receipt;
pub mod replies;
pub mod room_read;
mod room_requests;
pub mod thread;

use std::sync::Arc;

use async_nats::{Client, HeaderMap, Message, Subject};
use bytes::Bytes;
use plimsoll_common::contract::fixtures::Fixtures;
use plimsoll_common::contract::ids::IdCodec;
use plimsoll_common::deal::Assignment;
use plimsoll_common::plan::{AgentPlan, StepOrder, Workload as WorkloadPlan};
use plimsoll_common::units::split_largest_remainder;
use plimsoll_common::workload::ServiceProbe;
use rand_chacha::ChaCha8Rng;

use crate::core::exchange::{CopyHeard, Exchange};
use crate::core::ledger::{Choice, Kind, Ledger, Outcome};
use crate::core::nats_words::Heard;
use crate::shell::lines::Wanted;

/// Compiles an expression for the workload that a plan names: `$plan` is its part of the vocabulary, `$kind` its type here.
/// The one place that knows them all.
macro_rules! for_workload {
    ($workload:expr, |$plan:ident, $kind:ident| $body:expr) => {
        match $workload {
            plimsoll_common::plan::Workload::Messages($plan) => {
                type $kind = $crate::workload::messages::Messages;
                $body
            }
            plimsoll_common::plan::Workload::Thread($plan) => {
                type $kind = $crate::workload::thread::Thread;
                $body
            }
            plimsoll_common::plan::Workload::History($plan) => {
                type $kind = $crate::workload::history::History;
                $body
            }
            plimsoll_common::plan::Workload::RoomRead($plan) => {
                type $kind = $crate::workload::room_read::RoomRead;
                $body
            }
            plimsoll_common::plan::Workload::ReadReceipt($plan) => {
                type $kind = $crate::workload::read_receipt::ReadReceipt;
                $body
            }
            plimsoll_common::plan::Workload::Members($plan) => {
                type $kind = $crate::workload::members::Members;
                $body
            }
            plimsoll_common::plan::Workload::Daily($plan) => {
                type $kind = $crate::workload::daily::Daily;
                $body
            }
            plimsoll_common::plan::Workload::Custom($plan) => {
                type $kind = $crate::workload::custom::Custom;
                $body
            }
        }
    };
}
pub(crate) use for_workload;

/// What is sent for one operation.
#[derive(Debug)]
pub struct Outgoing {
    /// Where to.
    pub subject: Subject,
    /// Where the answer goes, for requests and acknowledged publishes.
    pub reply: Option<Subject>,
    /// Headers, where the operation has any.
    pub headers: Option<HeaderMap>,
    /// The body.
    pub payload: Bytes,
}

/// What an incoming message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// An answer to one of this worker's operations.
    Answer {
        /// Which.
        sequence: u64,
        /// Which of its series.
        series: u32,
        /// What it says.
        outcome: Outcome,
    },
    /// Another copy of what answered one of this worker's operations: only what was observed counts.
    Copy {
        /// Which.
        sequence: u64,
    },
    /// What answers no operation: what was observed counts.
    Seen,
    /// Another owner's, or of a kind that answers nothing: expected, and nothing to count.
    NotForUs,
    /// Nobody's.
    Foreign,
}

/// What an incoming message says beside whose answer it is. Kept by the worker and emptied before every message.
#[derive(Debug, Default)]
pub struct Aside {
    /// When the message arrived, on the worker's clock. The workload may set it later, where what it answers ended later.
    pub now_ns: u64,
    /// What was observed, by the index in the workload's observations. Counts only if the answer does.
    pub observed: Vec<(u8, u64)>,
    /// Further answers that the same message is: sequence, series and outcome.
    pub also: Vec<(u64, u32, Outcome)>,
    /// What is to be sent at once and is no operation: an acknowledgement of a delivery.
    pub replies: Vec<Outgoing>,
}

/// One subscription of a worker. What it means is the workload's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The subject, possibly with wildcards.
    pub subject: String,
    /// Handed back with every message that arrives on it.
    pub tag: u32,
}

/// A question to the target before anything is driven: does anybody take what will be sent?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Where operations will be sent.
    pub subject: String,
    /// A body that does no harm; empty where the service refuses an empty one.
    pub payload: Bytes,
    /// What nobody answering means, and what to do.
    pub nobody: &'static str,
}

impl Probe {
    /// A request that a service refuses.
    pub fn of_service(probe: ServiceProbe) -> Self {
        let nobody = "the service is not there, or of another --site-id";
        Self { subject: probe.subject, payload: Bytes::new(), nobody }
    }
}

/// What a worker was dealt of the agent's work.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// Its rooms and users; empty where the workload has none.
    pub assignment: Assignment,
    /// Its part of the agent's operations, in any unit: in proportion to the other workers'. Zero: it goes without.
    pub weight: u64,
    /// Its users, where levels are users.
    pub users: Vec<u32>,
    /// The first so many of them have a connection each.
    pub direct_users: usize,
    /// How many all workers of the agent have.
    pub users_of_all: usize,
}

impl Part {
    /// The parts of an assignment's workers, in proportion to what each was dealt.
    pub fn of_assignments(assignments: Vec<Assignment>) -> Vec<Self> {
        // Millionths of a subscription are far below what any mix can show.
        let weight = |assignment: &Assignment| (assignment.weight() * 1e6).round() as u64;
        assignments
            .into_iter()
            .map(|assignment| Self { weight: weight(&assignment), assignment, ..Self::default() })
            .collect()
    }

    /// Equal parts of what is not dealt.
    pub fn equal(workers: usize) -> Vec<Self> {
        vec![Self { weight: 1, ..Self::default() }; workers]
    }

    /// The parts of an agent's users: the first so many, who have a connection each, are dealt one by one, and the others one
    /// by one over the connections that they share, of which every worker has its own.
    pub fn of_users(users: &[u32], direct_users: usize, pool: u32, workers: usize) -> Vec<Self> {
        let (direct, shared) = users.split_at(direct_users.min(users.len()));
        let pool = pool.max(1) as usize;
        let part = |worker: usize| {
            let mut own: Vec<u32> = direct.iter().skip(worker).step_by(workers).copied().collect();
            let direct_users = own.len();
            own.extend((0..).zip(shared).filter(|(at, _)| at % pool % workers == worker).map(|(_, &user)| user));
            Self { weight: own.len() as u64, users_of_all: users.len(), users: own, direct_users, ..Self::default() }
        };
        (0..workers).map(part).collect()
    }

    /// Of a rate at which the agent's users come online, that of these: all workers are done at the same time, however unevenly
    /// shared connections split.
    pub fn part_of_users(&self, rate: f64) -> f64 {
        rate * self.users.len().max(1) as f64 / self.users_of_all.max(1) as f64
    }

    /// How many of an agent's shared connections are this worker's: none, where there are fewer than workers before it.
    pub fn shared_lines(pool: u32, worker: u32, workers: u32) -> u32 {
        pool.saturating_sub(worker).div_ceil(workers)
    }

    /// Splits a count over parts by their weight, exactly.
    pub fn split(total: u64, parts: &[Self]) -> Vec<u64> {
        split_largest_remainder(total, &parts.iter().map(|part| part.weight).collect::<Vec<_>>())
    }

    /// How many operations can be split over parts of which each worker can make no more than its budget. A step's are split
    /// twice, for its warmup and its hold, and either may give a worker one for a fraction: hence the two.
    pub fn most(budgets: impl Iterator<Item = u64>, parts: &[Self]) -> u64 {
        let total: u128 = parts.iter().map(|part| u128::from(part.weight)).sum();
        let busy = budgets.zip(parts).filter(|(_, part)| !part.is_idle());
        let most = busy.map(|(budget, part)| u128::from(budget.saturating_sub(2)) * total / u128::from(part.weight));
        most.min().and_then(|most| u64::try_from(most).ok()).unwrap_or_default()
    }

    /// Whether its worker goes without.
    pub fn is_idle(&self) -> bool {
        self.weight == 0
    }
}

/// What a workload is made from, beside its own plan.
pub struct Setup<'a> {
    /// The run.
    pub plan: &'a AgentPlan,
    /// Users and rooms, where the workload has any.
    pub fixtures: Option<&'a Arc<Fixtures>>,
    /// This worker's part.
    pub part: &'a Part,
    /// Position of the worker on its agent, and how many workers there are.
    pub worker: u8,
    /// See `worker`.
    pub workers: u8,
    /// What this worker shares with the agent's others, where levels are users.
    pub exchange: Option<&'a Arc<Exchange>>,
    /// A subject prefix that is this connection's alone.
    pub inbox: &'a str,
    /// Writes and reads ids that nobody else uses.
    pub ids: IdCodec,
    /// For what is drawn once.
    pub chance: &'a mut ChaCha8Rng,
}

impl<'a> Setup<'a> {
    /// The fixtures of a workload that has some.
    pub fn dealt(&self) -> &'a Arc<Fixtures> {
        self.fixtures.expect("the plan of a workload that deals rooms says what they are")
    }

    /// What the workers of an agent share, of a workload whose levels are users.
    pub fn exchange(&self) -> &'a Arc<Exchange> {
        self.exchange.expect("workers share an exchange where levels are users")
    }
}

/// A workload as one worker drives it. One instance per worker and deal; never shared between threads. It lives over
/// trials.
pub trait Workload: Sized + 'static {
    /// Its part of the plan's vocabulary.
    type Plan: Clone;

    /// Made anew for every deal.
    ///
    /// # Errors
    /// What was dealt does not do; for people.
    fn new(plan: &Self::Plan, setup: Setup<'_>) -> Result<Self, String>;

    /// What operations owe, by [`Choice::kind`].
    fn kinds(&self) -> Vec<Kind>;

    /// What the worker must listen to: only what answers its own operations.
    fn subscriptions(&self) -> Vec<Subscription>;

    /// What to ask the target beforehand.
    fn probes(&self) -> Vec<Probe>;

    /// Whatever else has to stand at the target before operations can be driven. The subscriptions stand already.
    ///
    /// # Errors
    /// It cannot be had; for people.
    fn prepare(&mut self, _client: &Client) -> impl Future<Output = Result<(), String>> {
        std::future::ready(Ok(()))
    }

    /// Takes over from that of the deal before what a run must not forget.
    fn inherit(&mut self, _before: &mut Self) {}

    /// How many more operations it can make; `None`: as many as are asked for.
    fn budget(&self) -> Option<u64> {
        None
    }

    /// The connections of its users beside the worker's own, with what they listen to; `None`: it has no users.
    fn lines(&self) -> Option<Vec<Wanted>> {
        None
    }

    /// The subject of a subscription on such a line.
    fn line_subject(&self, _tag: u64) -> String {
        String::new()
    }

    /// A line is online with every subscription active, or no longer.
    fn line_changed(&mut self, _line: u32, _online: bool) {}

    /// Users online now; `None`: it has no users.
    fn users_online(&self) -> Option<u64> {
        None
    }

    /// The line on which an operation is sent; `None`: the worker's own connection.
    fn line_of(&self, _choice: Choice) -> Option<u32> {
        None
    }

    /// Says what a message is that arrived on a line.
    fn heard(&mut self, _: u32, _tag: u64, _: &Heard<'_>, _: &Ledger, _: &mut Aside) -> Incoming {
        Incoming::Foreign
    }

    /// The same between trials, which answers nothing of its own: siblings may be waiting for it still.
    fn overheard(&mut self, _: u32, _tag: u64, _: &Heard<'_>, _now_ns: u64) {}

    /// Says what a copy is that a sibling has heard for this worker.
    fn told(&mut self, _: &CopyHeard, _: &Ledger, _: &mut Aside) -> Incoming {
        Incoming::NotForUs
    }

    /// A trial begins. Where operations follow from the workload itself and from no arrivals: how many there are per second
    /// at most, and [`Self::next_due`] gives their times.
    fn begin(&mut self, _order: &StepOrder) -> Option<f64> {
        None
    }

    /// What is observed of an operation whose message the client or its line has just taken: counts if it is of the hold,
    /// whatever becomes of it.
    fn handed_over(&mut self, _sequence: u64) -> Option<(u8, u64)> {
        None
    }

    /// What users say beside their operations by now: line, subject and body. Asked at every tick of a trial, with the
    /// nanoseconds since its warmup began, and ten times a second between trials and while users come online. What it observes
    /// in a trial counts.
    fn beside(&mut self, _since_ns: Option<u64>, _aside: &mut Aside, _say: &mut Vec<(u32, String, Bytes)>) {}

    /// The intended time of its next operation, in nanoseconds after the warmup began; the operation is the one that is drawn
    /// next, if it is released.
    fn next_due(&mut self) -> Option<u64> {
        None
    }

    /// Draws the next operation. Asked only for operations that are released.
    fn choose(&mut self, chance: &mut ChaCha8Rng) -> Choice;

    /// Writes the message of operation `sequence`.
    fn message(&mut self, sequence: u64, choice: Choice) -> Outgoing;

    /// Says what a message is that arrived on the subscription with this tag. The ledger knows what our operations chose.
    fn incoming(&mut self, tag: u32, message: &Message, ledger: &Ledger, aside: &mut Aside) -> Incoming;
}

/// The names of what a workload observes, as snapshots carry them.
pub fn observations(workload: &WorkloadPlan) -> Vec<String> {
    workload.observations().iter().map(|observation| observation.name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use plimsoll_common::deal::Piece;

    use super::*;

    #[test]
    fn operations_are_split_by_what_each_worker_was_dealt() {
        let assignment = |weight| Assignment {
            pieces: vec![Piece { room: 0, weight, start: 0.0, anchor: 0 }],
            senders: vec![vec![0]],
        };
        let parts = Part::of_assignments(vec![assignment(1.0), assignment(3.0), Assignment::default()]);
        assert_eq!(Part::split(10, &parts), [3, 7, 0]);
        assert_eq!(parts.iter().map(Part::is_idle).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(Part::split(7, &Part::equal(2)), [4, 3]);
    }

    #[test]
    fn what_can_be_split_leaves_no_worker_short() {
        let assignment = |weight| Assignment {
            pieces: vec![Piece { room: 0, weight, start: 0.0, anchor: 0 }],
            senders: vec![vec![0]],
        };
        for (weights, budgets) in
            [(&[2.0, 3.0][..], &[100, 150][..]), (&[1.0, 1.0, 1.0], &[50, 49, 90]), (&[1.0], &[1])]
        {
            let parts = Part::of_assignments(
                weights.iter().map(|&weight| assignment(weight)).chain([Assignment::default()]).collect(),
            );
            let most = Part::most(budgets.iter().copied().chain([0]), &parts);
            for warmup in 0..=most {
                let both = Part::split(warmup, &parts).into_iter().zip(Part::split(most - warmup, &parts));
                assert!(both.zip(budgets).all(|((warmup, hold), &budget)| warmup + hold <= budget), "{most}");
            }
            let sum: u64 = budgets.iter().sum();
            assert!(most <= sum);
        }
        assert_eq!(
            Part::most([100, 150].into_iter(), &Part::of_assignments(vec![assignment(2.0), assignment(3.0)])),
            245
        );
    }
}
