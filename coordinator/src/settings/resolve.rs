//! From layers of texts to a run's plan.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use plimsoll_common::histogram::HIGHEST_US;
use plimsoll_common::plan::{MAX_AGENTS, Workload, redact_url};
use plimsoll_common::units::{Rate, Steps};
use plimsoll_common::workload::{self, BadSetting, DailyWorkload, Given, SettingKind, is_subject_token};

use super::agents::{AgentSource, sources};
use super::commands::LoadCommand;
use super::error::SettingsError;
use super::layers::{Layers, Source, text_of_file};
use super::plan::{FindPlan, FleetChoice, GatherPlan, Goal, Phases, Preflight, RunPlan, Spread, TargetChoice};
use super::secure;
use super::storage::storage;
use super::table::{DefaultValue, STORAGE};
use super::users;
use super::values::{Values, duration, list, number};
use crate::core::backlog::DurableName;
use crate::core::budget::{Demand, Flags};
use crate::core::ceilings::Ceilings;
use crate::core::ramp::OnTrip;
use crate::core::roster::OnAgentLoss;
use crate::core::search::plan::Lengths;
use crate::core::slo::{Quantile, Slo};
use crate::report::Applied;

/// Steps longer than this are a mistake of units.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// A soak longer than this is no phase that agents take.
const LONGEST_SOAK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Latencies are told apart up to this.
const HIGHEST_LIMIT: Duration = Duration::from_micros(HIGHEST_US);
/// One backlog read each hold ÷ 30 would be more than the service should have to answer below this.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);
/// More agents than this in one process are no fleet but a mistake.
const MOST_LOCAL: u64 = 64;

/// Checks every setting once.
///
/// # Errors
/// The first value that its setting does not take, or two that do not fit together.
pub fn resolve(command: LoadCommand, layers: &Layers) -> Result<RunPlan, SettingsError> {
    let values = Values::new(layers);
    let workload = workload(command, layers, &values)?;
    let slo = slo(&values, &workload)?;
    let workload = users::for_find(&values, workload)?;
    let mut levels = match (command, workload.daily()) {
        (LoadCommand::Run, _) => soak(&values)?,
        // A check is one of what the ramp with these settings needs.
        (_, Some(daily)) => of_users(&values, daily)?,
        (_, None) => ramp(&values)?,
    };
    if let (Some(find), Some(_)) = (&mut levels.find, workload.pool()) {
        find.from = find.from.or_else(|| Rate::per_second(FIRST_OF_POOL));
    }
    skew_within_the_hold(&values, slo.max_skew, &levels)?;
    let fleet = fleet(&values)?;
    if command != LoadCommand::Verify {
        fits_the_pool(&workload, &levels, &slo)?;
    }
    Ok(RunPlan {
        goal: levels.goal,
        steps: levels.find.map_or(levels.steps, |find| Steps::from(find.first_level())),
        find: levels.find,
        phases: levels.phases,
        // People keep no intervals.
        spread: if workload.daily().is_some() { Spread::Poisson } else { spread(&values)? },
        request_timeout: request_timeout(&values, &slo, &workload)?,
        max_lateness: values.duration("max-lateness", Duration::from_millis(1), HIGHEST_LIMIT)?,
        max_in_flight: max_in_flight(&values)?,
        seed: values.number("seed", 0, u64::MAX)?,
        on_trip: levels.on_trip,
        trials: levels.trials,
        target: target(&values, &workload)?,
        storage: storage(&values)?,
        tls: secure::fleet(&values, &fleet)?,
        // Whoever asked for hours of one level does not want them again unasked.
        min_agents: if levels.goal == Goal::Soak { 1 } else { min_agents(&values)? },
        on_agent_loss: if levels.goal == Goal::Soak { OnAgentLoss::Abort } else { on_agent_loss(&values)? },
        gather: gather(&values, &fleet)?,
        ceilings: ceilings(&values, &fleet, &workload)?,
        lease_timeout: values.duration("lease-timeout", Duration::from_millis(500), Duration::from_secs(60))?,
        results: values.optional("results").filter(|dir| dir.text() != "none").map(|dir| PathBuf::from(dir.text())),
        csv: values.optional("csv").map(|path| PathBuf::from(path.text())),
        metrics_listen: metrics_listen(&values)?,
        applied: applied(command, layers, &fleet, &workload),
        settings: settings(command, layers, &fleet, &workload),
        fleet,
        workload,
        slo,
    })
}

