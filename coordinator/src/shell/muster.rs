//! Brings a fleet together: who is to make load, and who came back of those that were lost.

use std::time::Duration;

use plimsoll_common::plan::AgentPlan;

use super::fleet::Fleet;
use super::session::{AgentAddress, Claim};
use crate::core::roster::Roster;

/// What a run waits before a step for agents that are not there: a box that is up answers within a few round trips.
const JOIN_LIMIT: Duration = Duration::from_secs(2);

/// What every agent of a run is told, whenever it joins.
#[derive(Debug)]
pub struct Muster {
    /// Where agents are.
    pub addresses: Vec<AgentAddress>,
    /// Of the lease.
    pub claim: Claim,
    /// Of the run.
    pub plan: AgentPlan,
}

impl Muster {
    /// Takes in who is wanted and not there, as far as they answer.
    pub async fn rejoin(&self, fleet: &mut Fleet, roster: &mut Roster) {
        let Some(first) = roster.next_index() else { return };
        let absent = self.addresses.iter().filter(|agent| !roster.has(&agent.name));
        let absent: Vec<AgentAddress> = absent.take(roster.room()).cloned().collect();
        if absent.is_empty() {
            return;
        }
        let joined = fleet.admit(&absent, first, self, JOIN_LIMIT).await;
        let Some(&last) = joined.last() else { return };
        for (index, agent) in (first..=last).zip(absent) {
            if joined.contains(&index) {
                roster.joined(agent.name);
            } else {
                roster.spoil_index(agent.name);
            }
        }
    }
}
