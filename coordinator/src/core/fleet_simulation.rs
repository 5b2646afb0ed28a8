//! The lease and the fleet under seeded faults: hosts that crash, freeze and come back, paths that are cut either way and
//! deliver late what waited, streams that break, and a second coordinator that wants the same agents. Time is simulated; what
//! decides is what decides in a run: [`Lease`] and [`Pings`] on the agents; [`Roster`], [`Ramp`], [`TrialMerge`] and
//! [`judge`] in the coordinator.

mod agents;
mod coordinators;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use plimsoll_agent::core::pings::Pings;
use plimsoll_agent::shell::lease::Lease;
use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::TrialId;
use plimsoll_common::snapshot::{
    BlockDelta, Counters, Health, SeriesCounts, SeriesHistograms, Snapshot, StepEnd, StepTotals, Strays,
};
use plimsoll_common::units::Rate;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::fixture::slo;
use super::merge::{AgentPart, ServiceReads, TrialMerge, TrialPlan};
use super::ramp::{Astray, NextTrial, OnTrip, Ramp};
use super::roster::{Comebacks, Hands, LossPolicy, Next, Occasion, OnAgentLoss, Roster};
use super::verdict::{Verdict, judge};

const SEEDS: u64 = 1_000;
/// All times are in milliseconds; everything happens at multiples of this.
const TICK: u64 = 10;
const LEASE: u64 = 1_000;
const WARMUP: u64 = 200;
const HOLD: u64 = 1_000;
/// Between the order and the start.
const LEAD: u64 = 300;
/// An agent that is stopped has so long to say so.
const STOP_LIMIT: u64 = 2_000;
const JOIN_LIMIT: u64 = 500;
/// Nothing goes wrong any more after this, and every run has ended by [`LAST`].
const FAULTS_UNTIL: u64 = 15_000;
const LAST: u64 = 120_000;

/// To the agent of a path or from it. A conversation is one stream, from its claim to its end.
#[derive(Debug, Clone)]
enum Word {
    Claim,
    Hello,
    Denied,
    Ping { sent: u64 },
    Echo { ping_sent: u64 },
    Start { trial: TrialId, start: u64, share: Rate },
    Stop,
    Totals { trial: TrialId, released: u64, due: u64, end: StepEnd },
    Over,
}

#[derive(Debug, Clone)]
struct Message {
    stream: u64,
    word: Word,
}

/// One direction between a coordinator and an agent, as TCP is: in order, and what meets a cut waits for its end.
#[derive(Debug, Default)]
struct Path {
    cut_until: u64,
    under_way: VecDeque<(u64, Message)>,
}

impl Path {
    fn send(&mut self, at: u64, message: Message) {
        let after = self.under_way.back().map_or(0, |(at, _)| *at);
        self.under_way.push_back((at.max(after), message));
    }

    fn receive(&mut self, now: u64) -> Option<Message> {
        let arrived = self.under_way.front().is_some_and(|(at, _)| *at <= now && self.cut_until <= now);
        if arrived { self.under_way.pop_front().map(|(_, message)| message) } else { None }
    }
}

/// Whoever may stand still or be gone.
#[derive(Debug, Default)]
struct Host {
    frozen_until: u64,
    down_until: u64,
}

impl Host {
    fn works(&self, now: u64) -> bool {
        self.frozen_until <= now && self.down_until <= now
    }
}

#[derive(Debug)]
struct Step {
    trial: TrialId,
    start: u64,
    due: u64,
    released: u64,
    next_due: u64,
}

/// A lease, as an agent's session keeps it.
#[derive(Debug)]
struct Session {
    coordinator: usize,
    stream: u64,
    lease: Lease,
    pings: Pings,
    next_ping: u64,
    step: Option<Step>,
    /// The oracle's: until when load may be made, by the echoes alone.
    may_send_until: u64,
}

#[derive(Debug, Default)]
struct Agent {
    host: Host,
    session: Option<Session>,
    /// By stream: the leases that there were, for whom no other may make load beside.
    leases: Vec<(u64, Lease)>,
}

/// A member of the run's fleet, as the coordinator sees it.
#[derive(Debug)]
struct Member {
    index: usize,
    agent: usize,
    stream: u64,
    heard: u64,
    echoed: u64,
    gone: Option<String>,
}

#[derive(Debug)]
struct Trial {
    next: NextTrial,
    merge: TrialMerge,
    ended: Vec<bool>,
    deadline: u64,
    stopped: bool,
}

#[derive(Debug)]
enum Doing {
    Joining {
        since: u64,
        asked: Vec<(usize, u64)>,
    },
    /// Until whoever was lost can send no more.
    Waiting,
    Holding(Box<Trial>),
    Over,
}

