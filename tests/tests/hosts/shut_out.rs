//! An agent that cannot be dealt its part, since its way to the target is gone, while the coordinator still reaches it.

use super::*;

#[test]
fn an_agent_without_a_way_to_the_target_is_a_box_less_and_is_not_asked_again() -> anyhow::Result<()> {
    let mut scene = Scene::set()?;
    let rates = [100.0, 120.0, 140.0];
    let run = scene.run(&rates).agents(&scene.agents[..3]).cooldown(Duration::from_secs(3));
    let mut running = run.start()?;
    running.process.wait_for_stderr("step 1/3 100/s cooldown ", Duration::from_secs(60))?;
    // One agent less makes a new deal, in which the other hears nothing of the target any more, for good.
    let (cut, killed) = (scene.name(1), scene.name(2));
    scene.network.both_ways(FIRST + 1, TARGET, Path::CUT);
    scene.agents[2].process.signal(libc::SIGKILL)?;
    let outcome = running.finish()?;
    let Ended { stdout, stderr, .. } = &outcome.ended;
    let warning = format!("warning: agent {cut} was lost: ");
    let warnings: Vec<&str> = stderr.lines().filter(|line| line.contains(&warning)).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("NATS"), "it is named once, with the reason: {outcome}");
    assert!(!stderr.contains(&format!("agent {cut} joined")), "it could not have taken its part: {outcome}");
    assert!(stdout.contains(&format!("held without agent {cut}, which was lost: ")), "{outcome}");
    assert!(stdout.contains(&format!("held without agent {killed}, which was lost: ")), "{outcome}");
    assert_eq!(outcome.trials.len(), 3, "each step is held once: {outcome}");
    for (trial, rate) in outcome.trials.iter().zip(rates) {
        let busy = !prove::whole() && trial.verdict == Verdict::Inconclusive;
        assert!(busy || trial.verdict == Verdict::Pass, "{outcome}");
        assert!(trial.attempted * 100 >= trial.due * 95, "who is left made all of {rate}/s: {outcome}");
    }
    assert!(outcome.answer()?.starts_with("ANSWER: max RPS >= 140 ") || !prove::whole(), "{outcome}");
    // It hears the coordinator, and is free for whoever comes next.
    scene.network.heal();
    let listed = scene.list()?;
    let free = listed.stdout.lines().find(|line| line.contains(&cut));
    assert!(free.is_some_and(|line| line.contains(" ready ")), "{listed:?}");
    // The target may not have heard yet that its connection is over; it gets nothing more over it.
    scene.check_silent(1, Instant::now())
}
