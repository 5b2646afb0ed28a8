//! Every setting of a run, once: flag, variable, plan file key, default and help all come from this table. What only some
//! workloads take comes from their entries in the vocabulary.

use std::sync::LazyLock;

use super::commands::{DAILY, LoadCommand};
use plimsoll_common::workload::{SettingDefault, SettingKind, VOCABULARY};

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The flag without its dashes, and the key in a plan file.
    pub name: &'static str,
    /// The variable that stands for the flag.
    pub variable: &'static str,
    /// A variable that other tools know too; weaker than [`Self::variable`].
    pub native: Option<&'static str>,
    /// What stands for the value in the help.
    pub value: &'static str,
    /// What applies where nothing was given.
    pub default: DefaultValue,
    /// How often and how it is given.
    pub kind: Kind,
    /// Where it stands in the help.
    pub heading: &'static str,
    /// What it does.
    pub help: &'static str,
    /// The workloads that take it; empty: all of them.
    pub workloads: &'static [&'static str],
}

/// What applies where nothing was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// Something has to be given.
    Required,
    /// The text a flag would take.
    Text(&'static str),
    /// It follows from the rest; in words.
    Derived(&'static str),
    /// Nothing: what it stands for is not done.
    Nothing,
}

/// How a setting is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One value.
    One,
    /// Values separated by commas; the flag may be repeated, a plan file may hold an array.
    List,
    /// On or off.
    Switch,
    /// A switch or value of this invocation alone, which no plan file can hold.
    InvocationSwitch,
    /// As above, with a value.
    InvocationOne,
}

impl Setting {
    /// Whether a plan file may hold it.
    pub fn in_plan_file(&self) -> bool {
        !matches!(self.kind, Kind::InvocationSwitch | Kind::InvocationOne)
    }

    /// Whether this workload takes it.
    pub fn is_of(&self, workload: &str) -> bool {
        self.workloads.is_empty() || self.workloads.contains(&workload)
    }

    /// Whether it is on or off, rather than a value.
    pub fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Switch | Kind::InvocationSwitch)
    }
}

macro_rules! setting {
    ($heading:expr, $name:literal, $variable:literal, $native:expr, $value:literal, $default:expr, $kind:ident, $help:expr) => {
        Setting {
            name: $name,
            variable: $variable,
            native: $native,
            value: $value,
            default: $default,
            kind: Kind::$kind,
            heading: $heading,
            help: $help,
            workloads: &[],
        }
    };
}

use DefaultValue::{Derived, Nothing, Required, Text};

const LOAD: &str = "Load";
const SLO: &str = "Objectives";
const TARGET: &str = "Target";
/// The heading of the databases' settings.
pub const STORAGE: &str = "Databases";
const SEED: &str = "Seeding";
const FLEET: &str = "Fleet";
const RUN: &str = "Run";

/// All settings, in the order in which help, dry run and report show them: the workload, what only some workloads take, and
/// what all take.
pub static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let workload = Setting { help: leak(workloads_help(&|_| true)), ..WORKLOAD };
    std::iter::once(workload).chain(of_workloads()).chain(GENERAL.iter().copied()).collect()
});

/// The table is made once and lives as long as the program.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// What only some workloads take, each name once.
fn of_workloads() -> Vec<Setting> {
    let mut names: Vec<&'static str> = Vec::new();
    for setting in VOCABULARY.iter().flat_map(|entry| entry.settings) {
        if !names.contains(&setting.name) {
            names.push(setting.name);
        }
    }
    names.into_iter().map(of_some_workloads).collect()
}

fn of_some_workloads(name: &'static str) -> Setting {
    let takers: Vec<_> = VOCABULARY.iter().filter_map(|entry| Some((entry.name, entry.setting(name)?))).collect();
    let (_, first) = takers[0];
    let (help, default) = words_for(name, &|_| true);
    Setting {
        name,
        variable: first.variable,
        native: first.native,
        value: first.value,
        default,
        kind: match first.kind {
            SettingKind::List => Kind::List,
            SettingKind::Switch => Kind::Switch,
            SettingKind::One | SettingKind::File => Kind::One,
        },
        heading: LOAD,
        help: leak(help),
        workloads: takers.iter().map(|(workload, _)| *workload).collect::<Vec<_>>().leak(),
    }
}

