//! What the service has to keep, and how long an operation may take before it is given up.

use std::time::Duration;

use plimsoll_common::histogram::HIGHEST_US;
use plimsoll_common::plan::Workload;
use plimsoll_common::units::parse_duration;

use super::levels::Levels;
use super::{LONGEST_SOAK, SHORTEST_HOLD};
use crate::core::slo::{Quantile, Slo};
use crate::settings::error::SettingsError;
use crate::settings::values::{Values, list};

/// Latencies are told apart up to this.
pub(super) const HIGHEST_LIMIT: Duration = Duration::from_micros(HIGHEST_US);

pub(super) fn slo(values: &Values, workload: &Workload) -> Result<Slo, SettingsError> {
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
        let limit = parse_duration(limit).filter(|limit| is_limit(*limit)).ok_or_else(takes)?;
        slo.set_limit(series, quantile, limit).map_err(|error| overrides.error(error))?;
    }
    Ok(slo)
}

/// Holds that may begin a whole hold apart need not overlap. A search's shortest trials are as long as the shortest hold.
pub(super) fn skew_within_the_hold(values: &Values, max_skew: Duration, levels: &Levels) -> Result<(), SettingsError> {
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

pub(super) fn request_timeout(values: &Values, slo: &Slo, workload: &Workload) -> Result<Duration, SettingsError> {
    let timeout = values.duration("request-timeout", Duration::from_millis(1), Duration::from_secs(3600))?;
    let words = |length: Duration| humantime::format_duration(length).to_string();
    for (operation, own) in workload.timeouts() {
        let largest = slo.largest_limit().unwrap_or_default();
        if own > timeout || own <= largest {
            let value = values.required("request-timeout", "a time")?;
            return Err(value.error(format!(
                "the operation '{operation}' has a timeout of {}: expected at least that here, and it must be above the largest \
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
