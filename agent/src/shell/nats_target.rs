//! A worker's connection to the target, and what the client reports about it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use plimsoll_common::plan::{Credentials, Login, Target, TlsIdentity, redact_url};
use plimsoll_common::wire::{MAX_WORDS, printable};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::tls::{install_provider, provider};
use crate::core::limits::ServerAddress;

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
pub struct ClientEvents(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    reported: Reported,
    /// The first denial, in the server's words. Stays: what is denied once is denied.
    denied: Option<String>,
}

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
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Connected => return,
            Event::SlowConsumer(_) => heard.reported.dropped = true,
            Event::Disconnected
            | Event::LameDuckMode
            | Event::Draining
            | Event::Closed
            | Event::ServerError(_)
            | Event::ClientError(_) => {}
        }
        // A server's words are a peer's.
        let words = printable(&event.to_string(), MAX_WORDS);
        if heard.denied.is_none() && words.to_lowercase().contains("permission") {
            heard.denied = Some(words.clone());
        }
        if heard.reported.errors.len() < MAX_ERRORS {
            heard.reported.errors.push(words);
        }
    }

    /// What the server has denied first, if anything.
    pub fn denial(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).denied.clone()
    }

    /// Takes what was reported since the last call.
    pub fn take(&self) -> Reported {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).reported)
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
    let addresses =
        bare_addresses(&target.url).map_err(|words| ConnectError::Unreachable { url: url.clone(), words })?;
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

/// The servers of a list of addresses, as the client will dial them.
///
/// # Errors
/// One is no address; without repeating it, since it may carry a secret.
pub fn servers(url: &str) -> Result<Vec<ServerAddress>, String> {
    let server = |address: ServerAddr| ServerAddress {
        scheme: address.scheme().to_owned(),
        host: address.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: address.port(),
    };
    Ok(addresses(url)?.into_iter().map(server).collect())
}

fn addresses(url: &str) -> Result<Vec<ServerAddr>, String> {
    let parse = |address: &str| {
        address.trim().parse::<ServerAddr>().map_err(|_| format!("{} is no address of NATS", redact_url(address)))
    };
    url.split(',').map(parse).collect()
}

/// The addresses without what they carry before their `@`: that is handed to the client apart, and so it has none to log.
///
/// # Errors
/// As [`servers`].
pub fn bare_addresses(url: &str) -> Result<Vec<ServerAddr>, String> {
    let bare =
        |server: ServerAddress| server.to_string().parse().map_err(|_| format!("{server} is no address of NATS"));
    servers(url)?.into_iter().map(bare).collect()
}

/// Options that carry the target's credentials: what the URL has before its `@` (user and password, or a token), which the
/// client itself does not read; or what was given beside it.
///
/// # Errors
/// When the credentials make no sense; without repeating them.
pub fn authenticated(target: &Target) -> Result<ConnectOptions, String> {
    install_provider();
    let mut options = ConnectOptions::new();
    options = match url_login(&target.url)? {
        Some((user, Some(password))) => options.user_and_password(user, password),
        Some((token, None)) => options.token(token),
        None => options,
    };
    let Some(Credentials { login, tls_ca, tls_identity }) = &target.credentials else { return Ok(options) };
    options = match login {
        None => options,
        Some(Login::Token(token)) => options.token(token.clone()),
        Some(Login::NkeySeed(seed)) => {
            nkeys::KeyPair::from_seed(seed).map_err(|_| "--nats-nkey: no seed of an NKey".to_owned())?;
            options.nkey(seed.clone())
        }
        // The client's error may repeat what it read.
        Some(Login::CredentialsFile(text)) => {
            options.credentials(text).map_err(|_| "--nats-creds: no credentials file of NATS".to_owned())?
        }
    };
    if tls_ca.is_none() && tls_identity.is_none() {
        return Ok(options);
    }
    Ok(options.require_tls(true).tls_client_config(client_config(tls_ca.as_deref(), tls_identity.as_ref())?))
}

/// What the URL has before its `@`: user and password, or a token.
///
/// # Errors
/// As [`servers`].
pub fn url_login(url: &str) -> Result<Option<(String, Option<String>)>, String> {
    let named = addresses(url)?.into_iter().find(ServerAddr::has_user_pass);
    Ok(named.map(|address| (decoded(address.username().unwrap_or_default()), address.password().map(decoded))))
}

/// What an address carries is written with `%` and two digits for what would end it.
fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Whom we take for the target, and what we show to it.
///
/// # Errors
/// A certificate or key that is none; without repeating it.
pub fn client_config(ca: Option<&str>, identity: Option<&TlsIdentity>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in certificates("--nats-tls-ca", pem)? {
                roots.add(certificate).map_err(|error| format!("--nats-tls-ca: no CA certificate: {error}"))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let Some(identity) = identity else { return Ok(config.with_no_client_auth()) };
    let chain = certificates("--nats-tls-cert", &identity.certificates)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
    let key = key.map_err(|_| "--nats-tls-key: holds no private key in PEM".to_owned())?;
    let config = config.with_client_auth_cert(chain, key);
    config.map_err(|error| format!("--nats-tls-cert and --nats-tls-key do not go together: {error}"))
}

fn certificates(flag: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| format!("{flag}: holds no certificate in PEM"))
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
    printable(&words, MAX_WORDS)
}
