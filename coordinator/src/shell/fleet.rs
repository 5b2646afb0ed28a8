//! All agents of a run, as one: orders go to each, answers are awaited from all.

mod answers;
mod error;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use futures::future::join_all;
use plimsoll_common::calibration::{Calibration, CalibrationOrder};
use plimsoll_common::plan::{AgentPlan, TrialId};
use plimsoll_common::units::Rate;
use plimsoll_proto::v1;
use plimsoll_proto::v1::coordinator_message::Message as ToAgent;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use answers::Heard;
pub use answers::{NotArmed, Patience};
pub use error::{FleetError, Refusal};

use super::muster::Muster;
use super::session::{AgentAddress, AgentEvent, AgentHello, Claim, Session};
use crate::core::clock_offset::ClockOffset;
use crate::core::non_empty::NonEmpty;
use crate::core::split::Capacity;
use crate::report::DealSummary;

/// Fixtures of the largest preset and connections to a slow target take seconds, not minutes.
const PREPARE_LIMIT: Duration = Duration::from_secs(60);
const PREPARE: &str = "prepare the run";
const CALIBRATE: &str = "measure what its box can do";
/// A calibration takes about two seconds, on a crowded box some more.
const CALIBRATE_LIMIT: Duration = Duration::from_secs(30);
/// Every subscription of the largest preset has to be known at the server.
const DEAL_LIMIT: Duration = Duration::from_secs(60);
/// An agent that has been released closes its session at once.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);
/// Events that may wait: half a minute of snapshots of a thousand agents, which the coordinator reads as they come.
const EVENTS: usize = 64 * 1024;

/// A daemon that is named twice refuses one of the claims, since this very run holds it: that is said in those words.
async fn name_twice_named(
    opened: Vec<Result<Session, FleetError>>,
    agents: &[AgentAddress],
    claim: &Claim,
) -> Vec<Result<Session, FleetError>> {
    let held_by_us = format!("leased to {}", claim.coordinator);
    let twin = opened
        .iter()
        .position(|session| matches!(session, Err(FleetError::Denied { words, .. }) if words.contains(&held_by_us)));
    let Some(twin) = twin else { return opened };
    let resolved = join_all(agents.iter().map(|agent| resolve(&agent.address))).await;
    let claimed = (0..agents.len()).filter(|&index| opened[index].is_ok());
    let same = |&index: &usize| resolved[index].iter().any(|address| resolved[twin].contains(address));
    let first = claimed.clone().find(same).or_else(|| claimed.clone().next());
    let Some(first) = first else { return opened };
    let (first, second) = (first.min(twin), first.max(twin));
    let address = |index: usize| agents[index].address.clone();
    vec![Err(FleetError::SameAgent { first: address(first), second: address(second) })]
}

async fn resolve(address: &str) -> Vec<std::net::SocketAddr> {
    tokio::net::lookup_host(address).await.map(Iterator::collect).unwrap_or_default()
}

/// What came of a deal.
#[derive(Debug, Clone)]
pub struct FleetDeal {
    /// For the report.
    pub summary: DealSummary,
    /// By agent index: operations that each can still make; `None`: nothing is used up.
    pub operations_left: Option<Vec<u64>>,
}

/// Every agent of a run that is there, claimed, in the order in which they joined. Orders and answers go by an agent's
/// position, which stays until [`Fleet::take_gone`]; agents know themselves by an index, which nobody else ever gets.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Member>,
    /// What agents have shown that they carry, by their names: who is lost and comes back is no larger than it was.
    learned: HashMap<String, Rate>,
    /// What their boxes can do against a null target, by their names: a box that comes back is not measured again.
    measured: HashMap<String, Rate>,
    /// How many deals were sent, finished or not: none has another's number.
    deals: u32,
    events: mpsc::Receiver<(usize, AgentEvent)>,
    events_in: mpsc::Sender<(usize, AgentEvent)>,
}

#[derive(Debug)]
struct Member {
    /// In all deals, and in the ids of its operations.
    index: usize,
    session: Session,
    /// What the target's server that it is connected to says of itself, once it was prepared with the others.
    server: Option<String>,
    /// Why it is lost.
    gone: Option<String>,
}

impl Member {
    fn new(index: usize, session: Session) -> Self {
        Self { index, session, server: None, gone: None }
    }
}

/// What came of asking an agent to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It takes part.
    Joined,
    /// It is there and cannot take part; for people.
    Unfit(String),
    /// It is not there, or somebody else's.
    Absent,
}

