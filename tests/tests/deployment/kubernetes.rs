//! What `plimsoll kube` renders is what a cluster, the agents and the coordinator take.

use plimsoll_agent::core::certificate::Certificate;
use plimsoll_agent::shell::tls::install_provider;
use plimsoll_tests::harness::processes::{Ended, Program};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::objects::{Brought, Objects};

const IMAGE: &str = "registry.example.com/plimsoll:0.1.0";

fn render(flags: &[&str], run: &[&str]) -> anyhow::Result<Ended> {
    Program::Cli.run([&["kube", "--agents", "3", "--image", IMAGE], flags, &["--"], run].concat())
}

fn objects(flags: &[&str], run: &[&str]) -> anyhow::Result<Objects> {
    let ended = render(flags, run)?;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    Objects::parse(&ended.stdout)
}

#[test]
fn a_rendered_run_agrees_with_itself_and_its_programs_take_it() -> anyhow::Result<()> {
    install_provider();
    let run = ["max-rps", "--preset", "medium", "--steps", "300,600", "--nats-url", "nats://chat.example.com:4222"];
    let objects = objects(&["--name", "night", "--namespace", "load"], &run)?;
    let order = [
        "NetworkPolicy/night-agents",
        "NetworkPolicy/night-coordinator",
        "ConfigMap/night-plan",
        "Secret/night-agent-tls",
        "Secret/night-coordinator-tls",
        "Service/night-agents",
        "Job/night-agents",
        "Job/night-coordinator",
    ];
    assert_eq!(
        objects.order, order,
        "nobody is reachable before the policies, and nobody starts before what it mounts"
    );
    objects.agree(&Brought::default())?;
    objects.are_restricted()?;
    let dir = tempfile::tempdir()?;
    let dry = objects.command_lines_are_taken(dir.path(), &[])?;
    assert_eq!(dry.len(), 1);
    for words in ["dns:night-agents:7700: 300/s, ", "wait-agents          3 ", "step 2 of 2: 600/s"] {
        assert!(dry[0].stdout.contains(words), "{words}: {dry:?}");
    }
    // The name that the coordinator dials is the Service's, and the agents' certificate is for it.
    let secret = objects.secrets["night-agent-tls"].string_data.as_ref().expect("its files");
    let agent = Certificate::read(&CertificateDer::from_pem_slice(secret["tls.crt"].as_bytes())?)?;
    assert_eq!(agent.names, ["night-agents"]);
    let of_coordinator = objects.secrets["night-coordinator-tls"].string_data.as_ref().expect("its files");
    assert_eq!(of_coordinator["ca.crt"], secret["ca.crt"]);
    assert_ne!(of_coordinator["tls.key"], secret["tls.key"]);
    let agents = objects.jobs["night-agents"].spec.as_ref().expect("a spec");
    assert_eq!((agents.completions, agents.parallelism), (Some(3), Some(3)));
    assert_eq!(agents.completion_mode.as_deref(), Some("Indexed"));
    Ok(())
}

#[test]
fn what_a_user_brings_is_mounted_where_the_run_looks_for_it() -> anyhow::Result<()> {
    install_provider();
    let dir = tempfile::tempdir()?;
    let scenario = std::fs::read_to_string(super::in_checkout("docs/examples/echo.toml"))?;
    let file = dir.path().join("echo.toml");
    std::fs::write(&file, scenario)?;
    let flags = [
        "--agent-tls-secret",
        "fleet-agent",
        "--coordinator-tls-secret",
        "fleet-coordinator",
        "--results-claim",
        "runs",
        "--metrics-from",
        "monitoring",
        "--node-selector",
        "pool=load",
        "--toleration",
        "dedicated=load:NoSchedule",
        "--image-pull-secret",
        "registry",
        "--workers",
        "3",
    ];
    let scenario = file.display().to_string();
    let run = ["max-rps", "--workload", "custom", "--scenario", &scenario, "--nats-url", "nats://echo:4222"];
    let creds = ["--nats-creds", "secret:echo-nats/backend.creds"];
    let objects = objects(&flags, &[&run[..], &creds].concat())?;
    let brought =
        Brought { secrets: &["fleet-agent", "fleet-coordinator", "echo-nats", "registry"], claims: &["runs"] };
    objects.agree(&brought)?;
    objects.are_restricted()?;
    assert!(objects.secrets.is_empty(), "nothing secret is rendered");
    let certificates = super::secrets_of(&["fleet-agent", "fleet-coordinator"], "plimsoll-agents")?;
    objects.command_lines_are_taken(dir.path(), &certificates.dirs())?;
    let plan = &objects.config_maps["plimsoll-plan"].data.as_ref().expect("a plan")["plan.toml"];
    assert!(plan.contains("nats-creds = \"/etc/plimsoll/secrets/echo-nats/backend.creds\"\n"), "{plan}");
    let (_, spec, container) =
        objects.containers()?.into_iter().find(|(name, ..)| name == "plimsoll-agents").expect("agents");
    assert_eq!(spec.node_selector.as_ref().expect("nodes")["pool"], "load");
    assert_eq!(container.resources.as_ref().and_then(|r| r.requests.as_ref()).expect("requests")["cpu"].0, "4");
    Ok(())
}

#[test]
fn a_run_that_would_not_go_is_not_rendered() -> anyhow::Result<()> {
    let ended = render(&[], &["max-rps", "--preset", "medium"])?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    assert!(ended.stderr.starts_with("error: --nats-url: got 'nats://127.0.0.1:4222'"), "{ended:?}");
    let ended = render(&[], &["max-rps", "--preset", "huge", "--nats-url", "nats://chat:4222"])?;
    assert!(ended.code == Some(2) && ended.stderr.contains("--preset"), "{ended:?}");
    Ok(())
}

#[test]
fn the_examples_of_the_help_are_rendered() -> anyhow::Result<()> {
    let help = Program::Cli.run(["kube", "--help"])?.stdout.replace("\\\n", " ");
    let lines = help.lines().skip_while(|line| line.trim() != "Examples:").map(str::trim);
    let examples: Vec<&str> = lines.filter_map(|line| line.strip_prefix("plimsoll ")).collect();
    assert!(examples.len() >= 2, "{help}");
    for example in examples {
        let ended = Program::Cli.run(example.split_whitespace())?;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{example}");
        let objects = Objects::parse(&ended.stdout)?;
        objects.agree(&Brought { secrets: &["chat-nats"], claims: &[] })?;
    }
    Ok(())
}
