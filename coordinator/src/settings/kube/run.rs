//! The run that follows `--`: checked here as it would be there, and turned into a plan file, with the files that it names
//! beside it and the Secrets that hold the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use plimsoll_agent::core::limits::ServerAddress;
use plimsoll_agent::shell::files::{self, ReadError};
use plimsoll_agent::shell::nats_target::servers;
use plimsoll_common::plan::redact_url;
use plimsoll_common::workload::SettingKind;

use crate::settings::commands::LoadCommand;
use crate::settings::error::{SettingsError, got};
use crate::settings::layers::{Environment, Given, Layers, Source};
use crate::settings::storage::StoragePlan;
use crate::settings::table::Setting;
use crate::settings::{InvocationError, command_line, resolve};

/// Where the plan and the files beside it are mounted.
pub const PLAN_DIR: &str = "/etc/plimsoll/plan";
/// Where Secrets are, each in a directory of its name.
pub const SECRETS_DIR: &str = "/etc/plimsoll/secrets";
/// Where the coordinator's certificate, key and CA are.
pub const TLS_DIR: &str = "/etc/plimsoll/tls";
/// Where runs are saved.
pub const RESULTS_DIR: &str = "/results";
/// Names of the files in [`TLS_DIR`], as Kubernetes and cert-manager call them.
pub const TLS_FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];
/// The plan's file.
pub const PLAN_FILE: &str = "plan.toml";
/// A ConfigMap holds a mebibyte; something is left for the names.
const MOST_BYTES: usize = 1_000_000;

/// What the cluster makes of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPod {
    /// Where the agents are.
    pub agents: String,
    /// How many.
    pub count: u32,
    /// How long the coordinator waits for them.
    pub wait_timeout: Duration,
    /// Whether coordinator and agents speak in clear.
    pub insecure: bool,
    /// Whether somebody may read its metrics.
    pub metrics: bool,
}

/// A run, ready for a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct RunInPod {
    /// What the coordinator is told: the command, and the plan.
    pub arguments: Vec<String>,
    /// The ConfigMap: the plan and the files beside it, by name.
    pub files: BTreeMap<String, String>,
    /// Names of the Secrets that it reads, each mounted in [`SECRETS_DIR`].
    pub secrets: BTreeSet<String>,
    /// What the agents are allowed to drive.
    pub targets: Vec<String>,
    /// How long operations may stay open, and so how long a pod may take to end.
    pub request_timeout: Duration,
    /// What it takes at least, every step held once.
    pub longest: Duration,
    /// What pauses and repeats may add to it.
    pub pauses: Duration,
    /// How long the coordinator waits for agents.
    pub wait_timeout: Duration,
}

/// What `plimsoll kube` says itself.
const OWN: [&str; 10] =
    ["agents", "local", "wait-agents", "tls-cert", "tls-key", "tls-ca", "results", "csv", "metrics-listen", "dry-run"];

/// Files that hold secrets, or name a variable that does.
const SECRET: [&str; 9] = [
    "nats-creds",
    "nats-nkey",
    "nats-token",
    "nats-tls-cert",
    "nats-tls-key",
    "mongo-password",
    "mongo-tls-identity",
    "cassandra-password",
    "cassandra-tls-identity",
];

/// Files that do not.
const PLAIN: [&str; 4] = ["nats-tls-ca", "mongo-tls-ca", "cassandra-tls-ca", "ceilings"];

/// Reads and checks it.
///
/// # Errors
/// What follows `--` is no run, or one that cannot be made in a pod.
pub fn read(run: &[OsString], in_pod: &InPod, environment: Environment) -> Result<RunInPod, InvocationError> {
    let name = run.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let is_run = |command: LoadCommand| matches!(command, LoadCommand::MaxRps | LoadCommand::Run | LoadCommand::Daily);
    if !LoadCommand::find(&name).is_some_and(is_run) {
        return Err(refused("--", got(name, "a run: max-rps, run or daily, with its flags")).into());
    }
    let arguments = std::iter::once(OsString::from("plimsoll")).chain(run.iter().cloned());
    let (command, flags) = command_line::parse(arguments)?;
    let layers = Layers::gather(command, flags, environment)?;
    Ok(in_a_pod(command, layers, in_pod)?)
}

fn refused(place: &str, problem: String) -> SettingsError {
    SettingsError::Value { place: place.to_owned(), problem }
}

