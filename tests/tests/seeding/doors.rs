//! Databases that let in only who shows a certificate, and passwords that no shell, address or log takes as they are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_agent::shell::tls::{TlsFiles, provider};
use plimsoll_tests::harness::certificates::Certificates;
use plimsoll_tests::harness::databases::{MongoOptions, MongoServer, cassandra, documents, need_both};
use plimsoll_tests::harness::processes::Process;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::{LIMIT, both_flags, command, done, refused, through};

const COORDINATOR: &str = "plimsoll-coordinator";

/// Before a server that speaks in clear: lets in who shows a certificate of the CA, and keeps what they show.
struct Door {
    address: SocketAddr,
    shown: Arc<Mutex<Vec<CertificateDer<'static>>>>,
    task: JoinHandle<()>,
}

impl Door {
    async fn before(server: String, own: &TlsFiles) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&own.ca)?)?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build()?;
        let chain = vec![CertificateDer::from_pem_file(&own.cert)?];
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let config = config
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&own.key)?)?;
        let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await?);
        let (address, shown) = (listener.local_addr()?, Arc::new(Mutex::new(Vec::new())));
        let kept = Arc::clone(&shown);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, server, kept) = (acceptor.clone(), server.clone(), Arc::clone(&kept));
                tokio::spawn(async move {
                    let mut client = acceptor.accept(socket).await?;
                    let certificates = client.get_ref().1.peer_certificates().context("nobody was to be let in")?;
                    kept.lock().expect("nobody panics with it").push(certificates[0].clone());
                    let mut server = TcpStream::connect(server).await?;
                    // Either side may go whenever it likes.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    anyhow::Ok(())
                });
            }
        });
        Ok(Self { address, shown, task })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate and its key in one file, as the databases' drivers take them.
