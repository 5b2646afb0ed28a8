//! All agents of a run, as one: orders go to each, answers are awaited from all.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use plimsoll_common::calibration::{Calibration, CalibrationOrder};
use plimsoll_common::plan::{AgentPlan, TrialId};
use plimsoll_common::units::Rate;
use plimsoll_proto::PROTOCOL_VERSION;
use plimsoll_proto::v1;
use plimsoll_proto::v1::coordinator_message::Message as ToAgent;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::session::{AgentAddress, AgentEvent, Claim, Session};
use crate::core::clock_offset::ClockOffset;
use crate::core::split::Capacity;
use crate::report::DealSummary;

/// Fixtures of the largest preset and connections to a slow target take seconds, not minutes.
const PREPARE_LIMIT: Duration = Duration::from_secs(60);
/// A calibration takes about two seconds, on a crowded box some more.
const CALIBRATE_LIMIT: Duration = Duration::from_secs(30);
/// Every subscription of the largest preset has to be known at the server.
const DEAL_LIMIT: Duration = Duration::from_secs(60);
/// An agent that has been released closes its session at once.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);
/// Events that may wait per agent: half a minute of snapshots, which the coordinator reads as they come.
const EVENTS_PER_AGENT: usize = 64;

/// Why a fleet cannot do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// No connection, or nothing that answers as an agent does.
    #[error("agent {agent} cannot be reached: {why}; start plimsoll-agent there, or check --agents")]
    Unreachable {
        /// Its address.
        agent: String,
        /// For people.
        why: String,
    },
    /// The agent refuses the lease.
    #[error("agent {agent} refuses: {words}")]
    Denied {
        /// Its address.
        agent: String,
        /// Its words.
        words: String,
    },
    /// The agent is of another release.
    #[error(
        "agent {agent} speaks protocol {theirs} (build {their_build}) and this coordinator {PROTOCOL_VERSION} (build {}): \
         run one release on both",
        env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// Its address.
        agent: String,
        /// Its protocol's version.
        theirs: u32,
        /// Its build, for people.
        their_build: String,
    },
    /// Two addresses of one daemon.
    #[error("--agents: {first} and {second} are the same agent: name each once")]
    SameAgent {
        /// The earlier address.
        first: String,
        /// The later one.
        second: String,
    },
    /// The agent's release does not know the workload.
    #[error("agent {agent} does not know the workload {workload}: it knows {known}")]
    Workload {
        /// Its name.
        agent: String,
        /// What it lacks.
        workload: String,
        /// What it has.
        known: String,
    },
    /// What the agent must be told must not travel there in clear.
    #[error(
        "agent {agent} is not on a loopback address, and what --nats-url or the other --nats- flags carry must not travel \
         unencrypted: give --tls-cert, --tls-key and --tls-ca, use a target without credentials, or agents on this host"
    )]
    Secrets {
        /// Its address.
        agent: String,
    },
    /// The run is longer than the agent lets any run be.
    #[error(
        "agent {agent} takes runs of at most {} (its --max-run), and this one may take {}: shorten the run",
        humantime::format_duration(*limit),
        humantime::format_duration(*length)
    )]
    TooLong {
        /// Its name.
        agent: String,
        /// Its limit.
        limit: Duration,
        /// All steps of the run, held once.
        length: Duration,
    },
    /// The agent cannot do what it was asked.
    #[error("agent {agent} cannot {what}: {words}")]
    Refused {
        /// Its name.
        agent: String,
        /// What it was asked.
        what: &'static str,
        /// Its words.
        words: String,
    },
    /// The agent did not answer in time.
    #[error("agent {agent} did not {what} within {within:?}")]
    NoAnswer {
        /// Its name.
        agent: String,
        /// What it was asked.
        what: &'static str,
        /// How long it was given.
        within: Duration,
    },
    /// The agent's session ended.
    #[error("agent {agent} was lost: {why}")]
    Lost {
        /// Its name.
        agent: String,
        /// For people.
        why: String,
    },
}

impl FleetError {
    /// Whether somebody has to change what was asked, rather than look after a box.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::NoAnswer { .. } | Self::Lost { .. })
    }
}

/// A daemon that is named twice refuses one of the claims, since this very run holds it: that is said in those words.
async fn name_twice_named(
    opened: Vec<Result<Session, FleetError>>,
    agents: &[AgentAddress],
    claim: &Claim,
) -> Vec<Result<Session, FleetError>> {
    let held_by_us = format!("leased to {}", claim.coordinator);
    let twin = opened
        .iter()
        .position(|session| matches!(session, Err(FleetError::Denied { words, .. }) if words.contains(&held_by_us)));
    let Some(twin) = twin else { return opened };
    let resolved = join_all(agents.iter().map(|agent| resolve(&agent.address))).await;
    let claimed = (0..agents.len()).filter(|&index| opened[index].is_ok());
    let same = |&index: &usize| resolved[index].iter().any(|address| resolved[twin].contains(address));
    let first = claimed.clone().find(same).or_else(|| claimed.clone().next());
    let Some(first) = first else { return opened };
    let (first, second) = (first.min(twin), first.max(twin));
    let address = |index: usize| agents[index].address.clone();
    vec![Err(FleetError::SameAgent { first: address(first), second: address(second) })]
}

