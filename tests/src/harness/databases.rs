//! Real database servers on free ports, ended with their owner, and independent clients of both: Python's drivers, which
//! share no code with ours. `make databases` installs them.

use super::ports::free_port;
use super::processes::Process;
use anyhow::{Context as _, bail, ensure};
use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// How long a server may take until it lets clients in; Cassandra takes ten seconds on a quiet box.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long one question of an independent client may take.
const ASK_LIMIT: Duration = Duration::from_secs(60);

/// The user that Cassandra has from the beginning, and its password.
pub const CASSANDRA_USER: &str = "cassandra";

fn installed() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/databases");
    std::env::var_os("PLIMSOLL_DATABASES").map_or_else(own, PathBuf::from)
}

/// What a test needs is installed.
///
/// # Panics
/// Where it is not, with the command that installs it.
fn need(what: &str) {
    let dir = installed().join(what);
    assert!(dir.is_dir(), "{} is not there; `make databases` puts it there, or says what it needs", dir.display());
}

/// MongoDB's stand-in and the drivers are installed.
pub fn need_mongo() {
    need("python");
}

/// Cassandra is installed too.
pub fn need_both() {
    need("python");
    need("cassandra");
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", installed().join("python"));
    command
}

/// How a MongoDB is to be.
#[derive(Debug, Clone, Default)]
pub struct MongoOptions {
    /// Certificate and key, in PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Only who shows a certificate of this CA is let in; with `tls` alone.
    pub clients_of: Option<PathBuf>,
    /// It can be told to fail (`configureFailPoint`).
    pub fails_when_told: bool,
    /// Only this user is let in, with this password.
    pub user: Option<(String, String)>,
    /// Where its files go; a directory of its own if none.
    pub dir: Option<PathBuf>,
}

/// A server that speaks MongoDB's wire protocol.
#[derive(Debug)]
pub struct MongoServer {
    process: Process,
    port: u16,
    _dir: TempDir,
}

impl MongoServer {
    /// Starts one, with nothing in it.
    ///
    /// # Errors
    /// If it does not come up; with what it said.
    pub fn start(options: &MongoOptions) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("plimsoll-mongo-").tempdir()?;
        let path = options.dir.clone().unwrap_or_else(|| dir.path().to_owned());
        if let Some((user, password)) = &options.user {
            // Users are made while everybody is still let in.
            let (mut process, port) = Self::spawn(&path, &[])?;
            let script = "import pymongo,sys\n\
                pymongo.MongoClient(sys.argv[1])['admin'].command('createUser', sys.argv[2], pwd=sys.argv[3], roles=['root'])\n\
                print('null')";
            ask(script, &[&format!("mongodb://127.0.0.1:{port}"), user, password])?;
            process.signal(libc::SIGTERM)?;
            process.wait(START_LIMIT)?;
        }
        let mut more: Vec<String> = options.user.iter().map(|_| "--auth".to_owned()).collect();
        if options.fails_when_told {
            more.push("--enable-test-commands".to_owned());
        }
        if let Some((cert, key)) = &options.tls {
            more.extend(["--tls-cert-file".into(), cert.display().to_string()]);
            more.extend(["--tls-key-file".into(), key.display().to_string()]);
        }
        if let Some(ca) = &options.clients_of {
            more.extend(["--tls-require-client-cert".into(), "--tls-ca-file".into(), ca.display().to_string()]);
        }
        let (process, port) = Self::spawn(&path, &more)?;
        Ok(Self { process, port, _dir: dir })
    }

    fn spawn(dir: &Path, more: &[String]) -> anyhow::Result<(Process, u16)> {
        let mut command = python();
        command.arg(installed().join("python/bin/secantusd-py"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--storage-path"]).arg(dir).args(more);
        let mut process = Process::spawn(command)?;
        process.wait_for_stderr("listening on 127.0.0.1:", START_LIMIT)?;
        let words = process.stderr();
        let port = words
            .split("listening on 127.0.0.1:")
            .nth(1)
            .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        Ok((process, port.with_context(|| words)?))
    }

    /// Where clients connect.
    pub fn uri(&self) -> String {
        format!("mongodb://{}", self.address())
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// It is no primary for so long: it refuses every write, and says so to whoever asks.
    ///
    /// # Errors
    /// If it does not step down.
    pub fn step_down(&self, seconds: u32) -> anyhow::Result<()> {
        let script = format!("db.client.admin.command('replSetStepDown', {seconds}, force=True)");
        with_database(&self.uri(), "chat", &script).map(drop)
    }

    /// Freezes it, or lets it go on.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&mut self, signal: libc::c_int) -> anyhow::Result<()> {
        self.process.signal(signal)
    }
}

/// The Cassandra of all tests of this program: it takes ten seconds to start, and each test has a keyspace of its own. It ends
/// with the program.
///
/// # Errors
/// If it does not come up; with the end of its log.
pub fn cassandra() -> anyhow::Result<&'static CassandraServer> {
    static SERVER: OnceLock<Result<CassandraServer, String>> = OnceLock::new();
    let server = SERVER.get_or_init(|| lasting(CassandraServer::spawn));
    server.as_ref().map_err(|words| anyhow::anyhow!("{words}"))
}