fn identity(files: &TlsFiles, to: PathBuf) -> anyhow::Result<PathBuf> {
    let [cert, key] = [&files.cert, &files.key].map(std::fs::read_to_string);
    std::fs::write(&to, cert? + &key?)?;
    Ok(to)
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_asked_for_a_certificate_shows_it_and_nobody_is_let_in_without() {
    need_both();
    let certificates = Certificates::make().unwrap();
    let own = certificates.files("box");
    let door = Door::before(cassandra().unwrap().address(), &own).await.unwrap();
    let address = door.address;
    let (ours, certificates) = tokio::task::spawn_blocking(move || {
        let ours = certificates.files(COORDINATOR);
        let strangers = Certificates::make().unwrap();
        let shown = identity(&ours, certificates.path("ours.pem")).unwrap();
        let foreign = identity(&strangers.files(COORDINATOR), certificates.path("foreign.pem")).unwrap();
        let mongo = MongoServer::start(&MongoOptions {
            tls: Some((own.cert.clone(), own.key.clone())),
            clients_of: Some(own.ca.clone()),
            ..MongoOptions::default()
        });
        let mongo = mongo.unwrap();
        let flags = |of_mongo: Option<&Path>, of_cassandra: Option<&Path>| -> Vec<String> {
            let mut flags = through(&address.to_string(), &both_flags(&mongo, cassandra().unwrap(), "shown"));
            flags.extend(["mongo", "cassandra"].map(|of| flag(&format!("{of}-tls-ca"), &own.ca)));
            flags.extend(of_mongo.map(|path| flag("mongo-tls-identity", path)));
            flags.extend(of_cassandra.map(|path| flag("cassandra-tls-identity", path)));
            flags
        };
        let seed = "seed --workload thread --preset small --create-schema";
        let (shown, foreign) = (Some(&*shown), Some(&*foreign));
        for (of_mongo, of_cassandra, parts) in [
            (None, shown, ["MongoDB at mongodb://127.0.0.1:", "--mongo-tls-identity"]),
            (foreign, shown, ["MongoDB at mongodb://127.0.0.1:", "--mongo-tls-identity"]),
            (shown, None, ["Cassandra at 127.0.0.1:", "--cassandra-tls-identity"]),
            (shown, foreign, ["Cassandra at 127.0.0.1:", "--cassandra-tls-identity"]),
            // Of these nothing is shown: a certificate without its key.
            (Some(&*ours.cert), shown, ["--mongo-tls-identity: ", "no private key in PEM"]),
            (shown, Some(&*ours.cert), ["--cassandra-tls-identity: ", "no private key in PEM"]),
        ] {
            let error = refused(seed, &flags(of_mongo, of_cassandra), 2).unwrap();
            assert!(error.starts_with(parts[0]) && error.contains(parts[1]), "{error}");
        }
        assert!(cassandra().unwrap().rows("shown.messages_by_id").is_err(), "a keyspace was made");
        done(seed, &flags(shown, shown)).unwrap();
        done("teardown --workload thread --yes", &flags(shown, shown)).unwrap();
        (ours, certificates)
    })
    .await
    .unwrap();
    let shown = door.shown.lock().unwrap().clone();
    let ours = CertificateDer::from_pem_file(&ours.cert).unwrap();
    assert!(!shown.is_empty() && shown.iter().all(|shown| *shown == ours), "{} were shown", shown.len());
    drop(certificates);
}

const USER: &str = "o'd d";
/// Of MongoDB, and as an address takes it.
const PASSWORD: &str = "p@ss:w/ord%";
const ENCODED: &str = "p%40ss%3Aw%2Ford%25";
/// Of Cassandra: a shell and a file of keys take it for a comment, and whoever trims it for another.
const HASHED: &str = "#p@ss:w/ord%? ";

/// None of it, whole or in parts.
#[track_caller]
fn hides(what: &str, text: &str) {
    for secret in [PASSWORD, ENCODED, HASHED.trim(), "p@ss", "w/ord", "p%40ss", "w%2Ford"] {
        assert!(!text.contains(secret), "{what} shows {secret}");
    }
}

#[test]
fn an_odd_password_opens_both_and_shows_nowhere() {
    need_both();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(file("mongo"), format!("{PASSWORD}\n")).unwrap();
    std::fs::write(file("cassandra"), format!("{HASHED}\r\n")).unwrap();
    std::fs::write(file("wrong"), "another\n").unwrap();
    let user = Some((USER.to_owned(), PASSWORD.to_owned()));
    let mongo = MongoServer::start(&MongoOptions { user, ..MongoOptions::default() }).unwrap();
    let cassandra = cassandra().unwrap();
    let role = format!("CREATE ROLE odd WITH PASSWORD = '{HASHED}' AND LOGIN = true AND SUPERUSER = true");
    cassandra.execute(&[role]).unwrap();
    let with_login = |login: &str| format!("--mongo-uri=mongodb://{login}@{}", mongo.address());
    let in_address = with_login(&format!("o%27d%20d:{ENCODED}"));
    let open = in_address.strip_prefix("--mongo-uri=").unwrap();
    let by_files = [
        format!("--mongo-uri={}", mongo.uri()),
        format!("--mongo-username={USER}"),
        format!("--mongo-password={}", file("mongo")),
    ];
    let of_cassandra = [
        format!("--cassandra-hosts={}", cassandra.address()),
        "--cassandra-keyspace=odd".to_owned(),
        "--cassandra-username=odd".to_owned(),
        format!("--cassandra-password={}", file("cassandra")),
    ];
    // At its most talkative, and as every user of the host sees it meanwhile.
    let mut seed = command("seed --preset medium --create-schema", std::slice::from_ref(&in_address)).unwrap();
    seed.env("RUST_LOG", "trace");
    let mut process = Process::spawn(seed).unwrap();
    // Once it has hidden its login, nobody sees it again.
    let mut is_hidden = false;
    while process.is_running().unwrap() {
        let title = std::fs::read(format!("/proc/{}/cmdline", process.pid())).unwrap_or_default();
        let title = String::from_utf8_lossy(&title).into_owned();
        let shows = title.contains(ENCODED);
        assert!(!shows || !is_hidden, "{title}");
        is_hidden |= title.contains("--mongo-uri=") && !shows;
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(is_hidden, "its title shows a login");
    let ended = process.wait(LIMIT).unwrap();
    hides("a seeding", &format!("{ended:?}"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // From files, and from variables.
    let seed = "seed --workload thread --preset small --create-schema";
    let all = [&by_files[..], &of_cassandra].concat();
    hides("a removal", &done("teardown --yes", &by_files).unwrap());
    hides("a seeding", &done(seed, &all).unwrap());
    let mut by_variables = command("teardown --workload thread --yes", &all[..2]).unwrap();
    by_variables.args(&of_cassandra[..3]);
    by_variables.env("MONGO_PASSWORD", PASSWORD).env("CASSANDRA_PASSWORD", HASHED).env("RUST_LOG", "trace");
    let ended = Process::spawn(by_variables).unwrap().wait(LIMIT).unwrap();
    hides("a removal", &format!("{ended:?}"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // What is wrong is told without what is right, also where it stands in a place that takes none.
    let wrong = format!("--mongo-password={}", file("wrong"));
    let keyspace = &of_cassandra[..];
    for (flags, words) in [
        (vec![with_login(&format!("nobody:{ENCODED}"))], "does not let us in"),
        (vec![with_login(&format!("ann:{PASSWORD}"))], "percent-encoded"),
        (vec![format!("{in_address}/elsewhere")], "it names the database elsewhere"),
        ([&by_files[..2], &[wrong]].concat(), "does not let us in"),
        ([&by_files[..2], &[format!("--mongo-password={PASSWORD}")]].concat(), "expected the path of a file"),
        ([&all[..6], &[format!("--cassandra-password={HASHED}")]].concat(), "expected the path of a file"),
        ([&all[..6], &[format!("--cassandra-password={}", file("mongo"))]].concat(), "does not let us in"),
    ] {
        let also = if flags.iter().any(|flag| flag.starts_with("--cassandra-")) { &[] } else { keyspace };
        let error = refused("seed --workload thread --preset small", &[&flags, also].concat(), 2).unwrap();
        hides("an error", &error);
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(documents(open, "chat", "users").unwrap().is_empty());
}
