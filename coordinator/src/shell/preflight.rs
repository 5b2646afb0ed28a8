//! Looks at the target before anything is sent: whether what a run needs is there, and whether its messages fit.

use std::time::Duration;

use plimsoll_common::plan::Workload;

use serde::Serialize;
use serde_json::{Map, Value};

use super::monitor::{AccountInfo, ConsumerInfo, Look, Monitor, Nats, StreamInfo};
use crate::core::backlog::DurableName;
use crate::report::Applied;
use crate::results::Configuration;
use crate::settings::{Goal, RunPlan};

/// How long the JetStream API may take here, where nothing is measured yet.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// What a stored message takes beside its content: subject, headers, envelope, and the server's own record.
const OVERHEAD_BYTES: u64 = 500;

/// The streams that a run's messages enter, in their order.
pub fn streams_entered(workload: &Workload) -> Vec<String> {
    workload.streams().into_iter().map(|(stream, _)| stream).collect()
}

/// What was seen of the target's setup.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// In words, for the report.
    pub applied: Vec<Applied>,
    /// In the server's own.
    pub configuration: Configuration,
}

/// Checks streams, durables and storage. What it saw of their configuration.
///
/// # Errors
/// Everything that is missing, or what does not fit; for people, a line each, with what to do.
pub async fn check(plan: &RunPlan, nats: &Nats, monitor: &Monitor) -> Result<Seen, Vec<String>> {
    let entered = streams_entered(&plan.workload);
    let durables = &plan.target.durables;
    let account = async {
        match monitor {
            Monitor::Api(_) => Some(nats.account(ANSWER_LIMIT).await),
            Monitor::Jsz(_) => None,
        }
    };
    let ((found_streams, found_durables), account) =
        tokio::join!(monitor.look(&entered, durables, ANSWER_LIMIT), account);
    let mut lacks = Lacks::default();
    let missing = |name: &String| Some(missing_stream(name, described(plan)));
    let streams: Vec<(String, StreamInfo)> = lacks.sort(entered.iter().cloned().zip(found_streams), missing);
    // Of a stream that is not there nothing more is said.
    let is_there = |stream: &String| !entered.contains(stream) || streams.iter().any(|(name, _)| name == stream);
    let missing = |name: &&DurableName| is_there(&name.stream).then(|| missing_durable(name));
    let durables: Vec<(&DurableName, ConsumerInfo)> = lacks.sort(durables.iter().zip(found_durables), missing);
    lacks.nothing(monitor)?;
    if let Some(account) = account {
        let fits = account.map_err(|words| format!("preflight: {words}")).and_then(|info| fits(plan, &info, &streams));
        fits.map_err(|words| vec![words])?;
    }
    let configured = |(name, info): &(String, StreamInfo)| (format!("stream {name}"), object(&info.config));
    let configuration = streams.iter().map(configured);
    let configured = |(name, info): &(&DurableName, ConsumerInfo)| (format!("durable {name}"), object(&info.config));
    let configuration = configuration.chain(durables.iter().map(configured)).collect();
    let streams = streams.iter().map(|(name, info)| seen(format!("stream {name}"), stream_in_words(info)));
    let durables = durables.iter().map(|(name, info)| seen(format!("durable {name}"), durable_in_words(info)));
    Ok(Seen { applied: streams.chain(durables).collect(), configuration })
}

fn object(config: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        other => unreachable!("a struct with text keys is an object: {other:?}"),
    }
}

fn seen(setting: String, value: String) -> Applied {
    Applied { setting, value, source: "target".to_owned() }
}

/// Whether the streams are named by a description, and not those of a chat.
fn described(plan: &RunPlan) -> bool {
    matches!(plan.workload, Workload::Custom(_))
}

/// What is not as a run needs it.
#[derive(Default)]
struct Lacks {
    /// A line for each.
    missing: Vec<String>,
    /// Why the first was not found out that was not: the others were not for the same reason.
    unanswered: Option<String>,
}

impl Lacks {
    /// Those that are there. `missing`: what is said of one that is not, if anything.
    fn sort<N, T>(
        &mut self,
        looked: impl Iterator<Item = (N, Look<T>)>,
        missing: impl Fn(&N) -> Option<String>,
    ) -> Vec<(N, T)> {
        let mut there = Vec::new();
        for (name, look) in looked {
            match look {
                Ok(Some(info)) => there.push((name, info)),
                Ok(None) => self.missing.extend(missing(&name)),
                Err(words) => drop(self.unanswered.get_or_insert(words)),
            }
        }
        there
    }

    /// # Errors
    /// It lacks something.
    fn nothing(self, monitor: &Monitor) -> Result<(), Vec<String>> {
        let Self { missing: mut all, unanswered } = self;
        all.extend(unanswered.map(|words| no_answer(&words, monitor)));
        if all.is_empty() { Ok(()) } else { Err(all) }
    }
}

