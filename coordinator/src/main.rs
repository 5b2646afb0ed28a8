//! Parses, starts tracing and the runtime, calls the library, and turns its outcome into an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use plimsoll::exit::{ExitCode as ExitCodeOf, Failure};
use plimsoll::settings::{self, Invocation, InvocationError};
use plimsoll_agent::shell::panics::{self, After};
use plimsoll_agent::shell::tls::install_provider;
use plimsoll_agent::shell::{logs, title, usage};

fn main() -> ExitCode {
    panics::watch(After::GoOn);
    install_provider();
    let environment = |name: &str| std::env::var(name).ok();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let read = settings::read(arguments.clone(), &environment);
    if let Err(why) = title::hide_logins_or_say() {
        return fail(&Failure::Usage(why));
    }
    let invocation = match read {
        Ok(invocation) => invocation,
        Err(InvocationError::CommandLine(error)) => return usage::end(&error, arguments),
        Err(InvocationError::Settings(error)) => return fail(&Failure::Usage(error.to_string())),
    };
    // Warnings only, so that progress stays readable, and nothing of the clients, whose errors are ours to report once.
    logs::start("warn,async_nats=off,scylla=off");
    let ended = match &invocation {
        Invocation::DryRun(plan) => plimsoll::dry_run(plan),
        Invocation::Kube(plan) => plimsoll::on_runtime(plimsoll::kube::kube(plan)),
        Invocation::Manual(command) => plimsoll::manual(command),
        Invocation::Agents(command) => plimsoll::agents(command),
        Invocation::Calibrate(command) => plimsoll::calibrate(command),
        Invocation::Saved(command) => plimsoll::saved(command, &environment),
        Invocation::Verify(plan) => plimsoll::on_runtime(plimsoll::verify(plan)),
        Invocation::Teardown(plan) => plimsoll::on_runtime(plimsoll::teardown(plan)),
        Invocation::Certs(command) => {
            plimsoll::certs::make(command).and_then(|words| plimsoll::to_stdout(&words).map(|()| ExitCodeOf::Answer))
        }
        Invocation::Load(plan) => plimsoll::on_runtime(plimsoll::run(plan)),
        Invocation::Seed(plan) => plimsoll::on_runtime(plimsoll::seed(plan)),
    };
    match ended {
        Ok(code) => code.into(),
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    logs::say(format_args!("error: {failure}"));
    failure.exit_code().into()
}
