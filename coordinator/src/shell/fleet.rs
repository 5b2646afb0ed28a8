//! All agents of a run, as one: orders go to each, answers are awaited from all.

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
use tokio::time::{Instant, timeout, timeout_at};

pub use error::FleetError;

use super::muster::Muster;
use super::session::{AgentAddress, AgentEvent, Claim, Session};
use crate::core::clock_offset::ClockOffset;
use crate::core::split::Capacity;
use crate::report::DealSummary;

/// Fixtures of the largest preset and connections to a slow target take seconds, not minutes.
const PREPARE_LIMIT: Duration = Duration::from_secs(60);
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
    events: mpsc::Receiver<(usize, AgentEvent)>,
    events_in: mpsc::Sender<(usize, AgentEvent)>,
}

#[derive(Debug)]
struct Member {
    /// In all deals, and in the ids of its operations.
    index: usize,
    session: Session,
    /// What it has shown that it carries.
    learned: Option<Rate>,
    /// Why it is lost.
    gone: Option<String>,
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
        Self { members: Vec::new(), events, events_in }
    }

    /// Claims these at once, under indices from `first` on.
    async fn open(&self, agents: &[AgentAddress], first: usize, claim: &Claim) -> Vec<Result<Member, FleetError>> {
        let open = |(index, agent)| Session::open(agent, index, claim, self.events_in.clone());
        let opened = join_all((first..).zip(agents).map(open)).await;
        let opened = name_twice_named(opened, agents, claim).await;
        let member = |(index, session): (usize, Result<Session, FleetError>)| {
            session.map(|session| Member { index, session, learned: None, gone: None })
        };
        (first..).zip(opened).map(member).collect()
    }

    /// Claims agents beside those that are there, under indices from `first` on, and prepares them: the indices of those that
    /// take part from the next deal on. Whoever cannot within `within` is let go; all of them, where one cannot be prepared.
    pub async fn admit(
        &mut self,
        agents: &[AgentAddress],
        first: usize,
        muster: &Muster,
        within: Duration,
    ) -> Vec<usize> {
        let open = async |(index, agent)| {
            let opened = timeout(within, Session::open(agent, index, &muster.claim, self.events_in.clone())).await;
            Some(Member { index, session: opened.ok()?.ok()?, learned: None, gone: None })
        };
        let opened = join_all((first..).zip(agents).map(open)).await;
        let position = self.members.len();
        for member in opened.into_iter().flatten() {
            self.members.push(member);
            let newest = &self.members[self.members.len() - 1].session;
            let fits = check_workload(newest, muster.plan.workload.name())
                .and_then(|()| check_length(newest, muster.longest))
                .and_then(|()| self.check_identities());
            if let Err(error) = fits {
                tracing::warn!(%error, "an agent does not join");
                self.members.pop();
            }
        }
        if let Err(error) = self.prepare_from(position, &muster.plan).await {
            tracing::warn!(%error, "an agent that came back could not be prepared");
            self.members.truncate(position);
        }
        self.members[position..].iter().map(|member| member.index).collect()
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
            opened.unwrap_or_else(|_| Err(late())).map(|session| Member { index, session, learned: None, gone: None })
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

    /// Gives up on who refused so, and names it; nobody where the error is another.
    pub fn give_up_on_who_refused(&mut self, error: &FleetError) -> Option<String> {
        let FleetError::Refused { agent: name, words, .. } = error else { return None };
        let member = self.members.iter_mut().find(|member| member.session.name == *name)?;
        member.gone = Some(words.clone());
        Some(name.clone())
    }

    /// The first that was lost and not yet taken out.
    pub fn first_gone(&self) -> Option<FleetError> {
        let gone =
            |member: &Member| Some(FleetError::Lost { agent: member.session.name.clone(), why: member.gone.clone()? });
        self.members.iter().find_map(gone)
    }

    /// What each agent can take.
    pub fn capacities(&self) -> Vec<Capacity> {
        let capacity = |Member { session, learned, .. }: &Member| Capacity {
            agent: session.name.clone(),
            weight: NonZeroU32::max(session.hello.workers, NonZeroU32::MIN),
            ceiling: session.hello.ceiling.into_iter().chain(*learned).min(),
            max_connections: session.hello.max_connections,
        };
        self.members.iter().map(capacity).collect()
    }

    /// The same by what they say of themselves alone.
    pub fn declared(&self) -> Vec<Capacity> {
        let ceilings = self.sessions().map(|session| session.hello.ceiling);
        self.capacities()
            .into_iter()
            .zip(ceilings)
            .map(|(capacity, ceiling)| Capacity { ceiling, ..capacity })
            .collect()
    }

    /// From now on an agent is asked for no more than this.
    pub fn cap(&mut self, agent: usize, ceiling: Rate) {
        self.members[agent].learned = Some(ceiling);
    }

    /// One line per agent for the report: its box and its workers.
    pub fn boxes(&self) -> Vec<(String, String)> {
        let words = |session: &Session| {
            let ceiling = session.hello.ceiling.map_or(String::new(), |ceiling| format!(", at most {ceiling}/s"));
            (session.name.clone(), format!("{} workers on {}{ceiling}", session.hello.workers, session.hello.hostname))
        };
        self.sessions().map(words).collect()
    }

    /// Has every agent measure what its box can do; no share is above that from then on.
    ///
    /// # Errors
    /// An agent cannot, or is lost.
    pub async fn calibrate(&mut self, order: &CalibrationOrder) -> Result<Vec<Calibration>, FleetError> {
        for session in self.sessions() {
            session.send(ToAgent::Calibrate(order.into()));
        }
        let found = self
            .answers("measure what its box can do", CALIBRATE_LIMIT, |event| match event {
                AgentEvent::Calibrated(found) => Some(*found),
                _ => None,
            })
            .await?;
        for (member, found) in self.members.iter_mut().zip(&found) {
            let hello = &mut member.session.hello;
            hello.ceiling = Some(hello.ceiling.map_or(found.ceiling, |own| own.min(found.ceiling)));
        }
        Ok(found)
    }

    /// Tells every agent about the run: connect to the target, build the fixtures. What each server says of itself.
    ///
    /// # Errors
    /// An agent cannot, or is lost.
    pub async fn prepare(&mut self, plan: &AgentPlan) -> Result<Vec<String>, FleetError> {
        self.prepare_from(0, plan).await
    }

    async fn prepare_from(&mut self, position: usize, plan: &AgentPlan) -> Result<Vec<String>, FleetError> {
        for Member { index, session, .. } in &self.members[position..] {
            let agent_index = u16::try_from(*index).expect("indices are below the most agents that there can be");
            let plan = AgentPlan { agent_index, ..plan.clone() };
            session.send(ToAgent::Prepare((&plan).into()));
        }
        self.answers_from(position, "prepare the run", PREPARE_LIMIT, |event| match event {
            AgentEvent::Prepared(server) => Some(server),
            _ => None,
        })
        .await
    }

    /// Deals rooms and users for these shares. Where users come online one after the other, that may take so much more.
    ///
    /// # Errors
    /// An agent cannot, or is lost.
    pub async fn deal(&mut self, deal: u32, shares: &[Rate], more: Duration) -> Result<FleetDeal, FleetError> {
        // By index: who is gone, and whose index was never used, sits out.
        let mut share_milli_per_s = vec![0; self.members.last().map_or(0, |last| last.index + 1)];
        for (member, share) in self.members.iter().zip(shares) {
            share_milli_per_s[member.index] = share.milli();
        }
        for session in self.sessions() {
            session.send(ToAgent::Deal(v1::Deal { deal, share_milli_per_s: share_milli_per_s.clone() }));
        }
        let dealt = self
            .answers("subscribe to what its share needs", DEAL_LIMIT + more, |event| match event {
                AgentEvent::Dealt(dealt) if dealt.deal == deal => Some(dealt),
                _ => None,
            })
            .await?;
        let summary = DealSummary {
            rooms: dealt.iter().map(|dealt| u64::from(dealt.rooms)).sum(),
            senders: dealt.iter().map(|dealt| u64::from(dealt.senders)).sum(),
            pairs: dealt.iter().map(|dealt| dealt.pairs).sum(),
            largest_deviation_ppm: dealt.iter().map(|dealt| dealt.largest_deviation_ppm).max().unwrap_or(0),
        };
        Ok(FleetDeal { summary, operations_left: dealt.iter().map(|dealt| dealt.operations_left).collect() })
    }

    /// Every agent's clock against ours, by its newest round trips.
    ///
    /// # Errors
    /// An agent's clock is not known in time.
    pub async fn clocks(&mut self, within: Duration) -> Result<Vec<ClockOffset>, FleetError> {
        let clock = async |session: &Session| timeout(within, session.clock()).await.ok().flatten();
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

    /// Waits until everybody who is left has said that a stopped trial is over, or for `limit`: no agent takes an order
    /// before.
    pub async fn settle(&mut self, trial: TrialId, limit: Duration) {
        let mut over = vec![false; self.len()];
        let all_over = async {
            while self.members.iter().zip(&over).any(|(member, over)| member.gone.is_none() && !over) {
                if let (agent, AgentEvent::Totals(totals)) = self.next_event().await {
                    over[agent] |= totals.trial == trial;
                }
            }
        };
        if timeout(limit, all_over).await.is_err() {
            tracing::debug!("not every agent said that its trial is over");
        }
    }

    /// One answer from every agent; what else they send meanwhile belongs to what is over and is dropped.
    pub async fn answers<T>(
        &mut self,
        what: &'static str,
        within: Duration,
        pick: impl FnMut(AgentEvent) -> Option<T>,
    ) -> Result<Vec<T>, FleetError> {
        self.answers_from(0, what, within, pick).await
    }

    /// The same from the agents from this position on; of the others only a loss is heard, and kept for whoever asks next.
    async fn answers_from<T>(
        &mut self,
        position: usize,
        what: &'static str,
        within: Duration,
        mut pick: impl FnMut(AgentEvent) -> Option<T>,
    ) -> Result<Vec<T>, FleetError> {
        let deadline = Instant::now() + within;
        let mut answers: Vec<Option<T>> = self.members[position..].iter().map(|_| None).collect();
        while let Some(missing) = answers.iter().position(Option::is_none) {
            if let Some(gone) = self.members[position..].iter().find(|member| member.gone.is_some()) {
                let why = gone.gone.clone().unwrap_or_default();
                return Err(FleetError::Lost { agent: gone.session.name.clone(), why });
            }
            let Ok((agent, event)) = timeout_at(deadline, self.next_event()).await else {
                return Err(self.no_answer(position + missing, what, within));
            };
            let Some(place) = agent.checked_sub(position) else { continue };
            match event {
                AgentEvent::Refused { words, unreachable } => {
                    return Err(FleetError::Refused { agent: self.name(agent).to_owned(), what, words, unreachable });
                }
                event => answers[place] = pick(event).or(answers[place].take()),
            }
        }
        Ok(answers.into_iter().flatten().collect())
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
