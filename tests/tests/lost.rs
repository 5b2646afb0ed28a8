//! Something is lost in a hold: the coordinator, an agent, the target. No load outlives it, and the report says what happened.

use plimsoll_tests::harness::driver::Driver;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{AgentsSeen, NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, Process, Program};
use plimsoll_tests::harness::run::{Outcome, Run, Running, Trial, Verdict};
use plimsoll_tests::standin::config::Latency;
use plimsoll_tests::standin::{Standin, StandinConfig};
use std::time::Duration;

/// The lease of most runs here, and how long a count must stand still to be the last: two hundred operations are due in it.
const LEASE: Duration = Duration::from_secs(1);
/// What the coordinator, cut off without a word, is allowed.
const SILENT_WITHIN: Duration = Duration::from_secs(3);

/// A target, a backend and two agents.
struct Scene {
    _shared: Shared,
    server: NatsServer,
    standin: Standin,
    agents: Vec<Agent>,
}

impl Scene {
    async fn set() -> anyhow::Result<Self> {
        Self::set_with(2, |_| {}).await
    }

    async fn set_with(agents: usize, service: impl FnOnce(&mut StandinConfig)) -> anyhow::Result<Self> {
        let shared = Shared::acquire()?;
        let server = NatsServer::start(NatsOptions::default())?;
        let mut config = StandinConfig::new(server.url());
        service(&mut config);
        let standin = Standin::start(config).await?;
        Ok(Self { _shared: shared, server, standin, agents: Agent::start_many(agents)? })
    }

    fn run(&self, rates: &[f64]) -> Run {
        self.run_with_backlogs(rates).without_backlogs().lenient()
    }

    fn run_with_backlogs(&self, rates: &[f64]) -> Run {
        let run = Run::new(&self.server.url(), "small").steps(rates).agents(&self.agents).trials(1);
        run.warmup(Duration::from_millis(500)).hold(Duration::from_secs(2)).flag("--lease-timeout", "1s")
    }

    /// Starts 200/s for longer than the test, and returns in its hold.
    fn start_long(&self, lease: Duration) -> anyhow::Result<Running> {
        let run = self.run(&[200.0]).hold(Duration::from_secs(120));
        let mut running = run.flag("--lease-timeout", format!("{}ms", lease.as_millis())).start()?;
        running.wait_for_hold()?;
        let seen = self.server.agents_seen()?;
        assert!(seen.open.len() == 2 && seen.messages > 0, "both agents make load: {seen:?}");
        Ok(running)
    }

    /// What the agents have sent is all that they ever send, and neither is connected.
    fn check_silence(&self) -> anyhow::Result<AgentsSeen> {
        let seen = self.server.wait_for_silence(SILENT_WITHIN)?;
        std::thread::sleep(LEASE);
        assert_eq!(self.server.agents_seen()?, seen, "somebody still sends");
        Ok(seen)
    }

