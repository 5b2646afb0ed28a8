//! What `plimsoll kube` takes, and what it makes of a run.

use super::*;
use crate::settings::{Invocation, read};

const IMAGE: [&str; 6] = ["plimsoll", "kube", "--agents", "8", "--image", "r.example.com/plimsoll:1"];
const RUN: [&str; 5] = ["max-rps", "--preset", "medium", "--nats-url", "nats://chat:4222"];

fn check_with(flags: &[&str], run: &[&str], environment: Environment) -> Result<KubePlan, String> {
    let arguments = [&IMAGE, flags, &["--"], run].concat();
    match read(arguments.into_iter().map(Into::into), environment) {
        Ok(Invocation::Kube(plan)) => Ok(*plan),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

fn check(flags: &[&str], run: &[&str]) -> Result<KubePlan, String> {
    check_with(flags, run, &|_| None)
}

#[test]
fn a_run_becomes_a_plan_with_what_the_cluster_adds() {
    let plan = check(&[], &[&RUN[..], &["--no-stop-on-trip", "--steps", "100,1k"]].concat()).unwrap();
    assert_eq!(plan.run.arguments, ["max-rps", "--plan=/etc/plimsoll/plan/plan.toml"]);
    let expected = "preset = \"medium\"\nsteps = \"100,1k\"\nno-stop-on-trip = true\nnats-url = \"nats://chat:4222\"\n\
                    agents = \"dns:plimsoll-agents:7700\"\nwait-agents = \"8\"\nresults = \"/results\"\nwait-timeout = \"600s\"\n\
                    tls-cert = \"/etc/plimsoll/tls/tls.crt\"\ntls-key = \"/etc/plimsoll/tls/tls.key\"\n\
                    tls-ca = \"/etc/plimsoll/tls/ca.crt\"\n";
    assert_eq!(plan.run.files.into_iter().collect::<Vec<_>>(), [("plan.toml".to_owned(), expected.to_owned())]);
    assert_eq!(plan.run.targets, ["nats://chat:4222"]);
    assert_eq!((plan.cpu.as_str(), plan.workers, plan.tls, plan.apply), ("2", 1, Tls::Made, None));
}

#[test]
fn variables_and_plan_files_count_and_what_the_cluster_says_itself_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nightly.toml");
    std::fs::write(&file, "preset = \"small\"\nagents = \"box-1:7700\"\nhold = \"7s\"\nresults = \"here\"\n").unwrap();
    let environment = |name: &str| match name {
        "NATS_URL" => Some("nats://a:1,nats://b:2".to_owned()),
        "PLIMSOLL_LOCAL" => Some("3".to_owned()),
        _ => None,
    };
    let run = ["run", "--rate", "500", "--duration", "1m", "--plan", file.to_str().unwrap()];
    let error = check_with(&[], &run, &environment).unwrap_err();
    assert!(error.contains("line 3: 'hold' is no key of run"), "{error}");
    std::fs::write(&file, "preset = \"small\"\nagents = \"box-1:7700\"\nresults = \"here\"\n").unwrap();
    let plan = check_with(&["--name", "night"], &run, &environment).unwrap();
    let text = &plan.run.files["plan.toml"];
    assert!(
        text.starts_with("preset = \"small\"\n") && text.contains("agents = \"dns:night-agents:7700\"\n"),
        "{text}"
    );
    assert!(!text.contains("box-1") && !text.contains("local") && !text.contains("here"), "{text}");
    assert_eq!(plan.run.targets, ["nats://a:1", "nats://b:2"]);
}

#[test]
fn names_are_what_kubernetes_takes_for_them() {
    let flags = ["--name", "n-2", "--namespace", "2026-load", "--results-claim", "runs.of-2026"];
    let plan = check(&flags, &RUN).unwrap();
    assert_eq!(plan.namespace.as_deref(), Some("2026-load"));
    assert_eq!(plan.results_claim.as_deref(), Some("runs.of-2026"));
}

#[test]
fn files_go_along_and_secrets_are_named_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("nats-ca.pem");
    std::fs::write(&ca, "a certificate\n").unwrap();
    let files = ["--nats-tls-ca", ca.to_str().unwrap(), "--nats-nkey", "secret:chat-nats/seed.nk"];
    let plan = check(&[], &[&RUN[..], &files].concat()).unwrap();
    assert_eq!(plan.run.files["nats-tls-ca.pem"], "a certificate\n");
    let text = &plan.run.files["plan.toml"];
    assert!(text.contains("nats-nkey = \"/etc/plimsoll/secrets/chat-nats/seed.nk\"\n"), "{text}");
    assert!(text.contains("nats-tls-ca = \"/etc/plimsoll/plan/nats-tls-ca.pem\"\n"), "{text}");
    assert_eq!(plan.run.secrets.into_iter().collect::<Vec<_>>(), ["chat-nats"]);

    let with = |more: &[&str]| check(&[], &[&RUN[..], more].concat()).unwrap_err();
    let error = with(&["--nats-creds", "backend.creds"]);
    assert!(
        error.starts_with("--nats-creds: what is in this file is not put into manifests: expected secret:NAME/KEY"),
        "{error}"
    );
    assert!(with(&["--nats-token", "secret:a"]).contains("expected secret:NAME/KEY"));
    assert!(with(&["--nats-token", "secret:../a/b"]).contains("expected secret:NAME/KEY"));
    assert!(
        with(&["--nats-tls-ca", "/no/such"])
            .starts_with("--nats-tls-ca: got '/no/such', expected the path of a text file")
    );
    let error = check(&[], &["max-rps", "--preset", "medium", "--nats-url", "nats://me:pass-word@chat:1"]).unwrap_err();
    assert!(error.starts_with("--nats-url: got 'nats://***@chat:1'") && !error.contains("pass-word"), "{error}");
    let error = check(&["--insecure"], &[&RUN[..], &["--nats-creds", "secret:a/b"]].concat()).unwrap_err();
    assert!(error.starts_with("--insecure: credentials go to agents over TLS only"), "{error}");
}

