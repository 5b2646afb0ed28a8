//! Takes what the box grants, and says what it should grant besides.

use std::fs;
use std::path::{Path, PathBuf};

use super::health::cgroup_cpu_stats;
use crate::core::host::{CONNECTIONS, Granted, advice, largest_buffer, local_ports, quota_cores};

/// Raises the limit of open files to what is allowed, and warns of what is too little for an agent that may open so many
/// connections to the target (`None`: as many as fit between two addresses) and is reached on these ports.
pub fn make_ready(max_connections: Option<u32>, listens_on: &[u16]) {
    let granted = Granted {
        open_files: raise_open_files(),
        local_ports: of_kernel("ip_local_port_range", local_ports),
        reserved_ports: of_kernel("ip_local_reserved_ports", |text| Some(text.to_owned())),
        receive_buffer: of_kernel("tcp_rmem", largest_buffer),
        send_buffer: of_kernel("tcp_wmem", largest_buffer),
        quota_cores: quota(),
    };
    let connections = max_connections.map_or(CONNECTIONS, u64::from);
    for advice in advice(&granted, connections, listens_on, std::process::id()) {
        tracing::warn!("{advice}");
    }
}

fn of_kernel<T>(name: &str, read: fn(&str) -> Option<T>) -> Option<T> {
    read(&fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?)
}

/// The smallest of the control groups that this process is in.
fn quota() -> Option<f64> {
    let read = |stat: &Path, name: &str| fs::read_to_string(stat.with_file_name(name)).ok();
    let of_group = |stat: &PathBuf| {
        // Version 1 keeps the two numbers apart, and writes -1 for none.
        let v1 = || Some(format!("{} {}", read(stat, "cpu.cfs_quota_us")?.trim(), read(stat, "cpu.cfs_period_us")?));
        quota_cores(&read(stat, "cpu.max").or_else(v1)?)
    };
    cgroup_cpu_stats().iter().filter_map(of_group).min_by(f64::total_cmp)
}

/// The soft limit is for programs that use select(2), and we do not: it is raised to the hard one, which is returned.
fn raise_open_files() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit, which outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return None;
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: setrlimit reads one rlimit. Refused, the limit stays what it was, and that is what is returned.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        }
    }
    Some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_as_many_as_may_be() {
        let granted = raise_open_files().unwrap();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: as above.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
        assert_eq!((limit.rlim_cur, limit.rlim_max), (granted, granted));
    }
}
