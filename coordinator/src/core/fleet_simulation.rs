//! The lease and the fleet under seeded faults: hosts that crash, freeze and come back, paths that are cut either way and
//! deliver late what waited, streams that break, and a second coordinator that wants the same agents. Time is simulated; what
//! decides is what decides in a run: [`Lease`] and [`Pings`] on the agents; [`Roster`], [`Ramp`], [`TrialMerge`] and
//! [`judge`] in the coordinator.

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
use super::ramp::{NextTrial, OnTrip, Ramp};
use super::roster::{Hands, LossPolicy, Next, OnAgentLoss, Roster};
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
    /// By agent: whose load came last, and the newest stream of all.
    newest_stream: Vec<u64>,
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
                ramp: Ramp::new(&steps, OnTrip::Stop, NonZeroU32::MIN),
                doing: Doing::Waiting,
                silent_at: 0,
            },
            rival: Rival::default(),
            streams: 0,
            seen: Seen::default(),
            newest_stream: vec![0; count],
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

    /// The coordinator finds its stream broken, and the agent does not yet.
    fn break_stream(&mut self, coordinator: usize, agent: usize) {
        let stream = match coordinator {
            RUN => self.run.members.iter().find(|member| member.agent == agent).map(|member| member.stream),
            _ => self.rival.held.filter(|held| held.0 == agent).map(|held| held.1),
        };
        if let Some(stream) = stream {
            self.send(coordinator, agent, false, stream, Word::Over);
        }
    }

    fn lose_session(&mut self, agent: usize) {
        let Some(session) = self.agents[agent].session.take() else { return };
        session.lease.end();
        if self.flaw == Some(Flaw::Flattery)
            && let Some(&Step { trial, due, .. }) = session.step.as_ref()
        {
            let word = Word::Totals { trial, released: due, due, end: StepEnd::Finished };
            self.send(session.coordinator, agent, false, session.stream, word);
        }
        self.send(session.coordinator, agent, false, session.stream, Word::Over);
        if session.coordinator == RUN
            && let Some(position) = self.run.members.iter().position(|member| member.stream == session.stream)
            && session.step.is_some()
        {
            self.truly_lost.push(position);
        }
    }

    fn agent(&mut self, agent: usize) {
        let now = self.now;
        if !self.agents[agent].host.works(now) {
            return;
        }
        for coordinator in [RUN, RIVAL] {
            while let Some(message) = self.paths[coordinator][agent][0].receive(now) {
                self.hear(agent, coordinator, message);
            }
        }
        let Some(session) = &mut self.agents[agent].session else { return };
        if now >= session.next_ping {
            if !session.lease.holds(ns(now)) {
                self.seen.leases_timed_out += 1;
                return self.lose_session(agent);
            }
            session.pings.sent(ns(now));
            session.next_ping = now + session.pings.interval().as_millis() as u64;
            let (coordinator, stream) = (session.coordinator, session.stream);
            self.send(coordinator, agent, false, stream, Word::Ping { sent: now });
        }
        self.pace(agent);
    }

    fn hear(&mut self, agent: usize, coordinator: usize, Message { stream, word }: Message) {
        let now = self.now;
        if let Word::Claim = word {
            if self.agents[agent].session.is_some() && self.flaw != Some(Flaw::TwoAtOnce) {
                return self.send(coordinator, agent, false, stream, Word::Denied);
            }
            let session = Session {
                coordinator,
                stream,
                lease: Lease::until(ns(now + LEASE)),
                pings: Pings::new(milliseconds(LEASE)),
                next_ping: now,
                step: None,
                may_send_until: now + LEASE,
            };
            self.agents[agent].session = Some(session);
            return self.send(coordinator, agent, false, stream, Word::Hello);
        }
        let Some(session) = self.agents[agent].session.as_mut().filter(|session| session.stream == stream) else {
            return;
        };
        match word {
            Word::Echo { ping_sent } => {
                let end = match self.flaw {
                    Some(Flaw::LeaseFromReceipt) => Some(ns(now + LEASE)),
                    _ => session.pings.echoed(ns(ping_sent)),
                };
                let holds = session.lease.holds(ns(now)) && end.is_some_and(|end| session.lease.extend(ns(now), end));
                session.may_send_until = session.may_send_until.max(ping_sent + LEASE);
                if !holds {
                    self.lose_session(agent);
                }
            }
            // An instant that is past is refused, which spoils the trial as a loss does.
            Word::Start { start, .. } if start <= now => self.lose_session(agent),
            Word::Start { trial, start, share } => {
                let due = share.due_in(milliseconds(HOLD));
                session.step = Some(Step { trial, start, due, released: 0, next_due: 0 });
            }
            Word::Stop => {
                if let Some(Step { trial, released, due, .. }) = session.step.take() {
                    let word = Word::Totals { trial, released, due, end: StepEnd::Stopped };
                    self.send(coordinator, agent, false, stream, word);
                }
            }
            Word::Over => self.lose_session(agent),
            other => panic!("an agent is told {other:?}"),
        }
    }

    /// Releases what is due, if the lease holds: as the pacer does, which looks before every release.
    fn pace(&mut self, agent: usize) {
        let now = self.now;
        let Some(session) = &mut self.agents[agent].session else { return };
        let Some(step) = &mut session.step else { return };
        if now < step.start {
            return;
        }
        if !session.lease.holds(ns(now)) {
            return;
        }
        let hold_start = step.start + WARMUP;
        let (trial, coordinator, stream) = (step.trial, session.coordinator, session.stream);
        // Operations of the hold are spread evenly; one that is over 100 ms late is left out.
        while step.next_due < step.due {
            let due_at = hold_start + step.next_due * HOLD / step.due;
            if due_at > now {
                break;
            }
            step.next_due += 1;
            step.released += u64::from(now - due_at <= 100);
        }
        let may_send_until = session.may_send_until;
        let over = now >= hold_start + HOLD;
        let (released, due) = (step.released, step.due);
        if over {
            session.step = None;
        }
        self.check_load(agent, coordinator, stream, trial, may_send_until);
        if over {
            self.send(coordinator, agent, false, stream, Word::Totals { trial, released, due, end: StepEnd::Finished });
        }
    }

    /// An agent makes load now.
    fn check_load(&mut self, agent: usize, coordinator: usize, stream: u64, trial: TrialId, may_send_until: u64) {
        let now = self.now;
        self.check(now < may_send_until, || format!("agent {agent} makes load without a lease since {may_send_until}"));
        self.check(stream >= self.newest_stream[agent], || format!("agent {agent} works for two coordinators"));
        self.newest_stream[agent] = stream;
        if coordinator == RIVAL {
            return;
        }
        // The coordinator's own view: what it has echoed last bounds what may still be sent.
        let member = self.run.members.iter().find(|member| member.stream == stream);
        let outlives = member.is_some_and(|member| now >= member.echoed + LEASE);
        self.check(!outlives, || format!("agent {agent} outlives its echoes"));
        let order = |trial: TrialId| (trial.step, trial.trial);
        if let Some(newest) = self.newest_load.filter(|newest| order(*newest) > order(trial)) {
            self.check(false, || format!("trial {trial:?} makes load beside {newest:?}"));
        }
        self.newest_load = Some(trial);
    }

    fn coordinate(&mut self) {
        let now = self.now;
        if !self.run.host.works(now) || matches!(self.run.doing, Doing::Over) {
            return;
        }
        for agent in 0..self.agents.len() {
            while let Some(message) = self.paths[RUN][agent][1].receive(now) {
                self.take(agent, message);
            }
        }
        for position in 0..self.run.members.len() {
            if self.run.members[position].gone.is_none() && now > self.run.members[position].heard + LEASE {
                self.gone(position, "silent");
            }
        }
        match std::mem::replace(&mut self.run.doing, Doing::Over) {
            Doing::Joining { since, asked } => self.join(since, asked),
            Doing::Waiting => self.wait(),
            Doing::Holding(trial) => self.follow(trial),
            Doing::Over => {}
        }
    }

    fn take(&mut self, agent: usize, Message { stream, word }: Message) {
        let now = self.now;
        if let Doing::Joining { asked, .. } = &mut self.run.doing
            && let Some(place) = asked.iter().position(|ask| *ask == (agent, stream))
        {
            asked.remove(place);
            match word {
                Word::Hello => {
                    let index = self.run.roster.next_index().expect("few agents");
                    self.seen.rejoined += u64::from(!self.run.ramp.trials().is_empty());
                    self.run.roster.joined(format!("box-{agent}"));
                    let member = Member { index, agent, stream, heard: now, echoed: now, gone: None };
                    self.run.members.push(member);
                }
                Word::Denied => self.seen.denied += 1,
                _ => {}
            }
            return;
        }
        let Some(position) = self.run.members.iter().position(|member| member.stream == stream) else {
            // One that answered too late is let go.
            if matches!(word, Word::Hello) {
                self.send(RUN, agent, true, stream, Word::Over);
            }
            return;
        };
        if self.run.members[position].gone.is_some() {
            return;
        }
        self.run.members[position].heard = now;
        match word {
            Word::Ping { sent } => {
                self.run.members[position].echoed = now;
                self.send(RUN, agent, true, stream, Word::Echo { ping_sent: sent });
            }
            Word::Totals { trial, released, due, end } => {
                if let Doing::Holding(held) = &mut self.run.doing
                    && held.next.trial == trial
                {
                    report(&mut held.merge, position, trial, released, due, end);
                    held.ended[position] = true;
                }
            }
            Word::Over => self.gone(position, "its connection broke"),
            other => panic!("a coordinator is told {other:?}"),
        }
    }

    fn gone(&mut self, position: usize, why: &str) {
        let now = self.now;
        let member = &mut self.run.members[position];
        member.gone = Some(why.to_owned());
        // A stream that is given up is closed, and the agent hears of it if it can.
        let (agent, stream) = (member.agent, member.stream);
        self.send(RUN, agent, true, stream, Word::Over);
        if let Doing::Holding(trial) = &mut self.run.doing
            && self.flaw != Some(Flaw::LossForgotten)
        {
            trial.merge.agent_lost(position, milliseconds(now), why.to_owned());
            trial.ended[position] = true;
        }
    }

    fn join(&mut self, since: u64, asked: Vec<(usize, u64)>) {
        if !asked.is_empty() && self.now < since + JOIN_LIMIT {
            self.run.doing = Doing::Joining { since, asked };
            return;
        }
        if self.run.members.is_empty() && self.run.ramp.trials().is_empty() {
            // Nobody came: no run.
            return;
        }
        self.run.doing = Doing::Waiting;
    }

    fn wait(&mut self) {
        if self.run.members.iter().any(|member| member.gone.is_some()) {
            return self.go_on();
        }
        if self.now < self.run.silent_at && self.flaw != Some(Flaw::NoPatience) {
            self.run.doing = Doing::Waiting;
            return;
        }
        let Some(next) = self.run.ramp.next_trial() else { return self.release() };
        self.start(next);
    }

    fn start(&mut self, next: NextTrial) {
        let count = self.run.members.len() as u64;
        let share = Rate::from_milli(next.level.milli() / count).expect("a share");
        let start = self.now + LEAD;
        let part = |member: &Member| AgentPart { agent: format!("box-{}", member.agent), share, clock: None };
        let plan = TrialPlan {
            trial: next.trial,
            target: next.level,
            warmup: milliseconds(WARMUP),
            hold: milliseconds(HOLD),
            start_boottime_ns: ns(start),
            limits: slo().limits(),
            observations: Vec::new(),
            minutes: None,
            agents: self.run.members.iter().map(part).collect(),
        };
        self.truly_lost.clear();
        for position in 0..self.run.members.len() {
            let Member { agent, stream, .. } = self.run.members[position];
            self.send(RUN, agent, true, stream, Word::Start { trial: next.trial, start, share });
        }
        self.run.doing = Doing::Holding(Box::new(Trial {
            next,
            merge: TrialMerge::new(plan),
            ended: vec![false; self.run.members.len()],
            deadline: start + WARMUP + HOLD + LEASE,
            stopped: false,
        }));
    }

    fn follow(&mut self, mut trial: Box<Trial>) {
        let late: Vec<usize> =
            (0..trial.ended.len()).filter(|&position| self.now >= trial.deadline && !trial.ended[position]).collect();
        let late = if self.flaw == Some(Flaw::NoDeadline) { Vec::new() } else { late };
        self.run.doing = Doing::Holding(trial);
        late.into_iter().for_each(|position| self.gone(position, "its totals did not come in time"));
        let Doing::Holding(held) = std::mem::replace(&mut self.run.doing, Doing::Over) else { return };
        trial = held;
        let lost = self.run.members.iter().any(|member| member.gone.is_some());
        if lost && !trial.stopped {
            trial.stopped = true;
            trial.deadline = trial.deadline.min(self.now + STOP_LIMIT);
            for position in (0..trial.ended.len()).filter(|&position| !trial.ended[position]) {
                let Member { agent, stream, .. } = self.run.members[position];
                self.send(RUN, agent, true, stream, Word::Stop);
            }
        }
        if !trial.merge.is_complete() {
            self.run.doing = Doing::Holding(trial);
            return;
        }
        self.judge(*trial);
    }

    fn judge(&mut self, trial: Trial) {
        let verdict = judge(&trial.merge.finish(&ServiceReads::default()), &slo());
        if verdict == Verdict::Pass {
            let lost = std::mem::take(&mut self.truly_lost);
            self.check(lost.is_empty(), || format!("PASS for {:?}, in which {lost:?} were lost", trial.next));
            self.seen.passed += 1;
            self.seen.passed_after_loss += u64::from(trial.next.trial.trial > 0);
        }
        self.run.ramp.record(verdict);
        self.go_on();
    }

    /// Between two trials: takes out who was lost, and asks who is missing to join.
    fn go_on(&mut self) {
        let (gone, there) = std::mem::take(&mut self.run.members).into_iter().partition(|member| member.gone.is_some());
        self.run.members = there;
        let gone: Vec<Member> = gone;
        for member in gone {
            self.seen.lost += 1;
            self.run.silent_at = self.run.silent_at.max(member.echoed + LEASE);
            self.run.roster.lose(member.index, member.gone.unwrap_or_default());
        }
        if let Next::End { .. } = self.run.roster.next() {
            self.seen.ended_by_loss += 1;
            return self.release();
        }
        let Some(next) = self.run.ramp.next_trial() else { return self.release() };
        self.run.doing = Doing::Waiting;
        if self.run.roster.may_join(next.trial) {
            let absent: Vec<usize> =
                (0..self.agents.len()).filter(|agent| !self.run.roster.has(&format!("box-{agent}"))).collect();
            if !absent.is_empty() {
                let asked = absent.into_iter().map(|agent| (agent, self.claim(RUN, agent))).collect();
                self.run.doing = Doing::Joining { since: self.now, asked };
            }
        }
    }

    fn release(&mut self) {
        for member in std::mem::take(&mut self.run.members) {
            self.send(RUN, member.agent, true, member.stream, Word::Over);
        }
        self.run.doing = Doing::Over;
    }

    fn rival(&mut self) {
        let now = self.now;
        if !self.rival.host.works(now) {
            return;
        }
        for agent in 0..self.agents.len() {
            while let Some(Message { stream, word }) = self.paths[RIVAL][agent][1].receive(now) {
                let ours = self.rival.held.filter(|held| (held.0, held.1) == (agent, stream));
                match word {
                    Word::Hello if ours.is_some() => {
                        self.seen.rivals += 1;
                        let trial = TrialId { step: 99, trial: 0 };
                        let share = Rate::from_milli(100_000).expect("a rate");
                        self.send(RIVAL, agent, true, stream, Word::Start { trial, start: now + LEAD, share });
                    }
                    Word::Ping { sent } if ours.is_some() => {
                        self.send(RIVAL, agent, true, stream, Word::Echo { ping_sent: sent });
                    }
                    Word::Denied => {
                        self.seen.denied += 1;
                        self.rival.held = None;
                    }
                    Word::Over | Word::Totals { .. } if ours.is_some() => {
                        self.send(RIVAL, agent, true, stream, Word::Over);
                        self.rival.held = None;
                    }
                    // Of a stream that it has forgotten: it says nothing, and the lease has to run out.
                    _ => {}
                }
            }
        }
        match self.rival.held {
            Some((_, _, until)) if now >= until => self.rival.held = None,
            Some(_) => {}
            None if now < FAULTS_UNTIL && self.chance.random_bool(0.01) => {
                let agent = self.chance.random_range(0..self.agents.len());
                let until = now + self.chance.random_range(10..=300_u64) * TICK;
                self.rival.held = Some((agent, self.claim(RIVAL, agent), until));
            }
            None => {}
        }
    }
}

