//! The agent daemon: parses, starts tracing and the runtime, serves, and turns the outcome into an exit code.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser;
use plimsoll_agent::{Agent, AgentConfig};
use plimsoll_common::units::Rate;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Exit code for usage and configuration, as the CLI's.
const USAGE: u8 = 2;

/// Plimsoll's load agent: waits for a coordinator, makes the load it is told to, and is silent without one.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  plimsoll-agent\n  plimsoll-agent --listen 127.0.0.1:7710 --workers 2\n  \
    plimsoll-agent --metrics-listen 127.0.0.1:9710"
)]
struct Flags {
    /// Address to listen on for coordinators. Anything but loopback needs --insecure
    #[arg(long, env = "PLIMSOLL_LISTEN", default_value = "127.0.0.1:7700")]
    listen: SocketAddr,
    /// Worker threads, each with a connection to the target [default: one per core less one, at least one]
    #[arg(long, env = "PLIMSOLL_WORKERS")]
    workers: Option<usize>,
    /// Ceiling on this agent's share in requests per second, which no coordinator can raise (500, 20k)
    #[arg(long, env = "PLIMSOLL_MAX_RATE")]
    max_rate: Option<Rate>,
    /// Address to serve Prometheus metrics and /healthz on
    #[arg(long, env = "PLIMSOLL_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// Listen beyond loopback without TLS: whoever reaches the port can make this box send load
    #[arg(long, env = "PLIMSOLL_INSECURE")]
    insecure: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "plimsoll_agent=info".into()),
        )
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
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
    eprintln!("error: {error:#}");
    ExitCode::from(USAGE)
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    if !flags.listen.ip().is_loopback() && !flags.insecure {
        bail!(
            "--listen {} is not loopback: whoever reaches it could make this box send load; give --insecure if the \
             network is yours alone",
            flags.listen
        );
    }
    let agent = Agent::bind(flags.listen, AgentConfig { workers: flags.workers, max_rate: flags.max_rate }).await?;
    if let Some(address) = flags.metrics_listen {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("--metrics-listen: cannot listen on {address}, takes a free address of this host")
        })?;
        tokio::spawn(agent.metrics().serve(listener));
    }
    // Scripts wait for this line, and find the port in it.
    println!("plimsoll-agent listens on {}", agent.local_addr());
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
