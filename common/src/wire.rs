//! Plan and snapshots to and from the protocol's messages. Every message is checked once, here, on arrival; generated
//! types go no further.

mod calibration;

use std::time::Duration;

use plimsoll_proto::v1;

use crate::histogram::{HIGHEST_US, HistogramError, LatencyHistogram};
use crate::plan::{
    AgentPlan, Arrivals, BLOCK, Credentials, Login, MAX_AGENTS, RUN_NONCE_LIMIT, SeriesLimits, StepOrder, Target,
    TlsIdentity, TrialId,
};
use crate::snapshot::{
    BlockDelta, Counters, Failed, Health, Observed, SeriesCounts, SeriesHistograms, Snapshot, Stall, StepEnd,
    StepTotals, Strays, UsersOnline,
};
use crate::units::Rate;
pub use crate::workload::is_subject_token;
use crate::workload::{BadSetting, Given, Workload};

/// The largest message that either side accepts: a snapshot of 64 series with full histograms stays below 4 MiB.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// No workload has more series than this.
const MAX_SERIES: usize = 64;
/// No workload observes more than this beside its series.
const MAX_OBSERVED: usize = 64;
/// No series is judged against more limits than this.
const MAX_LIMITS: usize = 16;
/// A snapshot touches the blocks of one request timeout at most; a timeout is an hour at most.
const MAX_BLOCKS: usize = 8192;
/// Phases longer than this are a mistake of units.
const MAX_PHASE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Operations that one box can have open at once: at some 100 bytes each this is already beyond its memory.
const MAX_IN_FLIGHT: u64 = 1 << 32;
/// Client errors per snapshot, and bytes of each, that are kept.
const MAX_CLIENT_ERRORS: usize = 8;
const MAX_TEXT: usize = 512;
/// Files of credentials and certificates are some kilobytes.
const MAX_SECRET: usize = 1024 * 1024;

/// Why a message makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field or `oneof` that must be set is not.
    #[error("{message}.{field} is not set")]
    Missing {
        /// The message's type.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// A value outside its range.
    #[error("{message}.{field} is {got}, expected {expected}")]
    Range {
        /// The message's type.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// What came.
        got: String,
        /// What fits.
        expected: &'static str,
    },
    /// Settings that make no workload.
    #[error("Prepare.workload_settings: {0}")]
    Workload(BadSetting),
    /// A histogram that cannot be read.
    #[error("{message}.{field}: {error}")]
    Histogram {
        /// The message's type.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        error: HistogramError,
    },
}

fn missing(message: &'static str, field: &'static str) -> WireError {
    WireError::Missing { message, field }
}

