//! Plimsoll's own programs as processes: started, listened to, signalled, and ended with their owner.

use super::hosts::Host;
use super::signals;
use anyhow::{Context as _, anyhow, bail, ensure};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a program may take to say that it is ready; a loaded box takes a second.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a program may take that is to end by itself: longer than any limit of its own on the way to a first step.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(5);
/// Variables that settings are read from: a test's programs know only what the test says.
const SETTINGS: [&str; 15] = [
    "NATS_URL",
    "NATS_CREDS_FILE",
    "NATS_NKEY",
    "NATS_CA",
    "NATS_CERT",
    "NATS_KEY",
    "SITE_ID",
    "MONGO_URI",
    "MONGO_DB",
    "MONGO_USERNAME",
    "MONGO_PASSWORD",
    "CASSANDRA_HOSTS",
    "CASSANDRA_KEYSPACE",
    "CASSANDRA_USERNAME",
    "CASSANDRA_PASSWORD",
];

/// A program under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Cli,
    Agent,
    Standin,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Cli => "plimsoll",
            Self::Agent => "plimsoll-agent",
            Self::Standin => "plimsoll-standin",
        }
    }

    /// A command that runs it, without any setting of the environment.
    ///
    /// # Errors
    /// If it is not there and cannot be built.
    pub fn command(self) -> anyhow::Result<Command> {
        let mut command = Command::new(binaries()?.join(self.name()));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PLIMSOLL_") {
                command.env_remove(name);
            }
        }
        for name in SETTINGS {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// Runs it with these arguments to its end, which must be soon.
    ///
    /// # Errors
    /// If it is not there or does not end.
    pub fn run<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> anyhow::Result<Ended> {
        let mut command = self.command()?;
        command.args(arguments);
        Process::spawn(command)?.wait(RUN_LIMIT)
    }
}

/// The same command in a shell, whose script has the program and its arguments as `"$0" "$@"`: it may redirect outputs or set
/// variables first, and ends with `exec`, so that signals reach the program.
pub fn in_shell(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// The directory that cargo builds into, as `target`.
///
/// # Errors
/// If this program does not lie in one.
pub fn target_dir() -> anyhow::Result<PathBuf> {
    Ok(profile_dir()?.parent().context("a profile without a target directory")?.to_owned())
}

/// `target/release` for a test in `target/release/deps`.
fn profile_dir() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("where is this test?")?;
    let dir = own.parent().context("a program without a directory")?;
    let dir = if dir.ends_with("deps") { dir.parent().context("deps without a profile")? } else { dir };
    Ok(dir.to_owned())
}

/// Where the programs are. Under cargo they are built first, which takes a moment when they are up to date: the programs of
/// other packages are no part of what `cargo test` builds, and a test of yesterday's program proves nothing.
/// `PLIMSOLL_BINARIES` names a directory to take them from as they are.
fn binaries() -> anyhow::Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find_binaries().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow!("{error}"))
}

