//! What is measured: snapshots, and the totals at the end.

use plimsoll_proto::v1;

use super::{
    MAX_BLOCKS, MAX_CLIENT_ERRORS, MAX_LIMITS, MAX_OBSERVED, MAX_SERIES, MAX_TEXT, WireError, missing, printable, range,
};
use crate::histogram::LatencyHistogram;
use crate::plan::TrialId;
use crate::snapshot::{
    BlockDelta, Counters, Failed, Health, Observed, SeriesCounts, SeriesHistograms, Snapshot, Stall, StepEnd,
    StepTotals, Strays, UsersOnline,
};

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

pub(super) fn count(message: &'static str, field: &'static str, value: u64) -> Result<u64, WireError> {
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
        let SeriesCounts { n, refused, given_up, failed_anyway, above, above_anyway } = counts.clone();
        Self { n, refused, given_up, failed_anyway, above, above_anyway }
    }
}

impl TryFrom<v1::SeriesCounts> for SeriesCounts {
    type Error = WireError;

    fn try_from(m: v1::SeriesCounts) -> Result<Self, WireError> {
        const M: &str = "SeriesCounts";
        let n = count(M, "n", m.n)?;
        let refused = count(M, "refused", m.refused)?;
        let given_up = count(M, "given_up", m.given_up)?;
        let failed_anyway = count(M, "failed_anyway", m.failed_anyway)?;
        if m.above.len() > MAX_LIMITS || m.above.len() != m.above_anyway.len() {
            return Err(range(M, "above", m.above.len(), "one per limit, as many as above_anyway"));
        }
        let pairs = m.above.iter().zip(&m.above_anyway);
        if pairs.clone().any(|(&above, _)| above > MAX_COUNT) || m.above_anyway.iter().any(|&above| above > MAX_COUNT) {
            return Err(range(M, "above", format!("{:?}", m.above), "at most 2^48 each"));
        }
        Ok(Self { n, refused, given_up, failed_anyway, above: m.above, above_anyway: m.above_anyway })
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
        Ok(Self { name: printable(&m.name, MAX_TEXT), count: count(M, "count", m.count)?, sum: m.sum, max: m.max })
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

pub(super) fn histogram(
    message: &'static str,
    field: &'static str,
    bytes: Vec<u8>,
) -> Result<LatencyHistogram, WireError> {
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
        let shown = |text: String| printable(&text, MAX_TEXT);
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
            client_errors: m.client_errors.into_iter().take(MAX_CLIENT_ERRORS).map(shown).collect(),
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
