//! `plimsoll calibrate`: has every agent measure its box, and keeps what they found.

use std::time::Duration;

use plimsoll_common::calibration::{Calibration, CalibrationOrder};
use plimsoll_common::units::Rate;

use super::fleet::{Fleet, FleetError};
use super::identity::RunIdentity;
use super::muster::look_up;
use super::session::{Claim, Secrets};
use super::tls::Wire;
use crate::core::ceilings::{Ceilings, usable};
use crate::exit::Failure;
use crate::report::agents::render_calibration;
use crate::settings::calibrate::CalibrateCommand;

/// As the agents' leases of a run are by default.
const LEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// As a run's is by default.
const MAX_LATENESS: Duration = Duration::from_millis(100);

/// What came of a calibration.
#[derive(Debug)]
pub struct Calibrated {
    /// A table of what each box carries, which is in the file by then.
    pub table: String,
    /// Why others are not in it.
    pub missing: Vec<FleetError>,
}

/// Calibrates every agent, and keeps what was found; of those that are lost meanwhile nothing is.
///
/// # Errors
/// An agent cannot be used, none has found anything, or the file cannot be written.
pub async fn calibrate(command: &CalibrateCommand) -> Result<Calibrated, Failure> {
    let identity = RunIdentity::draw().map_err(Failure::Incomplete)?;
    let (agents, failed) = look_up(&command.reach.sources).await;
    failed.map_or(Ok(()), |error| Err(failure(error)))?;
    let claim = Claim {
        coordinator: identity.coordinator,
        run_id: identity.run_id,
        lease_timeout: LEASE_TIMEOUT,
        secrets: Secrets::None,
        wire: Wire::of(command.reach.tls.as_ref()).map_err(|error| Failure::Usage(error.to_string()))?,
        ceilings: None,
    };
    let mut fleet = Fleet::connect(&agents, &claim, &command.workload).await.map_err(failure)?;
    let order = CalibrationOrder {
        request_bytes: command.request_bytes,
        reply_bytes: command.reply_bytes,
        max_lateness: MAX_LATENESS,
    };
    let (found, missing) = fleet.calibrate(&order).await;
    fleet.release().await;
    // What was asked wrongly of one was asked wrongly of all.
    if let Some(decides) = missing.iter().find(|error| !error.is_a_loss() || found.is_empty()) {
        return Err(failure(decides.clone()));
    }
    let row = |(name, found): (String, Calibration)| {
        let usable = usable(&found);
        (name, found, usable)
    };
    let rows: Vec<(String, Calibration, Rate)> = found.into_iter().map(row).collect();
    let agents = rows.iter().map(|(name, _, ceiling)| (name.clone(), *ceiling)).collect();
    let ceilings = Ceilings { workload: command.workload.clone(), agents };
    let path = command.save.display();
    std::fs::write(&command.save, ceilings.to_text()).map_err(|error| {
        Failure::Usage(format!("--save: got '{path}', expected the path of a file that can be written: {error}"))
    })?;
    let table = format!(
        "{}\nkept in {path}: --ceilings {path} has runs of {} split by it\n",
        render_calibration(&rows),
        command.workload
    );
    Ok(Calibrated { table, missing })
}

fn failure(error: FleetError) -> Failure {
    if error.is_usage() { Failure::Usage(error.to_string()) } else { Failure::Incomplete(error.to_string()) }
}
