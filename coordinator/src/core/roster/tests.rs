use std::num::NonZeroU32;

use super::*;
use crate::core::measurement::Fault;
use crate::core::non_empty::NonEmpty;
use crate::core::ramp::{Astray, NextTrial, OnTrip, Ramp};
use crate::core::verdict::{Doubt, Verdict};
use plimsoll_common::units::Steps;
use proptest::prelude::*;

fn policy(min_agents: usize, on_loss: OnAgentLoss, hands: Hands) -> LossPolicy {
    LossPolicy { min_agents, on_loss, hands, comebacks: Comebacks::Any }
}

fn roster(agents: usize, policy: LossPolicy) -> Roster {
    Roster::new(policy, (0..agents).map(|index| (index, format!("box-{index}"))))
}

fn lose(roster: &mut Roster, index: usize, why: &str) {
    roster.lose(index, why.to_owned());
}

/// What a fleet of so many does when these are lost at once.
fn check(agents: usize, policy: LossPolicy, lost: &[usize]) -> String {
    let mut roster = roster(agents, policy);
    lost.iter().for_each(|&index| lose(&mut roster, index, "reset"));
    match roster.decide() {
        Next::GoOn => format!("goes on with {}", roster.present()),
        Next::End { agent, because, .. } => format!("{agent}: {because}"),
    }
}

#[test]
fn a_run_goes_on_as_its_plan_allows() {
    use Hands::{Anew, Once};
    use OnAgentLoss::{Abort, Retry};
    for (agents, policy, lost, expected) in [
        (3, policy(1, Retry, Anew), &[][..], "goes on with 3"),
        (3, policy(1, Retry, Anew), &[1], "goes on with 2"),
        (3, policy(1, Retry, Anew), &[2, 0], "goes on with 1"),
        (3, policy(1, Retry, Anew), &[1, 1, 1], "goes on with 2"),
        (3, policy(2, Retry, Anew), &[2, 0], "box-2: 1 of at least 2 agents are left (--min-agents)"),
        (3, policy(1, Abort, Anew), &[1], "box-1: --on-agent-loss abort ends the run"),
        (1, policy(1, Abort, Once), &[0], "box-0: no agent is left"),
        (2, policy(1, Retry, Anew), &[0, 1], "box-0: no agent is left"),
        (3, policy(1, Retry, Once), &[], "goes on with 3"),
        (
            3,
            policy(1, Retry, Once),
            &[1],
            "box-1: what this workload uses up is dealt once, and the part of a lost agent cannot be dealt again: seed \
             the target anew",
        ),
    ] {
        assert_eq!(check(agents, policy, lost), expected, "{agents} {policy:?} {lost:?}");
    }
}

#[test]
fn who_comes_back_gets_an_index_of_its_own_and_only_between_steps() {
    let mut roster = roster(2, policy(1, OnAgentLoss::Retry, Hands::Anew));
    let before = |step, trial| Occasion::before(TrialId { step, trial });
    roster.lose(0, "reset".into());
    assert_eq!(roster.decide(), Next::GoOn);
    assert!(roster.wants("box-0") && !roster.may_join(before(1, 1)) && roster.may_join(before(2, 0)));
    assert_eq!(roster.next_index(), Some(2));
    roster.joined("box-0".into());
    assert!(!roster.wants("box-0") && roster.present() == 2);
    let lost = FleetChange::Lost { agent: "box-0".into(), why: "reset".into() };
    assert_eq!(roster.take_changes(), [lost, FleetChange::Joined { agent: "box-0".into() }]);
    assert_eq!(roster.take_changes(), []);
    // A late word on its first life changes nothing of its second.
    roster.lose(0, "again".into());
    assert_eq!((roster.decide(), roster.present()), (Next::GoOn, 2));
    let once = Roster { policy: policy(1, OnAgentLoss::Retry, Hands::Once), ..roster };
    assert!(!once.may_join(before(2, 0)), "nobody can be dealt a part any more");
}

