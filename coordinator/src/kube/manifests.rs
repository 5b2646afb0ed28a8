//! What a run is made of, as objects of the cluster. Pure: the same plan and certificates make the same objects.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, PodTemplateSpec, Secret, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{AGENT_PORT, METRICS_PORT, pod_specs};
use crate::certs::{KeyPairPem, RunCertificates};
use crate::settings::kube::run::TLS_FILES;
use crate::settings::kube::{KubePlan, Tls};

/// Finished jobs stay to be looked at for so many days, over a weekend too, where nobody removes them before.
pub const KEPT_DAYS: i32 = 3;
/// How often an agent's pod is made anew after a crash: it joins between steps.
const RESTARTS: i32 = 3;
/// Exit code of a wrong flag or file, which stays wrong.
const USAGE: i32 = 2;
/// The container's name in the coordinator's pod.
pub const COORDINATOR: &str = "coordinator";
/// The container's name in the agents' pods.
pub const AGENT: &str = "agent";

/// What a run is made of, in the order in which it is made: nobody is reachable before the policies are there, and nobody
/// starts before what it mounts.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifests {
    /// All of it.
    pub objects: Vec<Object>,
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// Who reaches whom.
    NetworkPolicy(Box<NetworkPolicy>),
    /// The plan and its files.
    ConfigMap(Box<ConfigMap>),
    /// Certificates of this run.
    Secret(Box<Secret>),
    /// Finds agents.
    Service(Box<Service>),
    /// Of agents, or the coordinator.
    Job(Box<Job>),
}

impl Object {
    /// `Job/plimsoll-agents`.
    pub fn name(&self) -> String {
        let (kind, metadata) = match self {
            Self::NetworkPolicy(object) => ("NetworkPolicy", &object.metadata),
            Self::ConfigMap(object) => ("ConfigMap", &object.metadata),
            Self::Secret(object) => ("Secret", &object.metadata),
            Self::Service(object) => ("Service", &object.metadata),
            Self::Job(object) => ("Job", &object.metadata),
        };
        format!("{kind}/{}", metadata.name.as_deref().unwrap_or_default())
    }
}

/// Makes them. `certificates` are those of this run, where it has its own.
pub fn manifests(plan: &KubePlan, certificates: Option<&RunCertificates>) -> Manifests {
    let names = Names { plan };
    let mut objects = vec![
        Object::NetworkPolicy(Box::new(agents_policy(&names))),
        Object::NetworkPolicy(Box::new(coordinator_policy(&names))),
        Object::ConfigMap(Box::new(ConfigMap {
            metadata: names.metadata(&names.config(), COORDINATOR),
            data: Some(plan.run.files.clone()),
            ..ConfigMap::default()
        })),
    ];
    if let Some(RunCertificates { ca, agent, coordinator }) = certificates {
        let secrets = [(AGENT, agent), (COORDINATOR, coordinator)];
        objects.extend(secrets.map(|(who, pair)| Object::Secret(Box::new(secret(&names, who, pair, ca)))));
    }
    objects.push(Object::Service(Box::new(service(&names))));
    objects.push(Object::Job(Box::new(agents(&names))));
    objects.push(Object::Job(Box::new(coordinator(&names))));
    Manifests { objects }
}

/// Labels that select the pods of a run's part.
pub fn selector(name: &str, component: &str) -> BTreeMap<String, String> {
    labels([
        ("app.kubernetes.io/name", "plimsoll"),
        ("app.kubernetes.io/instance", name),
        ("app.kubernetes.io/component", component),
    ])
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Names, labels and metadata of one run.
pub(super) struct Names<'a> {
    pub(super) plan: &'a KubePlan,
}

impl Names<'_> {
    pub(super) fn config(&self) -> String {
        format!("{}-plan", self.plan.name)
    }

    pub(super) fn tls_secret(&self, component: &str) -> Option<String> {
        match &self.plan.tls {
            Tls::Made => Some(format!("{}-{component}-tls", self.plan.name)),
            Tls::Secrets { agent, coordinator } => Some(if component == AGENT { agent } else { coordinator }.clone()),
            Tls::None => None,
        }
    }

    fn labels(&self, component: &str) -> BTreeMap<String, String> {
        let mut labels = selector(&self.plan.name, component);
        labels.insert("app.kubernetes.io/managed-by".to_owned(), "plimsoll".to_owned());
        labels
    }

    fn metadata(&self, name: &str, component: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: self.plan.namespace.clone(),
            labels: Some(self.labels(component)),
            ..ObjectMeta::default()
        }
    }

    pub(super) fn pods(&self, component: &str) -> LabelSelector {
        LabelSelector { match_labels: Some(selector(&self.plan.name, component)), ..LabelSelector::default() }
    }
}

fn tcp(port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port.into())),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    }
}

