//! A real nats-server on free ports, ended with its owner.

use super::hosts::Host;
use super::signals;
use anyhow::{Context as _, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// How long a server may take until it greets a client; a loaded box takes a second.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A connection that ended is counted as such by then.
const CLOSING: Duration = Duration::from_millis(200);

/// How a server is to be.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// Nobody else may connect if there are any.
    pub users: Vec<NatsUser>,
    /// Bytes that file streams may take in all, such as `64M`; the disk's if none.
    pub max_file_store: Option<String>,
    /// Bytes that memory streams may take in all.
    pub max_memory_store: Option<String>,
    /// Bytes in one message; the server's default of 1 MiB if none.
    pub max_payload: Option<u64>,
    /// A server without streams.
    pub without_jetstream: bool,
    /// Lines added to the configuration as they are.
    pub extra: String,
    /// Where it runs; this host if none.
    pub host: Option<Host>,
}

/// Who may connect, and what for. No list means everything.
#[derive(Debug, Clone, Default)]
pub struct NatsUser {
    pub name: String,
    pub password: String,
    pub publish_allow: Option<Vec<String>>,
    pub subscribe_allow: Option<Vec<String>>,
    pub publish_deny: Vec<String>,
    pub subscribe_deny: Vec<String>,
}

/// What the server knows of Plimsoll's agents: the connections named `plimsoll/<run>/<agent>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentsSeen {
    /// Names of the connections there are.
    pub open: Vec<String>,
    /// Names of those there were.
    pub closed: Vec<String>,
    /// Messages that came over any of them.
    pub messages: u64,
}

/// A connection of an agent, as the server knows it.
#[derive(Debug)]
struct AgentConnection {
    name: String,
    messages: u64,
    open: bool,
}

/// A running nats-server. Dropping it kills it, also when a test panics; if the whole test dies, the kernel does, once the
/// thread that started it has ended.
#[derive(Debug)]
pub struct NatsServer {
    options: NatsOptions,
    child: Child,
    address: String,
    monitoring: String,
    dir: TempDir,
}

