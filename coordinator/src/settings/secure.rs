//! The settings that say who we are: to the service, and to the fleet.

use std::path::PathBuf;

use plimsoll_agent::shell::tls::TlsFiles;

use super::error::SettingsError;
use super::layers::Source;
use super::plan::{FleetChoice, Login};
use super::values::{Named, Values};

/// What proves who we are to the service: of three, the one that was given most strongly.
///
/// # Errors
/// Two that were given alike.
pub fn login(values: &Values) -> Result<Option<Login>, SettingsError> {
    let all = ["nats-creds", "nats-nkey", "nats-token"];
    let given = all.into_iter().filter_map(|name| Some((name, values.optional(name)?)));
    let mut strongest: Option<(&str, Named)> = None;
    for (name, value) in given {
        match &strongest {
            Some((other, stronger)) if stronger.strength() == value.strength() => {
                return Err(value.error(format!("it and --{other} exclude each other: give only one of the two")));
            }
            Some((_, stronger)) if stronger.strength() > value.strength() => {}
            _ => strongest = Some((name, value)),
        }
    }
    let Some((name, value)) = strongest else { return Ok(None) };
    Ok(Some(match name {
        "nats-nkey" => Login::NkeySeed(kept(&value)?),
        "nats-token" => Login::Token(kept(&value)?),
        _ => Login::CredentialsFile(path(&value)),
    }))
}

/// Where a secret is kept. One that was given itself is not repeated: it would end up in reports.
///
/// # Errors
/// It is no file, and no variable is named.
pub fn kept(value: &Named) -> Result<String, SettingsError> {
    let text = value.text();
    if text.starts_with("env:") || std::path::Path::new(text).is_file() {
        return Ok(text.to_owned());
    }
    Err(value.error(
        "expected the path of a file, or env:NAME for a variable that holds it; there is no such file (what was given is not \
         repeated here, it may be the secret itself)",
    ))
}

/// The certificate to show to the service, and its key.
///
/// # Errors
/// One without the other.
pub fn identity(values: &Values) -> Result<Option<(PathBuf, PathBuf)>, SettingsError> {
    match (values.optional("nats-tls-cert"), values.optional("nats-tls-key")) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some((path(&cert), path(&key)))),
        (Some(cert), None) => Err(cert.error("a certificate is shown with its key: add --nats-tls-key")),
        (None, Some(key)) => Err(key.error("a key is nothing without its certificate: add --nats-tls-cert")),
    }
}

/// The certificates with which agents at addresses are reached.
///
/// # Errors
/// Some of the three without the others, or a flag where no agent is at an address.
pub fn fleet(values: &Values, fleet: &FleetChoice) -> Result<Option<TlsFiles>, SettingsError> {
    let names = ["tls-cert", "tls-key", "tls-ca"];
    let given = names.map(|name| values.optional(name));
    let Some(first) = given.iter().flatten().next() else { return Ok(None) };
    if matches!(fleet, FleetChoice::Local(_)) {
        // Variables and plan files may be made for other runs; a flag is meant.
        return match given.iter().flatten().find(|value| value.strength() == Source::Flag.strength()) {
            Some(flag) => Err(flag.error("agents in this process are not reached over TLS: add --agents")),
            None => Ok(None),
        };
    }
    let [cert, key, ca] = given.each_ref().map(|value| value.as_ref().map(path));
    TlsFiles::of(cert, key, ca).map_err(|missing| first.error(format!("TLS also needs {missing}")))
}

fn path(value: &Named) -> PathBuf {
    PathBuf::from(value.text())
}
