//! `plimsoll-agent`, the daemon on a load box, and the library that also runs inside the CLI.
//!
//! A coordinator's stream ([`shell::server`]) becomes a [`shell::session`], which is the lease. It deals rooms and users to
//! [`shell::worker`]s, each of which paces a [`core::schedule`], drives a [`workload`] and keeps a [`core::ledger`]; the
//! blocks that they close are merged ([`shell::aggregate`]) and streamed back.

pub mod command_line;
pub mod core;
pub mod shell;
pub mod workload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_common::plan::MAX_WORKERS;
use tokio::net::TcpListener;
use tokio::sync::watch;

use core::limits::Limits;
pub use shell::clock;
use shell::metrics::Metrics;
use shell::server::{Door, Stay};
use shell::session::SessionConfig;

/// How long a coordinator has to read why a session ended at once.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What an operator sets.
#[derive(Debug, Clone, Default)]
pub struct AgentConfig {
    /// Worker threads; by default one per core less one, at least one.
    pub workers: Option<usize>,
    /// What no coordinator can raise.
    pub limits: Limits,
    /// Whom it lets in.
    pub door: Door,
    /// Whether it stays for another run.
    pub after_run: AfterRun,
    /// It leaves once nobody has held it for so long.
    pub idle_limit: Option<Duration>,
}

/// How an agent's service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// As it was told, or because there was nothing to do.
    ToTheEnd,
    /// It left after a run that ended for it alone: its lease timed out, or its coordinator is gone.
    RunLost,
}

/// What an agent does once a run that it was prepared for is over, however it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterRun {
    /// It waits for the next.
    #[default]
    Stay,
    /// It leaves.
    Leave,
}

/// An agent that listens.
#[derive(Debug)]
pub struct Agent {
    listener: TcpListener,
    address: SocketAddr,
    door: Door,
    config: SessionConfig,
    idle_limit: Option<Duration>,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The address is taken, or not this box's.
    #[error("cannot listen on {address}: {error}; choose a free address of this host")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// No thread to work with, or more than ids can tell apart.
    #[error("--workers: got '{got}', expected 1 to {}", MAX_WORKERS - 1)]
    Workers {
        /// What was asked for.
        got: usize,
    },
    /// More workers than connections, and each has one.
    #[error("--max-connections: got '{limit}', and {workers} workers need one connection each: lower --workers")]
    Connections {
        /// The limit.
        limit: u32,
        /// What was asked for.
        workers: usize,
    },
    /// The listener broke.
    #[error("serving stopped: {0}")]
    Serve(#[from] tonic::transport::Error),
}

impl AgentError {
    /// Whether what was asked for makes no sense, now and later; otherwise it may go the next time.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Workers { .. } | Self::Connections { .. })
    }
}

impl Agent {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the number of workers makes no sense.
    pub async fn bind(address: SocketAddr, config: AgentConfig) -> Result<Self, AgentError> {
        let most = config.limits.max_connections.map_or(usize::MAX, |limit| limit as usize);
        let workers = config.workers.unwrap_or_else(|| default_workers().min(most));
        if !(1..MAX_WORKERS).contains(&workers) {
            return Err(AgentError::Workers { got: workers });
        }
        if let Some(limit) = config.limits.max_connections.filter(|_| workers > most) {
            return Err(AgentError::Connections { limit, workers });
        }
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, bound) = bound.await.map_err(|error| AgentError::Listen { address, error })?;
        let metrics = Metrics::new();
        let AgentConfig { limits, door, after_run, idle_limit, .. } = config;
        let config = SessionConfig { workers: workers as u8, limits, metrics, after_run };
        Ok(Self { listener, address: bound, door, config, idle_limit })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The agent's own metrics.
    pub fn metrics(&self) -> Metrics {
        self.config.metrics.clone()
    }

    /// Serves coordinators, one at a time, until `shutdown` resolves; a session that is running then sends nothing new, lets
    /// what is open end and says what it counted. Once `at_once` resolves too, it ends without. One that leaves after its run
    /// ends by itself.
    ///
    /// # Errors
    /// When the listener breaks.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()>,
        at_once: impl Future<Output = ()>,
    ) -> Result<Served, AgentError> {
        let (stay, mut stays) = watch::channel(Stay::Serving);
        let stay = Arc::new(stay);
        let how = || if *stay.borrow() == Stay::RunLost { Served::RunLost } else { Served::ToTheEnd };
        let serving = shell::server::serve(self.listener, self.door, self.config, &stay, self.idle_limit);
        let leaving = async move { drop(stays.wait_for(|stay| stay.is_leaving()).await) };
        tokio::pin!(serving, shutdown);
        tokio::select! {
            served = &mut serving => return Ok(served.map(|()| how())?),
            () = leaving => {}
            () = shutdown => {
                stay.send_replace(Stay::Draining);
                tokio::select! {
                    served = &mut serving => return Ok(served.map(|()| how())?),
                    () = at_once => {}
                }
                stay.send_replace(Stay::Leaving);
            }
        }
        // A coordinator that does not read would keep the process for as long as it likes.
        match tokio::time::timeout(LAST_WORDS, serving).await {
            Ok(served) => Ok(served.map(|()| how())?),
            Err(_) => Ok(how()),
        }
    }
}

/// One worker per core less one, at least one: the box's other work needs a place too.
pub fn default_workers() -> usize {
    shell::health::cores().saturating_sub(1).clamp(1, MAX_WORKERS - 1)
}
