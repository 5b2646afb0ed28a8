//! The requests that services answer, and how each behaves.

use std::num::NonZeroU64;

use plimsoll_common::contract::subjects;

use super::{Refusal, StageConfig};

/// A request that the history, the room or the user service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    LoadHistory,
    GetThread,
    MarkRead,
    ReadReceipt,
    AddMembers,
    ListRooms,
    CreateRoom,
    ToggleMute,
}

impl Endpoint {
    pub const ALL: [Self; 8] = [
        Self::LoadHistory,
        Self::GetThread,
        Self::MarkRead,
        Self::ReadReceipt,
        Self::AddMembers,
        Self::ListRooms,
        Self::CreateRoom,
        Self::ToggleMute,
    ];

    /// The end of its subjects.
    pub const fn operation(self) -> &'static str {
        match self {
            Self::LoadHistory => subjects::LOAD_HISTORY,
            Self::GetThread => subjects::GET_THREAD,
            Self::MarkRead => subjects::MARK_READ,
            Self::ReadReceipt => subjects::READ_RECEIPT,
            Self::AddMembers => subjects::ADD_MEMBERS,
            Self::ListRooms => subjects::LIST_ROOMS,
            Self::CreateRoom => "create",
            Self::ToggleMute => subjects::TOGGLE_MUTE,
        }
    }

    /// The queue group of the service that answers it.
    pub const fn service(self) -> &'static str {
        match self {
            Self::LoadHistory | Self::GetThread => "history-service",
            Self::MarkRead | Self::ReadReceipt | Self::AddMembers | Self::CreateRoom | Self::ToggleMute => {
                "room-service"
            }
            Self::ListRooms => "user-service",
        }
    }

    /// All its requests at a site.
    pub fn wildcard(self, site: &str) -> String {
        match self {
            Self::ListRooms => subjects::user_request("*", site, self.operation()),
            Self::CreateRoom => subjects::create_room("*", site),
            _ => subjects::room_request_wildcard(site, self.operation()),
        }
    }
}

/// How an endpoint behaves. "Every n-th" counts the requests that it answers, from the first.
#[derive(Debug, Clone, Default)]
pub struct EndpointConfig {
    /// How fast it is.
    pub speed: StageConfig,
    /// Answers every n-th request with an error envelope.
    pub reject: Option<(NonZeroU64, Refusal)>,
    /// Does not answer every n-th request.
    pub skip_every: Option<NonZeroU64>,
    /// Says something that is no JSON instead of every n-th answer.
    pub garbage_every: Option<NonZeroU64>,
    /// Sends every n-th answer twice.
    pub duplicate_every: Option<NonZeroU64>,
    /// With every n-th answer, answers a request that nobody made, to the same inbox.
    pub foreign_every: Option<NonZeroU64>,
}
