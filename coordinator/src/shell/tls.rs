//! Dials an agent: in clear, or over mutual TLS where the run has certificates.

use std::net::SocketAddr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use plimsoll_agent::core::certificate::Side;
use plimsoll_agent::shell::tls::{Identity, TlsError, TlsFiles};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as RustlsError, InvalidMessage};
use tonic::transport::{Channel, Endpoint, Uri};

mod heard;
pub use heard::Heard;
use heard::{First, Listening};

/// How agents are reached.
#[derive(Clone, Default)]
pub enum Wire {
    /// As it is.
    #[default]
    Clear,
    /// Encrypted, both sides known.
    Tls(TlsConnector),
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clear => "Clear",
            Self::Tls(_) => "Tls",
        })
    }
}

impl Wire {
    /// Reads the files, where there are any.
    ///
    /// # Errors
    /// They do not do.
    pub fn of(files: Option<&TlsFiles>) -> Result<Self, TlsError> {
        let Some(files) = files else { return Ok(Self::Clear) };
        Ok(Self::Tls(Identity::load(files, Side::Coordinator)?.connector()?))
    }

    /// Whether nobody on the way can read what is said.
    pub fn is_private(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Connects to the agent at this address, whose certificate has to be for `host`.
    ///
    /// # Errors
    /// No connection within the limit, or no handshake; in words.
    pub async fn connect(&self, host: &str, address: SocketAddr, limit: Duration) -> Result<Dialled, String> {
        let heard = Heard::default();
        let connecting = async {
            let socket = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            socket.set_nodelay(true).map_err(|error| error.to_string())?;
            match self {
                Self::Clear => over(address, Listening::to(socket, heard.clone())).await,
                Self::Tls(connector) => {
                    let name = server_name(host)?;
                    let stream =
                        connector.connect(name, socket).await.map_err(|error| handshake_words(host, &error))?;
                    over(address, Listening::to(stream, heard.clone())).await
                }
            }
        };
        let connected = timeout(limit, connecting).await.map_err(|_| format!("no connection within {limit:?}"))?;
        match connected {
            Ok(channel) => {
                // Who says nothing has another limit, for its Hello.
                let _ = timeout(limit, heard.something()).await;
                match explain(&heard, String::new()) {
                    nothing if nothing.is_empty() => Ok(Dialled { channel, heard }),
                    words => Err(words),
                }
            }
            Err(words) => Err(explain(&heard, words)),
        }
    }
}

/// A connection to an agent that has not said anything yet.
#[derive(Debug)]
pub struct Dialled {
    /// For gRPC.
    pub channel: Channel,
    /// What is heard on it.
    pub heard: Heard,
}

/// Why a connection broke before the agent said anything. It looks at our certificate only after we have looked at its own,
/// so that its refusal comes as a broken connection.
pub fn explain(heard: &Heard, words: String) -> String {
    match heard.first() {
        Some(First::TlsRecord) => "it accepts TLS only: give --tls-cert, --tls-key and --tls-ca".to_owned(),
        Some(First::Broke(broke)) => match REFUSALS.iter().find(|alert| broke.ends_with(&format!(" {alert:?}"))) {
            Some(alert) => format!("it refuses our certificate: {}", alert_words(*alert)),
            None => format!("its connection broke: {broke}"),
        },
        Some(First::Bytes) | None => words,
    }
}

/// What TLS says of a certificate that does not do.
const REFUSALS: [AlertDescription; 9] = [
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateRequired,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
];

/// gRPC over a connection that is there; a second one is never made, since the stream is the lease.
async fn over<S>(address: SocketAddr, stream: S) -> Result<Channel, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(stream);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let connector = tower::service_fn(move |_: Uri| {
        let once = stream.take().map(TokioIo::new);
        async move { once.ok_or_else(|| std::io::Error::other("the connection broke")) }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| super::session::chain(&error))
}

/// The name that the agent's certificate must have.
fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|_| format!("'{host}' is no name that a certificate can have"))
}

/// Looks for TLS's own error behind those of whatever carried it.
fn rustls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a RustlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<RustlsError>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| rustls_error(inner)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn handshake_words(host: &str, error: &std::io::Error) -> String {
    match rustls_error(error) {
        Some(RustlsError::InvalidCertificate(why)) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate expired: make it a new one, as `plimsoll certs` does".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet: is a clock wrong?".to_owned()
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is not of the CA in --tls-ca: make both with one CA".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "its certificate is not for the name {host}: name it as its certificate does, or add the name to it"
                )
            }
            other => format!("its certificate does not do: {other}"),
        },
        Some(RustlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "it does not speak TLS: start it with --tls-cert, --tls-key and --tls-ca".to_owned()
        }
        Some(RustlsError::AlertReceived(alert)) => format!("it refuses the TLS handshake: {}", alert_words(*alert)),
        _ => format!("no TLS handshake: {error}"),
    }
}

fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => "it has expired there: is a clock wrong?".to_owned(),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it is not of the CA in the agent's --tls-ca: make both with one CA".to_owned()
        }
        AlertDescription::CertificateRequired => "none was shown".to_owned(),
        AlertDescription::UnsupportedCertificate => "it is not for a coordinator".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::session::AgentAddress;

    #[test]
    fn certificates_are_compared_with_the_name_as_it_was_given() {
        for (agent, name) in [("box-1:7700", "box-1"), ("10.0.0.7:7700", "10.0.0.7"), ("[::1]:7700", "::1")] {
            assert_eq!(server_name(&AgentAddress::at(agent).given).unwrap().to_str(), name);
        }
        assert!(server_name("box 1").is_err());
    }
}
