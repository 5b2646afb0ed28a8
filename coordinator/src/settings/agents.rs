//! Where agents are: addresses, names that stand for several, and files of both. And the command that lists them.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches as _, Subcommand};
use plimsoll_agent::shell::files;
use plimsoll_agent::shell::tls::TlsFiles;
use plimsoll_common::plan::{MAX_AGENTS, redact_url};

use super::error::{SettingsError, got};
use super::layers::Environment;

/// Where one agent or several are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSource {
    /// One, at `host:port`.
    Host(String),
    /// One at each address of a name, which is looked up again before every step.
    Dns {
        /// The name.
        name: String,
        /// Of each.
        port: u16,
    },
}

impl fmt::Display for AgentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(address) => f.write_str(address),
            Self::Dns { name, port } => write!(f, "dns:{name}:{port}"),
        }
    }
}

/// What `--agents` takes.
pub const TAKES: &str = "addresses such as box-1:7700,box-2:7700, dns:NAME:PORT for all addresses of a name, or file:PATH (or \
                         @PATH) for a file with one of these per line";
/// What a line of such a file takes.
const LINE_TAKES: &str = "HOST:PORT or dns:NAME:PORT";
/// More text than this is no list of agents.
const MOST_FILE_BYTES: u64 = 1024 * 1024;

/// Reads `--agents`, files included.
///
/// # Errors
/// What is wrong and what fits, with the line of a file.
pub fn sources(text: &str) -> Result<Vec<AgentSource>, String> {
    let mut sources = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.strip_prefix("file:").or_else(|| part.strip_prefix('@')) {
            Some(path) => sources.extend(file(path)?),
            None => sources.push(source(part).ok_or_else(|| got(redact_url(part), TAKES))?),
        }
    }
    let mut seen = HashSet::new();
    if let Some(twice) = sources.iter().find(|source| !seen.insert(canonical(source))) {
        return Err(format!("{twice} is named twice: name each agent once"));
    }
    if sources.len() > MAX_AGENTS {
        return Err(format!("got {} agents, expected at most {MAX_AGENTS}", sources.len()));
    }
    Ok(sources)
}

/// The entries of a file: one per line, what follows a `#` is a comment.
fn file(path: &str) -> Result<Vec<AgentSource>, String> {
    let unreadable =
        |why: String| format!("got the file '{path}', expected the path of a file with {LINE_TAKES} per line: {why}");
    let text = files::read_text(path, MOST_FILE_BYTES).map_err(|error| unreadable(error.to_string()))?;
    let mut sources = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            let bad = || format!("{path}, line {}: {}", index + 1, got(redact_url(entry), LINE_TAKES));
            sources.push(source(entry).ok_or_else(bad)?);
        }
    }
    if sources.is_empty() {
        return Err(unreadable("it names no agent".to_owned()));
    }
    Ok(sources)
}

fn source(text: &str) -> Option<AgentSource> {
    let (address, is_dns) = text.strip_prefix("dns:").map_or((text, false), |rest| (rest, true));
    let (host, port) = address.rsplit_once(':')?;
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    let odd = host.is_empty() || bare_v6 || host.contains(|c: char| "/@".contains(c) || c.is_whitespace());
    let port: u16 = port.parse().ok().filter(|&port| port > 0 && !odd)?;
    // An address has no name to look up.
    let is_name = !host.starts_with('[') && host.parse::<IpAddr>().is_err();
    match is_dns {
        true => is_name.then(|| AgentSource::Dns { name: host.to_owned(), port }),
        false => Some(AgentSource::Host(address.to_owned())),
    }
}

/// Two spellings of one address are one address; names that only resolve alike are told apart by the agents themselves.
fn canonical(source: &AgentSource) -> String {
    let text = source.to_string().to_lowercase();
    let Some((host, port)) = text.rsplit_once(':') else { return text };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().map_or_else(|_| text.clone(), |address| format!("{address} {port}"))
}

#[derive(Debug, Subcommand)]
enum Listing {
    /// Lists the agents: whether each is ready, its version, cores, ceiling and clock, and who holds its lease
    #[command(after_help = EXAMPLES)]
    Agents(AgentsFlags),
}

const EXAMPLES: &str = "\
No lease is taken: agents that make load for somebody are listed too, and go on.

Exit codes: 0 every agent answered, 1 one did not, 2 usage or configuration, 3 standard output cannot be written,
130 interrupted.

Examples:
  plimsoll agents --agents box-1:7700,box-2:7700
  plimsoll agents --agents dns:load.example.com:7700
  plimsoll agents --agents @fleet.txt";

#[derive(Debug, Args)]
struct AgentsFlags {
    #[command(flatten)]
    reach: ReachFlags,
}

/// Flags of commands that talk to agents and make no run of them.
#[derive(Debug, Args)]
pub struct ReachFlags {
    /// The agents: addresses, dns:NAME:PORT, or @PATH for a file with one per line [env: PLIMSOLL_AGENTS]
    #[arg(long, value_name = "HOST:PORT,…")]
    agents: Option<String>,
    /// Connect to them over mutual TLS with this certificate (PEM) [env: PLIMSOLL_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM) [env: PLIMSOLL_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// The CA (PEM) that must have issued the agents' certificates [env: PLIMSOLL_TLS_CA]
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
}

