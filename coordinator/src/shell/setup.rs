//! Everything that is checked, connected and prepared before the first load: what fails here started nothing.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use plimsoll_agent::shell::{logs, panics};
use plimsoll_common::calibration::{Calibration, CalibrationOrder};
use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::{AgentPlan, Target, redact_url};
use plimsoll_common::units::Rate;
use tokio::time::timeout;

use super::fleet::{Fleet, FleetDeal, FleetError, Patience};
use super::identity::RunIdentity;
use super::let_go::{Reached, let_go};
use super::live::Live;
use super::local_agents::LocalAgents;
use super::losses::Crew;
use super::metrics::MetricsPage;
use super::monitor::{Monitor, Nats};
use super::muster::{Muster, Whereabouts, gather};
use super::preflight::{self, Seen};
use super::seeded;
use super::session::{Claim, Secrets};
use super::target;
use super::tls::Wire;
use super::users;
use crate::awaited::Awaited;
use crate::core::budget::{Budget, Short, operations};
use crate::core::compare::differences;
use crate::exit::Failure;
use crate::report::csv::{CsvReport, Rows};
use crate::report::{Applied, DealSummary, words};
use crate::results::read::SavedRun;
use crate::results::write::RunWriter;
use crate::seed;
use crate::seed::spec::Spec;
use crate::seed::verify::Depth;
use crate::settings::{FleetChoice, Goal, Phases, Preflight, RunPlan, TargetChoice};

/// How long everything together may take that is looked at before a run.
const PREFLIGHT_LIMIT: Duration = Duration::from_secs(10);

/// A run that another process began.
#[derive(Debug)]
pub struct Before {
    /// Where it is saved.
    pub dir: PathBuf,
    /// As it was read.
    pub run: SavedRun,
    /// Go on although the target is set up differently now.
    pub ignore_config: bool,
}

/// What a run works with once everything is ready.
pub struct Ready {
    /// How others join them.
    pub muster: Muster,
    /// The agents of this process, where the fleet is one.
    pub local: Option<LocalAgents>,
    /// Where backlogs are read.
    pub monitor: Monitor,
    /// One row per trial goes here.
    pub csv: Option<CsvReport<File>>,
    /// Serves as long as it lives.
    pub metrics: Option<MetricsPage>,
    /// What rooms and users are dealt for, and how.
    pub dealt: Dealt,
    /// What was seen of target and boxes.
    pub seen: Seen,
    /// Where the run is saved.
    pub saved: Option<RunWriter>,
}

/// A deal that stands.
#[derive(Debug, Clone)]
pub struct Dealt {
    /// What it was dealt for.
    pub shares: Vec<Rate>,
    /// What came of it.
    pub summary: DealSummary,
    /// What is left of what operations use up; `None`: nothing is used up.
    pub budget: Option<Budget>,
}

/// Checks, connects and prepares everything; the crew is prepared and dealt for the first step then, and who was lost by then is in
/// its roster. Whoever drops this midway finds those in it who were claimed so far, and owes them [`dismiss`].
///
/// # Errors
/// The first thing that does not work, in words; no load was started, and a fleet that was waited for knows that there will be none.
pub async fn set_up(
    plan: &RunPlan,
    before: Option<&Before>,
    identity: &RunIdentity,
    live: &Live,
    crew: &mut Crew,
) -> Result<Ready, Failure> {
    let mut reached = Reached::Nobody;
    let ready = make_ready(plan, before, identity, live, crew, &mut reached).await;
    // A fleet that is waited for is there for this run.
    if let (Err(failure), FleetChoice::Remote(sources), Some(gather)) = (&ready, &plan.fleet, plan.gather) {
        std::mem::replace(&mut crew.fleet, Fleet::nobody()).release().await;
        let_go(plan, sources, gather, identity, reached, failure).await;
    }
    ready
}