/// What a command makes of the levels and their phases.
struct Levels {
    goal: Goal,
    find: Option<FindPlan>,
    steps: Steps,
    phases: Phases,
    on_trip: OnTrip,
    trials: NonZeroU32,
}

fn ramp(values: &Values) -> Result<Levels, SettingsError> {
    let trials = values.number("trials", 1, 3)?;
    Ok(Levels {
        goal: Goal::MaxRps,
        find: find(values)?,
        steps: values.parsed("steps", "rates such as 500,1k,2k")?,
        phases: phases(values)?,
        on_trip: if values.switch("no-stop-on-trip")? { OnTrip::GoOn } else { OnTrip::Stop },
        trials: u32::try_from(trials).ok().and_then(NonZeroU32::new).expect("from 1 to 3"),
    })
}

fn phases(values: &Values) -> Result<Phases, SettingsError> {
    Ok(Phases {
        warmup: values.duration("warmup", Duration::ZERO, LONGEST)?,
        hold: values.duration("hold", SHORTEST_HOLD, LONGEST)?,
        cooldown: values.duration("cooldown", Duration::ZERO, LONGEST)?,
    })
}

/// Users in place of rates.
fn of_users(values: &Values, daily: &DailyWorkload) -> Result<Levels, SettingsError> {
    let (find, phases) = (find(values)?, phases(values)?);
    if find.is_none() {
        users::check_day(values, daily, phases)?;
    }
    let trials = values.number("trials", 1, 3)?;
    Ok(Levels {
        goal: Goal::MaxRps,
        find: find.map(|find| users::begin(values, daily, find)).transpose()?,
        steps: if find.is_some() { users::everybody(daily) } else { users::steps(values, daily)? },
        phases,
        on_trip: if values.switch("no-stop-on-trip")? { OnTrip::GoOn } else { OnTrip::Stop },
        trials: u32::try_from(trials).ok().and_then(NonZeroU32::new).expect("from 1 to 3"),
    })
}

/// What only a search takes, and what it does not take.
const OF_FIND: [&str; 8] =
    ["from", "precision", "confidence", "max-time", "drain-limit", "frontier", "explain", "skip-self-check"];
const NOT_OF_FIND: [&str; 6] = ["steps", "warmup", "hold", "cooldown", "no-stop-on-trip", "trials"];

/// How to search, where that is asked for.
fn find(values: &Values) -> Result<Option<FindPlan>, SettingsError> {
    let asked = values.switch("find")?;
    let (idle, words) = if asked {
        (&NOT_OF_FIND[..], "--find chooses its own rates and lengths: takes --find or this")
    } else {
        (&OF_FIND[..], "only a search takes it: takes --find besides")
    };
    let given = idle.iter().filter_map(|name| values.optional(name)).find(|value| value.strength() > 0);
    if let Some(given) = given {
        return Err(given.error(words));
    }
    if !asked {
        return Ok(None);
    }
    let drain = if values.optional("drain-limit").is_some() { "drain-limit" } else { "recovery-limit" };
    Ok(Some(FindPlan {
        from: values.optional("from").map(|from| from.text().parse().map_err(|error| from.error(error))).transpose()?,
        precision: precision(values)?,
        confidence: confidence(values)?,
        max_time: values.duration("max-time", Duration::from_secs(10), LONGEST)?,
        drain_limit: values.duration(drain, SHORTEST_HOLD, LONGEST)?,
        frontier: values.switch("frontier")?,
        skip_self_check: values.switch("skip-self-check")?,
        explain: values.switch("explain")?,
    }))
}

fn precision(values: &Values) -> Result<f64, SettingsError> {
    const TAKES: &str = "a percentage from 1% to 50%, such as 5%";
    let value = values.required("precision", TAKES)?;
    let percent = value.text().trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    percent.filter(|percent| (1.0..=50.0).contains(percent)).map(|p| p / 100.0).ok_or_else(|| value.takes(TAKES))
}

