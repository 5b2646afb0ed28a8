//! Manifests as a cluster would take them: parsed into the API's types with nothing left over, every reference followed, and
//! every command line given to the program that it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Parser as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, PersistentVolumeClaim, PodSpec, PodTemplateSpec, Secret, Service,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use plimsoll_agent::command_line::Flags;
use plimsoll_tests::harness::processes::{Ended, Process, Program};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// Objects by their names.
#[derive(Debug, Default)]
pub struct Objects {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    pub services: BTreeMap<String, Service>,
    pub policies: BTreeMap<String, NetworkPolicy>,
    pub jobs: BTreeMap<String, Job>,
    pub stateful_sets: BTreeMap<String, StatefulSet>,
    /// `Kind/name`, in the order in which they stand.
    pub order: Vec<String>,
}

/// What manifests may name that is not among them, since a user brings it.
#[derive(Debug, Default)]
pub struct Brought<'a> {
    pub secrets: &'a [&'a str],
    pub claims: &'a [&'a str],
}

pub(super) type Labels = BTreeMap<String, String>;

/// Parses an object and demands that nothing of it is lost on the way: a field that the API does not know would be.
pub fn strict<T: Serialize + DeserializeOwned>(value: &Value) -> anyhow::Result<T> {
    let typed: T = serde_json::from_value(value.clone()).with_context(|| format!("no object: {value}"))?;
    let again = serde_json::to_value(&typed)?;
    same(value, &again, "")?;
    Ok(typed)
}

fn same(value: &Value, again: &Value, at: &str) -> anyhow::Result<()> {
    match (value, again) {
        (Value::Object(value), Value::Object(again)) => {
            for (key, inner) in value {
                let at = format!("{at}.{key}");
                same(inner, again.get(key).with_context(|| format!("{at} is no field"))?, &at)?;
            }
            Ok(())
        }
        (Value::Array(value), Value::Array(again)) if value.len() == again.len() => value
            .iter()
            .zip(again)
            .enumerate()
            .try_for_each(|(index, (value, again))| same(value, again, &format!("{at}[{index}]"))),
        _ => {
            ensure!(value == again, "{at}: {value} is taken for {again}");
            Ok(())
        }
    }
}

