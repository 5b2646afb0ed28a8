//! deploy/Dockerfile: its stages fit each other, and what they make runs as an unprivileged user on a read-only root. The build
//! itself, from the files that the image gets to see, is in the long form.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plimsoll_tests::harness::processes::Process;
use plimsoll_tests::harness::prove;

use super::container::{Image, USER, Volume, give};
use super::in_checkout;
use super::install::output;

const LIMIT: Duration = Duration::from_secs(20);

/// A stage of the Dockerfile.
#[derive(Debug, Default)]
struct Stage {
    from: String,
    name: String,
    /// Instructions and what follows them, continued lines joined.
    instructions: Vec<(String, String)>,
}

impl Stage {
    /// What follows the last of these.
    fn last(&self, instruction: &str) -> Option<&str> {
        let mut found = self.instructions.iter().filter(|(name, _)| name == instruction);
        found.next_back().map(|(_, rest)| rest.as_str())
    }
}

fn stages() -> anyhow::Result<Vec<Stage>> {
    let text = std::fs::read_to_string(in_checkout("deploy/Dockerfile"))?;
    let lines: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let mut stages: Vec<Stage> = Vec::new();
    for line in lines.replace("\\\n", " ").lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (instruction, rest) = line.split_once(' ').with_context(|| format!("no instruction: {line}"))?;
        match (instruction, stages.last_mut()) {
            ("FROM", _) => {
                let (from, name) = rest.split_once(" AS ").unwrap_or((rest, ""));
                stages.push(Stage { from: from.to_owned(), name: name.to_owned(), ..Stage::default() });
            }
            ("ARG", None) => {}
            (_, Some(stage)) => stage.instructions.push((instruction.to_owned(), rest.trim().to_owned())),
            (_, None) => anyhow::bail!("before the first stage: {line}"),
        }
    }
    Ok(stages)
}

fn stage<'a>(stages: &'a [Stage], name: &str) -> anyhow::Result<&'a Stage> {
    stages.iter().find(|stage| stage.name == name).with_context(|| format!("no stage {name}"))
}

/// The arguments of an instruction in its form without a shell, of which the image has none.
fn exec_form(text: &str) -> anyhow::Result<Vec<String>> {
    let list = &text[text.find('[').with_context(|| format!("takes a shell: {text}"))?..];
    Ok(serde_json::from_str(list)?)
}

#[test]
fn stages_take_from_stages_that_there_are_and_the_last_is_the_runtime() -> anyhow::Result<()> {
    let stages = stages()?;
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for stage in &stages {
        let is_ours = known.contains(stage.from.as_str());
        assert!(is_ours || stage.from.contains(['/', ':']), "{} is from {}", stage.name, stage.from);
        for (_, copied) in stage.instructions.iter().filter(|(name, _)| name == "COPY") {
            if let Some(from) = copied.strip_prefix("--from=").and_then(|rest| rest.split(' ').next()) {
                assert!(known.contains(from), "{} copies from {from}", stage.name);
            }
        }
        known.insert(&stage.name);
    }
    let last = stages.last().context("a stage")?;
    assert_eq!((last.from.as_str(), last.instructions.len()), ("runtime", 0));
    let runtime = stage(&stages, "runtime")?;
    assert_eq!(runtime.last("USER"), Some(format!("{USER}:{USER}").as_str()));
    assert!(
        stage(&stages, "build")?.last("RUN").is_some_and(|run| run.contains(" --locked ")),
        "as the lock file says"
    );
    let toolchain = std::fs::read_to_string(in_checkout("Cargo.toml"))?;
    let dockerfile = std::fs::read_to_string(in_checkout("deploy/Dockerfile"))?;
    let version = dockerfile.lines().find_map(|line| line.strip_prefix("ARG RUST=")).context("a version of Rust")?;
    assert!(toolchain.contains(&format!("rust-version = \"{version}\"")), "{version}");
    Ok(())
}