fn range(message: &'static str, field: &'static str, got: impl ToString, expected: &'static str) -> WireError {
    WireError::Range { message, field, got: got.to_string(), expected }
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

fn phase(message: &'static str, field: &'static str, us: u64) -> Result<Duration, WireError> {
    let length = Duration::from_micros(us);
    if length > MAX_PHASE {
        return Err(range(message, field, us, "at most a week"));
    }
    Ok(length)
}

impl From<&AgentPlan> for v1::Prepare {
    fn from(plan: &AgentPlan) -> Self {
        Self {
            agent_index: u32::from(plan.agent_index),
            run_nonce: plan.run_nonce,
            seed: plan.seed,
            target: Some((&plan.target).into()),
            workload: plan.workload.name().to_owned(),
            workload_settings: plan
                .workload
                .settings()
                .into_iter()
                .map(|(name, value)| v1::WorkloadSetting { name: name.to_owned(), value })
                .collect(),
            request_timeout_us: micros(plan.request_timeout),
            series: plan
                .series
                .iter()
                .map(|limits| v1::SeriesLimits { series: limits.series.clone(), limit_us: limits.limits_us.clone() })
                .collect(),
            max_lateness_us: micros(plan.max_lateness),
        }
    }
}

impl TryFrom<v1::Prepare> for AgentPlan {
    type Error = WireError;

    fn try_from(message: v1::Prepare) -> Result<Self, WireError> {
        const M: &str = "Prepare";
        let agent_index = u16::try_from(message.agent_index)
            .ok()
            .filter(|&index| usize::from(index) < MAX_AGENTS)
            .ok_or_else(|| range(M, "agent_index", message.agent_index, "below 4096"))?;
        if message.run_nonce >= RUN_NONCE_LIMIT {
            return Err(range(M, "run_nonce", message.run_nonce, "below 2^39"));
        }
        let target = message.target.ok_or(missing(M, "target"))?;
        let settings = message.workload_settings;
        let value = |name: &str| settings.iter().find(|setting| setting.name == name).map(|found| found.value.clone());
        let workload = Workload::read(&message.workload, &Given::new(&value)).map_err(WireError::Workload)?;
        let series: Vec<SeriesLimits> =
            message.series.into_iter().map(SeriesLimits::try_from).collect::<Result<_, _>>()?;
        if !series.iter().map(|limits| &limits.series).eq(&workload.series()) {
            return Err(range(M, "series", format!("{series:?}"), "the workload's series in its order"));
        }
        let request_timeout = phase(M, "request_timeout_us", message.request_timeout_us)?;
        let largest = series.iter().filter_map(|limits| limits.limits_us.last()).max().copied().unwrap_or(0);
        if message.request_timeout_us <= largest || request_timeout > Duration::from_secs(3600) {
            return Err(range(
                M,
                "request_timeout_us",
                message.request_timeout_us,
                "above the largest limit, at most 1 h",
            ));
        }
        let max_lateness = phase(M, "max_lateness_us", message.max_lateness_us)?;
        let target = Target::try_from(target)?;
        let (run_nonce, seed) = (message.run_nonce, message.seed);
        Ok(Self { agent_index, run_nonce, seed, target, workload, request_timeout, series, max_lateness })
    }
}

impl From<&Target> for v1::Target {
    fn from(target: &Target) -> Self {
        let mut message = Self { url: target.url.clone(), ..Self::default() };
        let Some(Credentials { login, tls_ca, tls_identity }) = &target.credentials else { return message };
        match login.clone() {
            None => {}
            Some(Login::CredentialsFile(text)) => message.credentials = Some(text),
            Some(Login::NkeySeed(seed)) => message.nkey = Some(seed),
            Some(Login::Token(token)) => message.token = Some(token),
        }
        message.tls_ca.clone_from(tls_ca);
        message.tls_cert = tls_identity.as_ref().map(|identity| identity.certificates.clone());
        message.tls_key = tls_identity.as_ref().map(|identity| identity.key.clone());
        message
    }
}

impl TryFrom<v1::Target> for Target {
    type Error = WireError;

    /// Errors never repeat a value: it may be a secret.
    fn try_from(message: v1::Target) -> Result<Self, WireError> {
        const M: &str = "Target";
        let v1::Target { url, credentials, nkey, token, tls_ca, tls_cert, tls_key } = message;
        let texts = [&credentials, &nkey, &token, &tls_ca, &tls_cert, &tls_key];
        if url.len() > MAX_SECRET || texts.into_iter().flatten().any(|text| text.len() > MAX_SECRET) {
            return Err(range(M, "url or credentials", "longer", "at most 1 MiB each"));
        }
        let login = match (credentials, nkey, token) {
            (None, None, None) => None,
            (Some(text), None, None) => Some(Login::CredentialsFile(text)),
            (None, Some(seed), None) => Some(Login::NkeySeed(seed)),
            (None, None, Some(token)) => Some(Login::Token(token)),
            _ => return Err(range(M, "credentials", "set beside nkey or token", "one of the three")),
        };
        let tls_identity = match (tls_cert, tls_key) {
            (None, None) => None,
            (Some(certificates), Some(key)) => Some(TlsIdentity { certificates, key }),
            (None, Some(_)) => return Err(missing(M, "tls_cert")),
            (Some(_), None) => return Err(missing(M, "tls_key")),
        };
        let credentials = Credentials { login, tls_ca, tls_identity };
        let credentials = (credentials != Credentials::default()).then_some(credentials);
        Ok(Self { url, credentials })
    }
}

impl TryFrom<v1::SeriesLimits> for SeriesLimits {
    type Error = WireError;

    fn try_from(message: v1::SeriesLimits) -> Result<Self, WireError> {
        const M: &str = "SeriesLimits";
        let limits_us = message.limit_us;
        let ascending = limits_us.windows(2).all(|pair| pair[0] < pair[1]);
        let in_range = limits_us.iter().all(|&limit| (1..=HIGHEST_US).contains(&limit));
        if limits_us.len() > MAX_LIMITS || !ascending || !in_range {
            return Err(range(M, "limit_us", format!("{limits_us:?}"), "at most 16, strictly ascending, 1 us to 60 s"));
        }
        Ok(Self { series: message.series, limits_us })
    }
}

impl From<&StepOrder> for v1::StartStep {
    fn from(order: &StepOrder) -> Self {
        let arrivals = match order.arrivals {
            Arrivals::Uniform { phase_ppm } => v1::start_step::Arrivals::Uniform(v1::Uniform { phase_ppm }),
            Arrivals::Poisson => v1::start_step::Arrivals::Poisson(v1::Poisson {}),
        };
        Self {
            step: order.trial.step,
            trial: order.trial.trial,
            share_milli_per_s: order.share.milli(),
            start_boottime_ns: order.start_boottime_ns,
            warmup_us: micros(order.warmup),
            hold_us: micros(order.hold),
            arrivals: Some(arrivals),
            max_in_flight: order.max_in_flight,
        }
    }
}

impl TryFrom<v1::StartStep> for StepOrder {
    type Error = WireError;

    fn try_from(message: v1::StartStep) -> Result<Self, WireError> {
        const M: &str = "StartStep";
        let share = Rate::from_milli(message.share_milli_per_s)
            .ok_or_else(|| range(M, "share_milli_per_s", message.share_milli_per_s, "1 to 10^12"))?;
        let hold = phase(M, "hold_us", message.hold_us)?;
        if hold < BLOCK {
            return Err(range(M, "hold_us", message.hold_us, "at least 500000"));
        }
        let arrivals = match message.arrivals.ok_or(missing(M, "arrivals"))? {
            v1::start_step::Arrivals::Uniform(uniform) if uniform.phase_ppm < 1_000_000 => {
                Arrivals::Uniform { phase_ppm: uniform.phase_ppm }
            }
            v1::start_step::Arrivals::Uniform(uniform) => {
                return Err(range("Uniform", "phase_ppm", uniform.phase_ppm, "below 1000000"));
            }
            v1::start_step::Arrivals::Poisson(_) => Arrivals::Poisson,
        };
        if !(1..=MAX_IN_FLIGHT).contains(&message.max_in_flight) {
            return Err(range(M, "max_in_flight", message.max_in_flight, "1 to 2^32"));
        }
        Ok(Self {
            trial: TrialId { step: message.step, trial: message.trial },
            share,
            start_boottime_ns: message.start_boottime_ns,
            warmup: phase(M, "warmup_us", message.warmup_us)?,
            hold,
            arrivals,
            max_in_flight: message.max_in_flight,
        })
    }
}

impl From<&Counters> for v1::Counters {
    fn from(counters: &Counters) -> Self {
        let Counters { due, attempted, sent, saturated, underrun, completed, failed, lost, failed_anyway } = *counters;
        Self {
            due,
            attempted,
            sent,
            saturated,
            underrun,
            completed,
            failed_timeout: failed.timeout,
            failed_refused: failed.refused,
            failed_bad_reply: failed.bad_reply,
            failed_publish: failed.publish,
            lost,
            failed_anyway,
            failed_no_responders: failed.no_responders,
        }
    }
}

/// A counter beyond this would overflow when a fleet's are added up.
const MAX_COUNT: u64 = 1 << 48;

fn count(message: &'static str, field: &'static str, value: u64) -> Result<u64, WireError> {
    if value > MAX_COUNT {
        return Err(range(message, field, value, "at most 2^48"));
    }
    Ok(value)
}

impl TryFrom<v1::Counters> for Counters {
    type Error = WireError;

    fn try_from(m: v1::Counters) -> Result<Self, WireError> {
        const M: &str = "Counters";
        let failed = Failed {
            timeout: count(M, "failed_timeout", m.failed_timeout)?,
            refused: count(M, "failed_refused", m.failed_refused)?,
            bad_reply: count(M, "failed_bad_reply", m.failed_bad_reply)?,
            publish: count(M, "failed_publish", m.failed_publish)?,
            no_responders: count(M, "failed_no_responders", m.failed_no_responders)?,
        };
        Ok(Self {
            due: count(M, "due", m.due)?,
            attempted: count(M, "attempted", m.attempted)?,
            sent: count(M, "sent", m.sent)?,
            saturated: count(M, "saturated", m.saturated)?,
            underrun: count(M, "underrun", m.underrun)?,
            completed: count(M, "completed", m.completed)?,
            failed,
            lost: count(M, "lost", m.lost)?,
            failed_anyway: count(M, "failed_anyway", m.failed_anyway)?,
        })
    }
}

impl From<&SeriesCounts> for v1::SeriesCounts {
    fn from(counts: &SeriesCounts) -> Self {
        Self { n: counts.n, above: counts.above.clone(), above_anyway: counts.above_anyway.clone() }
    }
}

impl TryFrom<v1::SeriesCounts> for SeriesCounts {
    type Error = WireError;

    fn try_from(m: v1::SeriesCounts) -> Result<Self, WireError> {
        const M: &str = "SeriesCounts";
        let n = count(M, "n", m.n)?;
        if m.above.len() > MAX_LIMITS || m.above.len() != m.above_anyway.len() {
            return Err(range(M, "above", m.above.len(), "one per limit, as many as above_anyway"));
        }
        let pairs = m.above.iter().zip(&m.above_anyway);
        if pairs.clone().any(|(&above, _)| above > MAX_COUNT) || m.above_anyway.iter().any(|&above| above > MAX_COUNT) {
            return Err(range(M, "above", format!("{:?}", m.above), "at most 2^48 each"));
        }
        Ok(Self { n, above: m.above, above_anyway: m.above_anyway })
    }
}

fn series_counts(message: &'static str, list: Vec<v1::SeriesCounts>) -> Result<Vec<SeriesCounts>, WireError> {
    if list.len() > MAX_SERIES {
        return Err(range(message, "series", list.len(), "at most 64"));
    }
    list.into_iter().map(SeriesCounts::try_from).collect()
}

fn strays(message: Option<v1::Strays>) -> Result<Strays, WireError> {
    const M: &str = "Strays";
    let m = message.unwrap_or_default();
    Ok(Strays {
        foreign: count(M, "foreign", m.foreign)?,
        duplicate: count(M, "duplicate", m.duplicate)?,
        late: count(M, "late", m.late)?,
    })
}

impl From<&Strays> for v1::Strays {
    fn from(s: &Strays) -> Self {
        Self { foreign: s.foreign, duplicate: s.duplicate, late: s.late }
    }
}

impl From<&Observed> for v1::Observed {
    fn from(observed: &Observed) -> Self {
        let Observed { name, count, sum, max } = observed;
        Self { name: name.clone(), count: *count, sum: *sum, max: *max }
    }
}

impl TryFrom<v1::Observed> for Observed {
    type Error = WireError;

    fn try_from(m: v1::Observed) -> Result<Self, WireError> {
        const M: &str = "Observed";
        if m.name.len() > MAX_TEXT {
            return Err(range(M, "name", m.name.len(), "at most 512 bytes"));
        }
        Ok(Self { name: m.name, count: count(M, "count", m.count)?, sum: m.sum, max: m.max })
    }
}

fn observed(message: &'static str, list: Vec<v1::Observed>) -> Result<Vec<Observed>, WireError> {
    if list.len() > MAX_OBSERVED {
        return Err(range(message, "observed", list.len(), "at most 64"));
    }
    list.into_iter().map(Observed::try_from).collect()
}

impl From<&Snapshot> for v1::Snapshot {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            step: snapshot.trial.step,
            trial: snapshot.trial.trial,
            number: snapshot.number,
            blocks: snapshot
                .blocks
                .iter()
                .map(|delta| v1::BlockDelta {
                    block: delta.block,
                    counters: Some((&delta.counters).into()),
                    series: delta.series.iter().map(v1::SeriesCounts::from).collect(),
                })
                .collect(),
            series: snapshot
                .series
                .iter()
                .map(|series| v1::SeriesHistograms {
                    latency_hdr_v2: series.latency.to_v2(),
                    service_time_hdr_v2: series.service_time.to_v2(),
                    clipped: series.latency.clipped(),
                })
                .collect(),
            overdue: snapshot.overdue.iter().map(|count| v1::Overdue { count: count.clone() }).collect(),
            strays: Some((&snapshot.strays).into()),
            warmup: Some((&snapshot.warmup).into()),
            health: Some((&snapshot.health).into()),
            open_time_us: snapshot.open_time_us,
            observed: snapshot.observed.iter().map(v1::Observed::from).collect(),
        }
    }
}

