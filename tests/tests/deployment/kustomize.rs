//! `deploy/kubernetes` as `kubectl apply -k` would take it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use plimsoll_agent::shell::tls::install_provider;
use plimsoll_tests::harness::processes::Program;

use super::in_checkout;
use super::objects::{Brought, Objects, is_selected, labels, match_labels, strict};

const SECRETS: [&str; 3] = ["plimsoll-agent-tls", "plimsoll-coordinator-tls", "plimsoll-nats-creds"];
const BROUGHT: Brought = Brought { secrets: &SECRETS, claims: &[] };

/// Renders a directory with whichever of the two programs is here.
pub fn kustomize(dir: &Path) -> anyhow::Result<String> {
    let own = in_checkout(".tools/bin/kustomize").display().to_string();
    let ways: [&[&str]; 3] = [&["kubectl", "kustomize"], &["kustomize", "build"], &[&own, "build"]];
    for way in ways {
        let Ok(rendered) = Command::new(way[0]).args(&way[1..]).arg(dir).output() else { continue };
        let words = String::from_utf8_lossy(&rendered.stderr);
        ensure!(rendered.status.success(), "{}: {words}", dir.display());
        return Ok(String::from_utf8(rendered.stdout)?);
    }
    anyhow::bail!("neither kubectl nor kustomize is here: install one, or Go and run deploy/setup/install-tools.sh")
}

/// Renders it, follows every reference and has the programs take their command lines. Returns what the coordinator would do.
fn check(dir: &str) -> anyhow::Result<(Objects, String)> {
    install_provider();
    let objects = Objects::parse(&kustomize(&in_checkout("deploy/kubernetes").join(dir))?)?;
    is_in_order(&objects.order)?;
    objects.agree(&BROUGHT)?;
    objects.are_restricted()?;
    let certificates = super::secrets_of(&["plimsoll-agent-tls", "plimsoll-coordinator-tls"], "plimsoll-agents")?;
    let pods = tempfile::tempdir()?;
    let dry = objects.command_lines_are_taken(pods.path(), &certificates.dirs())?;
    ensure!(dry.len() == 1, "one coordinator");
    let text = dry.into_iter().next().map(|ended| ended.stdout).unwrap_or_default();
    ensure!(text.contains("dns:plimsoll-agents:7700: 500/s, "), "{text}");
    Ok((objects, text))
}