#[test]
fn indices_end_where_ids_do() {
    let full = roster(MAX_AGENTS, policy(1, OnAgentLoss::Retry, Hands::Anew));
    assert_eq!((full.next_index(), full.may_join(Occasion::NewStep)), (None, false));
}

/// What befalls a fleet before and in a trial.
#[derive(Debug, Clone)]
struct Mishap {
    before: Vec<usize>,
    within: Vec<usize>,
    back: bool,
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let some = || prop::collection::vec(0_usize..12, 0..3);
    (some(), some(), any::<bool>()).prop_map(|(before, within, back)| Mishap { before, within, back })
}

fn lost_verdict(agents: &[usize]) -> Verdict {
    let lost = |&agent: &usize| {
        let after = std::time::Duration::from_secs(1);
        Doubt::Fault(Fault::AgentLost { agent: format!("#{agent}"), after, why: "reset".into() })
    };
    NonEmpty::new(agents.iter().map(lost).collect()).map_or(Verdict::Pass, Verdict::Inconclusive)
}

#[test]
fn who_is_there_or_was_shut_out_is_not_asked_again() {
    let mut roster = roster(2, policy(1, OnAgentLoss::Retry, Hands::Anew));
    assert!(!roster.wants("box-0") && roster.wants("box-2"));
    roster.lose(0, "reset".into());
    assert!(roster.wants("box-0"), "one that is lost may come back");
    roster.shut_out("box-0".into());
    assert!(!roster.wants("box-0"), "one whose way fails may not");
}

#[test]
fn who_is_lost_again_before_a_trial_was_held_with_it_does_not_come_back() {
    let mut roster = roster(2, policy(1, OnAgentLoss::Retry, Hands::Anew));
    // Before the first trial of a step that nothing is ever recorded of: the same trial is begun anew each time.
    assert_eq!(roster.lose(0, "reset".into()), None);
    assert!(roster.wants("box-0"), "it was there from the beginning");
    roster.joined("box-0".into());
    assert_eq!(roster.lose(2, "reset".into()), Some(ShutOut::HeldNothing));
    assert!(!roster.wants("box-0"));
    let Some(FleetChange::Lost { why, .. }) = roster.take_changes().pop() else { panic!("it was lost") };
    assert_eq!(why, format!("reset; {}", ShutOut::HeldNothing), "the report says so too");

    // Who has held a trial since it joined comes back as often as it does, in whichever trial it is lost.
    for index in 3..10 {
        roster.joined("box-9".into());
        roster.held();
        assert_eq!(roster.lose(index, "reset".into()), None);
        assert!(roster.wants("box-9"));
    }
}

#[test]
fn in_a_search_nobody_comes_back_twice() {
    let once = LossPolicy { comebacks: Comebacks::Once, ..policy(1, OnAgentLoss::Retry, Hands::Anew) };
    let mut roster = roster(2, once);
    roster.held();
    assert_eq!((roster.lose(0, "reset".into()), roster.wants("box-0")), (None, true));
    roster.joined("box-0".into());
    roster.held();
    assert_eq!((roster.lose(2, "reset".into()), roster.wants("box-0")), (Some(ShutOut::LostTwice), false));
    assert_eq!((roster.lose(1, "reset".into()), roster.wants("box-1")), (None, true), "each has its own");
}

#[test]
fn who_is_slow_alone_stays_out_and_who_is_cut_off_comes_back_once() {
    let mut roster = roster(3, policy(1, OnAgentLoss::Retry, Hands::Anew));
    roster.held();
    roster.strays("box-0", Strays::Slow);
    roster.strays("box-1", Strays::CutOff);
    assert_eq!((roster.lose(0, "slow".into()), roster.wants("box-0")), (Some(ShutOut::SlowAlone), false));
    assert_eq!((roster.lose(1, "silent".into()), roster.wants("box-1")), (None, true));
    roster.joined("box-1".into());
    roster.held();
    // A loss of another kind is none of its way.
    assert_eq!((roster.lose(3, "reset".into()), roster.wants("box-1")), (None, true));
    roster.joined("box-1".into());
    roster.held();
    roster.strays("box-1", Strays::CutOff);
    assert_eq!((roster.lose(4, "silent".into()), roster.wants("box-1")), (Some(ShutOut::CutOffTwice), false));
}

