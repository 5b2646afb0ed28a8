//! Coordinator and agents over mutual TLS: who may, who may not and why, and that no secret shows anywhere.

use plimsoll::shell::tls::Wire;
use plimsoll_agent::shell::nats_target::{ConnectError, connect};
use plimsoll_agent::shell::tls::{TlsFiles, provider};
use plimsoll_common::plan::{Credentials, Login, Target};
use plimsoll_proto::v1;
use plimsoll_proto::v1::coordinator_message::Message as ToAgent;
use plimsoll_tests::harness::certificates::{Certificates, flags};
use plimsoll_tests::harness::driver::Driver;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::messages;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer, NatsUser};
use plimsoll_tests::harness::processes::{Agent, AgentOptions, Ended, Process, Program};
use plimsoll_tests::standin::{Standin, StandinConfig};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const COORDINATOR: &str = "plimsoll-coordinator";
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A run of one step that a shared box carries, with limits that it does not decide.
const SHORT: [&str; 15] = [
    "max-rps",
    "--preset=small",
    "--steps=100",
    "--warmup=500ms",
    "--hold=2s",
    "--trials=3",
    "--cooldown=0s",
    "--slo-p95=2s",
    "--max-lateness=1s",
    "--max-skew=1s",
    "--slo-p99=2s",
    "--request-timeout=3s",
    "--slo-error-rate=0.01",
    "--rate-tolerance=0.2",
    "--slo-pending-growth=100000",
];

fn run_command(url: &str, agents: &[String], arguments: &[String]) -> anyhow::Result<Command> {
    let mut command = Program::Cli.command()?;
    command.args(SHORT).arg("--agents").arg(agents.join(",")).args(arguments).env("PLIMSOLL_NATS_URL", url);
    if !arguments.iter().any(|argument| argument.starts_with("--results")) {
        command.arg("--results=none");
    }
    Ok(command)
}

/// Runs the CLI off the runtime, on which servers of the test may have to answer it.
async fn run(url: &str, agents: &[String], arguments: &[String]) -> anyhow::Result<Ended> {
    let command = run_command(url, agents, arguments)?;
    tokio::task::spawn_blocking(move || Process::spawn(command)?.wait(Duration::from_secs(60))).await?
}

/// Exit 2, nothing on stdout, and one line on stderr that has all these parts.
#[track_caller]
fn check(ended: &Ended, parts: &[&str]) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{parts:?}: {ended:?}");
    let mut lines = ended.stderr.lines();
    let error = lines.next().unwrap_or_default();
    assert!(error.starts_with("error: ") && lines.next().is_none(), "not one error: {ended:?}");
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
}

/// Everything in a directory, as one text.
fn all_of(dir: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => text += &all_of(&path)?,
            false => text += &String::from_utf8_lossy(&std::fs::read(path)?),
        }
    }
    Ok(text)
}

/// What a process shows to every user of its host, threads' names among it.
fn shown_of(pid: u32) -> anyhow::Result<String> {
    let mut text = String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline"))?).into_owned();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may just have ended.
        text += &std::fs::read_to_string(thread?.path().join("comm")).unwrap_or_default();
    }
    Ok(text)
}

/// Secrets as they are, and as the protocols write them.
#[track_caller]
fn hides(what: &str, text: &str, secrets: &[&str]) {
    for secret in secrets {
        let at = text.find(secret);
        let around = at.map(|at| String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(300)..at]).into_owned());
        assert!(at.is_none(), "{what} shows a secret behind {around:?}");
    }
}

