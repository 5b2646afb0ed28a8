//! An agent that begins late, since its process stood still when it was to begin.

use super::*;

/// Starts may be apart by so much, which is more than a busy box makes of them.
const MAX_SKEW: Duration = Duration::from_millis(300);
/// The order leaves five times the round trip of 200 ms and 100 ms more, of which one round trip is over when this begins.
const FROZEN: Duration = Duration::from_millis(1500);

#[test]
fn a_step_that_one_agent_began_late_is_no_trip_and_is_held_again() -> anyhow::Result<()> {
    let mut scene = Scene::set()?;
    scene.network.both_ways(COORDINATOR, FIRST + 1, Path::delayed(100, 0));
    // Nothing that comes from the target can hold the limits: every window of this step is a TRIP.
    (FIRST..FIRST + 2).for_each(|agent| scene.network.both_ways(TARGET, agent, Path::delayed(100, 0)));
    let run = scene.run(&[200.0]).agents(&scene.agents[..2]).trials(3).flag("--lease-timeout", "4s");
    let run = run.flag("--max-skew", "300ms").flag("--slo-p95", "50ms").flag("--slo-p99", "50ms");
    let mut running = run.start()?;
    // It has said that it is armed, and begins when its clock says so.
    running.process.wait_for_stderr("step 1/1 200/s warmup ", Duration::from_secs(60))?;
    scene.agents[1].process.signal(libc::SIGSTOP)?;
    std::thread::sleep(FROZEN);
    scene.agents[1].process.signal(libc::SIGCONT)?;
    let outcome = running.finish()?;
    let [late, .., again] = &outcome.trials[..] else { panic!("it was not held again: {outcome}") };
    assert_eq!(late.verdict, Verdict::Inconclusive, "{outcome}");
    let last = format!(" apart > 300ms (--max-skew), {} last: they are not one window", scene.name(1));
    assert!(late.reasons.starts_with("the agents' holds began ") && late.reasons.contains(&last), "{outcome}");
    // The same broken limits are believed where both began together.
    assert_eq!((again.verdict, outcome.code()), (Verdict::Trip, Some(1)), "{outcome}");
    assert!(again.reasons.contains("E1 p95"), "{outcome}");
    let skew = Duration::from_secs_f64(skew_us(&outcome) / 1e6);
    assert!(skew > MAX_SKEW && skew <= FROZEN, "the report says how far apart: {outcome}");
    scene.check_silence()
}
