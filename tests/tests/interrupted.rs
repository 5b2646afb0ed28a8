//! SIGINT and SIGTERM: the agents are silent at once, the report covers what was finished and says so, exit 130.

use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{AgentsSeen, NatsOptions, NatsServer, NatsUser};
use plimsoll_tests::harness::processes::{Agent, AgentOptions};
use plimsoll_tests::harness::run::{Outcome, Run};
use plimsoll_tests::standin::{Standin, StandinConfig};
use std::time::Duration;

/// Below it no agent can have overlooked that it must be silent: it releases two hundred operations in a second.
const QUIET: Duration = Duration::from_millis(500);

/// Runs 200/s and then 300/s over two agents, and sends the signal as soon as stderr says this. What the agents have sent by
/// the time the run is over must be all that they ever send.
async fn interrupt(signal: libc::c_int, at: &'static str) -> anyhow::Result<Outcome> {
    let _shared = Shared::acquire()?;
    let user = NatsUser { name: "ann".into(), password: "pass-word".into(), ..NatsUser::default() };
    let server = NatsServer::start(NatsOptions { users: vec![user.clone()], ..NatsOptions::default() })?;
    let standin = Standin::start(StandinConfig::new(server.url_of(&user))).await?;
    let agents = [Agent::start(&AgentOptions::default())?, Agent::start(&AgentOptions::default())?];
    let run = Run::new(&server.url_of(&user), "small")
        .steps(&[200.0, 300.0])
        .agents(&agents)
        .trials(1)
        .without_backlogs()
        .lenient();
    let run = run.warmup(Duration::from_secs(1)).hold(Duration::from_secs(2)).cooldown(Duration::from_secs(20));
    let run = if at.starts_with("step 2") { run.cooldown(Duration::from_millis(100)) } else { run };
    let outcome = tokio::task::spawn_blocking(move || -> anyhow::Result<(Outcome, NatsServer)> {
        let mut running = run.start()?;
        running.process.wait_for_stderr(at, Duration::from_secs(60))?;
        running.process.signal(signal)?;
        let outcome = running.finish()?;
        let at_end = both_seen(&server)?.messages;
        let silent = server.wait_for_silence(Duration::from_secs(1))?;
        assert!(silent.closed.len() >= 2, "both were connected: {silent:?}");
        std::thread::sleep(QUIET);
        let later = server.agents_seen()?;
        assert_eq!((at_end, &silent), (later.messages, &later), "{outcome}");
        Ok((outcome, server))
    });
    // The server outlives the stand-in, which says goodbye to it.
    let (outcome, _server) = outcome.await??;
    assert_eq!(outcome.code(), Some(130), "{outcome}");
    assert!(
        outcome.ended.stdout.contains("\nABORTED: this report covers the trials that were finished\n"),
        "{outcome}"
    );
    for agent in &agents {
        assert!(!agent.process.stderr().contains("pass-word"), "{}", agent.process.stderr());
    }
    assert!(!outcome.to_string().contains("pass-word"), "{outcome}");
    standin.shutdown().await?;
    Ok(outcome)
}

/// For a moment the server counts a connection neither among those that are open nor among the closed.
fn both_seen(server: &NatsServer) -> anyhow::Result<AgentsSeen> {
    for _ in 0..100 {
        let seen = server.agents_seen()?;
        if seen.open.len() + seen.closed.len() >= 2 {
            return Ok(seen);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    anyhow::bail!("both were connected: {:?}", server.agents_seen()?)
}

fn rates(outcome: &Outcome) -> Vec<f64> {
    outcome.trials.iter().map(|trial| trial.target_rate).collect()
}

#[tokio::test]
async fn sigint_in_the_warmup_reports_that_nothing_was_measured() -> anyhow::Result<()> {
    let outcome = interrupt(libc::SIGINT, "/s warmup ").await?;
    assert!(outcome.answer()?.starts_with("ANSWER: no step passed "), "{outcome}");
    assert!(outcome.ended.stdout.contains("Next limit: nothing was measured"), "{outcome}");
    assert!(outcome.trials.is_empty(), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn sigint_in_a_hold_reports_the_steps_before_it() -> anyhow::Result<()> {
    let outcome = interrupt(libc::SIGINT, "step 2/2 300/s hold ").await?;
    assert_eq!(rates(&outcome), [200.0], "the hold that was cut short is no trial: {outcome}");
    assert!(outcome.answer()?.contains("ABORTED before anything tripped: a lower bound"), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn sigint_in_the_cooldown_reports_the_step_before_it() -> anyhow::Result<()> {
    let outcome = interrupt(libc::SIGINT, "/s cooldown ").await?;
    assert_eq!(rates(&outcome), [200.0], "{outcome}");
    Ok(())
}

#[tokio::test]
async fn sigterm_in_a_hold_is_the_same() -> anyhow::Result<()> {
    let outcome = interrupt(libc::SIGTERM, "step 1/2 200/s hold ").await?;
    assert!(outcome.trials.is_empty(), "{outcome}");
    Ok(())
}
