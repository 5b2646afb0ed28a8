//! The commands of README, the operator guide and the other pages: those that run on one machine are run, and the programs take all
//! others. The tests that they name as proofs are there.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plimsoll::settings;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::processes::{Ended, Process, Program};

use super::in_checkout;
use super::install::binaries;

const LIMIT: Duration = Duration::from_secs(90);

/// A fenced block of a page: what stands behind its fence, and its lines.
pub struct Block {
    kind: String,
    pub text: String,
}

/// The fenced blocks of a page, without the indentation of a list.
pub fn blocks(page: &str) -> anyhow::Result<Vec<Block>> {
    let text = std::fs::read_to_string(in_checkout(page))?;
    let (mut blocks, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for line in text.lines() {
        match (line.trim().strip_prefix("```"), &mut open) {
            (Some(kind), None) => open = Some(Block { kind: kind.to_owned(), text: String::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text.extend([line.trim_start(), "\n"]),
            (None, None) => {}
        }
    }
    ensure!(open.is_none(), "a block of {page} has no end");
    Ok(blocks)
}

/// Runs a block in a host of its own, whose ports are all free, with the programs and nats-server at hand.
fn run(block: &Block, dir: &Path) -> anyhow::Result<Ended> {
    let nats = std::env::var("PLIMSOLL_NATS_SERVER").map(std::path::PathBuf::from);
    let tools =
        nats.ok().and_then(|nats| nats.parent().map(Path::to_owned)).unwrap_or_else(|| in_checkout(".tools/bin"));
    let path = format!("{}:{}:{}", binaries()?.display(), tools.display(), std::env::var("PATH").unwrap_or_default());
    // What a block leaves running ends with it: it is the first process of its own namespace.
    let script = format!("ip link set lo up\n{}", block.text);
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "bash",
        "-euo",
        "pipefail",
        "-c",
        &script,
    ]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PLIMSOLL_") {
            command.env_remove(name);
        }
    }
    command.env("PATH", path).current_dir(dir);
    Process::spawn(command)?.wait(LIMIT)
}

/// The blocks of a page that run here.
fn runnable(page: &str) -> anyhow::Result<Vec<Block>> {
    Ok(blocks(page)?.into_iter().filter(|block| block.kind == "sh run").collect())
}

#[test]
fn blocks_of_the_readme_that_run_here_do() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let dir = tempfile::tempdir()?;
    let blocks = runnable("README.md")?;
    let [block] = &blocks[..] else { anyhow::bail!("{} blocks", blocks.len()) };
    let ended = run(block, dir.path())?;
    ensure!(ended.code == Some(0), "{}\n{ended:?}", block.text);
    assert_eq!(ended.stdout.matches("ANSWER: PASS at 300/s").count(), 3, "of both, and of the report: {ended:?}");
    assert!(ended.stdout.contains("\n| target/s "), "the report is Markdown: {ended:?}");
    Ok(())
}

#[test]
fn blocks_of_the_guide_that_run_here_do() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let dir = tempfile::tempdir()?;
    let mut answers = 0;
    let blocks = runnable("docs/operator-guide.md")?;
    assert!(blocks.len() >= 4, "{}", blocks.len());
    for block in &blocks {
        let ended = run(block, dir.path())?;
        ensure!(ended.code == Some(0), "{}\n{ended:?}", block.text);
        if ended.stdout.contains("ANSWER: ") {
            ensure!(ended.stdout.contains("\nANSWER: max RPS = 500 "), "as the guide says: {ended:?}");
            answers += 1;
        }
    }
    assert_eq!(answers, 1, "the laptop's run has an answer");
    assert!(dir.path().join("certs/box-2.key").exists());
    let rendered = std::fs::read_to_string(dir.path().join("run.yaml"))?;
    assert!(super::objects::Objects::parse(&rendered)?.jobs.contains_key("plimsoll-agents"));
    Ok(())
}

/// Command lines of our programs in a page: those of fenced and indented blocks, and of code within a line or a table.
fn command_lines(page: &str) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(in_checkout(page))?.replace("\\\n", " ");
    let is_ours = |line: &&str| ["plimsoll ", "plimsoll-agent "].iter().any(|program| line.starts_with(program));
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        let in_line = line.split('`').skip(1).step_by(2).filter(|code| code.contains(" --"));
        found.extend(std::iter::once(line.trim()).chain(in_line).filter(is_ours).map(str::to_owned));
    }
    Ok(found)
}

/// Pages with command lines of ours.
const PAGES: [&str; 7] = [
    "README.md",
    "docs/operator-guide.md",
    "docs/fleet.md",
    "docs/security.md",
    "docs/seeding.md",
    "docs/daily.md",
    "docs/custom-workloads.md",
];

/// Without what a shell takes from it.
fn words(line: &str) -> Vec<String> {
    let line = [" #", " > ", " || "].iter().fold(line, |line, end| line.split(end).next().unwrap_or_default());
    line.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect()
}

#[test]
fn the_programs_take_every_command_line_of_the_pages() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    set_up(dir.path())?;
    let mut seen = 0;
    for page in PAGES {
        for line in command_lines(page)? {
            // Prose names commands with something left out, or with a word that stands for one.
            let stands_for_one = |word: &String| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase());
            if line.contains('…') || words(&line).iter().any(stands_for_one) {
                continue;
            }
            is_taken(&words(&line), dir.path()).with_context(|| format!("{page}: {line}"))?;
            seen += 1;
        }
    }
    assert!(seen >= 38, "{seen} command lines");
    Ok(())
}

