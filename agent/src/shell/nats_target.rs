//! A worker's connection to the target, and what the client reports about it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use plimsoll_common::plan::{Target, redact_url};

/// A server that does not answer within this time is unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A dead server is noticed within a few of these.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that one subscription holds before the client drops some; readers drain always, so that this is never met
/// unless the box stands still.
const SUBSCRIPTION_CAPACITY: usize = 65_536;
/// Errors kept per block.
const MAX_ERRORS: usize = 8;

/// What the client reported since the last look. Shared, because the client calls back from a task of its own.
#[derive(Debug, Clone, Default)]
pub struct ClientEvents(Arc<Mutex<Reported>>);

/// See [`ClientEvents`].
#[derive(Debug, Default)]
pub struct Reported {
    /// In the server's or the client's words.
    pub errors: Vec<String>,
    /// Messages were dropped on this side.
    pub dropped: bool,
}

impl ClientEvents {
    fn push(&self, event: &Event) {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Connected => return,
            Event::SlowConsumer(_) => reported.dropped = true,
            Event::Disconnected
            | Event::LameDuckMode
            | Event::Draining
            | Event::Closed
            | Event::ServerError(_)
            | Event::ClientError(_) => {}
        }
        if reported.errors.len() < MAX_ERRORS {
            reported.errors.push(event.to_string());
        }
    }

    /// What the server denies, as far as it was reported since the last [`Self::take`].
    pub fn denial(&self) -> Option<String> {
        let reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reported.errors.iter().find(|words| words.to_lowercase().contains("permission")).cloned()
    }

    /// Takes what was reported since the last call.
    pub fn take(&self) -> Reported {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("cannot reach NATS at {url}: {words}")]
    Unreachable {
        /// Without secrets.
        url: String,
        /// The client's.
        words: String,
    },
    /// The credentials are not accepted, or cannot be read.
    #[error("NATS at {url} refuses the credentials: {words}")]
    Unauthorized {
        /// Without secrets.
        url: String,
        /// The server's.
        words: String,
    },
}

/// Connects under `name`, so that the target's operators see whose the connection is and can end it.
///
/// # Errors
/// When the server cannot be reached, or refuses.
pub async fn connect(target: &Target, name: &str) -> Result<(Client, ClientEvents), ConnectError> {
    let url = redact_url(&target.url);
    let events = ClientEvents::default();
    let reported = events.clone();
    let options = authenticated(target)
        .map_err(|words| ConnectError::Unauthorized { url: url.clone(), words })?
        .name(name)
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        // Gossip must not lead past the addresses that were given.
        .ignore_discovered_servers()
        .event_callback(move |event| {
            reported.push(&event);
            std::future::ready(())
        });
    let addresses: Vec<String> = target.url.split(',').map(|url| url.trim().to_owned()).collect();
    match tokio::time::timeout(CONNECT_TIMEOUT * 2, options.connect(addresses)).await {
        Ok(Ok(client)) => Ok((client, events)),
        Ok(Err(error)) => {
            let words = words(&error);
            Err(match error.kind() {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    ConnectError::Unauthorized { url, words }
                }
                _ => ConnectError::Unreachable { url, words },
            })
        }
        Err(_) => Err(ConnectError::Unreachable { url, words: "no answer in time".into() }),
    }
}

/// Options that carry the target's credentials: a credentials file's text, or what the URL has before its `@` (user and
/// password, or a token), which the client itself does not read.
///
/// # Errors
/// When the credentials make no sense; without repeating them.
pub fn authenticated(target: &Target) -> Result<ConnectOptions, String> {
    let options = ConnectOptions::new();
    if let Some(credentials) = &target.credentials {
        return options.credentials(credentials).map_err(|error| format!("no credentials file of NATS: {error}"));
    }
    let addresses = target.url.split(',').filter_map(|url| url.trim().parse::<ServerAddr>().ok());
    let named = addresses.into_iter().find(ServerAddr::has_user_pass);
    Ok(match named.as_ref().map(|address| (address.username().unwrap_or_default(), address.password())) {
        Some((user, Some(password))) => options.user_and_password(user.to_owned(), password.to_owned()),
        Some((token, None)) => options.token(token.to_owned()),
        None => options,
    })
}

/// An error with its causes, on one line.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    words
}
