//! MongoDB: opening it, writing documents so that twice is once, and its errors in words that say what to do.

use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{ClientOptions, ConnectionString, Credential, ReadPreference, Tls, TlsOptions};
use mongodb::{Client, Collection, Cursor, Database, IndexModel};
use plimsoll_common::plan::redact_url;
use tokio::time::{Instant, sleep, timeout};

use super::pem::{authority, identity};
use super::retry::retried;
use super::schema::UniqueIndex;
use crate::settings::storage::MongoPlan;
use crate::shell::target::password;

/// How long a server may take to be found, unless the URI says otherwise.
const FIND_LIMIT: Duration = Duration::from_secs(5);
/// How often a write is tried whose connection was lost.
const TRIES: u32 = 4;
/// How long it is tried where no server can take it: of a replica set another one is elected in some ten seconds.
const ELECTION: Duration = Duration::from_secs(45);
/// How long a server may give no sign of life while it does something, unless the URI says otherwise as socketTimeoutMS.
const SILENCE: Duration = Duration::from_secs(60);

/// Between two tries that wait for an election.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Ids of one answer. A server forgets who has not asked for more in ten minutes, and left to itself it answers with as many as
/// take longer than that to be worked off.
const IDS_AT_ONCE: u32 = 1_000;

const DUPLICATE: i32 = 11_000;
const NO_NAMESPACE: i32 = 26;
/// What servers answer to a user who may not.
const UNAUTHORIZED: i32 = 13;
/// What a server answers that is no primary, or is about to be none: another one is elected, or it comes back.
const NO_PRIMARY: [i32; 8] = [10_107, 10_058, 13_435, 13_436, 189, 91, 11_600, 11_602];
/// Out of disk space, as servers of different ages say it.
const DISK_FULL: [i32; 2] = [14_031, 12_501];

/// The chat's MongoDB.
#[derive(Debug, Clone)]
pub struct Mongo {
    database: Database,
    /// Its address without secrets, for people.
    place: String,
    /// How long it may give no sign of life.
    silence: Duration,
}

/// Why something was not done.
enum Trouble {
    Said(Error),
    /// A write of a command was not done, by code and text.
    Refused(i32, String),
    /// No sign of life for so long.
    Silent(Duration),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Said(error)
    }
}

impl Trouble {
    fn is_of_no_primary(&self) -> bool {
        let code = match self {
            Self::Said(error) => code(error),
            Self::Refused(code, _) => Some(*code),
            Self::Silent(_) => None,
        };
        code.is_some_and(|code| NO_PRIMARY.contains(&code))
    }

    /// Whether the server may take the same in a moment.
    fn passes(&self) -> bool {
        matches!(self, Self::Said(error) if is_lost(error)) || self.is_of_no_primary()
    }

    /// Whether no server is there that may take it, and another may be elected.
    fn waits_for_election(&self) -> bool {
        matches!(self, Self::Said(error) if is_unfound(error)) || self.is_of_no_primary()
    }
}

impl Mongo {
    /// Opens it, and asks whether it is there.
    ///
    /// # Errors
    /// It is not, or does not let us in; one line, with what to do.
    pub async fn open(plan: &MongoPlan) -> Result<Self, String> {
        let place = redact_url(&plan.uri);
        let mut options = options(plan, &place).await?;
        if plan.tls_ca.is_some() || plan.tls_identity.is_some() {
            // The driver's own words would name no flag.
            plan.tls_ca.as_ref().map(|path| authority("--mongo-tls-ca", path)).transpose()?;
            plan.tls_identity.as_ref().map(|path| identity("--mongo-tls-identity", path)).transpose()?;
            let mut tls = match options.tls.take() {
                Some(Tls::Enabled(tls)) => tls,
                _ => TlsOptions::default(),
            };
            tls.ca_file_path = plan.tls_ca.clone().or(tls.ca_file_path);
            tls.cert_key_file_path = plan.tls_identity.clone().or(tls.cert_key_file_path);
            options.tls = Some(Tls::Enabled(tls));
        }
        let client = Client::with_options(options)
            .map_err(|error| format!("MongoDB at {place}: {}", one_line(&error.to_string())))?;
        let mongo = Self { database: client.database(&plan.database), place, silence: silence(&plan.uri) };
        // The last of its clones to go has a task of its own end the client's sessions, which panics where the program ends
        // first. So none is the last: sessions end with the connections, or of themselves.
        std::mem::forget(client);
        let ping = mongo.database.run_command(doc! { "ping": 1 }).await;
        ping.map_err(|error| mongo.words("it is asked whether it is there", &error))?;
        Ok(mongo)
    }