/// The coordinator whose run it is.
#[derive(Debug)]
struct Run {
    host: Host,
    members: Vec<Member>,
    roster: Roster,
    ramp: Ramp,
    doing: Doing,
    silent_at: u64,
}

/// A second coordinator: claims one agent after the other, drives it for a while, and leaves it in one way or another.
#[derive(Debug, Default)]
struct Rival {
    host: Host,
    held: Option<(usize, u64, u64)>,
}

const RUN: usize = 0;
const RIVAL: usize = 1;

/// What the simulation must find: a law that nothing can break is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// A lease lasts from the receipt of an echo on.
    LeaseFromReceipt,
    /// Who comes next is let in beside the one that is there.
    TwoAtOnce,
    /// The share of a lost agent is dealt again at once.
    NoPatience,
    /// An agent that is lost is forgotten by the trial.
    LossForgotten,
    /// Totals are waited for without end.
    NoDeadline,
    /// An agent whose session ends says that all is done.
    Flattery,
}

/// What was seen of all seeds: a proof in which nothing happens proves nothing.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    lost: u64,
    rejoined: u64,
    passed: u64,
    passed_after_loss: u64,
    denied: u64,
    rivals: u64,
    leases_timed_out: u64,
    ended_by_loss: u64,
}

struct World {
    now: u64,
    chance: StdRng,
    agents: Vec<Agent>,
    /// By coordinator, by agent: there, and back.
    paths: Vec<Vec<[Path; 2]>>,
    run: Run,
    rival: Rival,
    streams: u64,
    seen: Seen,
    /// The trial of the run whose load came last.
    newest_load: Option<TrialId>,
    /// Agents, by position, that were lost in the trial that is held, whatever the coordinator makes of it.
    truly_lost: Vec<usize>,
    flaw: Option<Flaw>,
    /// The first law that was broken.
    broken: Option<String>,
}

fn ns(ms: u64) -> u64 {
    ms * 1_000_000
}

fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    fn new(seed: u64, flaw: Option<Flaw>) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let count = chance.random_range(1..=4_usize);
        let steps = "100,200,300".parse().expect("steps");
        let policy = LossPolicy {
            min_agents: chance.random_range(1..=count),
            on_loss: if chance.random_bool(0.1) { OnAgentLoss::Abort } else { OnAgentLoss::Retry },
            hands: if chance.random_bool(0.1) { Hands::Once } else { Hands::Anew },
            comebacks: Comebacks::Any,
        };
        let path = || (0..count).map(|_| [Path::default(), Path::default()]).collect::<Vec<_>>();
        let mut world = Self {
            now: 0,
            agents: (0..count).map(|_| Agent::default()).collect(),
            paths: vec![path(), path()],
            run: Run {
                host: Host::default(),
                members: Vec::new(),
                roster: Roster::new(policy, []),
                ramp: Ramp::new(&steps, OnTrip::Stop, NonZeroU32::MIN, Astray::Stay),
                doing: Doing::Waiting,
                silent_at: 0,
            },
            rival: Rival::default(),
            streams: 0,
            seen: Seen::default(),
            newest_load: None,
            truly_lost: Vec::new(),
            flaw,
            broken: None,
            chance,
        };
        let asked: Vec<(usize, u64)> = (0..count).map(|agent| (agent, world.claim(RUN, agent))).collect();
        world.run.doing = Doing::Joining { since: 0, asked };
        world
    }

    fn send(&mut self, coordinator: usize, agent: usize, there: bool, stream: u64, word: Word) {
        let delay = self.chance.random_range(0..=4_u64) * self.chance.random_range(0..=4_u64) * TICK;
        let path = &mut self.paths[coordinator][agent][usize::from(!there)];
        path.send(self.now + delay, Message { stream, word });
    }

    fn claim(&mut self, coordinator: usize, agent: usize) -> u64 {
        self.streams += 1;
        let stream = self.streams;
        self.send(coordinator, agent, true, stream, Word::Claim);
        stream
    }

    /// Goes on until the run is over and every lease with it, or a law is broken.
    fn play(mut self) -> Result<Seen, String> {
        loop {
            if self.now >= LAST {
                self.check(false, || "the run does not end".to_owned());
            }
            self.misfortune();
            for agent in 0..self.agents.len() {
                self.agent(agent);
            }
            self.coordinate();
            self.rival();
            if let Some(words) = self.broken {
                return Err(words);
            }
            let free = self.agents.iter().all(|agent| agent.session.is_none());
            if matches!(self.run.doing, Doing::Over) && free && self.now > FAULTS_UNTIL + LEASE {
                return Ok(self.seen);
            }
            self.now += TICK;
        }
    }

    fn check(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(format!("at {} ms: {}", self.now, words()));
        }
    }

    /// What goes wrong, now and then.
    fn misfortune(&mut self) {
        if self.now >= FAULTS_UNTIL || !self.chance.random_bool(0.006) {
            return;
        }
        let agent = self.chance.random_range(0..self.agents.len());
        let coordinator = if self.chance.random_bool(0.8) { RUN } else { RIVAL };
        let until = self.now + self.chance.random_range(1..=300_u64) * TICK;
        match self.chance.random_range(0..100) {
            0..25 => self.agents[agent].host.frozen_until = until,
            25..45 => {
                self.crash(agent);
                self.agents[agent].host.down_until = if self.chance.random_bool(0.3) { u64::MAX } else { until };
            }
            45..60 => self.paths[coordinator][agent][0].cut_until = until,
            60..75 => self.paths[coordinator][agent][1].cut_until = until,
            75..85 => self.paths[coordinator][agent].iter_mut().for_each(|path| path.cut_until = until),
            85..92 => self.break_stream(coordinator, agent),
            92..97 => match coordinator {
                RUN => self.run.host.frozen_until = until,
                _ => self.rival.host.frozen_until = until,
            },
            97..98 if coordinator == RUN => {
                // Its sockets close with it.
                self.run.host.down_until = u64::MAX;
                for position in 0..self.run.members.len() {
                    let Member { agent, stream, .. } = self.run.members[position];
                    self.send(RUN, agent, true, stream, Word::Over);
                }
                self.run.doing = Doing::Over;
            }
            _ => self.rival.host.down_until = until,
        }
    }

    /// The process is gone and its sockets with it; the other side is told, if it can be.
    fn crash(&mut self, agent: usize) {
        self.lose_session(agent);
        if self.chance.random_bool(0.5) {
            // Its power was cut: it says nothing, and what it had said last is lost.
            [RUN, RIVAL].into_iter().for_each(|coordinator| self.paths[coordinator][agent][1].under_way.clear());
        }
        for coordinator in [RUN, RIVAL] {
            self.paths[coordinator][agent][0].under_way.retain(|(_, message)| matches!(message.word, Word::Claim));
        }
    }

    /// The coordinator finds its stream broken, and the agent does not yet; nor is it told, perhaps, for a while.
    fn break_stream(&mut self, coordinator: usize, agent: usize) {
        if self.chance.random_bool(0.5) {
            self.paths[coordinator][agent][0].cut_until = self.now + 2 * LEASE;
        }
        let stream = match coordinator {
            RUN => self.run.members.iter().find(|member| member.agent == agent).map(|member| member.stream),
            _ => self.rival.held.filter(|held| held.0 == agent).map(|held| held.1),
        };
        if let Some(stream) = stream {
            self.send(coordinator, agent, false, stream, Word::Over);
        }
    }
}