fn confidence(values: &Values) -> Result<f64, SettingsError> {
    const TAKES: &str = "a number from 0.5 to 0.999, such as 0.95";
    let value = values.required("confidence", TAKES)?;
    let number = value.text().trim().parse::<f64>().ok();
    number.filter(|number| (0.5..=0.999).contains(number)).ok_or_else(|| value.takes(TAKES))
}

/// One step that is held once: whoever asked for hours does not want them again unasked.
fn soak(values: &Values) -> Result<Levels, SettingsError> {
    let rate: Rate = values.parsed("rate", "a rate such as 500 or 2k")?;
    Ok(Levels {
        goal: Goal::Soak,
        find: None,
        steps: Steps::from(rate),
        phases: Phases {
            warmup: values.duration("warmup", Duration::ZERO, LONGEST)?,
            hold: values.duration("duration", SHORTEST_HOLD, LONGEST_SOAK)?,
            cooldown: Duration::ZERO,
        },
        on_trip: OnTrip::Stop,
        trials: NonZeroU32::MIN,
    })
}

/// Where a search begins whose operations use something up: a probe would spend most of it.
const FIRST_OF_POOL: u64 = 100;

/// What operations use up has to last for all of them; for a search, which is told as it goes, for the first trial.
fn fits_the_pool(workload: &Workload, levels: &Levels, slo: &Slo) -> Result<(), SettingsError> {
    let Some(pool) = workload.pool() else { return Ok(()) };
    let Phases { warmup, hold, .. } = levels.phases;
    let first = |find: FindPlan| (Lengths::for_limit(slo.tightest_limit(), find.precision), [find.first_level()]);
    let lengths = levels.find.map(first);
    let demand = match (&lengths, levels.goal) {
        (Some((lengths, from)), _) => Demand {
            levels: from,
            warmup: lengths.settle,
            hold: lengths.climb,
            flags: Flags { levels: "from", hold: None },
        },
        (None, Goal::MaxRps) => {
            let flags = Flags { levels: "steps", hold: Some("hold") };
            Demand { levels: levels.steps.rates(), warmup, hold, flags }
        }
        (None, Goal::Soak) => {
            let flags = Flags { levels: "rate", hold: Some("duration") };
            Demand { levels: levels.steps.rates(), warmup, hold, flags }
        }
    };
    let place = format!("--{}", demand.flags.levels);
    demand.exceeds(&pool).map_or(Ok(()), |problem| Err(SettingsError::Value { place, problem }))
}

/// The workload that was named, of the settings that it takes.
fn workload(command: LoadCommand, layers: &Layers, values: &Values) -> Result<Workload, SettingsError> {
    let known = || workload::names().into_iter().filter(|name| command.drives(name)).collect::<Vec<_>>().join(", ");
    let entry = match layers.workload().filter(|entry| command.drives(entry.name)) {
        Some(entry) => entry,
        None => {
            let name = values.required("workload", "messages")?;
            let own = LoadCommand::ALL.into_iter().find(|other| other.workload() == Some(name.text()));
            let instead = own.map_or(String::new(), |own| format!("; its levels are users: `plimsoll {}`", own.name()));
            return Err(name.takes(format!("{}{instead}", known())));
        }
    };
    for setting in command.settings().filter(|setting| !setting.is_of(entry.name)) {
        if let Some(value) = values.optional(setting.name) {
            let takers = setting.workloads.join(", ");
            return Err(value.error(format!("the workload {} does not take it: only {takers}", entry.name)));
        }
    }
    let files = (entry.settings.iter().filter(|setting| setting.kind == SettingKind::File))
        .filter_map(|setting| {
            let saved = layers.saved_text(setting.name).cloned();
            let text = || Some(file_text(&values.optional(setting.name)?));
            Some((setting.name, saved.map(Ok).or_else(text)?))
        })
        .map(|(name, text)| Ok((name, text?)))
        .collect::<Result<Vec<(&str, String)>, SettingsError>>()?;
    let text = |name: &str| {
        let in_file = files.iter().find(|(file, _)| *file == name).map(|(_, text)| text.clone());
        in_file.or_else(|| layers.get(name).map(|given| given.value.clone()))
    };
    (entry.read)(&Given::new(&text)).map_err(|error| match error {
        BadSetting::Missing { name, takes } => values.missing(name, takes),
        BadSetting::Value { name, problem } if entry.setting(name).is_some_and(|s| s.kind == SettingKind::File) => {
            let path = values.optional(name).map(|value| value.text().to_owned()).unwrap_or_default();
            SettingsError::Value { place: format!("--{name}: {path}"), problem }
        }
        BadSetting::Value { name, problem } => match values.optional(name) {
            Some(value) => value.error(problem),
            None => SettingsError::Value { place: format!("--{name}"), problem },
        },
    })
}