    /// Its address without secrets.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The database.
    pub fn database(&self) -> &str {
        self.database.name()
    }

    fn collection(&self, name: &str) -> Collection<Document> {
        self.database.collection(name)
    }

    /// Writes documents: what is not there is inserted, what is there under the same `_id` is replaced.
    ///
    /// # Errors
    /// Something was not written; one line, with what to do.
    pub async fn write(&self, collection: &str, documents: &[Document]) -> Result<(), String> {
        let doing = format!("writing {} documents to {collection}", documents.len());
        let there = self.retried(&doing, || self.insert(collection, documents)).await?;
        if there.is_empty() {
            return Ok(());
        }
        let there: Vec<&Document> = there.into_iter().filter_map(|at| documents.get(at)).collect();
        self.retried(&doing, || self.replace(collection, &there)).await
    }

    /// The positions of documents that are there already.
    async fn insert(&self, collection: &str, documents: &[Document]) -> Result<Vec<usize>, Error> {
        if documents.is_empty() {
            return Ok(Vec::new());
        }
        let Err(error) = self.collection(collection).insert_many(documents).ordered(false).await else {
            return Ok(Vec::new());
        };
        if let ErrorKind::InsertMany(outcome) = error.kind.as_ref()
            && let Some(errors) = &outcome.write_errors
            && outcome.write_concern_error.is_none()
            && errors.iter().all(|error| error.code == DUPLICATE)
        {
            return Ok(errors.iter().map(|error| error.index).collect());
        }
        Err(error)
    }

    async fn replace(&self, collection: &str, documents: &[&Document]) -> Result<(), Trouble> {
        let updates = documents.iter().map(|document| {
            let id = document.get("_id").cloned().unwrap_or(Bson::Null);
            doc! { "q": { "_id": id }, "u": (*document).clone(), "upsert": true }
        });
        self.update(collection, updates.collect()).await.map(drop)
    }

    /// How many documents these updates met or made.
    async fn update(&self, collection: &str, updates: Vec<Document>) -> Result<i32, Trouble> {
        let command = doc! { "update": collection, "updates": updates, "ordered": false };
        let answer = self.database.run_command(command).await?;
        let failed = answer.get_array("writeErrors").ok().and_then(|errors| errors.first()?.as_document());
        let Some(failed) = failed.or_else(|| answer.get_document("writeConcernError").ok()) else {
            return Ok(answer.get_i32("n").unwrap_or_default());
        };
        let code = failed.get_i32("code").unwrap_or_default();
        Err(Trouble::Refused(code, failed.get_str("errmsg").unwrap_or_default().to_owned()))
    }

    /// Tries again what a lost connection ended, and for longer what waits for an election: everything that is written here may
    /// be written twice.
    async fn retried<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        doing: &str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, String>
    where
        Trouble: From<E>,
    {
        let began = Instant::now();
        loop {
            match retried(TRIES, Trouble::passes, || self.answered(attempt())).await {
                Err(trouble) if trouble.waits_for_election() && began.elapsed() < ELECTION => sleep(ASK_AGAIN).await,
                Err(trouble) => return Err(self.trouble(doing, &trouble)),
                Ok(done) => return Ok(done),
            }
        }
    }

    /// Waits for what is being done for as long as the server gives signs of life: to remove millions takes its time, and who
    /// is frozen or cut off says nothing at all.
    async fn answered<T, E>(&self, doing: impl Future<Output = Result<T, E>>) -> Result<T, Trouble>
    where
        Trouble: From<E>,
    {
        let ping = || async { self.database.run_command(doc! { "ping": 1 }).await.is_ok() };
        Ok(while_alive(self.silence, doing, ping).await.map_err(Trouble::Silent)??)
    }

