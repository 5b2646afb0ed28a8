//! The agent's unit: systemd takes it, finds little to say against it, and the agent takes what it is given by it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plimsoll_tests::harness::certificates::Certificates;
use plimsoll_tests::harness::processes::{Process, Program};
use plimsoll_tests::harness::prove;

use super::in_checkout;

/// Runs systemd's own reader on the unit as it is installed; `None` where there is no systemd.
fn analyze(arguments: &[&str], unit: &Path) -> anyhow::Result<Option<(bool, String)>> {
    let Ok(ended) = Command::new("systemd-analyze").args(arguments).arg(unit).output() else {
        ensure!(!prove::whole(), "no systemd-analyze is here: install systemd");
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
        let loaded = "/run/credentials/plimsoll-agent.service";
        let value = value.replace(loaded, &credentials.path().display().to_string()).replace(":7700", ":0");
        command.env(name, value);
    }
    let mut agent = Process::spawn(command)?;
    agent.wait_for_line("plimsoll-agent listens on 0.0.0.0:")?;
    agent.signal(libc::SIGTERM)?;
    let ended = agent.wait(Duration::from_secs(20))?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    Ok(())
}

#[test]
fn what_stays_wrong_is_not_started_again_and_what_may_pass_is() -> anyhow::Result<()> {
    let unit = std::fs::read_to_string(in_checkout("deploy/systemd/plimsoll-agent.service"))?;
    for line in ["Restart=on-failure", "RestartPreventExitStatus=2 243", "StartLimitIntervalSec=0"] {
        assert!(unit.lines().any(|own| own == line), "{line}");
    }
    // What systemd itself ends with where a file of LoadCredential= is missing.
    assert!(unit.contains("\nLoadCredential="), "{unit}");
    match Command::new("systemd-analyze").args(["exit-status", "CREDENTIALS"]).output() {
        Ok(ended) => {
            let words = String::from_utf8_lossy(&ended.stdout).into_owned();
            assert!(words.split_whitespace().any(|word| word == "243"), "{words}");
        }
        Err(error) if prove::whole() => return Err(error).context("systemd-analyze"),
        Err(error) => eprintln!("systemd's own exit codes are not looked at: {error}"),
    }
    let guide = std::fs::read_to_string(in_checkout("docs/operator-guide.md"))?;
    assert!(guide.contains("(2), or whose certificates are not there (243)"), "the guide says so too");
    let ends_with = |arguments: &[&str], code: i32| -> anyhow::Result<()> {
        let ended = Program::Agent.run(arguments)?;
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        Ok(())
    };
    ends_with(&["--listen", "0.0.0.0:0"], 2)?;
    ends_with(&["--listen", "127.0.0.1:0", "--max-connections", "1", "--workers", "2"], 2)?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    ends_with(&["--listen", &taken], 3)?;
    ends_with(&["--listen", "127.0.0.1:0", "--metrics-listen", &taken], 3)
}

#[test]
fn the_unit_takes_the_systemd_that_the_guide_names() -> anyhow::Result<()> {
    let unit = std::fs::read_to_string(in_checkout("deploy/systemd/plimsoll-agent.service"))?;
    let settings: Vec<&str> = unit.lines().filter(|line| !line.starts_with('#') && line.contains('=')).collect();
    // %d and %y are of 251, and what is here of 247 or older; what came later would need a newer one said.
    assert!(settings.iter().all(|line| !line.contains('%')), "{settings:?}");
    for newer in [
        "ImportCredential",
        "LoadCredentialEncrypted",
        "RestartSteps",
        "PrivatePIDs",
        "MemoryZSwapMax",
        "StartupAllowedCPUs",
    ] {
        assert!(settings.iter().all(|line| !line.starts_with(newer)), "{newer}");
    }
    let guide = std::fs::read_to_string(in_checkout("docs/operator-guide.md"))?;
    assert!(unit.contains("\nLoadCredential=") && guide.contains("systemd 247 or\n"), "it is said");
    Ok(())
}

#[test]
fn the_guide_keeps_the_agents_ports_from_connections() -> anyhow::Result<()> {
    let guide = std::fs::read_to_string(in_checkout("docs/operator-guide.md"))?;
    let kept = guide.lines().find(|line| line.contains("/etc/sysctl.d/")).context("a line for sysctl.d")?;
    for setting in ["net.ipv4.ip_local_port_range = 1024 65535", "net.ipv4.ip_local_reserved_ports = 7700,9700"] {
        assert!(kept.contains(setting), "{kept}");
    }
    Ok(())
}
