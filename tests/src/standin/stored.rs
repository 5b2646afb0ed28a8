//! Reads of the history and room services out of the chat's databases, as the services do it: membership and room from MongoDB,
//! messages from Cassandra, bucket after bucket.

use super::config::{Databases, Endpoint};
use super::daily::asker_of_list;
use super::reads::{
    BAD_CURSOR, BAD_PAYLOAD, DEFAULT_LIMIT, Envelope, MOST_LIMIT, NOT_FOUND, NOT_MEMBER, NOT_SUBSCRIBED,
};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};
use mongodb::{Client, Database};
use plimsoll_common::contract::subjects;
use plimsoll_common::contract::time::write_rfc3339;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a read looks at, at most: as the service's `MESSAGE_READ_MAX_BUCKETS`.
const MOST_BUCKETS: i64 = 122;

/// The databases, open.
pub(super) struct Stored {
    mongo: Database,
    cassandra: Session,
    window_ms: i64,
    by_room: PreparedStatement,
    by_id: PreparedStatement,
    by_thread: PreparedStatement,
}

#[derive(scylla::DeserializeValue)]
struct Sender {
    id: Option<String>,
    eng_name: Option<String>,
    account: Option<String>,
}

#[derive(scylla::DeserializeRow)]
struct Row {
    message_id: String,
    room_id: Option<String>,
    created_at: Option<CqlTimestamp>,
    sender: Option<Sender>,
    msg: Option<String>,
    site_id: Option<String>,
    updated_at: Option<CqlTimestamp>,
    thread_room_id: Option<String>,
    tcount: Option<i32>,
    thread_last_msg_at: Option<CqlTimestamp>,
}

/// Of a reply: its table has no columns of a thread of its own.
#[derive(scylla::DeserializeRow)]
struct ReplyRow {
    message_id: String,
    room_id: Option<String>,
    created_at: CqlTimestamp,
    sender: Option<Sender>,
    msg: Option<String>,
    site_id: Option<String>,
    updated_at: Option<CqlTimestamp>,
    thread_room_id: String,
    thread_parent_id: Option<String>,
}

/// An answer to send, or that the databases gave none, which the service says as an internal error.
type Answer = Result<Value, Envelope>;

const INTERNAL: Envelope = ("internal", None, "internal error");

impl Stored {
    /// Opens both.
    ///
    /// # Errors
    /// One is not there, or has no tables.
    pub(super) async fn open(databases: &Databases) -> anyhow::Result<Self> {
        let mongo = Client::with_uri_str(&databases.mongo_uri).await.context("opening MongoDB")?;
        let mut builder =
            SessionBuilder::new().known_nodes(&databases.cassandra_hosts).fetch_full_schema_metadata(false);
        if let Some(user) = &databases.cassandra_username {
            builder = builder.user(user, &databases.cassandra_password);
        }
        let cassandra = builder.build().await.context("opening Cassandra")?;
        let keyspace = &databases.cassandra_keyspace;
        let columns = "message_id, room_id, created_at, sender, msg, site_id, updated_at, thread_room_id, tcount, thread_last_msg_at";
        let by_room = format!(
            "SELECT {columns} FROM {keyspace}.messages_by_room WHERE room_id = ? AND bucket = ? AND created_at < ? LIMIT ?"
        );
        let by_id = format!("SELECT {columns} FROM {keyspace}.messages_by_id WHERE message_id = ?");
        let by_thread = format!(
            "SELECT message_id, room_id, created_at, sender, msg, site_id, updated_at, thread_room_id, thread_parent_id FROM \
             {keyspace}.thread_messages_by_thread WHERE thread_room_id = ? AND created_at < ? LIMIT ?"
        );
        Ok(Self {
            mongo: mongo.database(&databases.mongo_db),
            by_room: cassandra.prepare(by_room).await?,
            by_id: cassandra.prepare(by_id).await?,
            by_thread: cassandra.prepare(by_thread).await?,
            cassandra,
            window_ms: i64::from(databases.bucket_hours) * 3_600_000,
        })
    }

    /// Whether this endpoint is answered from the databases.
    pub(super) fn answers(endpoint: Endpoint) -> bool {
        matches!(endpoint, Endpoint::LoadHistory | Endpoint::GetThread | Endpoint::ReadReceipt | Endpoint::ListRooms)
    }

