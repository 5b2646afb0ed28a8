//! What a pod's status says of it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// Where a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodState {
    /// Its container has not begun; why, where that is known.
    Waiting(Option<String>),
    /// It runs.
    Running,
    /// Its container has ended.
    Ended(Ended),
    /// It was ended before its container began, so that it has said nothing; why.
    NeverBegan(String),
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
        let reason = status.reason.as_deref().map(|reason| with_message(reason, status.message.as_deref()));
        let ended = Ended { code: None, reason: reason.or_else(|| status.message.clone()) };
        let has_begun = state.is_some_and(|state| state.running.is_some());
        return if has_begun { PodState::Ended(ended) } else { PodState::NeverBegan(ended.words()) };
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

/// A pod that does not run, and did not end as it should.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotRunning {
    /// Its name.
    pub pod: String,
    /// Why.
    pub why: Why,
}

/// Why a pod does not run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It has not begun.
    Waits(String),
    /// It failed; its log says more.
    Failed(String),
    /// It was ended before it began, and has no log.
    NeverBegan(String),
}

/// Why this pod does not run; `None`: it runs, has done what it should, or has not begun and its status does not say why.
pub fn not_running(pod: &Pod, container: &str) -> Option<NotRunning> {
    let why = match state(pod, container) {
        PodState::Running | PodState::Waiting(None) | PodState::Ended(Ended { code: Some(0), .. }) => return None,
        PodState::Waiting(Some(why)) => Why::Waits(why),
        PodState::Ended(ended) => Why::Failed(ended.words()),
        PodState::NeverBegan(why) => Why::NeverBegan(why),
    };
    Some(NotRunning { pod: pod.metadata.name.clone().unwrap_or_default(), why })
}

/// A line for each reason, with the first pod of it and how many more there are: `agents-0 and 2 more wait: Unschedulable: …`.
pub fn in_words(pods: &[NotRunning]) -> Vec<String> {
    let mut by_reason: BTreeMap<&Why, (&str, usize)> = BTreeMap::new();
    for NotRunning { pod, why } in pods {
        by_reason.entry(why).and_modify(|(_, more)| *more += 1).or_insert((pod, 0));
    }
    let line = |(why, (pod, more)): (&Why, (&str, usize))| {
        let (who, waits) = match more {
            0 => (pod.to_owned(), "waits"),
            more => (format!("{pod} and {more} more"), "wait"),
        };
        match why {
            Why::Waits(why) => format!("{who} {waits}: {why}"),
            Why::Failed(how) => format!("{who} ended: {how}"),
            Why::NeverBegan(why) => format!("{who} ended before it began: {why}"),
        }
    };
    by_reason.into_iter().map(line).collect()
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
        (state(pod, "agent"), in_words(&not_running(pod, "agent").into_iter().collect::<Vec<_>>()))
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
        assert_eq!(check(&of_container(creating)), (PodState::Waiting(None), vec![]));
        assert_eq!(check(&of_container(json!({"running": {}}))), (PodState::Running, vec![]));
    }

    #[test]
    fn a_pod_that_ended_says_how() {
        let (found, words) = check(&of_container(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})));
        assert_eq!(found, PodState::Ended(Ended { code: Some(137), reason: Some("OOMKilled".to_owned()) }));
        assert_eq!(words, ["p-1 ended: exit code 137 (OOMKilled)"]);
        assert_eq!(check(&of_container(json!({"terminated": {"exitCode": 0}}))).1, Vec::<String>::new());
        // Its node is lost: the last that was known of it is that it ran.
        let mut lost = of_container(json!({"running": {}}));
        let status = lost.status.as_mut().unwrap();
        (status.phase, status.reason) = (Some("Failed".to_owned()), Some("NodeLost".to_owned()));
        assert_eq!(check(&lost).1, ["p-1 ended: NodeLost"]);
    }

    #[test]
    fn a_pod_that_never_began_is_told_from_one_that_ended() {
        let refused = pod(json!({"phase": "Failed", "reason": "OutOfcpu", "message": "requested: 2000"}));
        let (found, words) = check(&refused);
        assert_eq!(found, PodState::NeverBegan("OutOfcpu: requested: 2000".to_owned()));
        assert_eq!(words, ["p-1 ended before it began: OutOfcpu: requested: 2000"]);
        let mut evicted = of_container(json!({"waiting": {"reason": "ContainerCreating"}}));
        let status = evicted.status.as_mut().unwrap();
        (status.phase, status.reason) = (Some("Failed".to_owned()), Some("Evicted".to_owned()));
        assert_eq!(check(&evicted).0, PodState::NeverBegan("Evicted".to_owned()));
    }

    #[test]
    fn pods_of_one_reason_are_one_line() {
        let pod = |pod: &str, why: Why| NotRunning { pod: pod.to_owned(), why };
        let unscheduled = || Why::Waits("Unschedulable: 0/3 nodes".to_owned());
        let pods = [
            pod("p-1", unscheduled()),
            pod("p-2", Why::Failed("exit code 2".to_owned())),
            pod("p-3", unscheduled()),
            pod("p-4", unscheduled()),
        ];
        assert_eq!(in_words(&pods), ["p-1 and 2 more wait: Unschedulable: 0/3 nodes", "p-2 ended: exit code 2"]);
    }
}
