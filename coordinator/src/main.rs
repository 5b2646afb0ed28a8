//! Parses, starts tracing and the runtime, calls the library, and turns its outcome into an exit code.

use std::process::ExitCode;

use plimsoll::exit::{ExitCode as ExitCodeOf, Failure};
use plimsoll::settings::{self, Invocation, InvocationError};
use plimsoll_agent::shell::logs;

fn main() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    let invocation = match settings::read(std::env::args_os(), &environment) {
        Ok(invocation) => invocation,
        Err(InvocationError::CommandLine(error)) => error.exit(),
        Err(InvocationError::Settings(error)) => return fail(&Failure::Usage(error.to_string())),
    };
    // Warnings only, so that progress stays readable, and nothing of the NATS client, whose errors are ours to report once.
    logs::start("warn,async_nats=off");
    let ended = match &invocation {
        Invocation::DryRun(plan) => plimsoll::dry_run(plan),
        Invocation::Agents(command) => plimsoll::agents(command),
        Invocation::Calibrate(command) => plimsoll::calibrate(command),
        Invocation::Saved(command) => plimsoll::saved(command, &environment),
        Invocation::Certs(command) => plimsoll::certs::make(command).map(|words| {
            plimsoll::to_stdout(&words);
            ExitCodeOf::Answer
        }),
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

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("error: {failure}");
    failure.exit_code().into()
}
