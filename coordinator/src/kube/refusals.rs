//! Why a job has no pods, and why a pod does not begin: what the cluster's events say of them. Pure.

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;

/// The newest reason for which a pod of this job was not made, without the pod's name, which is another at each try.
pub fn refusal(events: &[Event], job: &str) -> Option<String> {
    let refused = events.iter().filter(|event| event.reason.as_deref() == Some("FailedCreate"));
    let message = refused.max_by_key(at)?.message.as_deref()?;
    Some(without_name(message, job))
}

/// The newest warning about a pod that a node has taken, with its reason: `FailedMount: … secret "chat-nats" not found`. What the
/// scheduler said before is over by then.
pub fn warning(events: &[Event]) -> Option<String> {
    let is_of_the_node = |event: &&Event| {
        event.type_.as_deref() == Some("Warning") && event.reason.as_deref() != Some("FailedScheduling")
    };
    let newest = events.iter().filter(is_of_the_node).max_by_key(at)?;
    let words = [newest.reason.as_deref(), newest.message.as_deref()];
    let words = words.into_iter().flatten().map(str::trim).filter(|word| !word.is_empty());
    Some(words.collect::<Vec<_>>().join(": ")).filter(|words| !words.is_empty())
}

/// When it was seen last.
fn at(event: &&Event) -> Option<Timestamp> {
    let of_series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref().map(|at| at.0));
    let times = [event.last_timestamp.as_ref().map(|at| at.0), event.event_time.as_ref().map(|at| at.0), of_series];
    times.into_iter().flatten().max()
}

fn without_name(message: &str, job: &str) -> String {
    let message = message.strip_prefix("Error creating: ").unwrap_or(message);
    let named = message.find(&format!(" \"{job}")).and_then(|from| {
        let rest = &message[from + 2..];
        Some((&message[..from], &rest[rest.find('"')? + 1..]))
    });
    let Some((before, after)) = named else { return message.to_owned() };
    format!("{before}{after}").replacen("pods is forbidden", "pods are forbidden", 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(reason: &str, message: &str, last: &str) -> Event {
        let job = json!({"kind": "Job", "name": "night-agents", "namespace": "load"});
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "night-agents.1"}, "involvedObject": job,
            "type": "Warning", "reason": reason, "message": message, "lastTimestamp": last,
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_refusal_counts_and_reads_the_same_at_each_try() {
        let quota = "Error creating: pods \"night-agents-0-x7k2p\" is forbidden: exceeded quota: load, used: pods=3";
        let policy = "Error creating: pods \"night-agents-1-9zzzz\" is forbidden: violates PodSecurity \"restricted\"";
        let events = [
            event("FailedCreate", quota, "2026-01-02T03:04:05Z"),
            event("FailedCreate", policy, "2026-01-02T03:04:07Z"),
            event("SuccessfulCreate", "Created pod: night-agents-2-abcde", "2026-01-02T03:04:09Z"),
        ];
        let newest = refusal(&events, "night-agents");
        assert_eq!(newest.as_deref(), Some("pods are forbidden: violates PodSecurity \"restricted\""));
        let first = refusal(&events[..1], "night-agents");
        assert_eq!(first.as_deref(), Some("pods are forbidden: exceeded quota: load, used: pods=3"));
        assert_eq!(refusal(&events[2..], "night-agents"), None);
    }

    #[test]
    fn the_newest_warning_about_a_pod_counts_and_nothing_that_is_over() {
        let mut started = event("Pulled", "image is there", "2026-01-02T03:04:09Z");
        started.type_ = Some("Normal".to_owned());
        let events = [
            event("FailedMount", "secret \"chat-natz\" not found", "2026-01-02T03:04:05Z"),
            event("FailedMount", "secret \"chat-nats\" not found\n", "2026-01-02T03:04:07Z"),
            event("FailedScheduling", "0/3 nodes are available", "2026-01-02T03:04:08Z"),
            started,
        ];
        assert_eq!(warning(&events).as_deref(), Some("FailedMount: secret \"chat-nats\" not found"));
        assert_eq!(warning(&events[2..]), None);
        let mut wordless = event("Evicting", "", "2026-01-02T03:04:09Z");
        wordless.message = None;
        assert_eq!(warning(&[wordless]).as_deref(), Some("Evicting"));
    }

    #[test]
    fn words_of_other_shapes_stay_as_they_are() {
        let same = |message: &str| assert_eq!(without_name(message, "night-agents"), message);
        same("admission webhook \"policy\" denied the request: no");
        same("Pod \"night-agents");
        let invalid = without_name("Error creating: Pod \"night-agents-0-a\" is invalid: spec", "night-agents");
        assert_eq!(invalid, "Pod is invalid: spec");
    }
}
