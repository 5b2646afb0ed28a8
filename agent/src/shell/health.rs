//! What the box does to us: CPU of process and box, steal, quota throttling, and how long a thread ran or waited to run.
//! Files that are not there (another kernel, no cgroup) read as nothing having happened.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// What changed between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BoxUse {
    /// Thousandths of one core.
    pub process_cpu_milli: u32,
    /// Thousandths of the whole box.
    pub box_cpu_milli: u32,
    /// Thousandths of the whole box.
    pub steal_milli: u32,
}

/// Watches the CPU use of this process and of the box.
#[derive(Debug)]
pub struct BoxWatch {
    looked_at_ns: u64,
    process_ns: u64,
    ticks: Ticks,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ticks {
    busy: u64,
    steal: u64,
    all: u64,
}

impl BoxWatch {
    /// Begins to watch.
    pub fn new(now_ns: u64) -> Self {
        Self { looked_at_ns: now_ns, process_ns: process_cpu_ns(), ticks: box_ticks() }
    }

    /// What was used since the last look.
    pub fn look(&mut self, now_ns: u64) -> BoxUse {
        let (process_ns, ticks) = (process_cpu_ns(), box_ticks());
        let elapsed = now_ns.saturating_sub(self.looked_at_ns).max(1);
        let milli = |part: u64, whole: u64| (u128::from(part) * 1000 / u128::from(whole.max(1))) as u32;
        let all = ticks.all.saturating_sub(self.ticks.all);
        let used = BoxUse {
            process_cpu_milli: milli(process_ns.saturating_sub(self.process_ns), elapsed),
            box_cpu_milli: milli(ticks.busy.saturating_sub(self.ticks.busy), all),
            steal_milli: milli(ticks.steal.saturating_sub(self.ticks.steal), all),
        };
        *self = Self { looked_at_ns: now_ns, process_ns, ticks };
        used
    }
}

/// Nanoseconds that the calling thread has run on a processor.
pub fn thread_cpu_ns() -> u64 {
    cpu_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn process_cpu_ns() -> u64 {
    cpu_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn cpu_ns(clock: libc::clockid_t) -> u64 {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives for the call.
    let result = unsafe { libc::clock_gettime(clock, &raw mut used) };
    if result == 0 { used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64 } else { 0 }
}

// The first line of /proc/stat: user nice system idle iowait irq softirq steal, in ticks (proc_stat(5)).
fn box_ticks() -> Ticks {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let Some(line) = text.lines().next() else { return Ticks::default() };
    let numbers: Vec<u64> = line.split_whitespace().skip(1).take(8).map_while(|field| field.parse().ok()).collect();
    let &[user, nice, system, idle, iowait, irq, softirq, steal] = numbers.as_slice() else { return Ticks::default() };
    let busy = user + nice + system + irq + softirq + steal;
    Ticks { busy, steal, all: busy + idle + iowait }
}

/// How long cgroup quotas have held this process back, in microseconds since its cgroups began. A quota anywhere above the
/// process throttles it, and only the group that has the quota says so.
#[derive(Debug)]
pub struct ThrottleWatch {
    stats: Vec<File>,
    seen_us: u64,
}

impl ThrottleWatch {
    /// Finds the cgroups of this process, version 2 or 1.
    pub fn new() -> Self {
        let stats = cgroup_cpu_stats().into_iter().filter_map(|path| File::open(path).ok()).collect();
        let mut watch = Self { stats, seen_us: 0 };
        watch.seen_us = watch.total_us();
        watch
    }

    /// Microseconds throttled since the last look. The kernel adds up what every processor was kept from, so this can be
    /// more than the time between the looks.
    pub fn look(&mut self) -> u64 {
        let total = self.total_us();
        total.saturating_sub(std::mem::replace(&mut self.seen_us, total))
    }

    fn total_us(&self) -> u64 {
        self.stats.iter().map(throttled_of).sum()
    }
}

fn throttled_of(stat: &File) -> u64 {
    let mut buffer = [0_u8; 1024];
    let length = stat.read_at(&mut buffer, 0).unwrap_or(0);
    throttled_us(&String::from_utf8_lossy(&buffer[..length]))
}

impl Default for ThrottleWatch {
    fn default() -> Self {
        Self::new()
    }
}

// Version 2 says `throttled_usec`, version 1 `throttled_time` in nanoseconds.
fn throttled_us(stat: &str) -> u64 {
    let field = |name: &str| {
        stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
    };
    field("throttled_usec").or_else(|| field("throttled_time").map(|ns| ns / 1000)).unwrap_or(0)
}

/// The cpu.stat files of the groups that this process is in, the nearest first.
pub(super) fn cgroup_cpu_stats() -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // A hierarchy of version 1 with the cpu controller comes first: the unified one beside it has no quota then.
    let found = own.lines().filter_map(cpu_hierarchy).map(|(mount, group)| stats_up_from(&mount, &group));
    let mut found: Vec<Vec<PathBuf>> = found.filter(|stats| !stats.is_empty()).collect();
    found.sort_by_key(|stats| stats[0].starts_with("/sys/fs/cgroup/unified"));
    found.into_iter().next().unwrap_or_default()
}

/// Where a line of /proc/self/cgroup says that the group is, if its hierarchy can hold quotas: the mount, and the path in it.
fn cpu_hierarchy(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
    let group = PathBuf::from(group.trim_start_matches('/'));
    let base = Path::new("/sys/fs/cgroup");
    if controllers.is_empty() {
        return Some((base.to_owned(), group));
    }
    let controller = controllers.split(',').find(|&name| name == "cpu")?;
    let mount = [controllers, controller].map(|name| base.join(name)).into_iter().find(|mount| mount.exists())?;
    Some((mount, group))
}

/// The cpu.stat of a group and of every group above it, the nearest first.
fn stats_up_from(mount: &Path, group: &Path) -> Vec<PathBuf> {
    group.ancestors().map(|group| mount.join(group).join("cpu.stat")).filter(|stat| stat.exists()).collect()
}

/// How long the calling thread ran or waited to run (schedstat: run time, wait time, slices; nanoseconds).
#[derive(Debug)]
pub struct ThreadWatch {
    stat: Option<File>,
    seen_ns: u64,
}

impl ThreadWatch {
    /// Watches the calling thread.
    pub fn of_this_thread() -> Self {
        let mut watch = Self { stat: File::open("/proc/thread-self/schedstat").ok(), seen_ns: 0 };
        watch.seen_ns = watch.total_ns();
        watch
    }

    /// Nanoseconds since the last look in which the thread ran or waited to run.
    pub fn look(&mut self) -> u64 {
        let total = self.total_ns();
        total.saturating_sub(std::mem::replace(&mut self.seen_ns, total))
    }

    fn total_ns(&self) -> u64 {
        let Some(file) = &self.stat else { return 0 };
        let mut buffer = [0_u8; 128];
        let length = file.read_at(&mut buffer, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..length]);
        text.split_whitespace().take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
    }
}

/// Processors that this process may use, at least one.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_cgroups_say_how_long_they_throttled() {
        for (stat, us) in [
            ("usage_usec 5\nnr_throttled 3\nthrottled_usec 1234\n", 1234),
            ("nr_periods 9\nnr_throttled 3\nthrottled_time 5000000\n", 5000),
            ("garbage", 0),
            ("", 0),
        ] {
            assert_eq!(throttled_us(stat), us, "{stat:?}");
        }
    }

    #[test]
    fn a_line_of_the_own_cgroups_leads_to_the_hierarchy_with_the_quotas() {
        for (line, found) in [
            ("0::/a/b", Some(("/sys/fs/cgroup", "a/b"))),
            ("0::/", Some(("/sys/fs/cgroup", ""))),
            ("3:memory:/a", None),
            ("4:cpuset:/a", None),
            ("garbage", None),
        ] {
            let found = found.map(|(mount, group)| (PathBuf::from(mount), PathBuf::from(group)));
            assert_eq!(cpu_hierarchy(line), found, "{line}");
        }
    }

    #[test]
    fn a_quota_above_the_own_group_is_looked_at_too() {
        let mount = std::env::temp_dir().join(format!("plimsoll-cgroups-{}", std::process::id()));
        fs::create_dir_all(mount.join("pod/container")).unwrap();
        for (group, us) in [("", 0), ("pod", 700), ("pod/container", 30)] {
            fs::write(mount.join(group).join("cpu.stat"), format!("throttled_usec {us}\n")).unwrap();
        }
        let stats = stats_up_from(&mount, Path::new("pod/container"));
        let throttled: Vec<u64> = stats.iter().map(|path| throttled_of(&File::open(path).unwrap())).collect();
        fs::remove_dir_all(&mount).unwrap();
        assert_eq!(throttled, [30, 700, 0]);
    }

    #[test]
    fn a_busy_thread_is_seen_to_run() {
        let mut watch = ThreadWatch::of_this_thread();
        let mut sum = 0_u64;
        // Enough work for several scheduler ticks: the kernel counts run time at switches and ticks.
        for i in 0..200_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(i));
        }
        assert!(watch.look() > 0);
    }
}
