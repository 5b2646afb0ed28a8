//! Cassandra and ScyllaDB: opening them, writing rows, and their errors in words that say what to do.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_agent::shell::tls::provider;
use rustls::{ClientConfig, RootCertStore};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{DbError, ExecutionError, NewSessionError, PrepareError, RequestAttemptError};
use scylla::response::query_result::QueryResult;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::Semaphore;

use super::claim::ended;
use super::mongo::one_line;
use super::pem::{authority, identity};
use super::retry::retried;
use super::rows::{INSERT_BY_ID, INSERT_BY_ROOM, INSERT_BY_THREAD, INSERT_REPLY_BY_ID, MessageRow, ReplyRow};
use super::schema::{TABLES, statements};
use crate::exit::Failure;
use crate::settings::storage::CassandraPlan;
use crate::shell::target::password;

/// How long a node may take to be found, and to answer.
const FIND_LIMIT: Duration = Duration::from_secs(5);

/// How often something is tried that a node was too busy for, or whose connection was lost.
const TRIES: u32 = 6;
/// Rows of a page.
const PAGE: i32 = 1000;

const MAKING_KEYSPACE: &str = "making the keyspace";
const MAKING_TABLES: &str = "making types and tables";

/// The chat's Cassandra or ScyllaDB.
#[derive(Debug, Clone)]
pub struct Cassandra {
    session: Arc<Session>,
    keyspace: String,
    /// Its addresses, for people.
    place: String,
}

/// Whether what is missing is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing<'a> {
    /// It is an error, which names what makes it.
    Refuse(&'a str),
    /// It is made.
    Make,
}

impl Cassandra {
    /// Opens it, and checks that its keyspace has the tables of messages; `make`: what makes them, in words.
    ///
    /// # Errors
    /// It is not there, does not let us in, or lacks something; one line, with what to do.
    pub async fn open(plan: &CassandraPlan, make: &str) -> Result<Self, String> {
        let cassandra = Self::connect(plan).await?;
        cassandra.lacks_tables(Missing::Refuse(make)).await?;
        Ok(cassandra)
    }

    /// Opens it, whatever is in it.
    ///
    /// # Errors
    /// It is not there, or does not let us in; one line, with what to do.
    pub async fn connect(plan: &CassandraPlan) -> Result<Self, String> {
        let place = plan.hosts.join(",");
        let mut builder = SessionBuilder::new()
            .known_nodes(&plan.hosts)
            .connection_timeout(FIND_LIMIT)
            .hostname_resolution_timeout(Some(FIND_LIMIT))
            // The chat's types have names in capitals, which the driver cannot read; routing needs none of them.
            .fetch_full_schema_metadata(false);
        if let Some(login) = &plan.login {
            builder = builder.user(&login.user, password("--cassandra-password", &login.password)?);
        }
        if let Some(tls) = tls(plan)? {
            builder = builder.tls_context(Some(Arc::new(tls)));
        }
        let found = tokio::time::timeout(3 * FIND_LIMIT, builder.build()).await;
        let session = found
            .map_err(|_| unreachable_words(&place, "no answer in time"))?
            .map_err(|error| opening_words(&place, &error))?;
        Ok(Self { session: Arc::new(session), keyspace: plan.keyspace.clone(), place })
    }

    /// Its addresses.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Where its tables are.
    pub fn keyspace(&self) -> &str {
        &self.keyspace
    }

    /// Makes keyspace, types and tables where they are missing.
    ///
    /// # Errors
    /// Nothing could be made (usage), or not everything (incomplete).
    pub async fn make(&self) -> Result<(), Failure> {
        let doing = "reading its schema";
        let text = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
        let read = async {
            let answer = self.session.query_unpaged(text, (&self.keyspace,)).await;
            self.read::<(String,)>(doing, answer.map_err(|error| self.words(doing, &error))?)
        };
        let is_there = !read.await.map_err(Failure::Usage)?.is_empty();
        let keyspace = format!(
            "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}",
            self.keyspace
        );
        let keyspace = (!is_there).then_some((keyspace, MAKING_KEYSPACE));
        let inside = statements(&self.keyspace).into_iter().map(|statement| (statement, MAKING_TABLES));
        let mut made = false;
        for (statement, doing) in keyspace.into_iter().chain(inside) {
            self.statement(&statement, doing).await.map_err(|words| ended(made, words))?;
            made = true;
        }
        Ok(())
    }

    async fn statement(&self, text: &str, doing: &str) -> Result<(), String> {
        self.session.query_unpaged(text, ()).await.map(drop).map_err(|error| self.words(doing, &error))
    }

