//! Splits a target rate into one share per agent: the shares add up exactly and respect what each box can carry.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use plimsoll_common::units::{Rate, split_largest_remainder};

/// What one agent can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Its name, for errors.
    pub agent: String,
    /// Its part relative to the others', such as its worker threads.
    pub weight: NonZeroU32,
    /// Its share is never above this: operations per second, also where levels are users.
    pub ceiling: Option<Rate>,
    /// Connections to the target that it may open, one per worker among them; `None`: without limit.
    pub max_connections: Option<u32>,
}

/// Why a fleet cannot take a target rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Fewer users than agents.
    #[error("{users} users are less than one for each of {agents} agents: raise the level or use fewer agents")]
    TooFewUsers {
        /// The level.
        users: u64,
        /// In the fleet.
        agents: usize,
    },
    /// There is nobody to split over.
    #[error("no agents to split {target}/s over")]
    NoAgents {
        /// The rate asked for.
        target: Rate,
    },
    /// Less than a thousandth of a request per second each.
    #[error("{target}/s is less than 0.001/s for each of {agents} agents: raise the rate or use fewer agents")]
    TooLittle {
        /// The rate asked for.
        target: Rate,
        /// How many agents there are.
        agents: usize,
    },
    /// The ceilings together are below the target.
    #[error(
        "{target}/s is {missing}/s more than the fleet carries ({}): lower the rate, raise the agents' ceilings, or add {}",
        list(ceilings, *sum),
        boxes(*more_boxes)
    )]
    Short {
        /// The rate asked for.
        target: Rate,
        /// What the ceilings leave uncarried.
        missing: Rate,
        /// Every agent and its ceiling.
        ceilings: Vec<(String, Rate)>,
        /// Of all ceilings.
        sum: Rate,
        /// How many more boxes of the largest ceiling would carry the target.
        more_boxes: u64,
    },
    /// The same where levels are users.
    #[error(
        "{users} users are {missing} more than the fleet carries ({}): lower the level, raise the agents' ceilings, or add {}",
        list_users(ceilings, *sum),
        boxes(*more_boxes)
    )]
    ShortOfUsers {
        /// The level.
        users: u64,
        /// What the ceilings leave uncarried.
        missing: u64,
        /// Every agent that has a ceiling, and how many users make it.
        ceilings: Vec<(String, u64)>,
        /// Of all of these.
        sum: u64,
        /// How many more boxes of the largest ceiling would carry the level.
        more_boxes: u64,
    },
}

/// Names beyond this many are counted only: a fleet of a thousand agents is no error text.
const NAMED: usize = 8;

fn list(ceilings: &[(String, Rate)], sum: Rate) -> String {
    list_of(ceilings, sum, "/s")
}

fn list_users(ceilings: &[(String, u64)], sum: u64) -> String {
    list_of(ceilings, sum, " users")
}

fn list_of<T: fmt::Display>(ceilings: &[(String, T)], sum: T, unit: &str) -> String {
    let named: Vec<String> =
        ceilings.iter().take(NAMED).map(|(agent, ceiling)| format!("{agent} at most {ceiling}{unit}")).collect();
    let more = if ceilings.len() > NAMED { format!(", {} more", ceilings.len() - NAMED) } else { String::new() };
    format!("{}{more}; together {sum}{unit}", named.join(", "))
}

fn boxes(more: u64) -> String {
    format!("{more} more {} like the largest", if more == 1 { "box" } else { "boxes" })
}

/// One share per agent, in order: in proportion to the weights, but none above its ceiling (what it cannot take goes to
/// the others) and none below a thousandth of a request per second. The shares add up to `target` exactly.
///
/// # Errors
/// No agents, less than a thousandth for each, or ceilings that together are below the target.
pub fn split(target: Rate, agents: &[Capacity]) -> Result<Vec<Rate>, SplitError> {
    if agents.is_empty() {
        return Err(SplitError::NoAgents { target });
    }
    if target.milli() < agents.len() as u64 {
        return Err(SplitError::TooLittle { target, agents: agents.len() });
    }
    let mut shares = fill(target, agents).ok_or_else(|| short(target, agents))?;
    lift_zeros(&mut shares);
    Ok(shares
        .into_iter()
        .map(|milli| Rate::from_milli(milli).expect("part of a rate, and lifted above zero"))
        .collect())
}

