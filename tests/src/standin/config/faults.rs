//! What a stage does wrong, all the time.

use std::num::NonZeroU64;
use std::str::FromStr;

use anyhow::Context as _;

/// What the gatekeeper does wrong. "Every n-th" counts the sends that it looks at, from the first.
#[derive(Debug, Clone, Default)]
pub struct GateFaults {
    /// Refuses every n-th valid send.
    pub reject: Option<(NonZeroU64, Refusal)>,
    /// Accepts every n-th and does not say so.
    pub skip_reply_every: Option<NonZeroU64>,
    /// Says something that is no JSON instead of every n-th reply.
    pub garbage_reply_every: Option<NonZeroU64>,
    /// Sends every n-th reply twice.
    pub duplicate_reply_every: Option<NonZeroU64>,
    /// After every n-th reply, answers a request that nobody made, on the same account's response subject.
    pub foreign_reply_every: Option<NonZeroU64>,
}

/// What the broadcast worker does wrong, or the room worker with member events.
#[derive(Debug, Clone, Default)]
pub struct BroadcastFaults {
    /// Keeps every n-th message to itself; 1 drops all.
    pub drop_every: Option<NonZeroU64>,
    /// Keeps this fraction of messages to itself, drawn from the seed; 0 to 1.
    pub drop_fraction: f64,
    /// Broadcasts every n-th message twice.
    pub duplicate_every: Option<NonZeroU64>,
    /// After every n-th, broadcasts a message that nobody sent, to the same room.
    pub foreign_every: Option<NonZeroU64>,
}

/// A reason for which a service refuses, with the chat's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotSubscribed,
    LargeRoom,
    ContentEmpty,
    ContentTooLong,
    MessageId,
    Unmarshal,
    Unavailable,
    Internal,
    ParentId,
    ParentNotFound,
    NotRoomMember,
    UserNotFound,
    AlreadyMember,
}

impl Refusal {
    pub const ALL: [Self; 13] = [
        Self::NotSubscribed,
        Self::LargeRoom,
        Self::ContentEmpty,
        Self::ContentTooLong,
        Self::MessageId,
        Self::Unmarshal,
        Self::Unavailable,
        Self::Internal,
        Self::ParentId,
        Self::ParentNotFound,
        Self::NotRoomMember,
        Self::UserNotFound,
        Self::AlreadyMember,
    ];

    /// Code, reason and text of the envelope.
    pub const fn envelope(self) -> (&'static str, Option<&'static str>, &'static str) {
        match self {
            Self::NotSubscribed => ("forbidden", Some("not_subscribed"), "not subscribed"),
            Self::LargeRoom => (
                "forbidden",
                Some("large_room_post_restricted"),
                "posting is restricted to owners and admins in this room",
            ),
            Self::ContentEmpty => ("bad_request", None, "content must not be empty"),
            Self::ContentTooLong => ("bad_request", None, "content exceeds maximum size of 20480 bytes"),
            Self::MessageId => ("bad_request", None, "invalid message ID: must be a 20-char base62 string"),
            Self::Unmarshal => ("bad_request", None, "unmarshal send message request"),
            Self::Unavailable => ("unavailable", None, "fetch quoted parent message"),
            Self::Internal => ("internal", None, "internal error"),
            Self::ParentId => {
                ("bad_request", None, "invalid thread parent message ID: must be a 20-char base62 string")
            }
            Self::ParentNotFound => ("not_found", None, "message not found"),
            Self::NotRoomMember => ("forbidden", Some("not_room_member"), "only room members can perform this action"),
            Self::UserNotFound => ("not_found", Some("user_not_found"), "user not found"),
            Self::AlreadyMember => ("conflict", Some("already_member"), "user is already a member of the room"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::NotSubscribed => "not_subscribed",
            Self::LargeRoom => "large_room_post_restricted",
            Self::ContentEmpty => "content_empty",
            Self::ContentTooLong => "content_too_long",
            Self::MessageId => "message_id",
            Self::Unmarshal => "unmarshal",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::ParentId => "parent_id",
            Self::ParentNotFound => "parent_not_found",
            Self::NotRoomMember => "not_room_member",
            Self::UserNotFound => "user_not_found",
            Self::AlreadyMember => "already_member",
        }
    }
}

impl FromStr for Refusal {
    type Err = anyhow::Error;

    fn from_str(given: &str) -> anyhow::Result<Self> {
        Self::ALL
            .into_iter()
            .find(|refusal| refusal.name() == given)
            .with_context(|| format!("unknown reason {given:?}: there are {}", Self::ALL.map(Refusal::name).join(", ")))
    }
}