    async fn check_agents_are_free(&self) -> anyhow::Result<()> {
        for agent in &self.agents {
            Driver::claim_once_free(agent.address).await?.cut();
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_killed_leaves_no_load_behind() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let mut running = scene.start_long(SILENT_WITHIN)?;
    running.process.signal(libc::SIGKILL)?;
    // Its sockets close with it: nobody waits for the lease to run out.
    scene.server.wait_for_silence(SILENT_WITHIN)?;
    scene.check_silence()?;
    scene.check_agents_are_free().await?;
    assert_eq!(running.process.wait(SILENT_WITHIN)?.signal, Some(libc::SIGKILL));
    scene.standin.shutdown().await
}

/// Connections of a process to this server, as the kernel has them: also of a server that is frozen.
fn connections_of(agent: &Agent, server: &NatsServer) -> anyhow::Result<usize> {
    let port: u16 = server.url().rsplit(':').next().unwrap_or_default().parse()?;
    let held = |entry: std::fs::DirEntry| std::fs::read_link(entry.path()).ok()?.to_str().map(str::to_owned);
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", agent.process.pid()))?.flatten().filter_map(held);
    let sockets: std::collections::HashSet<String> = sockets.collect();
    let is_one = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, remote, "01", .., inode] = fields.get(..10).unwrap_or_default() else { return false };
        remote.ends_with(&format!(":{port:04X}")) && sockets.contains(&format!("socket:[{inode}]"))
    };
    Ok(std::fs::read_to_string("/proc/net/tcp")?.lines().filter(is_one).count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_killed_in_a_deal_is_outlived_by_no_connection_though_the_target_hangs()
-> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let mut running = scene.start_long(LEASE)?;
    scene.server.pause()?;
    // What the lost one had is dealt to the other, which waits for a target that answers nothing.
    scene.agents[1].process.signal(libc::SIGKILL)?;
    running.process.wait_for_stderr("was lost: ", Duration::from_secs(60))?;
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(connections_of(&scene.agents[0], &scene.server)?, 1);
    running.process.signal(libc::SIGKILL)?;
    assert_eq!(running.process.wait(SILENT_WITHIN)?.signal, Some(libc::SIGKILL));
    let stderr = running.process.stderr();
    assert!(!stderr.contains("trial 2 200/s hold"), "it was dealt already: {stderr}");
    // The lease, and as much again and more for a busy box; the deal's own limits are far beyond.
    let began = tokio::time::Instant::now();
    while connections_of(&scene.agents[0], &scene.server)? > 0 {
        assert!(began.elapsed() < LEASE + Duration::from_secs(4), "still connected after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    Driver::claim_once_free(scene.agents[0].address).await?.cut();
    scene.server.resume()?;
    scene.server.wait_for_silence(SILENT_WITHIN)?;
    scene.check_silence()?;
    scene.standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_frozen_loses_its_agents_with_the_lease() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let mut running = scene.start_long(LEASE)?;
    running.process.signal(libc::SIGSTOP)?;
    // The lease counts from a ping that was sent before, so that it is over within its length; the rest is for a busy box.
    scene.server.wait_for_silence(LEASE * 2)?;
    let silent = scene.check_silence()?;
    scene.check_agents_are_free().await?;
    running.process.signal(libc::SIGCONT)?;
    let outcome = running.finish()?;
    assert_eq!(outcome.code(), Some(3), "{outcome}");
    assert!(outcome.ended.stdout.contains("\nNOT COMPLETED: agent 127.0.0.1:"), "{outcome}");
    assert_eq!(scene.check_silence()?, silent, "an ended lease is not revived");
    scene.standin.shutdown().await
}

/// In trial 1 of this rate the agent was lost, which the report says first, with its time.
fn check_lost_at<'a>(outcome: &'a Outcome, rate: f64, agent: &str) -> &'a Trial {
    let first = outcome.trials.iter().find(|trial| (trial.target_rate - rate).abs() < 0.001);
    let lost = first.unwrap_or_else(|| panic!("{rate}/s was not held: {outcome}"));
    assert_eq!(lost.verdict, Verdict::Inconclusive, "{outcome}");
    assert!(lost.reasons.starts_with(&format!("agent {agent} was lost ")), "the cause comes first: {outcome}");
    lost
}

/// The step in which the agent was lost is the last, and the one before it stands in the report.
fn check_ended_by_loss(outcome: &Outcome, agent: &str, because: &str) -> anyhow::Result<()> {
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(3), 2), "{outcome}");
    check_lost_at(outcome, 300.0, agent);
    let stdout = &outcome.ended.stdout;
    assert!(stdout.contains(&format!("\nNOT COMPLETED: agent {agent} was lost: ")), "{outcome}");
    assert!(stdout.contains("after the start of step 2") && stdout.contains(because), "{outcome}");
    assert!(outcome.answer()?.starts_with("ANSWER: max RPS >= 200 "), "{outcome}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_step_of_an_agent_that_is_killed_is_held_again_by_the_other() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let mut running = scene.run(&[200.0, 300.0]).start()?;
    running.process.wait_for_stderr("step 2/2 300/s hold ", Duration::from_secs(60))?;
    let lost = scene.agents[1].address.to_string();
    scene.agents[1].process.signal(libc::SIGKILL)?;
    let outcome = running.finish()?;
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(0), 3), "{outcome}");
    check_lost_at(&outcome, 300.0, &lost);
    let again = outcome.trial_at(300.0)?;
    assert_eq!((again.verdict, again.trial), (Verdict::Pass, 2), "{outcome}");
    assert!(again.attempted >= 570, "the other made all of it: {outcome}");
    assert!(outcome.ended.stdout.contains(&format!("held without agent {lost}, which was lost: ")), "{outcome}");
    assert!(outcome.answer()?.starts_with("ANSWER: max RPS >= 300 "), "{outcome}");
    scene.server.wait_for_silence(LEASE)?;
    scene.check_silence()?;
    Driver::claim_once_free(scene.agents[0].address).await?.cut();
    scene.standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_lost_in_a_deal_ends_neither_that_deal_for_the_others_nor_the_run() -> anyhow::Result<()> {
    let mut scene = Scene::set_with(3, |_| {}).await?;
    let mut running = scene.run(&[200.0]).start()?;
    running.wait_for_hold()?;
    scene.server.pause()?;
    // What the first one had is dealt to the others, who wait for a target that answers nothing; there the second is lost.
    scene.agents[2].process.signal(libc::SIGKILL)?;
    running.process.wait_for_stderr("was lost: ", Duration::from_secs(60))?;
    std::thread::sleep(Duration::from_millis(700));
    scene.agents[1].process.signal(libc::SIGKILL)?;
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        running.process.is_running()?,
        "the third takes no new deal in the middle of one: {}",
        running.process.stderr()
    );
    scene.server.resume()?;
    let outcome = running.finish()?;
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(0), 2), "{outcome}");
    let again = outcome.trial_at(200.0)?;
    assert_eq!((again.verdict, again.trial), (Verdict::Pass, 2), "{outcome}");
    for agent in &scene.agents[1..] {
        let words = format!("held without agent {}, which was lost: ", agent.address);
        assert!(outcome.ended.stdout.contains(&words), "{words}: {outcome}");
    }
    scene.server.wait_for_silence(LEASE)?;
    scene.check_silence()?;
    scene.standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_agents_than_the_run_needs_end_it_with_all_that_it_measured() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let mut running = scene.run(&[200.0, 300.0]).flag("--min-agents", 2).start()?;
    running.process.wait_for_stderr("step 2/2 300/s hold ", Duration::from_secs(60))?;
    let lost = scene.agents[1].address.to_string();
    scene.agents[1].process.signal(libc::SIGKILL)?;
    let outcome = running.finish()?;
    check_ended_by_loss(&outcome, &lost, "1 of at least 2 agents are left (--min-agents)")?;
    scene.server.wait_for_silence(LEASE)?;
    scene.check_silence()?;
    scene.standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_frozen_is_lost_and_sends_nothing_once_it_goes_on() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let mut running = scene.run(&[200.0, 300.0]).flag("--on-agent-loss", "abort").start()?;
    running.process.wait_for_stderr("step 2/2 300/s hold ", Duration::from_secs(60))?;
    let lost = scene.agents[0].address.to_string();
    scene.agents[0].process.signal(libc::SIGSTOP)?;
    let outcome = running.finish()?;
    check_ended_by_loss(&outcome, &lost, "; --on-agent-loss abort ends the run")?;
    assert!(outcome.trial_at(300.0)?.reasons.contains("silent for 1s"), "{outcome}");
    // The other closes its own as the coordinator lets it go.
    let since = tokio::time::Instant::now();
    let frozen = loop {
        let seen = scene.server.agents_seen()?;
        if seen.closed.len() == 1 || since.elapsed() > SILENT_WITHIN {
            break seen;
        }
    };
    assert_eq!((frozen.open.len(), frozen.closed.len()), (1, 1), "the frozen one is still connected: {frozen:?}");
    scene.agents[0].process.signal(libc::SIGCONT)?;
    let silent = scene.server.wait_for_silence(LEASE * 2)?;
    assert_eq!(silent.messages, frozen.messages, "what waited in the frozen agent is not sent");
    scene.check_silence()?;
    Driver::claim_once_free(scene.agents[0].address).await?.cut();
    scene.standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_agents_ends_with_all_that_it_measured() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let mut running = scene.run(&[200.0, 300.0]).start()?;
    running.process.wait_for_stderr("step 2/2 300/s hold ", Duration::from_secs(60))?;
    for agent in &mut scene.agents {
        agent.process.signal(libc::SIGKILL)?;
    }
    let outcome = running.finish()?;
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(3), 2), "{outcome}");
    assert!(outcome.trial_at(300.0)?.reasons.contains("was lost "), "{outcome}");
    assert!(outcome.ended.stdout.contains("; no agent is left"), "{outcome}");
    assert!(outcome.answer()?.starts_with("ANSWER: max RPS >= 200 "), "{outcome}");
    scene.server.wait_for_silence(LEASE)?;
    scene.check_silence()?;
    scene.standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_frozen_comes_back_between_steps() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let mut running = scene.run(&[200.0, 300.0, 400.0]).start()?;
    running.process.wait_for_stderr("step 2/3 300/s hold ", Duration::from_secs(60))?;
    let lost = scene.agents[0].address.to_string();
    scene.agents[0].process.signal(libc::SIGSTOP)?;
    running.process.wait_for_stderr("step 2/3 trial 2 300/s hold ", Duration::from_secs(60))?;
    scene.agents[0].process.signal(libc::SIGCONT)?;
    let outcome = running.finish()?;
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(0), 4), "{outcome}");
    assert!(check_lost_at(&outcome, 300.0, &lost).reasons.contains("silent for 1s"), "{outcome}");
    let (again, last) = (outcome.trial_at(300.0)?, outcome.trial_at(400.0)?);
    assert_eq!((again.verdict, last.verdict), (Verdict::Pass, Verdict::Pass), "{outcome}");
    assert!(!outcome.ended.stdout.contains("somebody else drives"), "what the lost one sent is not known: {outcome}");
    assert_eq!(last.duplicate, 0, "the ids of its second life are none of its first: {outcome}");
    assert!(outcome.ended.stdout.contains(&format!("400: agent {lost} joined before this trial")), "{outcome}");
    let seen = scene.check_silence()?;
    assert_eq!(seen.closed.len(), 3, "it is another agent to the target when it comes back: {seen:?}");
    Driver::claim_once_free(scene.agents[0].address).await?.cut();
    scene.standin.shutdown().await
}

