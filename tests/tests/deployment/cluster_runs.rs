//! `plimsoll kube --apply` against the API of a cluster: what it makes and in which order, what it shows of the run, what it ends
//! with, and that it leaves nothing behind.

use std::time::Duration;

use plimsoll_tests::harness::processes::{Ended, Process, Program};

use super::fake_cluster::{Agents, FakeCluster, Script, with_kubeconfig};
use super::objects::Objects;
use super::proxy::Proxy;

pub const LIMIT: Duration = Duration::from_secs(60);
pub const REPORT: [&str; 4] =
    ["Run 20260102-messages", "  hold = 5s (flag)", "", "ANSWER: max RPS = 2000 (workload=messages)"];
pub const MADE: [&str; 8] = [
    "networkpolicies/plimsoll-agents",
    "networkpolicies/plimsoll-coordinator",
    "configmaps/plimsoll-plan",
    "secrets/plimsoll-agent-tls",
    "secrets/plimsoll-coordinator-tls",
    "services/plimsoll-agents",
    "jobs/plimsoll-agents",
    "jobs/plimsoll-coordinator",
];

pub fn start(cluster: &FakeCluster, flags: &[&str]) -> anyhow::Result<Process> {
    start_with(cluster, flags, &[])
}

fn start_with(cluster: &FakeCluster, flags: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Process> {
    let mut command = with_kubeconfig(cluster, Program::Cli.command()?)?;
    command.envs(variables.iter().copied());
    command.args(["kube", "--apply", "--agents", "3", "--image", "plimsoll:1"]).args(flags);
    command.args(["--", "max-rps", "--preset", "small", "--nats-url", "nats://chat:4222"]);
    Process::spawn(command)
}

pub fn run(cluster: &FakeCluster, flags: &[&str]) -> anyhow::Result<Ended> {
    start(cluster, flags)?.wait(LIMIT)
}

fn each(method: &str, names: impl IntoIterator<Item = &'static str>) -> Vec<String> {
    names.into_iter().map(|name| format!("{method} {name}")).collect()
}

#[test]
fn a_run_is_made_in_order_followed_over_a_break_and_removed() -> anyhow::Result<()> {
    let cluster = FakeCluster::start(Script {
        waits: Some(1),
        log: [&["waiting for agents: 1 of 3", "step 1 of 1: 2000/s hold"], &REPORT[..]].concat(),
        breaks_after: Some(3),
        ..Script::default()
    })?;
    let ended = run(&cluster, &[])?;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), format!("{}\n", REPORT.join("\n")).as_str()),
        "{ended:?}"
    );
    let told = [
        "3 agents and their coordinator are made in the namespace load",
        "the coordinator waits: ImagePullBackOff: no such image",
        "waiting for agents: 1 of 3",
        "step 1 of 1: 2000/s hold",
    ];
    assert_eq!(ended.stderr.lines().collect::<Vec<_>>(), told);
    let all = [each("POST", MADE), each("DELETE", MADE.into_iter().rev())].concat();
    assert_eq!(cluster.asked(), all);
    assert!(cluster.objects().is_empty());
    let from_the_break = Some("2026-01-02T03%3A04%3A05Z".to_owned());
    let readings = [None, from_the_break.clone(), from_the_break];
    assert_eq!(cluster.since(), readings, "whole seconds, no line twice, and once more at the end");
    Ok(())
}

#[test]
fn a_coordinator_that_ended_while_its_log_was_broken_off_is_heard_to_its_end() -> anyhow::Result<()> {
    let script = Script { log: REPORT.to_vec(), breaks_after: Some(2), ends_at_break: true, ..Script::default() };
    let cluster = FakeCluster::start(script.clone())?;
    let ended = run(&cluster, &[])?;
    assert_eq!((ended.code, ended.stdout), (Some(0), format!("{}\n", REPORT.join("\n"))), "{}", ended.stderr);
    assert!(cluster.objects().is_empty());
    // Where the rest cannot be had, it is left to whoever can.
    let cluster = FakeCluster::start(Script { log_refused: Some((1, 500)), ..script })?;
    let ended = run(&cluster, &[])?;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("error: the coordinator's log could not be read to its end: "), "{ended:?}");
    is_kept(&cluster, &ended);
    Ok(())
}

