//! A teardown asks whoever sits at its terminal, and removes nothing unless they say yes.

use super::{LIMIT, command, done, mongo_flags};
use plimsoll_tests::harness::databases::{MongoServer, collections, need_mongo};
use plimsoll_tests::harness::processes::{Ended, Process};

const COLLECTIONS: [&str; 4] = ["users", "rooms", "subscriptions", "plimsoll_seeds"];
const CTRL_C: &str = "\u{3}";
const CTRL_D: &str = "\u{4}";

/// How it ends where this is typed when it asks.
fn answered(keys: &str, flags: &[String]) -> anyhow::Result<Ended> {
    let (mut process, mut terminal) = Process::spawn_at_terminal(command("teardown", flags)?)?;
    process.wait_for_stderr("Remove this? [y/N] ", LIMIT)?;
    terminal.types(keys)?;
    process.wait(LIMIT)
}

#[test]
fn only_yes_removes_anything() {
    need_mongo();
    let mongo = MongoServer::start(&Default::default()).unwrap();
    let flags = mongo_flags(&mongo);
    done("seed --preset small --create-schema", &flags).unwrap();
    let there = || collections(&mongo.uri(), "chat", &COLLECTIONS).unwrap();
    let seeded = there();
    for (keys, code, ending) in [
        ("n\n", 2, "error: nothing was removed\n"),
        ("\n", 2, "error: nothing was removed\n"),
        ("yep\n", 2, "error: nothing was removed\n"),
        // Nobody has ended the line of the question.
        (CTRL_D, 2, "[y/N] \nerror: nothing was removed\n"),
        (CTRL_C, 130, "interrupted: the same command goes on\n"),
    ] {
        let ended = answered(keys, &flags).unwrap();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{keys:?}: {ended:?}");
        assert!(ended.stderr.ends_with(ending), "{keys:?}: {ended:?}");
        assert!(there() == seeded, "{keys:?} removed something");
    }
    let ended = answered("Yes\n", &flags).unwrap();
    assert!(ended.code == Some(0) && ended.stdout.starts_with("removed "), "{ended:?}");
    // The record stays, as the way to what runs have sent: no Cassandra was named.
    let left = there();
    assert!(COLLECTIONS[..3].iter().all(|name| left[name].is_empty()), "{ended:?}");
}