/// Tells the agents of a run that is interrupted while it is set up that it is over: those that it holds, and of a fleet that was to
/// be waited for those that are there.
pub async fn dismiss(plan: &RunPlan, identity: &RunIdentity, crew: Crew) {
    crew.fleet.release().await;
    if let (FleetChoice::Remote(sources), Some(gather)) = (&plan.fleet, plan.gather) {
        let why = Failure::Incomplete("it was interrupted".to_owned());
        let_go(plan, sources, gather, identity, Reached::Agents, &why).await;
    }
}

async fn make_ready(
    plan: &RunPlan,
    before: Option<&Before>,
    identity: &RunIdentity,
    live: &Live,
    crew: &mut Crew,
    reached: &mut Reached,
) -> Result<Ready, Failure> {
    let saved = match before {
        Some(Before { dir, .. }) if plan.workload.pool().is_some() => {
            return Err(Failure::Usage(format!(
                "'{}' cannot be resumed: the workload {} uses up what the target was seeded with, and what the run has \
                 used is gone; seed the target anew and start a new run",
                dir.display(),
                plan.workload.name()
            )));
        }
        Some(before) => Some(go_on(before, plan)?),
        None => plan.results.as_deref().map(|results| open_results(results, plan, identity)).transpose()?,
    };
    let csv = plan.csv.as_deref().map(open_csv).transpose()?;
    let metrics = match plan.metrics_listen {
        Some(address) => Some(MetricsPage::serve(address, live.clone(), plan.asked()).await.map_err(Failure::Usage)?),
        None => None,
    };
    let target = target::open(&plan.target).map_err(Failure::Usage)?;
    let wire = Wire::of(plan.tls.as_ref()).map_err(|error| Failure::Usage(error.to_string()))?;
    let (monitor, mut seen) = look_at_target(plan, &target, identity).await.map_err(Failure::Usage)?;
    before.map_or(Ok(()), |before| is_the_same_target(before, &seen))?;
    let local = match plan.fleet {
        FleetChoice::Local(agents) => Some(LocalAgents::start(agents).await.map_err(Failure::Incomplete)?),
        FleetChoice::Remote(_) => None,
    };
    *reached = Reached::Agents;
    let Assembled { muster, dealt, checked } = assemble(plan, target, wire, identity, local.as_ref(), crew).await?;
    seen.applied.extend(checked);
    for (agent, words) in crew.fleet.boxes() {
        seen.applied.push(Applied { setting: format!("agent {agent}"), value: words, source: "agent".to_owned() });
    }
    let mut csv = csv.map(|file| start_csv(file, plan)).transpose()?;
    for trial in before.iter().flat_map(|before| &before.run.trials) {
        let row = csv.as_mut().map_or(Ok(()), |csv| csv.row(&trial.report));
        row.map_err(|error| Failure::Incomplete(format!("--csv: {error}")))?;
    }
    Ok(Ready { muster, local, monitor, csv, metrics, dealt, seen, saved })
}

fn go_on(before: &Before, plan: &RunPlan) -> Result<RunWriter, Failure> {
    let Before { dir, run, .. } = before;
    RunWriter::go_on(dir, run.whole_bytes, &run.histograms(plan.phases.warmup)).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::WouldBlock => "its process still runs".to_owned(),
            _ => error.to_string(),
        };
        Failure::Usage(format!("'{}' cannot be resumed: {why}", dir.display()))
    })
}

/// A target that was set up anew is another one: levels before and after would not be of one run.
fn is_the_same_target(before: &Before, seen: &Seen) -> Result<(), Failure> {
    let differences = differences(&before.run.header.target, &seen.configuration);
    if differences.is_empty() || before.ignore_config {
        return Ok(());
    }
    let words: Vec<String> =
        differences.iter().map(|d| format!("{} ({} before, {} now)", d.what, d.before, d.after)).collect();
    Err(Failure::Usage(format!(
        "'{}' cannot be resumed, the target is set up differently now: {}; --ignore-config goes on all the same",
        before.dir.display(),
        words.join("; ")
    )))
}

fn open_results(results: &Path, plan: &RunPlan, identity: &RunIdentity) -> Result<RunWriter, Failure> {
    RunWriter::create(results, identity.began(), plan.workload.name()).map_err(|error| {
        let dir = results.display();
        Failure::Usage(format!(
            "--results: got '{dir}', expected a directory that can be written, or none to save nothing: {error}"
        ))
    })
}

