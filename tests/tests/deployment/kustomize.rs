//! `deploy/kubernetes` as `kubectl apply -k` would take it.

use std::process::Command;

use anyhow::{Context as _, ensure};
use plimsoll_agent::shell::tls::install_provider;
use plimsoll_tests::harness::processes::Program;

use super::in_checkout;
use super::objects::{Brought, Objects};

const SECRETS: [&str; 3] = ["plimsoll-agent-tls", "plimsoll-coordinator-tls", "plimsoll-nats-creds"];
const BROUGHT: Brought = Brought { secrets: &SECRETS, claims: &[] };

/// Renders a directory with whichever of the two programs is here.
fn kustomize(dir: &str) -> anyhow::Result<String> {
    let dir = in_checkout("deploy/kubernetes").join(dir);
    let own = in_checkout(".tools/bin/kustomize").display().to_string();
    let ways: [&[&str]; 3] = [&["kubectl", "kustomize"], &["kustomize", "build"], &[&own, "build"]];
    for way in ways {
        let Ok(rendered) = Command::new(way[0]).args(&way[1..]).arg(&dir).output() else { continue };
        let words = String::from_utf8_lossy(&rendered.stderr);
        ensure!(rendered.status.success(), "{}: {words}", dir.display());
        return Ok(String::from_utf8(rendered.stdout)?);
    }
    anyhow::bail!("neither kubectl nor kustomize is here: install one, or Go and run deploy/setup/install-tools.sh")
}

/// Renders it, follows every reference and has the programs take their command lines. Returns what the coordinator would do.
fn check(dir: &str) -> anyhow::Result<(Objects, String)> {
    install_provider();
    let objects = Objects::parse(&kustomize(dir)?)?;
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