/// Nobody is reachable before the policies are there, and nobody starts before what it mounts.
fn is_in_order(order: &[String]) -> anyhow::Result<()> {
    const KINDS: [&str; 6] = ["NetworkPolicy", "PersistentVolumeClaim", "ConfigMap", "Service", "StatefulSet", "Job"];
    let places = order.iter().map(|name| KINDS.iter().position(|kind| name.split('/').next() == Some(kind)));
    let places: Vec<usize> =
        places.collect::<Option<_>>().with_context(|| format!("a kind without a place: {order:?}"))?;
    ensure!(places.is_sorted(), "{order:?}");
    Ok(())
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_base_is_what_the_command_renders() -> anyhow::Result<()> {
    let (mut base, _) = check("base")?;
    let rendered = Program::Cli.run([
        "kube",
        "--agents=3",
        "--image=plimsoll:0.1.0",
        "--agent-tls-secret=plimsoll-agent-tls",
        "--coordinator-tls-secret=plimsoll-coordinator-tls",
        "--",
        "max-rps",
        "--preset=medium",
        "--nats-url=nats://nats:4222",
    ])?;
    let rendered = Objects::parse(&rendered.stdout)?;
    let plan = base.config_maps.get_mut("plimsoll-plan").and_then(|map| map.data.as_mut()).context("a plan")?;
    plan.values_mut().for_each(|text| *text = without_comments(text));
    assert_eq!(base.config_maps, rendered.config_maps);
    assert_eq!(base.services, rendered.services);
    assert_eq!(base.policies, rendered.policies);
    assert_eq!(base.jobs, rendered.jobs);
    Ok(())
}

#[test]
fn pages_say_which_kubernetes_it_takes() -> anyhow::Result<()> {
    let (base, _) = check("base")?;
    let spec = base.jobs["plimsoll-agents"].spec.as_ref().context("a spec")?;
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    // Both are on by default from 1.29 on; the API of earlier ones drops them, and takes the failures of all for one.
    let needs_it = spec.backoff_limit_per_index.is_some() && rules.map(|rule| &rule.action).any(|of| of == "FailIndex");
    for page in ["docs/operator-guide.md", "README.md", "deploy/kubernetes/base/kustomization.yaml"] {
        let words = std::fs::read_to_string(in_checkout(page))?.replace("\n# ", " ").replace('\n', " ");
        assert_eq!(words.contains("Kubernetes 1.29 or newer"), needs_it, "{page}");
    }
    Ok(())
}

#[test]
fn a_standing_fleet_stays_and_is_found_by_the_same_name() -> anyhow::Result<()> {
    let (base, _) = check("base")?;
    let (objects, _) = check("overlays/standing-fleet")?;
    assert_eq!(objects.jobs.keys().collect::<Vec<_>>(), ["plimsoll-coordinator"], "{:?}", objects.order);
    let set = objects.stateful_sets["plimsoll-agents"].spec.as_ref().context("a spec")?;
    let job = base.jobs["plimsoll-agents"].spec.as_ref().context("a spec")?;
    assert_eq!(set.replicas, job.completions);
    let (standing, ending) =
        (set.template.spec.as_ref().context("a pod")?, job.template.spec.as_ref().context("a pod")?);
    let arguments = |index: &k8s_openapi::api::core::v1::PodSpec| index.containers[0].args.clone().unwrap_or_default();
    let mut without = arguments(ending);
    without.retain(|argument| !argument.starts_with("--exit-"));
    assert_eq!(arguments(standing), without);
    let mut other = standing.clone();
    other.restart_policy.clone_from(&ending.restart_policy);
    other.containers[0].args.clone_from(&ending.containers[0].args);
    assert_eq!(other, *ending, "but for that, the pods are the same");
    Ok(())
}

#[test]
fn credentials_come_from_a_secret_and_reach_the_run() -> anyhow::Result<()> {
    let (_, dry) = check("overlays/nats-creds")?;
    let line = dry.lines().find(|line| line.trim_start().starts_with("nats-creds")).context("no credentials")?;
    assert!(line.contains("/plimsoll-nats-creds/backend.creds") && line.ends_with("PLIMSOLL_NATS_CREDS"), "{line}");
    Ok(())
}

#[test]
fn a_run_is_saved_in_a_volume_that_outlives_it() -> anyhow::Result<()> {
    let (objects, dry) = check("overlays/results-claim")?;
    assert_eq!(objects.claims.keys().collect::<Vec<_>>(), ["plimsoll-results"]);
    let job = objects.jobs["plimsoll-coordinator"].spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let volumes = job.and_then(|pod| pod.volumes.as_ref()).context("volumes")?;
    let results = volumes.iter().find(|volume| volume.name == "results").context("a volume for results")?;
    let claim = results.persistent_volume_claim.as_ref().context("a claim")?;
    assert!(claim.claim_name == "plimsoll-results" && results.empty_dir.is_none(), "{results:?}");
    let line = dry.lines().find(|line| line.trim_start().starts_with("results ")).context("no results")?;
    assert!(line.contains("/results"), "{line}");
    Ok(())
}

#[test]
fn metrics_are_shown_to_a_namespace_as_the_command_shows_them() -> anyhow::Result<()> {
    let (objects, dry) = check("overlays/metrics-from")?;
    let line = dry.lines().find(|line| line.trim_start().starts_with("metrics-listen ")).context("no metrics")?;
    assert!(line.contains("0.0.0.0:9700"), "{line}");
    let kube = ["kube", "--agents=3", "--image=plimsoll:0.1.0", "--metrics-from=monitoring", "--insecure", "--"];
    let run = ["max-rps", "--preset=medium", "--nats-url=nats://nats:4222"];
    let rendered = Objects::parse(&Program::Cli.run([&kube[..], &run].concat())?.stdout)?;
    assert_eq!(objects.policies, rendered.policies);
    let ports = |objects: &Objects| -> anyhow::Result<Vec<String>> {
        let all = objects.containers()?;
        Ok(all.into_iter().map(|(name, _, container)| format!("{name}: {:?}", container.ports)).collect())
    };
    assert_eq!(ports(&objects)?, ports(&rendered)?);
    // Where Prometheus looks is where they are.
    let jobs = std::fs::read_to_string(in_checkout("deploy/monitoring/prometheus-kubernetes.yml"))?;
    let jobs: serde_json::Value = serde_saphyr::from_str(&jobs)?;
    let job = &jobs["scrape_configs"][0];
    let selector = job["kubernetes_sd_configs"][0]["selectors"][0]["label"].as_str().context("a label")?;
    let (key, value) = selector.split_once('=').context("a value")?;
    for (name, template) in objects.templates() {
        let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref()).context("labels")?;
        assert_eq!(labels.get(key).map(String::as_str), Some(value), "{name}");
    }
    let keeps = job["relabel_configs"].as_array().context("rules")?.iter().find(|rule| rule["action"] == "keep");
    assert_eq!(keeps.context("a port")?["regex"], "metrics");
    Ok(())
}