    pub(super) async fn answer(&self, endpoint: Endpoint, site: &str, subject: &str, body: &[u8]) -> Answer {
        if endpoint == Endpoint::ListRooms {
            return self.list(asker_of_list(subject, site).ok_or(BAD_PAYLOAD)?, body).await;
        }
        let asked = subjects::parse_room_request(subject, site, endpoint.operation());
        let (asker, room_id) = asked.ok_or(BAD_PAYLOAD)?;
        let body: Value = serde_json::from_slice(body).map_err(|_| BAD_PAYLOAD)?;
        let is_member = self.find("subscriptions", doc! { "roomId": room_id, "u.account": asker }).await?;
        if is_member.is_none() {
            return Err(if endpoint == Endpoint::ReadReceipt { NOT_MEMBER } else { NOT_SUBSCRIBED });
        }
        let limit = match body.get("limit").and_then(Value::as_i64) {
            Some(limit) if limit > 0 => limit.unsigned_abs().min(MOST_LIMIT),
            _ => DEFAULT_LIMIT,
        };
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
        match endpoint {
            Endpoint::LoadHistory => self.page(room_id, body.get("before").and_then(Value::as_i64), limit).await,
            Endpoint::GetThread => {
                self.thread(text("threadMessageId"), body.get("cursor").and_then(Value::as_str), limit).await
            }
            _ => self.readers(room_id, asker, text("messageId")).await,
        }
    }

    /// The rooms of whoever asks: as the service does, by the type in the subscription.
    async fn list(&self, asker: &str, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).map_err(|_| BAD_PAYLOAD)?;
        if !matches!(body.get("type").and_then(Value::as_str), Some("rooms" | "current")) {
            return Err(("bad_request", None, "unknown subscription type"));
        }
        let filter = doc! { "u.account": asker, "roomType": { "$in": ["dm", "channel"] } };
        let found = self.mongo.collection::<Document>("subscriptions").find(filter).limit(1000).await;
        let found: Vec<Document> = found.map_err(internal)?.try_collect().await.map_err(internal)?;
        let text = |document: &Document, key: &str| document.get_str(key).unwrap_or_default().to_owned();
        let row = |document: &Document| {
            json!({
                "id": text(document, "_id"), "roomId": text(document, "roomId"), "siteId": text(document, "siteId"),
                "name": text(document, "name"), "roomType": text(document, "roomType"),
                "u": {"account": asker, "isBot": false}, "hasMention": false, "alert": false, "muted": false, "favorite": false,
            })
        };
        let rows: Vec<Value> = found.iter().map(row).collect();
        let total = rows.len();
        Ok(json!({"subscriptions": rows, "total": total}))
    }

    async fn find(&self, collection: &str, filter: Document) -> Result<Option<Document>, Envelope> {
        self.mongo.collection::<Document>(collection).find_one(filter).await.map_err(internal)
    }

    /// Newest first, exclusive before, down to the room's beginning; no newer than its last message.
    async fn page(&self, room_id: &str, before: Option<i64>, limit: u64) -> Answer {
        let room = self.find("rooms", doc! { "_id": room_id }).await?.ok_or(("not_found", None, "room not found"))?;
        let time = |key: &str| room.get_datetime(key).ok().map(|time| time.timestamp_millis());
        let made = time("createdAt").unwrap_or(0);
        let newest = time("lastMsgAt").unwrap_or(made) + 1;
        let before = before.unwrap_or_else(now_ms).min(newest);
        let mut bucket = before.div_euclid(self.window_ms) * self.window_ms;
        let mut messages: Vec<Value> = Vec::new();
        for _ in 0..MOST_BUCKETS {
            let left = limit as usize - messages.len();
            if left == 0 || bucket + self.window_ms <= made {
                break;
            }
            let rows: Vec<Row> = self.rows(&self.by_room, (room_id, bucket, CqlTimestamp(before), left as i32)).await?;
            messages.extend(rows.into_iter().map(Row::into_json));
            bucket -= self.window_ms;
        }
        Ok(json!({ "messages": messages }))
    }

    async fn thread(&self, parent: &str, cursor: Option<&str>, limit: u64) -> Answer {
        let before = match cursor {
            None => i64::MAX / 2,
            Some(cursor) => BASE64
                .decode(cursor)
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .map(i64::from_be_bytes)
                .ok_or(BAD_CURSOR)?,
        };
        let rows: Vec<Row> = self.rows(&self.by_id, (parent,)).await?;
        let row = rows.into_iter().next().ok_or(NOT_FOUND)?;
        let thread = row.thread_room_id.clone().unwrap_or_default();
        let mut replies: Vec<ReplyRow> = match thread.is_empty() {
            true => Vec::new(),
            false => self.rows(&self.by_thread, (&thread, CqlTimestamp(before), limit as i32 + 1)).await?,
        };
        let has_next = replies.len() as u64 > limit;
        replies.truncate(limit as usize);
        let next = replies.last().map(|reply| BASE64.encode(reply.created_at.0.to_be_bytes()));
        let messages: Vec<Value> = replies.into_iter().map(ReplyRow::into_json).collect();
        let mut answer = json!({"messages": messages, "hasNext": has_next, "parentMessage": row.into_json()});
        if let (true, Some(next)) = (has_next, next) {
            answer["nextCursor"] = json!(next);
        }
        Ok(answer)
    }

    async fn readers(&self, room_id: &str, asker: &str, message: &str) -> Answer {
        let rows: Vec<Row> = self.rows(&self.by_id, (message,)).await?;
        let row = rows.into_iter().find(|row| row.room_id.as_deref() == Some(room_id)).ok_or(NOT_FOUND)?;
        let author = row.sender.and_then(|sender| sender.account).unwrap_or_default();
        if author != asker {
            return Err(("forbidden", None, "only the message sender can view read receipts"));
        }
        let since = mongodb::bson::DateTime::from_millis(row.created_at.map_or(0, |at| at.0));
        let filter = doc! { "roomId": room_id, "lastSeenAt": { "$gte": since }, "u.account": { "$ne": &author } };
        let found = self.mongo.collection::<Document>("subscriptions").find(filter).await.map_err(internal)?;
        let found: Vec<Document> = found.try_collect().await.map_err(internal)?;
        let ids = found.iter().filter_map(|one| one.get_document("u").ok()?.get_str("_id").ok());
        let ids: Vec<&str> = ids.collect();
        let users = self.mongo.collection::<Document>("users").find(doc! { "_id": { "$in": ids } }).await;
        let users: Vec<Document> = users.map_err(internal)?.try_collect().await.map_err(internal)?;
        let text = |user: &Document, key: &str| user.get_str(key).unwrap_or_default().to_owned();
        let reader = |user: &Document| {
            json!({
                "userId": text(user, "_id"), "account": text(user, "account"),
                "chineseName": text(user, "chineseName"), "engName": text(user, "engName"),
            })
        };
        Ok(json!({ "readers": users.iter().map(reader).collect::<Vec<_>>() }))
    }

    async fn rows<R>(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<Vec<R>, Envelope>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let answer = self.cassandra.execute_unpaged(statement, values).await.map_err(internal)?;
        let rows = answer.into_rows_result().map_err(internal)?;
        rows.rows::<R>().map_err(internal)?.collect::<Result<_, _>>().map_err(internal)
    }
}

