//! What a pod's status says of it. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// Where a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodState {
    /// Its container has not begun; why, where that is known.
    Waiting(Option<String>),
    /// It runs.
    Running,
    /// Its container has ended, or never will begin.
    Ended(Ended),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// `None`: it has none, since the pod was ended from outside.
    pub code: Option<i32>,
    /// `OOMKilled`, `Evicted`, …
    pub reason: Option<String>,
}

/// Where it is, by the container of this name.
pub fn state(pod: &Pod, container: &str) -> PodState {
    let Some(status) = &pod.status else { return PodState::Waiting(None) };
    let of_container = status.container_statuses.iter().flatten().find(|status| status.name == container);
    let state = of_container.and_then(|status| status.state.as_ref());
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        return PodState::Ended(Ended { code: Some(ended.exit_code), reason: ended.reason.clone() });
    }
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        let reason = status.reason.clone().or_else(|| status.message.clone());
        return PodState::Ended(Ended { code: None, reason });
    }
    if state.is_some_and(|state| state.running.is_some()) {
        return PodState::Running;
    }
    PodState::Waiting(of_container.and_then(waiting).or_else(|| unscheduled(pod)))
}

fn waiting(status: &ContainerStatus) -> Option<String> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    // The usual way of every pod.
    let reason = waiting.reason.as_deref().filter(|reason| *reason != "ContainerCreating")?;
    Some(with_message(reason, waiting.message.as_deref()))
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let unmet = conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    Some(with_message(unmet.reason.as_deref().unwrap_or("Unscheduled"), unmet.message.as_deref()))
}

fn with_message(reason: &str, message: Option<&str>) -> String {
    message.map_or_else(|| reason.to_owned(), |message| format!("{reason}: {message}"))
}

/// Pods that do not run, each with why; for whoever wonders where the agents are.
pub fn not_running(pods: &[Pod], container: &str) -> Vec<String> {
    let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
    let words = |pod: &Pod| match state(pod, container) {
        PodState::Running => None,
        PodState::Waiting(why) => Some(format!("{} waits: {}", name(pod), why.as_deref().unwrap_or("it is starting"))),
        PodState::Ended(Ended { code: Some(0), .. }) => None,
        PodState::Ended(ended) => Some(format!("{} ended: {}", name(pod), ended.words())),
    };
    pods.iter().filter_map(words).collect()
}

impl Ended {
    /// `exit code 137 (OOMKilled)`.
    pub fn words(&self) -> String {
        match (self.code, &self.reason) {
            (Some(code), Some(reason)) => format!("exit code {code} ({reason})"),
            (Some(code), None) => format!("exit code {code}"),
            (None, Some(reason)) => reason.clone(),
            (None, None) => "from outside".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Pod {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p-1"}, "status": status});
        serde_json::from_value(pod).unwrap()
    }

    fn of_container(state: Value) -> Pod {
        let container =
            json!({"name": "agent", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        pod(json!({"phase": "Pending", "containerStatuses": [container]}))
    }

    fn check(pod: &Pod) -> (PodState, Vec<String>) {
        (state(pod, "agent"), not_running(std::slice::from_ref(pod), "agent"))
    }

    #[test]
    fn a_pod_says_where_it_is_and_why() {
        let waits = |why: &str| PodState::Waiting(Some(why.to_owned()));
        let unscheduled =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"});
        let (found, words) = check(&pod(json!({"phase": "Pending", "conditions": [unscheduled]})));
        assert_eq!(found, waits("Unschedulable: 0/3 nodes"));
        assert_eq!(words, ["p-1 waits: Unschedulable: 0/3 nodes"]);
        let pulling = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        assert_eq!(check(&of_container(pulling)).0, waits("ImagePullBackOff: no such image"));
        let creating = json!({"waiting": {"reason": "ContainerCreating"}});
        assert_eq!(check(&of_container(creating)).1, ["p-1 waits: it is starting"]);
        assert_eq!(check(&of_container(json!({"running": {}}))), (PodState::Running, vec![]));
    }

    #[test]
    fn a_pod_that_ended_says_how() {
        let (found, words) = check(&of_container(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})));
        assert_eq!(found, PodState::Ended(Ended { code: Some(137), reason: Some("OOMKilled".to_owned()) }));
        assert_eq!(words, ["p-1 ended: exit code 137 (OOMKilled)"]);
        assert_eq!(check(&of_container(json!({"terminated": {"exitCode": 0}}))).1, Vec::<String>::new());
        let evicted = pod(json!({"phase": "Failed", "reason": "Evicted"}));
        assert_eq!(check(&evicted).1, ["p-1 ended: Evicted"]);
    }
}
