//! Who has the box: tests that measure near a limit share its cores with nobody, and would otherwise measure each other; those
//! that need a steady box and little of it have it in pairs; tests at modest rates share it. Over all test binaries of this
//! checkout, however many threads run them.

use super::processes::target_dir;
use anyhow::{Context as _, ensure};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::sync::{Condvar, Mutex, PoisonError};

/// The only holder of the box while it lives.
#[derive(Debug)]
pub struct Exclusive {
    // Closing the file gives the lock back; the kernel does so too for a process that dies.
    _lock: File,
}

impl Exclusive {
    /// Waits until nobody else measures. A test binary's own tests wait for each other too.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn acquire() -> anyhow::Result<Self> {
        Ok(Self { _lock: lock(libc::LOCK_EX)? })
    }
}

/// One of at most two that have the box to themselves: each takes a small part of it, but for moments.
#[derive(Debug)]
pub struct Pair(());

/// How many there are, and what they keep all others out with.
static PAIR: Mutex<(usize, Option<Exclusive>)> = Mutex::new((0, None));
static PAIR_HAS_ROOM: Condvar = Condvar::new();

impl Pair {
    /// Waits until nobody else measures but one of its kind in this program.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn acquire() -> anyhow::Result<Self> {
        let pair = PAIR.lock().unwrap_or_else(PoisonError::into_inner);
        let has_no_room = |pair: &mut (usize, Option<Exclusive>)| pair.0 == 2;
        let mut pair = PAIR_HAS_ROOM.wait_while(pair, has_no_room).unwrap_or_else(PoisonError::into_inner);
        if pair.1.is_none() {
            pair.1 = Some(Exclusive::acquire()?);
        }
        pair.0 += 1;
        Ok(Self(()))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let mut pair = PAIR.lock().unwrap_or_else(PoisonError::into_inner);
        pair.0 -= 1;
        if pair.0 == 0 {
            pair.1 = None;
        }
        PAIR_HAS_ROOM.notify_one();
    }
}

/// One of several that have the box at once.
#[derive(Debug)]
pub struct Shared {
    _lock: File,
}

impl Shared {
    /// Waits until nobody has it alone.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn acquire() -> anyhow::Result<Self> {
        Ok(Self { _lock: lock(libc::LOCK_SH)? })
    }
}

fn lock(kind: libc::c_int) -> anyhow::Result<File> {
    let path = target_dir()?.join("plimsoll-measuring.lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.with_context(|| format!("making {}", path.display()))?;
    loop {
        // SAFETY: flock takes two integers; the descriptor is open while `lock` lives. Each open file has its own lock.
        if unsafe { libc::flock(lock.as_raw_fd(), kind) } == 0 {
            return Ok(lock);
        }
        let error = std::io::Error::last_os_error();
        ensure!(error.kind() == std::io::ErrorKind::Interrupted, "locking {}: {error}", path.display());
    }
}
