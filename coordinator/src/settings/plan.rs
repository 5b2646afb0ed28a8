//! A run, resolved: every value checked once, so that nothing behind it asks again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use plimsoll_agent::core::people::Day;
use plimsoll_agent::shell::tls::TlsFiles;
use plimsoll_common::plan::{Arrivals, Workload, redact_url};
use plimsoll_common::units::{Rate, Steps};

use super::agents::AgentSource;
use super::storage::StoragePlan;
use crate::core::backlog::DurableName;
use crate::core::ceilings::Ceilings;
use crate::core::ramp::OnTrip;
use crate::core::roster::{Asked, OnAgentLoss};
use crate::core::search::plan::PROBE_RATE;
use crate::core::slo::Slo;
use crate::core::split::{Capacity, SplitError, split, split_users, users_within};
use crate::report::Applied;

/// What a run does.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPlan {
    /// What it is to find out.
    pub goal: Goal,
    /// How the levels are searched for, in place of held as they are listed.
    pub find: Option<FindPlan>,
    /// What is driven.
    pub workload: Workload,
    /// The levels, in order.
    pub steps: Steps,
    /// The parts of every step.
    pub phases: Phases,
    /// How intended times are spread.
    pub spread: Spread,
    /// How long an operation may stay open.
    pub request_timeout: Duration,
    /// Beyond it a release is an underrun.
    pub max_lateness: Duration,
    /// Operations open at once on each agent; `None`: it follows from the share.
    pub max_in_flight: Option<NonZeroU64>,
    /// Seeds fixtures, arrivals and choices.
    pub seed: u64,
    /// What a step must hold.
    pub slo: Slo,
    /// What a TRIP does to the steps above.
    pub on_trip: OnTrip,
    /// Trials that a step may have.
    pub trials: NonZeroU32,
    /// The service.
    pub target: TargetChoice,
    /// The databases behind the service, whose seeding is checked before the first step; `None`: it is not.
    pub storage: Option<StoragePlan>,
    /// Who makes the load.
    pub fleet: FleetChoice,
    /// The certificates with which agents at addresses are reached; `None`: in clear.
    pub tls: Option<TlsFiles>,
    /// The most that each agent is asked for, as `plimsoll calibrate` found it.
    pub ceilings: Option<Ceilings>,
    /// How long to wait for agents that are still starting; `None`: all that are named have to be there.
    pub gather: Option<GatherPlan>,
    /// With fewer agents the run ends.
    pub min_agents: usize,
    /// What the loss of an agent does; a soak always ends.
    pub on_agent_loss: OnAgentLoss,
    /// How long an agent outlives the newest ping that was echoed.
    pub lease_timeout: Duration,
    /// The run is saved in a directory of its own under this one.
    pub results: Option<PathBuf>,
    /// One row per trial goes here.
    pub csv: Option<PathBuf>,
    /// Where the run's figures are served.
    pub metrics_listen: Option<SocketAddr>,
    /// Every setting as it applied, secrets hidden.
    pub applied: Vec<Applied>,
    /// Every setting with a value, as a flag takes it, secrets hidden; the fleet as it was made out.
    pub settings: BTreeMap<String, String>,
}

/// How the largest level is searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FindPlan {
    /// The first level; `None`: a probe finds it.
    pub from: Option<Rate>,
    /// By how much the level that trips may lie above the one that passes: 0.05 is 5 %.
    pub precision: f64,
    /// Of the interval.
    pub confidence: f64,
    /// Of the whole search.
    pub max_time: Duration,
    /// How long backlogs may take to drain before a trial.
    pub drain_limit: Duration,
    /// Whether the largest level of every single limit is searched for too.
    pub frontier: bool,
    /// Whether what the fleet can do by itself is not measured before.
    pub skip_self_check: bool,
    /// Whether the trail is shown.
    pub explain: bool,
}

impl FindPlan {
    /// The level of the first trial.
    pub fn first_level(&self) -> Rate {
        self.from.unwrap_or_else(|| Rate::per_second(PROBE_RATE).expect("a rate"))
    }
}

/// What a run is to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The largest level that holds every objective.
    MaxRps,
    /// Whether one level holds them for as long as asked: a soak. Its plan has one step.
    Soak,
}

/// The parts of a step; its drain takes what it takes, up to the request timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    /// Counts for nothing.
    pub warmup: Duration,
    /// Counts.
    pub hold: Duration,
    /// Silence before the next step.
    pub cooldown: Duration,
}

/// How intended times are spread over the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Independent users.
    Poisson,
    /// Evenly, the agents staggered.
    Uniform,
}

/// The service under test and what is watched of it.
#[derive(Clone, PartialEq)]
pub struct TargetChoice {
    /// One or more addresses, which may carry a password.
    pub nats_url: String,
    /// What proves who we are, beside what the address carries.
    pub login: Option<Login>,
    /// Whose certificates are accepted from the service; `None`: the system's.
    pub tls_ca: Option<PathBuf>,
    /// The files of the certificate, and of its key, that are shown to it.
    pub tls_identity: Option<(PathBuf, PathBuf)>,
    /// Whose backlog is watched.
    pub durables: Vec<DurableName>,
    /// Where backlogs are read; `None`: from the JetStream API.
    pub jsz_url: Option<String>,
    /// How long they may take to recover before a trial.
    pub recovery_limit: Duration,
    /// Whether the target is checked before the first step.
    pub preflight: Preflight,
}

