//! How a run finds its agents: names, files, fleets that are still starting; and what `plimsoll agents` says of them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use plimsoll_tests::harness::driver::Driver;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::ports::free_port;
use plimsoll_tests::harness::processes::{Agent, AgentOptions, Program};
use plimsoll_tests::harness::run::{Run, Verdict};
use plimsoll_tests::standin::{Standin, StandinConfig};

/// An address at which nobody listens.
fn nobodys_address() -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?)))
}

fn row<'a>(table: &'a str, agent: &str) -> Vec<&'a str> {
    let row = table.lines().find(|line| line.split_whitespace().next() == Some(agent));
    row.unwrap_or_else(|| panic!("no row of {agent}:\n{table}")).split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_listed_with_who_holds_them_and_keep_their_leases() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let (ready, held) = (Agent::start(&AgentOptions::default())?, Agent::start(&AgentOptions::default())?);
    let capped = Agent::start(&AgentOptions { arguments: vec!["--max-rate=2k".into()], ..AgentOptions::default() })?;
    let driver = Driver::claim(held.address, Duration::from_secs(60)).await?;
    let nobody = nobodys_address()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("fleet.txt");
    std::fs::write(&file, format!("# three of four\n{}\ndns:localhost:{}\n", held.address, capped.address.port()))?;
    let there = format!("{},@{}", ready.address, file.display());

    let listed = Program::Cli.run(["agents", "--agents", &there])?;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let release = env!("CARGO_PKG_VERSION");
    let ready_row = row(&listed.stdout, &ready.address.to_string());
    assert_eq!(ready_row[1..3], ["ready", release], "{listed:?}");
    assert!(ready_row.ends_with(&["-"]) && ready_row.contains(&"1"), "{listed:?}");
    assert_eq!(row(&listed.stdout, &capped.address.to_string())[6], "2000", "{listed:?}");
    let held_row = row(&listed.stdout, &held.address.to_string());
    assert_eq!(held_row[1], "leased", "{listed:?}");
    let holder = format!("driver pid {}, run driver, for ", std::process::id());
    assert!(listed.stdout.contains(&holder), "{listed:?}");
    // Agents here share our clock: it is told to within its own error.
    let offset = ready_row.iter().position(|word| word.starts_with('±')).expect("an error of the offset");
    assert!(ready_row[offset - 1].starts_with(['+', '-']), "{listed:?}");

    let with_nobody = Program::Cli.run(["agents", "--agents", &format!("{there},{nobody}")])?;
    assert_eq!(with_nobody.code, Some(1), "{with_nobody:?}");
    assert_eq!(row(&with_nobody.stdout, &nobody.to_string())[1], "unreachable", "{with_nobody:?}");
    // Two listings later the lease is still the driver's.
    let second = Driver::claim(held.address, Duration::from_secs(60)).await.err().map(|error| error.to_string());
    let second = second.unwrap_or_default();
    let held = format!("is leased to driver pid {} (127.0.0.1:", std::process::id());
    assert!(
        second.contains(&held) && second.contains("), run driver, for "),
        "the lease was lost by listing: {second}"
    );
    driver.cut();
    Ok(())
}