impl Objects {
    /// Reads documents of YAML.
    pub fn parse(yaml: &str) -> anyhow::Result<Self> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
        let mut objects = Self::default();
        for document in documents {
            let text = |at: &str| document.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (kind, name) = (text("/kind"), text("/metadata/name"));
            objects.add(&kind, name.clone(), &document).with_context(|| format!("{kind}/{name}"))?;
            objects.order.push(format!("{kind}/{name}"));
        }
        Ok(objects)
    }

    fn add(&mut self, kind: &str, name: String, document: &Value) -> anyhow::Result<()> {
        let twice = match kind {
            "ConfigMap" => self.config_maps.insert(name, strict(document)?).is_some(),
            "Secret" => self.secrets.insert(name, strict(document)?).is_some(),
            "PersistentVolumeClaim" => self.claims.insert(name, strict(document)?).is_some(),
            "Service" => self.services.insert(name, strict(document)?).is_some(),
            "NetworkPolicy" => self.policies.insert(name, strict(document)?).is_some(),
            "Job" => self.jobs.insert(name, strict(document)?).is_some(),
            "StatefulSet" => self.stateful_sets.insert(name, strict(document)?).is_some(),
            other => bail!("a kind that is not checked: {other}"),
        };
        ensure!(!twice, "it stands twice");
        Ok(())
    }

    /// Templates of pods, by who makes them.
    pub fn templates(&self) -> Vec<(String, &PodTemplateSpec)> {
        let of_jobs = self.jobs.iter().filter_map(|(name, job)| Some((name, &job.spec.as_ref()?.template)));
        let of_sets = self.stateful_sets.iter().filter_map(|(name, set)| Some((name, &set.spec.as_ref()?.template)));
        of_jobs.chain(of_sets).map(|(name, template)| (name.clone(), template)).collect()
    }

    /// The one container of each.
    pub fn containers(&self) -> anyhow::Result<Vec<(String, &PodSpec, &Container)>> {
        let mut containers = Vec::new();
        for (name, template) in self.templates() {
            let spec = template.spec.as_ref().with_context(|| format!("{name} has no pod"))?;
            ensure!(spec.containers.len() == 1 && spec.init_containers.is_none(), "{name} has one container");
            containers.push((name, spec, &spec.containers[0]));
        }
        Ok(containers)
    }

    /// The templates that a selector selects.
    pub(super) fn selected(&self, selector: &Labels) -> Vec<&PodTemplateSpec> {
        let templates = self.templates().into_iter().map(|(_, template)| template);
        templates.filter(|template| is_selected(labels(template.metadata.as_ref()), selector)).collect()
    }

    /// Follows every reference from one object to another.
    pub fn agree(&self, brought: &Brought) -> anyhow::Result<()> {
        for (name, service) in &self.services {
            self.service_agrees(service).with_context(|| format!("Service/{name}"))?;
        }
        for (name, policy) in &self.policies {
            self.policy_agrees(policy).with_context(|| format!("NetworkPolicy/{name}"))?;
        }
        for (name, set) in &self.stateful_sets {
            let spec = set.spec.as_ref().context("no spec")?;
            let service = spec.service_name.as_deref().unwrap_or_default();
            ensure!(self.services.contains_key(service), "StatefulSet/{name}: no Service/{service}");
            let own = labels(spec.template.metadata.as_ref());
            ensure!(is_selected(own, match_labels(&spec.selector)?), "StatefulSet/{name} does not select its own pods");
        }
        for (name, spec, container) in self.containers()? {
            self.volumes_agree(spec, container, brought).with_context(|| name.clone())?;
            probe_agrees(container).with_context(|| name.clone())?;
            ports_are_kept(spec, container).with_context(|| name.clone())?;
            for pulled_by in spec.image_pull_secrets.iter().flatten() {
                let there = brought.secrets.contains(&pulled_by.name.as_str());
                ensure!(there, "{name}: no Secret/{} to pull its image with", pulled_by.name);
            }
        }
        self.agents_may_drive_the_target()?;
        self.agents_are_as_many_as_are_waited_for()?;
        self.only_coordinators_reach_agents()?;
        for (name, template) in self.templates() {
            let spread = template.spec.iter().flat_map(|spec| spec.topology_spread_constraints.iter().flatten());
            for constraint in spread {
                let selector = match_labels(constraint.label_selector.as_ref().context("it spreads nobody")?)?;
                ensure!(is_selected(labels(template.metadata.as_ref()), selector), "{name} spreads other pods");
            }
        }
        Ok(())
    }

    fn service_agrees(&self, service: &Service) -> anyhow::Result<()> {
        let spec = service.spec.as_ref().context("no spec")?;
        let selected = self.selected(spec.selector.as_ref().context("no selector")?);
        ensure!(!selected.is_empty(), "it selects nobody");
        for port in spec.ports.iter().flatten() {
            let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
            for template in &selected {
                let number = port_of(template, &target)?;
                // Headless: nothing translates the port.
                ensure!(spec.cluster_ip.as_deref() == Some("None") && number == port.port, "{port:?}: {number}");
            }
        }
        Ok(())
    }

    fn policy_agrees(&self, policy: &NetworkPolicy) -> anyhow::Result<()> {
        let spec = policy.spec.as_ref().context("no spec")?;
        let guarded = self.selected(match_labels(spec.pod_selector.as_ref().context("no pods")?)?);
        ensure!(!guarded.is_empty(), "it guards nobody");
        let kinds: Vec<&str> = spec.policy_types.iter().flatten().map(String::as_str).collect();
        ensure!(kinds == ["Ingress"] || kinds == ["Egress"], "it is for one way: {kinds:?}");
        ensure!(kinds == ["Ingress"] || spec.ingress.is_none(), "what comes in is of no matter to it");
        ensure!(kinds == ["Egress"] || spec.egress.is_none(), "what goes out is of no matter to it");
        for rule in spec.egress.iter().flatten() {
            ensure!(rule.ports.iter().flatten().any(|port| port.port.is_some()), "every port is let out to");
            for pods in rule.to.iter().flatten().filter_map(|peer| peer.pod_selector.as_ref()) {
                ensure!(!self.selected(match_labels(pods)?).is_empty(), "it lets out to nobody: {pods:?}");
            }
        }
        for rule in spec.ingress.iter().flatten() {
            let peers = rule.from.as_deref().unwrap_or_default();
            ensure!(!peers.is_empty(), "everybody is let in");
            for pods in peers.iter().filter_map(|peer| peer.pod_selector.as_ref()) {
                ensure!(!self.selected(match_labels(pods)?).is_empty(), "it lets in nobody: {pods:?}");
            }
            for port in rule.ports.iter().flatten() {
                let port = port.port.as_ref().context("every port is let through")?;
                guarded.iter().try_for_each(|template| port_of(template, port).map(drop))?;
            }
        }
        Ok(())
    }

    fn volumes_agree(&self, spec: &PodSpec, container: &Container, brought: &Brought) -> anyhow::Result<()> {
        let volumes = spec.volumes.as_deref().unwrap_or_default();
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        let named: BTreeSet<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        let mounted: BTreeSet<&str> = mounts.iter().map(|mount| mount.name.as_str()).collect();
        ensure!(named == mounted && named.len() == volumes.len(), "volumes {named:?}, mounted {mounted:?}");
        for volume in volumes {
            if let Some(config) = &volume.config_map {
                ensure!(self.config_maps.contains_key(&config.name), "no ConfigMap/{}", config.name);
            }
            if let Some(secret) = &volume.secret {
                let name = secret.secret_name.as_deref().unwrap_or_default();
                let there = self.secrets.contains_key(name) || brought.secrets.contains(&name);
                ensure!(there, "no Secret/{name}");
            }
            if let Some(claim) = &volume.persistent_volume_claim {
                let name = claim.claim_name.as_str();
                let there = self.claims.contains_key(name) || brought.claims.contains(&name);
                ensure!(there, "no PersistentVolumeClaim/{name}");
            }
        }
        Ok(())
    }

    /// What the standard called "restricted" asks of pods, and what this project asks besides.
    pub fn are_restricted(&self) -> anyhow::Result<()> {
        for (name, spec, container) in self.containers()? {
            is_restricted(spec, container).with_context(|| format!("{name} is not restricted"))?;
            ensure!(spec.automount_service_account_token == Some(false), "{name} gets a token of the cluster");
            let resources = container.resources.as_ref().with_context(|| format!("{name} asks for nothing"))?;
            let has = |map: &Option<BTreeMap<_, _>>, key: &str| map.as_ref().is_some_and(|map| map.contains_key(key));
            ensure!(
                has(&resources.requests, "cpu") && has(&resources.requests, "memory"),
                "{name} requests too little"
            );
            ensure!(!has(&resources.limits, "cpu"), "{name} would be throttled");
        }
        Ok(())
    }

    /// Lays files out as pods would see them and has every program read its command line. Certificates that are brought come
    /// from `tls`: by the Secret's name, the directory with `tls.crt`, `tls.key` and `ca.crt`. Returns dry runs.
    pub fn command_lines_are_taken(&self, dir: &Path, tls: &[(&str, PathBuf)]) -> anyhow::Result<Vec<Ended>> {
        let mut dry_runs = Vec::new();
        for (name, spec, container) in self.containers()? {
            let root = dir.join(&name);
            self.lay_out(spec, container, &root, tls).with_context(|| name.clone())?;
            let program = container.command.as_ref().and_then(|command| command.first()).context("no program")?;
            let arguments = container.args.as_deref().unwrap_or_default().iter().map(|text| moved(text, &root));
            match program.as_str() {
                "plimsoll-agent" => {
                    let flags = Flags::try_parse_from(std::iter::once(program.clone()).chain(arguments))?;
                    flags.config().with_context(|| format!("the agent of {name}"))?;
                }
                "plimsoll" => {
                    let mut command = Program::Cli.command()?;
                    command.args(arguments).arg("--dry-run");
                    for variable in container.env.iter().flatten() {
                        command.env(&variable.name, moved(variable.value.as_deref().unwrap_or_default(), &root));
                    }
                    let ended = Process::spawn(command)?.wait(Duration::from_secs(20))?;
                    ensure!(ended.code == Some(0), "the coordinator of {name}: {ended:?}");
                    dry_runs.push(ended);
                }
                other => bail!("{name} runs {other}"),
            }
        }
        Ok(dry_runs)
    }

    fn lay_out(
        &self,
        spec: &PodSpec,
        container: &Container,
        root: &Path,
        tls: &[(&str, PathBuf)],
    ) -> anyhow::Result<()> {
        for mount in container.volume_mounts.iter().flatten() {
            let at = root.join(mount.mount_path.trim_start_matches('/'));
            std::fs::create_dir_all(&at)?;
            let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name).context("no volume")?;
            if let Some(config) = &volume.config_map {
                for (file, text) in self.config_maps[&config.name].data.iter().flatten() {
                    std::fs::write(at.join(file), moved(text, root))?;
                }
            }
            let Some(secret) = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()) else {
                continue;
            };
            if let Some(made) = self.secrets.get(secret) {
                for (file, text) in made.string_data.iter().flatten() {
                    std::fs::write(at.join(file), text)?;
                }
            } else if let Some((_, from)) = tls.iter().find(|(name, _)| *name == secret) {
                for file in ["tls.crt", "tls.key", "ca.crt"] {
                    std::fs::copy(from.join(file), at.join(file)).with_context(|| format!("{secret}: {file}"))?;
                }
            } else {
                std::fs::write(at.join("backend.creds"), "credentials of a test\n")?;
            }
        }
        Ok(())
    }
}

