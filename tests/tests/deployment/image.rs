//! deploy/Dockerfile: its stages fit each other, do what they do from the files that the image gets to see, and what they make runs as
//! an unprivileged user on a read-only root. The compiler itself is run in the long form.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plimsoll_tests::harness::ports::free_port;
use plimsoll_tests::harness::processes::Process;
use plimsoll_tests::harness::prove;

use super::container::{Image, USER, Volume, give};
use super::in_checkout;
use super::install::{binaries, output};

/// What the image adds to its base at most, with a quarter to spare.
const MOST_BYTES: u64 = 70_000_000;
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

/// The stages that one is from, the nearest last.
fn stage_of(name: &str) -> anyhow::Result<Vec<Stage>> {
    let mut found = Vec::new();
    let mut name = name.to_owned();
    while let Some(stage) = stages()?.into_iter().find(|stage| stage.name == name) {
        name.clone_from(&stage.from);
        found.insert(0, stage);
    }
    Ok(found)
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
    let free = format!("127.0.0.1:{}", free_port()?);
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

/// Paths that Dockerfile.dockerignore lets the build see.
fn seen() -> anyhow::Result<Vec<String>> {
    let ignore = std::fs::read_to_string(in_checkout("deploy/Dockerfile.dockerignore"))?;
    ensure!(ignore.starts_with("*\n"), "nothing but what is named");
    Ok(ignore.lines().filter_map(|line| line.strip_prefix('!')).map(str::to_owned).collect())
}

/// With files that are new, without what is made.
const LISTED: [&str; 4] = ["ls-files", "--cached", "--others", "--exclude-standard"];

/// The files of the checkout that the build gets to see, in a directory of their own.
fn context(seen: &[String]) -> anyhow::Result<tempfile::TempDir> {
    let context = tempfile::tempdir()?;
    let tracked = output(Command::new("git").args(LISTED).args(["-z", "--"]).args(seen).current_dir(in_checkout("")))?;
    for path in tracked.split('\0').filter(|path| !path.is_empty()) {
        let to = context.path().join(path);
        std::fs::create_dir_all(to.parent().context("a file lies somewhere")?)?;
        std::fs::copy(in_checkout(path), to)?;
    }
    Ok(context)
}

/// Runs what both stages run, with this cargo before others where there is one, and returns what they make.
fn build_all(context: &Path, cargo: Option<&Path>) -> anyhow::Result<tempfile::TempDir> {
    let out = tempfile::tempdir()?;
    for name in ["build", "build-standin"] {
        build(stage(&stages()?, name)?, context, out.path(), cargo)?;
    }
    for program in ["plimsoll", "plimsoll-agent", "plimsoll-standin"] {
        ensure!(out.path().join("usr/local/bin").join(program).exists(), "{program}");
    }
    Ok(out)
}

#[test]
fn what_the_image_is_built_from_is_all_there_and_becomes_its_files() -> anyhow::Result<()> {
    let seen = seen()?;
    for path in &seen {
        assert!(in_checkout(path).exists(), "{path}");
    }
    // Nothing of the checkout is copied by its name, so that what is seen is all that there is.
    for stage in stages()? {
        for (_, copied) in stage.instructions.iter().filter(|(name, _)| name == "COPY") {
            assert!(copied == ". ." || copied.starts_with("--from="), "{copied} is not looked for in the ignore list");
        }
    }
    let built = Built::new()?;
    let out = built.with(&seen)?;
    for made in ["certs", "results", "usr/local/share/man/man1/plimsoll.1", "usr/local/lib/systemd/system"] {
        assert!(out.path().join(made).exists(), "{made}");
    }
    // Each that a build cannot do without is missed.
    for needed in ["Cargo.lock", "Cargo.toml", "agent", "common", "coordinator", "deploy", "proto", "tests"] {
        let without: Vec<String> = seen.iter().filter(|path| *path != needed).cloned().collect();
        assert_eq!(without.len() + 1, seen.len(), "{needed}");
        assert!(built.with(&without).is_err(), "it is built without {needed}");
    }
    Ok(())
}

/// A cargo that has compiled already: it checks the workspace that it finds, and that every file is there that the programs under test
/// were compiled from, and puts them where a build would.
struct Built {
    dir: tempfile::TempDir,
}

const CARGO: &str = r#"#!/bin/sh
set -e
case "$*" in "build --release --locked "*) ;; *) echo "not as the lock file says: $*" >&2; exit 1 ;; esac
test "$CARGO_PROFILE_RELEASE_STRIP" = symbols || { echo "with symbols, of which nobody in a container makes anything" >&2; exit 1; }
test -f Cargo.lock
@CARGO@ metadata --no-deps --offline --format-version 1 >/dev/null
for program in plimsoll plimsoll-agent plimsoll-standin; do
    while read -r file; do
        test -e "$file" || { echo "$program is compiled from $file, which is not there" >&2; exit 1; }
    done <"@DIR@/$program.files"
