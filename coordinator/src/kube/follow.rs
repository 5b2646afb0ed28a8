//! Follows the coordinator's pod: waits until it begins, passes on what it says, and finds out how it ended.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::cluster::{Cluster, ClusterError, JobState, MadeJob};
use super::log::Log;
use super::manifests::COORDINATOR;
use super::pods::{Ended, PodState, state};
use crate::exit::Failure;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// So many failed looks in a row, a minute or more, and the cluster is taken for lost.
const MOST_FAILURES: u32 = 60;

/// What is passed on.
pub trait Listener {
    /// A line of the coordinator's, without its end.
    fn line(&mut self, text: &str);
    /// Why it has not begun.
    fn waits(&mut self, why: &str);
    /// Why its log cannot be read now.
    fn fails(&mut self, why: &str);
}

/// Whose pod is followed.
pub struct Followed {
    /// Its labels.
    pub selector: String,
    /// Whose pod it is.
    pub job: MadeJob,
}

/// Why a pod was not followed to its end.
#[derive(Debug)]
pub enum NotFollowed {
    /// There is nothing to be read any more, or never was.
    Nothing(Failure),
    /// Its log may hold more than was heard.
    Unheard(Failure),
}

/// Follows a pod to its end, and its log to the last line.
///
/// # Errors
/// It did not begin in time, is gone, or it or its log cannot be read.
pub async fn follow(
    cluster: &Cluster,
    followed: &Followed,
    start_timeout: Duration,
    listener: &mut impl Listener,
) -> Result<Ended, NotFollowed> {
    let pod = begun(cluster, followed, start_timeout, listener).await.map_err(NotFollowed::Nothing)?;
    let mut log = Log::of(cluster, &pod);
    let mut looks = Looks::default();
    loop {
        log.follow(listener).await.map_err(NotFollowed::Unheard)?;
        let found = cluster.pod(&pod).await;
        if let Err(error) = &found
            && error.is_absent()
        {
            let gone = Failure::Incomplete(format!("the coordinator's pod is gone: {error}"));
            return Err(NotFollowed::Nothing(gone));
        }
        if let Some(found) = looks.count(found).map_err(NotFollowed::Unheard)?
            && let PodState::Ended(ended) = state(&found, COORDINATOR)
        {
            // The log may have broken off, or been silent, where it seemed to end.
            log.rest(listener).await.map_err(|unread| NotFollowed::Unheard(and_ended(unread, &ended)))?;
            return Ok(ended);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What became of it is known, where its log is not.
fn and_ended(unread: Failure, ended: &Ended) -> Failure {
    match unread {
        Failure::Incomplete(why) => Failure::Incomplete(format!("{why}; the coordinator ended: {}", ended.words())),
        other => other,
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
            Err(error) if self.failed >= MOST_FAILURES || error.is_forbidden() => {
                Err(Failure::Incomplete(format!("the coordinator's pod cannot be looked at: {error}")))
            }
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
    followed: &Followed,
    start_timeout: Duration,
    listener: &mut impl Listener,
) -> Result<String, Failure> {
    let deadline = Instant::now() + start_timeout;
    let mut looks = Looks::default();
    let mut said = String::new();
    loop {
        let pods = looks.count(cluster.pods(&followed.selector).await)?;
        let pod = pods.and_then(|pods| pods.into_iter().find(|pod| followed.job.owns(pod)));
        let why = match pod.map(|pod| (state(&pod, COORDINATOR), pod)) {
            Some((PodState::Running | PodState::Ended(_), pod)) => return Ok(pod.metadata.name.unwrap_or_default()),
            Some((PodState::NeverBegan(why), _)) => {
                return Err(Failure::Incomplete(format!("the coordinator was ended before it began: {why}")));
            }
            Some((PodState::Waiting(Some(why)), _)) => why,
            Some((PodState::Waiting(None), pod)) => warned(cluster, &pod).await,
            None => no_pod(cluster, &followed.job).await?,
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

/// Why it does not begin, where its status does not say: of a Secret that is not there only events do.
async fn warned(cluster: &Cluster, pod: &Pod) -> String {
    let warning = cluster.warning(pod).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "events cannot be read");
        None
    });
    warning.unwrap_or_default()
}

/// Why there is none, as far as the cluster says so and we may read it.
async fn no_pod(cluster: &Cluster, job: &MadeJob) -> Result<String, Failure> {
    if let Ok(JobState::Ending | JobState::Gone) = cluster.job(job).await {
        return Err(Failure::Incomplete(format!("Job/{} was removed before it began", job.name)));
    }
    let refused = cluster.refusal(job).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "events cannot be read");
        None
    });
    Ok(refused.map_or_else(|| "it has no pod yet".to_owned(), |why| format!("it has no pod: {why}")))
}
