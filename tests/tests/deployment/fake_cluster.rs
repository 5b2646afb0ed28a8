//! A Kubernetes API over a socket: the paths, codes and bodies that the real one has, for what a run asks of it. What its
//! "nodes" do is a script.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// What the coordinator's pod does.
#[derive(Debug, Clone)]
pub struct Script {
    /// Looks at pods that find it waiting for this reason, before it runs; `None`: for ever.
    pub waits: Option<u32>,
    /// What it says.
    pub log: Vec<&'static str>,
    /// Lines after which the connection breaks off, once.
    pub breaks_after: Option<usize>,
    /// What it ends with after its last line; `None`: it runs until its job is deleted, and says the rest then.
    pub ends: Option<i32>,
    /// With this reason.
    pub reason: Option<&'static str>,
    /// What it says when it is ended.
    pub last_words: Vec<&'static str>,
    /// A name that is taken, or may not be made: its kind's plural, and the code.
    pub refuses: Option<(&'static str, u16)>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            waits: Some(0),
            log: Vec::new(),
            breaks_after: None,
            ends: Some(0),
            reason: None,
            last_words: Vec::new(),
            refuses: None,
        }
    }
}

#[derive(Debug, Default)]
struct Inside {
    /// `POST jobs/plimsoll-agents`, in order.
    asked: Vec<String>,
    /// By `jobs/plimsoll-agents`.
    objects: BTreeMap<String, Value>,
    looks: u32,
    broke: bool,
    /// `sinceTime` of the log's readers.
    since: Vec<Option<String>>,
    ended: bool,
}

/// A cluster of one namespace, `load`.
#[derive(Debug)]
pub struct FakeCluster {
    shared: Arc<Shared>,
    dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Debug)]
struct Shared {
    script: Script,
    inside: Mutex<Inside>,
    /// Whether the coordinator's job has been deleted.
    deleted: watch::Sender<bool>,
}

impl Shared {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeCluster {
    /// Serves on a free port until it is dropped.
    pub fn start(script: Script) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let shared = Arc::new(Shared { script, inside: Mutex::default(), deleted: watch::channel(false).0 });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, app).await });
        let dir = tempfile::tempdir()?;
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "me", "user": {"token": "a-token"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me", "namespace": "load"}}],
            "current-context": "fake",
        });
        std::fs::write(dir.path().join("config"), kubeconfig.to_string())?;
        Ok(Self { shared, dir, _runtime: runtime })
    }

    /// For KUBECONFIG.
    pub fn kubeconfig(&self) -> PathBuf {
        Path::new(self.dir.path()).join("config")
    }

    /// What was made and removed, in order.
    pub fn asked(&self) -> Vec<String> {
        self.shared.inside().asked.clone()
    }

    /// What is there.
    pub fn objects(&self) -> BTreeMap<String, Value> {
        self.shared.inside().objects.clone()
    }

    /// From when on each reader of the log asked for it.
    pub fn since(&self) -> Vec<Option<String>> {
        self.shared.inside().since.clone()
    }
}

fn status(code: u16, message: &str) -> Response {
    let reason = match code {
        404 => "NotFound",
        409 => "AlreadyExists",
        _ => "Forbidden",
    };
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code});
    let code = StatusCode::from_u16(code).expect("a code");
    (code, [("content-type", "application/json")], body.to_string()).into_response()
}

fn ok(code: StatusCode, body: &Value) -> Response {
    (code, [("content-type", "application/json")], body.to_string()).into_response()
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    const PREFIXES: [(&str, &[&str]); 3] = [
        ("/api/v1/namespaces/load/", &["configmaps", "secrets", "services", "pods"]),
        ("/apis/batch/v1/namespaces/load/", &["jobs"]),
        ("/apis/networking.k8s.io/v1/namespaces/load/", &["networkpolicies"]),
    ];
    let path = uri.path();
    let of_prefix = |(prefix, plurals): (&str, &'static [&'static str])| {
        let mut parts = path.strip_prefix(prefix)?.split('/');
        let plural = parts.next()?;
        Some((*plurals.iter().find(|known| **known == plural)?, parts.map(str::to_owned).collect::<Vec<_>>()))
    };
    let Some((plural, rest)) = PREFIXES.into_iter().find_map(of_prefix) else {
        return status(404, "the server could not find the requested resource");
    };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let query = query.unwrap_or_default();
    match (method, plural, rest.as_slice()) {
        (Method::POST, plural, []) if plural != "pods" => create(&shared, plural, &body),
        (Method::DELETE, plural, [name]) => delete(&shared, plural, name, &body),
        (Method::GET, "pods", []) => list(&shared, &query),
        (Method::GET, "pods", [name]) => match pod(&shared, name) {
            Some(pod) => ok(StatusCode::OK, &pod),
            None => status(404, &format!("pods \"{name}\" not found")),
        },
        (Method::GET, "pods", [_, "log"]) => log(shared, &query),
        (method, ..) => status(405, &format!("{method} {path} is nothing that a run does")),
    }
}

