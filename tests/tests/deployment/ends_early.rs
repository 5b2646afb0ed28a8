//! Agents that are there for one run end with it, also where it ends before it began.

use std::time::Duration;

use anyhow::ensure;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::ports::free_port;
use plimsoll_tests::harness::processes::{Process, Program};

const LIMIT: Duration = Duration::from_secs(40);

fn agent(port: u16) -> anyhow::Result<Process> {
    let mut command = Program::Agent.command()?;
    command.args(["--listen", &format!("127.0.0.1:{port}"), "--exit-after-run", "--exit-when-idle", "15m"]);
    let mut agent = Process::spawn(command)?;
    agent.wait_for_line("plimsoll-agent listens on ")?;
    Ok(agent)
}

fn free_ports() -> anyhow::Result<[u16; 2]> {
    Ok([free_port()?, free_port()?])
}

fn left_in_order(agents: Vec<Process>) -> anyhow::Result<()> {
    for mut agent in agents {
        let ended = agent.wait(LIMIT)?;
        ensure!(ended.code == Some(0) && ended.stderr.contains("leaves after its run"), "{ended:?}");
    }
    Ok(())
}

#[test]
fn agents_end_with_a_run_that_preflight_refuses_also_those_that_start_later() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let ports = free_ports()?;
    let mut agents = vec![agent(ports[0])?];
    let mut command = Program::Cli.command()?;
    let both = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    command.args(["max-rps", "--preset=small", "--wait-agents=2", "--agents", &both, "--nats-url", &server.url()]);
    let mut coordinator = Process::spawn(command)?;
    // What is wrong is said before anybody is waited for.
    coordinator.wait_for_stderr("the run ends before it began: preflight: ", LIMIT)?;
    coordinator.wait_for_stderr("waiting for 1 agents, to let them go", LIMIT)?;
    agents.push(agent(ports[1])?);
    let ended = coordinator.wait(LIMIT)?;
    ensure!(ended.code == Some(2) && ended.stderr.contains("error: preflight: "), "{ended:?}");
    left_in_order(agents)
}

#[test]
fn agents_end_with_a_run_that_is_refused_once_they_are_claimed() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let ports = free_ports()?;
    let agents = vec![agent(ports[0])?, agent(ports[1])?];
    let both = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    let ended = Program::Cli.run([
        "max-rps",
        "--preset=small",
        "--skip-preflight",
        "--wait-agents=2",
        "--min-agents=3",
        "--agents",
        &both,
        "--nats-url",
        &server.url(),
    ])?;
    ensure!(ended.code == Some(2) && ended.stderr.contains("error: --min-agents: got '3'"), "{ended:?}");
    left_in_order(agents)
}

#[test]
fn an_agent_that_was_only_calibrated_stays_for_its_run() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let [port, _] = free_ports()?;
    let mut agent = agent(port)?;
    let dir = tempfile::tempdir()?;
    let save = dir.path().join("ceilings.toml").display().to_string();
    let ended = Program::Cli.run(["calibrate", "--agents", &format!("127.0.0.1:{port}"), "--save", &save])?;
    ensure!(ended.code == Some(0), "{ended:?}");
    agent.wait_for_stderr("lease over", LIMIT)?;
    ensure!(agent.is_running()? && !agent.stderr().contains("leaves after its run"), "{}", agent.stderr());
    Ok(())
}