async fn resolve(address: &str) -> Vec<std::net::SocketAddr> {
    tokio::net::lookup_host(address).await.map(Iterator::collect).unwrap_or_default()
}

/// What came of a deal.
#[derive(Debug, Clone)]
pub struct FleetDeal {
    /// For the report.
    pub summary: DealSummary,
    /// By agent index: operations that each can still make; `None`: nothing is used up.
    pub operations_left: Option<Vec<u64>>,
}

/// Every agent of a run, claimed.
#[derive(Debug)]
pub struct Fleet {
    sessions: Vec<Session>,
    events: mpsc::Receiver<(usize, AgentEvent)>,
}

impl Fleet {
    /// Dials and claims every agent at once. On an error the agents already claimed are let go.
    ///
    /// # Errors
    /// The first agent, in their order, that cannot be used.
    pub async fn connect(agents: &[AgentAddress], claim: &Claim, workload: &str) -> Result<Self, FleetError> {
        let (sender, events) = mpsc::channel(agents.len() * EVENTS_PER_AGENT);
        let open = |(index, agent)| Session::open(agent, index, claim, sender.clone());
        let opened = join_all(agents.iter().enumerate().map(open)).await;
        let opened = name_twice_named(opened, agents, claim).await;
        let fleet = Self { sessions: opened.into_iter().collect::<Result<_, _>>()?, events };
        fleet.check_identities(agents)?;
        fleet.check_workload(workload)?;
        Ok(fleet)
    }

    fn check_identities(&self, agents: &[AgentAddress]) -> Result<(), FleetError> {
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for (session, agent) in self.sessions.iter().zip(agents) {
            if let Some(first) = seen.insert(&session.hello.instance, &agent.address) {
                return Err(FleetError::SameAgent { first: first.to_owned(), second: agent.address.clone() });
            }
        }
        Ok(())
    }

    fn check_workload(&self, workload: &str) -> Result<(), FleetError> {
        let lacks = |session: &&Session| !session.hello.workloads.iter().any(|known| known == workload);
        match self.sessions.iter().find(lacks) {
            None => Ok(()),
            Some(session) => Err(FleetError::Workload {
                agent: session.name.clone(),
                workload: workload.to_owned(),
                known: session.hello.workloads.join(", "),
            }),
        }
    }

