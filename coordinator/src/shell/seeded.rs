//! Whether the target was seeded with the fixtures of the run, and whether its services are there: without the one or the other
//! every operation fails, which must not be taken for the limit.

use std::time::Duration;

use async_nats::{Request, RequestErrorKind, StatusCode};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use plimsoll_common::contract::read::{Ack, classify_ack};
use plimsoll_common::contract::subjects::GATEKEEPER;
use plimsoll_common::workload::{SeedProbe, ServiceProbe};
use tokio::time::timeout;

use super::monitor::Nats;
use crate::report::Applied;
use crate::settings::RunPlan;

/// An answer that takes longer tells nothing: whether the service answers at all is for the run to measure.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// Asks each service that operations make requests of for something that it refuses. What was found, for people.
///
/// # Errors
/// Those that are not there; for people, a line each, with what to do.
pub async fn services(plan: &RunPlan, nats: &Nats) -> Result<Vec<Applied>, Vec<String>> {
    let probes = plan.workload.service_probes();
    let asked = join_all(probes.iter().map(|probe| is_there(nats, probe))).await;
    let found = probes.iter().zip(asked).map(|(probe, asked)| {
        let ServiceProbe { operation, service, subject } = probe;
        let (problem, why) = match asked {
            Asked::Answered => {
                return Ok(Applied {
                    setting: format!("service {operation}"),
                    value: format!("{service} answers"),
                    source: "target".to_owned(),
                });
            }
            Asked::Denied(words) => {
                return Err(format!(
                    "preflight: NATS denies {operation}, asked at {subject}: the server says: {words}; let the user do this, or \
                     pass --skip-preflight"
                ));
            }
            Asked::Nobody => (format!("nobody answers {operation}"), String::new()),
            Asked::Silent => {
                (format!("no answer within {}s to {operation}", ANSWER_LIMIT.as_secs()), nats.circumstances())
            }
        };
        Err(format!(
            "preflight: {problem}, asked at {subject}{why}: start the {service}, check --site-id, or pass --skip-preflight"
        ))
    });
    let (there, missing): (Vec<_>, Vec<_>) = found.partition(Result::is_ok);
    match missing.is_empty() {
        true => Ok(there.into_iter().flatten().collect()),
        false => Err(missing.into_iter().filter_map(Result::err).collect()),
    }
}

enum Asked {
    Answered,
    /// The server itself says that there is nobody.
    Nobody,
    /// The server does not let us ask; its words.
    Denied(String),
    Silent,
}

async fn is_there(nats: &Nats, probe: &ServiceProbe) -> Asked {
    let request = Request::new().payload(Bytes::new()).timeout(Some(ANSWER_LIMIT));
    let answer = tokio::select! {
        answer = nats.client().send_request(probe.subject.clone(), request) => answer,
        words = nats.denial_of(&probe.subject) => return Asked::Denied(words),
    };
    match answer {
        Ok(message) if message.status == Some(StatusCode::NO_RESPONDERS) => Asked::Nobody,
        Ok(_) => Asked::Answered,
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Asked::Nobody,
        Err(_) => nats.denied_answers().map_or(Asked::Silent, Asked::Denied),
    }
}

/// Asks for some memberships of the fixtures.
///
/// # Errors
/// The target does not know them, or nobody answers; for people, with what to do.
pub async fn check(plan: &RunPlan, nats: &Nats, nonce: u64) -> Result<(), String> {
    let probes = plan.workload.seed_probes(plan.seed, nonce);
    let asked = join_all(probes.iter().map(|probe| ask(nats, probe))).await;
    // One that is not answered tells nothing; none at all that nobody is there who answers.
    if let (Some(first), true) = (probes.first(), asked.iter().all(|said| *said == Said::Nothing)) {
        return Err(format!(
            "preflight: no answer within {}s to msg.send, asked {} times, first at {}{}: start the {GATEKEEPER}, see that it \
             has caught up with its stream, check --site-id, or pass --skip-preflight",
            ANSWER_LIMIT.as_secs(),
            probes.len(),
            first.subject,
            nats.circumstances(),
        ));
    }
    let unknown: Vec<&str> = probes
        .iter()
        .zip(asked)
        .filter(|(_, said)| *said == Said::Unknown)
        .map(|(probe, _)| &*probe.membership)
        .collect();
    let Some(first) = unknown.first() else { return Ok(()) };
    // Who lives in which room follows from how many there are.
    let (users, number) = match plan.workload.daily() {
        Some(daily) => (format!(" --users {}", daily.users), ", number of users"),
        None => (String::new(), ""),
    };
    Err(format!(
        "preflight: the target was not seeded with the fixtures of --preset {} --seed {}{users}: {} of {} memberships asked for \
         are unknown there, {first} among them; seed it with these, name the preset, seed{number} and site that it was seeded \
         with, or pass --skip-preflight",
        plan.workload.preset(),
        plan.seed,
        unknown.len(),
        probes.len(),
    ))
}

/// What a target says about a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Known,
    Unknown,
    /// An answer that cannot be read.
    Unclear,
    /// No answer.
    Nothing,
}

async fn ask(nats: &Nats, probe: &SeedProbe) -> Said {
    let client = nats.client();
    let answer = async {
        let mut answers = client.subscribe(probe.answer.clone()).await.ok()?;
        client.publish(probe.subject.clone(), probe.payload.clone().into()).await.ok()?;
        timeout(ANSWER_LIMIT, answers.next()).await.ok()?
    };
    answer.await.map_or(Said::Nothing, |answer| said(&answer.payload))
}

/// A refusal for any other reason came after the membership was looked at.
fn said(answer: &[u8]) -> Said {
    match classify_ack(answer) {
        Ack::Refused { reason, .. } if reason.as_deref() == Some("not_subscribed") => Said::Unknown,
        Ack::Refused { .. } | Ack::Accepted => Said::Known,
        Ack::Unreadable => Said::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_membership_says_that_the_target_is_not_seeded() {
        for (answer, known) in [
            (r#"{"code":"forbidden","reason":"not_subscribed","error":"not subscribed"}"#, Said::Unknown),
            (r#"{"code":"not_found","error":"message not found"}"#, Said::Known),
            (r#"{"code":"unavailable","error":"fetch quoted parent message"}"#, Said::Known),
            (r#"{"code":"forbidden","reason":"large_room_post_restricted","error":"restricted"}"#, Said::Known),
            (r#"{"id":"0aZ9kLmN3pQrS7tUvWxY"}"#, Said::Known),
            ("garbage", Said::Unclear),
        ] {
            assert_eq!(said(answer.as_bytes()), known, "{answer}");
        }
    }
}