fn find_binaries() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("PLIMSOLL_BINARIES") {
        let given = PathBuf::from(given);
        ensure!(given.is_dir(), "PLIMSOLL_BINARIES names {}, which is no directory", given.display());
        // Programs are started in directories of their own too.
        return given.canonicalize().context("PLIMSOLL_BINARIES");
    }
    let dir = profile_dir()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Cargo names the directory of the profile `dev` differently.
    let profile = match dir.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let target = dir.parent().context("a profile without a target directory")?;
    let mut build = Command::new(&cargo);
    // What cargo tells a test of its own package must not reach a build: build scripts that watch these variables would
    // run again, and everything above them be compiled again, at every other call.
    let of_the_package =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "CARGO_TARGET_TMPDIR"];
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| of_the_package.iter().any(|prefix| name.starts_with(prefix))) {
            build.env_remove(&name);
        }
    }
    let built = build
        .args(["build", "--quiet", "--workspace", "--bins", "--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output();
    match built {
        Ok(built) if built.status.success() => Ok(dir),
        Ok(built) => bail!("building the programs under test: {}", String::from_utf8_lossy(&built.stderr)),
        Err(error) => {
            bail!("no {}: {error}; build the programs and name their directory in PLIMSOLL_BINARIES", cargo.display())
        }
    }
}

/// A running program whose words are kept. Dropping it kills it, also when a test panics; if the whole test dies, the kernel
/// does, once the thread that started it has ended.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
    ended: Option<ExitStatus>,
}

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// None if a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Starts a command.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn spawn(command: Command) -> anyhow::Result<Self> {
        Self::spawn_reading(Stdio::null(), command)
    }

    /// Starts a command that reads what is typed at a terminal. What it says is kept as ever.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn spawn_at_terminal(mut command: Command) -> anyhow::Result<(Self, Terminal)> {
        let (keyboard, terminal) = Terminal::open()?;
        // SAFETY: between fork and exec only async-signal-safe system calls are made.
        unsafe {
            // Its own session, whose terminal this is: whoever types Ctrl-C interrupts it.
            command.pre_exec(|| {
                match libc::setsid() != -1 && libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) == 0 {
                    true => Ok(()),
                    false => Err(std::io::Error::last_os_error()),
                }
            });
        }
        Ok((Self::spawn_reading(terminal.into(), command)?, keyboard))
    }

    fn spawn_reading(stdin: Stdio, mut command: Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec only the async-signal-safe prctl is called.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let stdout = Output::of(child.stdout.take().context("no standard output")?);
        let stderr = Output::of(child.stderr.take().context("no standard error")?);
        Ok(Self { name, child, stdout, stderr, ended: None })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits for a line of standard output that begins with this, and returns what follows it there.
    ///
    /// # Errors
    /// If the program ends first or takes too long, with what it said.
    pub fn wait_for_line(&mut self, beginning: &str) -> anyhow::Result<String> {
        self.wait_for(&format!("say {beginning:?}"), START_LIMIT, |process| {
            let text = process.stdout();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole.lines().find_map(|line| line.strip_prefix(beginning)).map(str::to_owned)
        })
    }

    /// Waits for this text on standard error.
    ///
    /// # Errors
    /// If the program ends first or takes too long, with what it said.
    pub fn wait_for_stderr(&mut self, text: &str, limit: Duration) -> anyhow::Result<()> {
        self.wait_for(&format!("say {text:?}"), limit, |process| process.stderr().contains(text).then_some(()))
    }

    fn wait_for<T>(&mut self, what: &str, limit: Duration, ready: impl Fn(&Self) -> Option<T>) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            let over = self.has_ended()?;
            if let Some(found) = ready(self) {
                return Ok(found);
            }
            ensure!(over.is_none(), "{} ended with {over:?} before it did {what}:\n{}", self.name, self.words());
            ensure!(started.elapsed() < limit, "{} did not {what} within {limit:?}:\n{}", self.name, self.words());
            std::thread::sleep(LOOK);
        }
    }

    /// How it ended, if it has.
    fn has_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("looking at {}", self.name))?;
        }
        Ok(self.ended)
    }

    /// Whether it still runs (a frozen one does).
    ///
    /// # Errors
    /// If the system refuses to tell.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.has_ended()?.is_none())
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// If it does not in time; it is killed then, and what it said is in the error.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<Ended> {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.has_ended()? {
                break status;
            }
            if started.elapsed() > limit {
                self.end();
                bail!("{} did not end within {limit:?}; it said:\n{}", self.name, self.words());
            }
            std::thread::sleep(LOOK);
        };
        Ok(Ended {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout.whole(),
            stderr: self.stderr.whole(),
        })
    }

    /// Sends a signal, such as `libc::SIGSTOP`.
    ///
    /// # Errors
    /// If it has ended, or the system refuses.
    pub fn signal(&mut self, signal: libc::c_int) -> anyhow::Result<()> {
        ensure!(self.has_ended()?.is_none(), "{} has ended:\n{}", self.name, self.words());
        signals::send(self.child.id(), signal).with_context(|| self.name.clone())
    }

    /// Both outputs, for an error.
    fn words(&self) -> String {
        format!("{}\n{}", self.stdout(), self.stderr())
    }

    fn end(&mut self) {
        // It may have ended already, and then nobody is to be told.
        let _ = self.child.kill();
        self.ended = self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whoever sits at a terminal. It hangs up when dropped.
#[derive(Debug)]
pub struct Terminal(File);

impl Terminal {
    /// Somebody, and the terminal they sit at.
    fn open() -> anyhow::Result<(Self, OwnedFd)> {
        let mut options = File::options();
        let keyboard = options.read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx")?;
        let (fd, flags) = (keyboard.as_raw_fd(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        // SAFETY: the descriptor is open, and both calls take and give integers.
        let terminal = unsafe { if libc::unlockpt(fd) == 0 { libc::ioctl(fd, libc::TIOCGPTPEER, flags) } else { -1 } };
        if terminal < 0 {
            return Err(std::io::Error::last_os_error()).context("opening a terminal");
        }
        // SAFETY: it was just opened, and nobody else has it.
        Ok((Self(keyboard), unsafe { OwnedFd::from_raw_fd(terminal) }))
    }

    /// Types this: "\n" is the Enter key, "\u{4}" Ctrl-D.
    ///
    /// # Errors
    /// If nobody has the terminal any more.
    pub fn types(&mut self, keys: &str) -> anyhow::Result<()> {
        self.0.write_all(keys.as_bytes()).context("typing")
    }
}

/// One output of a process, read by a thread of its own so that the process never waits for us.
#[derive(Debug)]
struct Output {
    read: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Output {
    fn of(mut from: impl Read + Send + 'static) -> Self {
        let read = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&read);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
            }
        });
        Self { read, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// All of it, the process having ended; a grandchild that still holds the pipe is not waited for.
    fn whole(&self) -> String {
        let started = Instant::now();
        while !self.reader.is_finished() && started.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(LOOK);
        }
        self.text()
    }
}

/// How an agent is to be. By default as the program's own defaults say, with one worker.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// By default a free port of loopback.
    pub listen: String,
    pub workers: usize,
    /// More arguments, as they are.
    pub arguments: Vec<String>,
    /// Where it runs; this host if none.
    pub host: Option<Host>,
    /// What a shell does before it becomes the agent, as [`in_shell`] says.
    pub script: Option<String>,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { listen: "127.0.0.1:0".into(), workers: 1, arguments: Vec::new(), host: None, script: None }
    }
}