/// More text than this is no description of anything.
const MOST_FILE_BYTES: u64 = 1024 * 1024;

/// The text of the file that a setting names.
fn file_text(value: &super::values::Named) -> Result<String, SettingsError> {
    let error = |problem: String| value.takes(format!("the path of a text file: {problem}"));
    let bytes = std::fs::metadata(value.text()).map_err(|cause| error(cause.to_string()))?.len();
    if bytes > MOST_FILE_BYTES {
        return Err(error(format!("it has {bytes} bytes, at most {MOST_FILE_BYTES} are read")));
    }
    std::fs::read_to_string(value.text()).map_err(|cause| error(cause.to_string()))
}

fn slo(values: &Values, workload: &Workload) -> Result<Slo, SettingsError> {
    let (p95, p99) = (limit(values, "slo-p95")?, limit(values, "slo-p99")?);
    let mut slo = Slo {
        series: Slo::for_every_series(&workload.series(), p95, p99),
        error_rate: values.parsed("slo-error-rate", "a number from 0 to 1")?,
        pending_growth: values.number("slo-pending-growth", 0, 1 << 40)?,
        rate_tolerance: values.parsed("rate-tolerance", "a number from 0 to 1")?,
        max_skew: values.duration("max-skew", Duration::from_micros(1), LONGEST_SOAK)?,
        may_grow: workload.durables().into_iter().filter(|durable| workload.may_grow(durable)).collect(),
    };
    for series in &mut slo.series {
        series.part_ppm = workload.part_ppm(&series.series);
        series.makes = workload.messages(&series.series).into_iter().collect();
        if let Some((p95, p99)) = workload.limits(&series.series) {
            (series.p95, series.p99) = (p95, p99);
        }
    }
    let Some(overrides) = values.optional("slo") else { return Ok(slo) };
    const TAKES: &str = "SERIES:PERCENTILE=TIME, such as E2:p99=400ms";
    for entry in list(&overrides, TAKES)? {
        let takes = || overrides.takes(TAKES);
        let (series, gate) = entry.split_once(':').ok_or_else(takes)?;
        let (quantile, limit) = gate.split_once('=').ok_or_else(takes)?;
        let quantile: Quantile = quantile.parse().map_err(|error| overrides.error(error))?;
        let limit = duration(limit).filter(|limit| is_limit(*limit)).ok_or_else(takes)?;
        slo.set_limit(series, quantile, limit).map_err(|error| overrides.error(error))?;
    }
    Ok(slo)
}

/// Holds that may begin a whole hold apart need not overlap. A search's shortest trials are as long as the shortest hold.
fn skew_within_the_hold(values: &Values, max_skew: Duration, levels: &Levels) -> Result<(), SettingsError> {
    let (hold, words) = match levels.find {
        Some(_) => (SHORTEST_HOLD, "the shortest trial of --find"),
        None => (levels.phases.hold, "the hold"),
    };
    if max_skew <= hold {
        return Ok(());
    }
    let hold = humantime::format_duration(hold);
    let given = values.required("max-skew", "a time")?;
    Err(given.takes(format!("at most {words}, which is {hold}: holds further apart do not overlap")))
}

fn is_limit(limit: Duration) -> bool {
    !limit.is_zero() && limit <= HIGHEST_LIMIT
}

