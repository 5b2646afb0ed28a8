//! Who makes the load: agents at addresses or in this process, how many there have to be, and what each can do.

use std::time::Duration;

use plimsoll_agent::shell::files;
use plimsoll_common::plan::{MAX_AGENTS, Workload};

use super::LONGEST;
use crate::core::ceilings::Ceilings;
use crate::core::roster::OnAgentLoss;
use crate::settings::agents::{AgentSource, sources};
use crate::settings::error::SettingsError;
use crate::settings::layers::Source;
use crate::settings::plan::{FleetChoice, GatherPlan};
use crate::settings::values::{Named, Values, number};

/// More text than this holds no ceilings.
const MOST_FILE_BYTES: u64 = 1024 * 1024;
/// More agents than this in one process are no fleet but a mistake.
const MOST_LOCAL: u64 = 64;

/// Agents at addresses, or in this process: the stronger of the two flags, and never both.
pub(super) fn fleet(values: &Values) -> Result<FleetChoice, SettingsError> {
    let (agents, local) = (values.optional("agents"), values.optional("local"));
    match (&agents, &local) {
        (Some(agents), Some(local)) if agents.strength() == local.strength() => {
            Err(local.error("agents in this process and --agents exclude each other: give only one of the two"))
        }
        (Some(agents), other) if other.as_ref().is_none_or(|local| agents.strength() > local.strength()) => {
            remote(agents).map(FleetChoice::Remote)
        }
        (_, Some(local)) => Ok(FleetChoice::Local(number(local, 1, MOST_LOCAL)? as usize)),
        _ => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Ok(FleetChoice::Local(cores.saturating_sub(1).clamp(1, MOST_LOCAL as usize)))
        }
    }
}

pub(super) fn on_agent_loss(values: &Values) -> Result<OnAgentLoss, SettingsError> {
    let value = values.required("on-agent-loss", "retry or abort")?;
    match value.text() {
        "retry" => Ok(OnAgentLoss::Retry),
        "abort" => Ok(OnAgentLoss::Abort),
        _ => Err(value.takes("retry or abort")),
    }
}

pub(super) fn min_agents(values: &Values) -> Result<usize, SettingsError> {
    Ok(values.number("min-agents", 1, MAX_AGENTS as u64)? as usize)
}

fn remote(value: &Named) -> Result<Vec<AgentSource>, SettingsError> {
    sources(value.text()).map_err(|problem| value.error(problem))
}

/// How long to wait for how many agents, where that is asked for.
pub(super) fn gather(values: &Values, fleet: &FleetChoice) -> Result<Option<GatherPlan>, SettingsError> {
    let (count, timeout) = (values.optional("wait-agents"), values.optional("wait-timeout"));
    let Some(count) = count else {
        return match timeout.filter(|timeout| timeout.strength() > 0) {
            Some(timeout) => Err(timeout.error("it says for how long to wait: add --wait-agents")),
            None => Ok(None),
        };
    };
    let agents = number(&count, 1, MAX_AGENTS as u64)? as usize;
    let named = match fleet {
        FleetChoice::Local(_) => {
            return Err(count.error("agents in this process are there at once: add --agents"));
        }
        FleetChoice::Remote(sources) if sources.iter().any(|source| matches!(source, AgentSource::Dns { .. })) => None,
        FleetChoice::Remote(sources) => Some(sources.len()),
    };
    if let Some(named) = named.filter(|&named| named < agents) {
        return Err(count.takes(format!("at most the number of agents that --agents names, which is {named}")));
    }
    let timeout = values.duration("wait-timeout", Duration::from_secs(1), LONGEST)?;
    Ok(Some(GatherPlan { agents, timeout }))
}

pub(super) fn ceilings(
    values: &Values,
    fleet: &FleetChoice,
    workload: &Workload,
) -> Result<Option<Ceilings>, SettingsError> {
    let Some(file) = values.optional("ceilings") else { return Ok(None) };
    if matches!(fleet, FleetChoice::Local(_)) {
        // A variable or plan file may be made for other runs; a flag is meant.
        return match file.strength() == Source::Flag.strength() {
            true => Err(file.error("agents in this process have no ceilings of their own: add --agents")),
            false => Ok(None),
        };
    }
    let takes = |why: String| {
        let path = file.text();
        file.error(format!("got '{path}', expected the path of a file that `plimsoll calibrate` wrote: {why}"))
    };
    let text = files::read_text(file.text(), MOST_FILE_BYTES).map_err(|error| takes(error.to_string()))?;
    let ceilings = Ceilings::parse(&text).map_err(takes)?;
    if ceilings.workload != workload.name() {
        return Err(takes(format!(
            "its ceilings are for {}, and this run is of {}",
            ceilings.workload,
            workload.name()
        )));
    }
    Ok(Some(ceilings))
}
