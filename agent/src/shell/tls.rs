//! Mutual TLS between coordinator and agents: TLS 1.3 only, certificates of one CA on both sides, and keys read once.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::files;
use crate::core::certificate::{Certificate, CertificateError, Side};

/// Files of certificates and keys are some kilobytes.
const MOST_BYTES: u64 = 1024 * 1024;
/// A peer that takes longer to shake hands is none.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Handshakes at once. Beyond, the oldest gives way: a coordinator's takes a few round trips, and whoever opens connections and says
/// nothing keeps nobody out.
const MOST_HANDSHAKES: usize = 128;
/// How long, and for how many bytes, a refused peer is heard out.
const PARTING_LIMIT: Duration = Duration::from_secs(1);
const MOST_UNREAD: usize = 64 * 1024;
/// gRPC is spoken over HTTP/2 alone.
const ALPN_H2: &[u8] = b"h2";

/// The files of `--tls-cert`, `--tls-key` and `--tls-ca`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, and what is between it and the CA.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Whose certificates we accept.
    pub ca: PathBuf,
}

impl TlsFiles {
    /// All three or none.
    ///
    /// # Errors
    /// The first that is missing.
    pub fn of(cert: Option<PathBuf>, key: Option<PathBuf>, ca: Option<PathBuf>) -> Result<Option<Self>, &'static str> {
        match (cert, key, ca) {
            (None, None, None) => Ok(None),
            (Some(cert), Some(key), Some(ca)) => Ok(Some(Self { cert, key, ca })),
            (None, ..) => Err("--tls-cert"),
            (_, None, _) => Err("--tls-key"),
            (.., None) => Err("--tls-ca"),
        }
    }
}

/// Why there is no TLS. Never what a file holds.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that does not do.
    #[error("{flag}: got '{}', expected the path of {takes}: {why}", path.display())]
    File {
        /// Whose value it is.
        flag: &'static str,
        /// As given.
        path: PathBuf,
        /// What does.
        takes: &'static str,
        /// What is wrong.
        why: String,
    },
    /// They do not go together.
    #[error("--tls-cert and --tls-key do not go together: {0}")]
    Pair(String),
}

/// Who we are to the fleet, and whom we accept.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

const CERTIFICATE: &str = "a certificate in PEM";
const KEY: &str = "a private key in PEM";

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read or is something else, or the certificate is over or not for this side.
    pub fn load(files: &TlsFiles, side: Side) -> Result<Self, TlsError> {
        let chain = certificates("--tls-cert", &files.cert)?;
        let unfit = |error: CertificateError| file("--tls-cert", &files.cert, CERTIFICATE, error.to_string());
        Certificate::read(&chain[0]).and_then(|own| own.check(side, unix_now_s())).map_err(unfit)?;
        let key = private_key("--tls-key", &files.key)?;
        let roots = Arc::new(roots("--tls-ca", &files.ca, certificates("--tls-ca", &files.ca)?)?);
        Ok(Self { chain, key, roots })
    }

    /// For an agent: takes connections of those alone who show a certificate of the CA.
    ///
    /// # Errors
    /// Certificate and key do not go together.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let pair = |error: &dyn std::fmt::Display| TlsError::Pair(error.to_string());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider())
            .build()
            .map_err(|error| pair(&error))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring speaks TLS 1.3")
            .with_client_cert_verifier(verifier);
        let config = config.with_single_cert(self.chain.clone(), self.key.clone_key());
        let mut config = config.map_err(|error| pair(&error))?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// For a coordinator: shows its certificate, and accepts agents of the CA whose certificate has the name it dialled.
    ///
    /// # Errors
    /// Certificate and key do not go together.
    pub fn connector(&self) -> Result<TlsConnector, TlsError> {
        let pair = |error: &dyn std::fmt::Display| TlsError::Pair(error.to_string());
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider())
            .build()
            .map_err(|error| pair(&error))?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring speaks TLS 1.3")
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key());
        let mut config = config.map_err(|error| pair(&error))?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// The cryptography of all our TLS.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Makes it that of libraries too that ask the process for one; where a build holds several, they would find none.
pub fn install_provider() {
    // Whoever was first has installed the same.
    let _ = ring::default_provider().install_default();
}

/// Seconds since 1970.
pub fn unix_now_s() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn file(flag: &'static str, path: &Path, takes: &'static str, why: impl ToString) -> TlsError {
    TlsError::File { flag, path: path.to_owned(), takes, why: why.to_string() }
}

fn read(flag: &'static str, path: &Path, takes: &'static str) -> Result<Vec<u8>, TlsError> {
    files::read(path, MOST_BYTES).map_err(|why| file(flag, path, takes, why))
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(flag, path, CERTIFICATE)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        // The parser's own words may repeat what it found.
        _ => Err(file(flag, path, CERTIFICATE, "it holds none")),
    }
}

fn private_key(flag: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(flag, path, KEY)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| file(flag, path, KEY, "it holds none"))
}

fn roots(flag: &'static str, path: &Path, chain: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain {
        roots.add(certificate).map_err(|error| file(flag, path, "a CA certificate in PEM", error))?;
    }
    Ok(roots)
}

/// Hears a refused peer out, for a moment: closing with its bytes unread would reset the connection, and the alert that says
/// why might never be read.
async fn part_from(mut socket: TcpStream) {
    let hear_out = async {
        socket.shutdown().await?;
        let mut bytes = [0; 4096];
        let mut left = MOST_UNREAD;
        while left > 0 {
            match socket.read(&mut bytes).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // A peer that breaks off itself needs no more words.
    let _ = tokio::time::timeout(PARTING_LIMIT, hear_out).await;
}

/// Connections whose handshake is done, as they come. Each shakes hands in a task of its own, so that a peer that says
/// nothing keeps nobody waiting; those who fail are told why in the log. Ends with its receiver.
pub fn handshakes(
    listener: TcpListener,
    acceptor: TlsAcceptor,
) -> mpsc::Receiver<std::io::Result<TlsStream<TcpStream>>> {
    let (done, ready) = mpsc::channel(MOST_HANDSHAKES);
    tokio::spawn(async move {
        let mut under_way: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = done.closed() => return,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of descriptors, for instance: the next try would fail at once as well.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            under_way.retain(|handshake| !handshake.is_finished());
            if under_way.len() >= MOST_HANDSHAKES
                && let Some(oldest) = under_way.pop_front()
            {
                oldest.abort();
                tracing::warn!("a TLS handshake is given up: {MOST_HANDSHAKES} are under way");
            }
            let (acceptor, done) = (acceptor.clone(), done.clone());
            let handshake = tokio::spawn(async move {
                let _ = socket.set_nodelay(true);
                match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(socket).into_fallible()).await {
                    // A receiver that is gone means shutting down.
                    Ok(Ok(stream)) => drop(done.send(Ok(stream)).await),
                    Ok(Err((error, socket))) => {
                        tracing::warn!(%peer, %error, "refused: no TLS handshake");
                        part_from(socket).await;
                    }
                    Err(_) => tracing::warn!(%peer, "refused: no TLS handshake within {HANDSHAKE_LIMIT:?}"),
                }
            });
            under_way.push_back(handshake.abort_handle());
        }
    });
    ready
}
