//! `plimsoll kube`: what is asked of it, in flags, and the run that is to be made in a cluster.

pub mod run;

use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches as _, Subcommand};
use plimsoll_common::units::parse_duration;

use self::run::{InPod, RunInPod};
use super::error::{SettingsError, got};
use super::layers::Environment;

#[derive(Debug, Subcommand)]
enum Clustered {
    /// Renders a run as Kubernetes manifests, or with --apply runs it in a cluster and returns its exit code
    #[command(after_help = EXAMPLES)]
    Kube(Box<KubeFlags>),
}

const EXAMPLES: &str = "\
What follows -- is the run as it would be typed; it is checked here, and becomes a plan file in a ConfigMap with the files that it
names. Files with secrets stay here: put them into a Secret of the namespace, and name them as secret:NAME/KEY. Without --apply
the manifests go to standard output; with certificates, they hold private keys that are good for this run alone.

Exit codes: without --apply 0 rendered, 2 usage, 3 standard output cannot be written; with it those of the run, and 3 where it could
not be made or followed.

Examples:
  plimsoll kube --agents 8 --image registry.example.com/plimsoll:0.1.0 \\
    -- max-rps --preset medium --nats-url nats://chat:4222
  plimsoll kube --agents 8 --image registry.example.com/plimsoll:0.1.0 --namespace load \\
    --node-selector pool=load --toleration dedicated=load:NoSchedule --workers 3 \\
    -- run --preset medium --rate 5k --duration 1h --nats-url nats://chat:4222 \\
    --nats-creds secret:chat-nats/backend.creds";

#[derive(Debug, Args)]
struct KubeFlags {
    /// Number of agents, each a pod on a node of its own
    #[arg(long, value_name = "COUNT", env = "PLIMSOLL_KUBE_AGENTS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    agents: u32,
    /// The image with both programs, by the name under which the cluster's nodes pull it
    #[arg(long, env = "PLIMSOLL_KUBE_IMAGE")]
    image: String,
    /// A Secret in the namespace for pulling the image
    #[arg(long, value_name = "NAME", env = "PLIMSOLL_KUBE_IMAGE_PULL_SECRET")]
    image_pull_secret: Option<String>,
    /// Prefix of the names of everything that is created
    #[arg(long, env = "PLIMSOLL_KUBE_NAME", default_value = "plimsoll")]
    name: String,
    /// The namespace [default: that of the kubeconfig's context; rendered: none]
    #[arg(long, env = "PLIMSOLL_KUBE_NAMESPACE")]
    namespace: Option<String>,
    /// Worker threads of each agent, each with a connection to the target
    #[arg(long, value_name = "COUNT", env = "PLIMSOLL_KUBE_WORKERS", default_value = "1", value_parser = clap::value_parser!(u32).range(1..64))]
    workers: u32,
    /// Cores that each agent requests; never a limit, which would throttle it [default: its workers and one more]
    #[arg(long, value_name = "QUANTITY", env = "PLIMSOLL_KUBE_CPU")]
    cpu: Option<String>,
    /// Memory that each agent requests and is limited to
    #[arg(long, value_name = "QUANTITY", env = "PLIMSOLL_KUBE_MEMORY", default_value = "1Gi")]
    memory: String,
    /// A label of the nodes for the agents; may be repeated
    #[arg(long, value_name = "KEY=VALUE", env = "PLIMSOLL_KUBE_NODE_SELECTOR", value_delimiter = ',')]
    node_selector: Vec<String>,
    /// A taint that the agents tolerate; may be repeated
    #[arg(long, value_name = "KEY[=VALUE][:EFFECT]", env = "PLIMSOLL_KUBE_TOLERATION", value_delimiter = ',')]
    toleration: Vec<String>,
    /// Let agents share nodes if there are too few; they then compete for processors
    #[arg(long, env = "PLIMSOLL_KUBE_SHARE_NODES")]
    share_nodes: bool,
    /// A PersistentVolumeClaim of the namespace for the saved run [default: gone with the pod]
    #[arg(long, value_name = "NAME", env = "PLIMSOLL_KUBE_RESULTS_CLAIM")]
    results_claim: Option<String>,
    /// Nothing runs longer than this, whatever happens; counted from the creation of the pods
    #[arg(long, value_name = "TIME", env = "PLIMSOLL_KUBE_DEADLINE", default_value = "12h", value_parser = length)]
    deadline: Duration,
    /// How long pods may take to start, pulling the image included
    #[arg(long, value_name = "TIME", env = "PLIMSOLL_KUBE_START_TIMEOUT", default_value = "10m", value_parser = length)]
    start_timeout: Duration,
    /// The agents' certificate: a Secret with tls.crt, tls.key and ca.crt, for the name NAME-agents [default: made for this run]
    #[arg(long, value_name = "NAME", env = "PLIMSOLL_KUBE_AGENT_TLS_SECRET", requires = "coordinator_tls_secret")]
    agent_tls_secret: Option<String>,
    /// The coordinator's: a Secret with the same keys, for the name plimsoll-coordinator
    #[arg(long, value_name = "NAME", env = "PLIMSOLL_KUBE_COORDINATOR_TLS_SECRET", requires = "agent_tls_secret")]
    coordinator_tls_secret: Option<String>,
    /// No TLS between coordinator and agents: the NetworkPolicy alone keeps others away, and no secret can be sent
    #[arg(long, env = "PLIMSOLL_KUBE_INSECURE", conflicts_with = "agent_tls_secret")]
    insecure: bool,
    /// A namespace whose pods may read the metrics pages, such as Prometheus's [default: nobody]
    #[arg(long, value_name = "NAMESPACE", env = "PLIMSOLL_KUBE_METRICS_FROM")]
    metrics_from: Option<String>,
    /// Run it in the cluster: create everything, follow the coordinator, print its answer, remove everything, and return
    /// its exit code
    #[arg(long, env = "PLIMSOLL_KUBE_APPLY")]
    apply: bool,
    /// With --apply: remove nothing at the end
    #[arg(long, env = "PLIMSOLL_KUBE_KEEP", requires = "apply")]
    keep: bool,
    /// With --apply: the kubeconfig's context [default: its current one]
    #[arg(long, env = "PLIMSOLL_KUBE_CONTEXT", requires = "apply")]
    context: Option<String>,
    /// The run: max-rps, run or daily, with its flags
    #[arg(last = true, required = true, value_name = "RUN")]
    run: Vec<std::ffi::OsString>,
}

