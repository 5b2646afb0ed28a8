//! Memory that does not grow with what is seeded, and disks that fill up: each in short, and at length for `make prove`.

use super::{both, both_flags, command, done, mongo_flags, plimsoll, refused, through};
use anyhow::Context as _;
use plimsoll_common::contract::history::{HistoryPreset, RoomHistory, message_id, reply_id};
use plimsoll_tests::harness::cassandra_proxy::{CassandraProxy, Rows};
use plimsoll_tests::harness::databases::{
    CassandraServer, MongoOptions, MongoServer, cassandra, need_both, need_mongo, with_database,
};
use plimsoll_tests::harness::mongo_proxy::{Fault, MongoProxy};
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
/// What it may take more for each further message: less than the letters of its id. What an allocator has not given back yet is a
/// third of that among half a million.
const OF_AN_ID: f64 = 24.0;
/// The same among millions: the 65 million messages of the largest stay below what a seeding may take.
const OF_THE_LARGEST: f64 = 7.0;

/// What a seeding came to.
#[derive(Debug)]
struct Seeding {
    /// With their replies.
    messages: u64,
    /// The most memory that it held.
    peak_kib: u64,
}

impl Seeding {
    /// Seeds every `of`th room of a preset, into databases of its own or none.
    fn run(preset: HistoryPreset, of: u32, flags: &[String]) -> anyhow::Result<Self> {
        // Chunks are a thousand users or a room each: those of users come first.
        let of_users = preset.shape().users.div_ceil(1000);
        let shard = if of > 1 { format!(" --shard {of}/{of}") } else { String::new() };
        let seed = format!("seed --workload history --preset {preset} --create-schema{shard}");
        let (ended, peak_kib) = most_memory(&seed, flags)?;
        anyhow::ensure!(ended.code == Some(0), "{ended:?}");
        let rooms = (of - 1..of_users + preset.shape().rooms).step_by(of as usize);
        let messages = rooms.filter_map(|chunk| chunk.checked_sub(of_users)).map(|room| {
            let history = RoomHistory::new(preset, 42, room);
            u64::from(history.messages()) + history.threads().len() as u64 * u64::from(history.replies())
        });
        Ok(Self { messages: messages.sum(), peak_kib })
    }

    /// That this one takes no more than a smaller one.
    #[track_caller]
    fn grows_by_nothing(&self, small: &Self, most_bytes: f64) {
        let further = self.messages - small.messages;
        let bytes = (self.peak_kib as f64 - small.peak_kib as f64) * 1024.0 / further as f64;
        eprintln!("{small:?}, {self:?}: {bytes:.2} bytes for each further message");
        assert!(self.messages >= 20 * small.messages, "{small:?} is no small part of {self:?}");
        assert!(self.peak_kib < MOST_KIB, "{self:?}");
        assert!(bytes < most_bytes, "{bytes:.2} bytes for each of {further} further messages");
    }
}

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

