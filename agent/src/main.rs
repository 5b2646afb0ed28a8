//! The agent daemon: parses, starts tracing and the runtime, serves, and turns the outcome into an exit code.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use plimsoll_agent::core::certificate::Side;
use plimsoll_agent::core::limits::{Limits, TargetPattern, Targets};
use plimsoll_agent::shell::logs;
use plimsoll_agent::shell::server::Door;
use plimsoll_agent::shell::tls::{Identity, TlsFiles};
use plimsoll_agent::{AfterRun, Agent, AgentConfig};
use plimsoll_common::units::Rate;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Exit code for usage and configuration, as the CLI's.
const USAGE: u8 = 2;
/// The name in the certificate that `plimsoll certs` makes for a coordinator.
const COORDINATOR: &str = "plimsoll-coordinator";

/// Plimsoll's load agent: waits for a coordinator, makes the load it is told to, and is silent without one.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  plimsoll-agent\n  plimsoll-agent --listen 127.0.0.1:7710 --workers 2\n  \
    plimsoll-agent --metrics-listen 127.0.0.1:9710\n  \
    plimsoll-agent --allow-target nats://chat.example.com:4222 --max-rate 20k --max-run 1h"
)]
struct Flags {
    /// Address to listen on for coordinators. Anything but loopback needs TLS, or --insecure
    #[arg(long, env = "PLIMSOLL_LISTEN", default_value = "127.0.0.1:7700")]
    listen: SocketAddr,
    /// Worker threads, each with a connection to the target [default: one per core less one, at least one]
    #[arg(long, env = "PLIMSOLL_WORKERS")]
    workers: Option<usize>,
    /// Ceiling on this agent's share in requests per second, which no coordinator can raise (500, 20k)
    #[arg(long, env = "PLIMSOLL_MAX_RATE")]
    max_rate: Option<Rate>,
    /// Connections to the target that a run may open here, one per worker
    #[arg(long, value_name = "COUNT", env = "PLIMSOLL_MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// How long a run may hold this agent; its session ends then, whatever the coordinator wants (30m, 8h)
    #[arg(long, value_name = "TIME", env = "PLIMSOLL_MAX_RUN", value_parser = max_run)]
    max_run: Option<Duration>,
    /// Where load may go: [SCHEME://]HOST[:PORT], HOST being a name, *.example.com, an address, a network (10.1.0.0/16) or *;
    /// may be repeated [default: anywhere when listening on loopback, else loopback only]
    #[arg(long, value_name = "PATTERN", env = "PLIMSOLL_ALLOW_TARGET", value_delimiter = ',')]
    allow_target: Vec<TargetPattern>,
    /// This agent's certificate in PEM: coordinators are then let in over mutual TLS only
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// The CA in PEM whose certificates coordinators must show
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// A name in the certificates of coordinators to work for; may be repeated [default: plimsoll-coordinator]
    #[arg(long, value_name = "NAME", env = "PLIMSOLL_ALLOW_COORDINATOR", value_delimiter = ',')]
    allow_coordinator: Vec<String>,
    /// Address to serve Prometheus metrics and /healthz on
    #[arg(long, env = "PLIMSOLL_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// End with exit code 0 once the first run is over that this agent was prepared for, however it ended
    #[arg(long, env = "PLIMSOLL_EXIT_AFTER_RUN")]
    exit_after_run: bool,
    /// Listen beyond loopback without TLS: whoever reaches the port can make this box send load
    #[arg(long, env = "PLIMSOLL_INSECURE")]
    insecure: bool,
}

fn max_run(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text).ok().filter(|length| *length >= Duration::from_secs(1));
    length.ok_or_else(|| "takes a time with its unit, at least 1s, such as 30m".to_owned())
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    logs::start("plimsoll_agent=info");
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("starting the runtime")),
    };
    match runtime.block_on(run(flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    logs::say(format_args!("error: {error:#}"));
    ExitCode::from(USAGE)
}

/// Whom the flags let in.
fn door(flags: &Flags) -> anyhow::Result<Door> {
    let files = TlsFiles::of(flags.tls_cert.clone(), flags.tls_key.clone(), flags.tls_ca.clone());
    let files = match files {
        Ok(files) => files,
        Err(missing) => bail!("{missing} is missing: TLS takes --tls-cert, --tls-key and --tls-ca together"),
    };
    let Some(files) = files else {
        if !flags.allow_coordinator.is_empty() {
            bail!(
                "--allow-coordinator: only certificates have names: takes --tls-cert, --tls-key and --tls-ca besides"
            );
        }
        if !flags.listen.ip().is_loopback() && !flags.insecure {
            bail!(
                "--listen {} is not loopback: whoever reaches it could make this box send load; give --tls-cert, --tls-key \
                 and --tls-ca (`plimsoll certs` makes them), or --insecure if the network is yours alone",
                flags.listen
            );
        }
        return Ok(Door::Open);
    };
    if flags.insecure {
        bail!("--insecure and --tls-cert exclude each other: takes one of the two");
    }
    let acceptor = Identity::load(&files, Side::Agent)?.acceptor()?;
    let names = match flags.allow_coordinator.as_slice() {
        [] => vec![COORDINATOR.to_owned()],
        names => names.to_vec(),
    };
    if names.iter().any(String::is_empty) {
        bail!("--allow-coordinator: got '', takes a name in a coordinator's certificate");
    }
    Ok(Door::Tls { acceptor, coordinators: names.into() })
}

fn limits(flags: &Flags) -> Limits {
    let targets = match flags.allow_target.as_slice() {
        [] if flags.listen.ip().is_loopback() => Targets::Any,
        [] => Targets::LoopbackOnly,
        patterns => Targets::Named(patterns.to_vec()),
    };
    Limits { max_rate: flags.max_rate, max_connections: flags.max_connections, max_run: flags.max_run, targets }
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    let after_run = if flags.exit_after_run { AfterRun::Leave } else { AfterRun::Stay };
    let config = AgentConfig { workers: flags.workers, limits: limits(&flags), door: door(&flags)?, after_run };
    let limits = config.limits.clone();
    let agent = Agent::bind(flags.listen, config).await?;
    if let Some(address) = flags.metrics_listen {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("--metrics-listen: cannot listen on {address}, takes a free address of this host")
        })?;
        tokio::spawn(agent.metrics().serve(listener));
    }
    tracing::info!(targets = %limits.targets, max_run = ?limits.max_run, "listens within these limits");
    // Scripts wait for this line, and find the port in it.
    let mut stdout = std::io::stdout();
    let announced = writeln!(stdout, "plimsoll-agent listens on {}", agent.local_addr()).and_then(|()| stdout.flush());
    announced.context("stdout cannot be written")?;
    let (first, second) = two_signals()?;
    agent.serve(first, second).await?;
    Ok(())
}

/// Resolve with the first and with the second SIGTERM or SIGINT.
fn two_signals() -> anyhow::Result<(impl Future<Output = ()>, impl Future<Output = ()>)> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            count.send_modify(|count| *count += 1);
            tracing::info!("shutting down once open operations have ended; another signal ends them");
        }
    });
    let nth = |n: u32| {
        let mut counted = counted.clone();
        async move { drop(counted.wait_for(|&count| count >= n).await) }
    };
    Ok((nth(1), nth(2)))
}
