//! A worker's place among the threads of its box.

/// Near the top of what a normal thread may have. Beside a target that filled both cores it took the 99th percentile of
/// lateness at 50,000/s from 272 µs to 126 µs (`cargo bench -p plimsoll-tests --bench agent -- lateness`).
const NICE: libc::c_int = -19;

/// Asks that the calling thread be woken before others. Whoever may not ask (no CAP_SYS_NICE) goes on as before; what the
/// box then adds is measured as its lateness all the same.
pub fn raise() {
    // SAFETY: takes three integers. On Linux, 0 is the calling thread alone.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0 {
        tracing::debug!("this worker has no raised priority: {}", std::io::Error::last_os_error());
    }
}