impl TryFrom<v1::Snapshot> for Snapshot {
    type Error = WireError;

    fn try_from(m: v1::Snapshot) -> Result<Self, WireError> {
        const M: &str = "Snapshot";
        if m.blocks.len() > MAX_BLOCKS {
            return Err(range(M, "blocks", m.blocks.len(), "at most 8192"));
        }
        if m.series.len() > MAX_SERIES || m.overdue.len() > MAX_SERIES {
            return Err(range(M, "series", m.series.len().max(m.overdue.len()), "at most 64"));
        }
        if m.overdue.iter().any(|overdue| overdue.count.len() > MAX_LIMITS) {
            return Err(range(M, "overdue", "more", "one per limit, at most 16"));
        }
        Ok(Self {
            trial: TrialId { step: m.step, trial: m.trial },
            number: m.number,
            blocks: m.blocks.into_iter().map(BlockDelta::try_from).collect::<Result<_, _>>()?,
            series: m.series.into_iter().map(SeriesHistograms::try_from).collect::<Result<_, _>>()?,
            overdue: m.overdue.into_iter().map(|overdue| overdue.count).collect(),
            strays: strays(m.strays)?,
            warmup: m.warmup.ok_or(missing(M, "warmup"))?.try_into()?,
            health: m.health.ok_or(missing(M, "health"))?.try_into()?,
            open_time_us: m.open_time_us,
            observed: observed(M, m.observed)?,
        })
    }
}