#[test]
fn a_fleet_that_is_lost_before_every_trial_ends_a_run_though_all_of_it_is_always_back() {
    let mut roster = roster(3, policy(1, OnAgentLoss::Retry, Hands::Anew));
    let mut attempts = 0;
    // One trial of a ramp that is never recorded.
    while roster.decide() == Next::GoOn && roster.present() > 0 {
        attempts += 1;
        assert!(attempts < 10, "does not end");
        for name in ["box-0", "box-1", "box-2"] {
            if roster.may_join(Occasion::NewStep) && roster.wants(name) {
                roster.joined(name.into());
            }
        }
        let there = roster.members.iter().position(|member| member.is_there);
        there.map(|index| roster.lose(index, "reset".into()));
    }
    assert_eq!(attempts, 6, "each was lost twice");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn every_run_ends_and_no_step_passes_in_a_trial_that_lost_an_agent(
        agents in 1_usize..5,
        min_agents in 1_usize..4,
        retry in any::<bool>(),
        mishaps in prop::collection::vec(mishap(), 1..12),
    ) {
        let on_loss = if retry { OnAgentLoss::Retry } else { OnAgentLoss::Abort };
        let mut roster = roster(agents, policy(min_agents.min(agents), on_loss, Hands::Anew));
        let steps: Steps = "500,1k,2k".parse().unwrap();
        let mut ramp = Ramp::new(&steps, OnTrip::Stop, NonZeroU32::MIN, Astray::Stay);
        let mut mishaps = mishaps.into_iter().cycle();
        let (mut turns, mut most_there) = (0, agents);
        let ended = loop {
            let Some(NextTrial { trial, .. }) = ramp.next_trial() else { break None };
            turns += 1;
            // Each turn either passes a step or loses somebody, and within a step nobody comes back.
            prop_assert!(turns <= 3 * (most_there + 1) * 2, "does not end");
            let Mishap { before, within, back } = mishaps.next().unwrap();
            if back && roster.may_join(Occasion::before(trial)) {
                let index = roster.next_index().unwrap();
                prop_assert!(trial.trial == 0 && index == roster.members.len());
                roster.joined(format!("late-{index}"));
            }
            most_there = most_there.max(roster.present());
            let there = |roster: &Roster, index: usize| roster.members.get(index).is_some_and(|m| m.is_there);
            before.iter().for_each(|&index| lose(&mut roster, index, "before"));
            if let Next::End { because, .. } = roster.decide() { break Some(because) }
            prop_assert!(roster.present() >= min_agents.min(agents));
            let mut hit: Vec<usize> = within.into_iter().filter(|&index| there(&roster, index)).collect();
            hit.dedup();
            roster.held();
            hit.iter().for_each(|&index| lose(&mut roster, index, "within"));
            ramp.record(lost_verdict(&hit));
            let last = ramp.trials().last().unwrap();
            prop_assert_eq!(last.verdict == Verdict::Pass, hit.is_empty());
            if let Next::End { because, .. } = roster.decide() { break Some(because) }
        };
        match ended {
            Some(Because::NobodyLeft) => prop_assert_eq!(roster.present(), 0),
            Some(Because::Plan) => prop_assert!(!retry),
            Some(Because::TooFew { left, min }) => prop_assert!(left < min && left == roster.present()),
            Some(Because::DealtOnce) => prop_assert!(false, "nothing was used up"),
            None => {
                let passed = ramp.trials().iter().filter(|trial| trial.verdict == Verdict::Pass).count();
                prop_assert_eq!(passed, 3, "every step was held to its end by those who were left");
            }
        }
    }
}
