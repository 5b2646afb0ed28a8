//! What becomes of agents whose run ends before it began.

use std::collections::HashSet;
use std::time::Duration;

use plimsoll_agent::shell::logs;
use tokio::time::{Instant, sleep};

use super::fleet::{Fleet, FleetError};
use super::identity::RunIdentity;
use super::muster::look_up;
use super::session::{Claim, Secrets};
use super::tls::Wire;
use crate::exit::Failure;
use crate::settings::agents::AgentSource;
use crate::settings::{GatherPlan, RunPlan};

/// How long a run that ends before it began waits for agents, to let them go: pods of one run start together.
const LET_GO_LIMIT: Duration = Duration::from_secs(60);
/// How long each of them may take to answer.
const LET_GO_EACH: Duration = Duration::from_secs(2);
/// Between two looks at them.
const LET_GO_AGAIN: Duration = Duration::from_millis(500);

/// How far a run that ends before it began has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// No agent knows of it.
    Nobody,
    /// Agents were claimed; their sessions are over.
    Agents,
}

/// Tells the agents of a fleet that was waited for that its run is over before it began: those that are there for one run would wait
/// on. Those that are still starting are waited for, as long as the run would have, up to a limit.
pub async fn let_go(
    plan: &RunPlan,
    sources: &[AgentSource],
    gather: GatherPlan,
    identity: &RunIdentity,
    reached: Reached,
    why: &Failure,
) {
    let Ok(wire) = Wire::of(plan.tls.as_ref()) else { return };
    let claim = Claim {
        coordinator: identity.coordinator.clone(),
        run_id: identity.run_id.clone(),
        lease_timeout: plan.lease_timeout,
        secrets: Secrets::None,
        wire,
        ceilings: None,
    };
    let longest = match reached {
        Reached::Nobody => gather.timeout.min(LET_GO_LIMIT),
        Reached::Agents => LET_GO_EACH,
    };
    let until = Instant::now() + longest;
    let mut told: HashSet<String> = HashSet::new();
    let mut waits = false;
    loop {
        let (mut agents, _) = look_up(sources).await;
        agents.retain(|agent| !told.contains(&agent.name));
        let mut fleet = Fleet::nobody();
        // Who cannot be used has no run of ours.
        let absent = fleet.claim_absent(&agents, &claim, plan.workload.name(), LET_GO_EACH).await.unwrap_or_default();
        told.extend(fleet.names().into_iter().map(|(_, name)| name));
        fleet.release().await;
        let missing = gather.agents.saturating_sub(told.len());
        let again = match reached {
            Reached::Nobody => missing > 0,
            // One that has yet to notice that its session is over says that it is leased.
            Reached::Agents => {
                absent.iter().any(|error| matches!(error, FleetError::Denied { .. } | FleetError::HeldBefore { .. }))
            }
        };
        if !again || Instant::now() >= until {
            return;
        }
        if !waits && reached == Reached::Nobody {
            logs::say(format_args!("the run ends before it began: {why}"));
            logs::say(format_args!("waiting for {missing} agents, to let them go"));
            waits = true;
        }
        sleep(LET_GO_AGAIN).await;
    }
}