impl TryFrom<v1::BlockDelta> for BlockDelta {
    type Error = WireError;

    fn try_from(m: v1::BlockDelta) -> Result<Self, WireError> {
        let counters = m.counters.ok_or(missing("BlockDelta", "counters"))?.try_into()?;
        Ok(Self { block: m.block, counters, series: series_counts("BlockDelta", m.series)? })
    }
}

impl TryFrom<v1::SeriesHistograms> for SeriesHistograms {
    type Error = WireError;

    fn try_from(m: v1::SeriesHistograms) -> Result<Self, WireError> {
        const M: &str = "SeriesHistograms";
        let mut latency = histogram(M, "latency_hdr_v2", m.latency_hdr_v2)?;
        latency.add_clipped(count(M, "clipped", m.clipped)?);
        Ok(Self { latency, service_time: histogram(M, "service_time_hdr_v2", m.service_time_hdr_v2)? })
    }
}

fn histogram(message: &'static str, field: &'static str, bytes: Vec<u8>) -> Result<LatencyHistogram, WireError> {
    LatencyHistogram::from_v2(bytes).map_err(|error| WireError::Histogram { message, field, error })
}

impl From<&Health> for v1::Health {
    fn from(health: &Health) -> Self {
        let (stall_us, stall_unbounded) = match health.stall {
            Stall::Bounded(us) => (us, false),
            Stall::Unbounded => (0, true),
        };
        Self {
            stall_us,
            stall_unbounded,
            process_cpu_milli: health.process_cpu_milli,
            box_cpu_milli: health.box_cpu_milli,
            steal_milli: health.steal_milli,
            throttled_us: health.throttled_us,
            timer_delay_us: health.timer_delay_us,
            write_blocked_us: health.write_blocked_us,
            in_flight_max: health.in_flight_max,
            in_flight_sum: health.in_flight_sum,
            in_flight_samples: health.in_flight_samples,
            lateness_hdr_v2: health.lateness.to_v2(),
            client_errors: health.client_errors.clone(),
            users: health.users.map(|UsersOnline { online, connections }| v1::UsersOnline { online, connections }),
        }
    }
}