    /// Compares the keyspace's tables with those that messages are seeded into. Whether some are missing that are to be made.
    ///
    /// # Errors
    /// One is missing and not to be made, or is another; one line, with what to do.
    pub async fn lacks_tables(&self, missing: Missing<'_>) -> Result<bool, String> {
        let doing = "reading its schema";
        let text =
            "SELECT table_name, column_name, kind, position, type FROM system_schema.columns WHERE keyspace_name = ?";
        let answer =
            self.session.query_unpaged(text, (&self.keyspace,)).await.map_err(|error| self.words(doing, &error))?;
        let columns: Vec<(String, String, String, i32, String)> = self.read(doing, answer)?;
        let keyspace = &self.keyspace;
        const SCRIPTS: &str = "run the chat's Cassandra scripts, or";
        if let (true, Missing::Refuse(make)) = (columns.is_empty(), missing) {
            return Err(format!(
                "Cassandra at {} has no keyspace {keyspace} with tables: {SCRIPTS} {make}",
                self.place
            ));
        }
        let mut lacks = false;
        for table in TABLES {
            let of_table = || columns.iter().filter(|(name, ..)| name == table.name);
            if of_table().next().is_none() {
                if let Missing::Refuse(make) = missing {
                    let (place, name) = (&self.place, table.name);
                    return Err(format!("Cassandra at {place} has no table {keyspace}.{name}: {SCRIPTS} {make}"));
                }
                lacks = true;
                continue;
            }
            for (at, (name, wanted)) in table.columns.iter().enumerate() {
                let key = match at {
                    at if at < table.partition => ("partition_key", at as i32),
                    at if at < table.partition + table.clustering => ("clustering", (at - table.partition) as i32),
                    _ => ("regular", -1),
                };
                let found = of_table().find(|(_, column, ..)| column == name);
                let is = match found {
                    None => "is missing".to_owned(),
                    Some((_, _, kind, position, is)) if (kind.as_str(), *position) != key || is != wanted => {
                        format!("is {is} ({kind} {position}) and has to be {wanted} ({} {})", key.0, key.1)
                    }
                    Some(_) => continue,
                };
                return Err(format!(
                    "Cassandra at {}: the column {name} of {keyspace}.{} {is}: the tables are of another release of the chat; \
                     migrate them, or take another --cassandra-keyspace",
                    self.place, table.name
                ));
            }
        }
        Ok(lacks)
    }

    /// Prepares a statement that may be sent twice; `KEYSPACE` in it stands for the keyspace.
    ///
    /// # Errors
    /// It cannot be; one line.
    pub async fn prepare(&self, text: &str) -> Result<PreparedStatement, String> {
        let prepared = self.session.prepare(text.replace("KEYSPACE", &self.keyspace)).await;
        let mut prepared = prepared.map_err(|error| match &error {
            PrepareError::AllAttemptsFailed { first_attempt } => {
                self.attempt_words("preparing a statement", first_attempt)
            }
            other => self.said("preparing a statement", &other.to_string()),
        })?;
        prepared.set_is_idempotent(true);
        prepared.set_page_size(PAGE);
        Ok(prepared)
    }

    /// Executes a prepared statement that answers nothing.
    ///
    /// # Errors
    /// One line, with what to do.
    pub async fn execute(
        &self,
        doing: &str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<(), String> {
        self.retried(doing, || self.session.execute_unpaged(statement, &values)).await.map(drop)
    }

    /// Executes a prepared statement and reads the rows that it answers, which are few.
    ///
    /// # Errors
    /// One line, with what to do.
    pub async fn rows<R>(
        &self,
        doing: &str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Vec<R>, String>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let answer = self.retried(doing, || self.session.execute_unpaged(statement, &values)).await?;
        self.read(doing, answer)
    }

    /// A page of the rows that a prepared statement answers, and where the next one begins; `None`: there is none.
    ///
    /// # Errors
    /// One line, with what to do.
    pub async fn page<R>(
        &self,
        doing: &str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        from: PagingState,
    ) -> Result<(Vec<R>, Option<PagingState>), String>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let page = || self.session.execute_single_page(statement, &values, from.clone());
        let (answer, next) = self.retried(doing, page).await?;
        let next = match next {
            PagingStateResponse::HasMorePages { state } => Some(state),
            PagingStateResponse::NoMorePages => None,
        };
        Ok((self.read(doing, answer)?, next))
    }

