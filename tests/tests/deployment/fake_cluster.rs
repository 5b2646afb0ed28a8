//! A Kubernetes API over a socket: the paths, codes and bodies that the real one has, for what a run asks of it. What its
//! "nodes" do is a script.

mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::pods::{OLD_POD, POD, agent_log, events, list, log, pod};

/// What becomes of the agents' pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agents {
    /// They run.
    Run,
    /// The third finds no node.
    Unschedulable,
    /// The first has ended with this code, and said this.
    Failed(i32, &'static str),
}

/// What the coordinator's pod does.
#[derive(Debug, Clone)]
pub struct Script {
    /// What the agents do.
    pub agents: Agents,
    /// Looks at pods that find it waiting for this reason, before it runs; `None`: for ever.
    pub waits: Option<u32>,
    /// What its node warns of while it waits, in events alone: its status says no more than that it is being created.
    pub warned: Option<&'static str>,
    /// What it says.
    pub log: Vec<&'static str>,
    /// Lines after which the connection breaks off, once.
    pub breaks_after: Option<usize>,
    /// Whether it ends while that connection is broken, with all its lines said.
    pub ends_at_break: bool,
    /// From which reading of the log on, from 0, it is refused, and with what; the pod goes on to its end all the same.
    pub log_refused: Option<(usize, u16)>,
    /// What a node says in place of a log that it has not.
    pub no_log: Option<&'static str>,
    /// Whether a pod of yesterday's run of the same name, with the same labels, is still there.
    pub old_pod: bool,
    /// Looks at a deleted job that find it ending.
    pub lingers: u32,
    /// What it ends with after its last line; `None`: it runs until its job is deleted, and says the rest then.
    pub ends: Option<i32>,
    /// With this reason.
    pub reason: Option<&'static str>,
    /// Whether its node has lost it by then: it does not end, or is not there any more.
    pub lost: Option<Lost>,
    /// Why it was ended before it began, in the place of all that.
    pub never_began: Option<&'static str>,
    /// What it says when it is ended.
    pub last_words: Vec<&'static str>,
    /// A job of which no pods are made, `plimsoll-agents`, and why.
    pub makes_no_pods: Option<(&'static str, &'static str)>,
    /// What whoever reads events is refused with.
    pub events: Option<u16>,
    /// A name that is taken, or may not be made: its kind's plural, and the code.
    pub refuses: Option<(&'static str, u16)>,
    /// Whether what is refused so is made all the same, and the answer comes too late.
    pub makes_refused: bool,
    /// What is not removed, as `jobs/plimsoll-agents`, the code, and how often that is the answer.
    pub keeps: Option<(&'static str, u16, usize)>,
}

/// How a pod is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// It goes on when its job is deleted.
    Stays,
    /// Somebody removed it.
    Gone,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            agents: Agents::Run,
            waits: Some(0),
            warned: None,
            log: Vec::new(),
            breaks_after: None,
            ends_at_break: false,
            log_refused: None,
            no_log: None,
            old_pod: false,
            lingers: 1,
            ends: Some(0),
            reason: None,
            lost: None,
            never_began: None,
            last_words: Vec::new(),
            makes_no_pods: None,
            events: None,
            refuses: None,
            makes_refused: false,
            keeps: None,
        }
    }
}

#[derive(Debug, Default)]
struct Inside {
    /// `POST jobs/plimsoll-agents`, in order.
    asked: Vec<String>,
    /// What whoever asked needed the right to: `get pods/log`.
    rights: BTreeSet<String>,
    /// By `jobs/plimsoll-agents`.
    objects: BTreeMap<String, Value>,
    looks: u32,
    /// How often somebody asked for events.
    tries: u32,
    broke: bool,
    /// `sinceTime` of the log's readers.
    since: Vec<Option<String>>,
    /// Of the coordinator's pod.
    begun: bool,
    ended: bool,
    /// Deleted jobs, and how often somebody looked at each since.
    ending: BTreeMap<String, u32>,
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