/// What comes with a process that ends with the program.
fn lasting<T: Send + 'static>(
    start: impl FnOnce() -> anyhow::Result<(Process, T)> + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = mpsc::channel();
    // The kernel ends it with the thread that started it: one that stays.
    std::thread::spawn(move || {
        let (_process, started) = match start() {
            Ok(started) => started,
            Err(error) => return drop(sender.send(Err(format!("{error:#}")))),
        };
        let _ = sender.send(Ok(started));
        loop {
            std::thread::park();
        }
    });
    receiver.recv().unwrap_or_else(|_| Err("its thread panicked".to_owned()))
}

/// A running Cassandra.
#[derive(Debug)]
pub struct CassandraServer {
    port: u16,
    dir: PathBuf,
    /// Removed with it; of one whose directory was given, nothing.
    _dir: Option<TempDir>,
}

impl CassandraServer {
    fn spawn() -> anyhow::Result<(Process, Self)> {
        let dir = tempfile::Builder::new().prefix("plimsoll-cassandra-").tempdir()?;
        let (process, server) = Self::start_in(dir.path())?;
        Ok((process, Self { _dir: Some(dir), ..server }))
    }

    /// One of a test's own, with its data in this directory, where it finds what was there before.
    ///
    /// # Errors
    /// If it does not come up; with the end of its log.
    pub fn start_in(dir: &Path) -> anyhow::Result<(Process, Self)> {
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/setup/cassandra");
        let (port, storage, jmx) = (free_port()?, free_port()?, free_port()?);
        let fill = |text: String| {
            text.replace("@CASS_PORT@", &port.to_string())
                .replace("@CASS_STORAGE_PORT@", &storage.to_string())
                .replace("@CASS_JMX_PORT@", &jmx.to_string())
        };
        let conf = dir.join("conf");
        fs::create_dir_all(&conf)?;
        for (file, to) in [
            ("cassandra.yaml", "conf/cassandra.yaml"),
            ("logback.xml", "conf/logback.xml"),
            ("jvm17.options", "jvm.options"),
        ] {
            let text = fs::read_to_string(setup.join(file)).with_context(|| format!("reading {file}"))?;
            fs::write(dir.join(to), fill(text))?;
        }
        certificate(&conf)?;
        let libraries = installed().join("cassandra/lib").canonicalize()?;
        let mut command = Command::new("java");
        command.arg("@jvm.options").arg("-cp").arg(format!("conf:{}/*", libraries.display()));
        command.arg("org.apache.cassandra.service.CassandraDaemon").current_dir(dir);
        let mut process = Process::spawn(command)?;
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() || !lets_in(port) {
            let words = || format!("{}\n{}", process.stdout(), process.stderr());
            ensure!(started.elapsed() < START_LIMIT, "Cassandra did not come up:\n{}", words());
            if !process.is_running()? {
                bail!("Cassandra ended:\n{}\n{}", process.stdout(), process.stderr());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok((process, Self { port, dir: dir.to_owned(), _dir: None }))
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate that it shows, which signed itself.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("conf/ca.pem")
    }

    /// Executes statements as its first user.
    ///
    /// # Errors
    /// If one is refused.
    pub fn execute(&self, statements: &[String]) -> anyhow::Result<()> {
        let mut arguments = vec![self.port.to_string()];
        arguments.extend_from_slice(statements);
        let script = format!("{CONNECT}for s in sys.argv[2:]: session.execute(s)\nprint('null')");
        ask(&script, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
    }

    /// All rows of a table, sorted by their text, every value as JSON: times in milliseconds, types as objects.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn rows(&self, table: &str) -> anyhow::Result<Vec<serde_json::Value>> {
        self.select(&format!("SELECT * FROM {table}"))
    }

    /// The rows that a statement answers, as [`Self::rows`].
    ///
    /// # Errors
    /// If it is refused.
    pub fn select(&self, statement: &str) -> anyhow::Result<Vec<serde_json::Value>> {
        let script = format!("{CONNECT}{ROWS}");
        let rows = ask(&script, &[&self.port.to_string(), statement])?;
        Ok(serde_json::from_value(rows)?)
    }
}

const CONNECT: &str = "\
import sys, json, datetime, logging
logging.disable(logging.CRITICAL)
from cassandra.cluster import Cluster
from cassandra.auth import PlainTextAuthProvider
cluster = Cluster(['127.0.0.1'], port=int(sys.argv[1]), auth_provider=PlainTextAuthProvider('cassandra', 'cassandra'))
session = cluster.connect()
session.default_timeout = 50
";

const ROWS: &str = "\
def plain(value):
    if isinstance(value, datetime.datetime):
        return round(value.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)
    if hasattr(value, '_asdict'):
        return {name: plain(part) for name, part in value._asdict().items() if part is not None}
    return value
rows = [json.dumps({n: plain(v) for n, v in row._asdict().items() if v is not None}, sort_keys=True)
        for row in session.execute(sys.argv[2])]
print('[' + ','.join(sorted(rows)) + ']')
";

/// All documents of collections, sorted by `_id`, as JSON: dates as `{\"ms\": …}`, binaries as `{\"hex\": …}`.
///
/// # Errors
/// If they cannot be read.
pub fn collections(
    uri: &str,
    database: &str,
    names: &[&'static str],
) -> anyhow::Result<HashMap<&'static str, Vec<serde_json::Value>>> {
    const SCRIPT: &str = "\
import sys, json, datetime, pymongo
def plain(value):
    if isinstance(value, datetime.datetime):
        return {'ms': round(value.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)}
    if isinstance(value, bytes):
        return {'hex': value.hex()}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value
db = pymongo.MongoClient(sys.argv[1])[sys.argv[2]]
print(json.dumps([[plain(d) for d in sorted(db[name].find(), key=lambda d: d['_id'])] for name in sys.argv[3:]]))
";
    let all: Vec<Vec<serde_json::Value>> = serde_json::from_value(ask(SCRIPT, &[&[uri, database], names].concat())?)?;
    Ok(names.iter().copied().zip(all).collect())
}

/// All documents of one collection, as [`collections`].
///
/// # Errors
/// If they cannot be read.
pub fn documents(uri: &str, database: &str, name: &'static str) -> anyhow::Result<Vec<serde_json::Value>> {
    Ok(collections(uri, database, &[name])?.remove(name).unwrap_or_default())
}

/// Does something with a MongoDB: `db` in the script is the database, and what it leaves in `out` is answered.
///
/// # Errors
/// If the script fails.
pub fn with_database(uri: &str, database: &str, script: &str) -> anyhow::Result<serde_json::Value> {
    let script = format!(
        "import sys, json, pymongo, datetime\nout = None\ndb = pymongo.MongoClient(sys.argv[1])[sys.argv[2]]\n{script}\nprint(json.dumps(out))"
    );
    ask(&script, &[uri, database])
}

/// Runs each script that it is sent, by those who know its secret, in a process of its own that has read the drivers already:
/// that takes longer than most questions.
const ASKED: &str = "\
import contextlib, datetime, io, json, logging, os, secrets, signal, socket, sys, time, traceback
import pymongo
import cassandra.auth, cassandra.cluster
door, secret = socket.create_server(('127.0.0.1', 0), backlog=64), secrets.token_hex()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print('READY', door.getsockname()[1], secret, flush=True)
while True:
    asker, _ = door.accept()
    if os.fork() > 0:
        asker.close()
        continue
    door.close()
    with asker.makefile('rwb') as stream:
        known, script, arguments = json.loads(stream.readline())
        if known != secret: os._exit(1)
        sys.argv = ['-c', *arguments]
        said, error = io.StringIO(), ''
        try:
            with contextlib.redirect_stdout(said):
                exec(script, {'__name__': '__main__'})
        except BaseException:
            error = traceback.format_exc()
        stream.write(json.dumps([said.getvalue(), error]).encode())
    # What a driver has started ends with it.
    os._exit(0)
";

/// Where [`ASKED`] listens, and its secret.
struct Asked {
    port: u16,
    secret: String,
}

impl Asked {
    /// That of all tests of this program, with which it ends.
    fn get() -> anyhow::Result<&'static Self> {
        static ASKED_ONCE: OnceLock<Result<Asked, String>> = OnceLock::new();
        let asked = ASKED_ONCE.get_or_init(|| lasting(Self::spawn));
        asked.as_ref().map_err(|words| anyhow::anyhow!("{words}"))
    }

    fn spawn() -> anyhow::Result<(Process, Self)> {
        let mut command = python();
        command.arg("-c").arg(ASKED);
        let mut process = Process::spawn(command)?;
        let ready = process.wait_for_line("READY ")?;
        let (port, secret) = ready.split_once(' ').context("no secret")?;
        Ok((process, Self { port: port.parse()?, secret: secret.to_owned() }))
    }
}

fn ask(script: &str, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
    let Asked { port, secret } = Asked::get()?;
    let mut asked = TcpStream::connect(("127.0.0.1", *port)).context("asking an independent client")?;
    asked.set_read_timeout(Some(ASK_LIMIT))?;
    let mut question = serde_json::to_vec(&(secret, script, arguments))?;
    question.push(b'\n');
    asked.write_all(&question)?;
    let mut answer = String::new();
    asked.read_to_string(&mut answer).with_context(|| format!("no answer within {ASK_LIMIT:?}"))?;
    let (said, error): (String, String) =
        serde_json::from_str(&answer).context("an independent client ended without a word")?;
    ensure!(error.is_empty(), "an independent client failed: {error}");
    serde_json::from_str(&said).with_context(|| format!("reading {said:.200}"))
}

/// Whether its first user exists yet.
fn lets_in(port: u16) -> bool {
    ask(&format!("{CONNECT}print('null')"), &[&port.to_string()]).is_ok()
}

/// A certificate for loopback that signed itself, with its key in one file, and alone in another.
///
/// # Errors
/// If it cannot be made or written.
pub fn certificate(dir: &Path) -> anyhow::Result<()> {
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    let (cert, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    fs::write(dir.join("server.pem"), format!("{key}{cert}"))?;
    fs::write(dir.join("server.key"), key)?;
    fs::write(dir.join("ca.pem"), cert)?;
    Ok(())
}
