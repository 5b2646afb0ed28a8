//! The command line of the daemon: what an operator sets, checked into an [`AgentConfig`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use plimsoll_common::units::{Rate, parse_duration};

use crate::core::certificate::Side;
use crate::core::limits::{Limits, TargetPattern, Targets};
use crate::shell::server::Door;
use crate::shell::tls::{Identity, TlsFiles};
use crate::{AfterRun, AgentConfig};

/// The name in the certificate that `plimsoll certs` makes for a coordinator.
const COORDINATOR: &str = "plimsoll-coordinator";

/// Plimsoll's load agent: waits for a coordinator, generates the load it asks for, and stops when the coordinator is gone.
#[derive(Debug, Parser)]
#[command(
    name = "plimsoll-agent",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  plimsoll-agent\n  plimsoll-agent --listen 127.0.0.1:7710 --workers 2\n  \
    plimsoll-agent --metrics-listen 127.0.0.1:9710\n  \
    plimsoll-agent --allow-target nats://chat.example.com:4222 --max-rate 20k --max-run 1h\n\nExit codes: 0 ended as asked, \
    1 the run went on without this agent (--exit-after-run), 2 usage, 3 could not serve, as when an address is in use, or standard \
    output cannot be written."
)]
pub struct Flags {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Address to listen on for coordinators. Anything but loopback needs TLS or --insecure
    #[arg(long, value_name = "ADDRESS", env = "PLIMSOLL_LISTEN", default_value = "127.0.0.1:7700")]
    pub listen: SocketAddr,
    /// Worker threads, each with a connection to the target [default: one per core less one, at least one]
    #[arg(long, value_name = "COUNT", env = "PLIMSOLL_WORKERS")]
    pub workers: Option<usize>,
    /// Most requests per second that any coordinator gets from this agent (500, 20k)
    #[arg(long, value_name = "RATE", env = "PLIMSOLL_MAX_RATE")]
    pub max_rate: Option<Rate>,
    /// Most connections to the target that a run may open here; each worker needs one
    #[arg(long, value_name = "COUNT", env = "PLIMSOLL_MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: Option<u32>,
    /// How long a run may hold this agent before its session is ended (30m, 8h)
    #[arg(long, value_name = "TIME", env = "PLIMSOLL_MAX_RUN", value_parser = at_least_a_second)]
    pub max_run: Option<Duration>,
    /// Targets that load may be sent to: [SCHEME://]HOST[:PORT], where HOST is a name, *.example.com, an address, a network
    /// (10.1.0.0/16) or *; may be repeated [default: anywhere when listening on loopback, else loopback only]
    #[arg(long, value_name = "PATTERN", env = "PLIMSOLL_ALLOW_TARGET", value_delimiter = ',')]
    pub allow_target: Vec<String>,
    /// This agent's certificate (PEM); coordinators then have to use mutual TLS
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// The CA (PEM) that must have issued the coordinators' certificates
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// A name that a coordinator's certificate has to carry to be accepted; may be repeated [default: plimsoll-coordinator]
    #[arg(long, value_name = "NAME", env = "PLIMSOLL_ALLOW_COORDINATOR", value_delimiter = ',')]
    pub allow_coordinator: Vec<String>,
    /// Address to serve Prometheus metrics and /healthz on
    #[arg(long, value_name = "ADDRESS", env = "PLIMSOLL_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Exit after the first run that this agent was prepared for, or that ended before it was: with code 0 if the coordinator
    /// ended it, with 1 if the run goes on without this agent or the coordinator is gone
    #[arg(long, env = "PLIMSOLL_EXIT_AFTER_RUN")]
    pub exit_after_run: bool,
    /// Exit with code 0 once no coordinator has held this agent for this long, such as 15m
    #[arg(long, value_name = "TIME", value_parser = at_least_a_second, env = "PLIMSOLL_EXIT_WHEN_IDLE")]
    pub exit_when_idle: Option<Duration>,
    /// Listen beyond loopback without TLS: whoever can reach the port can make this box send load
    #[arg(long, env = "PLIMSOLL_INSECURE")]
    pub insecure: bool,
}

