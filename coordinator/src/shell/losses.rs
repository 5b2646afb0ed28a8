//! Agents that are lost, before a run's first load as in it: who they were, and whether it goes on without them.

use std::time::Duration;

use super::fleet::{Fleet, FleetError, Gone, Refusal};
use crate::core::non_empty::NonEmpty;
use crate::core::roster::{Because, Comebacks, Hands, LossPolicy, Next, Roster};
use crate::settings::RunPlan;

/// Who makes a run's load, and when those who were lost are silent.
#[derive(Debug)]
pub struct Crew {
    /// Who is there.
    pub fleet: Fleet,
    /// Who ever was.
    pub roster: Roster,
    /// The instant of our CLOCK_BOOTTIME, in nanoseconds, from which those who were lost send nothing; nobody is given their
    /// share before. 0: nobody was lost.
    pub silent_at_ns: u64,
}

impl Crew {
    /// Before anybody was claimed.
    pub fn nobody(plan: &RunPlan) -> Self {
        Self { fleet: Fleet::nobody(), roster: Roster::new(loss_policy(plan), []), silent_at_ns: 0 }
    }

    /// The fleet is together, before its first load.
    pub fn is_together(&mut self, plan: &RunPlan) {
        self.roster = Roster::new(loss_policy(plan), self.fleet.names());
    }

    /// How long from this instant of our CLOCK_BOOTTIME until those who were lost can send no more: before, nobody is given their
    /// share.
    pub fn silent_in(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(self.silent_at_ns.saturating_sub(now_ns))
    }

    /// Takes out who was lost and says so; whether the run goes on. `None`: nobody was.
    pub fn take_lost(&mut self, mut say: impl FnMut(&str)) -> Option<Next> {
        let gone = self.fleet.take_gone();
        if gone.is_empty() {
            return None;
        }
        for Gone { index, agent, why, silent_at_ns } in gone {
            self.silent_at_ns = self.silent_at_ns.max(silent_at_ns);
            say(&format!("warning: agent {agent} was lost: {why}"));
            if let Some(out) = self.roster.lose(index, why) {
                say(&format!("warning: agent {agent}: {out}"));
            }
        }
        Some(self.roster.decide())
    }

    /// One box whose way to the target fails is a box less, and nothing that the service did: before the same trial it would fail
    /// again.
    pub fn shut_out_cut_off<'a>(&mut self, troubles: impl Iterator<Item = &'a FleetError>, mut say: impl FnMut(&str)) {
        for trouble in troubles {
            if let FleetError::Refused { agent, kind: Refusal::Unreachable, .. } = trouble {
                self.roster.shut_out(agent.clone());
                say(&format!("warning: agent {agent} does not come back in this run: its way to the target fails"));
            }
        }
    }

    /// Goes on before the first load without those who are in trouble, where the plan allows it.
    ///
    /// # Errors
    /// What ends the run: the trouble that decides, and the plan's reason where it is one.
    pub fn go_on_without(
        &mut self,
        troubles: Vec<FleetError>,
        mut say: impl FnMut(&str),
    ) -> Result<(), (FleetError, Option<Because>)> {
        let Some(troubles) = NonEmpty::new(troubles) else { return Ok(()) };
        let decides = self.fleet.not_done(&troubles);
        if !decides.is_a_loss() {
            return Err((decides, None));
        }
        // Nobody is told of comebacks where nobody is left to wait for them.
        let lost: Vec<FleetError> = troubles.iter().cloned().collect();
        if lost.len() < self.fleet.len() {
            self.shut_out_cut_off(lost.iter(), &mut say);
        }
        match self.take_lost(say) {
            // Nothing was used up yet: it can be dealt again.
            None | Some(Next::GoOn | Next::End { because: Because::DealtOnce, .. }) => Ok(()),
            Some(Next::End { because: Because::NobodyLeft, .. }) => Err((decides, None)),
            Some(Next::End { because, .. }) => Err((decides, Some(because))),
        }
    }
}