/// What an agent sends of a trial in which it released so many of what was due.
fn report(merge: &mut TrialMerge, position: usize, trial: TrialId, released: u64, due: u64, end: StepEnd) {
    let limits = slo().limits();
    let counters = Counters {
        due,
        attempted: released,
        sent: released,
        completed: released,
        underrun: due - released,
        ..Counters::default()
    };
    let mut latency = LatencyHistogram::new();
    (0..released).for_each(|_| latency.record(1_000));
    let series = |zero: usize| SeriesCounts { n: released, ..SeriesCounts::zero(zero) };
    let series: Vec<SeriesCounts> = limits.iter().map(|limits| series(limits.limits_us.len())).collect();
    let snapshot = Snapshot {
        trial,
        number: 0,
        blocks: vec![BlockDelta { block: 0, counters, series: series.clone() }],
        series: vec![SeriesHistograms { service_time: latency.clone(), latency }; limits.len()],
        overdue: limits.iter().map(|limits| vec![0; limits.limits_us.len()]).collect(),
        strays: Strays::default(),
        warmup: Counters::default(),
        health: Health::default(),
        open_time_us: 0,
        observed: Vec::new(),
    };
    let totals = StepTotals {
        trial,
        snapshots: 1,
        counters,
        samples: vec![released; limits.len()],
        series,
        strays: Strays::default(),
        warmup: Counters::default(),
        started_boottime_ns: 1,
        end,
        observed: Vec::new(),
    };
    merge.add_snapshot(position, &snapshot);
    merge.add_totals(position, totals);
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
