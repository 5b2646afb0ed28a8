//! What a run would do, in words, without doing any of it.

use std::fmt::Write as _;
use std::num::NonZeroU32;

use plimsoll_common::units::Rate;

use super::agents::AgentSource;
use super::plan::{FleetChoice, Goal, RunPlan};
use super::users;
use crate::core::split::Capacity;
use crate::report::search::percent;

/// The resolved plan with the source of every value, and what each agent would do in each step.
///
/// # Errors
/// A step cannot be split over the fleet, or its users take more connections than an agent may have; for people, with what to
/// do.
pub fn describe(plan: &RunPlan) -> Result<String, String> {
    let mut text = String::from("Dry run: nothing is contacted, nothing is started.\n\nSettings\n");
    for applied in &plan.applied {
        line(&mut text, format_args!("  {:<20} {:<40} {}", applied.setting, applied.value, applied.source));
    }
    text.push_str("\nWatched durables\n");
    for durable in &plan.target.durables {
        line(&mut text, format_args!("  {durable}"));
    }
    if plan.target.durables.is_empty() {
        text.push_str("  none\n");
    }
    let agents = capacities(plan);
    line(&mut text, format_args!("\nFleet: {}", fleet_in_words(plan)));
    if let Some(find) = &plan.find {
        line(
            &mut text,
            format_args!(
                "\nSearch: from {} by doubling, then to {} at {} within {}; over:",
                find.from
                    .map_or("where a probe of one second says".to_owned(), |from| format!("{from}{}", plan.unit())),
                percent(find.precision),
                percent(find.confidence),
                humantime::format_duration(find.max_time)
            ),
        );
        split(plan, find.first_level(), &agents)?;
        agents.iter().for_each(|agent| line(&mut text, format_args!("  {}", agent.agent)));
        return Ok(text);
    }
    let phases = plan.phases;
    for (index, &level) in plan.steps.rates().iter().enumerate() {
        let shares = split(plan, level, &agents)?;
        let position = format!("step {} of {}", index + 1, plan.steps.rates().len());
        line(
            &mut text,
            format_args!(
                "\n{position}: {level}{}, {} warmup, {} hold, {} cooldown",
                plan.unit(),
                humantime::format_duration(phases.warmup),
                humantime::format_duration(phases.hold),
                humantime::format_duration(phases.cooldown),
            ),
        );
        let due = |window| crate::core::split::due(level, &shares, window);
        let due = due(phases.warmup).into_iter().zip(due(phases.hold));
        for ((agent, &share), due) in agents.iter().zip(&shares).zip(due) {
            line(&mut text, agent_line(plan, &agent.agent, share, due));
        }
    }
    Ok(text)
}

/// The agents' shares of a level, which a run would take too.
fn split(plan: &RunPlan, level: Rate, agents: &[Capacity]) -> Result<Vec<Rate>, String> {
    let flag = match (&plan.find, plan.goal) {
        (Some(_), _) => "--from",
        (None, Goal::MaxRps) => "--steps",
        (None, Goal::Soak) => "--rate",
    };
    let shares = plan.split(level, agents).map_err(|error| format!("{flag}: {error}"))?;
    users::check(plan, &shares, agents)?;
    Ok(shares)
}

fn agent_line(plan: &RunPlan, agent: &str, share: Rate, (warmup, hold): (u64, u64)) -> String {
    let cap = plan.in_flight_cap(share);
    if let Some(daily) = plan.workload.daily() {
        let (peak, connections) = (plan.rate_of(share), daily.connections(share.milli() / 1000));
        return format!(
            "  {agent}: {share} users on {connections} connections, up to {peak:.0} operations/s, at most {cap} open"
        );
    }
    format!("  {agent}: {share}/s, {warmup} operations in the warmup, {hold} in the hold, at most {cap} open")
}

fn line(text: &mut String, line: impl std::fmt::Display) {
    let line = line.to_string();
    writeln!(text, "{}", line.trim_end()).expect("a String takes every line");
}

fn capacities(plan: &RunPlan) -> Vec<Capacity> {
    let capacity = |agent| Capacity { agent, weight: NonZeroU32::MIN, ceiling: None, max_connections: None };
    match &plan.fleet {
        FleetChoice::Remote(sources) => sources.iter().map(ToString::to_string).map(capacity).collect(),
        FleetChoice::Local(agents) => (1..=*agents).map(|number| capacity(format!("local-{number}"))).collect(),
    }
}

fn fleet_in_words(plan: &RunPlan) -> String {
    let count = |agents: usize| format!("{agents} agent{}", if agents == 1 { "" } else { "s" });
    match &plan.fleet {
        FleetChoice::Remote(sources) => {
            let is_name = |source: &AgentSource| matches!(source, AgentSource::Dns { .. });
            let names = if sources.iter().any(is_name) { ", a name is taken as one agent" } else { "" };
            format!(
                "{} (taken as equal: their workers and ceilings are asked for when the run starts{names})",
                count(sources.len())
            )
        }
        FleetChoice::Local(agents) => format!("{} in this process", count(*agents)),
    }
}
