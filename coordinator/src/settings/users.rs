//! The levels of a run of users.

use std::time::Duration;

use plimsoll_common::plan::Workload;
use plimsoll_common::units::{Rate, Steps};
use plimsoll_common::workload::DailyWorkload;

use super::error::SettingsError;
use super::plan::{FindPlan, Phases, RunPlan};
use super::values::{Named, Values};
use crate::core::split::Capacity;

/// How long the day of a search is unless another length is asked for: as long as the hold of a step.
const FIND_DAY: Duration = Duration::from_secs(180);
/// A search begins at this part of the users that there are: six doublings reach them all.
const FIRST_OF_USERS: u32 = 64;
/// And with at least so many, who do something every second.
const FEWEST_FIRST: u32 = 10;

/// Whether every agent may have the connections that its users need: by the plan, and by its own limit.
///
/// # Errors
/// It may not; in words, with what would do.
pub fn check(plan: &RunPlan, shares: &[Rate], agents: &[Capacity]) -> Result<(), String> {
    let Some(daily) = plan.workload.daily() else { return Ok(()) };
    // Each worker has one of its own beside its users'.
    let needed_by =
        |(share, agent): (&Rate, &Capacity)| daily.connections(share.milli() / 1000) + u64::from(agent.weight.get());
    let needed = shares.iter().zip(agents).map(needed_by).max().unwrap_or(0);
    let most = u64::from(daily.max_connections);
    let users = shares.iter().map(|share| share.milli() / 1000).sum::<u64>();
    if needed <= most {
        let over = |(share, agent): (&Rate, &Capacity)| {
            let needed = needed_by((share, agent));
            agent.max_connections.filter(|&limit| needed > u64::from(limit)).map(|limit| {
                format!(
                    "agent {}: {users} users take {needed} connections to the target there, and its --max-connections is \
                     {limit}: raise it, lower the run's --max-direct-users so that more users share connections, or add agents",
                    agent.agent
                )
            })
        };
        return shares.iter().zip(agents).find_map(over).map_or(Ok(()), Err);
    }
    Err(format!(
        "--max-connections: got '{most}', and {users} users take {needed} connections on one agent: raise it, lower \
         --max-direct-users so that more users share connections, or add agents"
    ))
}

/// What a search makes of people: trials of any length must make the same load, so their day stands still at its peak and is
/// no shorter or longer for any of them.
///
/// # Errors
/// Something else is asked for.
pub fn for_find(values: &Values, workload: Workload) -> Result<Workload, SettingsError> {
    let Workload::Daily(daily) = workload else { return Ok(workload) };
    if !values.switch("find")? {
        return Ok(Workload::Daily(daily));
    }
    if let Some(given) = values.optional("at-peak").filter(|given| given.strength() > 0 && !daily.at_peak) {
        return Err(given
            .error("a search compares holds of several lengths, so its day stands still: expected true with --find"));
    }
    Ok(Workload::Daily(DailyWorkload { at_peak: true, day: Some(daily.day.unwrap_or(FIND_DAY)), ..daily }))
}

/// What a search made of a setting that nobody gave, as a flag takes it.
pub fn of_find(workload: &Workload, setting: &str) -> Option<String> {
    let daily = workload.daily()?;
    match setting {
        "day" => daily.day.map(|day| humantime::format_duration(day).to_string()),
        "at-peak" => Some(daily.at_peak.to_string()),
        _ => None,
    }
}

/// Where a search of users begins: whole users, at most as many as there are.
///
/// # Errors
/// `--from` is none.
pub fn begin(values: &Values, daily: &DailyWorkload, find: FindPlan) -> Result<FindPlan, SettingsError> {
    let all = u64::from(daily.users);
    let from = match (find.from, values.optional("from")) {
        (Some(from), Some(given)) => {
            whole(&given, from)?;
            if from.milli() / 1000 > all {
                return Err(given
                    .error(format!("got {from} users, and the target was seeded for {all}: expected at most that")));
            }
            from
        }
        _ => {
            let first = (daily.users / FIRST_OF_USERS).max(FEWEST_FIRST);
            Rate::per_second(u64::from(first)).expect("there are users")
        }
    };
    Ok(FindPlan { from: Some(from), ..find })
}

/// All users, as one step.
pub fn everybody(daily: &DailyWorkload) -> Steps {
    Steps::from(Rate::per_second(u64::from(daily.users)).expect("there are users"))
}

fn whole(given: &Named, level: Rate) -> Result<(), SettingsError> {
    if level.milli().is_multiple_of(1000) {
        Ok(())
    } else {
        Err(given.error(format!("got {level}, expected whole users")))
    }
}

/// Whole users, at most as many as the target was seeded with. Steps that nobody asked for end there.
///
/// # Errors
/// A step that is no number of users, or of more than there are.
pub fn steps(values: &Values, daily: &DailyWorkload) -> Result<Steps, SettingsError> {
    const TAKES: &str = "numbers of users such as 1k,2k,5k";
    let steps: Steps = values.parsed("steps", TAKES)?;
    let given = values.required("steps", TAKES)?;
    steps.rates().iter().try_for_each(|&step| whole(&given, step))?;
    let fits = |step: &Rate| step.milli() / 1000 <= u64::from(daily.users);
    if steps.rates().iter().all(fits) {
        return Ok(steps);
    }
    if given.strength() > 0 {
        let largest = steps.rates().last().map(Rate::to_string).unwrap_or_default();
        return Err(given.error(format!(
            "got {largest} users, and the target was seeded for {}: expected at most that, or a larger --users, which the \
             target must be seeded with",
            daily.users
        )));
    }
    let list: Vec<String> = steps.rates().iter().filter(|step| fits(step)).map(Rate::to_string).collect();
    let list = if list.is_empty() { daily.users.to_string() } else { list.join(",") };
    list.parse().map_err(|error| given.error(error))
}

/// Whether a day has room for a hold.
///
/// # Errors
/// It has not.
pub fn check_day(values: &Values, daily: &DailyWorkload, phases: Phases) -> Result<(), SettingsError> {
    let short = |day: &Duration| *day < phases.hold && !daily.at_peak;
    match (daily.day.filter(short), values.optional("day")) {
        (Some(_), Some(given)) => {
            let hold = humantime::format_duration(phases.hold);
            Err(given.takes(format!("at least the --hold, which is {hold}: without it, the day is the hold")))
        }
        _ => Ok(()),
    }
}