/// Only the coordinator reaches an agent. What a node itself asks (the readiness of a pod) always comes through.
fn agents_policy(names: &Names) -> NetworkPolicy {
    let from = NetworkPolicyPeer { pod_selector: Some(names.pods(COORDINATOR)), ..NetworkPolicyPeer::default() };
    let mut ingress = vec![NetworkPolicyIngressRule { from: Some(vec![from]), ports: Some(vec![tcp(AGENT_PORT)]) }];
    ingress.extend(metrics_rule(names));
    policy(names, &names.plan.agents_name(), AGENT, ingress)
}

/// Nobody reaches the coordinator.
fn coordinator_policy(names: &Names) -> NetworkPolicy {
    let ingress = metrics_rule(names).into_iter().collect();
    policy(names, &names.plan.coordinator_name(), COORDINATOR, ingress)
}

fn metrics_rule(names: &Names) -> Option<NetworkPolicyIngressRule> {
    let namespace = names.plan.metrics_from.as_ref()?;
    let of_name = LabelSelector {
        match_labels: Some(labels([("kubernetes.io/metadata.name", namespace)])),
        ..LabelSelector::default()
    };
    let from = NetworkPolicyPeer { namespace_selector: Some(of_name), ..NetworkPolicyPeer::default() };
    Some(NetworkPolicyIngressRule { from: Some(vec![from]), ports: Some(vec![tcp(METRICS_PORT)]) })
}

fn policy(names: &Names, name: &str, component: &str, ingress: Vec<NetworkPolicyIngressRule>) -> NetworkPolicy {
    NetworkPolicy {
        metadata: names.metadata(name, component),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(names.pods(component)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(ingress),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn secret(names: &Names, component: &str, pair: &KeyPairPem, ca: &str) -> Secret {
    let name = names.tls_secret(component).expect("certificates are made for Secrets of ours");
    let texts = [&pair.certificate, &pair.key, ca].map(str::to_owned);
    let data: BTreeMap<String, String> = TLS_FILES.map(str::to_owned).into_iter().zip(texts).collect();
    Secret {
        metadata: names.metadata(&name, component),
        type_: Some("kubernetes.io/tls".to_owned()),
        string_data: Some(data),
        ..Secret::default()
    }
}

/// Headless: its name stands for every agent that is ready.
fn service(names: &Names) -> Service {
    let port = ServicePort {
        name: Some("grpc".to_owned()),
        port: AGENT_PORT.into(),
        target_port: Some(IntOrString::String("grpc".to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    Service {
        metadata: names.metadata(&names.plan.agents_name(), AGENT),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(selector(&names.plan.name, AGENT)),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn agents(names: &Names) -> Job {
    let plan = names.plan;
    let count = i32::try_from(plan.agents).expect("at most a thousand");
    let failures = PodFailurePolicy {
        rules: vec![
            // A node that is drained is nobody's failure.
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".to_owned(),
                    status: "True".to_owned(),
                }]),
                ..PodFailurePolicyRule::default()
            },
            PodFailurePolicyRule {
                action: "FailIndex".to_owned(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(AGENT.to_owned()),
                    operator: "In".to_owned(),
                    values: vec![USAGE],
                }),
                ..PodFailurePolicyRule::default()
            },
        ],
    };
    let spec = JobSpec {
        completion_mode: Some("Indexed".to_owned()),
        completions: Some(count),
        parallelism: Some(count),
        // One that is lost must not end the others: the run goes on without it.
        backoff_limit_per_index: Some(RESTARTS),
        max_failed_indexes: Some(count),
        pod_failure_policy: Some(failures),
        ..job_spec(names, template(names, AGENT, pod_specs::agent(names)))
    };
    Job { metadata: names.metadata(&plan.agents_name(), AGENT), spec: Some(spec), ..Job::default() }
}

fn coordinator(names: &Names) -> Job {
    let spec = JobSpec {
        // A run is not made again unasked.
        backoff_limit: Some(0),
        ..job_spec(names, template(names, COORDINATOR, pod_specs::coordinator(names)))
    };
    Job { metadata: names.metadata(&names.plan.coordinator_name(), COORDINATOR), spec: Some(spec), ..Job::default() }
}

fn job_spec(names: &Names, template: PodTemplateSpec) -> JobSpec {
    let deadline = i64::try_from(names.plan.deadline.as_secs()).unwrap_or(i64::MAX);
    JobSpec {
        active_deadline_seconds: Some(deadline),
        ttl_seconds_after_finished: Some(KEPT_DAYS * 24 * 60 * 60),
        template,
        ..JobSpec::default()
    }
}

fn template(names: &Names, component: &str, spec: PodSpec) -> PodTemplateSpec {
    let metadata = ObjectMeta { labels: Some(names.labels(component)), ..ObjectMeta::default() };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}