/// Help and default of what only some workloads take, for whoever drives some of those.
fn words_for(name: &str, drives: &dyn Fn(&str) -> bool) -> (String, DefaultValue) {
    let driven = VOCABULARY.iter().filter(|entry| drives(entry.name));
    let takers: Vec<_> = driven.filter_map(|entry| Some((entry.name, entry.setting(name)?))).collect();
    let mut helps: Vec<(&'static str, Vec<&str>)> = Vec::new();
    for (workload, setting) in &takers {
        match helps.iter_mut().find(|(help, _)| *help == setting.help) {
            Some((_, workloads)) => workloads.push(workload),
            None => helps.push((setting.help, vec![workload])),
        }
    }
    // What several of them begin with is said once.
    let topic = helps.first().and_then(|(help, _)| help.split_once(": ")).map(|(topic, _)| topic.to_owned());
    let own = |at: usize, help: &'static str| match &topic {
        Some(topic) if at > 0 => {
            help.strip_prefix(topic.as_str()).and_then(|own| own.strip_prefix(": ")).unwrap_or(help)
        }
        _ => help,
    };
    let of = |(at, (help, workloads)): (usize, &(&'static str, Vec<&str>))| {
        format!("{} ({})", own(at, help), workloads.join(", "))
    };
    let help = helps.iter().enumerate().map(of).collect::<Vec<_>>().join("; ");
    let default = match takers.split_first() {
        Some(((_, first), rest)) if rest.iter().all(|(_, setting)| setting.default == first.default) => {
            match first.default {
                SettingDefault::Required => Required,
                SettingDefault::Text(text) => Text(text),
                SettingDefault::Nothing => Nothing,
            }
        }
        _ => Derived("the workload's"),
    };
    (help, default)
}

/// What a setting is to a command that drives only these workloads: its help and its default.
pub fn words_of(setting: &Setting, command: LoadCommand) -> (String, DefaultValue) {
    match (setting.workloads.is_empty(), setting.name) {
        (true, "workload") => (workloads_help(&|name| command.drives(name)), setting.default),
        (true, _) => (with_other_defaults(setting, command), default_for(setting, command.workload())),
        (false, name) => words_for(name, &|workload| command.drives(workload)),
    }
}

fn workloads_help(drives: &dyn Fn(&str) -> bool) -> String {
    let driven = VOCABULARY.iter().filter(|entry| drives(entry.name));
    let summaries = driven.map(|entry| format!("{} ({})", entry.name, entry.summary));
    format!("What is driven against the target: {}", summaries.collect::<Vec<_>>().join("; "))
}

/// The default of a setting that all workloads take, where it is said in words, for this workload if it is known.
pub fn default_for(setting: &Setting, workload: Option<&str>) -> DefaultValue {
    match (setting.name, workload) {
        ("from", Some(DAILY)) => Derived("a 64th of --users, at least 10"),
        _ => setting.default,
    }
}

/// The help of a setting that all workloads take, with the defaults of those that have another one and that this command drives.
fn with_other_defaults(setting: &Setting, command: LoadCommand) -> String {
    let others: Vec<String> = VOCABULARY
        .iter()
        .filter(|entry| entry.name != DAILY && command.drives(entry.name))
        .filter_map(|entry| Some(format!("{}: {}", entry.name, entry.default_of(setting.name)?)))
        .collect();
    if others.is_empty() { setting.help.to_owned() } else { format!("{} ({})", setting.help, others.join("; ")) }
}

const WORKLOAD: Setting = setting!(LOAD, "workload", "PLIMSOLL_WORKLOAD", None, "NAME", Text("messages"), One, "");

/// What every workload takes.
#[rustfmt::skip]
const GENERAL: &[Setting] = &[
    setting!(LOAD, "steps", "PLIMSOLL_STEPS", None, "RATES", Text("500,1k,2k,5k,10k"), List,
        "Rates to hold, in requests per second (for daily: users), strictly ascending; k means ×1000"),
    setting!(LOAD, "find", "PLIMSOLL_FIND", None, "", Nothing, Switch,
        "Search for the largest rate (for daily: number of users) to a given precision and confidence, instead of holding --steps"),
    setting!(LOAD, "from", "PLIMSOLL_FROM", None, "RATE",
        Derived("half of what the service carries in a probe of one second with 8 operations open at once; 100 for members"), One,
        "Where --find starts: it holds this level for a second or so, then doubles it, and so on"),
    setting!(LOAD, "precision", "PLIMSOLL_PRECISION", None, "PERCENT", Text("5%"), One,
        "How far the lowest level that trips may be above the highest that passes, 1% to 50%"),
    setting!(LOAD, "confidence", "PLIMSOLL_CONFIDENCE", None, "FRACTION", Text("0.95"), One,
        "Probability that the interval found by --find contains the largest level, 0.5 to 0.999"),
    setting!(LOAD, "max-time", "PLIMSOLL_MAX_TIME", None, "TIME", Text("15m"), One,
        "Time budget of --find; when it is used up, the answer is what has been shown by then. The final soak takes 60s or a quarter of it"),
    setting!(LOAD, "drain-limit", "PLIMSOLL_DRAIN_LIMIT", None, "TIME", Derived("the value of --recovery-limit"), One,
        "How long backlogs may take to drain before a trial of --find"),
    setting!(LOAD, "frontier", "PLIMSOLL_FRONTIER", None, "", Nothing, Switch,
        "Also search for the largest level under each limit by itself"),
    setting!(LOAD, "explain", "PLIMSOLL_EXPLAIN", None, "", Nothing, Switch,
        "Show every trial of --find in the report: why it was chosen, what it showed, and the bounds after it"),
    setting!(LOAD, "rate", "PLIMSOLL_RATE", None, "RATE", Required, One,
        "The rate to hold, in requests per second; k means ×1000"),
    setting!(LOAD, "duration", "PLIMSOLL_DURATION", None, "TIME", Required, One,
        "How long to hold it: the measured window, 1s to 7 days"),
    setting!(LOAD, "arrivals", "PLIMSOLL_ARRIVALS", None, "KIND", Text("poisson"), One,
        "How intended times are spread: poisson (independent users) or uniform"),
    setting!(LOAD, "warmup", "PLIMSOLL_WARMUP", None, "TIME", Text("10s"), One,
        "Load before the hold; it is not measured"),
    setting!(LOAD, "hold", "PLIMSOLL_HOLD", None, "TIME", Text("30s"), One,
        "The measured window of each step, at least 1s"),
    setting!(LOAD, "cooldown", "PLIMSOLL_COOLDOWN", None, "TIME", Text("5s"), One,
        "Silence between steps"),
    setting!(LOAD, "request-timeout", "PLIMSOLL_REQUEST_TIMEOUT", None, "TIME", Text("5s"), One,
        "Give up an operation this long after its intended time; must be above the largest limit"),
    setting!(LOAD, "max-in-flight", "PLIMSOLL_MAX_IN_FLIGHT", None, "COUNT",
        Derived("1.2 × share × request timeout, at least 64"), One,
        "Most operations open at once on each agent; what is due beyond that is counted as saturated"),
    setting!(LOAD, "max-lateness", "PLIMSOLL_MAX_LATENESS", None, "TIME", Text("100ms"), One,
        "An operation that cannot be released within this time of its intended time is counted as underrun"),
    setting!(LOAD, "max-skew", "PLIMSOLL_MAX_SKEW", None, "TIME", Text("100ms"), One,
        "How far apart the agents' holds may start, by their estimated clocks; beyond that a step is INCONCLUSIVE"),
    setting!(LOAD, "seed", "PLIMSOLL_SEED", None, "NUMBER", Text("42"), One,
        "Seeds fixtures, arrivals and choices"),

    setting!(SLO, "slo-p95", "PLIMSOLL_SLO_P95", None, "TIME", Text("100ms"), One,
        "Limit on the 95th percentile of every series; none for no limit"),
    setting!(SLO, "slo-p99", "PLIMSOLL_SLO_P99", None, "TIME", Text("250ms"), One,
        "Limit on the 99th percentile of every series; none for no limit"),
    setting!(SLO, "slo", "PLIMSOLL_SLO", None, "SERIES:PERCENTILE=TIME", Nothing, List,
        "Limit for one series, overriding the two above, such as E2:p99=400ms; may be repeated"),
    setting!(SLO, "slo-error-rate", "PLIMSOLL_SLO_ERROR_RATE", None, "FRACTION", Text("0.001"), One,
        "Largest fraction of attempted operations that may fail or be lost"),
    setting!(SLO, "slo-pending-growth", "PLIMSOLL_SLO_PENDING_GROWTH", None, "MESSAGES", Text("1000"), One,
        "Most messages by which the backlog of a watched durable may grow over the hold"),
    setting!(SLO, "rate-tolerance", "PLIMSOLL_RATE_TOLERANCE", None, "FRACTION", Text("0.05"), One,
        "Fraction of the due operations that may go unattempted in a PASS"),
    setting!(SLO, "no-stop-on-trip", "PLIMSOLL_NO_STOP_ON_TRIP", None, "", Nothing, Switch,
        "Go on with the remaining steps after a TRIP"),
    setting!(SLO, "trials", "PLIMSOLL_TRIALS", None, "COUNT", Text("3"), One,
        "Most trials of a step that load boxes, or backlogs that could not be read, made INCONCLUSIVE, 1 to 3"),

    setting!(TARGET, "nats-url", "PLIMSOLL_NATS_URL", Some("NATS_URL"), "URL", Text("nats://127.0.0.1:4222"), One,
        "The service's NATS as agents and coordinator reach it; separate several addresses with commas"),
    setting!(TARGET, "nats-creds", "PLIMSOLL_NATS_CREDS", Some("NATS_CREDS_FILE"), "PATH", Nothing, One,
        "A NATS credentials file; like every secret, it is sent only to agents on loopback or over TLS"),
    setting!(TARGET, "nats-nkey", "PLIMSOLL_NATS_NKEY", Some("NATS_NKEY"), "FILE|env:NAME", Nothing, One,
        "A file that holds an NKey seed, or env:NAME for a variable that does"),
    setting!(TARGET, "nats-token", "PLIMSOLL_NATS_TOKEN", None, "FILE|env:NAME", Nothing, One,
        "A file that holds a token, or env:NAME for a variable that does"),
    setting!(TARGET, "nats-tls-ca", "PLIMSOLL_NATS_TLS_CA", Some("NATS_CA"), "FILE", Nothing, One,
        "Connect to NATS over TLS and trust certificates issued by this CA (PEM) instead of the system's CAs"),
    setting!(TARGET, "nats-tls-cert", "PLIMSOLL_NATS_TLS_CERT", Some("NATS_CERT"), "FILE", Nothing, One,
        "The client certificate (PEM) to present to a NATS that asks for one"),
    setting!(TARGET, "nats-tls-key", "PLIMSOLL_NATS_TLS_KEY", Some("NATS_KEY"), "FILE", Nothing, One,
        "Its private key (PEM)"),
    setting!(TARGET, "durable", "PLIMSOLL_DURABLE", None, "NAMES", Derived("those of the workload"), List,
        "Durables whose backlog is watched instead of the default ones; +NAME adds to those, STREAM/NAME names another stream's, none watches nothing"),
    setting!(TARGET, "jsz-url", "PLIMSOLL_JSZ_URL", None, "URL", Nothing, One,
        "Read backlogs from this monitoring URL (http://host:8222/jsz) instead of the JetStream API"),
    setting!(TARGET, "recovery-limit", "PLIMSOLL_RECOVERY_LIMIT", None, "TIME", Text("60s"), One,
        "How long backlogs may take to return to their baseline before a trial"),
    setting!(TARGET, "skip-preflight", "PLIMSOLL_SKIP_PREFLIGHT", None, "", Nothing, Switch,
        "Do not check streams, durables, storage and fixtures before the first step"),

    setting!(STORAGE, "mongo-uri", "PLIMSOLL_MONGO_URI", Some("MONGO_URI"), "URI", Nothing, One,
        "The chat's MongoDB, such as mongodb://chat-db:27017: what was seeded there is checked before the first step"),
    setting!(STORAGE, "mongo-db", "PLIMSOLL_MONGO_DB", Some("MONGO_DB"), "NAME", Text("chat"), One,
        "Its database"),
    setting!(STORAGE, "mongo-username", "PLIMSOLL_MONGO_USERNAME", Some("MONGO_USERNAME"), "NAME", Nothing, One,
        "The user to log in as, unless the URI names one and is given as strongly"),
    setting!(STORAGE, "mongo-password", "PLIMSOLL_MONGO_PASSWORD", None, "FILE|env:NAME",
        Derived("env:MONGO_PASSWORD, with --mongo-username"), One,
        "A file that holds the password, or env:NAME for a variable that does"),
    setting!(STORAGE, "mongo-tls-ca", "PLIMSOLL_MONGO_TLS_CA", None, "FILE", Nothing, One,
        "Connect to MongoDB over TLS and trust certificates issued by this CA (PEM)"),
    setting!(STORAGE, "mongo-tls-identity", "PLIMSOLL_MONGO_TLS_IDENTITY", None, "FILE", Nothing, One,
        "The client certificate and its private key (PEM, in one file) to present over TLS"),
    setting!(STORAGE, "cassandra-hosts", "PLIMSOLL_CASSANDRA_HOSTS", Some("CASSANDRA_HOSTS"), "HOST[:PORT],…", Nothing, List,
        "Nodes of the chat's Cassandra or ScyllaDB, whose messages are checked too; the port is 9042 unless given"),
    setting!(STORAGE, "cassandra-keyspace", "PLIMSOLL_CASSANDRA_KEYSPACE", Some("CASSANDRA_KEYSPACE"), "NAME", Text("chat"), One,
        "Its keyspace"),
    setting!(STORAGE, "cassandra-username", "PLIMSOLL_CASSANDRA_USERNAME", Some("CASSANDRA_USERNAME"), "NAME", Nothing, One,
        "The user to log in as"),
    setting!(STORAGE, "cassandra-password", "PLIMSOLL_CASSANDRA_PASSWORD", None, "FILE|env:NAME",
        Derived("env:CASSANDRA_PASSWORD, with --cassandra-username"), One,
        "A file that holds the password, or env:NAME for a variable that does"),
    setting!(STORAGE, "cassandra-tls-ca", "PLIMSOLL_CASSANDRA_TLS_CA", None, "FILE", Nothing, One,
        "Connect to Cassandra over TLS and trust certificates issued by this CA (PEM)"),
    setting!(STORAGE, "cassandra-tls-identity", "PLIMSOLL_CASSANDRA_TLS_IDENTITY", None, "FILE", Nothing, One,
        "The client certificate and its private key (PEM, in one file) to present over TLS"),
    setting!(STORAGE, "message-bucket-hours", "PLIMSOLL_MESSAGE_BUCKET_HOURS", Some("MESSAGE_BUCKET_HOURS"), "HOURS", Text("72"), One,
        "Length of a message bucket, as the services are configured"),

    setting!(SEED, "read-ratio", "PLIMSOLL_READ_RATIO", None, "FRACTION", Text("0.7"), One,
        "For read-receipt: the fraction of each room's members who have read everything, 0.001 to 1"),
    setting!(SEED, "shard", "PLIMSOLL_SHARD", None, "I/N", Text("1/1"), One,
        "Write the I-th of N parts; other processes write the others in parallel"),
    setting!(SEED, "anchor", "PLIMSOLL_ANCHOR", None, "TIME", Derived("now"), One,
        "The past instant that all times of a first seeding are relative to, such as 2026-01-31T08:00:00Z; the same instant makes the same documents"),
    setting!(SEED, "writes-in-flight", "PLIMSOLL_WRITES_IN_FLIGHT", None, "COUNT", Text("256"), One,
        "Most writes to Cassandra in flight at once, 1 to 4096"),
    setting!(SEED, "create-schema", "PLIMSOLL_CREATE_SCHEMA", None, "", Nothing, Switch,
        "Create the services' unique indexes, keyspace and tables if they are missing"),
    setting!(SEED, "drop", "PLIMSOLL_DROP", None, "", Nothing, Switch,
        "Empty the chat's collections and tables, whoever wrote to them"),
    setting!(SEED, "yes", "PLIMSOLL_YES", None, "", Nothing, InvocationSwitch,
        "Do not ask for confirmation"),

    setting!(FLEET, "agents", "PLIMSOLL_AGENTS", None, "HOST:PORT,…", Derived("none: a fleet in this process"), List,
        "The agents that generate the load; dns:NAME:PORT for all addresses of a name, looked up again before every step; \
         file:PATH or @PATH for a file with one of these per line, # starting a comment"),
    setting!(FLEET, "wait-agents", "PLIMSOLL_WAIT_AGENTS", None, "COUNT", Nothing, One,
        "Start once this many of the agents are there instead of all of them; the others join between steps"),
    setting!(FLEET, "wait-timeout", "PLIMSOLL_WAIT_TIMEOUT", None, "TIME", Text("2m"), One,
        "How long --wait-agents waits"),
    setting!(FLEET, "ceilings", "PLIMSOLL_CEILINGS", None, "FILE", Nothing, One,
        "Ask no agent for more than its ceiling in this file, written by `plimsoll calibrate`"),
    setting!(FLEET, "local", "PLIMSOLL_LOCAL", None, "COUNT", Derived("one per core less one, at least 1"), One,
        "Run this many agents in this process instead of using --agents"),
    setting!(FLEET, "skip-self-check", "PLIMSOLL_SKIP_SELF_CHECK", None, "", Nothing, Switch,
        "Do not measure, before --find, what the agents can do by themselves, which no level may exceed"),
    setting!(FLEET, "tls-cert", "PLIMSOLL_TLS_CERT", None, "FILE", Nothing, One,
        "Connect to --agents over mutual TLS with this certificate (PEM; `plimsoll certs` makes one)"),
    setting!(FLEET, "tls-key", "PLIMSOLL_TLS_KEY", None, "FILE", Nothing, One,
        "Its private key (PEM)"),
    setting!(FLEET, "tls-ca", "PLIMSOLL_TLS_CA", None, "FILE", Nothing, One,
        "The CA (PEM) that must have issued the agents' certificates, for the names given in --agents"),
    setting!(FLEET, "on-agent-loss", "PLIMSOLL_ON_AGENT_LOSS", None, "WHAT", Text("retry"), One,
        "When an agent is lost: retry (the others repeat the step) or abort (the run ends with what was measured)"),
    setting!(FLEET, "min-agents", "PLIMSOLL_MIN_AGENTS", None, "COUNT", Text("1"), One,
        "End the run when fewer agents than this are left"),
    setting!(FLEET, "lease-timeout", "PLIMSOLL_LEASE_TIMEOUT", None, "TIME", Text("3s"), One,
        "An agent that has not heard from the coordinator for this long stops sending; 500ms to 60s"),

    setting!(RUN, "results", "PLIMSOLL_RESULTS", None, "DIR", Text("results"), One,
        "Save the run as it goes, in a directory of its own under this one; none to save nothing"),
    setting!(RUN, "csv", "PLIMSOLL_CSV", None, "PATH", Nothing, One,
        "Write one CSV row per trial as it is judged; an existing file is overwritten"),
    setting!(RUN, "metrics-listen", "PLIMSOLL_METRICS_LISTEN", None, "ADDRESS:PORT", Nothing, One,
        "Serve the run's metrics for Prometheus under /metrics"),
    setting!(RUN, "plan", "PLIMSOLL_PLAN", None, "FILE", Nothing, InvocationOne,
        "A TOML file with any of these settings under the same names; flags and variables override it"),
    setting!(RUN, "dry-run", "PLIMSOLL_DRY_RUN", None, "", Nothing, InvocationSwitch,
        "Print the plan and what each agent would do, without touching anything"),
];

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_its_flags_name_in_capitals_after_the_prefix() {
        for setting in SETTINGS.iter() {
            let expected = format!("PLIMSOLL_{}", setting.name.replace('-', "_").to_uppercase());
            assert_eq!(setting.variable, expected);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