/// Seeds where everything is acknowledged and nobody keeps it: what is measured is the seeding alone, as fast as it goes.
async fn into_nothing(preset: HistoryPreset, of: u32, keyspace: &'static str) -> anyhow::Result<Seeding> {
    let mongo = MongoServer::start(&Default::default())?;
    let documents = MongoProxy::start(mongo.address(), &["insert"], Fault::Acknowledge).await?;
    let rows = CassandraProxy::start(cassandra()?.address(), Rows::Acknowledged).await?;
    let mut flags = through(&rows.address(), &both_flags(&mongo, cassandra()?, keyspace));
    flags[0] = format!("--mongo-uri={}", documents.uri());
    let seeded = tokio::task::spawn_blocking(move || Seeding::run(preset, of, &flags)).await??;
    // A row by room or thread, and one by id.
    assert_eq!(rows.written(), 2 * seeded.messages);
    Ok(seeded)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundredth_of_the_largest_takes_no_more_memory_than_a_twentieth_of_it() {
    need_both();
    let few = into_nothing(HistoryPreset::Medium, 21, "few").await.unwrap();
    let all = into_nothing(HistoryPreset::Medium, 1, "all").await.unwrap();
    all.grows_by_nothing(&few, OF_AN_ID);
    if !prove::whole() {
        return;
    }
    // The same where it is kept, which is slower; and a tenth of the largest, of rooms ten times as long.
    let kept = tokio::task::spawn_blocking(|| {
        let seeded = |of, keyspace| {
            let (_mongo, _cassandra, flags) = both(keyspace).unwrap();
            Seeding::run(HistoryPreset::Medium, of, &flags).unwrap()
        };
        seeded(1, "kept_all").grows_by_nothing(&seeded(21, "kept_few"), OF_AN_ID);
    });
    kept.await.unwrap();
    let few = into_nothing(HistoryPreset::Large, 250, "few_large").await.unwrap();
    let tenth = into_nothing(HistoryPreset::Large, 10, "tenth").await.unwrap();
    tenth.grows_by_nothing(&few, OF_THE_LARGEST);
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
    need_mongo();
    // SAFETY: takes and gives an integer.
    assert_eq!(unsafe { libc::geteuid() }, 0, "mounting a small disk takes root");
    // A tenth of the documents on a tenth of the disk, or all of both.
    let (preset, left, counts) = match prove::whole() {
        true => ("large", 8 << 20, json!([10_000, 1_000, 10_000])),
        false => ("medium", 768 << 10, json!([1_000, 100, 1_000])),
    };
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(dir.path(), "9m").unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let options = MongoOptions { dir: Some(data), ..MongoOptions::default() };
    let mongo = MongoServer::start(&options).unwrap();
    disk.fill_but(left).unwrap();
    let seed = format!("seed --preset {preset} --create-schema");
    let full = plimsoll(&seed, &mongo_flags(&mongo)).unwrap();
    assert!(matches!(full.code, Some(2 | 3)) && full.stdout.is_empty(), "{full:?}");
    let errors: Vec<&str> = full.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{full:?}");
    eprintln!("{}", errors[0]);
    assert!(errors[0].contains("the same command goes on"), "{full:?}");
    drop(mongo);
    disk.grow("2g").unwrap();
    let mongo = MongoServer::start(&options).unwrap();
    let flags = mongo_flags(&mongo);
    let told = plimsoll(&format!("verify --preset {preset} --nats-url nats://127.0.0.1:1"), &flags).unwrap();
    assert!(
        told.code == Some(2) && (told.stderr.contains("is not whole") || told.stderr.contains("no seeding")),
        "{told:?}"
    );
    assert!(done(&seed, &flags).unwrap().starts_with("seeded "));
    // Read back by somebody else: every document is there, and those of rooms and members have what comes last in them.
    let whole = "out = [db.users.count_documents({'statusText': ''}), db.rooms.count_documents({'encKey.priv': {'$exists': True}}), \
         db.subscriptions.count_documents({'hasUnread': False})]";
    assert_eq!(with_database(&mongo.uri(), "chat", whole).unwrap(), counts);
}

/// Every message and reply of these rooms is there by each of its ways, read back by somebody else.
#[track_caller]
fn is_whole(cassandra: &CassandraServer, keyspace: &str, rooms: impl Iterator<Item = u32>) {
    let ids = |table: &str| -> BTreeSet<String> {
        let rows = cassandra.select(&format!("SELECT message_id FROM {keyspace}.{table}")).expect("its rows");
        rows.iter().map(|row| row["message_id"].as_str().expect("an id").to_owned()).collect()
    };
    let (mut messages, mut replies) = (BTreeSet::new(), BTreeSet::new());
    for room in rooms {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cassandra_that_can_no_longer_write_is_named_and_the_seeding_goes_on_once_it_can() {
    need_both();
    let server = cassandra().unwrap().address();
    let refuses = CassandraProxy::start(server.clone(), Rows::RefusedAfter(4_000)).await.unwrap();
    let ends = CassandraProxy::start(server, Rows::GoneAfter(6_000)).await.unwrap();
    let addresses = [refuses.address(), ends.address()];
    let seeded = tokio::task::spawn_blocking(move || {
        let (_mongo, cassandra, flags) = both("unwritten").unwrap();
        // The users, and one room: 5,000 messages and some 700 replies.
        let seed = "seed --workload history --preset history-medium --shard 1/60 --create-schema";
        for (address, words) in
            addresses.iter().zip(["could not do its part in writing to ", "was lost while writing to "])
        {
            let error = refused(seed, &through(address, &flags), 3).unwrap();
            assert!(error.contains(&format!("Cassandra at {address} ")) && error.contains(words), "{error}");
            assert!(error.contains("the same command goes on"), "{error}");
        }
        let resumed = plimsoll(seed, &flags).unwrap();
        assert!(resumed.code == Some(0) && resumed.stderr.contains("seed: goes on after 1,000 "), "{resumed:?}");
        is_whole(cassandra, "unwritten", std::iter::once(59));
    });
    seeded.await.unwrap();
    assert!(refuses.written() >= 4_000 && ends.written() >= 6_000);
}

#[test]
fn a_cassandra_whose_disk_fills_up_is_named_and_the_seeding_goes_on_when_there_is_room() {
    if !prove::whole() {
        // A Cassandra of its own is started twice, and some 300,000 rows are written to it.
        eprintln!("{}", prove::ELSEWHERE);
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
    // Of every fourth chunk, the first of which is the users.
    is_whole(&cassandra, "filled", (3..100).step_by(4));
}
