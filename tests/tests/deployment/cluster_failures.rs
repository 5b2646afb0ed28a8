//! `plimsoll kube --apply` where the cluster does not do as it is asked: what went wrong is said, while somebody can still mend it, and
//! nothing is removed that somebody needs.

use plimsoll_tests::harness::processes::Ended;

use super::cluster_runs::{LIMIT, MADE, REPORT, run, start};
use super::fake_cluster::{Agents, FakeCluster, Lost, Script};

const BY_HAND: &str = "kubectl -n load delete job,service,configmap,secret,networkpolicy -l \
                       app.kubernetes.io/instance=plimsoll,app.kubernetes.io/managed-by=plimsoll --cascade=foreground\n";

const NO_SECRET: &str = "MountVolume.SetUp failed for volume \"chat-nats\" : secret \"chat-natz\" not found";

#[test]
fn a_secret_that_is_not_there_is_named_while_the_pod_waits_for_it() -> anyhow::Result<()> {
    let script = Script { waits: None, warned: Some(NO_SECRET), ..Script::default() };
    let ended = run(&FakeCluster::start(script.clone())?, &["--start-timeout", "2s"])?;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let why = format!("FailedMount: {NO_SECRET}\n");
    assert_eq!(ended.stderr.matches(&format!("the coordinator waits: {why}")).count(), 1, "{ended:?}");
    assert!(ended.stderr.contains(&format!("error: the coordinator did not start within 2s: {why}")), "{ended:?}");
    assert!(!ended.stderr.contains("yesterday"), "another run's: {ended:?}");
    // Who may not read events is told as much as is known.
    let ended = run(&FakeCluster::start(Script { events: Some(403), ..script })?, &["--start-timeout", "2s"])?;
    assert!(ended.stderr.contains("error: the coordinator did not start within 2s\n"), "{ended:?}");
    Ok(())
}

#[test]
fn agents_that_do_not_run_are_told_while_the_coordinator_waits_for_them() -> anyhow::Result<()> {
    let waiting = Script { log: vec!["waiting for agents: 2 of 3 are there"], ends: None, ..Script::default() };
    let said = "listening\nerror: --allow-target: got 'chat'\n";
    let lines = [
        "plimsoll-agents-0-abcde ended: exit code 2 (Error)\n",
        "  plimsoll-agents-0-abcde: listening\n  plimsoll-agents-0-abcde: error: --allow-target: got 'chat'\n",
    ]
    .concat();
    for (agents, words) in [
        (Agents::Unschedulable, "plimsoll-agents-2-abcde waits: Unschedulable: 0/2 nodes are available\n"),
        (Agents::Failed(2, said), lines.as_str()),
    ] {
        // Events that fail, or that may not be read, do not keep pods from being looked at.
        let cluster = FakeCluster::start(Script { agents, events: Some(403), ..waiting.clone() })?;
        let mut process = start(&cluster, &[])?;
        process.wait_for_stderr(words, LIMIT)?;
        process.signal(libc::SIGINT)?;
        let ended = process.wait(LIMIT)?;
        assert_eq!((ended.code, ended.stderr.matches(words).count()), (Some(130), 1), "{ended:?}");
    }
    Ok(())
}

#[test]
fn how_the_coordinator_ended_is_told_also_where_its_log_cannot_be_read() -> anyhow::Result<()> {
    let script =
        Script { log_refused: Some((0, 500)), ends: Some(137), reason: Some("OOMKilled"), ..Script::default() };
    let ended = run(&FakeCluster::start(script)?, &[])?;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("; the coordinator ended: exit code 137 (OOMKilled)\n"), "{ended:?}");
    // What never began has no report that somebody could read.
    let cluster = FakeCluster::start(Script { never_began: Some("Evicted"), ..Script::default() })?;
    let ended = run(&cluster, &[])?;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let words = "error: the coordinator was ended before it began: Evicted: the node was low on memory\n";
    assert!(ended.stderr.ends_with(words), "{ended:?}");
    assert!(cluster.objects().is_empty());
    assert_eq!(cluster.since().len(), 0, "there is no log to ask for");
    Ok(())
}