    fn trouble(&self, doing: &str, trouble: &Trouble) -> String {
        match trouble {
            Trouble::Said(error) => match error.kind.as_ref() {
                // It was there when it was opened.
                ErrorKind::ServerSelection { message, .. } => format!(
                    "the connection to MongoDB at {} was lost while {doing} ({}): once it is back or another is elected, the same \
                     command goes on",
                    self.place,
                    cause(message)
                ),
                _ => self.words(doing, error),
            },
            Trouble::Refused(code, text) => self.refusal(doing, *code, text),
            Trouble::Silent(silence) => format!(
                "the connection to MongoDB at {} was lost while {doing} (no sign of life for {}): once it is back, the same \
                 command goes on",
                self.place,
                humantime::format_duration(*silence)
            ),
        }
    }

    /// Sets one document, whether it is there or not.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn put(&self, collection: &str, document: &Document) -> Result<(), String> {
        let doing = format!("writing to {collection}");
        let document = [document];
        self.retried(&doing, || self.replace(collection, &document)).await
    }

    /// Replaces the document that a filter meets, if there is one. Whether there was.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn replace_if(&self, collection: &str, filter: Document, by: &Document) -> Result<bool, String> {
        let doing = format!("writing to {collection}");
        let update = doc! { "q": filter, "u": by.clone(), "upsert": false };
        Ok(self.retried(&doing, || self.update(collection, vec![update.clone()])).await? > 0)
    }

    /// Inserts one document, unless one of its `_id` is there. Whether it was inserted.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn insert_new(&self, collection: &str, document: &Document) -> Result<bool, String> {
        let documents = std::slice::from_ref(document);
        let doing = format!("writing to {collection}");
        Ok(self.retried(&doing, || self.insert(collection, documents)).await?.is_empty())
    }

    /// The documents that a filter meets, at most so many.
    ///
    /// # Errors
    /// They cannot be read; one line, with what to do.
    pub async fn find(&self, collection: &str, filter: Document, most: i64) -> Result<Vec<Document>, String> {
        let doing = format!("reading {collection}");
        self.retried(&doing, || async {
            self.collection(collection).find(filter.clone()).limit(most).await?.try_collect().await
        })
        .await
    }

    /// The ids of the documents that a filter meets, as they come: there may be millions.
    ///
    /// # Errors
    /// They cannot be read, at first or in the middle; one line, with what to do.
    pub async fn ids(
        &self,
        collection: &'static str,
        filter: Document,
    ) -> Result<impl Stream<Item = Result<String, String>>, String> {
        let doing = format!("reading {collection}");
        let collection = self.collection(collection);
        let found = self
            .retried(&doing, || async {
                collection.find(filter.clone()).projection(doc! { "_id": 1 }).batch_size(IDS_AT_ONCE).await
            })
            .await?;
        let next = move |mut found: Cursor<Document>| {
            let doing = doing.clone();
            async move {
                let next = match self.answered(found.try_next()).await {
                    Ok(document) => Ok(document?),
                    Err(trouble) => Err(self.trouble(&doing, &trouble)),
                };
                Some((next, found))
            }
        };
        let id = |document: Result<Document, String>| match document {
            Ok(document) => Some(Ok(document.get_str("_id").ok()?.to_owned())),
            Err(words) => Some(Err(words)),
        };
        Ok(stream::unfold(found, next).filter_map(move |document| std::future::ready(id(document))))
    }

    /// How many documents a filter meets.
    ///
    /// # Errors
    /// They cannot be read; one line, with what to do.
    pub async fn count(&self, collection: &str, filter: Document) -> Result<u64, String> {
        let doing = format!("counting {collection}");
        self.retried(&doing, || async { self.collection(collection).count_documents(filter.clone()).await }).await
    }

    /// How many documents a filter meets, counted up to so many.
    ///
    /// # Errors
    /// They cannot be read; one line, with what to do.
    pub async fn count_to(&self, collection: &str, filter: Document, most: u64) -> Result<u64, String> {
        let doing = format!("counting {collection}");
        let counted = || async { self.collection(collection).count_documents(filter.clone()).limit(most).await };
        self.retried(&doing, counted).await
    }

    /// About how many documents a collection has, of whomever they are: as it says at once, however many there are.
    ///
    /// # Errors
    /// It cannot be asked; one line, with what to do.
    pub async fn about(&self, collection: &str) -> Result<u64, String> {
        let doing = format!("counting {collection}");
        self.retried(&doing, || async { self.collection(collection).estimated_document_count().await }).await
    }

    /// Removes what a filter meets. How many documents that were.
    ///
    /// # Errors
    /// Not all could be removed; one line, with what to do.
    pub async fn delete(&self, collection: &str, filter: Document) -> Result<u64, String> {
        let doing = format!("removing from {collection}");
        let removed =
            self.retried(&doing, || async { self.collection(collection).delete_many(filter.clone()).await }).await?;
        Ok(removed.deleted_count)
    }

    /// Of these indexes, those that are missing or not unique.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn missing(&self, indexes: &'static [UniqueIndex]) -> Result<Vec<UniqueIndex>, String> {
        let mut missing = Vec::new();
        for index in indexes {
            let doing = format!("reading the indexes of {}", index.collection);
            let there = self.retried(&doing, || self.indexes(index.collection)).await?;
            let is_it = |model: &IndexModel| {
                let unique = model.options.as_ref().and_then(|options| options.unique).unwrap_or(false);
                unique && model.keys.keys().map(String::as_str).eq(index.keys.iter().copied())
            };
            if !there.iter().any(is_it) {
                missing.push(*index);
            }
        }
        Ok(missing)
    }

    async fn indexes(&self, collection: &str) -> Result<Vec<IndexModel>, Error> {
        let listed = async { self.collection(collection).list_indexes().await?.try_collect().await };
        match listed.await {
            Err(error) if code(&error) == Some(NO_NAMESPACE) => Ok(Vec::new()),
            other => other,
        }
    }

    /// Makes a unique index.
    ///
    /// # Errors
    /// It cannot be made, as where documents are in its way; one line.
    pub async fn make(&self, index: &UniqueIndex) -> Result<(), String> {
        let mut keys = Document::new();
        index.keys.iter().for_each(|key| drop(keys.insert(*key, 1)));
        let options = mongodb::options::IndexOptions::builder().unique(true).build();
        let model = IndexModel::builder().keys(keys).options(options).build();
        let doing = format!("making the unique index ({}) of {}", index.keys.join(", "), index.collection);
        self.retried(&doing, || async { self.collection(index.collection).create_index(model.clone()).await })
            .await
            .map(drop)
    }

    /// An error in words.
    fn words(&self, doing: &str, error: &Error) -> String {
        let Self { place, .. } = self;
        match error.kind.as_ref() {
            ErrorKind::ServerSelection { message, .. } => format!(
                "MongoDB at {place} cannot be reached ({}): start it, or correct --mongo-uri and its TLS settings \
                 (--mongo-tls-ca, --mongo-tls-identity)",
                cause(message)
            ),
            ErrorKind::Authentication { message, .. } => refused_login(place, message),
            _ if is_lost(error) => format!(
                "the connection to MongoDB at {place} was lost while {doing} ({}): once it is back, the same command goes on",
                one_line(&error.kind.to_string())
            ),
            _ => match failure(error) {
                Some((code, text)) => self.refusal(doing, code, text),
                None => format!("MongoDB at {place}: {doing}: {}", one_line(&error.kind.to_string())),
            },
        }
    }

    /// What a server answered that did not do as it was told.
    fn refusal(&self, doing: &str, code: i32, text: &str) -> String {
        let (place, database) = (&self.place, self.database.name());
        let text = one_line(text);
        let lower = text.to_lowercase();
        match code {
            18 => refused_login(place, &text),
            UNAUTHORIZED => format!(
                "MongoDB at {place} does not allow {doing} ({text}): give the user the role readWrite on {database}, or log in \
                 as another with --mongo-username"
            ),
            DUPLICATE => format!(
                "MongoDB at {place} holds another document in the place of one of ours ({text}): it is somebody's of the chat, so take \
                 another --mongo-db"
            ),
            _ if NO_PRIMARY.contains(&code) => format!(
                "MongoDB at {place} has no primary for {doing} ({text}): once one is elected, the same command goes on"
            ),
            _ if DISK_FULL.contains(&code) || lower.contains("no space left") || lower.contains("disk space") => {
                format!(
                    "MongoDB at {place} has no disk space left for {doing} ({text}): make room, and the same command goes on"
                )
            }
            _ => format!(
                "MongoDB at {place}: {doing}: {text} (code {code}): look at its log and its disk; once it is well, the same command \
                 goes on"
            ),
        }
    }
}

