//! What the programs say of themselves: every flag with its variable, examples that work, and a dry run that touches nothing.

use plimsoll::settings::table::SETTINGS;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer, NatsUser};
use plimsoll_tests::harness::processes::{Agent, AgentOptions, Process, Program};
use std::time::Duration;

/// The lines under `Examples:` of a program's help, as arguments.
fn examples(help: &str, program: &str) -> Vec<Vec<String>> {
    let lines = help.lines().skip_while(|line| line.trim() != "Examples:").skip(1);
    let words = lines.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    words.filter(|words| words.first().is_some_and(|word| word == program)).map(|words| words[1..].to_vec()).collect()
}

#[test]
fn the_help_shows_every_flag_with_its_variable() -> anyhow::Result<()> {
    let mut words = String::new();
    for command in ["max-rps", "run", "daily", "seed", "verify", "teardown"] {
        let help = Program::Cli.run([command, "--help"])?;
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
        words.extend(help.stdout.split_whitespace().flat_map(|word| [word, " "]));
    }
    for setting in SETTINGS.iter() {
        for part in [format!("--{}", setting.name), format!("[env: {}", setting.variable)] {
            assert!(words.contains(&part), "no {part} in {words}");
        }
    }
    let help = Program::Agent.run(["--help"])?;
    let flags: Vec<&str> = help.stdout.lines().filter_map(|line| line.trim().strip_prefix("--")).collect();
    assert!(flags.len() >= 5, "{}", help.stdout);
    let words = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for flag in flags {
        let name = flag.split([' ', '=']).next().unwrap_or_default();
        let variable = format!("[env: PLIMSOLL_{}", name.replace('-', "_").to_uppercase());
        assert!(words.contains(&variable), "no {variable} in {}", help.stdout);
    }
    Ok(())
}

#[test]
fn a_variable_says_what_its_flag_does() -> anyhow::Result<()> {
    let mut command = Program::Cli.command()?;
    command.args(["max-rps", "--dry-run"]).env("PLIMSOLL_PRESET", "small").env("PLIMSOLL_STEPS", "123");
    let ended = Process::spawn(command)?.wait(Duration::from_secs(20))?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("step 1 of 1: 123/s"), "{ended:?}");
    Ok(())
}

#[test]
fn the_examples_of_the_help_run() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("nightly.toml"), "preset = \"small\"\nsteps = [100, \"1k\"]\n")?;
    let help = Program::Cli.run(["max-rps", "--help"])?.stdout;
    let of_users = Program::Cli.run(["daily", "--help"])?.stdout;
    let mut found = examples(&help, "plimsoll");
    assert!(found.len() >= 4, "{help}");
    found.extend(examples(&of_users, "plimsoll"));
    for example in found {
        let mut command = Program::Cli.command()?;
        command.args(&example).current_dir(dir.path());
        if !example.iter().any(|argument| argument == "--dry-run") {
            command.arg("--dry-run");
        }
        let ended = Process::spawn(command)?.wait(Duration::from_secs(20))?;
        assert!(ended.code == Some(0) && ended.stderr.is_empty(), "{example:?}: {ended:?}");
        let shown =
            if example.iter().any(|argument| argument == "--find") { "\nSearch: from " } else { "\nstep 1 of " };
        assert!(ended.stdout.contains(shown), "{example:?}: {ended:?}");
    }
    assert!(!dir.path().join("steps.csv").exists(), "a dry run writes no file");
    let databases = "mongo-uri = \"mongodb://127.0.0.1:1\"\ncassandra-hosts = \"127.0.0.1:1\"\n";
    std::fs::write(dir.path().join("databases.toml"), databases)?;
    let help = Program::Cli.run(["seed", "--help"])?.stdout;
    let found = examples(&help, "plimsoll");
    assert!(found.len() >= 3, "{help}");
    for example in found {
        let mut command = Program::Cli.command()?;
        command.args(&example).arg("--dry-run").current_dir(dir.path());
        let ended = Process::spawn(command)?.wait(Duration::from_secs(20))?;
        assert!(ended.code == Some(0) && ended.stderr.is_empty(), "{example:?}: {ended:?}");
        assert!(
            ended.stdout.starts_with("Dry run: nothing is contacted, nothing is written."),
            "{example:?}: {ended:?}"
        );
    }
    let help = Program::Cli.run(["certs", "--help"])?.stdout;
    let found = examples(&help, "plimsoll");
    assert!(found.len() >= 3, "{help}");
    for example in found {
        let mut command = Program::Cli.command()?;
        command.args(&example).current_dir(dir.path());
        let ended = Process::spawn(command)?.wait(Duration::from_secs(20))?;
        assert!(ended.code == Some(0) && ended.stderr.is_empty(), "{example:?}: {ended:?}");
    }
    let help = Program::Agent.run(["--help"])?.stdout;
    let found = examples(&help, "plimsoll-agent");
    assert!(found.len() >= 3, "{help}");
    for mut example in found {
        // As written, but on free ports.
        for at in 1..example.len() {
            if example[at - 1].ends_with("listen")
                && let Some((host, _)) = example[at].split_once(':')
            {
                example[at] = format!("{host}:0");
            }
        }
        if !example.iter().any(|argument| argument == "--listen") {
            example.extend(["--listen".to_owned(), "127.0.0.1:0".to_owned()]);
        }
        let mut command = Program::Agent.command()?;
        command.args(&example);
        let mut agent = Process::spawn(command)?;
        agent.wait_for_line("plimsoll-agent listens on 127.0.0.1:")?;
        agent.signal(libc::SIGTERM)?;
        let ended = agent.wait(Duration::from_secs(20))?;
        assert_eq!(ended.code, Some(0), "{example:?}: {ended:?}");
    }
    Ok(())
}

