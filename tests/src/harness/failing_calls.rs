//! Programs whose system fails them: a filter in the kernel has some of their system calls return an error, from their first
//! instant on.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// The setting of timers.
    Timers,
    /// The waiting for events on any but the program's first descriptors, which its main runtime waits on: threads with a runtime of
    /// their own, as workers are, panic in it.
    WaitingOfWorkers,
}

/// The program's main runtime is made first and waits on one of these, as long as it inherits nothing beyond the standard three.
const FIRST_DESCRIPTORS: u32 = 8;
/// Where the filter finds the call's number and the low half of its first argument: see seccomp(2), `struct seccomp_data`.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

#[cfg(target_arch = "x86_64")]
const WAITS: [libc::c_long; 2] = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
#[cfg(not(target_arch = "x86_64"))]
const WAITS: [libc::c_long; 2] = [libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];

/// Has this command's program fail like that.
pub fn fails(command: &mut Command, failing: Failing) {
    let filter = filter(failing);
    // SAFETY: between fork and exec only async-signal-safe system calls are made, on memory that was there before.
    unsafe {
        command.pre_exec(move || {
            let done = |result: libc::c_long| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
            done(libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC))?;
            done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            done(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program).into())
        });
    }
}

fn filter(failing: Failing) -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let if_equal =
        |call: libc::c_long, jt, jf| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, call as u32);
    let if_above = |limit, jt, jf| instruction(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, jt, jf, limit);
    let end = |with| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, with);
    let (allow, fail) = (end(libc::SECCOMP_RET_ALLOW), end(libc::SECCOMP_RET_ERRNO | libc::EIO as u32));
    match failing {
        Failing::Timers => vec![load(NUMBER), if_equal(libc::SYS_timerfd_settime, 1, 0), allow, fail],
        Failing::WaitingOfWorkers => vec![
            load(NUMBER),
            if_equal(WAITS[0], 1, 0),
            if_equal(WAITS[1], 0, 2),
            load(FIRST_ARGUMENT),
            if_above(FIRST_DESCRIPTORS, 1, 0),
            allow,
            fail,
        ],
    }
}
