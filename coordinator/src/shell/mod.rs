//! What talks: [`run`] asks the core and carries out what it says, with a [`fleet`] of [`session`]s (started here by
//! [`local_agents`] where no addresses are given), the target's [`monitor`], and those who watch ([`progress`],
//! [`metrics`]).

pub mod backlog;
pub mod calibrate;
pub mod describe;
pub mod fleet;
pub mod identity;
pub mod jsz;
mod let_go;
pub mod live;
pub mod local_agents;
mod losses;
pub mod metrics;
pub mod minutes;
pub mod monitor;
mod muster;
pub mod preflight;
pub mod progress;
pub mod run;
pub mod seeded;
pub mod session;
pub mod setup;
pub mod signals;
pub mod target;
pub mod tls;
pub mod trial;
pub mod users;

use self::fleet::FleetError;
use crate::core::split::SplitError;

/// Why a run cannot go on as it was going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT or SIGTERM.
    Interrupted,
    /// An agent: whether the run goes on without it is not for whoever noticed to say.
    Lost(FleetError),
    /// Anything else; for people.
    Failed(String),
}

impl From<FleetError> for Stop {
    fn from(error: FleetError) -> Self {
        if error.is_a_loss() { Self::Lost(error) } else { Self::Failed(error.to_string()) }
    }
}

impl From<SplitError> for Stop {
    fn from(error: SplitError) -> Self {
        Self::Failed(error.to_string())
    }
}