#[test]
fn a_dry_run_prints_the_plan_without_secrets_and_touches_nothing() -> anyhow::Result<()> {
    let user = NatsUser { name: "ann".into(), password: "pass-word".into(), ..NatsUser::default() };
    let server = NatsServer::start(NatsOptions { users: vec![user.clone()], ..NatsOptions::default() })?;
    let agents = [Agent::start(&AgentOptions::default())?, Agent::start(&AgentOptions::default())?];
    let addresses = agents.each_ref().map(|agent| agent.address.to_string());
    let dir = tempfile::tempdir()?;
    let (csv, creds) = (dir.path().join("trials.csv"), dir.path().join("a.creds"));
    std::fs::write(&creds, "SECRET-SEED")?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let before = server.connections_ever()?;
    let mut command = Program::Cli.command()?;
    command.args(["max-rps", "--preset=small", "--steps=100,1k", "--dry-run", "--nats-url", &server.url_of(&user)]);
    command.args(["--agents", &addresses.join(",")]).arg("--nats-creds").arg(&creds).arg("--csv").arg(&csv);
    command.args(["--metrics-listen", &taken.local_addr()?.to_string()]);
    let url = format!("http://ann:pass-word@{}", server.monitoring_url().trim_start_matches("http://"));
    command.args(["--jsz-url", &url]);
    let ended = Process::spawn(command)?.wait(Duration::from_secs(20))?;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    assert!(!ended.stdout.contains("pass-word") && !ended.stdout.contains("SECRET"), "{ended:?}");
    for address in &addresses {
        assert!(ended.stdout.contains(&format!("  {address}: 50/s, ")), "its part of 100/s: {ended:?}");
        assert!(ended.stdout.contains(&format!("  {address}: 500/s, ")), "its part of 1k/s: {ended:?}");
    }
    assert!(!csv.exists(), "a dry run writes no file");
    assert_eq!(server.connections_ever()?, before);
    for agent in &agents {
        assert!(!agent.process.stderr().contains("leased"), "{}", agent.process.stderr());
    }
    Ok(())
}

#[test]
fn no_error_about_a_command_line_repeats_a_password() -> anyhow::Result<()> {
    let address = "nats://ann:pass-word@chat.example.com:4222";
    let mut cases = Vec::new();
    let mut by_variable = Program::Agent.command()?;
    by_variable.env("PLIMSOLL_ALLOW_TARGET", address);
    cases.push((by_variable, "--allow-target"));
    for arguments in [vec!["--allow-target", address], vec!["--listen", address], vec![address]] {
        let mut command = Program::Agent.command()?;
        command.args(arguments);
        cases.push((command, "chat.example.com"));
    }
    for arguments in [vec!["max-rps", address], vec!["max-rps", "--no-such-flag", address], vec!["--nats-url", address]]
    {
        let mut command = Program::Cli.command()?;
        command.args(arguments);
        cases.push((command, "--"));
    }
    for (command, words) in cases {
        let ended = Process::spawn(command)?.wait(Duration::from_secs(20))?;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(words) && !ended.stderr.contains("pass-word"), "{ended:?}");
    }
    Ok(())
}