/// What the program does instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Asks an agent's /healthz whether it serves: exit code 0 if it does, 1 if not
    Health(Health),
    /// Prints a shell completion script for this program
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Writes this program's manual pages
    Man {
        /// The directory to write to, created if it does not exist
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// `plimsoll-agent health`.
#[derive(Debug, Args)]
pub struct Health {
    /// The agent's --metrics-listen; if that is unspecified (0.0.0.0), loopback is asked
    #[arg(long, value_name = "ADDRESS", env = "PLIMSOLL_METRICS_LISTEN", default_value = "127.0.0.1:9700")]
    pub at: SocketAddr,
}

/// The program's command line, for its completions and manual.
pub fn command() -> clap::Command {
    Flags::command()
}

fn at_least_a_second(text: &str) -> Result<Duration, String> {
    let length = parse_duration(text).filter(|length| *length >= Duration::from_secs(1));
    length.ok_or_else(|| "expected a time with its unit, at least 1s, such as 30m".to_owned())
}

impl Flags {
    /// What they ask for; files of certificates are read.
    ///
    /// # Errors
    /// Flags that do not go together, or files that do not do.
    pub fn config(&self) -> anyhow::Result<AgentConfig> {
        let after_run = if self.exit_after_run { AfterRun::Leave } else { AfterRun::Stay };
        let idle_limit = self.exit_when_idle;
        Ok(AgentConfig { workers: self.workers, limits: self.limits()?, door: self.door()?, after_run, idle_limit })
    }

    fn limits(&self) -> anyhow::Result<Limits> {
        // Not by clap, which repeats what it cannot read: it may carry a password.
        let pattern = |text: &String| text.parse::<TargetPattern>().map_err(|error| anyhow!("--allow-target: {error}"));
        let targets = match self.allow_target.as_slice() {
            [] if self.listen.ip().is_loopback() => Targets::Any,
            [] => Targets::LoopbackOnly,
            patterns => Targets::Named(patterns.iter().map(pattern).collect::<anyhow::Result<_>>()?),
        };
        Ok(Limits { max_rate: self.max_rate, max_connections: self.max_connections, max_run: self.max_run, targets })
    }

    /// Whom they let in.
    fn door(&self) -> anyhow::Result<Door> {
        let files = TlsFiles::of(self.tls_cert.clone(), self.tls_key.clone(), self.tls_ca.clone());
        let files = match files {
            Ok(files) => files,
            Err(missing) => bail!("{missing} is missing: TLS needs --tls-cert, --tls-key and --tls-ca together"),
        };
        let Some(files) = files else {
            if !self.allow_coordinator.is_empty() {
                bail!("--allow-coordinator: only certificates have names: add --tls-cert, --tls-key and --tls-ca");
            }
            if !self.listen.ip().is_loopback() && !self.insecure {
                bail!(
                    "--listen {} is not loopback: whoever reaches it could make this box send load; give --tls-cert, --tls-key \
                     and --tls-ca (`plimsoll certs` makes them), or --insecure if the network is yours alone",
                    self.listen
                );
            }
            return Ok(Door::Open);
        };
        if self.insecure {
            bail!("--insecure and --tls-cert exclude each other: give only one of the two");
        }
        let acceptor = Identity::load(&files, Side::Agent)?.acceptor()?;
        let names = match self.allow_coordinator.as_slice() {
            [] => vec![COORDINATOR.to_owned()],
            names => names.to_vec(),
        };
        if names.iter().any(String::is_empty) {
            bail!("--allow-coordinator: got '', expected a name in a coordinator's certificate");
        }
        Ok(Door::Tls { acceptor, coordinators: names.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str]) -> Result<Limits, String> {
        let flags = Flags::try_parse_from([&["plimsoll-agent"], arguments].concat()).map_err(|e| e.to_string())?;
        flags.config().map(|config| config.limits).map_err(|error| error.to_string())
    }

    #[test]
    fn beyond_loopback_it_takes_tls_or_the_word_for_none() {
        assert!(check(&[]).is_ok());
        assert!(check(&["--listen", "0.0.0.0:7700"]).unwrap_err().contains("is not loopback"));
        assert_eq!(check(&["--listen", "0.0.0.0:7700", "--insecure"]).unwrap().targets, Targets::LoopbackOnly);
        assert!(check(&["--tls-cert", "a.pem"]).unwrap_err().starts_with("--tls-key is missing"));
    }

    #[test]
    fn what_it_does_in_place_of_serving_takes_no_flags_of_serving() {
        assert!(Flags::try_parse_from(["plimsoll-agent", "--workers", "2", "health"]).is_err());
        let flags = Flags::try_parse_from(["plimsoll-agent", "health", "--at", "127.0.0.1:9"]).unwrap();
        assert!(matches!(flags.command, Some(Command::Health(Health { at })) if at.port() == 9));
        assert!(Flags::try_parse_from(["plimsoll-agent", "completions", "tcsh"]).is_err());
    }
}