/// Opens without emptying: a run that never starts leaves the last one's rows alone.
fn open_csv(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    opened.map_err(|error| {
        Failure::Usage(format!(
            "--csv: got '{}', expected the path of a file that can be written: {error}",
            path.display()
        ))
    })
}

fn start_csv(file: File, plan: &RunPlan) -> Result<CsvReport<File>, Failure> {
    let workload = &plan.workload;
    let rows = if plan.goal == Goal::Soak { Rows::Minutes } else { Rows::Trials };
    let started = file
        .set_len(0)
        .map_err(Into::into)
        .and_then(|()| CsvReport::start(file, rows, &workload.series(), workload.observations()));
    started.map_err(|error| Failure::Incomplete(format!("--csv: {error}")))
}

/// Looks at everything that a run with this plan looks at before its first load, and at all that was seeded. What was found,
/// for people.
///
/// # Errors
/// What a run would be refused for, a line each.
pub async fn verify(plan: &RunPlan) -> Result<String, Failure> {
    let identity = RunIdentity::draw().map_err(Failure::Incomplete)?;
    let target = target::open(&plan.target).map_err(Failure::Usage)?;
    let plan = RunPlan { target: TargetChoice { preflight: Preflight::Check, ..plan.target.clone() }, ..plan.clone() };
    // What is there takes its time.
    let storage = storage_seen(&plan, Depth::Full, &Awaited::default()).await;
    let awaited = Awaited::default();
    let looked = in_time(&awaited, look_at_nats(&plan, &target, &identity, &awaited)).await;
    let (found, mut wrong) = match storage {
        Ok(found) => (found, Vec::new()),
        Err(wrong) => (Vec::new(), wrong),
    };
    let (_, seen) = match looked {
        Ok(looked) => looked,
        Err(words) => {
            wrong.extend(words);
            return Err(Failure::Usage(wrong.join("\nerror: ")));
        }
    };
    if !wrong.is_empty() {
        return Err(Failure::Usage(wrong.join("\nerror: ")));
    }
    let lines = seen.applied.iter().chain(&found).map(|line| format!("{:<28} {}\n", line.setting, line.value));
    Ok(lines.chain(["everything is as a run with these settings needs it\n".to_owned()]).collect())
}

/// What the databases hold, compared with what the plan needs.
async fn storage_seen(plan: &RunPlan, depth: Depth, awaited: &Awaited) -> Result<Vec<Applied>, Vec<String>> {
    let line = |setting: &str, value: String| Applied { setting: setting.into(), value, source: "target".into() };
    let Some(storage) = &plan.storage else {
        return Ok(vec![line("storage", "not checked: no --mongo-uri".to_owned())]);
    };
    let Some(spec) = Spec::of(&plan.workload, plan.seed, storage.bucket_hours) else {
        let words = format!("not checked: nothing is seeded for the workload {}", plan.workload.name());
        return Ok(vec![line("storage", words)]);
    };
    let run = plan.longest().saturating_add(plan.pauses());
    let verified = seed::verify::verify(&spec, storage, depth, run, awaited).await?;
    Ok(verified.found.into_iter().map(|(what, words)| line(&format!("storage {what}"), words)).collect())
}

/// What comes of looking, unless it takes too long: then who has not answered.
async fn in_time<T>(awaited: &Awaited, looked: impl Future<Output = Result<T, Vec<String>>>) -> Result<T, Vec<String>> {
    timeout(PREFLIGHT_LIMIT, looked).await.unwrap_or_else(|_| {
        Err(vec![format!(
            "preflight: no answer within {}s from {}: see that it is well, and that nothing is in between; `plimsoll verify` \
             gives databases all their time, --skip-preflight goes on without",
            PREFLIGHT_LIMIT.as_secs(),
            awaited.words()
        )])
    })
}

