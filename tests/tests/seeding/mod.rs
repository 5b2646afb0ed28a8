//! Seeding, verifying and removing, against real servers: what is written is read back with clients that share no code with
//! ours and compared with the contract.

mod asked;
mod contents;
mod daily;
mod doors;
mod elections;
mod green;
mod interrupted;
mod killed;
mod long;
mod ours;
mod reads;
mod refused;
mod runs;
mod whole;

use plimsoll_tests::harness::databases::{CASSANDRA_USER, CassandraServer, MongoServer, cassandra, with_database};
use plimsoll_tests::harness::processes::{Ended, Process, Program};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

/// A loaded box writes some thousand rows a second.
const LIMIT: Duration = Duration::from_secs(120);
/// Less than an independent client may take to answer.
const FREEZE_LIMIT: Duration = Duration::from_secs(45);

/// `plimsoll` with these arguments and the databases' flags.
fn command(arguments: &str, databases: &[String]) -> anyhow::Result<Command> {
    let mut command = Program::Cli.command()?;
    command.args(arguments.split_whitespace()).args(databases).env("CASSANDRA_PASSWORD", "cassandra");
    Ok(command)
}

fn plimsoll(arguments: &str, databases: &[String]) -> anyhow::Result<Ended> {
    Process::spawn(command(arguments, databases)?)?.wait(LIMIT)
}

/// The same, which has to end well.
#[track_caller]
fn done(arguments: &str, databases: &[String]) -> anyhow::Result<String> {
    let ended = plimsoll(arguments, databases)?;
    anyhow::ensure!(ended.code == Some(0), "plimsoll {arguments}: {ended:?}");
    Ok(ended.stdout)
}

/// The same, which has to be refused with this exit code. Its only error, which is one line.
fn refused(arguments: &str, databases: &[String], code: i32) -> anyhow::Result<String> {
    let ended = plimsoll(arguments, databases)?;
    anyhow::ensure!(ended.code == Some(code), "plimsoll {arguments}: {ended:?}");
    anyhow::ensure!(ended.stdout.is_empty(), "an error that is no error: {ended:?}");
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| !line.starts_with("seed: ")).collect();
    anyhow::ensure!(errors.len() == 1, "not one line: {ended:?}");
    Ok(errors[0].strip_prefix("error: ").unwrap_or(errors[0]).to_owned())
}

/// Freezes a process where this is true of the database for the first time. It is frozen whenever that is looked at: what was seen is
/// so when it goes on, or is killed.
fn frozen_when(process: u32, mongo: &MongoServer, is_true: &str) -> anyhow::Result<()> {
    let watch = format!(
        "import os, signal, time\n\
         def moves(thread): return open(f'/proc/{process}/task/{{thread}}/stat').read().rsplit(') ')[-1][0] not in 'TZ'\n\
         until = time.monotonic() + {limit}\n\
         while True:\n    \
             os.kill({process}, signal.SIGSTOP)\n    \
             while any(moves(thread) for thread in os.listdir('/proc/{process}/task')): time.sleep(0.001)\n    \
             out = {is_true}\n    \
             if out or time.monotonic() > until: break\n    \
             os.kill({process}, signal.SIGCONT)\n    \
             time.sleep(0.02)",
        limit = FREEZE_LIMIT.as_secs(),
    );
    let seen = with_database(&mongo.uri(), "chat", &watch)?;
    anyhow::ensure!(seen == json!(true), "not seen within {FREEZE_LIMIT:?}: {is_true}");
    Ok(())
}

fn mongo_flags(server: &MongoServer) -> Vec<String> {
    vec![format!("--mongo-uri={}", server.uri())]
}

/// Flags of both, with a keyspace of the test's own.
fn both_flags(server: &MongoServer, cassandra: &CassandraServer, keyspace: &str) -> Vec<String> {
    let mut flags = mongo_flags(server);
    flags.extend([
        format!("--cassandra-hosts={}", cassandra.address()),
        format!("--cassandra-keyspace={keyspace}"),
        format!("--cassandra-username={CASSANDRA_USER}"),
    ]);
    flags
}

/// The same flags, but Cassandra is reached at this address.
fn through(address: &str, flags: &[String]) -> Vec<String> {
    let others = flags.iter().filter(|flag| !flag.starts_with("--cassandra-hosts=")).cloned();
    others.chain([format!("--cassandra-hosts={address}")]).collect()
}

/// Both databases, empty, with the services' schema made by the seeding itself.
fn both(keyspace: &str) -> anyhow::Result<(MongoServer, &'static CassandraServer, Vec<String>)> {
    let (mongo, cassandra) = (MongoServer::start(&Default::default())?, cassandra()?);
    let flags = both_flags(&mongo, cassandra, keyspace);
    Ok((mongo, cassandra, flags))
}