/// A limit, or `none`.
fn limit(values: &Values, name: &'static str) -> Result<Option<Duration>, SettingsError> {
    match values.optional(name) {
        Some(value) if value.text() == "none" => Ok(None),
        _ => values.duration(name, Duration::from_micros(1), HIGHEST_LIMIT).map(Some),
    }
}

fn spread(values: &Values) -> Result<Spread, SettingsError> {
    let value = values.required("arrivals", "poisson or uniform")?;
    match value.text() {
        "poisson" => Ok(Spread::Poisson),
        "uniform" => Ok(Spread::Uniform),
        _ => Err(value.takes("poisson or uniform")),
    }
}

fn request_timeout(values: &Values, slo: &Slo, workload: &Workload) -> Result<Duration, SettingsError> {
    let timeout = values.duration("request-timeout", Duration::from_millis(1), Duration::from_secs(3600))?;
    let words = |length: Duration| humantime::format_duration(length).to_string();
    for (operation, own) in workload.timeouts() {
        let largest = slo.largest_limit().unwrap_or_default();
        if own > timeout || own <= largest {
            let value = values.required("request-timeout", "a time")?;
            return Err(value.error(format!(
                "the operation '{operation}' has a timeout of {}: takes at least that here, and it must be above the largest \
                 limit, which is {}",
                words(own),
                words(largest)
            )));
        }
    }
    match slo.largest_limit() {
        Some(largest) if timeout <= largest => {
            let largest = humantime::format_duration(largest);
            let value = values.required("request-timeout", "a time")?;
            Err(value.takes(format!(
                "a time above the largest limit, which is {largest}: what is given up must be slower than every limit"
            )))
        }
        _ => Ok(timeout),
    }
}

fn max_in_flight(values: &Values) -> Result<Option<NonZeroU64>, SettingsError> {
    let cap = values.optional("max-in-flight").map(|value| number(&value, 1, 1 << 32)).transpose()?;
    Ok(cap.and_then(NonZeroU64::new))
}

fn target(values: &Values, workload: &Workload) -> Result<TargetChoice, SettingsError> {
    const TAKES: &str = "addresses such as nats://127.0.0.1:4222, separated by commas";
    let url = values.required("nats-url", "an address such as nats://127.0.0.1:4222")?;
    for address in list(&url, TAKES)? {
        if address.parse::<async_nats::ServerAddr>().is_err() {
            return Err(match may_be_a_login(address) {
                true => url.error(format!(
                    "it takes {TAKES}; what was given has no host behind a name and a word, and is not shown"
                )),
                false => url.takes(TAKES),
            });
        }
    }
    Ok(TargetChoice {
        nats_url: url.text().to_owned(),
        login: secure::login(values)?,
        tls_ca: values.optional("nats-tls-ca").map(|path| PathBuf::from(path.text())),
        tls_identity: secure::identity(values)?,
        durables: durables(values, workload)?,
        jsz_url: jsz_url(values)?,
        recovery_limit: values.duration("recovery-limit", SHORTEST_HOLD, LONGEST)?,
        preflight: if values.switch("skip-preflight")? { Preflight::Skip } else { Preflight::Check },
    })
}

/// Whether an address without a host may have a password where others have their port.
fn may_be_a_login(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let port = rest.rsplit_once(']').map_or(rest, |(_, rest)| rest).split_once(':');
    !rest.contains('@') && port.is_some_and(|(_, port)| port.bytes().any(|byte| !byte.is_ascii_digit()))
}

/// Plain names replace the workload's, names with a plus add to them.
fn durables(values: &Values, workload: &Workload) -> Result<Vec<DurableName>, SettingsError> {
    const TAKES: &str = "names of durables, +NAME to add one, STREAM/NAME for another stream, or none";
    let own = || workload.durables().iter().filter_map(|name| durable(name, workload)).collect();
    let Some(value) = values.optional("durable") else { return Ok(own()) };
    let names = list(&value, TAKES)?;
    if names == ["none"] {
        return Ok(Vec::new());
    }
    let mut durables: Vec<DurableName> =
        if names.iter().all(|name| name.starts_with('+')) { own() } else { Vec::new() };
    for name in names {
        let named = durable(name.strip_prefix('+').unwrap_or(name), workload);
        let durable = named.ok_or_else(|| value.takes(format!("STREAM/NAME with the workload {}", workload.name())))?;
        if !is_subject_token(&durable.stream) || !is_subject_token(&durable.durable) || name == "none" {
            return Err(value.takes(TAKES));
        }
        if !durables.contains(&durable) {
            durables.push(durable);
        }
    }
    Ok(durables)
}