/// An agent that was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its index.
    pub index: usize,
    /// Its name.
    pub agent: String,
    /// For people.
    pub why: String,
    /// From this instant of our CLOCK_BOOTTIME on it sends nothing, whatever became of it.
    pub silent_at_ns: u64,
}

impl Fleet {
    /// Dials and claims every agent at once. On an error the agents already claimed are let go.
    ///
    /// # Errors
    /// The first agent, in their order, that cannot be used.
    pub async fn connect(agents: &[AgentAddress], claim: &Claim, workload: &str) -> Result<Self, FleetError> {
        let mut fleet = Self::nobody();
        for opened in fleet.open(agents, 0, claim).await {
            fleet.members.push(opened?);
        }
        fleet.check_identities()?;
        fleet.sessions().try_for_each(|session| check_workload(session, workload))?;
        Ok(fleet)
    }

    /// A fleet before anybody was claimed.
    pub fn nobody() -> Self {
        let (events_in, events) = mpsc::channel(EVENTS);
        Self { members: Vec::new(), learned: HashMap::new(), measured: HashMap::new(), deals: 0, events, events_in }
    }

    /// Claims these at once, under indices from `first` on.
    async fn open(&self, agents: &[AgentAddress], first: usize, claim: &Claim) -> Vec<Result<Member, FleetError>> {
        let open = |(index, agent)| Session::open(agent, index, claim, self.events_in.clone());
        let opened = join_all((first..).zip(agents).map(open)).await;
        let opened = name_twice_named(opened, agents, claim).await;
        let member =
            |(index, session): (usize, Result<Session, FleetError>)| session.map(|session| Member::new(index, session));
        (first..).zip(opened).map(member).collect()
    }

    /// Claims agents beside those that are there, under indices from `first` on, and prepares them. Whoever can take part from the
    /// next deal on, and lets the run hold it for all the time to come, is there when this returns; the others are let go, each by itself.
    pub async fn admit(
        &mut self,
        agents: &[AgentAddress],
        first: usize,
        muster: &Muster,
        to_come: Duration,
        within: Duration,
    ) -> Vec<Admission> {
        let open = async |(index, agent)| {
            let opened = timeout(within, Session::open(agent, index, &muster.claim, self.events_in.clone())).await;
            Some(Member::new(index, opened.ok()?.ok()?))
        };
        let opened = join_all((first..).zip(agents).map(open)).await;
        self.admit_opened(opened, muster.plan.workload.name(), to_come, &muster.plan).await
    }

    async fn admit_opened(
        &mut self,
        opened: Vec<Option<Member>>,
        workload: &str,
        longest: Duration,
        plan: &AgentPlan,
    ) -> Vec<Admission> {
        let position = self.members.len();
        let mut admissions = Vec::new();
        for member in opened {
            let Some(member) = member else {
                admissions.push(Admission::Absent);
                continue;
            };
            self.members.push(member);
            let newest = &self.members[self.members.len() - 1].session;
            let fits = check_workload(newest, workload)
                .and_then(|()| check_length(newest, longest))
                .and_then(|()| self.check_identities());
            admissions.push(match fits {
                Ok(()) => Admission::Joined,
                Err(error) => {
                    self.members.pop();
                    Admission::Unfit(error.to_string())
                }
            });
        }
        let heard = self.ask_to_prepare(position, plan, Patience::UntilAll).await;
        let trouble = |(place, heard): (usize, Heard<String>)| match heard {
            Some(Ok(_)) => None,
            Some(Err(trouble)) => Some(trouble),
            None => Some(self.no_answer(position + place, PREPARE, PREPARE_LIMIT)),
        };
        let troubles: Vec<Option<FleetError>> = heard.into_iter().enumerate().map(trouble).collect();
        let mut is_fit = troubles.iter().map(Option::is_none);
        let mut place = 0..;
        self.members
            .retain(|_| place.next().is_some_and(|place: usize| place < position) || is_fit.next() == Some(true));
        let asked = admissions.iter_mut().filter(|admission| **admission == Admission::Joined);
        for (admission, trouble) in asked.zip(troubles) {
            if let Some(trouble) = trouble {
                *admission = Admission::Unfit(trouble.to_string());
            }
        }
        admissions
    }

