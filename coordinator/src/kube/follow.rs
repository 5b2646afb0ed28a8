//! Follows the coordinator's pod: waits until it begins, passes on what it says, and finds out how it ended. A log that breaks
//! off is taken up again where it broke.

use std::time::Duration;

use futures::io::AsyncBufReadExt as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::jiff::Timestamp;
use kube::api::LogParams;
use tokio::time::Instant;

use super::cluster::{Cluster, ClusterError};
use super::manifests::COORDINATOR;
use super::pods::{Ended, PodState, state};
use crate::exit::Failure;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// A run says something every five seconds: a stream that is silent for so long is broken.
const SILENCE: Duration = Duration::from_secs(60);
/// So many failed looks in a row, a minute or more, and the cluster is taken for lost.
const MOST_FAILURES: u32 = 60;

/// What is passed on.
pub trait Listener {
    /// A line of the coordinator's, without its end.
    fn line(&mut self, text: &str);
    /// Why it has not begun.
    fn waits(&mut self, why: &str);
}

/// Follows the pod with these labels to its end.
///
/// # Errors
/// It did not begin in time, is gone, or the cluster is.
pub async fn follow(
    cluster: &Cluster,
    selector: &str,
    start_timeout: Duration,
    listener: &mut impl Listener,
) -> Result<Ended, Failure> {
    let pod = begun(cluster, selector, start_timeout, listener).await?;
    let mut looks = Looks::default();
    let mut heard: Option<String> = None;
    loop {
        looks.count(hear(cluster, &pod, &mut heard, listener).await)?;
        if let Some(found) = looks.count(cluster.pod(&pod).await)?
            && let PodState::Ended(ended) = state(&found, COORDINATOR)
        {
            return Ok(ended);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Failed looks in a row.
#[derive(Default)]
struct Looks {
    failed: u32,
}

impl Looks {
    /// What was seen; nothing, where a look failed that may be made again.
    fn count<T>(&mut self, looked: Result<T, ClusterError>) -> Result<Option<T>, Failure> {
        match looked {
            Ok(seen) => {
                self.failed = 0;
                Ok(Some(seen))
            }
            Err(error) if error.is_absent() => {
                Err(Failure::Incomplete(format!("the coordinator's pod is gone: {error}")))
            }
            Err(error) if self.failed >= MOST_FAILURES => Err(Failure::Incomplete(error.to_string())),
            Err(error) => {
                tracing::debug!(%error, "a look failed");
                self.failed += 1;
                Ok(None)
            }
        }
    }
}

/// The name of the pod, once its container has begun, or ended already.
async fn begun(
    cluster: &Cluster,
    selector: &str,
    start_timeout: Duration,
    listener: &mut impl Listener,
) -> Result<String, Failure> {
    let deadline = Instant::now() + start_timeout;
    let mut looks = Looks::default();
    let mut said = String::new();
    loop {
        let pods = looks.count(cluster.pods(selector).await)?;
        let pod = pods.and_then(|pods| pods.into_iter().next());
        let why = match pod.as_ref().map(|pod| state(pod, COORDINATOR)) {
            Some(PodState::Running | PodState::Ended(_)) => {
                return Ok(pod.and_then(|pod| pod.metadata.name).unwrap_or_default());
            }
            Some(PodState::Waiting(why)) => why.unwrap_or_default(),
            None => "it has no pod yet".to_owned(),
        };
        if !why.is_empty() && why != said {
            listener.waits(&why);
            said.clone_from(&why);
        }
        if Instant::now() >= deadline {
            let why = if said.is_empty() { String::new() } else { format!(": {said}") };
            let waited = humantime::format_duration(start_timeout);
            return Err(Failure::Incomplete(format!("the coordinator did not start within {waited}{why}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Passes on what the pod says until its log ends, breaks or is silent, from what was heard last on.
async fn hear(
    cluster: &Cluster,
    pod: &str,
    heard: &mut Option<String>,
    listener: &mut impl Listener,
) -> Result<(), ClusterError> {
    let parameters = LogParams {
        container: Some(COORDINATOR.to_owned()),
        follow: true,
        timestamps: true,
        // Whole seconds: lines of the last one come again.
        since_time: heard.as_ref().and_then(|instant| instant.parse::<Timestamp>().ok()),
        ..LogParams::default()
    };
    let before = heard.clone();
    let mut lines = cluster.log(pod, &parameters).await?.lines().into_stream();
    while let Ok(Some(Ok(line))) = tokio::time::timeout(SILENCE, lines.next()).await {
        // Instants are all written with nine digits and in UTC, so that texts compare as they do.
        let (instant, text) = line.split_once(' ').unwrap_or((line.as_str(), ""));
        if before.as_deref().is_none_or(|before| instant > before) {
            *heard = Some(instant.to_owned());
            listener.line(text);
        }
    }
    Ok(())
}
