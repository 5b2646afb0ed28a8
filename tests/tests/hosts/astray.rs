//! Agents whose own way to the target is at fault, while the coordinator reaches them: what they measure is no limit of the service.

use super::*;
use crate::alone::find::interval;

/// More than the limits of the run, and less than a second, which would be a silence.
const LONG_WAY: Path = Path::delayed(600, 0);
/// A fourth of what an agent's requests need.
const NARROW: Path = Path::narrow(6_000);
/// Long enough for a second and a half of silence, and for what waits at a narrow path to be late.
const HOLD: Duration = Duration::from_secs(5);

#[test]
fn agents_with_a_long_way_or_none_are_named_and_the_others_hold_their_steps() -> anyhow::Result<()> {
    let scene = Scene::set()?;
    let (slow, cut) = (scene.name(1), scene.name(2));
    let rates = [200.0, 240.0, 280.0];
    let run = scene.run(&rates).hold(HOLD).flag("--slo-p95", "500ms").flag("--slo-p99", "1s");
    let mut running = run.start()?;
    running.process.wait_for_stderr("step 1/3 200/s warmup ", Duration::from_secs(60))?;
    scene.network.one_way(FIRST + 1, TARGET, LONG_WAY);
    running.process.wait_for_stderr("step 2/3 240/s hold ", Duration::from_secs(60))?;
    scene.network.both_ways(FIRST + 2, TARGET, Path::CUT);
    running.process.wait_for_stderr("step 2/3 trial 2 240/s hold ", Duration::from_secs(60))?;
    scene.network.both_ways(FIRST + 2, TARGET, Path::FREE);
    let outcome = running.finish()?;
    let at = |step: usize| {
        let of_step: Vec<&Trial> =
            outcome.trials.iter().filter(|t| (t.target_rate - rates[step]).abs() < 0.001).collect();
        assert!(step == 2 || of_step[0].verdict == Verdict::Inconclusive, "{outcome}");
        of_step
    };
    let [first, second, third] = [at(0), at(1), at(2)];
    assert!(first[0].reasons.contains(&format!(" of agent {slow}'s ")), "{outcome}");
    assert!(
        first[0].reasons.contains("its link, its box or its distance from the target, not the service"),
        "{outcome}"
    );
    assert!(second[0].reasons.contains(&format!("agent {cut} heard nothing from the target for ")), "{outcome}");
    for again in [&first, &second].map(|step| step.last().expect("a trial")) {
        assert!(again.trial == 2 && again.attempted * 100 >= again.due * 95, "the others made all of it: {outcome}");
    }
    for trial in [first[1], second[1], third[0]] {
        let busy = !prove::whole() && trial.verdict == Verdict::Inconclusive;
        assert!(busy || trial.verdict == Verdict::Pass, "{outcome}");
    }
    for agent in [&slow, &cut] {
        assert!(outcome.ended.stdout.contains(&format!("held without agent {agent}, which was lost: ")), "{outcome}");
    }
    // A cut ends; what is slow stays slow, and out.
    assert!(outcome.ended.stderr.contains(&format!("agent {cut} joined")), "{outcome}");
    assert!(!outcome.ended.stderr.contains(&format!("agent {slow} joined")), "{outcome}");
    scene.check_silence()
}

#[test]
fn an_agent_behind_a_narrow_link_stays_out_after_two_trials_at_most() -> anyhow::Result<()> {
    let scene = Scene::set()?;
    let narrow = scene.name(1);
    let mut running = scene.run(&[200.0, 240.0, 280.0]).hold(HOLD).start()?;
    running.process.wait_for_stderr("step 1/3 200/s warmup ", Duration::from_secs(60))?;
    scene.network.one_way(FIRST + 1, TARGET, NARROW);
    let outcome = running.finish()?;
    let Ended { stdout, stderr, .. } = &outcome.ended;
    // What it still hears comes late, or with a second between: the latter might end.
    let losses = stderr.matches(&format!("warning: agent {narrow} was lost: ")).count();
    let joined = stderr.matches(&format!("agent {narrow} joined")).count();
    assert!((1..=2).contains(&losses) && joined == losses - 1, "{outcome}");
    let out = [": ", " does not join, "].map(|after| format!("warning: agent {narrow}{after}"));
    assert!(out.iter().any(|words| stderr.contains(words)), "it is told that it stays out: {outcome}");
    assert!(stdout.contains(&format!("held without agent {narrow}, which was lost: ")), "{outcome}");
    let first = &outcome.trials[0];
    assert!(first.verdict == Verdict::Inconclusive && first.reasons.contains(&narrow), "{outcome}");
    for rate in [200.0, 240.0, 280.0] {
        let mut of_step = outcome.trials.iter().filter(|trial| (trial.target_rate - rate).abs() < 0.001);
        let last = of_step.next_back().expect("each step is held");
        let busy = !prove::whole() && last.verdict == Verdict::Inconclusive;
        assert!(busy || last.verdict == Verdict::Pass, "{outcome}");
        assert!(last.attempted * 100 >= last.due * 95, "the others made all of {rate}/s: {outcome}");
    }
    scene.check_silence()
}

#[test]
fn a_search_finds_what_the_service_carries_without_the_agent_that_is_slow_alone() -> anyhow::Result<()> {
    const CAPACITY: f64 = 600.0;
    let scene = Scene::of(&["--broadcast-worker-capacity", &CAPACITY.to_string()])?;
    let slow = scene.name(1);
    scene.network.one_way(FIRST + 1, TARGET, LONG_WAY);
    let addresses: Vec<String> = scene.agents.iter().map(|agent| agent.address.to_string()).collect();
    let mut command = Program::Cli.command()?;
    command.args([
        "max-rps",
        "--find",
        "--explain",
        "--preset=small",
        "--results=none",
        "--nats-url",
        &scene.server.url(),
    ]);
    command.args(["--precision=30%", "--max-time=200s", "--lease-timeout=1s", "--max-lateness=1s", "--max-skew=1s"]);
    command.args(["--slo-p95=none", "--slo-p99=500ms", "--request-timeout=3s", "--agents", &addresses.join(",")]);
    command.args(scene.certificates.flags("plimsoll-coordinator"));
    scene.coordinator().put(&mut command);
    let ended = Process::spawn(command)?.wait(Duration::from_secs(280))?;
    let told = ended.stderr.matches(&format!("warning: agent {slow} was lost: ")).count();
    let joined = ended.stderr.matches(&format!("agent {slow} joined")).count();
    // A first answer that is late by half a second more is a silence, which might end.
    assert!((1..=2).contains(&told) && joined == told - 1, "let go, for good: {ended:?}");
    assert!(told == 2 || ended.stderr.contains("its distance from the target, not the service"), "{ended:?}");
    // A busy box leaves the search without an answer at worst, and never with one that the slow agent made.
    match interval(&ended) {
        Some((low, high)) => {
            // A box that is slower meanwhile carries less.
            let least = if prove::whole() { CAPACITY } else { CAPACITY * 0.85 };
            assert!(low <= CAPACITY && least <= high, "{ended:?}");
            assert!(!prove::whole() || high / low <= 1.3 + 1e-9, "{ended:?}");
        }
        None => assert!(!prove::whole(), "{ended:?}"),
    }
    scene.check_silence()
}
