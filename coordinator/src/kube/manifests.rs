//! What a run is made of, as objects of the cluster. Pure: the same plan and certificates make the same objects.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction,
    LocalObjectReference, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource, SecurityContext, Service, ServicePort,
    ServiceSpec, Sysctl, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{AGENT_PORT, METRICS_PORT};
use crate::certs::{KeyPairPem, RunCertificates};
use crate::settings::kube::run::{PLAN_DIR, RESULTS_DIR, SECRETS_DIR, TLS_DIR, TLS_FILES};
use crate::settings::kube::{KubePlan, Tls};

/// The user of the image: nobody's on any host.
const USER: i64 = 65_532;
/// Files of a Secret are read by the pod's group, which is the user's own.
const OF_A_SECRET: i32 = 0o440;
/// After SIGTERM operations may end that are open, and then totals, goodbye and report take a moment.
const GRACE_SECONDS: u64 = 20;
/// Finished jobs stay to be looked at for an hour, where nobody removes them before.
const KEPT_SECONDS: i32 = 3600;
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
struct Names<'a> {
    plan: &'a KubePlan,
}

impl Names<'_> {
    fn config(&self) -> String {
        format!("{}-plan", self.plan.name)
    }

    fn tls_secret(&self, component: &str) -> Option<String> {
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

    fn pods(&self, component: &str) -> LabelSelector {
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
        ..job_spec(names, template(names, AGENT, agent_pod(names)))
    };
    Job { metadata: names.metadata(&plan.agents_name(), AGENT), spec: Some(spec), ..Job::default() }
}

fn coordinator(names: &Names) -> Job {
    let spec = JobSpec {
        // A run is not made again unasked.
        backoff_limit: Some(0),
        ..job_spec(names, template(names, COORDINATOR, coordinator_pod(names)))
    };
    Job { metadata: names.metadata(&names.plan.coordinator_name(), COORDINATOR), spec: Some(spec), ..Job::default() }
}

fn job_spec(names: &Names, template: PodTemplateSpec) -> JobSpec {
    let deadline = i64::try_from(names.plan.deadline.as_secs()).unwrap_or(i64::MAX);
    JobSpec {
        active_deadline_seconds: Some(deadline),
        ttl_seconds_after_finished: Some(KEPT_SECONDS),
        template,
        ..JobSpec::default()
    }
}

