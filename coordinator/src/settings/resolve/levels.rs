//! Which levels are held, and how: the steps of a ramp, the one step of a soak, or a search.

use std::num::NonZeroU32;
use std::time::Duration;

use plimsoll_common::plan::Workload;
use plimsoll_common::units::{Rate, Steps};
use plimsoll_common::workload::DailyWorkload;

use super::{LONGEST, LONGEST_SOAK, SHORTEST_HOLD};
use crate::core::budget::{Demand, Flags};
use crate::core::ramp::OnTrip;
use crate::core::search::plan::Lengths;
use crate::core::slo::Slo;
use crate::settings::commands::LoadCommand;
use crate::settings::error::SettingsError;
use crate::settings::plan::{FindPlan, Goal, Phases};
use crate::settings::users;
use crate::settings::values::Values;

/// What a command makes of the levels and their phases.
pub(super) struct Levels {
    pub goal: Goal,
    pub find: Option<FindPlan>,
    pub steps: Steps,
    pub phases: Phases,
    pub on_trip: OnTrip,
    pub trials: NonZeroU32,
}

/// What the command makes of these settings.
pub(super) fn levels(command: LoadCommand, values: &Values, workload: &Workload) -> Result<Levels, SettingsError> {
    let mut levels = match (command, workload.daily()) {
        (LoadCommand::Run, _) => soak(values)?,
        // A check is one of what the ramp with these settings needs.
        (_, Some(daily)) => of_users(values, daily)?,
        (_, None) => ramp(values)?,
    };
    if let (Some(find), Some(_)) = (&mut levels.find, workload.pool()) {
        find.from = find.from.or_else(|| Rate::per_second(FIRST_OF_POOL));
    }
    Ok(levels)
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
pub(super) const OF_FIND: [&str; 8] =
    ["from", "precision", "confidence", "max-time", "drain-limit", "frontier", "explain", "skip-self-check"];
pub(super) const NOT_OF_FIND: [&str; 6] = ["steps", "warmup", "hold", "cooldown", "no-stop-on-trip", "trials"];

/// How to search, where that is asked for.
fn find(values: &Values) -> Result<Option<FindPlan>, SettingsError> {
    let asked = values.switch("find")?;
    let (idle, words) = if asked {
        (&NOT_OF_FIND[..], "--find chooses its own rates and lengths: give either --find or this")
    } else {
        (&OF_FIND[..], "only a search uses it: add --find")
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
pub(super) fn fits_the_pool(workload: &Workload, levels: &Levels, slo: &Slo) -> Result<(), SettingsError> {
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
