//! Coordinator, agents and target on hosts of their own, over mutual TLS: hosts are killed, frozen, cut off and slowed. What
//! the run says is checked, and, at the target, that no load goes on that nobody answers for.

mod astray;
mod one_window;
mod shut_out;

use std::path::Path as FilePath;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plimsoll_agent::shell::tls::TlsFiles;
use plimsoll_tests::harness::certificates::{Certificates, flags};
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::hosts::{Host, Network, Path};
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, AgentOptions, CpuQuota, Ended, Process, Program, start_standin_on};
use plimsoll_tests::harness::prove;
use plimsoll_tests::harness::run::{Outcome, Run, Running, Trial, Verdict};
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::Value;
use tokio::time::Instant;

use crate::security::signed;

const COORDINATOR: usize = 0;
const TARGET: usize = 1;
/// Agents are the hosts from here on.
const FIRST: usize = 2;
const AGENTS: usize = 4;
const PORT: u16 = 7700;
/// What a host that is cut off may still do: its lease of a second, and as much again for a busy box.
const SILENT_WITHIN: Duration = Duration::from_secs(2);
/// How long a count must stand still to be the last: at the rates here dozens of operations would be due in it.
const STILL: Duration = Duration::from_millis(700);

struct Scene {
    _shared: Shared,
    agents: Vec<Agent>,
    _standin: Process,
    server: NatsServer,
    certificates: Certificates,
    network: Network,
}

impl Scene {
    fn set() -> anyhow::Result<Self> {
        Self::of(&[])
    }

    /// With a stand-in of these settings.
    fn of(standin: &[&str]) -> anyhow::Result<Self> {
        let shared = Shared::acquire()?;
        let network = Network::new(FIRST + AGENTS)?;
        let certificates = Certificates::make()?;
        let addresses: Vec<String> =
            (FIRST..FIRST + AGENTS).map(|agent| network.host(agent).address().to_string()).collect();
        certificates.more(&["--agent", &format!("fleet={}", addresses.join(","))])?;
        let target = network.host(TARGET).clone();
        let server = NatsServer::start(NatsOptions { host: Some(target.clone()), ..NatsOptions::default() })?;
        let standin = start_standin_on(Some(&target), &server.url(), &[&["--preset", "small"], standin].concat())?;
        let mut scene = Self { _shared: shared, agents: Vec::new(), _standin: standin, server, certificates, network };
        for agent in FIRST..FIRST + AGENTS {
            let agent = scene.agent(agent, &scene.target())?;
            scene.agents.push(agent);
        }
        Ok(scene)
    }

    fn target(&self) -> String {
        self.network.host(TARGET).address().to_string()
    }

    /// An agent that makes load for this target alone.
    fn agent(&self, host: usize, target: &str) -> anyhow::Result<Agent> {
        let host = self.network.host(host).clone();
        let allowed = format!("--allow-target={target}");
        Agent::start(&AgentOptions {
            listen: format!("{}:{PORT}", host.address()),
            arguments: self.certificates.flags("fleet").into_iter().chain([allowed]).collect(),
            host: Some(host),
            ..AgentOptions::default()
        })
    }

    fn coordinator(&self) -> &Host {
        self.network.host(COORDINATOR)
    }

    fn run(&self, rates: &[f64]) -> Run {
        let run =
            Run::new(&self.server.url(), "small").on(self.coordinator()).agents(&self.agents).steps(rates).trials(1);
        let run = run.warmup(Duration::from_millis(500)).hold(Duration::from_secs(2)).flag("--lease-timeout", "1s");
        // Six hosts share this one's processors: how late they are woken is not what is proved here.
        let run = run.flag("--max-lateness", "1s").lenient().without_backlogs();
        self.certificates.flags("plimsoll-coordinator").iter().fold(run, |run, flag| run.switch(flag))
    }

