//! The long versions: a part of the largest preset in bounded memory, and a disk that fills up.

use super::{both, command, done, mongo_flags, plimsoll};
use anyhow::Context as _;
use plimsoll_tests::harness::databases::{MongoOptions, MongoServer, has_both, has_mongo};
use plimsoll_tests::harness::processes::{Ended, Process};
use plimsoll_tests::harness::prove;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(1200);
/// What a seeding may take, whatever its size.
const MOST_KIB: u64 = 500 * 1024;

/// Runs it to its end: how that was, and the most memory that it held, in KiB.
fn most_memory(arguments: &str, flags: &[String]) -> anyhow::Result<(Ended, u64)> {
    let mut process = Process::spawn(command(arguments, flags)?)?;
    let status = format!("/proc/{}/status", process.pid());
    let mut most = 0;
    while process.is_running()? {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let high =
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
        most = high.unwrap_or(most);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((process.wait(LONG)?, most))
}

#[test]
fn a_hundredth_of_the_largest_takes_no_more_memory_than_a_thousandth() {
    if !prove::whole() || !has_both() {
        return;
    }
    let (_mongo, _cassandra, flags) = both("large").unwrap();
    // Chunks are 10 of users and 1,000 rooms of 50,000 messages: a room, and ten of them.
    let seed = "seed --workload history --preset history-large --create-schema";
    let (one, memory_of_one) = most_memory(&format!("{seed} --shard 20/1010"), &flags).unwrap();
    assert_eq!(one.code, Some(0), "{one:?}");
    done("teardown --workload history --yes", &flags).unwrap();
    let (ten, memory_of_ten) = most_memory(&format!("{seed} --shard 20/101"), &flags).unwrap();
    assert_eq!(ten.code, Some(0), "{ten:?}");
    eprintln!("peak memory: {memory_of_one} KiB for a room, {memory_of_ten} KiB for ten");
    assert!(memory_of_ten < MOST_KIB, "{memory_of_ten} KiB");
    // Four rooms are under way at once, so ten hold at most what four do.
    assert!(memory_of_ten < 2 * memory_of_one + 32 * 1024, "{memory_of_one} and {memory_of_ten} KiB");
}

/// A file system of its own, unmounted at the end.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path, size: &str) -> anyhow::Result<Self> {
        Self::run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path))?;
        Ok(Self(path))
    }

    fn grow(&self, size: &str) -> anyhow::Result<()> {
        Self::run(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(self.0))
    }

    fn run(command: &mut Command) -> anyhow::Result<()> {
        let done = command.status().context("mounting")?;
        anyhow::ensure!(done.success(), "{command:?}: {done}");
        Ok(())
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: the server may not have let go yet.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_disk_that_fills_up_ends_a_seeding_that_goes_on_when_there_is_room() {
    // SAFETY: takes and gives an integer.
    if !prove::whole() || !has_mongo() || unsafe { libc::geteuid() } != 0 {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(dir.path(), "24m").unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let options = MongoOptions { dir: Some(data), ..MongoOptions::default() };
    let mongo = MongoServer::start(&options).unwrap();
    let full = plimsoll("seed --preset large --create-schema", &mongo_flags(&mongo)).unwrap();
    assert!(matches!(full.code, Some(2 | 3)) && full.stdout.is_empty(), "{full:?}");
    let errors: Vec<&str> = full.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{full:?}");
    eprintln!("{}", errors[0]);
    drop(mongo);
    disk.grow("2g").unwrap();
    let mongo = MongoServer::start(&options).unwrap();
    let flags = mongo_flags(&mongo);
    let told = plimsoll("verify --preset large --nats-url nats://127.0.0.1:1", &flags).unwrap();
    assert!(
        told.code == Some(2) && (told.stderr.contains("is not whole") || told.stderr.contains("no seeding")),
        "{told:?}"
    );
    assert!(done("seed --preset large --create-schema", &flags).unwrap().starts_with("seeded "));
}
