//! The settings about the databases behind the chat: where they are, and what opens them.

use std::fmt;
use std::path::{Path, PathBuf};

use mongodb::options::ConnectionString;
use plimsoll_common::plan::redact_url;

use super::error::SettingsError;
use super::layers::{Layers, Source};
use super::secure::kept;
use super::values::{Named, Values, number};

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

impl StoragePlan {
    /// ` --mongo-uri mongodb://db:27017 --mongo-db chat …`: what names these databases and opens them, as a shell takes it, each
    /// flag with a space before it, whether it is the default or not: the environment may name others. In place of a user and
    /// password that are written into the address stands `***`, which no command takes. `keyspace`: another than the plan's.
    pub fn flags(&self, keyspace: Option<&str>) -> String {
        let mut flags = String::new();
        let mut put = |flag: &str, value: &str| flags.push_str(&format!(" --{flag} {}", quoted(value)));
        let MongoPlan { uri, database, login, tls_ca, tls_identity } = &self.mongo;
        put("mongo-uri", &redact_url(uri));
        put("mongo-db", database);
        opening("mongo", login.as_ref(), tls_ca.as_deref(), tls_identity.as_deref(), &mut put);
        let Some(CassandraPlan { hosts, keyspace: own, login, tls_ca, tls_identity }) = &self.cassandra else {
            return flags;
        };
        put("cassandra-hosts", &hosts.join(","));
        put("cassandra-keyspace", keyspace.unwrap_or(own));
        opening("cassandra", login.as_ref(), tls_ca.as_deref(), tls_identity.as_deref(), &mut put);
        flags
    }
}

/// What opens a database.
fn opening(
    of: &str,
    login: Option<&DatabaseLogin>,
    tls_ca: Option<&Path>,
    tls_identity: Option<&Path>,
    put: &mut impl FnMut(&str, &str),
) {
    if let Some(DatabaseLogin { user, password }) = login {
        put(&format!("{of}-username"), user);
        put(&format!("{of}-password"), password);
    }
    for (what, path) in [("tls-ca", tls_ca), ("tls-identity", tls_identity)] {
        if let Some(path) = path {
            put(&format!("{of}-{what}"), &path.display().to_string());
        }
    }
}

/// One word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The databases, where a MongoDB is named.
///
/// # Errors
/// A value that its setting does not take.
pub fn storage(values: &Values) -> Result<Option<StoragePlan>, SettingsError> {
    let Some(uri) = values.optional("mongo-uri") else {
        return match values.optional("cassandra-hosts") {
            Some(hosts) if hosts.strength() > Source::NativeVariable("").strength() => {
                Err(hosts.error("what was seeded is recorded in MongoDB: add --mongo-uri"))
            }
            _ => Ok(None),
        };
    };
    let database = name(values, "mongo-db")?;
    let mongo = MongoPlan {
        uri: mongo_uri(&uri, &database)?,
        database,
        login: login(values, "mongo-username", "mongo-password", "env:MONGO_PASSWORD")?,
        tls_ca: path(values, "mongo-tls-ca"),
        tls_identity: path(values, "mongo-tls-identity"),
    };
    let hours = values.required("message-bucket-hours", "a whole number")?;
    Ok(Some(StoragePlan { mongo, cassandra: cassandra(values)?, bucket_hours: number(&hours, 1, 24 * 366)? as u32 }))
}

/// Takes away the user of `--mongo-username` where the address names one and was given as strongly: what a variable says for
/// services is no reason to log in as another than a flag names.
pub fn one_user(layers: &mut Layers) {
    let (Some(uri), Some(user)) = (layers.get("mongo-uri"), layers.get("mongo-username")) else { return };
    let Some(named) = ConnectionString::parse(&uri.value).ok().and_then(|read| read.credential) else { return };
    let is_same = named.username.as_ref() == Some(&user.value) && named.password.is_none();
    // Of a saved run only the user is left who logged in.
    let password = layers.get("mongo-password").map_or(0, |password| password.source.strength());
    let strength = user.source.strength().max(password);
    let is_stronger = user.source == Source::Saved || strength > uri.source.strength();
    if named.username.is_none() || is_same || is_stronger {
        return;
    }
    layers.remove("mongo-username");
    // One that may be meant for the user in the address is not dropped without a word.
    if named.password.is_some() {
        layers.remove("mongo-password");
    }
}