/// An agent daemon on a free port of loopback.
#[derive(Debug)]
pub struct Agent {
    pub process: Process,
    pub address: SocketAddr,
}

impl Agent {
    /// Starts a daemon and returns when it listens.
    ///
    /// # Errors
    /// If it does not come up, with what it said.
    pub fn start(options: &AgentOptions) -> anyhow::Result<Self> {
        let mut command = Program::Agent.command()?;
        command.args(["--listen", &options.listen, "--workers", &options.workers.to_string()]).args(&options.arguments);
        if let Some(script) = &options.script {
            command = in_shell(script, &command);
        }
        options.host.iter().for_each(|host| host.put(&mut command));
        let mut process = Process::spawn(command)?;
        let address = process.wait_for_line("plimsoll-agent listens on ")?;
        let address = address.trim().parse().with_context(|| format!("the agent listens on {address:?}"))?;
        Ok(Self { process, address })
    }

    /// So many of one worker each.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_many(count: usize) -> anyhow::Result<Vec<Self>> {
        (0..count).map(|_| Self::start(&AgentOptions::default())).collect()
    }
}

/// The stand-in backend as a process of its own, for tests in which it must not share ours.
///
/// # Errors
/// If it is not ready in time, with what it said.
pub fn start_standin(nats_url: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    start_standin_on(None, nats_url, arguments)
}