/// What the address and the login ask for.
async fn options(plan: &MongoPlan, place: &str) -> Result<ClientOptions, String> {
    // The address was read before: what is left is what its name stands for. The driver's words may repeat parts of it.
    let unread = |_| format!("--mongo-uri: {place} is no address of MongoDB");
    let mut address = ConnectionString::parse(&plan.uri).map_err(unread)?;
    if let Some(login) = &plan.login {
        let mut credential = credential(&plan.uri, &address).map_err(unread)?;
        credential.username = Some(login.user.clone());
        credential.password = Some(password("--mongo-password", &login.password)?);
        address.credential = Some(credential);
        // It names where the chat is, and would be taken for what knows the user.
        address.default_database = None;
    }
    let mut options = ClientOptions::parse(without_socket_timeout(address)).await.map_err(|_| {
        format!("--mongo-uri: the servers of {place} cannot be looked up: check its host in DNS (SRV and TXT records)")
    })?;
    options.app_name = Some("plimsoll".to_owned());
    options.server_selection_timeout = options.server_selection_timeout.or(Some(FIND_LIMIT));
    options.connect_timeout = options.connect_timeout.or(Some(FIND_LIMIT));
    // An address of services may send reads to secondaries, which lag behind: behind what is being written here most of all.
    options.selection_criteria = Some(ReadPreference::Primary.into());
    options.read_concern = None;
    Ok(options)
}

