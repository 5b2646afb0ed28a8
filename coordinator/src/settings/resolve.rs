//! From layers of texts to a run's plan.

mod applied;
mod fleet;
mod levels;
mod objectives;
mod target;
mod workload;

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll_common::units::Steps;

use self::applied::{applied, settings};
use self::fleet::{ceilings, fleet, gather, min_agents, on_agent_loss};
use self::levels::{fits_the_pool, levels};
use self::objectives::{HIGHEST_LIMIT, request_timeout, skew_within_the_hold, slo};
use self::target::target;
use self::workload::workload;
use super::commands::LoadCommand;
use super::error::SettingsError;
use super::layers::Layers;
use super::plan::{Goal, RunPlan, Spread};
use super::secure;
use super::storage::storage;
use super::users;
use super::values::{Values, number};
use crate::core::roster::OnAgentLoss;

/// Steps longer than this are a mistake of units.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// A soak longer than this is no phase that agents take.
const LONGEST_SOAK: Duration = Duration::from_secs(7 * 24 * 3600);
/// One backlog read each hold ÷ 30 would be more than the service should have to answer below this.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);

/// Checks every setting once.
///
/// # Errors
/// The first value that its setting does not take, or two that do not fit together.
pub fn resolve(command: LoadCommand, layers: &Layers) -> Result<RunPlan, SettingsError> {
    let values = Values::new(layers);
    let workload = workload(command, layers, &values)?;
    let slo = slo(&values, &workload)?;
    let workload = users::for_find(&values, workload)?;
    let levels = levels(command, &values, &workload)?;
    skew_within_the_hold(&values, slo.max_skew, &levels)?;
    let fleet = fleet(&values)?;
    if command != LoadCommand::Verify {
        fits_the_pool(&workload, &levels, &slo)?;
    }
    Ok(RunPlan {
        goal: levels.goal,
        steps: levels.find.map_or(levels.steps, |find| Steps::from(find.first_level())),
        find: levels.find,
        phases: levels.phases,
        // People keep no intervals.
        spread: if workload.daily().is_some() { Spread::Poisson } else { spread(&values)? },
        request_timeout: request_timeout(&values, &slo, &workload)?,
        max_lateness: values.duration("max-lateness", Duration::from_millis(1), HIGHEST_LIMIT)?,
        max_in_flight: max_in_flight(&values)?,
        seed: values.number("seed", 0, u64::MAX)?,
        on_trip: levels.on_trip,
        trials: levels.trials,
        target: target(&values, &workload)?,
        storage: storage(&values)?,
        tls: secure::fleet(&values, &fleet)?,
        // Whoever asked for hours of one level does not want them again unasked.
        min_agents: if levels.goal == Goal::Soak { 1 } else { min_agents(&values)? },
        on_agent_loss: if levels.goal == Goal::Soak { OnAgentLoss::Abort } else { on_agent_loss(&values)? },
        gather: gather(&values, &fleet)?,
        ceilings: ceilings(&values, &fleet, &workload)?,
        lease_timeout: values.duration("lease-timeout", Duration::from_millis(500), Duration::from_secs(60))?,
        results: values.optional("results").filter(|dir| dir.text() != "none").map(|dir| PathBuf::from(dir.text())),
        csv: values.optional("csv").map(|path| PathBuf::from(path.text())),
        metrics_listen: metrics_listen(&values)?,
        applied: applied(command, layers, &fleet, &workload),
        settings: settings(command, layers, &fleet, &workload),
        fleet,
        workload,
        slo,
    })
}

fn spread(values: &Values) -> Result<Spread, SettingsError> {
    let value = values.required("arrivals", "poisson or uniform")?;
    match value.text() {
        "poisson" => Ok(Spread::Poisson),
        "uniform" => Ok(Spread::Uniform),
        _ => Err(value.takes("poisson or uniform")),
    }
}

fn max_in_flight(values: &Values) -> Result<Option<NonZeroU64>, SettingsError> {
    let cap = values.optional("max-in-flight").map(|value| number(&value, 1, 1 << 32)).transpose()?;
    Ok(cap.and_then(NonZeroU64::new))
}

fn metrics_listen(values: &Values) -> Result<Option<SocketAddr>, SettingsError> {
    let Some(value) = values.optional("metrics-listen") else { return Ok(None) };
    let address = value.text().parse().map_err(|_| value.takes("an address and a port, such as 127.0.0.1:9400"))?;
    Ok(Some(address))
}
