//! What a run of users does beside one of rates: who comes online and how long that may take, and what their days make due.

use std::time::Duration;

use plimsoll_agent::core::people::{Day, acts_due, owners};
use plimsoll_common::plan::TrialId;
use plimsoll_common::units::Rate;

use super::progress::Progress;
use crate::core::search::plan::{Bound, Levels, Users};
use crate::core::split::Capacity;
use crate::settings::{Phases, RunPlan};

pub use crate::settings::users::check;

/// Whether a deal for these shares does for those: parts of rates are enough, users come and go.
pub fn stand(plan: &RunPlan, dealt: &[Rate], shares: &[Rate], rates_do: fn(&[Rate], &[Rate]) -> bool) -> bool {
    match plan.workload.daily() {
        Some(_) => dealt == shares,
        None => rates_do(dealt, shares),
    }
}

/// How long users may take to come online beyond what dealing takes.
pub fn time_to_come(plan: &RunPlan, shares: &[Rate]) -> Duration {
    let Some(daily) = plan.workload.daily() else { return Duration::ZERO };
    let most = shares.iter().map(|share| share.as_f64()).fold(0.0, f64::max);
    Duration::from_secs_f64(most / daily.activation_rate.as_f64())
}

/// What the levels of a search are, and the highest of them; `None`: no limit is known.
pub fn levels_to_search(plan: &RunPlan, agents: &[Capacity]) -> (Levels, Option<Rate>) {
    let ceilings: Option<Vec<Rate>> = agents.iter().map(|agent| agent.ceiling).collect();
    let ceiling = ceilings.and_then(|all| Rate::from_milli(all.iter().map(|ceiling| ceiling.milli()).sum()));
    let Some(daily) = plan.workload.daily() else { return (Levels::Rates, ceiling) };
    let fewest = (agents.len() as u64).max(1);
    let seeded = u64::from(daily.users);
    let users = |count: u64| Rate::per_second(count.max(1)).expect("users are fewer than a rate may be");
    let most = |fits: &dyn Fn(Rate) -> bool| largest(fewest, seeded, |count| fits(users(count)));
    let carried = most(&|level| plan.split(level, agents).is_ok());
    let connected = most(&|level| plan.split(level, agents).is_ok_and(|shares| check(plan, &shares, agents).is_ok()));
    let bound = match () {
        () if connected >= seeded => Bound::Seeded,
        () if connected < carried => Bound::Connections,
        () => Bound::Fleet,
    };
    let users_of_levels = Users {
        operations: plan.rate_of(users(1_000)).as_f64() / 1_000.0,
        activation: daily.activation_rate.as_f64() * agents.len().max(1) as f64,
        fewest,
        bound,
    };
    (Levels::Users(users_of_levels), Some(users(seeded.min(connected))))
}

/// The largest number for which this holds, where it holds up to one and not beyond; `least` where it holds for none.
fn largest(least: u64, most: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (least, most.max(least));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if holds(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// How much longer than others agents take to be armed: everybody's day is begun.
pub fn time_to_begin(plan: &RunPlan, shares: &[Rate]) -> Duration {
    const AT_LEAST: Duration = Duration::from_millis(200);
    // Some microseconds on a core that others want too.
    const OF_EACH: Duration = Duration::from_micros(20);
    if plan.workload.daily().is_none() {
        return Duration::ZERO;
    }
    let most = shares.iter().map(|share| share.milli() / 1000).max().unwrap_or(0);
    AT_LEAST + OF_EACH * u32::try_from(most).unwrap_or(u32::MAX)
}

/// Says that users come online, which takes a while, or go, which does not.
pub fn say_who_come(plan: &RunPlan, before: &[Rate], shares: &[Rate], progress: &Progress) {
    if plan.workload.daily().is_some() {
        let users = |shares: &[Rate]| shares.iter().map(|share| share.milli() / 1000).sum::<u64>();
        let (before, wanted) = (users(before), users(shares));
        if wanted <= before {
            return progress.say(&format!("{before} users online, of whom {wanted} stay"));
        }
        let takes = humantime::format_duration(Duration::from_secs(time_to_come(plan, shares).as_secs().max(1)));
        progress.say(&format!("{before} users online, of {wanted}: up to {takes}"));
    }
}

/// What is due of each agent in the warmup and in the hold of a trial, by its users' days; `None`: levels are rates.
pub async fn due(plan: &RunPlan, trial: TrialId, shares: &[Rate], phases: Phases) -> Option<Vec<(u64, u64)>> {
    let daily = plan.workload.daily()?;
    let day = Day::of(daily, phases.warmup, phases.hold);
    let (seed, counts) = (plan.seed, shares.iter().map(|share| share.milli() / 1000).collect::<Vec<u64>>());
    // A second for 100,000 users: long enough to hold up whoever waits for an echo.
    let computed = tokio::task::spawn_blocking(move || {
        let mut due = vec![(0, 0); counts.len()];
        for (user, owner) in (0..).zip(owners(&counts)) {
            let (warmup, hold) = acts_due(seed, trial, [user], &day);
            let sums: &mut (u64, u64) = &mut due[usize::from(owner)];
            *sums = (sums.0 + warmup, sums.1 + hold);
        }
        due
    });
    computed.await.ok()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::settings::{Invocation, read};

    fn highest(flags: &str, ceiling: Option<u64>) -> (u64, Bound) {
        highest_with(flags, ceiling, None)
    }

    fn highest_with(flags: &str, ceiling: Option<u64>, max_connections: Option<u32>) -> (u64, Bound) {
        let arguments = format!("plimsoll daily --preset daily-light --find {flags}");
        let plan = match read(arguments.split_whitespace().map(Into::into), &|_| None) {
            Ok(Invocation::Load(plan)) => plan,
            other => panic!("{other:?}"),
        };
        let agent = |agent: &str| Capacity {
            agent: agent.into(),
            weight: NonZeroU32::MIN,
            ceiling: ceiling.and_then(Rate::per_second),
            max_connections,
        };
        let (levels, highest) = levels_to_search(&plan, &[agent("a"), agent("b")]);
        let Levels::Users(users) = levels else { panic!("{levels:?}") };
        assert_eq!((users.activation, users.fewest), (1_000.0, 2));
        // Of a day of three minutes at its peak.
        assert!((0.714..0.716).contains(&users.operations), "{users:?}");
        (highest.map_or(0, |level| level.milli() / 1000), users.bound)
    }

    #[test]
    fn a_search_of_users_ends_at_what_was_seeded_or_may_be_connected_or_can_be_driven() {
        assert_eq!(highest("--users 5k", None), (5_000, Bound::Seeded));
        assert_eq!(highest("--users 5k --max-connections 1001", None), (2_000, Bound::Connections));
        // An agent's own limit, of which its one worker has one.
        assert_eq!(highest_with("--users 5k", None, Some(501)), (1_000, Bound::Connections));
        assert_eq!(highest_with("--users 5k", Some(100), Some(501)).1, Bound::Fleet);
        // Beyond the first thousand they share.
        assert_eq!(
            highest("--users 5k --max-connections 1k --max-direct-users 900 --multiplex-pool-size 50", None),
            (5_000, Bound::Seeded)
        );
        // Twice 1,000 operations per second.
        let (users, bound) = highest("--users 5k", Some(1_000));
        assert!((2_790..2_805).contains(&users) && bound == Bound::Fleet, "{users} {bound:?}");
    }
}