/// What the options of an address say of whoever logs in. The driver forgets that where the address itself names no user.
fn credential(uri: &str, address: &ConnectionString) -> Result<Credential, Error> {
    if let Some(credential) = &address.credential {
        return Ok(credential.clone());
    }
    let with_somebody = ConnectionString::parse(uri.replacen("://", "://somebody@", 1))?;
    Ok(with_somebody.credential.unwrap_or_default())
}

fn refused_login(place: &str, why: &str) -> String {
    format!(
        "MongoDB at {place} does not let us in ({}): check user and password, in --mongo-uri or --mongo-username and \
         --mongo-password",
        one_line(why)
    )
}

/// Whether the connection was lost, and the server may be there again in a moment.
fn is_lost(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. })
}

/// Whether there is no server, or none of those there may take it.
fn is_unfound(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::ServerSelection { .. })
}

/// How long the server of this address may give no sign of life. The driver itself knows no such limit.
fn silence(uri: &str) -> Duration {
    #[expect(deprecated, reason = "it is read here, and kept here")]
    let given = ConnectionString::parse(uri).ok().and_then(|read| read.socket_timeout);
    given.filter(|given| !given.is_zero()).unwrap_or(SILENCE)
}

/// The driver refuses an address that has one.
#[expect(deprecated, reason = "it is kept here")]
fn without_socket_timeout(address: ConnectionString) -> ConnectionString {
    let mut address = address;
    address.socket_timeout = None;
    address
}

/// Waits for something while pings are answered. For how long none was, where it is given up.
async fn while_alive<T, P: Future<Output = bool>>(
    silence: Duration,
    doing: impl Future<Output = T>,
    ping: impl Fn() -> P,
) -> Result<T, Duration> {
    let mut doing = pin!(doing);
    let mut heard = Instant::now();
    loop {
        // Half of it is waited, and half asked.
        if let Ok(done) = timeout(silence / 2, doing.as_mut()).await {
            return Ok(done);
        }
        let asked = Instant::now();
        tokio::select! {
            done = doing.as_mut() => return Ok(done),
            answered = timeout(silence / 2, ping()) => match answered {
                Ok(true) => heard = asked,
                _ if heard.elapsed() >= silence => return Err(heard.elapsed()),
                _ => {}
            },
        }
    }
}

fn code(error: &Error) -> Option<i32> {
    failure(error).map(|(code, _)| code)
}

/// What the server said: its code and words.
fn failure(error: &Error) -> Option<(i32, &str)> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some((command.code, &command.message)),
        ErrorKind::Write(WriteFailure::WriteError(failed)) => Some((failed.code, &failed.message)),
        ErrorKind::Write(WriteFailure::WriteConcernError(failed)) => Some((failed.code, &failed.message)),
        ErrorKind::InsertMany(outcome) => {
            let first = outcome.write_errors.iter().flatten().find(|error| error.code != DUPLICATE);
            let first = first.map(|error| (error.code, error.message.as_str()));
            first.or_else(|| outcome.write_concern_error.as_ref().map(|error| (error.code, error.message.as_str())))
        }
        _ => None,
    }
}