/// What goes into the pod, as it is gathered.
#[derive(Default)]
struct Gathered {
    files: BTreeMap<String, String>,
    secrets: BTreeSet<String>,
    plan: String,
}

fn in_a_pod(command: LoadCommand, mut layers: Layers, in_pod: &InPod) -> Result<RunInPod, SettingsError> {
    // Stands for what is only there in the pod, for checks that look whether a file is there.
    let stand_in = std::env::current_exe().map_err(|error| refused("--", format!("where is this program? {error}")))?;
    let mut gathered = Gathered::default();
    let settings: Vec<&'static Setting> = command.settings().collect();
    for setting in settings {
        let Some(given) = layers.get(setting.name).cloned() else { continue };
        if OWN.contains(&setting.name) {
            if given.source == Source::Flag {
                return Err(own(setting));
            }
            layers.remove(setting.name);
        } else if given.source != Source::Default && setting.in_plan_file() {
            let value = gathered.take(setting, &given, &layers)?;
            if value.starts_with(SECRETS_DIR) {
                layers.set(setting.name, Given { value: stand_in.display().to_string(), source: given.source });
            }
            gathered.say(setting, &value);
        }
    }
    for (name, value) in gathered.of_the_pod(&layers, in_pod) {
        layers.set(name, Given { value, source: Source::Flag });
    }
    let plan = resolve::resolve(command, &layers)?;
    if in_pod.insecure && !gathered.secrets.is_empty() {
        return Err(refused(
            "--insecure",
            "credentials go to agents over TLS only: expected a run without secrets".into(),
        ));
    }
    plan.storage.as_ref().map_or(Ok(()), passwords_are_there)?;
    let addresses = servers(&plan.target.nats_url).map_err(|problem| refused("--nats-url", problem))?;
    if let Some(local) = addresses.iter().find(|address| is_loopback(address)) {
        let takes = "the address at which pods reach the service, such as nats://chat.default.svc:4222";
        return Err(refused("--nats-url", got(local, takes)));
    }
    gathered.files.insert(PLAN_FILE.to_owned(), gathered.plan);
    let bytes: usize = gathered.files.values().map(String::len).sum();
    if bytes > MOST_BYTES {
        let problem = format!("its files have {bytes} bytes together, and a ConfigMap takes {MOST_BYTES}");
        return Err(refused("--", problem));
    }
    Ok(RunInPod {
        arguments: vec![command.name().to_owned(), format!("--plan={PLAN_DIR}/{PLAN_FILE}")],
        files: gathered.files,
        secrets: gathered.secrets,
        targets: addresses.iter().map(ToString::to_string).collect(),
        request_timeout: plan.request_timeout,
        longest: plan.longest(),
        pauses: plan.pauses(),
        wait_timeout: plan.gather.map_or(Duration::ZERO, |gather| gather.timeout),
    })
}

/// A user's password is in a variable of this shell by default, which is in no pod.
fn passwords_are_there(storage: &StoragePlan) -> Result<(), SettingsError> {
    let of_cassandra = storage.cassandra.as_ref().and_then(|cassandra| cassandra.login.as_ref());
    for (database, login) in [("mongo", storage.mongo.login.as_ref()), ("cassandra", of_cassandra)] {
        if let Some(login) = login.filter(|login| login.password.starts_with("env:")) {
            let problem = format!(
                "the password of '{}' is in {}, which no pod has: add --{database}-password secret:NAME/KEY, a key of \
                 a Secret of the namespace",
                login.user, login.password
            );
            return Err(refused(&format!("--{database}-username"), problem));
        }
    }
    Ok(())
}

fn is_loopback(address: &ServerAddress) -> bool {
    let ip = address.host.parse::<std::net::IpAddr>();
    ip.map_or(address.host == "localhost", |ip| ip.to_canonical().is_loopback())
}

fn own(setting: &Setting) -> SettingsError {
    let instead = match setting.name {
        "results" | "csv" => {
            "the run is saved in a volume (--results-claim), and `plimsoll report --format csv` shows it"
        }
        "dry-run" => "without --apply nothing is started; what each agent would do is shown without `plimsoll kube`",
        "metrics-listen" => "--metrics-from says who may read metrics",
        _ => "`plimsoll kube` says it itself",
    };
    refused(&format!("--{}", setting.name), format!("cannot be set in a cluster: {instead}"))
}

