//! What the operator guide says of a cluster: its commands of kustomize, followed in a copy of the directory with a kubectl that does
//! what can be done without a cluster, and the rights that it lists.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::rbac::v1::Role;
use plimsoll_agent::shell::tls::install_provider;
use plimsoll_tests::harness::processes::Process;

use super::guide::blocks;
use super::in_checkout;
use super::install::{binaries, output};
use super::kustomize::kustomize;
use super::objects::{Brought, Objects, strict};

const GUIDE: &str = "docs/operator-guide.md";

/// Writes down what it is asked, takes Secrets only of files that are there, and has a log at the second time.
const KUBECTL: &str = r#"#!/bin/sh
echo "$*" >> asked
case "$1 $2" in
"create secret")
    for argument; do
        case "$argument" in --from-file=*) test -s "${argument##*=}" || exit 1 ;; esac
    done ;;
"logs -f")
    test -e begun && exit 0
    touch begun
    echo 'container "coordinator" in pod "plimsoll-coordinator-x" is waiting to start: ContainerCreating' >&2
    exit 1 ;;
esac
"#;

/// Every command for kubectl of the guide's blocks about kustomize, as it was asked.
fn followed(dir: &Path) -> anyhow::Result<Vec<String>> {
    let (bin, kubernetes) = (dir.join("bin"), dir.join("deploy/kubernetes"));
    std::fs::create_dir_all(&bin)?;
    std::fs::create_dir_all(dir.join("deploy"))?;
    output(Command::new("cp").arg("-r").arg(in_checkout("deploy/kubernetes")).arg(&kubernetes))?;
    std::fs::write(bin.join("kubectl"), KUBECTL)?;
    std::fs::set_permissions(bin.join("kubectl"), std::fs::Permissions::from_mode(0o755))?;
    let blocks = blocks(GUIDE)?;
    let script: String = blocks
        .iter()
        .filter(|block| block.text.contains("kubectl apply -k"))
        .map(|block| block.text.as_str())
        .collect();
    let path = format!("{}:{}:{}", bin.display(), binaries()?.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &script]).env("PATH", path).current_dir(dir);
    let ended = Process::spawn(command)?.wait(Duration::from_secs(30))?;
    ensure!(ended.code == Some(0), "{script}\n{ended:?}");
    Ok(std::fs::read_to_string(dir.join("asked"))?.lines().map(str::to_owned).collect())
}

#[test]
fn the_guides_commands_of_kustomize_make_a_run_of_the_image_that_was_pushed_and_another() -> anyhow::Result<()> {
    install_provider();
    let dir = tempfile::tempdir()?;
    let asked = followed(dir.path())?;
    let of =
        |beginning: &str| -> Vec<&str> { asked.iter().filter_map(|asked| asked.strip_prefix(beginning)).collect() };
    let first = |rest: &str| rest.split(' ').next().unwrap_or_default().to_owned();
    let secrets: Vec<String> = of("create secret generic ").into_iter().map(first).collect();
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    // The first log is asked for until there is one.
    assert_eq!(of("logs -f "), ["job/plimsoll-coordinator"; 3], "{asked:?}");
    let [one, another] = of("apply -k ")[..] else { anyhow::bail!("two runs: {asked:?}") };
    assert_eq!(one, another);
    let objects = Objects::parse(&kustomize(&dir.path().join(one))?)?;
    objects.agree(&Brought { secrets: &secrets, claims: &[] })?;
    objects.are_restricted()?;
    let names = [("plimsoll-agent-tls", "plimsoll-agents"), ("plimsoll-coordinator-tls", "plimsoll-coordinator")];
    assert_eq!(secrets, names.map(|(secret, _)| secret));

    let guide = std::fs::read_to_string(in_checkout(GUIDE))?;
    let built = guide.split("`docker build ").nth(1).and_then(|rest| rest.split(" -t ").nth(1)).context("an image")?;
    let built = first(built);
    for (name, _, container) in objects.containers()? {
        assert_eq!(container.image.as_deref(), Some(built.as_str()), "{name}");
    }
    // A Job that is there already is not run again.
    let removed: BTreeSet<&str> = of("delete job ").iter().flat_map(|rest| rest.split(' ')).collect();
    assert!(objects.jobs.keys().all(|job| removed.contains(job.as_str())), "{removed:?}");
    assert!(removed.contains("--cascade=foreground"), "{removed:?}");
    let place = |beginning: &str| asked.iter().rposition(|asked| asked.starts_with(beginning));
    assert!(place("delete job ") < place("apply -k "), "{asked:?}");
    Ok(())
}

#[test]
fn an_overlay_of_ones_own_takes_the_fleet_and_the_components() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    followed(dir.path())?;
    let overlay = dir.path().join("deploy/kubernetes/overlays/night");
    let file = overlay.join("kustomization.yaml");
    let text = std::fs::read_to_string(&file)?;
    for (from, to) in [
        ("- ../../base\n", "- ../standing-fleet\n"),
        (
            "components: []\n",
            "components: [../../components/nats-creds, ../../components/results-claim, ../../components/egress, ../../components/metrics-from]\n",
        ),
    ] {
        assert!(text.contains(from), "{text}");
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, text.replace(from, to))?;
    }
    let objects = Objects::parse(&kustomize(&overlay)?)?;
    let secrets = ["plimsoll-agent-tls", "plimsoll-coordinator-tls", "plimsoll-nats-creds"];
    objects.agree(&Brought { secrets: &secrets, claims: &[] })?;
    assert_eq!(objects.stateful_sets.len() + objects.jobs.len() + objects.claims.len(), 3, "{:?}", objects.order);
    for (name, _, container) in objects.containers()? {
        assert!(container.image.as_deref().is_some_and(|image| image.starts_with("registry.example.com/")), "{name}");
    }
    Ok(())
}

/// `get pods/log` and so on, as the guide's Role grants them.
pub fn rights_of_the_guide() -> anyhow::Result<BTreeSet<String>> {
    let blocks = blocks(GUIDE)?;
    let role = blocks.iter().find(|block| block.text.contains("kind: Role\n")).context("the guide has a Role")?;
    let role: Role = strict(&serde_saphyr::from_str(&role.text)?)?;
    let mut rights = BTreeSet::new();
    for rule in role.rules.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            let group = match resource.as_str() {
                "jobs" => "batch",
                "networkpolicies" => "networking.k8s.io",
                _ => "",
            };
            ensure!(rule.api_groups.as_deref() == Some(&[group.to_owned()]), "{resource} is of {:?}", rule.api_groups);
            rights.extend(rule.verbs.iter().map(|verb| format!("{verb} {resource}")));
        }
    }
    Ok(rights)
}