    /// Claims whoever of these is not there yet, and lets go who was lost meanwhile; what keeps the others away.
    ///
    /// # Errors
    /// An agent that no wait makes usable.
    pub async fn claim_absent(
        &mut self,
        agents: &[AgentAddress],
        claim: &Claim,
        workload: &str,
        within: Duration,
    ) -> Result<Vec<FleetError>, FleetError> {
        while let Ok((index, event)) = self.events.try_recv() {
            // The last word of a session: nothing comes after it under its index.
            if matches!(event, AgentEvent::Lost(_)) {
                self.members.retain(|member| member.index != index);
            }
        }
        let absent: Vec<&AgentAddress> =
            agents.iter().filter(|agent| self.sessions().all(|session| session.name != agent.name)).collect();
        let first = self.members.iter().map(|member| member.index + 1).max().unwrap_or(0);
        let open = async |(index, agent): (usize, &AgentAddress)| {
            let opened = timeout(within, Session::open(agent, index, claim, self.events_in.clone())).await;
            let late = || FleetError::Unreachable {
                agent: agent.address.clone(),
                why: format!("it did not answer within {within:?}"),
            };
            opened.unwrap_or_else(|_| Err(late())).map(|session| Member::new(index, session))
        };
        let opened = join_all((first..).zip(absent).map(open)).await;
        let mut missing = Vec::new();
        for opened in opened {
            match opened {
                Ok(member) => self.members.push(member),
                Err(error) if error.may_pass() => missing.push(error),
                Err(error) => return Err(error),
            }
        }
        self.check_identities()?;
        self.sessions().try_for_each(|session| check_workload(session, workload))?;
        Ok(missing)
    }

    /// Who is there, by index.
    pub fn names(&self) -> Vec<(usize, String)> {
        self.members.iter().map(|member| (member.index, member.session.name.clone())).collect()
    }

    fn check_identities(&self) -> Result<(), FleetError> {
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for Session { name, hello, .. } in self.sessions() {
            if let Some(first) = seen.insert(&hello.instance, name) {
                return Err(FleetError::SameAgent { first: first.to_owned(), second: name.clone() });
            }
        }
        Ok(())
    }

    fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.members.iter().map(|member| &member.session)
    }

    /// Whether every agent lets a run be this long.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check_length(&self, length: Duration) -> Result<(), FleetError> {
        self.sessions().try_for_each(|session| check_length(session, length))
    }

    /// How many agents there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The name of the agent at this position.
    pub fn name(&self, agent: usize) -> &str {
        &self.members[agent].session.name
    }

    /// Takes out who was lost, so that the positions of the others change. Their sessions end here, and what they still send
    /// is heard no more.
    pub fn take_gone(&mut self) -> Vec<Gone> {
        let gone = |member: &Member| {
            let why = member.gone.clone()?;
            let Member { index, session, .. } = member;
            Some(Gone { index: *index, agent: session.name.clone(), why, silent_at_ns: session.silent_at_ns() })
        };
        let taken = self.members.iter().filter_map(gone).collect();
        self.members.retain(|member| member.gone.is_none());
        taken
    }

    /// Holds an agent for lost, also where its session goes on; the words replace those that it was lost with.
    pub fn give_up_on(&mut self, agent: usize, why: String) {
        self.members[agent].gone = Some(why);
    }

    /// What the target's server that an agent is connected to says of itself, where it said so.
    pub fn server(&self, agent: usize) -> Option<&str> {
        self.members[agent].server.as_deref()
    }

    /// Gives up on everybody whose trouble makes it a loss, unless somebody's is of another kind; the one that decides what
    /// becomes of the run.
    pub fn not_done(&mut self, troubles: &NonEmpty<FleetError>) -> FleetError {
        if let Some(wrong) = troubles.iter().find(|trouble| !trouble.is_a_loss()) {
            return wrong.clone();
        }
        for trouble in troubles.iter() {
            if let FleetError::Refused { agent, words, .. } = trouble {
                let of_it = self.members.iter_mut().filter(|member| member.session.name == *agent);
                of_it.for_each(|member| member.gone = Some(words.clone()));
            }
        }
        troubles.first().clone()
    }

    /// The first that was lost and not yet taken out.
    pub fn first_gone(&self) -> Option<FleetError> {
        let gone =
            |member: &Member| Some(FleetError::Lost { agent: member.session.name.clone(), why: member.gone.clone()? });
        self.members.iter().find_map(gone)
    }

    /// What each agent can take.
    pub fn capacities(&self) -> Vec<Capacity> {
        let capacity = |session: &Session| Capacity {
            agent: session.name.clone(),
            weight: NonZeroU32::max(session.hello.workers, NonZeroU32::MIN),
            ceiling: self.declared_ceiling(session).into_iter().chain(self.learned.get(&session.name).copied()).min(),
            max_connections: session.hello.max_connections,
        };
        self.sessions().map(capacity).collect()
    }

    /// The same by what they say of themselves alone.
    pub fn declared(&self) -> Vec<Capacity> {
        let ceilings = self.sessions().map(|session| self.declared_ceiling(session));
        self.capacities()
            .into_iter()
            .zip(ceilings)
            .map(|(capacity, ceiling)| Capacity { ceiling, ..capacity })
            .collect()
    }

    /// From now on an agent is asked for no more than this.
    pub fn cap(&mut self, agent: usize, ceiling: Rate) {
        self.learned.insert(self.members[agent].session.name.clone(), ceiling);
    }

    /// One line per agent for the report: its box, its workers, and the server of the target that they are connected to.
    pub fn boxes(&self) -> Vec<(String, String)> {
        let words = |Member { session, server, .. }: &Member| {
            let ceiling =
                self.declared_ceiling(session).map_or(String::new(), |ceiling| format!(", at most {ceiling}/s"));
            let server = server.as_ref().map_or(String::new(), |server| format!(", connected to {server}"));
            let AgentHello { workers, hostname, .. } = &session.hello;
            (session.name.clone(), format!("{workers} workers on {hostname}{ceiling}{server}"))
        };
        self.members.iter().map(words).collect()
    }

    /// Has every agent measure what its box can do; no share is above that from then on. What each found, by its name, and why
    /// the others have found nothing.
    pub async fn calibrate(&mut self, order: &CalibrationOrder) -> (Vec<(String, Calibration)>, Vec<FleetError>) {
        for session in self.sessions() {
            session.send(ToAgent::Calibrate(order.into()));
        }
        let calibrated = |event| match event {
            AgentEvent::Calibrated(found) => Some(*found),
            _ => None,
        };
        let deadline = Instant::now() + CALIBRATE_LIMIT;
        let heard = self.hear(0, CALIBRATE, deadline, Patience::UntilAll, calibrated).await;
        let (mut measured, mut troubles) = (Vec::new(), Vec::new());
        for (agent, heard) in heard.into_iter().enumerate() {
            match heard {
                Some(Ok(found)) => measured.push((self.name(agent).to_owned(), found)),
                Some(Err(trouble)) => troubles.push(trouble),
                None => troubles.push(self.no_answer(agent, CALIBRATE, CALIBRATE_LIMIT)),
            }
        }
        self.keep_measured(measured.iter().map(|(name, found)| (name.clone(), found.ceiling)));
        (measured, troubles)
    }

    fn keep_measured(&mut self, ceilings: impl IntoIterator<Item = (String, Rate)>) {
        self.measured.extend(ceilings);
    }

    /// What an agent is asked for at most by what its operator says and its box was measured to do.
    fn declared_ceiling(&self, session: &Session) -> Option<Rate> {
        session.hello.ceiling.into_iter().chain(self.measured.get(&session.name).copied()).min()
    }

    /// Tells every agent about the run: connect to the target, build the fixtures.
    ///
    /// # Errors
    /// Every agent that cannot, or is lost; the others are prepared, unless what was asked is wrong.
    pub async fn prepare(&mut self, plan: &AgentPlan) -> Result<(), NonEmpty<FleetError>> {
        let heard = self.ask_to_prepare(0, plan, Patience::UntilWrong).await;
        self.every(0, heard, PREPARE, PREPARE_LIMIT, Patience::UntilWrong).map(drop)
    }

    /// Tells the agents from this position on.
    async fn ask_to_prepare(&mut self, position: usize, plan: &AgentPlan, patience: Patience) -> Vec<Heard<String>> {
        for Member { index, session, .. } in &self.members[position..] {
            let agent_index = u16::try_from(*index).expect("indices are below the most agents that there can be");
            let plan = AgentPlan { agent_index, ..plan.clone() };
            session.send(ToAgent::Prepare((&plan).into()));
        }
        let prepared = |event| match event {
            AgentEvent::Prepared(server) => Some(server),
            _ => None,
        };
        let heard = self.hear(position, PREPARE, Instant::now() + PREPARE_LIMIT, patience, prepared).await;
        for (member, heard) in self.members[position..].iter_mut().zip(&heard) {
            if let Some(Ok(server)) = heard {
                member.server = (!server.is_empty()).then(|| server.clone());
            }
        }
        heard
    }

    /// Deals rooms and users for these shares. Where users come online one after the other, that may take so much more.
    ///
    /// # Errors
    /// Every agent that cannot, or is lost; with [`Patience::UntilAll`] no other is in the middle of the deal any more.
    pub async fn deal(
        &mut self,
        shares: &[Rate],
        more: Duration,
        patience: Patience,
    ) -> Result<FleetDeal, NonEmpty<FleetError>> {
        if let Some(gone) = self.first_gone() {
            return Err(NonEmpty::one(gone));
        }
        let deal = self.deals;
        self.deals += 1;
        // By index: who is gone, and whose index was never used, sits out.
        let mut share_milli_per_s = vec![0; self.members.last().map_or(0, |last| last.index + 1)];
        for (member, share) in self.members.iter().zip(shares) {
            share_milli_per_s[member.index] = share.milli();
        }
        for session in self.sessions() {
            session.send(ToAgent::Deal(v1::Deal { deal, share_milli_per_s: share_milli_per_s.clone() }));
        }
        let (what, within) = ("subscribe to what its share needs", DEAL_LIMIT + more);
        let heard = self
            .hear(0, what, Instant::now() + within, patience, |event| match event {
                AgentEvent::Dealt(dealt) if dealt.deal == deal => Some(dealt),
                _ => None,
            })
            .await;
        let dealt = self.every(0, heard, what, within, patience)?;
        let summary = DealSummary {
            rooms: dealt.iter().map(|dealt| u64::from(dealt.rooms)).sum(),
            senders: dealt.iter().map(|dealt| u64::from(dealt.senders)).sum(),
            pairs: dealt.iter().fold(0, |sum, dealt| sum.saturating_add(dealt.pairs)),
            largest_deviation_ppm: dealt.iter().map(|dealt| dealt.largest_deviation_ppm).max().unwrap_or(0),
        };
        Ok(FleetDeal { summary, operations_left: dealt.iter().map(|dealt| dealt.operations_left).collect() })
    }

    /// Every agent's clock against ours, by its newest round trips.
    ///
    /// # Errors
    /// An agent's clock is not known in time.
    pub async fn clocks(&mut self, within: Duration) -> Result<Vec<ClockOffset>, FleetError> {
        let clock = async |session: &Session| session.clock(within).await;
        let clocks = join_all(self.sessions().map(clock)).await;
        match clocks.iter().position(Option::is_none) {
            None => Ok(clocks.into_iter().flatten().collect()),
            Some(silent) => Err(self.no_answer(silent, "show its clock by a ping", within)),
        }
    }

    fn no_answer(&mut self, agent: usize, what: &'static str, within: Duration) -> FleetError {
        self.give_up_on(agent, format!("it did not {what} within {within:?}"));
        FleetError::NoAnswer { agent: self.name(agent).to_owned(), what, within }
    }

    /// Queues an order for one agent.
    pub fn send(&self, agent: usize, message: ToAgent) {
        self.members[agent].session.send(message);
    }

    /// Asks every agent to be silent at once.
    pub fn stop(&self, trial: TrialId) {
        let stop = v1::StopStep { step: trial.step, trial: trial.trial };
        self.sessions().for_each(|session| session.send(ToAgent::StopStep(stop)));
    }

    /// What comes next from any agent.
    pub async fn next_event(&mut self) -> (usize, AgentEvent) {
        loop {
            let (index, event) = self.events.recv().await.expect("a sender is kept");
            // What an agent sent before it was taken out concerns nobody.
            let Some(agent) = self.members.iter().position(|member| member.index == index) else { continue };
            if let AgentEvent::Lost(why) = &event {
                self.members[agent].gone.get_or_insert_with(|| why.clone());
            }
            return (agent, event);
        }
    }

    /// Waits until an agent is lost; to be raced against what an idle fleet waits for.
    pub async fn lost(&mut self) -> FleetError {
        loop {
            if let Some(gone) = self.first_gone() {
                return gone;
            }
            self.next_event().await;
        }
    }

    /// Lets every agent go.
    pub async fn release(self) {
        let Self { members, events, .. } = self;
        drop(events);
        join_all(members.into_iter().map(|member| member.session.close(RELEASE_LIMIT))).await;
    }
}

fn check_length(session: &Session, length: Duration) -> Result<(), FleetError> {
    match session.hello.max_run.filter(|limit| length > *limit) {
        None => Ok(()),
        Some(limit) => Err(FleetError::TooLong { agent: session.name.clone(), limit, length }),
    }
}

fn check_workload(session: &Session, workload: &str) -> Result<(), FleetError> {
    if session.hello.workloads.iter().any(|known| known == workload) {
        return Ok(());
    }
    Err(FleetError::Workload {
        agent: session.name.clone(),
        workload: workload.to_owned(),
        known: session.hello.workloads.join(", "),
    })
}

#[cfg(test)]
impl Fleet {
    /// The agent at this position was heard last at this instant of our CLOCK_BOOTTIME.
    pub fn echoed(&self, agent: usize, at_ns: u64) {
        self.members[agent].session.echoed(at_ns);
    }
}

#[cfg(test)]
pub(super) mod tests;
