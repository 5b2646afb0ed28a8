//! The cluster's API: connects as kubectl would, and makes and removes objects.

use std::time::Duration;

use futures::AsyncBufRead;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, ListParams, LogParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::manifests::Object;
use super::proxy;
use super::refusals::{refusal, warning};
use crate::exit::Failure;

/// An API that takes longer to answer is taken for one that does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// So often an object is asked to be made of an API that has no time for it: the one refusal that has surely done nothing.
const MAKE_TRIES: u32 = 5;
/// Between two of these.
const AGAIN: Duration = Duration::from_secs(1);
/// Of a pod that failed.
const LAST_LINES: i64 = 10;
/// As many bytes of them at most.
const LAST_BYTES: i64 = 16 * 1024;

/// One namespace of a cluster.
pub struct Cluster {
    client: Client,
    /// Asks once: what the client repeats by itself, after an answer that may have come too late, would find what it has made.
    maker: Client,
    namespace: String,
}

/// A job, as it stands in the cluster.
#[derive(Debug, Clone)]
pub struct MadeJob {
    /// Its name.
    pub name: String,
    /// Tells it from earlier ones of the same name, whose events are kept for an hour.
    pub uid: Option<String>,
}

/// Where a job is between being made and being gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Nobody removes it.
    There,
    /// It is removed once its pods are gone.
    Ending,
    /// With its pods.
    Gone,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The API refuses; its own words.
    #[error("{message}")]
    Refused {
        /// Of HTTP.
        code: u16,
        /// The API's.
        message: String,
    },
    /// It does not answer, and whether it was done is not known.
    #[error("the cluster's API does not answer: {0}")]
    NoAnswer(String),
    /// A pod's log did not come to its end.
    #[error("it broke off: {0}")]
    Broken(String),
    /// What came in place of a pod's log.
    #[error("there is none: {0}")]
    NoLog(String),
}

impl ClusterError {
    /// Whether what was asked for is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Whether a right is missing.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { code: 403, .. })
    }
}

impl MadeJob {
    /// Whether this pod is of this job, and not of an earlier one of the same name, whose pods have the same labels.
    pub fn owns(&self, pod: &Pod) -> bool {
        let Some(uid) = &self.uid else { return true };
        pod.metadata.owner_references.iter().flatten().any(|owner| owner.uid == *uid)
    }
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused { code: status.code, message: status.message.clone() },
            other => Self::NoAnswer(chain(&other)),
        }
    }
}

/// An error with all its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