async fn look_at_target(plan: &RunPlan, target: &Target, identity: &RunIdentity) -> Result<(Monitor, Seen), String> {
    let awaited = Awaited::default();
    let storage = async {
        if plan.target.preflight == Preflight::Skip {
            return Ok(Vec::new());
        }
        let seen = storage_seen(plan, Depth::Quick, &awaited).await;
        seen.map_err(|wrong| wrong.into_iter().map(|words| format!("preflight: {words}")).collect::<Vec<_>>())
    };
    let both = async {
        let (storage, nats) = (pin!(storage), pin!(look_at_nats(plan, target, identity, &awaited)));
        // What the databases lack says most exactly what is missing: it comes first, whoever is faster.
        match select(storage, nats).await {
            Either::Left((stored, nats)) => Ok((stored?, nats.await?)),
            Either::Right((looked, storage)) => Ok((storage.await?, looked?)),
        }
    };
    let looked = in_time(&awaited, both).await.map_err(|wrong: Vec<String>| wrong.join("\nerror: "));
    let (stored, (monitor, mut seen)) = looked?;
    seen.applied.extend(stored);
    Ok((monitor, seen))
}

async fn look_at_nats(
    plan: &RunPlan,
    target: &Target,
    identity: &RunIdentity,
    awaited: &Awaited,
) -> Result<(Monitor, Seen), Vec<String>> {
    let place = redact_url(&target.url);
    let nats = awaited.from(format!("NATS at {place}"), Nats::connect(target, &identity.run_id)).await;
    let nats = nats.map_err(|words| vec![words])?;
    let monitor = match &plan.target.jsz_url {
        Some(url) => Monitor::Jsz(url.as_str().into()),
        None => Monitor::Api(nats.clone()),
    };
    let server = Applied { setting: "server".to_owned(), value: nats.server(), source: "target".to_owned() };
    let mut seen = match plan.target.preflight {
        Preflight::Check => {
            // Side by side: each takes a while where nobody answers.
            let rest =
                async { tokio::join!(seeded::services(plan, &nats), seeded::check(plan, &nats, identity.nonce)) };
            let (streams, (services, seeded)) = tokio::join!(
                awaited.from(format!("the streams of NATS at {place}"), preflight::check(plan, &nats, &monitor)),
                awaited.from(format!("the services at NATS at {place}"), rest)
            );
            all_there(streams, services, seeded)?
        }
        Preflight::Skip => Seen::default(),
    };
    seen.applied.insert(0, server);
    seen.configuration.insert("server".to_owned(), nats.server_configuration());
    Ok((monitor, seen))
}

/// What was seen, or everything that is missing. Who asks after memberships asks through the streams: where one of those is
/// missing, an answer that is tells nothing.
fn all_there(
    streams: Result<Seen, Vec<String>>,
    services: Result<Vec<Applied>, Vec<String>>,
    seeded: Result<(), String>,
) -> Result<Seen, Vec<String>> {
    match (streams, services, seeded) {
        (Ok(mut seen), Ok(services), Ok(())) => {
            seen.applied.extend(services);
            Ok(seen)
        }
        (streams, services, seeded) => {
            let seeded = seeded.err().filter(|_| streams.is_ok());
            let wrong = [streams.err(), services.err(), seeded.map(|words| vec![words])];
            Err(wrong.into_iter().flatten().flatten().collect())
        }
    }
}

/// What goes with a fleet that is ready, and what it said of itself.
struct Assembled {
    muster: Muster,
    dealt: Dealt,
    checked: Vec<Applied>,
}

