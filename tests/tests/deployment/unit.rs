//! The agent's unit: systemd takes it, finds little to say against it, and the agent takes what it is given by it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_tests::harness::certificates::Certificates;
use plimsoll_tests::harness::processes::{Process, Program};

use super::in_checkout;

/// Runs systemd's own reader on the unit as it is installed; `None` where there is no systemd.
fn analyze(arguments: &[&str], unit: &Path) -> anyhow::Result<Option<(bool, String)>> {
    let Ok(ended) = Command::new("systemd-analyze").args(arguments).arg(unit).output() else {
        eprintln!("no systemd-analyze is here: the unit is not looked at by it");
        return Ok(None);
    };
    let words = [ended.stdout, ended.stderr].map(|words| String::from_utf8_lossy(&words).into_owned()).concat();
    Ok(Some((ended.status.success(), words)))
}

#[test]
fn systemd_takes_the_unit_and_finds_it_hardened() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    super::install::install(dir.path(), "/usr")?;
    let path = dir.path().join("usr/lib/systemd/system/plimsoll-agent.service");
    // As if it were installed here: the program has to be where the unit says.
    let text = std::fs::read_to_string(&path)?;
    let here = format!("ExecStart={}/usr/bin/plimsoll-agent\n", dir.path().display());
    assert!(text.contains("ExecStart=/usr/bin/plimsoll-agent\n"), "{text}");
    std::fs::write(&path, text.replace("ExecStart=/usr/bin/plimsoll-agent\n", &here))?;
    if let Some((is_good, words)) = analyze(&["verify", "--man=no"], &path)? {
        assert!(is_good && words.is_empty(), "{words}");
    }
    // Of ten points of exposure at most two.
    if let Some((is_good, words)) = analyze(&["security", "--offline=true", "--threshold=20"], &path)? {
        assert!(is_good, "{words}");
    }
    Ok(())
}

#[test]
fn the_agent_starts_with_what_the_unit_gives_it() -> anyhow::Result<()> {
    let certificates = Certificates::make()?;
    let credentials = tempfile::tempdir()?;
    let unit = std::fs::read_to_string(in_checkout("deploy/systemd/plimsoll-agent.service"))?;
    for (from, loaded) in [("box.pem", "agent.pem"), ("box.key", "agent.key"), ("ca.pem", "ca.pem")] {
        assert!(unit.contains(&format!("LoadCredential={loaded}:/etc/plimsoll/{loaded}\n")), "{unit}");
        std::fs::copy(certificates.path(from), credentials.path().join(loaded))?;
    }
    let mut command = Program::Agent.command()?;
    let settings = unit.lines().filter_map(|line| line.strip_prefix("Environment=")).flat_map(str::split_whitespace);
    for setting in settings {
        let (name, value) = setting.split_once('=').context("a variable has a value")?;
        let value = value.replace("%d", &credentials.path().display().to_string()).replace(":7700", ":0");
        command.env(name, value);
    }
    let mut agent = Process::spawn(command)?;
    agent.wait_for_line("plimsoll-agent listens on 0.0.0.0:")?;
    agent.signal(libc::SIGTERM)?;
    let ended = agent.wait(Duration::from_secs(20))?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(unit.contains("RestartPreventExitStatus=2\n"));
    let wrong = Program::Agent.run(["--listen", "0.0.0.0:0"])?;
    assert_eq!(wrong.code, Some(2), "what stays wrong is not started again: {wrong:?}");
    Ok(())
}