#[test]
fn the_image_serves_and_is_found_healthy_as_nobody_on_a_read_only_root() -> anyhow::Result<()> {
    let stages = stages()?;
    let runtime = stage(&stages, "runtime")?;
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let words = |instruction: &str| -> anyhow::Result<Vec<String>> {
        let words = exec_form(runtime.last(instruction).with_context(|| format!("no {instruction}"))?)?;
        Ok(words.into_iter().map(|word| word.replace("127.0.0.1:9700", &free)).collect())
    };
    let (serve, check) = (words("CMD")?, words("HEALTHCHECK")?);
    let image = Image::assemble()?;
    let ended =
        |arguments: &[String], volumes: &[Volume]| Process::spawn(image.command(arguments, volumes)?)?.wait(LIMIT);
    let serve = [&serve[..], &["--listen".to_owned(), "127.0.0.1:0".to_owned()]].concat();
    let mut agent = Process::spawn(image.command(&serve, &[])?)?;
    agent.wait_for_line("plimsoll-agent listens on 127.0.0.1:")?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let of =
        |field: &str| status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default().trim().to_owned();
    assert!(of("Uid:").split_whitespace().all(|uid| uid == USER.to_string()), "{status}");
    assert_eq!(of("CapEff:"), "0000000000000000");
    let healthy = ended(&check, &[])?;
    assert_eq!(healthy.code, Some(0), "{healthy:?}");
    agent.signal(libc::SIGTERM)?;
    assert_eq!(agent.wait(LIMIT)?.code, Some(0));
    assert_eq!(ended(&check, &[])?.code, Some(1), "an agent that has ended is not healthy");

    let plimsoll = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let certs = plimsoll(&["plimsoll", "certs", "--dir", "/certs/fleet", "--agent", "box-1"]);
    let refused = ended(&certs, &[])?;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    let dir = tempfile::tempdir()?;
    give(dir.path())?;
    let volume = Volume { from: dir.path().to_owned(), at: "/certs".to_owned(), read_only: false };
    assert_eq!(ended(&certs, &[volume])?.code, Some(0), "a volume can be written to");
    assert!(dir.path().join("fleet/box-1.key").exists());
    let dry = ended(&plimsoll(&["plimsoll", "max-rps", "--preset", "small", "--dry-run"]), &[])?;
    assert_eq!((dry.code, dry.stderr.as_str()), (Some(0), ""), "{dry:?}");
    Ok(())
}

/// Where the long form keeps what it built, so that it is quick a second time.
fn kept() -> anyhow::Result<std::path::PathBuf> {
    Ok(plimsoll_tests::harness::processes::target_dir()?.join("image"))
}

#[test]
fn what_the_image_is_built_from_builds() -> anyhow::Result<()> {
    let ignore = std::fs::read_to_string(in_checkout("deploy/Dockerfile.dockerignore"))?;
    let seen: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.starts_with("*\n"), "nothing but what is named");
    for path in &seen {
        assert!(in_checkout(path).exists(), "{path}");
    }
    if !prove::whole() {
        return Ok(());
    }
    let (context, out) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let tracked = output(Command::new("git").args(["ls-files", "-z", "--"]).args(&seen).current_dir(in_checkout("")))?;
    for path in tracked.split('\0').filter(|path| !path.is_empty()) {
        let to = context.path().join(path);
        std::fs::create_dir_all(to.parent().context("a file lies somewhere")?)?;
        std::fs::copy(in_checkout(path), to)?;
    }
    for name in ["build", "build-standin"] {
        build(stage(&stages()?, name)?, context.path(), out.path())?;
    }
    for program in ["plimsoll", "plimsoll-agent", "plimsoll-standin"] {
        assert!(out.path().join("usr/local/bin").join(program).exists(), "{program}");
    }
    Ok(())
}

/// Runs what a stage runs, in its directory.
fn build(stage: &Stage, context: &Path, out: &Path) -> anyhow::Result<()> {
    let run = stage.last("RUN").context("it runs nothing")?;
    let words = run.split_whitespace().skip_while(|word| word.starts_with("--mount="));
    let target = kept()?;
    let script = words.collect::<Vec<_>>().join(" ");
    let script = script
        .replace("/out", &out.display().to_string())
        .replace("target/release", &format!("{}/release", target.display()));
    let ended = Command::new("sh")
        .args(["-ec", &script])
        .current_dir(context)
        .env("CARGO_TARGET_DIR", &target)
        .env("BINARIES", target.join("release"))
        .status()?;
    ensure!(ended.success(), "{script} ended with {ended}");
    Ok(())
}