fn missing_stream(name: &str, described: bool) -> String {
    if described {
        return format!(
            "preflight: the target has no stream {name}: make it, correct `stream` in the description, \
             or pass --skip-preflight"
        );
    }
    format!(
        "preflight: the target has no stream {name}: check --site-id, and start the service \
         (with BOOTSTRAP_STREAMS=true it makes its streams), or pass --skip-preflight"
    )
}

fn missing_durable(DurableName { stream, durable }: &DurableName) -> String {
    format!(
        "preflight: the stream {stream} has no durable {durable}: start the service that owns it, \
         or name the durables to watch with --durable"
    )
}

fn no_answer(words: &str, monitor: &Monitor) -> String {
    let way_out = match monitor {
        Monitor::Api(_) => "where the credentials do not allow the JetStream API, give --jsz-url",
        Monitor::Jsz(_) => "check --jsz-url",
    };
    format!("preflight: {words}; {way_out}, or pass --skip-preflight")
}

/// Compares what the whole plan would store with what the account may still store. A full quota must not pose as the
/// service's limit.
fn fits(plan: &RunPlan, account: &AccountInfo, streams: &[(String, StreamInfo)]) -> Result<(), String> {
    let operations = plan.operations();
    let lower = if plan.goal == Goal::Soak { "--rate or --duration" } else { "--steps or --hold" };
    let stored = |name: &str| {
        let bytes = plan.workload.streams().into_iter().find(|(stream, _)| stream == name).map(|(_, bytes)| bytes);
        plan.slo.messages_of(name, operations).saturating_mul(bytes.unwrap_or_default() + OVERHEAD_BYTES)
    };
    let keeps_all =
        |info: &StreamInfo| info.config.max_age == 0 && info.config.max_bytes <= 0 && info.config.max_msgs <= 0;
    for (storage, used, limit) in
        [("file", account.storage, account.limits.max_storage), ("memory", account.memory, account.limits.max_memory)]
    {
        let Ok(limit) = u64::try_from(limit) else { continue };
        let needed = streams
            .iter()
            .filter(|(_, info)| info.config.storage == storage && keeps_all(info))
            .map(|(name, info)| stored(name).saturating_mul(u64::from(info.config.num_replicas.max(1))))
            .fold(0, u64::saturating_add);
        let free = limit.saturating_sub(used);
        if needed > free {
            return Err(format!(
                "preflight: the plan stores about {} in streams that keep every message, and the account has {} of \
                 {storage} storage left ({} of {} are used): purge the streams, give them an age or size limit, lower \
                 {lower}, or pass --skip-preflight",
                bytes_in_words(needed),
                bytes_in_words(free),
                bytes_in_words(used),
                bytes_in_words(limit),
            ));
        }
    }
    Ok(())
}

fn bytes_in_words(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes >= 1e9 => format!("{:.1} GB", bytes / 1e9),
        bytes => format!("{:.1} MB", bytes / 1e6),
    }
}

fn stream_in_words(info: &StreamInfo) -> String {
    let config = &info.config;
    let limit = |name: &str, value: i64| if value > 0 { format!(", {name} {value}") } else { String::new() };
    let age = match config.max_age {
        0 => "no max-age".to_owned(),
        nanos => format!("max-age {}", humantime::format_duration(Duration::from_nanos(nanos))),
    };
    let (bytes, messages) = (limit("max-bytes", config.max_bytes), limit("max-msgs", config.max_msgs));
    format!(
        "{} storage, {} replicas, {} retention, {age}{bytes}{messages}",
        config.storage, config.num_replicas, config.retention
    )
}

