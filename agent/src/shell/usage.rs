//! How a program ends whose command line is none: clap's words, without the logins that it repeats.

use std::ffi::OsString;
use std::process::ExitCode;

use plimsoll_common::plan::redact_given;

use super::logs;

/// Says what is wrong with the command line, or the help that was asked for; what to exit with. The arguments are as they were before
/// their logins were hidden.
pub fn end(error: &clap::Error, arguments: Vec<OsString>) -> ExitCode {
    let said = error.render().to_string();
    let given = arguments.into_iter().skip(1).chain(std::env::vars_os().map(|(_, value)| value));
    let shown = redact_given(&said, given.map(|given| given.to_string_lossy().into_owned()));
    if shown == said {
        error.exit();
    }
    logs::say(shown.trim_end());
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