/// `plimsoll kube`.
#[derive(Debug, Clone, PartialEq)]
pub struct KubePlan {
    /// Begins the names.
    pub name: String,
    /// Where; `None`: as the context says, or unsaid.
    pub namespace: Option<String>,
    /// How many.
    pub agents: u32,
    /// With both programs.
    pub image: String,
    /// Pulls it.
    pub image_pull_secret: Option<String>,
    /// Of each agent.
    pub workers: u32,
    /// Requested by each agent.
    pub cpu: String,
    /// Requested by each agent, and its limit.
    pub memory: String,
    /// Of the agents' nodes.
    pub node_selector: Vec<(String, String)>,
    /// Of the agents.
    pub tolerations: Vec<Toleration>,
    /// Whether agents may share nodes.
    pub share_nodes: bool,
    /// For the saved run.
    pub results_claim: Option<String>,
    /// Of both jobs and of an agent's run.
    pub deadline: Duration,
    /// Of pods.
    pub start_timeout: Duration,
    /// How coordinator and agents know each other.
    pub tls: Tls,
    /// Who may read metrics.
    pub metrics_from: Option<String>,
    /// What the coordinator does.
    pub run: RunInPod,
    /// Whether it is made here and now.
    pub apply: Option<Apply>,
}

/// A taint that is tolerated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    /// Of the taint.
    pub key: String,
    /// `None`: any.
    pub value: Option<String>,
    /// `None`: all.
    pub effect: Option<String>,
}

/// How coordinator and agents know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// By certificates that are made for this run.
    Made,
    /// By those of two Secrets that are there.
    Secrets {
        /// Of the agents.
        agent: String,
        /// Of the coordinator.
        coordinator: String,
    },
    /// Not at all.
    None,
}

/// How it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply {
    /// Of the kubeconfig.
    pub context: Option<String>,
    /// Whether it stays at the end.
    pub keep: bool,
}

/// An agent whose coordinator never came, or is gone for good, ends after so long.
const IDLE: Duration = Duration::from_secs(900);

impl KubePlan {
    /// The name of the agents' Service and Job, and the one in their certificate.
    pub fn agents_name(&self) -> String {
        format!("{}-agents", self.name)
    }

    /// How long an agent waits for a coordinator: longer than the coordinator's pod may take to start. Whoever is there by then is
    /// held while others are waited for.
    pub fn idle_limit(&self) -> Duration {
        IDLE.max(self.start_timeout.saturating_add(MARGIN))
    }

    /// The name of the coordinator's Job.
    pub fn coordinator_name(&self) -> String {
        format!("{}-coordinator", self.name)
    }
}

/// Adds the command to those of the program.
pub fn augment(command: clap::Command) -> clap::Command {
    Clustered::augment_subcommands(command)
}