    /// The rights that it took until now, such as `get pods/log`.
    pub fn rights(&self) -> BTreeSet<String> {
        self.shared.inside().rights.clone()
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
        429 => "TooManyRequests",
        500 => "InternalError",
        504 => "Timeout",
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
        ("/api/v1/namespaces/load/", &["configmaps", "secrets", "services", "pods", "events"]),
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
    let verb = match (&method, rest.as_slice()) {
        (&Method::POST, _) => "create",
        (&Method::DELETE, _) => "delete",
        (_, []) => "list",
        _ => "get",
    };
    let resource = std::iter::once(plural).chain(rest.get(1).copied()).collect::<Vec<_>>().join("/");
    shared.inside().rights.insert(format!("{verb} {resource}"));
    match (method, plural, rest.as_slice()) {
        (Method::POST, plural, []) if !["pods", "events"].contains(&plural) => create(&shared, plural, &body),
        (Method::DELETE, plural, [name]) => delete(&shared, plural, name, &body),
        (Method::GET, "jobs", [name]) => job(&shared, name),
        (Method::GET, "events", []) => events(&shared, &query),
        (Method::GET, "pods", []) => list(&shared, &query),
        (Method::GET, "pods", [name]) => match pod(&shared, name) {
            Some(pod) => ok(StatusCode::OK, &pod),
            None => status(404, &format!("pods \"{name}\" not found")),
        },
        (Method::GET, "pods", [POD, "log"]) => log(shared, &query),
        (Method::GET, "pods", [name, "log"]) if name.starts_with("plimsoll-agents-") => agent_log(&shared, &query),
        (Method::GET, "pods", [OLD_POD, "log"]) => "2026-01-01T03:04:05.000000000Z Run yesterday\n".into_response(),
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
        let words = match code {
            409 => "already exists",
            429 | 504 => "took too long",
            _ => "is forbidden: exceeded quota",
        };
        if shared.script.makes_refused {
            // Somebody else's, where it was made before.
            if inside.objects.contains_key(&format!("{plural}/{name}")) {
                return status(409, &format!("{plural} \"{name}\" already exists"));
            }
            inside.objects.insert(format!("{plural}/{name}"), object);
        }
        return status(code, &format!("{plural} \"{name}\" {words}"));
    }
    let key = format!("{plural}/{name}");
    if inside.objects.contains_key(&key) {
        let ending = if inside.ending.contains_key(&key) { "object is being deleted: " } else { "" };
        return status(409, &format!("{ending}{plural} \"{name}\" already exists"));
    }
    inside.objects.insert(key, object.clone());
    let mut answered = object;
    answered["metadata"]["uid"] = json!(uid_of(&name));
    ok(StatusCode::CREATED, &answered)
}

fn uid_of(name: &str) -> String {
    format!("uid-of-{name}")
}

fn delete(shared: &Shared, plural: &str, name: &str, body: &Bytes) -> Response {
    let mut inside = shared.inside();
    inside.asked.push(format!("DELETE {plural}/{name}"));
    let options: Value = serde_json::from_slice(body).unwrap_or_default();
    let key = format!("{plural}/{name}");
    let asked = format!("DELETE {key}");
    let times = inside.asked.iter().filter(|earlier| **earlier == asked).count();
    if let Some((_, code, _)) = shared.script.keeps.filter(|(kept, _, most)| *kept == key && times <= *most) {
        return status(code, &format!("{key} stays"));
    }
    let foreground = options["propagationPolicy"] == "Foreground";
    // As the real one: without either the pods of a job stay, and with the other one the job goes before them.
    if plural == "jobs" && !foreground {
        return status(400, "its pods would outlive it");
    }
    if !inside.objects.contains_key(&key) {
        return status(404, &format!("{plural} \"{name}\" not found"));
    }
    if plural == "jobs" {
        inside.ending.entry(key).or_default();
    } else {
        inside.objects.remove(&key);
    }
    if name.ends_with("-coordinator") && plural == "jobs" {
        shared.deleted.send_replace(true);
    }
    ok(StatusCode::OK, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
}

/// A job as it stands: a deleted one goes after some looks, and the coordinator's not before its pod has ended.
fn job(shared: &Shared, name: &str) -> Response {
    let mut inside = shared.inside();
    let key = format!("jobs/{name}");
    let pod_runs = name.ends_with("-coordinator") && !inside.ended && inside.begun;
    let lingers = shared.script.lingers;
    let gone = inside.ending.get_mut(&key).is_some_and(|looks| {
        *looks += 1;
        *looks > lingers && !pod_runs
    });
    if gone {
        inside.objects.remove(&key);
        inside.ending.remove(&key);
    }
    let Some(mut object) = inside.objects.get(&key).cloned() else {
        return status(404, &format!("jobs \"{name}\" not found"));
    };
    object["metadata"]["uid"] = json!(uid_of(name));
    if inside.ending.contains_key(&key) {
        object["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:05:00Z");
    }
    ok(StatusCode::OK, &object)
}

/// A command with this cluster's kubeconfig and no other settings.
pub fn with_kubeconfig(
    cluster: &FakeCluster,
    mut command: std::process::Command,
) -> anyhow::Result<std::process::Command> {
    for (name, _) in std::env::vars_os() {
        let name = name.to_str().context("a variable")?;
        if name.starts_with("KUBERNETES_") || name.to_ascii_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.env("KUBECONFIG", cluster.kubeconfig());
    Ok(command)
}
