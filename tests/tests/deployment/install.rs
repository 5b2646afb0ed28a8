//! `make install` puts programs, completions, manual pages and the unit where a system looks for them, and they work there.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use plimsoll_tests::harness::processes::Program;

use super::in_checkout;

/// Runs a command to its end, which has to be a good one.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let ended = command.output().with_context(|| format!("starting {command:?}"))?;
    let words = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{command:?} ended with {}: {words}", ended.status);
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// Where the programs under test lie.
pub fn binaries() -> anyhow::Result<PathBuf> {
    let program = Program::Cli.command()?.get_program().to_owned();
    let dir = Path::new(&program).parent().context("a program without a directory")?;
    dir.canonicalize().with_context(|| dir.display().to_string())
}

/// Installs them, as `make install` does after its build.
pub fn install(to: &Path, prefix: &str) -> anyhow::Result<()> {
    let mut install = Command::new(in_checkout("deploy/install.sh"));
    output(install.env("DESTDIR", to).env("PREFIX", prefix).env("BINARIES", binaries()?)).map(drop)
}

#[test]
fn what_is_installed_lies_where_a_system_looks_for_it() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    install(dir.path(), "/opt/plimsoll")?;
    let at = |path: &str| dir.path().join("opt/plimsoll").join(path);
    for program in ["plimsoll", "plimsoll-agent"] {
        let path = at(&format!("bin/{program}"));
        assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o755);
        assert!(output(Command::new(&path).arg("--version"))?.starts_with(program));
        for file in [
            format!("share/bash-completion/completions/{program}"),
            format!("share/zsh/site-functions/_{program}"),
            format!("share/fish/vendor_completions.d/{program}.fish"),
        ] {
            assert!(std::fs::read_to_string(at(&file))?.contains(program), "{file}");
        }
    }
    let unit = std::fs::read_to_string(at("lib/systemd/system/plimsoll-agent.service"))?;
    assert!(unit.contains("ExecStart=/opt/plimsoll/bin/plimsoll-agent\n"), "{unit}");

    let mut pages: Vec<String> = std::fs::read_dir(at("share/man/man1"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<anyhow::Result<_>>()?;
    pages.sort();
    for page in ["plimsoll.1", "plimsoll-max-rps.1", "plimsoll-kube.1", "plimsoll-agent.1", "plimsoll-agent-health.1"] {
        assert!(pages.iter().any(|name| name == page), "{page} of {pages:?}");
    }
    let text = std::fs::read_to_string(at("share/man/man1/plimsoll-max-rps.1"))?;
    assert!(text.contains("\\-\\-slo\\-p95") && text.contains("PLIMSOLL_SLO_P95"), "every flag with its variable");
    Ok(())
}

#[test]
fn installing_builds_nothing_and_says_what_is_missing() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut make = Command::new("make");
    make.args(["--silent", "install", "CARGO=false", "PREFIX=/usr"]).current_dir(in_checkout(""));
    make.env("DESTDIR", dir.path()).env("BINARIES", dir.path().join("nowhere"));
    let ended = make.output()?;
    let words = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && words.contains("nowhere/plimsoll is not there: make build, as "), "{words}");
    output(make.env("BINARIES", binaries()?))?;
    assert!(dir.path().join("usr/bin/plimsoll").exists());
    Ok(())
}

#[test]
fn a_shell_completes_what_was_begun() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    install(dir.path(), "/usr")?;
    let complete = |program: &str, words: &[&str]| {
        let file = dir.path().join("usr/share/bash-completion/completions").join(program);
        // As the shell does: by the function that was registered for the program.
        let script = format!(
            "source {}; by=$(complete -p {program} | sed 's/.* -F \\([^ ]*\\) .*/\\1/'); \
             COMP_WORDS=({program} {}); COMP_CWORD={}; $by {program} '{}' ''; echo \"${{COMPREPLY[@]}}\"",
            file.display(),
            words.join(" "),
            words.len(),
            words.last().copied().unwrap_or_default(),
        );
        output(Command::new("bash").args(["--norc", "-c", &script]))
    };
    assert_eq!(complete("plimsoll", &["max-rps", "--slo-p9"])?.trim(), "--slo-p95 --slo-p99");
    assert_eq!(complete("plimsoll", &["cal"])?.trim(), "calibrate");
    assert_eq!(complete("plimsoll-agent", &["--exit-a"])?.trim(), "--exit-after-run");
    Ok(())
}

#[test]
fn what_cannot_be_written_says_so() -> anyhow::Result<()> {
    for program in [Program::Cli, Program::Agent] {
        let ended = program.run(["man", "--dir", "/proc/none"])?;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let words = "error: --dir: got '/proc/none', expected a directory that can be written: ";
        assert!(ended.stderr.starts_with(words), "{ended:?}");
        assert_eq!(program.run(["completions", "cmd.exe"])?.code, Some(2));
    }
    Ok(())
}