/// The fleet, claimed, able to carry every step, prepared, and dealt for the first one.
async fn assemble(
    plan: &RunPlan,
    target: Target,
    wire: Wire,
    identity: &RunIdentity,
    local: Option<&LocalAgents>,
    crew: &mut Crew,
) -> Result<Assembled, Failure> {
    let agents = match (&plan.fleet, local) {
        (FleetChoice::Remote(sources), _) => Whereabouts::Elsewhere(sources.clone()),
        (FleetChoice::Local(_), agents) => {
            Whereabouts::Here(agents.map(|agents| agents.addresses.clone()).unwrap_or_default())
        }
    };
    let claim = Claim {
        coordinator: identity.coordinator.clone(),
        run_id: identity.run_id.clone(),
        lease_timeout: plan.lease_timeout,
        secrets: if target.is_secret() { Secrets::Carried } else { Secrets::None },
        wire: if local.is_some() { Wire::Clear } else { wire },
        ceilings: plan.ceilings.clone().map(Arc::new),
    };
    gather(&agents, plan.gather, &claim, plan.workload.name(), &mut crew.fleet).await.map_err(failure)?;
    let fleet = &crew.fleet;
    if plan.min_agents > fleet.len() {
        return Err(Failure::Usage(format!(
            "--min-agents: got '{}', expected at most the number of agents, which is {}",
            plan.min_agents,
            fleet.len()
        )));
    }
    fleet.check_length(plan.longest()).map_err(failure)?;
    let began = tokio::time::Instant::now();
    crew.is_together(plan);
    let checked = match &plan.find {
        Some(find) if !find.skip_self_check => self_check(crew, plan).await?,
        _ => Vec::new(),
    };
    split_steps(plan, &crew.fleet)?;
    let muster = Muster { agents, claim, plan: agent_plan(plan, target, identity), longest: plan.longest(), began };
    let troubles = crew.fleet.prepare(&muster.plan).await.err();
    go_on_without(crew, troubles.map_or(Vec::new(), Vec::from))?;
    let dealt = first_deal(crew, plan).await?;
    Ok(Assembled { muster, dealt, checked })
}

/// What the levels of a plan are given by.
fn levels_flag(plan: &RunPlan) -> &'static str {
    match (&plan.find, plan.goal) {
        (Some(_), _) => "--from",
        (None, Goal::MaxRps) => "--steps",
        (None, Goal::Soak) => "--rate",
    }
}

/// Each agent's share of every step, by position.
fn split_steps(plan: &RunPlan, fleet: &Fleet) -> Result<Vec<Vec<Rate>>, Failure> {
    let capacities = fleet.capacities();
    let shares: Vec<Vec<Rate>> = (plan.steps.rates().iter())
        .map(|&level| plan.split(level, &capacities))
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::Usage(format!("{}: {error}", levels_flag(plan))))?;
    shares.iter().try_for_each(|shares| users::check(plan, shares, &capacities)).map_err(Failure::Usage)?;
    Ok(shares)
}

/// Deals to everybody who is there, again without those who are lost in it.
async fn first_deal(crew: &mut Crew, plan: &RunPlan) -> Result<Dealt, Failure> {
    loop {
        let shares = split_steps(plan, &crew.fleet)?;
        // Where operations use something up it is dealt once, for all steps together.
        let dealt_for = match plan.workload.pool() {
            Some(_) => sums(&shares),
            None => shares.first().expect("a list of steps is never empty").clone(),
        };
        let dealt = crew.fleet.deal(&dealt_for, users::time_to_come(plan, &dealt_for), Patience::UntilWrong).await;
        let FleetDeal { summary, operations_left } = match dealt {
            Ok(dealt) => dealt,
            Err(troubles) => {
                go_on_without(crew, troubles.into())?;
                continue;
            }
        };
        let budget = operations_left.map(Budget::new);
        if let Some(short) = budget.as_ref().and_then(|budget| lasts(plan, &shares, budget)) {
            return Err(Failure::Usage(format!(
                "agent {} would make {} operations of the plan, and what it was dealt lasts for {}: lower {}, shorten {}, \
                 or take a larger --preset",
                crew.fleet.name(short.agent),
                short.needed,
                short.left,
                levels_flag(plan),
                if plan.goal == Goal::Soak { "--duration" } else { "--hold" },
            )));
        }
        return Ok(Dealt { shares: dealt_for, summary, budget });
    }
}

/// Goes on without those who are in trouble before the first load, where the plan allows it.
fn go_on_without(crew: &mut Crew, troubles: Vec<FleetError>) -> Result<(), Failure> {
    if let (Some(_), Some(trouble)) = (panics::first(), troubles.first()) {
        return Err(Failure::Incomplete(trouble.to_string()));
    }
    crew.go_on_without(troubles, |words| logs::say(format_args!("{words}"))).map_err(|(decides, because)| {
        let because = because.map_or(String::new(), |because| format!("; {because}"));
        let words = format!("{decides}{because}");
        if decides.is_usage() { Failure::Usage(words) } else { Failure::Incomplete(words) }
    })
}

