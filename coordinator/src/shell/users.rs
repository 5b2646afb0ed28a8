//! What a run of users does beside one of rates: who comes online and how long that may take, and what their days make due.

use std::time::Duration;

use plimsoll_agent::core::people::{Day, acts_due, owners};
use plimsoll_common::plan::TrialId;
use plimsoll_common::units::Rate;

use super::progress::Progress;
use crate::settings::{Phases, RunPlan};

/// Whether every agent may have the connections that its users need.
///
/// # Errors
/// It may not; in words, with what would do.
pub fn check(plan: &RunPlan, shares: &[Rate]) -> Result<(), String> {
    let Some(daily) = plan.workload.daily() else { return Ok(()) };
    let needed = shares.iter().map(|share| daily.connections(share.milli() / 1000)).max().unwrap_or(0);
    let most = u64::from(daily.max_connections);
    if needed <= most {
        return Ok(());
    }
    Err(format!(
        "--max-connections: got '{most}', and {} users take {needed} connections on one agent: raise it, lower \
         --max-direct-users so that more users share connections, or add agents",
        shares.iter().map(|share| share.milli() / 1000).sum::<u64>()
    ))
}

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

/// Says that users come online, which takes a while.
pub fn say_who_come(plan: &RunPlan, before: &[Rate], shares: &[Rate], progress: &Progress) {
    if plan.workload.daily().is_some() {
        let users = |shares: &[Rate]| shares.iter().map(|share| share.milli() / 1000).sum::<u64>();
        let takes = humantime::format_duration(Duration::from_secs(time_to_come(plan, shares).as_secs().max(1)));
        progress.say(&format!("{} users online, of {}: up to {takes}", users(before), users(shares)));
    }
}

/// What is due of each agent in the warmup and in the hold of a trial, by its users' days; `None`: levels are rates.
pub async fn due(plan: &RunPlan, trial: TrialId, shares: &[Rate], phases: Phases) -> Option<Vec<(u64, u64)>> {
    let daily = plan.workload.daily()?;
    let day = Day::new(daily.day, phases.warmup, phases.hold);
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
