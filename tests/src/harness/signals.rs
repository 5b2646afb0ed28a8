//! Signals to the processes of a test. A process that is to stand still does so when the call returns.

use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use tokio::time::Instant;

/// What the system may take to stop every thread of a process, or to let it go on.
const TAKES_EFFECT: Duration = Duration::from_secs(10);

/// Sends a signal to a child that the caller has not reaped. SIGSTOP returns once every thread stands still: until then a
/// part of the process goes on working.
///
/// # Errors
/// The system refuses, or the process does not stop.
pub fn send(process: u32, signal: libc::c_int) -> anyhow::Result<()> {
    let pid = libc::pid_t::try_from(process).context("a process id that is none")?;
    // SAFETY: kill takes two integers; the child is not reaped while the caller holds it, so the id is its own.
    let outcome = unsafe { libc::kill(pid, signal) };
    ensure!(outcome == 0, "signal {signal} to {pid}: {}", std::io::Error::last_os_error());
    if signal == libc::SIGSTOP { wait_until_stopped(process) } else { Ok(()) }
}

fn wait_until_stopped(process: u32) -> anyhow::Result<()> {
    let deadline = Instant::now() + TAKES_EFFECT;
    while !stands_still(process)? {
        ensure!(Instant::now() < deadline, "{process} did not stop");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether every thread is stopped (or gone): see proc_pid_stat(5), the field after the name in brackets.
fn stands_still(process: u32) -> anyhow::Result<bool> {
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('T' | 't' | 'Z' | 'X')) {
            return Ok(false);
        }
    }
    Ok(true)
}