done
mkdir -p target/release
case "$*" in
*" -p plimsoll-tests "*) cp @BINARIES@/plimsoll-standin target/release ;;
*) cp @BINARIES@/plimsoll @BINARIES@/plimsoll-agent target/release ;;
esac
"#;

impl Built {
    fn new() -> anyhow::Result<Self> {
        let (dir, binaries) = (tempfile::tempdir()?, binaries()?);
        let checkout = in_checkout("").canonicalize()?;
        for program in ["plimsoll", "plimsoll-agent", "plimsoll-standin"] {
            // What cargo leaves beside a program, for make.
            let from = binaries.join(program).with_extension("d");
            let files = match std::fs::read_to_string(&from) {
                Ok(text) => compiled_from(&text, &checkout),
                Err(error) => {
                    eprintln!("what {program} was compiled from is not looked at: {}: {error}", from.display());
                    Vec::new()
                }
            };
            let lines: String = files.iter().map(|file| format!("{file}\n")).collect();
            std::fs::write(dir.path().join(format!("{program}.files")), lines)?;
        }
        let script = CARGO
            .replace("@CARGO@", env!("CARGO"))
            .replace("@DIR@", &dir.path().display().to_string())
            .replace("@BINARIES@", &binaries.display().to_string());
        let cargo = dir.path().join("cargo");
        std::fs::write(&cargo, script)?;
        std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir })
    }

    /// Does what the stages do with these paths.
    fn with(&self, seen: &[String]) -> anyhow::Result<tempfile::TempDir> {
        let context = context(seen)?;
        build_all(context.path(), Some(self.dir.path()))
    }
}

/// Of what stands behind the colon, files of this checkout, by their paths in it.
fn compiled_from(text: &str, checkout: &Path) -> Vec<String> {
    let beginning = format!("{}/", checkout.display());
    let words = text.split_whitespace().skip(1);
    let files = words.filter_map(|word| word.strip_prefix(&beginning));
    // What build scripts make is made again.
    files.filter(|file| !file.starts_with("target/")).map(str::to_owned).collect()
}

#[test]
fn what_the_image_is_built_from_builds() -> anyhow::Result<()> {
    if !prove::whole() {
        eprintln!("the image's stages are not compiled here: `make prove` does");
        return Ok(());
    }
    let context = context(&seen()?)?;
    let out = build_all(context.path(), None)?;
    let size = |program: &str| Ok(std::fs::metadata(out.path().join("usr/local/bin").join(program))?.len());
    let sizes = [size("plimsoll"), size("plimsoll-agent")].into_iter().collect::<anyhow::Result<Vec<u64>>>()?;
    ensure!(sizes.iter().sum::<u64>() < MOST_BYTES, "{sizes:?}");
    Ok(())
}

/// Runs what a stage runs, in its directory: with nothing of an earlier build, but for that of the stages before it, as in the
/// mounted cache.
fn build(stage: &Stage, context: &Path, out: &Path, cargo: Option<&Path>) -> anyhow::Result<()> {
    let run = stage.last("RUN").context("it runs nothing")?;
    let words = run.split_whitespace().skip_while(|word| word.starts_with("--mount="));
    let script = words.collect::<Vec<_>>().join(" ").replace("/out", &out.display().to_string());
    let path = std::env::var("PATH").unwrap_or_default();
    let from = stage_of(&stage.from)?;
    let variables = from.iter().flat_map(|stage| &stage.instructions).filter(|(name, _)| name == "ENV");
    let variables = variables.map(|(_, rest)| rest.split_once('=').context("a variable"));
    let variables = variables.collect::<anyhow::Result<Vec<(&str, &str)>>>()?;
    let path = cargo.map_or(path.clone(), |cargo| format!("{}:{path}", cargo.display()));
    let ended = Command::new("sh")
        .args(["-ec", &script])
        .current_dir(context)
        .env("PATH", path)
        .envs(variables)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("BINARIES")
        .output()?;
    let words = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(ended.status.success(), "{script} ended with {}: {words}", ended.status);
    Ok(())
}