#[tokio::test]
async fn a_run_over_tls_with_two_agents_is_as_any_other_and_shows_no_secret_at_the_most_talkative() -> anyhow::Result<()>
{
    const PASSWORD: &str = "s3cr3t-passw0rd";
    let _shared = Shared::acquire()?;
    let certificates = Certificates::make()?;
    // Of Plimsoll alone: a certificate, an NKey and a password; the stand-in connects in clear.
    let key = nkeys::KeyPair::new_user();
    let seed = key.seed()?;
    let seed_file = certificates.path("user.nk");
    std::fs::write(&seed_file, format!("{seed}\n"))?;
    let pem = |file: &str| certificates.path(file).display().to_string();
    let extra = format!(
        "authorization {{ users: [ {{ nkey: {} }}, {{ user: ann, password: \"{PASSWORD}\" }} ] }}\nallow_non_tls: true\n\
         tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        key.public_key(),
        pem("box.pem"),
        pem("box.key"),
        pem("ca.pem"),
    );
    let server = NatsServer::start(NatsOptions { extra, ..NatsOptions::default() })?;
    let with_password =
        server.url_of(&NatsUser { name: "ann".into(), password: PASSWORD.into(), ..NatsUser::default() });
    let standin = Standin::start(StandinConfig::new(with_password.clone())).await?;
    let (mut agents, mut addresses) = (Vec::new(), Vec::new());
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let mut command = Program::Agent.command()?;
        command.args(["--workers=1", "--listen", listen]).args(certificates.flags("box")).env("RUST_LOG", "trace");
        let mut agent = Process::spawn(command)?;
        addresses.push(agent.wait_for_line("plimsoll-agent listens on ")?.trim().to_owned());
        agents.push(agent);
    }
    let dir = tempfile::tempdir()?;
    let results = dir.path().join("results");
    let to_target = ["ca=ca.pem", "cert=plimsoll-coordinator.pem", "key=plimsoll-coordinator.key"].map(|file| {
        let (flag, file) = file.split_once('=').expect("a flag and its file");
        format!("--nats-tls-{flag}={}", pem(file))
    });
    let fleet: Vec<String> = certificates.flags(COORDINATOR).into_iter().chain(to_target).collect();
    let private = |name: &str| std::fs::read_to_string(certificates.path(name));
    let body = |pem: String| pem.lines().nth(1).unwrap_or_default().to_owned();
    let key_lines = [body(private("plimsoll-coordinator.key")?), body(private("box.key")?)];
    let secrets = [PASSWORD, &seed, &key_lines[0], &key_lines[1], "czNjcjN0LXBhc3N3MHJk"];
    // Once with the NKey, once with the password in URLs on the command line.
    let login = vec![format!("--nats-nkey={}", seed_file.display())];
    let jsz = server.monitoring_url().replace("http://", &format!("http://ann:{PASSWORD}@"));
    let urls = vec![format!("--nats-url={with_password}"), "--jsz-url".to_owned(), jsz];
    for (url, login) in [(server.url(), login), (server.url(), urls)] {
        let mut arguments: Vec<String> = fleet.iter().cloned().chain(login).collect();
        arguments.push(format!("--results={}", results.display()));
        let mut command = run_command(&url, &addresses, &arguments)?;
        command.env("RUST_LOG", "trace");
        let mut running = Process::spawn(command)?;
        running.wait_for_stderr("/s hold ", Duration::from_secs(60))?;
        for process in agents.iter().map(Process::pid).chain([running.pid()]) {
            hides("a process", &shown_of(process)?, &secrets);
        }
        let ended = tokio::task::spawn_blocking(move || running.wait(Duration::from_secs(60))).await??;
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        assert!(ended.stdout.contains("ANSWER: max RPS >= 100 "), "{}", ended.stdout);
        is_talkative(&ended.stderr);
        hides("the report", &ended.stdout, &secrets);
        hides("the coordinator's log", &ended.stderr, &secrets);
        let mut command = run_command(&url, &addresses, &arguments)?;
        command.arg("--dry-run").env("RUST_LOG", "trace");
        let dry = Process::spawn(command)?.wait(Duration::from_secs(20))?;
        assert_eq!(dry.code, Some(0), "{dry:?}");
        hides("a dry run", &format!("{}{}", dry.stdout, dry.stderr), &secrets);
    }
    let saved = all_of(&results)?;
    assert!(saved.contains("nats-nkey") && saved.contains("***@"), "{saved}");
    hides("a saved run", &saved, &secrets);
    for agent in &agents {
        let log = agent.stderr();
        assert!(log.contains("leased"), "{log}");
        is_talkative(&log);
        hides("an agent's log", &log, &secrets);
    }
    standin.shutdown().await
}

/// All that may be said was: nobody else's code is heard at trace, where clients write secrets byte by byte, in rows.
#[track_caller]
fn is_talkative(log: &str) {
    assert!(log.contains("DEBUG"), "the most talkative is not: {log}");
    let foreign = log.lines().find(|line| line.contains("TRACE") && !line.contains("plimsoll"));
    assert_eq!(foreign, None);
}