impl TryFrom<v1::Health> for Health {
    type Error = WireError;

    fn try_from(m: v1::Health) -> Result<Self, WireError> {
        const M: &str = "Health";
        let stall = if m.stall_unbounded { Stall::Unbounded } else { Stall::Bounded(m.stall_us) };
        let cut = |text: String| text.chars().take(MAX_TEXT).collect();
        Ok(Self {
            stall,
            process_cpu_milli: m.process_cpu_milli,
            box_cpu_milli: m.box_cpu_milli,
            steal_milli: m.steal_milli,
            throttled_us: m.throttled_us,
            timer_delay_us: m.timer_delay_us,
            write_blocked_us: m.write_blocked_us,
            in_flight_max: count(M, "in_flight_max", m.in_flight_max)?,
            in_flight_sum: count(M, "in_flight_sum", m.in_flight_sum)?,
            in_flight_samples: count(M, "in_flight_samples", m.in_flight_samples)?,
            lateness: histogram(M, "lateness_hdr_v2", m.lateness_hdr_v2)?,
            client_errors: m.client_errors.into_iter().take(MAX_CLIENT_ERRORS).map(cut).collect(),
            users: m.users.map(users_online).transpose()?,
        })
    }
}

fn users_online(m: v1::UsersOnline) -> Result<UsersOnline, WireError> {
    const M: &str = "UsersOnline";
    let (online, connections) = (count(M, "online", m.online)?, count(M, "connections", m.connections)?);
    Ok(UsersOnline { online, connections })
}

