//! Brings a fleet together: where its agents are, a fleet that is still starting, and who comes back of those that were lost.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_agent::shell::logs;
use plimsoll_common::plan::AgentPlan;
use rand::TryRng as _;
use rand::rngs::SysRng;
use tokio::time::{Instant, sleep, timeout};

use super::fleet::{Admission, Fleet, FleetError};
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
    /// How long the run may hold an agent, from its beginning.
    pub longest: Duration,
    /// When that was.
    pub began: Instant,
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

/// Claims every agent: all that are named, or as many as the plan waits for. Who was claimed so far is in the fleet at any time.
///
/// # Errors
/// An agent cannot be used, or too few answered in time.
pub async fn gather(
    agents: &Whereabouts,
    plan: Option<GatherPlan>,
    claim: &Claim,
    workload: &str,
    fleet: &mut Fleet,
) -> Result<(), FleetError> {
    let Some(GatherPlan { agents: wanted, timeout }) = plan else {
        let (addresses, failed) = agents.look_up().await;
        failed.map_or(Ok(()), Err)?;
        *fleet = Fleet::connect(&addresses, claim, workload).await?;
        return Ok(());
    };
    let deadline = Instant::now() + timeout;
    let mut shown = None;
    loop {
        let (addresses, failed) = agents.look_up().await;
        let mut missing: Vec<FleetError> = failed.into_iter().collect();
        missing.extend(fleet.claim_absent(&addresses, claim, workload, JOIN_LIMIT).await?);
        if fleet.len() >= wanted {
            return Ok(());
        }
        if !fleet.is_empty() && missing.iter().any(FleetError::is_of_another) && Instant::now() < deadline {
            // Another may wait for those that we hold, as we do for its: whoever comes back first has them all. They are not
            // released, which would end those that are there for one run: nobody had any.
            logs::say(format_args!("agents are let go for a while: others of {wanted} are leased to somebody else"));
            *fleet = Fleet::nobody();
            shown = None;
            sleep(random_pause()).await;
            continue;
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

/// Between letting agents go and claiming them again: so different for two that most often one finds all of them free.
fn random_pause() -> Duration {
    // From the system's entropy: two runs with one seed must differ here.
    let chance = SysRng.try_next_u64().unwrap_or_default();
    LOOK_AGAIN + Duration::from_millis(chance % 3_500)
}

impl Muster {
    /// Takes in who is wanted and not there, as far as they answer. Whoever answers, by name, and what came of it: one that
    /// cannot take part is not wanted any more.
    pub async fn rejoin(&self, fleet: &mut Fleet, roster: &mut Roster) -> Vec<(String, Admission)> {
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
        let to_come = self.longest.saturating_sub(self.began.elapsed());
        let admissions = fleet.admit(&absent, first, self, to_come, JOIN_LIMIT).await;
        take_in(roster, absent.into_iter().map(|agent| agent.name).zip(admissions).collect())
    }
}

/// Writes down who joined under the indices from the next one on. Of those who are absent nothing is told.
fn take_in(roster: &mut Roster, asked: Vec<(String, Admission)>) -> Vec<(String, Admission)> {
    // An agent that was told its index may have used it.
    let told = asked.iter().rposition(|(_, admission)| *admission != Admission::Absent).map_or(0, |last| last + 1);
    for (name, admission) in &asked[..told] {
        match admission {
            Admission::Joined => roster.joined(name.clone()),
            Admission::Absent => roster.spoil_index(name.clone()),
            Admission::Unfit(_) => {
                roster.spoil_index(name.clone());
                roster.shut_out(name.clone());
            }
        }
    }
    asked.into_iter().filter(|(_, admission)| *admission != Admission::Absent).collect()
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

    #[test]
    fn who_cannot_take_part_is_not_asked_again_and_its_index_is_nobody_elses() {
        use crate::core::roster::{Comebacks, Hands, LossPolicy, OnAgentLoss};
        let policy =
            LossPolicy { min_agents: 1, on_loss: OnAgentLoss::Retry, hands: Hands::Anew, comebacks: Comebacks::Any };
        let mut roster = Roster::new(policy, [(0, "a".to_owned())]);
        let unfit = || Admission::Unfit("no way to the target".to_owned());
        let asked =
            |asked: &[(&str, Admission)]| asked.iter().map(|(name, to)| (name.to_string(), to.clone())).collect();
        let told = take_in(&mut roster, asked(&[("b", Admission::Absent), ("c", Admission::Joined), ("d", unfit())]));
        assert_eq!(told, [("c".to_owned(), Admission::Joined), ("d".to_owned(), unfit())]);
        assert_eq!((roster.present(), roster.next_index()), (2, Some(4)));
        assert_eq!(["a", "b", "c", "d"].map(|name| roster.wants(name)), [false, true, false, false]);
        take_in(&mut roster, asked(&[("b", Admission::Absent)]));
        assert_eq!(roster.next_index(), Some(4), "an index that nobody was told is not used up");
    }
}