impl Gathered {
    /// The value in the pod: what names a file here names it there.
    fn take(&mut self, setting: &'static Setting, given: &Given, layers: &Layers) -> Result<String, SettingsError> {
        let value = &given.value;
        let is_file = layers
            .workload()
            .and_then(|entry| entry.setting(setting.name))
            .is_some_and(|setting| setting.kind == SettingKind::File);
        if SECRET.contains(&setting.name) || PLAIN.contains(&setting.name) || is_file {
            if let Some(place) = value.strip_prefix("secret:") {
                return self.secret(setting, place);
            }
            return if SECRET.contains(&setting.name) { Err(stays_here(setting)) } else { self.file(setting, value) };
        }
        if redact_url(value) != *value {
            let problem = format!(
                "got '{}', expected an address without its secret, which would stand in a ConfigMap: give it by a Secret \
                 (--nats-creds secret:NAME/KEY, --mongo-password secret:NAME/KEY)",
                redact_url(value)
            );
            return Err(refused(&format!("--{}", setting.name), problem));
        }
        Ok(value.clone())
    }

    fn secret(&mut self, setting: &Setting, place: &str) -> Result<String, SettingsError> {
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
                && !part.starts_with('.')
        };
        match place.split_once('/') {
            Some((name, key)) if part(name) && part(key) => {
                self.secrets.insert(name.to_owned());
                Ok(format!("{SECRETS_DIR}/{name}/{key}"))
            }
            _ => Err(refused(
                &format!("--{}", setting.name),
                got(format!("secret:{place}"), "secret:NAME/KEY: a Secret of the namespace, and a key of it"),
            )),
        }
    }

    fn file(&mut self, setting: &Setting, path: &str) -> Result<String, SettingsError> {
        let takes = |why: &dyn std::fmt::Display| {
            refused(&format!("--{}", setting.name), got(path, format!("the path of a text file: {why}")))
        };
        let text = files::read_text(path, MOST_BYTES as u64).map_err(|error| match error {
            ReadError::TooLarge { bytes, most } => {
                takes(&format!("it has {bytes} bytes, at most {most} fit into a ConfigMap"))
            }
            ReadError::Io(error) => takes(&error),
        })?;
        let extension = Path::new(path).extension().and_then(|text| text.to_str());
        let plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let name = match extension.filter(plain) {
            Some(extension) => format!("{}.{extension}", setting.name),
            None => setting.name.to_owned(),
        };
        self.files.insert(name.clone(), text);
        Ok(format!("{PLAN_DIR}/{name}"))
    }

    /// A line of the plan file.
    fn say(&mut self, setting: &Setting, value: &str) {
        let value = match (setting.is_switch(), value) {
            (true, "true" | "1") => toml::Value::Boolean(true),
            (true, "false" | "0") => toml::Value::Boolean(false),
            _ => toml::Value::String(value.to_owned()),
        };
        writeln!(self.plan, "{} = {value}", setting.name).expect("a String takes every line");
    }

    /// What only the cluster knows, said in the plan too.
    fn of_the_pod(&mut self, layers: &Layers, in_pod: &InPod) -> Vec<(&'static str, String)> {
        let mut own = vec![
            ("agents", in_pod.agents.clone()),
            ("wait-agents", in_pod.count.to_string()),
            ("results", RESULTS_DIR.to_owned()),
        ];
        if layers.get("wait-timeout").is_none_or(|given| given.source == Source::Default) {
            own.push(("wait-timeout", format!("{}s", in_pod.wait_timeout.as_secs())));
        }
        if !in_pod.insecure {
            let path = |file: &str| format!("{TLS_DIR}/{file}");
            own.extend(["tls-cert", "tls-key", "tls-ca"].into_iter().zip(TLS_FILES.map(path)));
        }
        if in_pod.metrics {
            own.push(("metrics-listen", format!("0.0.0.0:{}", crate::kube::METRICS_PORT)));
        }
        for (name, value) in &own {
            writeln!(self.plan, "{name} = {}", toml::Value::String(value.clone())).expect("a String takes every line");
        }
        own
    }
}

fn stays_here(setting: &Setting) -> SettingsError {
    let problem = format!(
        "what is in this file is not put into manifests: expected secret:NAME/KEY, a key of a Secret of the namespace \
         (kubectl create secret generic NAME --from-file=KEY={})",
        if setting.value.contains("FILE") || setting.value.contains("PATH") { "FILE" } else { setting.value }
    );
    refused(&format!("--{}", setting.name), problem)
}