/// Of the words about a server that was not found, those that say why.
fn cause(message: &str) -> String {
    let why = message.split("Error: Kind: ").nth(1).map(|rest| rest.split(", labels").next().unwrap_or(rest));
    one_line(why.unwrap_or(message))
}

/// The same on one line, and no longer than people read.
pub(super) fn one_line(text: &str) -> String {
    const MOST: usize = 300;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use mongodb::options::SelectionCriteria;

    use super::*;
    use crate::settings::storage::DatabaseLogin;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_waited_for_and_who_says_nothing_is_not() {
        let slow = async { sleep(Duration::from_secs(3_600)).await };
        assert_eq!(while_alive(LIMIT, slow, || ready(true)).await, Ok(()));
        // Pings that fail, and such that nobody answers.
        assert_eq!(while_alive(LIMIT, pending::<()>(), pending).await, Err(LIMIT));
        let began = Instant::now();
        assert!(while_alive(LIMIT, pending::<()>(), || ready(false)).await.is_err());
        assert!(began.elapsed() < 2 * LIMIT);
        // Alive for an hour, then frozen.
        let pings = Cell::new(0);
        let dies = || {
            pings.set(pings.get() + 1);
            let alive = pings.get() <= 120;
            async move { if alive { true } else { pending().await } }
        };
        assert!(while_alive(LIMIT, pending::<()>(), dies).await.is_err());
        assert_eq!(pings.get(), 121);
    }

    #[test]
    fn who_is_no_primary_is_waited_for_and_who_refuses_is_not() {
        for (code, waits) in [(10_107, true), (189, true), (91, true), (13, false), (DUPLICATE, false), (14_031, false)]
        {
            let trouble = Trouble::Refused(code, "said".to_owned());
            assert_eq!((trouble.passes(), trouble.waits_for_election()), (waits, waits), "{code}");
        }
        assert!(!Trouble::Silent(LIMIT).waits_for_election());
    }

    async fn options_of(uri: &str, login: Option<DatabaseLogin>) -> ClientOptions {
        let plan =
            MongoPlan { uri: uri.to_owned(), database: "chat".to_owned(), login, tls_ca: None, tls_identity: None };
        options(&plan, uri).await.unwrap()
    }

    #[tokio::test]
    async fn a_user_is_looked_up_where_the_address_says_wherever_the_user_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "word\n").unwrap();
        let login = || Some(DatabaseLogin { user: "ann".to_owned(), password: file.display().to_string() });
        for (uri, source) in [
            ("mongodb://db/?authSource=people", "people"),
            ("mongodb://db/chat?replicaSet=rs&authsource=people", "people"),
            ("mongodb://db,db2:27018/?authSource=our%2Dpeople", "our-people"),
            ("mongodb://db", "admin"),
            // Where the chat is says nothing of who knows the user.
            ("mongodb://db/chat", "admin"),
            ("mongodb://bob:other@db/chat?authSource=people", "people"),
            ("mongodb://bob:other@db/?authSource=people&authMechanism=SCRAM-SHA-1", "people"),
        ] {
            let credential = options_of(uri, login()).await.credential.unwrap();
            let said = (credential.username.as_deref(), credential.password.as_deref(), credential.source.as_deref());
            assert_eq!(said, (Some("ann"), Some("word"), Some(source)), "{uri}");
        }
        let own = options_of("mongodb://bob:other@db/chat", None).await.credential.unwrap();
        assert_eq!((own.username.as_deref(), own.source.as_deref()), (Some("bob"), Some("chat")));
        assert_eq!(options_of("mongodb://db/?authSource=people", None).await.credential, None);
    }

    #[tokio::test]
    async fn what_was_just_written_is_read_whatever_the_address_says() {
        let uri = "mongodb://db/?replicaSet=rs&readPreference=secondaryPreferred&readConcernLevel=snapshot";
        let asked = options_of(uri, None).await;
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        assert_eq!((asked.selection_criteria, asked.read_concern), (Some(primary), None));
        assert_eq!(asked.repl_set_name.as_deref(), Some("rs"));
    }

    #[test]
    fn how_long_a_server_may_be_silent_is_read_off_its_address() {
        assert_eq!(silence("mongodb://db:27017"), LIMIT);
        assert_eq!(silence("mongodb://db:27017/?socketTimeoutMS=0"), LIMIT);
        assert_eq!(silence("mongodb://db:27017/?socketTimeoutMS=2000"), Duration::from_secs(2));
    }
}
