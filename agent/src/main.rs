//! The agent daemon: parses, starts tracing and the runtime, serves, and turns the outcome into an exit code.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use plimsoll_agent::command_line::{Command, Flags, command};
use plimsoll_agent::shell::panics::{self, After};
use plimsoll_agent::shell::{health_page, host, logs, manual, title, usage};
use plimsoll_agent::{Agent, AgentError, Served};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Exit code for usage and configuration, as the CLI's: what stays wrong, so that whoever starts it again need not.
const USAGE: u8 = 2;
/// Exit code where this host does not let it serve or print, as where an address is taken: it may the next time.
const NOT_SERVED: u8 = 3;
/// Exit code of `health` where nobody serves.
const UNHEALTHY: u8 = 1;
/// Exit code after a run that ended for this agent alone: a job starts it again, and it can rejoin.
const RUN_LOST: u8 = 1;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let parsed = Flags::try_parse_from(&arguments);
    if let Err(why) = title::hide_logins_or_say() {
        return fail(&anyhow::Error::msg(why), USAGE);
    }
    let mut flags = match parsed {
        Ok(flags) => flags,
        Err(error) => return usage::end(&error, arguments),
    };
    match flags.command.take() {
        None => serve(flags),
        Some(command) => instead(command),
    }
}

/// What is done in place of serving.
fn instead(asked: Command) -> ExitCode {
    let (done, code) = match asked {
        Command::Health(health) => {
            return match health_page::ask(health.at) {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => fail(&anyhow::Error::msg(why), UNHEALTHY),
            };
        }
        Command::Completions { shell } => (manual::print(&manual::completions(command(), shell)), NOT_SERVED),
        Command::Man { dir } => (manual::write_pages(command(), &dir), USAGE),
    };
    done.map_or_else(|why| fail(&anyhow::Error::msg(why), code), |()| ExitCode::SUCCESS)
}

fn serve(flags: Flags) -> ExitCode {
    panics::watch(After::Abort);
    logs::start("plimsoll_agent=info");
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("starting the runtime"), NOT_SERVED),
    };
    match runtime.block_on(run(flags)) {
        Ok(Served::ToTheEnd) => ExitCode::SUCCESS,
        Ok(Served::RunLost) => ExitCode::from(RUN_LOST),
        Err(Failed { error, code }) => fail(&error, code),
    }
}

/// Why it does not serve, and what it exits with.
struct Failed {
    error: anyhow::Error,
    code: u8,
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self { error, code: NOT_SERVED }
    }
}

impl From<AgentError> for Failed {
    fn from(error: AgentError) -> Self {
        let code = if error.is_usage() { USAGE } else { NOT_SERVED };
        Self { error: error.into(), code }
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    logs::say(format_args!("error: {error:#}"));
    ExitCode::from(code)
}

async fn run(flags: Flags) -> Result<Served, Failed> {
    let config = flags.config().map_err(|error| Failed { error, code: USAGE })?;
    let limits = config.limits.clone();
    let agent = Agent::bind(flags.listen, config).await?;
    if let Some(address) = flags.metrics_listen {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("--metrics-listen: cannot listen on {address}, choose a free address of this host")
        })?;
        tokio::spawn(agent.metrics().serve(listener));
    }
    let ports = [Some(flags.listen), flags.metrics_listen].into_iter().flatten().map(|address| address.port());
    host::make_ready(flags.max_connections, &ports.filter(|&port| port != 0).collect::<Vec<_>>());
    tracing::info!(targets = %limits.targets, max_run = ?limits.max_run, "listens within these limits");
    // Scripts wait for this line, and find the port in it.
    let mut stdout = std::io::stdout();
    let announced = writeln!(stdout, "plimsoll-agent listens on {}", agent.local_addr()).and_then(|()| stdout.flush());
    announced.context("stdout cannot be written")?;
    let (first, second) = two_signals()?;
    Ok(agent.serve(first, second).await?)
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
