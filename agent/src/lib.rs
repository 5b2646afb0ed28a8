//! `plimsoll-agent`, the daemon on a load box, and the library that also runs inside the CLI.
//!
//! A coordinator's stream ([`shell::server`]) becomes a [`shell::session`], which is the lease. It deals rooms and users to
//! [`shell::worker`]s, each of which paces a [`core::schedule`], drives a [`workload`] and keeps a [`core::ledger`]; the
//! blocks that they close are merged ([`shell::aggregate`]) and streamed back.

pub mod core;
pub mod shell;
pub mod workload;

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_common::plan::MAX_WORKERS;
use plimsoll_common::units::Rate;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use shell::clock;
use shell::metrics::Metrics;
use shell::server::Stay;
use shell::session::SessionConfig;

/// How long a coordinator has to read why a session ended at once.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What an operator sets.
#[derive(Debug, Clone, Copy, Default)]
pub struct AgentConfig {
    /// Worker threads; by default one per core less one, at least one.
    pub workers: Option<usize>,
    /// A ceiling on this agent's share that no coordinator can raise.
    pub max_rate: Option<Rate>,
}

/// An agent that listens.
#[derive(Debug)]
pub struct Agent {
    listener: TcpListener,
    address: SocketAddr,
    config: SessionConfig,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The address is taken, or not this box's.
    #[error("cannot listen on {address}: {error}; take a free address of this host")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// No thread to work with, or more than ids can tell apart.
    #[error("--workers: got '{got}', takes 1 to {}", MAX_WORKERS - 1)]
    Workers {
        /// What was asked for.
        got: usize,
    },
    /// The listener broke.
    #[error("serving stopped: {0}")]
    Serve(#[from] tonic::transport::Error),
}

impl Agent {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the number of workers makes no sense.
    pub async fn bind(address: SocketAddr, config: AgentConfig) -> Result<Self, AgentError> {
        let workers = config.workers.unwrap_or_else(default_workers);
        if !(1..MAX_WORKERS).contains(&workers) {
            return Err(AgentError::Workers { got: workers });
        }
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, bound) = bound.await.map_err(|error| AgentError::Listen { address, error })?;
        let metrics = Metrics::new();
        let config = SessionConfig { workers: workers as u8, max_rate: config.max_rate, metrics };
        Ok(Self { listener, address: bound, config })
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
    /// what is open end and says what it counted. Once `at_once` resolves too, it ends without.
    ///
    /// # Errors
    /// When the listener breaks.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()>,
        at_once: impl Future<Output = ()>,
    ) -> Result<(), AgentError> {
        let (stay, stays) = watch::channel(Stay::Serving);
        let serving = shell::server::serve(self.listener, self.config, stays);
        tokio::pin!(serving, shutdown);
        tokio::select! {
            served = &mut serving => return Ok(served?),
            () = shutdown => {}
        }
        stay.send_replace(Stay::Draining);
        tokio::select! {
            served = &mut serving => return Ok(served?),
            () = at_once => {}
        }
        stay.send_replace(Stay::Leaving);
        // A coordinator that does not read would keep the process for as long as it likes.
        match tokio::time::timeout(LAST_WORDS, serving).await {
            Ok(served) => Ok(served?),
            Err(_) => Ok(()),
        }
    }
}

/// One worker per core less one, at least one: the box's other work needs a place too.
pub fn default_workers() -> usize {
    shell::health::cores().saturating_sub(1).clamp(1, MAX_WORKERS - 1)
}