/// A durable of the workload's own stream, unless its stream is named; `None`: it has to be.
fn durable(name: &str, workload: &Workload) -> Option<DurableName> {
    let (stream, durable) = match name.split_once('/') {
        Some((stream, durable)) => (stream.to_owned(), durable),
        None => (workload.stream_of(name)?, name),
    };
    Some(DurableName { stream, durable: durable.to_owned() })
}

fn jsz_url(values: &Values) -> Result<Option<String>, SettingsError> {
    let Some(value) = values.optional("jsz-url") else { return Ok(None) };
    let url = value.text();
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).filter(|host| !host.is_empty());
    let Some(host) = host else { return Err(value.takes("a URL such as http://127.0.0.1:8222/jsz")) };
    let has_path = host.split_once('/').is_some_and(|(_, path)| !path.is_empty());
    Ok(Some(if has_path { url.to_owned() } else { format!("{}/jsz", url.trim_end_matches('/')) }))
}

/// Agents at addresses, or in this process: the stronger of the two flags, and never both.
fn fleet(values: &Values) -> Result<FleetChoice, SettingsError> {
    let (agents, local) = (values.optional("agents"), values.optional("local"));
    match (&agents, &local) {
        (Some(agents), Some(local)) if agents.strength() == local.strength() => {
            Err(local.error("agents in this process and --agents exclude each other: takes one of the two"))
        }
        (Some(agents), other) if other.as_ref().is_none_or(|local| agents.strength() > local.strength()) => {
            remote(agents).map(FleetChoice::Remote)
        }
        (_, Some(local)) => Ok(FleetChoice::Local(number(local, 1, MOST_LOCAL)? as usize)),
        _ => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Ok(FleetChoice::Local(cores.saturating_sub(1).clamp(1, MOST_LOCAL as usize)))
        }
    }
}

fn on_agent_loss(values: &Values) -> Result<OnAgentLoss, SettingsError> {
    let value = values.required("on-agent-loss", "retry or abort")?;
    match value.text() {
        "retry" => Ok(OnAgentLoss::Retry),
        "abort" => Ok(OnAgentLoss::Abort),
        _ => Err(value.takes("retry or abort")),
    }
}

fn min_agents(values: &Values) -> Result<usize, SettingsError> {
    Ok(values.number("min-agents", 1, MAX_AGENTS as u64)? as usize)
}

fn remote(value: &super::values::Named) -> Result<Vec<AgentSource>, SettingsError> {
    sources(value.text()).map_err(|problem| value.error(problem))
}

/// How long to wait for how many agents, where that is asked for.
fn gather(values: &Values, fleet: &FleetChoice) -> Result<Option<GatherPlan>, SettingsError> {
    let (count, timeout) = (values.optional("wait-agents"), values.optional("wait-timeout"));
    let Some(count) = count else {
        return match timeout.filter(|timeout| timeout.strength() > 0) {
            Some(timeout) => Err(timeout.error("it says for how long to wait: takes --wait-agents besides")),
            None => Ok(None),
        };
    };
    let agents = number(&count, 1, MAX_AGENTS as u64)? as usize;
    let named = match fleet {
        FleetChoice::Local(_) => {
            return Err(count.error("agents in this process are there at once: takes --agents besides"));
        }
        FleetChoice::Remote(sources) if sources.iter().any(|source| matches!(source, AgentSource::Dns { .. })) => None,
        FleetChoice::Remote(sources) => Some(sources.len()),
    };
    if let Some(named) = named.filter(|&named| named < agents) {
        return Err(count.takes(format!("at most the number of agents that --agents names, which is {named}")));
    }
    let timeout = values.duration("wait-timeout", Duration::from_secs(1), LONGEST)?;
    Ok(Some(GatherPlan { agents, timeout }))
}

