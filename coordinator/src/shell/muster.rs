//! Brings a fleet together: where its agents are, a fleet that is still starting, and who comes back of those that were lost.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_agent::shell::logs;
use plimsoll_common::plan::AgentPlan;
use tokio::time::{Instant, sleep, timeout};

use super::fleet::{Fleet, FleetError};
use super::session::{AgentAddress, Claim};
use crate::core::roster::Roster;
use crate::settings::GatherPlan;
use crate::settings::agents::AgentSource;

/// What a run waits before a step for agents that are not there: a box that is up answers within a few round trips.
const JOIN_LIMIT: Duration = Duration::from_secs(2);
/// How long a name server may take.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a fleet that is still starting.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What every agent of a run is told, whenever it joins.
#[derive(Debug)]
pub struct Muster {
    /// Where agents are.
    pub agents: Whereabouts,
    /// Of the lease.
    pub claim: Claim,
    /// Of the run.
    pub plan: AgentPlan,
    /// How long the run may hold an agent.
    pub longest: Duration,
}

/// Where a run's agents are.
#[derive(Debug)]
pub enum Whereabouts {
    /// In this process, where they stay.
    Here(Vec<AgentAddress>),
    /// Where the user says; names are looked up whenever it is asked.
    Elsewhere(Vec<AgentSource>),
}

impl Whereabouts {
    /// Every agent's address, each once; and, by itself, what could not be looked up.
    pub async fn look_up(&self) -> (Vec<AgentAddress>, Option<FleetError>) {
        match self {
            Self::Here(addresses) => (addresses.clone(), None),
            Self::Elsewhere(sources) => look_up(sources).await,
        }
    }
}

/// Every agent's address, each once; and, by itself, the first name that could not be looked up.
pub async fn look_up(sources: &[AgentSource]) -> (Vec<AgentAddress>, Option<FleetError>) {
    let (mut agents, mut failed): (Vec<AgentAddress>, Option<FleetError>) = (Vec::new(), None);
    for source in sources {
        match source {
            AgentSource::Host(address) => agents.push(AgentAddress::at(address)),
            AgentSource::Dns { name, port } => match addresses_of(name, *port).await {
                // A fleet behind one name shows one name in its certificates.
                Ok(found) => agents.extend(
                    found
                        .iter()
                        .map(|address| AgentAddress { given: name.clone(), ..AgentAddress::at(&address.to_string()) }),
                ),
                Err(why) => {
                    failed.get_or_insert(FleetError::Unreachable { agent: source.to_string(), why });
                }
            },
        }
    }
    let mut known = std::collections::HashSet::new();
    agents.retain(|agent| known.insert(agent.address.clone()));
    (agents, failed)
}

/// The addresses of a name, ascending. One that has both families is of agents that listen on one: the older is what they
/// default to.
async fn addresses_of(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let looked_up = timeout(LOOK_UP_LIMIT, tokio::net::lookup_host((name, port))).await;
    let found = looked_up.map_err(|_| format!("its name was not looked up within {LOOK_UP_LIMIT:?}"))?;
    let mut all: Vec<SocketAddr> = found.map_err(|error| error.to_string())?.collect();
    if all.iter().any(SocketAddr::is_ipv4) {
        all.retain(SocketAddr::is_ipv4);
    }
    all.sort_unstable();
    if all.is_empty() { Err("its name has no address".to_owned()) } else { Ok(all) }
}

/// Claims every agent: all that are named, or as many as the plan waits for.
///
/// # Errors
/// An agent cannot be used, or too few answered in time. Those that were claimed are let go.
pub async fn gather(
    agents: &Whereabouts,
    plan: Option<GatherPlan>,
    claim: &Claim,
    workload: &str,
) -> Result<Fleet, FleetError> {
    let Some(GatherPlan { agents: wanted, timeout }) = plan else {
        let (addresses, failed) = agents.look_up().await;
        return match failed {
            Some(error) => Err(error),
            None => Fleet::connect(&addresses, claim, workload).await,
        };
    };
    let deadline = Instant::now() + timeout;
    let mut fleet = Fleet::nobody();
    let mut shown = None;
    loop {
        let (addresses, failed) = agents.look_up().await;
        let mut missing: Vec<FleetError> = failed.into_iter().collect();
        missing.extend(fleet.claim_absent(&addresses, claim, workload, JOIN_LIMIT).await?);
        if fleet.len() >= wanted {
            return Ok(fleet);
        }
        if shown != Some(fleet.len()) {
            logs::say(format_args!("waiting for agents: {} of {wanted} are there", fleet.len()));
            shown = Some(fleet.len());
        }
        if Instant::now() >= deadline {
            return Err(FleetError::TooFew { there: fleet.len(), wanted, within: timeout, missing });
        }
        sleep(LOOK_AGAIN).await;
    }
}

impl Muster {
    /// Takes in who is wanted and not there, as far as they answer. Their names.
    pub async fn rejoin(&self, fleet: &mut Fleet, roster: &mut Roster) -> Vec<String> {
        let Some(first) = roster.next_index() else { return Vec::new() };
        let (wanted, failed) = self.agents.look_up().await;
        if let Some(error) = failed {
            tracing::warn!(%error, "nobody joins from there before this step");
        }
        let absent = wanted.into_iter().filter(|agent| roster.wants(&agent.name));
        let absent: Vec<AgentAddress> = absent.take(roster.room()).collect();
        if absent.is_empty() {
            return Vec::new();
        }
        let joined = fleet.admit(&absent, first, self, JOIN_LIMIT).await;
        let Some(&last) = joined.last() else { return Vec::new() };
        let mut names = Vec::new();
        for (index, agent) in (first..=last).zip(absent) {
            if joined.contains(&index) {
                names.push(agent.name.clone());
                roster.joined(agent.name);
            } else {
                roster.spoil_index(agent.name);
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::agents::sources;

    #[tokio::test]
    async fn every_address_of_a_name_is_an_agent_and_each_is_one_only_once() {
        let sources = sources("localhost:7,dns:localhost:7700,127.0.0.1:7700").unwrap();
        let (agents, failed) = look_up(&sources).await;
        let names: Vec<&str> = agents.iter().map(|agent| &*agent.name).collect();
        assert_eq!((names, failed), (vec!["localhost:7", "127.0.0.1:7700"], None));
        let given: Vec<&str> = agents.iter().map(|agent| &*agent.given).collect();
        assert_eq!(given, ["localhost", "localhost"], "certificates are for names");
    }

    #[tokio::test]
    async fn a_name_that_stands_for_nobody_is_told() {
        let (agents, failed) = look_up(&sources("dns:nowhere.invalid:7,a:1").unwrap()).await;
        assert_eq!(agents.len(), 1);
        assert!(matches!(failed, Some(FleetError::Unreachable { agent, .. }) if agent == "dns:nowhere.invalid:7"));
    }
}