impl Cluster {
    /// As the kubeconfig says (KUBECONFIG, or ~/.kube/config), or within a cluster as its pod may.
    ///
    /// # Errors
    /// There is no such cluster or context.
    pub async fn connect(context: Option<&str>, namespace: Option<&str>) -> Result<Self, Failure> {
        let config = match context {
            None => Config::infer().await.map_err(|error| chain(&error)),
            Some(context) => {
                let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await.map_err(|error| format!("--context: got '{context}': {error}"))
            }
        };
        let mut config = config.map_err(|why| {
            Failure::Usage(format!("no cluster is known: {why}; set KUBECONFIG, or render without --apply"))
        })?;
        if let Ok(kubeconfig) = Kubeconfig::read() {
            config.proxy_url = proxy::of(&config.cluster_url, &kubeconfig, context, &|name| std::env::var(name).ok());
        }
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = |config: Config| {
            Client::try_from(config).map_err(|error| Failure::Usage(format!("no client: {}", chain(&error))))
        };
        let mut once = config.clone();
        once.default_retry = false;
        let maker = client(once)?;
        Ok(Self { client: client(config)?, maker, namespace })
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes an object. The cluster's own name for it.
    ///
    /// # Errors
    /// It is refused, as where one of its name is there; or nobody answers, or with an error of the API's own, and it may have been made.
    pub async fn create(&self, object: &Object) -> Result<Option<String>, ClusterError> {
        match object {
            Object::NetworkPolicy(object) => self.create_one::<NetworkPolicy>(object).await,
            Object::ConfigMap(object) => self.create_one::<ConfigMap>(object).await,
            Object::Secret(object) => self.create_one::<Secret>(object).await,
            Object::Service(object) => self.create_one::<Service>(object).await,
            Object::Job(object) => self.create_one::<Job>(object).await,
        }
    }

    async fn create_one<K>(&self, object: &K) -> Result<Option<String>, ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api = Api::<K>::namespaced(self.maker.clone(), &self.namespace);
        let mut tries = 1;
        loop {
            match in_time(api.create(&PostParams::default(), object)).await {
                Ok(made) => return Ok(made.meta().uid.clone()),
                Err(ClusterError::Refused { code: 429, .. }) if tries < MAKE_TRIES => {
                    tries += 1;
                    tokio::time::sleep(AGAIN).await;
                }
                Err(ClusterError::Refused { code: 500.., message }) => return Err(ClusterError::NoAnswer(message)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes an object and what belongs to it; one that is not there is removed.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub async fn delete(&self, object: &Object) -> Result<(), ClusterError> {
        let deleted = match object {
            Object::NetworkPolicy(object) => self.delete_one(object.as_ref()).await,
            Object::ConfigMap(object) => self.delete_one(object.as_ref()).await,
            Object::Secret(object) => self.delete_one(object.as_ref()).await,
            Object::Service(object) => self.delete_one(object.as_ref()).await,
            Object::Job(object) => self.delete_one(object.as_ref()).await,
        };
        match deleted {
            Err(error) if error.is_absent() => Ok(()),
            other => other,
        }
    }

    async fn delete_one<K>(&self, object: &K) -> Result<(), ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let name = object.meta().name.clone().unwrap_or_default();
        // A job's pods would stay without this; the job itself stays until they are gone, so that no other of its name is made.
        in_time(self.api::<K>().delete(&name, &DeleteParams::foreground())).await.map(drop)
    }

    /// How a job stands.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub async fn job(&self, job: &MadeJob) -> Result<JobState, ClusterError> {
        match in_time(self.api::<Job>().get(&job.name)).await {
            Ok(found) if job.uid.is_some() && found.metadata.uid != job.uid => Ok(JobState::Gone),
            Ok(found) if found.metadata.deletion_timestamp.is_some() => Ok(JobState::Ending),
            Ok(_) => Ok(JobState::There),
            Err(error) if error.is_absent() => Ok(JobState::Gone),
            Err(error) => Err(error),
        }
    }

    /// The pods with these labels.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub async fn pods(&self, selector: &str) -> Result<Vec<Pod>, ClusterError> {
        let found = in_time(self.api::<Pod>().list(&ListParams::default().labels(selector))).await?;
        Ok(found.items)
    }

    /// Why the cluster makes no pods of a job; `None`: it says nothing against it.
    ///
    /// # Errors
    /// It is refused, as where a user may not read events, or nobody answers.
    pub async fn refusal(&self, job: &MadeJob) -> Result<Option<String>, ClusterError> {
        let mut of_job = format!("involvedObject.kind=Job,involvedObject.name={},reason=FailedCreate", job.name);
        if let Some(uid) = &job.uid {
            of_job.push_str(&format!(",involvedObject.uid={uid}"));
        }
        let found = in_time(self.api::<Event>().list(&ListParams::default().fields(&of_job))).await?;
        Ok(refusal(&found.items, &job.name))
    }

    /// What the cluster warns of a pod; `None`: of nothing.
    ///
    /// # Errors
    /// It is refused, as where a user may not read events, or nobody answers.
    pub async fn warning(&self, pod: &Pod) -> Result<Option<String>, ClusterError> {
        let [name, uid] = [&pod.metadata.name, &pod.metadata.uid].map(|text| text.as_deref().unwrap_or_default());
        let of_pod =
            format!("involvedObject.kind=Pod,involvedObject.name={name},involvedObject.uid={uid},type=Warning");
        let found = in_time(self.api::<Event>().list(&ListParams::default().fields(&of_pod))).await?;
        Ok(warning(&found.items))
    }

    /// A pod.
    ///
    /// # Errors
    /// It is not there, or nobody answers.
    pub async fn pod(&self, name: &str) -> Result<Pod, ClusterError> {
        in_time(self.api::<Pod>().get(name)).await
    }

    /// The last lines that a pod has said.
    ///
    /// # Errors
    /// They may not be read, are not there, or nobody answers.
    pub async fn last_lines(&self, pod: &str, container: &str) -> Result<String, ClusterError> {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(LAST_LINES),
            limit_bytes: Some(LAST_BYTES),
            ..LogParams::default()
        };
        in_time(self.api::<Pod>().logs(pod, &parameters)).await
    }

    /// What a pod says, from its beginning or from an instant on.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub async fn log(&self, pod: &str, parameters: &LogParams) -> Result<impl AsyncBufRead + use<>, ClusterError> {
        in_time(self.api::<Pod>().log_stream(pod, parameters)).await
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ClusterError> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(ClusterError::from),
        Err(_) => Err(ClusterError::NoAnswer(format!("nothing within {} s", PATIENCE.as_secs()))),
    }
}
