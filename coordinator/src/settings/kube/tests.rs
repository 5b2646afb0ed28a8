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
        error.starts_with("--nats-creds: what is in this file is not put into manifests: takes secret:NAME/KEY"),
        "{error}"
    );
    assert!(with(&["--nats-token", "secret:a"]).contains("takes secret:NAME/KEY"));
    assert!(with(&["--nats-token", "secret:../a/b"]).contains("takes secret:NAME/KEY"));
    assert!(
        with(&["--nats-tls-ca", "/no/such"])
            .starts_with("--nats-tls-ca: got '/no/such', takes the path of a text file")
    );
    let error = check(&[], &["max-rps", "--preset", "medium", "--nats-url", "nats://me:pass-word@chat:1"]).unwrap_err();
    assert!(error.starts_with("--nats-url: got 'nats://***@chat:1'") && !error.contains("pass-word"), "{error}");
    let error = check(&["--insecure"], &[&RUN[..], &["--nats-creds", "secret:a/b"]].concat()).unwrap_err();
    assert!(error.starts_with("--insecure: credentials go to agents over TLS only"), "{error}");
}

#[test]
fn what_cannot_be_made_is_refused_before_anything_is() {
    let of_run = |run: &[&str]| check(&[], run).unwrap_err();
    assert!(
        of_run(&["max-rps", "--preset", "medium"])
            .starts_with("--nats-url: got 'nats://127.0.0.1:4222', takes the address")
    );
    assert_eq!(of_run(&["certs"]), "--: got 'certs', takes a run: max-rps, run or daily, with its flags");
    assert!(
        of_run(&["seed", "--preset", "medium", "--mongo-uri", "mongodb://a"])
            .contains("takes a run: max-rps, run or daily")
    );
    assert!(of_run(&[&RUN[..], &["--agents", "a:1"]].concat()).starts_with("--agents: takes no value in a cluster"));
    assert!(of_run(&[&RUN[..], &["--steps", "5,4"]].concat()).starts_with("--steps"));
    let of_flags = |flags: &[&str]| check(flags, &RUN).unwrap_err();
    for (flags, begins) in [
        (["--name", "Upper"], "--name: got 'Upper'"),
        (["--cpu", "two"], "--cpu: got 'two'"),
        (["--memory", "1T"], "--memory: got '1T'"),
        (["--node-selector", "pool"], "--node-selector: got 'pool'"),
        (["--toleration", "a:Never"], "--toleration: got 'a:Never'"),
        (["--deadline", "1m"], "--deadline: got '1m', takes at least what the run takes"),
    ] {
        let error = of_flags(&flags);
        assert!(error.starts_with(begins), "{error}");
    }
    assert!(of_flags(&["--keep"]).contains("--apply"));
    assert!(of_flags(&["--agent-tls-secret", "a"]).contains("--coordinator-tls-secret"));
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
