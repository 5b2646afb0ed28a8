//! Who is there: a state per user, told to all who look whenever it changes.

use anyhow::Context as _;
use async_nats::Client;
use futures::StreamExt as _;
use plimsoll_common::contract::subjects;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::clock::Clock;
use super::counters::Counters;
use super::stage::is_nth;

/// Serves until it is dropped.
pub(super) async fn serve(
    client: Client,
    site: String,
    drop_every: Option<NonZeroU64>,
    counters: Arc<Counters>,
    clock: Clock,
) -> anyhow::Result<()> {
    let mut signs = client.subscribe(subjects::presence("*", &site, "*")).await.context("listening for presence")?;
    let mut states: HashMap<String, &'static str> = HashMap::new();
    let mut changes = 0;
    while let Some(sign) = signs.next().await {
        let mut tokens = sign.subject.split('.');
        let (Some(account), Some(what)) = (tokens.nth(2), tokens.next_back()) else { continue };
        let body: Value = serde_json::from_slice(&sign.payload).unwrap_or_default();
        counters.presence_signs.add(1);
        let known = states.get(account).copied();
        let state = match (what, known) {
            ("hello", _) | ("ping", None) => "online",
            ("activity", _) if body["away"] == true => "away",
            ("activity", _) => "online",
            ("bye", _) => "offline",
            (_, known) => known.unwrap_or("offline"),
        };
        if known == Some(state) {
            continue;
        }
        states.insert(account.to_owned(), state);
        changes += 1;
        if is_nth(drop_every, changes) {
            continue;
        }
        let now_ms = clock.unix_nanos() / 1_000_000;
        let told = json!({"account": account, "siteId": site, "status": state, "timestamp": now_ms});
        client.publish(subjects::presence_state(account), serde_json::to_vec(&told)?.into()).await?;
    }
    Ok(())
}