/// Where agents are and how they are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Where they are.
    pub sources: Vec<AgentSource>,
    /// The certificates with which they are reached; `None`: in clear.
    pub tls: Option<TlsFiles>,
}

/// Adds the command to those of the program.
pub fn augment(command: clap::Command) -> clap::Command {
    Listing::augment_subcommands(command)
}

/// The command that was asked for, if it is this.
///
/// # Errors
/// Clap's, and where no agents are named, or not well.
pub fn parse(
    matches: &ArgMatches,
    environment: Environment,
) -> Option<Result<Result<Reach, SettingsError>, clap::Error>> {
    matches.subcommand_name().filter(|name| Listing::has_subcommand(name))?;
    Some(Listing::from_arg_matches(matches).map(|Listing::Agents(flags)| flags.reach.read(environment)))
}

impl ReachFlags {
    /// What they and the variables of the same names say.
    ///
    /// # Errors
    /// No agents are named, or not well, or there are some of the three files of TLS.
    pub fn read(self, environment: Environment) -> Result<Reach, SettingsError> {
        const VARIABLE: &str = "PLIMSOLL_AGENTS";
        let flag = self.agents.map(|text| (text, "--agents".to_owned()));
        let variable =
            || Some((environment(VARIABLE).filter(|text| !text.is_empty())?, format!("--agents (from {VARIABLE})")));
        let Some((text, place)) = flag.or_else(variable) else {
            return Err(SettingsError::Value {
                place: "--agents".to_owned(),
                problem: format!("it is missing: expected {TAKES} (or set {VARIABLE})"),
            });
        };
        let sources = sources(&text).map_err(|problem| SettingsError::Value { place, problem })?;
        let file = |flag: Option<PathBuf>, variable| {
            flag.or_else(|| environment(variable).filter(|text| !text.is_empty()).map(PathBuf::from))
        };
        let cert = file(self.tls_cert, "PLIMSOLL_TLS_CERT");
        let tls = TlsFiles::of(cert, file(self.tls_key, "PLIMSOLL_TLS_KEY"), file(self.tls_ca, "PLIMSOLL_TLS_CA"));
        let tls = tls.map_err(|missing| SettingsError::Value {
            place: missing.to_owned(),
            problem: "it is missing: TLS needs --tls-cert, --tls-key and --tls-ca together".to_owned(),
        })?;
        Ok(Reach { sources, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As they are shown again.
    fn check(text: &str) -> Result<String, String> {
        let shown = |sources: Vec<AgentSource>| sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        sources(text).map(shown)
    }

    #[test]
    fn agents_are_named_by_address_and_by_name() {
        assert_eq!(check("a:1, b:2").unwrap(), "a:1 b:2");
        assert_eq!(check("dns:load.example.com:7700,[::1]:7").unwrap(), "dns:load.example.com:7700 [::1]:7");
        for text in ["", "a", "a:0", ":1", "::1:7", "a b:1", "dns:1", "dns:127.0.0.1:7", "dns:[::1]:7", "a:1;b:2"] {
            assert_eq!(check(text), Err(format!("got '{text}', expected {TAKES}")), "{text}");
            assert_eq!(check(&format!("a:1,{text}")), Err(format!("got '{text}', expected {TAKES}")), "{text}");
        }
        assert_eq!(check("me:secret@a:1"), Err(format!("got '***@a:1', expected {TAKES}")));
        for text in ["a:1,A:1", "127.0.0.1:7,127.0.0.1:7", "[::1]:7,[0::1]:7", "dns:a:1,dns:a:1"] {
            assert!(check(text).unwrap_err().ends_with(" is named twice: name each agent once"), "{text}");
        }
        assert_eq!(check("a:1,dns:a:1").unwrap(), "a:1 dns:a:1");
    }

    #[test]
    fn a_file_names_one_per_line_and_errors_say_which() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.txt");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let shown = path.display();
        write("# the lab\nbox-1:7700\n\n  dns:lab:7700   # all of it\n");
        for text in [format!("@{shown}"), format!("file:{shown}")] {
            assert_eq!(check(&text).unwrap(), "box-1:7700 dns:lab:7700");
        }
        assert_eq!(check(&format!("c:1,@{shown}")).unwrap(), "c:1 box-1:7700 dns:lab:7700");
        assert_eq!(
            check(&format!("box-1:7700,@{shown}")).unwrap_err(),
            "box-1:7700 is named twice: name each agent once"
        );
        write("box-1:7700\nbox-2\n");
        let bad = check(&format!("@{shown}")).unwrap_err();
        assert_eq!(bad, format!("{shown}, line 2: got 'box-2', expected HOST:PORT or dns:NAME:PORT"));
        write("# nobody\n");
        assert!(check(&format!("@{shown}")).unwrap_err().ends_with("it names no agent"));
        assert!(
            check("@/no/such/file").unwrap_err().contains("got the file '/no/such/file', expected the path of a file")
        );
    }
}
