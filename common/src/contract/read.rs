//! What a client needs from an answer, found without parsing all of it where that is safe.
//!
//! Both readers first look for the shape that the chat's encoder produces. Whatever differs from it in spacing, order or
//! escapes is parsed in full, so the quick look can be wrong only about bytes that are not JSON at all.

use super::payload::ErrorEnvelope;
use memchr::{memchr, memmem};
use serde::Deserialize;
use std::borrow::Cow;

/// What an answer to a send says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ack {
    /// The message was accepted.
    Accepted,
    /// The service refused, in its own words.
    Refused { code: String, reason: Option<String>, error: String },
    /// Not an answer to a send: no JSON object, or one with neither an error nor a message id.
    Unreadable,
}

/// Reads an answer to a send.
pub fn classify_ack(payload: &[u8]) -> Ack {
    const OPENING: &[u8] = b"{\"id\":\"";
    let quick = payload.starts_with(OPENING)
        && payload.ends_with(b"}")
        && payload.get(OPENING.len()) != Some(&b'"')
        // An escape could spell `error` in another way.
        && memchr(b'\\', payload).is_none()
        && memmem::find(payload, b"\"error\"").is_none();
    if quick { Ack::Accepted } else { parse_ack(payload) }
}

fn parse_ack(payload: &[u8]) -> Ack {
    // Only an error that is a text counts, and a missing one is not a parsing error: hence `Value`.
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_slice(payload) else {
        return Ack::Unreadable;
    };
    if matches!(fields.get("error"), Some(serde_json::Value::String(error)) if !error.is_empty()) {
        let mut text = |key: &str| match fields.remove(key) {
            Some(serde_json::Value::String(text)) => Some(text),
            _ => None,
        };
        return Ack::Refused {
            code: text("code").unwrap_or_default(),
            reason: text("reason"),
            error: text("error").unwrap_or_default(),
        };
    }
    match fields.get("id") {
        Some(serde_json::Value::String(id)) if !id.is_empty() => Ack::Accepted,
        _ => Ack::Unreadable,
    }
}

/// What a reply to a request says at first sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// What was asked for.
    Accepted,
    /// An error envelope: `error` is a text that is not empty.
    Refused,
    /// Neither.
    Unreadable,
}

/// A page of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Page {
    /// Messages in it.
    pub rows: u64,
    /// When the last of them, which is the oldest, was written, in Unix milliseconds.
    pub oldest_ms: Option<u64>,
}

/// Fields that a reply may have; whatever else is skipped without being built.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow)]
    error: Lenient<'a>,
    #[serde(borrow)]
    status: Lenient<'a>,
    messages: Option<Rows>,
    readers: Option<Rows>,
    subscriptions: Option<Rows>,
}

/// A text, or anything else, which reads as none.
#[derive(Default)]
struct Lenient<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Lenient<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either<'a> {
            Text(#[serde(borrow)] Cow<'a, str>),
            Other(serde::de::IgnoredAny),
        }
        Ok(Self(match Either::deserialize(deserializer)? {
            Either::Text(text) => Some(text),
            Either::Other(_) => None,
        }))
    }
}

/// The number of rows, and what the last one says of its time.
struct Rows(Page);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Rows;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of objects")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Rows, A::Error> {
                #[derive(Deserialize)]
                struct Row<'a> {
                    #[serde(rename = "createdAt", borrow, default)]
                    created_at: Option<Cow<'a, str>>,
                }
                let mut page = Page::default();
                while let Some(row) = list.next_element::<Row<'de>>()? {
                    page.rows += 1;
                    page.oldest_ms = row.created_at.as_deref().and_then(super::time::parse_rfc3339_ms);
                }
                Ok(Rows(page))
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}

fn fields(payload: &[u8]) -> Result<Fields<'_>, Answer> {
    let fields: Fields<'_> = serde_json::from_slice(payload).map_err(|_| Answer::Unreadable)?;
    match &fields.error.0 {
        Some(error) if !error.is_empty() => Err(Answer::Refused),
        _ => Ok(fields),
    }
}

fn of_rows(rows: Option<Rows>) -> (Answer, Option<Page>) {
    rows.map_or((Answer::Unreadable, None), |Rows(page)| (Answer::Accepted, Some(page)))
}

