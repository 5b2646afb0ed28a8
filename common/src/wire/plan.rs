//! Orders: what a run is, and each step of it.

use std::time::Duration;

use plimsoll_proto::v1;

use super::{MAX_IN_FLIGHT, MAX_LIMITS, MAX_SECRET, WireError, micros, missing, phase, range};
use crate::histogram::HIGHEST_US;
use crate::plan::{
    AgentPlan, Arrivals, BLOCK, Credentials, Login, MAX_AGENTS, More, RUN_NONCE_LIMIT, SeriesLimits, StepOrder, Target,
    TlsIdentity, TrialId,
};
use crate::units::Rate;
use crate::workload::{Given, Workload};

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
            more_in_warmup: order.more.warmup,
            more_in_hold: order.more.hold,
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
        for (field, more) in [("more_in_warmup", message.more_in_warmup), ("more_in_hold", message.more_in_hold)] {
            if more > 1 {
                return Err(range(M, field, more, "0 or 1"));
            }
        }
        Ok(Self {
            trial: TrialId { step: message.step, trial: message.trial },
            share,
            start_boottime_ns: message.start_boottime_ns,
            warmup: phase(M, "warmup_us", message.warmup_us)?,
            hold,
            arrivals,
            max_in_flight: message.max_in_flight,
            more: More { warmup: message.more_in_warmup, hold: message.more_in_hold },
        })
    }
}