impl From<&StepTotals> for v1::StepTotals {
    fn from(totals: &StepTotals) -> Self {
        let end = match totals.end {
            StepEnd::Finished => v1::StepEnd::Finished,
            StepEnd::Stopped => v1::StepEnd::Stopped,
            StepEnd::TargetGone => v1::StepEnd::TargetGone,
            StepEnd::ShutDown => v1::StepEnd::ShutDown,
        };
        Self {
            step: totals.trial.step,
            trial: totals.trial.trial,
            snapshots: totals.snapshots,
            counters: Some((&totals.counters).into()),
            series: totals.series.iter().map(v1::SeriesCounts::from).collect(),
            samples: totals.samples.clone(),
            strays: Some((&totals.strays).into()),
            warmup: Some((&totals.warmup).into()),
            started_boottime_ns: totals.started_boottime_ns,
            end: end.into(),
            observed: totals.observed.iter().map(v1::Observed::from).collect(),
        }
    }
}

impl TryFrom<v1::StepTotals> for StepTotals {
    type Error = WireError;

    fn try_from(m: v1::StepTotals) -> Result<Self, WireError> {
        const M: &str = "StepTotals";
        let end = match m.end() {
            v1::StepEnd::Unspecified => return Err(missing(M, "end")),
            v1::StepEnd::Finished => StepEnd::Finished,
            v1::StepEnd::Stopped => StepEnd::Stopped,
            v1::StepEnd::TargetGone => StepEnd::TargetGone,
            v1::StepEnd::ShutDown => StepEnd::ShutDown,
        };
        if m.samples.len() > MAX_SERIES {
            return Err(range(M, "samples", m.samples.len(), "at most 64"));
        }
        Ok(Self {
            trial: TrialId { step: m.step, trial: m.trial },
            snapshots: m.snapshots,
            counters: m.counters.ok_or(missing(M, "counters"))?.try_into()?,
            series: series_counts(M, m.series)?,
            samples: m.samples,
            strays: strays(m.strays)?,
            warmup: m.warmup.ok_or(missing(M, "warmup"))?.try_into()?,
            started_boottime_ns: m.started_boottime_ns,
            end,
            observed: observed(M, m.observed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot() -> Snapshot {
        let mut latency = LatencyHistogram::new();
        [5, 900, 70_000_000].iter().for_each(|&us| latency.record(us));
        let counters = Counters {
            due: 9,
            attempted: 7,
            sent: 6,
            saturated: 1,
            underrun: 1,
            completed: 2,
            failed: Failed { timeout: 1, refused: 1, bad_reply: 1, publish: 1, no_responders: 0 },
            lost: 1,
            failed_anyway: 3,
        };
        let counts = SeriesCounts { n: 5, above: vec![3, 1], above_anyway: vec![2, 0] };
        Snapshot {
            trial: TrialId { step: 2, trial: 1 },
            number: 7,
            blocks: vec![BlockDelta { block: 3, counters, series: vec![counts.clone(), counts] }],
            series: vec![SeriesHistograms { latency: latency.clone(), service_time: LatencyHistogram::new() }],
            overdue: vec![vec![1, 2], vec![]],
            strays: Strays { foreign: 1, duplicate: 2, late: 3 },
            warmup: counters,
            health: Health {
                stall: Stall::Unbounded,
                lateness: latency,
                client_errors: vec!["slow consumer".into()],
                users: Some(UsersOnline { online: 12, connections: 5 }),
                ..Health::default()
            },
            open_time_us: 11,
            observed: vec![Observed { name: "rows".into(), count: 2, sum: 30, max: 20 }],
        }
    }

    #[test]
    fn a_snapshot_survives_the_wire() {
        let sent = snapshot();
        let received = Snapshot::try_from(v1::Snapshot::from(&sent)).unwrap();
        let (sent_max, received_max) = (sent.series[0].latency.max_us(), received.series[0].latency.max_us());
        assert!(sent_max >= received_max && received_max >= Some(HIGHEST_US * 999 / 1000));
        assert_eq!(received.series[0].latency.len(), 3);
        assert_eq!(received.series[0].latency.clipped(), 1);
        assert_eq!((received.blocks, received.strays, received.overdue), (sent.blocks, sent.strays, sent.overdue));
        assert_eq!((received.health.stall, received.warmup), (sent.health.stall, sent.warmup));
        assert_eq!(received.observed, sent.observed);
    }

    #[test]
    fn what_must_be_set_is_refused_when_unset() {
        let cases: [(&str, Result<(), WireError>); 4] = [
            ("Snapshot.warmup is not set", Snapshot::try_from(v1::Snapshot::default()).map(drop)),
            ("Prepare.target is not set", AgentPlan::try_from(v1::Prepare::default()).map(drop)),
            ("StartStep.share_milli_per_s is 0", StepOrder::try_from(v1::StartStep::default()).map(drop)),
            ("StepTotals.end is not set", StepTotals::try_from(v1::StepTotals::default()).map(drop)),
        ];
        for (words, result) in cases {
            assert!(matches!(&result, Err(error) if error.to_string().contains(words)), "{words}: {result:?}");
        }
    }

    #[test]
    fn a_target_survives_the_wire_and_is_refused_where_it_contradicts_itself() {
        let identity = || Some(TlsIdentity { certificates: "cert".into(), key: "key".into() });
        let target = |login, tls_ca: Option<&str>, tls_identity| Target {
            url: "nats://a:b@chat:4222".into(),
            credentials: Some(Credentials { login, tls_ca: tls_ca.map(str::to_owned), tls_identity }),
        };
        for sent in [
            Target { url: "nats://chat:4222".into(), credentials: None },
            target(Some(Login::CredentialsFile("creds".into())), None, None),
            target(Some(Login::NkeySeed("seed".into())), Some("ca"), identity()),
            target(Some(Login::Token("token".into())), Some("ca"), None),
            target(None, None, identity()),
        ] {
            assert_eq!(Target::try_from(v1::Target::from(&sent)), Ok(sent));
        }
        let text = |text: &str| Some(text.to_owned());
        for (message, words) in [
            (v1::Target { nkey: text("SECRET"), token: text("SECRET"), ..v1::Target::default() }, "expected one of"),
            (v1::Target { tls_key: text("SECRET"), ..v1::Target::default() }, "Target.tls_cert is not set"),
            (v1::Target { tls_cert: text("SECRET"), ..v1::Target::default() }, "Target.tls_key is not set"),
            (v1::Target { token: Some("SECRET".repeat(MAX_SECRET)), ..v1::Target::default() }, "at most 1 MiB"),
        ] {
            let error = Target::try_from(message).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("SECRET"), "{words}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_from_a_peer_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            use plimsoll_proto::v1::{AgentMessage, CoordinatorMessage, agent_message, coordinator_message};
            if let Ok(message) = <AgentMessage as prost::Message>::decode(bytes.as_slice()) {
                match message.message {
                    Some(agent_message::Message::Snapshot(m)) => drop(Snapshot::try_from(m)),
                    Some(agent_message::Message::StepTotals(m)) => drop(StepTotals::try_from(m)),
                    Some(agent_message::Message::Calibrated(m)) => drop(crate::calibration::Calibration::try_from(m)),
                    _ => {}
                }
            }
            if let Ok(message) = <CoordinatorMessage as prost::Message>::decode(bytes.as_slice()) {
                match message.message {
                    Some(coordinator_message::Message::Prepare(m)) => drop(AgentPlan::try_from(m)),
                    Some(coordinator_message::Message::StartStep(m)) => drop(StepOrder::try_from(m)),
                    _ => {}
                }
            }
        }
    }
}
