//! What `plimsoll kube` renders, made by pods: each container in namespaces of its own, with the volumes, the user and the root
//! that its manifest says, found by the names that the cluster would resolve. The run ends with its answer, and the agents by
//! themselves.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::hosts::Network;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Process, Program, start_standin_on};

use super::container::{Image, USER, Volume, give};
use super::objects::Objects;

const LIMIT: Duration = Duration::from_secs(60);
const TARGET: usize = 0;
const COORDINATOR: usize = 1;
const FIRST_AGENT: usize = 2;
const AGENTS: usize = 2;

/// The volumes of a pod as a node lays them out.
fn volumes(objects: &Objects, spec: &PodSpec, container: &Container, dir: &Path) -> anyhow::Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let from = dir.join(&mount.name);
        std::fs::create_dir_all(&from)?;
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name).context("no volume")?;
        let config = volume.config_map.as_ref().and_then(|config| objects.config_maps[&config.name].data.as_ref());
        let secret = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_ref());
        let secret = secret.and_then(|name| objects.secrets[name].string_data.as_ref());
        for (file, text) in config.into_iter().chain(secret).flatten() {
            std::fs::write(from.join(file), text)?;
        }
        give(&from)?;
        volumes.push(Volume { from, at: mount.mount_path.clone(), read_only: mount.read_only == Some(true) });
    }
    Ok(volumes)
}

#[test]
fn a_rendered_run_finds_its_agents_prints_its_answer_and_all_of_it_ends() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let network = Network::new(FIRST_AGENT + AGENTS)?;
    let server = NatsServer::start(NatsOptions { host: Some(network.host(TARGET).clone()), ..NatsOptions::default() })?;
    let _standin = start_standin_on(Some(network.host(TARGET)), &server.url(), &["--preset", "small"])?;
    let url = format!("nats://chat.default.svc:{}", server.url().rsplit(':').next().context("a port")?);
    let run = [
        "max-rps",
        "--preset=small",
        "--steps=200",
        "--warmup=500ms",
        "--hold=2s",
        "--slo-p95=2s",
        "--slo-p99=3s",
        "--max-lateness=1s",
        "--max-skew=1s",
    ];
    let kube = ["kube", "--agents=2", "--image=plimsoll:1", "--metrics-from=monitoring", "--"];
    let rendered = Program::Cli.run([&kube, &run[..], &["--nats-url", &url]].concat())?;
    ensure!(rendered.code == Some(0), "{rendered:?}");
    let objects = Objects::parse(&rendered.stdout)?;

    let image = Image::assemble()?;
    let mut names = vec![("chat.default.svc", network.host(TARGET).address())];
    names.extend((0..AGENTS).map(|agent| ("plimsoll-agents", network.host(FIRST_AGENT + agent).address())));
    image.names(&names)?;
    let dir = tempfile::tempdir()?;
    std::os::unix::fs::chown(dir.path(), Some(USER), Some(USER))?;
    let start = |job: &str, host: usize| -> anyhow::Result<Process> {
        let (_, spec, container) =
            objects.containers()?.into_iter().find(|(name, ..)| name == job).context("no job")?;
        let volumes = volumes(&objects, spec, container, &dir.path().join(format!("{job}-{host}")))?;
        let words =
            [container.command.clone().unwrap_or_default(), container.args.clone().unwrap_or_default()].concat();
        let mut command = image.command(&words, &volumes)?;
        network.host(host).put(&mut command);
        Process::spawn(command)
    };
    // The coordinator first: it waits for agents that are still starting.
    let mut coordinator = start("plimsoll-coordinator", COORDINATOR)?;
    let mut agents = Vec::new();
    for agent in 0..AGENTS {
        agents.push(start("plimsoll-agents", FIRST_AGENT + agent)?);
    }
    let ended = coordinator.wait(LIMIT)?;
    ensure!(ended.code == Some(0) && ended.stdout.contains("\nANSWER: max RPS >= 200 "), "{ended:?}");
    for agent in &mut agents {
        let left = agent.wait(LIMIT)?;
        ensure!(left.code == Some(0) && left.stderr.contains("leaves after its run"), "{left:?}");
    }
    let saved = dir.path().join(format!("plimsoll-coordinator-{COORDINATOR}/results"));
    ensure!(std::fs::read_dir(&saved)?.count() == 1, "the run is saved in its volume");
    Ok(())
}