/// What each agent is to do of all steps, as a rate.
fn sums(steps: &[Vec<Rate>]) -> Vec<Rate> {
    let agents = steps.first().map_or(0, Vec::len);
    let sum = |agent: usize| steps.iter().map(|shares| shares[agent].milli()).fold(0, u64::saturating_add);
    (0..agents).map(|agent| Rate::from_milli(sum(agent)).expect("a sum of shares is above zero")).collect()
}

/// The first agent whose part does not last for all steps; a search is told as it goes.
fn lasts(plan: &RunPlan, steps: &[Vec<Rate>], budget: &Budget) -> Option<Short> {
    if plan.find.is_some() {
        return None;
    }
    let Phases { warmup, hold, .. } = plan.phases;
    let needed = |agent: usize| steps.iter().map(|shares| operations(shares[agent], warmup, hold)).sum();
    let needed: Vec<u64> = (0..steps.first().map_or(0, Vec::len)).map(needed).collect();
    budget.short(&needed)
}

/// Bytes of the requests and replies of the self-check: about as small as any workload's, so that what awaits replies costs
/// no less. A publish that awaits none may; `--skip-self-check` is for whoever comes so far.
const NULL_BYTES: u32 = 64;

/// What the fleet can do by itself: against null targets, before it drives the service. Levels above it are refused.
async fn self_check(crew: &mut Crew, plan: &RunPlan) -> Result<Vec<Applied>, Failure> {
    let order =
        CalibrationOrder { request_bytes: NULL_BYTES, reply_bytes: NULL_BYTES, max_lateness: plan.max_lateness };
    let (found, troubles) = crew.fleet.calibrate(&order).await;
    go_on_without(crew, troubles)?;
    let line = |setting: String, value: String| Applied { setting, value, source: "null target".to_owned() };
    let whole = self_check_words(&found.iter().map(|(_, found)| found).collect::<Vec<_>>());
    logs::say(format_args!("self-check: {whole}"));
    let of_fleet = line("self-check".to_owned(), whole);
    if found.len() == 1 {
        return Ok(vec![of_fleet]);
    }
    let of_agent =
        |(name, found): &(String, Calibration)| line(format!("self-check {name}"), self_check_words(&[found]));
    Ok(std::iter::once(of_fleet).chain(found.iter().map(of_agent)).collect())
}

/// `at most 312000/s against null targets; at half of it lateness p50 45us, p99 1.2ms, 0 of 156000 released too late`.
fn self_check_words(found: &[&Calibration]) -> String {
    let mut lateness = LatencyHistogram::new();
    found.iter().for_each(|found| lateness.add(&found.lateness));
    let sum = |of: fn(&Calibration) -> u64| found.iter().map(|found| of(found)).sum::<u64>();
    let at =
        |part: f64| lateness.quantile_us(part).map_or("?".to_owned(), |us| words::duration(Duration::from_micros(us)));
    format!(
        "at most {}/s against {}; at half of it lateness p50 {}, p99 {}, {} of {} released too late or never",
        sum(|found| found.ceiling.milli()) / 1000,
        if found.len() == 1 { "a null target" } else { "null targets" },
        at(0.5),
        at(0.99),
        sum(|found| found.due - found.released),
        sum(|found| found.due),
    )
}

fn failure(error: FleetError) -> Failure {
    if error.is_usage() { Failure::Usage(error.to_string()) } else { Failure::Incomplete(error.to_string()) }
}

fn agent_plan(plan: &RunPlan, target: Target, identity: &RunIdentity) -> AgentPlan {
    AgentPlan {
        agent_index: 0,
        run_nonce: identity.nonce,
        seed: plan.seed,
        target,
        workload: plan.workload.clone(),
        request_timeout: plan.request_timeout,
        series: plan.slo.limits(),
        max_lateness: plan.max_lateness,
    }
}