/// An address that the driver takes, and that names no other database. What is wrong with it is said without a part of it:
/// an address that cannot be read shows nobody where a password ends.
fn mongo_uri(uri: &Named, database: &str) -> Result<String, SettingsError> {
    const TAKES: &str = "an address such as mongodb://chat-db:27017 or mongodb+srv://…";
    let text = uri.text();
    if !["mongodb://", "mongodb+srv://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err(unfit(uri, TAKES));
    }
    if text.contains("://***@") {
        return Err(uri.error(
            "*** stands where a user and password are not shown: expected them in its place, or in --mongo-username and \
             --mongo-password",
        ));
    }
    let options = text.split_once('?').map_or("", |(_, options)| options).to_lowercase();
    if ["password", "token", "properties"].iter().any(|secret| options.contains(secret)) {
        return Err(uri.error(
            "its options carry a secret, which would show in reports: expected the user and password before its '@', \
             or --mongo-username and --mongo-password",
        ));
    }
    // The driver's own words would repeat parts of it.
    let parsed = ConnectionString::parse(text).map_err(|_| {
        uri.error(
            "it is no address that MongoDB's driver can read, and is not shown, for it may hold a password: expected \
             mongodb://USER:PASSWORD@HOST:PORT/?OPTION=VALUE, where special characters of user and password are \
             percent-encoded (':' as %3A, '/' as %2F, '?' as %3F, '#' as %23, '@' as %40, '%' as %25), or the user and \
             password in --mongo-username and --mongo-password",
        )
    })?;
    // As some write where a user is looked up; nobody's chat is in it.
    let is_of_login = |named: &str| named == "admin" && parsed.credential.is_some();
    match parsed.default_database.as_deref() {
        Some(named) if named != database && !is_of_login(named) => Err(uri.error(format!(
            "it names the database {named}, and --mongo-db is {database}: name the chat's in --mongo-db, and one that only \
             knows the user as ?authSource={named}"
        ))),
        _ => Ok(text.to_owned()),
    }
}

/// The error of an address, which is shown if it is nothing but hosts and ports.
fn unfit(value: &Named, takes: &str) -> SettingsError {
    let is_shown = value.text().split(',').all(|address| {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        host.chars().all(fits) && port.chars().all(|c| c.is_ascii_digit())
    });
    if is_shown {
        value.takes(takes)
    } else {
        value.error(format!("it is not shown, for it may hold a password: expected {takes}"))
    }
}

fn cassandra(values: &Values) -> Result<Option<CassandraPlan>, SettingsError> {
    const TAKES: &str = "addresses such as chat-db-1:9042,chat-db-2:9042";
    let Some(hosts) = values.optional("cassandra-hosts") else { return Ok(None) };
    let host = |host: &str| {
        let (name, port) = host.rsplit_once(':').unwrap_or((host, "9042"));
        let fits =
            !name.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) && !host.contains(['/', '@', ' ']);
        if fits { Ok(format!("{name}:{port}")) } else { Err(unfit(&hosts, TAKES)) }
    };
    Ok(Some(CassandraPlan {
        hosts: hosts.text().split(',').map(str::trim).map(host).collect::<Result<_, _>>()?,
        keyspace: name(values, "cassandra-keyspace")?,
        login: login(values, "cassandra-username", "cassandra-password", "env:CASSANDRA_PASSWORD")?,
        tls_ca: path(values, "cassandra-tls-ca"),
        tls_identity: path(values, "cassandra-tls-identity"),
    }))
}

/// A name that needs no quotes anywhere. Cassandra folds one without quotes to small letters: in capitals it would be looked
/// for where it never is.
fn name(values: &Values, setting: &'static str) -> Result<String, SettingsError> {
    const OF_DATABASE: &str = "1 to 48 letters, digits, '_' or '-', a letter first";
    const OF_KEYSPACE: &str = "1 to 48 small letters, digits or '_', a letter first";
    let is_keyspace = setting == "cassandra-keyspace";
    let takes = if is_keyspace { OF_KEYSPACE } else { OF_DATABASE };
    let value = values.required(setting, takes)?;
    let text = value.text();
    let fits = |c: char| match is_keyspace {
        true => c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_',
        false => c.is_ascii_alphanumeric() || c == '_' || c == '-',
    };
    let is_name = (1..=48).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_alphabetic());
    if is_name && text.chars().all(fits) { Ok(text.to_owned()) } else { Err(value.takes(takes)) }
}

fn login(
    values: &Values,
    user: &'static str,
    password: &'static str,
    variable: &str,
) -> Result<Option<DatabaseLogin>, SettingsError> {
    match (values.optional(user), values.optional(password)) {
        (None, None) => Ok(None),
        (None, Some(password)) => Err(password.error(format!("a password is of somebody: add --{user}"))),
        (Some(user), password) => Ok(Some(DatabaseLogin {
            user: user.text().to_owned(),
            password: password.map_or(Ok(variable.to_owned()), |password| kept(&password))?,
        })),
    }
}

fn path(values: &Values, setting: &'static str) -> Option<PathBuf> {
    values.optional(setting).map(|value| PathBuf::from(value.text()))
}

#[cfg(test)]
mod tests {
    use crate::settings::{Invocation, read};

    fn error(flags: &str) -> String {
        let line = format!("plimsoll seed --preset small {flags}");
        read(line.split_whitespace().map(Into::into), &|_| None).expect_err(flags).to_string()
    }

    fn is_read(flags: &str) -> bool {
        let line = format!("plimsoll seed --preset small {flags}");
        read(line.split_whitespace().map(Into::into), &|_| None).is_ok()
    }