/// Operations due of each of these shares of a level in a window: what each brings in whole, and of what the level brings beside
/// them one more for those with the largest remainders (the first of equals).
pub fn due(level: Rate, shares: &[Rate], window: Duration) -> Vec<u64> {
    let mut due: Vec<u64> = shares.iter().map(|share| share.due_in(window)).collect();
    let whole = due.iter().fold(0, |sum: u64, &due| sum.saturating_add(due));
    let missing = level.due_in(window).saturating_sub(whole);
    let remainder = |share: Rate| u128::from(share.milli()) * window.as_micros() % 1_000_000_000;
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(remainder(shares[index])), index));
    order.into_iter().take(usize::try_from(missing).unwrap_or(usize::MAX)).for_each(|index| due[index] += 1);
    due
}

/// Splits whole users over agents, at least one each and otherwise as [`split`] does. An agent's ceiling is a rate: so many users
/// as make it together, where one makes so many operations per second.
///
/// # Errors
/// There are fewer users than agents, or more than the ceilings take together.
pub fn split_users(level: Rate, per_user: f64, agents: &[Capacity]) -> Result<Vec<Rate>, SplitError> {
    let users = level.milli() / 1000;
    let too_few = || SplitError::TooFewUsers { users, agents: agents.len() };
    // A thousandth stands for a user.
    let level = Rate::from_milli(users).filter(|_| users >= agents.len() as u64).ok_or_else(too_few)?;
    let in_users = |agent: &Capacity| {
        let ceiling = agent.ceiling.and_then(|ceiling| Rate::from_milli(users_within(ceiling, per_user)));
        Capacity { ceiling, ..agent.clone() }
    };
    let agents: Vec<Capacity> = agents.iter().map(in_users).collect();
    let shares = split(level, &agents).map_err(|error| match error {
        SplitError::Short { missing, ceilings, sum, more_boxes, .. } => SplitError::ShortOfUsers {
            users,
            missing: missing.milli(),
            ceilings: ceilings.into_iter().map(|(agent, ceiling)| (agent, ceiling.milli())).collect(),
            sum: sum.milli(),
            more_boxes,
        },
        other => other,
    })?;
    Ok(shares.into_iter().map(|share| Rate::per_second(share.milli()).expect("a part of the users")).collect())
}

/// How many users make no more than this rate; one at least, since an agent without any would be none.
pub fn users_within(ceiling: Rate, per_user: f64) -> u64 {
    // A user more or less for the last digit of a rate.
    ((ceiling.as_f64() / per_user + 1e-6) as u64).max(1)
}

/// Splits by weight, fixes whoever is above its ceiling at it, and splits the rest over the others again until nobody is.
fn fill(target: Rate, agents: &[Capacity]) -> Option<Vec<u64>> {
    let ceiling = |i: usize| agents[i].ceiling.map_or(u64::MAX, Rate::milli);
    let mut shares = vec![0; agents.len()];
    let mut open: Vec<usize> = (0..agents.len()).collect();
    let mut rest = target.milli();
    loop {
        let weights: Vec<u64> = open.iter().map(|&i| u64::from(agents[i].weight.get())).collect();
        let parts = split_largest_remainder(rest, &weights);
        let over = |position: usize| parts[position] > ceiling(open[position]);
        if !(0..open.len()).any(over) {
            open.iter().zip(&parts).for_each(|(&i, &part)| shares[i] = part);
            return (parts.iter().sum::<u64>() == rest).then_some(shares);
        }
        let still: Vec<usize> = (0..open.len()).filter(|&position| !over(position)).map(|p| open[p]).collect();
        for &i in open.iter().filter(|i| !still.contains(i)) {
            shares[i] = ceiling(i);
            rest -= ceiling(i);
        }
        open = still;
    }
}

/// Gives everybody at least a thousandth, taken one by one from the largest; the total is at least one each.
fn lift_zeros(shares: &mut [u64]) {
    for i in 0..shares.len() {
        if shares[i] == 0 {
            let largest = (0..shares.len()).max_by_key(|&j| shares[j]).expect("there is one at least");
            shares[largest] -= 1;
            shares[i] = 1;
        }
    }
}