fn create(shared: &Shared, plural: &str, body: &Bytes) -> Response {
    let Ok(object) = serde_json::from_slice::<Value>(body) else { return status(400, "no object") };
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut inside = shared.inside();
    inside.asked.push(format!("POST {plural}/{name}"));
    if let Some((refused, code)) = shared.script.refuses
        && refused == plural
    {
        let words = if code == 409 { "already exists" } else { "is forbidden: exceeded quota" };
        return status(code, &format!("{plural} \"{name}\" {words}"));
    }
    inside.objects.insert(format!("{plural}/{name}"), object.clone());
    ok(StatusCode::CREATED, &object)
}

fn delete(shared: &Shared, plural: &str, name: &str, body: &Bytes) -> Response {
    let mut inside = shared.inside();
    inside.asked.push(format!("DELETE {plural}/{name}"));
    let options: Value = serde_json::from_slice(body).unwrap_or_default();
    // As the real one: without this the pods of a job stay.
    if plural == "jobs" && options["propagationPolicy"] != "Background" {
        return status(400, "its pods would stay");
    }
    if inside.objects.remove(&format!("{plural}/{name}")).is_none() {
        return status(404, &format!("{plural} \"{name}\" not found"));
    }
    if name.ends_with("-coordinator") && plural == "jobs" {
        shared.deleted.send_replace(true);
    }
    ok(StatusCode::OK, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
}

const POD: &str = "plimsoll-coordinator-x7k2p";

fn list(shared: &Shared, query: &str) -> Response {
    let of_coordinator = query.contains("component%3Dcoordinator");
    let agent = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plimsoll-agents-2-abcde"},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/2 nodes are available"}]},
    });
    let items = if of_coordinator { pod(shared, POD).into_iter().collect() } else { vec![agent] };
    ok(StatusCode::OK, &json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}))
}

/// The coordinator's pod as it stands; there is none before its job.
fn pod(shared: &Shared, name: &str) -> Option<Value> {
    let mut inside = shared.inside();
    let there = inside.objects.contains_key("jobs/plimsoll-coordinator");
    if name != POD || !there {
        return None;
    }
    inside.looks += 1;
    let waits = shared.script.waits.is_none_or(|looks| inside.looks <= looks);
    let (phase, state) = match shared.script.ends.filter(|_| inside.ended) {
        Some(code) => {
            ("Failed", json!({"terminated": {"exitCode": code, "reason": shared.script.reason.unwrap_or("Error")}}))
        }
        None if waits => ("Pending", json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})),
        None => ("Running", json!({"running": {}})),
    };
    let container =
        json!({"name": "coordinator", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    Some(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD},
        "status": {"phase": phase, "containerStatuses": [container]},
    }))
}

/// Lines with instants a millisecond apart, from one on, as long as the pod says something.
fn log(shared: Arc<Shared>, query: &str) -> Response {
    for needed in ["follow=true", "timestamps=true", "container=coordinator"] {
        if !query.contains(needed) {
            return status(400, &format!("the log is asked for without {needed}"));
        }
    }
    let since = query.split('&').find_map(|pair| pair.strip_prefix("sinceTime=")).map(str::to_owned);
    let breaks = {
        let mut inside = shared.inside();
        inside.since.push(since);
        let breaks = shared.script.breaks_after.filter(|_| !inside.broke);
        inside.broke |= breaks.is_some();
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
            return;
        }
        if shared.script.ends.is_none() {
            let mut deleted = shared.deleted.subscribe();
            let _ = deleted.wait_for(|deleted| *deleted).await;
            for (index, text) in shared.script.last_words.iter().enumerate() {
                let _ = send.send(Ok(line(log.len() + index, text))).await;
            }
        }
        shared.inside().ended = true;
    });
    Body::from_stream(ReceiverStream::new(receive)).into_response()
}

/// A command with this cluster's kubeconfig and no other settings.
pub fn with_kubeconfig(
    cluster: &FakeCluster,
    mut command: std::process::Command,
) -> anyhow::Result<std::process::Command> {
    for (name, _) in std::env::vars_os() {
        if name.to_str().context("a variable")?.starts_with("KUBERNETES_") {
            command.env_remove(name);
        }
    }
    command.env("KUBECONFIG", cluster.kubeconfig());
    Ok(command)
}
