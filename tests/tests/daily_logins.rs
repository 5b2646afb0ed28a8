//! Users' own connections get in wherever the run's other connections do: over TLS with a certificate, by password, NKey, token,
//! and credentials of an operator's account.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_tests::harness::certificates::Certificates;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer, NatsUser};
use plimsoll_tests::harness::run::Run;
use plimsoll_tests::standin::{DailyConfig, Standin, StandinConfig};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const SEEDED: u32 = 200;
const USERS: f64 = 24.0;
/// Of whom so many have a connection each, and the others share two.
const CONNECTIONS: f64 = 18.0;

async fn standin(change: impl FnOnce(&mut StandinConfig), url: String) -> anyhow::Result<Standin> {
    let mut config = StandinConfig::new(url);
    config.daily = Some(DailyConfig { preset: DailyPreset::Light, users: SEEDED });
    change(&mut config);
    Standin::start(config).await
}

/// Everybody comes online with these flags, and everything that they do is done.
async fn everybody_gets_in(url: &str, flags: &[(&str, String)]) -> anyhow::Result<()> {
    let run = Run::daily(url, "daily-light", SEEDED).flag("--day", "20s").flag("--max-lateness", "1s").local(1);
    let run = run.flag("--max-direct-users", 16).flag("--multiplex-pool-size", 2).trials(1).steps(&[USERS]);
    let run = run.warmup(Duration::from_millis(200)).hold(Duration::from_secs(1));
    let run = flags.iter().fold(run, |run, (flag, value)| run.flag(flag, value));
    let outcome = tokio::task::spawn_blocking(move || run.finish()).await??;
    let trial = outcome.trials.first().with_context(|| format!("no trial: {outcome}"))?;
    assert_eq!(
        (trial.number("users_active"), trial.number("connections")),
        (Some(USERS), Some(CONNECTIONS)),
        "{outcome}"
    );
    assert!(trial.attempted > 0 && trial.completed == trial.attempted && trial.foreign == 0, "{outcome}");
    Ok(())
}

#[tokio::test]
async fn users_get_in_over_tls_by_password_and_by_nkey() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let certificates = Certificates::make()?;
    let pem = |file: &str| certificates.path(file).display().to_string();
    let key = KeyPair::new_user();
    std::fs::write(certificates.path("user.nk"), format!("{}\n", key.seed()?))?;
    // The stand-in connects in clear; Plimsoll shows its certificate.
    let extra = format!(
        "authorization {{ users: [ {{ nkey: {} }}, {{ user: ann, password: \"p@ss/word\" }} ] }}\nallow_non_tls: true\n\
         tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        key.public_key(),
        pem("box.pem"),
        pem("box.key"),
        pem("ca.pem"),
    );
    let server = NatsServer::start(NatsOptions { extra, ..NatsOptions::default() })?;
    let ann = NatsUser { name: "ann".into(), password: "p%40ss%2Fword".into(), ..NatsUser::default() };
    let standin = standin(|_| {}, server.url_of(&ann)).await?;
    let tls = [
        ("--nats-tls-ca", pem("ca.pem")),
        ("--nats-tls-cert", pem("plimsoll-coordinator.pem")),
        ("--nats-tls-key", pem("plimsoll-coordinator.key")),
    ];
    everybody_gets_in(&server.url_of(&ann), &tls).await?;
    let by_key = [tls.as_slice(), &[("--nats-nkey", pem("user.nk"))]].concat();
    everybody_gets_in(&server.url(), &by_key).await?;
    standin.shutdown().await
}

#[tokio::test]
async fn users_get_in_by_a_token_and_by_credentials_of_an_account() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let dir = tempfile::tempdir()?;
    let token = dir.path().join("token");
    std::fs::write(&token, "the-right-token\n")?;
    let extra = "authorization { token: \"the-right-token\" }".to_owned();
    let server = NatsServer::start(NatsOptions { extra, ..NatsOptions::default() })?;
    let with_token = server.url().replace("nats://", "nats://the-right-token@");
    let by_token = standin(|_| {}, with_token.clone()).await?;
    everybody_gets_in(&server.url(), &[("--nats-token", token.display().to_string())]).await?;
    everybody_gets_in(&with_token, &[]).await?;
    by_token.shutdown().await?;
    drop(server);

    let creds = dir.path().join("user.creds");
    let extra = operator_mode(&creds)?;
    let server = NatsServer::start(NatsOptions { extra, ..NatsOptions::default() })?;
    let by_creds = standin(|config| config.creds = Some(creds.clone()), server.url()).await?;
    everybody_gets_in(&server.url(), &[("--nats-creds", creds.display().to_string())]).await?;
    by_creds.shutdown().await
}

/// A server's configuration with an operator, a system account and an account with streams; the credentials of a user of it
/// are written to this file.
fn operator_mode(creds: &Path) -> anyhow::Result<String> {
    let (operator, system, account, user) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_operator = jwt(&operator, &operator, json!({"type": "operator", "version": 2}))?;
    let of_system = jwt(&operator, &system, json!({"type": "account", "version": 2}))?;
    let of_account = jwt(&operator, &account, json!({"type": "account", "version": 2, "limits": limits}))?;
    let of_user = jwt(
        &account,
        &user,
        json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}),
    )?;
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed()?
    );
    std::fs::write(creds, text)?;
    let (system, account) = (system.public_key(), account.public_key());
    Ok(format!(
        "operator: {of_operator}\nresolver: MEMORY\nsystem_account: {system}\n\
         resolver_preload: {{ {system}: {of_system}, {account}: {of_account} }}"
    ))
}

/// What `issuer` says of `subject`, signed as NATS does.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> anyhow::Result<String> {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "jti": "PLIMSOLL", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": "test",
        "nats": nats,
    });
    let signed = format!("{}.{}", part(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(&claims));
    let signature = issuer.sign(signed.as_bytes()).context("signing")?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