#[test]
fn a_database_s_user_needs_a_password_that_a_pod_has() {
    let mongo = ["--mongo-uri", "mongodb://chat-db:27017", "--mongo-username", "ann"];
    let cassandra = ["--cassandra-hosts", "chat-db:9042", "--cassandra-username", "bob"];
    let with = |more: &[&[&str]]| check(&[], &[&RUN[..], &more.concat()].concat());
    let error = with(&[&mongo]).unwrap_err();
    assert!(
        error.starts_with("--mongo-username: the password of 'ann' is in env:MONGO_PASSWORD, which no pod has: add --mongo-password secret:NAME/KEY"),
        "{error}"
    );
    let password = ["--mongo-password", "secret:chat-db/password"];
    let plan = with(&[&mongo, &password]).unwrap();
    assert!(plan.run.files["plan.toml"].contains("mongo-password = \"/etc/plimsoll/secrets/chat-db/password\"\n"));
    let error = with(&[&mongo, &password, &cassandra]).unwrap_err();
    assert!(
        error.starts_with("--cassandra-username: the password of 'bob' is in env:CASSANDRA_PASSWORD")
            && error.contains("--cassandra-password secret:NAME/KEY"),
        "{error}"
    );
    assert!(with(&[&mongo, &password, &cassandra, &["--cassandra-password", "secret:a/b"]]).is_ok());
    // Without the database's address nobody logs in.
    assert!(with(&[&["--mongo-username", "ann"]]).is_ok());
}