/// Reads a page of a room's history or of a thread, newest first.
pub fn read_page(payload: &[u8]) -> (Answer, Option<Page>) {
    fields(payload).map_or_else(|answer| (answer, None), |fields| of_rows(fields.messages))
}

/// Reads who has read a message: how many they are.
pub fn read_readers(payload: &[u8]) -> (Answer, Option<u64>) {
    let (answer, page) = fields(payload).map_or_else(|answer| (answer, None), |fields| of_rows(fields.readers));
    (answer, page.map(|page| page.rows))
}

/// Reads the reply of an operation that answers with a status: `{"status":"accepted"}`.
pub fn classify_status(payload: &[u8]) -> Answer {
    match fields(payload) {
        Err(answer) => answer,
        Ok(Fields { status: Lenient(Some(status)), .. }) if !status.is_empty() => Answer::Accepted,
        Ok(_) => Answer::Unreadable,
    }
}

/// Reads a list of rooms: one without any is no answer.
pub fn read_list(payload: &[u8]) -> Answer {
    match fields(payload) {
        Err(answer) => answer,
        Ok(Fields { subscriptions: Some(Rows(page)), .. }) if page.rows > 0 => Answer::Accepted,
        Ok(_) => Answer::Unreadable,
    }
}

/// Reads the result of a job that was accepted before: `{"operation":"room.create","status":"ok",…}`.
pub fn classify_job(payload: &[u8]) -> Answer {
    match fields(payload) {
        Err(answer) => answer,
        Ok(Fields { status: Lenient(Some(status)), .. }) if status == "ok" => Answer::Accepted,
        Ok(Fields { status: Lenient(Some(status)), .. }) if status == "error" => Answer::Refused,
        Ok(_) => Answer::Unreadable,
    }
}

impl From<ErrorEnvelope> for Ack {
    fn from(envelope: ErrorEnvelope) -> Self {
        Self::Refused { code: envelope.code, reason: envelope.reason, error: envelope.error }
    }
}

/// The id of the message that a broadcast carries; none for events of another type and for what is no event.
///
/// An id that is spelled with JSON escapes is none of ours (message ids are base62) and reads as none.
pub fn broadcast_message_id(payload: &[u8]) -> Option<&[u8]> {
    if begins_as_another_type(payload) {
        return None;
    }
    quick_message_id(payload).or_else(|| parse_message_id(payload))
}

/// Whether an event says first of all that it is of another type, in so many words: of those that share the subjects the most come
/// to large rooms, to every connection in them.
fn begins_as_another_type(payload: &[u8]) -> bool {
    const OPENING: &[u8] = b"{\"type\":\"";
    let Some(rest) = payload.strip_prefix(OPENING) else { return false };
    let kind = memchr(b'"', rest).map(|end| &rest[..end]);
    kind.is_some_and(|kind| kind != b"new_message" && memchr(b'\\', kind).is_none())
}

/// Whether a broadcast is of a message that the service itself wrote, such as `members_added`: its message has a type. One whose
/// message is encrypted is none.
pub fn is_system_message(payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        message: Message<'a>,
    }
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
    }
    serde_json::from_slice(payload).is_ok_and(|event: Event<'_>| !event.message.kind.is_empty())
}

fn quick_message_id(payload: &[u8]) -> Option<&[u8]> {
    const OPENING: &[u8] = b"{\"type\":\"new_message\",";
    const KEY: &[u8] = b"\"lastMsgId\":\"";
    if !payload.starts_with(OPENING) || !payload.ends_with(b"}") {
        return None;
    }
    let key = memmem::find(payload, KEY)?;
    // A brace before it could mean that the key belongs to a nested object, an escape that the match began in a string.
    if memchr::memchr2(b'{', b'\\', &payload[1..key]).is_some() {
        return None;
    }
    let rest = &payload[key + KEY.len()..];
    let id = &rest[..memchr(b'"', rest)?];
    (!id.is_empty() && memchr(b'\\', id).is_none()).then_some(id)
}