#[test]
fn the_policy_for_a_namespace_that_lets_nobody_out_lets_runs_reach_what_they_take() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(in_checkout("deploy/kubernetes/components/egress/policy.yaml"))?;
    let policy: NetworkPolicy = strict(&serde_saphyr::from_str(&text)?)?;
    let spec = policy.spec.context("a spec")?;
    assert_eq!(spec.policy_types.as_deref(), Some(&["Egress".to_owned()][..]), "who may come in is said elsewhere");
    let (base, _) = check("base")?;
    let selected = |selector: &LabelSelector| -> anyhow::Result<Vec<String>> {
        let wanted = match_labels(selector)?;
        let is_of = |template: &PodTemplateSpec| is_selected(labels(template.metadata.as_ref()), wanted);
        Ok(base.templates().into_iter().filter(|(_, template)| is_of(template)).map(|(name, _)| name).collect())
    };
    let pods = spec.pod_selector.as_ref().context("a selector")?;
    assert_eq!(selected(pods)?, ["plimsoll-agents", "plimsoll-coordinator"]);
    let mut open = Vec::new();
    for rule in spec.egress.iter().flatten() {
        let to = match rule.to.as_deref() {
            None => vec!["anybody".to_owned()],
            Some([peer]) => selected(peer.pod_selector.as_ref().context("pods")?)?,
            Some(peers) => anyhow::bail!("{peers:?}"),
        };
        for port in rule.ports.iter().flatten() {
            let Some(IntOrString::Int(number)) = &port.port else { anyhow::bail!("{port:?}") };
            open.push(format!("{} {number} of {}", port.protocol.as_deref().unwrap_or("TCP"), to.join(",")));
        }
    }
    let nats =
        base.config_maps["plimsoll-plan"].data.as_ref().context("a plan")?["plan.toml"].contains("nats://nats:4222");
    assert!(nats, "NATS is at the port that is let out to");
    let wanted = ["UDP 53 of anybody", "TCP 53 of anybody", "TCP 7700 of plimsoll-agents", "TCP 4222 of anybody"];
    assert_eq!(open, wanted);
    Ok(())
}

#[test]
fn saved_runs_are_read_from_their_claim_by_a_pod_that_may_do_nothing_else() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(in_checkout("deploy/kubernetes/results-reader.yaml"))?;
    let pod: Pod = strict(&serde_saphyr::from_str(&text)?)?;
    let (name, spec) = (pod.metadata.name.context("a name")?, pod.spec.context("a spec")?);
    let (objects, _) = check("overlays/results-claim")?;
    let claims: Vec<&str> = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| volume.persistent_volume_claim.as_ref())
        .map(|claim| claim.claim_name.as_str())
        .collect();
    assert_eq!(claims, objects.claims.keys().collect::<Vec<_>>());
    let mount = &spec.containers[0].volume_mounts.as_ref().context("a mount")?[0];
    assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/results", Some(true)));
    // As the run's own pods, who wrote it.
    let coordinator = objects.containers()?.into_iter().find(|(name, ..)| name == "plimsoll-coordinator");
    let (_, writer, container) = coordinator.context("a coordinator")?;
    assert_eq!(spec.security_context, writer.security_context);
    assert_eq!(spec.containers[0].security_context, container.security_context);
    assert_eq!(spec.automount_service_account_token, Some(false));
    let guide = std::fs::read_to_string(in_checkout("docs/operator-guide.md"))?;
    for line in [
        "kubectl apply -f deploy/kubernetes/results-reader.yaml".to_owned(),
        format!("kubectl wait --for=condition=Ready pod/{name}"),
        format!("kubectl cp {name}:/results results"),
        format!("kubectl delete pod {name}"),
    ] {
        assert!(guide.contains(&format!("\n{line}\n")) && text.contains(&format!("#   {line}\n")), "{line}");
    }
    Ok(())
}
