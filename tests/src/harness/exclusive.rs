//! One measurement at a time: tests that measure share the box's cores, and would otherwise measure each other.

use super::processes::target_dir;
use anyhow::{Context as _, ensure};
use std::fs::File;
use std::os::fd::AsRawFd as _;

/// The only holder of the box while it lives, over all tests of all test binaries of this checkout.
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
        let path = target_dir()?.join("plimsoll-measuring.lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.with_context(|| format!("making {}", path.display()))?;
        loop {
            // SAFETY: flock takes two integers; the descriptor is open while `lock` lives. Each open file has its own lock.
            if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) } == 0 {
                return Ok(Self { _lock: lock });
            }
            let error = std::io::Error::last_os_error();
            ensure!(error.kind() == std::io::ErrorKind::Interrupted, "locking {}: {error}", path.display());
        }
    }
}