/// What a plan says of lost agents.
fn loss_policy(plan: &RunPlan) -> LossPolicy {
    LossPolicy {
        min_agents: plan.min_agents,
        on_loss: plan.on_agent_loss,
        hands: if plan.workload.pool().is_some() { Hands::Once } else { Hands::Anew },
        comebacks: if plan.find.is_some() { Comebacks::Once } else { Comebacks::Any },
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::tests::Scene;
    use super::*;
    use crate::core::roster::{FleetChange, OnAgentLoss};

    fn crew(agents: usize, policy: LossPolicy) -> Crew {
        let fleet = Scene::of(agents).fleet;
        let roster = Roster::new(policy, fleet.names());
        Crew { fleet, roster, silent_at_ns: 0 }
    }

    fn policy(min_agents: usize, on_loss: OnAgentLoss, hands: Hands) -> LossPolicy {
        LossPolicy { min_agents, on_loss, hands, comebacks: Comebacks::Any }
    }

    fn lost(agent: &str) -> FleetError {
        FleetError::Lost { agent: agent.to_owned(), why: "reset".to_owned() }
    }

    #[tokio::test]
    async fn nobody_is_given_a_lost_agents_share_before_its_lease_must_have_ended() {
        let mut crew = crew(3, policy(1, OnAgentLoss::Retry, Hands::Anew));
        assert_eq!((crew.take_lost(|_| {}), crew.silent_in(0)), (None, Duration::ZERO));
        // The test's sessions have a lease of 3 s, and echoed last at these instants.
        crew.fleet.give_up_on(0, "reset".to_owned());
        crew.fleet.echoed(0, 5_000_000_000);
        assert_eq!(crew.take_lost(|_| {}), Some(Next::GoOn));
        crew.fleet.give_up_on(0, "cut off".to_owned());
        crew.fleet.echoed(0, 4_000_000_000);
        let mut said = Vec::new();
        assert_eq!(crew.take_lost(|words| said.push(words.to_owned())), Some(Next::GoOn));
        assert_eq!(said, ["warning: agent box-1 was lost: cut off"]);
        // The later of the two counts.
        let silent_in = [0, 7_900_000_000, 8_000_000_000, 9_000_000_000].map(|now_ns| crew.silent_in(now_ns));
        assert_eq!(silent_in, [8000, 100, 0, 0].map(Duration::from_millis));
    }

    #[tokio::test]
    async fn before_the_first_load_the_others_go_on_as_far_as_the_plan_lets_them() {
        let gone = || {
            let mut crew = crew(3, policy(2, OnAgentLoss::Retry, Hands::Once));
            crew.fleet.give_up_on(1, "reset".to_owned());
            crew
        };
        let mut crew = gone();
        assert_eq!(crew.go_on_without(vec![lost("box-1")], |_| {}), Ok(()));
        assert_eq!((crew.fleet.len(), crew.roster.present(), crew.roster.wants("box-1")), (2, 2, true));
        let told = crew.roster.take_changes();
        assert!(
            matches!(&told[..], [FleetChange::Lost { agent, why }] if agent == "box-1" && why == "reset"),
            "{told:?}"
        );
        // With fewer than the plan asks for it ends, in the words of who was lost.
        crew.fleet.give_up_on(0, "reset".to_owned());
        let end = crew.go_on_without(vec![lost("box-0")], |_| {});
        assert_eq!(end, Err((lost("box-0"), Some(Because::TooFew { left: 1, min: 2 }))));
        // Whose way to the target fails does not come back; what was asked wrongly ends the run at once.
        let refused = |kind| FleetError::Refused { agent: "box-2".into(), what: "do it", words: "no".into(), kind };
        let mut crew = gone();
        assert_eq!(
            crew.go_on_without(vec![refused(Refusal::Order), lost("box-1")], |_| {}),
            Err((refused(Refusal::Order), None))
        );
        let mut crew = self::crew(3, policy(1, OnAgentLoss::Retry, Hands::Anew));
        assert_eq!(crew.go_on_without(vec![refused(Refusal::Unreachable)], |_| {}), Ok(()));
        assert!(!crew.roster.wants("box-2") && crew.fleet.len() == 2);
    }
}
