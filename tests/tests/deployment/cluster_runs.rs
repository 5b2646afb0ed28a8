//! `plimsoll kube --apply` against the API of a cluster: what it makes and in which order, what it shows of the run, what it ends
//! with, and that it leaves nothing behind.

use std::time::Duration;

use plimsoll_tests::harness::processes::{Ended, Process, Program};

use super::fake_cluster::{FakeCluster, Script, with_kubeconfig};
use super::objects::Objects;

const LIMIT: Duration = Duration::from_secs(60);
const REPORT: [&str; 4] =
    ["Run 20260102-messages", "  hold = 5s (flag)", "", "ANSWER: max RPS = 2000 (workload=messages)"];
const MADE: [&str; 8] = [
    "networkpolicies/plimsoll-agents",
    "networkpolicies/plimsoll-coordinator",
    "configmaps/plimsoll-plan",
    "secrets/plimsoll-agent-tls",
    "secrets/plimsoll-coordinator-tls",
    "services/plimsoll-agents",
    "jobs/plimsoll-agents",
    "jobs/plimsoll-coordinator",
];

fn start(cluster: &FakeCluster, flags: &[&str]) -> anyhow::Result<Process> {
    let mut command = with_kubeconfig(cluster, Program::Cli.command()?)?;
    command.args(["kube", "--apply", "--agents", "3", "--image", "plimsoll:1"]).args(flags);
    command.args(["--", "max-rps", "--preset", "small", "--nats-url", "nats://chat:4222"]);
    Process::spawn(command)
}

fn run(cluster: &FakeCluster, flags: &[&str]) -> anyhow::Result<Ended> {
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
    assert_eq!(
        cluster.since(),
        [None, Some("2026-01-02T03%3A04%3A05Z".to_owned())],
        "whole seconds, and no line twice"
    );
    Ok(())
}

#[test]
fn what_is_made_is_what_is_rendered() -> anyhow::Result<()> {
    let cluster = FakeCluster::start(Script { log: REPORT.to_vec(), ..Script::default() })?;
    let ended = run(&cluster, &["--keep", "--insecure"])?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("all of it stays; to remove it: kubectl -n load delete job,"), "{ended:?}");
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
        let script = Script { log: REPORT.to_vec(), ends: Some(ends), reason, ..Script::default() };
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
        (("services", 409), 2, "error: Service/plimsoll-agents is there already: takes another --name, or remove"),
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
    assert!(cluster.objects().is_empty());
    let removed: Vec<String> = cluster.asked().into_iter().filter(|asked| asked.starts_with("DELETE")).collect();
    assert_eq!(
        removed[0], "DELETE jobs/plimsoll-coordinator",
        "the coordinator first, so that it ends the agents' run"
    );
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