/// A certificate of this CA, made for any time.
pub fn signed(
    certificates: &Certificates,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
    days: [i64; 2],
) -> anyhow::Result<TlsFiles> {
    let read = |file: &str| std::fs::read_to_string(certificates.path(file));
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem")?, KeyPair::from_pem(&read("ca.key")?)?)?;
    let mut params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()])?;
    params.extended_key_usages = vec![usage];
    let now = time::OffsetDateTime::from(SystemTime::now());
    (params.not_before, params.not_after) = (now + time::Duration::days(days[0]), now + time::Duration::days(days[1]));
    let key = KeyPair::generate()?;
    let file = |kind: &str| certificates.path(&format!("{name}-{}.{kind}", days[0]));
    let files = TlsFiles { cert: file("pem"), key: file("key"), ca: certificates.path("ca.pem") };
    std::fs::write(&files.cert, params.signed_by(&key, &issuer)?.pem())?;
    std::fs::write(&files.key, key.serialize_pem())?;
    Ok(files)
}

/// Answers one TLS handshake after the other with this certificate.
async fn tls_server(files: &TlsFiles) -> anyhow::Result<SocketAddr> {
    let chain = vec![CertificateDer::from_pem_file(&files.cert)?];
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_file(&files.key)?)?;
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await?);
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // A handshake that the other side gives up is what is tested.
            drop(acceptor.accept(socket).await);
        }
    });
    Ok(address)
}

#[tokio::test]
async fn a_coordinator_or_agent_without_the_right_certificate_is_refused_in_words_and_nothing_starts()
-> anyhow::Result<()> {
    let certificates = Certificates::make()?;
    certificates.more(&["--coordinator", "ops"])?;
    let strangers = Certificates::make()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let agent = certificates.agent(&[])?;
    let plain = Agent::start(&AgentOptions::default())?;
    let (port, own) = (agent.address.port(), certificates.files(COORDINATOR));
    let past = [-30, -1];
    let expired = signed(&certificates, COORDINATOR, ExtendedKeyUsagePurpose::ClientAuth, past)?;
    let early = signed(&certificates, COORDINATOR, ExtendedKeyUsagePurpose::ClientAuth, [1, 30])?;
    let expired_agent =
        tls_server(&signed(&certificates, "old-box", ExtendedKeyUsagePurpose::ServerAuth, past)?).await?;
    let client_as_agent = tls_server(&own).await?;
    let stranger = strangers.files(COORDINATOR);
    let (here, no_tls) = (agent.address.to_string(), Vec::new());
    for (address, arguments, parts) in [
        (&*here, no_tls, vec!["agent ", "cannot be reached", "it accepts TLS only: give --tls-cert"]),
        (
            &here,
            flags(&TlsFiles { ca: own.ca.clone(), ..stranger.clone() }).into(),
            vec!["it refuses our certificate: it is not of the CA in the agent's --tls-ca"],
        ),
        (
            &here,
            flags(&TlsFiles { ca: stranger.ca.clone(), ..own.clone() }).into(),
            vec!["its certificate is not of the CA in --tls-ca"],
        ),
        (
            &here,
            flags(&TlsFiles { key: stranger.key.clone(), ..own.clone() }).into(),
            vec!["--tls-cert and --tls-key do not go together"],
        ),
        (&here, flags(&expired).into(), vec!["--tls-cert: got '", "the certificate expired on"]),
        (&here, flags(&early).into(), vec!["--tls-cert: got '", "valid only from", "clock"]),
        (
            &here,
            certificates.flags("box").into(),
            vec!["--tls-cert: got '", "the certificate is not for a coordinator"],
        ),
        (
            &here,
            certificates.flags("ops").into(),
            vec![
                "agent ",
                "refuses: the coordinator's certificate is of ops, and this agent's --allow-coordinator accepts plimsoll-coordinator",
            ],
        ),
        (&here, vec!["--tls-cert=/nonexistent.pem".into()], vec!["--tls-cert: TLS also needs --tls-key"]),
        (
            &here,
            flags(&TlsFiles { cert: "/nonexistent.pem".into(), ..own.clone() }).into(),
            vec!["--tls-cert: got '/nonexistent.pem', expected the path of a certificate in PEM: No such file"],
        ),
        (
            &here,
            flags(&TlsFiles { cert: own.key.clone(), ..own.clone() }).into(),
            vec!["--tls-cert: got '", "it holds none"],
        ),
        (
            &here,
            flags(&TlsFiles { key: own.cert.clone(), ..own.clone() }).into(),
            vec!["--tls-key: got '", "it holds none"],
        ),
        (&format!("localhost:{port}"), flags(&own).into(), vec!["its certificate is not for the name localhost"]),
        (&plain.address.to_string(), flags(&own).into(), vec!["it does not speak TLS: start it with --tls-cert"]),
        (&expired_agent.to_string(), flags(&own).into(), vec!["its certificate expired: make it a new one"]),
        (&client_as_agent.to_string(), flags(&own).into(), vec!["its certificate does not do"]),
    ] {
        check(&run(&server.url(), &[address.to_owned()], &arguments).await?, &parts);
    }
    // Who only wants to list agents comes through the same door.
    let (all, dns) = (format!("{here},{}", plain.address), format!("dns:localhost:{port}"));
    for (named, name, code, words) in [
        (&here, Some(COORDINATOR), 0, " ready "),
        (&all, Some(COORDINATOR), 1, "it does not speak TLS"),
        (&here, Some("ops"), 1, "the coordinator's certificate is of ops"),
        (&here, None, 1, "it accepts TLS only"),
        (&dns, Some(COORDINATOR), 1, "its certificate is not for the name localhost"),
    ] {
        let shown = name.map_or(Vec::new(), |name| certificates.flags(name).to_vec());
        let listed = Program::Cli.run(["agents".to_owned(), format!("--agents={named}")].into_iter().chain(shown))?;
        assert!(listed.code == Some(code) && listed.stdout.contains(words), "{words}: {listed:?}");
    }
    certificates.more(&["--agent", "named=localhost"])?;
    let named =
        Agent::start(&AgentOptions { arguments: certificates.flags("named").into(), ..AgentOptions::default() })?;
    let by_name = format!("--agents=dns:localhost:{}", named.address.port());
    let shown = certificates.flags(COORDINATOR);
    let listed = Program::Cli.run(["agents".to_owned(), by_name].into_iter().chain(shown))?;
    assert!(listed.code == Some(0) && listed.stdout.contains(" ready "), "a certificate is for a name: {listed:?}");
    for agent in [&agent, &plain] {
        assert!(!agent.process.stderr().contains("leased"), "{}", agent.process.stderr());
    }
    let seen = server.agents_seen()?;
    assert!(seen.open.is_empty() && seen.closed.is_empty(), "{seen:?}");
    // The agent is none the worse for it, and takes the name that it is told to.
    let ops = certificates.agent(&["--allow-coordinator", "Ops,another"])?;
    for (agent, name) in [(&agent, COORDINATOR), (&ops, "ops")] {
        claim(agent, &certificates.files(name)).await?.cut();
    }
    standin.shutdown().await
}