#[test]
fn without_a_lease_no_load_and_with_a_loss_no_pass_whatever_goes_wrong_when() {
    let mut all = Seen::default();
    for seed in 0..SEEDS {
        let seen = World::new(seed, None).play().unwrap_or_else(|broken| panic!("seed {seed}, {broken}"));
        all.lost += seen.lost;
        all.rejoined += seen.rejoined;
        all.passed += seen.passed;
        all.passed_after_loss += seen.passed_after_loss;
        all.denied += seen.denied;
        all.rivals += seen.rivals;
        all.leases_timed_out += seen.leases_timed_out;
        all.ended_by_loss += seen.ended_by_loss;
    }
    let Seen { lost, rejoined, passed, passed_after_loss, denied, rivals, leases_timed_out, ended_by_loss } = all;
    for (what, count) in [
        ("lost", lost),
        ("rejoined", rejoined),
        ("passed", passed),
        ("passed after a loss", passed_after_loss),
        ("denied", denied),
        ("rivals", rivals),
        ("leases timed out", leases_timed_out),
        ("ended by a loss", ended_by_loss),
    ] {
        assert!(count >= SEEDS / 10, "{what} {count} times only: {all:?}");
    }
}

#[test]
fn the_laws_of_the_fleet_are_broken_by_what_breaks_them() {
    for (flaw, words) in [
        (Flaw::LeaseFromReceipt, "without a lease"),
        (Flaw::TwoAtOnce, "works for two coordinators"),
        (Flaw::NoPatience, "makes load beside"),
        (Flaw::LossForgotten, "the run does not end"),
        (Flaw::NoDeadline, "the run does not end"),
        (Flaw::Flattery, "PASS for"),
    ] {
        let broken: Vec<String> = (0..SEEDS).filter_map(|seed| World::new(seed, Some(flaw)).play().err()).collect();
        assert!(broken.iter().any(|broken| broken.contains(words)), "{flaw:?}: {:?}", broken.first());
    }
}