/// Nothing is removed, and how to read it and remove it is said.
pub fn is_kept(cluster: &FakeCluster, ended: &Ended) {
    let words = "all of it stays, its Jobs for 3 days, since the run's report may be in the coordinator's log: kubectl -n load logs \
                 job/plimsoll-coordinator; to remove it: kubectl -n load delete job,";
    assert!(ended.stderr.contains(words), "{ended:?}");
    assert_eq!(cluster.objects().len(), MADE.len());
    assert!(cluster.asked().iter().all(|asked| asked.starts_with("POST")), "{:?}", cluster.asked());
}

#[test]
fn a_log_that_may_not_be_read_is_an_error_at_once_that_names_the_right() -> anyhow::Result<()> {
    // It would run on, and be followed for as long.
    let cluster = FakeCluster::start(Script { ends: None, log_refused: Some((0, 403)), ..Script::default() })?;
    let ended = run(&cluster, &[])?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{ended:?}");
    assert!(ended.stderr.contains("error: the coordinator's log may not be read: pods "), "{ended:?}");
    assert!(ended.stderr.contains("needs the right to get pods/log in the namespace load\n"), "{ended:?}");
    is_kept(&cluster, &ended);
    Ok(())
}

#[test]
fn without_its_log_no_run_is_a_success() -> anyhow::Result<()> {
    let missing = "unable to retrieve container logs for containerd://0a1b";
    for (script, words) in [
        (Script { log_refused: Some((0, 500)), ..Script::default() }, "could not be read to its end: pods "),
        (Script { no_log: Some(missing), ..Script::default() }, missing),
        (Script { log: vec!["step 1 of 1: 2000/s hold"], ..Script::default() }, "and its log has no report"),
    ] {
        let cluster = FakeCluster::start(script)?;
        let ended = run(&cluster, &[])?;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{ended:?}");
        let error = ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains(words), "{words}: {ended:?}");
        is_kept(&cluster, &ended);
    }
    Ok(())
}

#[test]
fn a_pod_of_an_earlier_run_of_the_same_name_is_not_taken_for_this_ones() -> anyhow::Result<()> {
    let cluster =
        FakeCluster::start(Script { old_pod: true, waits: Some(2), log: REPORT.to_vec(), ..Script::default() })?;
    let ended = run(&cluster, &[])?;
    assert_eq!((ended.code, ended.stdout), (Some(0), format!("{}\n", REPORT.join("\n"))), "{}", ended.stderr);
    Ok(())
}

#[test]
fn a_run_is_over_once_its_pods_are_gone_and_another_of_its_name_is_refused_before() -> anyhow::Result<()> {
    let cluster = FakeCluster::start(Script { log: REPORT.to_vec(), lingers: 3, ..Script::default() })?;
    let mut first = start(&cluster, &[])?;
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !cluster.asked().contains(&"DELETE jobs/plimsoll-agents".to_owned()) {
        assert!(tokio::time::Instant::now() < deadline && first.is_running()?, "{:?}", cluster.asked());
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = run(&cluster, &[])?;
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(second.stderr.contains("NetworkPolicy/plimsoll-agents is there already"), "{second:?}");
    assert_eq!(first.wait(LIMIT)?.code, Some(0));
    assert!(cluster.objects().is_empty(), "{:?}", cluster.objects().keys());
    Ok(())
}

#[test]
fn what_is_made_is_what_is_rendered() -> anyhow::Result<()> {
    let cluster = FakeCluster::start(Script { log: REPORT.to_vec(), ..Script::default() })?;
    let ended = run(&cluster, &["--keep", "--insecure"])?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("all of it stays, its Jobs for 3 days; to remove it: kubectl -n load delete job,"),
        "{ended:?}"
    );
    let rendered = Program::Cli.run([
        "kube",
        "--agents",
        "3",
        "--image",
        "plimsoll:1",
        "--insecure",
        "--",
        "max-rps",
        "--preset",
        "small",
        "--nats-url",
        "nats://chat:4222",
    ])?;
    let made = cluster.objects();
    assert_eq!(made.len(), Objects::parse(&rendered.stdout)?.order.len());
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&rendered.stdout)?;
    for document in documents {
        let is_same = made.values().any(|object| *object == document);
        assert!(is_same, "{document} is none of {made:?}");
    }
    Ok(())
}

