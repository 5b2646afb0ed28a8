//! The fleet in this process: the same agents as the daemon's, each on a loopback port of its own, and dialled like any.

use std::net::{Ipv4Addr, SocketAddr};

use plimsoll_agent::{Agent, AgentConfig};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::session::AgentAddress;

/// Agents that end with this.
#[derive(Debug)]
pub struct LocalAgents {
    /// Where they are.
    pub addresses: Vec<AgentAddress>,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
}

impl LocalAgents {
    /// Starts so many agents of one worker each.
    ///
    /// # Errors
    /// One cannot listen; its words.
    pub async fn start(count: usize) -> Result<Self, String> {
        let (stop, stopped) = watch::channel(false);
        let mut agents = Self { addresses: Vec::new(), stop, serving: Vec::new() };
        for number in 1..=count {
            let config = AgentConfig { workers: Some(1), ..AgentConfig::default() };
            let bound = Agent::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), config).await;
            let agent = bound.map_err(|error| format!("agent {number} in this process cannot start: {error}"))?;
            agents.addresses.push(AgentAddress {
                name: format!("local-{number}"),
                ..AgentAddress::at(&agent.local_addr().to_string())
            });
            let mut stopped = stopped.clone();
            agents.serving.push(tokio::spawn(async move {
                let shutdown = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
                if let Err(error) = agent.serve(shutdown, std::future::ready(())).await {
                    tracing::error!(number, %error, "an agent in this process ended");
                }
            }));
        }
        Ok(agents)
    }

    /// Ends them, and waits until they have.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for serving in self.serving {
            if let Err(error) = serving.await {
                tracing::error!(%error, "an agent in this process panicked");
            }
        }
    }
}