/// The same on another host.
///
/// # Errors
/// If it is not ready in time, with what it said.
pub fn start_standin_on(host: Option<&Host>, nats_url: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Program::Standin.command()?;
    command.args(["--nats-url", nats_url]).args(arguments);
    host.iter().for_each(|host| host.put(&mut command));
    let mut process = Process::spawn(command)?;
    process.wait_for_line("READY ")?;
    Ok(process)
}

/// A share of one core that the kernel holds processes to. Removed when dropped, the processes having left.
#[derive(Debug)]
pub struct CpuQuota {
    dir: PathBuf,
    /// Where a process goes when it leaves.
    parent: PathBuf,
}

impl CpuQuota {
    /// Makes a control group that gets so many thousandths of one core, in periods of 100 ms.
    ///
    /// # Errors
    /// If the kernel's control groups cannot be used, with what would help.
    pub fn new(milli_cores: u32) -> anyhow::Result<Self> {
        Self::in_periods(milli_cores, 100)
    }

    /// The same in periods of so many milliseconds, at most 1000: who has used up a period's part waits for the next one.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn in_periods(milli_cores: u32, period_ms: u32) -> anyhow::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (version, root) = cpu_controller()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = root.join(format!("plimsoll-test-{}-{number}", std::process::id()));
        let help = format!(
            "making a CPU quota in {} (run as root, or delegate a cgroup with the cpu controller to this user)",
            dir.display()
        );
        std::fs::create_dir_all(&dir).context(help.clone())?;
        let quota = Self { dir, parent: root };
        let (us, period_us) = (milli_cores * period_ms, period_ms * 1000);
        match version {
            1 => quota
                .write("cpu.cfs_period_us", &period_us.to_string())
                .and_then(|()| quota.write("cpu.cfs_quota_us", &us.to_string())),
            _ => quota.write("cpu.max", &format!("{us} {period_us}")),
        }
        .context(help)?;
        Ok(quota)
    }

    /// Holds a process, with all its threads, to the quota from now on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn take(&self, process: &Process) -> anyhow::Result<()> {
        self.write("cgroup.procs", &process.pid().to_string())
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.dir.join(file);
        std::fs::write(&path, text).with_context(|| format!("writing {text:?} to {}", path.display()))
    }
}

impl Drop for CpuQuota {
    fn drop(&mut self) {
        let inside = std::fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            // A process may just have ended.
            let _ = std::fs::write(self.parent.join("cgroup.procs"), pid);
        }
        if let Err(error) = std::fs::remove_dir(&self.dir) {
            eprintln!("{} stays behind: {error}", self.dir.display());
        }
    }
}

/// The version of the control groups that govern the CPU here, and where they are.
fn cpu_controller() -> anyhow::Result<(u8, PathBuf)> {
    let base = Path::new("/sys/fs/cgroup");
    for v1 in ["cpu", "cpu,cpuacct"] {
        if base.join(v1).join("cpu.cfs_quota_us").exists() || base.join(v1).join("cpu.shares").exists() {
            return Ok((1, base.join(v1)));
        }
    }
    let controllers = std::fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
    ensure!(
        controllers.split_whitespace().any(|name| name == "cpu"),
        "this kernel has no cgroup cpu controller under {}: mount one (mount -t cgroup2 none {0})",
        base.display()
    );
    // A child has the controller only if its parent hands it on.
    let handing_on = base.join("cgroup.subtree_control");
    let handed_on = std::fs::read_to_string(&handing_on).unwrap_or_default();
    if !handed_on.split_whitespace().any(|name| name == "cpu") {
        std::fs::write(&handing_on, "+cpu").with_context(|| {
            format!(
                "handing the cpu controller on in {} (run as root, or `systemd-run --scope -p Delegate=yes`)",
                handing_on.display()
            )
        })?;
    }
    Ok((2, base.to_owned()))
}
