//! Pods of the fake cluster, what they say, and what events say of those that are not made.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Agents, Lost, Shared, ok, status, uid_of};

pub(super) const POD: &str = "plimsoll-coordinator-x7k2p";
pub(super) const OLD_POD: &str = "plimsoll-coordinator-4aaaa";

pub(super) fn list(shared: &Shared, query: &str) -> Response {
    let of_coordinator = query.contains("component%3Dcoordinator");
    let refused = shared.script.makes_no_pods.map(|(job, _)| job);
    let items = match of_coordinator {
        true => old_pod(shared).into_iter().chain(pod(shared, POD)).collect(),
        false if refused == Some("plimsoll-agents") => Vec::new(),
        false => (0..3).map(|index| agent(shared.script.agents, index)).collect(),
    };
    ok(StatusCode::OK, &json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}))
}

/// One of the three agents' pods.
fn agent(agents: Agents, index: usize) -> Value {
    let status = match agents {
        Agents::Unschedulable if index == 2 => json!({"phase": "Pending", "conditions": [{"type": "PodScheduled",
            "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}]}),
        Agents::Failed(code, _) if index == 0 => of_container("agent", "Failed", &ended(code, "Error")),
        _ => of_container("agent", "Running", &json!({"running": {}})),
    };
    let name = format!("plimsoll-agents-{index}-abcde");
    let metadata = json!({"name": name, "uid": uid_of(&name), "ownerReferences": [owner(uid_of("plimsoll-agents"))]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status})
}

fn ended(code: i32, reason: &str) -> Value {
    json!({"terminated": {"exitCode": code, "reason": reason}})
}

/// The status of a pod whose container is in this state.
fn of_container(name: &str, phase: &str, state: &Value) -> Value {
    let container =
        json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    json!({"phase": phase, "containerStatuses": [container]})
}

/// The end of what the agent that failed has said.
pub(super) fn agent_log(shared: &Shared, query: &str) -> Response {
    let is_the_end = ["tailLines=", "limitBytes=", "container=agent"].iter().all(|part| query.contains(part));
    match shared.script.agents {
        Agents::Failed(_, said) if is_the_end => said.into_response(),
        _ => status(400, &format!("the end of a failed agent's log is asked for by {query}")),
    }
}

fn owner(uid: String) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "name": "plimsoll", "uid": uid, "controller": true})
}

/// Of yesterday's run of the same name, which is being removed.
fn old_pod(shared: &Shared) -> Option<Value> {
    let metadata = json!({"name": OLD_POD, "ownerReferences": [owner("uid-of-yesterday".into())]});
    let status = of_container("coordinator", "Succeeded", &ended(0, "Completed"));
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status});
    shared.script.old_pod.then_some(pod)
}

/// Events of jobs and of the coordinator's pod: those of today, and, for whoever does not ask for this very one, of yesterday's.
pub(super) fn events(shared: &Shared, query: &str) -> Response {
    if let Some(code) = shared.script.events {
        return status(code, "events is forbidden: User \"me\" cannot list resource \"events\"");
    }
    let selector = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector=")).unwrap_or_default();
    let selector = selector.replace("%3D", "=").replace("%2C", ",");
    let wanted: BTreeMap<&str, &str> = selector.split(',').filter_map(|field| field.split_once('=')).collect();
    let tries = {
        let mut inside = shared.inside();
        inside.tries += 1;
        inside.tries
    };
    let event = |job: &str, uid: String, why: &str, at: &str| {
        // Each try is of another pod.
        let message = format!("Error creating: pods \"{job}-x{tries:04}\" is forbidden: {why}");
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("{job}.1"), "namespace": "load"},
            "involvedObject": {"kind": "Job", "name": job, "uid": uid, "namespace": "load"},
            "type": "Warning", "reason": "FailedCreate", "message": message, "lastTimestamp": at,
        })
    };
    let mut all = Vec::new();
    for job in ["plimsoll-agents", "plimsoll-coordinator"] {
        all.push(event(job, "uid-of-yesterday".into(), "it was yesterday", "2026-01-01T03:04:05Z"));
        if let Some((_, why)) = shared.script.makes_no_pods.filter(|(refused, _)| *refused == job) {
            all.push(event(job, uid_of(job), why, "2026-01-02T03:04:05Z"));
        }
    }
    if let Some(why) = shared.script.warned {
        for (uid, message) in [(OLD_POD.to_owned(), "it was yesterday"), (uid_of(POD), why)] {
            all.push(json!({
                "apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("{POD}.1"), "namespace": "load"},
                "involvedObject": {"kind": "Pod", "name": POD, "uid": uid, "namespace": "load"},
                "type": "Warning", "reason": "FailedMount", "message": message, "lastTimestamp": "2026-01-02T03:04:05Z",
            }));
        }
    }
    let is_wanted = |event: &Value| {
        wanted.iter().all(|(field, value)| {
            let at = format!("/{}", field.replace('.', "/"));
            event.pointer(&at).and_then(Value::as_str) == Some(value)
        })
    };
    all.retain(is_wanted);
    ok(StatusCode::OK, &json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": all}))
}

