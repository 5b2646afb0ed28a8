//! Parses, starts tracing and the runtime, calls the library, and turns its outcome into an exit code.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use plimsoll::exit::Failure;
use plimsoll::settings::{self, Invocation, InvocationError};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    let invocation = match settings::read(std::env::args_os(), &environment) {
        Ok(invocation) => invocation,
        Err(InvocationError::CommandLine(error)) => error.exit(),
        Err(InvocationError::Settings(error)) => return fail(&Failure::Usage(error.to_string())),
    };
    start_tracing();
    let ended = match &invocation {
        Invocation::DryRun(plan) => plimsoll::dry_run(plan),
        Invocation::Agents(command) => plimsoll::agents(command),
        Invocation::Saved(command) => plimsoll::saved(command, &environment),
        Invocation::Load(plan) => match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime.block_on(plimsoll::run(plan)),
            Err(error) => Err(Failure::Incomplete(format!("no runtime: {error}"))),
        },
    };
    match ended {
        Ok(code) => code.into(),
        Err(failure) => fail(&failure),
    }
}

/// Warnings only, so that progress stays readable, and nothing of the NATS client, whose errors are ours to report once;
/// `RUST_LOG` says otherwise.
fn start_tracing() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,async_nats=off"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("error: {failure}");
    failure.exit_code().into()
}
