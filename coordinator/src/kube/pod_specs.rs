//! The pods of a run: what runs in them, as whom, on which nodes, and what they see.

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction,
    LocalObjectReference, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretVolumeSource, SecurityContext, Sysctl, Toleration, TopologySpreadConstraint, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::manifests::{AGENT, COORDINATOR, Names};
use super::{AGENT_PORT, METRICS_PORT};
use crate::settings::kube::KubePlan;
use crate::settings::kube::run::{PLAN_DIR, RESULTS_DIR, SECRETS_DIR, TLS_DIR, TLS_FILES};

/// The user of the image: nobody's on any host.
const USER: i64 = 65_532;
/// Files of a Secret are read by the pod's group, which is the user's own.
const OF_A_SECRET: i32 = 0o440;
/// After SIGTERM operations may end that are open, and then totals, goodbye and report take a moment.
const GRACE_SECONDS: u64 = 20;

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

/// Of an agent.
pub(super) fn agent(names: &Names) -> PodSpec {
    let plan = names.plan;
    // The first, so that an overlay of deploy/kubernetes can name its place.
    let targets = plan.run.targets.iter().map(|target| format!("--allow-target={target}"));
    let mut arguments: Vec<String> = targets.collect();
    arguments.extend([
        format!("--listen=0.0.0.0:{AGENT_PORT}"),
        format!("--metrics-listen=0.0.0.0:{METRICS_PORT}"),
        format!("--workers={}", plan.workers),
        format!("--max-run={}s", plan.deadline.as_secs()),
        "--exit-after-run".to_owned(),
        format!("--exit-when-idle={}", humantime::format_duration(plan.idle_limit())),
    ]);
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
        // A container that is started again in its pod must find its own ports free.
        let sysctl = |name: &str, value: String| Sysctl { name: format!("net.ipv4.{name}"), value };
        context.sysctls = Some(vec![
            sysctl("ip_local_port_range", "1024 65535".to_owned()),
            sysctl("ip_local_reserved_ports", format!("{AGENT_PORT},{METRICS_PORT}")),
        ]);
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

/// Of the coordinator.
pub(super) fn coordinator(names: &Names) -> PodSpec {
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
