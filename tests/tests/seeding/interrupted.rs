//! SIGTERM and SIGINT: as the first process of a container a program hears of them only if it listens. What they end goes on with
//! the same command.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use plimsoll_tests::harness::databases::{MongoServer, need_mongo, with_database};
use plimsoll_tests::harness::processes::{Ended, Process, Program};
use plimsoll_tests::harness::signals;
use serde_json::json;
use tokio::time::Instant;

use super::{command, done, frozen_when, mongo_flags};

const LIMIT: Duration = Duration::from_secs(30);

/// The same command as the first process of a namespace, as an engine runs it.
fn first(command: &Command) -> Command {
    let mut first = Command::new("unshare");
    first.args(["--pid", "--fork", "--kill-child"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => first.env(name, value),
            None => first.env_remove(name),
        };
    }
    first
}

/// The first process of the namespace.
fn inside(outside: &mut Process) -> anyhow::Result<u32> {
    let children = format!("/proc/{0}/task/{0}/children", outside.pid());
    let began = Instant::now();
    loop {
        if let Ok(inside) = fs::read_to_string(&children)?.trim().parse() {
            return Ok(inside);
        }
        ensure!(began.elapsed() < LIMIT && outside.is_running()?, "{:?}", outside.stderr());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the first process of the namespace in order, as an engine does, also where it is frozen.
fn stop(outside: &mut Process) -> anyhow::Result<Ended> {
    let inside = inside(outside)?;
    signals::send(inside, libc::SIGTERM)?;
    // Who is not frozen may have ended by now.
    let _ = signals::send(inside, libc::SIGCONT);
    outside.wait(LIMIT)
}

#[test]
fn a_seeding_and_a_removal_end_at_once_in_a_container_and_go_on_later() -> anyhow::Result<()> {
    need_mongo();
    let mut mongo = MongoServer::start(&Default::default())?;
    let flags = mongo_flags(&mongo);
    let seed = "seed --preset large";
    let mut seeding = Process::spawn(first(&command(&format!("{seed} --create-schema"), &flags)?))?;
    let inside = inside(&mut seeding)?;
    frozen_when(inside, &mongo, "db.users.find_one() is not None")?;
    let ended = stop(&mut seeding)?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{ended:?}");
    assert!(ended.stderr.ends_with("interrupted: the same command goes on\n"), "{ended:?}");
    let counts = "out = [db[c].count_documents({}) for c in ('users', 'rooms', 'subscriptions')]";
    let whole = json!([10_000, 1_000, 10_000]);
    ensure!(with_database(&mongo.uri(), "chat", counts)? != whole, "it was whole before it was interrupted");
    done(seed, &flags)?;
    assert_eq!(with_database(&mongo.uri(), "chat", counts)?, whole);

    let mut removal = Process::spawn(first(&command("teardown --yes", &flags)?))?;
    removal.wait_for_stderr("teardown removes ", LIMIT)?;
    // Held where it is: the database answers nobody.
    mongo.signal(libc::SIGSTOP)?;
    let ended = stop(&mut removal)?;
    mongo.signal(libc::SIGCONT)?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{ended:?}");
    done("teardown --yes", &flags)?;
    assert_eq!(with_database(&mongo.uri(), "chat", counts)?, json!([0, 0, 0]));
    Ok(())
}

#[test]
fn whoever_waits_for_an_answer_is_ended_by_either_signal() -> anyhow::Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let at = silent.local_addr()?;
    let mongo = format!("--mongo-uri=mongodb://{at}/?serverSelectionTimeoutMS=60000&connectTimeoutMS=60000");
    let (nats, agents) = (format!("--nats-url=nats://{at}"), format!("--agents={at}"));
    let cases: [(&[&str], &str); 5] = [
        (&["seed", "--preset", "small", &mongo], "the same command goes on"),
        (&["teardown", "--yes", &mongo], "the same command goes on"),
        (&["verify", "--preset", "small", &nats], "not everything was compared"),
        (&["agents", &agents], "not every agent has answered"),
        (&["calibrate", "--save", "/nonexistent/ceilings.toml", &agents], "nothing was kept"),
    ];
    for (arguments, words) in cases {
        for signal in [libc::SIGTERM, libc::SIGINT] {
            let mut command = Program::Cli.command()?;
            command.args(arguments);
            let mut process = Process::spawn(command)?;
            // It listens for signals before it asks anybody.
            let (_asked, _) = silent.accept()?;
            process.signal(signal)?;
            let ended = process.wait(LIMIT)?;
            assert_eq!(ended.code, Some(130), "{arguments:?}: {ended:?}");
            assert!(ended.stderr.ends_with(&format!("interrupted: {words}\n")), "{arguments:?}: {ended:?}");
        }
    }
    Ok(())
}