    /// Starts 200/s for longer than the test, and returns in its hold.
    fn start_long(&self) -> anyhow::Result<Running> {
        let mut running = self.run(&[200.0]).hold(Duration::from_secs(120)).start()?;
        running.wait_for_hold()?;
        let seen = self.server.agents_seen()?;
        assert!(seen.open.len() == AGENTS && seen.messages > 0, "all agents make load: {seen:?}");
        Ok(running)
    }

    /// From now on no agent is connected, and none sends.
    fn check_silence(&self) -> anyhow::Result<()> {
        let seen = self.server.wait_for_silence(SILENT_WITHIN)?;
        std::thread::sleep(STILL);
        assert_eq!(self.server.agents_seen()?, seen, "somebody still sends");
        Ok(())
    }

    /// What one agent has sent, by its index in the scene's first run.
    fn sent_by(&self, index: usize) -> anyhow::Result<u64> {
        let suffix = format!("/{index}");
        let by_name = self.server.messages_by_agent()?;
        Ok(by_name.iter().filter(|(name, _)| name.ends_with(&suffix)).map(|(_, messages)| messages).sum())
    }

    /// Soon nothing more comes from this agent, whether or not the target has heard that its connection is over.
    fn check_silent(&self, index: usize, since: Instant) -> anyhow::Result<()> {
        std::thread::sleep(SILENT_WITHIN.saturating_sub(since.elapsed()));
        let sent = self.sent_by(index)?;
        std::thread::sleep(STILL);
        assert_eq!(self.sent_by(index)?, sent, "agent {index} still sends");
        Ok(())
    }

    /// Every agent can be leased, seen from the coordinator's host.
    fn check_all_ready(&self) -> anyhow::Result<String> {
        let listed = self.list()?;
        assert_eq!(listed.code, Some(0), "{listed:?}");
        assert_eq!(listed.stdout.matches(" ready ").count(), AGENTS, "{listed:?}");
        Ok(listed.stdout)
    }

    fn list(&self) -> anyhow::Result<Ended> {
        let mut command = Program::Cli.command()?;
        let agents: Vec<String> = self.agents.iter().map(|agent| agent.address.to_string()).collect();
        command.args(["agents", "--agents", &agents.join(",")]).args(self.certificates.flags("plimsoll-coordinator"));
        self.coordinator().put(&mut command);
        Process::spawn(command)?.wait(Duration::from_secs(60))
    }

    fn name(&self, agent: usize) -> String {
        self.agents[agent].address.to_string()
    }
}

/// The trial of this rate in which an agent was lost, which comes first and says so.
fn check_lost<'a>(outcome: &'a Outcome, rate: f64, agent: &str, why: &str) -> &'a Trial {
    let at_rate = |trial: &&Trial| (trial.target_rate - rate).abs() < 0.001;
    let lost = outcome.trials.iter().find(at_rate).unwrap_or_else(|| panic!("{rate}/s was not held: {outcome}"));
    assert_eq!(lost.verdict, Verdict::Inconclusive, "{outcome}");
    assert!(lost.reasons.starts_with(&format!("agent {agent} was lost ")), "{outcome}");
    assert!(lost.reasons.contains(why), "{why}: {outcome}");
    lost
}

/// A way to lose an agent.
type Mishap = fn(&mut Scene, usize) -> anyhow::Result<()>;

fn kill(scene: &mut Scene, agent: usize) -> anyhow::Result<()> {
    scene.agents[agent].process.signal(libc::SIGKILL)
}

fn cut_off(scene: &mut Scene, agent: usize) -> anyhow::Result<()> {
    scene.network.all_of(FIRST + agent, Path::CUT);
    Ok(())
}

/// It hears the coordinator and reaches the target, and the coordinator hears nothing of it.
fn mute(scene: &mut Scene, agent: usize) -> anyhow::Result<()> {
    scene.network.one_way(FIRST + agent, COORDINATOR, Path::CUT);
    Ok(())
}