#[test]
fn the_runs_exit_code_is_the_commands_and_nothing_stays() -> anyhow::Result<()> {
    for (ends, reason, code, words) in [
        (4, None, 4, "plimsoll-agents-2-abcde waits: Unschedulable: 0/2 nodes are available"),
        (137, Some("OOMKilled"), 3, "error: the coordinator was ended: exit code 137 (OOMKilled)"),
    ] {
        let agents = Agents::Unschedulable;
        let script = Script { log: REPORT.to_vec(), ends: Some(ends), reason, agents, ..Script::default() };
        let cluster = FakeCluster::start(script)?;
        let ended = run(&cluster, &[])?;
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
        assert!(cluster.objects().is_empty());
    }
    Ok(())
}

#[test]
fn what_cannot_be_made_leaves_nothing_of_ours_and_all_of_others() -> anyhow::Result<()> {
    for (refuses, code, words) in [
        (
            ("jobs", 403),
            3,
            "error: Job/plimsoll-agents is not made: jobs \"plimsoll-agents\" is forbidden: exceeded quota",
        ),
        (("services", 409), 2, "error: Service/plimsoll-agents is there already: choose another --name, or remove"),
    ] {
        let cluster = FakeCluster::start(Script { refuses: Some(refuses), ..Script::default() })?;
        let ended = run(&cluster, &[])?;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
        assert!(cluster.objects().is_empty());
        let (made, removed): (Vec<_>, Vec<_>) =
            cluster.asked().into_iter().partition(|asked| asked.starts_with("POST"));
        assert_eq!(made.len(), removed.len() + 1, "the refused one is not ours to remove: {removed:?}");
    }
    Ok(())
}

#[test]
fn a_coordinator_that_does_not_start_is_given_up_with_its_reason() -> anyhow::Result<()> {
    let cluster = FakeCluster::start(Script { waits: None, ..Script::default() })?;
    let ended = run(&cluster, &["--start-timeout", "2s"])?;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let words = "error: the coordinator did not start within 2s: ImagePullBackOff: no such image";
    assert!(ended.stderr.contains(words), "{ended:?}");
    assert!(cluster.objects().is_empty());
    Ok(())
}

pub const QUOTA: &str = "exceeded quota: load, requested: pods=1, used: pods=3, limited: pods=3";

#[test]
fn a_cluster_that_makes_no_pods_says_why_at_once() -> anyhow::Result<()> {
    let refused = Script { makes_no_pods: Some(("plimsoll-coordinator", QUOTA)), ..Script::default() };
    let ended = run(&FakeCluster::start(refused.clone())?, &["--start-timeout", "2s"])?;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let why = format!("it has no pod: pods are forbidden: {QUOTA}\n");
    assert_eq!(ended.stderr.matches(&format!("the coordinator waits: {why}")).count(), 1, "{ended:?}");
    assert!(ended.stderr.contains(&format!("error: the coordinator did not start within 2s: {why}")), "{ended:?}");
    assert!(!ended.stderr.contains("yesterday"), "another run's: {ended:?}");
    // Who may not read events is told as much as is known.
    let unread = FakeCluster::start(Script { events: Some(403), ..refused })?;
    let ended = run(&unread, &["--start-timeout", "2s"])?;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("did not start within 2s: it has no pod yet\n"), "{ended:?}");
    assert!(unread.objects().is_empty());
    Ok(())
}

#[test]
fn agents_that_are_not_made_are_told_while_the_coordinator_waits() -> anyhow::Result<()> {
    let script = Script { makes_no_pods: Some(("plimsoll-agents", QUOTA)), ..Script::default() };
    let waiting = Script { log: vec!["waiting for agents: 0 of 3 are there"], ends: None, ..script.clone() };
    let cluster = FakeCluster::start(waiting)?;
    let mut process = start(&cluster, &[])?;
    let why = format!("pods of agents are not made: pods are forbidden: {QUOTA}\n");
    process.wait_for_stderr(&why, LIMIT)?;
    process.signal(libc::SIGINT)?;
    assert_eq!(process.wait(LIMIT)?.code, Some(130));
    // A coordinator that has given up before anybody looked.
    let ended = run(&FakeCluster::start(Script { ends: Some(3), ..script })?, &[])?;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(ended.stderr.matches(&why).count(), 1, "{ended:?}");
    Ok(())
}