/// The command that was asked for, if it is this.
///
/// # Errors
/// Clap's, and where a flag or the run is not as it should be.
pub fn parse(
    matches: &ArgMatches,
    environment: Environment,
) -> Option<Result<Result<KubePlan, super::InvocationError>, clap::Error>> {
    matches.subcommand_name().filter(|name| Clustered::has_subcommand(name))?;
    Some(Clustered::from_arg_matches(matches).map(|Clustered::Kube(flags)| plan(*flags, environment)))
}

fn length(text: &str) -> Result<Duration, String> {
    let length = parse_duration(text).filter(|length| length.as_secs() >= 1);
    length.ok_or_else(|| "expected a time with its unit, at least 1s, such as 30m".to_owned())
}

fn plan(flags: KubeFlags, environment: Environment) -> Result<KubePlan, super::InvocationError> {
    named("--name", &flags.name, OF_A_RUN)?;
    let names = [
        ("--namespace", &flags.namespace, OF_A_NAMESPACE),
        ("--image-pull-secret", &flags.image_pull_secret, OF_AN_OBJECT),
        ("--results-claim", &flags.results_claim, OF_AN_OBJECT),
        ("--agent-tls-secret", &flags.agent_tls_secret, OF_AN_OBJECT),
        ("--coordinator-tls-secret", &flags.coordinator_tls_secret, OF_AN_OBJECT),
        ("--metrics-from", &flags.metrics_from, OF_A_NAMESPACE),
    ];
    for (flag, name, kind) in names {
        name.as_deref().map_or(Ok(()), |name| named(flag, name, kind))?;
    }
    if flags.image.is_empty() || flags.image.contains(char::is_whitespace) {
        return Err(
            refused("--image", got(&flags.image, "an image such as registry.example.com/plimsoll:0.1.0")).into()
        );
    }
    let cpu = flags.cpu.unwrap_or_else(|| (flags.workers + 1).to_string());
    quantity("--cpu", &cpu, &["m"], "cores such as 2 or 1500m")?;
    quantity("--memory", &flags.memory, &UNITS_OF_MEMORY, "bytes such as 512Mi, 2Gi or 2G")?;
    let tls = match (flags.agent_tls_secret, flags.coordinator_tls_secret) {
        (Some(agent), Some(coordinator)) => Tls::Secrets { agent, coordinator },
        _ if flags.insecure => Tls::None,
        _ => Tls::Made,
    };
    let in_pod = InPod {
        agents: format!("dns:{}-agents:{}", flags.name, crate::kube::AGENT_PORT),
        count: flags.agents,
        wait_timeout: flags.start_timeout,
        insecure: tls == Tls::None,
        metrics: flags.metrics_from.is_some(),
    };
    let run = run::read(&flags.run, &in_pod, environment)?;
    fits_the_deadline(&run, flags.start_timeout, flags.deadline)?;
    Ok(KubePlan {
        node_selector: labels(&flags.node_selector)?,
        tolerations: flags.toleration.iter().map(|text| toleration(text)).collect::<Result<_, _>>()?,
        name: flags.name,
        namespace: flags.namespace,
        agents: flags.agents,
        image: flags.image,
        image_pull_secret: flags.image_pull_secret,
        workers: flags.workers,
        cpu,
        memory: flags.memory,
        share_nodes: flags.share_nodes,
        results_claim: flags.results_claim,
        deadline: flags.deadline,
        start_timeout: flags.start_timeout,
        tls,
        metrics_from: flags.metrics_from,
        run,
        apply: flags.apply.then_some(Apply { context: flags.context, keep: flags.keep }),
    })
}

/// What Kubernetes asks of a name.
#[derive(Debug, Clone, Copy)]
struct NameKind {
    longest: usize,
    /// Whether it begins with a letter, and with no digit.
    letter_first: bool,
    dots: bool,
}

/// With `-coordinator-tls` behind it, and a pod's index, it has to fit into 63 letters, and a Service is named by it (RFC 1035).
const OF_A_RUN: NameKind = NameKind { longest: 40, letter_first: true, dots: false };
/// A label of DNS (RFC 1123).
const OF_A_NAMESPACE: NameKind = NameKind { longest: 63, letter_first: false, dots: false };
/// A name of DNS (RFC 1123).
const OF_AN_OBJECT: NameKind = NameKind { longest: 253, letter_first: false, dots: true };

fn refused(flag: &str, problem: String) -> SettingsError {
    SettingsError::Value { place: flag.to_owned(), problem }
}