fn template(names: &Names, component: &str, spec: PodSpec) -> PodTemplateSpec {
    let metadata = ObjectMeta { labels: Some(names.labels(component)), ..ObjectMeta::default() };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

/// What both pods have: nobody's user, no rights, a root that cannot be written to, and no token of the cluster's.
fn pod(names: &Names, container: Container, volumes: Vec<Volume>) -> PodSpec {
    let plan = names.plan;
    let grace = plan.run.request_timeout.as_secs() + GRACE_SECONDS;
    let pull = plan.image_pull_secret.clone().map(|name| vec![LocalObjectReference { name }]);
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(i64::try_from(grace).unwrap_or(i64::MAX)),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: pull,
        containers: vec![container],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn container(names: &Names, name: &str, program: &str, arguments: Vec<String>) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(names.plan.image.clone()),
        command: Some(vec![program.to_owned()]),
        args: Some(arguments),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Requests of both, and a limit of memory alone: the quota of a CPU limit stops a process for the rest of each period.
fn resources(cpu: &str, memory: &str) -> ResourceRequirements {
    let quantity = |text: &str| Quantity(text.to_owned());
    let requests = [("cpu".to_owned(), quantity(cpu)), ("memory".to_owned(), quantity(memory))];
    ResourceRequirements {
        requests: Some(requests.into()),
        limits: Some([("memory".to_owned(), quantity(memory))].into()),
        ..ResourceRequirements::default()
    }
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn agent_pod(names: &Names) -> PodSpec {
    let plan = names.plan;
    let mut arguments = vec![
        format!("--listen=0.0.0.0:{AGENT_PORT}"),
        format!("--metrics-listen=0.0.0.0:{METRICS_PORT}"),
        format!("--workers={}", plan.workers),
        format!("--max-run={}s", plan.deadline.as_secs()),
        "--exit-after-run".to_owned(),
    ];
    arguments.extend(plan.run.targets.iter().map(|target| format!("--allow-target={target}")));
    let mut mounts = Mounts::default();
    match names.tls_secret(AGENT) {
        Some(secret) => {
            let flags = ["--tls-cert", "--tls-key", "--tls-ca"].into_iter().zip(TLS_FILES);
            arguments.extend(flags.map(|(flag, file)| format!("{flag}={TLS_DIR}/{file}")));
            mounts.secret("tls", &secret, TLS_DIR);
        }
        None => arguments.push("--insecure".to_owned()),
    }
    let healthz = HTTPGetAction {
        path: Some("/healthz".to_owned()),
        port: IntOrString::String("metrics".to_owned()),
        ..HTTPGetAction::default()
    };
    let container = Container {
        ports: Some(vec![port("grpc", AGENT_PORT), port("metrics", METRICS_PORT)]),
        readiness_probe: Some(Probe {
            http_get: Some(healthz),
            period_seconds: Some(5),
            timeout_seconds: Some(2),
            ..Probe::default()
        }),
        resources: Some(resources(&plan.cpu, &plan.memory)),
        volume_mounts: Some(mounts.mounts),
        ..container(names, AGENT, "plimsoll-agent", arguments)
    };
    let mut spec = pod(names, container, mounts.volumes);
    if let Some(context) = &mut spec.security_context {
        // Users of `daily` have a connection each. This one is the pod's own, and among those that every cluster allows.
        let sysctl = Sysctl { name: "net.ipv4.ip_local_port_range".to_owned(), value: "1024 65535".to_owned() };
        context.sysctls = Some(vec![sysctl]);
    }
    spec.topology_spread_constraints = Some(vec![spread(names)]);
    spec.node_selector = (!plan.node_selector.is_empty()).then(|| plan.node_selector.iter().cloned().collect());
    spec.tolerations = (!plan.tolerations.is_empty()).then(|| tolerations(plan));
    spec
}

/// As many nodes as agents, and so at most one agent on each; where they may share, as even as it goes.
fn spread(names: &Names) -> TopologySpreadConstraint {
    let share = names.plan.share_nodes;
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: if share { "ScheduleAnyway" } else { "DoNotSchedule" }.to_owned(),
        min_domains: (!share).then(|| i32::try_from(names.plan.agents).expect("at most a thousand")),
        node_taints_policy: Some("Honor".to_owned()),
        label_selector: Some(names.pods(AGENT)),
        ..TopologySpreadConstraint::default()
    }
}

fn tolerations(plan: &KubePlan) -> Vec<Toleration> {
    let toleration = |from: &crate::settings::kube::Toleration| Toleration {
        key: Some(from.key.clone()),
        operator: Some(if from.value.is_some() { "Equal" } else { "Exists" }.to_owned()),
        value: from.value.clone(),
        effect: from.effect.clone(),
        ..Toleration::default()
    };
    plan.tolerations.iter().map(toleration).collect()
}

fn coordinator_pod(names: &Names) -> PodSpec {
    let plan = names.plan;
    let mut mounts = Mounts::default();
    mounts.config("plan", &names.config(), PLAN_DIR);
    if let Some(secret) = names.tls_secret(COORDINATOR) {
        mounts.secret("tls", &secret, TLS_DIR);
    }
    for (index, secret) in plan.run.secrets.iter().enumerate() {
        mounts.secret(&format!("secret-{index}"), secret, &format!("{SECRETS_DIR}/{secret}"));
    }
    mounts.results(plan.results_claim.as_deref());
    let container = Container {
        ports: plan.metrics_from.as_ref().map(|_| vec![port("metrics", METRICS_PORT)]),
        resources: Some(resources("500m", "512Mi")),
        volume_mounts: Some(mounts.mounts),
        ..container(names, COORDINATOR, "plimsoll", plan.run.arguments.clone())
    };
    pod(names, container, mounts.volumes)
}

/// Volumes and where they are mounted, each once.
#[derive(Default)]
struct Mounts {
    volumes: Vec<Volume>,
    mounts: Vec<VolumeMount>,
}

impl Mounts {
    fn add(&mut self, volume: Volume, path: &str, read_only: bool) {
        self.mounts.push(VolumeMount {
            name: volume.name.clone(),
            mount_path: path.to_owned(),
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        });
        self.volumes.push(volume);
    }

    fn secret(&mut self, name: &str, secret: &str, path: &str) {
        let source = SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(OF_A_SECRET),
            ..SecretVolumeSource::default()
        };
        self.add(Volume { name: name.to_owned(), secret: Some(source), ..Volume::default() }, path, true);
    }

    fn config(&mut self, name: &str, config: &str, path: &str) {
        let source = ConfigMapVolumeSource { name: config.to_owned(), ..ConfigMapVolumeSource::default() };
        self.add(Volume { name: name.to_owned(), config_map: Some(source), ..Volume::default() }, path, true);
    }

    fn results(&mut self, claim: Option<&str>) {
        let volume = Volume { name: "results".to_owned(), ..Volume::default() };
        let volume = match claim {
            Some(claim) => Volume {
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim.to_owned(),
                    read_only: None,
                }),
                ..volume
            },
            None => Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume },
        };
        self.add(volume, RESULTS_DIR, false);
    }
}