impl NatsServer {
    /// Starts a server and returns when it greets clients.
    ///
    /// # Errors
    /// If there is no nats-server, or it does not come up; then with the end of its log.
    pub fn start(options: NatsOptions) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("plimsoll-nats-").tempdir().context("making a directory")?;
        // The server chooses both ports and writes them into a file: nobody can take them in between.
        let listen = options.host.as_ref().map_or("127.0.0.1:-1".to_owned(), |host| format!("{}:-1", host.address()));
        let config = configuration(&options, dir.path(), &listen, &listen);
        let child = spawn(&config, dir.path(), options.host.as_ref())?;
        let mut server = Self { options, child, address: String::new(), monitoring: String::new(), dir };
        let ports = server.wait_for(Self::read_ports)?;
        (server.address, server.monitoring) = ports;
        server.wait_for(Self::greets)?;
        Ok(server)
    }

    /// Where clients connect, without credentials.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Where this user connects.
    pub fn url_of(&self, user: &NatsUser) -> String {
        format!("nats://{}:{}@{}", user.name, user.password, self.address)
    }

    /// Where the server tells about itself: `/varz`, `/jsz`, …
    pub fn monitoring_url(&self) -> String {
        format!("http://{}", self.monitoring)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Connections that it has ever had, each probe of its readiness among them.
    ///
    /// # Errors
    /// If its monitoring does not answer.
    pub fn connections_ever(&self) -> anyhow::Result<u64> {
        let page = self.monitored("/varz")?;
        page.get("total_connections").and_then(serde_json::Value::as_u64).context("/varz without total_connections")
    }

    /// What Plimsoll's agents have done here, by the server's own count.
    ///
    /// # Errors
    /// If its monitoring does not answer.
    pub fn agents_seen(&self) -> anyhow::Result<AgentsSeen> {
        let mut seen = AgentsSeen::default();
        for connection in self.agents_connections()? {
            seen.messages += connection.messages;
            match connection.open {
                true => seen.open.push(connection.name),
                false => seen.closed.push(connection.name),
            }
        }
        Ok(seen)
    }

    /// Messages that came from each of Plimsoll's agents, by the name of its connections.
    ///
    /// # Errors
    /// If its monitoring does not answer.
    pub fn messages_by_agent(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut messages = BTreeMap::new();
        for connection in self.agents_connections()? {
            *messages.entry(connection.name).or_default() += connection.messages;
        }
        Ok(messages)
    }

    fn agents_connections(&self) -> anyhow::Result<Vec<AgentConnection>> {
        let page = self.monitored("/connz?state=all&limit=10000")?;
        let connections = page.get("connections").and_then(serde_json::Value::as_array);
        let text = |connection: &serde_json::Value, key: &str| {
            connection.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        let read = |connection: &serde_json::Value| AgentConnection {
            name: text(connection, "name"),
            messages: connection.get("in_msgs").and_then(serde_json::Value::as_u64).unwrap_or(0),
            open: text(connection, "stop").is_empty(),
        };
        let all = connections.context("/connz without connections")?.iter().map(read);
        Ok(all.filter(|it| it.name.starts_with("plimsoll/") && !it.name.ends_with("/coordinator")).collect())
    }

    /// Does something where the server is.
    fn beside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        match &self.options.host {
            Some(host) => host.inside(work),
            None => Ok(work()),
        }
    }

    /// Waits until no agent is connected, and returns what they did until then.
    ///
    /// # Errors
    /// If one still is at the end of the limit.
    pub fn wait_for_silence(&self, limit: Duration) -> anyhow::Result<AgentsSeen> {
        let started = Instant::now();
        loop {
            let seen = self.agents_seen()?;
            if seen.open.is_empty() {
                // For a moment the server counts a connection neither among those that are open nor among the closed.
                std::thread::sleep(CLOSING);
                return self.agents_seen();
            }
            ensure!(started.elapsed() < limit, "{:?} are still connected after {limit:?}", seen.open);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn monitored(&self, page: &str) -> anyhow::Result<serde_json::Value> {
        let url = format!("{}{page}", self.monitoring_url());
        let body = self.beside(|| {
            let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(START_LIMIT)).build().into();
            agent.get(&url).call().and_then(|mut answer| answer.body_mut().read_to_vec())
        })?;
        let body = body.with_context(|| format!("asking {url}"))?;
        serde_json::from_slice(&body).with_context(|| format!("reading {url}"))
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Kills the server at once.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("killing nats-server")?;
        let status = self.child.wait().context("waiting for nats-server")?;
        tracing::debug!(signal = status.signal(), "nats-server ended");
        Ok(())
    }

    /// Starts a killed server again, on the same ports and the same files.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.try_wait()?.is_some(), "nats-server still runs");
        let config = configuration(&self.options, self.dir.path(), &self.address, &self.monitoring);
        self.child = spawn(&config, self.dir.path(), self.options.host.as_ref())?;
        self.wait_for(Self::greets)
    }

    /// Freezes the server: its sockets stay open, and nothing answers.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(libc::SIGSTOP)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(libc::SIGCONT)
    }

    fn signal(&self, signal: libc::c_int) -> anyhow::Result<()> {
        signals::send(self.child.id(), signal).context("nats-server")
    }

    /// Client and monitoring address, once the server has written them.
    fn read_ports(&self) -> Option<(String, String)> {
        let name = format!("nats-server_{}.ports", self.child.id());
        let ports: serde_json::Value =
            serde_json::from_slice(&fs::read(self.dir.path().join("ports").join(name)).ok()?).ok()?;
        let address = |kind: &str| {
            let url = ports.get(kind)?.get(0)?.as_str()?;
            url.split_once("://").map(|(_, address)| address.to_owned())
        };
        address("nats").zip(address("monitoring"))
    }

    /// A server greets with INFO when it is ready; its streams are by then.
    fn greets(&self) -> Option<()> {
        let socket = self.beside(|| TcpStream::connect(&self.address)).ok()?.ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).ok()?;
        line.starts_with("INFO ").then_some(())
    }

    fn wait_for<T>(&mut self, ready: impl Fn(&Self) -> Option<T>) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = ready(self) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("nats-server ended with {status} before it was ready:\n{}", self.log_tail());
            }
            if started.elapsed() > START_LIMIT {
                bail!("nats-server was not ready after {START_LIMIT:?}:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It may have ended already, and a drop has nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The nats-server to run: `PLIMSOLL_NATS_SERVER`, else the workspace's `.tools/bin`, else the `PATH`.
///
/// # Errors
/// If there is none; says how to get one.
pub fn find_nats_server() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("PLIMSOLL_NATS_SERVER") {
        let given = PathBuf::from(given);
        ensure!(given.is_file(), "PLIMSOLL_NATS_SERVER names {}, which is no file", given.display());
        return Ok(given);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests have no workspace around them")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(root.join(".tools/bin"))
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join("nats-server"))
        .find(|candidate| candidate.is_file())
        .context("no nats-server: `make tools` puts one into .tools/bin, or name yours in PLIMSOLL_NATS_SERVER")
}

fn spawn(config: &str, dir: &Path, host: Option<&Host>) -> anyhow::Result<Child> {
    let binary = find_nats_server()?;
    let file = dir.join("nats.conf");
    fs::write(&file, config).context("writing nats-server's configuration")?;
    fs::create_dir_all(dir.join("ports")).context("making a directory for nats-server's ports")?;
    let log = fs::File::create(dir.join("log")).context("making nats-server's log")?;
    let mut command = Command::new(&binary);
    command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: between fork and exec only the async-signal-safe prctl is called.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    host.iter().for_each(|host| host.put(&mut command));
    command.spawn().with_context(|| format!("starting {}", binary.display()))
}

fn configuration(options: &NatsOptions, dir: &Path, listen: &str, monitor: &str) -> String {
    let dir = dir.display();
    let mut text = format!("listen: \"{listen}\"\nhttp: \"{monitor}\"\nports_file_dir: \"{dir}/ports\"\n");
    let mut line = |line: String| writeln!(text, "{line}").expect("a String takes every line");
    if !options.without_jetstream {
        let limit = |name: &str, limit: &Option<String>| {
            limit.as_ref().map(|limit| format!(" {name}: {limit}\n")).unwrap_or_default()
        };
        let file = limit("max_file_store", &options.max_file_store);
        let memory = limit("max_memory_store", &options.max_memory_store);
        line(format!("jetstream {{\n store_dir: \"{dir}/jetstream\"\n{file}{memory}}}"));
    }
    if let Some(bytes) = options.max_payload {
        line(format!("max_payload: {bytes}"));
    }
    if !options.users.is_empty() {
        let users: Vec<String> = options.users.iter().map(user_entry).collect();
        line(format!("authorization {{ users: [\n{}\n] }}", users.join("\n")));
    }
    line(options.extra.clone());
    text
}

fn user_entry(user: &NatsUser) -> String {
    let list = |subjects: &[String]| {
        let quoted: Vec<String> = subjects.iter().map(|subject| format!("\"{subject}\"")).collect();
        quoted.join(", ")
    };
    let permission = |name: &str, allow: &Option<Vec<String>>, deny: &[String]| {
        let allow = allow.as_ref().map(|allow| format!("allow: [{}] ", list(allow))).unwrap_or_default();
        let deny = if deny.is_empty() { String::new() } else { format!("deny: [{}] ", list(deny)) };
        if allow.is_empty() && deny.is_empty() { String::new() } else { format!("{name}: {{ {allow}{deny}}} ") }
    };
    let publish = permission("publish", &user.publish_allow, &user.publish_deny);
    let subscribe = permission("subscribe", &user.subscribe_allow, &user.subscribe_deny);
    let (name, password) = (&user.name, &user.password);
    format!("{{ user: \"{name}\", password: \"{password}\", permissions: {{ {publish}{subscribe}}} }}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_what_was_asked_for() {
        let user = NatsUser {
            name: "ann".into(),
            password: "secret".into(),
            publish_allow: Some(vec!["a.>".into(), "b".into()]),
            subscribe_deny: vec!["c".into()],
            ..NatsUser::default()
        };
        let options = NatsOptions { users: vec![user], max_file_store: Some("64M".into()), ..NatsOptions::default() };
        let text = configuration(&options, Path::new("/d"), "127.0.0.1:-1", "127.0.0.1:-1");
        assert!(text.contains("max_file_store: 64M") && !text.contains("max_memory_store"), "{text}");
        assert!(text.contains("publish: { allow: [\"a.>\", \"b\"] } subscribe: { deny: [\"c\"] }"), "{text}");
    }
}
