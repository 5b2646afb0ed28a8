//! Whether the target was seeded with the fixtures of the run: without them a service refuses every operation, which must
//! not be taken for its limit.

use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use plimsoll_common::contract::read::{Ack, classify_ack};
use plimsoll_common::workload::SeedProbe;
use tokio::time::timeout;

use super::monitor::Nats;
use crate::settings::RunPlan;

/// An answer that takes longer tells nothing: whether the service answers at all is for the run to measure.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// Asks for some memberships of the fixtures.
///
/// # Errors
/// The target does not know them; for people, with what to do.
pub async fn check(plan: &RunPlan, nats: &Nats, nonce: u64) -> Result<(), String> {
    let probes = plan.workload.seed_probes(plan.seed, nonce);
    let asked = join_all(probes.iter().map(|probe| ask(nats, probe))).await;
    let unknown: Vec<&str> = probes
        .iter()
        .zip(asked)
        .filter(|(_, known)| *known == Some(false))
        .map(|(probe, _)| &*probe.membership)
        .collect();
    let Some(first) = unknown.first() else { return Ok(()) };
    Err(format!(
        "preflight: the target was not seeded with the fixtures of --preset {} --seed {}: {} of {} memberships asked for are \
         unknown there, {first} among them; seed it with these, name the preset, seed and site that it was seeded with, or \
         pass --skip-preflight",
        plan.workload.preset(),
        plan.seed,
        unknown.len(),
        probes.len(),
    ))
}

/// Whether the target knows a membership; `None`: it does not say.
async fn ask(nats: &Nats, probe: &SeedProbe) -> Option<bool> {
    let client = nats.client();
    let mut answers = client.subscribe(probe.answer.clone()).await.ok()?;
    client.publish(probe.subject.clone(), probe.payload.clone().into()).await.ok()?;
    let answer = timeout(ANSWER_LIMIT, answers.next()).await.ok()??;
    knows(&answer.payload)
}

/// A refusal for any other reason came after the membership was looked at.
fn knows(answer: &[u8]) -> Option<bool> {
    match classify_ack(answer) {
        Ack::Refused { reason, .. } => Some(reason.as_deref() != Some("not_subscribed")),
        Ack::Accepted => Some(true),
        Ack::Unreadable => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_membership_says_that_the_target_is_not_seeded() {
        for (answer, known) in [
            (r#"{"code":"forbidden","reason":"not_subscribed","error":"not subscribed"}"#, Some(false)),
            (r#"{"code":"not_found","error":"message not found"}"#, Some(true)),
            (r#"{"code":"unavailable","error":"fetch quoted parent message"}"#, Some(true)),
            (r#"{"code":"forbidden","reason":"large_room_post_restricted","error":"restricted"}"#, Some(true)),
            (r#"{"id":"0aZ9kLmN3pQrS7tUvWxY"}"#, Some(true)),
            ("garbage", None),
        ] {
            assert_eq!(knows(answer.as_bytes()), known, "{answer}");
        }
    }
}