fn internal(error: impl std::fmt::Display) -> Envelope {
    tracing::warn!(%error, "a database did not answer");
    INTERNAL
}

impl Row {
    fn into_json(self) -> Value {
        let mut message = message(self.room_id, self.created_at, &self.message_id, self.sender, self.msg, self.site_id);
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                message[key] = value;
            }
        };
        put("updatedAt", self.updated_at.map(time));
        put("tcount", self.tcount.map(|count| json!(count)));
        put("threadLastMsgAt", self.thread_last_msg_at.map(time));
        put("threadRoomId", self.thread_room_id.filter(|id| !id.is_empty()).map(|id| json!(id)));
        message
    }
}

impl ReplyRow {
    fn into_json(self) -> Value {
        let at = Some(self.created_at);
        let mut message = message(self.room_id, at, &self.message_id, self.sender, self.msg, self.site_id);
        message["threadRoomId"] = json!(self.thread_room_id);
        message["threadParentId"] = json!(self.thread_parent_id);
        if let Some(at) = self.updated_at {
            message["updatedAt"] = time(at);
        }
        message
    }
}

fn message(
    room_id: Option<String>,
    created_at: Option<CqlTimestamp>,
    id: &str,
    sender: Option<Sender>,
    msg: Option<String>,
    site_id: Option<String>,
) -> Value {
    let sender =
        sender.map(|Sender { id, eng_name, account }| json!({"id": id, "engName": eng_name, "account": account}));
    json!({
        "roomId": room_id, "createdAt": created_at.map(time), "messageId": id, "sender": sender, "msg": msg, "siteId": site_id,
    })
}

fn time(at: CqlTimestamp) -> Value {
    let mut text = String::new();
    write_rfc3339(&mut text, at.0.unsigned_abs() * 1_000_000).expect("a String takes everything");
    json!(text)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