fn short(target: Rate, agents: &[Capacity]) -> SplitError {
    let ceilings: Vec<(String, Rate)> =
        agents.iter().filter_map(|agent| Some((agent.agent.clone(), agent.ceiling?))).collect();
    let sum: u64 = ceilings.iter().map(|(_, ceiling)| ceiling.milli()).sum();
    let largest = ceilings.iter().map(|(_, ceiling)| ceiling.milli()).max().unwrap_or(1);
    let missing = target.milli() - sum;
    let rate = |milli| Rate::from_milli(milli).expect("positive and at most the target");
    SplitError::Short {
        target,
        missing: rate(missing),
        sum: rate(sum),
        more_boxes: missing.div_ceil(largest),
        ceilings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn capacity(index: usize, weight: u32, ceiling: Option<u64>) -> Capacity {
        let ceiling = ceiling.map(|milli| Rate::from_milli(milli).unwrap());
        let weight = NonZeroU32::new(weight).unwrap();
        Capacity { agent: format!("box-{index}"), weight, ceiling, max_connections: None }
    }

    fn check(target: u64, agents: &[(u32, Option<u64>)]) -> Result<Vec<u64>, String> {
        let agents: Vec<Capacity> =
            agents.iter().enumerate().map(|(i, &(weight, ceiling))| capacity(i, weight, ceiling)).collect();
        split(Rate::from_milli(target).unwrap(), &agents)
            .map(|shares| shares.into_iter().map(Rate::milli).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn shares_follow_the_weights_and_what_a_ceiling_cuts_goes_to_the_others() {
        for (target, agents, shares) in [
            (1000, vec![(1, None), (1, None), (1, None)], vec![334, 333, 333]),
            (1000, vec![(3, None), (1, None)], vec![750, 250]),
            (1000, vec![(1, Some(100)), (1, None)], vec![100, 900]),
            (1000, vec![(1, Some(100)), (1, Some(450)), (2, None)], vec![100, 300, 600]),
            (1000, vec![(1, Some(100)), (1, Some(250)), (2, None)], vec![100, 250, 650]),
            (1000, vec![(1, Some(500)), (1, Some(500))], vec![500, 500]),
            (3, vec![(1_000_000, None), (1, None), (1, None)], vec![1, 1, 1]),
            (1, vec![(1, None)], vec![1]),
        ] {
            assert_eq!(check(target, &agents), Ok(shares), "{target} over {agents:?}");
        }
    }

    #[test]
    fn a_fleet_that_cannot_carry_the_target_says_how_much_is_missing_and_how_many_boxes() {
        insta::assert_snapshot!(
            check(2_000_000, &[(1, Some(500_000)), (1, Some(250_000))]).unwrap_err(),
            @"2000/s is 1250/s more than the fleet carries (box-0 at most 500/s, box-1 at most 250/s; together 750/s): lower the rate, raise the agents' ceilings, or add 3 more boxes like the largest"
        );
        insta::assert_snapshot!(check(1, &[(1, None), (1, None)]).unwrap_err(),
            @"0.001/s is less than 0.001/s for each of 2 agents: raise the rate or use fewer agents");
        insta::assert_snapshot!(check(1, &[]).unwrap_err(), @"no agents to split 0.001/s over");
    }

    /// Users of half an operation per second each; ceilings in operations per second.
    fn check_users(users: u64, agents: &[(u32, Option<u64>)]) -> Result<Vec<u64>, String> {
        let capacity = |(index, &(weight, ceiling)): (usize, &(u32, Option<u64>))| {
            capacity(index, weight, ceiling.map(|ceiling| (ceiling * 1000).max(1)))
        };
        let agents: Vec<Capacity> = agents.iter().enumerate().map(capacity).collect();
        let shares = split_users(Rate::per_second(users).unwrap(), 0.5, &agents);
        shares
            .map(|shares| shares.iter().map(|share| share.milli() / 1000).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn users_follow_the_weights_under_ceilings_that_are_rates() {
        for (users, agents, shares) in [
            (10, vec![(1, None), (1, None), (1, None)], vec![4, 3, 3]),
            // 50/s are a hundred users.
            (1000, vec![(1, Some(50)), (1, None)], vec![100, 900]),
            (200, vec![(1, Some(50)), (1, Some(50))], vec![100, 100]),
            // What is less than a user's is one all the same.
            (3, vec![(1, Some(0)), (1, None)], vec![1, 2]),
            (1000, vec![(1, Some(10_000)), (1, None)], vec![500, 500]),
        ] {
            let agents: Vec<(u32, Option<u64>)> = agents;
            assert_eq!(check_users(users, &agents), Ok(shares), "{users} over {agents:?}");
        }
        insta::assert_snapshot!(check_users(1000, &[(1, Some(50)), (1, Some(200))]).unwrap_err(),
            @"1000 users are 500 more than the fleet carries (box-0 at most 100 users, box-1 at most 400 users; together 500 users): lower the level, raise the agents' ceilings, or add 2 more boxes like the largest");
        insta::assert_snapshot!(check_users(1, &[(1, None), (1, None)]).unwrap_err(),
            @"1 users are less than one for each of 2 agents: raise the level or use fewer agents");
    }

    proptest! {
        #[test]
        fn users_are_split_whole_and_no_agent_makes_more_than_its_ceiling(
            users in 2_u64..100_000, per_user in 0.001_f64..10.0,
            agents in prop::collection::vec((1_u32..100, prop::option::of(1_u64..1_000_000)), 1..20),
        ) {
            let limited = |(index, &(weight, ceiling)): (usize, &(u32, Option<u64>))| capacity(index, weight, ceiling);
            let agents: Vec<Capacity> = agents.iter().enumerate().map(limited).collect();
            if let Ok(shares) = split_users(Rate::per_second(users).unwrap(), per_user, &agents) {
                prop_assert_eq!(shares.iter().map(|share| share.milli()).sum::<u64>(), users * 1000);
                for (share, agent) in shares.iter().zip(&agents) {
                    prop_assert!(share.milli() >= 1000 && share.milli() % 1000 == 0);
                    let makes = share.as_f64() * per_user;
                    let fits = |ceiling: Rate| makes <= ceiling.as_f64() + 0.001 || share.milli() == 1000;
                    prop_assert!(agent.ceiling.is_none_or(fits), "{makes}/s of {agent:?}");
                }
            }
        }

        #[test]
        fn shares_add_up_exactly_and_stay_within_ceilings(
            target in 1_u64..10_000_000_000,
            agents in prop::collection::vec((1_u32..1000, prop::option::of(1_u64..100_000_000)), 1..60),
        ) {
            let unlimited = agents.iter().any(|(_, ceiling)| ceiling.is_none());
            let sum: u64 = agents.iter().filter_map(|&(_, ceiling)| ceiling).sum();
            match check(target, &agents) {
                Ok(shares) => {
                    prop_assert_eq!(shares.iter().sum::<u64>(), target);
                    for (share, (_, ceiling)) in shares.iter().zip(&agents) {
                        prop_assert!(*share >= 1 && ceiling.is_none_or(|ceiling| *share <= ceiling));
                    }
                }
                Err(_) => prop_assert!(target < agents.len() as u64 || (!unlimited && sum < target)),
            }
        }

        #[test]
        fn equal_agents_get_even_shares(target in 1000_u64..1_000_000_000, agents in 1_usize..500) {
            let shares = check(target, &vec![(1, None); agents]).unwrap();
            let (low, high) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(high - low <= 1);
        }
    }

    #[test]
    fn what_is_due_of_all_shares_is_what_the_level_brings() {
        // Twenty agents at 10/s: two and a half each in five seconds; a hundred at 497/s: 4.97 each in a second.
        for (target, agents, seconds, expected) in
            [(10, 20, 5, (2, 3)), (497, 100, 1, (4, 5)), (1_000, 4, 1, (250, 250))]
        {
            let target = Rate::per_second(target).unwrap();
            let agents: Vec<Capacity> = (0..agents).map(|index| capacity(index, 1, None)).collect();
            let shares = split(target, &agents).unwrap();
            let due = due(target, &shares, Duration::from_secs(seconds));
            assert_eq!(due.iter().sum::<u64>(), target.due_in(Duration::from_secs(seconds)));
            assert_eq!((*due.iter().min().unwrap(), *due.iter().max().unwrap()), expected);
        }
    }

    proptest! {
        #[test]
        fn due_operations_add_up_and_no_agent_has_more_than_one_beyond_its_own(
            target in 1000_u64..1_000_000_000, weights in prop::collection::vec(1_u32..100, 1..50), ms in 1_u64..100_000,
        ) {
            let target = Rate::from_milli(target).unwrap();
            let agents: Vec<Capacity> =
                weights.iter().enumerate().map(|(index, &weight)| capacity(index, weight, None)).collect();
            let shares = split(target, &agents).unwrap();
            let window = Duration::from_millis(ms);
            let due = due(target, &shares, window);
            prop_assert_eq!(due.iter().sum::<u64>(), target.due_in(window));
            prop_assert!(due.iter().zip(&shares).all(|(&due, share)| (0..=1).contains(&(due - share.due_in(window)))));
        }
    }
}