#[test]
fn what_cannot_be_made_is_refused_before_anything_is() {
    let of_run = |run: &[&str]| check(&[], run).unwrap_err();
    assert!(
        of_run(&["max-rps", "--preset", "medium"])
            .starts_with("--nats-url: got 'nats://127.0.0.1:4222', expected the address")
    );
    assert_eq!(of_run(&["certs"]), "--: got 'certs', expected a run: max-rps, run or daily, with its flags");
    assert!(
        of_run(&["seed", "--preset", "medium", "--mongo-uri", "mongodb://a"])
            .contains("expected a run: max-rps, run or daily")
    );
    assert!(of_run(&[&RUN[..], &["--agents", "a:1"]].concat()).starts_with("--agents: cannot be set in a cluster"));
    assert!(of_run(&[&RUN[..], &["--steps", "5,4"]].concat()).starts_with("--steps"));
    let of_flags = |flags: &[&str]| check(flags, &RUN).unwrap_err();
    for (flags, begins) in [
        (["--name", "Upper"], "--name: got 'Upper'"),
        (["--cpu", "two"], "--cpu: got 'two'"),
        (["--memory", "1TB"], "--memory: got '1TB', expected bytes such as 512Mi, 2Gi or 2G"),
        (["--memory", "1e3Gi"], "--memory: got '1e3Gi'"),
        (["--memory", "0"], "--memory: got '0'"),
        (["--node-selector", "pool"], "--node-selector: got 'pool'"),
        (["--node-selector", "a b=c d"], "--node-selector: got 'a b=c d', expected KEY=VALUE"),
        (["--node-selector", "a/b/c=d"], "--node-selector: got 'a/b/c=d'"),
        (["--node-selector", "pool=-a"], "--node-selector: got 'pool=-a'"),
        (["--node-selector", "a=b,a=c"], "--node-selector: got 'a=c', expected one value for each key"),
        (["--toleration", "a:Never"], "--toleration: got 'a:Never'"),
        (["--toleration", "x y:NoSchedule"], "--toleration: got 'x y:NoSchedule'"),
        (["--toleration", "x=y z"], "--toleration: got 'x=y z'"),
        (["--toleration", "x:"], "--toleration: got 'x:'"),
        (
            ["--name", "2026-night"],
            "--name: got '2026-night', expected a name of at most 40 lower-case letters, digits and dashes, a letter first",
        ),
        (["--name", "night-"], "--name: got 'night-'"),
        (["--namespace", "load.tests"], "--namespace: got 'load.tests', expected a name of at most 63 lower-case"),
        (["--metrics-from", "a.b"], "--metrics-from: got 'a.b'"),
        (["--results-claim", "runs..old"], "--results-claim: got 'runs..old', expected a name of at most 253"),
    ] {
        let error = of_flags(&flags);
        assert!(error.starts_with(begins), "{error}");
    }
    assert!(of_flags(&["--keep"]).contains("--apply"));
    assert!(of_flags(&["--agent-tls-secret", "a"]).contains("--coordinator-tls-secret"));
}

#[test]
fn a_deadline_has_room_for_the_start_the_run_and_what_may_come_between() {
    let run = ["run", "--preset", "medium", "--rate", "100", "--duration", "30m", "--nats-url", "nats://chat:4222"];
    let of_deadline = |deadline: &str, run: &[&str]| check(&["--start-timeout", "4m", "--deadline", deadline], run);
    let error = of_deadline("31m", &run).unwrap_err();
    assert!(error.starts_with("--deadline: got '31m', expected at least 43m "), "{error}");
    for part in ["4m to start (--start-timeout)", "waits 4m for agents", "the run takes 30m", "up to 5m 5s"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // What it names fits, and a second less does not.
    let named = error.split("at least ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let whole = humantime::parse_duration(named).unwrap();
    let plan = of_deadline(&format!("{}s", whole.as_secs()), &run).unwrap();
    assert_eq!(plan.deadline, whole);
    assert!(of_deadline(&format!("{}s", whole.as_secs() - 1), &run).is_err());
    // The coordinator may be told to wait longer than pods may take to start.
    let waits = [&run[..], &["--wait-timeout", "20m"]].concat();
    assert!(of_deadline(&format!("{}s", whole.as_secs()), &waits).unwrap_err().contains("waits 20m for agents"));
}

#[test]
fn agents_wait_longer_than_the_coordinator_may_take_to_start() {
    let idle = |start: &str| check(&["--start-timeout", start], &RUN).unwrap().idle_limit();
    assert_eq!([idle("1m"), idle("10m"), idle("30m")], [900, 900, 2100].map(Duration::from_secs));
}

#[test]
fn quantities_and_labels_are_taken_as_kubernetes_has_them() {
    for memory in ["1G", "1T", "2.5Gi", "1e9", "1E", "512Mi", "1073741824", "64k"] {
        assert_eq!(check(&["--memory", memory], &RUN).unwrap().memory, memory);
    }
    assert_eq!(check(&["--cpu", "1500m"], &RUN).unwrap().cpu, "1500m");
    let plan = check(&["--node-selector", "example.com/pool=load_1.a,empty="], &RUN).unwrap();
    let expected = [("example.com/pool", "load_1.a"), ("empty", "")].map(|(key, value)| (key.into(), value.into()));
    assert_eq!(plan.node_selector, expected);
}

#[test]
fn taints_are_read_as_kubectl_writes_them() {
    let tolerations = ["--toleration", "dedicated=load:NoSchedule,gpu,spot:NoExecute"];
    let plan = check(&tolerations, &RUN).unwrap();
    let words: Vec<_> =
        plan.tolerations.iter().map(|t| (t.key.as_str(), t.value.as_deref(), t.effect.as_deref())).collect();
    let expected =
        [("dedicated", Some("load"), Some("NoSchedule")), ("gpu", None, None), ("spot", None, Some("NoExecute"))];
    assert_eq!(words, expected);
}
