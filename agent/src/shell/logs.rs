//! Logs to stderr, for both programs. What is written never holds a secret, whatever `RUST_LOG` asks for.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging as `RUST_LOG` says, or else as `default` does.
///
/// # Panics
/// If it was started before.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal();
    let words = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
    // It would say on stderr that stderr cannot be written, and panic when that fails.
    let words = words.log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(filter_fn(is_free_of_secrets)).with(words).init();
}

/// A line on stderr. Where it goes to a file on a full disk it is lost, and nothing else is: `eprintln!` would panic.
pub fn say(words: impl Display) {
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// Clients' traces repeat what they write and read, user, password or token among it, and the protocols' own libraries do so with
/// bytes of messages: only our own code is heard at trace.
fn is_free_of_secrets(metadata: &Metadata<'_>) -> bool {
    let root = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() != Level::TRACE || matches!(root, "plimsoll" | "plimsoll_agent" | "plimsoll_common")
}