fn named(flag: &str, name: &str, kind: NameKind) -> Result<(), SettingsError> {
    let NameKind { longest, letter_first, dots } = kind;
    let at_an_edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let edges = [label.bytes().next(), label.bytes().next_back()];
        label.bytes().all(|byte| at_an_edge(byte) || byte == b'-')
            && edges.iter().all(|edge| edge.is_some_and(at_an_edge))
    };
    let labels = if dots { name.split('.').collect() } else { vec![name] };
    let begins = !letter_first || name.starts_with(|first: char| first.is_ascii_lowercase());
    if name.len() <= longest && begins && labels.into_iter().all(is_label) {
        return Ok(());
    }
    let of = if dots { "lower-case letters, digits, dashes and dots" } else { "lower-case letters, digits and dashes" };
    let first = if letter_first { "a letter first" } else { "a letter or digit first" };
    Err(refused(flag, got(name, format!("a name of at most {longest} {of}, {first} and no dash last"))))
}

const UNITS_OF_MEMORY: [&str; 12] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "k", "M", "G", "T", "P", "E"];

fn quantity(flag: &str, text: &str, units: &[&str], takes: &str) -> Result<(), SettingsError> {
    let number = units.iter().find_map(|unit| text.strip_suffix(unit)).unwrap_or(text);
    // As 1e9; with a unit behind it, it would be no quantity.
    let exponent = if number == text { number.split_once(['e', 'E']) } else { None };
    let (digits, power) = exponent.map_or((number, None), |(digits, power)| (digits, Some(power)));
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && power.is_none_or(|power| power.parse::<i8>().is_ok());
    let is_number = number.parse::<f64>().is_ok_and(|value| value > 0.0 && value.is_finite());
    if is_number && plain { Ok(()) } else { Err(refused(flag, got(text, takes))) }
}

/// What a run takes that nothing else is counted for: lookups, preflight, certificates, the report.
const MARGIN: Duration = Duration::from_secs(300);

/// The cluster counts a deadline from the instant at which the jobs are made, whatever their pods wait for, and kills at its end
/// without a report.
fn fits_the_deadline(run: &RunInPod, start: Duration, deadline: Duration) -> Result<(), SettingsError> {
    let parts = [start, run.wait_timeout, run.longest, run.pauses, MARGIN];
    let whole = parts.into_iter().fold(Duration::ZERO, Duration::saturating_add);
    if deadline >= whole {
        return Ok(());
    }
    let words = |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
    let [start, wait, longest, rest] =
        [start, run.wait_timeout, run.longest, run.pauses.saturating_add(MARGIN)].map(words);
    // Whole seconds, rounded up: what is named has to fit.
    let takes = words(whole.saturating_add(Duration::from_millis(999)));
    Err(refused(
        "--deadline",
        got(
            words(deadline),
            format!(
                "at least {takes}, since it counts from the instant at which the pods are made: they have {start} to start \
                 (--start-timeout), the coordinator waits {wait} for agents, the run takes {longest}, and pauses and a step that is \
                 held again up to {rest}"
            ),
        ),
    ))
}

/// What Kubernetes takes for the value of a label, and behind its prefix for a key.
fn is_label_word(text: &str) -> bool {
    let edges = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && edges.iter().all(|edge| edge.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_word(text)
}

fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => named("", prefix, OF_AN_OBJECT).is_ok() && is_label_word(name),
        None => is_label_word(text),
    }
}

const OF_LABELS: &str = "a key of letters, digits, -, _ and . with a domain and / before it where it has one, and a value of the same, each \
                         at most 63 long and with a letter or digit at both ends";

fn labels(texts: &[String]) -> Result<Vec<(String, String)>, SettingsError> {
    let mut labels: Vec<(String, String)> = Vec::new();
    for text in texts {
        let takes = |takes: String| refused("--node-selector", got(text, takes));
        let pair = text.split_once('=').filter(|(key, value)| is_label_key(key) && is_label_value(value));
        let (key, value) = pair.ok_or_else(|| takes(format!("KEY=VALUE, such as pool=load: {OF_LABELS}")))?;
        if let Some((_, other)) = labels.iter().find(|(known, other)| known == key && other != value) {
            return Err(takes(format!("one value for each key, and {key}={other} is asked for too")));
        }
        labels.push((key.to_owned(), value.to_owned()));
    }
    Ok(labels)
}

fn toleration(text: &str) -> Result<Toleration, SettingsError> {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let (taint, effect) = text.split_once(':').map_or((text, None), |(taint, effect)| (taint, Some(effect)));
    let (key, value) = taint.split_once('=').map_or((taint, None), |(key, value)| (key, Some(value)));
    let is_taint = is_label_key(key) && value.is_none_or(is_label_value);
    if !is_taint || effect.is_some_and(|effect| !EFFECTS.contains(&effect)) {
        let takes = format!("KEY[=VALUE][:EFFECT], EFFECT being one of {}: {OF_LABELS}", EFFECTS.join(", "));
        return Err(refused("--toleration", got(text, takes)));
    }
    Ok(Toleration { key: key.to_owned(), value: value.map(str::to_owned), effect: effect.map(str::to_owned) })
}

#[cfg(test)]
mod tests;
