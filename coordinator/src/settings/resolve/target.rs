//! The service under load: where its NATS is, who logs in there, and which durables are watched.

use std::path::PathBuf;

use plimsoll_common::plan::Workload;
use plimsoll_common::workload::is_subject_token;

use super::{LONGEST, SHORTEST_HOLD};
use crate::core::backlog::DurableName;
use crate::settings::error::SettingsError;
use crate::settings::plan::{Preflight, TargetChoice};
use crate::settings::secure;
use crate::settings::values::{Values, list};

pub(super) fn target(values: &Values, workload: &Workload) -> Result<TargetChoice, SettingsError> {
    const TAKES: &str = "addresses such as nats://127.0.0.1:4222, separated by commas";
    let url = values.required("nats-url", "an address such as nats://127.0.0.1:4222")?;
    for address in list(&url, TAKES)? {
        if address.parse::<async_nats::ServerAddr>().is_err() {
            return Err(match may_be_a_login(address) {
                true => url.error(format!(
                    "expected {TAKES}; what was given has no host behind a name and a word, and is not shown"
                )),
                false => url.takes(TAKES),
            });
        }
    }
    Ok(TargetChoice {
        nats_url: url.text().to_owned(),
        login: secure::login(values)?,
        tls_ca: values.optional("nats-tls-ca").map(|path| PathBuf::from(path.text())),
        tls_identity: secure::identity(values)?,
        durables: durables(values, workload)?,
        jsz_url: jsz_url(values)?,
        recovery_limit: values.duration("recovery-limit", SHORTEST_HOLD, LONGEST)?,
        preflight: if values.switch("skip-preflight")? { Preflight::Skip } else { Preflight::Check },
    })
}

/// Whether an address without a host may have a password where others have their port.
fn may_be_a_login(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let port = rest.rsplit_once(']').map_or(rest, |(_, rest)| rest).split_once(':');
    !rest.contains('@') && port.is_some_and(|(_, port)| port.bytes().any(|byte| !byte.is_ascii_digit()))
}

/// Plain names replace the workload's, names with a plus add to them.
fn durables(values: &Values, workload: &Workload) -> Result<Vec<DurableName>, SettingsError> {
    const TAKES: &str = "names of durables, +NAME to add one, STREAM/NAME for another stream, or none";
    let own = || workload.durables().iter().filter_map(|name| durable(name, workload)).collect();
    let Some(value) = values.optional("durable") else { return Ok(own()) };
    let names = list(&value, TAKES)?;
    if names == ["none"] {
        return Ok(Vec::new());
    }
    let mut durables: Vec<DurableName> =
        if names.iter().all(|name| name.starts_with('+')) { own() } else { Vec::new() };
    for name in names {
        let named = durable(name.strip_prefix('+').unwrap_or(name), workload);
        let durable = named.ok_or_else(|| value.takes(format!("STREAM/NAME with the workload {}", workload.name())))?;
        if !is_subject_token(&durable.stream) || !is_subject_token(&durable.durable) || name == "none" {
            return Err(value.takes(TAKES));
        }
        if !durables.contains(&durable) {
            durables.push(durable);
        }
    }
    Ok(durables)
}

/// A durable of the workload's own stream, unless its stream is named; `None`: it has to be.
fn durable(name: &str, workload: &Workload) -> Option<DurableName> {
    let (stream, durable) = match name.split_once('/') {
        Some((stream, durable)) => (stream.to_owned(), durable),
        None => (workload.stream_of(name)?, name),
    };
    Some(DurableName { stream, durable: durable.to_owned() })
}

fn jsz_url(values: &Values) -> Result<Option<String>, SettingsError> {
    let Some(value) = values.optional("jsz-url") else { return Ok(None) };
    let url = value.text();
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).filter(|host| !host.is_empty());
    let Some(host) = host else { return Err(value.takes("a URL such as http://127.0.0.1:8222/jsz")) };
    let has_path = host.split_once('/').is_some_and(|(_, path)| !path.is_empty());
    Ok(Some(if has_path { url.to_owned() } else { format!("{}/jsz", url.trim_end_matches('/')) }))
}
