//! Removes what was made of a run: the jobs with their pods first, and what these are kept apart by, and mount, once they are gone.

use std::time::Duration;

use plimsoll_agent::shell::logs::say;

use super::apply::{Made, grace, job};
use super::cluster::{Cluster, ClusterError, JobState, MadeJob};
use super::manifests::Object;
use crate::settings::kube::KubePlan;

/// So often something is asked to be removed.
const TRIES: u32 = 4;
/// Between two of these.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at a job that is ending.
const GONE_INTERVAL: Duration = Duration::from_millis(500);

/// The command that removes a run.
pub fn by_hand(plan: &KubePlan, cluster: &Cluster) -> String {
    format!(
        "kubectl -n {} delete job,service,configmap,secret,networkpolicy -l app.kubernetes.io/instance={},app.kubernetes.io/managed-by=plimsoll --cascade=foreground",
        cluster.namespace(),
        plan.name
    )
}

/// The other way round than it was made. While a job is left, or its pods may be, so is all that these are kept apart by.
pub async fn remove(plan: &KubePlan, cluster: &Cluster, made: &[Made]) {
    let (jobs, others): (Vec<&Made>, Vec<&Made>) =
        made.iter().rev().partition(|made| matches!(made.object, Object::Job(_)));
    let mut left = delete_all(cluster, &jobs).await;
    if left.is_empty() {
        let jobs: Vec<MadeJob> = [plan.coordinator_name(), plan.agents_name()]
            .into_iter()
            .map(|name| job(made, name))
            .filter(|job| job.uid.is_some())
            .collect();
        match gone(cluster, &jobs, grace(plan)).await {
            Ok(()) => left = delete_all(cluster, &others).await,
            Err(words) => left.push(words),
        }
    }
    if !left.is_empty() {
        say(format_args!(
            "not all of it is removed, and another run of this name is refused until it is: {}; to remove what there is: {}",
            left.join(", "),
            by_hand(plan, cluster)
        ));
    }
}

/// What of these could not be removed.
async fn delete_all(cluster: &Cluster, all: &[&Made]) -> Vec<String> {
    let mut left = Vec::new();
    for Made { object, .. } in all {
        if let Err(error) = delete(cluster, object).await {
            left.push(format!("{} ({error})", object.name()));
        }
    }
    left
}

/// Removes it, also where it takes some tries.
///
/// # Errors
/// It may not be removed, or not now.
pub async fn delete(cluster: &Cluster, object: &Object) -> Result<(), ClusterError> {
    let mut tries = 1;
    loop {
        match cluster.delete(object).await {
            Err(error) if tries < TRIES && !error.is_forbidden() => {
                tracing::debug!(%error, "{} is not removed", object.name());
                tries += 1;
                tokio::time::sleep(AGAIN).await;
            }
            other => return other,
        }
    }
}

/// Waits until these jobs are gone with their pods. The error is for people.
async fn gone(cluster: &Cluster, jobs: &[MadeJob], within: Duration) -> Result<(), String> {
    let all = async {
        for job in jobs {
            loop {
                match cluster.job(job).await {
                    Ok(JobState::Gone) => break,
                    Err(error) if error.is_forbidden() => {
                        return Err(format!("whether Job/{} is gone is not known: {error}", job.name));
                    }
                    Ok(JobState::There | JobState::Ending) | Err(_) => tokio::time::sleep(GONE_INTERVAL).await,
                }
            }
        }
        Ok(())
    };
    tokio::time::timeout(within, all)
        .await
        .unwrap_or_else(|_| Err(format!("pods of the run are still ending after {} s", within.as_secs())))
}
