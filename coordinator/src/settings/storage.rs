//! The settings about the databases behind the chat: where they are, and what opens them.

use std::fmt;
use std::path::PathBuf;

use plimsoll_common::plan::redact_url;

use super::error::SettingsError;
use super::layers::Source;
use super::secure::kept;
use super::values::{Values, list, number};

/// The databases behind the chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePlan {
    /// Users, rooms and memberships.
    pub mongo: MongoPlan,
    /// Messages.
    pub cassandra: Option<CassandraPlan>,
    /// The length of a bucket of `messages_by_room`.
    pub bucket_hours: u32,
}

/// A MongoDB, and what opens it.
#[derive(Clone, PartialEq, Eq)]
pub struct MongoPlan {
    /// May carry a password.
    pub uri: String,
    /// The database.
    pub database: String,
    /// Who we are, and where the password is read.
    pub login: Option<DatabaseLogin>,
    /// Whose certificates are accepted; given, it is reached over TLS.
    pub tls_ca: Option<PathBuf>,
    /// A certificate and its key, in one file.
    pub tls_identity: Option<PathBuf>,
}

/// A Cassandra or ScyllaDB, and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CassandraPlan {
    /// Nodes to begin with, `host:port`.
    pub hosts: Vec<String>,
    /// The keyspace.
    pub keyspace: String,
    /// Who we are, and where the password is read.
    pub login: Option<DatabaseLogin>,
    /// Whose certificates are accepted; given, it is reached over TLS.
    pub tls_ca: Option<PathBuf>,
    /// A certificate and its key, in one file.
    pub tls_identity: Option<PathBuf>,
}

/// A user, and where its password is read: a file, or `env:` and a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseLogin {
    /// The user.
    pub user: String,
    /// Never the password itself.
    pub password: String,
}

impl fmt::Debug for MongoPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MongoPlan({}, {})", redact_url(&self.uri), self.database)
    }
}

/// The databases, where a MongoDB is named.
///
/// # Errors
/// A value that its setting does not take.
pub fn storage(values: &Values) -> Result<Option<StoragePlan>, SettingsError> {
    let Some(uri) = values.optional("mongo-uri") else {
        return match values.optional("cassandra-hosts") {
            Some(hosts) if hosts.strength() > Source::NativeVariable("").strength() => {
                Err(hosts.error("what was seeded is recorded in MongoDB: takes --mongo-uri besides"))
            }
            _ => Ok(None),
        };
    };
    const TAKES: &str = "an address such as mongodb://chat-db:27017 or mongodb+srv://…";
    let has_scheme = ["mongodb://", "mongodb+srv://"].iter().any(|scheme| uri.text().starts_with(scheme));
    if !has_scheme {
        return Err(uri.takes(TAKES));
    }
    let options = uri.text().split_once('?').map_or("", |(_, options)| options).to_lowercase();
    if ["password", "token", "properties"].iter().any(|secret| options.contains(secret)) {
        return Err(uri.error(
            "its options carry a secret, which would show in reports: takes the user and password before its '@', \
             or --mongo-username and --mongo-password",
        ));
    }
    let mongo = MongoPlan {
        uri: uri.text().to_owned(),
        database: name(values, "mongo-db")?,
        login: login(values, "mongo-username", "mongo-password", "env:MONGO_PASSWORD")?,
        tls_ca: path(values, "mongo-tls-ca"),
        tls_identity: path(values, "mongo-tls-identity"),
    };
    let hours = values.required("message-bucket-hours", "a whole number")?;
    Ok(Some(StoragePlan { mongo, cassandra: cassandra(values)?, bucket_hours: number(&hours, 1, 24 * 366)? as u32 }))
}

fn cassandra(values: &Values) -> Result<Option<CassandraPlan>, SettingsError> {
    const TAKES: &str = "addresses such as chat-db-1:9042,chat-db-2:9042";
    let Some(hosts) = values.optional("cassandra-hosts") else { return Ok(None) };
    let host = |host: &str| {
        let (name, port) = host.rsplit_once(':').unwrap_or((host, "9042"));
        let fits =
            !name.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) && !host.contains(['/', '@', ' ']);
        if fits { Ok(format!("{name}:{port}")) } else { Err(hosts.takes(TAKES)) }
    };
    Ok(Some(CassandraPlan {
        hosts: list(&hosts, TAKES)?.into_iter().map(host).collect::<Result<_, _>>()?,
        keyspace: name(values, "cassandra-keyspace")?,
        login: login(values, "cassandra-username", "cassandra-password", "env:CASSANDRA_PASSWORD")?,
        tls_ca: path(values, "cassandra-tls-ca"),
        tls_identity: path(values, "cassandra-tls-identity"),
    }))
}

/// A name that needs no quotes anywhere.
fn name(values: &Values, setting: &'static str) -> Result<String, SettingsError> {
    const TAKES: &str = "1 to 48 letters, digits, '_' or '-', a letter first";
    let value = values.required(setting, TAKES)?;
    let text = value.text();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (c == '-' && setting == "mongo-db");
    let is_name = (1..=48).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_alphabetic());
    if is_name && text.chars().all(fits) { Ok(text.to_owned()) } else { Err(value.takes(TAKES)) }
}

fn login(
    values: &Values,
    user: &'static str,
    password: &'static str,
    variable: &str,
) -> Result<Option<DatabaseLogin>, SettingsError> {
    match (values.optional(user), values.optional(password)) {
        (None, None) => Ok(None),
        (None, Some(password)) => Err(password.error(format!("a password is of somebody: takes --{user} besides"))),
        (Some(user), password) => Ok(Some(DatabaseLogin {
            user: user.text().to_owned(),
            password: password.map_or(Ok(variable.to_owned()), |password| kept(&password))?,
        })),
    }
}

fn path(values: &Values, setting: &'static str) -> Option<PathBuf> {
    values.optional(setting).map(|value| PathBuf::from(value.text()))
}
