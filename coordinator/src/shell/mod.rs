//! What talks: [`run`] asks the core and carries out what it says, with a [`fleet`] of [`session`]s (started here by
//! [`local_agents`] where no addresses are given), the target's [`monitor`], and those who watch ([`progress`],
//! [`metrics`]).

pub mod backlog;
pub mod fleet;
pub mod identity;
pub mod jsz;
pub mod live;
pub mod local_agents;
pub mod metrics;
pub mod minutes;
pub mod monitor;
pub mod preflight;
pub mod progress;
pub mod run;
pub mod seeded;
pub mod session;
mod setup;
pub mod signals;
pub mod target;
pub mod tls;
pub mod trial;
pub mod users;

/// Why a run cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT or SIGTERM.
    Interrupted,
    /// Anything else; for people.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}
