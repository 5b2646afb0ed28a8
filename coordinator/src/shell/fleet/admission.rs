//! Claiming agents: all at once for a fleet, or some beside those that are there, and who of them can take part.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use plimsoll_common::plan::AgentPlan;
use plimsoll_common::wire::{MAX_NAME, printable};
use tokio::time::timeout;

use super::answers::{Heard, Patience};
use super::orders::{PREPARE, PREPARE_LIMIT};
use super::{Fleet, FleetError, Member};
use crate::shell::describe::{Holding, holding};
use crate::shell::muster::Muster;
use crate::shell::session::{AgentAddress, AgentEvent, Claim, Session};

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

    /// Claims these at once, under indices from `first` on.
    async fn open(&self, agents: &[AgentAddress], first: usize, claim: &Claim) -> Vec<Result<Member, FleetError>> {
        let open = |(index, agent)| Session::open(agent, index, claim, self.events_in.clone());
        let opened = join_all((first..).zip(agents).map(open)).await;
        let member =
            |(index, session): (usize, Result<Session, FleetError>)| session.map(|session| Member::new(index, session));
        let opened = (first..).zip(opened).map(member).collect();
        self.tell_holders(opened, agents, claim).await
    }

    /// Says more exactly whose those are that are leased: a daemon that is named twice refuses one of the claims since this very run
    /// holds it, and a process before this one may not be over there yet.
    async fn tell_holders(
        &self,
        opened: Vec<Result<Member, FleetError>>,
        agents: &[AgentAddress],
        claim: &Claim,
    ) -> Vec<Result<Member, FleetError>> {
        let there = self.members.iter().chain(opened.iter().flatten()).map(|member| &member.session);
        let ours: HashMap<String, String> =
            there.map(|session| (session.hello.instance.clone(), session.name.clone())).collect();
        // Who is there already comes before all that were just asked.
        let place = |name: &str| agents.iter().position(|agent| agent.name == name);
        let told = opened.into_iter().zip(agents).map(async |(opened, agent)| match opened {
            Err(denied) if denied.is_of_another() => Err(whose(denied, agent, claim, &ours, place).await),
            opened => opened,
        });
        join_all(told).await
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

    pub(super) async fn admit_opened(
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
        let is_absent = |agent: &&AgentAddress| self.sessions().all(|session| session.name != agent.name);
        let absent: Vec<AgentAddress> = agents.iter().filter(is_absent).cloned().collect();
        let first = self.members.iter().map(|member| member.index + 1).max().unwrap_or(0);
        let open = async |(index, agent): (usize, &AgentAddress)| {
            let opened = timeout(within, Session::open(agent, index, claim, self.events_in.clone())).await;
            let late = || FleetError::Unreachable {
                agent: agent.address.clone(),
                why: format!("it did not answer within {within:?}"),
            };
            opened.unwrap_or_else(|_| Err(late())).map(|session| Member::new(index, session))
        };
        let opened = join_all((first..).zip(&absent).map(open)).await;
        let opened = self.tell_holders(opened, &absent, claim).await;
        let mut missing = Vec::new();
        let mut wrong = Ok(());
        for opened in opened {
            match opened {
                Ok(member) => self.members.push(member),
                Err(error) if error.may_pass() => missing.push(error),
                Err(error) => wrong = wrong.and(Err(error)),
            }
        }
        wrong?;
        self.check_identities()?;
        self.sessions().try_for_each(|session| check_workload(session, workload))?;
        Ok(missing)
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

    /// Whether every agent lets a run be this long.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check_length(&self, length: Duration) -> Result<(), FleetError> {
        self.sessions().try_for_each(|session| check_length(session, length))
    }
}

/// Whose an agent is that says it is leased.
async fn whose(
    denied: FleetError,
    agent: &AgentAddress,
    claim: &Claim,
    ours: &HashMap<String, String>,
    place: impl Fn(&str) -> Option<usize>,
) -> FleetError {
    let Some(Holding { instance, holder }) = holding(agent, &claim.wire).await else { return denied };
    if let Some(first) = ours.get(&instance) {
        let (first, second) = (first.clone(), agent.name.clone());
        let swapped = place(&first) > place(&second);
        let (first, second) = if swapped { (second, first) } else { (first, second) };
        return FleetError::SameAgent { first, second };
    }
    match holder {
        Some(holder) if holder.run_id == claim.run_id || holder.coordinator == claim.coordinator => {
            let printable = |text: &str| printable(text, MAX_NAME);
            let (coordinator, run_id) = (printable(&holder.coordinator), printable(&holder.run_id));
            FleetError::HeldBefore { agent: agent.address.clone(), coordinator, run_id }
        }
        _ => denied,
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