/// It is heard, and hears nothing of the coordinator.
fn deafen(scene: &mut Scene, agent: usize) -> anyhow::Result<()> {
    scene.network.one_way(COORDINATOR, FIRST + agent, Path::CUT);
    Ok(())
}

fn freeze(scene: &mut Scene, agent: usize) -> anyhow::Result<()> {
    scene.agents[agent].process.signal(libc::SIGSTOP)
}

/// What happens to which agent, under which index it makes load then, and what the report says of it.
struct Loss(Mishap, usize, usize, &'static str);

#[test]
fn agents_that_are_killed_cut_off_or_frozen_are_silent_and_the_others_hold_their_steps() -> anyhow::Result<()> {
    let mut scene = Scene::set()?;
    // One agent after the other, each in another step; what is left of the fleet holds the step again. Who comes back has
    // an index of its own.
    let mut losses =
        vec![Loss(kill, 3, 3, ""), Loss(cut_off, 0, 0, "silent for 1s"), Loss(mute, 1, 1, "silent for 1s")];
    match prove::whole() {
        false => losses.push(Loss(freeze, 2, 2, "silent for 1s")),
        true => losses.extend([Loss(deafen, 2, 2, ""), Loss(freeze, 0, 4, "silent for 1s")]),
    }
    let rates: Vec<f64> = (0..losses.len()).map(|step| 100.0 + 20.0 * step as f64).collect();
    let mut running = scene.run(&rates).start()?;
    let mut names = Vec::new();
    for (step, &Loss(mishap, agent, index, _)) in losses.iter().enumerate() {
        let hold = |trial: &str| format!("step {}/{}{trial} {}/s hold ", step + 1, rates.len(), rates[step]);
        running.process.wait_for_stderr(&hold(""), Duration::from_secs(60))?;
        let since = Instant::now();
        mishap(&mut scene, agent)?;
        names.push(scene.name(agent));
        scene.check_silent(index, since)?;
        running.process.wait_for_stderr(&hold(" trial 2"), Duration::from_secs(60))?;
        let before = scene.sent_by(index)?;
        scene.network.heal();
        std::thread::sleep(STILL);
        assert_eq!(scene.sent_by(index)?, before, "what had waited for its network reaches the target after the lease");
    }
    // The frozen one is thawed late: nothing that had waited in it comes out.
    let Loss(_, frozen, index, _) = losses[losses.len() - 1];
    std::thread::sleep(if prove::whole() { Duration::from_secs(8) } else { Duration::ZERO });
    let before = scene.sent_by(index)?;
    scene.agents[frozen].process.signal(libc::SIGCONT)?;
    std::thread::sleep(STILL);
    assert_eq!(scene.sent_by(index)?, before, "it sends what had waited");
    let outcome = running.finish()?;
    // On a box that others keep busy reads of the backlog come late, which is told, and is no matter of who was lost.
    let busy = !prove::whole();
    assert!(outcome.code() == Some(0) || (busy && matches!(outcome.code(), Some(1 | 4))), "{outcome}");
    for ((agent, rate), Loss(.., why)) in names.iter().zip(&rates).zip(&losses) {
        check_lost(&outcome, *rate, agent, why);
        let again = outcome.trial_at(*rate)?;
        assert!(again.verdict == Verdict::Pass || (busy && again.verdict == Verdict::Inconclusive), "{outcome}");
        assert!(again.trial == 2 && again.attempted * 100 >= again.due * 95, "the others made all of it: {outcome}");
        assert_eq!((again.duplicate, again.foreign), (0, 0), "nothing of the one that was lost: {outcome}");
        assert!(outcome.ended.stdout.contains(&format!("held without agent {agent}, which was lost: ")), "{outcome}");
    }
    for agent in &names[1..losses.len() - 1] {
        assert!(outcome.ended.stdout.contains(&format!("agent {agent} joined before this trial")), "{outcome}");
    }
    let answer = format!("ANSWER: max RPS >= {} ", rates[rates.len() - 1]);
    assert!(busy || outcome.answer()?.starts_with(&answer), "{outcome}");
    scene.check_silence()
}

#[test]
fn a_coordinator_that_is_cut_off_leaves_no_load_and_a_second_one_is_refused_until_then() -> anyhow::Result<()> {
    let scene = Scene::set()?;
    let mut running = scene.start_long()?;
    let second = scene.run(&[100.0]).finish()?;
    assert_eq!(second.code(), Some(2), "{second}");
    assert!(second.ended.stderr.contains("refuses: agent is leased to ") && second.trials.is_empty(), "{second}");
    let ways: &[fn(&Network)] = match prove::whole() {
        false => &[|network| network.all_of(COORDINATOR, Path::CUT)],
        true => &[
            |network| network.all_of(COORDINATOR, Path::CUT),
            |network| (1..FIRST + AGENTS).for_each(|host| network.one_way(COORDINATOR, host, Path::CUT)),
            |network| (1..FIRST + AGENTS).for_each(|host| network.one_way(host, COORDINATOR, Path::CUT)),
        ],
    };
    for cut in ways {
        cut(&scene.network);
        // The agents reach the target as before: what stops them is the lease alone.
        scene.check_silence()?;
        scene.network.heal();
        let outcome = running.finish()?;
        assert_eq!(outcome.code(), Some(3), "{outcome}");
        assert!(outcome.ended.stdout.contains("\nNOT COMPLETED: agent 10.77.0."), "{outcome}");
        assert!(outcome.trials.iter().all(|trial| trial.verdict != Verdict::Pass), "{outcome}");
        scene.check_all_ready()?;
        running = scene.start_long()?;
    }
    running.process.signal(libc::SIGKILL)?;
    scene.check_silence()?;
    assert_eq!(running.process.wait(SILENT_WITHIN)?.signal, Some(libc::SIGKILL));
    scene.check_all_ready()?;
    Ok(())
}

#[test]
fn an_agent_with_a_small_part_of_a_core_is_named_and_gets_less_and_the_step_passes() -> anyhow::Result<()> {
    let scene = Scene::set()?;
    // What a part of a core makes depends on the core; that it waits for its next part of 100 ms is no sign of it. What is much
    // more than that leaves the rest of this box too little.
    let (thousandths, rates, lateness) = match prove::whole() {
        true => (100, &[3000.0, 5000.0, 7000.0, 9000.0, 11_000.0, 16_000.0][..], "15ms"),
        false => (20, &[1500.0, 3000.0, 6000.0, 9000.0][..], "150ms"),
    };
    let quota = CpuQuota::new(thousandths)?;
    quota.take(&scene.agents[1].process)?;
    let weak = scene.name(1);
    let gets_less = format!(" by {weak}, which could not carry ");
    // Two of the agents, so that the weak one's share is more than its part of a core makes.
    let held = |&rate: &f64| -> anyhow::Result<(f64, Outcome)> {
        let run = scene.run(&[rate]).agents(&scene.agents[..2]).trials(3).hold(Duration::from_secs(5));
        let run = run.flag("--max-lateness", lateness).flag("--lease-timeout", "5s");
        Ok((rate, run.finish()?))
    };
    // At the very edge it may be disturbed in one trial and carry its share in the next, and this box itself may be disturbed in three.
    let is_clear = |held: &anyhow::Result<(f64, Outcome)>| {
        let passed = |rate, outcome: &Outcome| outcome.trial_at(rate).is_ok_and(|trial| trial.verdict == Verdict::Pass);
        held.as_ref()
            .map_or(true, |(rate, outcome)| outcome.ended.stdout.contains(&gets_less) && passed(*rate, outcome))
    };
    let too_much = rates.iter().chain(rates).map(held).find(is_clear);
    let (rate, outcome) = too_much.context("at no rate did the step pass once the small box got less")??;
    let first = outcome.trials.first().unwrap_or_else(|| panic!("no trial: {outcome}"));
    assert_eq!(first.verdict, Verdict::Inconclusive, "{outcome}");
    assert!(first.reasons.contains(&weak), "{outcome}");
    assert!(outcome.ended.stdout.contains(&format!("{weak} was held back by a CPU quota")), "{outcome}");
    let last = outcome.trial_at(rate)?;
    assert!(last.trial > 1 && last.verdict == Verdict::Pass, "{outcome}");
    assert!(outcome.answer()?.starts_with(&format!("ANSWER: max RPS >= {rate} ")), "{outcome}");
    scene.check_silence()
}

/// `agents started at most 1.2ms apart, +/- 3ms`, in microseconds.
fn skew_us(outcome: &Outcome) -> f64 {
    let line = outcome.ended.stdout.lines().find_map(|line| line.split_once("agents started at most "));
    let text = line.unwrap_or_else(|| panic!("no skew: {outcome}")).1.split(' ').next().unwrap_or_default().to_owned();
    microseconds(&text)
}

fn microseconds(text: &str) -> f64 {
    let unit = text.find(|c: char| c.is_alphabetic()).unwrap_or_else(|| panic!("no time: {text}"));
    let factor = match &text[unit..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        other => panic!("unknown unit {other}"),
    };
    text[..unit].parse::<f64>().unwrap_or_else(|error| panic!("{text}: {error}")) * factor
}

/// How far apart the agents of a saved run began by the one clock that all hosts of this test have, whatever was estimated of
/// it, in microseconds.
fn true_skew_us(results: &FilePath) -> anyhow::Result<f64> {
    let dir = std::fs::read_dir(results)?.next().context("no run was saved")??.path();
    let text = std::fs::read_to_string(dir.join("run.jsonl"))?;
    let mut starts = Vec::new();
    for line in text.lines() {
        collect_starts(&serde_json::from_str(line)?, &mut starts);
    }
    ensure!(starts.len() == AGENTS, "one start of each agent: {starts:?}");
    let (first, last) = (starts.iter().min().context("none")?, starts.iter().max().context("none")?);
    Ok((last - first) as f64 / 1e3)
}

fn collect_starts(value: &Value, starts: &mut Vec<u64>) {
    match value {
        Value::Object(fields) => {
            starts.extend(fields.get("own_boottime_ns").and_then(Value::as_u64));
            fields.values().for_each(|field| collect_starts(field, starts));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_starts(item, starts)),
        _ => {}
    }
}

#[test]
fn holds_begin_together_over_slow_uneven_and_lossy_paths() -> anyhow::Result<()> {
    let scene = Scene::set()?;
    let agents = FIRST..FIRST + AGENTS;
    let to_all = |path: Path| agents.clone().for_each(|agent| scene.network.both_ways(COORDINATOR, agent, path));
    to_all(Path::delayed(20, 5));
    // The last one's way there is shorter than its way back: by that much its clock seems off.
    let last = FIRST + AGENTS - 1;
    scene.network.one_way(COORDINATOR, last, Path::delayed(17, 2));
    scene.network.one_way(last, COORDINATOR, Path::delayed(23, 2));
    // A box that others keep busy wakes its workers late, which is no matter of clocks.
    let most_us = if prove::whole() { 5e3 } else { 100e3 };
    let held = || -> anyhow::Result<(f64, Outcome)> {
        let results = tempfile::tempdir()?;
        let outcome = scene.run(&[200.0]).flag("--results", results.path().display()).finish()?;
        let verdict = outcome.trial_at(200.0)?.verdict;
        assert!(verdict == Verdict::Pass || (!prove::whole() && verdict == Verdict::Inconclusive), "{outcome}");
        assert!(outcome.ended.stdout.contains(" apart, +/- "), "{outcome}");
        Ok((true_skew_us(results.path())?.max(skew_us(&outcome)), outcome))
    };
    // One that was disturbed is outvoted by two more.
    if held()?.0 > most_us {
        for (apart_us, outcome) in [held()?, held()?] {
            assert!(apart_us <= most_us, "{apart_us} us apart: {outcome}");
        }
    }
    // All hosts have one clock here: what is listed as an offset is the estimate's whole error.
    let listed = scene.check_all_ready()?;
    for row in listed.lines().filter(|line| line.contains(" ready ")) {
        let (offset, error) = row.split_once(" ±").unwrap_or_else(|| panic!("no error in {row}"));
        let offset = offset.rsplit(['+', '-']).next().unwrap_or_default();
        let error = error.split_whitespace().next().unwrap_or_default();
        assert!(microseconds(offset) <= microseconds(error), "{offset} is more than {error}:\n{listed}");
        assert!(microseconds(error) >= 15e3, "half a round trip is not less: {row}");
        assert!(!prove::whole() || microseconds(offset) <= 5.5e3, "{row}");
    }
    if prove::whole() {
        to_all(Path::delayed(200, 0));
        let slow = scene.run(&[200.0]).flag("--lease-timeout", "3s").finish()?;
        assert_eq!((slow.trial_at(200.0)?.verdict, slow.code()), (Verdict::Pass, Some(0)), "{slow}");
        assert!(skew_us(&slow) <= 5e3, "{slow}");
        to_all(Path { loss: 0.05, ..Path::delayed(5, 1) });
        let lossy = scene.run(&[200.0]).flag("--lease-timeout", "3s").hold(Duration::from_secs(10)).finish()?;
        assert_eq!((lossy.trial_at(200.0)?.verdict, lossy.code()), (Verdict::Pass, Some(0)), "{lossy}");
    }
    scene.check_silence()
}

#[test]
fn who_may_not_is_refused_in_words_and_the_target_never_hears_of_it() -> anyhow::Result<()> {
    let mut scene = Scene::set()?;
    scene.certificates.more(&["--coordinator", "ops"])?;
    let strangers = Certificates::make()?;
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let expired = signed(&scene.certificates, "plimsoll-coordinator", client, [-30, -1])?;
    let stranger = strangers.files("plimsoll-coordinator");
    let own = scene.certificates.files("plimsoll-coordinator");
    let wrong_ca = TlsFiles { ca: own.ca, ..stranger };
    for (shown, words) in [
        (flags(&expired), "the certificate expired on"),
        (flags(&wrong_ca), "it refuses our certificate: it is not of the CA in the agent's --tls-ca"),
        (scene.certificates.flags("ops"), "the coordinator's certificate is of ops"),
    ] {
        let run = Run::new(&scene.server.url(), "small").on(scene.coordinator()).agents(&scene.agents).steps(&[100.0]);
        let refused = shown.iter().fold(run, |run, flag| run.switch(flag)).finish()?;
        assert_eq!((refused.code(), refused.trials.len()), (Some(2), 0), "{refused}");
        assert!(refused.ended.stderr.contains(words), "{words}: {refused}");
    }
    // A box that makes load for another target only.
    scene.agents.pop();
    let elsewhere = scene.agent(FIRST + AGENTS - 1, "10.77.0.250")?;
    scene.agents.push(elsewhere);
    let refused = scene.run(&[100.0]).finish()?;
    assert_eq!((refused.code(), refused.trials.len()), (Some(2), 0), "{refused}");
    let words = format!("agent {} cannot prepare the run: ", scene.name(AGENTS - 1));
    assert!(refused.ended.stderr.contains(&words) && refused.ended.stderr.contains("--allow-target"), "{refused}");
    let seen = scene.server.agents_seen()?;
    assert_eq!((seen.open.len(), seen.messages), (0, 0), "{seen:?}");
    scene.check_all_ready()?;
    Ok(())
}
