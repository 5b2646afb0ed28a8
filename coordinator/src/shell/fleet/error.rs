//! Why a fleet cannot do what it is asked, and whether that may pass.

use std::time::Duration;

use plimsoll_proto::PROTOCOL_VERSION;

/// What an agent's refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its way to the target fails.
    Unreachable,
    /// The start instant was past when it heard of it.
    TooLate,
    /// Its box lacks something.
    Box,
    /// What it was asked.
    Order,
}

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
    /// The agent is leased to a process before this one, which is gone or was told so: the lease ends by itself.
    #[error(
        "agent {agent} is still leased to an earlier process of this coordinator or run ({coordinator}, run {run_id}): that lease \
         ends within its --lease-timeout once the process is gone; start this then, or give --wait-agents"
    )]
    HeldBefore {
        /// Its address.
        agent: String,
        /// What that process calls itself.
        coordinator: String,
        /// That process's run.
        run_id: String,
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
        "agent {agent} accepts runs of at most {} (its --max-run), and this one may take {}: shorten the run",
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
        /// What kind of refusal.
        kind: Refusal,
    },
    /// Too few agents are there by the end of the wait.
    #[error(
        "{there} of {wanted} agents were there within {} (--wait-agents, --wait-timeout){}",
        humantime::format_duration(*within),
        list(missing)
    )]
    TooFew {
        /// So many are.
        there: usize,
        /// So many were waited for.
        wanted: usize,
        /// For so long.
        within: Duration,
        /// What kept the others away when they were last looked for.
        missing: Vec<FleetError>,
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

/// Agents beyond this many are counted only.
const NAMED: usize = 8;

fn list(missing: &[FleetError]) -> String {
    let named: String = missing.iter().take(NAMED).map(|error| format!("; {error}")).collect();
    match missing.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

impl FleetError {
    /// Whether an agent with this error may be there later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Denied { .. } | Self::HeldBefore { .. })
    }

    /// Whether the agent works for another coordinator.
    pub fn is_of_another(&self) -> bool {
        matches!(self, Self::Denied { words, .. } if words.contains("is leased to "))
    }

    /// Whether it is an agent that is missing, which others may stand in for, and nothing that was asked.
    pub fn is_a_loss(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::Lost { .. } => true,
            Self::Refused { kind, .. } => matches!(kind, Refusal::Unreachable | Refusal::Box),
            _ => false,
        }
    }

    /// Whether somebody has to change what was asked, rather than look after a box.
    pub fn is_usage(&self) -> bool {
        !matches!(
            self,
            Self::NoAnswer { .. }
                | Self::Lost { .. }
                | Self::HeldBefore { .. }
                | Self::Refused { kind: Refusal::Box, .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_that_lacks_something_is_missing_and_nobody_has_to_change_what_was_asked() {
        let refused = |kind| FleetError::Refused { agent: "a".into(), what: "do it", words: "no".into(), kind };
        let classed = |kind| (refused(kind).is_a_loss(), refused(kind).is_usage());
        assert_eq!(classed(Refusal::Box), (true, false));
        assert_eq!(classed(Refusal::Unreachable), (true, true));
        assert_eq!(classed(Refusal::Order), (false, true));
    }
}