/// All Markdown of the checkout and of its `docs`.
fn pages() -> anyhow::Result<Vec<String>> {
    let mut pages = Vec::new();
    for dir in ["", "docs/"] {
        for file in std::fs::read_dir(in_checkout(dir))? {
            let name = file?.file_name().to_string_lossy().into_owned();
            pages.extend(name.ends_with(".md").then(|| format!("{dir}{name}")));
        }
    }
    Ok(pages)
}

/// Names of tests in a page: code of four words or more with underscores between them, as no setting, metric or column is called.
fn cited(text: &str) -> Vec<&str> {
    let is_of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':';
    let code = text.split('`').skip(1).step_by(2).filter(|code| code.chars().all(is_of_a_name));
    let names = code.map(|path| path.rsplit("::").next().unwrap_or(path));
    names.filter(|name| name.matches('_').count() >= 3).collect()
}

/// What of these a source declares, each behind the keyword.
fn declared(keyword: &str, dir: &Path, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            declared(keyword, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let names = text.split(keyword).skip(1).filter_map(|rest| rest.split(['(', ';', ' ', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
    Ok(())
}

#[test]
fn tests_and_their_modules_that_the_pages_name_are_there() -> anyhow::Result<()> {
    let (mut functions, mut modules) = (BTreeSet::new(), BTreeSet::new());
    for sources in ["proto", "common", "agent", "coordinator", "tests"] {
        declared("fn ", &in_checkout(sources), &mut functions)?;
    }
    declared("mod ", &in_checkout("tests/tests"), &mut modules)?;
    let (mut seen, mut gone) = (0, Vec::new());
    for page in pages()? {
        let text = std::fs::read_to_string(in_checkout(&page))?;
        let names = cited(&text);
        seen += names.len();
        let unknown = names.into_iter().filter(|name| !functions.contains(*name));
        let filters = text.split("PROOFS=").skip(1).filter_map(|rest| rest.split([' ', '`', '\n', ';']).next());
        let parts = filters.flat_map(|filter| filter.split("::")).filter(|part| !part.is_empty());
        gone.extend(unknown.chain(parts.filter(|part| !modules.contains(*part))).map(|name| format!("{page}: {name}")));
    }
    assert_eq!(gone, Vec::<String>::new());
    assert!(seen >= 60, "{seen} names");
    assert_eq!(cited("`a_b_c_d` a_b_c_e `x::a_b_c_f` `a_b_c` `A_b_c_d`"), ["a_b_c_d", "a_b_c_f"]);
    Ok(())
}

/// The files that the pages' commands name.
fn set_up(dir: &Path) -> anyhow::Result<()> {
    let certs = dir.join("certs").display().to_string();
    let made = Program::Cli.run(["certs", "--dir", &certs, "--agent", "box-1", "--agent", "box-2"])?;
    ensure!(made.code == Some(0), "{made:?}");
    for file in ["box-1.pem", "box-1.key", "ca.pem"] {
        std::fs::copy(dir.join("certs").join(file), dir.join(file))?;
    }
    std::fs::create_dir_all(dir.join("docs/examples"))?;
    for example in std::fs::read_dir(in_checkout("docs/examples"))? {
        let example = example?;
        std::fs::copy(example.path(), dir.join("docs/examples").join(example.file_name()))?;
    }
    std::fs::write(dir.join("fleet.txt"), "box-1:7700\n")?;
    std::fs::write(dir.join("backend.creds"), "credentials of a test\n")?;
    let ceilings = "workload = \"messages\"\n\n[ceilings]\n\"box-1:7700\" = \"1000\"\n";
    std::fs::write(dir.join("ceilings.toml"), ceilings).context("ceilings")
}

fn is_taken(words: &[String], dir: &Path) -> anyhow::Result<()> {
    let (program, arguments) = words.split_first().context("no words")?;
    if program == "plimsoll-agent" {
        return agent_starts(arguments, dir);
    }
    let name = arguments.first().map(String::as_str).unwrap_or_default();
    let parsed = settings::command_line::command().try_get_matches_from(words);
    match parsed {
        Err(error) if error.use_stderr() => anyhow::bail!("{error}"),
        _ => {}
    }
    if name == "teardown" {
        // It would ask the databases what there is to remove.
        let read = settings::read(words.iter().map(Into::into), &|_| None);
        return read.map(drop).map_err(|error| anyhow::anyhow!("{error}"));
    }
    // What would talk to somebody, or read what a run left, is parsed alone.
    let more: &[&str] = match name {
        "max-rps" | "run" | "daily" | "seed" | "verify" if !arguments.iter().any(|a| a == "--dry-run") => {
            &["--dry-run"]
        }
        "max-rps" | "run" | "daily" | "certs" => &[],
        // Rendering reads what stands behind `--` as well, and makes nothing.
        "kube" => &[],
        _ => return Ok(()),
    };
    let mut command = Program::Cli.command()?;
    command.args(arguments.iter().filter(|word| name != "kube" || *word != "--apply")).args(more).current_dir(dir);
    if name == "certs" {
        command.arg("--force");
    }
    let ended = Process::spawn(command)?.wait(LIMIT)?;
    ensure!(ended.code == Some(0), "{ended:?}");
    Ok(())
}

/// As it is written, but on a free port.
fn agent_starts(arguments: &[String], dir: &Path) -> anyhow::Result<()> {
    let free = |word: &String| word.replace(":7700", ":0").replace(":9700", ":0");
    let mut command = Program::Agent.command()?;
    command.args(arguments.iter().map(free)).current_dir(dir);
    if !arguments.iter().any(|word| word == "--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    let mut agent = Process::spawn(command)?;
    agent.wait_for_line("plimsoll-agent listens on ")?;
    agent.signal(libc::SIGTERM)?;
    let ended = agent.wait(LIMIT)?;
    ensure!(ended.code == Some(0), "{ended:?}");
    Ok(())
}