async fn claim(agent: &Agent, files: &TlsFiles) -> anyhow::Result<Driver> {
    let wire = Wire::of(Some(files))?;
    let channel = wire.connect(&agent.address.ip().to_string(), agent.address, CONNECT_LIMIT).await;
    Driver::claim_over(channel.map_err(anyhow::Error::msg)?.channel, messages::claim()).await
}

/// A client of TLS that shows this certificate, if any, whatever is wrong with it.
fn raw_client(certificates: &Certificates, shows: Option<&TlsFiles>) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.path("ca.pem"))?)?;
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots);
    let config = match shows {
        None => config.with_no_client_auth(),
        Some(files) => {
            let chain = vec![CertificateDer::from_pem_file(&files.cert)?];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key)?)?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What comes of these bytes on an agent's port: its answer, or how the connection broke.
async fn answer(agent: &Agent, client: &TlsConnector, bytes: &[u8]) -> anyhow::Result<Result<Vec<u8>, String>> {
    let socket = TcpStream::connect(agent.address).await?;
    let name = "127.0.0.1".try_into()?;
    let answer = async {
        let mut stream = client.connect(name, socket).await?;
        stream.write_all(bytes).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map(|_| answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), answer).await?;
    Ok(answer.map_err(|error| error.to_string()))
}

