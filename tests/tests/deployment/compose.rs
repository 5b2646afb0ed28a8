//! deploy/compose.yaml: nothing in it that Compose does not know, names that are there, and a run of its services in containers
//! without an engine, up to the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::hosts::Network;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::Process;
use serde::Deserialize;
use serde_json::Value;

use super::container::{Image, Volume, give};
use super::in_checkout;

const LIMIT: Duration = Duration::from_secs(60);

/// What of Compose's format is used here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Compose {
    name: String,
    #[serde(rename = "x-plimsoll")]
    _template: Value,
    pub(super) services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Empty>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    image: String,
    build: Option<Build>,
    pull_policy: Option<String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    cap_drop: Vec<String>,
    #[serde(default)]
    security_opt: Vec<String>,
    #[serde(default)]
    tmpfs: Vec<String>,
    healthcheck: Option<Healthcheck>,
    pub(super) depends_on: Option<DependsOn>,
    network_mode: Option<String>,
    #[serde(default)]
    volumes: Vec<String>,
    deploy: Option<Deploy>,
    stop_grace_period: Option<String>,
    #[serde(default)]
    sysctls: BTreeMap<String, String>,
    #[serde(default)]
    ulimits: BTreeMap<String, u64>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    context: String,
    dockerfile: String,
    target: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Healthcheck {
    disable: Option<bool>,
    test: Option<Vec<String>>,
    interval: Option<String>,
    timeout: Option<String>,
    retries: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum DependsOn {
    Started(Vec<String>),
    When(BTreeMap<String, Condition>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Condition {
    pub(super) condition: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deploy {
    replicas: usize,
}

impl Service {
    /// Whether its image is built of this checkout.
    fn is_ours(&self) -> bool {
        self.image.starts_with("plimsoll")
    }
}

pub(super) fn compose() -> anyhow::Result<Compose> {
    let text = std::fs::read_to_string(in_checkout("deploy/compose.yaml"))?;
    serde_saphyr::from_str(&text).context("deploy/compose.yaml")
}

#[test]
fn names_are_there_and_nothing_is_open_to_others() -> anyhow::Result<()> {
    let compose = compose()?;
    assert_eq!(compose.name, "plimsoll");
    for (name, service) in &compose.services {
        is_whole(&compose, service).with_context(|| name.clone())?;
    }
    let Some(version) = option_env!("CARGO_PKG_VERSION") else { anyhow::bail!("no version") };
    for service in ["agents", "certs", "coordinator", "standin"] {
        let image = &compose.services[service].image;
        assert!(image.ends_with(&format!(":{version}")), "{image}");
    }
    Ok(())
}

/// Who has to be there before this service, and before those.
fn before<'a>(compose: &'a Compose, service: &'a Service) -> BTreeSet<&'a str> {
    let names: Vec<&String> = match &service.depends_on {
        None => Vec::new(),
        Some(DependsOn::Started(names)) => names.iter().collect(),
        Some(DependsOn::When(names)) => names.keys().collect(),
    };
    let deeper = names.iter().flat_map(|name| before(compose, &compose.services[*name]));
    deeper.chain(names.iter().map(|name| name.as_str())).collect()
}

#[test]
fn an_image_is_built_by_one_service_and_the_others_of_it_come_after_that_one() -> anyhow::Result<()> {
    let compose = compose()?;
    let mut built: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, service) in compose.services.iter().filter(|(_, service)| service.build.is_some()) {
        let other = built.insert(&service.image, name);
        assert_eq!(other, None, "{} is built by {name} too, at once", service.image);
    }
    for (name, service) in compose.services.iter().filter(|(_, service)| service.is_ours()) {
        let by = built.get(service.image.as_str()).with_context(|| format!("nobody builds {}", service.image))?;
        assert!(by == name || before(&compose, service).contains(by), "{name} does not wait for {by}");
    }
    assert_eq!(built.len(), 2, "{built:?}");
    Ok(())
}

fn is_whole(compose: &Compose, service: &Service) -> anyhow::Result<()> {
    let after: Vec<(&String, &str)> = match &service.depends_on {
        None => Vec::new(),
        Some(DependsOn::Started(names)) => names.iter().map(|name| (name, "service_started")).collect(),
        Some(DependsOn::When(names)) => names.iter().map(|(name, when)| (name, when.condition.as_str())).collect(),
    };
    for (name, condition) in after {
        let other = compose.services.get(name).with_context(|| format!("it waits for {name}, which there is not"))?;
        let is_checked = other.healthcheck.as_ref().is_none_or(|check| check.disable != Some(true));
        // Our own images have a health check of theirs.
        let has_one = is_checked && (other.healthcheck.is_some() || other.is_ours());
        ensure!(condition != "service_healthy" || has_one, "it waits until {name} is healthy, and nobody asks it");
    }
    for volume in &service.volumes {
        let from = volume.split(':').next().unwrap_or_default();
        let there = if from.starts_with('.') {
            in_checkout("deploy").join(from).exists()
        } else {
            compose.volumes.contains_key(from)
        };
        ensure!(there, "the volume {volume} is not there");
    }
    for port in &service.ports {
        ensure!(port.starts_with("127.0.0.1:"), "{port} is open to others");
    }
    if let Some(build) = &service.build {
        ensure!(service.is_ours(), "{} is built here", service.image);
        let dockerfile = std::fs::read_to_string(in_checkout("deploy").join(&build.context).join(&build.dockerfile))?;
        let target = build.target.as_deref().unwrap_or("runtime");
        ensure!(dockerfile.contains(&format!(" AS {target}\n")), "no stage {target}");
    }
    if service.is_ours() {
        ensure!(service.read_only && service.cap_drop == ["ALL"], "it may do more than it has to");
        ensure!(service.security_opt == ["no-new-privileges:true"], "it may get more rights");
        ensure!(
            service.pull_policy.as_deref() == Some("never"),
            "it is on no registry, but for somebody else's of that name"
        );
    } else {
        ensure!(service.image.contains(':'), "{} is of no version", service.image);
    }
    if let Some(check) = &service.healthcheck {
        ensure!(check.disable.is_some() != check.test.is_some(), "{check:?}");
        ensure!(check.interval.is_some() == check.timeout.is_some() && check.retries != Some(0), "{check:?}");
    }
    let known_elsewhere = service.tmpfs.iter().all(|path| path.starts_with('/'))
        && service.network_mode.as_deref().is_none_or(|mode| mode == "none")
        && service.stop_grace_period.as_deref().is_none_or(|time| time == "30s")
        && service.sysctls.keys().all(|name| name.starts_with("net.ipv4."))
        && service.ulimits.values().all(|&limit| limit >= 65_536)
        && service.environment.keys().all(|name| name.starts_with("GF_"));
    ensure!(known_elsewhere, "{service:?}");
    Ok(())
}

/// One host for each container, as an engine's network has it: NATS, the stand-in, the coordinator, and agents.
const NATS: usize = 0;
const STANDIN: usize = 1;
const COORDINATOR: usize = 2;
const FIRST_AGENT: usize = 3;

#[test]
fn its_services_come_up_in_their_order_and_the_coordinator_prints_its_answer() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let compose = compose()?;
    let replicas = compose.services["agents"].deploy.as_ref().context("replicas")?.replicas;
    let network = Network::new(FIRST_AGENT + replicas)?;
    let image = Image::assemble()?;
    let agents = FIRST_AGENT..FIRST_AGENT + replicas;
    let mut names = vec![("nats", network.host(NATS).address()), ("coordinator", network.host(COORDINATOR).address())];
    names.extend(agents.clone().map(|agent| ("agents", network.host(agent).address())));
    image.names(&names)?;
    let server = NatsServer::start(NatsOptions { host: Some(network.host(NATS).clone()), ..NatsOptions::default() })?;
    let port = server.url().rsplit(':').next().context("a port")?.to_owned();
    let (certs, results) = (tempfile::tempdir()?, tempfile::tempdir()?);
    give(certs.path())?;
    give(results.path())?;

    let start = |service: &str, host: usize, more: &[&str]| -> anyhow::Result<Process> {
        let service = &compose.services[service];
        // A later flag of the same name would be refused: what is said again replaces what is there.
        let name = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
        let is_kept = |word: &&String| !more.iter().any(|other| name(other) == name(word));
        let words =
            service.command.iter().filter(is_kept).map(|word| word.replace("nats:4222", &format!("nats:{port}")));
        let words: Vec<String> = words.chain(more.iter().map(|&word| word.to_owned())).collect();
        let mut command = image.command(&words, &mounted(service, certs.path(), results.path())?)?;
        network.host(host).put(&mut command);
        Process::spawn(command)
    };
    // The CA is there already the second time.
    for _ in 0..2 {
        let made = start("certs", COORDINATOR, &[])?.wait(LIMIT)?;
        ensure!(made.code == Some(0), "{made:?}");
    }
    let mut standin = start("standin", STANDIN, &[])?;
    standin.wait_for_line("READY ")?;
    let mut fleet = Vec::new();
    for agent in agents {
        let mut process = start("agents", agent, &[])?;
        process.wait_for_line("plimsoll-agent listens on 0.0.0.0:7700")?;
        fleet.push(process);
    }
    for (host, page) in [(STANDIN, "127.0.0.1:9701"), (FIRST_AGENT, "127.0.0.1:9700")] {
        let mut check = image.command(&["plimsoll-agent", "health", "--at", page], &[])?;
        network.host(host).put(&mut check);
        let ended = Process::spawn(check)?.wait(LIMIT)?;
        ensure!(ended.code == Some(0), "{page}: {ended:?}");
    }
    // Shorter, and with limits by which a busy box does not decide it.
    let quick = [
        "--steps=300",
        "--hold=2s",
        "--warmup=500ms",
        "--slo-p95=2s",
        "--slo-p99=3s",
        "--max-lateness=1s",
        "--max-skew=1s",
    ];
    let ended = start("coordinator", COORDINATOR, &quick)?.wait(LIMIT)?;
    ensure!(ended.stdout.contains("\nANSWER: "), "{ended:?}");
    ensure!(ended.stdout.contains("max RPS >= 300") && ended.code == Some(0), "{ended:?}");
    ensure!(std::fs::read_dir(results.path())?.count() == 1, "the run is saved in its volume");
    Ok(())
}

fn mounted(service: &Service, certs: &std::path::Path, results: &std::path::Path) -> anyhow::Result<Vec<Volume>> {
    let volume = |volume: &String| {
        let mut parts = volume.split(':');
        let (name, at) = (parts.next().unwrap_or_default(), parts.next().context("where?")?);
        let from = match name {
            "certs" => certs,
            "results" => results,
            other => anyhow::bail!("a volume that is not here: {other}"),
        };
        Ok(Volume { from: from.to_owned(), at: at.to_owned(), read_only: parts.next() == Some("ro") })
    };
    service.volumes.iter().map(volume).collect()
}
