//! Sleeping to an instant on a worker's own runtime. Tokio's timers tick in milliseconds, which would be most of the
//! lateness; a timerfd on CLOCK_BOOTTIME wakes the same runtime within some ten microseconds.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use tokio::io::unix::AsyncFd;

/// A timer that one task sleeps on.
#[derive(Debug)]
pub struct PreciseTimer(AsyncFd<OwnedFd>);

impl PreciseTimer {
    /// A timer on the current runtime.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the result is checked before it is owned.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just created and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an OwnedFd names the same open file until it is dropped, and it is dropped after its registration.
        let registered = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) };
        registered.map(Self).map_err(Into::into)
    }

    /// Sleeps until the clock of [`super::clock`] reads `at_ns`; returns at once when it already does. May return early,
    /// so the caller looks at the clock itself.
    ///
    /// # Errors
    /// Those of the system calls, none of which a valid timer gives.
    pub async fn sleep_until(&self, at_ns: u64) -> io::Result<()> {
        let value = libc::timespec {
            tv_sec: (at_ns / 1_000_000_000) as libc::time_t,
            // A value of zero would disarm the timer.
            tv_nsec: (at_ns % 1_000_000_000).max(1) as libc::c_long,
        };
        let spec = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: the descriptor is owned, the pointer is to a local, and no old value is asked for.
        let result = unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &raw const spec, std::ptr::null_mut())
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // Arming resets the descriptor's count, so it need not be read: clearing the readiness is enough.
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