fn parse_message_id(payload: &[u8]) -> Option<&[u8]> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        #[serde(rename = "lastMsgId", borrow)]
        last_msg_id: Cow<'a, str>,
    }
    let event: Event<'_> = serde_json::from_slice(payload).ok()?;
    match event.last_msg_id {
        Cow::Borrowed(id) if event.kind == "new_message" && !id.is_empty() => Some(id.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::{EncryptedMessage, Message, RoomEvent};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn refused(code: &str, reason: Option<&str>, error: &str) -> Ack {
        Ack::Refused { code: code.into(), reason: reason.map(Into::into), error: error.into() }
    }

    #[test]
    fn acks_of_the_contract() {
        let message = json!({"id": "0aZ9kLmN3pQrS7tUvWxY", "roomId": "room-000002", "content": "hello"});
        let forbidden = br#"{"code":"forbidden","reason":"not_subscribed","error":"not subscribed to room"}"#;
        for (payload, expected) in [
            (message.to_string().as_bytes(), Ack::Accepted),
            (br#"{"id":"x","error":""}"#, Ack::Accepted),
            (br#"{"id":"x","error":null}"#, Ack::Accepted),
            (br#"{"id":"x","content":"the \"error\" of my ways"}"#, Ack::Accepted),
            (br#" { "content":"a", "id" : "x" } "#, Ack::Accepted),
            (forbidden, refused("forbidden", Some("not_subscribed"), "not subscribed to room")),
            (br#"{"code":"internal","error":"internal error"}"#, refused("internal", None, "internal error")),
            (br#"{"id":"x","error":"late"}"#, refused("", None, "late")),
            (br#"{"id":"x","\u0065rror":"spelled"}"#, refused("", None, "spelled")),
            (br#"{"requestId":"r","operation":"room.create","status":"ok"}"#, Ack::Unreadable),
            (br#"{"stream":"MESSAGES_s","seq":1}"#, Ack::Unreadable),
            (br#"{"id":""}"#, Ack::Unreadable),
            (br#"{"id":7}"#, Ack::Unreadable),
            (b"[]", Ack::Unreadable),
            (b"", Ack::Unreadable),
            (b"\xff\x00", Ack::Unreadable),
        ] {
            assert_eq!(classify_ack(payload), expected, "{}", String::from_utf8_lossy(payload));
        }
    }

    #[test]
    fn only_new_messages_have_an_id() {
        for (payload, expected) in [
            (&br#"{"type":"new_message","lastMsgId":"abc"}"#[..], Some(&b"abc"[..])),
            (br#"{ "lastMsgId" : "abc", "type" : "new_message" }"#, Some(b"abc")),
            (br#"{"type":"new_message","x":{"lastMsgId":"no"},"lastMsgId":"abc"}"#, Some(b"abc")),
            (br#"{"type":"new_message","roomName":"\"lastMsgId\":\"no\"","lastMsgId":"abc"}"#, Some(b"abc")),
            (br#"{"type":"new_message","last\u004dsgId":"abc"}"#, Some(b"abc")),
            (br#"{"type":"message_edited","lastMsgId":"abc"}"#, None),
            (br#"{"type":"thread_metadata_updated","roomId":"r","replyMessageId":"abc"}"#, None),
            (br#"{"type":"new\u005fmessage","lastMsgId":"abc"}"#, Some(b"abc")),
            (br#"{"type":"new_message","lastMsgId":""}"#, None),
            (br#"{"type":"new_message","lastMsgId":"a\u0062c"}"#, None),
            (br#"{"type":"new_message"}"#, None),
            (br#"{"type":"new_message","lastMsgId":"abc"#, None),
            (b"new_message", None),
            (b"", None),
        ] {
            assert_eq!(broadcast_message_id(payload), expected, "{}", String::from_utf8_lossy(payload));
        }
    }

    #[test]
    fn replies_of_the_read_services() {
        let page = |rows, oldest_ms| (Answer::Accepted, Some(Page { rows, oldest_ms }));
        let rows = br#"{"messages":[{"roomId":"r","createdAt":"2026-06-28T03:29:14.124Z","sender":{"id":"u"}},
            {"createdAt":"2026-06-28T03:29:14.123Z","msg":"\"error\""}],"minUserLastSeenAt":1782617000000}"#;
        assert_eq!(read_page(rows), page(2, Some(1_782_617_354_123)));
        assert_eq!(read_page(br#"{"messages":[],"hasNext":false,"parentMessage":{"error":"x"}}"#), page(0, None));
        let forbidden = br#"{"code":"forbidden","reason":"not_subscribed","error":"not subscribed to room"}"#;
        assert_eq!(read_page(forbidden), (Answer::Refused, None));
        assert_eq!(read_page(br#"{"error":"no","messages":[]}"#), (Answer::Refused, None));
        for junk in [&b"{}"[..], b"", b"[]", b"{\"messages\":7}", b"{\"messages\":[1]}", b"{\"status\":\"accepted\"}"] {
            assert_eq!(read_page(junk), (Answer::Unreadable, None), "{}", String::from_utf8_lossy(junk));
        }
        assert_eq!(read_readers(br#"{"readers":[{"userId":"u","account":"a"}]}"#), (Answer::Accepted, Some(1)));
        assert_eq!(read_readers(forbidden), (Answer::Refused, None));
        assert_eq!(classify_status(br#"{"status":"accepted"}"#), Answer::Accepted);
        assert_eq!(classify_status(br#"{"status":"accepted","error":null}"#), Answer::Accepted);
        assert_eq!(classify_status(forbidden), Answer::Refused);
        for junk in [&b"{}"[..], b"accepted", br#"{"status":""}"#, br#"{"status":1}"#] {
            assert_eq!(classify_status(junk), Answer::Unreadable);
        }
    }

    /// Objects that look like answers and events, in any order, nested, and with what JSON must escape.
    fn objects() -> impl Strategy<Value = String> {
        let keys = ["id", "error", "code", "type", "lastMsgId", "content", "message"];
        let texts = prop_oneof![
            Just("new_message".to_owned()),
            Just(String::new()),
            "[0-9A-Za-z]{20}",
            "\\PC{0,20}",
            Just("\"error\" {\"lastMsgId\":\"x\"} \\".to_owned()),
        ];
        let leaf = prop_oneof![texts.prop_map(Value::from), any::<u8>().prop_map(Value::from), Just(Value::Null)];
        let value = leaf.prop_recursive(2, 12, 4, move |inner| {
            prop::collection::vec((prop::sample::select(keys.to_vec()), inner), 0..5)
                .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        });
        let field = (prop::sample::select(keys.to_vec()), value);
        // Written by hand, because a map would sort the keys and the order is what matters here.
        prop::collection::vec(field, 0..6).prop_map(|fields| {
            let mut seen = std::collections::HashSet::new();
            let fields: Vec<String> = fields
                .into_iter()
                .filter(|(key, _)| seen.insert(*key))
                .map(|(key, value)| format!("\"{key}\":{value}"))
                .collect();
            format!("{{{}}}", fields.join(","))
        })
    }

    proptest! {
        #[test]
        fn the_quick_look_agrees_with_the_full_parse(object in objects()) {
            prop_assert_eq!(classify_ack(object.as_bytes()), parse_ack(object.as_bytes()));
            prop_assert_eq!(broadcast_message_id(object.as_bytes()), parse_message_id(object.as_bytes()));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, object in objects(), cut: prop::sample::Index) {
            classify_ack(&bytes);
            broadcast_message_id(&bytes);
            let cut = &object.as_bytes()[..cut.index(object.len())];
            prop_assert_eq!(classify_ack(cut), Ack::Unreadable);
            broadcast_message_id(cut);
        }

        #[test]
        fn a_broadcast_names_its_message_encrypted_or_not(id in "[0-9A-Za-z]{20}", name in "\\PC{0,12}", encrypted: bool) {
            let message = Message {
                id: id.as_str().into(), room_id: "r".into(), user_id: "u".into(), user_account: "a".into(),
                user_display_name: None, content: name.as_str().into(), created_at: "t".into(), thread_parent_message_id: None, sender: None,
            };
            let secret = EncryptedMessage { version: 0, nonce: "n".into(), ciphertext: "c".into() };
            let event = RoomEvent {
                kind: "new_message".into(), room_id: "r".into(), timestamp: 1, event_timestamp: None,
                room_name: name.as_str().into(), room_type: "channel".into(), site_id: "s".into(), user_count: 2,
                last_msg_at: "t".into(), last_msg_id: id.as_str().into(),
                message: (!encrypted).then_some(message), encrypted_message: encrypted.then_some(secret),
            };
            let bytes = serde_json::to_vec(&event).unwrap();
            prop_assert_eq!(broadcast_message_id(&bytes), Some(id.as_bytes()));
            prop_assert_eq!(serde_json::from_slice::<RoomEvent>(&bytes).unwrap(), event);
        }
    }
}
