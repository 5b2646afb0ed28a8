//! Panics and failing timers: whoever has one is lost with the reason, at once, and nobody goes on as if nothing had been.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_proto::v1::agent_message::Message as FromAgent;
use plimsoll_proto::v1::{self, RefusedKind};
use plimsoll_tests::harness::driver::{Driver, Load};
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::failing_calls::{Failing, fails};
use plimsoll_tests::harness::messages;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, AgentOptions, Process, Program};
use plimsoll_tests::harness::run::{Run, Verdict};
use plimsoll_tests::standin::{Standin, StandinConfig};

const LIMIT: Duration = Duration::from_secs(60);
/// What a worker's runtime says of a system that fails it.
const WHY: &str = "unexpected error when polling the I/O driver";

/// An agent of one worker that is failed like that, and where it listens.
fn agent(failing: Failing) -> anyhow::Result<(Process, SocketAddr)> {
    let mut command = Program::Agent.command()?;
    command.args(["--listen=127.0.0.1:0", "--workers=1"]);
    fails(&mut command, failing);
    let mut agent = Process::spawn(command)?;
    let address = agent.wait_for_line("plimsoll-agent listens on ")?.parse()?;
    Ok((agent, address))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_worker_panics_says_so_and_is_lost_at_once_and_the_others_go_on() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let good = Agent::start(&AgentOptions::default())?;
    let (mut panics, address) = agent(Failing::WaitingOfWorkers)?;
    let run = Run::new(&server.url(), "small").flag("--agents", format!("{},{address}", good.address));
    let run = run.steps(&[100.0]).trials(1).without_backlogs();
    let outcome = run.warmup(Duration::from_millis(500)).hold(Duration::from_secs(1)).finish()?;
    let ended = panics.wait(LIMIT)?;
    assert_eq!((ended.code, ended.signal), (None, Some(libc::SIGABRT)), "{ended:?}");
    assert!(ended.stderr.contains("error: a panic at ") && ended.stderr.contains(WHY), "{ended:?}");
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(0), 1), "{outcome}");
    assert_eq!(outcome.trial_at(100.0)?.verdict, Verdict::Pass, "{outcome}");
    let lost = format!("warning: agent {address} was lost: ");
    assert!(outcome.ended.stderr.contains(&lost), "{outcome}");
    // Its silence has a reason, which nobody waited for an answer to find.
    assert!(!outcome.ended.stderr.contains("did not prepare the run within"), "{outcome}");
    standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_an_agent_in_the_programs_own_process_ends_the_run_with_the_reason() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut command = Program::Cli.command()?;
    command.args(["max-rps", "--preset=small", "--skip-preflight", "--local=2", "--nats-url", &server.url()]);
    let results = tempfile::tempdir()?;
    command.arg("--results").arg(results.path());
    fails(&mut command, Failing::WaitingOfWorkers);
    let ended = Process::spawn(command)?.wait(LIMIT)?;
    assert_eq!((ended.code, ended.signal), (Some(3), None), "{ended:?}");
    let line = ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(line.starts_with("error: agent local-") && line.contains("worker 0 ended by a panic at "), "{ended:?}");
    assert!(line.contains(WHY), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_that_fails_is_told_and_no_trial_is_said_to_have_been_stopped() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let (mut agent, address) = agent(Failing::Timers)?;
    let mut driver = Driver::claim(address, Duration::from_secs(30)).await?;
    driver.prepare(&messages::plan(&server.url(), 78)).await?;
    let rate = plimsoll_common::units::Rate::per_second(100).expect("a rate above nothing");
    driver.start(Load { rate, warmup: Duration::ZERO, hold: Duration::from_secs(1), max_in_flight: 1000 }).await?;
    match driver.next().await? {
        FromAgent::Refused(v1::Refused { kind, message }) => {
            assert_eq!(kind, i32::from(RefusedKind::Box), "{message}");
            assert!(message.starts_with("no timer: "), "{message}");
        }
        other => anyhow::bail!("expected a refusal, got {other:?}"),
    }
    assert!(agent.is_running()?);
    driver.cut();
    standin.shutdown().await
}
