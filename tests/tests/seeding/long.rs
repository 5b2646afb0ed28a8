//! The long versions: a part of the largest preset in bounded memory, and a disk that fills up.

use super::{both, both_flags, command, done, mongo_flags, plimsoll};
use anyhow::Context as _;
use plimsoll_common::contract::history::{HistoryPreset, RoomHistory, message_id, reply_id};
use plimsoll_tests::harness::databases::{
    CassandraServer, MongoOptions, MongoServer, need_both, need_mongo, with_database,
};
use plimsoll_tests::harness::processes::{Ended, Process};
use plimsoll_tests::harness::prove;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write as _;
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
fn a_hundredth_of_the_largest_takes_no_more_memory_than_a_third_of_it() {
    if !prove::whole() {
        return;
    }
    need_both();
    let (_mongo, _cassandra, flags) = both("few").unwrap();
    // Chunks are 10 of users and 1,000 rooms of 50,000 messages, of which four are under way at once.
    let seed = "seed --workload history --preset history-large --create-schema";
    let (few, memory_of_few) = most_memory(&format!("{seed} --shard 200/256"), &flags).unwrap();
    assert_eq!(few.code, Some(0), "{few:?}");
    let (_mongo, _cassandra, flags) = both("ten").unwrap();
    let (ten, memory_of_ten) = most_memory(&format!("{seed} --shard 20/101"), &flags).unwrap();
    assert_eq!(ten.code, Some(0), "{ten:?}");
    eprintln!("peak memory: {memory_of_few} KiB for a 256th, {memory_of_ten} KiB for a 101st");
    assert!(memory_of_ten < MOST_KIB, "{memory_of_ten} KiB");
    assert!(memory_of_ten < memory_of_few + memory_of_few / 4 + 16 * 1024, "{memory_of_few} and {memory_of_ten} KiB");
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

    /// Something else takes all of its room but so many bytes.
    fn fill_but(&self, bytes: usize) -> anyhow::Result<()> {
        let mut filler = std::fs::File::create(self.0.join("filler"))?;
        while filler.write_all(&[1; 1 << 20]).is_ok() {}
        let taken = filler.metadata()?.len();
        Ok(filler.set_len(taken.saturating_sub(bytes as u64))?)
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
    if !prove::whole() {
        return;
    }
    need_mongo();
    // SAFETY: takes and gives an integer.
    assert_eq!(unsafe { libc::geteuid() }, 0, "mounting a small disk takes root");
    let dir = tempfile::tempdir().unwrap();
    // What the server takes when it is empty, and a little more.
    let disk = SmallDisk::mount(dir.path(), "8m").unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let options = MongoOptions { dir: Some(data), ..MongoOptions::default() };
    let mongo = MongoServer::start(&options).unwrap();
    let full = plimsoll("seed --preset large --create-schema", &mongo_flags(&mongo)).unwrap();
    assert!(matches!(full.code, Some(2 | 3)) && full.stdout.is_empty(), "{full:?}");
    let errors: Vec<&str> = full.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{full:?}");
    eprintln!("{}", errors[0]);
    assert!(errors[0].contains("the same command goes on"), "{full:?}");
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
    // Read back by somebody else: every document is there, and those of rooms and members have what comes last in them.
    let whole = "out = [db.users.count_documents({'statusText': ''}), db.rooms.count_documents({'encKey.priv': {'$exists': True}}), \
         db.subscriptions.count_documents({'hasUnread': False})]";
    assert_eq!(with_database(&mongo.uri(), "chat", whole).unwrap(), json!([10_000, 1_000, 10_000]));
}

#[test]
fn a_cassandra_whose_disk_fills_up_is_named_and_the_seeding_goes_on_when_there_is_room() {
    if !prove::whole() {
        return;
    }
    need_both();
    // SAFETY: takes and gives an integer.
    assert_eq!(unsafe { libc::geteuid() }, 0, "mounting a small disk takes root");
    let mongo = MongoServer::start(&Default::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // It comes up where there is room; then something else takes all but what its commit log takes in seconds.
    let disk = SmallDisk::mount(dir.path(), "192m").unwrap();
    let (mut process, cassandra) = CassandraServer::start_in(dir.path()).unwrap();
    disk.fill_but(12 << 20).unwrap();
    let seed = "seed --workload history --preset history-medium --shard 1/4 --create-schema";
    let full = plimsoll(seed, &both_flags(&mongo, &cassandra, "filled")).unwrap();
    assert!(full.code == Some(3) && full.stdout.is_empty(), "{full:?}");
    let errors: Vec<&str> = full.stderr.lines().filter(|line| !line.starts_with("seed: ")).collect();
    assert_eq!(errors.len(), 1, "{full:?}");
    eprintln!("{}", errors[0]);
    assert!(errors[0].contains("Cassandra at ") && errors[0].contains("the same command goes on"), "{full:?}");
    // Without a disk it mostly ends by itself.
    if process.is_running().unwrap() {
        process.signal(libc::SIGKILL).unwrap();
    }
    process.wait(LONG).unwrap();
    disk.grow("2g").unwrap();
    let (_process, cassandra) = CassandraServer::start_in(dir.path()).unwrap();
    let resumed = plimsoll(seed, &both_flags(&mongo, &cassandra, "filled")).unwrap();
    assert!(resumed.code == Some(0) && resumed.stderr.contains("seed: goes on after"), "{resumed:?}");
    assert!(resumed.stdout.contains("still to be seeded: --shard 2/4, 3/4, 4/4"), "{resumed:?}");
    // Read back by somebody else: of every fourth chunk, the first of which is the users, every message and reply by its id.
    let ids = |table: &str| -> BTreeSet<String> {
        let rows = cassandra.select(&format!("SELECT message_id FROM filled.{table}")).unwrap();
        rows.iter().map(|row| row["message_id"].as_str().unwrap().to_owned()).collect()
    };
    let (mut messages, mut replies) = (BTreeSet::new(), BTreeSet::new());
    for room in (3..100).step_by(4) {
        let history = RoomHistory::new(HistoryPreset::Medium, 42, room);
        let id = format!("hroom-{room:06}");
        messages.extend((0..history.messages()).map(|at| message_id(&id, at)));
        let threads = history.threads();
        replies.extend(
            threads
                .iter()
                .flat_map(|&at| (0..history.replies()).map(move |reply| (at, reply)))
                .map(|(at, reply)| reply_id(&id, at, reply)),
        );
    }
    assert!(ids("messages_by_room") == messages, "messages_by_room is not whole");
    assert!(ids("thread_messages_by_thread") == replies, "thread_messages_by_thread is not whole");
    messages.extend(replies);
    assert!(ids("messages_by_id") == messages, "messages_by_id is not whole");
}