/// A hold by one agent at 200/s of a service that takes so long to answer.
async fn one_agent_in_a_hold(latency: Duration, timeout: &str) -> anyhow::Result<(Scene, Running)> {
    let scene = Scene::set_with(1, |config| config.gatekeeper.latency = Latency::Fixed(latency)).await?;
    let run = scene.run(&[200.0]).hold(Duration::from_secs(120)).flag("--request-timeout", timeout);
    // It answers later than preflight waits.
    let mut running = run.switch("--skip-preflight").start()?;
    running.wait_for_hold()?;
    Ok((scene, running))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_shut_down_ends_what_is_open_and_says_what_it_counted() -> anyhow::Result<()> {
    let (mut scene, running) = one_agent_in_a_hold(Duration::from_millis(300), "3s").await?;
    scene.agents[0].process.signal(libc::SIGTERM)?;
    let outcome = running.finish()?;
    let agent = scene.agents[0].address.to_string();
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(3), 1), "{outcome}");
    let trial = &outcome.trials[0];
    assert_eq!(trial.reasons, format!("agent {agent} was shut down before the trial's end"), "{outcome}");
    // Some sixty were open: they had their answers before it said goodbye.
    assert!(trial.attempted > 0 && trial.completed == trial.attempted, "{outcome}");
    assert!(outcome.ended.stdout.contains("was lost: the agent is shutting down"), "{outcome}");
    assert_eq!(scene.agents[0].process.wait(SILENT_WITHIN)?.code, Some(0));
    scene.check_silence()?;
    scene.standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_told_twice_does_not_wait_for_what_is_open() -> anyhow::Result<()> {
    let (mut scene, running) = one_agent_in_a_hold(Duration::from_secs(40), "60s").await?;
    scene.agents[0].process.signal(libc::SIGTERM)?;
    scene.agents[0].process.wait_for_stderr("shutting down once open operations have ended", SILENT_WITHIN)?;
    std::thread::sleep(Duration::from_millis(500));
    assert!(scene.agents[0].process.is_running()?, "its operations are open for another half minute");
    let open = scene.server.agents_seen()?;
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(scene.server.agents_seen()?.messages, open.messages, "it makes no new ones");
    scene.agents[0].process.signal(libc::SIGTERM)?;
    assert_eq!(scene.agents[0].process.wait(SILENT_WITHIN)?.code, Some(0));
    let outcome = running.finish()?;
    assert_eq!(outcome.code(), Some(3), "{outcome}");
    assert!(outcome.ended.stdout.contains("was lost: the agent is shutting down"), "{outcome}");
    scene.check_silence()?;
    scene.standin.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_dies_is_counted_and_named_and_nobody_waits_for_it() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let run = scene.run_with_backlogs(&[200.0, 300.0]).switch("--no-stop-on-trip").flag("--recovery-limit", "2s");
    let mut running = run.hold(Duration::from_secs(5)).flag("--request-timeout", "1s").start()?;
    running.wait_for_hold()?;
    scene.server.kill()?;
    let outcome = running.finish()?;
    let trial = outcome.trial_at(200.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.reasons.contains("errors "), "{outcome}");
    let failed = trial.failed_timeout + trial.failed_publish + trial.lost;
    assert!(failed > trial.attempted / 2, "it was gone for most of the hold: {outcome}");
    assert_eq!(trial.completed + failed, trial.attempted, "every operation has ended: {outcome}");
    // The next step cannot begin; the report says so in words, and the one before is in it.
    assert_eq!((outcome.code(), outcome.trials.len()), (Some(3), 1), "{outcome}");
    let down = format!("the connection to NATS at {} is down", scene.server.url());
    assert!(outcome.ended.stdout.contains("\nNOT COMPLETED: no recovery within 2s"), "{outcome}");
    assert!(outcome.ended.stdout.contains(&down), "{outcome}");
    assert!(outcome.ended.stdout.contains("the NATS client of 127.0.0.1:"), "{outcome}");
    for agent in &scene.agents {
        Driver::claim_once_free(agent.address).await?.cut();
    }
    drop(scene.standin);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_while_boxes_are_measured_is_named_and_the_others_search_on() -> anyhow::Result<()> {
    let mut scene = Scene::set_with(3, |_| {}).await?;
    let addresses: Vec<String> = scene.agents.iter().map(|agent| agent.address.to_string()).collect();
    let mut command = Program::Cli.command()?;
    command.args(["max-rps", "--preset=small", "--find", "--from=100", "--max-time=60s", "--results=none"]);
    command.args(["--min-agents=2", "--nats-url", &scene.server.url(), "--agents", &addresses.join(",")]);
    let mut run = Process::spawn(command)?;
    // Measuring takes about two seconds from then on.
    scene.agents[1].process.wait_for_stderr("leased", Duration::from_secs(60))?;
    scene.agents[1].process.signal(libc::SIGKILL)?;
    run.wait_for_stderr(&format!("warning: agent {} was lost: ", addresses[1]), Duration::from_secs(60))?;
    run.wait_for_stderr("self-check: at most ", Duration::from_secs(60))?;
    run.wait_for_stderr("/s hold ", Duration::from_secs(60))?;
    let seen = scene.server.agents_seen()?;
    assert_eq!(seen.open.len(), 2, "{seen:?}");
    run.signal(libc::SIGINT)?;
    let ended = run.wait(Duration::from_secs(60))?;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    scene.standin.shutdown().await
}
