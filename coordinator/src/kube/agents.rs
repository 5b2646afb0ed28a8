//! What becomes of the agents' pods while the coordinator waits for them: told as it comes to be known, each thing once.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use plimsoll_agent::shell::logs::say;

use super::cluster::{Cluster, ClusterError, MadeJob};
use super::manifests::AGENT;
use super::pods::{NotRunning, PodState, Why, in_words, not_running, state};

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Events are asked for of so many pods at a look: all are of one template, and what keeps one from beginning keeps the others.
const MOST_WARNED: usize = 3;
/// The last lines of so many pods are shown, for the same reason.
const MOST_HEARD: usize = 3;

/// The agents of a run, and what was told of them.
pub struct Agents {
    job: MadeJob,
    /// Labels of its pods.
    selector: String,
    /// Why no pods of it are made.
    refused: Option<String>,
    told: BTreeSet<NotRunning>,
    /// Failed pods whose last lines were shown.
    heard: BTreeSet<String>,
}

impl Agents {
    /// The pods with these labels that are this job's.
    pub fn of(job: MadeJob, selector: String) -> Self {
        Self { job, selector, refused: None, told: BTreeSet::new(), heard: BTreeSet::new() }
    }

    /// Looks again and again, but not at what may not be read.
    pub async fn watch(&mut self, cluster: &Cluster) -> Infallible {
        let (mut events, mut pods) = (Ok(()), Ok(()));
        loop {
            if !is_forbidden(&events) {
                events = self.look_at_events(cluster).await;
            }
            if !is_forbidden(&pods) {
                pods = self.look_at_pods(cluster).await;
            }
            for error in [&events, &pods].into_iter().filter_map(|looked| looked.as_ref().err()) {
                tracing::debug!(%error, "agents cannot be looked at");
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Tells what has not been told yet, of a run that did not go.
    pub async fn last_look(&mut self, cluster: &Cluster) {
        drop(self.look_at_events(cluster).await);
        drop(self.look_at_pods(cluster).await);
    }

    async fn look_at_events(&mut self, cluster: &Cluster) -> Result<(), ClusterError> {
        let why = cluster.refusal(&self.job).await?;
        if let Some(why) = why.filter(|why| self.refused.as_ref() != Some(why)) {
            say(format_args!("pods of agents are not made: {why}"));
            self.refused = Some(why);
        }
        Ok(())
    }

    async fn look_at_pods(&mut self, cluster: &Cluster) -> Result<(), ClusterError> {
        let pods = cluster.pods(&self.selector).await?;
        let own: Vec<Pod> = pods.into_iter().filter(|pod| self.job.owns(pod)).collect();
        let mut found: Vec<NotRunning> = own.iter().filter_map(|pod| not_running(pod, AGENT)).collect();
        found.extend(warned(cluster, &own).await);
        found.retain(|pod| !self.told.contains(pod));
        in_words(&found).iter().for_each(say);
        self.told.extend(found);
        self.hear_failed(cluster).await;
        Ok(())
    }

    /// What pods that failed said last: their logs go with them. A look may be given up while a log is on its way, and is made again.
    async fn hear_failed(&mut self, cluster: &Cluster) {
        let failed = self.told.iter().filter(|pod| matches!(pod.why, Why::Failed(_)) && !self.heard.contains(&pod.pod));
        let failed: Vec<String> = failed.map(|pod| pod.pod.clone()).collect();
        for pod in failed {
            if self.heard.len() >= MOST_HEARD {
                return;
            }
            match cluster.last_lines(&pod, AGENT).await {
                Ok(lines) => lines.lines().for_each(|line| say(format_args!("  {pod}: {line}"))),
                Err(error) => say(format_args!("  what {pod} said cannot be read: {error}")),
            }
            self.heard.insert(pod);
        }
    }
}

fn is_forbidden(looked: &Result<(), ClusterError>) -> bool {
    looked.as_ref().is_err_and(ClusterError::is_forbidden)
}

/// Of pods that do not begin, and whose status does not say why, those of which a node warns.
async fn warned(cluster: &Cluster, pods: &[Pod]) -> Vec<NotRunning> {
    let mut warned = Vec::new();
    let waiting = pods.iter().filter(|pod| state(pod, AGENT) == PodState::Waiting(None));
    for pod in waiting.take(MOST_WARNED) {
        // Who may not read events hears less.
        let Ok(Some(why)) = cluster.warning(pod).await else { continue };
        warned.push(NotRunning { pod: pod.metadata.name.clone().unwrap_or_default(), why: Why::Waits(why) });
    }
    warned
}