/// The coordinator's pod as it stands; there is none before its job.
pub(super) fn pod(shared: &Shared, name: &str) -> Option<Value> {
    let mut inside = shared.inside();
    let there = inside.objects.contains_key("jobs/plimsoll-coordinator");
    let refused = shared.script.makes_no_pods.is_some_and(|(job, _)| job == "plimsoll-coordinator");
    if name == OLD_POD {
        return old_pod(shared);
    }
    // Of a deleted job, one that has not begun goes at once, and another one when it has ended.
    let is_removed = inside.ending.contains_key("jobs/plimsoll-coordinator") && (!inside.begun || inside.ended);
    if name != POD || !there || refused || is_removed {
        return None;
    }
    if inside.ended && shared.script.lost == Some(Lost::Gone) {
        return None;
    }
    let metadata = json!({"name": POD, "uid": uid_of(POD), "ownerReferences": [owner(uid_of("plimsoll-coordinator"))]});
    let whole = |status: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status});
    if let Some(reason) = shared.script.never_began {
        return Some(whole(json!({"phase": "Failed", "reason": reason, "message": "the node was low on memory"})));
    }
    inside.looks += 1;
    let waits = shared.script.waits.is_none_or(|looks| inside.looks <= looks);
    inside.begun |= !waits;
    let (phase, state) = match shared.script.ends.filter(|_| inside.ended) {
        Some(code) => ("Failed", ended(code, shared.script.reason.unwrap_or("Error"))),
        None if waits && shared.script.warned.is_some() => {
            ("Pending", json!({"waiting": {"reason": "ContainerCreating"}}))
        }
        None if waits => ("Pending", json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})),
        None => ("Running", json!({"running": {}})),
    };
    Some(whole(of_container("coordinator", phase, &state)))
}

/// Lines with instants a millisecond apart, as long as the pod says something, or, not followed, up to its last one yet.
pub(super) fn log(shared: Arc<Shared>, query: &str) -> Response {
    for needed in ["timestamps=true", "container=coordinator"] {
        if !query.contains(needed) {
            return status(400, &format!("the log is asked for without {needed}"));
        }
    }
    let follow = query.contains("follow=true");
    let since = query.split('&').find_map(|pair| pair.strip_prefix("sinceTime=")).map(str::to_owned);
    let script = &shared.script;
    let breaks = {
        let mut inside = shared.inside();
        let reading = inside.since.len();
        inside.since.push(since);
        if let Some((_, code)) = script.log_refused.filter(|(from, _)| reading >= *from) {
            inside.ended |= script.ends.is_some();
            return status(code, "pods \"plimsoll-coordinator-x7k2p\": cannot get resource \"pods/log\"");
        }
        if let Some(words) = script.no_log {
            inside.ended |= script.ends.is_some();
            return words.into_response();
        }
        let breaks = script.breaks_after.filter(|_| !inside.broke);
        inside.broke |= breaks.is_some();
        inside.ended |= breaks.is_some() && script.ends_at_break;
        breaks
    };
    let (send, receive) = mpsc::channel::<Result<String, std::io::Error>>(64);
    tokio::spawn(async move {
        let line = |index: usize, text: &str| format!("2026-01-02T03:04:05.{index:03}000000Z {text}\n");
        let log = &shared.script.log;
        for (index, text) in log.iter().enumerate().take(breaks.unwrap_or(log.len())) {
            let _ = send.send(Ok(line(index, text))).await;
        }
        if breaks.is_some() {
            // What was said is on its way.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let _ = send.send(Err(std::io::ErrorKind::ConnectionReset.into())).await;
            return;
        }
        if shared.script.ends.is_none() {
            let mut deleted = shared.deleted.subscribe();
            if follow && shared.script.lost == Some(Lost::Stays) {
                std::future::pending::<()>().await;
            }
            if follow {
                let _ = deleted.wait_for(|deleted| *deleted).await;
            }
            let last_words: &[&str] = if *deleted.borrow() { &shared.script.last_words } else { &[] };
            for (index, text) in last_words.iter().enumerate() {
                let _ = send.send(Ok(line(log.len() + index, text))).await;
            }
        }
        shared.inside().ended |= follow;
    });
    Body::from_stream(ReceiverStream::new(receive)).into_response()
}
