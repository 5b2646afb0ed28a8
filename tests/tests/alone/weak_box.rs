//! A weak load box is never taken for the service's limit, and a slow service is not excused by a box that stumbles.

use std::time::Duration;

use plimsoll::core::ceilings::Ceilings;
use plimsoll_tests::harness::exclusive::Pair;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, CpuQuota, Program};
use plimsoll_tests::harness::run::{Outcome, Run, Trial, Verdict};
use plimsoll_tests::standin::config::Latency;
use plimsoll_tests::standin::{Standin, StandinConfig};

const LATENESS: &str = "200ms";

/// Holds a rate over these agents against a stand-in, with something done to the agents once the hold is under way.
async fn hold(
    rate: f64,
    mut agents: Vec<Agent>,
    service: impl FnOnce(&mut StandinConfig),
    change: impl FnOnce(Run) -> Run,
    mishap: impl FnOnce(&mut [Agent]) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Outcome> {
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    service(&mut config);
    let standin = Standin::start(config).await?;
    let run = Run::new(&server.url(), "small").agents(&agents).flag("--max-lateness", "100ms");
    let run = change(run.steps(&[rate]).trials(1).without_backlogs());
    let outcome = tokio::task::spawn_blocking(move || {
        let mut running = run.start()?;
        running.wait_for_hold()?;
        mishap(&mut agents)?;
        running.finish()
    });
    let outcome = outcome.await??;
    standin.shutdown().await?;
    Ok(outcome)
}

fn check_named(trial: &Trial, outcome: &Outcome, agent: &str) {
    assert_eq!(trial.verdict, Verdict::Inconclusive, "{outcome}");
    assert!(trial.reasons.contains(agent), "{outcome}");
}

#[tokio::test]
async fn a_box_of_two_that_a_quota_slows_is_named_and_never_trips_the_service() -> anyhow::Result<()> {
    let _pair = Pair::acquire()?;
    let agents = Agent::start_many(2)?;
    let weak = agents[1].address.to_string();
    // A hundredth of a core, in periods of 100 ms: what is due while it waits for the next period is late.
    let quota = CpuQuota::new(10)?;
    quota.take(&agents[1].process)?;
    let tight = |run: Run| run.hold(Duration::from_secs(4)).flag("--slo-p95", "50ms").flag("--slo-p99", "none");
    let outcome = hold(2000.0, agents, |_| {}, tight, |_| Ok(())).await?;
    check_named(outcome.trial_at(2000.0)?, &outcome, &weak);
    assert_eq!(outcome.code(), Some(4), "{outcome}");
    assert!(outcome.ended.stdout.contains(&format!("{weak} was held back by a CPU quota")), "{outcome}");
    Ok(())
}

/// Agents whose last has 12 ms of a core in 500 ms: what is due while it waits for the next period is not released within
/// [`LATENESS`], in which a box that is merely busy does release it.
fn last_is_weak(agents: usize) -> anyhow::Result<(Vec<Agent>, CpuQuota)> {
    let agents = Agent::start_many(agents)?;
    let quota = CpuQuota::in_periods(24, 500)?;
    quota.take(&agents[agents.len() - 1].process)?;
    Ok((agents, quota))
}

/// How often another rate is tried, twice or half the one before: what a part of a core carries depends on the core.
const ATTEMPTS: usize = 5;

#[tokio::test]
async fn a_box_that_is_too_small_gets_less_and_the_step_is_held_again() -> anyhow::Result<()> {
    let _pair = Pair::acquire()?;
    let mut rate = 2000.0;
    for _ in 0..ATTEMPTS {
        let (agents, _quota) = last_is_weak(2)?;
        let weak = agents[1].address.to_string();
        let again = |run: Run| {
            run.flag("--max-lateness", LATENESS).trials(3).warmup(Duration::from_secs(1)).hold(Duration::from_secs(3))
        };
        let outcome = hold(rate, agents, |_| {}, again, |_| Ok(())).await?;
        assert!(outcome.trials.iter().all(|trial| trial.verdict != Verdict::Trip), "{outcome}");
        let last = outcome.trial_at(rate)?;
        match (last.verdict, last.trial) {
            // It could carry its half of so little.
            (Verdict::Pass, 1) => rate *= 2.0,
            (Verdict::Pass, _) => {
                check_named(&outcome.trials[0], &outcome, &weak);
                let words = format!(" by {weak}, which could not carry ");
                assert!(outcome.ended.stdout.contains(&words), "{outcome}");
                assert_eq!(outcome.code(), Some(0), "{outcome}");
                return Ok(());
            }
            // It could not even carry what was left to it in the last trial.
            _ => {
                check_named(&outcome.trials[0], &outcome, &weak);
                assert_eq!((outcome.trials.len(), outcome.code()), (3, Some(4)), "{outcome}");
                rate /= 2.0;
            }
        }
    }
    panic!("no rate was carried by the other once the small box got less");
}

#[tokio::test]
async fn a_fleet_without_headroom_says_how_many_more_boxes_the_step_takes() -> anyhow::Result<()> {
    let _pair = Pair::acquire()?;
    let mut rate = 1000.0;
    for _ in 0..ATTEMPTS {
        let (agents, _quota) = last_is_weak(1)?;
        let two = |run: Run| {
            run.flag("--max-lateness", LATENESS)
                .steps(&[rate, rate * 1.5])
                .warmup(Duration::from_secs(1))
                .hold(Duration::from_secs(3))
        };
        let outcome = hold(rate, agents, |_| {}, two, |_| Ok(())).await?;
        if outcome.trials[0].verdict == Verdict::Pass {
            rate *= 2.0;
            continue;
        }
        assert_eq!(
            (outcome.code(), outcome.trials.len()),
            (Some(4), 1),
            "a second trial or step would show no more: {outcome}"
        );
        let reasons = &outcome.trials[0].reasons;
        assert!(reasons.contains(&format!("{rate}/s is more than the load boxes carry, ")), "{outcome}");
        assert!(reasons.contains(" more like the largest"), "{outcome}");
        let limit = format!("more like the largest at {rate}");
        assert!(outcome.ended.stdout.contains(&limit), "the next limit says so too: {outcome}");
        return Ok(());
    }
    panic!("a small part of a core carries everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_calibration_finds_the_weak_box_before_the_service_is_driven_and_later_runs_are_split_by_it()
-> anyhow::Result<()> {
    let _pair = Pair::acquire()?;
    let (agents, _quota) = last_is_weak(2)?;
    let names: Vec<String> = agents.iter().map(|agent| agent.address.to_string()).collect();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ceilings.toml");
    let arguments = ["calibrate", "--agents", &names.join(","), "--save", &file.display().to_string()];
    let calibrated = Program::Cli.run(arguments)?;
    assert_eq!(calibrated.code, Some(0), "{calibrated:?}");
    assert!(names.iter().all(|name| calibrated.stdout.contains(name)), "{calibrated:?}");
    let mut found = Ceilings::parse(&std::fs::read_to_string(&file)?).map_err(anyhow::Error::msg)?;
    let ceiling = |name: &String| found.agents[name].as_f64();
    assert!(ceiling(&names[1]) < ceiling(&names[0]) / 4.0, "{calibrated:?}");
    // A tenth of what is asked for below is less than either box was found to carry.
    found.agents.insert(names[1].clone(), "20".parse()?);
    std::fs::write(&file, found.to_text())?;
    let split = |run: Run| run.flag("--ceilings", file.display()).flag("--max-lateness", LATENESS);
    let outcome = hold(200.0, agents, |_| {}, |run| split(run).hold(Duration::from_secs(1)), |_| Ok(())).await?;
    assert!(outcome.ended.stdout.contains(&format!("agent {} = 1 workers on ", names[1])), "{outcome}");
    assert!(outcome.ended.stdout.contains(", at most 20/s, connected to "), "{outcome}");
    let rows = outcome.ended.stdout.lines().filter(|line| line.contains(&names[1]) && !line.contains('='));
    let share = rows.filter_map(|row| row.split_whitespace().nth(2)).next();
    assert_eq!(share, Some("20"), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn a_box_frozen_for_a_second_is_named_and_never_trips_the_service() -> anyhow::Result<()> {
    let _pair = Pair::acquire()?;
    let agents = Agent::start_many(2)?;
    let frozen = agents[1].address.to_string();
    let freeze = |agents: &mut [Agent]| {
        std::thread::sleep(Duration::from_secs(1));
        pause(&mut agents[1], Duration::from_secs(1))
    };
    let outcome = hold(500.0, agents, |_| {}, |run| run.hold(Duration::from_secs(4)), freeze).await?;
    check_named(outcome.trial_at(500.0)?, &outcome, &frozen);
    Ok(())
}

#[tokio::test]
async fn a_slow_service_trips_though_one_box_stumbles_and_another_stands_still_for_a_second() -> anyhow::Result<()> {
    let _pair = Pair::acquire()?;
    let agents = Agent::start_many(2)?;
    let stumble = |agents: &mut [Agent]| {
        let (first, second) = agents.split_at_mut(1);
        std::thread::scope(|scope| {
            let frozen = scope.spawn(|| pause(&mut second[0], Duration::from_secs(1)));
            for _ in 0..8 {
                pause(&mut first[0], Duration::from_millis(15))?;
                std::thread::sleep(Duration::from_millis(400));
            }
            frozen.join().expect("freezing does not panic")
        })
    };
    let slow = |config: &mut StandinConfig| config.gatekeeper.latency = Latency::Fixed(Duration::from_millis(600));
    let outcome = hold(300.0, agents, slow, |run| run.hold(Duration::from_secs(4)), stumble).await?;
    let trial = outcome.trial_at(300.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.reasons.contains("E1 p95"), "{outcome}");
    Ok(())
}

fn pause(agent: &mut Agent, length: Duration) -> anyhow::Result<()> {
    agent.process.signal(libc::SIGSTOP)?;
    std::thread::sleep(length);
    agent.process.signal(libc::SIGCONT)
}
