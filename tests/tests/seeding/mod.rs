//! Seeding, verifying and removing, against real servers: what is written is read back with clients that share no code with
//! ours and compared with the contract.

mod contents;
mod daily;
mod killed;
mod long;
mod ours;
mod reads;
mod refused;
mod runs;
mod whole;

use plimsoll_tests::harness::databases::{CASSANDRA_USER, CassandraServer, MongoServer, cassandra};
use plimsoll_tests::harness::processes::{Ended, Process, Program};
use std::process::Command;
use std::time::Duration;

/// A loaded box writes some thousand rows a second.
const LIMIT: Duration = Duration::from_secs(120);

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

/// Both databases, empty, with the services' schema made by the seeding itself.
fn both(keyspace: &str) -> anyhow::Result<(MongoServer, &'static CassandraServer, Vec<String>)> {
    let (mongo, cassandra) = (MongoServer::start(&Default::default())?, cassandra()?);
    let flags = both_flags(&mongo, cassandra, keyspace);
    Ok((mongo, cassandra, flags))
}
