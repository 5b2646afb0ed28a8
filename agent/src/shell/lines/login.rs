//! How a user's connection gets in: addresses, TLS, and what is said first.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use plimsoll_common::plan::{Credentials, Login, Target};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use crate::core::limits::ServerAddress;
use crate::shell::nats_target::{client_config, servers, url_login};

/// The way in to the target.
pub(super) struct Door {
    pub(super) servers: Vec<ServerAddress>,
    pub(super) tls: TlsConnector,
    /// TLS whatever the server says of itself.
    pub(super) tls_required: bool,
    key: Key,
}

/// What proves who we are.
enum Key {
    Nothing,
    Password { user: String, password: String },
    Token(String),
    Nkey(KeyPair),
    Jwt { jwt: String, pair: KeyPair },
}

impl Door {
    pub(super) fn new(target: &Target) -> Result<Self, String> {
        let Credentials { login, tls_ca, tls_identity } = target.credentials.clone().unwrap_or_default();
        let key = match (login, url_login(&target.url)?) {
            (Some(Login::Token(token)), _) => Key::Token(token),
            (Some(Login::NkeySeed(seed)), _) => Key::Nkey(pair(&seed).ok_or("--nats-nkey: no seed of an NKey")?),
            (Some(Login::CredentialsFile(text)), _) => {
                let found = section(&text, "NATS USER JWT").zip(section(&text, "USER NKEY SEED"));
                let key = found.and_then(|(jwt, seed)| Some(Key::Jwt { jwt, pair: pair(&seed)? }));
                key.ok_or("--nats-creds: no credentials file of NATS")?
            }
            (None, Some((user, Some(password)))) => Key::Password { user, password },
            (None, Some((token, None))) => Key::Token(token),
            (None, None) => Key::Nothing,
        };
        let servers = servers(&target.url)?;
        let tls_required =
            tls_ca.is_some() || tls_identity.is_some() || servers.iter().any(|server| server.scheme == "tls");
        let config = client_config(tls_ca.as_deref(), tls_identity.as_ref())?;
        Ok(Self { servers, tls: TlsConnector::from(Arc::new(config)), tls_required, key })
    }

    /// The first words to a server that has said this of itself.
    pub(super) fn connect(&self, name: &str, info: &Value) -> Result<String, String> {
        let sign = |pair: &KeyPair| {
            let nonce = info["nonce"].as_str().ok_or("the server asks for no signature and was given a key")?;
            let signature = pair.sign(nonce.as_bytes()).map_err(|_| "the key cannot sign".to_owned())?;
            Ok::<_, String>(URL_SAFE_NO_PAD.encode(signature))
        };
        let mut options = json!({
            "verbose": false, "pedantic": false, "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "name": name,
            "protocol": 1, "echo": true, "headers": true, "no_responders": true, "tls_required": self.tls_required,
        });
        match &self.key {
            Key::Nothing => {}
            Key::Password { user, password } => {
                options["user"] = json!(user);
                options["pass"] = json!(password);
            }
            Key::Token(token) => options["auth_token"] = json!(token),
            Key::Nkey(pair) => {
                options["nkey"] = json!(pair.public_key());
                options["sig"] = json!(sign(pair)?);
            }
            Key::Jwt { jwt, pair } => {
                options["jwt"] = json!(jwt);
                options["sig"] = json!(sign(pair)?);
            }
        }
        Ok(format!("CONNECT {options}\r\n"))
    }
}

fn pair(seed: &str) -> Option<KeyPair> {
    KeyPair::from_seed(seed.trim()).ok()
}

/// What stands between `-----BEGIN name-----` and the next line of dashes.
fn section(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("BEGIN {name}"))?;
    let mut lines = rest.lines().skip(1);
    let content = lines.find(|line| !line.trim().is_empty())?.trim();
    (!content.starts_with('-')).then(|| content.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_words(url: &str, login: Option<Login>, info: &Value) -> Result<Value, String> {
        let credentials = login.map(|login| Credentials { login: Some(login), ..Credentials::default() });
        let door = Door::new(&Target { url: url.into(), credentials })?;
        let words = door.connect("plimsoll/run/0", info)?;
        let options = words.strip_prefix("CONNECT ").and_then(|rest| rest.strip_suffix("\r\n"));
        Ok(serde_json::from_str(options.unwrap_or_default()).unwrap())
    }

    #[test]
    fn each_way_of_logging_in_says_what_the_server_expects() {
        let info = json!({"nonce": "abc"});
        let plain = first_words("nats://127.0.0.1:4222", None, &info).unwrap();
        assert_eq!((&plain["name"], &plain["no_responders"]), (&json!("plimsoll/run/0"), &json!(true)));
        let password = first_words("nats://anna:p%40ss@127.0.0.1:4222", None, &info).unwrap();
        assert_eq!((&password["user"], &password["pass"]), (&json!("anna"), &json!("p@ss")));
        assert_eq!(first_words("nats://secret@127.0.0.1:4222", None, &info).unwrap()["auth_token"], "secret");
        let token = first_words("nats://127.0.0.1:4222", Some(Login::Token("t".into())), &info).unwrap();
        assert_eq!(token["auth_token"], "t");

        let pair = KeyPair::new_user();
        let seed = pair.seed().unwrap();
        let nkey = first_words("nats://127.0.0.1:4222", Some(Login::NkeySeed(seed.clone())), &info).unwrap();
        assert_eq!(nkey["nkey"], pair.public_key());
        let signature = URL_SAFE_NO_PAD.decode(nkey["sig"].as_str().unwrap()).unwrap();
        assert!(pair.verify(b"abc", &signature).is_ok());

        let file = format!(
            "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n\nKeep it secret.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let jwt = first_words("nats://127.0.0.1:4222", Some(Login::CredentialsFile(file)), &info).unwrap();
        assert_eq!(jwt["jwt"], "a.b.c");
        let signature = URL_SAFE_NO_PAD.decode(jwt["sig"].as_str().unwrap()).unwrap();
        assert!(pair.verify(b"abc", &signature).is_ok());
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        for login in [Login::NkeySeed("SECRET".into()), Login::CredentialsFile("SECRET".into())] {
            let error = first_words("nats://127.0.0.1:4222", Some(login), &json!({})).unwrap_err();
            assert!(error.starts_with("--nats-") && !error.contains("SECRET"), "{error}");
        }
    }
}
