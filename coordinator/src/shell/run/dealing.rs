//! Who gets which part of a level: by what the boxes have shown, and by what is left of what operations use up.

use plimsoll_common::units::Rate;

use super::{Dealt, Run, Stop};
use crate::core::budget::Short;
use crate::core::headroom::{learned, with_headroom};
use crate::core::measurement::StepMeasurement;
use crate::core::non_empty::NonEmpty;
use crate::core::split::{SplitError, due};
use crate::core::verdict::Verdict;
use crate::settings::Phases;
use crate::shell::fleet::{FleetDeal, FleetError, Patience};
use crate::shell::users;

/// A deal stays while no agent's part of the whole moves by more than this; rounding alone moves it.
const DEAL_TOLERANCE: f64 = 0.001;

/// A room's rate that differs from its weight by more than this is worth a warning.
const DEVIATION_WARNING_PPM: u64 = 50_000;

impl Run<'_> {
    /// Whether what operations use up lasts for these levels.
    pub(super) fn can_hold(&self, levels: &[Rate], phases: Phases) -> bool {
        self.short_of(levels, phases).is_none()
    }

    /// The first agent whose part of what operations use up does not last for these levels.
    pub(super) fn short_of(&self, levels: &[Rate], phases: Phases) -> Option<Short> {
        let budget = self.dealt.budget.as_ref()?;
        let capacities = self.crew.fleet.capacities();
        let mut needed = vec![0; capacities.len()];
        for &level in levels {
            // A level that cannot be split is refused when it is held.
            let shares = self.plan.split(level, &capacities).unwrap_or_default();
            let each = needed.iter_mut().zip(planned(level, &shares, phases));
            each.for_each(|(sum, planned): (&mut u64, u64)| *sum = sum.saturating_add(planned));
        }
        budget.short(&needed)
    }

    /// Takes what a trial showed of its boxes: those that are too small get less, and the others the rest. Where work is dealt
    /// once, it stays as it was dealt.
    pub(super) fn learn(&mut self, step: &StepMeasurement, verdict: Verdict) -> (Verdict, Vec<Capped>) {
        if self.dealt.budget.is_some() {
            return (verdict, Vec::new());
        }
        let last = self.trials.last().filter(|last| last.judged.level == step.target);
        let before = last.map(|last| &last.judged.verdict);
        let learned = learned(step, &verdict, before, |share| self.plan.rate_of(share));
        if learned.is_empty() {
            return (verdict, Vec::new());
        }
        let capped = |(agent, ceiling): (usize, Rate)| {
            self.crew.fleet.cap(agent, ceiling);
            let share = step.agents[agent].share;
            Capped { agent: self.crew.fleet.name(agent).to_owned(), share, ceiling: self.plan.share_within(ceiling) }
        };
        let capped = learned.into_iter().map(capped).collect();
        (with_headroom(verdict, self.plan.split(step.target, &self.crew.fleet.capacities())), capped)
    }

    /// Says and keeps what was learned.
    pub(super) fn cap(&mut self, capped: Vec<Capped>) {
        for Capped { agent, share, ceiling } in capped {
            self.progress.say(&format!(
                "warning: agent {agent} could not carry {share}{0}: from now on it is asked for at most {ceiling}{0}",
                self.plan.unit()
            ));
            self.crew.roster.cap(agent, share, ceiling, self.plan.asked());
        }
    }

    /// Each agent's share of a level: by what the boxes showed, or where they cannot carry it so, as if they had not shown
    /// it, since only a trial says that a level is out of reach.
    pub(super) fn shares(&self, level: Rate) -> Result<Vec<Rate>, SplitError> {
        self.plan
            .split(level, &self.crew.fleet.capacities())
            .or_else(|_| self.plan.split(level, &self.crew.fleet.declared()))
    }

    /// Deals rooms and users again where an agent's part of the whole has changed.
    pub(super) async fn deal_for(&mut self, shares: &[Rate]) -> Result<(), Stop> {
        // What is used up is dealt once: a new deal would use it again.
        if self.dealt.budget.is_some() || users::stand(self.plan, &self.dealt.shares, shares, is_alike) {
            return Ok(());
        }
        // Who is left when others are lost, or have shown that they are small, may not take all of their users.
        users::check(self.plan, shares, &self.crew.fleet.capacities()).map_err(Stop::Failed)?;
        users::say_who_come(self.plan, &self.dealt.shares, shares, &self.progress);
        let more = users::time_to_come(self.plan, shares);
        let dealt = tokio::select! {
            biased;
            () = self.interrupt.raised() => return Err(Stop::Interrupted),
            dealt = self.crew.fleet.deal(shares, more, Patience::UntilAll) => dealt,
        };
        let FleetDeal { summary, .. } = dealt.map_err(|troubles| self.not_dealt(troubles))?;
        self.dealt = Dealt { shares: shares.to_vec(), summary, budget: None };
        self.warn_of_deviation();
        Ok(())
    }

    /// What a deal that came to nothing does to the run: the others can be dealt anew where agents are missing, and nothing else
    /// is wrong.
    pub(super) fn not_dealt(&mut self, troubles: NonEmpty<FleetError>) -> Stop {
        // Some of them may hold the new deal by now, and others the old one.
        self.dealt.shares.clear();
        self.crew.shut_out_cut_off(troubles.iter(), |words| self.progress.say(words));
        self.crew.fleet.not_done(&troubles).into()
    }

    pub(super) fn warn_of_deviation(&self) {
        let deviation = self.dealt.summary.largest_deviation_ppm;
        if deviation > DEVIATION_WARNING_PPM {
            self.progress.say(&format!(
                "warning: a room's rate differs from its weight by up to {:.1} %: fewer agents or a larger preset would \
                 follow the service's mix",
                deviation as f64 / 10_000.0
            ));
        }
    }
}

/// An agent whose box is too small.
pub(super) struct Capped {
    agent: String,
    /// In the unit of levels, as the other.
    share: Rate,
    ceiling: Rate,
}

/// Operations that each agent is to make of a trial of a level.
pub(super) fn planned(level: Rate, shares: &[Rate], phases: Phases) -> impl Iterator<Item = u64> {
    let (warmup, hold) = (due(level, shares, phases.warmup), due(level, shares, phases.hold));
    warmup.into_iter().zip(hold).map(|(warmup, hold)| warmup.saturating_add(hold))
}

fn is_alike(dealt: &[Rate], shares: &[Rate]) -> bool {
    let sum = |shares: &[Rate]| shares.iter().map(|share| share.as_f64()).sum::<f64>();
    let (dealt_sum, sum) = (sum(dealt), sum(shares));
    let moved = |(dealt, share): (&Rate, &Rate)| {
        let (dealt, share) = (dealt.as_f64() / dealt_sum, share.as_f64() / sum);
        (share / dealt - 1.0).abs() > DEAL_TOLERANCE
    };
    dealt.len() == shares.len() && !dealt.iter().zip(shares).any(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(texts: &[&str]) -> Vec<Rate> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_deal_stands_while_the_parts_of_the_whole_do() {
        let thirds = rates(&["166.667", "166.667", "166.666"]);
        assert!(is_alike(&thirds, &rates(&["333.334", "333.333", "333.333"])));
        assert!(!is_alike(&thirds, &rates(&["100", "200", "200"])));
        assert!(!is_alike(&thirds, &rates(&["250", "250"])));
    }
}