    #[test]
    fn an_address_that_cannot_be_read_is_not_shown() {
        for address in [
            "mongodb://ann:SECRETWORD?@db:27017",
            "mongodb://ann:SECRETWORD",
            "mongodb://ann:SECRETWORD,db:27017",
            "mongodb://ann:SECRET/WORD@db:27017",
            "mongodb://ann:SECRET%WORD@db:27017",
            "mongodb://ann:12?SECRETWORD@db:27017",
            "mongodb://ann:1/?x=SECRETWORD@db:27017",
            "mongodb+srv://ann:SECRETWORD",
            "ann:SECRETWORD",
            "http://ann:SECRETWORD,http://db",
        ] {
            let error = error(&format!("--mongo-uri {address}"));
            assert!(
                error.contains("--mongo-uri: it is n") && error.contains("may hold a password: expected"),
                "{error}"
            );
            assert!(!error.contains("SECRET") && !error.contains("WORD,"), "{error}");
        }
        let mongo = "--mongo-uri mongodb://db:27017";
        for hosts in ["ann:SECRETWORD", "ann:SECRETWORD@db:9042", "ann:SECRETWORD,", "ann:SECRET,WORD@db"] {
            let error = error(&format!("{mongo} --cassandra-hosts {hosts}"));
            assert!(error.contains("--cassandra-hosts: it is not shown") && !error.contains("SECRET"), "{error}");
        }
        assert!(error(&format!("{mongo} --cassandra-hosts a,,b:1")).contains("got 'a,,b:1', expected addresses"));
        assert!(is_read("--mongo-uri mongodb://ann:SECRET%3FWORD@db:27017,db2/?replicaSet=rs"));
    }

    #[test]
    fn what_stands_for_a_password_is_none() {
        let told = error("--mongo-uri mongodb://***@db:27017");
        assert!(told.contains("--mongo-uri: *** stands where a user and password are not shown"), "{told}");
    }

    #[test]
    fn one_database_is_named_and_not_two() {
        let told = error("--mongo-uri mongodb://h/loadtest");
        assert!(told.contains("--mongo-uri: it names the database loadtest, and --mongo-db is chat"), "{told}");
        assert!(told.contains("?authSource=loadtest"), "{told}");
        assert!(is_read("--mongo-uri mongodb://h/loadtest --mongo-db loadtest"));
        assert!(is_read("--mongo-uri mongodb://h/chat") && is_read("--mongo-uri mongodb://ann:pw@h/admin"));
        assert!(error("--mongo-uri mongodb://h/admin").contains("it names the database admin"));
    }

    /// Who logs in: the user of `--mongo-username`; `None`: whoever the address names.
    fn user(flags: &str, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let line = format!("plimsoll seed --preset small {flags}");
        let environment = |name: &str| {
            let is_it = |(of, _): &&(&str, &str)| *of == name;
            variables.iter().find(is_it).map(|(_, value)| (*value).to_owned())
        };
        match read(line.split_whitespace().map(Into::into), &environment).map_err(|error| error.to_string())? {
            Invocation::Seed(plan) => Ok(plan.storage.mongo.login.map(|login| login.user)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_user_logs_in_and_a_variable_is_none_against_a_flag() {
        const NAMED: &str = "--mongo-uri mongodb://ann:pw@h";
        const OPEN: &str = "--mongo-uri mongodb://h";
        let of_services = [("MONGO_USERNAME", "reader")];
        let reader = Ok(Some("reader".to_owned()));
        assert_eq!(user(NAMED, &of_services), Ok(None));
        assert_eq!(user(OPEN, &of_services), reader);
        let both = [("MONGO_URI", "mongodb://ann:pw@h"), ("MONGO_USERNAME", "reader")];
        assert_eq!(user("", &both), Ok(None));
        assert_eq!(user(&format!("{NAMED} --mongo-username reader"), &[]), Ok(None));
        assert_eq!(user("--mongo-username reader", &both[..1]), reader);
        assert_eq!(user("", &[both[0], ("PLIMSOLL_MONGO_USERNAME", "reader")]), reader);
        assert_eq!(user("--mongo-password env:WORD", &both), reader);
        // Its password may come from elsewhere.
        let ann = Ok(Some("ann".to_owned()));
        assert_eq!(user("--mongo-uri mongodb://ann@h", &[("MONGO_USERNAME", "ann")]), ann);
        // A password that would be nobody's is told.
        let told = user("--mongo-uri mongodb://ann@h --mongo-password env:WORD", &of_services).unwrap_err();
        assert!(told.contains("--mongo-password: a password is of somebody: add --mongo-username"), "{told}");
        let password = [of_services[0], ("PLIMSOLL_MONGO_PASSWORD", "env:WORD")];
        assert_eq!(user(NAMED, &password), Ok(None));
    }

    #[test]
    fn a_keyspace_is_in_small_letters() {
        let named = |name: &str| format!("--mongo-uri mongodb://h --cassandra-hosts h --cassandra-keyspace {name}");
        let told = error(&named("Chat"));
        assert!(
            told.contains("--cassandra-keyspace: got 'Chat', expected 1 to 48 small letters, digits or '_'"),
            "{told}"
        );
        assert!(is_read(&named("chat_2")) && is_read("--mongo-uri mongodb://h --mongo-db Chat"));
    }
}