    /// Tries again what a node was too busy for: everything that is asked here may be asked twice.
    async fn retried<T, F: Future<Output = Result<T, ExecutionError>>>(
        &self,
        doing: &str,
        attempt: impl FnMut() -> F,
    ) -> Result<T, String> {
        retried(TRIES, is_passing, attempt).await.map_err(|error| self.words(doing, &error))
    }

    fn read<R>(&self, doing: &str, answer: QueryResult) -> Result<Vec<R>, String>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let unreadable = |error: &dyn std::fmt::Display| self.said(doing, &error.to_string());
        let rows = answer.into_rows_result().map_err(|error| unreadable(&error))?;
        let rows = rows.rows::<R>().map_err(|error| unreadable(&error))?;
        rows.collect::<Result<Vec<R>, _>>().map_err(|error| unreadable(&error))
    }

    /// Empties a table.
    ///
    /// # Errors
    /// One line, with what to do.
    pub async fn truncate(&self, table: &str) -> Result<(), String> {
        self.statement(&format!("TRUNCATE {}.{table}", self.keyspace), &format!("emptying {table}")).await
    }

    fn words(&self, doing: &str, error: &ExecutionError) -> String {
        match error {
            ExecutionError::LastAttemptError(attempt) => self.attempt_words(doing, attempt),
            ExecutionError::PrepareError(PrepareError::AllAttemptsFailed { first_attempt }) => {
                self.attempt_words(doing, first_attempt)
            }
            ExecutionError::ConnectionPoolError(_) | ExecutionError::EmptyPlan | ExecutionError::RequestTimeout(_) => {
                self.lost(doing, &error.to_string())
            }
            other => self.said(doing, &other.to_string()),
        }
    }

    fn attempt_words(&self, doing: &str, error: &RequestAttemptError) -> String {
        let (place, keyspace) = (&self.place, &self.keyspace);
        match error {
            RequestAttemptError::BrokenConnectionError(_) => self.lost(doing, &error.to_string()),
            RequestAttemptError::DbError(DbError::Unauthorized, text) => format!(
                "Cassandra at {place} does not allow {doing} ({}): grant {} to the role, or log in as another with \
                 --cassandra-username",
                one_line(text),
                needed(doing, keyspace)
            ),
            RequestAttemptError::DbError(
                DbError::WriteTimeout { .. }
                | DbError::WriteFailure { .. }
                | DbError::ReadTimeout { .. }
                | DbError::ReadFailure { .. }
                | DbError::Unavailable { .. }
                | DbError::Overloaded,
                text,
            ) => format!(
                "Cassandra at {place} could not do its part in {doing} ({}): look at its disk and its log, lower \
                 --writes-in-flight if it is overloaded, and the same command goes on",
                one_line(text)
            ),
            RequestAttemptError::DbError(_, text) => self.said(doing, text),
            other => self.said(doing, &other.to_string()),
        }
    }

    fn lost(&self, doing: &str, why: &str) -> String {
        format!(
            "the connection to Cassandra at {} was lost while {doing} ({}): once it is back, the same command goes on",
            self.place,
            one_line(why)
        )
    }

    fn said(&self, doing: &str, why: &str) -> String {
        format!("Cassandra at {}: {doing}: {}", self.place, one_line(why))
    }
}

/// What a role has to be granted for this.
fn needed(doing: &str, keyspace: &str) -> String {
    match doing {
        MAKING_KEYSPACE => "CREATE on all keyspaces".to_owned(),
        MAKING_TABLES => format!("CREATE, SELECT and MODIFY on keyspace {keyspace}"),
        _ => format!("SELECT and MODIFY on keyspace {keyspace}"),
    }
}

fn unreachable_words(place: &str, why: &str) -> String {
    format!(
        "Cassandra at {place} cannot be reached ({}): start it, or correct --cassandra-hosts and its TLS settings \
         (--cassandra-tls-ca, --cassandra-tls-identity)",
        one_line(why)
    )
}

fn opening_words(place: &str, error: &NewSessionError) -> String {
    let text = error.to_string();
    if text.contains("AuthenticationError") || text.to_lowercase().contains("authenticat") {
        return format!(
            "Cassandra at {place} does not let us in ({}): check --cassandra-username and --cassandra-password",
            one_line(&text)
        );
    }
    unreachable_words(place, &text)
}