fn ceilings(values: &Values, fleet: &FleetChoice, workload: &Workload) -> Result<Option<Ceilings>, SettingsError> {
    let Some(file) = values.optional("ceilings") else { return Ok(None) };
    if matches!(fleet, FleetChoice::Local(_)) {
        // A variable or plan file may be made for other runs; a flag is meant.
        return match file.strength() == Source::Flag.strength() {
            true => Err(file.error("agents in this process have no ceilings of their own: takes --agents besides")),
            false => Ok(None),
        };
    }
    let takes = |why: String| {
        let path = file.text();
        file.error(format!("got '{path}', takes the path of a file that `plimsoll calibrate` wrote: {why}"))
    };
    let text = std::fs::read_to_string(file.text()).map_err(|error| takes(error.to_string()))?;
    let ceilings = Ceilings::parse(&text).map_err(takes)?;
    if ceilings.workload != workload.name() {
        return Err(takes(format!(
            "its ceilings are for {}, and this run is of {}",
            ceilings.workload,
            workload.name()
        )));
    }
    Ok(Some(ceilings))
}

fn metrics_listen(values: &Values) -> Result<Option<SocketAddr>, SettingsError> {
    let Some(value) = values.optional("metrics-listen") else { return Ok(None) };
    let address = value.text().parse().map_err(|_| value.takes("an address and a port, such as 127.0.0.1:9400"))?;
    Ok(Some(address))
}

/// Where no database is named, what else is said of databases says nothing.
fn says_something(setting: &super::table::Setting, layers: &Layers) -> bool {
    setting.heading != STORAGE || layers.get("mongo-uri").is_some()
}

/// Every setting that has a value. A fleet that was made out from this machine is named: another one would make another.
fn settings(
    command: LoadCommand,
    layers: &Layers,
    fleet: &FleetChoice,
    workload: &Workload,
) -> BTreeMap<String, String> {
    let of_run = command.settings().filter(|setting| setting.in_plan_file() && says_something(setting, layers));
    let row =
        |setting: &super::table::Setting| Some((setting.name.to_owned(), redact_url(&layers.get(setting.name)?.value)));
    let mut settings: BTreeMap<String, String> = of_run.filter_map(row).collect();
    // A file may be changed before the run is resumed or compared.
    let is_file = |name: &str| workload.entry().setting(name).is_some_and(|setting| setting.kind == SettingKind::File);
    let files = workload.settings().into_iter().filter(|(name, _)| is_file(name));
    settings.extend(files.map(|(name, text)| (text_of_file(name), text)));
    match fleet {
        FleetChoice::Remote(_) => settings.remove("local"),
        FleetChoice::Local(agents) => {
            settings.remove("agents");
            settings.insert("local".to_owned(), agents.to_string())
        }
    };
    settings
}

/// Every setting that says something, in the table's order, secrets hidden.
fn applied(command: LoadCommand, layers: &Layers, fleet: &FleetChoice, workload: &Workload) -> Vec<Applied> {
    let other_fleet = match fleet {
        FleetChoice::Remote(_) => "local",
        FleetChoice::Local(_) => "agents",
    };
    let finds = layers.get("find").is_some_and(|given| matches!(given.value.as_str(), "true" | "1"));
    let idle: &[&str] = if finds { &NOT_OF_FIND } else { &OF_FIND };
    let applies = |setting: &&super::table::Setting| {
        let is_idle = setting.name == other_fleet || idle.contains(&setting.name);
        setting.in_plan_file() && !is_idle && says_something(setting, layers)
    };
    let in_report = command.settings().filter(applies).filter(|setting| finds || setting.name != "find");
    let row = |setting: &super::table::Setting| {
        let derived = setting.workloads.is_empty().then_some(setting.default);
        let (value, source) = match (layers.get(setting.name), derived) {
            (Some(given), _) => (redact_url(&given.value), given.source.to_string()),
            (None, None) if finds => (users::of_find(workload, setting.name)?, "default of --find".to_owned()),
            (None, Some(DefaultValue::Derived(words))) => (words.to_owned(), "default".to_owned()),
            (None, _) => return None,
        };
        Some(Applied { setting: setting.name.to_owned(), value, source })
    };
    in_report.filter_map(row).collect()
}