    /// Whether every agent lets a run be this long.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check_length(&self, length: Duration) -> Result<(), FleetError> {
        let short =
            |session: &Session| Some((session.name.clone(), session.hello.max_run.filter(|limit| length > *limit)?));
        match self.sessions.iter().find_map(short) {
            None => Ok(()),
            Some((agent, limit)) => Err(FleetError::TooLong { agent, limit, length }),
        }
    }

    /// How many agents there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The name of the agent with this index.
    pub fn name(&self, agent: usize) -> &str {
        &self.sessions[agent].name
    }

    /// What each agent can take.
    pub fn capacities(&self) -> Vec<Capacity> {
        let capacity = |session: &Session| Capacity {
            agent: session.name.clone(),
            weight: NonZeroU32::max(session.hello.workers, NonZeroU32::MIN),
            ceiling: session.hello.ceiling,
        };
        self.sessions.iter().map(capacity).collect()
    }

    /// One line per agent for the report: its box and its workers.
    pub fn boxes(&self) -> Vec<(String, String)> {
        let words = |session: &Session| {
            let ceiling = session.hello.ceiling.map_or(String::new(), |ceiling| format!(", at most {ceiling}/s"));
            (session.name.clone(), format!("{} workers on {}{ceiling}", session.hello.workers, session.hello.hostname))
        };
        self.sessions.iter().map(words).collect()
    }

    /// Has every agent measure what its box can do; no share is above that from then on.
    ///
    /// # Errors
    /// An agent cannot, or is lost.
    pub async fn calibrate(&mut self, order: &CalibrationOrder) -> Result<Vec<Calibration>, FleetError> {
        for session in &self.sessions {
            session.send(ToAgent::Calibrate(order.into()));
        }
        let found = self
            .answers("measure what its box can do", CALIBRATE_LIMIT, |event| match event {
                AgentEvent::Calibrated(found) => Some(*found),
                _ => None,
            })
            .await?;
        for (session, found) in self.sessions.iter_mut().zip(&found) {
            let hello = &mut session.hello;
            hello.ceiling = Some(hello.ceiling.map_or(found.ceiling, |own| own.min(found.ceiling)));
        }
        Ok(found)
    }

    /// Tells every agent about the run: connect to the target, build the fixtures. What each server says of itself.
    ///
    /// # Errors
    /// An agent cannot, or is lost.
    pub async fn prepare(&mut self, plan: &AgentPlan) -> Result<Vec<String>, FleetError> {
        for (index, session) in (0..).zip(&self.sessions) {
            let plan = AgentPlan { agent_index: index, ..plan.clone() };
            session.send(ToAgent::Prepare((&plan).into()));
        }
        self.answers("prepare the run", PREPARE_LIMIT, |event| match event {
            AgentEvent::Prepared(server) => Some(server),
            _ => None,
        })
        .await
    }

    /// Deals rooms and users for these shares. Where users come online one after the other, that may take so much more.
    ///
    /// # Errors
    /// An agent cannot, or is lost.
    pub async fn deal(&mut self, deal: u32, shares: &[Rate], more: Duration) -> Result<FleetDeal, FleetError> {
        let share_milli_per_s: Vec<u64> = shares.iter().map(|share| share.milli()).collect();
        for session in &self.sessions {
            session.send(ToAgent::Deal(v1::Deal { deal, share_milli_per_s: share_milli_per_s.clone() }));
        }
        let dealt = self
            .answers("subscribe to what its share needs", DEAL_LIMIT + more, |event| match event {
                AgentEvent::Dealt(dealt) if dealt.deal == deal => Some(dealt),
                _ => None,
            })
            .await?;
        let summary = DealSummary {
            rooms: dealt.iter().map(|dealt| u64::from(dealt.rooms)).sum(),
            senders: dealt.iter().map(|dealt| u64::from(dealt.senders)).sum(),
            pairs: dealt.iter().map(|dealt| dealt.pairs).sum(),
            largest_deviation_ppm: dealt.iter().map(|dealt| dealt.largest_deviation_ppm).max().unwrap_or(0),
        };
        Ok(FleetDeal { summary, operations_left: dealt.iter().map(|dealt| dealt.operations_left).collect() })
    }

    /// Every agent's clock against ours, by its newest round trips.
    ///
    /// # Errors
    /// An agent's clock is not known in time.
    pub async fn clocks(&self, within: Duration) -> Result<Vec<ClockOffset>, FleetError> {
        let clock = async |session: &Session| {
            let no_answer =
                || FleetError::NoAnswer { agent: session.name.clone(), what: "show its clock by a ping", within };
            timeout(within, session.clock()).await.ok().flatten().ok_or_else(no_answer)
        };
        try_join_all(self.sessions.iter().map(clock)).await
    }

    /// Queues an order for one agent.
    pub fn send(&self, agent: usize, message: ToAgent) {
        self.sessions[agent].send(message);
    }

    /// Asks every agent to be silent at once.
    pub fn stop(&self, trial: TrialId) {
        let stop = v1::StopStep { step: trial.step, trial: trial.trial };
        self.sessions.iter().for_each(|session| session.send(ToAgent::StopStep(stop)));
    }

    /// What comes next from any agent.
    pub async fn next_event(&mut self) -> (usize, AgentEvent) {
        match self.events.recv().await {
            Some(event) => event,
            // Every listener has said that its agent is lost, and somebody has heard it.
            None => std::future::pending().await,
        }
    }

    /// Waits until an agent is lost; to be raced against what an idle fleet waits for.
    pub async fn lost(&mut self) -> FleetError {
        loop {
            if let (agent, AgentEvent::Lost(why)) = self.next_event().await {
                return FleetError::Lost { agent: self.name(agent).to_owned(), why };
            }
        }
    }

    /// One answer from every agent; what else they send meanwhile belongs to what is over and is dropped.
    pub async fn answers<T>(
        &mut self,
        what: &'static str,
        within: Duration,
        mut pick: impl FnMut(AgentEvent) -> Option<T>,
    ) -> Result<Vec<T>, FleetError> {
        let deadline = Instant::now() + within;
        let mut answers: Vec<Option<T>> = self.sessions.iter().map(|_| None).collect();
        while let Some(missing) = answers.iter().position(Option::is_none) {
            let Ok((agent, event)) = timeout_at(deadline, self.next_event()).await else {
                return Err(FleetError::NoAnswer { agent: self.name(missing).to_owned(), what, within });
            };
            let name = || self.name(agent).to_owned();
            match event {
                AgentEvent::Lost(why) => return Err(FleetError::Lost { agent: name(), why }),
                AgentEvent::Refused(words) => return Err(FleetError::Refused { agent: name(), what, words }),
                event => answers[agent] = pick(event).or(answers[agent].take()),
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Lets every agent go.
    pub async fn release(self) {
        let Self { sessions, events } = self;
        drop(events);
        join_all(sessions.into_iter().map(|session| session.close(RELEASE_LIMIT))).await;
    }
}
