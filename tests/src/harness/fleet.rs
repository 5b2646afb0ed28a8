//! How a fleet scales, on one machine: boxes that a CPU quota makes small, and many agents under one coordinator. For the
//! bench of that name and the long proofs.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plimsoll_agent::{Agent as Daemon, AgentConfig};
use tempfile::NamedTempFile;

use super::nats::{NatsOptions, NatsServer};
use super::processes::{Agent, CpuQuota};
use super::run::{Outcome, Run, Trial, Verdict};
use crate::standin::null::{ECHO_SCENARIO, NullAnswers, NullGatekeeper};

const SITE: &str = "site-local";
/// 1.5 ms of a core in 50 ms: so small that four do not fill the machine that they share with the target, and never still for
/// long.
const QUOTA: (u32, u32) = (30, 50);

/// What a coordinator may hold in the second half of a hold beyond the first: histograms still fill, and a batch of blocks is
/// kept a while.
const GROWTH: f64 = 1.1;
const GROWTH_MIB: f64 = 4.0;

/// A server, somebody who answers, and the description of what is asked.
struct Target {
    server: NatsServer,
    _gatekeeper: NullGatekeeper,
    scenario: NamedTempFile,
}

impl Target {
    fn start() -> anyhow::Result<Self> {
        let server = NatsServer::start(NatsOptions::default())?;
        let gatekeeper = NullGatekeeper::start(&server.url(), SITE, NullAnswers::Echo)?;
        let mut scenario = tempfile::Builder::new().suffix(".toml").tempfile()?;
        scenario.write_all(ECHO_SCENARIO.as_bytes())?;
        Ok(Self { server, _gatekeeper: gatekeeper, scenario })
    }

    fn run(&self, rates: &[f64]) -> Run {
        Run::custom(&self.server.url(), self.scenario.path()).steps(rates).trials(1)
    }
}

/// Prints what one small box carries, and what two, three and four do.
///
/// # Errors
/// Four carry less than 3.6 times what one does with nothing underrun, or one is not INCONCLUSIVE there.
pub fn scale() -> anyhow::Result<()> {
    let target = Target::start()?;
    let agents = Agent::start_many(4)?;
    let (milli_cores, period_ms) = QUOTA;
    let quotas: Vec<CpuQuota> =
        agents.iter().map(|_| CpuQuota::in_periods(milli_cores, period_ms)).collect::<anyhow::Result<_>>()?;
    quotas.iter().zip(&agents).try_for_each(|(quota, agent)| quota.take(&agent.process))?;
    println!("# scale: each agent has {milli_cores} thousandths of a core");
    println!("agents   asked/s   achieved/s   underrun   verdict");
    let hold = |count: usize, rates: &[f64]| -> anyhow::Result<Outcome> {
        let run = target.run(rates).agents(&agents[..count]).hold(Duration::from_secs(4));
        let outcome = run.finish()?;
        ensure!(!outcome.trials.is_empty(), "{count} agents held nothing: {outcome}");
        outcome.trials.iter().for_each(|trial| row(count, trial));
        Ok(outcome)
    };
    let rates: Vec<f64> = (0..16).map(|step| (1000.0 * 1.25_f64.powi(step)).round()).collect();
    let mut alone = carried(&hold(1, &rates)?).context("one agent carries nothing")?;
    ensure!(
        rates.last().is_some_and(|last| alone < *last),
        "one agent carries {alone}/s and more: the quota is no limit"
    );
    // What it carries by luck is not what it carries.
    while !hold(1, &[alone])?.trials.iter().all(is_whole) {
        alone = rates.iter().copied().filter(|&rate| rate < alone).fold(0.0, f64::max);
        ensure!(alone > 0.0, "one agent carries nothing twice");
    }
    let mut most = alone;
    let mut table = vec![(1, alone)];
    for count in 2..=agents.len() {
        let whole = alone * count as f64;
        most = carried(&hold(count, &[(whole * 0.75).ceil(), (whole * 0.9).ceil(), whole])?).unwrap_or(0.0);
        table.push((count, most));
    }
    let beyond = hold(1, &[(alone * 3.6).ceil()])?;
    println!("agents   carried/s   of one's");
    table.iter().for_each(|(count, carried)| println!("{count:6} {carried:11.0} {:10.2}", carried / alone));
    let word = |outcome: &Outcome| outcome.trials.last().map(|trial| trial.verdict);
    println!(
        "one carries R = {alone}/s, four carry {most}/s = {:.2} R; one at 3.6 R: {:?}",
        most / alone,
        word(&beyond)
    );
    ensure!(
        most >= alone * 3.6,
        "four carry {most}/s, {:.2} of what one does: at least 3.6, with nothing underrun, are wanted",
        most / alone
    );
    ensure!(
        word(&beyond) == Some(Verdict::Inconclusive),
        "one at 3.6 R has to be INCONCLUSIVE, and is {:?}",
        word(&beyond)
    );
    Ok(())
}