#[test]
fn a_pod_that_somebody_removed_is_said_to_be_gone() -> anyhow::Result<()> {
    let script = Script { log: vec!["step 1 of 1: 2000/s hold"], lost: Some(Lost::Gone), ..Script::default() };
    let cluster = FakeCluster::start(script)?;
    let ended = run(&cluster, &[])?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{ended:?}");
    assert!(ended.stderr.contains("error: the coordinator's pod is gone: pods \"plimsoll-coordinator-"), "{ended:?}");
    assert!(cluster.objects().is_empty());
    Ok(())
}

#[test]
fn a_second_ctrl_c_leaves_everything_and_the_first_said_how_it_is_removed() -> anyhow::Result<()> {
    let script = Script { log: REPORT[..1].to_vec(), ends: None, lost: Some(Lost::Stays), ..Script::default() };
    let cluster = FakeCluster::start(script)?;
    let mut process = start(&cluster, &[])?;
    process.wait_for_line(REPORT[0])?;
    process.signal(libc::SIGINT)?;
    process
        .wait_for_stderr(&format!("another Ctrl-C leaves everything as it is, to be removed by: {BY_HAND}"), LIMIT)?;
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !cluster.asked().contains(&"DELETE jobs/plimsoll-coordinator".to_owned()) {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", cluster.asked());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    process.signal(libc::SIGINT)?;
    let ended = process.wait(LIMIT)?;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_eq!(cluster.objects().len(), MADE.len(), "the coordinator's job is ending, and all else is there");
    Ok(())
}

#[test]
fn what_was_made_though_the_answer_came_too_late_is_not_taken_for_somebody_elses() -> anyhow::Result<()> {
    let script = Script { refuses: Some(("services", 504)), makes_refused: true, ..Script::default() };
    let cluster = FakeCluster::start(script)?;
    let ended = run(&cluster, &[])?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{ended:?}");
    assert!(ended.stderr.contains("error: whether Service/plimsoll-agents is made is not known: "), "{ended:?}");
    assert!(ended.stderr.ends_with(&format!("to remove what there is: {BY_HAND}")), "{ended:?}");
    let asked = cluster.asked();
    assert_eq!(asked.iter().filter(|asked| *asked == "POST services/plimsoll-agents").count(), 1, "{asked:?}");
    assert_eq!(cluster.objects().into_keys().collect::<Vec<_>>(), ["services/plimsoll-agents"]);
    Ok(())
}

/// Ends with an answer, where this is not removed so often.
fn keeps(cluster: &FakeCluster) -> anyhow::Result<Ended> {
    let ended = run(cluster, &[])?;
    assert_eq!((ended.code, ended.stdout.lines().next()), (Some(0), Some(REPORT[0])), "{ended:?}");
    Ok(ended)
}

#[test]
fn while_a_job_is_left_so_is_what_its_pods_are_kept_apart_by() -> anyhow::Result<()> {
    let script = |code, times| Script {
        log: REPORT.to_vec(),
        keeps: Some(("jobs/plimsoll-agents", code, times)),
        ..Script::default()
    };
    // What fails once may go a little later.
    let cluster = FakeCluster::start(script(500, 1))?;
    keeps(&cluster)?;
    assert!(cluster.objects().is_empty(), "{:?}", cluster.objects().keys());
    let cluster = FakeCluster::start(script(403, usize::MAX))?;
    let ended = keeps(&cluster)?;
    let words = "until it is: Job/plimsoll-agents (jobs/plimsoll-agents stays); to remove what there is: ";
    assert!(ended.stderr.ends_with(&format!("{words}{BY_HAND}")), "{ended:?}");
    let deleted: Vec<String> = cluster.asked().into_iter().filter(|asked| asked.starts_with("DELETE")).collect();
    assert_eq!(deleted, ["DELETE jobs/plimsoll-coordinator", "DELETE jobs/plimsoll-agents"]);
    Ok(())
}
