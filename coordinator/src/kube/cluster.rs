//! The cluster's API: connects as kubectl would, and makes and removes objects.

use std::time::Duration;

use futures::AsyncBufRead;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, ListParams, LogParams, PostParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::manifests::Object;
use crate::exit::Failure;

/// An API that takes longer to answer is taken for one that does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// One namespace of a cluster.
pub struct Cluster {
    client: Client,
    namespace: String,
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
}

impl ClusterError {
    /// Whether what was asked for is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
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
        let config = config.map_err(|why| {
            Failure::Usage(format!("no cluster is known: {why}; set KUBECONFIG, or render without --apply"))
        })?;
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client =
            Client::try_from(config).map_err(|error| Failure::Usage(format!("no client: {}", chain(&error))))?;
        Ok(Self { client, namespace })
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes an object.
    ///
    /// # Errors
    /// It is refused, as where one of its name is there, or nobody answers.
    pub async fn create(&self, object: &Object) -> Result<(), ClusterError> {
        match object {
            Object::NetworkPolicy(object) => self.create_one::<NetworkPolicy>(object).await,
            Object::ConfigMap(object) => self.create_one::<ConfigMap>(object).await,
            Object::Secret(object) => self.create_one::<Secret>(object).await,
            Object::Service(object) => self.create_one::<Service>(object).await,
            Object::Job(object) => self.create_one::<Job>(object).await,
        }
    }

    async fn create_one<K>(&self, object: &K) -> Result<(), ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        in_time(self.api::<K>().create(&PostParams::default(), object)).await.map(drop)
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
        // A job's pods would stay without this.
        in_time(self.api::<K>().delete(&name, &DeleteParams::background())).await.map(drop)
    }

    /// The pods with these labels.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub async fn pods(&self, selector: &str) -> Result<Vec<Pod>, ClusterError> {
        let found = in_time(self.api::<Pod>().list(&ListParams::default().labels(selector))).await?;
        Ok(found.items)
    }

    /// A pod.
    ///
    /// # Errors
    /// It is not there, or nobody answers.
    pub async fn pod(&self, name: &str) -> Result<Pod, ClusterError> {
        in_time(self.api::<Pod>().get(name)).await
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