/// A path of the pod, in the directory that stands for its root.
fn moved(text: &str, root: &Path) -> String {
    text.replace("/etc/plimsoll/", &format!("{}/etc/plimsoll/", root.display()))
}

pub(super) fn labels(metadata: Option<&ObjectMeta>) -> &Labels {
    static NONE: Labels = Labels::new();
    metadata.and_then(|metadata| metadata.labels.as_ref()).unwrap_or(&NONE)
}

pub(super) fn is_selected(labels: &Labels, selector: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

pub(super) fn match_labels(selector: &LabelSelector) -> anyhow::Result<&Labels> {
    ensure!(selector.match_expressions.is_none(), "a selector that is not checked");
    selector.match_labels.as_ref().context("it selects everybody")
}

/// The number of a port of these pods, by number or name.
pub(super) fn port_of(template: &PodTemplateSpec, port: &IntOrString) -> anyhow::Result<i32> {
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let found = ports.find(|known| match port {
        IntOrString::Int(number) => known.container_port == *number,
        IntOrString::String(name) => known.name.as_ref() == Some(name),
    });
    found.map(|port| port.container_port).with_context(|| format!("no port {port:?}"))
}

fn probe_agrees(container: &Container) -> anyhow::Result<()> {
    let Some(probe) = &container.readiness_probe else { return Ok(()) };
    let get = probe.http_get.as_ref().context("a probe that is not checked")?;
    let spec = PodSpec { containers: vec![container.clone()], ..PodSpec::default() };
    port_of(&PodTemplateSpec { metadata: None, spec: Some(spec) }, &get.port)?;
    ensure!(get.path.as_deref() == Some("/healthz"), "{get:?}");
    Ok(())
}

/// Where connections may take every port, those that the container listens on are kept from them.
fn ports_are_kept(spec: &PodSpec, container: &Container) -> anyhow::Result<()> {
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    let sysctls: BTreeMap<&str, &str> = sysctls.map(|sysctl| (sysctl.name.as_str(), sysctl.value.as_str())).collect();
    if !sysctls.contains_key("net.ipv4.ip_local_port_range") {
        return Ok(());
    }
    let kept = sysctls.get("net.ipv4.ip_local_reserved_ports").copied().unwrap_or_default();
    let is_kept = |port: i32| kept.split(',').any(|kept| kept == port.to_string());
    let mut ports = container.ports.iter().flatten();
    ensure!(ports.all(|port| is_kept(port.container_port)), "connections may take its ports: {sysctls:?}");
    Ok(())
}

fn is_restricted(spec: &PodSpec, container: &Container) -> anyhow::Result<()> {
    /// Those that Kubernetes calls safe.
    const SAFE_SYSCTLS: [&str; 2] = ["net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports"];
    let shares_host = [spec.host_network, spec.host_pid, spec.host_ipc].into_iter().flatten().any(|shares| shares);
    ensure!(!shares_host, "it is in the host's namespaces");
    let pod = spec.security_context.as_ref().context("no security context")?;
    ensure!(pod.run_as_non_root == Some(true) && pod.run_as_user.is_some_and(|user| user > 0), "it may be root");
    let seccomp = pod.seccomp_profile.as_ref().map(|profile| profile.type_.as_str());
    ensure!(seccomp == Some("RuntimeDefault"), "no seccomp profile");
    for sysctl in pod.sysctls.iter().flatten() {
        ensure!(SAFE_SYSCTLS.contains(&sysctl.name.as_str()), "{sysctl:?} is not allowed everywhere");
    }
    let own = container.security_context.as_ref().context("the container has no security context")?;
    ensure!(own.allow_privilege_escalation == Some(false) && own.privileged != Some(true), "it may get rights");
    let dropped = own.capabilities.as_ref().and_then(|capabilities| capabilities.drop.as_deref());
    ensure!(dropped == Some(&["ALL".to_owned()]), "it keeps capabilities");
    ensure!(own.capabilities.as_ref().is_none_or(|capabilities| capabilities.add.is_none()), "it adds capabilities");
    ensure!(own.read_only_root_filesystem == Some(true), "its root can be written to");
    ensure!(container.ports.iter().flatten().all(|port| port.host_port.is_none()), "a port of the host");
    for volume in spec.volumes.iter().flatten() {
        let allowed = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.empty_dir.is_some()
            || volume.persistent_volume_claim.is_some();
        ensure!(allowed, "the volume {} is of no allowed kind", volume.name);
    }
    Ok(())
}

#[test]
fn what_does_not_agree_is_found() {
    let good = "\
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {clusterIP: None, selector: {app: a}, ports: [{name: p, port: 1, targetPort: p}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: f}
spec:
  serviceName: s
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec: {containers: [{name: c, ports: [{name: p, containerPort: 1}]}]}
";
    let check = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        let objects = Objects::parse(&good.replacen(from, to, 1))?;
        objects.agree(&Brought::default())
    };
    assert!(check("metadata: {name: s}", "metadata: {name: s}").is_ok());
    for (from, to) in [
        ("serviceName: s", "serviceName: other"),
        ("selector: {app: a}", "selector: {app: b}"),
        ("targetPort: p", "targetPort: q"),
        ("containerPort: 1", "containerPort: 2"),
        ("matchLabels: {app: a}", "matchLabels: {app: c}"),
        ("serviceName: s", "servicename: s"),
        ("port: 1,", "port: one,"),
        ("kind: Service\n", "kind: Widget\n"),
        ("{containers: [", "{volumes: [{name: v}], containers: ["),
    ] {
        assert!(check(from, to).is_err(), "{to} was taken");
    }
    assert!(Objects::parse(good).and_then(|objects| objects.are_restricted()).is_err());
}