#[test]
fn what_names_no_agents_is_refused_in_words() -> anyhow::Result<()> {
    for (agents, words) in [
        ("dns:nowhere.invalid:7700", "agent dns:nowhere.invalid:7700 cannot be reached"),
        ("@/no/such/fleet.txt", "--agents: got the file '/no/such/fleet.txt', expected the path of a file"),
        ("dns:7700", "--agents: got 'dns:7700', expected addresses such as box-1:7700"),
    ] {
        let ended = Program::Cli.run(["agents", "--agents", agents])?;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_waits_for_a_fleet_that_is_still_starting() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let first = Agent::start(&AgentOptions::default())?;
    let late = nobodys_address()?;
    let agents = format!("dns:localhost:{},{late}", first.address.port());
    let run = Run::new(&server.url(), "small").steps(&[200.0]).flag("--agents", &agents).flag("--wait-agents", 2);
    let run = run.warmup(Duration::from_millis(500)).hold(Duration::from_secs(2)).without_backlogs().lenient();

    let short = run.clone().flag("--wait-timeout", "3s").finish()?;
    assert_eq!((short.code(), short.trials.len()), (Some(2), 0), "{short}");
    let words =
        format!("1 of 2 agents were there within 3s (--wait-agents, --wait-timeout); agent {late} cannot be reached");
    assert!(short.ended.stderr.contains(&words), "{short}");
    Driver::claim_once_free(first.address).await?.cut();

    let mut running = run.flag("--wait-timeout", "30s").start()?;
    running.process.wait_for_stderr("waiting for agents: 1 of 2 are there", Duration::from_secs(20))?;
    let second = Agent::start(&AgentOptions { listen: late.to_string(), ..AgentOptions::default() })?;
    let outcome = running.finish()?;
    assert_eq!(outcome.code(), Some(0), "{outcome}");
    assert_eq!(outcome.trial_at(200.0)?.verdict, Verdict::Pass, "{outcome}");
    for agent in [first.address, second.address] {
        assert!(outcome.ended.stdout.contains(&format!("agent {agent} = 1 workers on ")), "{outcome}");
    }
    standin.shutdown().await
}

/// Lets a program see names as a file says, in a file system of its own.
fn with_names(hosts: &Path) -> String {
    let bound = format!("mount --bind '{}' /etc/hosts && exec \"$0\" \"$@\"", hosts.display());
    format!("exec unshare --mount sh -c '{}' \"$0\" \"$@\"", bound.replace('\'', r"'\''"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_with_several_addresses_is_looked_up_again_before_every_step() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let port = nobodys_address()?.port();
    let at = |host: u8| AgentOptions {
        listen: format!("127.0.0.{host}:{port}"),
        arguments: vec!["--insecure".into()],
        ..AgentOptions::default()
    };
    let agents = [1, 2, 3].map(|host| Agent::start(&at(host)));
    let agents: Vec<Agent> = agents.into_iter().collect::<Result<_, _>>()?;
    let names = tempfile::NamedTempFile::new()?;
    let of = |hosts: &[u8]| hosts.iter().map(|host| format!("127.0.0.{host} fleet.test\n")).collect::<String>();
    std::fs::write(names.path(), of(&[1, 2]))?;
    let run = Run::new(&server.url(), "small").steps(&[100.0, 150.0]).script(&with_names(names.path()));
    let run = run.flag("--agents", format!("dns:fleet.test:{port}")).trials(1).without_backlogs().lenient();
    let mut running = run.warmup(Duration::from_millis(500)).hold(Duration::from_secs(2)).start()?;
    running.process.wait_for_stderr("step 1/2 100/s hold ", Duration::from_secs(60))?;
    std::fs::write(names.path(), of(&[2, 3]))?;
    let outcome = running.finish()?;
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(0), 2), "{outcome}");
    let joined = |agent: &Agent| format!("agent {} joined before this trial", agent.address);
    assert!(outcome.ended.stdout.contains(&joined(&agents[2])), "{outcome}");
    for agent in &agents[..2] {
        assert!(!outcome.ended.stdout.contains(&joined(agent)), "{outcome}");
        assert!(outcome.ended.stdout.contains(&format!("agent {} = ", agent.address)), "{outcome}");
    }
    standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_for_one_run_ends_with_it_and_not_before() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let for_one = AgentOptions { arguments: vec!["--exit-after-run".into()], ..AgentOptions::default() };
    let mut agents = vec![Agent::start(&for_one)?];
    // Somebody who only claims had no run.
    Driver::claim(agents[0].address, Duration::from_secs(60)).await?.cut();
    Driver::claim_once_free(agents[0].address).await?.cut();
    assert!(agents[0].process.is_running()?);
    let run = Run::new(&server.url(), "small").agents(&agents).steps(&[100.0]).trials(1).without_backlogs().lenient();
    let outcome = run.warmup(Duration::from_millis(500)).hold(Duration::from_secs(1)).finish()?;
    assert_eq!(outcome.trial_at(100.0)?.verdict, Verdict::Pass, "{outcome}");
    let ended = agents[0].process.wait(Duration::from_secs(20))?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("as --exit-after-run says"), "{ended:?}");
    standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_coordinator_is_gone_says_so_and_one_that_nobody_wants_leaves() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let arguments = |flags: &[&str]| AgentOptions {
        arguments: flags.iter().map(|&flag| flag.to_owned()).collect(),
        ..AgentOptions::default()
    };
    let mut agents = vec![Agent::start(&arguments(&["--exit-after-run", "--exit-when-idle", "1m"]))?];
    let mut idle = Agent::start(&arguments(&["--exit-when-idle", "1s"]))?;
    let run = Run::new(&server.url(), "small").agents(&agents).steps(&[100.0]).trials(1);
    let mut running = run.hold(Duration::from_secs(60)).start()?;
    running.process.wait_for_stderr(" hold ", Duration::from_secs(30))?;
    running.process.signal(libc::SIGKILL)?;
    let ended = agents[0].process.wait(Duration::from_secs(20))?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let ended = idle.process.wait(Duration::from_secs(20))?;
    assert!(ended.code == Some(0) && ended.stderr.contains("of --exit-when-idle"), "{ended:?}");
    standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_named_twice_is_refused_as_such_where_it_is_waited_for_too() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let agent = Agent::start(&AgentOptions::default())?;
    let port = agent.address.port();
    let run = Run::new(&server.url(), "small").steps(&[100.0]).without_backlogs();
    let run = run.flag("--agents", format!("127.0.0.1:{port},localhost:{port}"));
    let outcome = run.flag("--wait-agents", 2).flag("--wait-timeout", "20s").finish()?;
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(2), 0), "{outcome}");
    let same = format!("error: --agents: 127.0.0.1:{port} and localhost:{port} are the same agent: name each once");
    assert!(outcome.ended.stderr.contains(&same), "{outcome}");
    assert!(!outcome.ended.stderr.contains("somebody else"), "{outcome}");
    Driver::claim_once_free(agent.address).await?.cut();
    standin.shutdown().await
}