/// Its addresses may carry passwords.
impl fmt::Debug for TargetChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nats_url, login, tls_ca, tls_identity, durables, jsz_url, recovery_limit, preflight } = self;
        f.debug_struct("TargetChoice")
            .field("nats_url", &redact_url(nats_url))
            .field("login", login)
            .field("tls_ca", tls_ca)
            .field("tls_identity", tls_identity)
            .field("durables", durables)
            .field("jsz_url", &jsz_url.as_deref().map(redact_url))
            .field("recovery_limit", recovery_limit)
            .field("preflight", preflight)
            .finish()
    }
}

/// What proves who we are to the service, and where it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A credentials file.
    CredentialsFile(PathBuf),
    /// The seed of an NKey: a file, or `env:` and a variable.
    NkeySeed(String),
    /// A token: a file, or `env:` and a variable.
    Token(String),
}

/// Whether the target is checked before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preflight {
    /// Streams, durables and storage are.
    Check,
    /// Nothing but that the server can be reached.
    Skip,
}

/// Who makes the load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetChoice {
    /// Daemons at these places, each once.
    Remote(Vec<AgentSource>),
    /// So many agents in this process.
    Local(usize),
}

/// A fleet that is still starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatherPlan {
    /// The run begins once so many are there; the others join between steps.
    pub agents: usize,
    /// Without them it ends.
    pub timeout: Duration,
}

/// Below this a cap says more about chance than about the service.
const LOWEST_CAP: u64 = 64;

impl RunPlan {
    /// Operations that an agent with this share may have open at once: the flag's, or 1.2 × share × request timeout.
    pub fn in_flight_cap(&self, share: Rate) -> u64 {
        let follows = || {
            let open = u128::from(self.rate_of(share).milli()) * self.request_timeout.as_micros() * 12 / 10;
            u64::try_from(open.div_ceil(1_000_000_000)).unwrap_or(u64::MAX).max(LOWEST_CAP)
        };
        self.max_in_flight.map_or_else(follows, NonZeroU64::get)
    }

    /// Operations per second that a level or a share of it makes at most.
    pub fn rate_of(&self, level: Rate) -> Rate {
        self.workload.rate(level, self.phases.hold)
    }

    /// Operations per second that a user makes at most, where levels are users.
    fn operations_per_user(&self) -> f64 {
        const MANY: u64 = 1_000_000;
        self.rate_of(Rate::per_second(MANY).expect("a level")).as_f64() / MANY as f64
    }

    /// The largest share of a level that makes no more than this rate.
    pub fn share_within(&self, ceiling: Rate) -> Rate {
        match self.workload.daily() {
            Some(_) => Rate::per_second(users_within(ceiling, self.operations_per_user())).unwrap_or(ceiling),
            None => ceiling,
        }
    }

    /// Splits a level over agents: a rate, or whole users.
    ///
    /// # Errors
    /// It cannot be split.
    pub fn split(&self, level: Rate, agents: &[Capacity]) -> Result<Vec<Rate>, SplitError> {
        match self.workload.daily() {
            Some(_) => split_users(level, self.operations_per_user(), agents),
            None => split(level, agents),
        }
    }

    /// What levels are.
    pub fn asked(&self) -> Asked {
        if self.workload.daily().is_some() { Asked::Users } else { Asked::Rate }
    }

    /// What stands behind a level: `1000/s`, `1000 users`.
    pub fn unit(&self) -> &'static str {
        self.asked().unit()
    }

    /// How the intended times of one of `agents` agents are spread.
    pub fn arrivals(&self, agent: usize, agents: usize) -> Arrivals {
        match self.spread {
            Spread::Poisson => Arrivals::Poisson,
            Spread::Uniform => Arrivals::Uniform { phase_ppm: (agent * 1_000_000 / agents.max(1)) as u32 },
        }
    }

    /// How many steps there are; 0: as many as a search takes.
    pub fn steps_to_hold(&self) -> usize {
        if self.find.is_some() { 0 } else { self.steps.rates().len() }
    }

    /// How long it takes at least if every step is held, each once; a search: as long as it may.
    pub fn longest(&self) -> Duration {
        let Phases { warmup, hold, cooldown } = self.phases;
        let steps = u32::try_from(self.steps.rates().len()).unwrap_or(u32::MAX);
        let held = warmup.saturating_add(hold).saturating_mul(steps);
        let all = held.saturating_add(cooldown.saturating_mul(steps.saturating_sub(1)));
        self.find.map_or(all, |find| find.max_time)
    }

    /// What may come on top of [`Self::longest`] where all goes well but once: before each step what is open ends and backlogs
    /// drain, and one step is held again. A search has all of that within its time, and a soak none of it but the end.
    pub fn pauses(&self) -> Duration {
        if self.find.is_some() || self.goal == Goal::Soak {
            return self.request_timeout;
        }
        let Phases { warmup, hold, .. } = self.phases;
        let steps = u32::try_from(self.steps.rates().len()).unwrap_or(u32::MAX);
        let between = self.request_timeout.saturating_add(self.target.recovery_limit);
        between.saturating_mul(steps.saturating_add(1)).saturating_add(warmup).saturating_add(hold)
    }

    /// Operations of all steps, warmups included, if each is held once; of people, as many as they have on average.
    pub fn operations(&self) -> u64 {
        let Phases { warmup, hold, .. } = self.phases;
        if let Some(daily) = self.workload.daily() {
            let (in_warmup, in_hold) = Day::of(daily, warmup, hold).acts_of_each();
            let users: f64 = self.steps.rates().iter().map(|level| level.as_f64()).sum();
            return (users * (in_warmup + in_hold)).ceil() as u64;
        }
        let rates = self.steps.rates().iter().map(|&level| self.rate_of(level));
        rates.map(|rate| rate.due_in(warmup).saturating_add(rate.due_in(hold))).sum()
    }
}
