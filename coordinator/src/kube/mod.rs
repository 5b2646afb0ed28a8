//! A run in a Kubernetes cluster: [`manifests`] makes typed objects of what was asked for, [`render`] shows them, and
//! [`apply`] creates the same values, follows the coordinator and removes them.

mod agents;
mod apply;
mod cluster;
mod follow;
mod log;
mod manifests;
mod pod_specs;
mod pods;
mod proxy;
mod refusals;
mod remove;
mod render;

pub use apply::apply;
pub use manifests::{Manifests, Object, manifests};
pub use render::render;

use plimsoll_agent::shell::manual::print;

use crate::certs::{self, RunCertificates};
use crate::exit::{ExitCode, Failure};
use crate::settings::kube::{KubePlan, Tls};

/// Where agents listen for the coordinator.
pub const AGENT_PORT: u16 = 7700;
/// Where metrics and `/healthz` are served.
pub const METRICS_PORT: u16 = 9700;

/// Renders the run, or makes it and returns what it ended with.
///
/// # Errors
/// No certificates could be made, or the run could not be made or followed.
pub async fn kube(plan: &KubePlan) -> Result<ExitCode, Failure> {
    let manifests = manifests(plan, certificates(plan)?.as_ref());
    let Some(how) = &plan.apply else {
        let yaml = render(&manifests).map_err(Failure::Incomplete)?;
        print(yaml.as_bytes()).map_err(Failure::Incomplete)?;
        return Ok(ExitCode::Answer);
    };
    apply(plan, how, manifests, &crate::listen()?).await
}

/// Those of this run, valid a day longer than it may last.
fn certificates(plan: &KubePlan) -> Result<Option<RunCertificates>, Failure> {
    const DAY: u64 = 86_400;
    if plan.tls != Tls::Made {
        return Ok(None);
    }
    let days = u32::try_from(plan.deadline.as_secs().div_ceil(DAY) + 1).unwrap_or(u32::MAX);
    certs::for_one_run(&[plan.agents_name()], days).map(Some).map_err(Failure::Incomplete)
}