#[tokio::test]
async fn the_agent_itself_refuses_what_no_coordinator_of_ours_would_send() -> anyhow::Result<()> {
    let certificates = Certificates::make()?;
    let agent = certificates.agent(&[])?;
    let own = certificates.files(COORDINATOR);
    let expired = signed(&certificates, COORDINATOR, ExtendedKeyUsagePurpose::ClientAuth, [-30, -1])?;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    for (shows, words) in [
        (None, "CertificateRequired"),
        (Some(&expired), "CertificateExpired"),
        (Some(&certificates.files("box")), "Certificate"),
    ] {
        let error = answer(&agent, &raw_client(&certificates, shows)?, preface).await?.unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    }
    // Garbage, in clear and inside TLS, ends its own connection only.
    let client = raw_client(&certificates, Some(&own))?;
    for bytes in [&[0_u8; 4096][..], &[0xff; 70_000], &[preface, &[0xff; 100]].concat()] {
        // It may hang up while we still write, which is as good as afterwards.
        let _ = answer(&agent, &client, bytes).await?;
        let mut socket = TcpStream::connect(agent.address).await?;
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let _ = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut Vec::new())).await?;
    }
    // Peers that say nothing keep nobody waiting, however many they are.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(agent.address).await?);
    }
    let mut driver = claim(&agent, &own).await?;
    let target = v1::Target { url: "x".repeat(9 << 20), ..v1::Target::default() };
    driver.send(ToAgent::Prepare(v1::Prepare { target: Some(target), ..v1::Prepare::default() }));
    let end = driver.next().await.map(drop).unwrap_err().to_string();
    assert!(end.contains("a message of the coordinator cannot be read: ") && end.contains("too large"), "{end}");
    for (message, words) in
        [(None, "a message without content"), (Some(ToAgent::Claim(messages::claim())), "claimed twice")]
    {
        let mut driver = claimed_anew(&agent, &own).await?;
        driver.send_raw(v1::CoordinatorMessage { message });
        let end = driver.next().await.map(drop).unwrap_err().to_string();
        assert!(end.contains(words), "{end}");
    }
    claimed_anew(&agent, &own).await?.cut();
    Ok(())
}

/// The agent can be claimed: the last lease's end may still be under way.
async fn claimed_anew(agent: &Agent, files: &TlsFiles) -> anyhow::Result<Driver> {
    let mut refusals = 0;
    loop {
        match claim(agent, files).await {
            Err(error) if error.to_string().contains("one coordinator at a time") && refusals < 500 => {
                refusals += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            claimed => return claimed,
        }
    }
}

#[tokio::test]
async fn secrets_go_beyond_loopback_over_tls_only() -> anyhow::Result<()> {
    let user = NatsUser { name: "ann".into(), password: "pass-word".into(), ..NatsUser::default() };
    let server = NatsServer::start(NatsOptions { users: vec![user.clone()], ..NatsOptions::default() })?;
    let standin = Standin::start(StandinConfig::new(server.url_of(&user))).await?;
    let mut command = Program::Agent.command()?;
    command.args(["--workers=1", "--listen=0.0.0.0:0", "--insecure"]);
    let mut agent = Process::spawn(command)?;
    let address = agent.wait_for_line("plimsoll-agent listens on ")?.trim().to_owned();
    let ended = run(&server.url_of(&user), &[address], &[]).await?;
    check(&ended, &["is not on a loopback address", "give --tls-cert, --tls-key and --tls-ca"]);
    hides("an error", &ended.stderr, &["pass-word"]);
    assert!(!agent.stderr().contains("leased"), "{}", agent.stderr());
    standin.shutdown().await
}

#[tokio::test]
async fn a_token_opens_the_target_and_a_wrong_one_is_refused_without_repeating_it() -> anyhow::Result<()> {
    let extra = "authorization { token: \"the-right-token\" }".to_owned();
    let server = NatsServer::start(NatsOptions { extra, ..NatsOptions::default() })?;
    let target = |token: &str| {
        let login = Some(Login::Token(token.to_owned()));
        Target { url: server.url(), credentials: Some(Credentials { login, ..Credentials::default() }) }
    };
    connect(&target("the-right-token"), "plimsoll/test/0").await?;
    let error = connect(&target("a-wrong-token"), "plimsoll/test/0").await.map(drop).unwrap_err();
    assert!(matches!(error, ConnectError::Unauthorized { .. }), "{error}");
    hides("an error", &format!("{error} {error:?}"), &["a-wrong-token"]);
    // A token that was given where a file's path belongs is repeated nowhere.
    let secret = "t0k3n-given-itself".to_owned();
    for arguments in
        [vec!["--nats-token".into(), secret.clone()], vec!["--dry-run".into(), format!("--nats-nkey={secret}")]]
    {
        let ended = run(&server.url(), &["127.0.0.1:1".into()], &arguments).await?;
        check(&ended, &["--nats-", "expected the path of a file, or env:NAME"]);
        hides("an error", &ended.stderr, &[&secret]);
    }
    Ok(())
}
