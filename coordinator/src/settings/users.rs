//! The levels of a run of users.

use std::time::Duration;

use plimsoll_common::units::{Rate, Steps};
use plimsoll_common::workload::DailyWorkload;

use super::error::SettingsError;
use super::plan::Phases;
use super::values::Values;

/// Whole users, at most as many as the target was seeded with. Steps that nobody asked for end there.
///
/// # Errors
/// A step that is no number of users, or of more than there are.
pub fn steps(values: &Values, daily: &DailyWorkload) -> Result<Steps, SettingsError> {
    const TAKES: &str = "numbers of users such as 1k,2k,5k";
    let steps: Steps = values.parsed("steps", TAKES)?;
    let given = values.required("steps", TAKES)?;
    if let Some(part) = steps.rates().iter().find(|step| step.milli() % 1000 != 0) {
        return Err(given.error(format!("got {part}, takes whole users")));
    }
    let fits = |step: &Rate| step.milli() / 1000 <= u64::from(daily.users);
    if steps.rates().iter().all(fits) {
        return Ok(steps);
    }
    if given.strength() > 0 {
        let largest = steps.rates().last().map(Rate::to_string).unwrap_or_default();
        return Err(given.error(format!(
            "got {largest} users, and the target was seeded for {}: takes at most that, or a larger --users, which the \
             target must be seeded with",
            daily.users
        )));
    }
    let list: Vec<String> = steps.rates().iter().filter(|step| fits(step)).map(Rate::to_string).collect();
    let list = if list.is_empty() { daily.users.to_string() } else { list.join(",") };
    list.parse().map_err(|error| given.error(error))
}

/// Whether a day has room for a hold.
///
/// # Errors
/// It has not.
pub fn check_day(values: &Values, daily: &DailyWorkload, phases: Phases) -> Result<(), SettingsError> {
    let short = |day: &Duration| *day < phases.hold;
    match (daily.day.filter(short), values.optional("day")) {
        (Some(_), Some(given)) => {
            let hold = humantime::format_duration(phases.hold);
            Err(given.takes(format!("at least the --hold, which is {hold}: without it, the day is the hold")))
        }
        _ => Ok(()),
    }
}