fn durable_in_words(info: &ConsumerInfo) -> String {
    let config = &info.config;
    let wait = humantime::format_duration(Duration::from_nanos(config.ack_wait));
    format!("max-ack-pending {}, ack-wait {wait}, max-deliver {}", config.max_ack_pending, config.max_deliver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Invocation, read};

    fn plan(flags: &str) -> RunPlan {
        let arguments = format!("plimsoll max-rps --preset medium {flags}");
        match read(arguments.split_whitespace().map(Into::into), &|_| None).unwrap() {
            Invocation::Load(plan) | Invocation::DryRun(plan) => *plan,
            other => panic!("{other:?}"),
        }
    }

    fn account(answer: &str) -> AccountInfo {
        serde_json::from_str(answer).unwrap()
    }

    fn stream(config: &str) -> (String, StreamInfo) {
        ("MESSAGES_site-local".to_owned(), serde_json::from_str(&format!("{{\"config\":{config}}}")).unwrap())
    }

    const KEEPS_ALL: &str = r#"{"storage":"file","num_replicas":1,"max_age":0,"max_bytes":-1,"max_msgs":-1}"#;
    const KEEPS_A_GIGABYTE: &str = r#"{"storage":"file","num_replicas":1,"max_age":0,"max_bytes":1000000000}"#;

    #[test]
    fn a_plan_that_would_fill_the_account_is_refused_with_the_figures() {
        // 1,000/s for 40 s at 700 bytes in two streams.
        let plan = plan("--steps 1k");
        let almost_full =
            account(r#"{"storage":950000000,"memory":0,"limits":{"max_memory":-1,"max_storage":1000000000}}"#);
        let error = fits(&plan, &almost_full, &[stream(KEEPS_ALL), stream(KEEPS_ALL)]).unwrap_err();
        assert_eq!(
            error,
            "preflight: the plan stores about 56.0 MB in streams that keep every message, and the account has 50.0 MB of \
             file storage left (950.0 MB of 1.0 GB are used): purge the streams, give them an age or size limit, lower \
             --steps or --hold, or pass --skip-preflight"
        );
        assert_eq!(fits(&plan, &almost_full, &[stream(KEEPS_ALL), stream(KEEPS_A_GIGABYTE)]), Ok(()));
        let unlimited = account(r#"{"storage":950000000,"limits":{"max_memory":-1,"max_storage":-1}}"#);
        assert_eq!(fits(&plan, &unlimited, &[stream(KEEPS_ALL), stream(KEEPS_ALL)]), Ok(()));
        assert_eq!(fits(&plan, &account("{}"), &[stream(KEEPS_ALL)]), Ok(()));
    }

    #[test]
    fn people_store_what_their_messages_take_and_nothing_for_what_they_read() {
        let arguments = "plimsoll daily --preset daily-light --users 1k --steps 1k --warmup 1s --hold 100s";
        let plan = match read(arguments.split_whitespace().map(Into::into), &|_| None).unwrap() {
            Invocation::Load(plan) => *plan,
            other => panic!("{other:?}"),
        };
        // 93.9 acts of each in the day that is the hold, and in the warmup what they do in a second of its beginning.
        let operations = plan.operations();
        assert!((94_000..95_000).contains(&operations), "{operations}");
        let of = |name: &str| {
            let (_, info) = stream(KEEPS_ALL);
            (format!("{name}_site-local"), info)
        };
        // 60 messages, 1,525 bytes each; in the canonical stream also what the service says of the 0.5 people added and of the
        // 0.2 rooms made; in the rooms' stream 0.9 jobs.
        for (name, per_person, bytes) in
            [("MESSAGES", 60.0, 1_525), ("MESSAGES_CANONICAL", 60.9, 1_525), ("ROOMS", 0.9, 850)]
        {
            let expected = (operations as f64 / 93.9 * per_person * f64::from(bytes)) as u64;
            let with_free = |free: u64| {
                account(&format!(r#"{{"storage":0,"memory":0,"limits":{{"max_memory":-1,"max_storage":{free}}}}}"#))
            };
            assert_eq!(fits(&plan, &with_free(expected + expected / 100), &[of(name)]), Ok(()), "{name}");
            assert!(fits(&plan, &with_free(expected - expected / 100), &[of(name)]).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let name = DurableName { stream: "MESSAGES_CANONICAL_x".into(), durable: "message-worker".into() };
        assert_eq!(
            missing_durable(&name),
            "preflight: the stream MESSAGES_CANONICAL_x has no durable message-worker: start the service that owns it, \
             or name the durables to watch with --durable"
        );
        let words = missing_stream("MESSAGES_x", false);
        assert!(words.starts_with("preflight: the target has no stream MESSAGES_x: check --site-id"), "{words}");
        let words = no_answer("no answer", &Monitor::Jsz("http://127.0.0.1:1/jsz".into()));
        assert_eq!(words, "preflight: no answer; check --jsz-url, or pass --skip-preflight");
    }

    #[test]
    fn everything_that_is_missing_is_told_and_why_others_are_not_known_once() {
        let monitor = Monitor::Jsz("http://127.0.0.1:1/jsz".into());
        let mut lacks = Lacks::default();
        let unknown = || Err("no answer".to_owned());
        let looked = [("a", Ok(None)), ("b", unknown()), ("c", Ok(Some(7))), ("d", Ok(None)), ("e", unknown())];
        let said = |name: &&str| (*name != "d").then(|| format!("no {name}"));
        assert_eq!(lacks.sort(looked.into_iter(), said), [("c", 7)]);
        assert_eq!(lacks.sort([("f", Look::<u8>::Ok(None))].into_iter(), said), []);
        let told = lacks.nothing(&monitor).unwrap_err();
        assert_eq!(told, ["no a", "no f", "preflight: no answer; check --jsz-url, or pass --skip-preflight"]);
        assert_eq!(Lacks::default().nothing(&monitor), Ok(()));
    }

    #[test]
    fn a_run_enters_the_front_stream_only_through_the_front_door() {
        assert_eq!(streams_entered(&plan("--site-id a").workload), ["MESSAGES_a", "MESSAGES_CANONICAL_a"]);
        assert_eq!(streams_entered(&plan("--site-id a --inject canonical").workload), ["MESSAGES_CANONICAL_a"]);
    }
}
