//! The JSON of the message pipeline: what each body holds.
//!
//! The hot path neither builds nor parses these types: [`write`](super::write) makes bodies from parts, and
//! [`read`](super::read) finds what a client needs in an answer. A test holds them together.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

pub use super::read::{Ack, broadcast_message_id, classify_ack};
pub use super::write::{write_canonical_event, write_send_request};

/// The longest content the gatekeeper accepts, in bytes of UTF-8.
pub const MAX_CONTENT_BYTES: usize = 20_480;

/// Body of a send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SendRequest<'a> {
    /// 20 characters of `[0-9A-Za-z]`, chosen by the client.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// At most [`MAX_CONTENT_BYTES`].
    #[serde(borrow, default)]
    pub content: Cow<'a, str>,
    /// A hyphenated UUID; the answer's subject ends in it.
    #[serde(borrow, default)]
    pub request_id: Cow<'a, str>,
    /// The message that this one quotes; the gatekeeper looks it up and refuses where it is not to be had.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub quoted_parent_message_id: Option<Cow<'a, str>>,
    /// The message that this one replies to in a thread.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub thread_parent_message_id: Option<Cow<'a, str>>,
}

/// A message as the gatekeeper has accepted it: its answer to a send, and part of the canonical event and the broadcast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub room_id: Cow<'a, str>,
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    #[serde(borrow)]
    pub user_account: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user_display_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub content: Cow<'a, str>,
    /// When the gatekeeper accepted it, RFC 3339 in UTC.
    #[serde(borrow)]
    pub created_at: Cow<'a, str>,
    /// The message that this one replies to in a thread.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub thread_parent_message_id: Option<Cow<'a, str>>,
    /// Who sent it; in broadcasts only.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Participant<'a>>,
}

/// A person in a broadcast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Participant<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub account: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub chinese_name: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub eng_name: Option<Cow<'a, str>>,
}

/// Body of `chat.msg.canonical.{site}.created`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanonicalEvent<'a> {
    /// `created` for a new message.
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    #[serde(borrow)]
    pub message: Message<'a>,
    #[serde(borrow)]
    pub site_id: Cow<'a, str>,
    /// The gatekeeper's clock, Unix milliseconds.
    pub timestamp: u64,
}

/// Body of a broadcast. Other types than `new_message` share its subjects and have no `lastMsgId`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomEvent<'a> {
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub room_id: Cow<'a, str>,
    /// The broadcast worker's clock, Unix milliseconds.
    pub timestamp: u64,
    /// The canonical event's clock, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_timestamp: Option<u64>,
    #[serde(borrow)]
    pub room_name: Cow<'a, str>,
    /// `channel` or `dm`.
    #[serde(borrow)]
    pub room_type: Cow<'a, str>,
    #[serde(borrow)]
    pub site_id: Cow<'a, str>,
    pub user_count: u64,
    #[serde(borrow)]
    pub last_msg_at: Cow<'a, str>,
    /// The id of the message that this event broadcasts.
    #[serde(borrow)]
    pub last_msg_id: Cow<'a, str>,
    /// Absent when encrypted.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub encrypted_message: Option<EncryptedMessage<'a>>,
}

/// A message under its room's key: AES-256-GCM without additional data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptedMessage<'a> {
    /// Version of the key.
    pub version: u32,
    /// 12 bytes, standard padded base64.
    #[serde(borrow)]
    pub nonce: Cow<'a, str>,
    /// The JSON of the message, encrypted, and the tag of 16 bytes; standard padded base64.
    #[serde(borrow)]
    pub ciphertext: Cow<'a, str>,
}

/// Body of an answer that refuses. An answer is a refusal exactly if `error` is a text that is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEnvelope {
    /// `bad_request`, `forbidden`, `not_found`, `unavailable`, `internal`, …
    #[serde(default)]
    pub code: String,
    /// Finer than the code: `not_subscribed`, `large_room_post_restricted`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people.
    pub error: String,
}