/// The largest rate that was carried whole.
fn carried(outcome: &Outcome) -> Option<f64> {
    outcome.trials.iter().filter(|trial| is_whole(trial)).map(|trial| trial.target_rate).reduce(f64::max)
}

fn is_whole(trial: &Trial) -> bool {
    trial.verdict == Verdict::Pass && trial.underrun == 0
}

fn row(agents: usize, trial: &Trial) {
    let Trial { target_rate, achieved_rate, underrun, verdict, .. } = trial;
    let word = match verdict {
        Verdict::Pass => "PASS",
        Verdict::Trip => "TRIP",
        Verdict::Inconclusive => "INCONCLUSIVE",
    };
    println!("{agents:6} {target_rate:9.0} {achieved_rate:12.0} {underrun:10}   {word}");
}

/// Prints what so many agents cost the one coordinator that they all send their snapshots to.
///
/// # Errors
/// It takes half a core, its memory goes on growing, or not every agent made its load.
pub fn many(agents: usize, hold: Duration) -> anyhow::Result<()> {
    let target = Target::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let addresses: Vec<SocketAddr> = runtime.block_on(async {
        let mut addresses = Vec::new();
        for _ in 0..agents {
            let config = AgentConfig { workers: Some(1), ..AgentConfig::default() };
            let agent = Daemon::bind("127.0.0.1:0".parse()?, config).await?;
            addresses.push(agent.local_addr());
            tokio::spawn(agent.serve(std::future::pending(), std::future::pending()));
        }
        anyhow::Ok(addresses)
    })?;
    let names: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let rate = agents as f64 * 5.0;
    let run = target.run(&[rate]).hold(hold).flag("--agents", names.join(","));
    let mut running = run.start()?;
    running.wait_for_hold()?;
    println!("# many: {agents} agents of one process at {rate}/s, a snapshot of each twice a second");
    println!("second   coordinator: cores   MiB   agents: cores   MiB");
    let (own, coordinator) = (std::process::id(), running.process.pid());
    let mut before = [cpu_s(coordinator)?, cpu_s(own)?];
    let every = (hold / 6).max(Duration::from_secs(1));
    let (mut second, mut busiest, mut held) = (0.0, 0.0_f64, Vec::new());
    while second + every.as_secs_f64() * 1.5 <= hold.as_secs_f64() {
        std::thread::sleep(every);
        second += every.as_secs_f64();
        let now = [cpu_s(coordinator)?, cpu_s(own)?];
        let cores = |index: usize| (now[index] - before[index]) / every.as_secs_f64();
        let (coordinators, agents) = (rss_mib(coordinator)?, rss_mib(own)?);
        println!("{second:6.0} {:20.3} {coordinators:5.0} {:15.3} {agents:5.0}", cores(0), cores(1));
        busiest = busiest.max(cores(0));
        held.push(coordinators);
        before = now;
    }
    let outcome = running.finish()?;
    outcome.trials.iter().for_each(|trial| row(agents, trial));
    ensure!(busiest < 0.5, "the coordinator took {busiest:.3} cores, and half a core is the most that it may");
    let (begun, later) = held.split_at(held.len() / 2);
    let most = |held: &[f64]| held.iter().copied().fold(0.0, f64::max);
    ensure!(!begun.is_empty(), "{hold:?} are too short to see memory grow: take 6 s at least");
    ensure!(
        most(later) <= most(begun) * GROWTH + GROWTH_MIB,
        "the coordinator held {:.1} MiB in the first half and {:.1} MiB in the second",
        most(begun),
        most(later)
    );
    ensure!(
        outcome.trials.iter().all(|trial| trial.verdict == Verdict::Pass),
        "not every agent made its load: {outcome}"
    );
    Ok(())
}

/// Time on processors so far.
fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // What follows the name, which may have spaces: user and system time are the 12th and 13th of it.
    let rest = stat.rsplit_once(") ").context("/proc/…/stat without a name")?.1;
    let ticks: f64 = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(0.0)).sum();
    // SAFETY: takes no pointer.
    Ok(ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64)
}

fn rss_mib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1024.0)
}