#[test]
fn an_interrupted_run_ends_in_order_shows_its_report_and_leaves_nothing() -> anyhow::Result<()> {
    let last_words = [&REPORT[..2], &["", "ABORTED: this report covers the trials that were finished"]].concat();
    let script = Script { log: vec!["step 1 of 5: 500/s hold"], ends: None, last_words, ..Script::default() };
    let cluster = FakeCluster::start(script)?;
    let mut process = start(&cluster, &[])?;
    process.wait_for_stderr("step 1 of 5", LIMIT)?;
    process.signal(libc::SIGINT)?;
    let ended = process.wait(LIMIT)?;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.stdout.starts_with(REPORT[0]) && ended.stdout.contains("\nABORTED: "), "{ended:?}");
    assert!(ended.stderr.contains("interrupted: the coordinator is ended in order"), "{ended:?}");
    assert!(!ended.stderr.contains("not whole"), "its pod is seen to be gone: {ended:?}");
    assert!(cluster.objects().is_empty());
    let removed: Vec<String> = cluster.asked().into_iter().filter(|asked| asked.starts_with("DELETE")).collect();
    assert_eq!(
        removed[0], "DELETE jobs/plimsoll-coordinator",
        "the coordinator first, so that it ends the agents' run"
    );
    Ok(())
}

#[test]
fn an_interrupted_run_that_has_not_begun_ends_at_once() -> anyhow::Result<()> {
    let cluster = FakeCluster::start(Script { waits: None, ..Script::default() })?;
    let mut process = start(&cluster, &[])?;
    process.wait_for_stderr("the coordinator waits: ImagePullBackOff", LIMIT)?;
    process.signal(libc::SIGINT)?;
    let ended = process.wait(LIMIT)?;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(!ended.stderr.contains("did not end within"), "its job is seen to be gone: {ended:?}");
    assert!(cluster.objects().is_empty());
    Ok(())
}

#[test]
fn a_cluster_is_reached_through_a_proxy_and_past_one() -> anyhow::Result<()> {
    let cluster = FakeCluster::start(Script { log: REPORT.to_vec(), ..Script::default() })?;
    let proxy = Proxy::start()?;
    let through = start_with(&cluster, &[], &[("HTTPS_PROXY", &proxy.url())])?.wait(LIMIT)?;
    assert_eq!(through.code, Some(0), "{through:?}");
    let tunnels = proxy.tunnels();
    assert!(tunnels > 0, "it went past the proxy");
    let cluster = FakeCluster::start(Script { log: REPORT.to_vec(), ..Script::default() })?;
    // The proxy has another name, so that only the server is excepted.
    let url = proxy.url().replace("127.0.0.1", "localhost");
    let past = start_with(&cluster, &[], &[("HTTPS_PROXY", &url), ("NO_PROXY", "127.0.0.1")])?.wait(LIMIT)?;
    assert_eq!(past.code, Some(0), "{past:?}");
    assert_eq!(proxy.tunnels(), tunnels);
    Ok(())
}

#[test]
fn it_takes_the_rights_that_the_guide_lists_and_no_other() -> anyhow::Result<()> {
    let cluster = FakeCluster::start(Script { waits: Some(1), log: REPORT.to_vec(), ..Script::default() })?;
    assert_eq!(run(&cluster, &[])?.code, Some(0));
    assert_eq!(cluster.rights(), super::cluster_guide::rights_of_the_guide()?);
    Ok(())
}

#[test]
fn without_a_cluster_nothing_is_made() -> anyhow::Result<()> {
    let cluster = FakeCluster::start(Script::default())?;
    let ended = run(&cluster, &["--context", "other"])?;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("error: no cluster is known: --context: got 'other'"), "{ended:?}");
    assert_eq!(cluster.asked(), Vec::<String>::new());
    Ok(())
}