/// Whom we take for the cluster, and what we show to it; `None`: nothing was said of TLS.
fn tls(plan: &CassandraPlan) -> Result<Option<ClientConfig>, String> {
    if plan.tls_ca.is_none() && plan.tls_identity.is_none() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    match &plan.tls_ca {
        Some(path) => {
            for certificate in authority("--cassandra-tls-ca", path)? {
                roots.add(certificate).map_err(|error| format!("--cassandra-tls-ca: no CA certificate: {error}"))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let Some(path) = &plan.tls_identity else { return Ok(Some(config.with_no_client_auth())) };
    let flag = "--cassandra-tls-identity";
    let (certificates, key) = identity(flag, path)?;
    let config = config.with_client_auth_cert(certificates, key);
    config.map(Some).map_err(|error| format!("{flag}: certificate and key do not go together: {error}"))
}

/// Writes rows, so many at once.
#[derive(Debug)]
pub struct RowWriter {
    cassandra: Cassandra,
    by_room: PreparedStatement,
    by_id: PreparedStatement,
    reply_by_id: PreparedStatement,
    by_thread: PreparedStatement,
    permits: Semaphore,
}

/// Writes that may be under way.
const FEW: &str = "the semaphore is never closed";

impl RowWriter {
    /// # Errors
    /// A statement cannot be prepared.
    pub async fn new(cassandra: Cassandra, in_flight: usize) -> Result<Self, String> {
        Ok(Self {
            by_room: cassandra.prepare(INSERT_BY_ROOM).await?,
            by_id: cassandra.prepare(INSERT_BY_ID).await?,
            reply_by_id: cassandra.prepare(INSERT_REPLY_BY_ID).await?,
            by_thread: cassandra.prepare(INSERT_BY_THREAD).await?,
            permits: Semaphore::new(in_flight),
            cassandra,
        })
    }

    /// Rows of one partition of `messages_by_room`, in one unlogged batch.
    ///
    /// # Errors
    /// One line, with what to do.
    pub async fn by_room(&self, rows: &[MessageRow]) -> Result<(), String> {
        let values = || rows.iter().map(MessageRow::by_room).collect::<Vec<_>>();
        self.batch("writing to messages_by_room", &self.by_room, rows.len(), values).await
    }

    /// Rows of one partition of `thread_messages_by_thread`, in one unlogged batch.
    ///
    /// # Errors
    /// One line, with what to do.
    pub async fn by_thread(&self, rows: &[ReplyRow]) -> Result<(), String> {
        let values = || rows.iter().map(ReplyRow::by_thread).collect::<Vec<_>>();
        self.batch("writing to thread_messages_by_thread", &self.by_thread, rows.len(), values).await
    }

    /// A row of `messages_by_id`.
    ///
    /// # Errors
    /// One line, with what to do.
    pub async fn by_id(&self, row: &MessageRow) -> Result<(), String> {
        let _permit = self.permits.acquire().await.expect(FEW);
        let write = || self.cassandra.session.execute_unpaged(&self.by_id, row.by_id());
        self.cassandra.retried("writing to messages_by_id", write).await.map(drop)
    }

    /// A row of `messages_by_id`, of a reply.
    ///
    /// # Errors
    /// One line, with what to do.
    pub async fn reply_by_id(&self, row: &ReplyRow) -> Result<(), String> {
        let _permit = self.permits.acquire().await.expect(FEW);
        let write = || self.cassandra.session.execute_unpaged(&self.reply_by_id, row.by_id());
        self.cassandra.retried("writing to messages_by_id", write).await.map(drop)
    }

    async fn batch<V: SerializeRow>(
        &self,
        doing: &str,
        statement: &PreparedStatement,
        rows: usize,
        values: impl Fn() -> Vec<V>,
    ) -> Result<(), String> {
        let mut batch = Batch::new(BatchType::Unlogged);
        (0..rows).for_each(|_| batch.append_statement(statement.clone()));
        batch.set_is_idempotent(true);
        let _permit = self.permits.acquire().await.expect(FEW);
        self.cassandra.retried(doing, || self.cassandra.session.batch(&batch, values())).await.map(drop)
    }
}

/// Whether the same may succeed in a moment.
fn is_passing(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::ConnectionPoolError(_) | ExecutionError::EmptyPlan | ExecutionError::RequestTimeout(_) => true,
        ExecutionError::LastAttemptError(attempt) => matches!(
            attempt,
            RequestAttemptError::BrokenConnectionError(_)
                | RequestAttemptError::DbError(
                    DbError::WriteTimeout { .. }
                        | DbError::ReadTimeout { .. }
                        | DbError::Unavailable { .. }
                        | DbError::Overloaded
                        | DbError::IsBootstrapping,
                    _
                )
        ),
        _ => false,
    }
}
